"""FETCH in the SQLite engine: one SELECT per batch, its columns put together from fixed fragments.

A batch ends at BATCH_ROWS rows or after BATCH_OCTETS of header and text; between batches no statement is open, so a
slow client never holds a snapshot that would let the log grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from letterlock.store import sqlite_sql as sql
from letterlock.store.api import Column, Row, UidRanges
from letterlock.store.sqlite_flags import rendered
from letterlock.store.sqlite_handles import Handle
from letterlock.store.sqlite_spool import read_part

BATCH_ROWS: Final = 500
BATCH_OCTETS: Final = 1 << 20
BIG: Final = frozenset((Column.HEADER, Column.TEXT))


class Plan(NamedTuple):
    """A prepared FETCH for a list of columns."""

    statement: str
    flags_at: int  # where in a row the flags integer is, 0 for nowhere
    big: bool  # header or text is asked for: three columns at the end tell of its file
    header_at: int
    text_at: int


@lru_cache(maxsize=256)
def plan(columns: tuple[Column, ...]) -> Plan:
    """The statement for these columns."""
    names = [sql.FETCH_COLUMNS[column] for column in columns]
    big = bool(BIG.intersection(columns))
    joins = [join for table, join in sql.FETCH_JOINS.items() if any(name.startswith(table + ".") for name in names)]
    if big:
        names.append(sql.FETCH_FILE)
        joins.append(sql.FETCH_FILE_JOIN)
    statement = ", ".join([sql.FETCH_SELECT, *names]) + sql.FETCH_FROM + "".join(joins)
    statement += sql.FETCH_WHERE + sql.FETCH_LIMIT

    def at(column: Column) -> int:
        return columns.index(column) + 1 if column in columns else 0

    return Plan(statement, at(Column.FLAGS), big, at(Column.HEADER), at(Column.TEXT))


class Position:
    """How far a fetch has come."""

    __slots__ = ("at", "first", "ranges")

    def __init__(self, ranges: UidRanges) -> None:
        self.ranges = ranges
        self.at = 0
        self.first = ranges[0][0] if ranges else 0

    @property
    def done(self) -> bool:
        """Whether every range has been read."""
        return self.at >= len(self.ranges)

    def next_range(self) -> None:
        """The current range has no more messages."""
        self.at += 1
        if self.at < len(self.ranges):
            self.first = self.ranges[self.at][0]


class Batch(NamedTuple):
    """Rows, and the numbers of those whose body has to be read from its file."""

    rows: list[Row]
    files: list[int]


def read_batch(handle: Handle, folder: int, what: Plan, position: Position) -> Batch:
    """The next rows; moves `position`."""
    rows: list[Row] = []
    octets = 0
    execute = handle.execute
    while not position.done and len(rows) < BATCH_ROWS and octets < BATCH_OCTETS:
        room = BATCH_ROWS - len(rows)
        cursor = execute(what.statement, (folder, position.first, position.ranges[position.at][1], room))
        if not what.big:
            found = cursor.fetchall()
            complete = len(found) < room
        else:
            found, octets, complete = [], octets, True
            for row in cursor:
                found.append(row)
                octets += row[-1] if not row[-3] else 0
                if octets >= BATCH_OCTETS or row[-3]:
                    complete = False
                    break
            cursor.close()
            complete = complete and len(found) < room
        rows += found
        if complete:
            position.next_range()
            continue
        position.first = found[-1][0] + 1
        if position.first > position.ranges[position.at][1]:
            position.next_range()
        if what.big and found[-1][-3]:
            break  # a large one: it ends its batch
    return _finish(handle, what, rows)


def _finish(handle: Handle, what: Plan, rows: list[Row]) -> Batch:
    files: list[int] = []
    if what.big:
        files = [number for number, row in enumerate(rows) if row[-3]]
        if not files:
            rows = [row[:-3] for row in rows]
    if not what.flags_at:
        return Batch(rows, files)
    at = what.flags_at
    execute, known = handle.execute, handle.flag_names
    values: list[int] = [row[at] for row in rows]  # type: ignore[misc]
    names = dict.fromkeys(values, b"")
    for value in names:
        names[value] = rendered(execute, known, value)
    if at == 1:
        return Batch([(row[0], names[value], *row[2:]) for row, value in zip(rows, values, strict=True)], files)
    return Batch([(*row[:at], names[value], *row[at + 1 :]) for row, value in zip(rows, values, strict=True)], files)


def read_files(handle: Handle, what: Plan, batch: Batch) -> list[Row]:
    """Put headers and texts from files into their rows; in a thread. Messages expunged meanwhile are left out."""
    rows: list[Row] = []
    in_file = set(batch.files)
    for number, row in enumerate(batch.rows):
        if number not in in_file:
            rows.append(row[:-3])
            continue
        cells = list(row[:-3])
        name, header_size = str(row[-3]), int(row[-2])  # type: ignore[call-overload]
        parts: list[bytes | None] = []
        if what.header_at and not cells[what.header_at]:
            parts.append(read_part(handle.bodies, name, 0, header_size))
            cells[what.header_at] = parts[-1]
        if what.text_at:
            parts.append(read_part(handle.bodies, name, header_size, -1))
            cells[what.text_at] = parts[-1]
        if None not in parts:
            rows.append(tuple(cells))
    return rows


def joined(ranges: UidRanges) -> Sequence[tuple[int, int]]:
    """Neighbouring ranges made one, so that 1,2,3 costs one statement."""
    merged: list[tuple[int, int]] = []
    for first, last in ranges:
        if merged and first == merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return merged


__all__ = ["Batch", "Plan", "Position", "joined", "plan", "read_batch", "read_files"]
