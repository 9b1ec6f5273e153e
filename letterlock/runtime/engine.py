"""What serves connections: all of it with one process, one of several workers otherwise.

An `Instance` is one generation of a front-end service: a frozen copy of its settings, a TLS context, its connections.
A restart makes the next generation; sessions of the one before may stay while the new settings would allow them.
What only one place may decide (limits, the price of failures, log files) is asked of `Upstream`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple, Protocol

from letterlock import tls
from letterlock.base import declare, values
from letterlock.base.errors import Refused
from letterlock.base.settings import ClientAccessSettings, ImapSettings, PopSettings
from letterlock.base.values import PolicyMode
from letterlock.directory import sightings
from letterlock.directory.accounts import Accounts
from letterlock.directory.certificates import Certificate, Certificates
from letterlock.directory.config import Config
from letterlock.directory.exceptions import LoginExceptions
from letterlock.directory.sightings import Sightings
from letterlock.directory.verifiers import Verifier
from letterlock.imap.session import ImapSession
from letterlock.policy.limits import FailureThrottle, canonical
from letterlock.policy.login import Channel, LoginRules, decide, tls_rank
from letterlock.pop3 import Pop3Session
from letterlock.runtime.connection import Connection
from letterlock.runtime.host import ConnectionHost
from letterlock.runtime.listeners import EXCEPTIONS_ONLY, IMPLICIT
from letterlock.session import Session
from letterlock.store.sqlite import SqliteStore

FLUSH_S: Final = 2.0  # counts are written so often
STOP_S: Final = 10.0  # running commands may take this long when a service stops


class Kind(NamedTuple):
    """What makes a front-end service."""

    settings: type[ClientAccessSettings]
    session: Callable[..., Session]
    alpn: str
    certificate: str  # the service flag of certificates
    back_end: str
    protocol: values.Protocol


KINDS: Final = {
    "LetterlockImap4": Kind(ImapSettings, ImapSession, "imap", "IMAP", "LetterlockImap4BE", values.Protocol.IMAP4),
    "LetterlockPop3": Kind(PopSettings, Pop3Session, "pop3", "POP", "LetterlockPop3BE", values.Protocol.POP3),
}


class Upstream(Protocol):
    """What an engine asks of and tells the one place that counts."""

    async def enter(self, connection: int, user: str) -> bool: ...
    def failed(self, user: str, address: str) -> None: ...
    def closed(self, connection: int) -> None: ...
    def row(self, service: str, row: bytes) -> None: ...
    def changed(self, mailbox: str) -> None: ...


class Instance:
    """One generation of a front-end service (runtime.connection.Owner)."""

    def __init__(self, engine: Engine, name: str, generation: int, settings: Any) -> None:
        self.engine, self.name, self.generation, self.settings = engine, name, generation, settings
        self.kind = KINDS[name]
        self.alpn = self.kind.alpn.encode()
        self.rules = rules_of(settings)
        self.connections: set[Connection] = set()
        self._minimum = tls_floor(settings)
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._certificate: Certificate
        self.reload()

    def reload(self) -> None:
        """Certificate and key as they are now, for the next handshake; `Refused` when they cannot be used."""
        self._certificate = choose(self.engine.certificates, self.name, self.settings)
        self._contexts = {}
        self._context(self._minimum)

    def _context(self, minimum: str) -> ssl.SSLContext:
        context = self._contexts.get(minimum)
        if context is None:
            context = make_context(self._certificate, self.name, minimum)
            self._contexts[minimum] = context
        return context

    def context(self, connection: Connection) -> ssl.SSLContext:
        """The TLS context for a client: an exception may give its address an older floor."""
        floors = [e.tls_minimum for e in connection.rules.exceptions if e.tls_minimum]
        return self._context(min([self._minimum, *floors]))

    @property
    def logging(self) -> bool:
        """Whether rows of the protocol log are wanted."""
        return bool(self.settings.ProtocolLogEnabled)

    # --- for connections

    def make_session(self, connection: Connection, channel: Channel, starttls: bool) -> Session:
        """A connection was accepted."""
        self.connections.add(connection)
        protocol = self.kind.protocol
        in_force = self.engine.exceptions.in_force(protocol, canonical(channel.peer), time.time())
        rules = self.rules
        if in_force or connection.exceptions_only:
            rules = rules._replace(exceptions=in_force, exceptions_only=connection.exceptions_only)
        connection.rules = rules
        if connection.exceptions_only and not in_force:
            self.engine.stranger(self, channel.peer)
        host = ConnectionHost(self, connection)
        session = self.kind.session(self.settings, host, channel, rules, starttls)
        if self.logging:
            host.note(b"OpenSession", b"", b"", 0, 0, "")
        return session

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if self.logging:
            host_of(connection).note(b"CloseSession", b"", b"", 0, 0, getattr(connection.session, "user", ""))
        self.engine.gone(connection, self)

    def failed(self, error: BaseException) -> None:
        """An exception of ours in a session."""
        self.engine.incident(error)

    def handshake_failed(self, connection: Connection, reason: str) -> None:
        """A row for the log."""
        if self.logging:
            host_of(connection).note(b"tls", b"", b"ErrMsg=" + reason.encode("ascii", "replace"), 0, 0, "")

    # --- ending

    def disallowed(self, settings: Any) -> list[Connection]:
        """Connections that could not have come about as they are under other settings."""
        rules, floor = rules_of(settings), tls_rank(tls_floor(settings))
        found = []
        for connection in self.connections:
            attempt, channel = host_of(connection).attempt, connection.channel
            if attempt is not None:
                allowed = decide(attempt, rules._replace(exceptions=connection.rules.exceptions)).allowed
            elif channel.protected:
                allowed = tls_rank(channel.version) >= floor
            else:  # it has been told what it may do, by the old settings
                allowed = rules.login_type is self.rules.login_type
            if not allowed:
                found.append(connection)
        return found


def host_of(connection: Connection) -> ConnectionHost:
    """The host of a connection's session."""
    host: ConnectionHost = connection.session.host  # type: ignore[attr-defined]
    return host


