"""The analyzer's report: one HTML file without scripts or anything from elsewhere.

All text of exports and servers is foreign: jinja2 escapes it, and the page's policy allows nothing but its own style.
Links are those of the rules, never of what was read.
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Final, NamedTuple

from markupsafe import Markup

from letterlock import __version__
from letterlock.analyze import page
from letterlock.analyze.findings import GRAVITY, Finding, Verdict
from letterlock.analyze.inventory import Inventory
from letterlock.analyze.logs_lines import visible
from letterlock.base.errors import Refused

BAR: Final = 260  # width of a category's bar
SHOWN: Final = 200  # targets of one check
ORDER: Final = (Verdict.FAIL, Verdict.ERROR, Verdict.WARNING, Verdict.INFO, Verdict.PASS)
# What endangers passwords stands before what only should be tidier.
FIRST: Final = ("Observed logins", "Exceptions and exposure", "Logins", "TLS", "Certificates", "SMTP", "Services")
WORDS: Final = {
    Verdict.FAIL: "to repair",
    Verdict.ERROR: "could not be determined",
    Verdict.WARNING: "to look at",
    Verdict.INFO: "to know",
    Verdict.PASS: "in order",
}


class Card(NamedTuple):
    """One check with all that it found."""

    id: str
    title: str
    category: str
    verdict: Verdict
    why: str
    link: str
    findings: list[Finding]
    remedies: list[tuple[str, str]]  # (product where there are several, commands)
    left_out: int


class Part(NamedTuple):
    """A piece of a bar."""

    x: float
    width: float
    verdict: Verdict
    number: int


class Row(NamedTuple):
    """One category in the overview."""

    name: str
    parts: list[Part]
    worst: Verdict


def _place(category: str) -> int:
    return FIRST.index(category) if category in FIRST else len(FIRST)


def cards(found: list[Finding], verdicts: tuple[Verdict, ...]) -> list[Card]:
    """Findings of these verdicts by check, the gravest first."""
    groups: dict[str, list[Finding]] = {}
    for finding in found:
        if finding.verdict in verdicts and not finding.accepted:
            groups.setdefault(finding.id, []).append(finding)
    made = []
    for identity, group in groups.items():
        first = group[0]
        worst = max(group, key=lambda f: GRAVITY[f.verdict]).verdict
        remedies = list(dict.fromkeys((f.product, f.remedy) for f in group if f.remedy))
        if len({product for product, _ in remedies}) < 2:
            remedies = [("", text) for _, text in remedies]
        made.append(
            Card(
                *(identity, first.check, first.category, worst, first.why, first.link),
                *(group[:SHOWN], remedies[:SHOWN], max(0, len(group) - SHOWN)),
            )
        )
    return sorted(made, key=lambda c: (-GRAVITY[c.verdict], _place(c.category)))


def overview(found: list[Finding]) -> list[Row]:
    """Categories with their bars, the worst first."""
    rows = []
    for name in dict.fromkeys(f.category for f in found):
        of = [f for f in found if f.category == name]
        x, parts = 0.0, []
        for verdict in ORDER:
            count = sum(f.verdict is verdict for f in of)
            if count:
                width = BAR * count / len(of)
                parts.append(Part(round(x, 1), round(width, 1), verdict, count))
                x += width
        rows.append(Row(name, parts, max(of, key=lambda f: GRAVITY[f.verdict]).verdict))
    return sorted(rows, key=lambda r: (-GRAVITY[r.worst], _place(r.name), r.name))


def render(found: list[Finding], inventory: Inventory, inputs: list[str], now: datetime.datetime) -> str:
    """The page."""
    environment = page.environment()
    style, digest = page.style("analyzer.css")
    counts = {v: sum(f.verdict is v for f in found) for v in Verdict}
    return environment.get_template("analyzer.html").render(
        style=Markup(style),  # noqa: S704 - our own file
        digest=digest,
        now=now.strftime("%Y-%m-%d %H:%M"),
        version=__version__,
        counts=counts,
        order=ORDER,
        words=WORDS,
        verdict=Verdict,
        systems=[(visible(s.name), s.product, s.version) for s in inventory.systems],
        endpoints=[e.name for e in inventory.endpoints],
        inputs=inputs,
        rows=overview(found),
        bar=BAR,
        bad=cards(found, (Verdict.FAIL, Verdict.ERROR)),
        doubtful=cards(found, (Verdict.WARNING,)),
        told=cards(found, (Verdict.INFO,)),
        accepted=[f for f in found if f.accepted],
        passed=cards(found, (Verdict.PASS,)),
    )


def write(target: Path, found: list[Finding], inventory: Inventory, inputs: list[str]) -> None:
    """Write it, whole or not at all; `Refused` where that cannot be."""
    page = render(found, inventory, inputs, datetime.datetime.now(datetime.UTC))
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        beside.write_text(page, "utf-8", errors="replace")
        beside.replace(target)
    except OSError as error:
        raise Refused(f"the report {visible(str(target))} cannot be written: {error.strerror}") from None
    finally:
        beside.unlink(missing_ok=True)
