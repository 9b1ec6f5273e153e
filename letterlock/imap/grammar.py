"""Character classes and small grammars of RFC 3501 §9: sequence sets, modified UTF-7, dates, list patterns."""

from __future__ import annotations

import base64
import binascii
import datetime
import re
from functools import lru_cache
from typing import Final

from letterlock.base.errors import Malformed

ATOM: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
ASTRING_ATOM: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\]+')
LIST_ATOM: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){"\\]+')
QUOTED: Final = re.compile(rb'"((?:[^"\\\r\n\x00]|\\["\\])*)"')
LITERAL: Final = re.compile(rb"\{([0-9]{1,10})\+?\}\r\n")
NUMBER: Final = re.compile(rb"[0-9]+")
SEQUENCE_SET: Final = re.compile(rb"\$|[0-9*][0-9:*,]*")
TAG: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\+]+')
ESCAPED: Final = re.compile(rb'\\(["\\])')
FLAG: Final = re.compile(rb'\\?[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
MAX_NUMBER: Final = 2**32 - 1
MAX_RANGES: Final = 5000
STAR: Final = 0  # "*" in a NumberSet: the largest number in use

NumberSet = tuple[tuple[int, int], ...]  # ((1, 4), (7, STAR)); SAVED for "$" (RFC 5182)
SAVED: Final[NumberSet] = ((-1, -1),)

MONTHS: Final = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")
_MONTH_NUMBER: Final = {m.lower(): n for n, m in enumerate(MONTHS, 1)}
_DATE: Final = re.compile(rb"([0-9]{1,2})-([A-Za-z]{3})-([0-9]{4})")
_DATE_TIME: Final = re.compile(
    rb"([ 0-9][0-9])-([A-Za-z]{3})-([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})"
)


def _number(text: bytes) -> int:
    if text == b"*":
        return STAR
    if not text.isdigit() or len(text) > 10 or not 0 < int(text) <= MAX_NUMBER:
        raise Malformed("expected numbers from 1 to 4294967295 in the message set")
    return int(text)


def number_set(text: bytes) -> NumberSet:
    """sequence-set (RFC 3501 §9); ranges as given, STAR where `*` stands."""
    if text == b"$":
        return SAVED
    parts = text.split(b",")
    if len(parts) > MAX_RANGES:
        raise Malformed(f"more than {MAX_RANGES} ranges in a message set")
    found = []
    for part in parts:
        low, colon, high = part.partition(b":")
        first = _number(low)
        found.append((first, _number(high) if colon else first))
    return tuple(found)


def date(text: bytes) -> datetime.date:
    """date-text: 1-Feb-1994."""
    match = _DATE.fullmatch(text)
    try:
        if match:
            return datetime.date(int(match[3]), _MONTH_NUMBER[match[2].lower()], int(match[1]))
    except (KeyError, ValueError):
        pass
    raise Malformed("expected a date as 1-Feb-1994")


def date_time(text: bytes) -> datetime.datetime:
    """date-time: "17-Jul-1996 02:44:25 -0700", without the quotes."""
    match = _DATE_TIME.fullmatch(text)
    try:
        if match:
            offset = datetime.timedelta(hours=int(match[8]), minutes=int(match[9]))
            zone = datetime.timezone(-offset if match[7] == b"-" else offset)
            month = _MONTH_NUMBER[match[2].lower()]
            return datetime.datetime(
                int(match[3]), month, int(match[1]), int(match[4]), int(match[5]), int(match[6]), tzinfo=zone
            )
    except (KeyError, ValueError, OverflowError):
        pass
    raise Malformed('expected a date and time as "17-Jul-1996 02:44:25 -0700"')


def encode_utf7(name: str) -> bytes:
    """Modified UTF-7 (RFC 3501 §5.1.3)."""
    if name.isascii() and "&" not in name and name.isprintable():
        return name.encode()
    out = bytearray()
    pending: list[str] = []

    def flush() -> None:
        if pending:
            text = base64.b64encode("".join(pending).encode("utf-16-be")).rstrip(b"=").replace(b"/", b",")
            out.extend(b"&" + text + b"-")
            pending.clear()

    for c in name:
        if " " <= c <= "~":
            flush()
            out.extend(b"&-" if c == "&" else c.encode())
        else:
            pending.append(c)
    flush()
    return bytes(out)


def decode_utf7(name: bytes) -> str:
    """The reverse; raises `Malformed` for what is not the one canonical encoding."""
    if b"&" not in name:
        try:
            return name.decode("ascii")
        except UnicodeDecodeError:
            raise Malformed("folder names are written in modified UTF-7") from None
    out, at = [], 0
    try:
        while at < len(name):
            amp = name.find(b"&", at)
            if amp < 0:
                out.append(name[at:].decode("ascii"))
                break
            out.append(name[at:amp].decode("ascii"))
            end = name.index(b"-", amp)
            coded = name[amp + 1 : end].replace(b",", b"/")
            out.append(
                base64.b64decode(coded + b"=" * (-len(coded) % 4), validate=True).decode("utf-16-be") if coded else "&"
            )
            at = end + 1
    except (ValueError, binascii.Error, UnicodeDecodeError):
        raise Malformed("folder names are written in modified UTF-7") from None
    text = "".join(out)
    if encode_utf7(text) != name:
        raise Malformed("the folder name is not written in canonical modified UTF-7")
    return text


_WILDCARDS: Final = re.compile(r"[*%]{2,}")


@lru_cache(256)
def _compiled(pattern: str) -> tuple[dict[str, int], int, int, int]:
    """Positions as bits: of each letter, of `*`, of `%`, and the one after the end; runs of wildcards are one."""
    pattern = _WILDCARDS.sub(lambda run: "*" if "*" in run[0] else "%", pattern)
    places: dict[str, int] = {}
    for i, c in enumerate(pattern):
        places[c] = places.get(c, 0) | 1 << i
    return places, places.pop("*", 0), places.pop("%", 0), 1 << len(pattern)


def list_match(pattern: str, name: str) -> bool:
    """LIST wildcards (RFC 3501 §6.3.8): `*` is anything, `%` anything but the separator.

    All ways through the pattern are followed at once, as bits of a number: no pattern costs more than a few operations
    for each character of the name.
    """
    if name == "INBOX":
        pattern = pattern.upper()  # RFC 3501 §5.1: in any case
    elif name.startswith("INBOX/") and pattern[:6].upper() == "INBOX/":
        pattern = "INBOX/" + pattern[6:]
    letters, stars, percents, end = _compiled(pattern)
    wild = stars | percents
    states = 1 | (wild & 1) << 1  # a wildcard may stand for nothing
    for c in name:
        states = (states & letters.get(c, 0)) << 1 | (states & (stars if c == "/" else wild))
        if not states:
            return False
        states |= (states & wild) << 1
    return states & end != 0
