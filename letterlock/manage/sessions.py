"""Get- and Disconnect-ClientConnection: the sessions of all workers."""

from __future__ import annotations

import fnmatch
import ipaddress
from typing import Any, Final

from letterlock.base.errors import Malformed, Refused
from letterlock.base.values import TimeSpan
from letterlock.manage.context import Context
from letterlock.manage.registry import Cmdlet, Parameter, Row, words

_COLUMNS: Final = ("Identity", "User", "Protocol", "RemoteAddress", "State", "IdleTime", "TlsVersion", "Client")
_PROTOCOLS: Final = {"imap": "IMAP4", "imap4": "IMAP4", "pop": "POP3", "pop3": "POP3"}
_STATES: Final = ("Connected", "Authenticated", "Selected", "Idle")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _row(c: Context, session: dict[str, Any]) -> Row:
    return Row({**session, "IdleTime": TimeSpan(session["IdleTime"]), "Server": c.config.server_name}, _COLUMNS)


def _peer(session: dict[str, Any]) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    host = str(session["RemoteAddress"]).rpartition(":")[0].strip("[]").partition("%")[0]
    address = ipaddress.ip_address(host)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _chosen(session: dict[str, Any], p: dict[str, Any]) -> bool:
    user = p.get("User", "*").lower().replace("[", "[[]")
    networks: list[Network] = p.get("RemoteAddress", [])
    return (
        (not p.get("Identity") or session["Identity"] in p["Identity"])
        and fnmatch.fnmatchcase(session["User"].lower(), user)
        and session["Protocol"] == p.get("Protocol", session["Protocol"])
        and session["State"] == p.get("State", session["State"])
        and session["IdleTime"] >= p.get("IdleLongerThan", TimeSpan(0)).seconds
        and (not networks or any(_peer(session) in n for n in networks))
    )


async def _found(c: Context, p: dict[str, Any]) -> list[dict[str, Any]]:
    c.check_server(p.get("Server", ""))
    found = [s for s in await c.running_server().connections() if _chosen(s, p)]
    missing = [i for i in p.get("Identity", []) if i not in {s["Identity"] for s in found}]
    if missing:
        raise Refused(
            f"there is no connection {missing[0]} (any more); Get-ClientConnection lists them", b"NONEXISTENT"
        )
    return found


async def get_connections(c: Context, p: dict[str, Any]) -> list[Row]:
    """Oldest first."""
    return [_row(c, session) for session in await _found(c, p)]


async def disconnect(c: Context, p: dict[str, Any]) -> list[Row]:
    """The running command finishes, then the protocol's goodbye; one that has ended meanwhile is as wanted."""
    server = c.running_server()
    if not set(p) & {"Identity", "User", "RemoteAddress"}:
        raise Malformed("say which connections: -Identity, -User or -RemoteAddress")
    for session in await _found(c, p):
        who = f"{session['User'] or 'nobody'} at {session['RemoteAddress']} ({session['Protocol']})"
        if c.should(f"end connection {session['Identity']} of {who}"):
            await server.disconnect(int(session["Identity"], 16))
            c.config.note(c.who, f"Disconnect-ClientConnection {session['Identity']}", None, {"Session": who})
    return []


def _identities(value: Any) -> list[str]:
    found = words(value)
    for text in found:
        if not 1 <= len(text) <= 16 or any(ch not in "0123456789ABCDEFabcdef" for ch in text):
            raise Malformed(f"'{text}' is not a connection's identity: 16 hexadecimal digits")
    return [text.upper().zfill(16) for text in found]


def _networks(value: Any) -> list[Network]:
    found = []
    for text in words(value):
        try:
            found.append(ipaddress.ip_network(text, strict=False))
        except ValueError:
            raise Malformed(f"'{text}' is not an address or a range, like 192.0.2.7 or 192.0.2.0/24") from None
    return found


def _protocol(value: Any) -> str:
    found = _PROTOCOLS.get(str(value).strip().lower())
    if found is None:
        raise Malformed(f"'{value}' is not Imap or Pop")
    return found


def _state(value: Any) -> str:
    for state in _STATES:
        if state.lower() == str(value).strip().lower():
            return state
    raise Malformed(f"'{value}' is not one of the allowed values: {', '.join(_STATES)}")


_WHICH: Final = (
    Parameter("Identity", "Which connections.", _identities, 0, pipeline=True, type_name="String[]"),
    Parameter("User", "Those of this user; * matches."),
    Parameter("RemoteAddress", "Those from this address or range.", _networks, type_name="String[]"),
    Parameter("Protocol", "Those of this protocol.", _protocol, type_name="Imap | Pop"),
    Parameter("State", "Those in this state.", _state, type_name=" | ".join(_STATES)),
    Parameter("IdleLongerThan", "Those silent for at least this long.", lambda v: TimeSpan.parse(str(v)), -1),
    Parameter("Server", "Which server's."),
)

CMDLETS: Final = (
    Cmdlet("Get-ClientConnection", "Shows the sessions of clients.", get_connections, _WHICH),
    Cmdlet("Disconnect-ClientConnection", "Ends sessions with the protocol's goodbye.", disconnect, _WHICH, True),
)
