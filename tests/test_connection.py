"""A connection's transport side: time-outs, slow readers, floods while a command runs, faults of a session."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from letterlock.base.settings import ImapSettings
from letterlock.base.values import TimeSpan
from letterlock.imap.session import ImapSession
from letterlock.policy.login import Channel, LoginRules
from letterlock.runtime import connection as module
from letterlock.runtime.connection import HIGH_WATER, MAX_PENDING, Connection
from letterlock.session import Next, Session, Stop
from letterlock.store.sqlite import SqliteStore
from tests.dialogue import BOX, FakeHost
from tests.store.support import put

Make = Callable[[Connection, Channel, bool], Session]
SHORT = TimeSpan(1)  # the shortest there is


class Owner:
    """What a connection needs of its service."""

    alpn = b"imap"

    def __init__(self, make: Make, context: ssl.SSLContext | None = None) -> None:
        self.make, self.tls = make, context
        self.errors: list[BaseException] = []
        self.gone: list[Connection] = []
        self.open: list[Connection] = []
        self.handshakes: list[str] = []

    def context(self, connection: Connection) -> ssl.SSLContext:
        assert self.tls is not None
        return self.tls

    def make_session(self, connection: Connection, channel: Channel, starttls: bool) -> Session:
        self.open.append(connection)
        return self.make(connection, channel, starttls)

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)

    def closed(self, connection: Connection) -> None:
        self.gone.append(connection)

    def relay(self, connection: Connection) -> Session:
        raise AssertionError

    def handshake_failed(self, connection: Connection, reason: str) -> None:
        self.handshakes.append(reason)


class Echo:
    """A session of nothing but its driver's contract."""

    authenticated = True
    timeout = 30.0

    def __init__(self, work: Callable[[Echo], Awaitable[Next]]) -> None:
        self.out: list[bytes] = []
        self.received = bytearray()
        self.eof = False
        self.work = work
        self.stops: list[Stop] = []
        self.releases = 0

    def greet(self) -> None:
        self.out.append(b"hello\r\n")

    def receive(self, data: bytes) -> None:
        self.received += data
        self.eof |= not data

    async def advance(self) -> Next:
        return await self.work(self)

    def secured(self, channel: Channel) -> None: ...
    def changed(self) -> None: ...
    def stop(self, why: Stop) -> None:
        self.stops.append(why)
        self.out.append(b"bye\r\n")

    def ended(self) -> None:
        self.releases += 1


@contextlib.asynccontextmanager
async def listening(owner: Owner, implicit: bool = False) -> AsyncIterator[int]:
    """A port on loopback whose connections are `owner`'s."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(owner, loop, implicit), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for connection in owner.open:
            connection.transport.abort()
        await asyncio.sleep(0)


def play(body: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(body(), 30))


def host_of(connection: Connection, store: SqliteStore) -> FakeHost:
    """A host whose `drain` is the connection's."""
    host = FakeHost(store.mailbox(BOX))
    host.drain = connection.drain  # type: ignore[method-assign]
    return host


def imap(store: SqliteStore, **changed: Any) -> Make:
    """Real IMAP sessions."""
    settings = dataclasses.replace(ImapSettings(), **changed)

    def make(connection: Connection, channel: Channel, starttls: bool) -> Session:
        rules = LoginRules(settings.LoginType.PlainTextLogin)
        return ImapSession(settings, host_of(connection, store), channel, rules, starttls)

    return make


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's TLS context for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(path)
    return made


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01\x00", b"\x16"], ids=["nothing", "half", "octet"])
def test_a_handshake_that_does_not_go_on_is_ended(
    context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(module, "HANDSHAKE_S", 0.3)

    async def body() -> None:
        owner = Owner(lambda *_: Echo(lambda _: asyncio.sleep(0, Next.READ)), context)  # type: ignore[arg-type, return-value]
        async with listening(owner, implicit=True) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            start = time.monotonic()
            for octet in sent:
                writer.write(bytes([octet]))
                await asyncio.sleep(0.01)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            assert 0.2 < time.monotonic() - start < 3
            assert len(owner.gone) == 1

    play(body)


def test_garbage_instead_of_a_handshake_is_ended_at_once(context: ssl.SSLContext) -> None:
    async def body() -> None:
        owner = Owner(lambda *_: Echo(lambda _: asyncio.sleep(0, Next.READ)), context)  # type: ignore[arg-type, return-value]
        async with listening(owner, implicit=True) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                assert b"HTTP" not in await reader.read()
            assert len(owner.handshakes) == 1

    play(body)


def test_before_login_the_clock_runs_from_the_beginning(tmp_path: Path) -> None:
    """A client that loiters by sending something now and then."""

    async def body() -> None:
        store = SqliteStore(tmp_path)
        await store.create_mailbox(BOX)
        owner = Owner(imap(store, PreAuthenticatedConnectionTimeout=SHORT))
        async with listening(owner) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            start = time.monotonic()
            answer = b""
            while not reader.at_eof() and time.monotonic() - start < 8:
                with contextlib.suppress(ConnectionError):
                    writer.write(b"a NOOP\r\n")
                    answer += await asyncio.wait_for(reader.read(1000), 5)
                await asyncio.sleep(0.1)
            assert 0.9 < time.monotonic() - start < 3
            assert answer.count(b"a OK") > 3 and b"* BYE" in answer
        await store.close()

    play(body)


def test_after_login_only_silence_ends_a_session(tmp_path: Path) -> None:
    async def body() -> None:
        store = SqliteStore(tmp_path)
        await store.create_mailbox(BOX)
        owner = Owner(imap(store, AuthenticatedConnectionTimeout=SHORT))
        async with listening(owner) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b'l LOGIN alice "secret 1"\r\n')
            await reader.readuntil(b"l OK")
            for _ in range(8):
                await asyncio.sleep(0.25)
                writer.write(b"a NOOP\r\n")
                await reader.readuntil(b"a OK NOOP completed.\r\n")
            start = time.monotonic()
            assert (await reader.read()).startswith(b"* BYE")
            assert 0.8 < time.monotonic() - start < 3
        await store.close()

    play(body)


