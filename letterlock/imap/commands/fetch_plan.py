"""What a FETCH asks for, compiled once: an item list becomes columns of the store and a template.

A FETCH is a SELECT and a template. `compile_plan` reads the item list of
RFC 3501 §6.4.5 as raw bytes and answers a `Plan`; plans are cached by those bytes, as clients send the same few
lists for ever. What a template cannot say (sections, previews) is a `Section` of the plan, rendered by `sections.py`.

In a response the items stand in this order, whatever the order asked for: MODSEQ, UID, FLAGS, the columns, the
sections. Literals come last because naive clients (users of Python's imaplib among them) look for UID and FLAGS
before the first literal only. An item asked for twice is answered once.

Item lists arrive with their literals (a header field name may be one), as `{n}` CR LF and n octets.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from letterlock.base.errors import Malformed
from letterlock.store.api import Column

MAX_SECTIONS: Final = 256  # each may be the whole message: a 10 KB command must not ask for 1000 of them
MAX_OFFSET: Final = 2**63 - 1  # RFC 9051 §9 number64; RFC 3501 has 32 bits
CACHED_LENGTH: Final = 1024  # longer item lists are compiled each time, so that the cache stays small
CACHED_PLANS: Final = 256


class Kind(enum.Enum):
    """What a section is cut from."""

    WHOLE = enum.auto()  # BODY[], RFC822
    HEADER = enum.auto()
    TEXT = enum.auto()
    FIELDS = enum.auto()  # HEADER.FIELDS and HEADER.FIELDS.NOT
    MIME = enum.auto()
    PART = enum.auto()  # BODY[1.2]: the body of that part
    PREVIEW = enum.auto()  # RFC 8970; not a section to the RFC, but rendered like one


class Section(NamedTuple):
    """One BODY[…]<…> of a plan."""

    label: bytes  # as the response spells it: b"BODY[1.MIME]<0> "
    kind: Kind
    part: tuple[int, ...] = ()
    names: tuple[bytes, ...] = ()  # of HEADER.FIELDS, in lower case
    invert: bool = False  # HEADER.FIELDS.NOT
    start: int = 0
    length: int = -1  # -1: all

    @property
    def columns(self) -> tuple[Column, ...]:
        """What the store must give for it."""
        if self.kind is Kind.PREVIEW:
            return (Column.PREVIEW,)
        if self.part or self.kind is Kind.WHOLE:
            return (Column.HEADER, Column.TEXT)
        return (Column.TEXT,) if self.kind is Kind.TEXT else (Column.HEADER,)


_COLUMN_ITEMS: Final = {
    b"INTERNALDATE": (Column.INTERNALDATE, b"%b"),
    b"RFC822.SIZE": (Column.SIZE, b"%d"),
    b"ENVELOPE": (Column.ENVELOPE, b"%b"),
    b"BODY": (Column.BODY, b"%b"),
    b"BODYSTRUCTURE": (Column.BODYSTRUCTURE, b"%b"),
}
_SECTION_ITEMS: Final = {
    b"RFC822": (Section(b"RFC822 ", Kind.WHOLE), True),
    b"RFC822.HEADER": (Section(b"RFC822.HEADER ", Kind.HEADER), False),
    b"RFC822.TEXT": (Section(b"RFC822.TEXT ", Kind.TEXT), True),
    b"PREVIEW": (Section(b"PREVIEW ", Kind.PREVIEW), False),
}
_MACROS: Final = {
    b"ALL": b"(FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)",
    b"FAST": b"(FLAGS INTERNALDATE RFC822.SIZE)",
    b"FULL": b"(FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODY)",
}
_SECTION_COLUMNS: Final = (Column.HEADER, Column.TEXT, Column.PREVIEW)

_ITEM: Final = re.compile(rb"[A-Za-z0-9.]+")
_SPEC: Final = re.compile(
    rb"\[(?:([0-9]+(?:\.[0-9]+)*)(?:\.(?=[A-Z])|(?=\])))?(HEADER(?:\.FIELDS(?:\.NOT)?)?|TEXT|MIME)?", re.IGNORECASE
)
_PARTIAL: Final = re.compile(rb"<([0-9]{1,19})\.([0-9]{1,19})>")
_LAZY: Final = re.compile(rb" \(LAZY\)", re.IGNORECASE)
_NAME: Final = re.compile(rb'"((?:[^"\\\r\n]|\\["\\])*)"|\{([0-9]{1,4})\+?\}\r\n|([^\x00-\x20\x7f-\xff(){%*"\\\]]+)')
_ESCAPED: Final = re.compile(rb"\\(.)")
_FIELD_NAME: Final = re.compile(rb"[!-9;-~]+")  # RFC 5322 §2.2 ftext
_PLAIN_NAME: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\\]]+')


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled item list."""

    uid: bool
    flags: bool
    modseq: bool
    columns: tuple[Column, ...]  # asked from the store; those of the template first, then those of the sections
    fields: tuple[bytes, ...]  # of the template: b"RFC822.SIZE %d", one for each of the first columns
    sections: tuple[Section, ...]
    sets_seen: bool  # a BODY[…] without PEEK is among them (RFC 3501 §6.4.5)

    def head(self, flags: bytes | None, modseq: bool) -> bytes:
        r"""A template of the response up to its sections: `* %d FETCH (UID %d FLAGS (\Seen) RFC822.SIZE %d`.

        Its values are the number, the modseq when asked for, the UID when the plan has it, then the columns. `flags`
        are written into the template itself: a folder has few distinct sets. Ends with ")" CR LF or, when sections
        follow, with the space before them.
        """
        items = [b"MODSEQ (%d)"] if modseq else []
        if self.uid:
            items.append(b"UID %d")
        if flags is not None:
            items.append(b"FLAGS (" + flags.replace(b"%", b"%%") + b")")
        items += self.fields
        end = b")\r\n"
        if self.sections:
            end = b" " if items else b""
        return b"* %d FETCH (" + b" ".join(items) + end

    @property
    def in_memory(self) -> bool:
        """Whether the session's view can answer without the store."""
        return not self.columns


