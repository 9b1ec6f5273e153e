"""What was seen of clients, counted: logins refused, logins that a report-only rule would refuse, exceptions used,
retired passwords tried, strangers on the exceptions-only listener.

One row for each kind, protocol, address, user and detail, with first and last time. Counts are gathered in memory and
written every few seconds without a sync: after `kill -9` the last moment is missing, never more.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import apsw

from letterlock.directory.config import Config, now

KEPT: Final = 10_000  # rows of a kind: whoever invents user names cannot fill the disk
GATHERED: Final = 5_000  # rows between two writes
MAX_TEXT: Final = 200

REFUSED: Final = "refused"  # by policy, with the sentence that the client was told
REPORTED: Final = "reported"  # let through, and a report-only rule would have refused it
EXCEPTION: Final = "exception"  # an exception was used; detail: its identity
RETIRED: Final = "retired"  # a password that is no longer valid
STRANGER: Final = "stranger"  # at the exceptions-only listener


class Sighting(NamedTuple):
    """One row."""

    kind: str
    protocol: str
    address: str
    user: str
    detail: str
    times: int
    first: str  # UTC, ISO 8601
    last: str


class Sightings:
    """Counts of one data directory, from all processes."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._gathered: dict[tuple[str, str, str, str, str], list[object]] = {}

    def add(self, kind: str, protocol: str, address: str, user: str, detail: str) -> bool:
        """Count one; True when there was none of its like since the last write."""
        key = (kind, protocol, address, user[:MAX_TEXT], detail[:MAX_TEXT])
        entry = self._gathered.get(key)
        if entry is not None:
            entry[0] = int(str(entry[0])) + 1
            entry[2] = now()
            return False
        if len(self._gathered) < GATHERED:
            at = now()
            self._gathered[key] = [1, at, at]
        return True

    def flush(self) -> None:
        """Write what was gathered; a full disk loses it."""
        if not self._gathered:
            return
        gathered, self._gathered = self._gathered, {}
        db = self._config.quick
        try:
            with db:
                db.executemany(
                    "INSERT INTO sighting VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
                    "count = count + excluded.count, last = excluded.last",
                    ((*key, *values) for key, values in gathered.items()),
                )
                for kind in {key[0] for key in gathered}:
                    db.execute(
                        "DELETE FROM sighting WHERE kind = ?1 AND last < "
                        "(SELECT last FROM sighting WHERE kind = ?1 ORDER BY last DESC LIMIT 1 OFFSET ?2)",
                        (kind, KEPT),
                    )
        except (apsw.FullError, apsw.BusyError, apsw.IOError):
            return

    def all(self, kind: str) -> list[Sighting]:
        """Rows of a kind, latest first."""
        rows = self._config.db.execute("SELECT * FROM sighting WHERE kind = ? ORDER BY last DESC", (kind,))
        return [Sighting(*row) for row in rows]

    def forget(self, kind: str, *, user: str = "", detail: str = "") -> None:
        """Remove rows of a kind that are of a user or have a detail."""
        with self._config.quick as db:
            if user:
                db.execute("DELETE FROM sighting WHERE kind = ? AND user = ? COLLATE NOCASE", (kind, user))
            if detail:
                db.execute("DELETE FROM sighting WHERE kind = ? AND detail = ?", (kind, detail))
