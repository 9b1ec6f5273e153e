"""Clients that are slow, many, or cost more than they should: the others do not notice."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
import threading
import time
from pathlib import Path

import pytest

from letterlock.store.sqlite import SqliteStore
from tests.clients.server import PASSWORD, Server
from tests.dialogue import BOX, OwnPeer
from tests.raw import Raw

USER = "alice@demo.test"
VERBS = ("GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "PRI")


def memory(pid: int) -> int:
    """Resident KiB of a process."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_cross_protocol_http_verbs_end_the_session(server: Server, protocol: str, verb: str) -> None:
    raw = Raw(server.imap if protocol == "imap" else server.pop)
    raw.line()
    raw.send(f"{verb} / HTTP/1.1\r\nHost: x\r\nz NOOP\r\nCAPA\r\n\r\n".encode())
    answer = raw.rest()
    assert answer.count(b"\n") == 1 and b"HTTP" not in answer
    raw.close()


def test_one_clients_input_does_not_stop_others_logins(server: Server) -> None:
    """Dovecot CVE-2025-59028, CVE-2019-11494: garbage of every kind on many connections, and a login meanwhile."""
    garbage = [
        b"\x16\x03\x01\xff\xff" + b"x" * 100,
        b"a AUTHENTICATE PLAIN\r\n!!!\r\n",
        b"a LOGIN {10}\r\n",
        b"(" * 5000,
        b"\0" * 5000,
        b"a AUTHENTICATE PLAIN " + b"A" * 9000 + b"\r\n",
        b"a STARTTLS\r\n\x16\x03",
        b"",
    ]
    held = []
    for n in range(240):
        raw = Raw(server.imap if n % 2 else server.imaps)
        with contextlib.suppress(ConnectionError):
            raw.send(garbage[n % len(garbage)])
        held.append(raw)
    start = time.monotonic()
    for user in ("user1@demo.test", "user2@demo.test"):
        server.imap_client(user).logout()
        server.pop_client(user).quit()
    assert time.monotonic() - start < 10
    for raw in held:
        raw.close()


def test_slow_password_guessing_does_not_slow_others(server: Server) -> None:
    """Delays after failures are waited for by who failed."""
    guessing = threading.Event()

    def guess() -> None:
        raw = Raw(server.imaps, "127.5.0.1")
        raw.tls(server)
        for n in range(4):
            with contextlib.suppress(OSError):
                raw.send(b"g%d LOGIN mallory wrong\r\n" % n)
        guessing.set()
        raw.rest()

    threads = [threading.Thread(target=guess, daemon=True) for _ in range(10)]
    for thread in threads:
        thread.start()
    guessing.wait(20)
    start = time.monotonic()
    server.imap_client("user3@demo.test").logout()
    assert time.monotonic() - start < 8


