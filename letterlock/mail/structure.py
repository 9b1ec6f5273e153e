"""A message at delivery: everything that listings and searches will ask of it, in the form they need.

ENVELOPE and BODYSTRUCTURE (RFC 3501 §7.4.2) are finished wire bytes. They hold a string as quoted string where the
grammar allows, else as literal; so they may hold CRLF and 8-bit octets, and must be sent as they are. Octet and line
counts are those of the message as stored.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from letterlock.mail.address import Address, addresses
from letterlock.mail.charset import decode_words
from letterlock.mail.header import Params, parse_date, split_fields, unfold
from letterlock.mail.parts import Part, Raw, count, parse
from letterlock.mail.text import preview

MAX_FIELD: Final = 1 << 20  # octets of one field that an ENVELOPE repeats; the header itself has the rest
MAX_SEARCH_TEXT: Final = 1 << 20  # characters of one field in the search columns

# quoted-string without escapes (RFC 3501 §9: TEXT-CHAR but no quoted-specials)
_PLAIN: Final = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-!#-\[\]-\x7f]*+").fullmatch
_QUOTABLE: Final = re.compile(rb"[\x01-\x09\x0b\x0c\x0e-\x7f]*+").fullmatch
_EMPTY_PART: Final = b'("TEXT" "PLAIN" ("CHARSET" "us-ascii") NIL NIL "7BIT" 0 0'
_NO_ENVELOPE: Final = b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"
_SENDERS: Final = (b"from", b"sender", b"reply-to")
_RECEIVERS: Final = (b"to", b"cc", b"bcc")


class Description(NamedTuple):
    """What is kept of a message beside its octets; the texts are for searches, `envelope`, `body` and
    `bodystructure` for the wire."""

    header_size: int
    envelope: bytes
    body: bytes
    bodystructure: bytes
    sent: str  # ISO day of the Date field as written, or ""
    message_id: str
    from_: str
    to: str
    cc: str
    bcc: str
    subject: str
    crlf_size: int  # octets if every line, the last one too, ended in CRLF (POP3)
    preview: str


def describe(raw: Raw) -> Description:
    """Everything at once. Takes any octets and does not raise."""
    root = parse(raw)
    heads = root.heads
    size = len(raw)
    dates = heads.get(b"date")
    day = parse_date(dates[-1]) if dates else None
    plain, extended = _structure(root)
    return Description(
        root.body,
        envelope(root),
        plain,
        extended,
        day.isoformat() if day else "",
        _text(root, b"message-id"),
        _text(root, b"from"),
        _text(root, b"to"),
        _text(root, b"cc"),
        _text(root, b"bcc"),
        _text(root, b"subject"),
        size + count(raw, b"\n", 0, size) - count(raw, b"\r\n", 0, size) + (0 if bytes(raw[-1:]) == b"\n" else 2),
        preview(raw, root),
    )


def _text(part: Part, name: bytes) -> str:
    values = part.heads.get(name)
    if values is None:
        return ""
    return "\n".join([decode_words(value[:MAX_SEARCH_TEXT]) for value in values])[:MAX_SEARCH_TEXT]


def header_text(header: bytes, name: str) -> str:
    """Decoded values of a field (any case), one a line, for SEARCH HEADER; "" when there is none or all are empty."""
    wanted = name.lower().encode("utf-8", "replace")
    return "\n".join([decode_words(value) for key, value in split_fields(header) if key == wanted])


def string(value: bytes) -> bytes:
    """A string as quoted string or literal (RFC 3501 §4.3); NUL, which neither can hold, becomes U+FFFD."""
    if _PLAIN(value) is not None:
        return b'"%b"' % value
    if b"\0" in value:
        value = value.replace(b"\0", b"\xef\xbf\xbd")
    if _QUOTABLE(value) is not None:
        return b'"%b"' % value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b"{%d}\r\n%b" % (len(value), value)


def nstring(value: bytes | None) -> bytes:
    """A string, or NIL."""
    return b"NIL" if value is None else string(value)


def _line(part: Part, name: bytes) -> bytes:
    """The last field of a name for ENVELOPE: white space is one space, as Dovecot sends it."""
    values = part.heads.get(name)
    if values is None:
        return b"NIL"
    value = values[-1].strip()[:MAX_FIELD]
    if b"\n" in value or b"  " in value or b"\t" in value or b"\r" in value:
        value = b" ".join(value.split())
    return string(value) if value else b"NIL"


def _address(address: Address) -> bytes:
    name, adl, mailbox, host = address
    if name is not None:
        name = b" ".join(name.split())
    if adl is None:
        return b"(%b NIL %b %b)" % (nstring(name or None), nstring(mailbox), nstring(host))
    return b"(%b %b %b %b)" % (nstring(name or None), nstring(adl), nstring(mailbox), nstring(host))


def _address_list(part: Part, name: bytes) -> bytes:
    values = part.heads.get(name)
    if values is None:
        return b"NIL"
    found = [_address(address) for value in values for address in addresses(value[:MAX_FIELD])]
    return b"(%b)" % b"".join(found) if found else b"NIL"


def envelope(part: Part) -> bytes:
    """ENVELOPE of a message (RFC 3501 §7.4.2): an absent or empty Sender and Reply-To is From."""
    if not part.heads:
        return _NO_ENVELOPE
    from_, sender, reply_to = (_address_list(part, name) for name in _SENDERS)
    to, cc, bcc = (_address_list(part, name) for name in _RECEIVERS)
    return b"(%b %b %b %b %b %b %b %b %b %b)" % (
        _line(part, b"date"),
        _line(part, b"subject"),
        from_,
        from_ if sender == b"NIL" else sender,
        from_ if reply_to == b"NIL" else reply_to,
        to,
        cc,
        bcc,
        _line(part, b"in-reply-to"),
        _line(part, b"message-id"),
    )


def _params(params: Params) -> bytes:
    if not params:
        return b"NIL"
    return b"(%b)" % b" ".join([b"%b %b" % (string(name), string(value)) for name, value in params])


def _extension(part: Part) -> bytes:
    """Disposition, language and location: the same for both kinds of part."""
    disposition = b"NIL"
    if part.disposition is not None:
        disposition = b"(%b %b)" % (string(part.disposition[0]), _params(part.disposition[1]))
    language = b"NIL"
    if part.language:
        language = b"(%b)" % b" ".join([string(tag) for tag in part.language])
    return b" %b %b %b" % (disposition, language, nstring(part.location))


def _structure(part: Part) -> tuple[bytes, bytes]:
    """BODY and BODYSTRUCTURE of a part; depth is bounded by the parser."""
    if part.type == b"MULTIPART":
        return _multipart(part)
    params = part.params
    if part.type == b"TEXT" and part.param(b"charset") is None:
        params = [*params, (b"CHARSET", b"us-ascii")]  # RFC 2045 §5.2
    plain = extended = b"(%b %b %b %b %b %b %d" % (
        string(part.type),
        string(part.subtype),
        _params(params),
        nstring(part.id),
        nstring(part.description),
        string(part.encoding),
        part.end - part.body,
    )
    if part.message is not None:
        inner = envelope(part.message)
        inner_plain, inner_extended = _structure(part.message)
        plain += b" %b %b %d" % (inner, inner_plain, part.lines)
        extended += b" %b %b %d" % (inner, inner_extended, part.lines)
    elif part.type == b"TEXT":
        plain += b" %d" % part.lines
        extended = plain
    return plain + b")", b"%b %b%b)" % (extended, nstring(part.md5), _extension(part))


def _multipart(part: Part) -> tuple[bytes, bytes]:
    children = [_structure(child) for child in part.children]
    if children:
        plain = b"".join([child[0] for child in children])
        extended = b"".join([child[1] for child in children])
    else:
        # The grammar wants at least one part.
        plain, extended = _EMPTY_PART + b")", _EMPTY_PART + b" NIL NIL NIL NIL)"
    subtype = string(part.subtype)
    return (
        b"(%b %b)" % (plain, subtype),
        b"(%b %b %b%b)" % (extended, subtype, _params(part.params), _extension(part)),
    )


__all__ = ["Description", "describe", "envelope", "header_text", "nstring", "string", "unfold"]
