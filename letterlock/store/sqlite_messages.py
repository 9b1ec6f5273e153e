"""Messages in the SQLite engine: append, copy, move, expunge. Functions on an open transaction.

COPY makes a row in `message` that names the same content; content goes when the last row that names it goes, which
the index on `message.content` answers. There is no counter that could be wrong.
"""

from __future__ import annotations

import datetime
from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

import apsw

from letterlock.base.errors import Refused
from letterlock.mail.structure import describe
from letterlock.store import sqlite_sql as sql
from letterlock.store.api import Appended, Copied, Flags, Folder, Incoming, UidRanges
from letterlock.store.sqlite_flags import GONE, SHIFT, learn, set_id, set_names, store_flags
from letterlock.store.sqlite_handles import Execute
from letterlock.store.sqlite_spool import MessageSpool
from letterlock.store.sqlite_text import fold
from letterlock.store.sqlite_writer import Txn

CONTENT_VERSION: Final = 1  # of what `describe` makes; older content is made again when that changes
LAST_UID: Final = 0xFFFFFFFF
EVERY_UID: Final = ((1, LAST_UID),)
HEADER_INSIDE: Final = 64 * 1024  # a larger header of a large message stays in its file
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
NO_TARGET: Final = "The target folder does not exist; create it first."


def internaldate(moment: datetime.datetime) -> bytes:
    """`" 1-Feb-2024 03:04:05 +0100"` with the quotes (RFC 3501 §9, date-time)."""
    minutes = int((moment.utcoffset() or datetime.timedelta()).total_seconds()) // 60
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return (
        f'"{moment.day:2d}-{MONTHS[moment.month - 1]}-{moment.year:04d} '
        f'{moment.hour:02d}:{moment.minute:02d}:{moment.second:02d} {sign}{minutes // 60:02d}{minutes % 60:02d}"'
    ).encode()


class Prepared(NamedTuple):
    """A message ready to be inserted: rows without the ids."""

    flags: Flags
    size: int
    day: int
    arrived: int
    content: tuple[object, ...]
    heading: tuple[object, ...]
    file: str
    header: bytes
    text: bytes


def prepare(message: Incoming, now: datetime.datetime) -> Prepared:
    """Everything that needs no transaction: parsing, rendering, syncing of the file."""
    spool = message.spool
    if not isinstance(spool, MessageSpool):
        raise TypeError("a spool of this store is needed")
    raw = spool.raw()
    about = describe(raw)
    moment = message.internaldate or now
    sent = datetime.date.fromisoformat(about.sent).toordinal() if about.sent else 0
    header, text = raw[: about.header_size], raw[about.header_size :]
    if spool.name:
        header, text = header if about.header_size <= HEADER_INSIDE else b"", b""
        spool.sync()
    return Prepared(
        message.flags,
        len(raw),
        moment.date().toordinal(),
        int(moment.timestamp()),
        (
            CONTENT_VERSION,
            about.header_size,
            about.crlf_size,
            sent,
            internaldate(moment),
            about.envelope,
            about.bodystructure,
            about.body,
        ),
        (
            fold(about.subject),
            fold(about.from_),
            fold(about.to),
            fold(about.cc),
            fold(about.bcc),
            fold(about.message_id),
            about.preview.encode("utf-8", "replace").decode(),
        ),
        spool.name,
        header,
        text,
    )


def _take_uids(txn: Txn, folder: Folder, count: int, modseq: int, missing: bytes) -> tuple[int, int]:
    """Reserve UIDs: the first of them, and the folder's UIDVALIDITY."""
    row = txn.execute(sql.FOLDER_TAKE_UIDS, (folder.id, count, modseq)).fetchone()
    if row is None:
        raise Refused(NO_TARGET, missing)
    if row[0] > LAST_UID:
        raise Refused("The numbers for messages in this folder are used up; make a new folder.", b"CANNOT")
    return row[0] - count, row[1]


def check_quota(execute: Execute, limit: int, more: int) -> None:
    """`Refused` OVERQUOTA (RFC 5530 §3) when a mailbox could not hold `more` octets."""
    used = execute(sql.USAGE).fetchone()[0]
    if used + more > limit:
        text = f"The mailbox is full: it holds {used} of {limit} octets, and {more} more do not fit"
        raise Refused(f"{text}. Delete messages, or ask your administrator for more space.", b"OVERQUOTA")


def append(txn: Txn, folder: Folder, messages: Sequence[Prepared], limit: int | None = None) -> Appended:
    """APPEND and MULTIAPPEND (RFC 3501 §6.3.11, RFC 3502)."""
    if limit is not None:
        check_quota(txn.execute, limit, sum(m.size for m in messages))
    modseq = txn.modseq()
    execute = txn.execute
    uid, uidvalidity = _take_uids(txn, folder, len(messages), modseq, b"TRYCREATE")
    uids = list(range(uid, uid + len(messages)))
    for number, m in zip(uids, messages, strict=True):
        flags = store_flags(execute, folder.id, m.flags)
        content = execute(sql.CONTENT_INSERT, m.content).fetchone()[0]
        execute(sql.HEADING_INSERT, (content, *m.heading))
        execute(sql.RAW_INSERT, (content, m.file, m.header, m.text))
        execute(sql.MESSAGE_INSERT, (folder.id, number, flags, modseq, content, m.size, m.day, m.arrived))
    return Appended(uidvalidity, uids)


