"""One outgoing connection, clear or TLS, on which a sans-IO client's dialogues are run.

TLS goes through memory BIOs, so that STARTTLS is exact: nothing that came in clear can be taken for something inside.
Every wait ends at an absolute time (`deadline`, of the event loop's clock): a peer that sends an octet a second gains
nothing. What a connection may send in all is bounded as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeVar

from letterlock.clients.outcomes import Failed, Outcome
from letterlock.clients.wire import Client, Dialogue

T = TypeVar("T")

CHUNK: Final = 65536
MAX_RECEIVED: Final = 16 << 20
MAX_HANDSHAKE: Final = 1 << 18  # OpenSSL takes certificate chains of up to 100 KiB
CLOSE_S: Final = 1.0


class Address(NamedTuple):
    """An address to connect to."""

    family: int
    address: str


Resolve = Callable[[str], Awaitable[list[Address]]]


async def resolve(name: str) -> list[Address]:
    """The addresses of a name in the system's order of preference; `Failed` tells why there are none."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        temporary = error.errno in (socket.EAI_AGAIN, socket.EAI_FAIL)
        raise Failed(Outcome.NAME_SERVER_FAILED if temporary else Outcome.NAME_NOT_FOUND, name) from None
    except (UnicodeError, OSError):
        raise Failed(Outcome.NAME_NOT_FOUND, name) from None
    addresses = [Address(int(family), str(where[0])) for family, _, _, _, where in found]
    return list(dict.fromkeys(a for a in addresses if a.family in (socket.AF_INET, socket.AF_INET6)))


_CONNECT: Final = {
    errno.ECONNREFUSED: Outcome.CONNECTION_REFUSED,
    errno.ETIMEDOUT: Outcome.CONNECT_TIMED_OUT,
    errno.ECONNRESET: Outcome.CLOSED_AT_ONCE,
}
# the failure that tells most stands first, when several addresses of a name fail differently
_TELLING: Final = (
    Outcome.CONNECTION_REFUSED,
    Outcome.CLOSED_AT_ONCE,
    Outcome.CONNECT_TIMED_OUT,
    Outcome.UNREACHABLE,
)


