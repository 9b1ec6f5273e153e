"""The readiness report: one HTML file without scripts or anything from elsewhere. Its history: `progress`.

All text from logs is foreign: jinja2 escapes it, and the page's policy allows nothing but its own style. The commands
are to be pasted into a shell: what a log says enters them only where it is an address, or a user name of plain
characters.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from markupsafe import Markup

from letterlock.analyze import charts, page, progress
from letterlock.analyze.charts import day
from letterlock.analyze.logs import Analysis
from letterlock.analyze.logs_lines import visible
from letterlock.analyze.progress import history_path as history_path
from letterlock.analyze.readiness import Readiness
from letterlock.base.errors import Refused
from letterlock.base.values import LoginType, Protocol

if TYPE_CHECKING:
    from jinja2 import Environment

ROWS: Final = 2000  # rows of the list; the figures always count all
NAMES: Final = {Protocol.IMAP4: "IMAP", Protocol.POP3: "POP", Protocol.SMTP: "SMTP", Protocol.SIEVE: "Sieve"}
NOUNS: Final = {Protocol.IMAP4: "Imap", Protocol.POP3: "Pop"}  # of Set-ImapSettings, Set-PopSettings
DEVICES: Final = 5  # exceptions that are proposed
DEVICE_DAYS: Final = 180
_PLAIN_USER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,99}")


class Family(NamedTuple):
    """Clients of one kind."""

    name: str
    clients: int
    logins: int
    width: float  # of its bar


def _families(found: Readiness) -> list[Family]:
    """Of the clients that are left, most first."""
    counted: dict[str, list[int]] = {}
    for _, _, _, group in found.rows:
        if not group.covered:
            entry = counted.setdefault(group.advice.family or "Not recognised", [0, 0])
            entry[0] += 1
            entry[1] += group.logins
    most = max((e[1] for e in counted.values()), default=1)
    made = [Family(n, c, logins, round(300 * logins / most, 1)) for n, (c, logins) in counted.items()]
    return sorted(made, key=lambda f: (-f.clients, -f.logins, f.name))


class Proposal(NamedTuple):
    """An exception that may be needed: for a device of the list."""

    protocol: str
    address: str
    mailbox: str
    until: str


def _proposals(found: Readiness, now: float) -> list[Proposal]:
    made: list[Proposal] = []
    until = day(now + DEVICE_DAYS * 86400, "%Y-%m-%d")
    for address, user, protocol, group in found.rows:
        if group.covered or not group.advice.device or protocol not in NOUNS or len(made) == DEVICES:
            continue
        try:
            plain = str(ipaddress.ip_address(address))
        except ValueError:
            continue
        if _PLAIN_USER.fullmatch(user):
            made.append(Proposal(NOUNS[protocol], plain, user, until))
    return made


def _period(analysis: Analysis) -> tuple[float, float] | None:
    """First and last login."""
    entries = analysis.tally.entries.values()
    return (min(e.first for e in entries), max(e.last for e in entries)) if entries else None


def _environment() -> Environment:
    environment = page.environment()
    environment.filters["visible"] = visible
    environment.filters["day"] = day
    environment.filters["number"] = lambda n: f"{n:,}"
    environment.filters["plural"] = lambda n, one, many: f"{n:,} {one if n == 1 else many}"
    return environment


def render(
    analysis: Analysis, found: Readiness, hosts: dict[str, str], own: bool, since: progress.Progress | None, now: float
) -> str:
    """The page."""
    style, digest = page.style("report.css")
    hours, since_at = analysis.tally.timeline(whole=True), analysis.tally.since
    counts: dict[str, int] = {}
    for what, counted in analysis.tally.timeline().items():
        counts[what.name] = counts.get(what.name, 0) + sum(counted.values())
    judged = found.total - found.unknown
    servers = {"Letterlock"} if own else {name for f in analysis.files for name in (f.format, *f.servers)}
    return _environment().get_template("readiness.html").render(
        style=Markup(style),  # noqa: S704 - our own file
        digest=digest,
        now=now,
        found=found,
        left=sum(not group.covered for _, _, _, group in found.rows),
        changed=sum(bool(group.over_tls) and not group.covered for _, _, _, group in found.rows),
        accepted=(judged - found.refused) / judged if judged else 0.0,
        period=_period(analysis),
        rows=found.rows[:ROWS],
        left_out=max(0, len(found.rows) - ROWS),
        names=NAMES,
        hosts=hosts,
        counts=counts,
        chart=charts.timeline(hours, since=since_at),
        insecure=charts.timeline(hours, ("Refused", "Insecure"), since_at),
        size=(charts.WIDTH, charts.HEIGHT, charts.FOOT, charts.SIDE),
        progress=since,
        families=_families(found),
        servers=servers,
        others=bool(servers & {"Cyrus", "Courier", "Postfix", "Exim"}),
        nouns=[NOUNS[p] for p in NOUNS if p in found.seen] or list(NOUNS.values()),
        unseen=[NAMES[p] for p in NOUNS if p not in found.seen],
        smtp=Protocol.SMTP in found.seen,
        strict=found.login_type is LoginType.SecureLogin,
        proposals=_proposals(found, now),
        analysis=analysis,
        warnings=analysis.warnings()[:40],
    )  # fmt: skip


def write(target: Path, analysis: Analysis, found: Readiness, hosts: dict[str, str], own: bool = False) -> list[str]:
    """Write the report and its history; sentences for the person. Raises `Refused` where the file cannot be written."""
    now = datetime.datetime.now(datetime.UTC).timestamp()
    history = history_path(target)
    before, warning = progress.earlier(history)
    page = render(analysis, found, hosts, own, progress.since_last(before, found, now), now)
    try:
        _replace(target, page)
        if found.total:
            _replace(history, progress.with_this(before, found, now))
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
