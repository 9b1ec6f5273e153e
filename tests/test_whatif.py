"""-WhatIf of every changing cmdlet: it says what would change, and changes nothing (derived from the table)."""

from __future__ import annotations

import datetime
import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import trustme

from letterlock.base.values import Secret
from letterlock.directory.acme_orders import AcmeOrder, AcmeOrders
from letterlock.manage import CMDLETS
from tests.management import Management, Services

CHANGING = sorted({c.name for c in CMDLETS.values() if c.changes})
WHO = "alice@example.com"
PASSWORD = Secret("another horse 8")
EXCEPTION = {
    "Protocol": "Imap",
    "RemoteIPRanges": ["10.1.2.0/28"],
    "Owner": "Facility",
    "Reason": "Printer",
    "ExpiresOn": (datetime.date.today() + datetime.timedelta(90)).isoformat(),
}

# cmdlet → arguments, and words that -WhatIf says
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "Start-Service": ({"Name": "MSExchangeImap4"}, ('start service "MSExchangeImap4"',)),
    "Stop-Service": ({"Name": "LetterlockImap4"}, ('stop service "LetterlockImap4"',)),
    "Restart-Service": ({"Name": "LetterlockImap4"}, ('restart service "LetterlockImap4"',)),
    "Set-Service": ({"Name": "LetterlockImap4", "StartupType": "Automatic"}, ("from Manual to Automatic",)),
    "Set-PopSettings": (
        {"LogPerFileSizeQuota": "2MB", "LoginType": "PlainTextLogin"},
        ("set LogPerFileSizeQuota from 0 to 2097152", "set LoginType from SecureLogin to PlainTextLogin"),
    ),
    "Set-ImapSettings": ({"Banner": "Hello"}, ("set Banner from", "to Hello")),
    "Set-AdminSettings": ({"MaxConnections": 7}, ("set MaxConnections from", "to 7")),
    "New-Mailbox": ({"Name": "new@example.com", "Password": PASSWORD}, ("make mailbox new@example.com",)),
    "Set-Mailbox": ({"Identity": WHO, "DisplayName": "A"}, (f"set DisplayName of {WHO} from", "to A")),
    "Remove-Mailbox": ({"Identity": WHO}, (f"remove mailbox {WHO} with all its messages",)),
    "Set-MailboxPassword": ({"Identity": WHO, "Password": PASSWORD}, (f"set the password of {WHO}",)),
    "Set-CASMailbox": ({"Identity": WHO, "PopEnabled": False}, (f"set PopEnabled of {WHO} from True to False",)),
    "Set-MailboxFolder": ({"Identity": f"{WHO}:\\INBOX", "Hidden": True}, (f"hide folder INBOX of {WHO}",)),
    "Remove-MailboxImportRequest": ({"Identity": "{import}"}, ("remove import request",)),
    "Remove-MailboxExportRequest": ({"Identity": "{export}"}, ("remove export request",)),
    "New-MailboxExportRequest": ({"Mailbox": WHO, "FilePath": "{files}/new.mbox"}, (f"export {WHO} to ", "new.mbox")),
    "New-MailboxImportRequest": ({"Mailbox": WHO, "FilePath": "{files}/box.mbox"}, ("import ", f"into {WHO}")),
    "Disconnect-ClientConnection": ({"User": WHO}, (f"end connection 000000000000002A of {WHO} at 192.0.2.7",)),
    "New-ExchangeCertificate": (
        {"DomainName": ["mail.contoso.com"]},
        ("self-signed certificate for mail.contoso.com",),
    ),
    "Import-ExchangeCertificate": ({"FileData": "{pem}"}, ("import the certificate of",)),
    "Export-ExchangeCertificate": ({"Thumbprint": "{thumbprint}"}, ("export ",)),
    "Enable-ExchangeCertificate": ({"Thumbprint": "{thumbprint}", "Services": "SMTP"}, ("for SMTP",)),
    "Remove-ExchangeCertificate": ({"Thumbprint": "{spare}"}, ("remove ", "spare.example.com")),
    "Set-AcmeSettings": ({"RenewalEnabled": False}, ("set RenewalEnabled from True to False",)),
    "New-AcmeCertificate": ({"DomainName": ["new.example.com"]}, ("order a certificate for new.example.com at https",)),
    "Update-AcmeCertificate": ({"Identity": "acme.example.com"}, ("renew the certificate for acme.example.com at",)),
    "Remove-AcmeCertificate": ({"Identity": "acme.example.com"}, ("end the renewal of", "for acme.example.com")),
    "Revoke-AcmeCertificate": ({"Thumbprint": "{issued}"}, ("have ", "issued.example.com) revoked")),
    "New-LoginException": (EXCEPTION, ("make a login exception", "RemoteIPRanges 10.1.2.0/28", "Owner Facility")),
    "Set-LoginException": (
        {"Identity": "{exception}", "Owner": "Nobody"},
        ("set Owner of login exception", "from Facility to Nobody"),
    ),
    "Remove-LoginException": ({"Identity": "{exception}"}, ("remove login exception",)),
    "Clear-ExposedCredential": ({"Identity": WHO}, (f"forget the exposure of {WHO}",)),
    "New-Administrator": ({"Name": "second", "Password": PASSWORD}, ("make administrator second with role",)),
    "Set-Administrator": ({"Identity": "chief", "Role": "ViewOnly"}, ("set Role of administrator chief from",)),
    "Remove-Administrator": ({"Identity": "chief"}, ("remove administrator chief",)),
    "New-AdministratorToken": ({"Identity": "chief"}, ("make a token of administrator chief that expires on",)),
    "Remove-AdministratorToken": ({"Identity": "{token}"}, ("remove token", "of administrator chief")),
}


