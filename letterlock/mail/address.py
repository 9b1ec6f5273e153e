"""Address lists (RFC 5322 §3.4) in the form in which ENVELOPE shows them (RFC 3501 §7.4.2).

Ordinary addresses are taken by one expression each; from the first one that is not ordinary, a scanner over tokens
goes on. It recovers from any error at the next comma. A missing part is filled as Dovecot fills it, since NIL as
host name would mean a group.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from letterlock.mail.header import comment, unescape

MAX_ADDRESSES: Final = 10_000  # of one field; Dovecot CVE-2024-23184 was about their number
NO_MAILBOX: Final = b"MISSING_MAILBOX"
NO_HOST: Final = b"MISSING_DOMAIN"


class Address(NamedTuple):
    """One address; a group begins with (None, None, name, None) and ends with four times None."""

    name: bytes | None
    adl: bytes | None
    mailbox: bytes | None
    host: bytes | None


GROUP_END: Final = Address(None, None, None, None)

_ATOM: Final = rb"[!#$%&'*+\-/=?^_`{|}~0-9A-Za-z.\x80-\xff]++"
_SIMPLE: Final = re.compile(
    rb"[ \t\r\n]*+(?:(?:\"([^\"\\\r\n]*+)\"|(" + _ATOM + rb"(?: " + _ATOM + rb")*+))?+[ \t]*+"
    rb"<(" + _ATOM + rb")@(" + _ATOM + rb")>|(" + _ATOM + rb")@(" + _ATOM + rb"))[ \t\r\n]*+(?:,|\Z)"
)
# space, quoted string, domain literal, word, or one special character
_TOKEN: Final = re.compile(
    rb"[ \t\r\n\x00]++|\"((?:[^\"\\]++|\\.)*+)(?:\"|\\?\Z)|(\[[^\[\]\\\r\n]*+\])|([^\s\x00\"(),:;<>@\[\]\\]++)|.",
    re.DOTALL,
)


def addresses(value: bytes) -> list[Address]:
    """Every address of a field's value (folded or not), groups with their markers."""
    found: list[Address] = []
    at = 0
    size = len(value)
    while at < size and len(found) < MAX_ADDRESSES:
        match = _SIMPLE.match(value, at)
        if match is None:
            _Scanner(value, at, found).run()
            break
        quoted, phrase, local, host, bare, bare_host = match.groups()
        if bare is None:
            found.append(Address(quoted or phrase or None, None, local, host))
        else:
            found.append(Address(None, None, bare, bare_host))
        at = match.end()
    return found


class _Scanner:
    """One pass over the tokens of a list. `words` is what stands before the next sign."""

    __slots__ = ("at", "found", "group", "note", "value", "words")

    def __init__(self, value: bytes, at: int, found: list[Address]) -> None:
        self.value = value
        self.at = at
        self.found = found
        self.words: list[bytes] = []
        self.note: bytes | None = None  # the latest comment: the name of an address without one
        self.group = False

    def next(self) -> tuple[bytes, bytes]:
        """The next token as (kind, text): b"w" a word, b"[" a domain literal, the sign itself, b"" at the end."""
        size = len(self.value)
        while self.at < size:
            if self.value[self.at] == 40:
                self.note, self.at = comment(self.value, self.at)
                continue
            match = _TOKEN.match(self.value, self.at)
            if match is None:
                break
            self.at = match.end()
            if match[1] is not None:
                return b"w", unescape(match[1])
            if match[3] is not None:
                return b"w", match[3]
            if match[2] is not None:
                return b"[", match[2]
            if match[0].strip(b" \t\r\n\x00"):
                return match[0], match[0]
        return b"", b""

    def run(self) -> None:
        """To the end of the value, or of what is allowed."""
        found = self.found
        while len(found) < MAX_ADDRESSES:
            kind, text = self.next()
            if kind == b"w":
                self.words.append(text)
            elif kind == b"<":
                self.angle()
            elif kind == b"@":
                self.bare()
            elif kind == b":" and not self.group:
                found.append(Address(None, None, b" ".join(self.words) or b"", None))
                self.words = []
                self.note = None
                self.group = True
            elif kind in (b",", b";", b""):
                self.lone()
                if kind == b";" and self.group:
                    found.append(GROUP_END)
                    self.group = False
                if not kind:
                    break
        if self.group:
            found.append(GROUP_END)

    def put(self, name: bytes | None, adl: bytes | None, mailbox: bytes | None, host: bytes | None) -> None:
        """An address; words begin anew."""
        self.found.append(Address(name or self.note or None, adl or None, mailbox or NO_MAILBOX, host or NO_HOST))
        self.words = []
        self.note = None

    def lone(self) -> None:
        """Words that no sign made an address."""
        if self.words:
            self.put(None, None, b" ".join(self.words), None)
        self.note = None

    def domain(self) -> tuple[bytes, bytes]:
        """Words after an at sign, and the sign that ended them (not consumed unless it is `>`)."""
        pieces: list[bytes] = []
        while True:
            before = self.at
            kind, text = self.next()
            if kind not in (b"w", b"["):
                if kind != b">":
                    self.at = before
                return b"".join(pieces), kind
            pieces.append(text)

    def bare(self) -> None:
        """`local@domain`, with the local part in `words`; words before it can only be a name that lacks its `<`."""
        local = b"".join(self.words) if len(self.words) < 4 else b" ".join(self.words)
        host, _ = self.domain()
        self.skip()
        self.put(None, None, local, host)

    def skip(self) -> None:
        """To the comma, semicolon or end after an address; comments on the way are kept."""
        while True:
            before = self.at
            kind, _ = self.next()
            if kind in (b",", b";", b""):
                self.at = before
                # A comment between here and there has been noted; the sign is read again by `run`.
                return

    def angle(self) -> None:
        """After `<`: route, local part, domain, `>` (RFC 5322 §4.4)."""
        name = b" ".join(self.words)
        local: list[bytes] = []
        route: list[bytes] = []
        host = b""
        kind, text = self.next()
        while kind == b"@" and not local:
            hop, _ = self.domain()
            route.append(b"@" + hop)
            kind, text = self.next()
            if kind == b",":
                kind, text = self.next()
        if kind == b":":
            kind, text = self.next()
        elif len(route) == 1:
            host = route.pop()[1:]
        while kind == b"w":
            local.append(text)
            kind, text = self.next()
        if kind == b"@":
            host, kind = self.domain()
        elif kind in (b",", b";"):
            self.at -= 1
        if kind != b">":
            self.skip()
        else:
            self.words = []
            self.skip()
        self.put(name, b",".join(route), b"".join(local), host)
