"""Open mailbox files of one process: connections, upgrades, and translation of what can go wrong.

A `Handle` is one mailbox file. It has up to two kinds of connections:
- `reader`: used by the event loop only, never across an await, so it can be closed at any time by the loop. Quick
  commits use it too; it never checkpoints, as that would sync in the event loop.
- `writer`: used by one writer thread at a time (`sqlite_writer.py`), synchronous=FULL.
Searches in threads borrow spare connections. A bounded number of handles stays open, least recently used go first;
idle sessions hold none.
"""

from __future__ import annotations

import errno
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import apsw

from letterlock.base.errors import Refused
from letterlock.store import sqlite_sql as sql

if TYPE_CHECKING:
    from letterlock.store.sqlite_writer import Job


class Cursor(Protocol):
    """Rows of a statement. SQLite's rows have no static types: what `sqlite_sql` selects is what they hold."""

    def fetchone(self) -> Any: ...
    def fetchall(self) -> list[Any]: ...
    def __iter__(self) -> Iterator[Any]: ...
    def close(self) -> None: ...


Execute = Callable[..., Cursor]


class Connection(Protocol):
    """What statements need of a connection."""

    @property
    def in_transaction(self) -> bool: ...
    def execute(self, statements: str, bindings: Any = ...) -> Cursor: ...
    def executemany(self, statements: str, sequenceofbindings: Any) -> Cursor: ...


MAILBOX_ID: Final = re.compile(r"[0-9a-f]{32}\Z")  # also keeps an id from being a path
READ_PATIENCE_MS: Final = 2000  # readers of a WAL file wait only for recovery after a crash and for the last close
WRITE_PATIENCE_MS: Final = 30_000  # in threads only
SPARE: Final = 2
STATEMENTS: Final = 64  # prepared statements kept by a connection
FULL: Final = "The disk that keeps the mailboxes is full; nothing was changed. Ask your administrator to make space."
# ENOSPC is apsw.FullError; a quota or file size limit comes as one of these.
NOT_WRITTEN: Final = (apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_SHMSIZE)
DISK_FULL_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def translate(error: BaseException) -> BaseException:
    """What the engine's failure means to a person, where it means something."""
    if isinstance(error, apsw.FullError | apsw.TooBigError):
        return Refused(FULL, b"OVERQUOTA")
    if isinstance(error, apsw.IOError) and getattr(error, "extendedresult", 0) in NOT_WRITTEN:
        return Refused(FULL, b"OVERQUOTA")
    if isinstance(error, OSError) and error.errno in DISK_FULL_ERRORS:
        return Refused(FULL, b"OVERQUOTA")
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return Refused("The mailbox is busy with another change; try again in a moment.", b"INUSE")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return Refused("The mailbox file is damaged; ask your administrator to restore it.", b"SERVERBUG")
    if isinstance(error, apsw.CantOpenError):
        return Refused("This mailbox does not exist or cannot be opened.", b"UNAVAILABLE")
    return error


class _Translated:
    """Raises engine failures as `Refused` where `translate` knows them. A class: it stands on the hot paths."""

    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: object) -> None:
        if error is not None and isinstance(error, apsw.Error | OSError):
            meant = translate(error)
            if meant is not error:
                raise meant from error


TRANSLATED: Final = _Translated()


def check_id(mailbox_id: str) -> str:
    """The id itself when it is one: 32 lower-case hexadecimal digits; everything else could be a path."""
    if not MAILBOX_ID.match(mailbox_id):
        raise Refused("This is not the id of a mailbox.", b"NONEXISTENT")
    return mailbox_id


def run(db: apsw.Connection, script: str) -> None:
    """Run all statements of a script (apsw steps only to the first row by itself)."""
    db.execute(script).fetchall()


