"""Get-InsecureLogin and Get-LoginReadiness: who logs in insecurely, and what enforcing a LoginType would refuse.

Where the logs are and how they are read: `login_logs`.
"""

from __future__ import annotations

import contextlib
import datetime
import socket
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Final

from letterlock.analyze import logs, readiness, report
from letterlock.analyze.charts import day
from letterlock.analyze.logs_tally import HOUR, Tally
from letterlock.base.errors import Refused
from letterlock.base.values import LoginType, parse_enum
from letterlock.base.values import Protocol as MailProtocol
from letterlock.directory.exceptions import LoginExceptions
from letterlock.manage.context import Context
from letterlock.manage.exceptions import travelled
from letterlock.manage.here import Local
from letterlock.manage.login_logs import COMMON, SHOWN, analyzed_here, analyzed_there, choice, switch
from letterlock.manage.registry import Cmdlet, Parameter, Row
from letterlock.policy.exceptions import LoginException

COLUMNS: Final = (
    "IPAddress", "Protocol", "Logins", "Users", "Mechanisms", "Clients", "FirstSeen", "LastSeen", "Source",
)  # fmt: skip
READY_COLUMNS: Final = ("IPAddress", "User", "Protocol", "Logins", "LastSeen", "CoveredByException", "Advice")
RESOLVE_S: Final = 5.0  # all reverse look-ups together may take so long for each 16 addresses
LISTED: Final = 4  # values of a property that a table or list shows, as PowerShell does; JSON has all


# --- Get-InsecureLogin


def stamp(at: float) -> str:
    """UTC, to the second."""
    try:
        return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return ""


class LoginRow(Row):
    """A row whose long lists are shown by their first values."""

    def wire(self) -> dict[str, Any]:
        """As `Row.wire`."""
        wire = super().wire()
        for name, value in self.properties.items():
            if isinstance(value, list) and len(value) > LISTED:
                rest = len(value) - LISTED
                wire["shown"][name] = "{" + ", ".join(map(str, value[:LISTED])) + f", and {rest} more}}"
        return wire


def _sources(group: readiness.Group) -> list[str]:
    return [f"{name}:{line}" for name, line in group.sources.items()]


def _where(name: str, group: readiness.Group, by: str) -> Any:
    if by in ("IPAddress", "Subnet"):
        return name
    found = sorted(group.address)
    return found[0] if len(found) == 1 else found


def _insecure_row(
    name: str, protocol: MailProtocol, group: readiness.Group, by: str, hosts: dict[str, str] | None
) -> Row:
    properties = {
        "IPAddress": _where(name, group, by),
        "Protocol": SHOWN[protocol],
        "Logins": group.logins,
        "Users": [name] if by == "User" and name else sorted(group.users),
        "Mechanisms": sorted(group.mechanisms),
        "Clients": sorted(set(group.clients)),
        "FirstSeen": stamp(group.first),
        "LastSeen": stamp(group.last),
        "Source": _sources(group),
    }
    if hosts is not None:
        properties["HostName"] = hosts.get(name, "") if by == "IPAddress" else ""
    return LoginRow(properties, (*COLUMNS, "HostName") if hosts is not None else COLUMNS)


def _refused_row(name: str, protocol: MailProtocol, group: readiness.Group, by: str) -> Row:
    properties = {
        "IPAddress": _where(name, group, by),
        "Protocol": SHOWN[protocol],
        "Refusals": group.logins,
        "Users": sorted(group.users),
        "Clients": sorted(set(group.clients)),
        "FirstSeen": stamp(group.first),
        "LastSeen": stamp(group.last),
        "Told": group.told,
        "Source": _sources(group),
    }
    return LoginRow(properties, tuple(properties))


