"""A mailbox whose messages are given in another form than they are stored in (`mail.presentation`).

Only sessions whose settings ask for that have one; all others work on the mailbox itself. Sizes, structures, headers
and bodies are then those of the message as it is given, so that all answers about it fit together. ENVELOPE, flags,
dates, previews and the texts that a search looks at are those of the stored message.

A message never changes under its UID, so what was made of it is kept: first `Looks` (all that listings need, and
whether there is anything to convert), and for a while the octets. Both are bounded by the octets they hold.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast

from letterlock.mail.presentation import Presentation, present
from letterlock.mail.structure import describe
from letterlock.store.api import (
    And,
    Column,
    Folder,
    Larger,
    MailStore,
    Not,
    Or,
    Row,
    SearchNode,
    Smaller,
    Status,
    UidRanges,
    Uids,
)

T = TypeVar("T")
Run = Callable[[Callable[[], Any]], Awaitable[Any]]
Key = tuple[object, ...]
LOOKS_KEPT: Final = 32 << 20  # octets
MESSAGES_KEPT: Final = 64 << 20
EVERYTHING: Final = ((1, 2**32 - 1),)
LARGEST_KEPT: Final = 16 << 20
ENTRY: Final = 300  # octets that an entry takes besides its strings
_CHANGED: Final = frozenset(
    (Column.SIZE, Column.CRLF_SIZE, Column.BODY, Column.BODYSTRUCTURE, Column.HEADER, Column.TEXT)
)


class Look(NamedTuple):
    """What is told of a message as it is given."""

    size: int
    crlf_size: int
    body: bytes
    bodystructure: bytes
    header: bytes


_Given = tuple[Look, bytes]  # and the message; without it in a listing


class Kept(Generic[T]):
    """The last used values, as many as fit."""

    def __init__(self, octets: int) -> None:
        self.room = octets
        self._values: OrderedDict[Key, tuple[T, int]] = OrderedDict()

    def get(self, key: Key) -> T | None:
        """A value, or None."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: Key, value: T, octets: int) -> None:
        """Keep a value, and forget old ones for it."""
        old = self._values.pop(key, None)
        if old is not None:
            self.room += old[1]
        self._values[key] = (value, octets + ENTRY)
        self.room -= octets + ENTRY
        while self.room < 0:
            self.room += self._values.popitem(last=False)[1][1]

    def __len__(self) -> int:
        return len(self._values)


class Conversions:
    """What the mailboxes of a process share: the place where work is done, and what was made."""

    def __init__(self, run: Run, looks: int = LOOKS_KEPT, messages: int = MESSAGES_KEPT) -> None:
        self.run = run  # in a thread: a conversion may take a moment, and others must not wait for it
        self.looks: Kept[Look | bool] = Kept(looks)  # False: the message is given as it is stored
        self.messages: Kept[bytes] = Kept(messages)

    def mailbox(self, mail: MailStore, how: Presentation) -> MailStore:
        """The mailbox as it is to be given."""
        return mail if how.as_stored else cast(MailStore, PresentedMailbox(mail, how, self))


