"""Sessions seen and ended by cmdlets, last log-ons, quotas and passwords: real clients at two workers."""

from __future__ import annotations

import json
import poplib
import threading
import time
from typing import Any

import pytest

from tests.clients.server import PASSWORD, Server
from tests.test_workers import ADDRESSES, MESSAGE, Client

ALICE, BOB = "alice@demo.test", "bob@demo.test"


def listed(server: Server, *words: str) -> list[dict[str, Any]]:
    rows = json.loads(server.run("get-clientconnection", *words, "--output", "json").stdout)
    assert isinstance(rows, list)
    return rows


def test_sessions_of_all_workers_are_shown_with_all_that_is_known(server: Server) -> None:
    clients = [Client(server, a) for a in ADDRESSES[:6]]
    waiting = Client(server, "127.0.0.40", clear=True)
    first = clients[0]
    first.ask('i ID ("name" "Test\x1b[2JClient" "version" "1.2" "os" NIL)')
    for client in clients:
        assert client.login().startswith(b"l OK")
    first.ask(f"a APPEND Sent {{{len(MESSAGE)}+}}\r\n{MESSAGE}")
    first.ask("s SELECT Sent")
    clients[1].ask("s SELECT INBOX")
    clients[1].sock.sendall(b"d IDLE\r\n")
    assert clients[1].file.readline().startswith(b"+ ")
    rows = listed(server)
    assert len(rows) == 7 and len({r["ProcessId"] for r in rows}) == 2
    by_address = {r["RemoteAddress"].rpartition(":")[0]: r for r in rows}
    row = by_address[ADDRESSES[0]]
    assert (row["User"], row["State"], row["Folder"]) == (ALICE, "Selected", "Sent")
    assert (row["Mechanism"], row["Tls"], row["TlsVersion"]) == ("LOGIN command", "implicit", "TLSv1.3")
    assert row["TlsCipher"].startswith("TLS_") and row["Server"] == "VM" and row["Protocol"] == "IMAP4"
    assert row["Client"] == "Test[2JClient 1.2"
    assert row["BytesReceived"] > len(MESSAGE) and row["BytesSent"] > 100
    assert row["LocalAddress"] == f"127.0.0.1:{server.imaps}"
    assert by_address[ADDRESSES[1]]["State"] == "Idle"
    assert (by_address["127.0.0.40"]["User"], by_address["127.0.0.40"]["Tls"]) == ("", "none")
    table = server.shell("Get-ClientConnection -State Idle | Select User,State | Format-Table")
    assert table.split() == ["User", "State", "----", "-----", ALICE, "Idle"]
    for client in (*clients, waiting):
        client.close()


def test_filters(server: Server) -> None:
    bob = Client(server, "127.0.0.5")
    bob.login(BOB)
    alice = Client(server, "127.0.0.70")
    alice.login()
    pop = server.pop_client(BOB)
    assert {r["User"] for r in listed(server, "--user", "bob*")} == {BOB}
    assert len(listed(server, "--user", "bob*", "--protocol", "Imap")) == 1
    assert [r["User"] for r in listed(server, "--remote-address", "127.0.0.64/26")] == [ALICE]
    assert listed(server, "--idle-longer-than", "00:10:00") == []
    for words, said in (
        (("--remote-address", "nowhere"), "RemoteAddress: 'nowhere' is not an address or a range"),
        (("--identity", "zz"), "Identity: 'zz' is not a connection's identity"),
        (("--protocol", "smtp"), "Protocol: 'smtp' is not Imap or Pop"),
        (("--idle-longer-than", "soon"), "'soon' is not a time span"),
    ):
        assert said in server.run("get-clientconnection", *words, status=2).stderr
    assert "there is no connection 00000000000000AB" in server.run("get-clientconnection", "ab", status=1).stderr
    pop.quit()
    bob.close()
    alice.close()


def test_disconnecting_says_goodbye_in_the_protocols_words(server: Server) -> None:
    alice, bob = Client(server, "127.0.0.5"), Client(server, "127.0.0.6")
    alice.login()
    bob.login(BOB)
    pop = server.pop_client(ALICE)
    identity = next(r["Identity"] for r in listed(server, "--user", ALICE, "--protocol", "Imap"))
    server.run("disconnect-clientconnection", identity, "--what-if")
    assert alice.ask("n NOOP")[-1].startswith(b"n OK")
    server.run("disconnect-clientconnection", identity)
    assert alice.file.readline().startswith(b"* BYE") and alice.file.readline() == b""
    assert bob.ask("n NOOP")[-1].startswith(b"n OK")
    server.shell("Get-ClientConnection -Protocol Pop | Disconnect-ClientConnection")
    with pytest.raises((poplib.error_proto, EOFError, OSError)):
        pop.noop()
    assert "say which connections" in server.run("disconnect-clientconnection", status=2).stderr
    said = server.shell("Search-AdminAuditLog -Cmdlets Disconnect-ClientConnection | Format-List")
    assert said.count("Disconnect-ClientConnection") == 2
    bob.close()