def choose(certificates: Certificates, name: str, settings: Any) -> Certificate:
    """The certificate of a front end by its settings; `Refused` when there is none."""
    return certificates.choose(settings.X509CertificateName, KINDS[name].certificate)[0]


def make_context(certificate: Certificate, name: str, minimum: str) -> ssl.SSLContext:
    """A front end's TLS context; `Refused` when the certificate cannot be used."""
    return tls.server_context(certificate.file, certificate.key, [KINDS[name].alpn], minimum)


def tls_floor(settings: Any) -> str:
    """What listeners agree on: under report-only, whatever was agreed on before."""
    return str(settings.EnforcedTlsMinimum)


def rules_of(settings: Any) -> LoginRules:
    """The rules that settings make."""
    return LoginRules(
        login_type=settings.EnforcedLoginType,
        tls_minimum=settings.EnforcedTlsMinimum,
        reported_login_type=settings.LoginType if settings.LoginTypeMode is PolicyMode.ReportOnly else None,
        reported_tls_minimum=settings.TlsMinimum if settings.TlsMinimumMode is PolicyMode.ReportOnly else "",
    )


class Engine:
    """Instances, their connections, and what these share."""

    def __init__(
        self, config: Config, accounts: Accounts, certificates: Certificates, store: SqliteStore, upstream: Upstream
    ) -> None:
        self.config, self.accounts, self.certificates, self.store = config, accounts, certificates, store
        self.upstream = upstream
        self.executor = ThreadPoolExecutor(2, thread_name_prefix="hash")
        self.verifier = Verifier(accounts, self.executor)
        self.throttle = FailureThrottle()
        self.exceptions = LoginExceptions(config)
        self.sightings = Sightings(config)
        self._flushing: asyncio.TimerHandle | None = None
        self.checks: set[asyncio.Task[None]] = set()
        self.one_check = asyncio.Lock()
        self.back_ends: set[str] = set()
        self.current: dict[str, Instance] = {}
        self.retired: list[Instance] = []
        self.shared: set[str] = set()  # mailboxes that other workers have sessions of
        self._connections: dict[int, Connection] = {}
        self._watchers: dict[str, set[Connection]] = {}
        self._hinted: set[str] = set()
        self._adopting: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def warn(self, text: str) -> None:
        """A line for the administrator."""
        print(f"letterlock: warning: {text}", file=sys.stderr, flush=True)

    def incident(self, error: BaseException) -> None:
        """A fault of ours: its traceback goes to the error output, which a service manager keeps."""
        trace = "".join(traceback.format_exception(error))
        print(f"letterlock: internal error\n{trace}", file=sys.stderr, flush=True)

    # --- what is counted

    def sight(self, kind: str, protocol: str, address: str, user: str, detail: str) -> bool:
        """Count something about a client (directory.sightings); True when it is new since the last write."""
        if self._flushing is None:
            self._flushing = self._loop.call_later(FLUSH_S, self._flush)
        return self.sightings.add(kind, protocol, canonical(address), user, detail)

    def _flush(self) -> None:
        self._flushing = None
        self.sightings.flush()

    def stranger(self, instance: Instance, address: str) -> None:
        """A client without an exception is at the listener for exceptions only."""
        if self.sight(sightings.STRANGER, instance.kind.protocol.value, address, "", ""):
            self.warn(f"{instance.name}: {address} has no login exception and came to the exceptions-only listener")

    # --- services

    def open(self, name: str, generation: int, settings: Any) -> None:
        """A new generation from now on; `Refused` with the old one untouched when it cannot be."""
        instance = Instance(self, name, generation, settings)
        old = self.current.get(name)
        self.current[name] = instance
        if old is not None:
            self.retired.append(old)

    async def retire(self, name: str, force: bool) -> None:
        """End sessions of generations before the present one: all, or those that it would not allow."""
        old = [i for i in self.retired if i.name == name]
        present = self.current[name].settings
        ending = [c for i in old for c in (list(i.connections) if force else i.disallowed(present))]
        await self._end(ending)
        self.retired = [i for i in self.retired if i.connections]

    async def shut(self, name: str) -> None:
        """The service stops: goodbye to all its connections, after their running commands."""
        instance = self.current.pop(name, None)
        if instance is not None:
            self.retired.append(instance)
        await self._end([c for i in self.retired if i.name == name for c in list(i.connections)])
        self.retired = [i for i in self.retired if i.name != name]

    async def back_end(self, name: str, running: bool, end: bool) -> None:
        """A back end starts or stops; `end`: its sessions are ended."""
        if running:
            self.back_ends.add(name)
        else:
            self.back_ends.discard(name)
        if end:
            everything = [*self.current.values(), *self.retired]
            mine = [c for i in everything if i.kind.back_end == name for c in i.connections]
            await self._end([c for c in mine if c.session.authenticated])

    async def _end(self, connections: list[Connection]) -> None:
        for connection in connections:
            connection.stop()
        end = time.monotonic() + STOP_S
        waiting = set(connections)
        while waiting and time.monotonic() < end:
            waiting = {c for c in waiting if host_of(c).identity in self._connections}
            if waiting:
                await asyncio.sleep(0.01)
        for connection in waiting:
            connection.transport.abort()

    def reload(self) -> None:
        """Certificates and keys as they are now, for the next handshake."""
        for instance in [*self.current.values(), *self.retired]:
            try:
                instance.reload()
            except Refused as error:
                self.warn(error.text)

    # --- connections

    def adopt(self, sock: socket.socket, name: str, identity: int, door: str, refused: bool) -> None:
        """Serve a socket accepted at one of a service's kinds of door."""
        instance = self.current.get(name)
        if instance is None:
            sock.close()
            self.upstream.closed(identity)
            return
        task = self._loop.create_task(self._adopt(sock, instance, identity, door, refused))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _adopt(self, sock: socket.socket, instance: Instance, identity: int, door: str, refused: bool) -> None:
        connection = Connection(instance, self._loop, door == IMPLICIT)
        connection.identity, connection.refused = identity, refused
        connection.exceptions_only = door == EXCEPTIONS_ONLY
        self._connections[identity] = connection
        try:
            await self._loop.connect_accepted_socket(lambda: connection, sock)
        except OSError:  # gone before it began
            sock.close()
            if self._connections.pop(identity, None) is not None:
                self.upstream.closed(identity)

    def gone(self, connection: Connection, instance: Instance) -> None:
        """A connection has ended."""
        if self._connections.pop(connection.identity, None) is not None:
            self.upstream.closed(connection.identity)

    def connections(self) -> list[dict[str, str]]:
        """Every session, as Get-ClientConnection shows it."""
        return [host_of(c).describe() for c in self._connections.values() if hasattr(c, "session")]

    async def disconnect(self, identity: int) -> bool:
        """End one session with the protocol's goodbye; False when there is none."""
        connection = self._connections.get(identity)
        if connection is None:
            return False
        await self._end([connection])
        return True

    # --- change hints

    def notify(self, mailbox: str, _modseq: int) -> None:
        """The store has committed a change."""
        if not self._hinted:
            self._loop.call_soon(self._spread)
        self._hinted.add(mailbox)

    def _spread(self) -> None:
        hinted = tuple(self._hinted)
        self._hinted.clear()
        for mailbox in hinted:
            self.hint(mailbox)
            if mailbox in self.shared:
                self.upstream.changed(mailbox)

    def hint(self, mailbox: str) -> None:
        """A mailbox was changed, here or elsewhere: idling sessions look."""
        for connection in tuple(self._watchers.get(mailbox, ())):
            if getattr(connection.session, "idling", False):
                connection.hint()

    def share(self, mailbox: str, shared: bool) -> None:
        """Whether other workers have sessions of a mailbox; they are told of every change then."""
        if not shared:
            self.shared.discard(mailbox)
            return
        self.shared.add(mailbox)
        self.upstream.changed(mailbox)  # what was committed before this was known

    def watch(self, mailbox: str, connection: Connection) -> None:
        """Hints about a mailbox from now on."""
        self._watchers.setdefault(mailbox, set()).add(connection)

    def unwatch(self, mailbox: str, connection: Connection) -> None:
        """No more."""
        watching = self._watchers.get(mailbox)
        if watching is not None:
            watching.discard(connection)
            if not watching:
                del self._watchers[mailbox]

    async def close(self) -> None:
        """After all services were shut."""
        if self.checks:
            await asyncio.wait(self.checks, timeout=2)
        if self._flushing is not None:
            self._flushing.cancel()
        self.sightings.flush()
        self.executor.shutdown(wait=False, cancel_futures=True)


def settings_of(name: str, rows: Mapping[str, object]) -> Any:
    """Settings of a front end from what `declare.stored` made of them."""
    return declare.restored(KINDS[name].settings, rows)
