"""Settings, start types, revision and audit trail: `letterlock.db` of a data directory.

One SQLite file, every write synced before it returns. A write is validated as a whole object first, and goes in one
transaction with its audit rows and the new revision: nothing is ever half-changed. Several processes read it; they
notice a change by SQLite's data version (`changed`), which costs about two microseconds.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw

from letterlock.base import declare
from letterlock.base.errors import Malformed, Refused
from letterlock.base.settings import (
    AdminSettings,
    ImapSettings,
    PopSettings,
    Settings,
    admin_defaults,
    defaults,
)
from letterlock.base.settings_acme import AcmeSettings, acme_defaults
from letterlock.base.values import StartType, host_name, parse_enum

S = TypeVar("S", bound=Settings)

# (name, Exchange's name, display name); the order of Get-Service
SERVICES: Final = (
    ("LetterlockImap4", "MSExchangeImap4", "Letterlock IMAP4"),
    ("LetterlockImap4BE", "MSExchangeIMAP4BE", "Letterlock IMAP4 Backend"),
    ("LetterlockPop3", "MSExchangePop3", "Letterlock POP3"),
    ("LetterlockPop3BE", "MSExchangePOP3BE", "Letterlock POP3 Backend"),
    ("LetterlockAdmin", "LetterlockAdmin", "Letterlock Administration"),
)

AUDIT_ROWS: Final = 100_000  # the oldest rows go: the trail never fills the disk
MAX_WHAT: Final = 1000

# Numbered from 1; user_version of the file says how many have been applied. Never change one that was released.
MIGRATIONS: Final = (
    """
    CREATE TABLE value (section TEXT NOT NULL, name TEXT NOT NULL, json TEXT NOT NULL, PRIMARY KEY (section, name))
      WITHOUT ROWID;
    CREATE TABLE audit (id INTEGER PRIMARY KEY, at TEXT NOT NULL, who TEXT NOT NULL, what TEXT NOT NULL,
      old TEXT, new TEXT);
    CREATE TABLE account (
      id TEXT PRIMARY KEY, address TEXT NOT NULL UNIQUE COLLATE NOCASE, alias TEXT NOT NULL, display_name TEXT NOT NULL,
      password_hash TEXT NOT NULL, created TEXT NOT NULL, switches TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE exposed (account TEXT NOT NULL, at TEXT NOT NULL, protocol TEXT NOT NULL, address TEXT NOT NULL);
    CREATE INDEX exposed_account ON exposed (account);
    CREATE TABLE certificate (thumbprint TEXT PRIMARY KEY, file TEXT NOT NULL, services TEXT NOT NULL,
      friendly_name TEXT NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE login_exception (id TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE retired (account TEXT NOT NULL, password_hash TEXT NOT NULL, at TEXT NOT NULL);
    CREATE INDEX retired_account ON retired (account);
    CREATE TABLE sighting (
      kind TEXT NOT NULL, protocol TEXT NOT NULL, address TEXT NOT NULL, user TEXT NOT NULL, detail TEXT NOT NULL,
      count INTEGER NOT NULL, first TEXT NOT NULL, last TEXT NOT NULL,
      PRIMARY KEY (kind, protocol, address, user, detail)) WITHOUT ROWID;
    CREATE INDEX sighting_last ON sighting (kind, last);
    CREATE TABLE server (name TEXT PRIMARY KEY COLLATE NOCASE, fqdn TEXT NOT NULL, data TEXT NOT NULL,
      certificate TEXT NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE administrator (
      id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE COLLATE NOCASE, role TEXT NOT NULL, enabled INTEGER NOT NULL,
      created TEXT NOT NULL, password_hash TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE administrator_token (
      id TEXT PRIMARY KEY, administrator TEXT NOT NULL, hash BLOB NOT NULL UNIQUE, description TEXT NOT NULL,
      created TEXT NOT NULL, expires TEXT NOT NULL, last_used TEXT NOT NULL, last_address TEXT NOT NULL) WITHOUT ROWID;
    """,
    """
    ALTER TABLE account ADD COLUMN quotas TEXT NOT NULL DEFAULT '{}';
    CREATE TABLE proxy_address (address TEXT PRIMARY KEY COLLATE NOCASE, account TEXT NOT NULL) WITHOUT ROWID;
    CREATE INDEX proxy_address_account ON proxy_address (account);
    CREATE TABLE logon (account TEXT NOT NULL, protocol TEXT NOT NULL, at TEXT NOT NULL, address TEXT NOT NULL,
      client TEXT NOT NULL, PRIMARY KEY (account, protocol)) WITHOUT ROWID;
    """,
    """
    ALTER TABLE certificate ADD COLUMN exportable INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE certificate ADD COLUMN revoked TEXT NOT NULL DEFAULT '';
    CREATE TABLE certificate_request (
      thumbprint TEXT PRIMARY KEY, friendly_name TEXT NOT NULL, services TEXT NOT NULL, exportable INTEGER NOT NULL,
      created TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE acme_order (id TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE transfer_request (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, json TEXT NOT NULL);
    """,
)


class Config:
    """An open `letterlock.db`."""

    def __init__(self, data: Path, db: apsw.Connection) -> None:
        self.data = data
        self.db = db
        self._seen = -1
        self._quick: apsw.Connection | None = None

    @classmethod
    def create(cls, data: Path, hostname: str, server: str, port_offset: int) -> Config:
        """A new file with every setting at its default and all services Manual."""
        hostname = host_name(hostname)
        config = cls(data, _connect(data / "letterlock.db", create=True))
        config._migrate()
        with config.transaction("init", f"init {hostname}"):
            config._put("server", {"Name": server, "Fqdn": hostname, "PortOffset": port_offset})
            config._put("start", {name: StartType.Manual.name for name, _, _ in SERVICES})
            for kind in (ImapSettings, PopSettings):
                config._put(kind.__name__, declare.stored(defaults(kind, hostname, port_offset)))
        return config

    @classmethod
    def open(cls, data: Path) -> Config:
        """An existing one; `Refused` when there is none, or when a newer version made it."""
        if not (data / "letterlock.db").is_file():
            text = f"{data} is not a data directory; make one with: letterlock init --hostname FQDN"
            raise Refused(text, b"NONEXISTENT")
        try:
            config = cls(data, _connect(data / "letterlock.db", create=False))
            config._migrate()
        except apsw.Error as error:
            raise Refused(f"{data / 'letterlock.db'} cannot be read: {error}") from None
        return config

    def _migrate(self) -> None:
        version = int(self.db.pragma("user_version"))
        if version > len(MIGRATIONS):
            raise Refused(
                f"{self.data} was made by a newer version of letterlock (schema {version}, "
                f"this one knows {len(MIGRATIONS)}); install that version"
            )
        for number in range(version, len(MIGRATIONS)):
            with self.db:
                self.db.execute(MIGRATIONS[number])
                self.db.pragma("user_version", number + 1)

    def close(self) -> None:
        """Close the file."""
        self.db.close()
        if self._quick is not None:
            self._quick.close()

    @property
    def quick(self) -> apsw.Connection:
        """For counts that may lose their last moment in a power failure: commits without a sync."""
        if self._quick is None:
            self._quick = _connect(self.data / "letterlock.db", create=False)
            self._quick.pragma("synchronous", "NORMAL")
        return self._quick

    def version(self) -> int:
        """A number that changes whenever anybody writes."""
        return int(self.db.pragma("data_version")) * 1_000_003 + self.db.total_changes()

    def changed(self) -> bool:
        """Whether anybody wrote since the last call (true the first time)."""
        version = self.version()
        changed, self._seen = version != self._seen, version
        return changed

    @contextmanager
    def transaction(self, who: str, what: str, old: object = None, new: object = None) -> Iterator[None]:
        """One durable change with its audit row (none where `what` is empty); `Refused` when the disk is full."""
        try:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                if what:
                    self._audit(who, what, old, new)
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise
        except apsw.FullError:
            raise Refused("the disk is full: nothing was changed") from None

    @contextmanager
    def counted(self, who: str, what: str, new: object = None) -> Iterator[apsw.Connection]:
        """A change that may be lost with the last moment, with its audit row (none where `what` is empty). A full or a
        busy disk loses it."""
        try:
            with self.quick as db:
                yield db
                if what:
                    self._audit(who, what, None, new, db)
        except (apsw.FullError, apsw.BusyError, apsw.IOError):
            return

    def _audit(self, who: str, what: str, old: object, new: object, db: apsw.Connection | None = None) -> None:
        db = db or self.db
        db.execute(
            "INSERT INTO audit (at, who, what, old, new) VALUES (?, ?, ?, ?, ?)",
            (now(), who, what[:MAX_WHAT], json.dumps(old), json.dumps(new)),
        )
        newest = db.last_insert_rowid()
        db.execute("DELETE FROM audit WHERE id <= ?", (newest - AUDIT_ROWS,))

    def audit(self, since: str, until: str) -> Iterator[tuple[int, str, str, str, str | None, str | None]]:
        """The audit trail, newest first; bounds are moments as `now` writes them, or empty."""
        rows = self.db.execute(
            "SELECT id, at, who, what, old, new FROM audit WHERE at >= ? AND (?2 = '' OR at <= ?2) ORDER BY id DESC",
            (since, until),
        )
        for number, at, who, what, old, new in rows:
            yield int(str(number)), str(at), str(who), str(what), old, new

    def note(self, who: str, what: str, old: object = None, new: object = None) -> None:
        """An audit row for something that is done elsewhere: a service started, a session ended, mail moved."""
        with self.transaction(who, what, old, new):
            pass

    def _put(self, section: str, rows: Mapping[str, object]) -> None:
        self.db.executemany(
            "INSERT OR REPLACE INTO value (section, name, json) VALUES (?, ?, ?)",
            ((section, name, json.dumps(value)) for name, value in rows.items()),
        )

    def _get(self, section: str) -> dict[str, Any]:
        rows = self.db.execute("SELECT name, json FROM value WHERE section = ?", (section,))
        return {name: json.loads(text) for name, text in rows}

    # settings

    @property
    def server_name(self) -> str:
        """The server's short name."""
        return str(self._get("server")["Name"])

    @property
    def fqdn(self) -> str:
        """The server's full name."""
        return str(self._get("server")["Fqdn"])

    @property
    def port_offset(self) -> int:
        """What `init --port-offset` added to every default port."""
        return int(self._get("server").get("PortOffset", 0))

    def settings(self, kind: type[S]) -> S:
        """The stored settings of a service pair."""
        rows = self._get(kind.__name__)
        if kind is AdminSettings:  # a directory that is older than this service has no rows of it
            rows = declare.stored(admin_defaults(self.fqdn, self.port_offset)) | rows
        if kind is AcmeSettings:
            rows = declare.stored(acme_defaults(self.port_offset)) | rows
        found = declare.restored(kind, rows)
        return found.settled(found)

    def change(self, kind: type[S], changes: Mapping[str, object], who: str) -> dict[str, tuple[object, object]]:
        """Apply `changes` (values, texts or `ListChange`); the names that differ now with old and new value.

        `validate` it first to learn what would change.
        """
        new, differing = self.validate(kind, changes)
        if differing:
            old_new = {n: (declare.to_json(o), declare.to_json(v)) for n, (o, v) in differing.items()}
            old = {n: pair[0] for n, pair in old_new.items()}
            what = f"Set-{kind.__name__} {self.server_name}"
            with self.transaction(who, what, old, {n: p[1] for n, p in old_new.items()}):
                self._put(kind.__name__, {n: declare.to_json(getattr(new, n)) for n in differing})
        return differing

    def validate(self, kind: type[S], changes: Mapping[str, object]) -> tuple[S, dict[str, tuple[object, object]]]:
        """The object that `changes` would make, and what would differ; `Malformed` names setting, value, allowed."""
        old = self.settings(kind)
        known = declare.fields(kind)
        values: dict[str, Any] = {}
        for name, value in changes.items():
            if known[name].setting.read_only:
                raise Malformed(f"{name}: cannot be changed")
            values[name] = declare.read(kind, name, value, getattr(old, name))
        new = dataclasses.replace(old, **values)
        new = new.settled(old)
        new.check()
        return new, {n: (getattr(old, n), getattr(new, n)) for n in known if getattr(new, n) != getattr(old, n)}

    # services

    def start_type(self, service: str) -> StartType:
        """Disabled, Manual or Automatic."""
        return parse_enum(StartType, self._get("start").get(service, "Manual"))

    def set_start_type(self, service: str, value: StartType, who: str) -> None:
        """Durable."""
        old = self.start_type(service)
        if old is value:
            return
        with self.transaction(who, f"Set-Service {service}", {"StartupType": old.name}, {"StartupType": value.name}):
            self._put("start", {service: value.name})


def now() -> str:
    """The time for rows: UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _connect(path: Path, create: bool) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if create else 0)
    db = apsw.Connection(str(path), flags=flags)
    path.chmod(0o600)
    db.set_busy_timeout(5000)
    db.pragma("journal_mode", "WAL")
    db.pragma("synchronous", "FULL")
    return db
