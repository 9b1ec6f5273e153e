"""Real clients from Debian and the standard library, each with the server's certificate verified."""

from __future__ import annotations

import functools
import imaplib
import os
import poplib
import shlex
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from tests.clients.server import PASSWORD, Server
from tests.programs import need

USER = "alice@demo.test"
MESSAGES = [
    (
        f"From: sender{n}@example.com\r\nTo: {USER}\r\nSubject: Message {n}\r\n"
        f"Date: Mon, 0{n} Jun 2026 10:00:00 +0000\r\nMessage-ID: <{n}@example.com>\r\n\r\n"
        f"Line one of {n}\r\n.leading dot\r\n..two\r\nUmlaut: \u00fc\r\n"
    ).encode()
    for n in range(1, 6)
]


def run(command: list[str], home: Path, *, status: int = 0) -> str:
    """A client program with a home of its own; its output."""
    environment = {**os.environ, "HOME": str(home), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, env=environment, cwd=home)
    assert done.returncode == status, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def maildir_messages(directory: Path) -> list[bytes]:
    """Message files of a Maildir, CRLF line ends restored."""
    files = [p for sub in ("new", "cur") for p in (directory / sub).iterdir()]
    return [p.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for p in files]


def without_fields(message: bytes, *names: bytes) -> bytes:
    """`message` without the header fields that a client itself adds on delivery."""
    header, _, body = message.partition(b"\r\n\r\n")
    lines: list[bytes] = []
    dropped = False
    for line in header.split(b"\r\n"):
        if not line.startswith((b" ", b"\t")):
            dropped = line.split(b":")[0].lower() in names
        if not dropped:
            lines.append(line)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def test_imaplib_and_poplib(server: Server) -> None:
    server.fill(MESSAGES)
    assert server.messages() == MESSAGES
    client = server.pop_client()
    count, octets = client.stat()
    assert (count, octets) == (5, sum(map(len, MESSAGES)))
    for number in range(1, 6):
        _, lines, _ = client.retr(number)
        assert b"\r\n".join(lines) + b"\r\n" == MESSAGES[number - 1]
    client.dele(1)
    client.quit()
    assert server.messages() == MESSAGES[1:]


def test_starttls_and_stls(server: Server) -> None:
    client = imaplib.IMAP4("localhost", server.imap, timeout=30)
    assert "LOGINDISABLED" in client.capabilities
    client.starttls(server.context())
    client.login(USER, PASSWORD)
    assert client.select()[0] == "OK"
    client.logout()
    pop = poplib.POP3("localhost", server.pop, timeout=30)
    assert "USER" not in pop.capa()
    pop.stls(server.context())
    assert "USER" in pop.capa()
    pop.user(USER)
    pop.pass_(PASSWORD)
    pop.quit()


def test_clear_text_login_is_refused(server: Server) -> None:
    client = imaplib.IMAP4("localhost", server.imap, timeout=30)
    with pytest.raises(imaplib.IMAP4.error, match="PRIVACYREQUIRED"):
        client.login(USER, PASSWORD)
    pop = poplib.POP3("localhost", server.pop, timeout=30)
    with pytest.raises(poplib.error_proto):
        pop.user(USER)


def test_curl(server: Server, tmp_path: Path) -> None:
    need("curl")
    server.fill(MESSAGES)
    base = ["curl", "--silent", "--show-error", "--cacert", str(server.ca), "--user", f"{USER}:{PASSWORD}"]
    for url in (f"imaps://localhost:{server.imaps}/INBOX;MAILINDEX=2", f"pop3s://localhost:{server.pops}/2"):
        target = tmp_path / "message"
        run([*base, url, "--output", str(target)], tmp_path)
        assert target.read_bytes() == MESSAGES[1]
    run([*base, "--ssl-reqd", f"imap://localhost:{server.imap}/INBOX;MAILINDEX=1"], tmp_path)
    run([*base, "--ssl-reqd", f"pop3://localhost:{server.pop}/1"], tmp_path)
    upload = tmp_path / "upload"
    upload.write_bytes(MESSAGES[0])
    run([*base, "--upload-file", str(upload), f"imaps://localhost:{server.imaps}/Sent"], tmp_path)
    assert server.messages(folder="Sent") == [MESSAGES[0]]
    # without TLS curl must not get in: status 67 is "login denied"
    run([*base, f"imap://localhost:{server.imap}/INBOX;MAILINDEX=1"], tmp_path, status=67)


