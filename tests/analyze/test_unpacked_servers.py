"""Logs that real Cyrus, Courier and Exim write while real clients log in both ways; and the lines of the readiness
report that end it, put into their configuration.

Debian does not let these servers be installed beside Dovecot and Postfix, so `tools/debian-unpacked` unpacks them into
a small root of their own, in which they run; only root can do that. Their messages go to a log socket in that root,
and are written to a file as syslog would.
"""

from __future__ import annotations

import contextlib
import imaplib
import os
import poplib
import shutil
import smtplib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from letterlock.analyze import report
from letterlock.analyze.logs import Analysis, analyze
from letterlock.analyze.logs_tally import Tally, readable
from letterlock.analyze.readiness import judge
from letterlock.base.facts import LoginResult
from letterlock.base.values import Protocol, Tls
from tests.analyze.test_exchange_logs import facts
from tests.analyze.test_real_servers import anyone
from tests.analyze.test_report import block
from tests.clients.server import free_ports
from tests.programs import required

ROOT = Path(sys.prefix) / "peers"
HOST, USER, SECRET = "127.0.0.1", "alice", "secret7"


class Syslog:
    """The log socket of the root: datagrams become lines of a file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._stop = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        (ROOT / "dev" / "log").unlink(missing_ok=True)
        descriptor = os.open(ROOT / "dev", os.O_RDONLY)  # the path may be longer than a socket's address
        self._socket.bind(f"/proc/self/fd/{descriptor}/log")
        os.close(descriptor)
        (ROOT / "dev" / "log").chmod(0o666)
        self._socket.settimeout(0.1)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self.file.open("ab", buffering=0) as file:
            while True:
                try:
                    file.write(self._socket.recv(1 << 16).rstrip(b"\0\n") + b"\n")
                except TimeoutError:
                    if self._stop.is_set():
                        return

    def close(self) -> None:
        """When everything has come."""
        self._stop.set()
        self._thread.join()
        self._socket.close()


class Peers:
    """Servers in the root, with a directory of their own there; `log` is what they wrote."""

    def __init__(self, directory: Path) -> None:
        self.log = directory / "mail.log"
        self.place = ROOT / "tmp" / "letterlock-test"
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(mode=0o755)
        self._syslog = Syslog(self.log)
        self._running: list[subprocess.Popen[bytes]] = []
        words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost"
        files = ["-keyout", str(self.place / "key.pem"), "-out", str(self.place / "cert.pem")]
        subprocess.run([*words.split(), *files], check=True, capture_output=True)
        (self.place / "both.pem").write_bytes(b"".join((self.place / n).read_bytes() for n in ("key.pem", "cert.pem")))

    def write(self, name: str, text: str) -> None:
        """A file of its directory, which is /tmp/letterlock-test to the servers."""
        (self.place / name).write_text(text)

    def own(self, user: int, group: int) -> None:
        """Everything in the directory belongs to them."""
        for path in (self.place, *self.place.rglob("*")):
            os.chown(path, user, group)

    def run(self, *words: str, given: str = "") -> None:
        """A program of the root, to its end."""
        done = subprocess.run(["chroot", str(ROOT), *words], input=given, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self, *words: str, ports: tuple[int, ...] = (), environment: dict[str, str] | None = None) -> None:
        """A server of the root, until it listens."""
        set_up = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **(environment or {})}
        program = subprocess.Popen(
            ["chroot", str(ROOT), *words], env=set_up, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._running.append(program)
        for port in ports:
            for _ in range(200):
                with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
                    break
                assert program.poll() is None, self.log.read_text()
                time.sleep(0.05)
            else:
                pytest.fail(f"nothing listens on port {port}: {self.log.read_text()}")

    def stop(self) -> None:
        """End them."""
        for program in reversed(self._running):
            program.terminate()
        for program in self._running:
            try:
                program.wait(10)
            except subprocess.TimeoutExpired:
                program.kill()
        self._running.clear()

    def close(self) -> None:
        """End everything."""
        self.stop()
        self._syslog.close()
        shutil.rmtree(self.place, ignore_errors=True)


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[Peers]:
    if os.getuid() != 0:
        pytest.skip("these servers are run by root, in a root directory of their own")
    if not (ROOT / ".packages").is_file():
        (pytest.fail if required() else pytest.skip)("not there: run make test-packages")
    running = Peers(tmp_path)
    yield running
    running.close()


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Blocks of the report: what an administrator would paste."""
    target = tmp_path_factory.mktemp("report") / "r.html"
    nothing = Analysis(Tally())
    report.write(target, nothing, judge(nothing.tally), {})
    return lambda name: block(target.read_text("utf-8"), name)


