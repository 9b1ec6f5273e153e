"""Folders in the SQLite engine: names, the tree, subscriptions. Functions on an open transaction or connection.

Names are data: they reach SQL only as bound values and the file system never. INBOX is one name in any case, also as
the first level ("inbox/sub" is "INBOX/sub"); all else is compared exactly.
"""

from __future__ import annotations

import time
import unicodedata
from typing import Final

from letterlock.base.errors import Refused
from letterlock.store import sqlite_sql as sql
from letterlock.store.api import Folder
from letterlock.store.sqlite_handles import Execute
from letterlock.store.sqlite_messages import expunge_all, move_all
from letterlock.store.sqlite_writer import Txn

SEPARATOR: Final = "/"
LEVEL_BYTES: Final = 255
DEPTH: Final = 32
MOST_FOLDERS: Final = 10_000  # a mailbox; beyond it LIST alone would be an attack
FIRST_FOLDERS: Final = (
    ("INBOX", b""),
    ("Archive", b"\\Archive"),
    ("Drafts", b"\\Drafts"),
    ("Junk", b"\\Junk"),
    ("Sent", b"\\Sent"),
    ("Trash", b"\\Trash"),
)
# Line breaks of Unicode and the direction marks that make one name look like another, besides the controls.
REFUSED_CATEGORIES: Final = ("Cc", "Cs", "Zl", "Zp")


def canonical(name: str) -> str:
    """The name with INBOX in capitals."""
    head, separator, rest = name.partition(SEPARATOR)
    return f"INBOX{separator}{rest}" if head.upper() == "INBOX" and head.isascii() else name


def checked(name: str) -> str:
    """A name that a folder may have, canonical; `Refused` CANNOT otherwise."""
    name = canonical(name)
    levels = name.split(SEPARATOR)
    if not all(levels):
        raise Refused("A folder name has no empty level: no / at its beginning or end, and no // in it.", b"CANNOT")
    if len(levels) > DEPTH:
        raise Refused(f"Folders can be nested {DEPTH} levels deep, not {len(levels)}.", b"CANNOT")
    if any(unicodedata.category(c) in REFUSED_CATEGORIES for c in name):
        raise Refused("A folder name has no control characters.", b"CANNOT")
    if any(len(level.encode()) > LEVEL_BYTES for level in levels):
        raise Refused(f"Each level of a folder name has at most {LEVEL_BYTES} bytes.", b"CANNOT")
    return name


def folder_of(row: tuple[object, ...]) -> Folder:
    """A row of FOLDERS as the interface's Folder."""
    ident, name, uidvalidity, selectable, subscribed, special_use, hidden = row
    return Folder(ident, name, uidvalidity, bool(selectable), bool(subscribed), special_use, bool(hidden))  # type: ignore[arg-type]


def folders(execute: Execute) -> list[Folder]:
    """All, INBOX first."""
    return [folder_of(row) for row in execute(sql.FOLDERS)]


def find(execute: Execute, name: str) -> Folder | None:
    """A folder by its name, selectable or not."""
    if not _is_text(name):
        return None
    row = execute(sql.FOLDER_BY_NAME, (canonical(name),)).fetchone()
    return folder_of(row) if row else None


def _is_text(name: str) -> bool:
    """Lone surrogates cannot be bound."""
    return name.isascii() or not any("\ud800" <= c <= "\udfff" for c in name)


def selectable(execute: Execute, name: str) -> Folder:
    """A folder that can be selected; `Refused` NONEXISTENT."""
    found = find(execute, name)
    if found is None or not found.selectable:
        raise Refused("This folder does not exist.", b"NONEXISTENT")
    return found


def _insert(txn: Txn, name: str, special_use: bytes, is_selectable: bool) -> Folder:
    uidvalidity = txn.execute(sql.NEXT_UIDVALIDITY, (int(time.time()),)).fetchone()[0]
    row = txn.execute(sql.FOLDER_INSERT, (name, uidvalidity, txn.modseq(), is_selectable, special_use)).fetchone()
    return folder_of(txn.execute(sql.FOLDER_BY_ID, (row[0],)).fetchone())


def _superiors(name: str) -> list[str]:
    levels = name.split(SEPARATOR)
    return [SEPARATOR.join(levels[:n]) for n in range(1, len(levels))]


