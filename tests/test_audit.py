"""The audit trail: searched by cmdlet, property, object, caller and time; bounded."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from letterlock.base.errors import Malformed
from letterlock.directory import config as directory
from letterlock.directory.accounts import Exposure
from tests.management import Management


@pytest.fixture
def m(tmp_path: Path) -> Management:
    made = Management(tmp_path / "data")
    made.mailbox("alice@example.com")
    made.mailbox("bob@example.com")
    made.run("Set-ImapSettings", Banner="Hello", MaxConnections=9)
    made.run("Set-Mailbox", "bob@example.com", DisplayName="Bob")
    return made


def found(m: Management, **named: object) -> list[str]:
    return [f"{r['CmdletName']} {r['ObjectModified']}" for r in m.run("Search-AdminAuditLog", **named)]


def test_what_is_told(m: Management) -> None:
    newest, settings = m.run("Search-AdminAuditLog", ResultSize=2)
    assert newest["ModifiedProperties"] == ["DisplayName: bob -> Bob"]
    assert newest["Caller"] == "uid 1000 (tester)"
    assert settings["CmdletName"] == "Set-ImapSettings" and settings["ObjectModified"] == "EX1"
    assert sorted(settings["ModifiedProperties"]) == [
        "Banner: The Letterlock IMAP4 service is ready. -> Hello",
        "MaxConnections: 2147483647 -> 9",
    ]


def test_filters(m: Management) -> None:
    assert found(m, Cmdlets="new-m*") == ["New-Mailbox bob@example.com", "New-Mailbox alice@example.com"]
    assert found(m, Cmdlets=["Set-Mailbox", "Set-Imap*"]) == ["Set-Mailbox bob@example.com", "Set-ImapSettings EX1"]
    assert found(m, Parameters="banner") == ["Set-ImapSettings EX1"]
    assert found(m, ObjectIds="BOB@*") == ["Set-Mailbox bob@example.com", "New-Mailbox bob@example.com"]
    assert found(m, UserIds="nobody") == []
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    assert found(m, StartDate=later.isoformat()) == [] and len(found(m, EndDate=later.isoformat())) >= 4
    with pytest.raises(Malformed, match="StartDate: is later than EndDate"):
        found(m, StartDate=later.isoformat(), EndDate="2020-01-01")
    for wrong in (0, "many", 10**9):
        with pytest.raises(Malformed, match="ResultSize"):
            found(m, ResultSize=wrong)


def test_the_oldest_rows_go(m: Management, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "AUDIT_ROWS", 3)
    m.run("Set-Mailbox", "bob@example.com", DisplayName="Robert")
    assert len(m.audit()) == 3 and "Robert" in m.audit()[-1][3]


def test_whoever_knows_a_password_cannot_push_the_trail_out(m: Management) -> None:
    account, before = m.accounts.one("bob@example.com"), len(m.audit())
    for _ in range(50):
        m.accounts.mark_exposed([Exposure(account, "IMAP4", "192.0.2.7")])
    assert len(m.audit()) == before + 1
    assert len(m.accounts.exposed(account)) == 50