@pytest.fixture(scope="module")
def management(tmp_path_factory: pytest.TempPathFactory) -> tuple[Management, Services, dict[str, str]]:
    """One of everything that can be changed."""
    data = tmp_path_factory.mktemp("whatif") / "data"
    services = Services()
    services.up.add("LetterlockImap4")
    services.sessions = [
        {
            "Identity": "000000000000002A",
            "User": WHO,
            "RemoteAddress": "192.0.2.7",
            "Protocol": "IMAP4",
            "State": "Selected",
            "IdleTime": 5,
        }
    ]
    m = Management(data, services)
    m.mailbox(WHO)
    m.run("New-Administrator", "chief", Password="a long password 1")
    token = m.run("New-AdministratorToken", "chief")[0]
    exception = m.run("New-LoginException", **EXCEPTION)[0]
    spare = m.run("New-ExchangeCertificate", DomainName=["spare.example.com"], Services="None")[0]
    served = next(r for r in m.run("Get-ExchangeCertificate") if r["Thumbprint"] != spare["Thumbprint"])
    (data.parent / "box.mbox").write_text("From x Thu Jan  1 00:00:00 2026\nSubject: a\n\ntext\n\n")
    exported = m.run("Export-ExchangeCertificate", spare["Thumbprint"])[0]
    order = AcmeOrder(
        identity="acme.example.com",
        domains=("acme.example.com",),
        services=(),
        friendly_name="ACME",
        algorithm="EC",
        size=256,
        exportable=False,
        directory_url="https://acme.example.com/",
    )
    AcmeOrders(m.config).save(order, "tester", "order")
    m.run("Set-AcmeSettings", TermsOfServiceAgreed=True, Contact="chief@example.com")
    leaf = trustme.CA().issue_cert("issued.example.com")
    pem = b"".join(blob.bytes() for blob in (leaf.private_key_pem, *leaf.cert_chain_pems)).decode()
    issued = m.run("Import-ExchangeCertificate", FileData=pem)[0]
    names = {
        "issued": str(issued["Thumbprint"]),
        "files": str(data.parent),
        "import": str(m.run("New-MailboxImportRequest", WHO, str(data.parent / "box.mbox"))[0]["Identity"]),
        "export": str(m.run("New-MailboxExportRequest", WHO, str(data.parent / "old.mbox"))[0]["Identity"]),
        "thumbprint": str(served["Thumbprint"]),
        "spare": str(spare["Thumbprint"]),
        "exception": str(exception["Identity"]),
        "token": str(token.get("Identity", "")),
        "pem": "".join(map(str, exported["FileData"])),
    }
    return m, services, names


def everything(data: Path) -> dict[str, str]:
    """All that a data directory holds: the rows of its databases, and its other files."""
    found = {}
    for path in sorted(p for p in data.rglob("*") if p.is_file()):
        if path.suffix == ".db":
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
                text = "\n".join(map(repr, (r for (t,) in _tables(db) for r in db.execute(f'SELECT * FROM "{t}"'))))
        elif path.name.endswith(("-wal", "-shm")) or path.name == ".lock":
            continue
        else:
            text = path.read_bytes().hex()
        found[str(path.relative_to(data))] = hashlib.sha256(text.encode()).hexdigest()
    return found


def _tables(db: sqlite3.Connection) -> list[tuple[str]]:
    return db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%VIRTUAL%'").fetchall()


@pytest.mark.parametrize("name", CHANGING)
def test_whatif_says_what_would_change_and_changes_nothing(
    name: str, management: tuple[Management, Services, dict[str, str]]
) -> None:
    assert name in CASES, f"{name} changes something; add a line for it to CASES"
    m, services, names = management
    arguments, said = CASES[name]
    named = {k: v.format(**names) if isinstance(v, str) else v for k, v in arguments.items()}
    before, did = everything(m.data), list(services.did)
    assert m.run(name, **named, WhatIf=True) == []
    told = [line for line in m.messages if line.startswith("What if: ")]
    assert told, m.messages
    for words in said:
        assert any(words in line for line in told), told
    assert "horse" not in "".join(m.messages)
    assert everything(m.data) == before
    assert services.did == did
