"""Get-CASMailbox, Set-CASMailbox: a mailbox's protocol switches, made from the declarations in base/switches.py."""

from __future__ import annotations

from typing import Any, Final

from letterlock.base import declare
from letterlock.base.settings import ImapSettings, PopSettings
from letterlock.base.switches import Switches
from letterlock.manage.context import Context
from letterlock.manage.filters import FILTER, RESULT_SIZE, limited
from letterlock.manage.mailboxes import find, one
from letterlock.manage.registry import Cmdlet, Parameter, Row, boolean

_SWITCHES: Final = declare.fields(Switches)
_PROTOCOLS: Final = (("Imap", ImapSettings), ("Pop", PopSettings))


def _protocol_settings(c: Context) -> dict[str, Any]:
    """What users are told to enter in their programs."""
    found: dict[str, Any] = {}
    for prefix, kind in _PROTOCOLS:
        settings = c.config.settings(kind)
        found[f"External{prefix}Settings"] = settings.ExternalConnectionSettings
        found[f"Internal{prefix}Settings"] = settings.InternalConnectionSettings
    return found


async def get_cas_mailbox(c: Context, p: dict[str, Any]) -> list[Row]:
    """Protocol switches."""
    told = _protocol_settings(c) if p.get("ProtocolSettings") else {}
    rows = []
    for a in find(c, p.get("Identity")):
        properties: dict[str, Any] = {"Name": a.display_name, "Identity": a.address, "PrimarySmtpAddress": a.address}
        properties |= {name: getattr(a.switches, name) for name in _SWITCHES}
        rows.append(Row(properties | told, ("Name", "PrimarySmtpAddress", "PopEnabled", "ImapEnabled")))
    return limited(c, rows, p)


async def set_cas_mailbox(c: Context, p: dict[str, Any]) -> list[Row]:
    """Protocol switches; they count from the next login on."""
    account = one(c, p.pop("Identity"))
    changes = {n: v for n, v in p.items() if n in _SWITCHES and getattr(account.switches, n) != v}
    for name, value in changes.items():
        old = declare.to_json(getattr(account.switches, name))
        c.should(f"set {name} of {account.address} from {old} to {declare.to_json(value)}")
    if not changes or c.what_if:
        return []
    c.accounts.set_switches(account, changes, c.who)
    for name, value in changes.items():
        say = _SWITCHES[name].setting.here
        if say is not None and (text := say(value)):
            c.warn(f"{name}: {text}")
    _warn_of_defaults(c, {name: getattr(account.switches, name) for name in _SWITCHES} | changes, changes)
    return []


def _warn_of_defaults(c: Context, now: dict[str, Any], changes: dict[str, Any]) -> None:
    """A switch that does not count yet is no error, as in Exchange; but it should not surprise."""
    for prefix, _ in _PROTOCOLS:
        own = [
            n for n in changes if n.startswith(prefix) and n not in (f"{prefix}Enabled", f"{prefix}UseProtocolDefaults")
        ]
        if own and now[f"{prefix}UseProtocolDefaults"]:
            c.warn(f"{', '.join(own)}: counts when {prefix}UseProtocolDefaults is $false")


def _parameter(declared: declare.Declared) -> Parameter:
    read = boolean if declared.type is bool else declared.read
    default = str(declare.to_json(declared.default))
    return Parameter(declared.name, declared.setting.help, read, type_name=declared.type_name, default=default)


_SERVER: Final = Parameter("Server", "The server where the mailbox is; this one where nothing is said.")

CMDLETS: Final = (
    Cmdlet(
        "Get-CASMailbox",
        "Shows protocol switches of mailboxes.",
        get_cas_mailbox,
        (
            Parameter("Identity", "Address, alias or name; * matches.", str, 0, pipeline=True),
            FILTER,
            RESULT_SIZE,
            Parameter(
                "ProtocolSettings",
                "With the hosts, ports and encryption that users are told: Internal- and ExternalConnectionSettings.",
                boolean,
                switch=True,
                type_name="Switch",
            ),
            _SERVER,
        ),
    ),
    Cmdlet(
        "Set-CASMailbox",
        "Changes protocol switches of a mailbox.",
        set_cas_mailbox,
        (
            Parameter("Identity", "Address, alias or name.", str, 0, True, True),
            *map(_parameter, _SWITCHES.values()),
            _SERVER,
        ),
        True,
    ),
)
