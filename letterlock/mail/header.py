"""Header blocks: their fields, and the values that have a syntax (RFC 5322 §2.2, RFC 2045 §5.1).

Every reader here takes any bytes, raises nothing, and needs time linear in them: the expressions are possessive, so
they never go back, and nested comments are counted, not recursed into. Lines may end in CRLF or in a bare LF.
"""

from __future__ import annotations

import datetime
import re
from typing import Final

MAX_PARAMS: Final = 500  # of one field; Dovecot CVE-2026-27859 was about their number

Params = list[tuple[bytes, bytes]]

# One field with its continuation lines: name, colon, value.
_FIELD: Final = re.compile(rb"([^:\n]*+)(:?+)([^\n]*+(?:\n[ \t][^\n]*+)*+)\n?+")
_FOLD: Final = re.compile(rb"[\r\n]++")
_COMMENT_MARK: Final = re.compile(rb"[()\\]")
_TOKEN_CHARACTERS: Final = rb"[!#$%&'*+\-.0-9A-Z^_`a-z{|}~]++"
_TYPE: Final = re.compile(
    rb"[ \t\r\n]*+(" + _TOKEN_CHARACTERS + rb")[ \t\r\n]*+/[ \t\r\n]*+(" + _TOKEN_CHARACTERS + rb")"
)
_TOKEN: Final = re.compile(rb"[ \t\r\n]*+([^\s;,=\"]++)")
_PARAM: Final = re.compile(
    rb";[ \t\r\n;]*+([^\s;=\"]++)[ \t\r\n]*+=[ \t\r\n]*+(?:\"((?:[^\"\\]++|\\.)*+)(?:\"|\Z|\\\Z)|([^\s;\"]*+))",
    re.DOTALL,
)
_OUTSIDE: Final = re.compile(rb"[^\"(]++|\"(?:[^\"\\]++|\\.)*+\"?+\\?+|\(", re.DOTALL)
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)
_CONTINUED: Final = re.compile(rb"([^*]++)\*([0-9]{1,4})(\*?)")
# RFC 5322 §3.3 with the obsolete forms, and the order of ctime() which some programs send.
_DATE: Final = re.compile(
    rb"[ \t]*+(?:[A-Za-z]{3,9}+[,.]?+[ \t]*+)?+([0-9]{1,2})[ \t-]++([A-Za-z]{3})[a-z]*+[ \t,-]++([0-9]{2,4})"
    rb"(?:[ \t,]++([0-9]{1,2})[:.]([0-9]{2})(?:[:.]([0-9]{2}))?(?:\.[0-9]++)?)?+[ \t]*+([+-][0-9]{4}|[A-Za-z]{1,5})?"
)
_CTIME: Final = re.compile(
    rb"[ \t]*+[A-Za-z]{3,9}+,?[ \t]++([A-Za-z]{3})[a-z]*+[ \t]++([0-9]{1,2})[ \t]++"
    rb"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?[ \t]++(?:([A-Za-z]{2,5}|[+-][0-9]{4})[ \t]++)?([0-9]{4})"
)
_MONTHS: Final = {
    month: number
    for number, month in enumerate(
        (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"), 1
    )
}
# RFC 5322 §4.3, in minutes; military letters and unknown names mean nothing reliable: UTC.
_ZONES: Final = {
    b"EST": -300,
    b"EDT": -240,
    b"CST": -360,
    b"CDT": -300,
    b"MST": -420,
    b"MDT": -360,
    b"PST": -480,
    b"PDT": -420,
}


def split_fields(header: bytes) -> list[tuple[bytes, bytes]]:
    """Lower-cased name and raw value (folded, without the line end) of every field, in order.

    Lines that are no field (no colon, a continuation of nothing) are left out, as Dovecot does.
    """
    return [
        (name.rstrip().lower(), value)
        for name, colon, value in _FIELD.findall(header)
        if colon and name[:1] not in (b" ", b"\t")
    ]


def fields(header: bytes) -> list[tuple[bytes, bytes]]:
    """Lower-cased name and the whole raw field with its folding and line end, in order.

    A line without a colon is there under the name b""; the empty line that ends the header is not.
    """
    found = []
    for match in _FIELD.finditer(header):
        raw = match[0]
        if not raw or raw in (b"\n", b"\r\n"):
            break
        name = match[1].rstrip().lower() if match[2] and raw[:1] not in (b" ", b"\t") else b""
        found.append((name, raw))
    return found


def select_fields(header: bytes, names: frozenset[bytes], invert: bool) -> bytes:
    """HEADER.FIELDS or, with `invert`, HEADER.FIELDS.NOT (RFC 3501 §6.4.5): with the empty line at the end.

    `names` in lower case. Each field comes as it was stored.
    """
    chosen = [raw for name, raw in fields(header) if (name in names) is not invert]
    if chosen and not chosen[-1].endswith(b"\n"):
        chosen[-1] += b"\r\n"
    chosen.append(b"\r\n")
    return b"".join(chosen)


def unfold(value: bytes) -> bytes:
    """A value on one line, without white space around it (RFC 5322 §2.2.3)."""
    value = value.strip(b" \t\r\n")
    return _FOLD.sub(b"", value) if b"\n" in value or b"\r" in value else value


def unescape(quoted: bytes) -> bytes:
    r"""The content of a quoted string: `\"` becomes `"`, line ends vanish."""
    if b"\\" in quoted:
        quoted = _ESCAPED.sub(rb"\1", quoted)
    return _FOLD.sub(b"", quoted) if b"\n" in quoted or b"\r" in quoted else quoted


def comment(value: bytes, start: int) -> tuple[bytes, int]:
    """Text of the comment whose parenthesis is at `start`, inner ones included, and where it ends."""
    depth = 0
    at = start
    while True:
        mark = _COMMENT_MARK.search(value, at)
        if mark is None:
            return unescape(value[start + 1 :]), len(value)
        at = mark.end()
        sign = mark[0]
        if sign == b"\\":
            at += 1
        elif sign == b"(":
            depth += 1
        else:
            depth -= 1
            if depth == 0:
                return unescape(value[start + 1 : at - 1]), at


def without_comments(value: bytes) -> bytes:
    """The value with every comment replaced by a space (RFC 5322 §3.2.2)."""
    if b"(" not in value:
        return value
    pieces = []
    at = 0
    while at < len(value):
        if value[at] == 40:
            _, at = comment(value, at)
            pieces.append(b" ")
            continue
        found = _OUTSIDE.match(value, at)
        if found is None:
            break
        pieces.append(found[0])
        at = found.end()
    return b"".join(pieces)


def params(value: bytes, start: int = 0) -> Params:
    """Parameters of a field without comments, from the first semicolon at or after `start` (RFC 2045 §5.1).

    Continued ones (RFC 2231 §3) are joined under the name `name*` when a segment is encoded, else `name`; encoded
    values stay encoded, for the client knows the character set it wants.
    """
    found: Params = []
    at = value.find(b";", start)
    while at >= 0 and len(found) < MAX_PARAMS:
        match = _PARAM.match(value, at)
        if match is None:
            at = value.find(b";", at + 1)
            continue
        name, quoted, plain = match.groups()
        found.append((name, unescape(quoted) if quoted is not None else plain))
        at = value.find(b";", match.end())
    if b"*" in value and any(b"*" in name for name, _ in found):
        return _joined(found)
    return found


def _joined(found: Params) -> Params:
    segments: dict[bytes, dict[int, tuple[bytes, bool]]] = {}
    order: list[tuple[bytes, bytes] | bytes] = []
    for name, text in found:
        match = _CONTINUED.fullmatch(name)
        if match is None:
            order.append((name, text))
            continue
        stem, number, star = match.groups()
        if stem.lower() not in segments:
            segments[stem.lower()] = {}
            order.append(stem)
        segments[stem.lower()].setdefault(int(number), (text, star == b"*"))
    result: Params = []
    for entry in order:
        if isinstance(entry, tuple):
            result.append(entry)
            continue
        parts = segments[entry.lower()]
        encoded = any(star for _, star in parts.values())
        text = b"".join(parts[number][0] for number in sorted(parts))
        result.append((entry + b"*" if encoded else entry, text))
    return result


def content_type(value: bytes) -> tuple[bytes, bytes, Params] | None:
    """Type and subtype in upper case, parameters; None for what is no Content-Type (RFC 2045 §5.2)."""
    value = without_comments(value)
    match = _TYPE.match(value)
    if match is None:
        return None
    return match[1].upper(), match[2].upper(), params(value, match.end()) if b";" in value else []


def disposition(value: bytes) -> tuple[bytes, Params] | None:
    """Content-Disposition (RFC 2183): its word and parameters."""
    value = without_comments(value)
    match = _TOKEN.match(value)
    return (match[1], params(value, match.end())) if match else None


def token(value: bytes) -> bytes | None:
    """The first word of a value, as of Content-Transfer-Encoding."""
    match = _TOKEN.match(without_comments(value))
    return bytes(match[1]) if match else None


def languages(value: bytes) -> list[bytes]:
    """The tags of Content-Language (RFC 3282)."""
    found = [_TOKEN.match(piece) for piece in without_comments(value).split(b",", MAX_PARAMS)[:MAX_PARAMS]]
    return [match[1] for match in found if match]


def _year(digits: bytes) -> int:
    """RFC 5322 §4.3: two and three digits."""
    year = int(digits)
    if len(digits) == 2:
        return year + (2000 if year < 50 else 1900)
    return year + 1900 if len(digits) == 3 else year


def parse_datetime(value: bytes) -> datetime.datetime | None:
    """A Date field as an aware moment; None when it is none. An unknown zone counts as UTC."""
    value = without_comments(unfold(value[:1000]))
    match = _DATE.match(value)
    if match is not None:
        day, month, year, hour, minute, second, zone = match.groups()
    else:
        match = _CTIME.match(value)
        if match is None:
            return None
        month, day, hour, minute, second, zone, year = match.groups()
    minutes = 0
    if zone and zone[0] in b"+-":
        minutes = int(zone[1:3]) * 60 + int(zone[3:5])
        minutes = -minutes if zone[0] == 45 else minutes
    elif zone:
        minutes = _ZONES.get(zone.upper(), 0)
    try:
        return datetime.datetime(
            _year(year),
            _MONTHS[month.lower()],
            int(day),
            int(hour or 0),
            int(minute or 0),
            min(int(second or 0), 59),  # a leap second
            tzinfo=datetime.timezone(datetime.timedelta(minutes=minutes)) if abs(minutes) < 1440 else datetime.UTC,
        )
    except (ValueError, KeyError, OverflowError):
        return None


def parse_date(value: bytes) -> datetime.date | None:
    """The day of a Date field as the sender wrote it, without time and zone (RFC 3501 §6.4.4 SENTON)."""
    moment = parse_datetime(value)
    return moment.date() if moment else None
