"""The services as management sees them: started, stopped, restarted. The supervisor's side; connections are elsewhere.

A service is a frozen copy of its settings plus listeners, limits and a log. On one server the front end hands a session
to the back end inside the process, and while the back end is stopped a login is answered UNAVAILABLE.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letterlock.base.values import MAX_INT, Binding
from letterlock.directory.servers import Servers
from letterlock.policy.limits import ConnectionLimits
from letterlock.runtime.kinds import KINDS, choose, make_context, tls_floor
from letterlock.runtime.listeners import CLEAR, EXCEPTIONS_ONLY, IMPLICIT, Listeners, Wanted
from letterlock.runtime.protocol_log import ProtocolLog

if TYPE_CHECKING:
    from letterlock.runtime.supervisor import Server


class Service:
    """A front end: LetterlockImap4, LetterlockPop3."""

    def __init__(self, server: Server, name: str) -> None:
        self.server, self.name = server, name
        self.kind = KINDS[name]
        self.running = False
        self.generation = 0
        self.settings: Any = None
        self.limits = ConnectionLimits(0, 0, 0)
        self.user_limits = self.limits  # MaxConnectionsPerUser counts for front and back end together
        self.log: ProtocolLog | None = None
        self._listeners = Listeners(name, server.warn, self._accepted, server.ready)

    async def start(self) -> None:
        """Read and freeze the settings, listen; all or nothing."""
        if not self.running:
            await self._take_up()

    async def restart(self, force: bool) -> None:
        """The settings as they are now; nobody is refused meanwhile, and if they cannot be, the old ones stay.

        Sessions that the new settings would not allow are ended, with `force` all of them.
        """
        if not self.running:
            await self._take_up()
            return
        await self._take_up()
        await self.server.each(lambda w: w.retire(self.name, force))

    async def _take_up(self) -> None:
        settings: Any = self.server.config.settings(self.kind.settings)
        self._check_certificate(settings)  # before anything has changed
        commit = self._listeners.bind(self._wanted(settings))
        self.generation += 1
        self.settings = settings
        self._set_limits(settings)
        self._set_log(settings)
        for worker in self.server.workers:
            await worker.open(self.name, self.generation, settings)
        self.running = True
        commit()

    def _wanted(self, settings: Any) -> Wanted:
        wanted: Wanted = dict.fromkeys(settings.UnencryptedOrTLSBindings, CLEAR)
        wanted.update(dict.fromkeys(settings.SSLBindings, IMPLICIT))
        wanted.update(dict.fromkeys(settings.ExceptionsOnlyBindings, EXCEPTIONS_ONLY))
        return wanted

    def _set_limits(self, settings: Any) -> None:
        self.limits.total = settings.MaxConnections
        self.limits.per_address = settings.MaxConnectionFromSingleIP
        self.limits.per_user = settings.MaxConnectionsPerUser

    def _set_log(self, settings: Any) -> None:
        self.flush()
        folder = Path(settings.LogFileLocation or self.server.config.data / "logs" / settings.ProtocolName.capitalize())
        if self.kind.back:
            folder = folder.with_name(folder.name + "BE")
        self.log = ProtocolLog(folder, settings.ProtocolName, settings) if settings.ProtocolLogEnabled else None

    async def stop(self) -> None:
        """Close the listeners, let running commands finish, say goodbye."""
        if not self.running:
            return
        self.running = False
        self._listeners.close()
        await self.server.each(lambda w: w.shut(self.name))
        self.flush()

    def reload(self) -> None:
        """Certificates: `Refused` when they cannot be used."""
        if self.running:
            self._check_certificate(self.settings)

    def _check_certificate(self, settings: Any) -> None:
        make_context(choose(self.server.certificates, self.name, settings), self.name, tls_floor(settings))

    def flush(self) -> None:
        """Write the log rows that were collected."""
        if self.log is not None:
            self.log.flush(time.time())

    def _accepted(self, sock: socket.socket, address: tuple[str, int], door: str) -> None:
        admitted = self.limits.admit(address[0])
        self.server.seat(sock, self, address[0], door, admitted)


class BackEnd(Service):
    """LetterlockImap4BE, LetterlockPop3BE: serves authenticated sessions while it runs.

    Sessions of this server's own front end need no listener. Where other servers have joined, it listens at
    ProxyTargetPort for what they hand over; on loopback, as they are all on one machine for now.
    """

    def __init__(self, server: Server, name: str, front: Service) -> None:
        super().__init__(server, name)
        self.user_limits = front.limits

    async def start(self) -> None:
        """From now on logins succeed."""
        if not self.running:
            await self._take_up()
            await self.server.each(lambda w: w.back_end(self.name, True, False))

    async def stop(self) -> None:
        """From now on logins are answered UNAVAILABLE, and its sessions end with the protocol's goodbye."""
        if self.running:
            await super().stop()
            await self.server.each(lambda w: w.back_end(self.name, False, True))

    async def restart(self, force: bool) -> None:
        """Sessions stay, unless `force`."""
        if force:
            await self.stop()
        await self._take_up()
        await self.server.each(lambda w: w.back_end(self.name, True, False))

    def _check_certificate(self, settings: Any) -> None:
        """The one for the organisation's servers is made when it is needed."""

    def _wanted(self, settings: Any) -> Wanted:
        if not Servers(self.server.config).all():
            return {}
        return {Binding("127.0.0.1", settings.ProxyTargetPort): IMPLICIT}

    def _set_limits(self, settings: Any) -> None:
        super()._set_limits(settings)
        self.user_limits.per_user = settings.MaxConnectionsPerUser
        self.limits.per_address = MAX_INT  # it would count the front end's address
