"""Rules on services, logging, limits and listeners of POP3 and IMAP4."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterator
from typing import Final

from letterlock.analyze.certificates import moment
from letterlock.analyze.findings import Rule, Said, Verdict, both
from letterlock.analyze.inventory import (
    DOVECOT,
    EXCHANGE,
    LETTERLOCK,
    MailService,
    System,
    Unknown,
    running,
    start_type,
)
from letterlock.analyze.logs_lines import visible
from letterlock.base.values import MAX_INT, Binding, ByteSize, Protocol

WINDOWS: Final = frozenset({EXCHANGE, LETTERLOCK})  # those with services and cmdlets
MICROSOFT: Final = "https://learn.microsoft.com/powershell/module/exchange/"
LEAST_PER_USER: Final = 5  # connections that one device of an IMAP user opens at a time
MOST_PER_USER: Final = 100
MINUTE: Final = 60
UNUSED_DAYS: Final = 90


# --- services


def service_states(m: MailService) -> Iterator[Said]:
    """POP001, IMAP001: always Info, one line a service."""
    for number, name in enumerate(m.service_names):
        service = m.service(number)
        if service is None:
            if number == 0:
                yield Said(Verdict.ERROR, f"{m.system.name}: {name} is not among the services that were given")
            continue  # Exchange 2010 and older have no back end
        try:
            mode = start_type(service)
        except Unknown:
            mode = "not in the export"
        state = "Running" if running(service) else "Stopped"
        detail = f"{m.system.name}: {visible(service.identity)} is {state} (Start Mode: {mode})"
        yield Said(Verdict.INFO, detail, origin=service.origin)


def pair(m: MailService) -> Iterator[Said]:
    """SVC-PAIR."""
    front, back = m.service(0), m.service(1)
    if front is None or back is None:
        missing = m.service_names[0 if front is None else 1]
        raise Unknown(f"{missing} is not among the services that were given")
    up = running(front), running(back)
    if up[0] == up[1]:
        yield Said(Verdict.PASS, f"both are {'running' if up[0] else 'stopped'}", origin=front.origin)
        return
    runs, not_ = (front, back) if up[0] else (back, front)
    yield Said(Verdict.FAIL, f"{visible(runs.identity)} runs, and {visible(not_.identity)} does not: log-ons fail",
               origin=not_.origin)  # fmt: skip


def start(m: MailService) -> Iterator[Said]:
    """SVC-START."""
    for number in (0, 1):
        service = m.service(number)
        if service is None:
            continue
        kind, up = start_type(service), running(service)
        name = visible(service.identity)
        if up and kind != "Automatic":
            yield Said(Verdict.WARNING, f"{name} runs, but its start type is {kind}: after a restart of the machine it "
                       "does not run", origin=service.origin)  # fmt: skip
        elif not up and kind == "Automatic":
            yield Said(Verdict.WARNING, f"{name} should start with the machine, and is stopped", origin=service.origin)
        else:
            yield Said(Verdict.PASS, f"{name} is {'running' if up else 'stopped'} and {kind}", origin=service.origin)


def unused(m: MailService) -> Iterator[Said]:
    """SVC-UNUSED."""
    front = m.service(0)
    if front is None:
        raise Unknown(f"{m.service_names[0]} is not among the services that were given")
    if not running(front):
        yield Said(Verdict.PASS, "it does not run")
        return
    enabled = [b for b in m.system.of("CASMailbox") if b.get(f"{m.noun}Enabled") and b.yes(f"{m.noun}Enabled")]
    seen = [str(u.text("LastSeen")) for u in m.system.of("Usage") if u.text("Protocol") == m.protocol.value
            and u.get("LastSeen") is not None]  # fmt: skip
    if enabled and m.system.of("Server") and not any(_recent(at, m.system.now) for at in seen):
        yield Said(Verdict.INFO, f"it runs, and nobody has logged on in {UNUSED_DAYS} days", origin=front.origin)
    elif enabled:
        yield Said(Verdict.PASS, f"{len(enabled)} mailboxes may use it")
    else:
        yield Said(Verdict.INFO, "it runs, and no mailbox is enabled for it", origin=front.origin)


def _recent(at: str, now: float) -> bool:
    last = moment(at)
    return last == last and now - last < UNUSED_DAYS * 86400


def components(s: System) -> Iterator[Said]:
    """COMP-INACTIVE."""
    seen = False
    for thing in s.of("ServerComponentState"):
        name = thing.text("Component")
        if name.lower() not in ("imapproxy", "popproxy", "serverwideoffline"):
            continue
        seen = True
        state = thing.text("State").strip()
        where = "".join(
            f"; {kind}: {visible(thing.text(kind))[:200]}"
            for kind in ("LocalStates", "RemoteStates")
            if thing.get(kind) is not None and thing.text(kind)
        )
        if state.lower() not in ("active", "0"):
            yield Said(Verdict.FAIL, f"{name} is {visible(state)}{where}", name, thing.origin, {"component": name})
        elif re.search(r"inactive|draining", where, re.I):
            yield Said(Verdict.WARNING, f"{name} is Active, but not all entries say so{where}", name, thing.origin,
                       {"component": name})  # fmt: skip
        else:
            yield Said(Verdict.PASS, f"{name} is Active", name, thing.origin)
    if not seen:
        raise Unknown("neither ImapProxy nor PopProxy is among the components that were given")


# --- logging


def logging_on(m: MailService) -> Iterator[Said]:
    """POP003, IMAP003: Exchange Analyzer's verdicts."""
    if m.value("ProtocolLogEnabled"):
        yield Said(Verdict.WARNING, "protocol logging is on, and no age or size limit removes old log files"
                   if m.system.product == EXCHANGE else "protocol logging is on")  # fmt: skip
    else:
        yield Said(Verdict.PASS, "protocol logging is off")


