"""Rendering: strings, number sets, response codes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from letterlock.store.api import Appended, Copied

_QUOTABLE: Final = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x7f]*")


def string(value: bytes) -> bytes:
    """quoted when it can be, else a literal (RFC 3501 §4.3)."""
    if len(value) < 1024 and _QUOTABLE.fullmatch(value):
        return b'"' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
    return literal(value)


def literal(value: bytes) -> bytes:
    """{n} CR LF and the octets."""
    return b"{%d}\r\n%b" % (len(value), value)


def nstring(value: bytes | None) -> bytes:
    """string or NIL."""
    return b"NIL" if value is None else string(value)


def text(sentence: str) -> bytes:
    """A sentence for resp-text: one line, ASCII, never empty, never looking like a response code."""
    clean = "".join(c if " " <= c <= "~" else "?" for c in sentence).strip() or "?"
    return clean.lstrip("[").encode()


def code(word: bytes) -> bytes:
    """[CODE] and a space; nothing where there is none."""
    return b"[" + word + b"] " if word else b""


def number_set(numbers: Iterable[int]) -> bytes:
    """`1:3,5` from ascending numbers (or from the order given, where that matters)."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return b",".join(b"%d" % a if a == b else b"%d:%d" % (a, b) for a, b in runs)


def copyuid(copied: Copied) -> bytes:
    """COPYUID (RFC 4315 §3): both sets in the order the copies were made."""
    return b"COPYUID %d %b %b" % (copied.uidvalidity, number_set(copied.source), number_set(copied.target))


def appenduid(appended: Appended) -> bytes:
    """APPENDUID (RFC 4315 §3)."""
    return b"APPENDUID %d %b" % (appended.uidvalidity, number_set(appended.uids))
