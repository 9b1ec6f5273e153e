"""A worker process: an engine at the end of a link. It ends when its supervisor does, however that ends.

Started by the supervisor as `python -m letterlock.runtime.worker DESCRIPTOR DIR`; not for people.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Final

from letterlock.base.errors import LetterlockError
from letterlock.directory.accounts import Accounts
from letterlock.directory.certificates import Certificates
from letterlock.directory.config import Config
from letterlock.runtime import privileges
from letterlock.runtime.engine import Engine
from letterlock.runtime.kinds import KINDS, settings_of
from letterlock.runtime.link import SENDABLE, Link
from letterlock.store.sqlite import SqliteStore
from letterlock.tls import ignore_undecodable_names

ROWS_S: Final = 0.1  # log rows wait this long for company
NUMBERS: Final = {name: number for number, name in enumerate(KINDS)}
PART: Final = 100  # sessions described in one message


class Worker:
    """The engine's upstream, and what the supervisor says to it."""

    def __init__(self, sock: socket.socket, data: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._link = Link(sock, self._received, lambda _: None, self._closed)
        config = Config.open(data)
        self._store = SqliteStore(data / "mailboxes", notify=lambda m, n: self._engine.notify(m, n))
        self._engine = Engine(config, Accounts(config), Certificates(config), self._store, self)
        self._requests: dict[int, asyncio.Future[bool]] = {}
        self._numbers = itertools.count()
        self._rows: dict[str, list[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until the supervisor says so or is gone."""
        self._link.send(["ready"])
        await self._ended.wait()
        self._write_rows()
        await self._engine.close()
        await self._store.close()

    def _closed(self) -> None:
        # The supervisor is gone: nobody counts, nobody logs. Clients find the connection closed.
        os._exit(1)

    # --- the engine's questions (Upstream)

    async def enter(self, connection: int, user: str) -> bool:
        """Whether a user may have this session too."""
        number = next(self._numbers)
        answer = self._requests[number] = self._loop.create_future()
        self._link.send(["enter", number, connection, user])
        try:
            entered: bool = await answer
            return entered
        finally:
            self._requests.pop(number, None)

    def failed(self, user: str, address: str) -> None:
        """A login failed."""
        self._link.send(["failed", user, address])

    def closed(self, connection: int) -> None:
        """A connection has ended."""
        self._link.send(["closed", connection])

    def changed(self, mailbox: str) -> None:
        """A mailbox that others have open was changed."""
        self._link.send(["changed", mailbox])

    def row(self, service: str, row: bytes) -> None:
        """A row of a protocol log."""
        if not self._rows:
            self._loop.call_later(ROWS_S, self._write_rows)
        self._rows.setdefault(service, []).append(row)

    def _write_rows(self) -> None:
        everything, self._rows = self._rows, {}
        for service, rows in everything.items():
            part: list[bytes] = []
            size = 0
            for row in rows:
                if size + len(row) > SENDABLE:
                    self._link.send_rows(NUMBERS[service], b"".join(part))
                    part, size = [], 0
                part.append(row)
                size += len(row)
            self._link.send_rows(NUMBERS[service], b"".join(part))

    # --- the supervisor's orders

    def _received(self, message: list[Any], sock: socket.socket | None) -> None:
        kind, *values = message
        if kind == "adopt" and sock is not None:
            self._engine.adopt(sock, *values)
        elif kind == "entered":
            waiting = self._requests.get(values[0])
            if waiting is not None and not waiting.done():
                waiting.set_result(values[1])
        elif kind == "hint":
            self._engine.hint(values[0])
        elif kind == "share":
            self._engine.share(*values)
        elif kind == "failed":
            self._engine.throttle.failed(values[0], values[1], time.monotonic())
        elif kind == "reload":
            self._engine.reload()
        elif kind == "tickets":
            self._engine.share_tickets(bytes.fromhex(values[0]))
        elif kind == "end":
            self._ended.set()
        else:
            task = self._loop.create_task(self._order(kind, *values))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _order(self, kind: str, number: int, *values: Any) -> None:
        """An order that is answered when it is done."""
        result: Any = None
        try:
            if kind == "open":
                name, generation, rows = values
                self._engine.open(name, generation, settings_of(name, rows))
            elif kind == "retire":
                await self._engine.retire(*values)
            elif kind == "shut":
                await self._engine.shut(*values)
                self._write_rows()
            elif kind == "back_end":
                await self._engine.back_end(*values)
            elif kind == "disconnect":
                result = await self._engine.disconnect(*values)
            elif kind == "connections":
                found = self._engine.connections()
                for at in range(0, len(found), PART):
                    self._link.send(["part", number, found[at : at + PART]])
        except LetterlockError as error:
            self._link.send(["refused", number, error.text])
        except Exception as error:
            self._engine.incident(error)
            self._link.send(["refused", number, "internal error; the server's error output has the details"])
        else:
            self._link.send(["done", number, result])


async def _main(descriptor: int, data: Path) -> None:
    await Worker(socket.socket(fileno=descriptor), data).run()


def main() -> None:
    """The process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the supervisor is told, and tells us
    descriptor, data = int(sys.argv[1]), Path(sys.argv[2])
    run: Any = asyncio.run
    with contextlib.suppress(ImportError):
        import uvloop

        run = uvloop.run
    privileges.drop(data)
    ignore_undecodable_names()
    run(_main(descriptor, data))


if __name__ == "__main__":
    main()
