"""Moving mail with a server that runs, that is killed, or that somebody else uses; read by Dovecot's tools."""

from __future__ import annotations

import json
import os
import pty
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from letterlock.transfer import mbox
from tests.clients.server import PROGRAM, Server
from tests.programs import need

ALICE, BOB = "alice@demo.test", "bob@demo.test"
DATE = b"17-Jul-1996 02:44:25 -0700"
LONG = os.environ.get("LETTERLOCK_LONG") == "1"


def make(path: Path, count: int, size: int = 500) -> None:
    with path.open("wb") as file:
        for number in range(count):
            raw = b"Subject: %d\r\n\r\nFrom %d\r\n" % (number, number) + b"x" * size + b"\r\n"
            mbox.write_message(file, raw, b"\\Seen", DATE)


def subjects(server: Server, user: str = ALICE) -> list[bytes]:
    client = server.imap_client(user)
    client.select("INBOX", readonly=True)
    _, answer = client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
    client.logout()
    return [part[1].strip() for part in answer if isinstance(part, tuple)]


def request(server: Server, words: list[str]) -> dict[str, Any]:
    (row,) = json.loads(server.run(*words, "--output", "json").stdout)
    return dict(row)


def taken(server: Server) -> int:
    """Receipts in the only mailbox that has some."""
    found = 0
    for path in (server.data / "mailboxes").glob("*.db"):
        db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        found += db.execute("SELECT count(*) FROM receipt").fetchone()[0]
        db.close()
    return found