def bear(attempt: Any) -> bool:
    """Whether it was let in."""
    try:
        attempt()
    except (imaplib.IMAP4.error, poplib.error_proto, smtplib.SMTPException):
        return False
    return True


def imap(port: int, password: str = SECRET, how: str = "LOGIN", tls: str = "", name: str = "") -> bool:
    """Log in once; whether it was let in."""
    if tls == "implicit":
        client: imaplib.IMAP4 = imaplib.IMAP4_SSL(HOST, port, ssl_context=anyone(), timeout=30)
    else:
        client = imaplib.IMAP4(HOST, port, timeout=30)
    if tls == "starttls":
        client.starttls(anyone())
    if name:
        client.xatom("ID", f'("name" "{name}")')
    if how == "LOGIN":
        entered = bear(lambda: client.login(USER, password))
    else:
        entered = bear(lambda: client.authenticate("PLAIN", lambda _: f"\0{USER}\0{password}".encode()))
    client.logout()
    return entered


def pop(port: int, password: str = SECRET, tls: str = "") -> bool:
    """Log in once; whether it was let in."""
    client = poplib.POP3(HOST, port, timeout=30)
    if tls:
        client.stls(anyone())
    entered = bear(lambda: client.user(USER)) and bear(lambda: client.pass_(password))
    client.quit()
    return entered


def counted(name: Path) -> dict[tuple[Protocol, str, Tls | None, LoginResult], int]:
    """Logins of a log by what matters; everything in it could be read."""
    analysis = analyze([str(name)])
    assert analysis.unreadable == 0, analysis.warnings()
    found: dict[tuple[Protocol, str, Tls | None, LoginResult], int] = {}
    for fact, entry in analysis.tally.facts():
        assert (fact.address, fact.user in (USER, "")) == (HOST, True)
        key = (fact.protocol, fact.mechanism, fact.tls, fact.result)
        found[key] = found.get(key, 0) + entry.count
    return found


GOOD, BAD, REFUSED = LoginResult.SUCCEEDED, LoginResult.FAILED, LoginResult.REFUSED
IMAP, POP = Protocol.IMAP4, Protocol.POP3

IMAPD_CONF = """
configdirectory: /tmp/letterlock-test/conf
partition-default: /tmp/letterlock-test/spool
defaultpartition: default
admins: cyrus
cyrus_user: cyrus
cyrus_group: mail
{plain}
autocreate_quota: 100000
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: /tmp/letterlock-test/sasldb2
sasl_mech_list: PLAIN LOGIN
tls_server_cert: /tmp/letterlock-test/cert.pem
tls_server_key: /tmp/letterlock-test/key.pem
servername: mail.example.com
unixhierarchysep: yes
"""

CYRUS_CONF = """
START {{
  recover cmd="/usr/lib/cyrus/bin/ctl_cyrusdb -C /tmp/letterlock-test/imapd.conf -r"
}}
SERVICES {{
  imap cmd="/usr/lib/cyrus/bin/imapd -C /tmp/letterlock-test/imapd.conf" listen="127.0.0.1:{0}" prefork=0
  imaps cmd="/usr/lib/cyrus/bin/imapd -s -C /tmp/letterlock-test/imapd.conf" listen="127.0.0.1:{1}" prefork=0
  pop3 cmd="/usr/lib/cyrus/bin/pop3d -C /tmp/letterlock-test/imapd.conf" listen="127.0.0.1:{2}" prefork=0
}}
EVENTS {{
}}
"""


