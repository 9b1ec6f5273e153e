"""What a protocol session is, and all that it may ask of the outside.

A session is a state machine: bytes in, bytes and a next step out. It knows no socket, no clock and no event loop.
IMAP and POP3 are written against this module, `runtime/connection.py` drives them, tests drive them by hand.
How a driver must behave:

1. It calls `receive` with what arrived (b"" is end of stream) and then `advance` until that answers READ, sending
   what is in `out` each time. One `advance` runs at a time.
2. On START_TLS it sends `out` in clear, throws away everything received that was not consumed (the NO STARTTLS
   study, RFC 2595 §3.1), does the handshake and calls `secured`.
3. After READ it waits for the peer, for `changed`, or for `timeout` seconds of silence; then it calls `stop`.
4. After RELAY it sends `out` and puts the host's relay in the session's place: the mailbox lives on another server.
5. After CLOSE it sends `out` and closes.
"""

from __future__ import annotations

import enum
from typing import NamedTuple, Protocol

from letterlock.policy.login import Channel, LoginAttempt
from letterlock.store.api import MailStore


class Next(enum.Enum):
    """What the driver does after `advance`."""

    READ = enum.auto()
    START_TLS = enum.auto()
    RELAY = enum.auto()
    CLOSE = enum.auto()


class Stop(enum.Enum):
    """Why a session is ended from outside."""

    TIMEOUT = enum.auto()
    SHUTDOWN = enum.auto()
    REFUSED = enum.auto()  # a connection limit: said instead of a greeting
    FAILURE = enum.auto()  # an exception of ours: the log has the traceback


def tls_note(channel: Channel) -> bytes:
    """What a login's row in the protocol log says of its channel: `;Tls=none`, `;Tls=starttls:TLSv1.3`, …

    Where a proxy that we believe speaks for its client, the client's own channel counts: `;Tls=proxy`.
    """
    if not channel.protected:
        return b";Tls=none"
    if channel.trusted_hop and channel.client_tls is not None:
        return b";Tls=proxy"
    version = b":" + channel.version.encode("ascii", "replace") if channel.version else b""
    return b";Tls=" + channel.tls.value.encode("ascii") + version


class Password:
    """A password on its way from the wire to the verifier; prints as ***."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        """The octets as sent (UTF-8 where the protocol says so). Opened only by verifiers."""
        return self._value

    def __repr__(self) -> str:
        return "***"


class Welcome(NamedTuple):
    """A login that succeeded: whose mailbox, and the store to work on."""

    mailbox: str  # the primary address
    mail: MailStore | None  # None: on another server, to which the host has handed the client over
    exact_size: bool = True  # POP3: sizes as RETR sends (False: as stored, which asks for less work)


class Host(Protocol):
    """All that a session may ask of the outside."""

    async def log_in(self, attempt: LoginAttempt, password: Password) -> Welcome:
        """Verify and admit; raises `Refused` with an RFC 5530 code (AUTHENTICATIONFAILED, UNAVAILABLE, LIMIT…).

        Answers only after the growing delay that failures earned. The caller has asked `decide` already.
        """

    def refused(self, attempt: LoginAttempt, password: Password | None) -> None:
        """A login that policy refused. A password that came along in clear is checked in the background: if it was
        right, it is known to whoever listens on the wire. None: it was not sent."""

    async def drain(self) -> None:
        """Send `out` now and wait while the peer is slow to take it."""

    def note(
        self,
        command: bytes,
        parameters: bytes,
        context: bytes,
        request_size: int,
        response_size: int,
        user: str,
    ) -> None:
        """One row of the protocol log. `parameters` must not hold a secret: sessions write `*****` in its place.

        The host adds time, session id, sequence number, addresses and the duration since the last `begin`.
        """

    def begin(self) -> None:
        """A command was read: its duration counts from here."""

    def now(self) -> float:
        """Seconds, monotonic."""

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""

    def watch(self, mail: MailStore | None) -> None:
        """From now on call `changed` when somebody changes this mailbox; None ends that."""

    @property
    def logging(self) -> bool:
        """Whether the protocol log is on (a session may spare itself the making of rows)."""


class Session(Protocol):
    """The contract for IMAP, POP3 and later SMTP."""

    out: list[bytes]
    timeout: float  # seconds of silence; before login, seconds since the connection began (slow clients)
    authenticated: bool

    def receive(self, data: bytes) -> None:
        """Take what arrived; b"" is end of stream. Never raises, never waits."""

    async def advance(self) -> Next:
        """Do what is complete; awaits only host and store."""

    def greet(self) -> None:
        """Put the greeting in `out` (after the handshake on always-TLS ports)."""

    def secured(self, channel: Channel) -> None:
        """TLS is up: forget everything learnt in clear."""

    def changed(self) -> None:
        """A hint: somebody changed the open mailbox."""

    async def enter(self, welcome: Welcome) -> None:
        """The login succeeded: from now on `welcome.mailbox` is served."""

    def unread(self) -> bytes:
        """Take what was received and not looked at; when the client is handed over."""

    def stop(self, why: Stop) -> None:
        """Put the protocol's goodbye in `out`; the driver closes after it."""

    def ended(self) -> None:
        """The connection is gone, for whatever reason: release what is held (spools, POP3 maildrop lock)."""