def log_retention(m: MailService) -> Iterator[Said]:
    """LOG-ON: what POP003 and IMAP003 mean, and only that."""
    if not m.value("ProtocolLogEnabled"):
        yield Said(Verdict.PASS, "protocol logging is off: nothing grows")
        return
    if m.system.product == LETTERLOCK:
        age, most = m.value("LogRetentionAge"), m.value("LogDirectoryQuota")
        if isinstance(most, ByteSize) and most.unlimited:
            yield Said(Verdict.WARNING, f"log files are removed after {age} only; LogDirectoryQuota is unlimited")
        else:
            yield Said(Verdict.PASS, f"log files are removed after {age}, and when all together are over {most}")
        return
    where = m.thing.text("LogFileLocation") if m.has("LogFileLocation") else "the log folder"
    yield Said(Verdict.WARNING, f"Exchange never removes files from {visible(where)}: the disk fills up",
               words={"folder": _quoted(where)})  # fmt: skip


def _quoted(text: str) -> str:
    return "'" + visible(text).replace("'", "''") + "'"


def log_off(m: MailService) -> Iterator[Said]:
    """LOG-OFF."""
    if m.value("ProtocolLogEnabled"):
        yield Said(Verdict.PASS, "protocol logging is on")
    elif m.published:
        yield Said(Verdict.INFO, "nothing records who logged in from where and how")
    else:
        yield Said(Verdict.PASS, "the service does not run")


def log_size(m: MailService) -> Iterator[Said]:
    """LOG-UNLIM."""
    quota = m.value("LogPerFileSizeQuota")
    unlimited = isinstance(quota, ByteSize) and quota.unlimited
    yield Said(Verdict.WARNING if unlimited else Verdict.PASS, m.shown("LogPerFileSizeQuota"))


# --- limits


def unlimited(m: MailService) -> Iterator[Said]:
    """LIM-UNLIM."""
    names = ["MaxConnections"] + (["MaxConnectionFromSingleIP"] if m.system.product != DOVECOT else [])
    without = [name for name in names if m.value(name) >= MAX_INT]
    if without and m.published:
        yield Said(Verdict.WARNING, f"no limit: {', '.join(without)}; one client can use up the server")
    else:
        yield Said(Verdict.PASS, "; ".join(m.shown(name) for name in names))


def per_user(m: MailService) -> Iterator[Said]:
    """LIM-USER."""
    most = m.value("MaxConnectionsPerUser")
    shown = m.shown("MaxConnectionsPerUser")
    if most < LEAST_PER_USER and m.protocol is Protocol.IMAP4:
        yield Said(Verdict.INFO, f"{shown}: one IMAP client opens {LEAST_PER_USER} and more")
    elif most > MOST_PER_USER:
        yield Said(Verdict.INFO, f"{shown}: far more than anybody's clients need")
    else:
        yield Said(Verdict.PASS, shown)


