"""Test-ImapConnectivity and its siblings: a log-on as a client does it, each step timed, each failure told apart.

    report = await run(Scenario(Protocol.IMAP4, "mail.example.com", 993, Kind.SSL, Login(user, password)))

The password is sent only over TLS whose certificate was verified, unless the caller says `Kind.PLAINTEXT` or
`trust_any`; both give a warning. Where the server announces that it takes no clear-text log-on, nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import ipaddress
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

from letterlock.base.values import Protocol
from letterlock.clients.imap import ImapClient
from letterlock.clients.outcomes import Failed, Outcome, quoted
from letterlock.clients.pop3 import Pop3Client
from letterlock.clients.wire import Login
from letterlock.probe import handshake, roundtrip
from letterlock.probe.channel import Address, Resolve, resolve
from letterlock.probe.walk import Place, Walk, presented

LOGOUT_S: Final = 10.0  # a goodbye that takes longer is not waited for
DESCRIBE_S: Final = 5.0


class Kind(enum.Enum):
    """-ConnectionType."""

    PLAINTEXT = "Plaintext"
    SSL = "Ssl"  # TLS from the first byte
    TLS = "Tls"  # STARTTLS or STLS
    TLS_OR_SSL = "TlsOrSsl"  # whichever of the two the port speaks


class Result(enum.Enum):
    """How a test ended."""

    SUCCESS = "Success"
    SKIPPED = "Skipped"  # all is well as far as it went, and no credential was given to log on
    FAILURE = "Failure"


class Step(NamedTuple):
    """One step: its name, how long it took, what is to be known about it."""

    name: str
    milliseconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What to test."""

    protocol: Protocol
    name: str  # host name or address; the certificate must have it
    port: int
    kind: Kind
    login: Login | None = None
    addresses: tuple[Address, ...] = ()  # where to connect; empty: the name is resolved
    timeout: float = 180.0  # seconds, all together
    per_connection: float = 120.0  # seconds, each connection
    light: bool = False  # log on only, no round trip
    trust_any: bool = False  # any certificate will do
    trust: Path | None = None  # certificates trusted besides the system's
    send_by: tuple[str, int] | None = None  # host and port of the server that takes the test message


@dataclass(slots=True)
class Report:
    """What came of it."""

    result: Result = Result.SUCCESS
    failure: Failed | None = None
    steps: list[Step] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    kind: Kind = Kind.SSL
    milliseconds: float = 0.0  # the steps together


async def run(scenario: Scenario, resolve: Resolve = resolve) -> Report:
    """Run it; ends within about `scenario.timeout` seconds. Raises only for wrong arguments (`Malformed`)."""
    if scenario.login is not None:
        scenario.login.check()
    running = Run(scenario, resolve)
    try:
        await running.all()
    except Failed as failure:
        running.report.result = Result.FAILURE
        running.report.failure = running.in_time(failure)
    running.report.milliseconds = sum(step.milliseconds for step in running.report.steps)
    return running.report


_WAITED: Final = (
    Outcome.ANSWER_TIMED_OUT,
    Outcome.NO_GREETING,
    Outcome.TLS_TIMED_OUT,
    Outcome.CONNECT_TIMED_OUT,
    Outcome.NAME_SERVER_FAILED,
)


