"""Facts, sorted into systems and endpoints (`inventory.py`).

What names no server belongs to the only one that is named; EX01 and ex01.contoso.test are one server. An endpoint
belongs to the system that has its host's name among its own names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from letterlock.analyze.certificates import certificate
from letterlock.analyze.inventory import (
    DOVECOT,
    EXCHANGE,
    KINDS,
    LETTERLOCK,
    Endpoint,
    Inventory,
    MailService,
    System,
    Thing,
    Unknown,
)
from letterlock.analyze.inventory_dovecot import translated
from letterlock.base.facts import CertificateFact, EndpointFact, SettingFact

_OBSERVED: Final = frozenset({"Log", "ClearLogin", "FailedLogin", "Usage"})  # in logs, which name no server
Fact = SettingFact | CertificateFact | EndpointFact


def short(server: str) -> str:
    """EX01 and ex01.contoso.test are one server; an address stays whole."""
    lower = server.strip().lower()
    return lower if re.fullmatch(r"[\d.:]+", lower) else lower.partition(".")[0]


def take(facts: Iterable[Fact], now: float) -> Inventory:
    """Sort facts."""
    things: dict[tuple[str, ...], Thing] = {}
    served: list[CertificateFact] = []
    endpoints: dict[str, Endpoint] = {}
    for fact in facts:
        if isinstance(fact, EndpointFact):
            endpoint = endpoints.setdefault(fact.endpoint, Endpoint(fact.endpoint, fact.protocol))
            endpoint.facts[fact.name] = fact
            endpoint.protocol = fact.protocol
        elif isinstance(fact, CertificateFact):
            served.append(fact)
        else:
            _gather(things, fact)
    for fact in served:
        if fact.origin.source in endpoints:
            endpoints[fact.origin.source].certificate = fact
    systems = _systems(list(things.values()))
    for system in systems:
        system.now = now
        system.fleet = sum(s.product == system.product for s in systems)
    inventory = Inventory(systems, list(endpoints.values()), now)
    for endpoint in inventory.endpoints:
        endpoint.now = now
        for system in systems:
            if endpoint.host in _hosts(system):
                endpoint.system = system
                system.endpoints.append(endpoint)
    return inventory


def _gather(things: dict[tuple[str, ...], Thing], fact: SettingFact) -> None:
    """Add a fact to its object. Objects without a name are told apart by their file, and by a property coming again."""
    server = fact.origin.server
    key: tuple[str, ...] = (fact.kind, short(server), fact.identity.lower())
    if not fact.identity:
        key = (*key, fact.origin.source)
        while (thing := things.get(key)) is not None and _another(thing, fact):
            key = (*key, "")
    things.setdefault(key, Thing(fact.kind, fact.identity, server)).facts[fact.name.lower()] = fact


def _another(thing: Thing, fact: SettingFact) -> bool:
    """Whether the fact is of the next object of the file: `doveconf` repeats blocks, and is one object all the same."""
    return thing.kind != "Dovecot" and fact.name.lower() in thing.facts


def _hosts(system: System) -> set[str]:
    found = {system.name.lower()}
    for service in system.mail:
        for name in ("InternalConnectionSettings", "ExternalConnectionSettings"):
            if service.has(name):
                try:
                    found |= {c.host for c in service.connections(name)}
                except Unknown:
                    continue
        if service.has("X509CertificateName"):
            found.add(str(service.thing.facts["x509certificatename"].value).lower())
    return found - {""}


def _systems(things: list[Thing]) -> list[System]:
    named = {short(t.server): t.server for t in things if t.server and t.kind not in ("CASMailbox", "Dovecot")}
    # what names no server belongs to the only one that is named
    only = next(iter(named)) if len(named) == 1 else ""
    found: dict[str, System] = {}
    observed: list[Thing] = []
    for thing in things:
        if thing.kind in _OBSERVED and not thing.server:
            observed.append(thing)
            continue
        key = short(thing.server) or only
        if thing.kind == "CASMailbox" and key not in named:
            key = only
        if thing.kind == "Dovecot":
            key = f"dovecot {short(thing.server)} {thing.source}"
        system = found.setdefault(key, System("", EXCHANGE))
        system.name = system.name or thing.server or named.get(key, "")
        _place(system, thing)
    for thing in observed:
        of = next(iter(found.values())) if len(found) == 1 else found.setdefault("logs ", System("logs", EXCHANGE))
        _place(of, thing)
    for system in found.values():
        configuration = system.of("Dovecot")
        if configuration:
            system.product = DOVECOT
            system.name = system.name or configuration[0].source
            translated(system, configuration[0])
        elif _ours(system):
            system.product = LETTERLOCK
    return [s for s in found.values() if s.mail or s.services or s.certificates or s.things]


def _place(system: System, thing: Thing) -> None:
    for protocol, (kind, _) in KINDS.items():
        if thing.kind == kind:
            system.mail.append(MailService(system, protocol, thing))
            return
    if thing.kind == "Service":
        system.services[thing.identity.lower()] = thing
    elif thing.kind == "ExchangeCertificate":
        system.certificates.append(certificate(thing))
    else:
        system.things.setdefault(thing.kind, []).append(thing)


def _ours(system: System) -> bool:
    return (
        bool(system.of("Server"))
        or any(name.startswith("letterlock") for name in system.services)
        or any(m.has("LogRetentionAge") or m.has("LoginTypeMode") for m in system.mail)
    )
