"""Get-ExchangeServer: the servers of the organisation."""

from __future__ import annotations

from typing import Any, Final

from letterlock.directory.servers import Servers
from letterlock.manage.context import Context
from letterlock.manage.registry import Cmdlet, Parameter, Row


async def get_server(c: Context, p: dict[str, Any]) -> list[Row]:
    """This one first."""
    found = [(c.config.server_name, c.config.fqdn, str(c.config.data))]
    found += [(s.name, s.fqdn, str(s.data)) for s in Servers(c.config).all()]
    wanted = str(p.get("Identity", "")).lower()
    if wanted:
        found = [f for f in found if wanted in (f[0].lower(), f[1].lower())]
        if not found:
            c.check_server(wanted)
    return [Row({"Name": n, "Fqdn": f, "DataPath": d}, ("Name", "Fqdn", "DataPath")) for n, f, d in found]


CMDLETS: Final = (
    Cmdlet(
        "Get-ExchangeServer",
        "Shows the servers of the organisation.",
        get_server,
        (Parameter("Identity", "Name or host name.", position=0),),
        aliases=("Get-Server",),
    ),
)
