"""Counting logins: who, from where, how, when; never a row per log line.

A `Tally` keeps one entry for each distinct client (address, protocol, user, mechanism, channel, result) and one counter
for each hour, so its memory grows with clients and with time, not with lines. Tallies of several files are merged.

A login is insecure when the credentials were readable on the wire: no TLS at that moment in that session, a mechanism
that shows them, and the client had sent them (`readable`). That is so for logins that succeeded, that failed and that
were refused alike. Where a log does not say whether TLS was in use, the login is unknown, never insecure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from letterlock.base.facts import LoginFact, LoginResult, Origin
from letterlock.base.values import Protocol, Tls
from letterlock.policy.login import LOGIN, LOGIN_COMMAND, PLAIN, USER_PASS, Channel, LoginAttempt, Mechanism

HOUR: Final = 3600
MAX_CLIENTS: Final = 20  # names of programs kept per entry; a scanner may invent a new one each time
MAX_SOURCES: Final = 3

# Mechanisms that never show the password. Whatever is not here, and what a log does not name, counts as clear.
_HIDING: Final = frozenset(
    ("CRAM-MD5", "DIGEST-MD5", "NTLM", "GSSAPI", "GSS-SPNEGO", "APOP", "EXTERNAL", "ANONYMOUS", "OTP", "SRP")
)
_KNOWN: Final = {m.name.decode(): m for m in (LOGIN_COMMAND, USER_PASS, PLAIN, LOGIN)}


def mechanism(name: str) -> Mechanism:
    """The policy's value for a mechanism as a log names it; bearer tokens are as readable as passwords."""
    known = _KNOWN.get(name)
    if known is not None:
        return known
    hiding = name in _HIDING or name.startswith("SCRAM-")
    return Mechanism(name.encode("utf-8", "replace"), clear=not hiding)


def attempt(fact: LoginFact) -> LoginAttempt:
    """The attempt that the policy function judges; only for facts whose channel is known."""
    channel = Channel(fact.tls or Tls.NONE, fact.tls_version, peer=fact.address)
    return LoginAttempt(fact.protocol, channel, mechanism(fact.mechanism), fact.user)


def readable(fact: LoginFact) -> bool:
    """Whether somebody on the way could read the credentials."""
    return fact.tls is Tls.NONE and fact.sent and mechanism(fact.mechanism).clear


class Kind(NamedTuple):
    """What the timeline tells apart."""

    protocol: Protocol
    name: str  # "Secure", "Insecure", "Refused", "Failed", "Unknown"


def kind(fact: LoginFact) -> str:
    """The timeline's word for a login. Insecure wins over its result: the credentials were on the wire."""
    if readable(fact):
        return "Insecure"
    if fact.result is LoginResult.REFUSED:
        return "Refused"
    if fact.result is LoginResult.FAILED:
        return "Failed"
    if fact.tls is None and mechanism(fact.mechanism).clear:
        return "Unknown"
    return "Secure"


class Key(NamedTuple):
    """What makes an entry distinct. `hint` names a service whose channel may become known at the file's end."""

    protocol: Protocol
    address: str
    user: str
    mechanism: str
    tls: Tls | None
    result: LoginResult
    sent: bool
    hint: str


@dataclass(slots=True)
class Entry:
    """How often, when, with which programs, and where to look it up."""

    count: int = 0
    first: float = 0.0
    last: float = 0.0
    text: str = ""  # what the client was told, the last time
    clients: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)  # file → line of the first login there

    def add(self, fact: LoginFact) -> None:
        """One more."""
        at = fact.at
        if not self.count:
            self.first = self.last = at
        elif at > self.last:
            self.last = at
        elif at < self.first:
            self.first = at
        self.count += 1
        if fact.text:
            self.text = fact.text
        if fact.client and (fact.client in self.clients or len(self.clients) < MAX_CLIENTS):
            self.clients[fact.client] = self.clients.get(fact.client, 0) + 1
        if fact.origin.source not in self.sources and len(self.sources) < MAX_SOURCES:
            self.sources[fact.origin.source] = fact.origin.line

    def merge(self, other: Entry) -> None:
        """Add what another file counted."""
        if other.last >= self.last and other.text:
            self.text = other.text
        self.first = min(self.first, other.first) if self.count else other.first
        self.last = max(self.last, other.last)
        self.count += other.count
        for name, count in other.clients.items():
            if name in self.clients or len(self.clients) < MAX_CLIENTS:
                self.clients[name] = self.clients.get(name, 0) + count
        for source, line in other.sources.items():
            if len(self.sources) < MAX_SOURCES:
                self.sources.setdefault(source, line)


