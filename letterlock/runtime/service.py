"""The running server: services that can be started, stopped and restarted, and what their connections share.

A service is a frozen copy of its settings plus listeners. The front end listens; the back end has no listener of its
own on one machine: the front end hands it the session in the same process, and while it is stopped a login is
answered UNAVAILABLE.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from letterlock import tls
from letterlock.base.errors import Refused
from letterlock.base.settings import ClientAccessSettings, ImapSettings, PopSettings
from letterlock.base.values import Binding, StartType
from letterlock.directory.accounts import Accounts
from letterlock.directory.certificates import Certificates
from letterlock.directory.config import SERVICES, Config
from letterlock.directory.verifiers import Verifier
from letterlock.imap.session import ImapSession
from letterlock.policy.limits import ConnectionLimits, FailureThrottle
from letterlock.policy.login import Channel, LoginRules
from letterlock.pop3 import Pop3Session
from letterlock.runtime.connection import Connection
from letterlock.runtime.host import ConnectionHost
from letterlock.runtime.protocol_log import ProtocolLog
from letterlock.session import Session
from letterlock.store.sqlite import SqliteStore

STOP_S: Final = 10.0  # running commands may take this long when a service stops
BACKLOG: Final = 1024


class BackEnd:
    """LetterlockImap4BE, LetterlockPop3BE: serves authenticated sessions while it runs."""

    def __init__(self) -> None:
        self.running = False

    async def start(self) -> None:
        """From now on logins succeed."""
        self.running = True

    async def stop(self) -> None:
        """From now on logins are answered UNAVAILABLE; sessions that are logged in go on."""
        self.running = False

    def reload(self) -> None:
        """Nothing to read again."""


class FrontEnd:
    """LetterlockImap4, LetterlockPop3: listeners and their connections."""

    def __init__(
        self,
        server: Server,
        name: str,
        kind: type[ClientAccessSettings],
        alpn: str,
        session: Callable[..., Session],
        back_end: BackEnd,
    ) -> None:
        self.server, self.name, self.kind, self.back_end = server, name, kind, back_end
        self.alpn = alpn.encode()
        self.session = session
        self.running = False
        self.settings: Any = None
        self.tls: ssl.SSLContext
        self.limits = ConnectionLimits(0, 0, 0)
        self.log: ProtocolLog | None = None
        self.connections: set[Connection] = set()
        self._admitted: set[Connection] = set()
        self._listeners: list[asyncio.Server] = []
        self._files: tuple[Path, Path]

    async def start(self) -> None:
        """Read and freeze the settings, build the TLS context, listen; all or nothing."""
        if self.running:
            return
        settings: Any = self.server.config.settings(self.kind)
        certificate, _ = self.server.certificates.choose(
            settings.X509CertificateName, "IMAP" if self.kind is ImapSettings else "POP"
        )
        self.tls = tls.server_context(certificate.file, certificate.key, [self.alpn.decode()])
        self._files = (certificate.file, certificate.key)
        self.settings = settings
        self.limits = ConnectionLimits(
            settings.MaxConnections, settings.MaxConnectionFromSingleIP, settings.MaxConnectionsPerUser
        )
        folder = Path(settings.LogFileLocation or self.server.config.data / "logs" / settings.ProtocolName.capitalize())
        self.log = ProtocolLog(folder, settings.ProtocolName, settings) if settings.ProtocolLogEnabled else None
        sockets = self._bind(settings)
        loop = asyncio.get_running_loop()
        for sock, implicit in sockets:
            factory = lambda implicit=implicit: Connection(self, loop, implicit)  # noqa: E731
            self._listeners.append(await loop.create_server(factory, sock=sock, backlog=BACKLOG))
        self.running = True

    def _bind(self, settings: Any) -> list[tuple[socket.socket, bool]]:
        found: list[tuple[socket.socket, bool]] = []
        wanted = [(b, False) for b in settings.UnencryptedOrTLSBindings] + [(b, True) for b in settings.SSLBindings]
        try:
            for binding, implicit in wanted:
                sock = self._socket(binding)
                if sock is not None:
                    found.append((sock, implicit))
        except Refused:
            for sock, _ in found:
                sock.close()
            raise
        return found

    def _socket(self, binding: Binding) -> socket.socket | None:
        family = socket.AF_INET6 if binding.ipv6 else socket.AF_INET
        sock: socket.socket | None
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            sock = None
        if sock is None:
            if binding.address == "::":
                self.server.warn(f"{self.name}: this host has no IPv6, {binding} is left out")
                return None
            raise Refused(f"{self.name} cannot listen on {binding}: this host has no such address family")
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if binding.ipv6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((binding.address, binding.port))
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            if binding.address == "::" and not socket.has_dualstack_ipv6():
                self.server.warn(f"{self.name}: this host has no IPv6, {binding} is left out")
                return None
            raise Refused(f"{self.name} cannot listen on {binding}: {error.strerror}") from None
        return sock

    async def stop(self) -> None:
        """Close the listeners, let running commands finish, say goodbye."""
        if not self.running:
            return
        self.running = False
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for connection in list(self.connections):
            connection.stop()
        end = time.monotonic() + STOP_S
        while self.connections and time.monotonic() < end:
            await asyncio.sleep(0.02)
        for connection in list(self.connections):
            connection.transport.abort()
        if self.log is not None:
            self.log.flush(time.time())

    def reload(self) -> None:
        """Read certificate and key again: the next handshake uses them."""
        if self.running:
            tls.reload(self.tls, *self._files)

    # --- for connections (runtime.connection.Owner)

    def make_session(self, connection: Connection, channel: Channel, starttls: bool) -> Session:
        """A connection was accepted: count it, give it a session."""
        self.connections.add(connection)
        if self.limits.admit(channel.peer):
            self._admitted.add(connection)
        else:
            connection.refused = True
        host = ConnectionHost(self, connection)
        rules = LoginRules(self.settings.LoginType)
        session = self.session(self.settings, host, channel, rules, starttls)
        host.note(b"OpenSession", b"", b"", 0, 0, "")
        return session

    def closed(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if connection in self._admitted:
            self._admitted.discard(connection)
            self.limits.release(connection.channel.peer)
        host = getattr(connection.session, "host", None)
        if isinstance(host, ConnectionHost):
            host.note(b"CloseSession", b"", b"", 0, 0, getattr(connection.session, "user", ""))

    def failed(self, error: BaseException) -> None:
        """An exception of ours in a session."""
        self.server.incident(error)

    def handshake_failed(self, connection: Connection, reason: str) -> None:
        """A row for the log."""
        host = getattr(connection.session, "host", None)
        if isinstance(host, ConnectionHost):
            host.note(b"tls", b"", b"ErrMsg=" + reason.encode("ascii", "replace"), 0, 0, "")


class Server:
    """Everything that runs on one data directory."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.accounts = Accounts(config)
        self.certificates = Certificates(config)
        self.executor = ThreadPoolExecutor(2, thread_name_prefix="hash")
        self.verifier = Verifier(self.accounts, self.executor)
        self.throttle = FailureThrottle()
        self.checks: set[asyncio.Task[None]] = set()
        self.one_check = asyncio.Lock()
        self._watchers: dict[str, set[Connection]] = {}
        self._loop = asyncio.get_running_loop()
        self._hinted: set[str] = set()
        self.store = SqliteStore(config.data / "mailboxes", notify=self._notify)
        self._sessions = itertools.count(int(time.time()) << 24)
        imap_back, pop_back = BackEnd(), BackEnd()
        self.services: dict[str, FrontEnd | BackEnd] = {
            "LetterlockImap4": FrontEnd(self, "LetterlockImap4", ImapSettings, "imap", ImapSession, imap_back),
            "LetterlockImap4BE": imap_back,
            "LetterlockPop3": FrontEnd(self, "LetterlockPop3", PopSettings, "pop3", Pop3Session, pop_back),
            "LetterlockPop3BE": pop_back,
        }

    def next_session_id(self) -> int:
        """16 hex digits, never twice."""
        return next(self._sessions)

    def warn(self, text: str) -> None:
        """A line for the administrator."""
        print(f"letterlock: warning: {text}", file=sys.stderr, flush=True)

    def incident(self, error: BaseException) -> None:
        """A fault of ours: its traceback goes to the error output, which a service manager keeps."""
        trace = "".join(traceback.format_exception(error))
        print(f"letterlock: internal error\n{trace}", file=sys.stderr, flush=True)

    # --- change hints

    def _notify(self, mailbox: str, _modseq: int) -> None:
        """Called by the store after a commit, in any thread."""
        self._loop.call_soon_threadsafe(self._hint, mailbox)

    def _hint(self, mailbox: str) -> None:
        for connection in tuple(self._watchers.get(mailbox, ())):
            if getattr(connection.session, "idling", False):
                connection.hint()

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

    # --- services (manage.context.ServerControl)

    def running(self, name: str) -> bool:
        """Whether a service runs."""
        return self.services[name].running

    async def start(self, name: str) -> None:
        """Start one; `Refused` with one clear line when it cannot."""
        if self.config.start_type(name) is StartType.Disabled:
            raise Refused(f"{name} is disabled; enable it with: Set-Service {name} -StartupType Manual")
        await self.services[name].start()

    async def stop(self, name: str) -> None:
        """Stop one."""
        await self.services[name].stop()

    async def start_automatic(self) -> None:
        """All whose start type is Automatic."""
        for name, _, _ in SERVICES:
            if self.config.start_type(name) is StartType.Automatic:
                await self.start(name)

    def reload(self) -> None:
        """SIGHUP: certificates."""
        for service in self.services.values():
            try:
                service.reload()
            except Refused as error:
                self.warn(error.text)

    async def flush_logs(self) -> None:
        """About once a second, for as long as the server runs."""
        while True:
            await asyncio.sleep(1)
            for service in self.services.values():
                if isinstance(service, FrontEnd) and service.log is not None:
                    service.log.flush(time.time())

    async def close(self) -> None:
        """Stop everything, front ends first."""
        for name in ("LetterlockImap4", "LetterlockPop3", "LetterlockImap4BE", "LetterlockPop3BE"):
            await self.services[name].stop()
        if self.checks:
            await asyncio.wait(self.checks, timeout=2)
        await self.store.close()
        self.executor.shutdown(wait=False, cancel_futures=True)
