"""Requests to move mail: what each has done so far, kept in `letterlock.db` where every process sees it.

The one that runs writes its figures about twice a second. Taking its row away ends it at its next batch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from typing import Any, Final

from letterlock.base.errors import Refused
from letterlock.directory.config import Config, now

KEPT: Final = 200  # requests that have ended
WRITE_S: Final = 0.5


@dataclasses.dataclass(slots=True, kw_only=True)
class Request:
    """One import or export."""

    kind: str  # Import, Export
    mailbox: str
    place: str  # a path, or imaps://host:port
    identity: int = 0
    status: str = "InProgress"
    messages: int = 0  # taken over
    present: int = 0  # were there already, from an earlier request
    skipped: int = 0  # could not be taken
    folders: int = 0
    octets: int = 0
    percent: int = 0
    folder: str = ""
    started: str = dataclasses.field(default_factory=now)
    ended: str = ""
    error: str = ""
    process: int = dataclasses.field(default_factory=os.getpid)

    @property
    def state(self) -> str:
        """Status; an unfinished one whose process is gone was interrupted."""
        gone = self.status == "InProgress" and not os.path.exists(f"/proc/{self.process}")
        return "Interrupted" if gone else self.status


class Requests:
    """All requests of one data directory."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def all(self, kind: str) -> list[Request]:
        """Of a kind, newest first."""
        rows = self._config.db.execute("SELECT id, json FROM transfer_request WHERE kind = ? ORDER BY id DESC", (kind,))
        return [_request(int(str(number)), str(text)) for number, text in rows]

    def one(self, kind: str, identity: int) -> Request:
        """By its number; `Refused` when there is none."""
        found = next((r for r in self.all(kind) if r.identity == identity), None)
        if found is None:
            raise Refused(f"there is no request {identity}; Get-Mailbox{kind}Request lists them", b"NONEXISTENT")
        return found

    def start(self, request: Request, who: str) -> None:
        """Durable, with its audit row."""
        what = f"New-Mailbox{request.kind}Request {request.mailbox}"
        with self._config.transaction(who, what, None, {"FilePath": request.place}):
            self._config.db.execute(
                "INSERT INTO transfer_request (kind, json) VALUES (?, ?)", (request.kind, _json(request))
            )
            request.identity = self._config.db.last_insert_rowid()
            self._config.db.execute("DELETE FROM transfer_request WHERE id <= ?", (request.identity - KEPT,))

    def write(self, request: Request) -> None:
        """Its figures; `Refused` when somebody has removed it."""
        with self._config.quick as db:
            db.execute("UPDATE transfer_request SET json = ? WHERE id = ?", (_json(request), request.identity))
            if not db.changes():
                raise Refused(f"request {request.identity} was removed: what it had transferred by then stays")

    def remove(self, request: Request, who: str) -> None:
        """Durable; a running one ends."""
        with self._config.transaction(who, f"Remove-Mailbox{request.kind}Request {request.identity}"):
            self._config.db.execute("DELETE FROM transfer_request WHERE id = ?", (request.identity,))


def _json(request: Request) -> str:
    return json.dumps({k: v for k, v in dataclasses.asdict(request).items() if k != "identity"})


def _request(identity: int, text: str) -> Request:
    rows: dict[str, Any] = json.loads(text)
    return Request(identity=identity, **rows)


class Reporter:
    """Tells of a request's progress: its row now and then, and whoever waits for it each time."""

    def __init__(self, requests: Requests, request: Request, show: Callable[[str, int], None]) -> None:
        self.request = request
        self._requests, self._show = requests, show
        self._written = time.monotonic()

    def report(self, folder: str, percent: float) -> None:
        """A batch is done; `Refused` when it was the last one that is wanted."""
        self.request.folder, self.request.percent = folder, max(0, min(100, int(percent)))
        r = self.request
        self._show(f"{folder}: {r.messages} messages" + (f", {r.present} were there" if r.present else ""), r.percent)
        if time.monotonic() - self._written >= WRITE_S:
            self._written = time.monotonic()
            self._requests.write(r)

    def end(self, error: str = "") -> None:
        """It has ended, well or with an error."""
        r = self.request
        r.ended, r.error, r.status, r.folder = now(), error, "Failed" if error else "Completed", ""
        r.percent = r.percent if error else 100
        try:
            self._requests.write(r)
        except Refused:
            return
