"""Flags as the engine keeps them: one integer, `flagset << 5 | system flags`; and `change_flags`.

A flag set is the keywords of a message as finished bytes in their first spelling, sorted, with spaces between. The
ids of sets and keywords are never used again, so what a process remembers about them stays true; names are looked up
inside the transaction that uses them, because another process may have swept an unused set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from letterlock.base.errors import Refused
from letterlock.store import sqlite_sql as sql
from letterlock.store.api import MAX_KEYWORDS, Change, FlagAction, Flags, Folder, Stored, UidRanges, render_flags
from letterlock.store.sqlite_handles import Execute
from letterlock.store.sqlite_writer import Txn

SYSTEM_BITS: Final = 31
SHIFT: Final = 5
ALWAYS: Final = (1 << 63) - 1
REMEMBERED: Final = 4096  # rendered flag sets a handle remembers
TOO_MANY: Final = f"A folder can have {MAX_KEYWORDS} different keywords; this one has as many. Use one of those."
GONE: Final = "This folder does not exist any more."


def set_names(execute: Execute, set_id: int) -> tuple[bytes, ...]:
    """The keywords of a flag set."""
    if not set_id:
        return ()
    row = execute(sql.FLAGSET_NAMES, (set_id,)).fetchone()
    return tuple(row[0].split(b" ")) if row else ()


def rendered(execute: Execute, known: dict[int, bytes], flags: int) -> bytes:
    """The flags as they are sent; `known` remembers."""
    text = known.get(flags)
    if text is None:
        if len(known) >= REMEMBERED:
            known.clear()
        text = render_flags(Flags(flags & SYSTEM_BITS, set_names(execute, flags >> SHIFT)))
        known[flags] = text
    return text


def set_id(execute: Execute, names: Sequence[bytes]) -> int:
    """The flag set of these keywords (first spellings), made when there is none."""
    if not names:
        return 0
    joined = b" ".join(sorted(names))
    row = execute(sql.FLAGSET_ID, (joined,)).fetchone() or execute(sql.FLAGSET_INSERT, (joined,)).fetchone()
    return int(row[0])


def learn(execute: Execute, folder: int, keywords: Sequence[bytes], refuse: bool) -> list[bytes]:
    """First spellings of keywords, which the folder knows from now on.

    A new one beyond MAX_KEYWORDS is refused, or left out when `refuse` is False (COPY: the message matters more).
    """
    names: dict[bytes, bytes] = {}
    for keyword in keywords:
        folded = keyword.lower()
        row = execute(sql.KEYWORD_BY_FOLDED, (folded,)).fetchone()
        if row is None or not execute(sql.KEYWORD_KNOWN, (folder, row[0])).fetchone():
            if execute(sql.KEYWORD_COUNT, (folder,)).fetchone()[0] >= MAX_KEYWORDS:
                if refuse:
                    raise Refused(TOO_MANY, b"LIMIT")
                continue
            if row is None:
                row = (execute(sql.KEYWORD_INSERT, (folded, keyword)).fetchone()[0], keyword)
            execute(sql.KEYWORD_LEARN, (folder, row[0]))
        names[folded] = row[1]
    return list(names.values())


def store_flags(execute: Execute, folder: int, flags: Flags) -> int:
    """Flags as an integer, their keywords learnt."""
    if not flags.keywords:
        return flags.system & SYSTEM_BITS
    return set_id(execute, learn(execute, folder, flags.keywords, True)) << SHIFT | flags.system & SYSTEM_BITS


def _changed(txn: Txn, folder: int, action: FlagAction, flags: Flags) -> Callable[[int], int]:
    """What the action makes of an old flags integer."""
    system = flags.system & SYSTEM_BITS
    if action is FlagAction.SET:
        new = store_flags(txn.execute, folder, flags)
        return lambda _old: new
    if not flags.keywords:
        return (lambda old: old | system) if action is FlagAction.ADD else (lambda old: old & ~system)
    execute = txn.execute
    if action is FlagAction.ADD:
        added = learn(execute, folder, flags.keywords, True)

        def add(old: int) -> int:
            names = {name.lower(): name for name in (*added, *set_names(execute, old >> SHIFT))}
            return set_id(execute, list(names.values())) << SHIFT | (old | system) & SYSTEM_BITS

        return add
    dropped = {keyword.lower() for keyword in flags.keywords}

    def remove(old: int) -> int:
        left = [name for name in set_names(execute, old >> SHIFT) if name.lower() not in dropped]
        return set_id(execute, left) << SHIFT | old & ~system & SYSTEM_BITS

    return remove


def change_flags(
    txn: Txn, folder: Folder, ranges: UidRanges, action: FlagAction, flags: Flags, unchanged_since: int | None
) -> Stored:
    """STORE (RFC 3501 §6.4.6) with UNCHANGEDSINCE (RFC 7162 §3.1.3)."""
    execute = txn.execute
    if execute(sql.FOLDER_STATE, (folder.id,)).fetchone() is None:
        raise Refused(GONE, b"NONEXISTENT")
    limit = ALWAYS if unchanged_since is None else unchanged_since
    change = _changed(txn, folder.id, action, flags)
    becomes: dict[int, int] = {}
    changed: list[tuple[int, int]] = []  # uid, new flags
    modified: list[int] = []
    modseq = 0
    for first, last in ranges:
        rows = execute(sql.RANGE_FLAGS, (folder.id, first, last)).fetchall()
        for old in {row[1] for row in rows}:
            if old not in becomes:
                becomes[old] = change(old)
        if unchanged_since is not None:
            modified += [uid for uid, _, reached in rows if reached > limit]
            rows = [row for row in rows if row[2] <= limit]
        todo = [(uid, becomes[old]) for uid, old, _ in rows if becomes[old] != old]
        if not todo:
            continue
        modseq = modseq or txn.modseq()
        if len(todo) == 1:
            execute(sql.SET_FLAGS_ONE, (todo[0][1], modseq, folder.id, todo[0][0]))
        else:
            _update_range(txn, folder.id, (first, last, limit), todo, rows, becomes, modseq)
        changed += todo
    if changed:
        execute(sql.FOLDER_TOUCH, (folder.id, modseq))
    known = txn.handle.flag_names if txn.shares_cache else {}
    names = {new: rendered(execute, known, new) for new in {new for _, new in changed}}
    return Stored([Change(uid, names[new], modseq) for uid, new in changed], modified)


def _update_range(
    txn: Txn,
    folder: int,
    bounds: tuple[int, int, int],
    todo: list[tuple[int, int]],
    rows: Sequence[tuple[int, int, int]],
    becomes: dict[int, int],
    modseq: int,
) -> None:
    """One UPDATE for each distinct old set while they are few; one for each message otherwise."""
    first, last, limit = bounds
    olds = {row[1] for row in rows if becomes[row[1]] != row[1]}
    if len(olds) * len(rows) > len(todo) * 8:
        txn.db.executemany(sql.SET_FLAGS_ONE, [(new, modseq, folder, uid) for uid, new in todo])
        return
    # The modseq bound keeps an UPDATE from messages that an earlier one of this loop has just changed.
    for old in olds:
        txn.execute(sql.SET_FLAGS_RANGE, (becomes[old], modseq, folder, first, last, old, min(limit, modseq - 1)))
