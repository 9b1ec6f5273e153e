"""Which TLS versions and cipher suites an endpoint takes, by hand-built ClientHellos (hello.py), one connection each.

Where the optional scanner library sslyze is installed (extra `scan`), its checks for known faults of TLS
implementations are run as well (`known_faults`); it is not needed for versions and suites.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from typing import Any, Final, NamedTuple

from letterlock.base.values import Protocol
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


async def scan(place: Place, implicit: bool, deadline: float) -> Versions:
    """Ask for every version alone, the newest first, then for the suites of those that are taken."""
    offered: dict[str, bool | None] = {}
    found: dict[str, tuple[str, ...]] = {}
    why: dict[str, str] = {}
    for version, name in hello.VERSIONS.items():
        answer = await _ask(place, implicit, version, list(hello.suites(version)), deadline)
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


async def _suites(place: Place, implicit: bool, version: int, deadline: float) -> tuple[tuple[str, ...], bool]:
    """In the order in which the server takes them; and whether the list is complete."""
    left = dict(hello.suites(version))
    found: list[str] = []
    for _ in range(MAX_CONNECTIONS):
        if not left:
            break
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
                    return _Answer(None, "")  # closed: many servers refuse a version so
                reader.receive(data)
        except TimeoutError:
            return _Answer(None, "no answer to the ClientHello in time")
        except Failed as failure:
            return _Answer(None, failure.text)
        except OSError:
            return _Answer(None, "")
        return _Answer(None, "the answer is not TLS") if reader.garbage else _Answer(reader.chosen, "")


# --- sslyze, where it is installed


def has_sslyze() -> bool:
    """Whether the optional scanner is there."""
    return importlib.util.find_spec("sslyze") is not None


_STARTTLS: Final = {Protocol.IMAP4: "IMAP", Protocol.POP3: "POP3", Protocol.SMTP: "SMTP"}


async def known_faults(place: Place, implicit: bool, deadline: float) -> dict[str, bool | None]:
    """SSL 2.0, Heartbleed, ROBOT, CCS injection, TLS compression, insecure renegotiation: True where there.

    Empty without sslyze. The scan runs in a thread; at the deadline its result is given up, and all are None.
    """
    if not has_sslyze() or not place.addresses:
        return {}
    loop = asyncio.get_running_loop()
    work = loop.run_in_executor(None, _scan, place, implicit)
    try:
        async with asyncio.timeout_at(deadline):
            return await asyncio.shield(work)
    except TimeoutError:
        work.add_done_callback(lambda done: done.exception())
        return dict.fromkeys(FAULTS)


FAULTS: Final = ("SSLv2", "Heartbleed", "ROBOT", "CcsInjection", "TlsCompression", "InsecureRenegotiation")


def _scan(place: Place, implicit: bool) -> dict[str, bool | None]:
    try:
        return _sslyze(importlib.import_module("sslyze"), place, implicit)
    except Exception:  # the library's errors are many; what it could not tell is not known
        return dict.fromkeys(FAULTS)


def _sslyze(library: Any, place: Place, implicit: bool) -> dict[str, bool | None]:
    kinds = library.ProtocolWithOpportunisticTlsEnum
    network = library.ServerNetworkConfiguration(
        tls_server_name_indication=place.name,
        tls_opportunistic_encryption=None if implicit else getattr(kinds, _STARTTLS[place.protocol]),
        network_timeout=5,
        network_max_retries=1,
    )
    where = library.ServerNetworkLocation(hostname=place.name, port=place.port, ip_address=place.addresses[0].address)
    command = library.ScanCommand
    wanted = {command.HEARTBLEED, command.ROBOT, command.OPENSSL_CCS_INJECTION, command.TLS_COMPRESSION}
    wanted |= {command.SESSION_RENEGOTIATION, command.SSL_2_0_CIPHER_SUITES}
    scanner = library.Scanner()
    scanner.queue_scans([library.ServerScanRequest(where, network, scan_commands=wanted)])
    found: dict[str, bool | None] = dict.fromkeys(FAULTS)
    for result in scanner.get_results():
        if result.scan_result is None:
            continue
        r = result.scan_result
        if r.ssl_2_0_cipher_suites.result is not None:
            found["SSLv2"] = bool(r.ssl_2_0_cipher_suites.result.accepted_cipher_suites)
        if r.heartbleed.result is not None:
            found["Heartbleed"] = bool(r.heartbleed.result.is_vulnerable_to_heartbleed)
        if r.robot.result is not None:
            verdict = str(r.robot.result.robot_result.name)
            found["ROBOT"] = None if verdict.startswith("UNKNOWN") else verdict.startswith("VULNERABLE")
        if r.openssl_ccs_injection.result is not None:
            found["CcsInjection"] = bool(r.openssl_ccs_injection.result.is_vulnerable_to_ccs_injection)
        if r.tls_compression.result is not None:
            found["TlsCompression"] = bool(r.tls_compression.result.supports_compression)
        if r.session_renegotiation.result is not None:
            found["InsecureRenegotiation"] = not r.session_renegotiation.result.supports_secure_renegotiation
    return found