def test_kill_nine_in_the_middle_loses_and_doubles_nothing(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "many.mbox"
    count = 60_000 if LONG else 20_000
    make(path, count)
    words = ["new-mailboximportrequest", ALICE, str(path)]
    command = [PROGRAM, words[0], "--data", str(server.data), *words[1:]]
    for delay in (0.0, 0.13, 0.29):
        before = taken(server)
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while taken(server) <= before:
            assert running.poll() is None, running.communicate()
        time.sleep(delay)
        server.kill()
        assert "the server ended before it answered" in running.communicate(timeout=20)[1]
        server.start()
        rows = json.loads(server.run("get-mailboximportrequest", "--output", "json").stdout)
        assert rows[0]["Status"] == "Interrupted"
    last = request(server, words)
    assert last["Messages"] + last["AlreadyPresent"] == count and last["AlreadyPresent"] >= 600
    found = subjects(server)
    assert len(found) == count and len(set(found)) == count
    again = request(server, words)
    assert (again["Messages"], again["AlreadyPresent"]) == (0, count)


def test_sessions_see_what_comes_and_progress_is_shown_everywhere(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "many.mbox"
    make(path, 30_000)
    idle = server.imap_client()
    idle.select("INBOX")
    running = subprocess.Popen(
        [PROGRAM, "new-mailboximportrequest", "--data", str(server.data), ALICE, str(path)], stdout=subprocess.DEVNULL
    )
    seen: list[int] = []
    while running.poll() is None:
        rows = json.loads(server.run("get-mailboximportrequest", "--output", "json").stdout)
        seen += [r["PercentComplete"] for r in rows]
    assert running.returncode == 0
    assert seen == sorted(seen) and any(0 < s < 100 for s in seen)
    idle.noop()
    assert int(idle.response("EXISTS")[1][-1] or 0) == 30_000
    idle.logout()


def test_a_bar_on_a_terminal_and_ctrl_c(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "many.mbox"
    make(path, 20_000)
    child, terminal = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm", COLUMNS="100")
        os.execv(PROGRAM, [PROGRAM, "new-mailboximportrequest", "--data", str(server.data), ALICE, str(path)])
    shown = b""
    while b"Import alice@demo.test" not in shown or b"/100" not in shown:
        shown += os.read(terminal, 4096)
    os.kill(child, signal.SIGINT)
    os.close(terminal)
    assert os.waitpid(child, 0)[1]
    deadline = time.monotonic() + 20
    while True:
        (row,) = json.loads(server.run("get-mailboximportrequest", "--output", "json").stdout)
        if row["Status"] == "Failed":
            break
        assert time.monotonic() < deadline, row
    assert "cancelled: Import alice@demo.test" in row["Message"] and 0 < row["Messages"] < 20_000


def test_removing_a_request_ends_it(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "many.mbox"
    make(path, 20_000)
    command = [PROGRAM, "new-mailboximportrequest", "--data", str(server.data), ALICE, str(path)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (rows := json.loads(server.run("get-mailboximportrequest", "--output", "json").stdout)):
        assert running.poll() is None
    server.run("remove-mailboximportrequest", str(rows[0]["Identity"]))
    assert "was removed" in running.communicate(timeout=60)[1]
    assert 0 < len(subjects(server)) < 20_000


def test_dovecot_reads_our_exports(server: Server, tmp_path: Path) -> None:
    need("doveadm")
    bodies = [b"Subject: %d\r\n\r\nbody %d\r\n" % (n, n) for n in range(7)]
    server.fill(bodies)
    client = server.imap_client()
    client.select("INBOX")
    client.store("1:3", "+FLAGS", "(\\Seen)")
    client.store("2", "+FLAGS", "(\\Flagged $Forwarded)")
    client.logout()
    for form, name in (("Mbox", "m"), ("Maildir", "d")):
        server.run("new-mailboxexportrequest", ALICE, str(tmp_path / name), "--format", form)
    owner = "mail" if os.geteuid() == 0 else ""
    if owner:
        subprocess.run(["chown", "-R", f"{owner}:{owner}", str(tmp_path / "m"), str(tmp_path / "d")], check=True)
        for parent in (tmp_path, *tmp_path.parents):
            if parent != Path("/") and parent.stat().st_mode & 0o001 == 0:
                parent.chmod(parent.stat().st_mode | 0o711)
    for location in (f"mbox:{tmp_path}/mm:INBOX={tmp_path}/m/INBOX.mbox", f"maildir:{tmp_path}/d"):
        (tmp_path / "mm").mkdir(exist_ok=True)
        (tmp_path / "mm").chmod(0o777)
        config = tmp_path / "dovecot.conf"
        run_as = f"mail_uid = {owner}\nmail_gid = {owner}\nmail_access_groups = {owner}\n" if owner else ""
        config.write_text(f"mail_location = {location}\nfirst_valid_uid = 0\nlog_path = /dev/stderr\n{run_as}")
        config.chmod(0o644)
        command = ["doveadm", "-c", str(config), "-f", "json", "fetch", "flags text", "mailbox", "INBOX"]
        if owner:
            command = ["setpriv", f"--reuid={owner}", f"--regid={owner}", "--clear-groups", *command]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env={**os.environ, "USER": "x", "HOME": str(tmp_path)}
        )
        assert done.returncode == 0, done.stderr
        rows = json.loads(done.stdout)
        flags = [set(r["flags"].split()) - {"\\Recent"} for r in rows]
        assert sum("\\Seen" in f for f in flags) == 3 and sum("\\Flagged" in f for f in flags) == 1
        if location.startswith("maildir:"):  # of an mbox, Dovecot knows its own keywords only
            assert sum("$Forwarded" in f for f in flags) == 1
        ends = sorted(r["text"].replace("\r\n", "\n").rpartition("\n\n")[2] for r in rows)
        assert ends == [f"body {n}\n" for n in range(7)]


@pytest.mark.skipif(not LONG, reason="the long form: LETTERLOCK_LONG=1")
def test_a_hundred_thousand_messages(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "many.mbox"
    make(path, 100_000, 2000)
    start = time.monotonic()
    assert request(server, ["new-mailboximportrequest", ALICE, str(path)])["Messages"] == 100_000
    taken = time.monotonic() - start
    assert taken < 600, taken
    request(server, ["new-mailboxexportrequest", ALICE, str(tmp_path / "out")])
    with (tmp_path / "out" / "INBOX.mbox").open("rb") as ours, path.open("rb") as theirs:
        while part := ours.read(1 << 20):
            assert part == theirs.read(1 << 20)