class Slot(NamedTuple):
    """Where logins like one that was counted before are counted."""

    entry: Entry
    hours: dict[int, int]
    earlier: dict[int, int]


class Tally:
    """Counts of logins between `since` and `until` (seconds since 1970).

    `hours` has, for each kind and hint, logins by the beginning of their hour; `earlier` those before `since`, for the
    picture of how it came to be.
    """

    def __init__(self, since: float = float("-inf"), until: float = float("inf")) -> None:
        self.since = since
        self.until = until
        self.entries: dict[Key, Entry] = {}
        self.hours: dict[tuple[Kind, str], dict[int, int]] = {}
        self.earlier: dict[tuple[Kind, str], dict[int, int]] = {}

    def add(self, fact: LoginFact) -> Slot | None:
        """Count one login; None where it lies outside the time asked for."""
        if not fact.at < self.until:
            return None
        hint = fact.origin.server if fact.tls is None and fact.sent and mechanism(fact.mechanism).clear else ""
        what, hour = (Kind(fact.protocol, kind(fact)), hint), int(fact.at // HOUR)
        earlier = self.earlier.setdefault(what, {})
        if fact.at < self.since:
            earlier[hour] = earlier.get(hour, 0) + 1
            return None
        key = Key(fact.protocol, fact.address, fact.user, fact.mechanism, fact.tls, fact.result, fact.sent, hint)
        entry = self.entries.get(key)
        if entry is None:
            entry = self.entries[key] = Entry()
        entry.add(fact)
        hours = self.hours.setdefault(what, {})
        hours[hour] = hours.get(hour, 0) + 1
        return Slot(entry, hours, earlier)

    def again(self, slot: Slot, at: float) -> None:
        """Count one more login that differs from an earlier one in its time alone."""
        if not at < self.until:
            return
        entry, hours, earlier = slot
        if at < self.since:
            hour = int(at // HOUR)
            earlier[hour] = earlier.get(hour, 0) + 1
            return
        entry.count += 1
        if at > entry.last:
            entry.last = at
        elif at < entry.first:
            entry.first = at
        hour = int(at // HOUR)
        hours[hour] = hours.get(hour, 0) + 1

    def merge(self, other: Tally) -> None:
        """Add another tally's counts."""
        for key, entry in other.entries.items():
            mine = self.entries.get(key)
            if mine is None:
                self.entries[key] = entry
            else:
                mine.merge(entry)
        for mine_all, theirs in ((self.hours, other.hours), (self.earlier, other.earlier)):
            for what, hours in theirs.items():
                _add_hours(mine_all, what, hours)

    def settle(self, clear: frozenset[str]) -> None:
        """Unknown logins of services in `clear` were made without TLS, as the rest of their log has shown."""
        for key in [k for k in self.entries if k.hint]:
            entry = self.entries.pop(key)
            settled = key._replace(tls=Tls.NONE if key.hint in clear else None, hint="")
            mine = self.entries.setdefault(settled, entry)
            if mine is not entry:
                mine.merge(entry)
        for counted in (self.hours, self.earlier):
            for what, hint in [w for w in counted if w[1]]:
                hours = counted.pop((what, hint))
                settled_kind = what._replace(name="Insecure") if hint in clear else what
                _add_hours(counted, (settled_kind, ""), hours)

    def timeline(self, whole: bool = False) -> dict[Kind, dict[int, int]]:
        """Logins of each kind by hour (hours since 1970), `whole` with those before `since`; after `settle`."""
        if not whole:
            return {what: hours for (what, _), hours in self.hours.items()}
        found: dict[tuple[Kind, str], dict[int, int]] = {}
        for counted in (self.earlier, self.hours):
            for what, hours in counted.items():
                _add_hours(found, what, hours)
        return {what: hours for (what, _), hours in found.items() if hours}

    def facts(self) -> Iterator[tuple[LoginFact, Entry]]:
        """One fact for each entry, standing for `entry.count` logins; the latest login's time."""
        for key, entry in self.entries.items():
            source, line = next(iter(entry.sources.items()), ("", 0))
            client = max(entry.clients, key=entry.clients.__getitem__) if entry.clients else ""
            yield (
                LoginFact(
                    entry.last, key.protocol, key.address, key.user, key.mechanism, key.tls, key.result, client,
                    "", entry.text, Origin(source, line), key.sent,
                ),
                entry,
            )  # fmt: skip


def _add_hours(counted: dict[tuple[Kind, str], dict[int, int]], what: tuple[Kind, str], hours: dict[int, int]) -> None:
    mine = counted.setdefault(what, {})
    for hour, count in hours.items():
        mine[hour] = mine.get(hour, 0) + count


class Open(NamedTuple):
    """What must be known of a session whose lines go on: later in this file, or in the next."""

    tls: Tls | None
    client: str = ""
    login: LoginFact | None = None  # waits for the client's name, which many tell after the login


@dataclass(slots=True)
class Sessions:
    """Open sessions of one file, or of all files so far; bounded."""

    tally: Tally
    open: dict[bytes, Open] = field(default_factory=dict)
    early: list[tuple[bytes, LoginFact]] = field(default_factory=list)  # their beginning is in an earlier file
    named: list[tuple[bytes, str]] = field(default_factory=list)  # clients that named themselves; login earlier
    settled: list[tuple[bytes, Tls]] = field(default_factory=list)  # sessions whose end tells of TLS; login earlier

    LIMIT = 50_000

    def begin(self, key: bytes, state: Open) -> None:
        """A session's first row, or a step in it."""
        old = self.open.pop(key, None)
        if old is not None and old.login is not None and state.login is not old.login:
            self.tally.add(old.login)
        self.open[key] = state
        if len(self.open) > self.LIMIT:
            # sessions that never closed, oldest first
            for oldest in list(self.open)[: self.LIMIT // 10]:
                self.end(oldest)

    def name(self, key: bytes, client: str) -> None:
        """A client named itself."""
        state = self.open.get(key)
        if state is None:
            if len(self.named) < self.LIMIT:
                self.named.append((key, client))
            return
        if state.login is not None:
            self.tally.add(state.login._replace(client=client))
        self.open[key] = Open(state.tls, client)

    def login(self, key: bytes, state: Open, fact: LoginFact) -> None:
        """A login in a session: counted now when its client is known, else at the session's end."""
        if state.client:
            self.tally.add(fact._replace(client=state.client))
        else:
            self.begin(key, Open(state.tls, "", fact))

    def undecided(self, key: bytes, fact: LoginFact) -> None:
        """A login whose session began before this file."""
        if len(self.early) < self.LIMIT:
            self.early.append((key, fact))
        else:
            self.tally.add(fact)

    def end(self, key: bytes) -> None:
        """No more rows."""
        state = self.open.pop(key, None)
        if state is not None and state.login is not None:
            self.tally.add(state.login)

    def settle(self, key: bytes, tls: Tls) -> None:
        """A session's last row tells whether TLS was in use; its login is counted."""
        state = self.open.get(key)
        if state is None:
            if len(self.settled) < self.LIMIT:
                self.settled.append((key, tls))
            return
        if state.login is not None and state.login.tls is None:
            self.open[key] = state._replace(login=state.login._replace(tls=tls))
        self.end(key)

    def follow(self, later: Sessions) -> None:
        """Go on with what the next file in time held."""
        for key, fact in later.early:
            state = self.open.get(key)
            if state is not None:
                fact = fact._replace(
                    tls=state.tls if fact.tls is None else fact.tls, client=fact.client or state.client
                )
            self.tally.add(fact)
        for key, tls in later.settled:
            self.settle(key, tls)
        for key, client in later.named:
            if key in self.open:
                self.name(key, client)
        for key, state in later.open.items():
            self.begin(key, state)

    def finish(self) -> None:
        """Nothing follows: count what waits."""
        for key in list(self.open):
            self.end(key)
