"""`letterlock` as a user types it: init, serve, demo, and their one-line refusals."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.clients.server import PROGRAM, Server


def test_demo_check_passes(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run([PROGRAM, "demo", "--check"], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def test_init_makes_private_keys_and_refuses_a_second_time(tmp_path: Path) -> None:
    data = tmp_path / "d"
    subprocess.run([PROGRAM, "init", "--data", str(data), "--hostname", "mail.example.com"], check=True)
    assert stat.S_IMODE((data / "certificate.pem").stat().st_mode) & 0o044 == 0o044
    text = (data / "certificate.pem").read_text()
    assert text.count("BEGIN CERTIFICATE") == 1
    assert "PRIVATE" not in text
    for path in data.rglob("*"):
        if path.is_file() and path.stat().st_size < 1_000_000 and b"PRIVATE KEY" in path.read_bytes():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    again = subprocess.run(
        [PROGRAM, "init", "--data", str(data), "--hostname", "mail.example.com"], capture_output=True, text=True
    )
    assert again.returncode in (1, 2)
    assert again.stderr.startswith("letterlock: error: ")
    assert len(again.stderr.splitlines()) == 1


def test_nothing_listens_until_somebody_starts_it(tmp_path: Path) -> None:
    server = Server(tmp_path)
    for name in ("LetterlockImap4", "LetterlockPop3"):
        server.shell(f"Set-Service {name} -StartupType Manual")
    server.start()
    try:
        for port in (server.imap, server.imaps, server.pop, server.pops):
            with socket.socket() as s:
                assert s.connect_ex(("127.0.0.1", port)) != 0
        server.shell("Start-Service LetterlockImap4")
        client = server.imap_client()
        client.logout()
        server.shell("Stop-Service LetterlockImap4BE")
        context = server.context()
        with socket.create_connection(("127.0.0.1", server.imaps)) as raw:
            tls = context.wrap_socket(raw, server_hostname="localhost")
            tls.recv(1000)
            tls.sendall(b'a LOGIN alice@demo.test "correct horse 7"\r\n')
            assert b"a NO [UNAVAILABLE]" in tls.recv(1000)
        assert server.stop() == 0
    finally:
        server.kill()


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    server = Server(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", server.imaps))
        taken.listen()
        done = subprocess.run(
            [PROGRAM, "serve", "--data", str(server.data)], capture_output=True, text=True, timeout=30
        )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("letterlock: error: ")]
    assert len(lines) == 1
    assert f"127.0.0.1:{server.imaps}" in lines[0]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("fault", ["garbage", "missing", "of another certificate"])
def test_a_key_that_cannot_be_used_is_one_clear_line(tmp_path: Path, fault: str) -> None:
    server = Server(tmp_path)
    [key] = [p for p in (server.data / "certificates").iterdir() if b"PRIVATE KEY" in p.read_bytes()]
    if fault == "garbage":
        key.write_text("not a key")
    elif fault == "missing":
        key.unlink()
    else:
        made = ec.generate_private_key(ec.SECP256R1())
        key.write_bytes(
            made.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
    done = subprocess.run([PROGRAM, "serve", "--data", str(server.data)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and done.stdout == ""
    assert "Traceback" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("letterlock: error: ")]
    assert key.stem in line, line  # the certificate's thumbprint


def test_a_data_directory_of_a_newer_version_is_one_clear_line(tmp_path: Path) -> None:
    server = Server(tmp_path)
    with sqlite3.connect(server.data / "letterlock.db") as db:
        db.execute("PRAGMA user_version = 9999")
    for words in (["serve"], ["get-imapsettings"]):
        done = subprocess.run([PROGRAM, *words, "--data", str(server.data)], capture_output=True, text=True, timeout=30)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("letterlock: error: ") and "newer version of letterlock" in done.stderr


def test_a_mailbox_of_a_newer_version_says_so_to_its_user_only(tmp_path: Path) -> None:
    server = Server(tmp_path)
    [first, *_] = (server.data / "mailboxes").glob("*.db")
    server.start()
    try:
        with sqlite3.connect(first) as db:
            db.execute("PRAGMA user_version = 9999")
        answers = []
        for user in server.users:
            client = server.imap_client(user)
            answers.append(client.select())
        assert sorted(status for status, _ in answers) == ["NO", "OK"]
        text = next(answer[0] for status, answer in answers if status == "NO")
        assert text is not None and b"newer Letterlock" in text
        assert "Traceback" not in (server.data / "serve.stderr").read_text()
    finally:
        server.kill()


def test_serving_what_is_no_data_directory_is_one_clear_line(tmp_path: Path) -> None:
    for data in (tmp_path, tmp_path / "nowhere"):
        done = subprocess.run([PROGRAM, "serve", "--data", str(data)], capture_output=True, text=True, timeout=30)
        assert done.returncode == 1
        assert done.stderr.startswith("letterlock: error: ") and done.stderr.count("\n") == 1
