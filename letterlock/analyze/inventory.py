"""Facts sorted into what rules judge: systems with their mail services, certificates, connectors, and live endpoints.

Our own settings, an Exchange export and Dovecot's configuration become the same `MailService`, so one rule serves all.
A value that a rule asks for and that is not there, or cannot be understood, raises `Unknown` with a sentence: the
judgement "could not be determined". Nothing here judges.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from letterlock.analyze.exports_kinds import MORE
from letterlock.analyze.logs_lines import visible
from letterlock.base import declare
from letterlock.base.errors import Malformed
from letterlock.base.facts import CertificateFact, EndpointFact, Origin, SettingFact
from letterlock.base.settings import AdminSettings, ImapSettings, PopSettings
from letterlock.base.values import Binding, ConnectionSetting, LoginType, PolicyMode, Protocol

EXCHANGE: Final = "Exchange"
LETTERLOCK: Final = "Letterlock"
DOVECOT: Final = "Dovecot"
PRODUCTS: Final = frozenset({EXCHANGE, LETTERLOCK, DOVECOT})

KINDS: Final = {Protocol.IMAP4: ("ImapSettings", ImapSettings), Protocol.POP3: ("PopSettings", PopSettings)}
_DECLARED: Final = {kind: declare.fields(cls) for kind, cls in (*KINDS.values(), ("AdminSettings", AdminSettings))}


class Unknown(Exception):
    """Could not be determined; the text says why."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(slots=True)
class Thing:
    """One object: its properties as facts, by name in lower case."""

    kind: str
    identity: str
    server: str
    facts: dict[str, SettingFact] = field(default_factory=dict)
    spelled: dict[str, str] = field(default_factory=dict)  # how a translated source says it, by name in lower case

    def get(self, name: str) -> SettingFact | None:
        """A property; None where it was not given."""
        return self.facts.get(name.lower())

    def text(self, name: str, *others: str) -> str:
        """A property as text; `Unknown` where it is not there."""
        for each in (name, *others):
            fact = self.get(each)
            if fact is not None and fact.value is not None:
                value = fact.value
                return ", ".join(value) if isinstance(value, tuple) else str(value)
        lost = self.get(name)
        where = visible(lost.origin.source if lost else self.source)
        raise Unknown(f"the value of {name} was lost in {where}" if lost else f"{name} is not in {where}")

    def items(self, name: str) -> tuple[str, ...]:
        """A list; one value is a list of one. A list that the source has cut ends in `MORE`."""
        fact = self.get(name)
        if fact is not None and isinstance(fact.value, tuple):
            return fact.value
        text = self.text(name)
        return tuple(part.strip() for part in text.split(",") if part.strip())

    def yes(self, name: str) -> bool:
        """A Boolean."""
        text = self.text(name).strip().lower().lstrip("$")
        if text not in ("true", "false", "yes", "no", "1", "0"):
            raise Unknown(f"{name} is '{visible(text)[:60]}', which is neither true nor false")
        return text in ("true", "yes", "1")

    @property
    def source(self) -> str:
        """Where it was read, for people."""
        origins = {f.origin.source for f in self.facts.values()}
        return ", ".join(sorted(origins)[:3]) or "the export"

    @property
    def origin(self) -> Origin:
        """Where it begins."""
        return min((f.origin for f in self.facts.values()), key=lambda o: (o.source, o.line), default=Origin(""))


