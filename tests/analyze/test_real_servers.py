"""Logs that real servers write while real clients log in both ways: exactly the insecure logins are found.

Dovecot takes a client on its own address for secure, so the clients come from 127.0.0.1 and the server listens on
127.0.0.2. Postfix asks Dovecot for its users' passwords, and logs to a file of its own.
"""

from __future__ import annotations

import contextlib
import getpass
import grp
import imaplib
import os
import poplib
import pwd
import shutil
import smtplib
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from letterlock.analyze import report
from letterlock.analyze.logs import Analysis, analyze
from letterlock.analyze.logs_tally import Tally, readable
from letterlock.analyze.readiness import judge
from letterlock.base.facts import LoginResult
from letterlock.base.values import Protocol, Tls
from tests.analyze.test_exchange_logs import facts
from tests.analyze.test_report import block
from tests.clients.server import PASSWORD, free_ports
from tests.programs import need, path

HOST = "127.0.0.2"

DOVECOT = """
base_dir = {dir}/run
state_dir = {dir}/run
log_path = {dir}/dovecot.log
protocols = imap pop3
listen = {host}
{rules}
auth_failure_delay = 0
ssl_cert = <{dir}/certificate.pem
ssl_key = <{dir}/key.pem
mail_location = maildir:{dir}/mail/%u
first_valid_uid = 1
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {login_user}
imap_id_log = *
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={dir}/mail/%u
}}
service imap-login {{
  {chroot}
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service pop3-login {{
  {chroot}
  inet_listener pop3 {{
    port = {pop}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service anvil {{
  {chroot}
}}
service auth {{
  unix_listener {dir}/auth {{
    mode = 0666
  }}
}}
"""


def enforced(directory: Path) -> str:
    """The lines that the readiness report gives for Dovecot 2.3."""
    nothing = Analysis(Tally())
    report.write(directory / "r.html", nothing, judge(nothing.tally), {})
    found = block((directory / "r.html").read_text("utf-8"), "dovecot-2.3")
    assert "disable_plaintext_auth" in found
    return found


class Dovecot:
    """Debian's Dovecot on `HOST`."""

    def __init__(self, directory: Path, strict: bool, more: str = "") -> None:
        self.directory = directory
        self.log = directory / "dovecot.log"
        self.imap, self.imaps, self.pop = free_ports(3)
        request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost"
        request += f" -addext subjectAltName=DNS:localhost,IP:{HOST}"
        files = ["-keyout", str(directory / "key.pem"), "-out", str(directory / "certificate.pem")]
        subprocess.run([*request.split(), *files], check=True, capture_output=True)
        root, me = os.getuid() == 0, getpass.getuser()
        owner = pwd.getpwnam("mail" if root else me)
        (directory / "mail").mkdir()
        os.chown(directory / "mail", owner.pw_uid, owner.pw_gid)
        config = directory / "dovecot.conf"
        config.write_text(
            DOVECOT.format(
                dir=directory,
                host=HOST,
                rules=enforced(directory) if strict else "ssl = yes\ndisable_plaintext_auth = no",
                user="dovecot" if root else me,
                group="dovecot" if root else grp.getgrgid(os.getgid()).gr_name,
                login_user="dovenull" if root else me,
                uid=owner.pw_uid,
                gid=owner.pw_gid,
                password=PASSWORD.replace(" ", ""),
                chroot="" if root else "chroot =",
                imap=self.imap,
                imaps=self.imaps,
                pop=self.pop,
            )
            + more
        )
        self.process = subprocess.Popen([path("dovecot"), "-F", "-c", str(config)])
        listening(self.imap, self.process)
        listening(self.pop, self.process)

    def stop(self) -> None:
        """End it: everything is in the log then."""
        self.process.terminate()
        self.process.wait(15)


