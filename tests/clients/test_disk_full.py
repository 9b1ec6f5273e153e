"""A disk that fills up, seen by real clients: NO with a clear text, nothing acknowledged lost, and on it goes."""

from __future__ import annotations

import contextlib
import imaplib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.server import Server

FULL = rb"\[OVERQUOTA\] (The disk that keeps the mailboxes is full|There is no space on the server's disk)"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    mount = shutil.which("mount")
    if mount is None or os.geteuid():
        pytest.skip("needs root to mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=24m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def message(n: int, size: int) -> bytes:
    return b"Subject: number %d\r\nMessage-ID: <%d@example.com>\r\n\r\n" % (n, n) + b"z" * size + b"\r\n"


def fill(disk: Path, leave: int) -> Path:
    """Take all space but so much."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        while (free := os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize) > leave:
            with contextlib.suppress(OSError):
                file.write(b"\0" * min(free - leave, 65536))
    return filler


def append(client: imaplib.IMAP4, raw: bytes) -> tuple[str, bytes]:
    status, answer = client.append("INBOX", "", None, raw)  # type: ignore[arg-type]
    return status, answer[0]


def numbers(server: Server) -> set[int]:
    """What is in INBOX, and whole."""
    found = set()
    for raw in server.messages():
        match = re.match(rb"Subject: number (\d+)\r\n", raw)
        assert match and raw.endswith(b"z\r\n"), raw[:100]
        found.add(int(match[1]))
    return found


@pytest.mark.parametrize("size", [2000, 600_000], ids=["small", "large"])
def test_disk_full_through_a_client(disk: Path, size: int) -> None:
    server = Server(disk / "server", settings="Set-ImapSettings -ProtocolLogEnabled $true")
    server.start()
    try:
        client = server.imap_client()
        client.select()
        kept = set()
        for n in range(5):
            assert append(client, message(n, size))[0] == "OK"
            kept.add(n)
        filler = fill(disk, 0)
        refusal = b""
        for n in range(5, 400):
            status, refusal = append(client, message(n, size))
            if status != "OK":
                break
            kept.add(n)
        assert re.match(FULL, refusal), refusal
        # the session goes on: reading works, and what would write says why it cannot, or can
        assert client.noop()[0] == "OK"
        assert client.search(None, "ALL")[0] == "OK"
        assert client.fetch("1", "(BODY.PEEK[])")[0] == "OK"
        for attempt in (
            lambda: client.create("more"),
            lambda: client.copy("1", "Archive"),
            lambda: client.store("1", "+FLAGS", "(\\Flagged)"),
        ):
            status, answer = attempt()
            assert status == "OK" or b"full" in answer[0], answer
        # so do new logins and POP3
        server.imap_client("bob@demo.test").logout()
        pop = server.pop_client()
        assert pop.stat()[0] == len(kept)
        pop.quit()
        filler.unlink()
        assert append(client, message(1000, size))[0] == "OK"
        kept.add(1000)
        client.logout()
        assert numbers(server) == kept
        server.kill()
        server.start()
        assert numbers(server) == kept
        assert "Traceback" not in (server.data / "serve.stderr").read_text()
    finally:
        server.kill()


def test_killed_while_the_disk_is_full(disk: Path) -> None:
    server = Server(disk / "server")
    server.start()
    try:
        client = server.imap_client()
        kept = set()
        for n in range(3):
            assert append(client, message(n, 5000))[0] == "OK"
            kept.add(n)
        filler = fill(disk, 0)
        for n in range(3, 400):
            if append(client, message(n, 5000))[0] != "OK":
                break
            kept.add(n)
        server.kill()
        filler.unlink()
        server.start()
        assert numbers(server) == kept
        client = server.imap_client()
        assert append(client, message(2000, 5000))[0] == "OK"
    finally:
        server.kill()