def cyrus(peers: Peers, plain: str) -> list[int]:
    """Cyrus on three ports: IMAP, IMAPS, POP3."""
    ports = free_ports(3)
    for folder in ("conf/db", "conf/socket", "conf/proc", "conf/lock", "conf/log", "conf/msg", "spool"):
        (peers.place / folder).mkdir(parents=True, exist_ok=True)
    peers.write("imapd.conf", IMAPD_CONF.format(plain=plain))
    peers.write("cyrus.conf", CYRUS_CONF.format(*ports))
    peers.run("/usr/sbin/saslpasswd2", "-c", "-p", "-f", "/tmp/letterlock-test/sasldb2", "-u", "mail.example.com", USER,
              given=SECRET)  # fmt: skip
    peers.own(901, 8)
    words = ("-C", "/tmp/letterlock-test/imapd.conf", "-M", "/tmp/letterlock-test/cyrus.conf")
    peers.start("/usr/lib/cyrus/bin/master", *words, ports=tuple(ports))
    return ports


def test_cyrus(peers: Peers, lines: Callable[[str], str]) -> None:
    clear, always, pop3 = cyrus(peers, "allowplaintext: yes")
    assert imap(clear, name="Old Scanner") and imap(clear, how="PLAIN") and imap(clear, tls="starttls")
    assert imap(always, tls="implicit") and pop(pop3) and pop(pop3, tls="stls") and not imap(clear, "wrong")
    peers.stop()
    assert counted(peers.log) == {
        (IMAP, "LOGIN command", Tls.NONE, GOOD): 1, (IMAP, "PLAIN", Tls.NONE, GOOD): 1,
        (IMAP, "LOGIN command", Tls.STARTTLS, GOOD): 1, (IMAP, "LOGIN command", Tls.IMPLICIT, GOOD): 1,
        (POP, "LOGIN command", Tls.NONE, GOOD): 1, (POP, "LOGIN command", Tls.STARTTLS, GOOD): 1,
        (IMAP, "LOGIN command", None, BAD): 1,
    }  # fmt: skip
    named = [f.client for f in facts(analyze([str(peers.log)])) if f.client]
    assert named == ["Old Scanner"]
    peers.log.write_bytes(b"")
    clear, always, pop3 = cyrus(peers, lines("cyrus"))
    assert not imap(clear) and not imap(clear, how="PLAIN") and not pop(pop3)
    assert imap(clear, tls="starttls") and imap(always, tls="implicit") and pop(pop3, tls="stls")
    peers.stop()
    after = counted(peers.log)
    assert {k for k in after if k[3] is GOOD} == {
        (IMAP, "LOGIN command", Tls.STARTTLS, GOOD), (IMAP, "LOGIN command", Tls.IMPLICIT, GOOD),
        (POP, "LOGIN command", Tls.STARTTLS, GOOD),
    }  # fmt: skip