def copy(txn: Txn, folder: Folder, ranges: UidRanges, target: Folder, move: bool, limit: int | None = None) -> Copied:
    """COPY (RFC 3501 §6.4.7) and MOVE (RFC 6851)."""
    execute = txn.execute
    state = execute(sql.FOLDER_STATE, (folder.id,)).fetchone()
    if state is None:
        raise Refused(GONE, b"NONEXISTENT")
    # Bounded, so that copies into the same folder are not taken for sources.
    bounds = [(first, min(last, state[1] - 1)) for first, last in ranges if first < state[1]]
    source: list[int] = []
    counts = []
    for first, last in bounds:
        found = execute(sql.RANGE_UIDS, (folder.id, first, last)).fetchall()
        counts.append(len(found))
        source += [row[0] for row in found]
    if not source:
        there = execute(sql.FOLDER_STATE, (target.id,)).fetchone()
        if there is None:
            raise Refused(NO_TARGET, b"TRYCREATE")
        return Copied(target.uidvalidity, [], [])
    if limit is not None:
        check_quota(execute, limit, sum(execute(sql.RANGE_SIZE, (folder.id, *pair)).fetchone()[0] for pair in bounds))
    modseq = txn.modseq()
    first_uid, uidvalidity = _take_uids(txn, target, len(source), modseq, b"TRYCREATE")
    next_uid = first_uid
    for (first, last), count in zip(bounds, counts, strict=True):
        if count:
            execute(sql.COPY_RANGE, (target.id, next_uid, modseq, folder.id, first, last))
            next_uid += count
    if target.id != folder.id:
        _carry_keywords(txn, target.id, first_uid, next_uid - 1)
    if move:
        for first, last in bounds:
            execute(sql.MOVE_RANGE_HISTORY, (modseq, folder.id, first, last))
            execute(sql.MOVE_RANGE_DELETE, (folder.id, first, last))
        execute(sql.FOLDER_TOUCH, (folder.id, modseq))
    return Copied(uidvalidity, source, list(range(first_uid, next_uid)))


def _carry_keywords(txn: Txn, target: int, first: int, last: int) -> None:
    """Teach the target folder the keywords that came along; those beyond its limit are left out."""
    execute = txn.execute
    for (set_number,) in execute(sql.RANGE_SETS, (target, first, last)).fetchall():
        if not set_number:
            continue
        names = set_names(execute, set_number)
        kept = learn(execute, target, names, False)
        if len(kept) < len(names):
            execute(sql.REPLACE_SET, (set_id(execute, kept), target, first, last, set_number))


def move_all(txn: Txn, folder: Folder, target: Folder) -> None:
    """RENAME of INBOX moves its messages (RFC 3501 §6.3.5)."""
    copy(txn, folder, EVERY_UID, target, True)


def expunge(txn: Txn, folder: Folder, ranges: UidRanges | None, deleted_only: bool) -> list[int]:
    """EXPUNGE, UID EXPUNGE, CLOSE, and POP3's QUIT."""
    if txn.execute(sql.FOLDER_STATE, (folder.id,)).fetchone() is None:
        raise Refused(GONE, b"NONEXISTENT")
    statement = sql.EXPUNGE_RANGE_DELETED if deleted_only else sql.EXPUNGE_RANGE
    rows: list[tuple[int, int]] = []
    for first, last in EVERY_UID if ranges is None else ranges:
        rows += txn.execute(statement, (folder.id, first, last)).fetchall()
    if not rows:
        return []
    modseq = txn.modseq()
    txn.db.executemany(sql.EXPUNGED_INSERT, [(folder.id, modseq, uid) for uid, _ in rows])
    txn.execute(sql.FOLDER_TOUCH, (folder.id, modseq))
    drop_contents(txn, {content for _, content in rows})
    return sorted(uid for uid, _ in rows)


def expunge_all(txn: Txn, folder_id: int) -> None:
    """A folder goes: its messages without history."""
    rows = txn.execute(sql.EXPUNGE_RANGE, (folder_id, 1, LAST_UID)).fetchall()
    drop_contents(txn, {row[1] for row in rows})


def drop_contents(txn: Txn, contents: set[int]) -> None:
    """Remove what no message shows any more; files go after the commit."""
    execute = txn.execute
    if not contents:
        return
    candidates = apsw.carray(array("q", sorted(contents)))
    orphans = [row[0] for row in execute(sql.ORPHANS, (candidates,))]
    if not orphans:
        return
    gone = apsw.carray(array("q", orphans))
    txn.garbage += [row[0] for row in execute(sql.RAW_DELETE, (gone,)).fetchall() if row[0]]
    execute(sql.HEADING_DELETE, (gone,))
    execute(sql.CONTENT_DELETE, (gone,))
    execute(sql.TEXT_DELETE, (gone,))


__all__ = ["SHIFT", "Prepared", "append", "copy", "expunge", "expunge_all", "internaldate", "move_all", "prepare"]
