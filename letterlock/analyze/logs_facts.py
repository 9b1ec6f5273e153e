"""What logs show, as facts for rules: who logged in in clear text, who failed, and which mailboxes are used."""

from __future__ import annotations

import datetime
from typing import Final

from letterlock.analyze.logs import Analysis
from letterlock.analyze.logs_tally import readable
from letterlock.base.facts import LoginFact, LoginResult, Origin, SettingFact
from letterlock.base.values import Protocol

SHOWN: Final = 5  # users in one fact


class _Group:
    """Logins of one address and protocol."""

    def __init__(self) -> None:
        self.logins = 0
        self.users: set[str] = set()
        self.last = 0.0
        self.origin = Origin("")

    def add(self, fact: LoginFact, count: int, last: float, sources: dict[str, int]) -> None:
        """One entry of the tally."""
        self.logins += count
        if fact.user:
            self.users.add(fact.user)
        self.last = max(self.last, last)
        if not self.origin.source:
            self.origin = next((Origin(name, line) for name, line in sources.items()), Origin("logs"))


def facts_of(analysis: Analysis, server: str = "") -> list[SettingFact]:
    """Facts of kinds Log, ClearLogin, FailedLogin and Usage."""
    clear: dict[tuple[str, Protocol], _Group] = {}
    failed: dict[tuple[str, Protocol], _Group] = {}
    used: dict[tuple[str, Protocol], Origin] = {}
    total = 0
    for fact, entry in analysis.tally.facts():
        total += entry.count
        if readable(fact):
            clear.setdefault((fact.address, fact.protocol), _Group()).add(fact, entry.count, entry.last, entry.sources)
        if fact.result is LoginResult.FAILED:
            failed.setdefault((fact.address, fact.protocol), _Group()).add(fact, entry.count, entry.last, entry.sources)
        if fact.result is LoginResult.SUCCEEDED and fact.user:
            used.setdefault((fact.user.lower(), fact.protocol), Origin("logs"))
    names = ", ".join(f.name for f in analysis.files[:3])
    found = [SettingFact("Log", "logs", "Logins", str(total), Origin(names, 0, server))]
    for kind, groups in (("ClearLogin", clear), ("FailedLogin", failed)):
        for (address, protocol), group in sorted(groups.items(), key=lambda item: -item[1].logins):
            found += _rows(kind, f"{address} {protocol.value}", protocol, group, server)
    for (user, protocol), origin in used.items():
        where = origin._replace(server=server)
        found.append(SettingFact("Usage", f"{protocol.value} {user}", "Protocol", protocol.value, where))
    return found


def _rows(kind: str, identity: str, protocol: Protocol, group: _Group, server: str) -> list[SettingFact]:
    users = sorted(group.users)
    shown = ", ".join(users[:SHOWN]) + (f" and {len(users) - SHOWN} more" if len(users) > SHOWN else "")
    try:
        last = datetime.datetime.fromtimestamp(group.last, datetime.UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):
        last = "an unreadable time"
    values = {
        "Protocol": protocol.value,
        "Logins": str(group.logins),
        "Users": shown or "unknown users",
        "UserCount": str(len(users)),
        "LastSeen": last,
    }
    origin = group.origin._replace(server=server)
    return [SettingFact(kind, identity, name, value, origin) for name, value in values.items()]
