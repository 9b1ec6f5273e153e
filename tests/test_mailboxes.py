"""Mailboxes: addresses, quotas, names, and what becomes of them all or nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from letterlock.base.errors import LetterlockError, Malformed, Refused
from letterlock.base.values import ListChange
from letterlock.store.api import Flags, Incoming, Quota
from letterlock.store.sqlite import SqliteStore
from tests.management import Management, Services


@pytest.fixture
def m(tmp_path: Path) -> Management:
    made = Management(tmp_path / "data", Services())
    made.mailbox()
    return made


def addresses(m: Management) -> list[str]:
    return list(m.run("Get-Mailbox", "alice@example.com")[0]["EmailAddresses"])


def test_addresses_are_added_removed_and_found(m: Management) -> None:
    m.run("Set-Mailbox", "alice", EmailAddresses=ListChange(None, ("a.smith@example.com", "smtp:as@example.net")))
    assert addresses(m) == ["SMTP:alice@example.com", "smtp:a.smith@example.com", "smtp:as@example.net"]
    found = m.accounts.by_login("A.Smith@EXAMPLE.com")
    assert found is not None and found.address == "alice@example.com"
    assert m.run("Get-Mailbox", "as@example.net")[0]["Identity"] == "alice@example.com"
    with pytest.raises(Refused, match="is an address of mailbox alice"):
        m.mailbox("a.smith@example.com")
    m.mailbox("bob@example.com")
    with pytest.raises(Refused, match="is an address of mailbox alice"):
        m.run("Set-Mailbox", "bob@example.com", EmailAddresses="as@example.net")
    m.run("Set-Mailbox", "alice", EmailAddresses=ListChange(None, (), ("as@example.net",)))
    assert addresses(m) == ["SMTP:alice@example.com", "smtp:a.smith@example.com"]
    assert m.accounts.by_login("as@example.net") is None


def test_another_primary_address(m: Management) -> None:
    m.run("Set-Mailbox", "alice", EmailAddresses=["SMTP:new@example.com", "smtp:alice@example.com"])
    assert m.run("Get-Mailbox", "new@example.com")[0]["EmailAddresses"] == [
        "SMTP:new@example.com",
        "smtp:alice@example.com",
    ]
    m.run("Set-Mailbox", "new@example.com", PrimarySmtpAddress="third@example.com")
    assert m.run("Get-Mailbox", "third@example.com")[0]["EmailAddresses"] == [
        "SMTP:third@example.com",
        "smtp:alice@example.com",
        "smtp:new@example.com",
    ]
    with pytest.raises(Malformed, match="is the primary address; make another"):
        m.run("Set-Mailbox", "third@example.com", EmailAddresses=ListChange(None, (), ("third@example.com",)))


def test_an_empty_list_takes_the_further_addresses_away(m: Management) -> None:
    m.run("Set-Mailbox", "alice", EmailAddresses="a@example.com,b@example.com")
    m.run("Set-Mailbox", "alice", EmailAddresses=[])
    assert addresses(m) == ["SMTP:alice@example.com"]


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"EmailAddresses": "x400:a=b"}, "EmailAddresses: 'x400:a=b': only addresses of the kind smtp"),
        ({"EmailAddresses": "no address"}, "EmailAddresses: 'no address' is not a mail address"),
        ({"EmailAddresses": ["SMTP:a@b.c", "SMTP:d@e.f"]}, "only one address can be the primary"),
        ({"PrimarySmtpAddress": "../../etc"}, "PrimarySmtpAddress: '../../etc' is not a mail address"),
        ({"Alias": "two words"}, "Alias: is one word"),
        ({"Alias": "x" * 65}, "Alias: must have 1 to 64 characters"),
        ({"DisplayName": "a\x1b[2Jb"}, "DisplayName: must have 1 to 256 characters, and no control"),
        ({"DisplayName": ""}, "DisplayName: must have 1 to 256"),
        ({"ProhibitSendReceiveQuota": "lots"}, "ProhibitSendReceiveQuota: 'lots' is not a size"),
        ({"ProhibitSendReceiveQuota": "1MB", "IssueWarningQuota": "2MB"}, "IssueWarningQuota: 2 MB"),
        ({"Identity": "nobody"}, "there is no mailbox 'nobody'"),
    ],
)
def test_bad_values_change_nothing(m: Management, named: dict[str, Any], said: str) -> None:
    before = m.run("Get-Mailbox"), len(m.audit())
    with pytest.raises(LetterlockError) as caught:
        m.run("Set-Mailbox", **{"Identity": "alice", "DisplayName": "Other", **named})
    assert said in caught.value.text
    assert (m.run("Get-Mailbox"), len(m.audit())) == before


def test_the_audit_row_has_what_changed_and_nothing_else(m: Management) -> None:
    m.run("Set-Mailbox", "alice", DisplayName="Alice A.", ProhibitSendReceiveQuota="2MB")
    assert m.audit()[-1] == (
        "uid 1000 (tester)",
        "Set-Mailbox alice@example.com",
        '{"DisplayName": "alice", "ProhibitSendReceiveQuota": "unlimited"}',
        '{"DisplayName": "Alice A.", "ProhibitSendReceiveQuota": 2097152}',
    )
    count = len(m.audit())
    m.run("Set-Mailbox", "alice", DisplayName="Alice A.")
    assert len(m.audit()) == count and "nothing was changed" in m.messages[0]


def test_removing_ends_sessions_and_removes_files(m: Management) -> None:
    identity = m.run("Get-Mailbox", "alice")[0]["Guid"]
    m.run("Remove-Mailbox", "alice", WhatIf=True)
    assert "What if: remove mailbox alice@example.com with all its messages (0 messages, 0 B (0 bytes))" in m.messages
    assert (m.data / "mailboxes" / f"{identity}.db").exists()
    m.run("Remove-Mailbox", "alice")
    assert isinstance(m.server, Services)
    assert f"disconnect mailbox {identity}" in m.server.did
    assert not list((m.data / "mailboxes").glob(f"{identity}*"))
    assert m.accounts.by_login("alice@example.com") is None


def test_the_quota_refuses_what_does_not_fit(tmp_path: Path) -> None:
    async def run() -> None:
        store = SqliteStore(tmp_path / "m")
        await store.create_mailbox("0" * 32)
        mail = store.mailbox("0" * 32, Quota(limit=100))

        async def add(size: int) -> None:
            spool = mail.spool(0)  # what was announced may be less than what comes
            spool.write(b"x" * size)
            await mail.append(await mail.folder("INBOX"), [Incoming(spool, Flags(), None)])

        await add(60)
        with pytest.raises(Refused, match="holds 60 of 100 octets, and 41 more") as caught:
            mail.spool(41)
        assert caught.value.code == b"OVERQUOTA"
        for size in (41, 1000):
            with pytest.raises(Refused, match="The mailbox is full"):
                await add(size)
        inbox, trash = await mail.folder("INBOX"), await mail.folder("Trash")
        with pytest.raises(Refused, match="60 more do not fit"):
            await mail.copy(inbox, [(1, 9)], trash)
        await mail.move(inbox, [(1, 9)], trash)  # takes no space
        await add(40)
        assert await mail.usage() == (100, 2)
        await store.close()

    asyncio.run(run())


def test_results_are_bounded_and_it_is_said(m: Management) -> None:
    for name in ("bob", "carol", "dave"):
        m.mailbox(f"{name}@example.com")
    for cmdlet in ("Get-Mailbox", "Get-CASMailbox"):
        assert len(m.run(cmdlet, ResultSize=2)) == 2
        assert m.messages == [
            "WARNING: there are 4 objects, and only 2 are shown; for all: -ResultSize unlimited",
        ]
        assert len(m.run(cmdlet, ResultSize="Unlimited")) == 4 and m.messages == []
        assert [r["Identity"] for r in m.run(cmdlet, Filter="{PrimarySmtpAddress -like 'c*'}", ResultSize=1)] == [
            "carol@example.com"
        ]
        with pytest.raises(Malformed, match="ResultSize: 'x' is not allowed; use a number from 1 to"):
            m.run(cmdlet, ResultSize="x")


def test_an_unknown_server_is_an_error_everywhere(m: Management) -> None:
    for cmdlet, named in (
        ("New-Mailbox", {"Name": "x@example.com", "Password": "p"}),
        ("Get-Mailbox", {}),
        ("Get-MailboxStatistics", {}),
        ("Remove-Mailbox", {"Identity": "alice"}),
        ("Search-AdminAuditLog", {}),
    ):
        with pytest.raises(Refused, match="there is no server 'EX9' here; there is: EX1"):
            m.run(cmdlet, Server="EX9", **named)
    assert len(m.run("Get-Mailbox", Server="ex1")) == 1
