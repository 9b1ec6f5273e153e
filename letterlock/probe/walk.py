"""The way into a server, step by step: connect, greeting, capabilities, STARTTLS, handshake. Scenarios time the steps,
endpoint probes take them again and again."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Final, NamedTuple, TypeVar

from letterlock.base.values import Protocol
from letterlock.clients.imap import ImapClient
from letterlock.clients.outcomes import Failed, Outcome
from letterlock.clients.pop3 import Pop3Client
from letterlock.clients.smtp import SmtpClient
from letterlock.clients.wire import Dialogue, Greeting
from letterlock.probe import handshake
from letterlock.probe.channel import Address, Channel

T = TypeVar("T")
MailClient = ImapClient | Pop3Client | SmtpClient

PATIENCE_S: Final = 3.0  # silence after which a clear port is asked whether it speaks TLS


class Place(NamedTuple):
    """Where a server is, and by which name its certificate is checked."""

    protocol: Protocol
    name: str
    addresses: tuple[Address, ...]
    port: int

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


class Walk:
    """One connection on its way. Every step raises `Failed`, and ends by `deadline` (event loop time)."""

    def __init__(self, place: Place, deadline: float, client: MailClient | None = None) -> None:
        self.place = place
        self.deadline = deadline
        self.channel: Channel
        self.client: MailClient
        if client is not None:
            self.client = client

    async def connect(self) -> None:
        """TCP."""
        self.channel = await Channel.open(list(self.place.addresses), self.place.port, self.deadline)
        if hasattr(self, "client"):
            return
        if self.place.protocol is Protocol.IMAP4:
            self.client = ImapClient()
        elif self.place.protocol is Protocol.POP3:
            self.client = Pop3Client()
        else:
            self.client = SmtpClient(self.channel.own_literal())

    async def ask(self, dialogue: Dialogue[T], waiting: Outcome = Outcome.ANSWER_TIMED_OUT) -> T:
        """Run one operation of the client."""
        return await self.channel.run(self.client, dialogue, self.deadline, waiting)

    async def greeting(self) -> Greeting:
        """Wait for it; on a clear port that stays silent, find out whether the port speaks TLS."""
        waiting = asyncio.ensure_future(self.ask(self.client.greeting(), Outcome.NO_GREETING))
        try:
            if self.channel.tls is None:
                await asyncio.wait({waiting}, timeout=PATIENCE_S)
                if not waiting.done() and await speaks_tls(self.place, self.deadline):
                    raise Failed(Outcome.TLS_ON_CLEAR_PORT)
            return await waiting
        finally:
            if not waiting.done():
                waiting.cancel()
                with contextlib.suppress(asyncio.CancelledError, Failed):
                    await waiting

    async def handshake(self, context: ssl.SSLContext) -> ssl.SSLObject:
        """TLS; the client forgets what it learnt in clear."""
        try:
            tls = await self.channel.handshake(context, self.place.name, self.deadline)
        except (ssl.SSLError, OSError, EOFError, Failed) as error:
            failure = handshake.failure(error, self.channel.first_in_handshake, self.channel.where)
            raise failure from None
        self.client.secured()
        return tls

    async def secure(self, context: ssl.SSLContext, implicit: bool) -> Greeting:
        """All steps to a TLS channel with its greeting read."""
        await self.connect()
        if implicit:
            await self.handshake(context)
            return await self.greeting()
        greeting = await self.greeting()
        await self.ask(self.client.capability())
        await self.ask(self.client.starttls())
        await self.handshake(context)
        return greeting

    async def close(self) -> None:
        """Never raises."""
        if hasattr(self, "channel"):
            await self.channel.close()


@contextlib.asynccontextmanager
async def walking(place: Place, deadline: float) -> AsyncIterator[Walk]:
    """A walk that is closed at the end."""
    walk = Walk(place, deadline)
    try:
        yield walk
    finally:
        await walk.close()


async def speaks_tls(place: Place, deadline: float) -> bool:
    """Whether a handshake from the first byte succeeds there; whatever its certificate, and nothing is sent over it."""
    end = min(deadline, asyncio.get_running_loop().time() + PATIENCE_S)
    async with walking(place, end) as walk:
        try:
            await walk.connect()
            await walk.handshake(handshake.unverified())
        except Failed as failure:
            # an alert is TLS as well: "no such name", "certificate required"
            return failure.outcome in (Outcome.TLS_ALERT, Outcome.TLS_VERSION, Outcome.TLS_NO_CIPHER)
    return True


async def presented(place: Place, implicit: bool, deadline: float) -> bytes | None:
    """The certificate that is presented there, unverified and only to be described; None when it cannot be had."""
    async with walking(place, deadline) as walk:
        try:
            await walk.secure(handshake.unverified(), implicit)
        except Failed:
            tls = walk.channel.tls if hasattr(walk, "channel") else None
            return tls.getpeercert(True) if tls is not None else None
        return walk.channel.tls.getpeercert(True) if walk.channel.tls is not None else None
