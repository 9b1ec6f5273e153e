"""One connection: the asyncio transport on one side, a protocol session on the other. The hottest module.

1. TLS is driven here through memory BIOs over one plain transport, so that STARTTLS is exact: what was received before
   the handshake and not consumed is thrown away, and nothing can be half here, half there.
2. A session's `advance` is stepped by hand. Only when it really waits (a hash, a synced commit, a slow peer) does a
   Task take over the half-run coroutine; an idle or plainly answered connection never has one.
3. One write a turn; a peer that does not read is waited for (`drain`), and for no longer than the session's timeout.
4. One timer a connection, re-armed when it fires or when something is due before it, never per command.

Large because transport, TLS, stepping and time of one connection change together.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Coroutine, Generator
from typing import Any, Final, Protocol

from letterlock.base.values import Tls
from letterlock.policy.login import Channel, LoginRules
from letterlock.session import Next, Session, Stop
from letterlock.tls import client_hello_alpn

HANDSHAKE_S: Final = 30.0
GOODBYE_S: Final = 10.0  # a peer that does not take what is sent is cut off
HIGH_WATER: Final = 262144
MAX_PENDING: Final = 1 << 20  # octets a client may send while a command of it is still running
CHUNK: Final = 65536


class Owner(Protocol):
    """What a connection needs of its service."""

    alpn: bytes

    def context(self, connection: Connection) -> ssl.SSLContext: ...
    def make_session(self, connection: Connection, channel: Channel, starttls: bool) -> Session: ...
    def failed(self, error: BaseException) -> None: ...
    def closed(self, connection: Connection) -> None: ...
    def relay(self, connection: Connection) -> Session: ...
    def handshake_failed(self, connection: Connection, reason: str) -> None: ...


class _Resumed:
    """Awaits a coroutine that has been stepped by hand to its first future."""

    __slots__ = ("_coroutine", "_first")

    def __init__(self, coroutine: Coroutine[Any, Any, Next], first: Any) -> None:
        self._coroutine = coroutine
        self._first = first

    def __await__(self) -> Generator[Any, Any, Next]:
        waiting = self._first
        while True:
            failure: BaseException | None = None
            value = None
            try:
                value = yield waiting
            except BaseException as error:  # cancellation and failures go into the coroutine
                failure = error
            try:
                waiting = self._coroutine.send(value) if failure is None else self._coroutine.throw(failure)
            except StopIteration as stop:
                result: Next = stop.value
                return result


class Connection(asyncio.Protocol):
    """An accepted connection."""

    __slots__ = (
        "_armed",
        "_bios",
        "_changed",
        "_closing",
        "_deadline",
        "_held",
        "_hello",
        "_limit",
        "_paused",
        "_pending",
        "_ssl",
        "_task",
        "_timer",
        "_touched",
        "_upgrading",
        "_writable",
        "channel",
        "exceptions_only",
        "gone",
        "identity",
        "implicit",
        "loop",
        "owner",
        "received",
        "refused",
        "rules",
        "sent",
        "session",
        "started",
        "transport",
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop, implicit: bool) -> None:
        self.owner = owner
        self.loop = loop
        self.implicit = implicit
        self.refused = self.exceptions_only = self.gone = False
        self.rules: LoginRules  # set with the session
        self.identity = 0  # 64 bits, never twice
        self.received = self.sent = 0  # octets of the protocol, without those of TLS
        self._touched = 0.0
        self.session: Session
        self.transport: asyncio.Transport
        self.channel = Channel()
        self.started = 0.0
        self._ssl: ssl.SSLObject | None = None
        self._bios: tuple[ssl.MemoryBIO, ssl.MemoryBIO] | None = None
        self._hello = bytearray()
        self._task: asyncio.Task[Next] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._armed = 0.0  # when the timer fires
        self._deadline = 0.0
        self._limit = 0.0
        self._paused = self._closing = self._changed = self._upgrading = False
        self._held = False  # nothing is read from the peer
        self._pending = 0  # octets received since the running command began to wait

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A socket was accepted."""
        self.transport = transport  # type: ignore[assignment]
        self.transport.set_write_buffer_limits(high=HIGH_WATER)
        peer = transport.get_extra_info("peername") or ("", 0)
        local = transport.get_extra_info("sockname") or ("", 0)
        self.channel = Channel(peer=peer[0], peer_port=peer[1], local=local[0], local_port=local[1])
        self.started = self.loop.time()
        self.session = self.owner.make_session(self, self.channel, not self.implicit)
        self._touch()
        self._arm()
        if self.implicit:
            self._begin_tls()
        else:
            self._greet()

    def data_received(self, data: bytes) -> None:
        """Octets from the peer."""
        if self._closing:
            return
        if self._task is not None:
            self._hold(len(data))
        if self._ssl is not None:
            try:
                self._tls_received(data)
            except ssl.SSLError as error:
                self._tls_failed(error)
            return
        self._touch()
        self.received += len(data)
        self.session.receive(data)
        self._step()

    def _hold(self, octets: int) -> None:
        """A command waits (for a hash, a commit, the peer): what comes meanwhile may not fill our memory."""
        self._pending += octets
        if self._pending > MAX_PENDING and not self._held:
            self._held = True
            self.transport.pause_reading()

    def _let_go(self) -> None:
        self._pending = 0
        if self._held and not self._closing:
            self._held = False
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        """The peer has finished sending."""
        if not self._closing and not self._upgrading:
            self.session.receive(b"")
            self._step()
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """Gone, for whatever reason."""
        self._closing = self.gone = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self._task is not None:
            self._task.cancel()
        self.session.ended()
        self.owner.closed(self)

    def pause_writing(self) -> None:
        """The peer is slow."""
        self._paused = True

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self._paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # --- TLS

    def _begin_tls(self) -> None:
        self._bios = (ssl.MemoryBIO(), ssl.MemoryBIO())
        self._ssl = self.owner.context(self).wrap_bio(*self._bios, server_side=True)
        self._upgrading = True
        self._limit = self.loop.time() + HANDSHAKE_S
        self._hasten()

    def _tls_received(self, data: bytes) -> None:
        assert self._ssl is not None and self._bios is not None  # noqa: S101
        incoming, outgoing = self._bios
        incoming.write(data)
        if self._upgrading:
            if len(self._hello) < 4096:
                self._hello += data
            try:
                self._ssl.do_handshake()
            except ssl.SSLWantReadError:
                self._flush_tls(outgoing)
                return
            if not self._handshake_done():  # what TLS has to say goes out with the greeting, or below
                return
        self._touch()
        while True:
            try:
                plain = self._ssl.read(CHUNK)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                plain = b""
            self.received += len(plain)
            self.session.receive(plain)
            if not plain:
                break
        self._step()
        if not self._closing:
            self._flush_tls(outgoing)

    def _flush_tls(self, outgoing: ssl.MemoryBIO) -> None:
        if outgoing.pending:
            self.transport.write(outgoing.read())

    def _handshake_done(self) -> bool:
        assert self._ssl is not None  # noqa: S101
        self._upgrading = False
        self._limit = 0.0
        offered = client_hello_alpn(bytes(self._hello)) if self.implicit else None
        self._hello = bytearray()
        if offered is not None and self.owner.alpn not in offered:
            # strict ALPN (RFC 7301 §3.2): a client that speaks another protocol here is not answered
            self.owner.handshake_failed(self, "ALPN: the client offers another protocol")
            self._abort()
            return False
        cipher = self._ssl.cipher()
        self.channel = self.channel._replace(
            tls=Tls.IMPLICIT if self.implicit else Tls.STARTTLS,
            version=self._ssl.version() or "",
            cipher=cipher[0] if cipher else "",
        )
        self.session.secured(self.channel)
        if self.implicit:
            self._greet()
        return True

    def _tls_failed(self, error: ssl.SSLError) -> None:
        if self._upgrading:
            self.owner.handshake_failed(self, str(error.reason or "handshake failed"))
        if self._bios is not None:
            self._flush_tls(self._bios[1])  # the alert says why
        self._closing = True
        self.transport.close()
        self._deadline = self.loop.time() + GOODBYE_S
        self._hasten()

    # --- the session

    def _greet(self) -> None:
        if self.refused:
            self.session.stop(Stop.REFUSED)
            self._close()
            return
        self.session.greet()
        self._step()

    @property
    def slow(self) -> bool:
        """Whether the peer does not take what is sent."""
        return self._paused

    def hint(self) -> None:
        """Somebody changed the mailbox that the session has open."""
        self.session.changed()
        self._step()

    def _step(self) -> None:
        """Let the session do what is complete."""
        if self._task is not None:
            self._changed = True  # looked at when the running command has finished
            return
        if self._closing or self._upgrading:
            return
        coroutine = self.session.advance()
        try:
            waiting = coroutine.send(None)
        except StopIteration as stop:
            self._after(stop.value)
        except Exception as error:
            self._failure(error)
        else:
            self._task = self.loop.create_task(self._finish(_Resumed(coroutine, waiting)))

    async def _finish(self, running: _Resumed) -> Next:
        try:
            step = await running
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._task = None
            self._failure(error)
            return Next.CLOSE
        self._task = None
        self._let_go()
        if not self._closing:
            self._touch()
            self._after(step)
            if self._changed:
                self._changed = False
                self._step()
        return step

    def _after(self, step: Next) -> None:
        if step is Next.CLOSE:
            self._close()
            return
        self._send()
        if step is Next.START_TLS:
            self._begin_tls()
        elif step is Next.RELAY:
            self.session = self.owner.relay(self)

    def _failure(self, error: Exception) -> None:
        self.owner.failed(error)
        self.session.stop(Stop.FAILURE)
        self._close()

    def _send(self, last: bool = False) -> None:
        """Write what the session has put out; the `last` under TLS goes out with what ends it."""
        out = self.session.out
        if not out or self._closing:
            return
        data = b"".join(out)
        out.clear()
        self.sent += len(data)
        if self._ssl is None or self._upgrading:
            self.transport.write(data)
            return
        assert self._bios is not None  # noqa: S101
        for at in range(0, len(data), CHUNK):
            self._ssl.write(data[at : at + CHUNK] if len(data) > CHUNK else data)
        if not last:
            self.transport.write(self._bios[1].read())

    async def drain(self) -> None:
        """Send what there is; wait while the peer is slow."""
        self._send()
        if not self._paused or self._closing:
            return
        self._touch()
        self._writable = self.loop.create_future()
        await self._writable
        self._writable = None
        self._touch()

    def _close(self) -> None:
        """Send and close."""
        if self._closing:
            return
        self._send(last=True)
        self._closing = True
        if self._ssl is not None and self._bios is not None and not self._upgrading:
            with contextlib.suppress(ssl.SSLError):  # close_notify is sent; the peer's own is not waited for
                self._ssl.unwrap()
            self._flush_tls(self._bios[1])
        self.transport.close()
        self._deadline = self.loop.time() + GOODBYE_S
        self._hasten()

    def _abort(self) -> None:
        self._closing = True
        self.transport.abort()

    def stop(self) -> None:
        """The service stops: goodbye, after the running command."""
        if self._closing:
            return
        if self._task is not None:
            self._task.add_done_callback(lambda _: self.stop())
            return
        if self._upgrading:
            self._abort()
            return
        self.session.stop(Stop.SHUTDOWN)
        self._close()

    # --- time

    def silence(self) -> int:
        """Whole seconds since the peer last sent something, or took what it was slow to take."""
        return max(0, int(self.loop.time() - self._touched))

    def _touch(self) -> None:
        now = self._touched = self.loop.time()
        if self.session.authenticated:
            self._deadline = now + self.session.timeout
        else:
            # before login the clock runs from the beginning: a slow client cannot hold on by trickling
            self._deadline = self.started + self.session.timeout
        if self._deadline < self._armed:
            self._hasten()

    def _arm(self) -> None:
        self._armed = max(self._next(), self.loop.time() + 0.05)
        self._timer = self.loop.call_at(self._armed, self._tick)

    def _hasten(self) -> None:
        """Something is due before the timer would fire."""
        if self._timer is not None and self._next() < self._armed:
            self._timer.cancel()
            self._arm()

    def _next(self) -> float:
        return min(self._deadline, self._limit) if self._limit else self._deadline

    def _tick(self) -> None:
        self._timer = None
        now = self.loop.time()
        if now + 0.01 < self._next():
            self._arm()
            return
        if self._closing or self._upgrading or self._paused:
            self._abort()
            return
        if self._task is not None:  # a command is running: that is our time, not the peer's
            self._deadline = now + 5
            self._arm()
            return
        self.session.stop(Stop.TIMEOUT)
        self._close()
        self._arm()
