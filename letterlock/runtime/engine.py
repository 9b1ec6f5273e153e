"""What serves connections: all of it with one process, one of several workers otherwise.

An `Instance` is one generation of a front-end service: a frozen copy of its settings, a TLS context, its connections.
A restart makes the next generation; sessions of the one before may stay while the new settings would allow them.
What only one place may decide (limits, the price of failures, log files) is asked of `Upstream`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

from letterlock.base.errors import Refused
from letterlock.directory import sightings
from letterlock.directory.accounts import Account, Accounts, Exposure
from letterlock.directory.certificates import Certificates
from letterlock.directory.config import Config
from letterlock.directory.exceptions import LoginExceptions
from letterlock.directory.logons import Logons
from letterlock.directory.servers import Peer, Servers
from letterlock.directory.sightings import Sightings
from letterlock.directory.verifiers import Verifier
from letterlock.policy.limits import FailureThrottle, Spacing, canonical
from letterlock.policy.login import Channel, decide, tls_rank
from letterlock.runtime import farewell, handover
from letterlock.runtime.connection import Connection
from letterlock.runtime.contexts import Contexts
from letterlock.runtime.host import ConnectionHost
from letterlock.runtime.kinds import KINDS, rules_of, tls_floor
from letterlock.runtime.listeners import EXCEPTIONS_ONLY, IMPLICIT
from letterlock.session import Session
from letterlock.store.presented import Conversions
from letterlock.store.sqlite import SqliteStore

EXAMINED_S: Final = 10.0  # a refused password of one user from one address is looked at so often at most
ALARM_S: Final = 3600.0  # one stranger is told of in the log so often at most; every visit is counted
FLUSH_S: Final = 2.0  # counts are written so often


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
        self._contexts = Contexts(engine.certificates, name, settings, engine.ticket_secret)
        self._known: tuple[tuple[Peer, ...], ssl.SSLContext] | None = None
        self.reload()

    def reload(self) -> None:
        """Certificate and key as they are now, for the next handshake; `Refused` when they cannot be used."""
        if not self.kind.back:
            self._contexts.reload(self._minimum)

    def share_tickets(self, secret: bytes) -> None:
        """The secret behind session tickets has changed."""
        self._contexts.share_tickets(secret)

    def context(self, connection: Connection) -> ssl.SSLContext:
        """The TLS context for a client: an exception may give its address an older floor."""
        if self.kind.back:
            return self._for_servers()
        floors = [e.tls_minimum for e in connection.rules.exceptions if e.tls_minimum]
        return self._contexts.context(min([self._minimum, *floors]))

    def _for_servers(self) -> ssl.SSLContext:
        peers = tuple(self.engine.servers.all())
        if self._known is None or self._known[0] != peers:
            self._known = (peers, handover.server_context(self.engine, self.kind.alpn))
        return self._known[1]

    def relay(self, connection: Connection) -> Session:
        """The session was handed over to another server: what takes its place."""
        host, old = host_of(connection), connection.session
        assert host.back_end is not None  # noqa: S101
        session = handover.RelaySession(old, host.back_end, connection, old.unread())
        connection.session = session
        host.back_end.take_over(session)
        return session

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
        make = handover.HandedOver if self.kind.back else self.kind.session
        session: Session = make(self.settings, host, channel, rules, starttls)
        if self.logging:
            host.note(b"OpenSession", b"", b"", 0, 0, "")
        return session

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        host_of(connection).left()
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


class Engine:
    """Instances, their connections, and what these share."""

    def __init__(
        self, config: Config, accounts: Accounts, certificates: Certificates, store: SqliteStore, upstream: Upstream
    ) -> None:
        self.config, self.accounts, self.certificates, self.store = config, accounts, certificates, store
        self.upstream = upstream
        self.executor = ThreadPoolExecutor(2, thread_name_prefix="hash")
        self.verifier = Verifier(accounts, self.executor)
        self.converter = ThreadPoolExecutor(2, thread_name_prefix="convert")
        self.conversions = Conversions(self._convert)
        self.throttle = FailureThrottle()
        self.examined, self.alarmed = Spacing(EXAMINED_S), Spacing(ALARM_S)
        self._exposed: list[Exposure] = []
        self.exceptions = LoginExceptions(config)
        self.servers = Servers(config)
        self.sightings = Sightings(config)
        self.logons = Logons(config)
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
        self.ticket_secret = os.urandom(32)  # until the supervisor gives one to all workers
        self._loop = asyncio.get_running_loop()

    async def _convert(self, work: Callable[[], Any]) -> Any:
        return await self._loop.run_in_executor(self.converter, work)

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
        self._flush_soon()
        return self.sightings.add(kind, protocol, canonical(address), user, detail)

    def logged_on(self, account: str, protocol: str, address: str, client: str) -> None:
        """A login succeeded."""
        self._flush_soon()
        self.logons.add(account, protocol, canonical(address), client)

    def named(self, account: str, protocol: str, client: str) -> None:
        """The client of an earlier login has told what it is."""
        self._flush_soon()
        self.logons.name(account, protocol, client)

    def _flush_soon(self) -> None:
        self.write_soon()

    def write_soon(self) -> None:
        """What is counted is written within a few seconds."""
        if self._flushing is None:
            self._flushing = self._loop.call_later(FLUSH_S, self._flush)

    def expose(self, account: Account, protocol: str, address: str) -> None:
        """A right password crossed the network in clear text: marked with the next counts that are written."""
        self._exposed.append(Exposure(account, protocol, address))

    def _flush(self) -> None:
        self._flushing = None
        self.sightings.flush()
        exposed, self._exposed = self._exposed, []
        self.accounts.mark_exposed(exposed)
        self.logons.flush()

    def stranger(self, instance: Instance, address: str) -> None:
        """A client without an exception is at the listener for exceptions only."""
        self.sight(sightings.STRANGER, instance.kind.protocol.value, address, "", "")
        if self.alarmed.due((instance.name, address), time.monotonic()):
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
        await farewell.end(ending, patient=not force)
        self.retired = [i for i in self.retired if i.connections]

    async def shut(self, name: str) -> None:
        """The service stops: goodbye to all its connections, after their running commands."""
        instance = self.current.pop(name, None)
        if instance is not None:
            self.retired.append(instance)
        await farewell.end([c for i in self.retired if i.name == name for c in list(i.connections)])
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
            await farewell.end([c for c in mine if c.session.authenticated])

    def reload(self) -> None:
        """Certificates and keys as they are now, for the next handshake."""
        for instance in [*self.current.values(), *self.retired]:
            try:
                instance.reload()
            except Refused as error:
                self.warn(error.text)

    def share_tickets(self, secret: bytes) -> None:
        """Session tickets are made under this secret, which all workers have, from now on."""
        self.ticket_secret = secret
        for instance in [*self.current.values(), *self.retired]:
            instance.share_tickets(secret)

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

    def connections(self) -> list[dict[str, Any]]:
        """Every session, as Get-ClientConnection shows it."""
        return [host_of(c).describe() for c in self._connections.values() if hasattr(c, "session")]

    async def disconnect(self, identity: int) -> bool:
        """End one session with the protocol's goodbye; False when there is none."""
        connection = self._connections.get(identity)
        if connection is None:
            return False
        await farewell.end([connection], patient=True)
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
        self._flush()
        self.executor.shutdown(wait=False, cancel_futures=True)
        self.converter.shutdown(wait=False, cancel_futures=True)
