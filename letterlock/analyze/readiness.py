"""What would be refused if a LoginType were enforced, and what is insecure now: folds over counted logins.

The answer comes from `policy.login.decide`, the function that the listeners use, with the exceptions that a listener
would have for that address now. Counted are logins that succeeded and those that were refused by policy already: their
clients have to be changed either way. A login with a wrong password is left out: refusing it breaks nobody. Where the
log does not say whether TLS was in use, nothing is decided; where it does not name the user, an exception for one
mailbox does not count: the login may be anybody's.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from letterlock.analyze.clients import Advice, advise
from letterlock.analyze.logs_tally import Entry, Tally, attempt, mechanism, readable
from letterlock.base import values
from letterlock.base.facts import LoginFact, LoginResult
from letterlock.base.values import LoginType
from letterlock.policy.exceptions import LoginException
from letterlock.policy.login import LoginRules, decide


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
    covered: bool = True  # every one of them
    exceptions: dict[str, LoginException] = field(default_factory=dict)  # those that let them through, by identity
    advice: Advice = Advice("", "")
    over_tls: float = 0.0  # it logged in over TLS later than its last login here: it was changed, it seems

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
    seen: set[values.Protocol] = field(default_factory=set)
    secure: dict[tuple[str, str, values.Protocol], float] = field(default_factory=dict)  # last login over TLS

    @property
    def ready(self) -> bool:
        """Whether enforcing would refuse nobody who was seen; never where nothing was seen."""
        return self.refused == 0 and self.total > 0

    @property
    def summary(self) -> str:
        """The last line of the report."""
        return f"ready: {'yes' if self.ready else 'no'}, {self.refused} of {self.total} logins would be refused"


class _InForce:
    """Exceptions as a listener picks them for an address, now."""

    def __init__(self, exceptions: Iterable[LoginException]) -> None:
        now = time.time()
        self._all = tuple(e for e in exceptions if e.active(now))
        self._of: dict[str, tuple[LoginException, ...]] = {}
        self.by_identity = {e.identity: e for e in self._all}

    def of(self, fact: LoginFact) -> tuple[LoginException, ...]:
        """Those that may go for a login."""
        if not self._all:
            return ()
        found = self._of.get(fact.address)
        if found is None:
            found = self._of[fact.address] = tuple(e for e in self._all if e.contains(fact.address))
        return found if fact.user else tuple(e for e in found if not e.mailbox)


def judge(
    tally: Tally,
    login_type: LoginType = LoginType.SecureLogin,
    of: frozenset[values.Protocol] = frozenset(values.Protocol),
    exceptions: Iterable[LoginException] = (),
) -> Readiness:
    """Ask the policy about every login that was seen."""
    answer = Readiness(login_type=login_type)
    in_force = _InForce(exceptions)
    found: dict[tuple[str, str, values.Protocol], Group] = {}
    for fact, entry in tally.facts():
        if fact.protocol not in of:
            continue
        if fact.result is LoginResult.FAILED:
            answer.wrong += entry.count
            continue
        answer.total += entry.count
        answer.seen.add(fact.protocol)
        if fact.tls is None:
            answer.unknown += entry.count
            continue
        rules = LoginRules(login_type, (mechanism(fact.mechanism),), exceptions=in_force.of(fact))
        decision = decide(attempt(fact), rules)
        who = (fact.address, fact.user, fact.protocol)
        if decision.allowed and not decision.exception:
            if fact.tls is not values.Tls.NONE:
                answer.secure[who] = max(answer.secure.get(who, 0.0), entry.last)
            continue
        group = found.setdefault(who, Group())
        group.add(fact, entry)
        if decision.allowed:
            answer.covered += entry.count
            group.exceptions[decision.exception] = in_force.by_identity[decision.exception]
        else:
            answer.refused += entry.count
            group.covered = False
    for (address, user, protocol), group in found.items():
        every = (group.last - group.first) / (group.logins - 1) if group.logins > 20 else 0.0
        group.advice = advise(group.client, user, protocol, min(group.mechanisms, default=""), every)
        later = answer.secure.get((address, user, protocol), 0.0)
        group.over_tls = later if later > group.last else 0.0
        answer.rows.append((address, user, protocol, group))
    answer.rows.sort(key=lambda row: (row[3].covered, -row[3].logins, row[0], row[1]))
    return answer
