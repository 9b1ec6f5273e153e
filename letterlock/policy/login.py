"""Whether a login may go on, before any password is looked at, and what may be offered.

One pure function, `decide`, serves the listeners, the capability lists (`offered` is defined through it), the
analysis of logs ("what if SecureLogin had been on?") and the analyzer. Its rules:

1. A mechanism that is switched off is refused on every channel.
2. On a channel protected by TLS every mechanism that is on is allowed, whatever LoginType says.
3. On a clear channel LoginType decides: PlainTextLogin allows all; PlainTextAuthentication allows only mechanisms
   that do not show the password; SecureLogin allows none.
4. Loopback is not secure by itself, and a proxy's word counts only when its address was listed (`trusted_hop`).
5. TLS below the floor is refused like no TLS; a listener agrees on it only with clients of an exception.
6. A login exception in force lets pass what it names and nothing else; on a listener for exceptions only, nothing else
   passes at all. Rules that are only reported refuse nobody: the decision says what they would have said.

Exchange refuses with BAD; RFC 3501 §6.2.3 and RFC 5530 §3 ask for NO [PRIVACYREQUIRED], so that is what we send.
"""

from __future__ import annotations

import enum
from functools import lru_cache
from typing import Final, NamedTuple

from letterlock.base.errors import Refused
from letterlock.base.values import LoginType, Protocol, Tls
from letterlock.policy.exceptions import LoginException


class Channel(NamedTuple):
    """What is known about the way to the peer. Never folded into one 'secure'."""

    tls: Tls = Tls.NONE
    version: str = ""  # "TLSv1.3"; empty without TLS
    cipher: str = ""
    peer: str = ""  # the client's address, without port
    peer_port: int = 0
    local: str = ""  # our address
    local_port: int = 0
    trusted_hop: bool = False  # a proxy that we were told to believe
    client_tls: bool | None = None  # what that proxy says of its client; None: nothing

    @property
    def protected(self) -> bool:
        """Credentials sent now cannot be read on the wire between the client and the first hop we believe."""
        if self.trusted_hop and self.client_tls is not None:
            return self.client_tls
        return self.tls is not Tls.NONE


class Mechanism(NamedTuple):
    """A way to log in. `clear`: the password itself is on the wire."""

    name: bytes
    clear: bool


# The protocols' own commands count as mechanisms: IMAP LOGIN (RFC 3501 §6.2.3), POP3 USER/PASS (RFC 1939 §7).
LOGIN_COMMAND: Final = Mechanism(b"LOGIN command", clear=True)
USER_PASS: Final = Mechanism(b"USER", clear=True)
PLAIN: Final = Mechanism(b"PLAIN", clear=True)  # RFC 4616
LOGIN: Final = Mechanism(b"LOGIN", clear=True)  # draft-murchison-sasl-login


class LoginAttempt(NamedTuple):
    """Plain facts of one try, live or from a log."""

    protocol: Protocol
    channel: Channel
    mechanism: Mechanism
    user: str = ""


class LoginRules(NamedTuple):
    """What one service enforces on one connection."""

    login_type: LoginType
    mechanisms: tuple[Mechanism, ...] = (LOGIN_COMMAND, USER_PASS, PLAIN, LOGIN)
    tls_minimum: str = ""  # "1.2"; empty: any version
    exceptions: tuple[LoginException, ...] = ()  # those in force at the time
    exceptions_only: bool = False
    reported_login_type: LoginType | None = None  # report-only: what this would refuse is told, and let through
    reported_tls_minimum: str = ""


class Reason(enum.Enum):
    """Why; the value is the sentence for a person."""

    PROTECTED = "The channel is protected by TLS."
    CLEAR_ALLOWED = "LoginType allows this login without TLS."
    EXCEPTION = "A login exception allows this login."
    MECHANISM_OFF = "This login mechanism is not available here."
    TLS_REQUIRED = (
        "Clear-text login is not allowed on this connection: switch your mail program to SSL/TLS or STARTTLS."
    )
    TLS_TOO_OLD = "This version of TLS is too old: update your mail program or the device, or switch a newer TLS on."
    EXCEPTIONS_ONLY = "This port is only for devices with a login exception: use the regular port."


