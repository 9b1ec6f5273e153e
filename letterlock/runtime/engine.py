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
from letterlock.base import declare
from letterlock.base.settings import ClientAccessSettings, ImapSettings, PopSettings
from letterlock.directory.accounts import Accounts
from letterlock.directory.certificates import Certificates
from letterlock.directory.config import Config
from letterlock.directory.verifiers import Verifier
from letterlock.imap.session import ImapSession
from letterlock.policy.limits import FailureThrottle
from letterlock.policy.login import Channel, LoginRules, decide
from letterlock.pop3 import Pop3Session
from letterlock.runtime.connection import Connection
from letterlock.runtime.host import ConnectionHost
from letterlock.session import Session
from letterlock.store.sqlite import SqliteStore

STOP_S: Final = 10.0  # running commands may take this long when a service stops


class Kind(NamedTuple):
    """What makes a front-end service."""

    settings: type[ClientAccessSettings]
    session: Callable[..., Session]
    alpn: str
    certificate: str  # the service flag of certificates
    back_end: str


KINDS: Final = {
    "LetterlockImap4": Kind(ImapSettings, ImapSession, "imap", "IMAP", "LetterlockImap4BE"),
    "LetterlockPop3": Kind(PopSettings, Pop3Session, "pop3", "POP", "LetterlockPop3BE"),
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
        self.rules = LoginRules(settings.LoginType)
        self.tls: ssl.SSLContext = make_context(engine.certificates, name, settings)
        self.connections: set[Connection] = set()

    def reload(self) -> None:
        """Certificate and key as they are now, for the next handshake."""
        try:
            self.tls = make_context(self.engine.certificates, self.name, self.settings)
        except Exception as error:
            self.engine.warn(str(error))

    @property
    def logging(self) -> bool:
        """Whether rows of the protocol log are wanted."""
        return bool(self.settings.ProtocolLogEnabled)

    # --- for connections

    def make_session(self, connection: Connection, channel: Channel, starttls: bool) -> Session:
        """A connection was accepted."""
        self.connections.add(connection)
        host = ConnectionHost(self, connection)
        session = self.kind.session(self.settings, host, channel, self.rules, starttls)
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
        rules = LoginRules(settings.LoginType)
        found = []
        for connection in self.connections:
            attempt = host_of(connection).attempt
            if attempt is None:
                # it has been told what it may do, by the old settings
                if not connection.channel.protected and settings.LoginType is not self.settings.LoginType:
                    found.append(connection)
            elif not decide(attempt, rules).allowed:
                found.append(connection)
        return found


def host_of(connection: Connection) -> ConnectionHost:
    """The host of a connection's session."""
    host: ConnectionHost = connection.session.host  # type: ignore[attr-defined]
    return host


def make_context(certificates: Certificates, name: str, settings: Any) -> ssl.SSLContext:
    """The TLS context of a front end by its settings; `Refused` when no certificate can be used."""
    kind = KINDS[name]
    certificate, _ = certificates.choose(settings.X509CertificateName, kind.certificate)
    return tls.server_context(certificate.file, certificate.key, [kind.alpn])


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
            instance.reload()

    # --- connections

    def adopt(self, sock: socket.socket, name: str, identity: int, implicit: bool, refused: bool) -> None:
        """Serve an accepted socket."""
        instance = self.current.get(name)
        if instance is None:
            sock.close()
            self.upstream.closed(identity)
            return
        task = self._loop.create_task(self._adopt(sock, instance, identity, implicit, refused))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)

    async def _adopt(
        self, sock: socket.socket, instance: Instance, identity: int, implicit: bool, refused: bool
    ) -> None:
        connection = Connection(instance, self._loop, implicit)
        connection.identity, connection.refused = identity, refused
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
        self.executor.shutdown(wait=False, cancel_futures=True)


def settings_of(name: str, rows: Mapping[str, object]) -> Any:
    """Settings of a front end from what `declare.stored` made of them."""
    return declare.restored(KINDS[name].settings, rows)