def resolve(addresses: set[str]) -> dict[str, str]:
    """Host names by reverse DNS; an address without an answer in time has none."""
    found: dict[str, str] = {}

    def one(address: str) -> None:
        with contextlib.suppress(OSError, UnicodeError):
            found[address] = socket.gethostbyaddr(address)[0]

    pool = ThreadPoolExecutor(16, thread_name_prefix="resolve")
    waiting = [pool.submit(one, a) for a in sorted(addresses)]
    wait(waiting, RESOLVE_S * (1 + len(waiting) // 16))
    pool.shutdown(wait=False, cancel_futures=True)
    return dict(found)


def totals(tally: Tally, of: frozenset[MailProtocol]) -> list[Row]:
    """Logins a day, or an hour where the logs span two days or less."""
    hours: dict[int, dict[str, int]] = {}
    for what, counted in tally.timeline().items():
        if what.protocol in of:
            for hour, count in counted.items():
                row = hours.setdefault(hour, {})
                row[what.name] = row.get(what.name, 0) + count
    if not hours:
        return []
    width = 1 if max(hours) - min(hours) <= 48 else 24
    periods: dict[int, dict[str, int]] = {}
    for hour, row in hours.items():
        period = periods.setdefault(hour // width * width, {})
        for name, count in row.items():
            period[name] = period.get(name, 0) + count
    columns = ("Time", "Logins", "Insecure", "Secure", "Refused", "Failed", "Unknown")
    rows = []
    for begin in sorted(periods):
        row = periods[begin]
        figures = {name: row.get(name, 0) for name in columns[2:]}
        rows.append(Row({"Time": stamp(begin * HOUR), "Logins": sum(row.values()), **figures}, columns))
    return rows


def _insecure(analysis: logs.Analysis, p: dict[str, Any]) -> tuple[list[Row], list[str]]:
    """Rows and warnings."""
    of = p.get("Protocol", frozenset(MailProtocol))
    by = p.get("GroupBy", "IPAddress")
    tally = analysis.tally
    if p.get("Totals"):
        return totals(tally, of), []
    if p.get("Refused"):
        found = readiness.groups(tally, readiness.turned_away(of), by)
        return [_refused_row(name, protocol, g, by) for name, protocol, g in found], []
    found = readiness.groups(tally, readiness.exposed(of), by)
    hosts = None
    if p.get("Resolve"):
        hosts = resolve({name for name, _, _ in found} if by == "IPAddress" else set())
    unknown = sum(sum(h.values()) for k, h in tally.timeline().items() if k.name == "Unknown" and k.protocol in of)
    warnings = []
    if unknown:
        warnings.append(
            f"of {unknown} logins the log does not say whether TLS was in use (their session began before the log, or "
            "the server logs nothing of it): they are not listed"
        )
    return [_insecure_row(name, protocol, g, by, hosts) for name, protocol, g in found], warnings


async def insecure_here(local: Local, p: dict[str, Any]) -> list[Row]:
    """Get-InsecureLogin where the command line runs."""
    analysis, _ = await analyzed_here(local, p)
    rows, warnings = _insecure(analysis, p)
    for text in warnings:
        local.warn(f"WARNING: {text}")
    return rows


async def insecure(c: Context, p: dict[str, Any]) -> list[Row]:
    """Get-InsecureLogin on the server's own logs."""
    analysis, _ = await analyzed_there(c, p)
    rows, warnings = _insecure(analysis, p)
    for text in warnings:
        c.warn(text)
    return rows


# --- Get-LoginReadiness


def _ready_row(address: str, user: str, protocol: MailProtocol, group: readiness.Group) -> Row:
    advice = group.advice
    text = f"{advice.family}: {advice.text}" if advice.family else advice.text
    if group.covered:
        text = "; ".join(f"until {day(e.expires, '%Y-%m-%d')} by {e.identity} ({e.owner})"
                         for e in group.exceptions.values())  # fmt: skip
        text = f"Covered {text}. Before then: {advice.text}"
    properties = {
        "IPAddress": address,
        "User": user,
        "Protocol": SHOWN[protocol],
        "Logins": group.logins,
        "LastSeen": stamp(group.last),
        "CoveredByException": group.covered,
        "Advice": text,
    }
    return Row(properties, READY_COLUMNS)


def _ready_warnings(found: readiness.Readiness) -> list[str]:
    texts = []
    if not found.total:
        texts.append("no login was seen in these logs: that proves nothing")
    if found.unknown:
        texts.append(f"of {found.unknown} logins the log does not say whether TLS was in use: they could not be judged")
    if found.covered:
        texts.append(f"{found.covered} logins are covered by exceptions")
    if found.wrong:
        texts.append(f"{found.wrong} failed logins (wrong user or password) are not counted")
    return texts


async def _exceptions(local: Local, own: bool) -> list[LoginException]:
    """Those of the data directory, or of the server at `--url`. Logs of other servers are read without one as well."""
    try:
        return [travelled(properties) for properties in await local.ask("Get-LoginException")]
    except Refused as error:
        if own:
            raise
        if error.code != b"NONEXISTENT":
            local.warn(f"WARNING: login exceptions are not taken into account: {error.text}")
        return []


async def readiness_here(local: Local, p: dict[str, Any]) -> list[Row]:
    """Get-LoginReadiness where the command line runs."""
    analysis, where = await analyzed_here(local, p)
    kind = p.get("LoginType", LoginType.SecureLogin)
    exceptions = await _exceptions(local, where.own)
    found = readiness.judge(analysis.tally, kind, p.get("Protocol", frozenset(MailProtocol)), exceptions)
    if "Report" in p:
        hosts = resolve({address for address, _, _, _ in found.rows}) if p.get("Resolve") else {}
        for text in report.write(Path(p["Report"]), analysis, found, hosts, own=where.own):
            local.warn(text)
    for text in _ready_warnings(found):
        local.warn(f"WARNING: {text}")
    local.last_words.append(found.summary)
    return [_ready_row(*row) for row in found.rows]


async def login_readiness(c: Context, p: dict[str, Any]) -> list[Row]:
    """Get-LoginReadiness on the server's own logs; the summary is a message."""
    if "Report" in p and c.server is not None:
        raise Refused("reports are written where the command line runs: use letterlock get-loginreadiness --report …")
    analysis, where = await analyzed_there(c, p)
    kind = p.get("LoginType", LoginType.SecureLogin)
    exceptions = LoginExceptions(c.config).all()
    found = readiness.judge(analysis.tally, kind, p.get("Protocol", frozenset(MailProtocol)), exceptions)
    if "Report" in p:
        c.messages += report.write(Path(p["Report"]), analysis, found, {}, own=where.own)
    for text in _ready_warnings(found):
        c.warn(text)
    c.messages.append(found.summary)
    return [_ready_row(*row) for row in found.rows]


CMDLETS: Final = (
    Cmdlet(
        "Get-InsecureLogin",
        "Shows who sent credentials that could be read on the wire, by the logs of this server or of another.",
        insecure,
        (
            *COMMON,
            Parameter(
                "GroupBy",
                "What makes a row.",
                choice(readiness.GROUPINGS),
                type_name=" | ".join(readiness.GROUPINGS),
                default="IPAddress",
            ),
            switch("Refused", "Instead: clients that were refused, how often, and the sentence they were told."),
            switch("Totals", "Instead: logins by day, or by hour where the logs span two days or less."),
        ),
        here=insecure_here,
    ),
    Cmdlet(
        "Get-LoginReadiness",
        "Shows which of the logins seen in logs would be refused if a LoginType were enforced.",
        login_readiness,
        (
            *COMMON,
            Parameter(
                "LoginType",
                "The LoginType to try.",
                lambda v: parse_enum(LoginType, str(v)),
                type_name="PlainTextLogin | PlainTextAuthentication | SecureLogin",
                default="SecureLogin",
            ),
            Parameter("Report", "Write an HTML report to this file, with the progress since the last one.", str),
        ),
        here=readiness_here,
    ),
)