@dataclass(slots=True)
class MailService:
    """POP3 or IMAP4 of one system."""

    system: System
    protocol: Protocol
    thing: Thing
    first_read: Origin | None = None  # where the first value stands that the rule at work has asked for

    @property
    def noun(self) -> str:
        """Imap or Pop, as the cmdlets have it."""
        return "Imap" if self.protocol is Protocol.IMAP4 else "Pop"

    @property
    def name(self) -> str:
        """For people."""
        twins = [m for m in self.system.mail if m.protocol is self.protocol]
        where = f" ({self.thing.source})" if len(twins) > 1 else ""
        return f"{self.system.name or 'server'} {self.protocol.value}{where}"

    def has(self, name: str) -> bool:
        """Whether the source has it."""
        return self.thing.get(name) is not None

    def value(self, name: str) -> Any:
        """A setting with its declared type."""
        declared = _DECLARED[self.thing.kind].get(name)
        fact = self.thing.get(name)
        if declared is None or fact is None or fact.value is None:
            return self.thing.text(name)  # raises, or it is none of the declared
        if self.first_read is None and fact.origin.line:
            self.first_read = fact.origin
        try:
            if declared.many:
                return tuple(declared.read(item) for item in self.thing.items(name) if item != MORE)
            value = fact.value
            return declared.read(", ".join(value) if isinstance(value, tuple) else value)
        except Malformed as error:
            raise Unknown(f"{name}: {error.text}") from None

    def shown(self, name: str) -> str:
        """How the source says it: `LoginType is PlainTextLogin`, `disable_plaintext_auth = no`."""
        spelled = self.thing.spelled.get(name.lower())
        return spelled or f"{name} is {visible(self.thing.text(name)) or 'empty'}"

    @property
    def clear(self) -> tuple[Binding, ...]:
        """Listeners that begin without TLS, those for exceptions only not among them."""
        found: tuple[Binding, ...] = self.value("UnencryptedOrTLSBindings")
        return found

    @property
    def always(self) -> tuple[Binding, ...]:
        """Listeners that are always TLS."""
        found: tuple[Binding, ...] = self.value("SSLBindings")
        return found

    @property
    def login_type(self) -> LoginType:
        """The LoginType that decides: under report-only, the one enforced before."""
        mode = self.value("LoginTypeMode") if self.has("LoginTypeMode") else PolicyMode.Enforce
        name = "EnforcedLoginType" if mode is PolicyMode.ReportOnly and self.has("EnforcedLoginType") else "LoginType"
        found: LoginType = self.value(name)
        return found

    def connections(self, name: str) -> tuple[ConnectionSetting, ...]:
        """Internal- or ExternalConnectionSettings."""
        found: tuple[ConnectionSetting, ...] = self.value(name)
        return found

    @property
    def service_names(self) -> tuple[str, str]:
        """Front end and back end."""
        if self.system.product == LETTERLOCK:
            stem = "LetterlockImap4" if self.protocol is Protocol.IMAP4 else "LetterlockPop3"
        else:
            stem = "MSExchangeIMAP4" if self.protocol is Protocol.IMAP4 else "MSExchangePOP3"
        return stem, f"{stem}BE"

    def service(self, number: int) -> Thing | None:
        """The front end's (0) or back end's (1) service object, under either of its names."""
        own = self.service_names[number].lower()
        other = own.replace("letterlock", "msexchange")
        return self.system.services.get(own) or self.system.services.get(other)

    @property
    def published(self) -> bool:
        """Told to users outside, or not known to be stopped: then it is for clients."""
        front = self.service(0)
        return front is None or running(front)

    def words(self) -> dict[str, str]:
        """For the commands of a remedy."""
        where = f" -Server {quoted(self.system.name)}" if self.system.name and self.system.product == EXCHANGE else ""
        front, back = self.service_names
        return {
            **self.system.words(),
            "noun": self.noun,
            "set": f"Set-{self.noun}Settings{where}",
            "get": f"Get-{self.noun}Settings{where}",
            "restart": f"Restart-Service {front}; Restart-Service {back}",
            "front": front,
            "back": back,
            "flag": self.noun.upper(),
            "login": "imap-login" if self.protocol is Protocol.IMAP4 else "pop3-login",
            "clear_port": "143" if self.protocol is Protocol.IMAP4 else "110",
            "tls_port": "993" if self.protocol is Protocol.IMAP4 else "995",
        }