class PresentedMailbox:
    """One mailbox for one session; all that it does not do itself the mailbox does."""

    __slots__ = ("_changed", "_how", "_made", "_mail")

    def __init__(self, mail: MailStore, how: Presentation, made: Conversions) -> None:
        self._mail, self._how, self._made = mail, how, made
        self._changed = _CHANGED if how.exact_size else _CHANGED - {Column.SIZE}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mail, name)

    def fetch(self, folder: Folder, ranges: UidRanges, columns: Sequence[Column]) -> AsyncIterator[list[Row]]:
        """As `MailStore.fetch`."""
        if self._changed.isdisjoint(columns):
            return self._mail.fetch(folder, ranges, columns)
        return self._fetch(folder, ranges, tuple(columns))

    async def status(self, folders: Sequence[Folder], sizes: bool = True) -> list[Status]:
        """As `MailStore.status`; the size is never less than the sum of the messages' sizes (RFC 8438 §3)."""
        found = await self._mail.status(folders, sizes)
        if not sizes or Column.SIZE not in self._changed:
            return found
        return [s._replace(size=sum([n for _, n in await self._sizes(f)])) for f, s in zip(folders, found, strict=True)]

    async def search(self, folder: Folder, ranges: UidRanges | None, tree: SearchNode) -> array[int]:
        """As `MailStore.search`; LARGER and SMALLER are about what RFC822.SIZE says."""
        if Column.SIZE in self._changed and _asks_for_size(tree):
            tree = _with_sizes(tree, await self._sizes(folder))
        return await self._mail.search(folder, ranges, tree)

    async def _sizes(self, folder: Folder) -> list[tuple[int, int]]:
        """UID and size of every message."""
        rows = [row async for batch in self.fetch(folder, EVERYTHING, (Column.SIZE,)) for row in batch]
        return cast(list[tuple[int, int]], rows)

    async def _fetch(self, folder: Folder, ranges: UidRanges, columns: tuple[Column, ...]) -> AsyncIterator[list[Row]]:
        with_text = Column.TEXT in columns
        more = [Column.BODYSTRUCTURE, Column.HEADER] if with_text or self._how.no_receipts else [Column.BODYSTRUCTURE]
        asked = (*columns, *[column for column in more if column not in columns])
        at = {column: number for number, column in enumerate(asked, 1)}
        width = len(columns) + 1
        async for batch in self._mail.fetch(folder, ranges, asked):
            changing = [row for row in batch if self._may_change(folder, row, at)]
            if not changing:
                given: dict[object, _Given] = {}
            elif with_text:
                sources = [
                    (row[0], _octets(row[at[Column.HEADER]]) + _octets(row[at[Column.TEXT]])) for row in changing
                ]
                given = await self._convert(folder, sources)
            else:
                given = await self._listed(folder, [row[0] for row in changing])
            yield [
                _merged(row, columns, self._changed, given[row[0]]) if row[0] in given else row[:width] for row in batch
            ]

    def _key(self, folder: Folder, uid: object) -> Key:
        return (self._mail.id, folder.id, folder.uidvalidity, uid, self._how)

    def _may_change(self, folder: Folder, row: Row, at: dict[Column, int]) -> bool:
        header = _octets(row[at[Column.HEADER]]) if Column.HEADER in at else b""
        if not self._how.may_change(_octets(row[at[Column.BODYSTRUCTURE]]), header):
            return False
        return self._made.looks.get(self._key(folder, row[0])) is not False

    async def _listed(self, folder: Folder, uids: list[object]) -> dict[object, _Given]:
        """Looks for a listing; bodies are read of those messages only that were not looked at before."""
        given: dict[object, _Given] = {}
        unknown: list[tuple[int, int]] = []
        for uid in uids:
            look = self._made.looks.get(self._key(folder, uid))
            if isinstance(look, Look):
                given[uid] = (look, b"")
            else:
                unknown.append((cast(int, uid), cast(int, uid)))
        if unknown:
            async for batch in self._mail.fetch(folder, unknown, (Column.HEADER, Column.TEXT)):
                sources = [(row[0], _octets(row[1]) + _octets(row[2])) for row in batch]
                given |= await self._convert(folder, sources)
        return given

    async def _convert(self, folder: Folder, sources: list[tuple[object, bytes]]) -> dict[object, _Given]:
        """Messages as they are given; those that stay as they are stored are left out."""
        made, how = self._made, self._how
        work = []
        for uid, stored in sources:
            key = self._key(folder, uid)
            work.append((key, stored, made.messages.get(key), made.looks.get(key)))

        def convert() -> list[tuple[Key, _Given | None]]:
            return [(key, _given(stored, how, kept, look)) for key, stored, kept, look in work]

        found: dict[object, _Given] = {}
        for key, given in await made.run(convert):
            if given is None:
                made.looks.put(key, False, 0)
                continue
            look, octets = given
            made.looks.put(key, look, len(look.body) + len(look.bodystructure) + len(look.header))
            if len(octets) <= LARGEST_KEPT:
                made.messages.put(key, octets, len(octets))
            found[key[3]] = given
        return found


def _asks_for_size(tree: SearchNode) -> bool:
    if isinstance(tree, Not):
        return _asks_for_size(tree.node)
    if isinstance(tree, And):
        return any(map(_asks_for_size, tree.nodes))
    if isinstance(tree, Or):
        return _asks_for_size(tree.left) or _asks_for_size(tree.right)
    return isinstance(tree, Larger | Smaller)


def _with_sizes(tree: SearchNode, sizes: list[tuple[int, int]]) -> SearchNode:
    """The tree with UIDs in place of sizes."""
    if isinstance(tree, Not):
        return Not(_with_sizes(tree.node, sizes))
    if isinstance(tree, And):
        return And(tuple(_with_sizes(node, sizes) for node in tree.nodes))
    if isinstance(tree, Or):
        return Or(_with_sizes(tree.left, sizes), _with_sizes(tree.right, sizes))
    if isinstance(tree, Larger):
        return Uids(_runs(uid for uid, size in sizes if size > tree.octets))
    if isinstance(tree, Smaller):
        return Uids(_runs(uid for uid, size in sizes if size < tree.octets))
    return tree


def _runs(uids: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Ascending UIDs as ranges."""
    found: list[tuple[int, int]] = []
    for uid in uids:
        if found and found[-1][1] == uid - 1:
            found[-1] = (found[-1][0], uid)
        else:
            found.append((uid, uid))
    return tuple(found)


def _given(stored: bytes, how: Presentation, kept: bytes | None, look: Look | bool | None) -> _Given | None:
    """A message as it is given, from what is known of it."""
    octets = kept or present(stored, how)
    if octets is stored:
        return None
    if isinstance(look, Look):
        return look, octets
    made = describe(octets)
    return Look(len(octets), made.crlf_size, made.body, made.bodystructure, octets[: made.header_size]), octets


def _merged(row: Row, columns: tuple[Column, ...], changed: frozenset[Column], given: _Given) -> Row:
    """A row with what changes of it."""
    look, octets = given
    cells: list[object] = [row[0]]
    for number, column in enumerate(columns, 1):
        if column is Column.TEXT:
            cells.append(octets[len(look.header) :])
        elif column in changed:
            cells.append(getattr(look, column.value))
        else:
            cells.append(row[number])
    return tuple(cells)


def _octets(cell: object) -> bytes:
    return cell if isinstance(cell, bytes) else b""
