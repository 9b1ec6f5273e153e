"""How messages are given to clients: as they were stored, or in another form that the settings ask for.

A `Presentation` is what MessageRetrievalMimeFormat, CalendarItemRetrievalOption and SuppressReadReceipt, with their
overrides of a mailbox, come down to. `present` makes a message of it and never fails: what cannot be converted within
its bounds is given as it was stored.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from letterlock.base.values import MimeFormat
from letterlock.mail.convert import Converter, Untouchable
from letterlock.mail.header import fields
from letterlock.mail.parts import header_end

MAX_MESSAGE: Final = 64 << 20  # octets; larger ones are given as stored: a conversion needs them in memory three times
# What asks the reader's client for a receipt: RFC 8098 §2.1, and what was used before it.
RECEIPT_FIELDS: Final = frozenset(
    (
        b"disposition-notification-to",
        b"disposition-notification-options",
        b"return-receipt-to",
        b"return-receipt-requested",
        b"read-receipt-to",
        b"x-confirm-reading-to",
    )
)
_ASKS: Final = re.compile(rb"^(?:%b)[ \t]*:" % b"|".join(sorted(RECEIPT_FIELDS)), re.IGNORECASE | re.MULTILINE)
_CALENDAR: Final = re.compile(rb'"TEXT" "CALENDAR"')
_RICH: Final = re.compile(rb'"TEXT" "(?:HTML|ENRICHED|RICHTEXT)"')
_ANY: Final = re.compile(rb'"TEXT" "(?:PLAIN|HTML|ENRICHED|RICHTEXT)"')


class Presentation(NamedTuple):
    """What is done to messages."""

    format: MimeFormat = MimeFormat.BestBodyFormat
    calendar_link: str = ""  # base of the links that meetings are replaced by; "": they stay iCalendar
    no_receipts: bool = False  # without the fields that ask for a receipt
    exact_size: bool = True  # False: the size told is that of the stored message

    @property
    def as_stored(self) -> bool:
        """Whether nothing is done at all. Tnef is MAPI's own format, which only Exchange can write."""
        return not self.converts and not self.calendar_link and not self.no_receipts

    @property
    def converts(self) -> bool:
        """Whether bodies are converted."""
        return self.format not in (MimeFormat.BestBodyFormat, MimeFormat.Tnef)

    def may_change(self, bodystructure: bytes, header: bytes) -> bool:
        """Whether a message could look different, by its BODYSTRUCTURE and header; False is certain."""
        if self.no_receipts and _ASKS.search(header):
            return True
        if self.calendar_link and _CALENDAR.search(bodystructure):
            return True
        if not self.converts:
            return False
        kinds = _RICH if self.format is MimeFormat.TextOnly else _ANY
        return kinds.search(bodystructure) is not None


def present(raw: bytes, how: Presentation) -> bytes:
    """The message as clients get it; the same object when it is given as stored."""
    if len(raw) > MAX_MESSAGE:
        return raw
    given = raw
    if how.calendar_link:
        given = _attempt(given, lambda converter: converter.to_links(how.calendar_link))
    if how.converts:
        given = _attempt(given, lambda converter: converter.to_format(how.format))
    return _without_receipts(given) if how.no_receipts else given


def _attempt(raw: bytes, work: Callable[[Converter], bytes]) -> bytes:
    """A conversion, or the message as it is: whatever a stranger wrote must not keep a message from being read."""
    try:
        return work(Converter(raw))
    except Untouchable:
        return raw
    except Exception:  # any fault in it: of the message, of the libraries that read HTML and iCalendar, or ours
        return raw


def _without_receipts(raw: bytes) -> bytes:
    """Without the fields that ask for a receipt. Signatures of S/MIME and PGP do not cover this header."""
    end = header_end(raw)
    header = raw[:end]
    if not _ASKS.search(header):
        return raw
    found = fields(header)
    kept = b"".join([field for name, field in found if name not in RECEIPT_FIELDS])
    return kept + raw[sum(len(field) for _, field in found) :]