def test_a_running_command_finishes_before_the_goodbye(server: Server) -> None:
    body = b"Subject: big\r\n\r\n" + b"0123456789abcdef\r\n" * 500_000
    server.fill([body])
    client = Client(server, "127.0.0.5")
    client.login()
    client.ask("s SELECT INBOX")
    client.sock.sendall(b"f FETCH 1 BODY.PEEK[]\r\n")
    first = client.file.readline()
    assert first == b"* 1 FETCH (BODY[] {%d}\r\n" % len(body)
    (row,) = [r for r in listed(server) if r["State"] == "Selected"]
    thread = threading.Thread(target=server.run, args=("disconnect-clientconnection", row["Identity"]))
    thread.start()
    received = b""
    while len(received) < len(body):  # a slow reader: for longer than a command that stands may take
        received += client.file.read(min(len(body) - len(received), len(body) // 30))
        time.sleep(0.4)
    thread.join(30)
    assert received == body
    assert client.file.readline() == b")\r\n"
    assert client.file.readline().startswith(b"f OK")
    assert client.file.readline().startswith(b"* BYE")
    client.close()


def test_removing_a_mailbox_ends_its_sessions(server: Server) -> None:
    clients = [Client(server, a) for a in ADDRESSES[:4]]
    for client in clients:
        client.login()
        client.ask("s SELECT INBOX")
    bob = Client(server, "127.0.0.50")
    bob.login(BOB)
    server.run("remove-mailbox", ALICE)
    for client in clients:
        assert client.file.readline().startswith(b"* BYE")
        client.close()
    assert bob.ask("n NOOP")[-1].startswith(b"n OK")
    again = Client(server, "127.0.0.5")
    assert b"AUTHENTICATIONFAILED" in again.login()
    again.close()
    bob.close()
    assert len(list((server.data / "mailboxes").glob("*.db"))) == 1


def test_a_new_password_counts_at_every_worker_at_once(server: Server) -> None:
    server.run("set-mailbox", ALICE, "--email-addresses", "second@demo.test")
    for address in ADDRESSES:  # every worker remembers the old one
        client = Client(server, address)
        assert client.login().startswith(b"l OK")
        client.close()
    server.run("set-mailboxpassword", ALICE, "--password", "another one 8")
    for address in ADDRESSES[:3]:
        client = Client(server, address)
        assert b"AUTHENTICATIONFAILED" in client.login()
        client.close()
    for user in (ALICE, "second@demo.test"):
        client = Client(server, "127.0.0.90")
        assert client.ask(f'l LOGIN {user} "another one 8"')[-1].startswith(b"l OK")
        client.close()
    trail = server.shell("Search-AdminAuditLog | Format-List")
    assert "Set-MailboxPassword" in trail
    assert "another one 8" not in trail and PASSWORD not in trail


def test_statistics_and_the_last_logon(server: Server) -> None:
    server.fill([MESSAGE.encode()] * 3)
    client = Client(server, "127.0.0.5")
    client.login()
    client.ask('i ID ("name" "Late" "version" "7")')
    client.ask("s SELECT INBOX")
    client.ask(r"s STORE 1:2 +FLAGS (\Deleted \Seen)")
    client.close()
    server.pop_client(ALICE).quit()
    deadline = time.monotonic() + 15
    while True:
        (row,) = json.loads(server.run("get-mailboxstatistics", ALICE, "--output", "json").stdout)
        if (row["LastPopLogonTime"] and row["LastImapLogonTime"]) or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    assert (row["ItemCount"], row["DeletedItemCount"], row["UnreadItemCount"]) == (3, 2, 1)
    assert row["TotalItemSize"] == 3 * len(MESSAGE) and row["StorageLimitStatus"] == "NoChecking"
    assert row["LastLogonProtocol"] == "POP3" and row["LastLogonAddress"] == "127.0.0.1"
    assert row["LastLogonTime"] == row["LastPopLogonTime"] > row["LastImapLogonTime"]
    never = json.loads(server.run("get-mailboxstatistics", BOB, "--output", "json").stdout)[0]
    assert never["LastLogonTime"] is None and never["ItemCount"] == 0
    folders = json.loads(server.run("get-mailboxfolderstatistics", ALICE, "--output", "json").stdout)
    assert [f["FolderPath"] for f in folders][:2] == ["/INBOX", "/Archive"]
    assert folders[0]["ItemsInFolder"] == 3 and folders[0]["FolderType"] == "Inbox"
    assert next(f for f in folders if f["Name"] == "Sent")["FolderType"] == "Sent"


def test_quotas_in_the_protocols_words(server: Server) -> None:
    server.run("set-mailbox", ALICE, "--issue-warning-quota", "1KB", "--prohibit-send-receive-quota", "2KB")
    client = server.imap_client()
    assert client.append("INBOX", "", None, b"x" * 900)[0] == "OK"  # type: ignore[arg-type]
    warned = Client(server, "127.0.0.5")
    warned.login()
    text = "y" * 300
    lines = warned.ask(f"a APPEND INBOX {{{len(text)}+}}\r\n{text}")
    assert lines[0].startswith(b"* NO [OVERQUOTA]") and lines[-1].startswith(b"a OK")
    refused = warned.ask(f"b APPEND INBOX {{1000+}}\r\n{'z' * 1000}")
    assert refused[-1].startswith(b"b NO [OVERQUOTA] The mailbox is full: it holds 1200 of 2048 octets, and 1000 more")
    warned.sock.sendall(b"c APPEND INBOX {1000}\r\n")  # refused before it is sent
    assert warned.file.readline().startswith(b"c NO [OVERQUOTA]")
    warned.ask("s SELECT INBOX")
    assert warned.ask("d COPY 1 Trash")[-1].startswith(b"d NO [OVERQUOTA]")
    assert warned.ask("e MOVE 1 Trash")[-1].startswith(b"e OK")
    (row,) = json.loads(server.run("get-mailboxstatistics", ALICE, "--output", "json").stdout)
    assert row["StorageLimitStatus"] == "IssueWarning"
    warned.close()
    client.logout()
