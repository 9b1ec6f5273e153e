"""What clients get under the retrieval settings: read by imaplib and poplib from a running server."""

from __future__ import annotations

import email
import email.policy
import imaplib
import json
import poplib
import re
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.server import PASSWORD, Server
from tests.clients.test_real_clients import maildir_messages, run, without_fields
from tests.messages import MALFORMED
from tests.programs import need
from tests.test_conversion import PNG, html_only, kinds, meeting, newsletter

ASKS = b"Subject: r\r\nDisposition-Notification-To: carol@contoso.com\r\n\r\nread me\r\n"
BARE = b"Subject: bare\r\n\r\none\ntwo\n"
MESSAGES = [newsletter(), html_only(), meeting(), ASKS, BARE]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("retrieval"))
    running.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imaplib, "MapCRLF", re.compile(rb"\r\n"))  # imaplib must not repair line ends
        running.fill(MESSAGES)
    try:
        yield running
        assert "Traceback" not in (running.data / "serve.stderr").read_text()
    finally:
        running.kill()


def configure(server: Server, imap: str = "", pop: str = "", box: str = "") -> str:
    """The settings that matter here, all others at their defaults; what the commands said."""
    plain = (
        "-MessageRetrievalMimeFormat BestBodyFormat -CalendarItemRetrievalOption iCalendar -SuppressReadReceipt $false"
    )
    plain += " -EnableExactRFC822Size $false -ExternalConnectionSettings mail.contoso.com:993:SSL"
    own = " ".join(
        f"-{p}UseProtocolDefaults $true -{p}MessagesRetrievalMimeFormat BestBodyFormat -{p}SuppressReadReceipt $false "
        f"-{p}EnableExactRFC822Size $false -{p}ForceICalForCalendarRetrievalOption $false"
        for p in ("Pop", "Imap")
    )
    text = [f"Set-ImapSettings {plain}", f"Set-PopSettings {plain}", f"Set-CASMailbox alice@demo.test {own}"]
    text += [f"Set-ImapSettings {imap}"] if imap else []
    text += [f"Set-PopSettings {pop}"] if pop else []
    text += [f"Set-CASMailbox alice@demo.test {box}"] if box else []
    text += ["Restart-Service LetterlockImap4; Restart-Service LetterlockPop3"]
    return server.run("shell", "-c", "\n".join(text)).stderr


def check_imap(server: Server) -> list[bytes]:
    """All messages; every answer about one must agree with its octets."""
    client = server.imap_client()
    client.select("INBOX", readonly=True)
    found = []
    for number in range(1, len(MESSAGES) + 1):
        _, answer = client.fetch(str(number), "(RFC822.SIZE BODYSTRUCTURE)")
        listed = b"".join(p if isinstance(p, bytes) else b"".join(p) for p in answer if p)
        _, answer = client.fetch(str(number), "(BODY.PEEK[])")
        raw = answer[0][1]  # type: ignore[index]
        assert isinstance(raw, bytes)
        assert int(re.search(rb"RFC822.SIZE (\d+)", listed)[1]) == len(raw)  # type: ignore[index]
        for octets in (
            *re.findall(rb'"TEXT" "\w+" \([^()]*\) \S+ \S+ "[^"]+" (\d+) ', listed),
            *re.findall(rb'"APPLICATION" "\w+" \([^()]*\) \S+ \S+ "[^"]+" (\d+) ', listed),
        ):
            assert int(octets) <= len(raw)
        pieces = []
        for at in range(0, len(raw) + 100, 100):  # partial fetches fit together
            _, answer = client.fetch(str(number), f"(BODY.PEEK[]<{at}.100>)")
            pieces.append(answer[0][1])  # type: ignore[index]
        assert b"".join(pieces) == raw  # type: ignore[arg-type]
        parts = [p for p in email.message_from_bytes(raw).walk() if not p.is_multipart()]
        structure = [p.lower() for p in re.findall(rb'\("(?:TEXT|IMAGE|APPLICATION)" "(\w+)"', listed)]
        assert structure == [p.get_content_subtype().encode() for p in parts]
        found.append(raw)
    client.logout()
    return found


