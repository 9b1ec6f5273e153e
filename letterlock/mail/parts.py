"""A raw message as a tree of parts by offsets; nothing is copied but header blocks (RFC 2045, RFC 2046).

One pass: lines that begin with two hyphens are compared with the boundaries of all open multiparts, the innermost
first, the longest that matches wins, and the rest of the line does not matter (RFC 2046 §5.1.1). Header ends and such
lines are searched forwards only, so time is linear however parts are nested; depth and number of parts are bounded
with Dovecot's figures. Beyond the depth a part is opaque; beyond the number, the last part holds the rest.
"""

from __future__ import annotations

import mmap
import re
from typing import Final

from letterlock.mail import header as headers
from letterlock.mail.header import Params

Raw = bytes | memoryview | mmap.mmap

MAX_DEPTH: Final = 100
MAX_PARTS: Final = 10_000
MAX_BOUNDARY: Final = 200  # RFC 2046 allows 70; longer ones are compared by their beginning
MAX_REPEATS: Final = 1_000  # fields of one name that are kept

_BLANK: Final = re.compile(rb"\n\r?\n")
_DASHES: Final = re.compile(rb"\n--")
_LINE_END: Final = re.compile(rb"\n")
_CHUNK: Final = 1 << 20

# What is kept of a header: what ENVELOPE, BODYSTRUCTURE and the header search columns need.
_KEPT: Final = frozenset(
    (
        b"content-type",
        b"content-transfer-encoding",
        b"content-id",
        b"content-description",
        b"content-md5",
        b"content-disposition",
        b"content-language",
        b"content-location",
        b"date",
        b"subject",
        b"from",
        b"sender",
        b"reply-to",
        b"to",
        b"cc",
        b"bcc",
        b"in-reply-to",
        b"message-id",
    )
)


class Part:
    """A body part, or a message: header from `start`, body from `body` to `end`.

    `type` and `subtype` are in capitals and have their defaults; the strings are as sent, on one line. `heads` holds
    the raw values of the fields that listings need, by lower-case name, in order.
    """

    __slots__ = (
        "_lines",
        "_raw",
        "body",
        "children",
        "description",
        "disposition",
        "encoding",
        "end",
        "heads",
        "id",
        "language",
        "location",
        "md5",
        "message",
        "params",
        "start",
        "subtype",
        "type",
    )

    def __init__(self, raw: Raw, start: int) -> None:
        self._raw = raw
        self._lines = -1
        self.start = start
        self.body = start
        self.end = start
        self.type = b"TEXT"
        self.subtype = b"PLAIN"
        self.params: Params = []
        self.encoding = b"7BIT"  # as sent
        self.id: bytes | None = None
        self.description: bytes | None = None
        self.md5: bytes | None = None
        self.disposition: tuple[bytes, Params] | None = None
        self.language: list[bytes] = []
        self.location: bytes | None = None
        self.children: list[Part] = []
        self.message: Part | None = None
        self.heads: dict[bytes, list[bytes]] = {}

    @property
    def lines(self) -> int:
        """Line ends in the body; counted when first asked for."""
        if self._lines < 0:
            self._lines = count(self._raw, b"\n", self.body, self.end)
        return self._lines

    @property
    def size(self) -> int:
        """Octets of the body as stored."""
        return self.end - self.body

    def param(self, name: bytes) -> bytes | None:
        """A parameter of Content-Type by its lower-case name."""
        for key, value in self.params:
            if key.lower() == name:
                return value
        return None


def count(raw: Raw, what: bytes, start: int, end: int) -> int:
    """How often `what` (one or two octets) occurs; a mapped file is read in pieces."""
    if isinstance(raw, bytes):
        return raw.count(what, start, end)
    found = 0
    for at in range(start, end, _CHUNK):
        found += bytes(raw[at : min(at + _CHUNK + len(what) - 1, end)]).count(what)
    return found


