"""Import from an IMAP server: a real Dovecot with its certificate verified, and servers that try what attackers try."""

from __future__ import annotations

import base64
import contextlib
import datetime
import imaplib
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from letterlock.base.errors import LetterlockError
from letterlock.clients.imap_source import Listed
from letterlock.store.api import Flags
from letterlock.transfer import remote
from letterlock.transfer.items import flags_of
from tests import messages
from tests.analyze.test_real_servers import HOST, SECRET, Dovecot
from tests.management import Management, Services
from tests.programs import need
from tests.transfer.hostile import Imap
from tests.transfer.test_files import content

USER = "old@example.com"
SPECIAL = """
namespace inbox {
  inbox = yes
  separator = .
  mailbox Gesendet {
    special_use = \\Sent
    auto = subscribe
  }
  mailbox Flagged {
    special_use = \\Flagged
    auto = create
  }
}
"""


@pytest.fixture
def m(tmp_path: Path) -> Management:
    made = Management(tmp_path / "data", Services())
    made.mailbox()
    return made


@pytest.fixture
def dovecot() -> Iterator[Dovecot]:
    need("dovecot", "openssl")
    with tempfile.TemporaryDirectory(prefix="ll-", dir="/tmp") as name:  # sockets need a short path
        os.chmod(name, 0o755)
        server = Dovecot(Path(name), True, SPECIAL)
        try:
            yield server
        finally:
            server.process.kill()
            server.process.wait()


@contextlib.contextmanager
def logged_in(server: Dovecot) -> Iterator[imaplib.IMAP4_SSL]:
    context = ssl.create_default_context(cafile=str(server.directory / "certificate.pem"))
    client = imaplib.IMAP4_SSL(HOST, server.imaps, ssl_context=context, timeout=30)
    client.login(USER, SECRET)
    yield client
    client.logout()


def take(m: Management, server: Dovecot, **more: Any) -> dict[str, Any]:
    named = {
        "RemoteHostName": HOST,
        "RemotePort": server.imaps,
        "TrustedCertificate": str(server.directory / "certificate.pem"),
        "RemoteCredential": {"UserName": USER, "Password": SECRET},
        **more,
    }
    (row,) = m.run("New-MailboxImportRequest", "alice", **named)
    return dict(row)


def test_everything_of_a_dovecot_account_comes_over_once(m: Management, dovecot: Dovecot) -> None:
    corpus = [*messages.cpython().values(), b"Subject: big\r\n\r\n" + b"0123456789abcde\r\n" * 100_000]
    corpus = [messages.crlf(raw) for raw in corpus]
    with logged_in(dovecot) as client:
        client.create('"Work.2024 &- more.&ANw-bung"')
        client.create('"Empty"')
        for at, raw in enumerate(corpus):
            flags = ["\\Seen", "\\Flagged $Forwarded", "\\Answered \\Draft Work", ""][at % 4]
            client.append("INBOX", f"({flags})", f'"{1 + at % 28:02d}-Feb-2011 03:04:05 +0530"', raw)
        for folder in ("Gesendet", '"Work.2024 &- more.&ANw-bung"'):
            assert client.append(folder, "", None, corpus[0])[0] == "OK"  # type: ignore[arg-type]
    row = take(m, dovecot)
    assert (row["Status"], row["Messages"], row["Skipped"]) == ("Completed", len(corpus) + 2, 0)
    assert any("folder Flagged was left out" in text for text in m.messages)
    found = content(m, "alice")
    assert [raw for _, _, raw in found["INBOX"]] == corpus
    assert [raw for _, _, raw in found["Sent"]] == [corpus[0]] and "Gesendet" not in found
    assert [raw for _, _, raw in found["Work/2024 & more/Übung"]] == [corpus[0]]
    assert found["Empty"] == []
    assert [sorted(flags.split()) for flags, _, _ in found["INBOX"][:4]] == [
        [b"\\Seen"],
        [b"$Forwarded", b"\\Flagged"],
        [b"Work", b"\\Answered", b"\\Draft"],
        [],
    ]
    assert found["INBOX"][0][1].endswith(b'-Feb-2011 03:04:05 +0530"') or b"Jan-2011" in found["INBOX"][0][1]
    moment = datetime.datetime.strptime(found["INBOX"][0][1].decode().strip('"').strip(), "%d-%b-%Y %H:%M:%S %z")
    assert moment == datetime.datetime(2011, 1, 31, 21, 34, 5, tzinfo=datetime.UTC)
    again = take(m, dovecot)
    assert (again["Messages"], again["AlreadyPresent"]) == (0, len(corpus) + 2)
    with logged_in(dovecot) as client:
        client.append("INBOX", "", None, b"Subject: new\r\n\r\nnew\r\n")  # type: ignore[arg-type]
        client.select("INBOX")
        assert client.search(None, "UNSEEN")[1][0].split(), "the import read without marking"
        client.store("1:3", "+FLAGS", "(\\Deleted)")
        client.expunge()
    assert take(m, dovecot)["Messages"] == 1
    assert len(content(m, "alice")["INBOX"]) == len(corpus) + 1


