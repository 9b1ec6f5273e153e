"""THE TABLE of rules, and judging an inventory by it.

A rule that is not applied for want of a kind of object is named in one finding a kind (INPUT, Info), so that nobody
takes silence for a Pass. What a rule could not find out in what it was given is an Error of that rule.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from letterlock.analyze import rules_certificates, rules_endpoints, rules_logins, rules_people, rules_services
from letterlock.analyze.findings import GRAVITY, SMTP, Finding, Rule, Verdict, remedy
from letterlock.analyze.inventory import DOVECOT, PRODUCTS, Endpoint, Inventory, MailService, System, Unknown
from letterlock.analyze.logs_lines import visible
from letterlock.base.facts import Origin
from letterlock.base.values import Protocol

T = TypeVar("T")

MAIL: Final[tuple[Rule[MailService], ...]] = (
    *rules_services.MAIL,
    *rules_logins.MAIL,
    *rules_certificates.MAIL,
    *rules_people.MAIL,
)
SYSTEM: Final[tuple[Rule[System], ...]] = (
    *rules_services.SYSTEM,
    *rules_logins.SYSTEM,
    *rules_certificates.SYSTEM,
    *rules_people.SYSTEM,
)
ENDPOINT: Final[tuple[Rule[Endpoint], ...]] = rules_endpoints.ENDPOINT
ALL: Final[tuple[Rule[Any], ...]] = (*MAIL, *SYSTEM, *ENDPOINT)
BY_ID: Final[Mapping[str, Rule[Any]]] = {rule.id: rule for rule in ALL}
CATEGORIES: Final = tuple(dict.fromkeys((*(rule.category for rule in ALL), "Input")))

# What to add for rules that could not be applied.
GIVE: Final = {
    "Service": "Get-Service MSExchange*POP*,MSExchange*IMAP* | Select-Object Name,Status,StartType",
    "CASMailbox": "Get-CASMailbox -ResultSize Unlimited | Select-Object PrimarySmtpAddress,PopEnabled,ImapEnabled",
    "ExchangeCertificate": "Get-ExchangeCertificate | Format-List",
    "ReceiveConnector": "Get-ReceiveConnector | Format-List",
    "ServerComponentState": "Get-ServerComponentState SERVER",
    "Endpoint": "-Endpoint HOST:PORT",
    "Log": "the protocol logs, with -Path",
    "Usage": "the protocol logs, with -Path",
}


def judge(inventory: Inventory, wanted: Wanted | None = None) -> list[Finding]:
    """Everything that the rules say, the gravest first."""
    wanted = wanted or Wanted()
    found: list[Finding] = []
    for system in inventory.systems:
        missing: dict[str, list[str]] = {}
        for mail in system.mail:
            for rule in MAIL:
                if rule.protocol in (None, mail.protocol) and _applies(rule, system, missing, wanted):
                    found += _said(rule, mail, mail.name, system.product, mail.words(), mail.thing.origin)
        for rule_ in SYSTEM:
            if _applies(rule_, system, missing, wanted):
                origin = system.of("Dovecot")[0].origin if system.of("Dovecot") else Origin("", 0, system.name)
                found += _said(rule_, system, system.name or "server", system.product, system.words(), origin)
        found += _missing(system, missing)
    for endpoint in inventory.endpoints:
        product = _product(endpoint)
        for rule__ in ENDPOINT:
            if not wanted(rule__) or (rule__.id not in ("WIRE-REACH", "BIND-BE") and _dead(endpoint)):
                continue
            words = {**(endpoint.system.words() if endpoint.system else {}), **endpoint.words()}
            found += _said(rule__, endpoint, endpoint.name, product, words, Origin(endpoint.name))
    return ordered(found)


def ordered(found: list[Finding]) -> list[Finding]:
    """The gravest first, then as in the table."""
    places = {rule.id: n for n, rule in enumerate(ALL)}
    return sorted(found, key=lambda f: (-GRAVITY[f.verdict], f.target.lower(), places.get(f.id, len(places))))


class Wanted:
    """Which rules are asked for, by identity (with wildcards) and category."""

    def __init__(self, ids: tuple[str, ...] = (), categories: tuple[str, ...] = ()) -> None:
        self.ids = tuple(i.upper() for i in ids)
        self.categories = {c.lower() for c in categories}

    def __call__(self, rule: Rule[Any]) -> bool:
        """Whether it is."""
        return self.named(rule.id, rule.category)

    def named(self, identity: str, category: str) -> bool:
        """The same for what is no rule."""
        by_id = not self.ids or any(fnmatch.fnmatchcase(identity, i) for i in self.ids)
        return by_id and (not self.categories or category.lower() in self.categories)


def _product(endpoint: Endpoint) -> str:
    """Whose commands help: SMTP has others; else by the system it belongs to, or by what its greeting names."""
    if endpoint.protocol is Protocol.SMTP:
        return SMTP
    if endpoint.system is not None:
        return endpoint.system.product
    fact = endpoint.facts.get("BannerProduct")
    named = str(fact.value).lower() if fact is not None and fact.value else ""
    return next((p for p in sorted(PRODUCTS) if p.lower() in named), "")


def _dead(endpoint: Endpoint) -> bool:
    reachable = endpoint.facts.get("Reachable")
    return reachable is not None and reachable.value is False


def _has(system: System, kind: str) -> bool:
    if system.of("Server") and kind in ("CASMailbox", "Endpoint"):
        return True  # our own server was asked itself: what is not there is not there
    if kind == "Usage":
        return bool(system.of("Server") or system.of("Log"))
    if kind == "Service":
        return bool(system.services)
    if kind == "ExchangeCertificate":
        return bool(system.certificates)
    if kind == "Endpoint":
        return bool(system.endpoints or system.of("Listener"))
    return bool(system.of(kind))


def _applies(rule: Rule[Any], system: System, missing: dict[str, list[str]], wanted: Wanted) -> bool:
    if system.product not in rule.products or not wanted(rule):
        return False
    lacking = [kind for kind in rule.needs if not _has(system, kind)]
    for kind in lacking:
        if rule.id not in missing.setdefault(kind, []):
            missing[kind].append(rule.id)
    return not lacking


def _missing(system: System, missing: dict[str, list[str]]) -> list[Finding]:
    """One finding a kind of object that was not given."""
    found = []
    for kind, ids in missing.items():
        found.append(
            Finding(
                "INPUT",
                "Not judged",
                "Input",
                visible(system.name) or "server",
                Verdict.INFO,
                f"not given: {kind}; not judged for that: {', '.join(ids)}",
                f"Add {GIVE.get(kind, kind)}" if system.product != DOVECOT or kind in ("Log", "Endpoint") else "",
                "What was not given cannot be judged; these rules neither passed nor failed.",
                product=system.product,
            )
        )
    return found


def _said(rule: Rule[T], target: T, name: str, product: str, words: Mapping[str, str], origin: Origin) -> list[Finding]:
    found = []
    try:
        if isinstance(target, MailService):
            target.first_read = None
        for said in rule.check(target):
            part = f"{name}: {visible(said.part)}" if said.part else name
            where = said.origin or (target.first_read if isinstance(target, MailService) else None) or origin
            found.append(_finding(rule, part, product, said.verdict, said.detail, {**words, **said.words}, where))
    except Unknown as unknown:
        text = f"could not be determined: {unknown.text}"
        finding = _finding(rule, name, product, Verdict.ERROR, text, words, origin)
        found.append(dataclasses.replace(finding, remedy=_complete(rule, words)))
    return found


def _complete(rule: Rule[Any], words: Mapping[str, str]) -> str:
    """What to give so that it can be determined."""
    kind = next((k for k in rule.needs if k in GIVE), "")
    if kind:
        return f"Give {GIVE[kind]}"
    return f"Give all properties: {words['get']} | Format-List" if "get" in words else ""


def _finding(
    rule: Rule[Any], target: str, product: str, verdict: Verdict, detail: str, words: Mapping[str, str], origin: Origin
) -> Finding:
    return Finding(
        rule.id,
        rule.title,
        rule.category,
        visible(target),
        verdict,
        visible(detail),
        remedy(rule, product, words, verdict),
        rule.why,
        rule.link,
        origin,
        product,
    )
