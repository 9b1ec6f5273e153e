"""docs/hardening.md, run step by step: `python -m tests.hardening` writes its outputs and pictures anew.

Blocks marked `console` hold commands (`letterlock> …` for the management shell, `$ …` for the command line) and what
they print. Comments between them are what happens meanwhile: `days N PHASE`, `strangers`, `picture NAME`.
"""

from __future__ import annotations

import contextlib
import datetime
import imaplib
import json
import os
import poplib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.clients.server import PASSWORD, PROGRAM, Server, free_ports
from tests.programs import path

PAGE = Path(__file__).parent.parent / "docs" / "hardening.md"
IMAGES = PAGE.parent / "images"
MOST_OCTETS = 300_000  # of all pictures together
USERS = ("alice", "bob", "carol", "dave", "jira", "scanner")
STEP = re.compile(r"^```console\n(.*?)^```$|<!-- (.*?) -->", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(letterlock> |\$ )(.*)$", re.MULTILINE)
SHELL, LINE = "letterlock> ", "$ "


class Office:
    """The server and everybody who logs in to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.server = Server(directory, users=USERS)
        self.quarantine = free_ports(1)[0]
        self.passwords = dict.fromkeys(USERS, PASSWORD)
        self.server.start(workers=2)

    # --- clients

    def imap(self, user: str, address: str, port: int, name: str = "", tls: str = "", how: str = "LOGIN") -> bool:
        """Log in once; whether it was let in."""
        source = (address, 0)
        secret = self.passwords[user]
        if tls == "implicit":
            client: imaplib.IMAP4 = _Imaps(port, source, self.server)
        else:
            client = _Imap(port, source)
        if tls == "starttls":
            client.starttls(self.server.context())
        if name:
            product, _, version = name.rpartition(" ")
            client.xatom("ID", f'("name" "{product}" "version" "{version}")')
        try:
            if how == "LOGIN":
                client.login(f"{user}@demo.test", secret)
            else:
                client.authenticate("PLAIN", lambda _: f"\0{user}@demo.test\0{secret}".encode())
            return True
        except imaplib.IMAP4.error:
            return False
        finally:
            with contextlib.suppress(imaplib.IMAP4.error, OSError):
                client.logout()

    def pop(self, user: str, port: int, tls: bool) -> bool:
        """Log in once; whether it was let in."""
        client = _Pops(port, self.server) if tls else _Pop(port)
        try:
            client.user(f"{user}@demo.test")
            client.pass_(self.passwords[user])
            return True
        except poplib.error_proto:
            return False
        finally:
            client.quit()

    def day(self, phase: str) -> None:
        """Everybody logs in, and is let in or not as the page says."""
        s, changed = self.server, phase != "before"
        clear = s.imap
        for _ in range(3):
            entered = (
                self.imap("alice", "127.0.0.11", s.imaps, "Thunderbird 128.4", "implicit") if changed
                else self.imap("alice", "127.0.0.11", clear, "Thunderbird 128.4"),
                self.pop("bob", s.pops if changed else s.pop, changed),
                self.imap("carol", "127.0.0.13", s.imaps, "Mac OS X Mail 16.0", "implicit"),
                self.imap("jira", "127.0.0.31", clear, "", "starttls" if changed else "", "PLAIN"),
                self.imap("scanner", "127.0.0.21", clear),
            )  # fmt: skip
            assert all(entered), (phase, entered)
        if phase != "retired":
            assert self.imap("dave", "127.0.0.14", s.imaps, "Thunderbird 128.4", "implicit")
            assert self.imap("dave", "127.0.0.15", clear) is (phase != "enforced")
        else:
            assert not self.imap("dave", "127.0.0.15", s.imaps, "", "implicit")
            self.passwords["dave"] = "a new one, 4 words"
            assert self.imap("dave", "127.0.0.14", s.imaps, "Thunderbird 128.4", "implicit")
        time.sleep(1.3)  # the log is written

    def night(self) -> None:
        """What was logged and reported until now was a day earlier."""
        for log in (self.server.data / "logs").rglob("*.LOG"):
            text = re.sub(r"^\d{4}-\d\d-\d\d", _earlier, log.read_text(), flags=re.MULTILINE)
            log.write_text(text)
        for history in self.directory.glob("*.history.json"):
            found = json.loads(history.read_text())
            for entry in found["reports"]:
                entry["at"] -= 86400
            history.write_text(json.dumps(found))

    def strangers(self) -> None:
        """The scanner at its own port, and somebody else."""
        assert self.imap("scanner", "127.0.0.21", self.quarantine)
        assert not self.imap("alice", "127.0.0.77", self.quarantine)
        time.sleep(3.3)

    # --- commands

    def run(self, prompt: str, command: str) -> str:
        """What a command prints, as the page has it."""
        until = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=120)).date().isoformat()
        command = re.sub(r"-ExpiresOn \S+", f"-ExpiresOn {until}", command).replace(":144", f":{self.quarantine}")
        environment = {**os.environ, "LETTERLOCK_DATA": str(self.server.data)}
        environment["PATH"] = f"{Path(PROGRAM).parent}:{environment['PATH']}"
        words = [PROGRAM, "shell", "-c", command] if prompt == SHELL else ["sh", "-c", command]
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, env=environment,
            cwd=self.directory,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout)
        return self._as_on_the_page(done.stdout)

    def _as_on_the_page(self, text: str) -> str:
        s = self.server
        for here, there in ((s.imap, 143), (s.imaps, 993), (s.pop, 110), (s.pops, 995), (self.quarantine, 144)):
            text = re.sub(rf":{here}\b", f":{there}", text)
        return "\n".join(line.rstrip() for line in text.replace(str(s.data), "/srv/mail").strip("\n").split("\n"))

    def picture(self, name: str, target: Path, height: int) -> None:
        """The report as a browser shows it."""
        shutil.copy(self.directory / "readiness.html", self.directory / f"{name}.html")
        page = (self.directory / f"{name}.html").as_uri()
        with tempfile.TemporaryDirectory() as profile:
            words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
            subprocess.run(
                [path("chromium"), *words, f"--window-size=1000,{height}", f"--screenshot={target}", page],
                check=True, capture_output=True, timeout=120,
            )  # fmt: skip

    def close(self) -> None:
        """End the server."""
        self.server.kill()


def _earlier(found: re.Match[str]) -> str:
    return (datetime.date.fromisoformat(found[0]) - datetime.timedelta(days=1)).isoformat()


class _Imap(imaplib.IMAP4):
    """From an address of its own."""

    def __init__(self, port: int, source: tuple[str, int]) -> None:
        self.source = source
        super().__init__("localhost", port, timeout=30)

    def _create_socket(self, timeout: float | None) -> object:
        return _connect(self.port, self.source)


class _Imaps(_Imap):
    """With TLS from the first byte."""

    def __init__(self, port: int, source: tuple[str, int], server: Server) -> None:
        self._context = server.context()
        super().__init__(port, source)

    def _create_socket(self, timeout: float | None) -> object:
        return self._context.wrap_socket(_connect(self.port, self.source), server_hostname="localhost")


class _Pop(poplib.POP3):
    """From Bob's address."""

    def __init__(self, port: int) -> None:
        super().__init__("localhost", port, timeout=30)

    def _create_socket(self, timeout: float | None) -> object:
        return _connect(self.port, ("127.0.0.12", 0))


class _Pops(_Pop):
    """With TLS from the first byte."""

    def __init__(self, port: int, server: Server) -> None:
        self._context = server.context()
        super().__init__(port)

    def _create_socket(self, timeout: float | None) -> object:
        return self._context.wrap_socket(_connect(self.port, ("127.0.0.12", 0)), server_hostname="localhost")


def _connect(port: int, source: tuple[str, int]) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 30, source_address=source)