def test_starttls_and_some_folders(m: Management, dovecot: Dovecot) -> None:
    with logged_in(dovecot) as client:
        client.create("Work")
        client.append("Work", "", None, b"Subject: w\r\n\r\n")  # type: ignore[arg-type]
        client.append("INBOX", "", None, b"Subject: i\r\n\r\n")  # type: ignore[arg-type]
    row = take(m, dovecot, RemotePort=dovecot.imap, StartTls=True, IncludeFolders="W*", TargetRootFolder="Old")
    assert row["Messages"] == 1 and row["FilePath"] == f"imap://{HOST}:{dovecot.imap}"
    assert [raw for _, _, raw in content(m, "alice")["Old/Work"]] == [b"Subject: w\r\n\r\n"]


def test_more_messages_than_one_window(m: Management, dovecot: Dovecot) -> None:
    with logged_in(dovecot) as client:
        client.append("INBOX", "", None, b"Subject: w\r\n\r\n")  # type: ignore[arg-type]
        client.select("INBOX")
        for _ in range(11):
            client.copy("1:*", "INBOX")
            client.noop()
    assert take(m, dovecot)["Messages"] == 2048
    assert take(m, dovecot)["Messages"] == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"RemoteCredential": {"UserName": USER, "Password": "wrong"}}, "user name or the password"),
        ({"TrustedCertificate": None}, "certificate"),
        ({"RemoteHostName": "localhost", "RemotePort": 1}, "refused"),
    ],
)
def test_what_goes_wrong_with_a_real_server_is_told(
    m: Management, dovecot: Dovecot, changes: dict[str, Any], said: str
) -> None:
    named = {
        "RemoteHostName": HOST,
        "RemotePort": dovecot.imaps,
        "TrustedCertificate": str(dovecot.directory / "certificate.pem"),
        "RemoteCredential": {"UserName": USER, "Password": SECRET},
        **changes,
    }
    with pytest.raises(LetterlockError) as caught:
        m.run("New-MailboxImportRequest", "alice", **{k: v for k, v in named.items() if v is not None})
    assert said in caught.value.text and SECRET not in caught.value.text
    assert m.run("Get-MailboxImportRequest")[0]["Status"] == "Failed"


# --- attacks (each is a class of attacks on mail clients)

PASSWORD = "secret words 9"


@pytest.fixture
def evil(tmp_path: Path) -> Iterator[Imap]:
    server = Imap(tmp_path)
    server.folders[b"INBOX"] = [b"Subject: %d\r\n\r\n" % n for n in range(5)]
    yield server
    server.close()


def pull(m: Management, server: Imap, **more: Any) -> dict[str, Any]:
    named = {
        "RemoteHostName": "127.0.0.1",
        "RemotePort": server.port,
        "TrustedCertificate": str(server.trust),
        "RemoteCredential": {"UserName": USER, "Password": PASSWORD},
        "StartTls": not server.implicit,
        **more,
    }
    (row,) = m.run("New-MailboxImportRequest", "alice", **named)
    return dict(row)


def refused(m: Management, server: Imap, **more: Any) -> str:
    """The import fails; the password was never sent, and nothing came."""
    with pytest.raises(LetterlockError) as caught:
        pull(m, server, **more)
    sent = b"".join(server.received)
    secrets = (PASSWORD.encode(), base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()))
    assert not any(secret in sent for secret in secrets)
    assert not any(content(m, "alice").values())
    return caught.value.text


def test_starttls_stripping(m: Management, tmp_path: Path) -> None:
    evil = Imap(tmp_path, implicit=False)
    evil.clear_capabilities = b"IMAP4rev1 AUTH=PLAIN"
    assert "does not offer TLS" in refused(m, evil)


def test_preauth_on_a_clear_port(m: Management, tmp_path: Path) -> None:
    evil = Imap(tmp_path, implicit=False)
    evil.greeting = b"* PREAUTH welcome\r\n"
    assert "PREAUTH" in refused(m, evil)


def test_response_injection(m: Management, tmp_path: Path) -> None:
    evil = Imap(tmp_path, implicit=False)
    evil.after_starttls = b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nL003 OK injected\r\n"
    assert "data in clear after its agreement to start TLS" in refused(m, evil)


def test_what_came_in_clear_is_forgotten(m: Management, tmp_path: Path) -> None:
    evil = Imap(tmp_path, implicit=False)
    evil.clear_capabilities = b"IMAP4rev1 STARTTLS AUTH=PLAIN"
    evil.capabilities = b"IMAP4rev1 LOGINDISABLED"
    refused(m, evil)
    assert sum(b"CAPABILITY" in line for line in evil.received) == 2