def courier(peers: Peers, required_lines: str = "") -> list[int]:
    """Courier on three ports: IMAP, IMAPS, POP3."""
    ports = free_ports(3)
    home = peers.place / USER
    for folder in ("cur", "new", "tmp"):
        (home / "Maildir" / folder).mkdir(parents=True, exist_ok=True)
    for path in (home, *home.rglob("*")):
        os.chown(path, 65534, 65534)
    (ROOT / "run/courier/authdaemon").mkdir(parents=True, exist_ok=True)
    hashed = subprocess.run(["openssl", "passwd", "-1", SECRET], check=True, capture_output=True, text=True).stdout
    account = f"uid=65534|gid=65534|home=/tmp/letterlock-test/{USER}|mail=/tmp/letterlock-test/{USER}/Maildir|_="
    for name, fields in (("userdb", account), ("userdbshadow", f"systempw={hashed.strip()}")):
        words = ("-", f"/etc/courier/{name}.tmp", f"/etc/courier/{name}.dat")
        peers.run("/usr/lib/courier/courier-authlib/makedatprog", *words, given=f"{USER}\t{fields}\n.\n")
    (ROOT / "etc/courier/userdbshadow.dat").chmod(0o600)
    auth = {"authmodulelist": "authuserdb", "daemons": "2", "authdaemonvar": "/run/courier/authdaemon",
            "DEBUG_LOGIN": "0", "DEFAULTOPTIONS": "", "LOGGEROPTS": ""}  # fmt: skip
    # it reads this file as well, where Debian's names modules that are not there
    (ROOT / "etc/courier/authdaemonrc").write_text("".join(f'{k}="{v}"\n' for k, v in auth.items()))
    peers.start("/usr/lib/courier/courier-authlib/authdaemond", environment=auth)
    common = {
        "IMAP_CAPABILITY": "IMAP4rev1 AUTH=PLAIN", "IMAP_CAPABILITY_TLS": "IMAP4rev1 AUTH=PLAIN",
        "COURIERTLS": "/usr/bin/couriertls", "TLS_CERTFILE": "/tmp/letterlock-test/both.pem", "TLS_VERIFYPEER": "NONE",
        "MAILDIRPATH": "Maildir", "bindir": "/usr/bin", "IMAP_EMPTYTRASH": "",
        **dict(line.split("=") for line in required_lines.splitlines()),
    }  # fmt: skip
    lib = "/usr/lib/courier/courier"
    login = [f"{lib}/imaplogin", "/usr/bin/imapd", "Maildir"]
    for name, port, more, words in (
        ("imapd", ports[0], {"IMAP_STARTTLS": "YES"}, login),
        (
            "imapd-ssl",
            ports[1],
            {"IMAP_TLS": "1"},
            ["/usr/bin/couriertls", "-server", "-tcpd", "-user=courier", *login],
        ),
        ("pop3d", ports[2], {"POP3_STARTTLS": "YES"}, [f"{lib}/courierpop3login", f"{lib}/courierpop3d", "Maildir"]),
    ):
        tcpd = ["/usr/sbin/couriertcpd", f"-address={HOST}", "-maxprocs=10", "-maxperip=10", "-nodnslookup",
                "-noidentlookup", str(port)]  # fmt: skip
        logger = ("/usr/sbin/courierlogger", f"-name={name}")
        peers.start(*logger, *tcpd, *words, ports=(port,), environment={**common, **more})
    return ports


def test_courier(peers: Peers, lines: Callable[[str], str]) -> None:
    clear, always, pop3 = courier(peers)
    assert imap(clear) and imap(clear, how="PLAIN") and imap(clear, tls="starttls") and imap(always, tls="implicit")
    assert pop(pop3) and pop(pop3, tls="stls") and not imap(clear, "wrong")
    time.sleep(0.5)
    peers.stop()
    assert counted(peers.log) == {
        (IMAP, "", Tls.NONE, GOOD): 2, (IMAP, "", Tls.STARTTLS, GOOD): 1, (IMAP, "", Tls.IMPLICIT, GOOD): 1,
        (POP, "", Tls.NONE, GOOD): 1, (POP, "", Tls.STARTTLS, GOOD): 1, (IMAP, "", None, BAD): 1,
    }  # fmt: skip
    peers.log.write_bytes(b"")
    clear, always, pop3 = courier(peers, lines("courier"))
    assert not imap(clear) and not imap(clear, how="PLAIN") and not pop(pop3)
    assert imap(clear, tls="starttls") and pop(pop3, tls="stls") and imap(always, tls="implicit")
    time.sleep(0.5)
    peers.stop()
    assert counted(peers.log) == {
        (IMAP, "", Tls.STARTTLS, GOOD): 1, (IMAP, "", Tls.IMPLICIT, GOOD): 1, (POP, "", Tls.STARTTLS, GOOD): 1,
    }  # fmt: skip


