"""Durable commits: one transaction gathers what waits for a mailbox, in a thread, synced before anyone is answered.

A *job* is a function on a transaction. Jobs of one handle run one after the other by whichever thread drains it; each
runs in a savepoint, so that a refused one leaves the others alone. When SQLite itself fails (disk full, I/O), the
whole transaction is given up and every job is tried alone: only the one that cannot be done is refused.
Checkpoints come after the answers: they sync twice and nobody waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Generic, TypeVar

import apsw

from letterlock.base.errors import Refused
from letterlock.store import sqlite_sql as sql
from letterlock.store.sqlite_handles import Connection, Execute, Handle, run, translate

T = TypeVar("T")
Notify = Callable[[str, int], None]
GATHER: Final = 64  # jobs in one transaction
CHECKPOINT_PAGES: Final = 2000
PAGE: Final = 4096


class Txn:
    """A transaction as a job sees it."""

    __slots__ = ("_modseq", "db", "execute", "garbage", "handle", "shares_cache")

    def __init__(self, handle: Handle, db: Connection) -> None:
        self.handle = handle
        self.db = db
        self.execute: Execute = db.execute
        self.garbage: list[str] = []  # body files that no row names any more, once this is committed
        self._modseq = 0
        self.shares_cache = db is handle.reader  # the loop's thread: it may fill the handle's memory

    def modseq(self) -> int:
        """The modseq of this job's changes: greater than every earlier one in the mailbox."""
        if not self._modseq:
            row = self.execute(sql.NEXT_MODSEQ).fetchone()
            if row is None:
                raise Refused("This mailbox does not exist any more.", b"NONEXISTENT")
            self._modseq = row[0]
        return self._modseq

    @property
    def reached(self) -> int:
        """The modseq of this job's changes, 0 when it made none."""
        return self._modseq

    def settle(self) -> None:
        """After the commit: remove what is garbage now."""
        for name in self.garbage:
            with contextlib.suppress(OSError):
                (self.handle.bodies / name).unlink()


class Job(Generic[T]):
    """Work for a writer thread, and the future of its result.

    `prepare` runs in the thread, outside the transaction; `undo` when it or the transaction failed.
    """

    __slots__ = ("error", "future", "prepare", "result", "txn", "undo", "work")

    def __init__(
        self, work: Callable[[Txn], T], prepare: Callable[[], None] | None, undo: Callable[[], None] | None
    ) -> None:
        self.work = work
        self.prepare = prepare
        self.undo = undo
        self.future: asyncio.Future[T] | None = None
        self.result: T | None = None
        self.error: BaseException | None = None
        self.txn: Txn | None = None

    def deliver(self) -> None:
        """Give the result to the session that waits, if it still does."""
        future = self.future
        if future is None or future.done():
            return
        if self.error is not None:
            future.set_exception(self.error)
        else:
            future.set_result(self.result)  # type: ignore[arg-type]


def quick(handle: Handle, work: Callable[[Txn], T], notify: Notify | None) -> T:
    """Commit at once on the loop's own connection, without a sync; raises apsw.BusyError instead of waiting."""
    db = handle.reader
    db.set_busy_timeout(0)
    try:
        handle.execute(sql.BEGIN)
    finally:
        db.set_busy_timeout(2000)
    txn = Txn(handle, db)
    try:
        result = work(txn)
        handle.execute(sql.COMMIT)
    except BaseException:
        if db.in_transaction:
            handle.execute(sql.ROLLBACK)
        handle.flag_names.clear()  # it may know sets that were never committed, whose ids come again
        raise
    if notify is not None and txn.reached:
        notify(handle.id, txn.reached)
    return result


def commit(handle: Handle, jobs: list[Job[object]]) -> None:
    """Run jobs in one transaction, or one by one when the common one fails; results and errors are left in them."""
    ready = []
    for job in jobs:
        try:
            if job.prepare is not None:
                job.prepare()
            ready.append(job)
        except BaseException as error:
            job.error = translate(error)
    if not ready:
        return
    try:
        _commit(handle, ready)
    except BaseException as error:
        if len(ready) == 1:
            ready[0].error = translate(error)
            return
        for job in ready:
            job.error = job.txn = None
            try:
                _commit(handle, [job])
            except BaseException as alone:
                job.error = translate(alone)


def _commit(handle: Handle, jobs: list[Job[object]]) -> None:
    db = handle.writer()
    db.execute(sql.BEGIN)
    try:
        for job in jobs:
            job.txn = Txn(handle, db)
            db.execute(sql.SAVEPOINT)
            try:
                job.result = job.work(job.txn)
            except Refused as refused:
                job.error = refused
                job.txn = None
                db.execute(sql.BACK_TO_SAVEPOINT)
            db.execute(sql.RELEASE)
        db.execute(sql.COMMIT)
    except BaseException:
        if db.in_transaction:
            db.execute(sql.ROLLBACK)
        raise


