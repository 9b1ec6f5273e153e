"""A worker for the crash test: appends, flags, moves and expunges until it is killed.

usage: python -m tests.store.crash_child DIRECTORY NAME. Each line on stdout is written with one write(2), so what the
parent reads is what was acknowledged: `try …` before an operation, `did …` after it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
from pathlib import Path

from letterlock.store.api import DELETED, FLAGGED, FlagAction, Flags, Folder, Incoming, MailStore
from letterlock.store.sqlite import SqliteStore
from tests.store.support import BOX


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def work(mail: MailStore, folders: list[Folder], name: str) -> None:
    """One client with messages of its own."""
    chance = random.Random(name)
    mine: list[tuple[int, int, str]] = []  # folder number, uid, token
    for count in itertools.count():
        what = chance.choice(("append", "append", "append", "flag", "move", "expunge"))
        if what == "append" or not mine:
            token, where = f"{name}-{count}", chance.randrange(2)
            raw = f"Subject: {token}\r\n\r\n{token}\r\n".encode() + b"x" * chance.choice((10, 3000, 70_000))
            spool = mail.spool(len(raw))
            spool.write(raw)
            say("try", "append", token)
            [uid] = (await mail.append(folders[where], [Incoming(spool)])).uids
            say("did", "append", token, where, uid)
            mine.append((where, uid, token))
            continue
        where, uid, token = mine.pop(chance.randrange(len(mine)))
        say("try", what, token)
        if what == "flag":
            await mail.change_flags(folders[where], [(uid, uid)], FlagAction.ADD, Flags(FLAGGED, (b"$Done",)))
            say("did", "flag", token)
            mine.append((where, uid, token))
        elif what == "move":
            [new] = (await mail.move(folders[where], [(uid, uid)], folders[1 - where])).target
            say("did", "move", token, 1 - where, new)
            mine.append((1 - where, new, token))
        else:
            await mail.change_flags(folders[where], [(uid, uid)], FlagAction.ADD, Flags(DELETED))
            await mail.expunge(folders[where], [(uid, uid)])
            say("did", "expunge", token)


async def main(directory: str, name: str) -> None:
    store = SqliteStore(Path(directory), body_inside=16_384)
    mail = store.mailbox(BOX)
    folders = [await mail.folder("INBOX"), await mail.folder("Archive")]
    say("ready")
    await asyncio.gather(*(work(mail, folders, f"{name}.{n}") for n in range(2)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
