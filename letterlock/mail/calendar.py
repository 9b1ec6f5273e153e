"""A meeting in words: what stands in place of a text/calendar part when CalendarItemRetrievalOption asks for links."""

from __future__ import annotations

import datetime
from typing import Any, Final
from urllib.parse import quote

MAX_CALENDAR: Final = 256 << 10
MAX_WORDS: Final = 500  # characters of each line
_KINDS: Final = {
    "REQUEST": "Meeting request",
    "CANCEL": "Meeting cancelled",
    "REPLY": "Answer to a meeting request",
    "COUNTER": "New time proposed for a meeting",
}


def link(base: str, uid: str) -> str:
    """Where a meeting is found: the base with the event's UID as parameter `uid`."""
    return f"{base}{'&' if '?' in base else '?'}uid={quote(uid[:MAX_WORDS], safe='')}"


def in_words(source: bytes, base: str) -> str:
    """Kind, summary, time, place, organizer and link of the first event; `ValueError` when there is none."""
    from icalendar import Calendar

    if len(source) > MAX_CALENDAR:
        raise ValueError("the calendar is too large")
    calendar: Any = Calendar.from_ical(source)
    events = [c for c in calendar.walk() if c.name in ("VEVENT", "VTODO")]
    if not events or not _text(events[0], "UID"):
        raise ValueError("there is no event")
    event = events[0]
    rows = (
        (_KINDS.get(_text(calendar, "METHOD").upper(), "Meeting"), _text(event, "SUMMARY")),
        ("When", _when(event)),
        ("Where", _text(event, "LOCATION")),
        ("Organizer", _text(event, "ORGANIZER").removeprefix("mailto:").removeprefix("MAILTO:")),
    )
    lines = [f"{name}: {value}" for name, value in rows if value]
    return "\n".join([*lines, "", link(base, _text(event, "UID")), ""])


def _text(component: Any, name: str) -> str:
    value = component.get(name, "")
    value = value[0] if isinstance(value, list) else value
    return " ".join(str(value).split())[:MAX_WORDS]


def _when(event: Any) -> str:
    """Start and end as the organizer wrote them, with the name of their time zone."""
    start, end = _moment(event, "DTSTART"), _moment(event, "DTEND")
    return f"{start} to {end}" if start and end and end != start else start


def _moment(event: Any, name: str) -> str:
    found = event.get(name)
    if found is None or isinstance(found, list):
        return ""
    moment = found.dt
    if not isinstance(moment, datetime.datetime):
        day = moment - datetime.timedelta(days=1) if name == "DTEND" else moment  # the first that is free again
        return str(day.isoformat())
    zone = str(found.params.get("TZID", "")) or ("UTC" if moment.tzinfo is not None else "")
    return f"{moment:%Y-%m-%d %H:%M} {zone}".rstrip()[:MAX_WORDS]
