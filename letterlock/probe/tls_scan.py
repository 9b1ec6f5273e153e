"""Which TLS versions and cipher suites an endpoint takes, by hand-built ClientHellos (hello.py), one connection each.

Used where the scanner sslyze is not installed (`scanner.py`), and for what that could not tell.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from letterlock.clients.outcomes import Failed
from letterlock.probe import hello
from letterlock.probe.walk import Place, walking

MAX_CONNECTIONS: Final = 64  # per version; no server has more suites
STEP_S: Final = 10.0


class Versions(NamedTuple):
    """By version's name: True taken, False refused, None could not be determined; and the suites, by version."""

    offered: dict[str, bool | None]
    suites: dict[str, tuple[str, ...]]
    why: dict[str, str]  # by version: why it could not be determined, or how it was refused


class _Answer(NamedTuple):
    chosen: hello.Chosen | None
    unknown: str  # why nothing can be said; empty when the answer is clear
    closed: bool = False  # refused without an alert: it may have stumbled over the suite that it likes best


async def scan(place: Place, implicit: bool, deadline: float) -> Versions:
    """Ask for every version alone, the newest first, then for the suites of those that are taken."""
    offered: dict[str, bool | None] = {}
    found: dict[str, tuple[str, ...]] = {}
    why: dict[str, str] = {}
    for version, name in hello.VERSIONS.items():
        answer = await _offer(place, implicit, version, deadline)
        if answer.unknown:
            offered[name], why[name] = None, answer.unknown
            continue
        offered[name] = answer.chosen is not None and answer.chosen.version == version
        if answer.chosen is not None and not offered[name]:
            why[name] = f"answered with {hello.VERSIONS.get(answer.chosen.version, 'another version')}"
    for version, name in hello.VERSIONS.items():
        if offered[name]:
            found[name], complete = await _suites(place, implicit, version, deadline)
            if not complete:
                why[name] = "the list of cipher suites may be incomplete"
    return Versions(offered, found, why)


async def _offer(place: Place, implicit: bool, version: int, deadline: float) -> _Answer:
    """Whether a version is taken: all suites at once, and family by family where the server just closes.

    A server without Diffie-Hellman parameters that likes DHE best closes although it would take other suites.
    """
    answer = await _ask(place, implicit, version, list(hello.suites(version)), deadline)
    if answer.closed:
        for family in _families(version):
            one = await _ask(place, implicit, version, list(family), deadline)
            if one.chosen is not None:
                return one
    return answer


def _families(version: int) -> list[dict[int, str]]:
    """Suites by key exchange."""
    found: dict[str, dict[int, str]] = {}
    for number, name in hello.suites(version).items():
        found.setdefault(name.partition("_WITH_")[0] if version != hello.TLS13 else "", {})[number] = name
    return list(found.values())


async def _suites(place: Place, implicit: bool, version: int, deadline: float) -> tuple[tuple[str, ...], bool]:
    """By key exchange, each in the order in which the server takes them; and whether the list is complete."""
    found: list[str] = []
    for left in _families(version):
        while left and len(found) < MAX_CONNECTIONS:
            answer = await _ask(place, implicit, version, list(left), deadline)
            if answer.unknown:
                return tuple(found), False
            if answer.chosen is None or answer.chosen.version != version or answer.chosen.suite not in left:
                break
            found.append(left.pop(answer.chosen.suite))
    return tuple(found), True


async def _ask(place: Place, implicit: bool, version: int, suites: list[int], deadline: float) -> _Answer:
    """One ClientHello."""
    loop = asyncio.get_running_loop()
    end = min(deadline, loop.time() + STEP_S)
    async with walking(place, end) as walk:
        try:
            await walk.connect()
            if not implicit:
                await walk.greeting()
                await walk.ask(walk.client.capability())
                await walk.ask(walk.client.starttls())
        except Failed as failure:
            return _Answer(None, failure.text)
        reader = hello.HelloReader()
        try:
            await walk.channel.write(hello.client_hello(version, suites, place.name), end)
            while not reader.done:
                data = await walk.channel.read(end)
                if not data:
                    return _Answer(None, "", closed=True)  # many servers refuse a version so
                reader.receive(data)
        except TimeoutError:
            return _Answer(None, "no answer to the ClientHello in time")
        except Failed as failure:
            return _Answer(None, failure.text)
        except OSError:
            return _Answer(None, "", closed=True)
        return _Answer(None, "the answer is not TLS") if reader.garbage else _Answer(reader.chosen, "")
