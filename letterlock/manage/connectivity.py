"""Test-PopConnectivity, Test-ImapConnectivity, Test-SmtpConnectivity: a client's log-on against any server.

Without -ClientAccessServer this server is tested, on the address and port of its bindings and by the name under which
its certificate is served; its own certificate (DIR/certificate.pem) is trusted besides the system's authorities.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from letterlock.base.errors import Malformed, Refused
from letterlock.base.settings import ClientAccessSettings, ImapSettings, PopSettings
from letterlock.base.values import Protocol, Secret, host_name, parse_enum
from letterlock.clients.outcomes import Outcome
from letterlock.clients.wire import Login
from letterlock.manage.context import Context
from letterlock.manage.registry import COMMON, Cmdlet, Parameter, Row, boolean
from letterlock.probe import scenarios
from letterlock.probe.channel import Address
from letterlock.probe.scenarios import Kind, Report, Result, Scenario

COLUMNS: Final = ("CasServer", "LocalSite", "Scenario", "Result", "Latency(MS)", "Error")


@dataclass(frozen=True, slots=True)
class _Tested:
    """One protocol's names and ports."""

    protocol: Protocol
    noun: str  # as in "Test IMAP4 Connectivity"
    counter: str
    clear_port: int
    tls_port: int
    service: str
    settings: type[ClientAccessSettings] | None

    @property
    def scenario(self) -> str:
        """The column's text."""
        return f"Test {self.noun} Connectivity"


_IMAP: Final = _Tested(Protocol.IMAP4, "IMAP4", "ImapConnectivity", 143, 993, "LetterlockImap4", ImapSettings)
_POP: Final = _Tested(Protocol.POP3, "POP3", "PopConnectivity", 110, 995, "LetterlockPop3", PopSettings)
_SMTP: Final = _Tested(Protocol.SMTP, "SMTP", "SmtpConnectivity", 587, 465, "LetterlockTransport", None)


class Milliseconds(float):
    """A latency; two decimals, as Exchange shows it."""

    def __str__(self) -> str:
        return f"{self:.2f}"

    def to_json(self) -> float:
        """A number."""
        return round(float(self), 2)


# --- parameters


def credential(value: Any) -> Login:
    """What Get-Credential gives: an object or mapping with UserName and Password. Never shows what it got."""
    if isinstance(value, Mapping):
        rows = {str(k).lower(): v for k, v in value.items()}
        user, password = rows.get("username"), rows.get("password")
    else:
        user, password = getattr(value, "UserName", None), getattr(value, "Password", None)
    if user is None or password is None:
        raise Malformed(
            "a credential is needed, with UserName and Password; in the shell: (Get-Credential user@example.com). "
            "A password is never taken from the command line: "
            "give the user name alone and type it, or set LETTERLOCK_PASSWORD"
        )
    text = password.reveal() if isinstance(password, Secret) else str(password)
    return Login(str(user), text).check()


def server_name(value: Any) -> str:
    """A host name or an address."""
    text = str(value).strip()
    try:
        return str(ipaddress.ip_address(text.removeprefix("[").removesuffix("]")))
    except ValueError:
        return host_name(text)


def number(low: int, high: int) -> Callable[[Any], int]:
    """A reader of whole numbers in a range."""

    def read(value: Any) -> int:
        text = str(value).strip()
        if not text.isascii() or not text.isdigit() or not low <= int(text[:10]) <= high:
            raise Malformed(f"'{value}' is not allowed; use a number from {low} to {high}")
        return int(text)

    return read


def _kind(value: Any) -> Kind:
    return parse_enum(Kind, str(value))


def _send_by(value: Any) -> tuple[str, int]:
    host, colon, port = str(value).strip().rpartition(":")
    if not colon or host.endswith(":") or (":" in host and not host.startswith("[")):
        host, port = str(value).strip(), "587"
    return server_name(host), number(1, 65535)(port)


# --- the target


def _target(c: Context, tested: _Tested, p: dict[str, Any]) -> tuple[str, int, Kind, tuple[Address, ...], bool]:
    """Name, port, kind, addresses and whether it is this server."""
    name: str = p.get("ClientAccessServer", "")
    c.check_server(p.get("MailboxServer", ""))
    own = not name or name in (c.config.server_name.lower(), c.config.fqdn.lower())
    port: int = p.get("PortClientAccessServer", 0)
    kind: Kind = p.get("ConnectionType") or _kind_of(tested, port)
    if own:
        return *_own(c, tested, port, kind), True
    always = kind in (Kind.SSL, Kind.TLS_OR_SSL)
    return name, port or (tested.tls_port if always else tested.clear_port), kind, (), False


