"""What Tab offers: from the command tables, the variables, and what a server answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from letterlock.base.errors import Refused
from letterlock.faces.completion import ShellCompleter, Typing, typing
from letterlock.language.values import Record
from letterlock.manage import CMDLETS

ROWS = {
    "Get-Mailbox": [{"PrimarySmtpAddress": "alice@contoso.com"}, {"PrimarySmtpAddress": "o'neil@contoso.com"}],
    "Get-Service": [{"Name": "LetterlockImap4", "Status": "Running"}],
    "Get-ExchangeCertificate": [{"Thumbprint": "AB" * 20}],
}


def offered(text: str) -> list[str]:
    """For Tab at the end of `text`."""

    async def ask(name: str) -> list[dict[str, Any]]:
        if name not in ROWS:
            raise Refused("the server is not there")
        return ROWS[name]

    variables = {"cert": Record({"Thumbprint": "AB", "Services": "IMAP"}), "count": 5}
    return asyncio.run(ShellCompleter(CMDLETS, variables, ask).offered(typing(text)))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", Typing("", [], "")),
        ("Get-Ma", Typing("", [], "Get-Ma")),
        ("Get-Mailbox ", Typing("Get-Mailbox", [], "")),
        ("$m = Get-Mailbox -Id", Typing("Get-Mailbox", [], "-Id")),
        ("Get-Mailbox 'a b' | Where Na", Typing("Where", [], "Na", "Get-Mailbox")),
        ("x; Get-Mailbox | Where {$_.Na", Typing("", [], "$_.Na", "Get-Mailbox")),
        ("Test-X -C (Get-Cred", Typing("", [], "Get-Cred", "Test-X")),
    ],
)
def test_what_is_being_typed(text: str, found: Typing) -> None:
    assert typing(text) == found


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Set-ImapSet", ["Set-ImapSettings"]),
        ("Get-Mailbox | Sort-O", ["Sort-Object"]),
        ("Set-ImapSettings -LoginTypeM", ["-LoginTypeMode"]),
        ("Set-ImapSettings -LoginType sec", ["SecureLogin"]),
        ("Set-ImapSettings -ProtocolLogEnabled ", ["$true", "$false"]),
        ("Get-Mailbox | Select -Ex", ["-ExcludeProperty", "-ExpandProperty"]),
        ("Set-CASMailbox al", ["alice@contoso.com"]),
        ("Set-CASMailbox -Identity 'o", ["o'neil@contoso.com"]),
        ("Restart-Service Letter", ["LetterlockImap4"]),
        ("Enable-ExchangeCertificate -Thumbprint A", ["AB" * 20]),
        ("Get-Service | Select St", ["Status"]),
        ("$cert | fl Ser", ["Services"]),
        ("Set-X $cer", ["$cert"]),
        ("$cert.Th", ["$cert.Thumbprint"]),
        ("$count.", []),
        ("Nothing -Na", []),
        ("New-Mailbox al", []),
        ("Get-ImapSettings -Server E", []),
        ("Get-Service -Nothing ", []),
    ],
)
def test_what_is_offered(text: str, wanted: list[str]) -> None:
    assert offered(text) == wanted