class Channel:
    """A connection; `open` makes one."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, where: str) -> None:
        self.where = where  # "192.0.2.1 port 993", for people
        self._reader, self._writer = reader, writer
        self._tls: ssl.SSLObject | None = None
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._received = 0
        self.most = MAX_RECEIVED  # octets in all
        self.first_in_handshake = b""  # what the peer began the handshake with

    @classmethod
    async def open(cls, addresses: list[Address], port: int, deadline: float) -> Channel:
        """Connect to the first address that answers; `Failed` with the most telling reason when none does."""
        loop = asyncio.get_running_loop()
        failures: list[Failed] = []
        for number, (family, address) in enumerate(addresses):
            where = f"{address} port {port}"
            # one address that swallows packets must leave time for the others
            share = loop.time() + (deadline - loop.time()) / (len(addresses) - number)
            try:
                async with asyncio.timeout_at(share):
                    reader, writer = await asyncio.open_connection(address, port, family=family, limit=CHUNK)
            except TimeoutError:
                failures.append(Failed(Outcome.CONNECT_TIMED_OUT, where))
            except OSError as error:
                outcome = _CONNECT.get(error.errno or 0, Outcome.UNREACHABLE)
                failures.append(Failed(outcome, where))
            else:
                return cls(reader, writer, where)
        if not failures:
            raise Failed(Outcome.UNREACHABLE, "the name has no address that this machine can use")
        first = min(failures, key=lambda f: _TELLING.index(f.outcome))
        same = [f.detail for f in failures if f.outcome is first.outcome]
        raise Failed(first.outcome, " and ".join(same))

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS state, for version, cipher and certificate; None in clear."""
        return self._tls

    def own_literal(self) -> str:
        """Our address as SMTP's EHLO takes it (RFC 5321 §4.1.3)."""
        own = str((self._writer.get_extra_info("sockname") or ("127.0.0.1", 0))[0])
        return f"[IPv6:{own}]" if ":" in own else f"[{own}]"

    async def exchange(self, data: bytes, deadline: float) -> bytes:
        """Send as it is, and take what comes next: for probes that do not follow a protocol."""
        await self.write(data, deadline)
        return await self.read(deadline)

    # --- octets

    async def read(self, deadline: float) -> bytes:
        """What arrives next, decrypted; b"" at the end. TimeoutError at the deadline, OSError when broken."""
        async with asyncio.timeout_at(deadline):
            if self._tls is None:
                return await self._raw()
            while True:
                try:
                    return self._tls.read(CHUNK)
                except ssl.SSLWantReadError:
                    self._flush()
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""
                except ssl.SSLError as error:
                    raise ConnectionResetError(str(error.reason)) from None
                data = await self._raw()
                if data:
                    self._in.write(data)
                else:
                    self._in.write_eof()

    async def _raw(self) -> bytes:
        data = await self._reader.read(CHUNK)
        self._received += len(data)
        if self._received > self.most:
            raise Failed(Outcome.TOO_MUCH, f"more than {self.most} octets on one connection")
        return data

    async def write(self, data: bytes, deadline: float) -> None:
        """Send; waits while the peer does not take it, until the deadline."""
        if self._tls is None:
            self._writer.write(data)
        else:
            try:
                self._tls.write(data)
            except ssl.SSLError as error:
                raise ConnectionResetError(str(error.reason)) from None
            self._flush()
        async with asyncio.timeout_at(deadline):
            await self._writer.drain()

    def _flush(self) -> None:
        if self._out.pending:
            self._writer.write(self._out.read())

    # --- TLS

    async def handshake(self, context: ssl.SSLContext, name: str, deadline: float) -> ssl.SSLObject:
        """Start TLS. Raises ssl.SSLError, TimeoutError, OSError, EOFError; `describe_tls_failure` puts it in words."""
        tls = context.wrap_bio(self._in, self._out, server_hostname=name or None)
        taken = 0
        async with asyncio.timeout_at(deadline):
            while True:
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    self._flush()
                except ssl.SSLError:
                    self._flush()  # our alert says why
                    raise
                else:
                    break
                await self._writer.drain()
                data = await self._raw()
                if not data:
                    raise EOFError
                if len(self.first_in_handshake) < 512:
                    self.first_in_handshake += data[:512]
                taken += len(data)
                if taken > MAX_HANDSHAKE:
                    raise Failed(Outcome.TOO_MUCH, f"a TLS handshake of more than {MAX_HANDSHAKE} octets")
                self._in.write(data)
            self._flush()
            await self._writer.drain()
        self._tls = tls
        return tls

    # --- dialogues

    async def run(self, client: Client, dialogue: Dialogue[T], deadline: float, waiting: Outcome) -> T:
        """Run one operation of a sans-IO client. `waiting`: what it means when the deadline comes first."""
        try:
            while True:
                try:
                    next(dialogue)
                except StopIteration as stop:
                    result: T = stop.value
                    await self._send(client, deadline)
                    return result
                await self._send(client, deadline)
                client.receive(await self.read(deadline))
        except TimeoutError:
            raise Failed(waiting, self.where, client.pending[:200]) from None
        except OSError:
            outcome = Outcome.CLOSED_AT_ONCE if waiting is Outcome.NO_GREETING else Outcome.CONNECTION_LOST
            raise Failed(outcome, self.where) from None

    async def _send(self, client: Client, deadline: float) -> None:
        if client.out:
            data = b"".join(client.out)
            client.out.clear()
            await self.write(data, deadline)

    async def close(self) -> None:
        """Close, politely where TLS is in use; never waits longer than CLOSE_S, never raises."""
        with contextlib.suppress(OSError, ssl.SSLError, ValueError, TimeoutError):
            if self._tls is not None:
                with contextlib.suppress(ssl.SSLError):
                    self._tls.unwrap()
                self._flush()
            self._writer.close()
            async with asyncio.timeout(CLOSE_S):
                await self._writer.wait_closed()
        transport = self._writer.transport
        if transport is not None:
            transport.abort()