def check_pop(server: Server, exact: bool) -> list[bytes]:
    client = server.pop_client()
    sizes = [int(line.split()[1]) for line in client.list()[1]]
    found = [b"\r\n".join(client.retr(n)[1]) + b"\r\n" for n in range(1, len(MESSAGES) + 1)]
    assert client.stat() == (len(MESSAGES), sum(sizes))
    assert sizes == [len(raw) for raw in (found if exact else MESSAGES)]
    for number, raw in enumerate(found, 1):
        top = b"\r\n".join(client.top(number, 0)[1]) + b"\r\n"
        assert raw.startswith(top.rstrip(b"\r\n"))
    client.quit()
    return found


def test_message_retrieval_mime_format_default_is_byte_for_byte(server: Server) -> None:
    configure(server)
    assert check_imap(server) == MESSAGES
    assert check_pop(server, exact=False) == [*MESSAGES[:4], BARE.replace(b"\ntwo\n", b"\r\ntwo\r\n")]
    assert "Tnef: " not in configure(server)
    said = configure(server, imap="-MessageRetrievalMimeFormat Tnef")
    assert "TNEF holds MAPI properties, which only Exchange has" in said
    assert check_imap(server) == MESSAGES


@pytest.mark.parametrize(
    ("form", "first", "second"),
    [
        ("TextOnly", "text/plain", ["text/plain"]),
        ("HtmlOnly", "text/html", ["text/html"]),
        ("HtmlAndTextAlternative", "multipart/alternative", ["multipart/alternative", "text/plain", "text/html"]),
        ("TextEnrichedOnly", "text/enriched", ["text/enriched"]),
        (
            "TextEnrichedAndTextAlternative",
            "multipart/alternative",
            ["multipart/alternative", "text/plain", "text/enriched"],
        ),
    ],
)
def test_message_retrieval_mime_format(server: Server, form: str, first: str, second: list[str]) -> None:
    configure(
        server,
        f"-MessageRetrievalMimeFormat {form}",
        f"-MessageRetrievalMimeFormat {form} -EnableExactRFC822Size $true",
    )
    by_imap, by_pop = check_imap(server), check_pop(server, exact=True)
    assert [raw.replace(b"\r\n", b"\n") for raw in by_imap] == [raw.replace(b"\r\n", b"\n") for raw in by_pop]
    assert first in kinds(by_imap[0]) and kinds(by_imap[1]) == second
    picture = [p for p in email.message_from_bytes(by_imap[0]).walk() if p.get_content_type() == "image/png"]
    assert picture[0].get_payload(decode=True) == PNG
    assert "text/calendar" in kinds(by_imap[2])


def test_enable_exact_rfc822_size(server: Server) -> None:
    configure(server, pop="-MessageRetrievalMimeFormat TextOnly")
    check_pop(server, exact=False)
    configure(server, pop="-MessageRetrievalMimeFormat TextOnly -EnableExactRFC822Size $true")
    check_pop(server, exact=True)
    said = configure(server, imap="-MessageRetrievalMimeFormat TextOnly -EnableExactRFC822Size $true")
    assert "RFC822.SIZE is always exact here" in said
    check_imap(server)


def words_of(raw: bytes) -> str:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    return "".join(str(p.get_content()) for p in message.walk() if p.get_content_type() == "text/plain")


@pytest.mark.parametrize(
    ("option", "link"),
    [
        ("IntranetUrl", "https://localhost/owa/?uid=0400"),
        ("InternetUrl", "https://mail.contoso.com/owa/?uid=0400"),
        ("Custom -OwaServerUrl https://calendar.contoso.com/open", "https://calendar.contoso.com/open?uid=0400"),
    ],
)
def test_calendar_item_retrieval_option(server: Server, option: str, link: str) -> None:
    """Links to the first of InternalConnectionSettings, of ExternalConnectionSettings, or to OwaServerUrl."""
    configure(server, f"-CalendarItemRetrievalOption {option}", f"-CalendarItemRetrievalOption {option}")
    for raw in (check_imap(server)[2], check_pop(server, exact=False)[2]):
        assert "text/calendar" not in kinds(raw) and "application/ics" in kinds(raw)
        assert link in words_of(raw) and "Where: Room 7" in words_of(raw)


def test_owa_server_url_and_external_settings_are_required(server: Server) -> None:
    configure(server)
    server.run("set-imapsettings", "--external-connection-settings", "")
    done = server.run("set-imapsettings", "--calendar-item-retrieval-option", "InternetUrl", status=2)
    assert "ExternalConnectionSettings is required when CalendarItemRetrievalOption is InternetUrl" in done.stderr


