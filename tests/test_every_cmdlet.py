"""What holds for every cmdlet that changes something: -WhatIf changes nothing and says what would; what is changed is
in the audit trail under the cmdlet's name; no secret is; and wrong values change nothing at all.

A new cmdlet needs a line in RECIPES: values with which it changes something in the directory that `prepared` makes.
"""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from letterlock.base.errors import LetterlockError
from letterlock.base.values import ListChange, Secret
from letterlock.directory.accounts import Exposure
from letterlock.manage import CMDLETS
from letterlock.manage.registry import Cmdlet
from tests.management import PASSWORD, Management, Services

# These talk to a certificate authority; tests/test_acme.py runs them against one.
WITH_AUTHORITY = {f"{verb}-AcmeCertificate" for verb in ("New", "Update", "Remove", "Revoke")}
EVERY = {c.name: c for c in CMDLETS.values() if c.changes and c.name not in WITH_AUTHORITY}
CHANGING = sorted(EVERY.values(), key=lambda c: c.name)
ALICE = "alice@example.com"
SECRET = "never written 7"  # a second password, for cmdlets that set one
TOMORROW = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)).isoformat()
SESSION = {
    "Identity": "00000000000000AB",
    "Protocol": "IMAP4",
    "Service": "LetterlockImap4",
    "User": ALICE,
    "RemoteAddress": "192.0.2.7:5000",
    "State": "Idle",
    "IdleTime": 5,
}
MBOX = b"From a@b.c Fri Jul  8 12:08:34 2011\nSubject: x\n\nx\n"

Recipe = Callable[[Management, Path], dict[str, Any]]


def other_certificate(m: Management) -> str:
    """The thumbprint of the one that serves nothing yet."""
    rows = m.run("Get-ExchangeCertificate")
    return str(next(r["Thumbprint"] for r in rows if "other.example.com" in str(r)))


def first(m: Management, name: str) -> dict[str, Any]:
    return dict(m.run(name)[0])


RECIPES: dict[str, Recipe] = {
    "Start-Service": lambda m, t: {"Name": "LetterlockPop3"},
    "Stop-Service": lambda m, t: {"Name": "LetterlockImap4"},
    "Restart-Service": lambda m, t: {"Name": "MSExchangeImap4"},
    "Set-Service": lambda m, t: {"Name": "LetterlockImap4", "StartupType": "Automatic"},
    "Set-PopSettings": lambda m, t: {"LoginType": "PlainTextLogin"},
    "Set-ImapSettings": lambda m, t: {"UnencryptedOrTLSBindings": ListChange(None, (), ("0.0.0.0:10143",))},
    "Set-AcmeSettings": lambda m, t: {"Contact": "admin@example.com"},
    "Set-AdminSettings": lambda m, t: {"MaxConnections": 7},
    "New-Mailbox": lambda m, t: {"Name": "new@example.com", "Password": Secret(SECRET)},
    "Set-Mailbox": lambda m, t: {"Identity": ALICE, "DisplayName": "Other", "EmailAddresses": "a2@example.com"},
    "Remove-Mailbox": lambda m, t: {"Identity": ALICE},
    "Set-MailboxPassword": lambda m, t: {"Identity": ALICE, "Password": Secret(SECRET)},
    "Set-CASMailbox": lambda m, t: {"Identity": ALICE, "PopEnabled": False},
    "Set-MailboxFolder": lambda m, t: {"Identity": f"{ALICE}:\\Archive", "Hidden": True},
    "New-MailboxImportRequest": lambda m, t: {"Mailbox": ALICE, "FilePath": str(t / "two.mbox")},
    "Remove-MailboxImportRequest": lambda m, t: {"Identity": first(m, "Get-MailboxImportRequest")["Identity"]},
    "New-MailboxExportRequest": lambda m, t: {"Mailbox": ALICE, "FilePath": str(t / "out2")},
    "Remove-MailboxExportRequest": lambda m, t: {"Identity": first(m, "Get-MailboxExportRequest")["Identity"]},
    "Disconnect-ClientConnection": lambda m, t: {"User": "alice*"},
    "New-ExchangeCertificate": lambda m, t: {"DomainName": "third.example.com", "Services": "IMAP"},
    "Import-ExchangeCertificate": lambda m, t: {"FileData": (t / "import.pem").read_text()},
    "Export-ExchangeCertificate": lambda m, t: {"Thumbprint": other_certificate(m), "Password": Secret(SECRET)},
    "Enable-ExchangeCertificate": lambda m, t: {"Thumbprint": other_certificate(m), "Services": "POP"},
    "Remove-ExchangeCertificate": lambda m, t: {"Thumbprint": other_certificate(m)},
    "New-LoginException": lambda m, t: {
        "Protocol": "Imap",
        "RemoteIPRanges": "192.0.2.0/28",
        "Owner": "x",
        "Reason": "y",
        "ExpiresOn": TOMORROW,
    },
    "Set-LoginException": lambda m, t: {"Identity": first(m, "Get-LoginException")["Identity"], "Reason": "z"},
    "Remove-LoginException": lambda m, t: {"Identity": first(m, "Get-LoginException")["Identity"]},
    "Clear-ExposedCredential": lambda m, t: {"Identity": ALICE},
    "New-Administrator": lambda m, t: {"Name": "second", "Password": Secret(SECRET)},
    "Set-Administrator": lambda m, t: {"Identity": "first", "Role": "ViewOnly", "Password": Secret(SECRET)},
    "Remove-Administrator": lambda m, t: {"Identity": "first"},
    "New-AdministratorToken": lambda m, t: {"Identity": "first"},
    "Remove-AdministratorToken": lambda m, t: {"Identity": first(m, "Get-AdministratorToken")["Identity"]},
}


