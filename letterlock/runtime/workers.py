"""The two kinds of worker, as the supervisor sees them: the engine in this process, or a process and a link to it.

Both have the same methods. `accepting` says that a worker knows all services and may be given connections.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

from letterlock.base import declare
from letterlock.base.errors import Refused
from letterlock.runtime.engine import Engine
from letterlock.runtime.kinds import KINDS
from letterlock.runtime.link import Link, pair
from letterlock.runtime.privileges import raised

if TYPE_CHECKING:
    from letterlock.runtime.supervisor import Server

START_S: Final = 30.0  # a worker that is not ready by then is not going to be
ANSWER_S: Final = 30.0
# glibc would keep the 19 MiB of every password hash for the next one, in every thread of every worker
MEMORY: Final = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "1048576"}
NAMES: Final = tuple(KINDS)


class LocalWorker:
    """The engine in this process."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.load = 0
        self.accepting = True
        self.engine = Engine(server.config, server.accounts, server.certificates, server.store, self)
        self.retire, self.shut, self.back_end = self.engine.retire, self.engine.shut, self.engine.back_end
        self.disconnect, self.hint, self.share = self.engine.disconnect, self.engine.hint, self.engine.share
        self.reload, self.share_tickets = self.engine.reload, self.engine.share_tickets

    async def start(self) -> None:
        """Nothing to wait for."""

    async def open(self, name: str, generation: int, settings: Any) -> None:
        self.engine.open(name, generation, settings)

    def adopt(self, sock: socket.socket, name: str, identity: int, door: str, refused: bool) -> None:
        """Serve an accepted socket."""
        self.engine.adopt(sock, name, identity, door, refused)

    async def connections(self) -> list[dict[str, Any]]:
        """Every session."""
        return self.engine.connections()

    def fail(self, user: str, address: str) -> None:
        """Another worker saw a failed login: there is none."""

    async def close(self) -> None:
        """After all services were stopped."""
        await self.engine.close()

    # --- the engine's questions (engine.Upstream)

    async def enter(self, connection: int, user: str) -> bool:
        """Whether a user may have this session too."""
        return self.server.enter(connection, user)

    def failed(self, user: str, address: str) -> None:
        """A login failed: the engine knows."""

    def closed(self, connection: int) -> None:
        """A connection has ended."""
        self.server.unseat(connection)

    def row(self, service: str, row: bytes) -> None:
        """A row of a protocol log."""
        self.server.row(service, row)

    def changed(self, mailbox: str) -> None:
        """Nobody else to tell."""


class ProcessWorker:
    """A worker process and the link to it."""

    def __init__(self, server: Server, number: int) -> None:
        self.server, self.number = server, number
        self.load = 0
        self.accepting = False  # it knows all services
        self._alive = False
        self._ending = False
        self._process: subprocess.Popen[bytes] | None = None
        self._link: Link | None = None
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._parts: dict[int, list[Any]] = {}  # of an answer that comes in several messages
        self._ready: asyncio.Future[None]

    async def start(self) -> None:
        """Start the process and wait until it is ready; `Refused` when it is not."""
        ours, theirs = pair()
        # -P: the working directory is no place to import from
        command = [sys.executable, "-P", "-m", "letterlock.runtime.worker", str(theirs.fileno())]
        try:
            with raised():  # it gives root up by itself, once the interpreter has found its modules
                self._process = subprocess.Popen(  # noqa: S603 - our own module, no shell
                    [*command, str(self.server.config.data)],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    env={**MEMORY, **os.environ},
                )
        except OSError as error:
            ours.close()
            raise Refused(f"worker {self.number} cannot be started: {command[0]}: {error.strerror}") from None
        finally:
            theirs.close()
        self._ready = asyncio.get_running_loop().create_future()
        self._link = Link(ours, self._received, self._rows, self._closed)
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), START_S)
        except (TimeoutError, Refused):
            self._process.kill()
            raise Refused(f"worker {self.number} did not start; its error output is above") from None
        self.share_tickets(self.server.ticket_secret)

    # --- orders

    async def _order(self, kind: str, *values: Any) -> Any:
        if not self._alive:
            return None
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        parts = self._parts[number] = []
        self._tell(kind, number, *values)
        try:
            return await asyncio.wait_for(answer, ANSWER_S) or parts
        except TimeoutError:
            raise Refused(f"worker {self.number} does not answer") from None
        finally:
            del self._answers[number], self._parts[number]

    def _tell(self, *message: Any, passed: socket.socket | None = None) -> None:
        if self._link is not None:
            self._link.send(list(message), passed)
        elif passed is not None:
            passed.close()

    async def open(self, name: str, generation: int, settings: Any) -> None:
        """A new generation of a service."""
        await self._order("open", name, generation, declare.stored(settings))

    async def retire(self, name: str, force: bool) -> None:
        """End sessions of older generations."""
        await self._order("retire", name, force)

    async def shut(self, name: str) -> None:
        """The service stops."""
        await self._order("shut", name)

    async def back_end(self, name: str, running: bool, end: bool) -> None:
        """A back end starts or stops."""
        await self._order("back_end", name, running, end)

    async def disconnect(self, identity: int) -> bool:
        """End one session."""
        return bool(await self._order("disconnect", identity))

    async def connections(self) -> list[dict[str, Any]]:
        """Every session."""
        return list(await self._order("connections") or ())

    def adopt(self, sock: socket.socket, name: str, identity: int, door: str, refused: bool) -> None:
        """Serve an accepted socket."""
        self._tell("adopt", name, identity, door, refused, passed=sock)

    def hint(self, mailbox: str) -> None:
        """A mailbox was changed elsewhere."""
        self._tell("hint", mailbox)

    def share(self, mailbox: str, shared: bool) -> None:
        """Whether other workers have sessions of a mailbox."""
        self._tell("share", mailbox, shared)

    def fail(self, user: str, address: str) -> None:
        """Another worker saw a failed login."""
        self._tell("failed", user, address)

    def reload(self) -> None:
        """Certificates."""
        self._tell("reload")

    def share_tickets(self, secret: bytes) -> None:
        """The secret behind session tickets."""
        self._tell("tickets", secret.hex())

    async def close(self) -> None:
        """After all services were stopped."""
        self._ending = True
        self._tell("end")
        if self._process is None:
            return
        try:
            await asyncio.to_thread(self._process.wait, 5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        if self._link is not None:
            self._link.close()

    # --- what it says

    def _received(self, message: list[Any], _: socket.socket | None) -> None:
        kind, *values = message
        if kind == "enter":
            number, connection, user = values
            self._tell("entered", number, self.server.enter(connection, user))
        elif kind == "closed":
            self.server.unseat(values[0])
        elif kind == "changed":
            self.server.changed(values[0], self)
        elif kind == "failed":
            self.server.failed(values[0], values[1], self)
        elif kind == "part":
            self._parts.get(values[0], []).extend(values[1])
        elif kind == "ready":
            self._alive = True
            if not self._ready.done():
                self._ready.set_result(None)
        elif kind in ("done", "refused"):
            waiting = self._answers.get(values[0])
            if waiting is not None and not waiting.done():
                if kind == "done":
                    waiting.set_result(values[1])
                else:
                    waiting.set_exception(Refused(values[1]))

    def _rows(self, data: bytes) -> None:
        self.server.row(NAMES[data[0]], data[1:])

    def _closed(self) -> None:
        self._alive = self.accepting = False
        if not self._ready.done():
            self._ready.set_exception(Refused("ended"))
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_result(None)
        if not self._ending and self._process is not None:
            self.server.lost(self, self._process)
