"""SEARCH in the SQLite engine. What SQL can say becomes conditions on one SELECT, put together from fixed fragments;
texts and unusual header fields are looked for only among the messages that are left.

Trees are split so: of an AND, everything SQL can say narrows the candidates first; OR and NOT over something SQL
cannot say become operations on sets of UIDs.
"""

from __future__ import annotations

import contextlib
import re
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

import apsw

from letterlock.base.errors import Refused
from letterlock.mail.structure import header_text
from letterlock.store import sqlite_sql as sql
from letterlock.store.api import (
    All,
    And,
    Arrived,
    ArrivedWithin,
    Folder,
    HasFlag,
    HasKeyword,
    Header,
    Larger,
    ModifiedSince,
    Not,
    Or,
    SearchNode,
    Sent,
    Smaller,
    Text,
    UidRanges,
    Uids,
)
from letterlock.store.sqlite_fetch import joined
from letterlock.store.sqlite_flags import GONE
from letterlock.store.sqlite_handles import Connection, Handle
from letterlock.store.sqlite_spool import read_part
from letterlock.store.sqlite_text import fill, fold, matches

DEPTH: Final = 100  # of a tree; SQLite's own limit is 1000
BREADTH: Final = 200  # of one AND or UID set in SQL: each adds a level there
INLINE: Final = 10_000  # messages that a narrow search reads in the event loop
INLINE_WIDE: Final = 500  # the same for searches that read wide rows
EVERY: Final = ((1, 0xFFFFFFFF),)


class Condition(NamedTuple):
    """A piece of SQL, what is bound to it, and the tables it needs."""

    text: str
    values: tuple[object, ...] = ()
    tables: frozenset[str] = frozenset()


CONTENT: Final = frozenset("c")
HEADING: Final = frozenset("h")


def keyword_sets(db: Connection, name: bytes) -> array[int]:
    """The flag sets that have a keyword."""
    wanted = name.lower()
    return array("q", [ident for ident, names in db.execute(sql.FLAGSETS) if wanted in names.lower().split(b" ")])


def _leaf(node: SearchNode, db: Connection) -> Condition | None:
    match node:
        case All():
            return Condition(sql.IS_TRUE)
        case HasFlag(bit):
            return Condition(sql.HAS_FLAG, (bit,))
        case HasKeyword(name):
            return Condition(sql.IN_SETS, (apsw.carray(keyword_sets(db, name) or array("q", [-1])),))
        case Arrived(how, day):
            return Condition(sql.ARRIVED_DAY[how.value], (day.toordinal(),))
        case Sent(how, day):
            return Condition(sql.SENT_DAY[how.value], (day.toordinal(),), CONTENT)
        case ArrivedWithin(younger, moment):
            return Condition(sql.ARRIVED_AFTER if younger else sql.ARRIVED_UNTIL, (moment,))
        case Larger(octets):
            return Condition(sql.LARGER, (min(octets, sql.LAST_INTEGER),))
        case Smaller(octets):
            return Condition(sql.SMALLER, (min(octets, sql.LAST_INTEGER),))
        case ModifiedSince(modseq):
            return Condition(sql.MODIFIED_SINCE, (min(modseq, sql.LAST_INTEGER),))
        case Header(name, text) if name in sql.HEADER_CONTAINS and text:
            return Condition(sql.HEADER_CONTAINS[name], (fold(text),), HEADING)
        case Uids(ranges) if 0 < len(ranges) <= BREADTH:
            text = " OR ".join([sql.UID_BETWEEN] * len(ranges))
            return Condition(sql.SEARCH_ALL_OF.format(text), tuple(uid for pair in ranges for uid in pair))
        case _:
            return None


def _all_of(parts: Sequence[Condition]) -> Condition:
    if not parts:
        return Condition(sql.IS_TRUE)
    return Condition(
        sql.SEARCH_ALL_OF.format(sql.SEARCH_AND.join(part.text for part in parts)),
        tuple(value for part in parts for value in part.values),
        frozenset().union(*(part.tables for part in parts)),
    )


def condition(node: SearchNode, db: Connection, depth: int = 0) -> Condition | None:
    """The node in SQL; None when SQL cannot say it."""
    if depth > DEPTH:
        raise Refused(f"A search can be nested {DEPTH} levels deep.", b"LIMIT")
    match node:
        case And(nodes):
            parts = [condition(n, db, depth + 1) for n in nodes]
            said = [part for part in parts if part is not None]
            return _all_of(said) if len(said) == len(parts) <= BREADTH else None
        case Or(left, right):
            one, other = condition(left, db, depth + 1), condition(right, db, depth + 1)
            if one is None or other is None:
                return None
            return Condition(
                sql.SEARCH_OR.format(one.text, other.text), one.values + other.values, one.tables | other.tables
            )
        case Not(inner):
            part = condition(inner, db, depth + 1)
            return part and Condition(sql.SEARCH_NOT.format(part.text), part.values, part.tables)
        case _:
            return _leaf(node, db)


