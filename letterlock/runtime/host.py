"""What a session may ask of the outside (letterlock.session.Host), answered by the running server."""

from __future__ import annotations

import asyncio
import datetime
import os
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from letterlock.base.errors import Refused
from letterlock.base.values import Protocol
from letterlock.directory import sightings
from letterlock.directory.accounts import Account
from letterlock.policy.login import Decision, LoginAttempt, decide
from letterlock.runtime.connection import Connection
from letterlock.runtime.handover import BackEnd, hand_over
from letterlock.runtime.presentation import presentation
from letterlock.runtime.protocol_log import format_row
from letterlock.session import Password, Welcome
from letterlock.store.api import MailStore

if TYPE_CHECKING:
    from letterlock.runtime.engine import Instance

MAX_CHECKS: Final = 100  # exposure checks that may wait; beyond it they are dropped


class ConnectionHost:
    """One connection's host."""

    __slots__ = (
        "_began",
        "_sequence",
        "_since",
        "_watched",
        "attempt",
        "back_end",
        "connection",
        "identity",
        "service",
        "user",
    )

    def __init__(self, service: Instance, connection: Connection) -> None:
        self.service = service
        self.connection = connection
        self.identity = connection.identity
        self.user = ""
        self.attempt: LoginAttempt | None = None  # the login that succeeded
        self.back_end: BackEnd | None = None  # the line to the server where the mailbox lives
        self._since = time.time()
        self._watched: MailStore | None = None
        self._began = time.perf_counter()
        self._sequence = 0

    # --- login

    async def log_in(self, attempt: LoginAttempt, password: Password) -> Welcome:
        """Verify and admit."""
        server, service = self.service.engine, self.service
        if service.kind.back_end not in server.back_ends:
            raise Refused("the mailbox service is not running; please try again later", b"UNAVAILABLE")
        user, address = attempt.user.lower(), self.connection.channel.peer
        delay = server.throttle.delay(user, address, time.monotonic())
        if delay:
            await asyncio.sleep(delay)
        if server.servers.all() and server.accounts.by_login(attempt.user) is None:
            welcome = await self._elsewhere(attempt, password)
            if welcome is not None:
                return welcome
        account = await server.verifier.verify(attempt.user, password)
        if account is None:
            server.throttle.failed(user, address, time.monotonic())
            server.upstream.failed(user, address)
            self._later(self._check_retired(attempt, password))
            raise Refused("the user name or the password is wrong", b"AUTHENTICATIONFAILED")
        server.throttle.succeeded(user, address, time.monotonic())
        if not _enabled(account, attempt.protocol):
            raise Refused(
                f"{attempt.protocol.value} is switched off for this mailbox; ask the administrator", b"CONTACTADMIN"
            )
        if not await server.upstream.enter(self.identity, account.id):
            raise Refused(
                "too many connections of this user; close some in your mail programs or try again later", b"LIMIT"
            )
        self.user, self.attempt = account.id, attempt
        self._observe(attempt)
        server.logged_on(account.id, attempt.protocol.value, address, self._client())
        how = presentation(service.settings, account.switches)
        mail = server.store.mailbox(account.id, account.quotas.store())
        return Welcome(account.address, server.conversions.mailbox(mail, how), how.exact_size)

    async def _elsewhere(self, attempt: LoginAttempt, password: Password) -> Welcome | None:
        """Log in at another server of the organisation; None when the mailbox is at none."""
        server = self.service.engine
        found = server.servers.home(attempt.user)
        if found is None or attempt.channel.trusted_hop:  # handed over once is enough
            return None
        peer, account = found
        user, address = attempt.user.lower(), self.connection.channel.peer
        try:
            back_end = await hand_over(self, peer, attempt, password)
        except Refused as error:
            if error.code == b"AUTHENTICATIONFAILED":
                server.throttle.failed(user, address, time.monotonic())
                server.upstream.failed(user, address)
            raise
        server.throttle.succeeded(user, address, time.monotonic())
        self.back_end, self.attempt = back_end, attempt
        self._observe(attempt)
        return Welcome(account.address, None)

    def _observe(self, attempt: LoginAttempt) -> None:
        """Log and count a login that only an exception let in, or that a report-only rule would have refused."""
        if self.service.kind.back:
            return  # the front end has
        decision, protocol = decide(attempt, self.connection.rules), attempt.protocol.value
        if decision.exception:
            self.service.engine.sight(sightings.EXCEPTION, protocol, self._peer, attempt.user, decision.exception)
            self._tell(b"exception", decision.exception, attempt)
        if decision.reported is not None:
            self.service.engine.sight(
                sightings.REPORTED, protocol, self._peer, attempt.user, _detail(attempt, decision)
            )
            self._tell(b"reportonly", f"would be refused: {decision.reported.value}", attempt)

    def _tell(self, what: bytes, text: str, attempt: LoginAttempt) -> None:
        if self.logging:
            mechanism = attempt.mechanism.name.decode()
            context = f"Msg={text};Mechanism={mechanism};Tls={attempt.channel.version or 'none'}"
            self.note(what, b"", context.encode(), 0, 0, attempt.user)

    @property
    def _peer(self) -> str:
        return self.connection.channel.peer

    def refused(self, attempt: LoginAttempt, password: Password | None) -> None:
        """Count it. A password that crossed the network in clear and is right marks the mailbox; no client sees it."""
        decision = decide(attempt, self.connection.rules)
        detail = f"{attempt.mechanism.name.decode()}: {decision.reason.value}"
        self.service.engine.sight(sightings.REFUSED, attempt.protocol.value, self._peer, attempt.user, detail)
        if password is not None and not attempt.channel.protected:
            self._later(self._check(attempt, password))

    def _later(self, check: Coroutine[Any, Any, None]) -> None:
        checks = self.service.engine.checks
        if len(checks) >= MAX_CHECKS:
            check.close()
            return
        task = asyncio.get_running_loop().create_task(check)
        checks.add(task)
        task.add_done_callback(checks.discard)

    async def _check_retired(self, attempt: LoginAttempt, password: Password) -> None:
        server, address = self.service.engine, attempt.channel.peer
        async with server.one_check:
            if await server.verifier.retired(attempt.user, password):
                detail = attempt.mechanism.name.decode()
                server.sight(sightings.RETIRED, attempt.protocol.value, address, attempt.user, detail)

    async def _check(self, attempt: LoginAttempt, password: Password) -> None:
        """Every step is the same whether the password is right or not: nothing of it may show in the time of what the
        client does next. A mark is written with the counts, which a refusal makes in any case."""
        server, address = self.service.engine, attempt.channel.peer
        if not server.examined.due((attempt.user.lower(), address), time.monotonic()):
            return
        async with server.one_check:
            account, retired = await server.verifier.examine(attempt.user, password)
            if account is not None:
                server.expose(account, attempt.protocol.value, address)
            elif retired:
                detail = attempt.mechanism.name.decode()
                server.sight(sightings.RETIRED, attempt.protocol.value, address, attempt.user, detail)
            server.write_soon()

    # --- the rest

    async def drain(self) -> None:
        """Send, and wait while the peer is slow."""
        await self.connection.drain()

    def begin(self) -> None:
        """A command was read."""
        self._began = time.perf_counter()

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()

    @property
    def logging(self) -> bool:
        """Whether the protocol log is on."""
        return self.service.logging

    def note(
        self, command: bytes, parameters: bytes, context: bytes, request_size: int, response_size: int, user: str
    ) -> None:
        """One row of the protocol log."""
        channel = self.connection.channel
        duration = int((time.perf_counter() - self._began) * 1000)
        row = format_row(
            time.time(),
            self.identity,
            self._sequence,
            f"{_bracket(channel.local)}:{channel.local_port}",
            f"{_bracket(channel.peer)}:{channel.peer_port}",
            user,
            duration,
            request_size,
            response_size,
            command,
            parameters,
            context,
        )
        self._sequence += 1
        self.service.engine.upstream.row(self.service.name, row)

    def left(self) -> None:
        """The connection is gone. A client may have told its name only after the login."""
        if self.user and self.attempt is not None and self._client():
            self.service.engine.named(self.user, self.attempt.protocol.value, self._client())

    def _client(self) -> str:
        """What the client told of itself."""
        return str(getattr(self.connection.session, "client", ""))

    def describe(self) -> dict[str, Any]:
        """The session, as Get-ClientConnection shows it."""
        connection = self.connection
        channel, session = connection.channel, connection.session
        selected = getattr(session, "selected", None)
        state = "Connected"
        if session.authenticated:
            state = "Idle" if getattr(session, "idling", False) else "Selected" if selected else "Authenticated"
        return {
            "Identity": f"{self.identity:016X}",
            "Protocol": self.service.settings.ProtocolName,
            "Service": self.service.name,
            "User": getattr(session, "user", ""),
            "RemoteAddress": f"{_bracket(channel.peer)}:{channel.peer_port}",
            "LocalAddress": f"{_bracket(channel.local)}:{channel.local_port}",
            "ConnectedSince": datetime.datetime.fromtimestamp(self._since, datetime.UTC).isoformat(timespec="seconds"),
            "IdleTime": connection.silence(),
            "State": state,
            "Folder": selected.folder.name if selected else "",
            "Tls": channel.tls.value,
            "TlsVersion": channel.version,
            "TlsCipher": channel.cipher,
            "Mechanism": self.attempt.mechanism.name.decode() if self.attempt is not None else "",
            "Client": self._client(),
            "BytesReceived": connection.received,
            "BytesSent": connection.sent,
            "ProcessId": os.getpid(),
        }

    def watch(self, mail: MailStore | None) -> None:
        """Call `hint` when the mailbox changes; None ends that."""
        server = self.service.engine
        if self._watched is not None:
            server.unwatch(self._watched.id, self.connection)
        self._watched = mail
        if mail is not None:
            server.watch(mail.id, self.connection)


def _detail(attempt: LoginAttempt, decision: Decision) -> str:
    reason = decision.reported.value if decision.reported else ""
    return f"{attempt.mechanism.name.decode()}, {attempt.channel.version or 'no TLS'}: {reason}"


def _bracket(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _enabled(account: Account, protocol: Protocol) -> bool:
    if protocol is Protocol.POP3:
        return account.switches.PopEnabled
    return account.switches.ImapEnabled