def test_mbsync_twice(server: Server, tmp_path: Path) -> None:
    """Two-way sync; the second transfers nothing; a local change arrives on the server."""
    need("mbsync")
    server.fill(MESSAGES)
    config = tmp_path / "mbsyncrc"
    config.write_text(
        f"""IMAPAccount a
Host localhost
Port {server.imaps}
User {USER}
Pass "{PASSWORD}"
SSLType IMAPS
CertificateFile {server.ca}

IMAPStore far
Account a

MaildirStore near
Path {tmp_path}/mail/
Inbox {tmp_path}/mail/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
SyncState *
"""
    )
    (tmp_path / "mail").mkdir()
    run(["mbsync", "-c", str(config), "-a"], tmp_path)
    mirror = tmp_path / "mail" / "INBOX"
    strip = [without_fields(m, b"x-tuid") for m in maildir_messages(mirror)]
    assert sorted(strip) == sorted(MESSAGES)
    files = sorted(p.name for p in mirror.rglob("*") if p.is_file() and not p.name.startswith("."))
    before = server.messages()
    run(["mbsync", "-c", str(config), "-a"], tmp_path)  # nothing is left to transfer
    assert sorted(p.name for p in mirror.rglob("*") if p.is_file() and not p.name.startswith(".")) == files
    assert server.messages() == before
    local = mirror / "new" / f"{int(time.time())}.{uuid.uuid4().hex}.local"
    new = MESSAGES[0].replace(b"Message 1", b"Made here")
    local.write_bytes(new.replace(b"\r\n", b"\n"))
    run(["mbsync", "-c", str(config), "-a"], tmp_path)
    after = [without_fields(m, b"x-tuid") for m in server.messages()]
    assert after == [*before, new]


def test_getmail(server: Server, request: pytest.FixtureRequest) -> None:
    need("getmail")
    server.fill(MESSAGES)
    for kind, port in (("SimpleIMAPSSLRetriever", server.imaps), ("SimplePOP3SSLRetriever", server.pops)):
        home = Path(tempfile.mkdtemp(prefix="letterlock-getmail-"))
        request.addfinalizer(functools.partial(shutil.rmtree, home))
        for sub in ("mail/new", "mail/cur", "mail/tmp"):
            (home / sub).mkdir(parents=True)
        user = ""
        if os.getuid() == 0:  # getmail does not deliver as root
            user = "user = nobody\n"
            home.chmod(0o755)
            for path in (home / "mail").rglob("*"):
                shutil.chown(path, "nobody")
            shutil.chown(home / "mail", "nobody")
        (home / "getmailrc").write_text(
            f"[retriever]\ntype = {kind}\nserver = localhost\nport = {port}\nusername = {USER}\n"
            f"password = {PASSWORD}\nca_certs = {server.ca}\nssl_cert_hostname = localhost\n\n"
            f"[destination]\ntype = Maildir\npath = {home}/mail/\n{user}\n[options]\nread_all = true\ndelete = false\n"
            "delivered_to = false\nreceived = false\n"
        )
        run(["getmail", "--getmaildir", str(home)], home)
        own = (b"return-path", b"x-getmail-retrieved-from-mailbox")
        assert sorted(without_fields(m, *own) for m in maildir_messages(home / "mail")) == sorted(MESSAGES)


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_fetchmail(server: Server, tmp_path: Path, protocol: str) -> None:
    need("fetchmail")
    server.fill(MESSAGES)
    port = server.imaps if protocol == "imap" else server.pops
    box = tmp_path / "box"
    config = tmp_path / "fetchmailrc"
    config.write_text(
        f'poll localhost protocol {protocol} port {port} user "{USER}" password "{PASSWORD}" ssl '
        f'sslcertck sslcertfile "{server.ca}" keep mda "cat >> {box}; echo @@ >> {box}"\n'
    )
    config.chmod(0o600)
    run(["fetchmail", "-f", str(config), "--invisible", "--pidfile", str(tmp_path / "pid")], tmp_path)
    parts = box.read_bytes().split(b"@@\n")[:-1]
    got = [without_fields(p.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), b"received") for p in parts]
    assert [p.rstrip() for p in got] == [m.rstrip() for m in MESSAGES]


