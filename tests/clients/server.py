"""A real `letterlock serve` on loopback, for tests that drive it with real clients."""

from __future__ import annotations

import contextlib
import imaplib
import os
import poplib
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PROGRAM = str(Path(sys.executable).parent / "letterlock")
PASSWORD = "correct horse 7"
SERVICES = ("LetterlockImap4", "LetterlockImap4BE", "LetterlockPop3", "LetterlockPop3BE")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in sockets]


class Server:
    """One data directory; `start` and `kill` may be called again and again."""

    def __init__(
        self, directory: Path, users: Sequence[str] = ("alice", "bob"), settings: str = "", server: str = "VM"
    ) -> None:
        self.data = directory / "data"
        self.imap, self.imaps, self.pop, self.pops = free_ports(4)
        self.process: subprocess.Popen[str] | None = None
        directory.mkdir(exist_ok=True)
        self.run("init", "--hostname", "localhost", "--server", server)
        self.ca = self.data / "certificate.pem"
        self.users = [f"{u}@demo.test" for u in users]
        text = [f'New-Mailbox {u} -Password "{PASSWORD}"' for u in self.users]
        text.append(
            f"Set-ImapSettings -SSLBindings 127.0.0.1:{self.imaps} -UnencryptedOrTLSBindings 127.0.0.1:{self.imap}"
        )
        text.append(
            f"Set-PopSettings -SSLBindings 127.0.0.1:{self.pops} -UnencryptedOrTLSBindings 127.0.0.1:{self.pop}"
        )
        text += [f"Set-Service {name} -StartupType Automatic" for name in SERVICES]
        self.shell("\n".join([*text, settings]))

    def run(self, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        """A `letterlock` command on this data directory; checks its exit status."""
        done = subprocess.run(
            [PROGRAM, words[0], "--data", str(self.data), *words[1:]], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def shell(self, text: str) -> str:
        """Management shell commands; the output."""
        return self.run("shell", "-c", text).stdout

    def start(self, workers: int = 2) -> None:
        """Until `letterlock: ready`."""
        with (self.data / "serve.stderr").open("a") as errors:
            self.process = subprocess.Popen(
                [PROGRAM, "serve", "--data", str(self.data), "--workers", str(workers)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "letterlock: ready\n", line + (self.data / "serve.stderr").read_text()

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(30)
        self.process = None
        return status

    def kill(self) -> None:
        """SIGKILL of the whole process group: supervisor and workers at once."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def workers(self) -> list[int]:
        """Process ids of the workers that run now."""
        assert self.process is not None
        listed = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, timeout=10)
        return [int(pid) for pid in listed.stdout.split()]

    def context(self) -> ssl.SSLContext:
        """Verifies the server's certificate and name."""
        return ssl.create_default_context(cafile=str(self.ca))

    def imap_client(self, user: str = "alice@demo.test") -> imaplib.IMAP4_SSL:
        """imaplib over always-TLS, logged in."""
        client = imaplib.IMAP4_SSL("localhost", self.imaps, ssl_context=self.context(), timeout=30)
        client.login(user, PASSWORD)
        return client

    def pop_client(self, user: str = "alice@demo.test") -> poplib.POP3_SSL:
        """poplib over always-TLS, logged in."""
        client = poplib.POP3_SSL("localhost", self.pops, context=self.context(), timeout=30)
        client.user(user)
        client.pass_(PASSWORD)
        return client

    def fill(self, messages: Sequence[bytes], user: str = "alice@demo.test", folder: str = "INBOX") -> None:
        """APPEND them."""
        client = self.imap_client(user)
        for message in messages:
            status, answer = client.append(folder, "", None, message)  # type: ignore[arg-type]
            assert status == "OK", answer
        client.logout()

    def messages(self, user: str = "alice@demo.test", folder: str = "INBOX") -> list[bytes]:
        """All messages of a folder, as IMAP gives them."""
        client = self.imap_client(user)
        client.select(folder, readonly=True)
        _, answer = client.fetch("1:*", "(BODY.PEEK[])")
        client.logout()
        return [part[1] for part in answer if isinstance(part, tuple)]