def header_end(raw: Raw) -> int:
    """Octets of the header block with its empty line; the whole message when there is none (RFC 5322 §2.1)."""
    start = bytes(raw[:2])
    if start[:1] == b"\n":
        return 1
    if start == b"\r\n":
        return 2
    found = _BLANK.search(raw)
    return found.end() if found else len(raw)


def parse(raw: Raw) -> Part:
    """The part tree of a message. Takes any octets."""
    return _Parser(raw).run()


def find(root: Part, numbers: tuple[int, ...]) -> Part | None:
    """The part with an IMAP section number (RFC 3501 §6.4.5), None when there is none; () is the message itself.

    1 of a message that is no multipart is its body; numbers go on through message/rfc822.
    """
    node = root
    whole = True  # `node` is a message, so that 1 may name its body
    for number in numbers:
        if not whole and node.message is not None:
            node = node.message
            whole = True
        if node.type == b"MULTIPART" and node.message is None:
            if not 1 <= number <= len(node.children):
                return None
            node = node.children[number - 1]
        elif not whole or number != 1:
            return None
        whole = False
    return node


class _Parser:
    """The one pass. `path` holds the open parts, outermost first; `bounds` the boundaries among them."""

    __slots__ = ("blank_at", "blank_end", "bounds", "dash_at", "parts", "path", "prefixes", "raw", "size")

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.size = len(raw)
        self.path: list[Part] = []
        self.bounds: list[tuple[bytes, int]] = []  # boundary, index of its multipart in `path`
        self.prefixes: tuple[bytes, ...] = ()
        self.parts = 0
        self.blank_at = -1  # the next empty line: found once, used until passed
        self.blank_end = 0
        self.dash_at = -1  # the next line with two hyphens, likewise

    def run(self) -> Part:
        """Parts one after the other until the end of the message."""
        root = Part(self.raw, 0)
        self.path.append(root)
        self.parts = 1
        while True:
            part = self.path[-1]
            hit = self.header(part)
            while hit is None and self.path[-1] is not part:  # the message within a message part
                part = self.path[-1]
                hit = self.header(part)
            if hit is None:
                hit = self.boundary(self.path[-1].body - 1, self.size)
            if not self.next_part(hit):
                return root

    def next_part(self, hit: tuple[int, int, bool] | None) -> bool:
        """Close what the boundary ends and open the part after it; False at the end of the message."""
        while hit is not None:
            at, index, closing = hit
            self.close(index + 1, at)
            following = self.line_end(at + 1)
            if not closing:
                self.parts += 1
                child = Part(self.raw, min(following + 1, self.size))
                if self.parts >= MAX_PARTS:
                    self.limit_bounds(-1)
                self.path[index].children.append(child)
                self.path.append(child)
                self.limit_bounds(index)
                return True
            self.limit_bounds(index - 1)
            hit = self.boundary(following, self.size)
        self.close(0, self.size)
        return False

    def close(self, index: int, at: int) -> None:
        """End the open parts from `index` on before the line end at `at`, which belongs to the boundary."""
        cut = at
        if at < self.size and at > 0 and self.raw[at - 1 : at] == b"\r":
            cut -= 1
        for part in self.path[index:]:
            part.end = max(part.body, cut)
        del self.path[index:]

    def limit_bounds(self, index: int) -> None:
        """Forget the boundaries of multiparts beyond `index` in the path."""
        if self.bounds and self.bounds[-1][1] > index:
            self.bounds = [bound for bound in self.bounds if bound[1] <= index]
            self.prefixes = tuple(bound[0] for bound in self.bounds)

    def line_end(self, at: int) -> int:
        """Position of the next line end, or the end of the message."""
        found = _LINE_END.search(self.raw, at)
        return found.start() if found else self.size

    def boundary(self, start: int, limit: int) -> tuple[int, int, bool] | None:
        """The next boundary line whose preceding line end is in [start, limit).

        As (position of that line end, index of the multipart in `path`, whether it closes).
        """
        prefixes = self.prefixes
        if not prefixes:
            return None
        raw = self.raw
        at = start
        while True:
            if self.dash_at < at:
                found = _DASHES.search(raw, max(at, 0))
                self.dash_at = found.start() if found else self.size
            at = self.dash_at
            if at >= limit:
                return None
            line = bytes(raw[at + 3 : at + 3 + MAX_BOUNDARY + 2])
            if line.startswith(prefixes):
                best = b""
                index = -1
                for boundary, owner in reversed(self.bounds):
                    if len(boundary) > len(best) and line.startswith(boundary):
                        best, index = boundary, owner
                return at, index, line.startswith(b"--", len(best))
            at += 1

    def header(self, part: Part) -> tuple[int, int, bool] | None:
        """Read the header of the newest part and open what it contains; a boundary within the header ends both."""
        raw = self.raw
        start = part.start
        first = bytes(raw[start : start + 2])
        if first[:1] == b"\n" or first == b"\r\n":
            last, body = start, start + (1 if first[:1] == b"\n" else 2)
        else:
            if self.blank_at < start:
                found = _BLANK.search(raw, start)
                self.blank_at, self.blank_end = (found.start(), found.end()) if found else (self.size, self.size)
            last, body = self.blank_at, self.blank_end
        hit = self.boundary(start - 1, last) if self.prefixes else None
        if hit is not None:
            last = body = max(start, hit[0] + 1)
        part.body = part.end = body
        if last > start:
            self.describe(part, bytes(raw[start:last]))
        else:
            self.default(part)
        self.open(part, hit is not None)
        return hit

    def default(self, part: Part) -> None:
        """Below multipart/digest a part without Content-Type is a message (RFC 2046 §5.1.5)."""
        if len(self.path) > 1:
            above = self.path[-2]
            if above.subtype == b"DIGEST" and above.type == b"MULTIPART":
                part.type, part.subtype = b"MESSAGE", b"RFC822"

    def describe(self, part: Part, block: bytes) -> None:
        """Take from a header block what structures need."""
        heads = part.heads
        for name, value in headers.split_fields(block):
            if name in _KEPT:
                known = heads.get(name)
                if known is None:
                    heads[name] = [value]
                elif len(known) < MAX_REPEATS:
                    known.append(value)
        values = heads.get(b"content-type")
        if values is None:
            self.default(part)
        else:
            found = headers.content_type(values[0])  # of several the first counts, as for most programs
            if found is not None:
                part.type, part.subtype, part.params = found
        for name in heads:
            if name.startswith(b"content-") and name != b"content-type":
                _content_field(part, name, heads[name][-1])

    def open(self, part: Part, finished: bool) -> None:
        """Containers: remember the boundary of a multipart, begin the message within a message part."""
        if len(self.path) >= MAX_DEPTH:
            return
        if part.type == b"MULTIPART":
            boundary = (part.param(b"boundary") or b"").strip()[:MAX_BOUNDARY]
            if boundary and not finished and self.parts < MAX_PARTS:
                self.bounds.append((boundary, len(self.path) - 1))
                self.prefixes = tuple(bound[0] for bound in self.bounds)
        elif part.type == b"MESSAGE" and part.subtype in (b"RFC822", b"GLOBAL") and self.parts < MAX_PARTS:
            message = Part(self.raw, part.body)
            message.end = message.body
            part.message = message
            self.parts += 1
            if not finished:
                self.path.append(message)


def _content_field(part: Part, name: bytes, raw_value: bytes) -> None:
    """One of the Content- fields besides the type."""
    value = headers.unfold(raw_value)
    match name:
        case b"content-transfer-encoding":
            part.encoding = headers.token(value) or part.encoding
        case b"content-id":
            part.id = value
        case b"content-description":
            part.description = value
        case b"content-md5":
            part.md5 = value
        case b"content-disposition":
            part.disposition = headers.disposition(value)
        case b"content-language":
            part.language = headers.languages(value)
        case b"content-location":
            part.location = value