class _Builder:
    """Collects items while a list is read."""

    def __init__(self, raw: bytes, uid: bool) -> None:
        self.raw = raw
        self.at = 0
        self.uid = uid
        self.flags = self.modseq = self.sets_seen = False
        self.columns: dict[Column, bytes] = {}
        self.sections: dict[Section, None] = {}

    def read(self) -> None:
        """fetch-att or "(" fetch-att *(SP fetch-att) ")" (RFC 3501 §9)."""
        if not self.raw.startswith(b"("):
            self.item()
        else:
            self.at = 1
            self.item()
            while self.raw.startswith(b" ", self.at):
                self.at += 1
                self.item()
            self.expect(b")")
        if self.at != len(self.raw):
            raise Malformed("FETCH: unexpected text after the items")

    def expect(self, what: bytes) -> None:
        if not self.raw.startswith(what, self.at):
            raise Malformed(f"FETCH: expected {what.decode()} in the items")
        self.at += len(what)

    def item(self) -> None:
        """One fetch-att."""
        match = _ITEM.match(self.raw, self.at)
        if match is None:
            raise Malformed("FETCH: expected the name of an item")
        name = match[0].upper()
        self.at = match.end()
        if name in (b"BODY", b"BODY.PEEK") and self.raw.startswith(b"[", self.at):
            self.section(peek=name == b"BODY.PEEK")
        elif name in _COLUMN_ITEMS:
            column, form = _COLUMN_ITEMS[name]
            self.columns[column] = name + b" " + form
        elif name in _SECTION_ITEMS:
            section, seen = _SECTION_ITEMS[name]
            self.add(section, seen)
            if section.kind is Kind.PREVIEW and (lazy := _LAZY.match(self.raw, self.at)):
                self.at = lazy.end()  # RFC 8970 §3.1: previews are made at delivery, so LAZY changes nothing
        elif name == b"UID":
            self.uid = True
        elif name == b"FLAGS":
            self.flags = True
        elif name == b"MODSEQ":
            self.modseq = True
        else:
            raise Malformed("FETCH: unknown item " + name[:40].decode())

    def add(self, section: Section, seen: bool) -> None:
        self.sections[section] = None
        self.sets_seen |= seen
        if len(self.sections) > MAX_SECTIONS:
            raise Malformed(f"FETCH: more than {MAX_SECTIONS} sections in one command")

    def section(self, peek: bool) -> None:
        """section ["<" number "." nz-number ">"] (RFC 3501 §9)."""
        match = _SPEC.match(self.raw, self.at)
        if match is None:
            raise Malformed("FETCH: expected a section")
        self.at = match.end()
        part = _part_numbers(match[1])
        text = (match[2] or b"").upper()
        if text == b"MIME" and not part:
            raise Malformed("FETCH: MIME needs a part number before it")
        names: tuple[bytes, ...] = ()
        label = b".".join([*(b"%d" % number for number in part), *([text] if text else [])])
        kind = _SECTION_KINDS[text] if text else Kind.PART if part else Kind.WHOLE
        if kind is Kind.FIELDS:
            spelled = self.field_names()
            names = tuple(name.lower() for name in spelled)
            label += b" (" + b" ".join(map(_spell, spelled)) + b")"
        self.expect(b"]")
        start, length, suffix = self.partial()
        self.add(
            Section(b"BODY[" + label + b"]" + suffix + b" ", kind, part, names, text.endswith(b"NOT"), start, length),
            not peek,
        )

    def partial(self) -> tuple[int, int, bytes]:
        """Start, length and the origin octet of the response; (0, -1, b"") when there is none."""
        if not self.raw.startswith(b"<", self.at):
            return 0, -1, b""
        match = _PARTIAL.match(self.raw, self.at)
        if match is None:
            raise Malformed("FETCH: expected <start.length> with numbers of at most 63 bits")
        start, length = int(match[1]), int(match[2])
        if start > MAX_OFFSET or not 0 < length <= MAX_OFFSET:
            raise Malformed("FETCH: expected <start.length> with a length from 1 and numbers of at most 63 bits")
        self.at = match.end()
        return start, length, b"<%d>" % start

    def field_names(self) -> list[bytes]:
        """SP "(" header-fld-name *(SP header-fld-name) ")" (RFC 3501 §9)."""
        self.expect(b" (")
        names = [self.field_name()]
        while self.raw.startswith(b" ", self.at):
            self.at += 1
            names.append(self.field_name())
        self.expect(b")")
        return names

    def field_name(self) -> bytes:
        match = _NAME.match(self.raw, self.at)
        if match is None:
            raise Malformed("FETCH: expected the name of a header field")
        self.at = match.end()
        quoted, size, atom = match.groups()
        if size is not None:
            name = self.raw[self.at : self.at + int(size)]
            self.at += int(size)
        elif quoted is not None:
            name = _ESCAPED.sub(rb"\1", quoted)
        else:
            name = atom
        if not _FIELD_NAME.fullmatch(name):
            raise Malformed("FETCH: a header field name holds printable ASCII characters without colon")
        return name

    def plan(self) -> Plan:
        columns = list(self.columns)
        wanted = {column for section in self.sections for column in section.columns}
        columns += [column for column in _SECTION_COLUMNS if column in wanted]
        return Plan(
            self.uid,
            self.flags,
            self.modseq,
            tuple(columns),
            tuple(self.columns.values()),
            tuple(self.sections),
            self.sets_seen,
        )