def test_sni_look_ups_and_aborted_logins_eat_no_memory(server: Server) -> None:
    """Dovecot CVE-2017-15130, CVE-2017-15132."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def visit(n: int) -> None:
        raw = socket.create_connection(("127.0.0.1", server.imaps), 20)
        tls = context.wrap_socket(raw, server_hostname=f"{n:032x}.example.com")
        tls.sendall(b"a AUTHENTICATE LOGIN\r\n" if n % 2 else b"a LOGIN {100}\r\n")
        tls.recv(100)
        tls.close()

    for n in range(300):
        visit(n)
    before = sum(map(memory, server.workers()))
    for n in range(1000, 2000):
        visit(n)
    grown = sum(map(memory, server.workers())) - before
    assert grown < 4096, f"{grown} KiB for 1,000 names"


def test_both_time_outs_and_loitering(tmp_path: Path) -> None:
    """The shortest that may be set, 30 s, on real connections: by silence after login, from the beginning before it."""
    short = "-PreAuthenticatedConnectionTimeout 00:00:30 -AuthenticatedConnectionTimeout 00:00:30"
    running = Server(tmp_path, settings=f"Set-ImapSettings {short}\nSet-PopSettings {short}")
    running.start()
    ends: dict[str, float] = {}
    last: dict[str, bytes] = {}

    def wait(name: str, raw: Raw, poke: bytes) -> None:
        start = time.monotonic()
        raw.sock.settimeout(2)
        while time.monotonic() - start < 60:
            try:
                data = raw.sock.recv(65536)
            except TimeoutError:
                with contextlib.suppress(OSError):
                    raw.send(poke)
                continue
            except OSError:
                break
            if not data:
                break
            last[name] = data
        ends[name] = time.monotonic() - start

    try:
        threads = []
        for name, port, poke in (
            ("imap loiters", running.imap, b"a NOOP\r\n"),
            ("pop3 loiters", running.pop, b"CAPA\r\n"),
            ("imaps without handshake", running.imaps, b""),
            ("pops half a line", running.pop, b"U"),
            ("imap silent", running.imaps, b""),
            ("pop3 silent", running.pops, b""),
            ("imap active", running.imaps, b"a NOOP\r\n"),
        ):
            raw = Raw(port)
            if port in (running.imaps, running.pops) and "handshake" not in name:
                raw.tls(running)
                raw.line()
                if "pop3" in name:
                    raw.send(f"USER {USER}\r\nPASS {PASSWORD}\r\nDELE 1\r\n".encode())
                    raw.until(b"-ERR")
                else:
                    raw.send(f'l LOGIN {USER} "{PASSWORD}"\r\n'.encode())
                    raw.until(b"l OK")
            threads.append(threading.Thread(target=wait, args=(name, raw, poke), daemon=True))
            threads[-1].start()
        for thread in threads[:-1]:
            thread.join(50)
        assert set(ends) == {
            "imap loiters", "pop3 loiters", "imaps without handshake", "pops half a line", "imap silent", "pop3 silent",
        }  # fmt: skip
        assert all(25 < taken < 40 for taken in ends.values()), ends
        assert b"* BYE" in last["imap loiters"] and b"* BYE" in last["imap silent"]
        assert "pop3 silent" not in last, "RFC 1939 §3: closed without a response"
        assert "Traceback" not in (running.data / "serve.stderr").read_text()
    finally:
        running.kill()


@pytest.mark.parametrize(
    "line",
    [
        b'SEARCH SUBJECT "' + b"\\\\" * 4000,
        b'SEARCH SUBJECT "' + b"\\" * 8000,
        b"FETCH 1 BODY[" + b"1." * 4000,
        b"FETCH 1 BODY[HEADER.FIELDS (" + b"a " * 4000,
        b"FETCH " + b"1," * 4000 + b"1 FLAGS",
        b"FETCH " + b"1:" * 4000 + b" FLAGS",
        b"STORE 1 FLAGS (" + b"\\" * 8000,
        b"STORE 1 FLAGS (" + b"a " * 4000,
        b'LIST "" ' + b"%*" * 400,
        b'LIST "" (' + b"a " * 4000,
        b"SEARCH " + b"NOT " * 2000,
        b"SEARCH " + b"OR ALL " * 1400,
        b"ID (" + b'"a" ' * 2000,
        b"LIST () " + b"(" * 8000,
        b"SEARCH BEFORE " + b"1" * 8000,
        b"SELECT " + b"&" * 8000,
        b"SELECT " + b"&AAAA" * 1600,
        b"A" * 8000,
        b" " * 8000,
    ],
    ids=lambda line: ascii(line[:16]),
)
def test_regular_expression_time(tmp_path: Path, line: bytes) -> None:
    """James CVE-2021-40110: no line takes long, whatever it is made of."""

    async def play() -> float:
        store = SqliteStore(tmp_path, inline=True)
        await store.create_mailbox(BOX)
        peer = OwnPeer("imap", store, frozenset())
        await peer.send(b'l LOGIN alice "secret 1"\r\ns SELECT INBOX\r\n')
        await peer.more()
        start = time.process_time()
        await peer.send(b"a " + line + b"\r\n")
        taken = time.process_time() - start
        assert b"a " in await peer.more()
        await store.close()
        return taken

    assert asyncio.run(play()) < 0.25


def test_hash_key_collisions(server: Server) -> None:
    """Cyrus CVE-2021-33582: hashes of what clients send are keyed, at random for each start."""
    assert sys.flags.hash_randomization == 1
    for pid in server.workers():
        assert b"PYTHONHASHSEED" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_limits_before_login_hold_across_workers(tmp_path: Path) -> None:
    """MaxConnections, MaxConnectionFromSingleIP and MaxConnectionsPerUser with three workers, POP3 and IMAP alike."""
    limits = "-MaxConnections 12 -MaxConnectionFromSingleIP 5 -MaxConnectionsPerUser 3"
    running = Server(tmp_path, settings=f"Set-ImapSettings {limits}\nSet-PopSettings {limits}")
    running.start(workers=3)
    try:
        for port, good, full in (
            (running.imap, b"* OK", b"* BYE [LIMIT]"),
            (running.pop, b"+OK", b"-ERR [SYS/TEMP] Too many"),
        ):
            held: list[Raw] = []
            for address, admitted in (("127.6.0.1", 5), ("127.6.0.2", 5), ("127.6.0.3", 2)):
                answers = []
                for _ in range(7):
                    held.append(Raw(port, address))
                    answers.append(held[-1].line())
                assert sum(a.startswith(good) for a in answers) == admitted, answers
                assert sum(a.startswith(full) for a in answers) == 7 - admitted
            for raw in held:
                raw.close()
            for _ in range(100):  # and all of it is free again
                raw = Raw(port, "127.6.0.1")
                if raw.line().startswith(good):
                    raw.close()
                    break
                time.sleep(0.05)
            else:
                raise AssertionError("the connections were not released")
        time.sleep(0.3)
        sessions = []
        for n in range(6):
            raw = Raw(running.imaps, f"127.6.1.{n + 1}")
            raw.tls(running)
            raw.send(f'a LOGIN {USER} "{PASSWORD}"\r\n'.encode())
            sessions.append((raw, raw.until(b"a ")))
        assert sum(a.startswith(b"a OK") for _, a in sessions) == 3
        assert sum(a.startswith(b"a NO [LIMIT]") for _, a in sessions) == 3
    finally:
        running.kill()


def test_max_command_size_is_obeyed_by_the_server(tmp_path: Path) -> None:
    sizes = "Set-ImapSettings -MaxCommandSize 1024\nSet-PopSettings -MaxCommandSize 40"
    running = Server(tmp_path, settings=sizes)
    running.start(workers=1)
    try:
        raw = Raw(running.imap)
        raw.line()
        raw.send(b"a NOOP " + b"x" * 1030 + b"\r\nb NOOP\r\n")
        assert raw.line() == b"a BAD the command is longer than 1024 bytes\r\n"
        assert raw.line() == b"b OK NOOP completed.\r\n"
        raw = Raw(running.pop)
        raw.line()
        raw.send(b"CAPA\r\nUSER " + b"x" * 40 + b"\r\n")
        assert raw.until(b".\r\n")
        assert raw.line() == b"-ERR The line is too long.\r\n"
        assert raw.line() == b""
    finally:
        running.kill()
