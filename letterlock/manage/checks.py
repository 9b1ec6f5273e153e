"""Invoke-Analyzer: collect facts of this server, of exports, of logs and of live endpoints; judge them; report.

Files are read, endpoints probed and reports written where the command line runs; the server is only asked for its
facts, so this works beside it, without it, and against another machine. Run by the server itself (REST), it judges that
server only: nobody can make it read files or connect elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from letterlock.analyze import analyzer_report, baseline, exports, inventory_sort, logs, logs_facts, rules
from letterlock.analyze.findings import Finding, Verdict
from letterlock.analyze.inventory import Inventory
from letterlock.analyze.logs_lines import visible
from letterlock.base.errors import LetterlockError, Malformed, Refused
from letterlock.base.facts import EndpointFact, Origin, SettingFact
from letterlock.base.values import Protocol
from letterlock.manage import analyzer_facts, login_logs
from letterlock.manage.context import Context
from letterlock.manage.here import Local
from letterlock.manage.login_logs import paths, switch
from letterlock.manage.registry import Cmdlet, Parameter, Row, words
from letterlock.probe.endpoint import parse_endpoint, probe_endpoint

COLUMNS: Final = ("Id", "Check", "Target", "Verdict", "Detail", "Remedy")
AT_A_TIME: Final = 4  # endpoints probed together
BACK_END_S: Final = 3.0
LONGEST_S: Final = 600
_BACK_ENDS: Final = {1993: Protocol.IMAP4, 1995: Protocol.POP3}


class FindingRow(Row):
    """A finding; commands of several lines are shown on one in tables and lists."""

    def wire(self) -> dict[str, Any]:
        """As `Row.wire`."""
        wire = super().wire()
        wire["shown"] = {n: v.replace("\n", "; ") for n, v in wire["shown"].items()}
        return wire


def row(finding: Finding, detailed: bool) -> Row:
    """As an object: the six columns, and with -Detailed all that is known."""
    properties: dict[str, Any] = {
        "Id": finding.id,
        "Check": finding.check,
        "Target": finding.target,
        "Verdict": finding.verdict.value,
        "Detail": finding.detail,
        "Remedy": finding.remedy,
    }
    if detailed:
        properties |= {
            "Category": finding.category,
            "Why": finding.why,
            "Link": finding.link,
            "Source": visible(finding.origin.source),
            "Line": finding.origin.line,
            "Accepted": visible(finding.accepted),
            "AcceptedVerdict": finding.accepted_verdict.value if finding.accepted_verdict else "",
        }
    return FindingRow(properties, COLUMNS)


# --- collecting


class _Collected(NamedTuple):
    facts: list[inventory_sort.Fact]
    findings: list[Finding]  # about the input itself
    inputs: list[str]  # for the report's head


def _input(target: str, verdict: Verdict, detail: str, origin: Origin) -> Finding:
    why = "What could not be read was not judged; everything else was."
    return Finding(
        "INPUT-FILE", "Input can be read", "Input", visible(target), verdict, visible(detail), why=why, origin=origin
    )


def _files(patterns: list[str]) -> _Collected:
    """Exports and logs; every file's problems are findings, and nothing stops at them."""
    reading = exports.read(patterns)
    facts: list[inventory_sort.Fact] = [*reading.facts]
    found = []
    for file in reading.files:
        for line, why in file.problems:
            verdict = Verdict.WARNING if file.objects else Verdict.ERROR
            found.append(_input(file.name + (f":{line}" if line else ""), verdict, why, Origin(file.name, line)))
        if file.more:
            found.append(_input(file.name, Verdict.WARNING, f"and {file.more} more lines like that", Origin(file.name)))
        for line, note in file.notes:
            found.append(_input(file.name, Verdict.INFO, note, Origin(file.name, line)))
    if reading.logs:
        analysis = logs.analyze(reading.logs)
        facts += logs_facts.facts_of(analysis)
        found += [_input("logs", Verdict.WARNING, text, Origin("logs")) for text in analysis.warnings()[:40]]
    names = [f"{visible(f.name)} ({f.form or 'unreadable'})" for f in reading.files]
    return _Collected(facts, found, names)


async def _endpoints(texts: list[str], timeout: float, trust: Path | None) -> list[inventory_sort.Fact]:
    """Probe all, a few at a time."""
    gate = asyncio.Semaphore(AT_A_TIME)

    async def probe(host: str, port: int, protocol: Protocol | None) -> list[inventory_sort.Fact]:
        async with gate:
            return [*await probe_endpoint(host, port, protocol, timeout, trust=trust)]

    async def one(text: str) -> list[inventory_sort.Fact]:
        places = parse_endpoint(text)
        if len(places) == 1 and places[0][1] in _BACK_ENDS:
            return [await _back_end(places[0][0], places[0][1])]
        results = await asyncio.gather(*(probe(*place) for place in places))
        if len(places) == 1:
            return results[0]
        facts = _closed(results)
        if not _own(places[0][0]):
            facts += await asyncio.gather(*(_back_end(places[0][0], port) for port in _BACK_ENDS))
        return facts

    found = await asyncio.gather(*(one(text) for text in texts))
    return [fact for facts in found for fact in facts]


