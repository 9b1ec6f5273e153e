"""Text search: folding, and the texts of messages kept for searches.

`fold` makes search disregard case (RFC 3501 §6.4.4), the same for what is kept and what is asked. The decoded, folded
texts are kept in a table that SQLite scans for substrings: exact by construction, for texts of any length, at about
4 µs a message of 3 KiB. (A trigram index was measured: 400 to 1400 µs and five times the text's size for each message
before the first search could be answered, against about 20 µs and once the size.)

Only searches fill the table, in batches: texts are extracted outside the transaction, which then checks that no other
process was faster, so the work of several workers adds up and a crash loses one batch at most.
"""

from __future__ import annotations

import unicodedata
from array import array
from typing import Final

import apsw

from letterlock.mail.mime import searchable
from letterlock.store import sqlite_sql as sql
from letterlock.store.sqlite_handles import Connection, Handle
from letterlock.store.sqlite_spool import read_part

BATCH_MESSAGES: Final = 250
BATCH_OCTETS: Final = 2 << 20
LARGEST_KEPT: Final = 4 << 20  # octets of text; larger ones are read from the message each time


def fold(text: str) -> str:
    """Text in the form in which it is compared: compatibility forms and case folded (RFC 5051 in spirit).

    Lone surrogates cannot be stored: they become question marks here, in the query as in the message.
    """
    if text.isascii():
        return text.lower()
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return text.encode("utf-8", "replace").decode()


def extract(raw: bytes) -> tuple[bytes, bytes]:
    """Folded header and body text of a message. One that cannot be read must not end every search: it is taken raw."""
    try:
        found = searchable(raw)
        return fold(found.headers).encode(), fold(found.body).encode()
    except (ValueError, LookupError, TypeError, RecursionError):
        return b"", fold(raw.decode("latin-1")).encode()


def read_raw(handle: Handle, db: Connection, content: int) -> bytes | None:
    """A whole message; None when it is gone."""
    row = db.execute(sql.RAW_ONE, (content,)).fetchone()
    if row is None:
        return None
    file, header, text = row
    return read_part(handle.bodies, file, 0, -1) if file else header + text


def holds(handle: Handle, db: Connection, content: int, text: bytes, with_header: bool) -> bool:
    """Whether a message holds the folded text; reads and parses it."""
    raw = read_raw(handle, db, content)
    if raw is None:
        return False
    headers, body = extract(raw)
    return text in body or (with_header and text in headers)


def fill(handle: Handle, db: Connection) -> None:
    """Keep the texts up to the newest content."""
    while _fill_batch(handle, db):
        pass


def _fill_batch(handle: Handle, db: Connection) -> bool:
    """Keep the texts of some more messages; False when there are none left."""
    indexed = db.execute(sql.INDEXED).fetchone()[0]
    contents: list[int] = []
    octets = 0
    for content, size in db.execute(sql.TO_INDEX, (indexed, BATCH_MESSAGES)):
        contents.append(content)
        octets += size
        if octets >= BATCH_OCTETS:
            break
    if not contents:
        return False
    texts: list[tuple[int, bytes | None, bytes | None]] = []
    for content in contents:
        raw = read_raw(handle, db, content)
        if raw is None:
            continue
        headers, body = extract(raw)
        kept = len(headers) + len(body) <= LARGEST_KEPT
        texts.append((content, headers, body) if kept else (content, None, None))
    db.execute(sql.BEGIN)
    try:
        if db.execute(sql.INDEXED).fetchone()[0] == indexed:
            # Content that was expunged since we read it must not enter: nothing would take it out again.
            db.executemany(sql.TEXT_INSERT, [t for t in texts if db.execute(sql.CONTENT_EXISTS, t[:1]).fetchone()])
            db.execute(sql.SET_INDEXED, (contents[-1],))
        db.execute(sql.COMMIT)
    except BaseException:
        if db.in_transaction:
            db.execute(sql.ROLLBACK)
        raise
    return True


def matches(handle: Handle, db: Connection, text: str, with_header: bool, contents: set[int]) -> set[int]:
    """Which of the contents hold the folded text. `fill` ran before; what came since then is read directly."""
    wanted = text.encode()
    indexed = db.execute(sql.INDEXED).fetchone()[0]
    kept = array("q", sorted(content for content in contents if content <= indexed))
    found: set[int] = set()
    doubtful = [content for content in contents if content > indexed]
    if kept:
        statement = sql.TEXT_CONTAINS if with_header else sql.BODY_CONTAINS
        for content, too_large in db.execute(statement, (apsw.carray(kept), wanted)):
            if too_large:
                doubtful.append(content)
            else:
                found.add(content)
    found.update(content for content in doubtful if holds(handle, db, content, wanted, with_header))
    return found
