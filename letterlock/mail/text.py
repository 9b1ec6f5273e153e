"""What a person reads or searches for in a message: decoded bodies, search text, preview."""

from __future__ import annotations

import html
import re
from typing import Final, NamedTuple

from letterlock.mail.charset import decode_words, from_transfer, to_text
from letterlock.mail.header import split_fields
from letterlock.mail.parts import Part, Raw, parse

MAX_TEXT: Final = 10 << 20  # characters of search text per message, headers and body each
PREVIEW_CHARACTERS: Final = 200  # RFC 8970 §3.1: at most 256, 200 recommended
_PREVIEW_OCTETS: Final = 8 << 10
_SPACE: Final = re.compile(r"\s++")
_INVISIBLE: Final = ("script", "style", "head", "title", "template", "noscript", "object", "svg")


class Searchable(NamedTuple):
    """Decoded text of a message; see `searchable`."""

    headers: str
    body: str


def decode_body(raw: Raw, part: Part) -> bytes:
    """The octets of a part's body without its transfer encoding."""
    data = bytes(raw[part.body : part.end])
    return data if part.encoding in (b"7BIT", b"7bit", b"8bit") else from_transfer(data, part.encoding)


def decode_fields(block: bytes) -> str:
    """`Name: value` lines of a header block, decoded; names in the sender's spelling do not matter to a search."""
    return "".join(
        [f"{name.decode('latin-1')}: {decode_words(value)}\n" for name, value in split_fields(block[:MAX_TEXT])]
    )


def searchable(raw: Raw) -> Searchable:
    """Text for SEARCH TEXT and BODY (RFC 3501 §6.4.4), at most 10 Mi characters (`MAX_TEXT`) of header and body each.

    The body holds, in order, the header fields of the parts, the text of every text part (HTML as its source), and
    embedded messages with their headers. NULs are spaces. What lies beyond the bound cannot be found.
    """
    root = parse(raw)
    top = decode_fields(bytes(raw[: min(root.body, MAX_TEXT)]))[:MAX_TEXT]
    pieces: list[str] = []
    room = MAX_TEXT
    todo = [root]
    while todo and room > 0:
        part = todo.pop()
        text = ""
        if part is not root and part.body > part.start:
            text = decode_fields(bytes(raw[part.start : min(part.body, part.start + room)]))
        if part.message is not None:
            todo.append(part.message)
        elif part.children:
            todo.extend(reversed(part.children))
        elif part.type in (b"TEXT", b"MESSAGE"):
            # No transfer encoding makes an octet of text from more than four.
            data = bytes(raw[part.body : min(part.end, part.body + 4 * room)])
            text += to_text(from_transfer(data, part.encoding), part.param(b"charset")) + "\n"
        if text:
            pieces.append(text[:room])
            room -= len(text)
    return Searchable(top.replace("\0", " "), "".join(pieces).replace("\0", " "))


def preview(raw: Raw, root: Part) -> str:
    """The first visible characters of the first text part, on one line (RFC 8970); "" when there is no text."""
    part = _first_text(root)
    if part is None:
        return ""
    data = bytes(raw[part.body : min(part.end, part.body + _PREVIEW_OCTETS)])
    text = to_text(from_transfer(data, part.encoding), part.param(b"charset"))
    if part.subtype == b"HTML":
        text = visible(text)
    words = text[: PREVIEW_CHARACTERS * 4].replace("\0", " ").split()
    short = " ".join(words)
    if len(short) < PREVIEW_CHARACTERS:
        short = " ".join(text.replace("\0", " ").split())
    return short[:PREVIEW_CHARACTERS].rstrip()


def _first_text(root: Part) -> Part | None:
    """The first text/plain part, else the first text/html, else any text part; attachments do not count."""
    todo = [root]
    fallback: Part | None = None
    while todo:
        part = todo.pop()
        if part.children:
            todo.extend(reversed(part.children))
        elif part.message is not None:
            todo.append(part.message)
        elif part.type == b"TEXT" and part.end > part.body:
            if part.disposition is not None and part.disposition[0].lower() == b"attachment":
                continue
            if part.subtype == b"PLAIN":
                return part
            if fallback is None or (fallback.subtype != b"HTML" and part.subtype == b"HTML"):
                fallback = part
    return fallback


def visible(source: str) -> str:
    """HTML without tags, comments and what is not shown; stops when there is enough for a preview. Linear."""
    pieces: list[str] = []
    length = 0
    lower = source.lower()
    if len(lower) != len(source):  # a few letters grow when lowered
        lower = source
    at = 0
    while length < PREVIEW_CHARACTERS * 3:
        opening = source.find("<", at)
        piece = source[at:] if opening < 0 else source[at:opening]
        if piece and not piece.isspace():
            piece = _SPACE.sub(" ", piece)
            pieces.append(piece)
            length += len(piece)
        if opening < 0:
            break
        if source.startswith("<!--", opening):
            closing = source.find("-->", opening)
            at = closing + 3
        else:
            name = lower[opening + 1 : opening + 12].split(">")[0].split(None, 1)
            if name and name[0] in _INVISIBLE:
                opening = lower.find(f"</{name[0]}", opening)
                if opening < 0:
                    break
            closing = source.find(">", opening)
            at = closing + 1
            pieces.append(" ")
        if closing < 0:
            break
    return html.unescape("".join(pieces))