EXIM_CONF = """
primary_hostname = mail.example.com
local_interfaces = 127.0.0.1
daemon_smtp_ports = {0} : {1}
tls_on_connect_ports = {1}
spool_directory = /tmp/letterlock-test/spool
log_file_path = syslog
syslog_timestamp = no
log_selector = +smtp_protocol_error
pid_file_path = /tmp/letterlock-test/pid
tls_advertise_hosts = *
tls_certificate = /tmp/letterlock-test/cert.pem
tls_privatekey = /tmp/letterlock-test/key.pem
{2}
keep_environment =
host_lookup =
acl_smtp_rcpt = rcpt
begin acl
rcpt:
  accept authenticated = *
  deny
begin routers
all:
  driver = redirect
  data = :blackhole:
begin authenticators
plain_server:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${{if eq{{$auth3}}{{secret7}}}}
  server_set_id = $auth2
login_server:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${{if eq{{$auth2}}{{secret7}}}}
  server_set_id = $auth1
"""


def exim(peers: Peers, more: str = "") -> list[int]:
    """Exim on two ports: with STARTTLS, always TLS."""
    ports = free_ports(2)
    (peers.place / "spool").mkdir(exist_ok=True)
    peers.own(903, 903)
    config = ROOT / "etc/exim4/exim4.conf"
    config.parent.mkdir(exist_ok=True)
    config.write_text(EXIM_CONF.format(*ports, more))
    config.chmod(0o644)
    peers.start("/usr/sbin/exim4", "-bdf", ports=tuple(ports))
    return ports


def submit(port: int, user: str, how: str = "PLAIN", password: str = SECRET, tls: str = "") -> bool:
    """Log in and send a message; whether it was taken."""
    if tls == "implicit":
        client: smtplib.SMTP = smtplib.SMTP_SSL(HOST, port, timeout=30, context=anyone())
    else:
        client = smtplib.SMTP(HOST, port, timeout=30)
    if tls == "starttls":
        client.starttls(context=anyone())
    client.ehlo()
    client.user, client.password = user, password
    challenge = client.auth_plain if how == "PLAIN" else client.auth_login
    taken = bear(lambda: client.auth(how, challenge)) and bear(  # type: ignore[arg-type]
        lambda: client.sendmail("a@example.com", ["b@example.com"], b"Subject: x\r\n\r\nx\r\n")
    )
    client.quit()
    return taken


def test_exim(peers: Peers, lines: Callable[[str], str]) -> None:
    clear, always = exim(peers)
    assert submit(clear, "plain@x") and submit(clear, "login@x", "LOGIN") and submit(clear, "up@x", tls="starttls")
    assert submit(always, "always@x", tls="implicit") and not submit(clear, "wrong@x", password="wrong")
    time.sleep(0.5)
    peers.stop()
    analysis = analyze([str(peers.log)])
    assert analysis.unreadable == 0, analysis.warnings()
    assert sorted((f.user, f.mechanism, f.tls, f.result) for f in facts(analysis)) == [
        ("always@x", "PLAIN", Tls.STARTTLS, GOOD), ("login@x", "LOGIN", Tls.NONE, GOOD),
        ("plain@x", "PLAIN", Tls.NONE, GOOD), ("up@x", "PLAIN", Tls.STARTTLS, GOOD), ("wrong@x", "PLAIN", None, BAD),
    ]  # fmt: skip
    assert {f.user for f in facts(analysis) if readable(f)} == {"plain@x", "login@x"}
    peers.log.write_bytes(b"")
    clear, always = exim(peers, lines("exim"))
    assert not submit(clear, "plain@x") and not submit(clear, "login@x", "LOGIN")
    assert submit(clear, "up@x", tls="starttls") and submit(always, "always@x", tls="implicit")
    time.sleep(0.5)
    peers.stop()
    found = facts(analyze([str(peers.log)]))
    assert sorted(f.user for f in found if f.result is GOOD) == ["always@x", "up@x"]
    assert sorted(f.mechanism for f in found if f.result is REFUSED) == ["LOGIN", "PLAIN"]
    assert SECRET not in "".join(map(str, found))
