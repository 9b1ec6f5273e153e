"""STARTTLS, LOGIN, AUTHENTICATE (RFC 3501 §6.2): who may come in, and how."""

from __future__ import annotations

import base64
from typing import NamedTuple

from letterlock import sasl
from letterlock.base.errors import Malformed, Refused
from letterlock.base.values import Protocol
from letterlock.imap import reply
from letterlock.imap.reader import Args
from letterlock.imap.session import MAX_FAILED_LOGINS, Done, ImapSession
from letterlock.policy.login import LOGIN_COMMAND, LoginAttempt, Mechanism, decide
from letterlock.session import Password, tls_note


def no_arguments(_args: Args) -> None:
    """The command has none."""


class LoginArgs(NamedTuple):
    """LOGIN's; the repr hides the password."""

    user: bytes
    password: bytes

    def __repr__(self) -> str:
        return "LoginArgs(***)"


def parse_login(args: Args) -> LoginArgs:
    """login = "LOGIN" SP userid SP password."""
    args.space()
    user = args.astring()
    args.space()
    return LoginArgs(user, args.astring())


async def starttls(s: ImapSession, _args: None, _uid: bool) -> Done:
    """RFC 3501 §6.2.1. What the client sent after this line is thrown away by the driver."""
    if not s.starttls:
        raise Malformed("STARTTLS is not possible: TLS is in use already" if s.channel.protected else "no TLS here")
    if s.reader.buffer:
        # RFC 2595 §3.1: commands behind STARTTLS in the same packet are an attacker's, or a broken client's
        s.note(b"starttls", b"", b"Msg=bytes after STARTTLS were discarded", len(s.reader.buffer))
        s.reader.discard()
    s.upgrading = True
    return Done(b"", b"Begin TLS negotiation now.")


async def login(s: ImapSession, args: LoginArgs, _uid: bool) -> Done:
    """RFC 3501 §6.2.3."""
    try:
        user = args.user.decode()
    except UnicodeDecodeError:
        raise Malformed("the user name is not UTF-8") from None
    return await _log_in(s, LOGIN_COMMAND, user, args.password)


async def _log_in(s: ImapSession, mechanism: Mechanism, user: str, password: bytes) -> Done:
    attempt = LoginAttempt(Protocol.IMAP4, s.channel, mechanism, user)
    s.last_user = user
    decision = decide(attempt, s.rules)
    secret = Password(password)
    if not decision.allowed:
        s.host.refused(attempt, secret)
        _count_failure(s)
        raise decision.refusal()
    try:
        welcome = await s.host.log_in(attempt, secret)
    except Refused:
        _count_failure(s)
        raise
    await s.enter(welcome)
    from letterlock.imap.commands import capabilities

    return Done(b"CAPABILITY " + capabilities(s))


def _count_failure(s: ImapSession) -> None:
    s.failed_logins += 1
    if s.failed_logins >= MAX_FAILED_LOGINS:
        s.bye(b"Too many failed logins.")


class AuthenticateArgs(NamedTuple):
    """AUTHENTICATE's; the repr hides the initial response."""

    mechanism: bytes
    initial: bytes | None

    def __repr__(self) -> str:
        return f"AuthenticateArgs({self.mechanism!r}, ***)"


def parse_authenticate(args: Args) -> AuthenticateArgs:
    """ "AUTHENTICATE" SP auth-type [SP initial-resp] (RFC 4959)."""
    args.space()
    name = args.keyword()
    return AuthenticateArgs(name, args.rest() if args.take(b" ") else None)


async def authenticate(s: ImapSession, args: AuthenticateArgs, _uid: bool) -> Done | None:
    """RFC 3501 §6.2.2. An exchange that policy refuses is never begun: no challenge goes out."""
    mechanism = sasl.mechanism(args.mechanism)
    if mechanism is None or mechanism not in s.rules.mechanisms:
        raise Refused(f"the mechanism {args.mechanism.decode()} is not available here", b"CANNOT")
    decision = decide(LoginAttempt(Protocol.IMAP4, s.channel, mechanism), s.rules)
    exchange = sasl.start(mechanism)
    if not decision.allowed:
        _refused(s, mechanism, exchange, args.initial)
        _count_failure(s)
        raise decision.refusal()
    step = exchange.step(None if args.initial is None else sasl.decode(args.initial))
    if isinstance(step, sasl.Credentials):
        return await _log_in(s, mechanism, step.user, step.password)
    s.out.append(b"+ " + base64.b64encode(step.data) + b"\r\n")
    s.continuation = _Exchange(mechanism, exchange).proceed
    return None


def _refused(s: ImapSession, mechanism: Mechanism, exchange: sasl.Exchange, initial: bytes | None) -> None:
    """Credentials that were sent along are refused unread by the login, and looked at for the exposure mark."""
    user, password = "", None
    try:
        step = exchange.step(sasl.decode(initial)) if initial is not None else None
        if isinstance(step, sasl.Credentials):
            user, password = step.user, Password(step.password)
    except Malformed:
        pass  # nothing that could be a password
    if user:
        s.last_user = user
    s.host.refused(LoginAttempt(Protocol.IMAP4, s.channel, mechanism, user), password)


class _Exchange:
    """An AUTHENTICATE that waits for the client's next line."""

    def __init__(self, mechanism: Mechanism, exchange: sasl.Exchange) -> None:
        self.mechanism = mechanism
        self.exchange = exchange

    async def proceed(self, s: ImapSession) -> bool:
        """One line of the client; `*` cancels."""
        line = s.reader.line()
        if line is None:
            return False
        s.host.begin()
        s.continuation = None
        try:
            if line == b"*":
                raise Malformed("the authentication was cancelled")
            step = self.exchange.step(sasl.decode(line))
            if isinstance(step, sasl.Challenge):
                s.out.append(b"+ " + base64.b64encode(step.data) + b"\r\n")
                s.continuation = self.proceed
                return True
            answer = s.completed(await _log_in(s, self.mechanism, step.user, step.password))
        except Malformed as error:
            answer = s.tag + b" BAD " + reply.text(error.text) + b"\r\n"
            _count_failure(s)
        except Refused as error:
            answer = s.tag + b" NO " + reply.code(error.code) + reply.text(error.text) + b"\r\n"
        s.out.insert(len(s.out) - 1 if s.ending else len(s.out), answer)
        if s.host.logging:
            result = (b"R=OK" if s.authenticated else b'R="' + answer[:-2] + b'"') + tls_note(s.channel)
            shown = self.mechanism.name + (b" *****" if line != b"*" else b"")
            s.host.note(b"authenticate", shown, result, len(line), len(answer), s.user or s.last_user)
        return True