def _closed(results: list[list[inventory_sort.Fact]]) -> list[inventory_sort.Fact]:
    """Of the usual ports of a host, those where nothing answers are simply not served, if others are."""
    dead = [r for r in results if any(isinstance(f, EndpointFact) and f.name == "Reachable" and not f.value for f in r)]
    facts = [f for r in results for f in r]
    if len(dead) < len(results):
        facts += [f._replace(name="Unserved", value=True) for r in dead for f in r if isinstance(f, EndpointFact)]
    return facts


def _own(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


async def _back_end(host: str, port: int) -> EndpointFact:
    """Whether a port for other servers can be reached from here."""
    name = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        async with asyncio.timeout(BACK_END_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError, UnicodeError) as error:
        why = "no answer" if isinstance(error, TimeoutError) else "refused"
        return EndpointFact(name, _BACK_ENDS[port], "Reachable", False, why, Origin(name))
    writer.close()
    return EndpointFact(name, _BACK_ENDS[port], "Reachable", True, "", Origin(name))


def _problems(facts: list[inventory_sort.Fact]) -> list[Finding]:
    """What this server could not read of itself."""
    return [
        _input(f.identity, Verdict.ERROR, str(f.value), f.origin)
        for f in facts
        if isinstance(f, SettingFact) and f.kind == "Problem"
    ]


async def _server_here(local: Local, p: dict[str, Any]) -> list[inventory_sort.Fact]:
    """This server's facts, by its own cmdlet, and its logs where they can be read from here."""
    named = {"Server": p["Server"]} if p.get("Server") else {}
    items = await local("Get-AnalyzerFact", named, [], None)
    facts: list[inventory_sort.Fact] = [analyzer_facts.restored(item["properties"]) for item in items]
    own = next((f.origin.server for f in facts if isinstance(f, SettingFact)), "")
    with contextlib.suppress(LetterlockError, OSError):  # no log: LOG-OFF says it
        analysis, _ = await login_logs.analyzed_here(local, {})
        facts += logs_facts.facts_of(analysis, own)
    return facts


# --- judging


def _judged(collected: _Collected, p: dict[str, Any]) -> tuple[list[Finding], Inventory]:
    wanted = rules.Wanted(tuple(p.get("Id", ())), tuple(p.get("Category", ())))
    inventory = inventory_sort.take(
        [f for f in collected.facts if not (isinstance(f, SettingFact) and f.kind == "Problem")], time.time()
    )
    found = rules.judge(inventory, wanted)
    # what could not be read is said whatever was asked for: it might have been in there
    about = (*collected.findings, *_problems(collected.facts))
    found += [f for f in about if f.verdict is not Verdict.INFO or wanted.named(f.id, f.category)]
    if not found:
        why = "No check that was asked for applies to what was given."
        found.append(
            Finding("INPUT", "Not judged", "Input", "everything", Verdict.ERROR, "nothing was judged", why=why)
        )
    return found, inventory


def _baseline(found: list[Finding], p: dict[str, Any]) -> list[Finding]:
    if not p.get("Baseline"):
        return found
    path = Path(p["Baseline"])
    return baseline.apply(found, baseline.read(path), datetime.datetime.now(datetime.UTC).date(), str(path))


def summary(found: list[Finding]) -> str:
    """The last line."""
    counts = {v: sum(f.verdict is v for f in found) for v in Verdict}
    text = ", ".join(f"{counts[v]} {v.value}" for v in reversed(Verdict) if counts[v])
    accepted = sum(bool(f.accepted) for f in found)
    return f"{len(found)} findings: {text or 'nothing was judged'}" + (f" ({accepted} accepted)" if accepted else "")


async def analyze_here(local: Local, p: dict[str, Any]) -> list[Row]:
    """Invoke-Analyzer where the command line runs."""
    _check(p)
    collected = _Collected([], [], [])
    if p.get("Path"):
        collected = _files(p["Path"])
    if p.get("Endpoint"):
        trust = Path(p["TrustedCertificate"]) if p.get("TrustedCertificate") else None
        facts = await _endpoints(p["Endpoint"], p.get("Timeout", 60), trust)
        collected = collected._replace(
            facts=[*collected.facts, *facts], inputs=[*collected.inputs, *map(visible, p["Endpoint"])]
        )
    if p.get("Server") or not (p.get("Path") or p.get("Endpoint")):
        own = await _server_here(local, p)
        collected = collected._replace(facts=[*collected.facts, *own], inputs=[*collected.inputs, "this server"])
    found, inventory = _judged(collected, p)
    if p.get("WriteBaseline"):
        count = baseline.write(Path(p["WriteBaseline"]), found, p["Reason"], p["ExpiresOn"])
        local.warn(f"written: {visible(p['WriteBaseline'])} with {count} entries")
    found = rules.ordered(_baseline(found, p))
    if p.get("Report"):
        analyzer_report.write(Path(p["Report"]), found, inventory, collected.inputs)
        local.warn(f"written: {visible(p['Report'])}")
    local.last_words.append(summary(found))
    return [row(f, bool(p.get("Detailed"))) for f in found]


def _check(p: dict[str, Any]) -> None:
    if p.get("WriteBaseline") and not (p.get("Reason") and p.get("ExpiresOn")):
        raise Malformed("WriteBaseline: a baseline needs -Reason and -ExpiresOn")
    if (p.get("Reason") or p.get("ExpiresOn")) and not p.get("WriteBaseline"):
        raise Malformed("Reason: -Reason and -ExpiresOn belong to -WriteBaseline")
    for text in p.get("Endpoint", ()):
        parse_endpoint(text)
    for identity in p.get("Id", ()):
        known = (*rules.BY_ID, "INPUT", "INPUT-FILE", "BASELINE")
        if not any(c in identity for c in "*?") and identity.upper() not in known:
            raise Malformed(f"Id: there is no check '{identity}'; docs/checks.md lists them")
    for category in p.get("Category", ()):
        if category.lower() not in {c.lower() for c in rules.CATEGORIES}:
            raise Malformed(f"Category: '{category}' is not one of {', '.join(rules.CATEGORIES)}")


async def analyze_there(c: Context, p: dict[str, Any]) -> list[Row]:
    """Invoke-Analyzer by the server itself."""
    for name in ("Path", "Endpoint", "Report", "Baseline", "WriteBaseline", "TrustedCertificate"):
        if p.get(name):
            raise Refused(
                f"{name}: files are read and endpoints probed where the command line runs: letterlock invoke-analyzer"
            )
    _check(p)
    c.check_server(p.get("Server", ""))
    found, _ = _judged(_Collected([*await analyzer_facts.collect(c)], [], []), p)
    c.messages.append(summary(found))
    return [row(f, bool(p.get("Detailed"))) for f in found]


# --- parameters


def _seconds(value: Any) -> int:
    text = str(value).strip()
    if not text.isascii() or not text.isdigit() or len(text) > 4 or not 1 <= int(text) <= LONGEST_S:
        raise Malformed(f"'{text}' is not allowed; use a number of seconds from 1 to {LONGEST_S}")
    return int(text)


def _date(value: Any) -> datetime.date:
    try:
        return datetime.date.fromisoformat(str(value).strip()[:10])
    except ValueError:
        raise Malformed(f"'{value}' is not a date such as 2027-03-01") from None


CMDLETS: Final = (
    *analyzer_facts.CMDLETS,
    Cmdlet(
        "Invoke-Analyzer",
        "Judges this server, exports of other servers and live endpoints by the rules of docs/checks.md.",
        analyze_there,
        (
            Parameter(
                "Path",
                "Files and folders with exports of Exchange's cmdlets (Format-List text, JSON, CSV, CLIXML), "
                "doveconf -n, and "
                "logs; - is standard input. With -Path or -Endpoint, this server is judged only if -Server names it.",
                paths,
                0,
                type_name="String[]", several=True,
            ),
            Parameter("Endpoint", "HOST[:PORT] to probe; without a port, the four of IMAP and POP3.", words,
                      type_name="String[]", several=True),
            Parameter("Server", "Judge this server besides -Path and -Endpoint."),
            Parameter("Report", "Write an HTML report to this file."),
            Parameter("Id", "Only these checks; * matches.", words, type_name="String[]"),
            Parameter("Category", "Only these categories.", words, type_name="String[]"),
            Parameter("Baseline", "Findings that are known: a file that accepts them, each with a reason and an end."),
            Parameter("WriteBaseline", "Write such a file for all that is wrong now; needs -Reason and -ExpiresOn."),
            Parameter("Reason", "Why they are accepted."),
            Parameter("ExpiresOn", "Until when.", _date, type_name="DateTime"),
            Parameter("Timeout", "Seconds for each endpoint.", _seconds, type_name="Int32", default="60",
                      allowed=(1, LONGEST_S)),
            Parameter("TrustedCertificate", "A file with certificates that are trusted besides the system's."),
            switch("Detailed", "Also category, reason, link, source and line of each finding."),
        ),
        here=analyze_here,
    ),
)  # fmt: skip