def test_another_name_in_the_certificate(m: Management, tmp_path: Path) -> None:
    assert "name" in refused(m, Imap(tmp_path, name="other.example.com"))


def test_an_unknown_authority(m: Management, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Imap(tmp_path / "other")
    assert "certificate" in refused(m, Imap(tmp_path), TrustedCertificate=str(other.trust))


def test_referrals_are_not_followed(m: Management, evil: Imap, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    elsewhere = Imap(tmp_path / "elsewhere")
    evil.login_answer = b"NO [REFERRAL imap://127.0.0.1:%d/] go there" % elsewhere.port
    with pytest.raises(LetterlockError):
        pull(m, evil)
    assert elsewhere.received == []


def test_messages_that_were_not_asked_for_are_not_taken(m: Management, evil: Imap) -> None:
    evil.before_fetch = (
        b"* 9 FETCH (UID 999 BODY[] {5}\r\nforge)\r\n"
        b'* 9 FETCH (UID 998 BODY[] "forged")\r\n'
        b"* 1 FETCH (FLAGS (\\Deleted))\r\n* 3 RECENT\r\n* OK [ALERT] pay here\r\n"
    )
    assert pull(m, evil)["Messages"] == 5
    assert [raw for _, _, raw in content(m, "alice")["INBOX"]] == evil.folders[b"INBOX"]
    assert not any("pay here" in text for text in m.messages)


def test_a_message_that_imitates_an_answer(m: Management, evil: Imap) -> None:
    raw = b") UID 77\r\nL006 OK done\r\n* 1 FETCH (UID 10 BODY[] {3}\r\nbad)\r\n"
    evil.folders[b"INBOX"] = [raw, b"Subject: x\r\n\r\n"]
    assert pull(m, evil)["Messages"] == 2
    assert [r for _, _, r in content(m, "alice")["INBOX"]] == evil.folders[b"INBOX"]


def test_a_literal_that_never_ends_is_not_kept(m: Management, evil: Imap) -> None:
    evil.literal = 9_999_999_999
    evil.cut_after = 1
    with pytest.raises(LetterlockError):
        pull(m, evil)
    assert not list((m.data / "mailboxes").glob("*.bodies/*"))


def test_a_line_that_breaks_is_taken_up_without_doubling(m: Management, evil: Imap) -> None:
    evil.folders[b"INBOX"] = [b"Subject: %d\r\n\r\n" % n for n in range(500)]
    evil.cut_after = 450
    with pytest.raises(LetterlockError):
        pull(m, evil)
    assert m.messages == ["WARNING: 400 messages were taken before this; the same command goes on from there"]
    evil.cut_after = -1
    row = pull(m, evil)
    assert (row["Messages"], row["AlreadyPresent"]) == (100, 400)
    assert [raw for _, _, raw in content(m, "alice")["INBOX"]] == evil.folders[b"INBOX"]
    evil.uidvalidity = 8
    assert pull(m, evil)["Messages"] == 500
    assert any("has numbered it anew" in text for text in m.messages)


def test_folder_names_of_every_kind(m: Management, evil: Imap) -> None:
    evil.listing = [
        b'* LIST () "/" INBOX\r\n',
        b'* LIST (\\Noselect) "/" "[Gmail]"\r\n',
        b'* LIST (\\Sent) "/" "../../../etc/cron.d/x"\r\n',
        b"* LIST () NIL {9}\r\na\x1b[2Jb/c\x07\r\n",
        b'* LIST () "." "a..b.&ANw-"\r\n',
        b'* LIST () "/" "bad &AN- utf7"\r\n',
        b"* LIST () not a list\r\n",
        b'* LIST () "/" "' + b"x" * 300 + b'"\r\n',
    ]
    evil.listing += [b'* LIST () "/" A\r\n']
    evil.folders[b"A"] = [b"Subject: a\r\n\r\n"]
    assert pull(m, evil)["Messages"] == 6
    assert any("was left out: Each level of a folder name has at most 255 bytes" in text for text in m.messages)
    names = set(content(m, "alice"))
    assert {"a_[2Jb_c_", "a/b/Ü", "bad &AN- utf7"} <= names
    assert {p.name for p in m.data.parent.iterdir()} <= {"data", "authority.pem"}


def test_names_and_flags_are_made_harmless() -> None:
    assert remote.folder_name(Listed(b"inbox", b"/", frozenset())) == "INBOX"
    assert remote.folder_name(Listed(b"INBOX.a/b", b".", frozenset())) == "INBOX/a_b"
    assert remote.folder_name(Listed(b"..", b".", frozenset())) == ""
    told = [b"\\SEEN", b"\\Recent", b"a(b", b"", b"x" * 300, b"Work", b"WORK"]
    assert flags_of(told) == Flags(8, (b"Work",))
    assert remote.batches([(1, 10), (2, 20 << 20), (3, 1), (4, 1)]) == [[1], [2], [3, 4]]
    assert remote.arrived(b"nonsense") is None
