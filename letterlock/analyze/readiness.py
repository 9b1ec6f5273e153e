"""What would be refused if a LoginType were enforced, and what is insecure now: folds over counted logins.

The answer comes from `policy.login.decide`, the function that the listeners use. Counted are logins that succeeded and
those that were refused by policy already: their clients have to be changed either way. A login with a wrong password
is left out: refusing it breaks nobody. Where the log does not say whether TLS was in use, nothing is decided.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from letterlock.analyze.clients import Advice, advise
from letterlock.analyze.logs_tally import Entry, Tally, attempt, mechanism, readable
from letterlock.base import values
from letterlock.base.facts import LoginFact, LoginResult
from letterlock.base.values import LoginType
from letterlock.policy.login import LoginAttempt, LoginRules, decide


class Covers(Protocol):
    """An exception to the policy, as far as it matters here."""

    def covers(self, attempt: LoginAttempt, at: float) -> bool: ...


@dataclass(slots=True)
class Group:
    """Logins that are listed as one."""

    address: set[str] = field(default_factory=set)
    protocol: set[values.Protocol] = field(default_factory=set)
    users: set[str] = field(default_factory=set)
    mechanisms: set[str] = field(default_factory=set)
    clients: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    logins: int = 0
    first: float = float("inf")
    last: float = float("-inf")
    told: str = ""
    covered: bool = True
    advice: Advice = Advice("", "")

    def add(self, fact: LoginFact, entry: Entry) -> None:
        """One more entry."""
        self.address.add(fact.address)
        self.protocol.add(fact.protocol)
        if fact.user:
            self.users.add(fact.user)
        self.mechanisms.add(fact.mechanism or "not logged")
        for name, count in entry.clients.items():
            self.clients[name] = self.clients.get(name, 0) + count
        for source, line in entry.sources.items():
            self.sources.setdefault(source, line)
        self.logins += entry.count
        self.first = min(self.first, entry.first)
        if entry.last >= self.last:
            self.last, self.told = entry.last, entry.text or self.told

    @property
    def client(self) -> str:
        """The program that was named most often."""
        return max(self.clients, key=self.clients.__getitem__) if self.clients else ""


GROUPINGS: Final = ("IPAddress", "User", "Client", "Subnet")


def subnet(address: str) -> str:
    """The /24 or /64 of an address; the text itself where it is none."""
    try:
        value = ipaddress.ip_address(address)
        return str(ipaddress.ip_network((value, 24 if value.version == 4 else 64), strict=False))
    except ValueError:
        return address


def _keys(fact: LoginFact, entry: Entry, by: str) -> list[tuple[str, str, int]]:
    """(group, client, logins): one, or by client as many as it has names."""
    if by == "User":
        return [(fact.user, "", entry.count)]
    if by == "Subnet":
        return [(subnet(fact.address), "", entry.count)]
    if by == "Client":
        named = sum(entry.clients.values())
        parts = [(name, name, count) for name, count in entry.clients.items()]
        return parts + ([("", "", entry.count - named)] if entry.count > named else [])
    return [(fact.address, "", entry.count)]


def groups(
    tally: Tally, wanted: Callable[[LoginFact], bool], by: str = "IPAddress"
) -> list[tuple[str, values.Protocol, Group]]:
    """Logins that are `wanted`, by a grouping and protocol; most logins first."""
    found: dict[tuple[str, values.Protocol], Group] = {}
    for fact, entry in tally.facts():
        if not wanted(fact):
            continue
        for name, client, count in _keys(fact, entry, by):
            part = entry
            if by == "Client":
                part = Entry(
                    count, entry.first, entry.last, entry.text, {client: count} if client else {}, entry.sources
                )
            found.setdefault((name, fact.protocol), Group()).add(fact, part)
    ordered = sorted(found.items(), key=lambda item: (-item[1].logins, item[0][0], item[0][1].value))
    return [(name, protocol, group) for (name, protocol), group in ordered]


Wanted = Callable[[LoginFact], bool]


def exposed(of: frozenset[values.Protocol]) -> Wanted:
    """Logins whose credentials could be read on the wire."""
    return lambda fact: fact.protocol in of and readable(fact)


def turned_away(of: frozenset[values.Protocol]) -> Wanted:
    """Logins that policy refused."""
    return lambda fact: fact.protocol in of and fact.result is LoginResult.REFUSED


@dataclass(slots=True)
class Readiness:
    """The what-if and its figures."""

    rows: list[tuple[str, str, values.Protocol, Group]] = field(default_factory=list)  # address, user
    refused: int = 0
    total: int = 0
    covered: int = 0
    unknown: int = 0
    wrong: int = 0  # failed logins, which are not counted
    login_type: LoginType = LoginType.SecureLogin

    @property
    def ready(self) -> bool:
        """Whether enforcing would refuse nobody who was seen; never where nothing was seen."""
        return self.refused == 0 and self.total > 0

    @property
    def summary(self) -> str:
        """The last line of the report."""
        return f"ready: {'yes' if self.ready else 'no'}, {self.refused} of {self.total} logins would be refused"


def judge(
    tally: Tally,
    login_type: LoginType = LoginType.SecureLogin,
    of: frozenset[values.Protocol] = frozenset(values.Protocol),
    exceptions: Iterable[Covers] = (),
) -> Readiness:
    """Ask the policy about every login that was seen."""
    answer = Readiness(login_type=login_type)
    allowed = tuple(exceptions)
    found: dict[tuple[str, str, values.Protocol], Group] = {}
    for fact, entry in tally.facts():
        if fact.protocol not in of:
            continue
        if fact.result is LoginResult.FAILED:
            answer.wrong += entry.count
            continue
        answer.total += entry.count
        if fact.tls is None:
            answer.unknown += entry.count
            continue
        tried = attempt(fact)
        if decide(tried, LoginRules(login_type, (mechanism(fact.mechanism),))).allowed:
            continue
        covered = any(e.covers(tried, fact.at) for e in allowed)
        answer.covered += entry.count if covered else 0
        answer.refused += 0 if covered else entry.count
        group = found.setdefault((fact.address, fact.user, fact.protocol), Group())
        group.add(fact, entry)
        group.covered = group.covered and covered
    for (address, user, protocol), group in found.items():
        every = (group.last - group.first) / (group.logins - 1) if group.logins > 20 else 0.0
        group.advice = advise(group.client, user, protocol, min(group.mechanisms, default=""), every)
        answer.rows.append((address, user, protocol, group))
    answer.rows.sort(key=lambda row: (row[3].covered, -row[3].logins, row[0], row[1]))
    return answer
