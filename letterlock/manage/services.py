"""Get-, Start-, Stop-, Restart- and Set-Service."""

from __future__ import annotations

import fnmatch
from typing import Any, Final

from letterlock.base.errors import Refused
from letterlock.base.values import StartType, parse_enum
from letterlock.directory.config import SERVICES
from letterlock.manage.context import Context, ServerControl
from letterlock.manage.registry import Cmdlet, Parameter, Row, boolean, show, words

_COLUMNS: Final = ("Status", "Name", "DisplayName")


def _find(c: Context, p: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(our name, name to show, display name); by either name, with wildcards."""
    c.check_server(p.get("ComputerName", ""))
    found = []
    for pattern in p.get("Name", ["*"]):
        escaped = pattern.lower().replace("[", "[[]")
        matches = []
        for name, exchange, display in SERVICES:
            if fnmatch.fnmatchcase(name.lower(), escaped):
                matches.append((name, name, display))
            elif fnmatch.fnmatchcase(exchange.lower(), escaped):
                matches.append((name, exchange, display))
        if not matches and not any(ch in pattern for ch in "*?"):
            raise Refused(f"there is no service '{pattern}'", b"NONEXISTENT")
        found += [m for m in matches if m not in found]
    return found


async def get_service(c: Context, p: dict[str, Any]) -> list[Row]:
    """The services, in a fixed order."""
    rows = []
    for name, shown, display in _find(c, p):
        running = c.server is not None and c.server.running(name)
        properties = {
            "Status": "Running" if running else "Stopped",
            "Name": shown,
            "DisplayName": display,
            "StartType": c.config.start_type(name),
        }
        rows.append(Row(properties, _COLUMNS))
    return rows


def _state(server: ServerControl, name: str) -> dict[str, str]:
    """For the audit trail."""
    return {"Status": "Running" if server.running(name) else "Stopped"}


async def start_service(c: Context, p: dict[str, Any]) -> list[Row]:
    """Start."""
    server = c.running_server()
    for name, shown, _ in _find(c, p):
        if c.should(f'start service "{shown}"'):
            was = _state(server, name)
            await server.start(name)
            c.config.note(c.who, f"Start-Service {name}", was, _state(server, name))
    return []


async def stop_service(c: Context, p: dict[str, Any]) -> list[Row]:
    """Stop."""
    server = c.running_server()
    for name, shown, _ in _find(c, p):
        if c.should(f'stop service "{shown}"'):
            was = _state(server, name)
            await server.stop(name)
            c.config.note(c.who, f"Stop-Service {name}", was, _state(server, name))
    return []


async def restart_service(c: Context, p: dict[str, Any]) -> list[Row]:
    """Go on with the settings as they are now; sessions that these would not allow are ended."""
    server = c.running_server()
    for name, shown, _ in _find(c, p):
        if c.should(f'restart service "{shown}"'):
            was = _state(server, name)
            await server.restart(name, bool(p.get("Force")))
            c.config.note(c.who, f"Restart-Service {name}", was, _state(server, name))
    return []


async def set_service(c: Context, p: dict[str, Any]) -> list[Row]:
    """Start type."""
    for name, shown, _ in _find(c, p):
        kind: StartType = p["StartupType"]
        if c.should(f'set the start type of "{shown}" from {show(c.config.start_type(name))} to {kind.name}'):
            c.config.set_start_type(name, kind, c.who)
    return []


_NAME: Final = Parameter("Name", "Service name; * matches.", words, 0, pipeline=True, type_name="String[]")
_NEEDED: Final = Parameter("Name", "Service name; * matches.", words, 0, True, True, type_name="String[]")
_COMPUTER: Final = Parameter("ComputerName", "This server's name.")
_START: Final = Parameter(
    "StartupType",
    "When the service starts.",
    lambda v: parse_enum(StartType, str(v)),
    mandatory=True,
    type_name="Automatic | Manual | Disabled",
)
_FORCE: Final = Parameter(
    "Force",
    "End all sessions, not only those that the new settings would not allow.",
    boolean,
    switch=True,
    type_name="Switch",
)
_STOP_FORCE: Final = Parameter("Force", "Accepted; Stop ends all sessions.", boolean, switch=True, type_name="Switch")

CMDLETS: Final = (
    Cmdlet("Get-Service", "Shows services.", get_service, (_NAME, _COMPUTER)),
    Cmdlet("Start-Service", "Starts services.", start_service, (_NEEDED, _COMPUTER), True),
    Cmdlet("Stop-Service", "Stops services.", stop_service, (_NEEDED, _COMPUTER, _STOP_FORCE), True),
    Cmdlet("Restart-Service", "Applies changed settings.", restart_service, (_NEEDED, _COMPUTER, _FORCE), True),
    Cmdlet("Set-Service", "Sets the start type.", set_service, (_NEEDED, _START, _COMPUTER), True),
)