_SECTION_KINDS: Final = {
    b"HEADER": Kind.HEADER,
    b"HEADER.FIELDS": Kind.FIELDS,
    b"HEADER.FIELDS.NOT": Kind.FIELDS,
    b"TEXT": Kind.TEXT,
    b"MIME": Kind.MIME,
}


def _part_numbers(dotted: bytes | None) -> tuple[int, ...]:
    """section-part = nz-number *("." nz-number); a number of more than 32 bits names no part and is refused."""
    if dotted is None:
        return ()
    words = dotted.split(b".")
    if any(len(word) > 10 or not 0 < int(word) < 2**32 for word in words):
        raise Malformed("FETCH: part numbers are from 1 to 4294967295")
    return tuple(map(int, words))


def _spell(name: bytes) -> bytes:
    """A field name as an atom or a quoted string, as the client spelled it otherwise."""
    if _PLAIN_NAME.fullmatch(name):
        return name
    return b'"' + name.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def compile_plan(raw: bytes, uid: bool) -> Plan:
    """The plan of an item list; `uid` for UID FETCH, which answers the UID always (RFC 3501 §6.4.8).

    Raises Malformed.
    """
    return _cached(raw, uid) if len(raw) <= CACHED_LENGTH else _compile(raw, uid)


def _compile(raw: bytes, uid: bool) -> Plan:
    builder = _Builder(_MACROS.get(raw.upper(), raw), uid)
    builder.read()
    return builder.plan()


_cached = lru_cache(CACHED_PLANS)(_compile)