def _kind_of(tested: _Tested, port: int) -> Kind:
    """Ssl as Exchange, unless the port says otherwise."""
    if not port:
        return Kind.TLS if tested.protocol is Protocol.SMTP else Kind.SSL
    if port == tested.tls_port:
        return Kind.SSL
    return Kind.TLS if port in (tested.clear_port, 25) else Kind.TLS_OR_SSL


def _own(c: Context, tested: _Tested, port: int, kind: Kind) -> tuple[str, int, Kind, tuple[Address, ...]]:
    """This server: the first fitting binding, reached directly."""
    loopback = (Address(socket.AF_INET, "127.0.0.1"), Address(socket.AF_INET6, "::1"))
    if tested.settings is None:
        default = (tested.tls_port if kind is Kind.SSL else tested.clear_port) + c.config.port_offset
        return c.config.fqdn, port or default, kind, loopback
    settings = c.config.settings(tested.settings)
    always, clear = settings.SSLBindings, settings.UnencryptedOrTLSBindings
    bindings = {Kind.SSL: always, Kind.TLS_OR_SSL: always or clear}.get(kind, clear)
    if port:
        bindings = tuple(b for b in (*always, *clear) if b.port == port)
    elif not bindings:
        list_name = "SSLBindings" if kind is Kind.SSL else "UnencryptedOrTLSBindings"
        raise Refused(f"{list_name} of {tested.noun} is empty, so there is nothing to test with this -ConnectionType")
    port = port or bindings[0].port
    addresses = [
        Address(
            socket.AF_INET6 if b.ipv6 else socket.AF_INET,
            {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(b.address, b.address),  # noqa: S104 - a wildcard is reached so
        )
        for b in bindings
        if b.port == port
    ]
    addresses.sort(key=lambda a: a.family)  # IPv4 first: a host without IPv6 leaves out [::]
    return settings.X509CertificateName or c.config.fqdn, port, kind, tuple(addresses) or loopback


# --- the cmdlets


def _tester(tested: _Tested) -> Callable[[Context, dict[str, Any]], Awaitable[list[Row]]]:
    async def run(c: Context, p: dict[str, Any]) -> list[Row]:
        """One row."""
        if p.get("ResetTestAccountCredentials"):
            raise Refused("there is no test account here; log on with -MailboxCredential")
        name, port, kind, addresses, own = _target(c, tested, p)
        if not c.should(f"test {tested.noun} on {name} port {port}"):
            return []
        certificate: Path = c.config.data / "certificate.pem"
        scenario = Scenario(
            protocol=tested.protocol,
            name=name,
            port=port,
            kind=kind,
            login=p.get("MailboxCredential"),
            addresses=addresses,
            timeout=float(p.get("Timeout", 0) or 180),
            per_connection=float(p.get("PerConnectionTimeout", 0) or 120),
            light=bool(p.get("LightMode", False)),
            trust_any=bool(p.get("TrustAnySSLCertificate", False)),
            trust=certificate if certificate.is_file() else None,
            send_by=p.get("SmtpServer"),
        )
        report = await scenarios.run(scenario)
        for text in report.warnings:
            c.warn(text)
        for step in report.steps:
            c.tell(f"{step.name}: {step.milliseconds:.2f} ms" + (f" ({step.detail})" if step.detail else ""))
        return [_row(c, tested, scenario, report, own, bool(p.get("MonitoringContext", False)))]

    return run


def _error(c: Context, tested: _Tested, report: Report, own: bool) -> str:
    """The sentence; for this server, also which service is stopped."""
    if report.result is Result.SKIPPED:
        return "The log-on was not tried: give -MailboxCredential. All before it succeeded."
    if report.failure is None:
        return ""
    text = report.failure.text
    stopped = {
        Outcome.CONNECTION_REFUSED: tested.service,
        Outcome.BACK_END_DOWN: f"{tested.service}BE",
    }.get(report.failure.outcome)
    if own and c.server is None and report.failure.outcome is Outcome.CONNECTION_REFUSED:
        return f"{text} The server is not running: letterlock serve."
    if own and stopped and c.server is not None and tested.settings is not None and not c.server.running(stopped):
        return f"{text} The service is stopped: Start-Service {stopped}."
    return text


def _row(c: Context, tested: _Tested, s: Scenario, report: Report, own: bool, monitoring: bool) -> Row:
    server = c.config.server_name if own else s.name
    latency = Milliseconds(report.milliseconds)
    failure = report.failure
    properties: dict[str, Any] = {
        "CasServer": server,
        "LocalSite": "Local",
        "Scenario": tested.scenario,
        "Result": report.result.value,
        "Latency(MS)": latency,
        "Error": _error(c, tested, report, own),
        "Outcome": failure.outcome.value if failure is not None else report.result.value,
        "Stage": failure.stage.value if failure is not None else "",
        "ClientAccessServer": s.name,
        "ClientAccessServerShortName": server.split(".")[0] if own else s.name,
        "Port": s.port,
        "ConnectionType": report.kind.value,
        "SecureAccess": report.kind is not Kind.PLAINTEXT,
        "ScenarioDescription": f"Connect to {s.name} port {s.port}"
        + (", log on and make a round trip." if s.login and not s.light else ", log on." if s.login else "."),
        "UserName": s.login.user if s.login is not None else "",
        "PerformanceCounterName": f"{tested.counter}-Latency",
        "LatencyInMillisecondsString": str(latency),
        "EventType": "Success" if failure is None else "Error",
        "Steps": [f"{step.name}: {step.milliseconds:.2f} ms" for step in report.steps],
        "Identity": f"{server}\\{tested.scenario}",
        "IsValid": True,
    }
    if monitoring:
        properties["Events"] = [f"{properties['EventType']}: {tested.counter}: {properties['Outcome']}"]
        properties["PerformanceCounters"] = [f"{tested.counter}-Latency={latency}"]
    return Row(properties, COLUMNS)


def _switch(name: str, text: str) -> Parameter:
    return Parameter(name, text, boolean, switch=True, type_name="Switch")


_LIMITS: Final = (
    Parameter(
        "Timeout",
        "Seconds for the whole test, 0 to 3600; 0 is the default.",
        number(0, 3600),
        type_name="Int32",
        default="180",
    ),
    Parameter(
        "PerConnectionTimeout",
        "Seconds for one connection, 0 to 120; 0 is the default.",
        number(0, 120),
        type_name="Int32",
        default="120",
    ),
    _switch("MonitoringContext", "Add monitoring events and performance counters to the object."),
)


def _parameters(tested: _Tested) -> tuple[Parameter, ...]:
    common = (
        Parameter(
            "ClientAccessServer",
            "Server to test: this one by its name, or any host name or address.",
            server_name,
            0,
            default="this server",
        ),
        Parameter(
            "MailboxCredential",
            "Who logs on: (Get-Credential user@example.com); on the command line the user name, and the password is "
            "asked for or taken from LETTERLOCK_PASSWORD. Without it, the test ends before the log-on.",
            credential,
            type_name="PSCredential",
        ),
        Parameter(
            "ConnectionType",
            "Ssl: TLS from the first byte; Tls: STARTTLS or STLS; TlsOrSsl: whichever the port speaks; "
            "Plaintext: no TLS.",
            _kind,
            type_name="Ssl | Tls | TlsOrSsl | Plaintext",
            default="by the port; Tls" if tested.protocol is Protocol.SMTP else "by the port; Ssl",
        ),
        Parameter(
            "PortClientAccessServer",
            "Port.",
            number(0, 65535),
            type_name="Int32",
            default=f"that of the bindings; elsewhere {tested.tls_port}, or {tested.clear_port} in clear and with Tls",
        ),
        _switch("TrustAnySSLCertificate", "Take any certificate. Whoever is in between can read the password."),
        *_LIMITS,
        *COMMON,
    )
    if tested.protocol is Protocol.SMTP:
        return common
    trip = (
        "Log on only; without it a test message is put into the INBOX, found and deleted."
        if tested.protocol is Protocol.IMAP4
        else "Log on only, even where -SmtpServer would allow a round trip."
    )
    return (
        *common,
        _switch("LightMode", trip),
        Parameter(
            "SmtpServer",
            "HOST[:PORT] that takes the test message of the round trip, with the same credential and verified TLS.",
            _send_by,
            default="none; IMAP4 puts the message with APPEND, POP3 has no round trip",
        ),
        Parameter("MailboxServer", "This server's name, where it is given."),
        _switch("ResetTestAccountCredentials", "Exchange's; here there is no test account, and an error says so."),
    )


def _cmdlet(name: str, tested: _Tested) -> Cmdlet:
    text = (
        f"Tests {tested.noun} as a client uses it: connection, TLS, certificate, log-on; each failure by its own name."
    )
    return Cmdlet(name, text, _tester(tested), _parameters(tested))


CMDLETS: Final = (
    _cmdlet("Test-ImapConnectivity", _IMAP),
    _cmdlet("Test-PopConnectivity", _POP),
    _cmdlet("Test-SmtpConnectivity", _SMTP),
)