def test_offlineimap(server: Server, tmp_path: Path) -> None:
    need("offlineimap")
    server.fill(MESSAGES)
    config = tmp_path / "offlineimaprc"
    config.write_text(
        f"[general]\naccounts = a\nmetadata = {tmp_path}/meta\n[Account a]\nlocalrepository = near\n"
        f"remoterepository = far\n[Repository near]\ntype = Maildir\nlocalfolders = {tmp_path}/mail\n"
        f"[Repository far]\ntype = IMAP\nremotehost = localhost\nremoteport = {server.imaps}\nssl = yes\n"
        f"sslcacertfile = {server.ca}\nremoteuser = {USER}\nremotepass = {PASSWORD}\n"
    )
    run(["offlineimap", "-c", str(config), "-o", "-u", "basic"], tmp_path)
    assert sorted(without_fields(m, b"x-offlineimap") for m in maildir_messages(tmp_path / "mail" / "INBOX")) == sorted(
        MESSAGES
    )


@pytest.mark.parametrize("program", ["mutt", "neomutt"])
def test_mutt_in_a_terminal(server: Server, tmp_path: Path, program: str) -> None:
    """Opens the folder, shows a message, marks it for deletion and writes the change back."""
    need(program, "tmux")
    server.fill(MESSAGES)
    config = tmp_path / "muttrc"
    config.write_text(
        f'set folder="imaps://localhost:{server.imaps}/"\nset spoolfile="+INBOX"\nset imap_user="{USER}"\n'
        f'set imap_pass="{PASSWORD}"\nset ssl_ca_certificates_file="{server.ca}"\n'
        f'set certificate_file="{server.ca}"\nset ssl_verify_host=yes\nset header_cache=""\nset delete=yes\n'
        "set sort=date\nset quit=yes\nset imap_check_subscribed=no\nset wait_key=no\nset confirmappend=no\n"
    )
    session = f"letterlock-{uuid.uuid4().hex[:8]}"
    tmux = ["tmux", "-L", session]
    command = f"env HOME={tmp_path} LC_ALL=C.UTF-8 TERM=screen {program} -n -F {config}"

    def screen() -> str:
        return subprocess.run([*tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True).stdout

    def until(text: str) -> None:
        for _ in range(300):
            if text in screen():
                return
            time.sleep(0.1)
        raise AssertionError(f"{text!r} did not appear:\n{screen()}")

    subprocess.run([*tmux, "new-session", "-d", "-x", "110", "-y", "40", command], check=True)
    try:
        until("Message 5")
        subprocess.run([*tmux, "send-keys", "1", "Enter", "Enter"], check=True)
        until("Line one of 1")
        subprocess.run([*tmux, "send-keys", "q"], check=True)
        until("Message 5")
        subprocess.run([*tmux, "send-keys", "1", "Enter", "d", "$"], check=True)
        for _ in range(100):
            if len(server.messages()) == 4:
                break
            time.sleep(0.2)
        assert server.messages() == MESSAGES[1:]
    finally:
        subprocess.run([*tmux, "kill-server"], capture_output=True)
