"""The supervisor: owns services, limits and logs, counts exactly, and gives connections to workers.

With one worker, and where the system cannot pass sockets between processes, the engine runs in this process; nobody
outside this module knows. Otherwise each worker is a process of its own. A worker that dies is replaced, its
connections are no longer counted, and the others go on.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from letterlock.base.errors import Refused
from letterlock.base.values import Binding, StartType
from letterlock.directory.accounts import Accounts
from letterlock.directory.certificates import Certificates
from letterlock.directory.config import SERVICES, Config
from letterlock.directory.exceptions import LoginExceptions
from letterlock.policy.exceptions import WARN_S
from letterlock.runtime.admin import AdminService
from letterlock.runtime.certificates import CertificateWatch
from letterlock.runtime.engine import Engine
from letterlock.runtime.kinds import KINDS
from letterlock.runtime.listeners import Listeners
from letterlock.runtime.service import BackEnd, Service
from letterlock.runtime.workers import LocalWorker, ProcessWorker
from letterlock.store.sqlite import SqliteStore

OVERLOAD: Final = 1.25  # a worker may have this many times the mean before an address goes to another one
SLACK: Final = 8  # and this many connections more
DAY_S: Final = 86400.0
CRASHES: Final = 5  # in a row within a minute: from then on a replacement waits


class Seat(NamedTuple):
    """A connection that is counted."""

    service: Service
    address: str
    admitted: bool
    worker: LocalWorker | ProcessWorker


class Server:
    """Everything that runs on one data directory."""

    def __init__(self, config: Config, workers: int) -> None:
        self.config = config
        self.accounts = Accounts(config)
        self.certificates = Certificates(config)
        self.store = SqliteStore(config.data / "mailboxes", notify=self._notify)
        self._identities = itertools.count(int(time.time()) << 24)  # 16 hex digits, never twice
        self._seats: dict[int, Seat] = {}
        self._users: dict[int, str] = {}  # connections that are logged in: whose
        self._places: dict[str, Counter[LocalWorker | ProcessWorker]] = {}  # sessions of a mailbox by worker
        self._crashes: list[float] = []
        self._replacing: set[asyncio.Task[None]] = set()
        self._closing = False
        self._reminder: asyncio.TimerHandle | None = None
        self.ticket_secret = os.urandom(32)
        self._watch = CertificateWatch(self)
        self.workers: list[LocalWorker | ProcessWorker]
        if workers > 1 and hasattr(socket, "send_fds") and sys.platform == "linux":
            self.workers = [ProcessWorker(self, n + 1) for n in range(workers)]
        else:
            self.workers = [LocalWorker(self)]
        self.services: dict[str, Service | AdminService] = {}
        for name in (n for n, kind in KINDS.items() if not kind.back):
            front = self.services[name] = Service(self, name)
            back = KINDS[name].back_end
            self.services[back] = BackEnd(self, back, front)

    async def open(self) -> None:
        """Start the workers; `Refused` when they cannot be."""
        await self.each(lambda w: w.start())
        for worker in self.workers:
            worker.accepting = True
        self._remind()

    def _remind(self) -> None:
        """Once a day: what ends soon."""
        now = time.time()
        for exception in LoginExceptions(self.config).all():
            if now < exception.expires < now + WARN_S:
                days = max(1, round((exception.expires - now) / DAY_S))
                self.warn(f"login exception {exception.identity} ({exception.reason}) ends in {days} days")
        self._reminder = asyncio.get_running_loop().call_later(DAY_S, self._remind)

    async def each(self, work: Callable[[LocalWorker | ProcessWorker], Awaitable[Any]]) -> None:
        """Do something on all workers side by side; the first `Refused` is raised after all are done."""
        results = await asyncio.gather(*(work(w) for w in self.workers), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def warn(self, text: str) -> None:
        """A line for the administrator."""
        print(f"letterlock: warning: {text}", file=sys.stderr, flush=True)

    def incident(self, error: BaseException) -> None:
        """A fault of ours: its traceback goes to the error output."""
        Engine.incident(self, error)  # type: ignore[arg-type]

    # --- connections

    def ready(self) -> bool:
        """Whether a connection could be served now."""
        return any(w.accepting for w in self.workers)

    def seat(self, sock: socket.socket, service: Service, address: str, door: str, admitted: bool) -> None:
        """Give an accepted connection to a worker."""
        worker = self._choose(address)
        identity = next(self._identities)
        self._seats[identity] = Seat(service, address, admitted, worker)
        worker.load += 1
        worker.adopt(sock, service.name, identity, door, not admitted)

    def _choose(self, address: str) -> LocalWorker | ProcessWorker:
        """The same worker for the same address while its load allows: TLS sessions and open mailboxes are there."""
        workers = [w for w in self.workers if w.accepting]
        if len(workers) == 1:
            return workers[0]
        bound = OVERLOAD * sum(w.load for w in workers) / len(workers) + SLACK
        first = hash(address) % len(workers)
        for worker in workers[first:] + workers[:first]:
            if worker.load <= bound:
                return worker
        return min(workers, key=lambda w: w.load)

    def unseat(self, identity: int) -> None:
        """A connection has ended."""
        seat = self._seats.pop(identity, None)
        if seat is None:
            return
        seat.worker.load -= 1
        if seat.admitted:
            seat.service.limits.release(seat.address)
        user = self._users.pop(identity, None)
        if user is not None:
            seat.service.user_limits.leave(user)
            self._left(user, seat.worker)

    def enter(self, identity: int, user: str) -> bool:
        """Count a session of a user, unless its limit is reached."""
        seat = self._seats.get(identity)
        if seat is None or identity in self._users or not seat.service.user_limits.enter(user):
            return False
        self._users[identity] = user
        places = self._places.setdefault(user, Counter())
        places[seat.worker] += 1
        if len(places) > 1 and places[seat.worker] == 1:
            for worker in places:
                worker.share(user, True)
        return True

    def _left(self, user: str, worker: LocalWorker | ProcessWorker) -> None:
        places = self._places[user]
        places[worker] -= 1
        if places[worker]:
            return
        del places[worker]
        if not places:
            del self._places[user]
            return
        worker.share(user, False)
        if len(places) == 1:
            next(iter(places)).share(user, False)

    async def connections(self) -> list[dict[str, Any]]:
        """Every session, oldest first (manage.context.ServerControl)."""
        found = [await w.connections() for w in self.workers]
        return sorted((c for some in found for c in some), key=lambda c: c["Identity"])

    async def disconnect(self, identity: int) -> bool:
        """End one session with the protocol's goodbye; False when there is none."""
        seat = self._seats.get(identity)
        return seat is not None and await seat.worker.disconnect(identity)

    async def disconnect_mailbox(self, mailbox: str) -> int:
        """End all sessions of a mailbox; how many there were."""
        found = [identity for identity, user in self._users.items() if user == mailbox]
        ended = await asyncio.gather(*(self.disconnect(identity) for identity in found))
        return sum(ended)

    # --- relays between workers

    def _notify(self, mailbox: str, modseq: int) -> None:
        """Our own store has committed: a cmdlet's work, or everything with one process."""
        for worker in self.workers:
            if isinstance(worker, LocalWorker):
                worker.engine.notify(mailbox, modseq)
            elif mailbox in self._places and worker in self._places[mailbox]:
                worker.hint(mailbox)

    def changed(self, mailbox: str, by: ProcessWorker) -> None:
        """A worker has changed a mailbox."""
        for worker in self._places.get(mailbox, ()):
            if worker is not by:
                worker.hint(mailbox)

    def failed(self, user: str, address: str, by: ProcessWorker) -> None:
        """A login failed at a worker: the next one costs more at every worker."""
        for worker in self.workers:
            if worker is not by:
                worker.fail(user, address)

    def row(self, service: str, rows: bytes) -> None:
        """Rows of a protocol log."""
        front = self.services[service]
        if isinstance(front, Service) and front.log is not None:
            front.log.add(rows)

    # --- workers that die

    def lost(self, worker: ProcessWorker, process: subprocess.Popen[bytes]) -> None:
        """A worker's link is gone."""
        task = asyncio.get_running_loop().create_task(self._replace(worker, process))
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _replace(self, worker: ProcessWorker, process: subprocess.Popen[bytes]) -> None:
        held = [i for i, seat in self._seats.items() if seat.worker is worker]
        for identity in held:
            self.unseat(identity)
        process.kill()
        status = await asyncio.to_thread(process.wait)
        if self._closing:
            return
        how = f"signal {-status}" if status < 0 else f"status {status}"
        self.warn(f"worker {worker.number} ended ({how}) with {len(held)} connections; starting another one")
        now = time.monotonic()
        self._crashes = [t for t in self._crashes if now - t < 60] + [now]
        await asyncio.sleep(min(30, 2 ** (len(self._crashes) - CRASHES)) if len(self._crashes) > CRASHES else 0)
        if self._closing:
            return
        successor = ProcessWorker(self, worker.number)
        self.workers[self.workers.index(worker)] = successor
        try:
            await successor.start()
            for service in self.services.values():
                if isinstance(service, Service) and service.running:
                    await successor.open(service.name, service.generation, service.settings)
                if isinstance(service, BackEnd):
                    await successor.back_end(service.name, service.running, False)
            successor.accepting = True
        except Refused as error:
            self.warn(error.text)  # its link is gone, too, so that the next try follows

    # --- services (manage.context.ServerControl)

    def running(self, name: str) -> bool:
        """Whether a service runs."""
        return self.services[name].running

    async def start(self, name: str) -> None:
        """Start one; `Refused` with one clear line when it cannot."""
        self._check_enabled(name)
        await self.services[name].start()

    async def stop(self, name: str) -> None:
        """Stop one."""
        await self.services[name].stop()

    async def restart(self, name: str, force: bool) -> None:
        """Apply changed settings; `force` ends all sessions."""
        self._check_enabled(name)
        await self.services[name].restart(force)

    def _check_enabled(self, name: str) -> None:
        if self.config.start_type(name) is StartType.Disabled:
            raise Refused(f"{name} is disabled; enable it with: Set-Service {name} -StartupType Manual")

    async def start_automatic(self) -> None:
        """All whose start type is Automatic; back ends first, so that no early login is turned away."""
        automatic = [n for n, _, _ in SERVICES if self.config.start_type(n) is StartType.Automatic]
        for name in sorted(automatic, key=lambda n: n in KINDS and not KINDS[n].back):
            await self.start(name)
        self._watch.start()

    def reload(self) -> None:
        """Certificates, for the next handshakes; SIGHUP does this."""
        for service in self.services.values():
            try:
                service.reload()
            except Refused as error:
                self.warn(error.text)
                return
        for worker in self.workers:
            worker.reload()
        self.certificates.publish()
        self._watch.poke()

    def bound(self, binding: Binding) -> socket.socket | None:
        """A socket that listens at a binding for a moment, low ports included; None where there is no IPv6."""
        return Listeners("ACME", self.warn, lambda *_: None, lambda: False).bound(binding)

    def new_tickets(self) -> None:
        """Session tickets under a new secret, so that an old one that got away opens nothing recorded later."""
        self.ticket_secret = os.urandom(32)
        for worker in self.workers:
            worker.share_tickets(self.ticket_secret)

    async def flush_logs(self) -> None:
        """About once a second, for as long as the server runs."""
        while True:
            await asyncio.sleep(1)
            for service in self.services.values():
                if isinstance(service, Service):
                    service.flush()

    async def close(self) -> None:
        """Stop everything, front ends first."""
        self._closing = True
        if self._reminder is not None:
            self._reminder.cancel()
        await self._watch.stop()
        for name in sorted(self.services, key=lambda n: n in KINDS and KINDS[n].back):
            await self.services[name].stop()
        for task in self._replacing:
            task.cancel()
        await self.each(lambda w: w.close())
        for service in self.services.values():
            if isinstance(service, Service):
                service.flush()
        await self.store.close()


def cores() -> int:
    """How many workers there are by default."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
