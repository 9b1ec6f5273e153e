"""The readiness report: one HTML file without scripts or anything from elsewhere, and its history beside it.

All text from logs is foreign: jinja2 escapes it, and the page's policy allows nothing but its own style. The history
(`NAME.history.json`) keeps the figures of earlier reports to the same file, so that the next one can show progress: who
is new, who is done. A history that cannot be read is put aside, never trusted.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple

import jinja2
from markupsafe import Markup

from letterlock.analyze.logs import Analysis
from letterlock.analyze.logs_lines import visible
from letterlock.analyze.logs_tally import HOUR
from letterlock.analyze.readiness import Readiness
from letterlock.base.errors import Refused
from letterlock.base.facts import LoginResult
from letterlock.base.values import Protocol, Tls

KEPT: Final = 100  # earlier reports in the history
MAX_HISTORY: Final = 16 << 20
ROWS: Final = 2000  # rows of the list; the figures always count all
BARS: Final = 120
WIDTH, HEIGHT, FOOT, SIDE = 920, 190, 24, 52
STACK: Final = ("Secure", "Unknown", "Failed", "Refused", "Insecure")  # insecure on top
NAMES: Final = {Protocol.IMAP4: "IMAP", Protocol.POP3: "POP", Protocol.SMTP: "SMTP", Protocol.SIEVE: "Sieve"}


class Bar(NamedTuple):
    """One part of a column of the timeline."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str


class Chart(NamedTuple):
    """A timeline as rectangles and labels: (x, text) below, (y, text) at the left."""

    bars: list[Bar]
    below: list[tuple[float, str]]
    left: list[tuple[float, str]]
    period: str


def day(at: float, pattern: str = "%Y-%m-%d %H:%M") -> str:
    """UTC."""
    try:
        return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime(pattern)
    except (OverflowError, ValueError, OSError):
        return ""


