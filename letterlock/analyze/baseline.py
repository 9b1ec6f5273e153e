"""A baseline: findings that are known and accepted, each with a reason and an end.

    {"accepted": [{"Id": "LIM-UNLIM", "Target": "EX01 IMAP4", "Reason": "behind a proxy", "Expires": "2027-03-01"}]}

An accepted finding is shown with verdict Info and says by which reason, until when, and what it would be. It is never
hidden. What has ended is accepted no more and named; an entry that nothing needs any more is named, too.
"""

from __future__ import annotations

import dataclasses
import datetime
import fnmatch
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from letterlock.analyze.findings import Finding, Verdict
from letterlock.analyze.logs_lines import visible
from letterlock.base.errors import Malformed, Refused
from letterlock.base.facts import Origin

MAX_FILE: Final = 4 << 20
_BAD: Final = (Verdict.FAIL, Verdict.WARNING, Verdict.ERROR)
_NAMES: Final = ("Id", "Target", "Reason", "Expires")


class Accepted(NamedTuple):
    """One entry."""

    id: str
    target: str  # * and ? match
    reason: str
    expires: datetime.date

    def fits(self, finding: Finding) -> bool:
        """Whether it is for this finding."""
        same = self.id.upper() == finding.id
        return same and fnmatch.fnmatchcase(finding.target.lower(), self.target.lower().replace("[", "[[]"))


def read(path: Path) -> list[Accepted]:
    """The entries; `Malformed` names file and entry."""
    name = visible(str(path))
    try:
        if path.stat().st_size > MAX_FILE:
            raise Malformed(f"Baseline: {name} is larger than {MAX_FILE >> 20} MiB")
        data = json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise Malformed(f"Baseline: {name}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise Malformed(f"Baseline: {name} is not valid JSON in UTF-8") from None
    entries = data.get("accepted") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise Malformed(f'Baseline: {name} must be {{"accepted": [ … ]}}')
    return [_entry(entry, f"{name}, entry {number}") for number, entry in enumerate(entries, 1)]


def _entry(entry: Any, where: str) -> Accepted:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(n), str) and entry[n].strip() for n in _NAMES):
        raise Malformed(f"Baseline: {where} needs {', '.join(_NAMES)}, each with text")
    try:
        expires = datetime.date.fromisoformat(entry["Expires"].strip())
    except ValueError:
        raise Malformed(
            f"Baseline: {where}: Expires: '{visible(entry['Expires'])[:40]}' is not a date such as 2027-03-01"
        ) from None
    return Accepted(entry["Id"].strip(), entry["Target"].strip(), entry["Reason"].strip(), expires)


def apply(found: Iterable[Finding], entries: list[Accepted], today: datetime.date, source: str) -> list[Finding]:
    """The findings with what is accepted shown as such, and what is to be said of the baseline itself."""
    result: list[Finding] = []
    used: set[Accepted] = set()
    ended: set[Accepted] = set()
    for finding in found:
        fitting = [e for e in entries if finding.verdict in _BAD and e.fits(finding)]
        valid = next((e for e in fitting if e.expires >= today), None)
        used.update(fitting)
        if valid is None:
            ended.update(fitting)
            result.append(finding)
            continue
        detail = (
            f"accepted until {valid.expires} ({visible(valid.reason)[:200]}); {finding.verdict.value}: {finding.detail}"
        )
        result.append(
            dataclasses.replace(
                finding, verdict=Verdict.INFO, detail=detail, accepted=valid.reason, accepted_verdict=finding.verdict
            )
        )
    for entry in entries:
        target = visible(f"{entry.id} {entry.target}")
        if entry in ended:
            result.append(
                _about(
                    target,
                    Verdict.WARNING,
                    f"the acceptance ended on {entry.expires} ({visible(entry.reason)[:200]})",
                    source,
                )
            )
        elif entry not in used:
            result.append(
                _about(target, Verdict.INFO, "nothing needs this entry any more: remove it from the baseline", source)
            )
    return result


def _about(target: str, verdict: Verdict, detail: str, source: str) -> Finding:
    why = "Acceptances are for a while: each should end by a repair, or be decided again."
    return Finding("BASELINE", "Baseline entry", "Input", target, verdict, detail, why=why, origin=Origin(source))


def write(path: Path, found: Iterable[Finding], reason: str, expires: datetime.date) -> int:
    """A baseline that accepts all that is wrong now; how many entries. `Refused` where it cannot be written."""
    entries = [
        {"Id": f.id, "Target": f.target, "Reason": reason, "Expires": expires.isoformat()}
        for f in found
        if f.verdict in _BAD
    ]
    unique = list({(e["Id"], e["Target"]): e for e in entries}.values())
    try:
        path.write_text(json.dumps({"accepted": unique}, indent=2, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise Refused(f"the baseline {visible(str(path))} cannot be written: {error.strerror}") from None
    return len(unique)
