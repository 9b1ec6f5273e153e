"""Get- and Set-ImapSettings, Get- and Set-PopSettings: made from the declarations in base/settings.py."""

from __future__ import annotations

from typing import Any, Final

from letterlock.base import declare
from letterlock.base.settings import AdminSettings, ClientAccessSettings, ImapSettings, PopSettings
from letterlock.base.settings_acme import AcmeSettings
from letterlock.base.values import PolicyMode
from letterlock.manage.context import Context
from letterlock.manage.registry import Cmdlet, Parameter, Row

_SERVER: Final = Parameter("Server", "This server's name.", pipeline=False)
LIVE: Final = "-"  # in place of services: read whenever they are used


def _pair(
    kind: type[ClientAccessSettings] | type[AdminSettings] | type[AcmeSettings],
    noun: str,
    service: str,
    restart: str = "",
) -> tuple[Cmdlet, Cmdlet]:
    declared = declare.fields(kind)
    restart = restart or f"{service}, {service}BE"

    async def get(c: Context, p: dict[str, Any]) -> list[Row]:
        c.check_server(p.get("Server", ""))
        settings = c.config.settings(kind)
        properties = {name: getattr(settings, name) for name in declared}
        if isinstance(settings, ClientAccessSettings) and not settings.LogFileLocation:
            properties["LogFileLocation"] = str(c.config.data / "logs" / settings.ProtocolName.capitalize())
        properties["Server"] = c.config.server_name
        return [Row(properties)]

    async def change(c: Context, p: dict[str, Any]) -> list[Row]:
        c.check_server(p.pop("Server", ""))
        wanted, differing = c.config.validate(kind, p)
        for name, (old, new) in differing.items():
            c.should(f"set {name} from {_words(old) or 'nothing'} to {_words(new) or 'nothing'}")
        if c.what_if:
            return []
        if not differing:
            c.warn("nothing was changed: the settings are as wanted already")
            _warn_of_report_only(c, wanted)
            return []
        c.config.change(kind, p, c.who)
        for name, (_, new) in differing.items():
            for say in (declared[name].setting.here, declared[name].setting.weaker):
                if say is not None and (text := say(new)):
                    c.warn(f"{name}: {text}")
        _warn_of_report_only(c, wanted)
        if restart != LIVE:
            c.warn(f"changes take effect when the services are restarted: Restart-Service {restart}")
        return []

    parameters = tuple(
        Parameter(
            name,
            d.setting.help + (f" Between {d.setting.range[0]} and {d.setting.range[1]}." if d.setting.range else ""),
            lambda v: v,
            type_name=d.type_name,
            default=_words(d.default),
            allowed=d.setting.range,
            restart=restart if restart != LIVE else "",
        )
        for name, d in declared.items()
        if not d.setting.read_only
    )
    return (
        Cmdlet(f"Get-{noun}", f"Shows the settings of {service}.", get, (_SERVER,)),
        Cmdlet(f"Set-{noun}", f"Changes settings of {service}.", change, (*parameters, _SERVER), True),
    )


def _warn_of_report_only(c: Context, settings: object) -> None:
    """Nobody is to take a rule that is only reported for one that is enforced."""
    if not isinstance(settings, ClientAccessSettings):
        return
    for name in ("LoginType", "TlsMinimum"):
        if getattr(settings, f"{name}Mode") is PolicyMode.ReportOnly:
            asked, decides = _words(getattr(settings, name)), _words(getattr(settings, f"Enforced{name}"))
            c.warn(
                f"{name} {asked} is only reported, {decides} decides: Get-ReportedLogin shows who would be refused, "
                f"-{name}Mode Enforce enforces it"
            )


def _words(value: object) -> str:
    found = declare.to_json(value)
    return ",".join(map(str, found)) if isinstance(found, list) else str(found)


CMDLETS: Final = (
    *_pair(PopSettings, "PopSettings", "LetterlockPop3"),
    *_pair(ImapSettings, "ImapSettings", "LetterlockImap4"),
    *_pair(AdminSettings, "AdminSettings", "LetterlockAdmin", "LetterlockAdmin"),
    *_pair(AcmeSettings, "AcmeSettings", "certificates from an ACME authority", LIVE),
)