def timeouts(m: MailService) -> Iterator[Said]:
    """LIM-TIMEOUT."""
    before = m.value("PreAuthenticatedConnectionTimeout")
    after = m.value("AuthenticatedConnectionTimeout")
    said = False
    if before.seconds > 5 * MINUTE:
        said = True
        yield Said(Verdict.WARNING, f"{m.shown('PreAuthenticatedConnectionTimeout')}: connections without log-on "
                                    f"are kept "
                   "for more than 5 minutes")  # fmt: skip
    if after.seconds < 30 * MINUTE and m.protocol is Protocol.IMAP4:
        said = True
        yield Said(Verdict.WARNING, f"{m.shown('AuthenticatedConnectionTimeout')}: RFC 9051 asks for 30 minutes at "
                                    f"least, "
                   "and IDLE breaks sooner")  # fmt: skip
    if after.seconds < 10 * MINUTE and m.protocol is Protocol.POP3:
        said = True
        yield Said(
            Verdict.WARNING, f"{m.shown('AuthenticatedConnectionTimeout')}: RFC 1939 asks for 10 minutes at least"
        )
    if not said:
        yield Said(Verdict.PASS, f"{before} before log-on, {after} after it")


# --- listeners


def loopback(m: MailService) -> Iterator[Said]:
    """BIND-LOOP."""
    bindings = (*m.always, *m.clear)
    if not bindings:
        yield Said(Verdict.WARNING, "there is no binding at all")
    elif any(_covers_loopback(b) for b in bindings):
        yield Said(Verdict.PASS, f"{', '.join(map(str, bindings))}")
    else:
        yield Said(Verdict.WARNING, f"none of {', '.join(map(str, bindings))} covers 127.0.0.1, which the health "
                                    f"probes "
                   "of Exchange connect to")  # fmt: skip


def _covers_loopback(binding: Binding) -> bool:
    address = ipaddress.ip_address(binding.address)
    return address.is_unspecified or address.is_loopback


def listening(m: MailService) -> Iterator[Said]:
    """BIND-DEAD: on our own server by trying each listener, elsewhere by the endpoints that were probed."""
    front = m.service(0)
    up = front is not None and running(front)
    if m.system.of("Server") and not up:
        yield Said(Verdict.PASS, "the service does not run")
        return
    configured = {b.port for b in (*m.always, *m.clear)}
    listeners = [x for x in m.system.of("Listener") if x.text("Protocol") == m.protocol.value]
    if not listeners:
        tried = {e.port: e for e in m.system.endpoints if e.protocol is m.protocol}
        dead = sorted(port for port, e in tried.items() if port in configured and e.value("Reachable") is False)
        more = sorted(port for port, e in tried.items() if port not in configured and e.value("Reachable") is True)
        if not tried:
            raise Unknown("no endpoint of this server was probed; name it with -Endpoint")
    else:
        dead = sorted({Binding.parse(x.identity).port for x in listeners if not x.yes("Listening") and up})
        more = sorted(
            {Binding.parse(x.identity).port for x in listeners if x.yes("Listening") and not x.yes("Configured")}
        )
    for ports, text in ((dead, "configured, and not listening"), (more, "listening, and not configured")):
        if ports:
            yield Said(Verdict.WARNING, f"port {', '.join(map(str, ports))}: {text}; the service has not been "
                                        f"restarted "
                       "since the settings changed, or another program has the port")  # fmt: skip
    if not dead and not more:
        yield Said(Verdict.PASS, "what is configured is what listens")


_SERVICE: Final = "Services"
_LOG: Final = "Logging"
_LIMIT: Final = "Limits"
_BIND: Final = "Listeners"


def twice(rule: Rule[MailService]) -> tuple[Rule[MailService], ...]:
    """Exchange Analyzer numbers its rules for POP and IMAP apart."""
    return tuple(
        dataclasses.replace(rule, id=f"{name}{rule.id}", title=f"{name} {rule.title}", protocol=protocol)
        for name, protocol in (("POP", Protocol.POP3), ("IMAP", Protocol.IMAP4))
    )


STATES: Final = twice(Rule(
    "001", _SERVICE, "service states",
    "Shows whether the services run and start with the machine, so that one can decide whether they are wanted.",
    service_states, both("Set-Service {front} -StartupType Disabled; Stop-Service {front}  # if nobody needs it"),
    MICROSOFT + "test-servicehealth", WINDOWS, ("Service",),
))  # fmt: skip
LOGS: Final = twice(Rule(
    "003", _LOG, "protocol logging",
    "Protocol logs of Exchange are never removed: logging that was switched on for a search and left on fills the "
    "disk.",
    logging_on, {EXCHANGE: "{set} -ProtocolLogEnabled $false; {restart}  # or a scheduled task that removes old files",
                 LETTERLOCK: "Nothing: LogRetentionAge and LogDirectoryQuota remove old files (see LOG-ON)."},
    products=WINDOWS,
))  # fmt: skip