def listening(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until somebody answers there."""
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        assert process.poll() is None, "the server ended"
        time.sleep(0.05)
    pytest.fail(f"nothing listens on port {port}")


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path: sockets live in it."""
    with tempfile.TemporaryDirectory(prefix="ll-", dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def dovecot(place: Path) -> Iterator[Callable[[bool], Dovecot]]:
    need("dovecot", "openssl")
    running: list[Dovecot] = []

    def start(strict: bool) -> Dovecot:
        running.append(Dovecot(place, strict))
        return running[-1]

    yield start
    for each in running:
        each.process.kill()
        each.process.wait()


SECRET = PASSWORD.replace(" ", "")


def anyone() -> ssl.SSLContext:
    """Takes any certificate: the tests are about logs."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_dovecot(dovecot: Callable[[bool], Dovecot]) -> None:
    server = dovecot(False)
    plain = imaplib.IMAP4(HOST, server.imap, timeout=20)
    plain.xatom("ID", '("name" "Old Scanner" "version" "7")')
    plain.login("clear@example.com", SECRET)
    plain.logout()
    upgraded = imaplib.IMAP4(HOST, server.imap, timeout=20)
    upgraded.starttls(anyone())
    upgraded.login("starttls@example.com", SECRET)
    upgraded.logout()
    always = imaplib.IMAP4_SSL(HOST, server.imaps, ssl_context=anyone(), timeout=20)
    always.login("imaps@example.com", SECRET)
    always.logout()
    wrong = imaplib.IMAP4(HOST, server.imap, timeout=20)
    with pytest.raises(imaplib.IMAP4.error):
        wrong.login("wrong@example.com", "not" + SECRET)
    wrong.logout()
    pop = poplib.POP3(HOST, server.pop, timeout=20)
    pop.user("pop@example.com")
    pop.pass_(SECRET)
    pop.quit()
    server.stop()
    analysis = analyze([str(server.log)])
    found = facts(analysis)
    assert analysis.unreadable == 0, analysis.warnings()
    exposed = {(f.user, f.protocol, f.result) for f in found if readable(f)}
    assert exposed == {
        ("clear@example.com", Protocol.IMAP4, LoginResult.SUCCEEDED),
        ("wrong@example.com", Protocol.IMAP4, LoginResult.FAILED),
        ("pop@example.com", Protocol.POP3, LoginResult.SUCCEEDED),
    }
    by_user = {f.user: f for f in found}
    assert by_user["clear@example.com"].client == "Old Scanner 7"
    assert by_user["clear@example.com"].address == "127.0.0.1"
    assert {by_user[u].tls for u in ("starttls@example.com", "imaps@example.com")} == {Tls.IMPLICIT}


def test_dovecot_that_refuses(dovecot: Callable[[bool], Dovecot]) -> None:
    server = dovecot(True)
    plain = imaplib.IMAP4(HOST, server.imap, timeout=20)
    with pytest.raises(imaplib.IMAP4.error):
        plain.login("clear@example.com", SECRET)
    plain.logout()
    sasl = imaplib.IMAP4(HOST, server.imap, timeout=20)
    with pytest.raises(imaplib.IMAP4.error):
        sasl.authenticate("PLAIN", lambda _: b"\0sasl@example.com\0" + SECRET.encode())
    sasl.logout()
    stubborn = poplib.POP3(HOST, server.pop, timeout=20)
    for command in ("USER stubborn@example.com", f"PASS {SECRET}"):
        with pytest.raises(poplib.error_proto):
            stubborn._shortcmd(command)  # type: ignore[attr-defined]
    stubborn.quit()
    asks = poplib.POP3(HOST, server.pop, timeout=20)
    with pytest.raises(poplib.error_proto):
        asks.user("asks@example.com")
    asks.quit()
    upgraded = imaplib.IMAP4(HOST, server.imap, timeout=20)
    upgraded.starttls(anyone())
    upgraded.login("starttls@example.com", SECRET)
    upgraded.logout()
    server.stop()
    found = facts(analyze([str(server.log)]))
    refused = sorted((f.protocol.value, f.user, readable(f)) for f in found if f.result is LoginResult.REFUSED)
    assert refused == [
        ("IMAP4", "", True),  # Dovecot does not log the user of a refused mechanism
        ("IMAP4", "clear@example.com", True),
        ("POP3", "asks@example.com", False),
        ("POP3", "stubborn@example.com", False),
        ("POP3", "stubborn@example.com", True),
    ]
    assert [f.user for f in found if f.result is LoginResult.SUCCEEDED] == ["starttls@example.com"]


MAIN_CF = """
compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/lib
maillog_file = {dir}/mail.log
maillog_file_prefixes = {dir}
mail_owner = postfix
myhostname = mail.example.com
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {dir}/auth
smtpd_tls_cert_file = {dir}/certificate.pem
smtpd_tls_key_file = {dir}/key.pem
smtpd_tls_security_level = may
smtpd_tls_loglevel = {level}
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_discard_ehlo_keywords = silent-discard, dsn
default_transport = discard
"""

MASTER_CF = """
127.0.0.1:{port} inet n - n - - smtpd
  -o syslog_name=postfix/submission
postlog unix-dgram n - n - 1 postlogd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
discard unix - - n - - discard
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
"""


class Postfix:
    """Debian's Postfix with a queue and a log of its own; only root can start it."""

    def __init__(self, directory: Path, level: int) -> None:
        self.log = directory / "mail.log"
        (self.port,) = free_ports(1)
        self.config = directory / "postfix"
        for folder in (self.config, directory / "queue", directory / "lib"):
            folder.mkdir()
        shutil.chown(directory / "lib", "postfix")
        (self.config / "main.cf").write_text(MAIN_CF.format(dir=directory, level=level))
        (self.config / "master.cf").write_text(MASTER_CF.format(port=self.port))
        self.command("start")
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        pytest.fail(self.log.read_text())

    def command(self, word: str) -> None:
        """`postfix start` or `postfix stop`."""
        done = subprocess.run(
            [path("postfix"), "-c", str(self.config), word], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("level", [1, 0])
def test_postfix(dovecot: Callable[[bool], Dovecot], place: Path, level: int) -> None:
    need("postfix")
    if os.getuid() != 0:
        pytest.skip("Postfix is started by root")
    dovecot(False)
    server = Postfix(place, level)
    try:
        for user, tls in (("clear@example.com", False), ("tls@example.com", True)):
            client = smtplib.SMTP("127.0.0.1", server.port, timeout=20)
            if tls:
                client.starttls(context=anyone())
            client.ehlo()
            client.login(user, SECRET)
            client.sendmail(user, ["x@example.com"], b"Subject: x\r\n\r\nx\r\n")
            client.quit()
        bad = smtplib.SMTP("127.0.0.1", server.port, timeout=20)
        with pytest.raises(smtplib.SMTPAuthenticationError):
            bad.login("wrong@example.com", "not" + SECRET)
        bad.quit()
    finally:
        server.command("stop")
    analysis = analyze([str(server.log)])
    found = facts(analysis)
    assert analysis.unreadable == 0, analysis.warnings()
    exposed = {(f.user, f.result) for f in found if readable(f)}
    assert ("clear@example.com", LoginResult.SUCCEEDED) in exposed
    assert {result for _, result in exposed} <= {LoginResult.SUCCEEDED, LoginResult.FAILED}
    assert {f.user: f.tls for f in found}["tls@example.com"] is Tls.STARTTLS
