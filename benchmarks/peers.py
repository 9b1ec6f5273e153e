"""The servers that are measured: Letterlock, and Debian's Dovecot in its default and in a tuned configuration.

Each runs from a throw-away directory on loopback with a certificate of its own. Dovecot gets the cheapest password
check it has (scheme PLAIN), so that a login compares protocol and TLS work; Letterlock keeps Argon2id with its cache
of verified logins, as it is used.
"""

from __future__ import annotations

import contextlib
import getpass
import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

USERS = 50
PASSWORD = "bench-password"
TICK = os.sysconf("SC_CLK_TCK")


def users() -> list[str]:
    """User names, the same for every peer; the first owns the large mailbox."""
    return [f"user{n}@bench.test" for n in range(USERS)]


def free_port() -> int:
    """A port nobody listens on now."""
    with contextlib.closing(socket.socket()) as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += children.get(found[-1], [])
    return found


class Peer:
    """A running server."""

    name = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self.ca = directory / "certificate.pem"
        self.hostname = "localhost"
        self.process: subprocess.Popen[bytes]

    def version(self) -> str:
        """What is measured, for the report."""
        raise NotImplementedError

    def start(self) -> None:
        """Configure, start, and wait until it listens."""
        raise NotImplementedError

    def wait(self) -> None:
        """Until the port answers."""
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with status {self.process.returncode}")
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} does not listen on port {self.port}")

    def cpu(self) -> float:
        """CPU seconds of the server's processes so far, those that have ended included (they are its children)."""
        total = 0
        for pid in _descendants(self.process.pid):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                total += int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])
        return total / TICK

    def memory(self) -> int:
        """Proportional set size of all processes, in bytes."""
        total = 0
        for pid in _descendants(self.process.pid):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        return total

    def stop(self) -> None:
        """End it."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Letterlock(Peer):
    """Ours, as `init` makes it: its own defaults, one worker a core."""

    name = "letterlock"

    def version(self) -> str:
        out = subprocess.run([self._program(), "--version"], capture_output=True, text=True, check=True)
        return out.stdout.strip()

    @staticmethod
    def _program() -> str:
        return str(Path(sys.executable).parent / "letterlock")

    def start(self) -> None:
        program, data = self._program(), str(self.directory)
        shutil.rmtree(self.directory)
        subprocess.run([program, "init", "--data", data, "--hostname", "localhost"], check=True)
        self.port = free_port()
        clear = free_port()
        lines = [f'New-Mailbox {u} -Password "{PASSWORD}"' for u in users()]
        lines.append(
            f"Set-ImapSettings -SSLBindings 127.0.0.1:{self.port} -UnencryptedOrTLSBindings 127.0.0.1:{clear}"
            " -MaxConnectionsPerUser 10000"
        )
        lines += [f"Set-Service {s} -StartupType Automatic" for s in ("LetterlockImap4", "LetterlockImap4BE")]
        subprocess.run(
            [program, "shell", "--data", data, "-c", "\n".join(lines)], check=True, stdout=subprocess.DEVNULL
        )
        self.process = subprocess.Popen([program, "serve", "--data", data], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        if b"ready" not in self.process.stdout.readline():
            raise RuntimeError("letterlock serve did not get ready")


DOVECOT_COMMON = """
base_dir = {run}
state_dir = {run}
log_path = {dir}/dovecot.log
protocols = imap
listen = 127.0.0.1
ssl = required
ssl_cert = <{dir}/certificate.pem
ssl_key = <{dir}/key.pem
ssl_min_protocol = TLSv1.2
mail_location = maildir:{dir}/mail/%u
first_valid_uid = 1
mail_max_userip_connections = 10000
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {login_user}
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
    port = 0
  }}
  inet_listener imaps {{
    port = {port}
    ssl = yes
  }}
  {login}
}}
service imap {{
  {imap}
}}
service anvil {{
  {chroot}
}}
service auth {{
  client_limit = 4000
}}
"""


class Dovecot(Peer):
    """Debian's Dovecot with its defaults: a process for each login and for each session."""

    name = "dovecot"
    login = "process_limit = 1000"
    imap = "process_limit = 2000"
    extra = ""

    def version(self) -> str:
        out = subprocess.run(["dovecot", "--version"], capture_output=True, text=True, check=True)
        return f"Dovecot {out.stdout.split()[0]}"

    def start(self) -> None:
        self.port = free_port()
        mail = self.directory / "mail"
        mail.mkdir()
        request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost"
        files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(self.directory / "key.pem")]
        subprocess.run([*request.split(), *files, "-out", str(self.ca)], check=True, capture_output=True)
        root = os.getuid() == 0
        me = getpass.getuser()
        owner = pwd.getpwnam("mail" if root else me)
        if root:
            os.chown(mail, owner.pw_uid, owner.pw_gid)
            for parent in (self.directory, self.directory.parent):
                parent.chmod(0o755)
        config = self.directory / "dovecot.conf"
        config.write_text(
            DOVECOT_COMMON.format(
                dir=self.directory,
                run=self.directory / "run",
                user="dovecot" if root else me,
                group="dovecot" if root else grp.getgrgid(os.getgid()).gr_name,
                login_user="dovenull" if root else me,
                uid=owner.pw_uid,
                gid=owner.pw_gid,
                password=PASSWORD,
                port=self.port,
                chroot="" if root else "chroot =",
                login=self.login,
                imap=self.imap,
            )
            + self.extra
        )
        self.process = subprocess.Popen(["dovecot", "-F", "-c", str(config)])
        self.wait()


class TunedDovecot(Dovecot):
    """The same with its documented high-performance settings: processes serve many clients, caches are on."""

    name = "dovecot-tuned"
    login = "service_count = 0\n  process_min_avail = 2\n  client_limit = 1000"
    imap = "service_count = 0\n  process_min_avail = 2\n  client_limit = 500"
    extra = """
auth_cache_size = 10M
maildir_very_dirty_syncs = yes
mail_always_cache_fields = flags imap.envelope imap.body imap.bodystructure date.received size.virtual
"""


PEERS: tuple[type[Peer], ...] = (Letterlock, TunedDovecot, Dovecot)