def has_text(node: SearchNode) -> bool:
    """Whether the texts of messages are needed."""
    match node:
        case Text():
            return True
        case And(nodes):
            return any(has_text(n) for n in nodes)
        case Or(left, right):
            return has_text(left) or has_text(right)
        case Not(inner):
            return has_text(inner)
        case _:
            return False


class Search:
    """One search, prepared on the event loop's connection, run on that or another one."""

    def __init__(self, handle: Handle, folder: Folder, ranges: UidRanges | None, tree: SearchNode) -> None:
        state = handle.execute(sql.FOLDER_STATE, (folder.id,)).fetchone()
        if state is None:
            raise Refused(GONE, b"NONEXISTENT")
        self._handle = handle
        self._folder = folder
        self._ranges = joined(EVERY if ranges is None else ranges)
        self._tree = tree
        self._contents: dict[int, int] | None = None
        said = condition(tree, handle.reader)
        uidnext = state[1]
        span = sum(min(last, uidnext) - first + 1 for first, last in self._ranges if first < uidnext)
        self.short = said is not None and span <= (INLINE_WIDE if said.tables else INLINE)

    def run(self, db: Connection) -> array[int]:
        """The UIDs, ascending, of one state of the folder."""
        if has_text(self._tree):
            # On a full disk, or beside a long commit, what is not kept yet is read directly.
            with contextlib.suppress(apsw.FullError, apsw.IOError, apsw.BusyError):
                fill(self._handle, db)
        db.execute(sql.BEGIN_READ)
        try:
            found = self._evaluate(db, self._tree, None)
        finally:
            db.execute(sql.COMMIT)
        return array("I", sorted(found))

    def _evaluate(self, db: Connection, node: SearchNode, among: set[int] | None) -> set[int]:
        """The UIDs that fit, of `among` (None: of the ranges)."""
        said = condition(node, db)
        if said is not None:
            found = self._select(db, said)
            return found if among is None else found & among
        if isinstance(node, And):
            return self._conjunction(db, node, among)
        if among is None:
            among = set(self._uid_contents(db))
        match node:
            case Or(left, right):
                found = self._evaluate(db, left, among)
                return found | self._evaluate(db, right, among - found)
            case Not(inner):
                return among - self._evaluate(db, inner, among)
            case Uids(ranges):
                return _within(ranges, among)
            case Header(name, text):
                return self._headers(db, name, text, among)
            case Text(text, header):
                return self._texts(db, fold(text), header, among)
            case _:
                raise TypeError(f"not a search node: {type(node).__name__}")

    def _conjunction(self, db: Connection, node: And, among: set[int] | None) -> set[int]:
        said: list[Condition] = []
        others: list[SearchNode] = []
        for part in node.nodes:
            as_sql = condition(part, db)
            if as_sql is None:
                others.append(part)
            else:
                said.append(as_sql)
        for start in range(0, len(said), BREADTH):
            found = self._select(db, _all_of(said[start : start + BREADTH]))
            among = found if among is None else among & found
        for part in others:
            if among is not None and not among:
                break
            among = self._evaluate(db, part, among)
        return set() if among is None else among

    def _select(self, db: Connection, said: Condition) -> set[int]:
        joins = "".join(sql.SEARCH_JOINS[table] for table in sorted(said.tables))
        statement = sql.SEARCH_SELECT + joins + sql.SEARCH_WHERE + sql.SEARCH_AND + said.text
        found: set[int] = set()
        for first, last in self._ranges:
            found.update(row[0] for row in db.execute(statement, (self._folder.id, first, last, *said.values)))
        return found

    def _uid_contents(self, db: Connection) -> dict[int, int]:
        if self._contents is None:
            self._contents = {}
            for first, last in self._ranges:
                self._contents.update(db.execute(sql.UID_CONTENTS, (self._folder.id, first, last)).fetchall())
        return self._contents

    def _headers(self, db: Connection, name: str, text: str, among: set[int]) -> set[int]:
        """A field SQL has no column for, or whether a field exists at all."""
        wanted = fold(text)
        field = re.compile(
            rb"^" + re.escape(name.encode("utf-8", "replace")) + rb"[ \t]*:", re.IGNORECASE | re.MULTILINE
        )
        contents = self._uid_contents(db)
        found = set()
        for uid in among:
            file, header, size = db.execute(sql.HEADER_ONE, (contents[uid],)).fetchone()
            if file and not header:
                header = read_part(self._handle.bodies, file, 0, size) or b""
            if field.search(header) and (not wanted or wanted in fold(header_text(header, name) or "")):
                found.add(uid)
        return found

    def _texts(self, db: Connection, text: str, header: bool, among: set[int]) -> set[int]:
        if not text:
            return among
        contents = self._uid_contents(db)
        hits = matches(self._handle, db, text, header, {contents[uid] for uid in among})
        return {uid for uid in among if contents[uid] in hits}


def _within(ranges: UidRanges, uids: set[int]) -> set[int]:
    """The UIDs that are in one of the ascending ranges."""
    firsts = [first for first, _ in ranges]

    def inside(uid: int) -> bool:
        at = bisect_right(firsts, uid) - 1
        return at >= 0 and uid <= ranges[at][1]

    return {uid for uid in uids if inside(uid)}