def test_suppress_read_receipt(server: Server) -> None:
    said = configure(server, "-SuppressReadReceipt $true", "-SuppressReadReceipt $true")
    assert "senders who ask for a read receipt get none any more" in said
    kept = b"Subject: r\r\n\r\nread me\r\n"
    assert check_imap(server)[3] == kept == check_pop(server, exact=False)[3]
    client = server.imap_client()
    client.select("INBOX", readonly=True)
    _, answer = client.fetch("4", "(BODY.PEEK[HEADER.FIELDS (DISPOSITION-NOTIFICATION-TO SUBJECT)] RFC822.HEADER)")
    assert b"carol" not in repr(answer).encode() and b"Subject: r" in repr(answer).encode()
    client.logout()
    configure(server)
    assert check_imap(server)[3] == ASKS


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("-{}MessagesRetrievalMimeFormat HtmlOnly", ("text/html", "text/plain", False, True)),
        ("-{}SuppressReadReceipt $true", ("multipart/alternative", "text/html", True, True)),
        ("-{}ForceICalForCalendarRetrievalOption $true", ("multipart/alternative", "text/html", False, False)),
    ],
)
def test_overrides_of_a_mailbox(server: Server, own: str, expected: tuple[str, str, bool, bool]) -> None:
    """The server says TextOnly and links; the mailbox otherwise, from its next login on."""
    everybody = "-MessageRetrievalMimeFormat TextOnly -CalendarItemRetrievalOption InternetUrl"
    both = " ".join(own.format(p) for p in ("Imap", "Pop"))
    said = configure(server, everybody, everybody, both)
    assert "counts when ImapUseProtocolDefaults is $false" in said
    for raw in (check_imap(server), check_pop(server, exact=False)):
        assert "text/html" not in kinds(raw[0]) and "text/calendar" not in kinds(raw[2])
    server.shell("Set-CASMailbox alice@demo.test -ImapUseProtocolDefaults $false -PopUseProtocolDefaults $false")
    first, absent, silent, links = expected
    for raw in (check_imap(server), check_pop(server, exact=False)):
        assert first in kinds(raw[0])
        assert (absent in kinds(raw[1])) == (absent == "text/html")
        assert (b"Disposition-Notification-To" not in raw[3]) == silent
        assert ("text/calendar" not in kinds(raw[2])) == links


def test_exact_size_of_a_mailbox(server: Server) -> None:
    configure(server, box="-PopUseProtocolDefaults $false -PopEnableExactRFC822Size $true")
    check_pop(server, exact=True)
    said = configure(server, box="-ImapUseProtocolDefaults $false -ImapEnableExactRFC822Size $true")
    assert "RFC822.SIZE is always exact here" in said


def test_get_cas_mailbox(server: Server) -> None:
    configure(server, box="-ImapMessagesRetrievalMimeFormat TextOnly -PopSuppressReadReceipt $true")
    done = server.run("get-casmailbox", "alice@demo.test", "--output", "json")
    (row,) = json.loads(done.stdout)
    assert row["ImapMessagesRetrievalMimeFormat"] == "TextOnly" and row["PopSuppressReadReceipt"] is True
    assert "ExternalImapSettings" not in row
    done = server.run("get-casmailbox", "alice@demo.test", "--protocol-settings", "--output", "json")
    (row,) = json.loads(done.stdout)
    assert row["ExternalImapSettings"] == row["ExternalPopSettings"] == ["mail.contoso.com:993:SSL"]
    assert row["InternalImapSettings"][0].startswith("localhost:993") and "InternalPopSettings" in row
    shown = server.shell("Get-CASMailbox alice@demo.test -ProtocolSettings | fl External*,Internal*")
    assert "ExternalImapSettings : {mail.contoso.com:993:SSL}" in shown