def open_file(path: Path, sync: str, patience_ms: int) -> apsw.Connection:
    """A connection to an existing mailbox file, upgraded when it is of an older version."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE, statementcachesize=STATEMENTS)
    try:
        db.set_busy_timeout(patience_ms)
        # Plans that depend on the values bound would be made anew for every range of UIDs: 6 µs each.
        db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        run(db, sql.SETTINGS)
        run(db, sync)
        db.wal_autocheckpoint(0)
        version = read_version(db)
        if not version:
            raise Refused("The making of this mailbox was never finished; create it again.", b"UNAVAILABLE")
        if version != sql.SCHEMA_VERSION:
            upgrade(db)
    except BaseException:
        db.close()
        raise
    return db


def read_version(db: Connection) -> int:
    """The version of the schema in the file."""
    return int(db.execute(sql.READ_VERSION).fetchone()[0])


def upgrade(db: apsw.Connection) -> None:
    """Bring the file to this version in one transaction; a newer one is refused."""
    run(db, sql.BEGIN)
    try:
        version = read_version(db)
        if version > sql.SCHEMA_VERSION:
            raise Refused(
                f"This mailbox was written by a newer Letterlock (version {version} of the file, "
                f"this one knows up to {sql.SCHEMA_VERSION}); update Letterlock to open it.",
                b"UNAVAILABLE",
            )
        for step in sql.MIGRATIONS[version:]:
            run(db, step)
        if version == 0:
            db.execute(sql.MAKE_MAILBOX, (int(time.time()),))
        run(db, sql.WRITE_VERSION)
    except BaseException:
        run(db, sql.ROLLBACK)
        raise
    run(db, sql.COMMIT)


def make_file(path: Path) -> None:
    """A new, empty mailbox file with its schema (no folder yet); harmless when it is there already."""
    db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    try:
        path.chmod(0o600)
        db.set_busy_timeout(WRITE_PATIENCE_MS)
        run(db, sql.PREPARE_FILE)
        run(db, sql.SYNC_FULL)
        upgrade(db)
    finally:
        db.close()


class Handle:
    """One mailbox file, open."""

    def __init__(self, mailbox_id: str, directory: Path, fast: bool) -> None:
        self.id = mailbox_id
        self.path = directory / f"{mailbox_id}.db"
        self.bodies = directory / f"{mailbox_id}.bodies"
        self.fast = fast
        self.reader = open_file(self.path, sql.SYNC_OFF if fast else sql.SYNC_NORMAL, READ_PATIENCE_MS)
        self.execute: Execute = self.reader.execute
        self.flag_names: dict[int, bytes] = {}  # message.flags → rendered; only grows, see sqlite_flags
        self.statuses: dict[int, tuple[object, tuple[int, ...]]] = {}  # folder → its state, counts
        self.jobs: deque[Job[Any]] = deque()
        self.draining = False
        self.closed = False
        self.swept = False
        self.quick_commits = 0
        self.lock = threading.Lock()  # for jobs, draining and spare
        self._writer: apsw.Connection | None = None
        self._spare: list[apsw.Connection] = []

    def writer(self) -> apsw.Connection:
        """The connection of durable commits; only for the thread that drains this handle."""
        if self._writer is None:
            self._writer = open_file(self.path, sql.SYNC_OFF if self.fast else sql.SYNC_FULL, WRITE_PATIENCE_MS)
        return self._writer

    @contextmanager
    def borrowed(self) -> Iterator[apsw.Connection]:
        """A connection for a search in a thread."""
        with self.lock:
            db = self._spare.pop() if self._spare else None
        if db is None:
            db = open_file(self.path, sql.SYNC_NORMAL, WRITE_PATIENCE_MS)
        try:
            yield db
        except BaseException:
            db.close(True)
            raise
        with self.lock:
            if not self.closed and len(self._spare) < SPARE:
                self._spare.append(db)
                return
        db.close()

    def close(self) -> None:
        """Close every connection; in a thread, as the last one to close a file writes it back and syncs."""
        with self.lock:
            self.closed = True
            spare, self._spare = self._spare, []
        for db in (*spare, self.reader, self._writer):
            if db is not None:
                db.close(True)


class Handles:
    """Open handles, bounded; used by the event loop's thread only."""

    def __init__(self, directory: Path, most: int, fast: bool, retire: Callable[[Handle], None]) -> None:
        self._directory = directory
        self._most = most
        self._fast = fast
        self._retire = retire
        self._open: OrderedDict[str, Handle] = OrderedDict()

    def get(self, mailbox_id: str) -> Handle:
        """The open handle of a mailbox; opens it when needed and lets the longest unused go."""
        handle = self._open.get(mailbox_id)
        if handle is not None:
            self._open.move_to_end(mailbox_id)
            return handle
        with TRANSLATED:
            handle = Handle(mailbox_id, self._directory, self._fast)
        self._open[mailbox_id] = handle
        while len(self._open) > self._most:
            self._retire(self._open.popitem(last=False)[1])
        return handle

    def forget(self, mailbox_id: str) -> Handle | None:
        """Take a handle out; the caller closes it."""
        return self._open.pop(mailbox_id, None)

    def all(self) -> list[Handle]:
        """Take all out."""
        handles = list(self._open.values())
        self._open.clear()
        return handles

    def __len__(self) -> int:
        return len(self._open)