@pytest.fixture
def prepared(tmp_path: Path) -> Management:
    """A directory in which there is one of everything."""
    services = Services()
    services.up, services.sessions = {"LetterlockImap4"}, [SESSION]
    m = Management(tmp_path / "data", services)
    m.mailbox(ALICE)
    m.accounts.mark_exposed([Exposure(m.accounts.one(ALICE), "IMAP4", "192.0.2.7")])
    for name in ("one", "two"):
        (tmp_path / f"{name}.mbox").write_bytes(MBOX)
    m.run("New-MailboxImportRequest", ALICE, str(tmp_path / "one.mbox"))
    m.run("New-MailboxExportRequest", ALICE, str(tmp_path / "out"))
    m.run("New-Administrator", Name="first", Password=Secret(PASSWORD))
    m.run("New-AdministratorToken", Identity="first")
    m.run("New-ExchangeCertificate", DomainName="other.example.com", Services="None", PrivateKeyExportable=True)
    m.run("New-LoginException", **RECIPES["New-LoginException"](m, tmp_path))
    elsewhere = Management(tmp_path / "elsewhere")
    (key,) = (elsewhere.data / "certificates").glob("*.key")
    (tmp_path / "import.pem").write_text(key.read_text() + (elsewhere.data / "certificate.pem").read_text())
    services.did.clear()
    return m