_CODES: Final = {Reason.MECHANISM_OFF: b"CANNOT", Reason.EXCEPTIONS_ONLY: b"CONTACTADMIN"}


class Decision(NamedTuple):
    """The answer. `would_refuse_under` names the weakest stricter LoginType that would refuse what is allowed now."""

    allowed: bool
    reason: Reason
    would_refuse_under: LoginType | None = None
    exception: str = ""  # identity of the exception that let it through
    reported: Reason | None = None  # what the report-only rules would have refused it for

    def refusal(self) -> Refused:
        """What to raise when it is not allowed, with its RFC 5530 code."""
        return Refused(self.reason.value, _CODES.get(self.reason, b"PRIVACYREQUIRED"))


@lru_cache(64)
def tls_rank(version: str) -> int:
    """ "TLSv1.2" or "1.2" as 12, "TLSv1" as 10; 0 without TLS."""
    digits = version.removeprefix("TLSv")
    if not digits or digits.startswith("SSL"):
        return 0
    major, _, minor = digits.partition(".")
    return int(major) * 10 + int(minor or 0)


def _allows(login_type: LoginType, mechanism: Mechanism) -> bool:
    """Whether `login_type` allows `mechanism` on a clear channel (reference table of LoginType)."""
    if login_type is LoginType.PlainTextLogin:
        return True
    return login_type is LoginType.PlainTextAuthentication and not mechanism.clear


_STRICTER: Final = (LoginType.PlainTextLogin, LoginType.PlainTextAuthentication, LoginType.SecureLogin)


def _objection(attempt: LoginAttempt, login_type: LoginType, tls_minimum: str) -> Reason | None:
    """Why LoginType and TLS floor refuse it; None when they do not."""
    channel = attempt.channel
    if not channel.protected:
        return None if _allows(login_type, attempt.mechanism) else Reason.TLS_REQUIRED
    if tls_minimum and channel.version and tls_rank(channel.version) < tls_rank(tls_minimum):
        return Reason.TLS_TOO_OLD
    return None


def _lets_through(exception: LoginException, attempt: LoginAttempt, objection: Reason) -> bool:
    if objection is Reason.TLS_REQUIRED:
        return exception.clear_text
    floor = exception.tls_minimum
    return bool(floor) and tls_rank(attempt.channel.version) >= tls_rank(floor)


def decide(attempt: LoginAttempt, rules: LoginRules) -> Decision:
    """Decide on `attempt` under `rules`; pure, and independent of whether the password is right."""
    if attempt.mechanism not in rules.mechanisms:
        return Decision(False, Reason.MECHANISM_OFF)
    named = (attempt.protocol, attempt.channel.peer, attempt.mechanism.name.decode(), attempt.user)
    covering = [e for e in rules.exceptions if e.covers(*named)]
    if rules.exceptions_only and not covering:
        return Decision(False, Reason.EXCEPTIONS_ONLY)
    objection = _objection(attempt, rules.login_type, rules.tls_minimum)
    if objection is not None:
        passing = next((e for e in covering if _lets_through(e, attempt, objection)), None)
        if passing is None:
            return Decision(False, objection)
        return Decision(True, Reason.EXCEPTION, exception=passing.identity)
    reported = _objection(
        attempt, rules.reported_login_type or rules.login_type, rules.reported_tls_minimum or rules.tls_minimum
    )
    if reported is not None and any(_lets_through(e, attempt, reported) for e in covering):
        reported = None
    if attempt.channel.protected:
        return Decision(True, Reason.PROTECTED, reported=reported)
    stricter = next(t for t in _STRICTER if t.value > rules.login_type.value and not _allows(t, attempt.mechanism))
    return Decision(True, Reason.CLEAR_ALLOWED, stricter, reported=reported)


def offered(protocol: Protocol, channel: Channel, rules: LoginRules) -> tuple[Mechanism, ...]:
    """The mechanisms that `decide` would let through here: what CAPABILITY, CAPA and EHLO may list."""
    return tuple(m for m in rules.mechanisms if decide(LoginAttempt(protocol, channel, m), rules).allowed)
