"""When each mailbox last logged on, by which protocol, from where, and with which client.

Gathered in memory and written every few seconds without a sync, as sightings are: after `kill -9` the last moment is
missing, and no login ever waits for it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import apsw

from letterlock.directory.config import Config, now

GATHERED: Final = 20_000  # rows between two writes
MAX_TEXT: Final = 200


class Logon(NamedTuple):
    """The latest log-on of a mailbox by one protocol."""

    account: str
    protocol: str
    at: str  # UTC, ISO 8601
    address: str
    client: str  # what it told of itself (RFC 2971), may be empty


class Logons:
    """Latest log-ons of one data directory, from all processes."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._gathered: dict[tuple[str, str], tuple[str, str, str]] = {}
        self._names: dict[tuple[str, str], str] = {}  # told after the log-on was written

    def add(self, account: str, protocol: str, address: str, client: str) -> None:
        """A log-on, now."""
        if len(self._gathered) < GATHERED:
            self._gathered[account, protocol] = (now(), address, client[:MAX_TEXT])

    def name(self, account: str, protocol: str, client: str) -> None:
        """What the client of a log-on told of itself later on."""
        entry = self._gathered.get((account, protocol))
        if entry is not None:
            self._gathered[account, protocol] = (entry[0], entry[1], client[:MAX_TEXT])
        elif len(self._names) < GATHERED:
            self._names[account, protocol] = client[:MAX_TEXT]

    def flush(self) -> None:
        """Write what was gathered; a full disk loses it."""
        if not self._gathered and not self._names:
            return
        gathered, self._gathered = self._gathered, {}
        names, self._names = self._names, {}
        try:
            with self._config.quick as db:
                db.executemany(
                    "INSERT INTO logon VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET at = excluded.at, "
                    "address = excluded.address, client = excluded.client",
                    ((*key, *values) for key, values in gathered.items()),
                )
                db.executemany(
                    "UPDATE logon SET client = ? WHERE account = ? AND protocol = ?",
                    ((client, *key) for key, client in names.items()),
                )
        except (apsw.FullError, apsw.BusyError, apsw.IOError):
            return

    def of(self, account: str) -> list[Logon]:
        """One row a protocol, latest first."""
        rows = self._config.db.execute("SELECT * FROM logon WHERE account = ? ORDER BY at DESC", (account,))
        return [Logon(*map(str, row)) for row in rows]