def running(service: Thing) -> bool:
    """By Status or State; numbers are those of ServiceControllerStatus."""
    text = service.text("Status", "State").strip().lower()
    if text in ("running", "4", "startpending"):
        return True
    if text in ("stopped", "1", "stoppending", "3", "paused", "7"):
        return False
    raise Unknown(f"the state '{visible(text)[:40]}' of {visible(service.identity)} is not known")


def start_type(service: Thing) -> str:
    """Automatic, Manual or Disabled."""
    text = service.text("StartType", "StartMode", "StartupType").strip().lower()
    for name, others in (
        ("Automatic", ("2", "auto", "automaticdelayedstart")),
        ("Manual", ("3",)),
        ("Disabled", ("4",)),
    ):
        if text == name.lower() or text in others:
            return name
    raise Unknown(f"the start type '{visible(text)[:40]}' of {visible(service.identity)} is not known")


@dataclass(slots=True)
class System:
    """One server with what is known of it."""

    name: str
    product: str
    mail: list[MailService] = field(default_factory=list)
    services: dict[str, Thing] = field(default_factory=dict)
    certificates: list[CertificateFact] = field(default_factory=list)
    things: dict[str, list[Thing]] = field(default_factory=dict)  # by kind: what is none of these
    endpoints: list[Endpoint] = field(default_factory=list)
    version: str = ""
    now: float = 0.0  # seconds since 1970: when it is judged
    fleet: int = 1  # servers of the same product that are judged with it

    def of(self, kind: str) -> list[Thing]:
        """Objects of a kind."""
        return self.things.get(kind, [])

    def words(self) -> dict[str, str]:
        """For the commands of a remedy."""
        old = bool(re.match(r"[12]\.[0-3]", self.version))
        return {
            "server": quoted(self.name or "SERVER"),
            "cleartext_off": "disable_plaintext_auth = yes" if old or not self.version else "auth_allow_cleartext = no",
        }


@dataclass(slots=True)
class Endpoint:
    """A live endpoint, as it was seen from here."""

    name: str
    protocol: Protocol
    facts: dict[str, EndpointFact] = field(default_factory=dict)
    certificate: CertificateFact | None = None
    system: System | None = None
    now: float = 0.0

    def has(self, name: str) -> bool:
        """Whether the thing applies to it."""
        return name in self.facts

    def value(self, name: str) -> Any:
        """What came of it; `Unknown` where that could not be found out."""
        fact = self.facts.get(name)
        if fact is None:
            raise Unknown(f"{name} was not tried")
        if fact.value is None:
            raise Unknown(f"{name}: {visible(fact.detail) or 'no answer'}")
        return fact.value

    def detail(self, name: str) -> str:
        """The words with it."""
        return visible(self.facts[name].detail) if name in self.facts else ""

    @property
    def host(self) -> str:
        """Without the port."""
        return self.name.rpartition(":")[0].strip("[]").lower()

    @property
    def port(self) -> int:
        """The port."""
        return int(self.name.rpartition(":")[2])

    def words(self) -> dict[str, str]:
        """For the commands of a remedy."""
        implicit = self.facts.get("ImplicitTls")
        upgrade = {Protocol.IMAP4: "imap", Protocol.POP3: "pop3"}.get(self.protocol, "smtp")
        return {
            "endpoint": quoted(self.name),
            "host": quoted(self.host),
            "port": str(self.port),
            "noun": "Imap" if self.protocol is Protocol.IMAP4 else "Pop",
            "mode": "" if implicit is None or implicit.value else f" -starttls {upgrade}",
        }


def quoted(text: str) -> str:
    """As an argument of a command that a person may paste: nothing in it can end the word."""
    text = "".join(c for c in text if c.isprintable())[:200]
    if re.fullmatch(r"[\w.:@*\[\]-]+", text, re.ASCII):
        return text
    return "'" + text.replace("'", "''").replace("\u2018", "''").replace("\u2019", "''") + "'"


@dataclass(slots=True)
class Inventory:
    """All that is judged."""

    systems: list[System] = field(default_factory=list)
    endpoints: list[Endpoint] = field(default_factory=list)
    now: float = 0.0  # seconds since 1970: when it is judged