def test_hidden_folders(server: Server) -> None:
    configure(server)

    def listed(command: str = "LIST") -> set[str]:
        client = imaplib.IMAP4_SSL("localhost", server.imaps, ssl_context=server.context(), timeout=30)
        client.login("bob@demo.test", PASSWORD)
        answer = client.lsub() if command == "LSUB" else client.list()
        client.logout()
        return {row.decode().rsplit(" ", 1)[1].strip('"') for row in answer[1] if isinstance(row, bytes)}

    client = server.imap_client("bob@demo.test")
    for name in ("Projects", "Projects/Old", "Projects/Old/Deep", "ProjectsX"):
        client.create(name)
        client.subscribe(name)
    server.shell("Set-MailboxFolder 'bob@demo.test:\\Projects\\Old' -Hidden $true")
    assert {"Projects", "ProjectsX"} <= listed() and not {"Projects/Old", "Projects/Old/Deep"} & listed()
    assert not {"Projects/Old", "Projects/Old/Deep"} & listed("LSUB")
    assert client.select("Projects/Old")[0] == "OK"
    client.logout()
    rows = json.loads(server.run("get-mailboxfolder", "bob@demo.test:\\Projects", "--output", "json").stdout)
    assert {r["Identity"]: r["Hidden"] for r in rows} == {
        "bob@demo.test:\\Projects": False,
        "bob@demo.test:\\Projects\\Old": True,
        "bob@demo.test:\\Projects\\Old\\Deep": False,
    }
    server.shell("Set-ImapSettings -ShowHiddenFoldersEnabled $true; Restart-Service LetterlockImap4")
    assert {"Projects/Old", "Projects/Old/Deep"} <= listed() & listed("LSUB")
    server.shell("Set-ImapSettings -ShowHiddenFoldersEnabled $false; Restart-Service LetterlockImap4")
    server.shell("Get-MailboxFolder bob@demo.test:/Projects/Old | Set-MailboxFolder -Hidden $false")
    assert "Projects/Old" in listed()
    for folder, said, status in (
        ("bob@demo.test:\\INBOX", "INBOX cannot be hidden", 1),
        ("bob@demo.test:\\None", "This folder does not exist", 1),
        ("bob@demo.test", "expected a mailbox and a folder", 2),
        ("nobody@demo.test:\\x", "there is no mailbox 'nobody@demo.test'", 1),
    ):
        assert said in server.run("set-mailboxfolder", folder, "--hidden", "$true", status=status).stderr


def test_banner_and_sort_order(server: Server, tmp_path: Path) -> None:
    configure(server, '-Banner "imap of contoso"', '-Banner "pop of contoso" -MessageRetrievalSortOrder Descending')
    client = server.imap_client()
    assert client.welcome == b"* OK imap of contoso"
    client.logout()
    pop = server.pop_client()
    assert pop.getwelcome() == b"+OK pop of contoso"
    assert b"Subject: bare" in pop.retr(1)[1]
    pop.quit()
    server.shell("Set-PopSettings -MessageRetrievalSortOrder Ascending; Restart-Service LetterlockPop3")
    pop = server.pop_client()
    assert b"Subject: bare" in pop.retr(len(MESSAGES))[1]
    pop.quit()


@pytest.mark.parametrize("kind", ["Imap", "Pop"])
def test_settings_of_what_is_not_offered_say_so(server: Server, kind: str) -> None:
    """EnableGSSAPIAndNTLMAuth and ExtendedProtectionPolicy take Exchange's values; neither mechanism is there."""
    text = f"Set-{kind}Settings -EnableGSSAPIAndNTLMAuth $false -ExtendedProtectionPolicy Require"
    said = server.run("shell", "-c", text).stderr
    assert said.count("not offered here") == 2
    text = f"Set-{kind}Settings -EnableGSSAPIAndNTLMAuth $true -ExtendedProtectionPolicy None"
    assert server.run("shell", "-c", text).stderr.count("not offered here") == 2
    client = imaplib.IMAP4_SSL("localhost", server.imaps, ssl_context=server.context(), timeout=30)
    assert b"NTLM" not in client.capability()[1][0] and b"GSSAPI" not in client.capability()[1][0]
    client.logout()