MAIL: Final[tuple[Rule[MailService], ...]] = (
    *STATES,
    Rule("SVC-PAIR", _SERVICE, "Front end and back end run together",
         "The front end hands every log-on to the back end: when only one of them runs, every log-on fails.",
         pair, both("Start-Service {front}; Start-Service {back}"), products=WINDOWS, needs=("Service",)),
    Rule("SVC-START", _SERVICE, "Start type fits the state",
         "A service that runs but is Manual is gone after the next restart of the machine; one that is Automatic and "
         "stopped has failed, or was forgotten.",
         start, both("Set-Service {front} -StartupType Automatic; Set-Service {back} -StartupType Automatic"),
         products=WINDOWS, needs=("Service",)),
    Rule("SVC-UNUSED", _SERVICE, "The service has users",
         "A service that nobody may use is only something to attack.",
         unused, both("Stop-Service {front}; Stop-Service {back}; Set-Service {front} -StartupType Disabled"),
         products=WINDOWS, needs=("Service", "CASMailbox")),
    *LOGS,
    Rule("LOG-ON", _LOG, "Old protocol logs are removed",
         "A log without retention grows until the volume is full; then mail stops as well.",
         log_retention,
         {EXCHANGE: "Get-ChildItem {folder} -Filter *.LOG | Where-Object LastWriteTime -lt (Get-Date).AddDays(-30) | "
                    "Remove-Item  # daily, as a scheduled task",
          LETTERLOCK: "{set} -LogDirectoryQuota 1GB; {restart}"}, products=WINDOWS),
    Rule("LOG-OFF", _LOG, "Logins leave a trace",
         "Without protocol logs nobody can say who still logs in insecurely, or what an intruder did.",
         log_off, both("{set} -ProtocolLogEnabled $true; {restart}"), products=WINDOWS),
    Rule("LOG-UNLIM", _LOG, "Log files end",
         "One file that grows for ever can be neither searched nor removed.",
         log_size, both("{set} -LogPerFileSizeQuota 0; {restart}  # a new file every hour"), products=WINDOWS),
    Rule("LIM-UNLIM", _LIMIT, "Connections are limited",
         "Without limits, in all and for one address, a single client can use up memory and ports.",
         unlimited, {**both("{set} -MaxConnections 2000 -MaxConnectionFromSingleIP 100; {restart}"),
                     DOVECOT: "service {login} {\n  process_limit = 1000\n}"}),
    Rule("LIM-USER", _LIMIT, "A user's connections fit their clients",
         "Too few, and phones and mail programs fail now and then; far too many, and one stolen password can load the "
         "server.", per_user,
         {**both("{set} -MaxConnectionsPerUser 16; {restart}"), DOVECOT: "mail_max_userip_connections = 20"}),
    Rule("LIM-TIMEOUT", _LIMIT, "Time-outs are neither long nor short",
         "Connections before log-on cost the same as others and are free for anybody; after log-on, RFC 9051 and "
         "IDLE need "
         "30 minutes.", timeouts,
         both("{set} -PreAuthenticatedConnectionTimeout 00:01:00 -AuthenticatedConnectionTimeout 00:30:00; {restart}"),
         "https://www.rfc-editor.org/rfc/rfc9051#section-5.4", products=WINDOWS),
    Rule("BIND-LOOP", _BIND, "A listener covers loopback",
         "Managed Availability probes 127.0.0.1; where nothing listens there, it takes the component offline, and the "
         "service stops.", loopback,
         both("{set} -SSLBindings @{Add=\"127.0.0.1:{tls_port}\"}; {restart}"), products=frozenset({EXCHANGE})),
    Rule("BIND-DEAD", _BIND, "What is configured listens",
         "Settings count from the next start of the service: a listener that was added or removed may not be what "
         "runs.",
         listening, {**both("{restart}"), DOVECOT: "doveadm reload"}, needs=("Endpoint",)),
)  # fmt: skip

SYSTEM: Final[tuple[Rule[System], ...]] = (
    Rule("COMP-INACTIVE", _SERVICE, "Server components are active",
         "POP3 and IMAP4 stop when PopProxy or ImapProxy is not Active; whoever took it offline (the requester) must "
         "bring it back.", components,
         {EXCHANGE: "Set-ServerComponentState {server} -Component {component} -Requester HealthAPI -State Active  "
                    "# the requester that the detail names; then start the services"},
         MICROSOFT + "set-servercomponentstate", frozenset({EXCHANGE}), ("ServerComponentState",)),
)  # fmt: skip
