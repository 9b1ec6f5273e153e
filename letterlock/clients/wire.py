"""What the three clients have in common: bounded reading, and dialogues as generators.

A client knows no socket. Its operations are generators: each puts octets in `out`, and yields whenever it needs more
input; the driver sends `out`, passes what arrives to `receive` and resumes. The result is the generator's value, a
failure is `Failed`. So one answer may arrive in one packet or octet by octet, and the client cannot tell.

    client = ImapClient()
    greeting = drive(client.greeting())        # probe.channel drives them over asyncio

Rules that hold for every peer, since any may be hostile:

1. A line has at most MAX_LINE octets, an operation's answer at most MAX_LINES lines and MAX_ANSWER octets.
2. What came in clear is forgotten when TLS is up (`secured`); octets behind the agreement to start TLS end the
   dialogue (RFC 9051 §6.2.1, RFC 2595 §4, RFC 3207 §4.2).
3. Nothing a caller passes can end a line: names and passwords with CR, LF or NUL are `Malformed`.
4. No text that holds a password is kept, raised or shown.
"""

from __future__ import annotations

import base64
from collections.abc import Generator
from typing import Final, NamedTuple, TypeVar

from letterlock.base.errors import Malformed
from letterlock.clients.outcomes import Failed, Outcome

T = TypeVar("T")
Dialogue = Generator[None, None, T]

MAX_LINE: Final = 16384
MAX_LINES: Final = 2000
MAX_ANSWER: Final = 1 << 20
MAX_BUFFER: Final = MAX_ANSWER + MAX_LINE


class Login(NamedTuple):
    """Who logs in; the repr hides the password."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Login(user={self.user!r}, password=***)"

    def check(self) -> Login:
        """`Malformed` where a line would be broken or a field be empty."""
        for name, value in (("user name", self.user), ("password", self.password)):
            if not value or len(value) > 1024 or any(c in "\r\n\0" for c in value):
                raise Malformed(f"the {name} is empty, longer than 1024 characters, or has line ends or NUL in it")
        return self

    def plain(self) -> bytes:
        """The one response of SASL PLAIN (RFC 4616), in base64."""
        return base64.b64encode(b"\0" + self.user.encode() + b"\0" + self.password.encode())


def redacted(answer: bytes, login: Login) -> bytes:
    """A server's answer without the password, which some servers echo in their errors."""
    password = login.password.encode()
    for secret in (login.plain(), base64_of(login.password), password):
        if len(secret) > 2 or secret is password:
            answer = answer.replace(secret, b"***")
    return answer


def base64_of(text: str) -> bytes:
    """For the two answers of SASL LOGIN."""
    return base64.b64encode(text.encode())


class Greeting(NamedTuple):
    """How the server opened: its words after the status, and all of it as it came."""

    text: str
    raw: bytes