def timeline(analysis: Analysis, kinds: tuple[str, ...] = STACK) -> Chart | None:
    """Logins over time, as many columns as fit; None where there are none."""
    hours: dict[int, dict[str, int]] = {}
    for what, counted in analysis.tally.timeline().items():
        if what.name in kinds:
            for hour, count in counted.items():
                row = hours.setdefault(hour, {})
                row[what.name] = row.get(what.name, 0) + count
    if not hours:
        return None
    first, last = min(hours), max(hours)
    span = last - first + 1
    width = next((w for w in (1, 3, 6, 24, 168, 720) if span / w <= BARS), span // BARS + 1)
    columns: dict[int, dict[str, int]] = {}
    for hour, row in hours.items():
        column = columns.setdefault(hour // width, {})
        for name, count in row.items():
            column[name] = column.get(name, 0) + count
    begin, end = first // width, last // width
    step = (WIDTH - SIDE) / max(end - begin + 1, 8)
    most = max(sum(c.values()) for c in columns.values())
    bars = []
    for place, column in sorted(columns.items()):
        y = float(HEIGHT - FOOT)
        when = day(place * width * HOUR, "%Y-%m-%d %H:00" if width < 24 else "%Y-%m-%d")
        for name in kinds:
            if column.get(name):
                high = column[name] / most * (HEIGHT - FOOT - 12)
                y -= high
                x = SIDE + (place - begin) * step
                bars.append(Bar(round(x, 1), round(y, 1), round(max(step - 1, 0.5), 1), round(max(high, 0.6), 1), name,
                                f"{when}: {column[name]} {name.lower()}"))  # fmt: skip
    count = end - begin + 1
    marks = sorted({0, count // 4, count // 2, 3 * count // 4, count - 1}) if count > 5 else list(range(count))
    pattern = "%d %b %H:00" if width < 24 else "%d %b %Y"
    below = [(round(SIDE + m * step, 1), day((begin + m) * width * HOUR, pattern)) for m in marks]
    left = [(12.0, f"{most:,}"), (float(HEIGHT - FOOT), "0")]
    period = (
        "hour" if width == 1 else f"{width} hours" if width < 24 else "day" if width == 24 else f"{width // 24} days"
    )
    return Chart(bars, below, left, period)


# --- progress


def _key(address: str, user: str, protocol: Protocol) -> str:
    return json.dumps([address, user, protocol.value], ensure_ascii=False)


def history_path(target: Path) -> Path:
    """Where the figures of earlier reports to `target` are kept."""
    return target.with_name(target.stem + ".history.json")


def _history(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Earlier reports, oldest first, and a warning."""
    try:
        if not path.exists():
            return [], ""
        if path.stat().st_size > MAX_HISTORY:
            raise ValueError
        found = json.loads(path.read_text("utf-8"))["reports"]
        for entry in found:
            if not all(isinstance(entry[n], int | float) for n in ("at", "refused", "total", "clients")):
                raise ValueError
            if not all(isinstance(k, str) for k in entry.get("list", {})):
                raise ValueError
        return list(found), ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        aside = path.with_suffix(".unreadable")
        with contextlib.suppress(OSError):
            path.replace(aside)
        return [], f"the history {visible(str(path))} could not be read; it was put aside, and progress begins anew"


class Progress(NamedTuple):
    """What changed since the last report."""

    since: float
    before: int
    new: list[str]
    gone: list[str]
    moved: int  # of those gone, seen logging in over TLS
    points: list[tuple[float, float, str]]


def _progress(earlier: list[dict[str, Any]], analysis: Analysis, found: Readiness) -> Progress | None:
    if not earlier or not found.total:
        return None  # logs without a login prove nothing
    last = earlier[-1]
    before = set(last.get("list", {}))
    now = {_key(a, u, p) for a, u, p, g in found.rows if not g.covered}
    secure = set()
    for fact, _ in analysis.tally.facts():
        if fact.tls not in (None, Tls.NONE) and fact.result is LoginResult.SUCCEEDED:
            secure.add(_key(fact.address, fact.user, fact.protocol))
    gone = before - now

    def named(keys: set[str]) -> list[str]:
        shown = []
        for key in sorted(keys)[:50]:
            with contextlib.suppress(ValueError, TypeError):
                address, user, protocol = json.loads(key)
                shown.append(f"{address} {user} ({protocol})")
        return shown

    counts = [(e["at"], int(e["clients"])) for e in earlier[-30:]]
    counts.append((datetime.datetime.now(datetime.UTC).timestamp(), len(now)))
    most = max(max(c for _, c in counts), 1)
    step = (WIDTH - SIDE - 40) / max(len(counts) - 1, 1)
    points = [
        (round(SIDE + i * step, 1), round(110 - count / most * 84, 1), f"{day(at, '%d %b %Y')}: {count}")
        for i, (at, count) in enumerate(counts)
    ]
    return Progress(last["at"], int(last["clients"]), named(now - before), named(gone), len(gone & secure), points)


# --- the page


def _style() -> tuple[str, str]:
    style = files("letterlock.analyze").joinpath("templates/report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return style, f"sha256-{digest}"


def render(
    analysis: Analysis,
    found: Readiness,
    hosts: dict[str, str],
    own: bool,
    progress: Progress | None,
    now: float,
) -> str:
    """The page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("letterlock.analyze"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    environment.filters["day"] = day
    style, digest = _style()
    counts: dict[str, int] = {}
    for what, hours in analysis.tally.timeline().items():
        counts[what.name] = counts.get(what.name, 0) + sum(hours.values())
    formats = {"Letterlock" if own else f.format for f in analysis.files}
    families: dict[str, int] = {}
    for _, _, _, group in found.rows:
        name = group.advice.family or "not recognised"
        families[name] = families.get(name, 0) + 1
    return environment.get_template(
        "readiness.html"
    ).render(
        style=Markup(style),  # noqa: S704 - our own file
        digest=digest,
        now=now,
        found=found,
        rows=found.rows[:ROWS],
        left_out=max(0, len(found.rows) - ROWS),
        names=NAMES,
        hosts=hosts,
        counts=counts,
        chart=timeline(analysis),
        insecure=timeline(analysis, ("Refused", "Insecure")),
        size=(WIDTH, HEIGHT, FOOT, SIDE),
        progress=progress,
        families=sorted(families.items(), key=lambda item: (-item[1], item[0])),
        formats=formats,
        analysis=analysis,
        warnings=analysis.warnings()[:40],
    )


def write(target: Path, analysis: Analysis, found: Readiness, hosts: dict[str, str], own: bool = False) -> list[str]:
    """Write the report and its history; sentences for the person. Raises `Refused` where the file cannot be written."""
    now = datetime.datetime.now(datetime.UTC).timestamp()
    history = history_path(target)
    earlier, warning = _history(history)
    page = render(analysis, found, hosts, own, _progress(earlier, analysis, found), now)
    open_rows = [(a, u, p, g) for a, u, p, g in found.rows if not g.covered]
    for entry in earlier:
        entry.pop("list", None)  # only the latest is compared with
    entry = {
        "at": now,
        "refused": found.refused,
        "total": found.total,
        "clients": len(open_rows),
        "list": {_key(a, u, p): g.logins for a, u, p, g in open_rows},
    }
    text = json.dumps({"reports": [*earlier, entry][-KEPT:]}, ensure_ascii=False)
    try:
        _replace(target, page)
        if found.total:
            _replace(history, text)
    except OSError as error:
        raise Refused(f"the report {visible(str(target))} cannot be written: {error.strerror}") from None
    done = [f"written: {target}"]
    return [f"WARNING: {warning}", *done] if warning else done


def _replace(path: Path, text: str) -> None:
    """Whole, or not at all."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, "utf-8", errors="replace")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