def undo_failed(jobs: list[Job[object]]) -> None:
    """Remove the files of jobs that failed; before the answer, so that whoever tries again finds the space."""
    for job in jobs:
        if job.error is not None and job.undo is not None:
            job.undo()


def settle(jobs: list[Job[object]]) -> None:
    """Remove the files that committed jobs left without a row."""
    for job in jobs:
        if job.txn is not None and job.error is None:
            job.txn.settle()


def read_pages(db: Connection) -> tuple[int, int]:
    """Pages of the file, and how many of them are free."""
    pages, free = db.execute(sql.READ_PAGES).fetchone()
    return pages, free


def checkpoint(handle: Handle) -> None:
    """Write the log back into the file when it has grown; give free pages back to the disk after large removals."""
    db = handle.writer()
    pages, free = read_pages(db)
    if free > 1000 and free > pages // 4:
        run(db, sql.FREE_PAGES)
    db.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)


class Writer:
    """The writer threads of a process. `inline` commits in the caller's thread: for tests without an event loop."""

    def __init__(self, threads: int, notify: Notify | None, inline: bool) -> None:
        self._notify = notify
        self._inline = inline
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="store-writer")

    async def durable(
        self,
        handle: Handle,
        work: Callable[[Txn], T],
        prepare: Callable[[], None] | None = None,
        undo: Callable[[], None] | None = None,
    ) -> T:
        """Commit `work`; returns after it is on disk."""
        job = Job(work, prepare, undo)
        if self._inline:
            commit(handle, [job])  # type: ignore[list-item]
            undo_failed([job])  # type: ignore[list-item]
            settle([job])  # type: ignore[list-item]
            self._announce(handle, [job])  # type: ignore[list-item]
            if job.error is not None:
                raise job.error
            return job.result  # type: ignore[return-value]
        loop = asyncio.get_running_loop()
        job.future = loop.create_future()
        with handle.lock:
            handle.jobs.append(job)
            start = not handle.draining
            handle.draining = True
        if start:
            self._pool.submit(self._drain, handle, loop)
        return await job.future

    async def run(self, work: Callable[[], T]) -> T:
        """Run long reading work in a thread."""
        if self._inline:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def soon(self, work: Callable[[], object]) -> None:
        """Run housekeeping in a thread; nobody waits for it."""
        if self._inline:
            work()
            return
        with contextlib.suppress(RuntimeError):  # closing
            self._pool.submit(work)

    def retire(self, handle: Handle) -> None:
        """Close a handle as soon as its waiting commits are done."""
        with handle.lock:
            handle.closed = True
            idle = not handle.draining
        if idle:
            self.soon(handle.close)

    async def close(self) -> None:
        """Finish everything that waits."""
        if self._inline:
            return
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)

    def tidy(self, handle: Handle) -> None:
        """Have the log of a handle written back when it has grown; called now and then after quick commits."""
        if self._inline:
            self._housekeep(handle)
            return
        with handle.lock:
            if handle.draining or handle.closed:
                return
            handle.draining = True
        self._pool.submit(self._drain, handle, asyncio.get_running_loop())

    def _announce(self, handle: Handle, jobs: list[Job[object]]) -> None:
        reached = 0
        for job in jobs:
            if job.txn is not None and job.error is None:
                reached = max(reached, job.txn.reached)
        if reached and self._notify is not None:
            self._notify(handle.id, reached)

    def _drain(self, handle: Handle, loop: asyncio.AbstractEventLoop) -> None:
        """Commit what waits until nothing does; then the housekeeping; then end."""
        closing = False
        while True:
            self._housekeep(handle)
            with handle.lock:
                jobs = [handle.jobs.popleft() for _ in range(min(len(handle.jobs), GATHER))]
                if not jobs:
                    handle.draining = False
                    closing = handle.closed
                    break
            commit(handle, jobs)
            undo_failed(jobs)
            with contextlib.suppress(RuntimeError):  # the loop is gone: so are the sessions
                loop.call_soon_threadsafe(self._answer, handle, jobs)
            settle(jobs)
        if closing:
            handle.close()

    def _answer(self, handle: Handle, jobs: list[Job[object]]) -> None:
        self._announce(handle, jobs)
        for job in jobs:
            job.deliver()

    @staticmethod
    def _housekeep(handle: Handle) -> None:
        with contextlib.suppress(apsw.Error, OSError, Refused):
            if Path(f"{handle.path}-wal").stat().st_size > CHECKPOINT_PAGES * PAGE:
                checkpoint(handle)