def walk(office: Office, picture: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """Every block of the page, as it stands there and as it is now, in order."""
    for step in STEP.finditer(PAGE.read_text()):
        block, happens = step.groups()
        if happens is not None:
            what, *words = happens.split()
            if what == "days":
                for _ in range(int(words[0])):
                    office.night()
                    office.day(words[1])
                time.sleep(2)  # so are counts
            elif what == "strangers":
                office.strangers()
            else:
                picture(words[0])
            continue
        now = []
        for prompt, command in COMMAND.findall(block):
            said = office.run(prompt, command)
            now.append(f"{prompt}{command}\n" + (f"{said}\n" if said else ""))
        yield block, "".join(now)


def alike(text: str) -> str:
    """Without what differs from run to run: times, identities, and the room that columns take because of them."""
    text = re.sub(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|\+00:00)?)?", "DATE", text)
    text = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8}\b", "IDENTITY", text)
    text = re.sub(r"\b[A-P]{4}\d+ NO", "TAG NO", text)  # imaplib's tags
    return re.sub(r"[ \t]+|-{3,}", " ", text)


def main() -> int:
    """Write outputs and pictures anew."""
    IMAGES.mkdir(exist_ok=True)
    heights = {"before": 1250, "progress": 1490, "after": 1010}
    with tempfile.TemporaryDirectory() as name:
        office = Office(Path(name))
        try:
            text = PAGE.read_text()
            found = list(walk(office, lambda n: office.picture(n, IMAGES / f"hardening-{n}.png", heights[n])))
            for old, new in found:
                text = text.replace(f"```console\n{old}```", f"```console\n{new}```", 1)
            PAGE.write_text(text)
        finally:
            office.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
