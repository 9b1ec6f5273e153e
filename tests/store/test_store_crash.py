"""kill -9 at random moments: what was acknowledged is there, once, under the UID that was told.

The short form kills ten times; LETTERLOCK_LONG=1 two hundred times.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import apsw
import pytest

from letterlock.store.api import Column
from letterlock.store.sqlite import SqliteStore
from letterlock.store.sqlite_spool import sweep
from tests.store.support import BOX, rows

LONG = bool(os.environ.get("LETTERLOCK_LONG"))
KILLS = 200 if LONG else 10
BLOCK = 10  # kills of one mailbox: the check reads everything each time
WORKERS = 2


class Ledger:
    """What the workers were told, over all rounds."""

    def __init__(self) -> None:
        self.there: dict[str, tuple[int, int]] = {}  # acknowledged: token → folder number, uid
        self.flagged: set[str] = set()
        self.doubtful: dict[str, str] = {}  # tried, not answered: token → what
        self.meaning: dict[tuple[int, int], str] = {}  # every UID that was ever told

    def read(self, line: str) -> None:
        verb, *words = line.split()
        if verb == "try":
            self.doubtful[words[1]] = words[0]
            return
        what, token, *place = words
        del self.doubtful[token]
        if place:
            at = (int(place[0]), int(place[1]))
            self.there[token] = at
            assert self.meaning.setdefault(at, token) == token, "a UID was given twice"
        elif what == "flag":
            self.flagged.add(token)
        else:
            del self.there[token]

    def settle(self, found: dict[str, tuple[int, int]]) -> None:
        """After the check: what was in doubt is now as it was found."""
        for token in self.doubtful:
            self.there.pop(token, None)
            if token in found:
                self.there[token] = found[token]
                assert self.meaning.setdefault(found[token], token) == token
        self.doubtful.clear()


def a_round(directory: Path, number: int, chance: random.Random, ledger: Ledger) -> None:
    """Start workers, let them work, kill them, read what they said."""
    command = [sys.executable, "-m", "tests.store.crash_child", str(directory)]
    root = Path(__file__).parents[2]
    workers = [
        subprocess.Popen([*command, f"{number}.{n}"], stdout=subprocess.PIPE, text=True, cwd=root)
        for n in range(WORKERS)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.02, 0.5))
    finally:
        for worker in workers:
            worker.kill()
    for worker in workers:
        out, _ = worker.communicate()
        for line in out.splitlines(keepends=True):
            if line.endswith("\n"):
                ledger.read(line)


async def check(directory: Path, ledger: Ledger) -> None:
    store = SqliteStore(directory)
    mail = store.mailbox(BOX)
    found: dict[str, tuple[int, int]] = {}
    seen: Counter[str] = Counter()
    for number, name in enumerate(("INBOX", "Archive")):
        folder = await mail.folder(name)
        for uid, header, text, flags in await rows(
            mail, folder, [(1, 0xFFFFFFFF)], Column.HEADER, Column.TEXT, Column.FLAGS
        ):
            assert isinstance(header, bytes)
            assert isinstance(text, bytes)
            assert isinstance(flags, bytes)
            assert isinstance(uid, int)
            token = header.split()[1].decode()
            assert text.startswith(token.encode() + b"\r\n"), "a message lost its body"
            seen[token] += 1
            found[token] = (number, uid)
            assert ledger.meaning.get((number, uid), token) == token, "a UID changed its meaning"
            if token in ledger.flagged:
                assert b"\\Flagged" in flags
                assert b"$Done" in flags
        view = await mail.view(folder)
        assert len(view.uids) == (await mail.status([folder]))[0].messages
    assert max(seen.values(), default=1) == 1, "a message is there twice"
    for token, at in ledger.there.items():
        if ledger.doubtful.get(token) not in ("expunge", "move"):
            assert found.get(token) == at, f"{token} was acknowledged and is lost"
        elif ledger.doubtful[token] == "move":
            assert token in found
    for token in found:
        assert token in ledger.there or token in ledger.doubtful, f"{token} came back"
    ledger.settle(found)
    await store.close()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("block", range(KILLS // BLOCK))
def test_acknowledged_messages_survive_kill_9(tmp_path: Path, block: int) -> None:
    async def make() -> None:
        store = SqliteStore(tmp_path)
        await store.create_mailbox(BOX)
        await store.close()

    asyncio.run(make())
    chance = random.Random(20240201 + block)
    ledger = Ledger()
    for number in range(BLOCK):
        a_round(tmp_path, number, chance, ledger)
        db = apsw.Connection(str(tmp_path / f"{BOX}.db"))
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        named = {row[0] for row in db.execute("SELECT file FROM raw WHERE file <> ''")}
        bodies = tmp_path / f"{BOX}.bodies"
        assert named <= {path.name for path in bodies.iterdir()}, "a row without its file"
        sweep(bodies, db, age_s=-60)
        assert named == {path.name for path in bodies.iterdir()}
        orphans = "SELECT count(*) FROM content WHERE id NOT IN (SELECT content FROM message)"
        assert db.execute(orphans).fetchone() == (0,)
        db.close()
        asyncio.run(check(tmp_path, ledger))
    assert len(ledger.meaning) > 5 * BLOCK, f"the workers did too little: {len(ledger.meaning)}"