@pytest.mark.parametrize("form", ["TextOnly", "HtmlAndTextAlternative", "TextEnrichedOnly"])
def test_hostile_mail_never_makes_a_fetch_fail(server: Server, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imaplib, "_MAXLINE", 10_000_000)
    monkeypatch.setattr(poplib, "_MAXLINE", 10_000_000)
    monkeypatch.setattr(imaplib, "MapCRLF", re.compile(rb"(?!)"))
    user = "bob@demo.test"
    raws = [raw for raw in MALFORMED.values() if raw]
    raws += [html_only("<p>" * 30_000), html_only("<table><tr><td>" + "x" * 100_000 + "<td>y<tr><td>z" * 3_000)]
    if not server.messages(user):
        server.fill(raws, user)
    settings = f"-MessageRetrievalMimeFormat {form} -CalendarItemRetrievalOption InternetUrl -SuppressReadReceipt $true"
    configure(server, settings, f"{settings} -EnableExactRFC822Size $true")
    client = server.imap_client(user)
    client.select("INBOX", readonly=True)
    given = server.messages(user)
    assert len(given) == len(raws)
    status, listed = client.fetch("1:*", "(RFC822.SIZE ENVELOPE BODYSTRUCTURE BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
    assert status == "OK"
    sizes = re.findall(rb"\(RFC822.SIZE (\d+)", b"".join(p[0] if isinstance(p, tuple) else p for p in listed if p))
    assert list(map(int, sizes)) == list(map(len, given))
    client.logout()
    pop = server.pop_client(user)
    told = [int(line.split()[1]) for line in pop.list()[1]]
    for number, size in enumerate(told, 1):
        octets = sum(len(line) + 2 for line in pop.retr(number)[1])
        assert octets == size
    pop.quit()


# --- clients of the real world, to which the converted message is the message


def test_mbsync_and_fetchmail_take_converted_messages(server: Server, tmp_path: Path) -> None:
    """A second sync finds nothing to do: sizes, octets and UIDs agree."""
    need("mbsync", "fetchmail")
    configure(
        server,
        "-MessageRetrievalMimeFormat HtmlAndTextAlternative -SuppressReadReceipt $true",
        "-MessageRetrievalMimeFormat TextOnly -EnableExactRFC822Size $true",
    )
    config = tmp_path / "mbsyncrc"
    config.write_text(
        f'IMAPAccount a\nHost localhost\nPort {server.imaps}\nUser alice@demo.test\nPass "{PASSWORD}"\n'
        f"SSLType IMAPS\nCertificateFile {server.ca}\n\nIMAPStore far\nAccount a\n\nMaildirStore near\n"
        f"Path {tmp_path}/mail/\nInbox {tmp_path}/mail/INBOX\nSubFolders Verbatim\n\nChannel all\nFar :far:\n"
        "Near :near:\nPatterns INBOX\nCreate Near\nSync Pull\nSyncState *\n"
    )
    (tmp_path / "mail").mkdir()
    for _ in range(2):
        run(["mbsync", "-c", str(config), "-a"], tmp_path)
        got = [without_fields(m, b"x-tuid") for m in maildir_messages(tmp_path / "mail" / "INBOX")]
        assert sorted(got) == sorted(raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for raw in check_imap(server))
    spool = tmp_path / "spool"
    fetchmailrc = tmp_path / "fetchmailrc"
    fetchmailrc.write_text(
        f'poll localhost protocol pop3 port {server.pops}\n  user alice@demo.test password "{PASSWORD}" ssl\n'
        f'  sslcertck sslcertfile {server.ca} keep no rewrite\n  mda "cat >> {spool}"\n'
    )
    fetchmailrc.chmod(0o600)
    said = run(["fetchmail", "-f", str(fetchmailrc), "--pidfile", str(tmp_path / "pid"), "-v"], tmp_path)
    assert "not the expected length" not in said and "actual" not in said
    assert (
        b"<p>" not in spool.read_bytes() and b"Hello there <https://contoso.com/x?a=1&b=2> & bye" in spool.read_bytes()
    )


def test_mutt_reads_enriched_text(server: Server, tmp_path: Path) -> None:
    need("mutt", "tmux")
    configure(server, "-MessageRetrievalMimeFormat TextEnrichedOnly")
    config = tmp_path / "muttrc"
    config.write_text(
        f'set folder="imaps://localhost:{server.imaps}/"\nset spoolfile="+INBOX"\nset imap_user="alice@demo.test"\n'
        f'set imap_pass="{PASSWORD}"\nset ssl_ca_certificates_file="{server.ca}"\nset certificate_file="{server.ca}"\n'
        'set header_cache=""\nset quit=yes\nset wait_key=no\nset sort=mailbox-order\n'
    )
    tmux = ["tmux", "-L", f"letterlock-{uuid.uuid4().hex[:8]}"]
    command = f"env HOME={tmp_path} LC_ALL=C.UTF-8 TERM=screen mutt -R -n -F {config}"

    def until(text: str) -> None:
        for _ in range(300):
            shown = subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True).stdout
            if text in shown:
                return
            time.sleep(0.1)
        raise AssertionError(f"{text!r} did not appear:\n{shown}")

    subprocess.run([*tmux, "new-session", "-d", "-x", "110", "-y", "40", command], check=True)
    try:
        until("Größe")
        subprocess.run([*tmux, "send-keys", "1", "Enter", "Enter"], check=True)
        until("Grüße, 5 < 6")
        until("text/enriched")
    finally:
        subprocess.run([*tmux, "kill-server"], capture_output=True)
