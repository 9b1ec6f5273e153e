"""The POP3 session (RFC 1939) with CAPA (RFC 2449), STLS (RFC 2595), AUTH (RFC 5034), RESP-CODES, AUTH-RESP-CODE.

Several sessions may have a maildrop open at a time, as in Exchange and in Dovecot's default: each sees the messages
that were there when it logged in, and a message another one removed answers -ERR. Deletions are made, durably, at
QUIT; a session that times out or breaks removes nothing (RFC 1939 §6). Every line end goes out as CRLF (RFC 1939 §3).

Large because the whole protocol is one small state machine; a split would part the table from its commands.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from letterlock import sasl
from letterlock.base.errors import Malformed, Refused
from letterlock.base.values import Protocol, SortOrder
from letterlock.policy.login import USER_PASS, Channel, LoginAttempt, LoginRules, Mechanism, decide, offered
from letterlock.session import Host, Next, Password, Stop, Welcome, tls_note
from letterlock.store.api import Column, Folder, MailStore

MAX_BAD: Final = 10
MAX_FAILED_LOGINS: Final = 3
FOREIGN: Final = tuple(
    b"GET |POST |HEAD |PUT |DELETE |PATCH |OPTIONS |CONNECT |TRACE |PRI |EHLO |HELO |MAIL FROM:|\x16\x03".split(b"|")
)
SLICE: Final = 65536
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
# RFC 3206: [AUTH] is for wrong credentials only; RFC 2449 §8: [SYS/…], [IN-USE], [LOGIN-DELAY]
_CODES: Final = {
    b"AUTHENTICATIONFAILED": b"[AUTH] ",
    b"CONTACTADMIN": b"[SYS/PERM] ",
    b"UNAVAILABLE": b"[SYS/TEMP] ",
    b"LIMIT": b"[SYS/TEMP] ",
    b"PRIVACYREQUIRED": b"[SYS/PERM] ",
    b"OVERQUOTA": b"[SYS/TEMP] ",
    b"INUSE": b"[IN-USE] ",
}


class Command(NamedTuple):
    """One row of the table."""

    run: Callable[[Pop3Session, bytes], Awaitable[bytes]]
    transaction: bool | None  # True: after login, False: before, None: always


class Pop3Session:
    """One connection's protocol state (letterlock.session.Session)."""

    idling = False

    def __init__(self, settings: Any, host: Host, channel: Channel, rules: LoginRules, starttls: bool) -> None:
        self.settings, self.host, self.channel, self.rules = settings, host, channel, rules
        self.starttls = starttls
        self.out: list[bytes] = []
        self.timeout: float = settings.PreAuthenticatedConnectionTimeout.seconds
        self.authenticated = False
        self.user = ""
        self.mail: MailStore | None = None
        self.exact_size = True
        self.folder: Folder
        self.uids: list[int] = []  # message number - 1 → UID
        self.sizes: list[int] = []
        self.deleted: set[int] = set()
        self.exchange: tuple[Mechanism, sasl.Exchange] | None = None
        self.buffer = bytearray()
        self.ending = self.upgrading = self.relayed = self._eof = False
        self.name = ""
        self._named: str | None = None
        self._tried = ""  # the user of the last attempt; for the log
        self._bad = self._failed = 0

    # --- the driver's side

    def greet(self) -> None:
        """RFC 1939 §4; no timestamp, as APOP is not offered."""
        banner = "".join(c if " " <= c <= "~" else "?" for c in self.settings.Banner)
        self.out.append(b"+OK " + banner.encode() + b"\r\n")

    def receive(self, data: bytes) -> None:
        """Take what arrived."""
        if not data:
            self._eof = True
        elif not self.ending:
            self.buffer += data

    def changed(self) -> None:
        """POP3 tells nothing unasked."""

    def secured(self, channel: Channel) -> None:
        """TLS is up: forget everything learnt in clear (RFC 2595 §4)."""
        self.buffer.clear()
        self.channel = channel
        self.starttls = self.upgrading = False
        self._named, self.exchange = None, None
        self._bad = self._failed = 0

    async def enter(self, welcome: Welcome) -> None:
        """The login succeeded."""
        self.user, self.mail, self.exact_size = welcome.mailbox, welcome.mail, welcome.exact_size
        self.authenticated = True
        self.relayed = welcome.mail is None
        self.timeout = self.settings.AuthenticatedConnectionTimeout.seconds
        if self.mail is not None:
            self.host.watch(self.mail)
            await self._open()

    def unread(self) -> bytes:
        """For the server that goes on."""
        data = bytes(self.buffer)
        self.buffer.clear()
        return data

    def stop(self, why: Stop) -> None:
        """The goodbye; silence has none (RFC 1939 §3: closed without a response)."""
        sentence = {
            Stop.TIMEOUT: b"",
            Stop.SHUTDOWN: b"-ERR [SYS/TEMP] The server is shutting down; please connect again later.\r\n",
            Stop.REFUSED: b"-ERR [SYS/TEMP] Too many connections; close some or try again later.\r\n",
            Stop.FAILURE: b"-ERR [SYS/TEMP] Internal error; the administrator finds it in the server's log.\r\n",
        }[why]
        if sentence:
            self.out.append(sentence)
        self.ending = True

    def ended(self) -> None:
        """The connection is gone."""
        self.host.watch(None)

    async def advance(self) -> Next:
        """Answer all commands that are complete."""
        while not self.ending and not self.upgrading and not self.relayed:
            end = self.buffer.find(b"\n")
            # RFC 2449 §4: the limit counts the line end; AUTH's responses may be longer (RFC 5034 §4)
            limit = 6000 if self.exchange or self.buffer[:5].upper() == b"AUTH " else self.settings.MaxCommandSize
            if end < 0 and len(self.buffer) <= limit:
                break
            if end < 0 or end >= limit:
                self.out.append(b"-ERR The line is too long.\r\n")
                self.ending = True
                break
            line = bytes(self.buffer[:end]).removesuffix(b"\r")
            del self.buffer[: end + 1]
            await self._line(line)
            if len(self.out) > 64:
                await self.host.drain()
        if self.upgrading:
            return Next.START_TLS
        if self.relayed and not self.ending:
            return Next.RELAY
        return Next.CLOSE if self.ending or self._eof else Next.READ

    # --- one line

    async def _line(self, line: bytes) -> None:
        self.host.begin()
        before = len(self.out)
        parameters = b"*****"
        if self.exchange is not None:
            command = "auth"
            parameters = self.exchange[0].name + (b" *****" if line != b"*" else b"")
            answer = await self._guarded(self._continue(line))
        elif line.startswith(FOREIGN):
            self.out.append(b"-ERR This is a POP3 server.\r\n")
            self.ending = True
            return
        else:
            word, _, argument = line.partition(b" ")
            command = word.decode("ascii", "replace").lower()[:20]
            self.name = command
            if command not in ("pass", "auth", "apop"):
                parameters = argument
            elif command == "auth":
                mechanism, _, initial = argument.partition(b" ")
                if mechanism.isascii() and mechanism.replace(b"-", b"").isalnum() and len(mechanism) <= 40:
                    parameters = mechanism.upper() + (b" *****" if initial else b"")
            answer = await self._guarded(self._command(word.upper(), argument))
        if not answer:
            return
        self.out.append(answer)
        if self.host.logging:
            sent = sum(map(len, self.out[before:]))
            result = b"R=ok" if answer.startswith(b"+OK") else b'R="' + answer.split(b"\r\n")[0] + b'"'
            user = self.user or self._named or ""
            if command in ("user", "pass", "auth"):
                result += tls_note(self.channel)
                user = user or self._tried
            self.host.note(command.encode(), parameters, result, len(line), sent, user)

    async def _guarded(self, work: Awaitable[bytes]) -> bytes:
        try:
            answer = await work
            self._bad = 0
        except Malformed as error:
            self._bad += 1
            if self._bad >= MAX_BAD:
                self.ending = True
            return b"-ERR " + _text(error.text) + b"\r\n"
        except Refused as error:
            return b"-ERR " + _CODES.get(error.code, b"") + _text(error.text) + b"\r\n"
        return answer

    async def _command(self, word: bytes, argument: bytes) -> bytes:
        row = COMMANDS.get(word)
        if row is None:
            if word == b"APOP":
                raise Malformed("APOP is not offered: use TLS with USER and PASS or AUTH")
            raise Malformed("the command is not known here")
        if b"\x00" in argument:
            raise Malformed("NUL is not allowed")
        if row.transaction is not None and row.transaction != self.authenticated:
            raise Malformed("log in first" if row.transaction else "you are logged in already")
        return await row.run(self, argument)

    # --- before login

    async def capa(self, _argument: bytes) -> bytes:
        """RFC 2449 §5; USER and SASL only where policy would let them through."""
        words = [b"TOP", b"UIDL", b"PIPELINING", b"RESP-CODES", b"AUTH-RESP-CODE", b"EXPIRE NEVER"]
        if self.starttls and not self.authenticated:
            words.append(b"STLS")
        mechanisms = offered(Protocol.POP3, self.channel, self.rules)
        if USER_PASS in mechanisms:
            words.append(b"USER")
        names = [m.name for m in mechanisms if sasl.mechanism(m.name) == m]
        if names:
            words.append(b"SASL " + b" ".join(names))
        words.append(b"IMPLEMENTATION Letterlock")
        return b"+OK Capabilities follow.\r\n" + b"".join(w + b"\r\n" for w in words) + b".\r\n"

    async def stls(self, argument: bytes) -> bytes:
        """RFC 2595 §4; what came with it is thrown away."""
        _none(argument)
        if not self.starttls:
            raise Malformed("STLS is not possible: TLS is in use already")
        self.buffer.clear()
        self.upgrading = True
        return b"+OK Begin TLS negotiation.\r\n"

    async def login_user(self, argument: bytes) -> bytes:
        """RFC 1939 §7. Refused where policy refuses, before the password is sent."""
        try:
            name = argument.decode()
        except UnicodeDecodeError:
            raise Malformed("the user name is not UTF-8") from None
        if not name:
            raise Malformed("USER expects a name")
        self._named = name
        attempt = LoginAttempt(Protocol.POP3, self.channel, USER_PASS, name)
        decision = decide(attempt, self.rules)
        if not decision.allowed:
            self.host.refused(attempt, None)
            raise decision.refusal()
        return b"+OK\r\n"

    async def login_pass(self, argument: bytes) -> bytes:
        """RFC 1939 §7: everything after the space is the password."""
        if self._named is None:
            raise Malformed("USER comes before PASS")
        return await self._log_in(USER_PASS, self._named, argument)

    async def _log_in(self, mechanism: Mechanism, user: str, password: bytes) -> bytes:
        attempt = LoginAttempt(Protocol.POP3, self.channel, mechanism, user)
        self._tried = user
        secret = Password(password)
        decision = decide(attempt, self.rules)
        try:
            if not decision.allowed:
                self.host.refused(attempt, secret)
                raise decision.refusal()
            welcome = await self.host.log_in(attempt, secret)
        except Refused:
            self._failed += 1
            self._named = None
            if self._failed >= MAX_FAILED_LOGINS:
                self.ending = True
            raise
        await self.enter(welcome)
        return b"+OK User successfully logged on.\r\n"

    async def auth(self, argument: bytes) -> bytes:
        """RFC 5034."""
        if not argument:
            raise Malformed("AUTH expects a mechanism; CAPA lists them")
        name, space, initial = argument.partition(b" ")
        mechanism = sasl.mechanism(name)
        if mechanism is None or mechanism not in self.rules.mechanisms:
            raise Malformed("that mechanism is not available here")
        attempt = LoginAttempt(Protocol.POP3, self.channel, mechanism)
        decision = decide(attempt, self.rules)
        exchange = sasl.start(mechanism)
        if not decision.allowed:
            if space:
                step = exchange.step(sasl.decode(initial))
                if isinstance(step, sasl.Credentials):
                    await self._log_in(mechanism, step.user, step.password)
            self.host.refused(attempt, None)
            raise decision.refusal()
        return await self._proceed(mechanism, exchange, sasl.decode(initial) if space else None)

    async def _proceed(self, mechanism: Mechanism, exchange: sasl.Exchange, response: bytes | None) -> bytes:
        step = exchange.step(response)
        if isinstance(step, sasl.Credentials):
            return await self._log_in(mechanism, step.user, step.password)
        self.exchange = (mechanism, exchange)
        self.out.append(b"+ " + base64.b64encode(step.data) + b"\r\n")
        return b""

    async def _continue(self, line: bytes) -> bytes:
        assert self.exchange is not None  # noqa: S101
        mechanism, exchange = self.exchange
        self.exchange = None
        if line == b"*":
            raise Malformed("the authentication was cancelled")
        return await self._proceed(mechanism, exchange, sasl.decode(line))

    # --- after login

    @property
    def store(self) -> MailStore:
        """The maildrop; only used after login."""
        assert self.mail is not None  # noqa: S101
        return self.mail

    async def _open(self) -> None:
        self.folder = await self.store.folder("INBOX")
        column = Column.CRLF_SIZE if self.exact_size else Column.SIZE
        rows: list[tuple[int, int]] = []
        async for batch in self.store.fetch(self.folder, [(1, 2**32 - 1)], [column]):
            rows += batch  # type: ignore[arg-type]
        if self.settings.MessageRetrievalSortOrder is SortOrder.Descending:
            rows.reverse()
        self.uids, self.sizes = [r[0] for r in rows], [r[1] for r in rows]

    def _number(self, argument: bytes) -> int:
        """An index from a message number."""
        if not argument.isdigit() or len(argument) > 10:
            raise Malformed("expected a message number")
        index = int(argument) - 1
        if not 0 <= index < len(self.uids):
            raise Refused(f"there is no such message; the maildrop has {len(self.uids)}")
        if index in self.deleted:
            raise Refused(f"message {index + 1} is marked as deleted")
        return index

    def _present(self) -> list[int]:
        return [i for i in range(len(self.uids)) if i not in self.deleted]

    async def stat(self, argument: bytes) -> bytes:
        """RFC 1939 §5."""
        _none(argument)
        present = self._present()
        return b"+OK %d %d\r\n" % (len(present), sum(self.sizes[i] for i in present))

    async def list_(self, argument: bytes) -> bytes:
        """RFC 1939 §5."""
        return self._listing(argument, lambda i: b"%d" % self.sizes[i])

    async def uidl(self, argument: bytes) -> bytes:
        """RFC 1939 §7: UIDVALIDITY and UID, which never change their meaning."""
        return self._listing(argument, lambda i: b"%d.%d" % (self.folder.uidvalidity, self.uids[i]))

    def _listing(self, argument: bytes, value: Callable[[int], bytes]) -> bytes:
        if argument:
            i = self._number(argument)
            return b"+OK %d %b\r\n" % (i + 1, value(i))
        present = self._present()
        lines = [b"%d %b\r\n" % (i + 1, value(i)) for i in present]
        return b"+OK %d messages\r\n" % len(present) + b"".join(lines) + b".\r\n"

    async def retr(self, argument: bytes) -> bytes:
        """RFC 1939 §5."""
        return await self._send(self._number(argument), None)

    async def top(self, argument: bytes) -> bytes:
        """RFC 1939 §7."""
        number, _, count = argument.partition(b" ")
        if not count.isdigit() or len(count) > 10:
            raise Malformed("TOP expects a message number and a number of lines")
        return await self._send(self._number(number), int(count))

    async def _send(self, index: int, lines: int | None) -> bytes:
        """A message, dot-stuffed in slices (RFC 1939 §3)."""
        uid = self.uids[index]
        async for batch in self.store.fetch(self.folder, [(uid, uid)], [Column.HEADER, Column.TEXT]):
            for _uid, header, text in batch:
                if not isinstance(header, bytes) or not isinstance(text, bytes):
                    break
                if lines is not None:
                    text = _first_lines(text, lines)
                self.out.append(b"+OK\r\n")
                await self._stuffed(header + text)
                return b".\r\n"
        raise Refused(f"message {index + 1} has been removed by another session")

    async def _stuffed(self, data: bytes) -> None:
        data = _BARE_LF.sub(b"\r\n", data)
        if not data.endswith(b"\r\n"):
            data += b"\r\n"
        data = (b"\n" + data).replace(b"\n.", b"\n..")[1:]
        for at in range(0, len(data), SLICE):
            self.out.append(data[at : at + SLICE])
            await self.host.drain()

    async def dele(self, argument: bytes) -> bytes:
        """RFC 1939 §5."""
        self.deleted.add(self._number(argument))
        return b"+OK Marked as deleted.\r\n"

    async def rset(self, argument: bytes) -> bytes:
        """RFC 1939 §5."""
        _none(argument)
        self.deleted.clear()
        return b"+OK\r\n"

    async def noop(self, argument: bytes) -> bytes:
        """RFC 1939 §5."""
        _none(argument)
        return b"+OK\r\n"

    async def quit(self, argument: bytes) -> bytes:
        """RFC 1939 §6: the deletions are on disk before the answer."""
        _none(argument)
        self.ending = True
        if self.authenticated and self.deleted:
            uids = sorted(self.uids[i] for i in self.deleted)
            await self.store.expunge(self.folder, [(u, u) for u in uids], deleted_only=False)
        return b"+OK Signing off.\r\n"


