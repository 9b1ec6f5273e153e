"""What travels: messages with flags and dates, on their way from a file or another server into a mailbox, or out of it.

Line ends: files have the system's, mail has CRLF. A message whose lines do not all end in CRLF, or whose end is not a
line's end, would come back as another one: it is written octet by octet, marked as exact.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable
from typing import Final, NamedTuple

from letterlock.base.errors import Refused
from letterlock.store.api import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN, SYSTEM_FLAGS, Flags, Spool

CHUNK: Final = 65536
EXPORT_MARK: Final = ".letterlock-export"  # in a directory that an export is writing
STATUS: Final = (("R", SEEN), ("A", ANSWERED), ("F", FLAGGED), ("D", DELETED), ("T", DRAFT))
MAX_KEYWORD: Final = 200
_SYSTEM: Final = {name.lower(): bit for bit, name in SYSTEM_FLAGS}
_ATOM_ENDS: Final = frozenset(b'(){ %*"\\]\x7f')

Open = Callable[[], Spool]


class Found(NamedTuple):
    """A message of a source. `skipped`: why it cannot be taken; its spool is empty then."""

    folder: str
    spool: Spool
    flags: Flags
    date: datetime.datetime | None
    digest: str  # of its octets, to know it again
    read: int  # octets of the source that have been read so far
    skipped: str = ""


def to_lf(raw: bytes) -> bytes | None:
    """With the system's line ends; None when the message would not come back the same."""
    text = raw.replace(b"\r\n", b"\n")
    every_end_is_crlf = text.count(b"\n") + len(text) == len(raw)
    return text if every_end_is_crlf and b"\r\r\n" not in raw and (not raw or raw.endswith(b"\r\n")) else None


class Intake:
    """Octets of one message into a spool, hashed on the way; what is too large is let go, and said."""

    def __init__(self, open_spool: Open) -> None:
        self.spool = open_spool()
        self.skipped = ""
        self._hash = hashlib.blake2b(digest_size=16)

    def write(self, data: bytes) -> None:
        """Add octets as the mailbox is to have them."""
        if self.skipped:
            return
        try:
            self.spool.write(data)
        except Refused as error:
            if error.code != b"TOOBIG":
                raise
            self.skipped = error.text
            self.spool.close()
            return
        self._hash.update(data)

    def close(self) -> None:
        """Throw it away."""
        self.spool.close()

    def found(self, folder: str, flags: Flags, date: datetime.datetime | None, read: int) -> Found:
        """The message, whole."""
        return Found(folder, self.spool, flags, date, self._hash.hexdigest(), read, self.skipped)


def keyword(text: bytes) -> bytes | None:
    r"""A keyword as the mailbox takes it (RFC 3501 §9, atom); None for what is none: \Recent, controls, blanks."""
    if not text or len(text) > MAX_KEYWORD or any(c < 33 or c > 126 or c in _ATOM_ENDS for c in text):
        return None
    return text


def flags_of(names: list[bytes]) -> Flags:
    r"""Flags from IMAP's names; what is not known (\Recent) is left out."""
    system = 0
    keywords: dict[bytes, bytes] = {}
    for name in names:
        bit = _SYSTEM.get(name.lower())
        if bit:
            system |= bit
        elif (word := keyword(name)) is not None:
            keywords.setdefault(word.lower(), word)
    return Flags(system, tuple(sorted(keywords.values())))


def letters(flags: int, table: tuple[tuple[str, int], ...]) -> str:
    """The letters of a format for system flags."""
    return "".join(letter for letter, bit in table if flags & bit)
