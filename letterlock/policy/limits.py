"""Limits as pure state over a clock that is passed in: connections, and the growing price of failed logins.

One object counts for all workers, so that the limits are exact. Addresses are text; an IPv4-mapped IPv6 address counts
as the IPv4 one, and failures from IPv6 count per /64, which is what one customer has.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter, OrderedDict
from typing import Final

FREE_FAILURES: Final = 2  # a mistyped password costs nothing yet
FIRST_DELAY_S: Final = 0.5
LONGEST_DELAY_S: Final = 15.0
FORGET_S: Final = 900.0  # a failure counts for a quarter of an hour
REMEMBERED: Final = 50_000


def canonical(address: str) -> str:
    """IPv4-mapped IPv6 as IPv4; text that is no address stays."""
    if ":" not in address:
        return address
    try:
        parsed = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    return str(parsed.ipv4_mapped or parsed)


def network(address: str) -> str:
    """What failures are counted by: the address, or an IPv6 address's /64."""
    known = canonical(address)
    return str(ipaddress.ip_network(f"{known}/64", strict=False)) if ":" in known else known


class ConnectionLimits:
    """MaxConnections, MaxConnectionFromSingleIP and MaxConnectionsPerUser of one service."""

    def __init__(self, total: int, per_address: int, per_user: int) -> None:
        self.total, self.per_address, self.per_user = total, per_address, per_user
        self.connections = 0
        self._addresses: Counter[str] = Counter()
        self._users: Counter[str] = Counter()

    def admit(self, address: str) -> bool:
        """Count a new connection, unless a limit is reached."""
        key = canonical(address)
        if self.connections >= self.total or self._addresses[key] >= self.per_address:
            return False
        self.connections += 1
        self._addresses[key] += 1
        return True

    def release(self, address: str) -> None:
        """A connection that was admitted has ended."""
        self.connections -= 1
        _drop(self._addresses, canonical(address))

    def enter(self, user: str) -> bool:
        """Count a session of `user`, unless its limit is reached."""
        if self._users[user] >= self.per_user:
            return False
        self._users[user] += 1
        return True

    def leave(self, user: str) -> None:
        """A session that entered has ended."""
        _drop(self._users, user)


def _drop(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


class FailureThrottle:
    """How long the next answer to a login waits, by what failed before from that network and for that user.

    The delay of a network grows with its failures whatever the user; the delay of a user counts only for networks from
    which that user has not succeeded lately: an attacker cannot slow down the victim's own clients.
    """

    def __init__(self) -> None:
        self._networks: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._users: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._trusted: OrderedDict[tuple[str, str], float] = OrderedDict()

    def delay(self, user: str, address: str, now: float) -> float:
        """Seconds to wait before the login is answered."""
        place = network(address)
        score = _score(self._networks.get(place), now)
        if self._trusted.get((user, place), -FORGET_S) + FORGET_S < now:
            score = max(score, _score(self._users.get(user), now))
        if score <= FREE_FAILURES:
            return 0.0
        return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(score - FREE_FAILURES - 1.0, 20.0)))

    def failed(self, user: str, address: str, now: float) -> None:
        """A login failed."""
        for table, key in ((self._networks, network(address)), (self._users, user)):
            score = _score(table.pop(key, None), now) + 1.0
            table[key] = (score, now)
            if len(table) > REMEMBERED:
                table.popitem(last=False)

    def succeeded(self, user: str, address: str, now: float) -> None:
        """A login succeeded: this user is known to come from there."""
        place = network(address)
        self._trusted.pop((user, place), None)
        self._trusted[(user, place)] = now
        if len(self._trusted) > REMEMBERED:
            self._trusted.popitem(last=False)


class Spacing:
    """Lets something happen for each key once in a while, whatever comes of it."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._last: OrderedDict[tuple[str, str], float] = OrderedDict()

    def due(self, key: tuple[str, str], now: float) -> bool:
        """Whether it may happen now; counts as having happened then."""
        if now - self._last.get(key, -math.inf) < self._every_s:
            return False
        self._last.pop(key, None)
        self._last[key] = now
        if len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
        return True


def _score(entry: tuple[float, float] | None, now: float) -> float:
    """Failures, fading evenly over FORGET_S."""
    if entry is None:
        return 0.0
    count, at = entry
    return max(0.0, count * (1.0 - (now - at) / FORGET_S))
