"""What is particular to the SQLite engine: files, full disks, several processes, versions, bounds."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from letterlock.base.errors import Refused
from letterlock.store import sqlite_sql as sql
from letterlock.store import sqlite_writer
from letterlock.store.api import FLAGGED, SEEN, Column, FlagAction, Flags, Text
from letterlock.store.sqlite import SqliteStore
from letterlock.store.sqlite_handles import open_file
from letterlock.store.sqlite_spool import GARBAGE_AGE_S, sweep
from letterlock.store.sqlite_writer import Txn
from tests.store.support import BOX, PLAIN, incoming, put, raw_of, rows

BIG = b"Subject: big\r\n\r\n" + b"x" * 300_000


async def opened(directory: Path, **options: object) -> SqliteStore:
    store = SqliteStore(directory, **options)  # type: ignore[arg-type]
    await store.create_mailbox(BOX)
    return store


def box_file(directory: Path) -> Path:
    return directory / f"{BOX}.db"


# --- versions and damage ---------------------------------------------------------------------------------------


def test_a_newer_file_is_refused_with_a_sentence(tmp_path: Path) -> None:
    async def run() -> None:
        await (await opened(tmp_path)).close()
        db = apsw.Connection(str(box_file(tmp_path)))
        db.execute("PRAGMA user_version = 999").fetchall()
        db.close()
        store = SqliteStore(tmp_path)
        with pytest.raises(Refused, match=r"newer Letterlock.*999"):
            await store.mailbox(BOX).folders()
        await store.close()

    asyncio.run(run())


def test_an_unfinished_or_damaged_file_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        store = SqliteStore(tmp_path)
        box_file(tmp_path).touch()
        with pytest.raises(Refused, match="create it again"):
            await store.mailbox(BOX).folders()
        await store.create_mailbox(BOX)
        assert len(await store.mailbox(BOX).folders()) == 6
        await store.close()
        box_file(tmp_path).write_bytes(b"this is no database" * 1000)
        store = SqliteStore(tmp_path)
        with pytest.raises(Refused, match="damaged"):
            await store.mailbox(BOX).folders()
        await store.delete_mailbox(BOX)
        assert list(tmp_path.iterdir()) == []
        await store.close()

    asyncio.run(run())


def test_migrations_are_numbered_and_end_in_this_schema(tmp_path: Path) -> None:
    async def run() -> None:
        await (await opened(tmp_path)).close()

    asyncio.run(run())
    db = open_file(box_file(tmp_path), sql.SYNC_FULL, 0)
    assert db.execute(sql.READ_VERSION).fetchone() == (len(sql.MIGRATIONS),)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    db.close()
    assert box_file(tmp_path).stat().st_mode & 0o777 == 0o600


# --- bodies in files -------------------------------------------------------------------------------------------


def test_large_bodies_are_files_and_go_with_their_last_message(tmp_path: Path) -> None:
    async def run() -> None:
        store = await opened(tmp_path)
        mail = store.mailbox(BOX)
        inbox, sent = await mail.folder("INBOX"), await mail.folder("Sent")
        bodies = tmp_path / f"{BOX}.bodies"
        await put(mail, inbox, PLAIN)
        assert not bodies.exists()
        await put(mail, inbox, BIG)
        [file] = bodies.iterdir()
        assert file.read_bytes() == BIG
        assert file.stat().st_mode & 0o777 == 0o600
        await mail.copy(inbox, [(2, 2)], sent)
        await mail.expunge(inbox, None, deleted_only=False)
        assert file.exists()
        assert await raw_of(mail, sent, 1) == BIG
        await mail.delete("Sent")
        for _ in range(200):  # the file goes after the commit was answered
            if not list(bodies.iterdir()):
                break
            await asyncio.sleep(0.01)
        assert list(bodies.iterdir()) == []
        await store.close()

    asyncio.run(run())


def test_a_spool_that_is_not_appended_leaves_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        store = await opened(tmp_path)
        mail = store.mailbox(BOX)
        bodies = tmp_path / f"{BOX}.bodies"
        spool = mail.spool(len(BIG))
        spool.write(BIG)
        assert len(list(bodies.iterdir())) == 1
        spool.close()
        assert list(bodies.iterdir()) == []
        gone = await mail.create("gone")
        await mail.delete("gone")
        message = incoming(mail, BIG)
        with pytest.raises(Refused):
            await mail.append(gone, [message])
        message.spool.close()
        assert list(bodies.iterdir()) == []
        forgotten = mail.spool(len(BIG))
        forgotten.write(BIG)
        del forgotten
        assert list(bodies.iterdir()) == []
        await store.close()

    asyncio.run(run())


def test_an_append_whose_session_ends_keeps_its_body(tmp_path: Path) -> None:
    async def run() -> None:
        store = await opened(tmp_path)
        mail = store.mailbox(BOX)
        inbox = await mail.folder("INBOX")
        message = incoming(mail, BIG)
        task = asyncio.create_task(mail.append(inbox, [message]))
        await asyncio.sleep(0)
        task.cancel()
        message.spool.close()
        await store.close()
        store = SqliteStore(tmp_path)
        assert await raw_of(store.mailbox(BOX), inbox, 1) == BIG
        await store.close()

    asyncio.run(run())


def test_files_are_synced_before_their_row_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real_sync, real_commit = os.fsync, sqlite_writer._commit

    def fsync(fd: int) -> None:
        order.append("directory" if os.path.isdir(f"/proc/self/fd/{fd}") else "file")
        real_sync(fd)

    async def run() -> None:
        store = await opened(tmp_path)
        mail = store.mailbox(BOX)
        inbox = await mail.folder("INBOX")
        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(sqlite_writer, "_commit", lambda *a: (order.append("commit"), real_commit(*a)))
        await put(mail, inbox, BIG)
        await store.close()

    asyncio.run(run())
    assert order == ["file", "directory", "directory", "commit"]


def test_garbage_files_are_swept_when_old(tmp_path: Path) -> None:
    async def run() -> None:
        store = await opened(tmp_path)
        mail = store.mailbox(BOX)
        inbox = await mail.folder("INBOX")
        await put(mail, inbox, BIG)
        await store.close()
        bodies = tmp_path / f"{BOX}.bodies"
        [known] = bodies.iterdir()
        old, young, foreign = bodies / ("a" * 32), bodies / ("b" * 32), bodies / "README"
        long_ago = time.time() - GARBAGE_AGE_S - 60
        for path in (old, young, foreign):
            path.write_bytes(b"x")
        for path in (old, foreign, known):
            os.utime(path, (long_ago, long_ago))
        store = SqliteStore(tmp_path)
        assert await raw_of(store.mailbox(BOX), inbox, 1) == BIG
        await store.close()
        assert set(bodies.iterdir()) == {known, young, foreign}
        db = open_file(box_file(tmp_path), sql.SYNC_FULL, 0)
        assert sweep(bodies, db) == 0
        db.close()

    asyncio.run(run())


# --- full disks ------------------------------------------------------------------------------------------------


async def fill(store: SqliteStore, size: int) -> int:
    """Append until it is refused; how many were acknowledged."""
    mail = store.mailbox(BOX)
    inbox = await mail.folder("INBOX")
    for count in range(100_000):
        try:
            await put(mail, inbox, b"Subject: %d\r\n\r\n" % count + b"x" * size)
        except Refused as refused:
            assert refused.code == b"OVERQUOTA"
            assert "full" in refused.text or "no space" in refused.text
            return count
    raise AssertionError("never full")


def test_a_full_database_loses_nothing_and_goes_on(tmp_path: Path) -> None:
    async def run() -> None:
        store = await opened(tmp_path)
        writer = store.handles.get(BOX).writer()
        pages = writer.execute("PRAGMA page_count").fetchone()
        assert pages is not None
        writer.execute("PRAGMA max_page_count = 120").fetchall()
        mail = store.mailbox(BOX)
        inbox = await mail.folder("INBOX")
        count = await fill(store, 20_000)
        assert count > 3
        assert await put(mail, inbox, PLAIN) == [count + 1]  # what still fits is taken
        writer.execute("PRAGMA max_page_count = 1000000").fetchall()
        assert await put(mail, inbox, PLAIN) == [count + 2]
        view = await mail.view(inbox)
        assert list(view.uids) == list(range(1, count + 3))
        await store.close()

    asyncio.run(run())


def test_one_that_does_not_fit_leaves_the_others_of_its_transaction_alone(tmp_path: Path) -> None:
    async def run() -> None:
        store = await opened(tmp_path)
        handle = store.handles.get(BOX)
        writer = handle.writer()
        [(pages,)] = writer.execute("PRAGMA page_count").fetchall()
        writer.execute(f"PRAGMA max_page_count = {int(str(pages)) + 30}").fetchall()
        mail = store.mailbox(BOX)
        inbox = await mail.folder("INBOX")
        sizes = [10, 250_000, 20, 240_000, 30]
        results = await asyncio.gather(
            *(put(mail, inbox, b"A: b\r\n\r\n" + b"x" * size) for size in sizes), return_exceptions=True
        )
        assert [isinstance(result, Refused) for result in results] == [size > 1000 for size in sizes]
        got = [row[1] for row in await rows(mail, inbox, [(1, 99)], Column.SIZE)]
        assert got == [18, 28, 38]
        await store.close()

    asyncio.run(run())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid():
        pytest.skip("needs root to mount a small disk")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("size", [2_000, 100_000, 400_000])
def test_a_full_disk_loses_nothing_and_the_store_goes_on(small_disk: Path, size: int) -> None:
    async def run() -> None:
        store = await opened(small_disk)
        mail = store.mailbox(BOX)
        inbox = await mail.folder("INBOX")
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"x" * 500_000)
        count = await fill(store, size)
        assert count > 1
        view = await mail.view(inbox)
        assert list(view.uids) == list(range(1, count + 1))
        found = await mail.search(inbox, None, Text("X" * 100, False))  # needs no space
        assert list(found) == list(range(1, count + 1))
        ballast.unlink()
        assert await put(mail, inbox, PLAIN) == [count + 1]
        for uid in range(1, count + 1):
            assert (await raw_of(mail, inbox, uid)).startswith(b"Subject: %d\r\n" % (uid - 1))
        named = {row[0] for row in store.handles.get(BOX).reader.execute("SELECT file FROM raw WHERE file <> ''")}
        bodies = small_disk / f"{BOX}.bodies"
        assert {path.name for path in bodies.iterdir()} == named if bodies.exists() else not named
        await store.close()
        db = apsw.Connection(str(box_file(small_disk)))
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.close()

    asyncio.run(run())


# --- several processes -----------------------------------------------------------------------------------------


def test_a_quick_change_waits_in_a_thread_while_another_process_writes(tmp_path: Path) -> None:
    async def run() -> None:
        store = await opened(tmp_path)
        mail = store.mailbox(BOX)
        inbox = await mail.folder("INBOX")
        await put(mail, inbox, PLAIN)
        other = apsw.Connection(str(box_file(tmp_path)))
        other.execute("BEGIN IMMEDIATE")
        change = asyncio.create_task(mail.change_flags(inbox, [(1, 1)], FlagAction.ADD, Flags(SEEN)))
        started = time.perf_counter()
        assert len((await mail.view(inbox)).uids) == 1  # the loop goes on
        await asyncio.sleep(0.05)
        assert time.perf_counter() - started < 2
        assert not change.done()
        other.execute("COMMIT")
        other.close()
        assert [c.flags for c in (await change).changed] == [b"\\Seen"]
        await store.close()

    asyncio.run(run())


def test_many_sessions_of_several_stores_at_once(tmp_path: Path) -> None:
    """Each store has connections of its own, as worker processes have."""

    async def session(store: SqliteStore, number: int) -> None:
        mail = store.mailbox(BOX)
        inbox = await mail.folder("INBOX")
        for _ in range(10):
            [uid] = await put(mail, inbox, b"Subject: %d\r\n\r\nfox %d" % (number, number))
            await mail.change_flags(inbox, [(uid, uid)], FlagAction.ADD, Flags(FLAGGED, (b"$K%d" % number,)))
            await mail.search(inbox, None, Text("fox", False))
            view = await mail.view(inbox)
            at = view.uids.index(uid)
            assert view.flagsets[view.flags[at]] == b"\\Flagged $K%d" % number

    async def run() -> None:
        stores = [await opened(tmp_path) for _ in range(3)]
        await asyncio.gather(*(session(stores[n % 3], n) for n in range(12)))
        for store in stores:
            mail = store.mailbox(BOX)
            inbox = await mail.folder("INBOX")
            assert list((await mail.view(inbox)).uids) == list(range(1, 121))
            assert len(await mail.search(inbox, None, Text("fox 7", False))) == 10
            await store.close()

    asyncio.run(run())


def test_waiting_commits_share_a_transaction_and_a_refused_one_spoils_none(tmp_path: Path) -> None:
    commits = 0

    async def run() -> None:
        nonlocal commits
        store = await opened(tmp_path, body_inside=100_000)
        mail = store.mailbox(BOX)
        inbox = await mail.folder("INBOX")
        gone = await mail.create("gone")
        await mail.delete("gone")
        before = await mail.view(inbox)
        results = await asyncio.gather(
            *(put(mail, gone if n % 5 == 2 else inbox, PLAIN) for n in range(50)), return_exceptions=True
        )
        assert sum(isinstance(result, Refused) for result in results) == 10
        uids = [result[0] for result in results if isinstance(result, list)]
        assert sorted(uids) == list(range(1, 41))
        assert uids == sorted(uids), "served in the order of asking"
        after = await mail.view(inbox)
        assert len(set(after.modseqs)) == 40
        assert min(after.modseqs) > before.highestmodseq
        await store.close()

    asyncio.run(run())


def test_a_transaction_that_fails_as_a_whole_is_tried_one_by_one(tmp_path: Path) -> None:
    """A fault of ours in one job (not a refusal) must not take its neighbours along."""

    async def run() -> None:
        store = await opened(tmp_path)
        mail = store.mailbox(BOX)
        inbox = await mail.folder("INBOX")
        handle = store.handles.get(BOX)

        def broken(txn: Txn) -> None:
            txn.execute("INSERT INTO no_such_table VALUES (1)")

        results = await asyncio.gather(
            put(mail, inbox, PLAIN),
            store.writer.durable(handle, broken),
            put(mail, inbox, PLAIN),
            return_exceptions=True,
        )
        assert results[0] == [1]
        assert isinstance(results[1], apsw.SQLError)
        assert results[2] == [2]
        await store.close()

    asyncio.run(run())


def test_commits_do_not_run_in_the_event_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[int] = set()
    real = sqlite_writer._commit

    def spy(*args: object) -> None:
        threads.add(threading.get_ident())
        real(*args)  # type: ignore[arg-type]

    async def run() -> None:
        store = await opened(tmp_path)
        monkeypatch.setattr(sqlite_writer, "_commit", spy)
        mail = store.mailbox(BOX)
        inbox = await mail.folder("INBOX")
        await put(mail, inbox, PLAIN)
        await mail.move(inbox, [(1, 1)], await mail.folder("Sent"))
        await mail.create("x")
        await store.close()

    asyncio.run(run())
    assert threads
    assert threading.get_ident() not in threads


# --- bounds ----------------------------------------------------------------------------------------------------


def test_open_files_are_bounded_and_idle_mailboxes_hold_none(tmp_path: Path) -> None:
    async def run() -> None:
        store = SqliteStore(tmp_path, open_mailboxes=4)
        boxes = [f"{n:032x}" for n in range(20)]
        for box in boxes:
            await store.create_mailbox(box)
        mails = [store.mailbox(box) for box in boxes]
        for round_number in range(3):
            for mail in mails:
                inbox = await mail.folder("INBOX")
                assert await put(mail, inbox, PLAIN) == [round_number + 1]
                await mail.change_flags(inbox, [(1, 1)], FlagAction.SET, Flags(1 << round_number))
                assert len((await mail.view(inbox)).uids) == round_number + 1
        assert len(store.handles) <= 4
        await store.close()
        await asyncio.sleep(0)
        left = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
        assert not [name for name in left if str(tmp_path) in name]
        assert not list(tmp_path.glob("*-wal")), "the last close writes the log back"

    asyncio.run(run())


def _is_open(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


def test_the_log_is_written_back_when_it_grows(tmp_path: Path) -> None:
    async def run() -> None:
        store = await opened(tmp_path)
        mail = store.mailbox(BOX)
        inbox = await mail.folder("INBOX")
        for _ in range(30):
            await put(mail, inbox, *[b"A: b\r\n\r\n" + b"x" * 60_000] * 10)
        await mail.view(inbox)
        size = Path(f"{box_file(tmp_path)}-wal").stat().st_size
        assert size < 12_000_000, "18 MB were written"
        await store.close()

    asyncio.run(run())


def test_flag_sets_that_nobody_has_are_swept(tmp_path: Path) -> None:
    async def run() -> None:
        store = await opened(tmp_path)
        mail = store.mailbox(BOX)
        inbox = await mail.folder("INBOX")
        await put(mail, inbox, BIG)
        for n in range(50):
            await mail.change_flags(inbox, [(1, 1)], FlagAction.SET, Flags(0, (b"k%d" % (n % 7), b"m%d" % (n % 9))))
        await store.close()
        store = SqliteStore(tmp_path)
        mail = store.mailbox(BOX)
        [row] = await rows(mail, inbox, [(1, 1)], Column.FLAGS)
        await store.close()
        db = apsw.Connection(str(box_file(tmp_path)))
        assert db.execute("SELECT names FROM flagset").fetchall() == [(row[1],)]
        db.close()

    asyncio.run(run())
