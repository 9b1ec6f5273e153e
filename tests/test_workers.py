"""Several workers under one supervisor: limits are exact, a crash hurts only its own, hints and restarts."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.server import PASSWORD, Server

USER = "alice@demo.test"
MESSAGE = "Subject: one\r\n\r\nbody\r\n"
ADDRESSES = [f"127.0.0.{n}" for n in range(2, 14)]  # of one address all go to one worker; of twelve, to both


class Client:
    """An IMAP connection over TLS, or in clear, from a chosen address."""

    def __init__(self, server: Server, address: str, clear: bool = False) -> None:
        port = server.imap if clear else server.imaps
        self.sock = socket.create_connection(("127.0.0.1", port), 20, source_address=(address, 0))
        if not clear:
            self.sock = server.context().wrap_socket(self.sock, server_hostname="localhost")
        self.file = self.sock.makefile("rb")
        self.greeting = self.file.readline()

    def login(self, user: str = USER) -> bytes:
        """The tagged answer."""
        return self.ask(f'l LOGIN {user} "{PASSWORD}"')[-1]

    def ask(self, command: str) -> list[bytes]:
        """All lines up to the tagged one, or the end."""
        self.sock.sendall(command.encode() + b"\r\n")
        tag = command.split()[0].encode() + b" "
        lines = []
        while True:
            lines.append(self.file.readline())
            if not lines[-1] or lines[-1].startswith(tag):
                return lines

    def close(self) -> None:
        """Without goodbye."""
        self.file.close()
        self.sock.close()


def make(directory: Path, settings: str = "") -> Server:
    """A server with two workers."""
    server = Server(directory, settings=settings)
    server.start(workers=2)
    return server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = make(tmp_path, "Set-ImapSettings -MaxConnectionsPerUser 5 -MaxConnections 20")
    try:
        yield running
        assert "Traceback" not in (running.data / "serve.stderr").read_text()
    finally:
        running.kill()


def sockets_of(pid: int) -> int:
    """Open sockets of a process."""
    found = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/{pid}/fd/{name}").startswith("socket:")
    return found


def test_connections_are_shared_out(server: Server) -> None:
    before = {pid: sockets_of(pid) for pid in server.workers()}
    assert len(before) == 2
    clients = [Client(server, a) for a in ADDRESSES]
    assert all(sockets_of(pid) > count for pid, count in before.items())
    for client in clients:
        client.close()


def test_limits_are_exact_across_workers(server: Server) -> None:
    clients = [Client(server, a) for a in ADDRESSES]
    answers = [c.login() for c in clients]
    assert sum(a.startswith(b"l OK") for a in answers) == 5
    assert sum(a.startswith(b"l NO [LIMIT]") for a in answers) == len(ADDRESSES) - 5
    more = [Client(server, a) for a in ADDRESSES]
    assert sum(c.greeting.startswith(b"* OK") for c in more) == 20 - len(ADDRESSES)
    for client in (*clients, *more):
        client.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:  # every one that has ended is counted out again
        again = [Client(server, a) for a in ADDRESSES]
        logins = sum(c.login().startswith(b"l OK") for c in again if c.greeting.startswith(b"* OK"))
        for client in again:
            client.close()
        if logins == 5:
            return
        time.sleep(0.1)
    raise AssertionError(f"{logins} logins; the count is no longer right")


def test_many_logins_at_once_do_not_slip_through(server: Server) -> None:
    clients = [Client(server, a) for a in ADDRESSES]
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda c=c: results.append(c.login())) for c in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(r.startswith(b"l OK") for r in results) == 5
    for client in clients:
        client.close()


def test_a_worker_that_is_killed_takes_nobody_else_along(server: Server) -> None:
    clients = [Client(server, a) for a in ADDRESSES]
    victim, other = server.workers()
    os.kill(victim, signal.SIGKILL)
    time.sleep(0.3)
    alive = 0
    for client in clients:
        with contextlib.suppress(OSError):
            alive += client.ask("n NOOP")[-1].startswith(b"n OK")
    assert 0 < alive < len(clients)
    deadline = time.monotonic() + 20
    while len(server.workers()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert other in server.workers()
    assert len(server.workers()) == 2
    time.sleep(1)
    again = [Client(server, a) for a in ADDRESSES[: 20 - alive]]  # what the dead one held is no longer counted
    assert all(c.greeting.startswith(b"* OK") for c in again)
    assert "ended (signal 9)" in (server.data / "serve.stderr").read_text()
    for client in (*clients, *again):
        client.close()


def test_workers_end_with_their_supervisor(server: Server) -> None:
    workers = server.workers()
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(os.path.exists(f"/proc/{pid}/exe") for pid in workers):
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{pid}/exe") for pid in workers)


def test_idle_sees_changes_of_other_workers_at_once(tmp_path: Path) -> None:
    server = make(tmp_path)
    try:
        watchers = [Client(server, a) for a in ADDRESSES]
        for client in watchers:
            assert client.login().startswith(b"l OK")
            client.ask("s SELECT INBOX")
            client.sock.sendall(b"i IDLE\r\n")
            assert client.file.readline().startswith(b"+ ")
        writer = Client(server, "127.0.0.99")
        writer.login()
        latencies = []
        for number in range(1, 6):
            writer.ask(f"a APPEND INBOX {{{len(MESSAGE)}+}}\r\n{MESSAGE}")
            start = time.monotonic()
            for client in watchers:
                lines = [client.file.readline()]
                while not lines[-1].endswith(b"EXISTS\r\n"):
                    lines.append(client.file.readline())
                assert lines[-1] == b"* %d EXISTS\r\n" % number
            latencies.append(time.monotonic() - start)
        assert min(latencies) < 0.5, latencies  # typically a few milliseconds; the machine may be busy
        for client in (*watchers, writer):
            client.close()
    finally:
        server.kill()


def test_a_failed_login_costs_more_at_every_worker(server: Server) -> None:
    for address in ADDRESSES[:4]:
        client = Client(server, address)
        client.ask(f"x LOGIN {USER} wrong")
        client.close()
    slow = []
    for address in ADDRESSES[4:8]:
        client = Client(server, address)
        start = time.monotonic()
        assert client.ask(f"x LOGIN {USER} wrong")[-1].startswith(b"x NO [AUTHENTICATIONFAILED]")
        slow.append(time.monotonic() - start)
        client.close()
    assert min(slow) > 0.45, slow


# --- restarts


def test_a_restart_refuses_nobody_and_keeps_sessions(server: Server) -> None:
    stayed = Client(server, "127.0.0.1")
    assert stayed.login().startswith(b"l OK")
    stop, failures, made = threading.Event(), [], [0]

    def connect() -> None:
        while not stop.is_set():
            try:
                client = Client(server, "127.0.0.7")
                assert client.greeting.startswith(b"* OK"), client.greeting
                client.close()
                made[0] += 1
            except (OSError, AssertionError) as error:
                failures.append(repr(error))

    thread = threading.Thread(target=connect)
    thread.start()
    for banner in ("first", "second", "third"):
        server.shell(f"Set-ImapSettings -Banner {banner}; Restart-Service LetterlockImap4; Restart-Service *Imap4BE")
        fresh = Client(server, "127.0.0.8")
        assert fresh.greeting == f"* OK {banner}\r\n".encode()
        fresh.close()
    stop.set()
    thread.join(20)
    assert not failures
    assert made[0] > 5
    assert stayed.ask("n NOOP")[-1].startswith(b"n OK")
    server.shell("Restart-Service LetterlockImap4 -Force")
    assert stayed.file.readline().startswith(b"* BYE")
    stayed.close()


def test_a_restart_ends_what_the_new_settings_would_not_allow(server: Server) -> None:
    server.shell("Set-ImapSettings -LoginType PlainTextLogin; Restart-Service LetterlockImap4")
    clear, waiting, secure = (
        Client(server, "127.0.0.1", clear=True),
        Client(server, "127.0.0.1", clear=True),
        Client(server, "127.0.0.1"),
    )
    assert clear.login().startswith(b"l OK")
    assert secure.login().startswith(b"l OK")
    server.shell("Set-ImapSettings -LoginType SecureLogin; Restart-Service LetterlockImap4")
    assert clear.file.readline().startswith(b"* BYE")
    assert waiting.file.readline().startswith(b"* BYE")
    assert secure.ask("n NOOP")[-1].startswith(b"n OK")
    for client in (clear, waiting, secure):
        client.close()


def test_a_restart_that_cannot_be_leaves_the_old_service_running(server: Server) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server.shell(f"Set-ImapSettings -SSLBindings 127.0.0.1:{server.imaps},127.0.0.1:{port}")
        done = server.run("shell", "-c", "Restart-Service LetterlockImap4", status=1)
        assert "cannot listen on 127.0.0.1" in done.stderr
        client = Client(server, "127.0.0.1")
        assert client.login().startswith(b"l OK")
        client.close()
    assert "Running" in server.shell("Get-Service LetterlockImap4")


def test_bindings_come_and_go_with_a_restart(server: Server) -> None:
    server.shell(f"Set-ImapSettings -UnencryptedOrTLSBindings @{{Remove='127.0.0.1:{server.imap}'}}")
    Client(server, "127.0.0.1", clear=True).close()
    server.shell("Restart-Service LetterlockImap4")
    with pytest.raises(ConnectionRefusedError):
        Client(server, "127.0.0.1", clear=True)
    Client(server, "127.0.0.1").close()


def test_stopping_the_back_end_ends_its_sessions(server: Server) -> None:
    client = Client(server, "127.0.0.1")
    client.login()
    server.shell("Stop-Service LetterlockImap4BE")
    assert client.file.readline().startswith(b"* BYE")
    client.close()
    other = Client(server, "127.0.0.1")
    assert other.login().startswith(b"l NO [UNAVAILABLE]")
    other.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give rights up")
def test_root_is_given_up(tmp_path: Path) -> None:
    server = Server(tmp_path)
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 65534, 65534)
    for parent in tmp_path.parents:
        if parent != Path("/") and parent.stat().st_mode & 0o001 == 0:
            os.chmod(parent, parent.stat().st_mode | 0o711)
    server.start(workers=2)
    try:
        assert server.process is not None
        for pid in server.workers():
            status = Path(f"/proc/{pid}/status").read_text()
            assert "Uid:\t65534\t65534\t65534\t65534" in status
            assert "Groups:\t \n" in status or "Groups:\t\n" in status
        assert "Uid:\t0\t65534\t0\t65534" in Path(f"/proc/{server.process.pid}/status").read_text()
        client = Client(server, "127.0.0.1")
        assert client.login().startswith(b"l OK")
        assert client.ask(f"a APPEND INBOX {{{len(MESSAGE)}+}}\r\n{MESSAGE}")[-1].startswith(b"a OK")
        client.close()
        assert {p.stat().st_uid for p in (server.data / "mailboxes").iterdir()} == {65534}
    finally:
        server.kill()


def test_the_number_of_workers_is_checked(tmp_path: Path) -> None:
    server = Server(tmp_path)
    for wrong in ("0", "-1", "257", "two"):
        done = server.run("serve", "--workers", wrong, status=2)
        assert "workers" in done.stderr