def test_a_peer_that_does_not_read_is_not_written_to_and_not_kept(tmp_path: Path) -> None:
    """Slow readers cost neither memory nor a connection for ever."""

    async def body() -> None:
        store = SqliteStore(tmp_path)
        await store.create_mailbox(BOX)
        mail = store.mailbox(BOX)
        inbox = await mail.folder("INBOX")
        await put(mail, inbox, *[b"Subject: x\r\n\r\n" + b"y" * 200_000 + b"\r\n"] * 150)  # 30 MB
        owner = Owner(imap(store, AuthenticatedConnectionTimeout=SHORT))
        async with listening(owner) as port:
            _reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
            writer.write(b'l LOGIN alice "secret 1"\r\ns SELECT INBOX\r\nf FETCH 1:* BODY.PEEK[]\r\n')
            await asyncio.sleep(0.6)
            [connection] = owner.open
            assert connection.slow
            most = HIGH_WATER + 600_000  # a message more than the mark
            assert connection.transport.get_write_buffer_size() < most
            for _ in range(60):
                if owner.gone:
                    break
                await asyncio.sleep(0.1)
            assert owner.gone == [connection]
            assert not owner.errors
            writer.close()
        await store.close()

    play(body)


def test_a_peer_that_does_not_take_the_goodbye_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GOODBYE_S", 0.3)

    async def body() -> None:
        async def work(s: Echo) -> Next:
            if not s.received:
                return Next.READ
            s.out.append(b"z" * (16 << 20))
            return Next.CLOSE

        session = Echo(work)
        owner = Owner(lambda *_: session)  # type: ignore[arg-type, return-value]
        async with listening(owner) as port:
            _reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1000)
            writer.write(b"x")
            for _ in range(40):
                await asyncio.sleep(0.05)
            assert len(owner.gone) == 1

    play(body)


def test_what_is_sent_while_a_command_runs_is_bounded() -> None:
    """A login waits up to 15 s after failures: nobody may fill our memory meanwhile."""

    async def body() -> None:
        release = asyncio.get_running_loop().create_future()

        async def work(s: Echo) -> Next:
            if not s.received:
                return Next.READ
            if not release.done():
                await release
            s.out.append(b"%d\r\n" % len(s.received))
            return Next.READ

        session = Echo(work)
        owner = Owner(lambda *_: session)  # type: ignore[arg-type, return-value]
        async with listening(owner) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.readline() == b"hello\r\n"
            total = 24 << 20
            sending = asyncio.ensure_future(_send(writer, total))
            await asyncio.sleep(0.5)
            assert len(session.received) <= MAX_PENDING + (1 << 19)
            assert not sending.done(), "the peer was not made to wait"
            release.set_result(None)
            await sending
            while len(session.received) < total:
                await asyncio.sleep(0.01)
            assert not owner.errors

    play(body)


async def _send(writer: asyncio.StreamWriter, total: int) -> None:
    for _ in range(total >> 16):
        writer.write(b"x" * 65536)
        await writer.drain()


@pytest.mark.parametrize("waits", [False, True])
def test_a_fault_of_ours_ends_its_own_session_with_a_goodbye(waits: bool) -> None:
    async def body() -> None:
        async def work(s: Echo) -> Next:
            if s.received:
                if waits:
                    await asyncio.sleep(0.01)
                raise ZeroDivisionError
            return Next.READ

        session = Echo(work)
        owner = Owner(lambda *_: session)  # type: ignore[arg-type, return-value]
        async with listening(owner) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x")
            assert await reader.read() == b"hello\r\nbye\r\n"
            assert session.stops == [Stop.FAILURE]
            assert [type(e) for e in owner.errors] == [ZeroDivisionError]
            assert session.releases == 1

    play(body)


def test_a_connection_refused_by_a_limit_says_so_and_ends() -> None:
    async def body() -> None:
        session = Echo(lambda _: asyncio.sleep(0, Next.READ))

        def make(connection: Connection, _channel: Channel, _starttls: bool) -> Session:
            connection.refused = True
            return session  # type: ignore[return-value]

        async with listening(Owner(make)) as port:
            reader, _ = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b"bye\r\n"
            assert session.stops == [Stop.REFUSED]

    play(body)


def test_stopping_waits_for_the_running_command() -> None:
    async def body() -> None:
        async def work(s: Echo) -> Next:
            if s.received:
                s.received.clear()
                await asyncio.sleep(0.2)
                s.out.append(b"done\r\n")
            return Next.READ

        session = Echo(work)
        owner = Owner(lambda *_: session)  # type: ignore[arg-type, return-value]
        async with listening(owner) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x")
            await asyncio.sleep(0.05)
            owner.open[0].stop()
            assert await reader.read() == b"hello\r\ndone\r\nbye\r\n"

    play(body)


def test_a_peer_that_vanishes_during_a_command_leaves_nothing() -> None:
    async def body() -> None:
        async def work(s: Echo) -> Next:
            if s.received:
                await asyncio.sleep(30)
            return Next.READ

        session = Echo(work)
        owner = Owner(lambda *_: session)  # type: ignore[arg-type, return-value]
        async with listening(owner) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x")
            await asyncio.sleep(0.05)
            writer.transport.abort()
            while not owner.gone:
                await asyncio.sleep(0.01)
            assert session.releases == 1 and not owner.errors

    play(body)
