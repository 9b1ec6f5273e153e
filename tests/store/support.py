"""An engine under test, and short words for what tests do with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from letterlock.store.api import Column, Flags, Folder, Incoming, MailStore, Row, Store

BOX = "0123456789abcdef0123456789abcdef"
NO_FLAGS = Flags()
PLAIN = (
    b"From: Alice Example <alice@demo.test>\r\nTo: bob@demo.test\r\nSubject: Weekly report\r\n"
    b"Date: Thu, 1 Feb 2024 23:30:00 -0800\r\nMessage-ID: <one@demo.test>\r\nX-Mood: sunny\r\n\r\n"
    b"The quick brown fox\r\njumps over 100% of the lazy dogs_\r\n"
)


@dataclass
class Engine:
    """A store under test; `again()` is another process's view of the same data."""

    make: Callable[..., Store]
    opened: list[Store] = field(default_factory=list)
    hints: list[tuple[str, int]] = field(default_factory=list)

    def open(self, **options: object) -> Store:
        store = self.make(lambda box, modseq: self.hints.append((box, modseq)), **options)
        self.opened.append(store)
        return store

    async def mailbox(self) -> MailStore:
        store = self.open()
        await store.create_mailbox(BOX)
        return store.mailbox(BOX)

    def again(self) -> MailStore:
        return self.open().mailbox(BOX)


def incoming(mail: MailStore, raw: bytes, flags: Flags = NO_FLAGS, **more: object) -> Incoming:
    """A spooled message."""
    spool = mail.spool(len(raw))
    for start in range(0, len(raw), 65536):
        spool.write(raw[start : start + 65536])
    return Incoming(spool, flags, **more)  # type: ignore[arg-type]


async def put(mail: MailStore, folder: Folder, *raws: bytes, flags: Flags = NO_FLAGS) -> list[int]:
    """Append messages; their UIDs."""
    return (await mail.append(folder, [incoming(mail, raw, flags) for raw in raws])).uids


async def rows(mail: MailStore, folder: Folder, ranges: list[tuple[int, int]], *columns: Column) -> list[Row]:
    """All batches of a fetch."""
    return [row async for batch in mail.fetch(folder, ranges, columns) for row in batch]


async def raw_of(mail: MailStore, folder: Folder, uid: int) -> bytes:
    """A message as stored."""
    [row] = await rows(mail, folder, [(uid, uid)], Column.HEADER, Column.TEXT)
    return row[1] + row[2]  # type: ignore[operator]