def snapshot(directory: Path) -> dict[str, Any]:
    """Everything in a directory: databases row by row, other files as they are."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        name = str(path.relative_to(directory))
        if path.suffix == ".db":
            db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            found[name] = list(db.iterdump())
            db.close()
        elif not name.endswith(("-wal", "-shm")) and path.name != ".lock":
            found[name] = path.read_bytes()
    return found


def recipe(cmdlet: Cmdlet, m: Management, tmp_path: Path) -> dict[str, Any]:
    assert cmdlet.name in RECIPES, f"{cmdlet.name} changes something: give it a line in RECIPES"
    return RECIPES[cmdlet.name](m, tmp_path)


def did(m: Management) -> list[str]:
    assert isinstance(m.server, Services)
    return m.server.did


@pytest.mark.parametrize("cmdlet", CHANGING, ids=[c.name for c in CHANGING])
def test_whatif_changes_nothing_and_says_what_would(cmdlet: Cmdlet, prepared: Management, tmp_path: Path) -> None:
    values = recipe(cmdlet, prepared, tmp_path)
    before, done = snapshot(tmp_path), list(did(prepared))
    prepared.run(cmdlet.name, WhatIf=True, **values)
    said = [m for m in prepared.messages if m.startswith("What if: ")]
    assert said, prepared.messages
    assert snapshot(tmp_path) == before and did(prepared) == done
    assert not any(secret in " ".join(prepared.messages) for secret in (PASSWORD, SECRET))


@pytest.mark.parametrize("cmdlet", CHANGING, ids=[c.name for c in CHANGING])
def test_a_change_is_in_the_audit_trail(cmdlet: Cmdlet, prepared: Management, tmp_path: Path) -> None:
    values = recipe(cmdlet, prepared, tmp_path)
    before = len(prepared.audit())
    prepared.run(cmdlet.name, **values)
    rows = prepared.audit()[before:]
    assert rows, "nothing was written"
    assert {who for who, _, _, _ in rows} == {"uid 1000 (tester)"}
    assert {what.split(" ")[0] for _, what, _, _ in rows} == {cmdlet.name}
    text = str(prepared.audit()) + str(prepared.run("Search-AdminAuditLog"))
    assert PASSWORD not in text and SECRET not in text and "$argon2" not in text and "PRIVATE KEY" not in text


def test_the_recipes_are_of_cmdlets() -> None:
    assert set(RECIPES) <= {c.name for c in CHANGING}


# --- wrong values

HOSTILE: list[Any] = [
    "",
    " ",
    "x" * 20_000,
    "a\x00b",
    "a\x1b[2Jb",
    "a\r\nb",
    "../../etc/passwd",
    "/etc/passwd",
    "\u202egnp.exe",
    "\ud800",
    "é" * 300,
    "*",
    "[",
    "%s%n",
    "'; DROP TABLE account; --",
    -1,
    0,
    2**70,
    1.5,
    float("nan"),
    True,
    None,
    [],
    ["x"] * 500,
    [None],
    [["x"]],
    {"a": "b"},
    {"UserName": "x"},
    ListChange(None, ("x" * 300,), ("\x00",)),
    b"\xff\x00",
    "999999999999999999999999",
    "99.99:99:99",
    "1e400",
    "0.0.0.0:99999",
    "٣",
]


def kind(value: Any) -> str:
    return repr(value)[:40]


@pytest.mark.parametrize("cmdlet", CHANGING, ids=[c.name for c in CHANGING])
def test_wrong_values_are_refused_by_name_or_taken_whole(cmdlet: Cmdlet, prepared: Management, tmp_path: Path) -> None:
    """Under -WhatIf, so that what is right changes nothing; the error names the cmdlet or what was not found."""
    values = recipe(cmdlet, prepared, tmp_path)
    before = snapshot(tmp_path)
    wrong: list[str] = []
    for p in cmdlet.parameters:
        for value in HOSTILE:
            try:
                prepared.run(cmdlet.name, WhatIf=True, **{**values, p.name: value})
            except LetterlockError as error:
                if len(error.text) > 20_000 and len(str(value)) < 1000:
                    wrong.append(f"{p.name}={kind(value)}: a text of {len(error.text)} characters")
                named = (p.name, "there is no", "belongs to", "is needed", "say ", "names ", "Thumbprint:")
                if not any(word.lower() in error.text.lower() for word in named):
                    wrong.append(f"{p.name}={kind(value)}: {error.text}"[:300])
            except Exception as error:
                wrong.append(f"{p.name}={kind(value)}: {type(error).__name__}: {error}"[:300])
    assert not wrong, "\n".join(wrong)
    assert snapshot(tmp_path) == before
