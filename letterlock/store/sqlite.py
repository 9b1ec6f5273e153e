"""The SQLite engine: `SqliteStore` keeps one file for each mailbox in a directory.

Reads run inline in the event loop, in batches; quick commits too, unless another process writes at this moment:
they go to a writer thread then. Durable commits always go to a writer thread. Several processes may use the same
directory at the same time. Make the store after forking: SQLite handles must not cross a fork.

    <id>.db, <id>.db-wal, <id>.db-shm   the mailbox
    <id>.bodies/                        bodies too large for the file
"""

from __future__ import annotations

import contextlib
import datetime
import shutil
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Final, TypeVar

import apsw

from letterlock.base.errors import Refused
from letterlock.store import sqlite_fetch, sqlite_folders, sqlite_messages, sqlite_search, sqlite_view
from letterlock.store import sqlite_sql as sql
from letterlock.store.api import (
    NO_QUOTA,
    Appended,
    Changes,
    Column,
    Copied,
    FlagAction,
    Flags,
    Folder,
    Incoming,
    Quota,
    Receipt,
    Row,
    SearchNode,
    Status,
    Stored,
    UidRanges,
    Usage,
    View,
)
from letterlock.store.sqlite_flags import GONE, change_flags
from letterlock.store.sqlite_handles import TRANSLATED, Handle, Handles, check_id, make_file
from letterlock.store.sqlite_spool import MessageSpool, free_space, sweep, sync_directory
from letterlock.store.sqlite_writer import Notify, Txn, Writer, quick

T = TypeVar("T")
OPEN_MAILBOXES: Final = 64
CACHED_VIEWS: Final = 256
CACHED_MESSAGES: Final = 2_000_000  # 16 octets each
BODY_INSIDE: Final = 256 * 1024
LARGEST_MESSAGE: Final = 150 * 1024 * 1024
MANY: Final = 4000  # messages; a quick change of more goes to a thread: it would hold up the event loop
TIDY_EVERY: Final = 128  # quick commits