def _first_lines(text: bytes, lines: int) -> bytes:
    """At most so many lines; only LF ends one, with or without its CR."""
    at = 0
    while lines and at < len(text):
        at = text.find(b"\n", at) + 1 or len(text)
        lines -= 1
    return text[:at]


def _none(argument: bytes) -> None:
    if argument.strip():
        raise Malformed("the command has no arguments")


def _text(sentence: str) -> bytes:
    """One line of ASCII that does not look like a response code."""
    return "".join(c if " " <= c <= "~" else "?" for c in sentence).strip().lstrip("[").encode()


COMMANDS: Final = {
    b"CAPA": Command(Pop3Session.capa, None),
    b"STLS": Command(Pop3Session.stls, False),
    b"USER": Command(Pop3Session.login_user, False),
    b"PASS": Command(Pop3Session.login_pass, False),
    b"AUTH": Command(Pop3Session.auth, False),
    b"STAT": Command(Pop3Session.stat, True),
    b"LIST": Command(Pop3Session.list_, True),
    b"UIDL": Command(Pop3Session.uidl, True),
    b"RETR": Command(Pop3Session.retr, True),
    b"TOP": Command(Pop3Session.top, True),
    b"DELE": Command(Pop3Session.dele, True),
    b"RSET": Command(Pop3Session.rset, True),
    b"NOOP": Command(Pop3Session.noop, True),
    b"QUIT": Command(Pop3Session.quit, None),
}
