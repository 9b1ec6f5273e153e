"""Charts of the readiness report as coordinates: the template draws them as SVG, which needs no script."""

from __future__ import annotations

import datetime
from typing import Final, NamedTuple

from letterlock.analyze.logs_tally import HOUR, Kind

WIDTH: Final = 960
HEIGHT: Final = 210
FOOT: Final = 26  # below the axis, for dates
SIDE: Final = 56  # left of the axis, for figures
HEAD: Final = 14
MOST_BARS: Final = 100
HOURS: Final = ((1, 72), (3, 5 * 24), (24, 100 * 24), (168, 700 * 24), (720, 10**9))  # column width up to a span
STACK: Final = ("Secure", "Unknown", "Failed", "Refused", "Insecure")  # insecure on top
PERIODS: Final = {1: "an hour", 3: "three hours", 24: "a day", 168: "a week", 720: "30 days"}


class Bar(NamedTuple):
    """One part of a column."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str


class Chart(NamedTuple):
    """A timeline: parts of columns; (x, text) below the axis; (y, text) at the left, each with a line across."""

    bars: list[Bar]
    below: list[tuple[float, str]]
    left: list[tuple[float, str]]
    period: str
    since: float | None = None  # where what is judged begins; None: with the first column


def day(at: float, pattern: str = "%Y-%m-%d %H:%M") -> str:
    """UTC."""
    try:
        return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime(pattern)
    except (OverflowError, ValueError, OSError):
        return ""


def scale(most: int) -> tuple[int, int]:
    """The top of an axis and the step of its lines: 1, 2 or 5 times a power of ten."""
    step = 1
    while most > step * 4:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return -(-most // step) * step, step


def _columns(hours: dict[Kind, dict[int, int]], kinds: tuple[str, ...]) -> tuple[int, dict[int, dict[str, int]]]:
    """(hours a column, kind → count by column)."""
    wanted = {what: counted for what, counted in hours.items() if what.name in kinds}
    seen = [hour for counted in wanted.values() for hour in counted]
    if not seen:
        return 1, {}
    span = max(seen) - min(seen) + 1
    width = next(w for w, most in HOURS if span <= most)
    width = max(width, -(-span // (MOST_BARS * 10)))  # times that no log can have
    columns: dict[int, dict[str, int]] = {}
    for what, counted in wanted.items():
        for hour, count in counted.items():
            column = columns.setdefault(hour // width, {})
            column[what.name] = column.get(what.name, 0) + count
    return width, columns


def timeline(
    hours: dict[Kind, dict[int, int]], kinds: tuple[str, ...] = STACK, since: float = float("-inf")
) -> Chart | None:
    """Logins over time; None where there are none."""
    width, columns = _columns(hours, kinds)
    if not columns:
        return None
    begin, count = min(columns), max(columns) - min(columns) + 1
    step = (WIDTH - SIDE) / max(count, 12)
    top, line = scale(max(sum(c.values()) for c in columns.values()))
    tall = HEIGHT - FOOT - HEAD
    bars = []
    for place, column in sorted(columns.items()):
        y, x = float(HEIGHT - FOOT), SIDE + (place - begin) * step
        when = day(place * width * HOUR, "%Y-%m-%d %H:00" if width < 24 else "%Y-%m-%d")
        for name in (k for k in kinds if column.get(k)):
            high = column[name] / top * tall
            y -= high
            title = f"{when}: {column[name]:,} {name.lower()}"
            bars.append(Bar(round(x + step * 0.08, 1), round(y, 1), round(max(step * 0.84, 0.5), 1),
                            round(max(high, 0.8), 1), name, title))  # fmt: skip
    left = [(round(HEIGHT - FOOT - v / top * tall, 1), f"{v:,}") for v in range(0, top + 1, line)]
    mark = SIDE + (since / HOUR / width - begin) * step if since > begin * width * HOUR else None
    period = PERIODS.get(width, f"{width // 24} days")
    return Chart(bars, _dates(begin, count, width, step), left, period, round(mark, 1) if mark else None)


def _dates(begin: int, count: int, width: int, step: float) -> list[tuple[float, str]]:
    """Labels below the columns, as many as have room."""
    pattern = "%d %b %H:00" if width < 24 else "%d %b" if width < 720 else "%b %Y"
    apart = max(1, -(-90 // int(step + 1)))
    if width < 24:  # at midnight, or every six hours
        day_long = 24 // width
        apart = day_long * -(-apart // day_long) if count > day_long else max(1, day_long // 4)
        first = -begin % apart
    else:
        first = 0
    places = [p for p in range(first, count, apart) if SIDE + p * step < WIDTH - 70] or [0]
    return [(round(SIDE + p * step, 1), day((begin + p) * width * HOUR, pattern)) for p in places]


class Curve(NamedTuple):
    """A figure from report to report."""

    points: list[tuple[float, float, str]]
    left: list[tuple[float, str]]
    below: list[tuple[float, str, str]]  # x, text, anchor


def curve(counts: list[tuple[float, int]], height: int = 150) -> Curve:
    """`counts`: (time, figure), oldest first, at least two."""
    top, line = scale(max(1, *(count for _, count in counts)))
    tall, base = height - FOOT - HEAD, height - FOOT
    first, last = counts[0][0], max(counts[-1][0], counts[0][0] + 1)
    room = WIDTH - SIDE - 12

    def place(at: float) -> float:
        return round(SIDE + (min(max(at, first), last) - first) / (last - first) * room, 1)

    points = [(place(at), round(base - c / top * tall, 1), f"{day(at, '%d %b %Y %H:%M')}: {c:,}") for at, c in counts]
    left = [(round(base - v / top * tall, 1), f"{v:,}") for v in range(0, top + 1, line)]
    ends = ((float(SIDE), day(first, "%d %b %Y"), "start"), (WIDTH - 12.0, day(last, "%d %b %Y"), "end"))
    return Curve(points, left, list(ends))