class Client:
    """Input, output and limits; the protocols' clients add their operations."""

    max_lines = MAX_LINES

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.secure = False  # TLS is in use
        self.capabilities: frozenset[str] = frozenset()  # upper case, as last asked for on this channel
        self._buffer = bytearray()
        self._searched = 0
        self._eof = False
        self._lines = self._octets = 0

    def receive(self, data: bytes) -> None:
        """Take what arrived; b"" is end of stream. Never raises; more than MAX_BUFFER is not kept."""
        if not data:
            self._eof = True
        self._buffer += data[: max(0, MAX_BUFFER - len(self._buffer))]

    def secured(self) -> None:
        """TLS is up: forget everything learnt in clear."""
        self._buffer.clear()
        self._searched = 0
        self.capabilities = frozenset()
        self.secure = True

    @property
    def pending(self) -> bytes:
        """What arrived and was not asked for yet."""
        return bytes(self._buffer)

    def _send(self, line: bytes) -> None:
        """One line; a new answer begins, with its own limits."""
        self.out.append(line + b"\r\n")
        self._lines = self._octets = 0

    def _count(self, octets: int) -> None:
        self._octets += octets
        if self._octets > MAX_ANSWER:
            raise Failed(Outcome.TOO_MUCH, f"more than {MAX_ANSWER} octets")

    def _line(self) -> Dialogue[bytes]:
        """The next line without its end (CRLF, or LF alone)."""
        while True:
            end = self._buffer.find(b"\n", self._searched)
            if end > MAX_LINE or (end < 0 and len(self._buffer) > MAX_LINE):
                raise Failed(Outcome.TOO_MUCH, f"a line of more than {MAX_LINE} octets", bytes(self._buffer[:100]))
            if end >= 0:
                break
            self._searched = len(self._buffer)
            if self._eof:
                raise Failed(Outcome.CONNECTION_LOST, "", bytes(self._buffer[:200]))
            yield
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        self._searched = 0
        self._lines += 1
        if self._lines > self.max_lines:
            raise Failed(Outcome.TOO_MUCH, f"more than {self.max_lines} lines")
        self._count(len(line))
        return line

    def _take(self, count: int) -> Dialogue[bytes]:
        """Exactly `count` octets."""
        self._count(count)
        while len(self._buffer) < count:
            if self._eof:
                raise Failed(Outcome.CONNECTION_LOST)
            yield
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._searched = 0
        return data

    def _first_line(self, protocol: str) -> Dialogue[bytes]:
        """The greeting's first line; tells other protocols, and TLS, from ours by their first octets."""
        while b"\n" not in self._buffer and len(self._buffer) <= MAX_LINE:
            if looks_like_tls(self._buffer):
                raise Failed(Outcome.TLS_ON_CLEAR_PORT)
            if self._eof:
                if self._buffer:
                    break
                raise Failed(Outcome.CLOSED_AT_ONCE)
            yield
        found = recognise(bytes(self._buffer[:200]))
        if found == "TLS":
            raise Failed(Outcome.TLS_ON_CLEAR_PORT)
        if found and found != protocol:
            raise Failed(Outcome.FOREIGN_GREETING, f"{found} instead of {protocol}", self._buffer_line())
        return (yield from self._line())

    def _buffer_line(self) -> bytes:
        return bytes(self._buffer[:MAX_LINE]).split(b"\n")[0].rstrip(b"\r")

    def _nothing_behind(self) -> None:
        """No octet may follow the agreement to start TLS: it would be believed inside it."""
        if self._buffer:
            raise Failed(Outcome.RESPONSE_INJECTION, "", bytes(self._buffer[:200]))


def looks_like_tls(data: bytes | bytearray) -> bool:
    """Alert or handshake record of SSL 3 to TLS 1.3."""
    return len(data) >= 2 and data[0] in (0x15, 0x16) and data[1] == 3


_FIRST: Final = (
    (b"+OK", "POP3"),
    (b"-ERR", "POP3"),
    (b"* OK", "IMAP"),
    (b"* PREAUTH", "IMAP"),
    (b"* BYE", "IMAP"),
    (b"SSH-", "SSH"),
    (b"HTTP/", "HTTP"),
    (b"<", "HTTP"),
    (b"RFB ", "VNC"),
    (b'"IMPLEMENTATION"', "ManageSieve"),
    (b"OK MPD", "MPD"),
    (b"200 ", "NNTP"),
    (b"201 ", "NNTP"),
    (b"220", "SMTP"),
    (b"421", "SMTP"),
    (b"554", "SMTP"),
)


def recognise(data: bytes) -> str:
    """Which protocol a server's first octets are of; empty when not known."""
    if looks_like_tls(data):
        return "TLS"
    upper = data.upper()
    if upper.startswith((b"220 ", b"220-")) and b"FTP" in upper.split(b"\n")[0] and b"SMTP" not in upper:
        return "FTP"
    return next((name for first, name in _FIRST if upper.startswith(first.upper())), "")