class Run:
    """One test while it runs; `roundtrip` uses it as well."""

    def __init__(self, scenario: Scenario, resolve: Resolve) -> None:
        self.scenario = scenario
        self.resolve = resolve
        self.report = Report(kind=scenario.kind)
        self.loop = asyncio.get_running_loop()
        self.end = self.loop.time() + scenario.timeout

    def connection_end(self) -> float:
        """The deadline of a connection that begins now."""
        return min(self.end, self.loop.time() + self.scenario.per_connection)

    def in_time(self, failure: Failed) -> Failed:
        """When the whole test's time was up, that is what happened."""
        if failure.outcome in _WAITED and self.loop.time() >= self.end - 0.01:
            last = self.report.steps[-1].name if self.report.steps else ""
            return Failed(Outcome.TIMED_OUT, f"during {last}" if last else "")
        return failure

    @contextlib.asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[list[str]]:
        """Time a step; what is put in the list is its detail."""
        detail: list[str] = []
        began = time.perf_counter()
        try:
            yield detail
        finally:
            self.report.steps.append(Step(name, (time.perf_counter() - began) * 1000, ", ".join(detail)))

    async def all(self) -> None:
        """Connect, log on, round trip, log out."""
        s = self.scenario
        self._warn()
        walk = await self.logged_on(s)
        try:
            if s.login is None:
                if s.protocol is not Protocol.SMTP:
                    self.report.result = Result.SKIPPED
                return
            await self._mailbox(walk)
        finally:
            await self.leave(walk)
        if not s.light and s.send_by is not None and s.protocol is Protocol.POP3:
            await roundtrip.pop3(self)

    def _warn(self) -> None:
        s = self.scenario
        if s.login is None:
            return
        if s.kind is Kind.PLAINTEXT and not _loopback(s):
            self.report.warnings.append("-ConnectionType Plaintext: the password may cross the network in clear text")
        if s.trust_any and s.kind is not Kind.PLAINTEXT:
            self.report.warnings.append(
                "-TrustAnySSLCertificate: the certificate is not checked; whoever is in between can read the password"
            )

    async def addresses(self, name: str) -> tuple[Address, ...]:
        """By DNS, or the address itself."""
        async with self.step("DNS lookup") as detail:
            try:
                async with asyncio.timeout_at(self.connection_end()):
                    found = await self.resolve(name)
            except TimeoutError:
                raise Failed(Outcome.NAME_SERVER_FAILED, name) from None
            detail += [a.address for a in found]
            return tuple(found)

    async def logged_on(self, s: Scenario) -> Walk:
        """A connection that is secured as asked, and logged on where there is a credential."""
        addresses = s.addresses or await self.addresses(s.name)
        place = Place(s.protocol, s.name, addresses, s.port)
        if s.kind is not Kind.TLS_OR_SSL:
            return await self._connected(place, s.kind, s.login)
        try:
            walk = await self._connected(place, Kind.SSL, s.login)
        except Failed as failure:
            if failure.outcome is not Outcome.CLEAR_ON_TLS_PORT:
                raise
            walk = await self._connected(place, Kind.TLS, s.login)
        return walk

    async def _connected(self, place: Place, kind: Kind, login: Login | None) -> Walk:
        walk = Walk(place, self.connection_end())
        self.report.kind = kind
        try:
            async with self.step("TCP connection") as detail:
                await walk.connect()
                detail.append(walk.channel.where)
            if kind is Kind.SSL:
                await self._handshake(walk, implicit=True)
            async with self.step("Greeting") as detail:
                greeting = await walk.greeting()
                detail.append(quoted(greeting.text))
            if kind is Kind.TLS:
                await self._starttls(walk)
            async with self.step("Capabilities") as detail:
                detail.append(quoted(" ".join(sorted(await walk.ask(walk.client.capability())))))
            if login is not None:
                async with self.step("Log-on") as detail:
                    detail.append(await walk.ask(walk.client.login(login)))
        except BaseException:
            await walk.close()
            raise
        return walk

    async def _starttls(self, walk: Walk) -> None:
        async with self.step("Capabilities in clear"):
            await walk.ask(walk.client.capability())
        offers = walk.client.mechanisms()
        clear_capa = not isinstance(walk.client, Pop3Client) or walk.client.capa_known
        if offers and clear_capa:
            self.report.warnings.append(
                f"the server offers log-on in clear text on port {walk.place.port} before TLS: {', '.join(offers)}"
            )
        async with self.step("STLS" if self.scenario.protocol is Protocol.POP3 else "STARTTLS"):
            await walk.ask(walk.client.starttls())
        await self._handshake(walk, implicit=False)

    async def _handshake(self, walk: Walk, implicit: bool) -> None:
        s = self.scenario
        context = handshake.unverified() if s.trust_any else handshake.verifying(s.trust)
        try:
            async with self.step("TLS handshake") as detail:
                tls = await walk.handshake(context)
                detail += [tls.version() or "", (tls.cipher() or ("",))[0]]
        except Failed as failure:
            if failure.outcome not in handshake.CERTIFICATE:
                raise
            raise await self._described(walk.place, failure, implicit) from None

    async def _described(self, place: Place, failure: Failed, implicit: bool) -> Failed:
        """The same failure with what the certificate says; it is fetched again for that, and nothing else is sent."""
        end = min(self.end, self.loop.time() + DESCRIBE_S)
        der = None
        with contextlib.suppress(OSError, ssl.SSLError, EOFError):
            der = await presented(place, implicit, end)
        certificate = handshake.load(der) if der else None
        if certificate is None:
            return failure
        return Failed(failure.outcome, handshake.explain(certificate, failure.outcome, place.name))

    async def _mailbox(self, walk: Walk) -> None:
        client = walk.client
        if isinstance(client, ImapClient):
            async with self.step("Capabilities after log-on"):
                await walk.ask(client.capability())
            async with self.step("SELECT INBOX") as detail:
                detail.append(f"{await walk.ask(client.select())} messages")
            if not self.scenario.light:
                await roundtrip.imap(self, walk, client)
        elif isinstance(client, Pop3Client):
            async with self.step("STAT") as detail:
                detail.append(f"{await walk.ask(client.stat())} messages")

    async def leave(self, walk: Walk) -> None:
        """Log out, for as long as that takes no longer than LOGOUT_S; its failure is not the test's."""
        walk.deadline = min(walk.deadline, self.loop.time() + LOGOUT_S)
        with contextlib.suppress(Failed):
            async with self.step("Log-out"):
                await walk.ask(walk.client.logout())
        await walk.close()

    async def send(self, message: bytes, address: str) -> None:
        """Submit the test message to `send_by`, with the same credential, over verified TLS."""
        s = self.scenario
        assert s.send_by is not None  # noqa: S101 - the callers ask first
        name, port = s.send_by
        smtp = replace(
            s, protocol=Protocol.SMTP, name=name, port=port, kind=Kind.TLS_OR_SSL, addresses=(), send_by=None
        )
        began = len(self.report.steps)
        kind = self.report.kind
        try:
            walk = await self.logged_on(smtp)
            try:
                async with self.step("Send the test message"):
                    await walk.ask(roundtrip.submission(walk, address, message))
            finally:
                await self.leave(walk)
        except Failed as failure:
            if failure.outcome is Outcome.SEND_FAILED:
                raise
            raise Failed(Outcome.SEND_FAILED, f"{name} port {port}: {failure.text}") from None
        finally:
            self.report.kind = kind
            self.report.steps[began:] = [t._replace(name=f"SMTP: {t.name}") for t in self.report.steps[began:]]


def _loopback(s: Scenario) -> bool:
    """Whether the password stays on this machine for certain."""
    try:
        return all(ipaddress.ip_address(a.address).is_loopback for a in s.addresses) and bool(s.addresses)
    except ValueError:
        return False
