"""Messages on their way in, and the files of large bodies.

A message up to `threshold` octets stays in memory until it is a row. A larger one is written to a file beside the
mailbox at once, under its final, random name; it is synced, and its directory too, before the row that names it
commits. So a row without a file cannot happen, and a file without a row is garbage of a crash: `sweep` removes it
when it is older than any upload can be.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from pathlib import Path
from typing import Final

from letterlock.base.errors import Refused
from letterlock.store import sqlite_sql as sql
from letterlock.store.sqlite_handles import TRANSLATED, Connection

FILE_NAME: Final = re.compile(r"[0-9a-f]{32}\Z")
GARBAGE_AGE_S: Final = 2 * 86400  # no session lives that long without a byte, and writing renews a file's time
FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable; a system that cannot (Windows) does it by itself."""
    with contextlib.suppress(PermissionError):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


class MessageSpool:
    """One message; implements `api.Spool`."""

    def __init__(self, bodies: Path, threshold: int, largest: int) -> None:
        self._bodies = bodies
        self._threshold = threshold
        self._largest = largest
        self._chunks: list[bytes] = []
        self._fd = -1
        self._size = 0
        self._taken = False
        self.name = ""  # of the file, "" when in memory

    @property
    def size(self) -> int:
        """Octets so far."""
        return self._size

    def write(self, data: bytes) -> None:
        """Add octets; `Refused` when the disk is full or the message is too large."""
        if self._size + len(data) > self._largest:
            raise Refused(f"A message can have {self._largest} octets here.", b"TOOBIG")
        with TRANSLATED:
            if self._fd < 0 and self._size + len(data) > self._threshold:
                self._to_file()
            if self._fd < 0:
                self._chunks.append(bytes(data))
            else:
                write_all(self._fd, data)
        self._size += len(data)

    def _to_file(self) -> None:
        if not self._bodies.is_dir():
            with contextlib.suppress(FileExistsError):
                self._bodies.mkdir(mode=0o700)
        self.name = secrets.token_hex(16)
        self._fd = os.open(self._bodies / self.name, FLAGS, 0o600)
        for chunk in self._chunks:
            write_all(self._fd, chunk)
        self._chunks.clear()

    def take(self) -> None:
        """From here on the store decides about the file, whatever the session does."""
        self._taken = True

    def raw(self) -> bytes:
        """The whole message."""
        if self._fd < 0:
            return b"".join(self._chunks)
        return (self._bodies / self.name).read_bytes()

    def sync(self) -> None:
        """Before its row commits: content, name, and the directory's own name."""
        if self._fd < 0:
            return
        os.fsync(self._fd)
        sync_directory(self._bodies)
        sync_directory(self._bodies.parent)
        self._close_file()

    def undo(self) -> None:
        """The append failed: the file goes."""
        self._taken = False
        self.close()

    def close(self) -> None:
        """Throw it away, unless the store has taken it."""
        self._chunks = [] if not self._taken else self._chunks
        if self._taken:
            return
        self._close_file()
        if self.name:
            with contextlib.suppress(OSError):
                (self._bodies / self.name).unlink()
            self.name = ""

    def _close_file(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __del__(self) -> None:
        if not self._taken:  # a session that vanished without close()
            self.close()
        self._close_file()


def write_all(fd: int, data: bytes) -> None:
    """write(2) until all is written: a nearly full disk takes a part and says so at the next try."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def free_space(path: Path) -> int:
    """Octets that a message may take on that disk; very large where the system does not tell."""
    statvfs = getattr(os, "statvfs", None)
    if statvfs is None:
        return 1 << 62
    found = statvfs(path)
    return int(found.f_bavail) * int(found.f_frsize)


def read_part(bodies: Path, name: str, start: int, size: int) -> bytes | None:
    """Octets of a body file; None when the message has been expunged meanwhile."""
    try:
        with (bodies / name).open("rb") as file:
            file.seek(start)
            return file.read(size) if size >= 0 else file.read()
    except FileNotFoundError:
        return None


def sweep(bodies: Path, db: Connection, age_s: float = GARBAGE_AGE_S) -> int:
    """Remove old files that no row names; returns how many."""
    removed = 0
    before = time.time() - age_s
    with os.scandir(bodies) as entries:
        old = [e.name for e in entries if FILE_NAME.match(e.name) and e.stat(follow_symlinks=False).st_mtime <= before]
    for name in old:
        if db.execute(sql.FILE_KNOWN, (name,)).fetchone() is None:
            with contextlib.suppress(OSError):
                (bodies / name).unlink()
                removed += 1
    return removed