class SqliteStore:
    """All mailboxes of a directory; implements `api.Store`.

    `notify(mailbox id, modseq)` is called in the event loop's thread after each commit of this process. `inline`
    commits in the caller's thread and without syncing: for tests that have no event loop.
    """

    def __init__(
        self,
        directory: Path,
        notify: Notify | None = None,
        *,
        inline: bool = False,
        threads: int = 6,
        open_mailboxes: int = OPEN_MAILBOXES,
        body_inside: int = BODY_INSIDE,
        largest_message: int = LARGEST_MESSAGE,
    ) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.notify = notify
        self.body_inside = body_inside
        self.largest_message = largest_message
        self.writer = Writer(threads, notify, inline)
        self.handles = Handles(directory, open_mailboxes, inline, self.writer.retire)
        self.views = sqlite_view.Views(CACHED_VIEWS, CACHED_MESSAGES)

    def mailbox(self, mailbox_id: str, quota: Quota = NO_QUOTA) -> SqliteMailbox:
        """An object for one session on that mailbox; opens nothing."""
        return SqliteMailbox(self, check_id(mailbox_id), quota)

    async def create_mailbox(self, mailbox_id: str) -> None:
        """Durable. With the first folders, subscribed."""
        path = self.directory / f"{check_id(mailbox_id)}.db"

        def make() -> None:
            with TRANSLATED:
                make_file(path)
                sync_directory(self.directory)

        await self.writer.run(make)
        await self.writer.durable(self.handles.get(mailbox_id), sqlite_folders.first_folders)

    async def delete_mailbox(self, mailbox_id: str) -> None:
        """Durable. Everything of it, files included."""
        path = self.directory / f"{check_id(mailbox_id)}.db"
        if not path.exists():
            raise Refused("This mailbox does not exist.", b"NONEXISTENT")
        with contextlib.suppress(Refused):  # a damaged or newer file can be deleted as well
            # Other processes that have it open meet a mailbox without folders from now on.
            await self.writer.durable(self.handles.get(mailbox_id), _empty)
        handle = self.handles.forget(mailbox_id)
        self.views.forget(mailbox_id)

        def remove() -> None:
            if handle is not None:
                handle.close()
            shutil.rmtree(self.directory / f"{mailbox_id}.bodies", ignore_errors=True)
            for suffix in ("", "-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            sync_directory(self.directory)

        await self.writer.run(remove)

    async def close(self) -> None:
        """Finish what runs, close every handle."""
        for handle in self.handles.all():
            self.writer.retire(handle)
        await self.writer.close()


def _empty(txn: Txn) -> None:
    txn.modseq()
    txn.execute(sql.FOLDER_DELETE_ALL)


class SqliteMailbox:
    """One mailbox for one session; implements `api.MailStore`. Holds no handle."""

    __slots__ = ("_id", "_store", "quota")

    def __init__(self, store: SqliteStore, mailbox_id: str, quota: Quota) -> None:
        self._store = store
        self._id = mailbox_id
        self.quota = quota

    @property
    def id(self) -> str:
        """The mailbox's id, for change hints."""
        return self._id

    def _handle(self) -> Handle:
        """The open file; the one who opens it first has it swept. Never kept across an await."""
        store = self._store
        handle = store.handles.get(self._id)
        if not handle.swept:
            handle.swept = True
            if handle.bodies.is_dir():
                store.writer.soon(lambda: _sweep(handle))
        return handle

    def _durable(self, work: Callable[[Txn], T]) -> Coroutine[object, object, T]:
        return self._store.writer.durable(self._handle(), work)

    async def _quick(self, work: Callable[[Txn], T]) -> T:
        """Commit inline when nobody else writes, in a thread otherwise."""
        handle = self._handle()
        store = self._store
        with TRANSLATED, contextlib.suppress(apsw.BusyError):
            result = quick(handle, work, store.notify)
            handle.quick_commits += 1
            if handle.quick_commits % TIDY_EVERY == 0:
                store.writer.tidy(handle)
            return result
        return await store.writer.durable(handle, work)

    async def usage(self) -> Usage:
        """What it holds now."""
        with TRANSLATED:
            return Usage(*self._handle().execute(sql.USAGE).fetchone())

    # folders

    async def folders(self) -> list[Folder]:
        """All folders, sorted by name, INBOX first."""
        with TRANSLATED:
            return sqlite_folders.folders(self._handle().execute)

    async def folder(self, name: str) -> Folder:
        """One selectable folder by name."""
        with TRANSLATED:
            return sqlite_folders.selectable(self._handle().execute, name)

    async def create(self, name: str, special_use: bytes = b"") -> Folder:
        """Durable."""
        return await self._durable(lambda txn: sqlite_folders.create(txn, name, special_use))

    async def delete(self, name: str) -> None:
        """Durable."""
        await self._durable(lambda txn: sqlite_folders.delete(txn, name))

    async def rename(self, old: str, new: str) -> None:
        """Durable."""
        await self._durable(lambda txn: sqlite_folders.rename(txn, old, new))

    async def hide(self, name: str, hidden: bool) -> Folder:
        """Durable."""
        return await self._durable(lambda txn: sqlite_folders.hide(txn, name, hidden))

    async def subscribe(self, name: str, on: bool) -> None:
        """Quick."""
        await self._quick(lambda txn: sqlite_folders.subscribe(txn, name, on))

    async def subscriptions(self) -> list[str]:
        """Subscribed names, existing or not, sorted."""
        with TRANSLATED:
            return [row[0] for row in self._handle().execute(sql.SUBSCRIPTIONS)]

    async def status(self, folders: Sequence[Folder], sizes: bool = True) -> list[Status]:
        """Status of each."""
        with TRANSLATED:
            handle = self._handle()
            return [sqlite_view.status(handle, folder) for folder in folders]

    # reading

    async def view(self, folder: Folder) -> View:
        """The folder now."""
        with TRANSLATED:
            return self._store.views.get(self._handle(), folder)

    async def claim_recent(self, folder: Folder) -> int:
        r"""From which UID on messages are \Recent for this session. Without new messages nothing is written."""
        with TRANSLATED:
            state = self._handle().execute(sql.FOLDER_STATE, (folder.id,)).fetchone()
        if state is None:
            raise Refused(GONE, b"NONEXISTENT")
        if state[2] == state[1]:
            return int(state[2])

        def claim(txn: Txn) -> int:
            found = txn.execute(sql.FOLDER_STATE, (folder.id,)).fetchone()
            if found is None:
                raise Refused(GONE, b"NONEXISTENT")
            txn.execute(sql.FOLDER_CLAIM_RECENT, (folder.id,))
            return int(found[2])

        return await self._quick(claim)

    async def changes_since(self, folder: Folder, modseq: int) -> Changes:
        """What happened after `modseq`."""
        with TRANSLATED:
            return sqlite_view.changes_since(self._handle(), folder, modseq)

    async def fetch(self, folder: Folder, ranges: UidRanges, columns: Sequence[Column]) -> AsyncIterator[list[Row]]:
        """Rows in UID order, in batches."""
        what = sqlite_fetch.plan(tuple(columns))
        position = sqlite_fetch.Position(sqlite_fetch.joined(ranges))
        while not position.done:
            handle = self._handle()
            with TRANSLATED:
                batch = sqlite_fetch.read_batch(handle, folder.id, what, position)
            rows = batch.rows
            if batch.files:
                rows = await self._store.writer.run(lambda h=handle, b=batch: sqlite_fetch.read_files(h, what, b))  # type: ignore[misc]
            if rows:
                yield rows

    async def search(self, folder: Folder, ranges: UidRanges | None, tree: SearchNode) -> array[int]:
        """UIDs, ascending."""
        with TRANSLATED:
            handle = self._handle()
            search = sqlite_search.Search(handle, folder, ranges, tree)
            if search.short:
                return search.run(handle.reader)

        def long() -> array[int]:
            with TRANSLATED, handle.borrowed() as db:
                return search.run(db)

        return await self._store.writer.run(long)

    # writing

    def spool(self, size: int) -> MessageSpool:
        """A place for a message of `size` octets."""
        store = self._store
        if size > store.largest_message:
            raise Refused(f"A message can have {store.largest_message} octets here, not {size}.", b"TOOBIG")
        if size > store.body_inside and free_space(store.directory) < size:
            raise Refused("There is no space on the server's disk for this message.", b"OVERQUOTA")
        if self.quota.limit is not None:
            with TRANSLATED:
                sqlite_messages.check_quota(self._handle().execute, self.quota.limit, size)
        return MessageSpool(store.directory / f"{self._id}.bodies", store.body_inside, store.largest_message)

    async def append(self, folder: Folder, messages: Sequence[Incoming], receipts: Sequence[Receipt] = ()) -> Appended:
        """Durable; all or none."""
        ready: list[sqlite_messages.Prepared] = []
        now = datetime.datetime.now().astimezone()
        spools = [message.spool for message in messages if isinstance(message.spool, MessageSpool)]

        def prepare() -> None:
            ready.extend(sqlite_messages.prepare(message, now) for message in messages)

        def undo() -> None:
            for spool in spools:
                spool.undo()

        def work(txn: Txn) -> Appended:
            appended = sqlite_messages.append(txn, folder, ready, self.quota.limit)
            if receipts:
                txn.db.executemany(sql.RECEIPT, receipts)
            return appended

        handle = self._handle()
        for spool in spools:
            spool.take()
        return await self._store.writer.durable(handle, work, prepare, undo)

    async def receipts(self, source: str) -> dict[str, str]:
        """State by item."""
        with TRANSLATED:
            return dict(self._handle().execute(sql.RECEIPTS, (source,)).fetchall())

    async def forget_receipts(self, source: str) -> None:
        """Durable."""

        def work(txn: Txn) -> None:
            txn.execute(sql.RECEIPTS_FORGET, (source,))

        await self._durable(work)

    async def change_flags(
        self,
        folder: Folder,
        ranges: UidRanges,
        action: FlagAction,
        flags: Flags,
        unchanged_since: int | None = None,
    ) -> Stored:
        """Quick."""
        ranges = sqlite_fetch.joined(ranges)

        def work(txn: Txn) -> Stored:
            return change_flags(txn, folder, ranges, action, flags, unchanged_since)

        if sum(last - first for first, last in ranges) + len(ranges) > MANY:
            return await self._durable(work)
        return await self._quick(work)

    async def copy(self, folder: Folder, ranges: UidRanges, target: Folder) -> Copied:
        """Durable; all or none."""
        ranges = sqlite_fetch.joined(ranges)
        limit = self.quota.limit
        return await self._durable(lambda txn: sqlite_messages.copy(txn, folder, ranges, target, False, limit))

    async def move(self, folder: Folder, ranges: UidRanges, target: Folder) -> Copied:
        """Durable; in one transaction."""
        ranges = sqlite_fetch.joined(ranges)
        return await self._durable(lambda txn: sqlite_messages.copy(txn, folder, ranges, target, True))

    async def expunge(self, folder: Folder, ranges: UidRanges | None, deleted_only: bool = True) -> list[int]:
        """Durable."""
        ranges = ranges if ranges is None else sqlite_fetch.joined(ranges)
        return await self._durable(lambda txn: sqlite_messages.expunge(txn, folder, ranges, deleted_only))


def _sweep(handle: Handle) -> None:
    """Remove garbage files and flag sets that nobody has, once for each open file of a process."""
    with contextlib.suppress(apsw.Error, OSError, Refused), handle.borrowed() as db:
        sweep(handle.bodies, db)
        db.execute(sql.FLAGSETS_SWEEP)