def create(txn: Txn, name: str, special_use: bytes) -> Folder:
    """CREATE (RFC 3501 §6.3.3, RFC 6154 §3). A trailing separator only says that inferiors will follow."""
    name = checked(name.removesuffix(SEPARATOR))
    there = find(txn.execute, name)
    if there is not None and there.selectable:
        raise Refused("A folder of this name exists already.", b"ALREADYEXISTS")
    if special_use and txn.execute(sql.FOLDER_USE_TAKEN, (special_use,)).fetchone():
        raise Refused("Another folder has this special use already.", b"USEATTR")
    if txn.execute(sql.FOLDER_COUNT).fetchone()[0] >= MOST_FOLDERS:
        raise Refused(f"A mailbox can have {MOST_FOLDERS} folders; delete one first.", b"LIMIT")
    if there is not None:
        txn.execute(sql.FOLDER_DELETE, (there.id,))
    for superior in _superiors(name):
        if find(txn.execute, superior) is None:
            _insert(txn, superior, b"", True)
    return _insert(txn, name, special_use, True)


def first_folders(txn: Txn) -> None:
    """What a new mailbox has, subscribed; what is there already stays."""
    for name, special_use in FIRST_FOLDERS:
        if find(txn.execute, name) is None:
            _insert(txn, name, special_use, True)
        txn.execute(sql.SUBSCRIBE, (name,))


def delete(txn: Txn, name: str) -> None:
    """DELETE (RFC 3501 §6.3.4)."""
    folder = find(txn.execute, name)
    if folder is None:
        raise Refused("This folder does not exist.", b"NONEXISTENT")
    if folder.name == "INBOX":
        raise Refused("INBOX cannot be deleted.", b"CANNOT")
    inferiors = txn.execute(sql.FOLDER_INFERIORS, (folder.name,)).fetchone()
    if inferiors and not folder.selectable:
        raise Refused("This folder holds others; delete those first.", b"CANNOT")
    txn.modseq()  # tells the sessions that have it open
    expunge_all(txn, folder.id)
    txn.execute(sql.EXPUNGED_FORGET, (folder.id,))
    txn.execute(sql.FOLDER_KEYWORDS_FORGET, (folder.id,))
    txn.execute(sql.FOLDER_DELETE, (folder.id,))
    if inferiors:
        _insert(txn, folder.name, b"", False)


def rename(txn: Txn, old: str, new: str) -> None:
    """RENAME (RFC 3501 §6.3.5)."""
    folder = find(txn.execute, old)
    if folder is None:
        raise Refused("This folder does not exist.", b"NONEXISTENT")
    new = checked(new.removesuffix(SEPARATOR))
    if find(txn.execute, new) is not None:
        raise Refused("A folder of the new name exists already.", b"ALREADYEXISTS")
    if folder.name == "INBOX":
        move_all(txn, folder, create(txn, new, b""))
        return
    if new.startswith(folder.name + SEPARATOR):
        raise Refused("A folder cannot be moved into itself.", b"CANNOT")
    inferiors = txn.execute(sql.FOLDER_INFERIORS, (folder.name,)).fetchall()
    for superior in _superiors(new):
        if find(txn.execute, superior) is None:
            _insert(txn, superior, b"", True)
    txn.modseq()
    txn.execute(sql.FOLDER_RENAME, (new, folder.id))
    for ident, name in inferiors:
        txn.execute(sql.FOLDER_RENAME, (checked(new + name[len(folder.name) :]), ident))


def hide(txn: Txn, name: str, hidden: bool) -> Folder:
    """Mark a folder hidden, or no more."""
    folder = find(txn.execute, name)
    if folder is None:
        raise Refused("This folder does not exist.", b"NONEXISTENT")
    if folder.name == "INBOX":
        raise Refused("INBOX cannot be hidden.", b"CANNOT")
    txn.execute(sql.FOLDER_HIDE, (hidden, folder.id))
    return folder._replace(hidden=hidden)


def subscribe(txn: Txn, name: str, on: bool) -> None:
    """SUBSCRIBE and UNSUBSCRIBE (RFC 3501 §6.3.6, §6.3.7)."""
    if on:
        if txn.execute(sql.SUBSCRIPTION_COUNT).fetchone()[0] >= MOST_FOLDERS:
            raise Refused(f"A mailbox can have {MOST_FOLDERS} subscriptions; remove one first.", b"LIMIT")
        txn.execute(sql.SUBSCRIBE, (checked(name.removesuffix(SEPARATOR)),))
    elif _is_text(name):
        txn.execute(sql.UNSUBSCRIBE, (canonical(name.removesuffix(SEPARATOR)),))
