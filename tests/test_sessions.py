"""Sessions side by side on a real server: IDLE, what may be reported when, limits, switches."""

from __future__ import annotations

import imaplib
import socket
import ssl
import time
from collections.abc import Iterator

import pytest

from tests.clients.server import PASSWORD, Server

USER = "alice@demo.test"
MESSAGE = b"Subject: one\r\n\r\nbody\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Three connections a user, eight an address."""
    limits = "-MaxConnectionsPerUser 3 -MaxConnectionFromSingleIP 8"
    running = Server(tmp_path_factory.mktemp("sessions"), settings=f"Set-ImapSettings {limits}")
    running.start()
    try:
        yield running
        assert "Traceback" not in (running.data / "serve.stderr").read_text()
    finally:
        running.kill()


class Line:
    """An IMAP connection that sends and reads lines."""

    def __init__(self, server: Server, user: str = USER) -> None:
        raw = socket.create_connection(("127.0.0.1", server.imaps), 20)
        self.sock: ssl.SSLSocket = server.context().wrap_socket(raw, server_hostname="localhost")
        self.file = self.sock.makefile("rb")
        self.greeting = self.file.readline()
        self.user = user

    def __enter__(self) -> Line:
        assert self.ask(f'login LOGIN {self.user} "{PASSWORD}"')[-1].startswith(b"login OK")
        return self

    def __exit__(self, *_: object) -> None:
        self.ask("bye LOGOUT")
        self.sock.close()
        time.sleep(0.05)

    def ask(self, command: str) -> list[bytes]:
        """All lines up to the tagged one."""
        self.sock.sendall(command.encode() + b"\r\n")
        tag = command.split()[0].encode() + b" "
        lines = []
        while True:
            lines.append(self.file.readline())
            if not lines[-1] or lines[-1].startswith(tag):
                return lines


def fresh(client: Line, name: str, count: int) -> None:
    """A folder with so many messages, opened."""
    client.ask(f"f CREATE {name}")
    for _ in range(count):
        client.ask(f"f APPEND {name} {{{len(MESSAGE)}+}}\r\n{MESSAGE.decode()}")
    assert client.ask(f"f SELECT {name}")[-1].startswith(b"f OK [READ-WRITE]")


def test_idle_sees_what_another_session_does_at_once(server: Server) -> None:
    with Line(server) as one, Line(server) as two:
        fresh(one, "idle", 1)
        two.ask("s SELECT idle")
        one.sock.sendall(b"i IDLE\r\n")
        assert one.file.readline().startswith(b"+ ")
        start = time.monotonic()
        two.ask(f"a APPEND idle {{{len(MESSAGE)}+}}\r\n{MESSAGE.decode()}")
        assert one.file.readline() == b"* 2 EXISTS\r\n"
        assert time.monotonic() - start < 5
        two.ask("b STORE 1 +FLAGS (\\Deleted)")
        lines = [one.file.readline(), one.file.readline()]
        assert any(b"* 1 FETCH (FLAGS (\\Deleted" in line for line in lines), lines
        two.ask("c EXPUNGE")
        assert one.file.readline() == b"* 1 EXPUNGE\r\n"
        one.sock.sendall(b"DONE\r\n")
        assert any(one.file.readline().startswith(b"i OK") for _ in range(3))  # RECENT may come before it


def test_expunge_is_not_reported_during_fetch_store_or_search_by_number(server: Server) -> None:
    """RFC 3501 §7.4.1."""
    with Line(server) as one, Line(server) as two:
        fresh(one, "numbers", 3)
        two.ask("s SELECT numbers")
        two.ask("a STORE 1 +FLAGS (\\Deleted)")
        two.ask("b EXPUNGE")
        for command in ("FETCH 3 (UID)", "STORE 3 +FLAGS (\\Seen)", "SEARCH ALL"):
            answer = one.ask("x " + command)
            assert not [line for line in answer if line.endswith(b" EXPUNGE\r\n")], answer
        assert b"* 3 FETCH" in b"".join(one.ask("x FETCH 3 (UID FLAGS)"))
        assert b"* 1 EXPUNGE\r\n" in one.ask("n NOOP")
        seen = one.ask("x FETCH 2 (FLAGS)")[0]
        assert seen.startswith(b"* 2 FETCH") and b"\\Seen" in seen


def test_uids_move_copy_and_condstore(server: Server) -> None:
    with Line(server) as client:
        fresh(client, "box", 4)
        client.ask("c CREATE other")
        assert b"[COPYUID" in client.ask("a COPY 1:2 other")[-1]
        moved = client.ask("b MOVE 1 other")
        assert moved[0].startswith(b"* OK [COPYUID") and moved[1] == b"* 1 EXPUNGE\r\n"
        assert client.ask("m COPY 1 nowhere")[-1].startswith(b"m NO [TRYCREATE]")
        stored = client.ask("s STORE 1 (UNCHANGEDSINCE 1) +FLAGS (\\Seen)")
        assert b"[MODIFIED 1]" in stored[-1]
        assert client.ask("e SEARCH RETURN (MIN MAX COUNT) ALL")[0] == b'* ESEARCH (TAG "e") MIN 1 MAX 3 COUNT 3\r\n'
        assert client.ask("q SEARCH SUBJECT one BODY BODY")[0] == b"* SEARCH 1 2 3\r\n"
        assert client.ask("q SEARCH BODY absent")[0] == b"* SEARCH\r\n"
        assert client.ask("r FETCH 9 (UID)")[-1].startswith(b"r BAD")


def test_connections_of_one_user_are_limited_exactly(server: Server) -> None:
    with Line(server), Line(server), Line(server):
        fourth = Line(server)
        assert fourth.ask(f'a LOGIN {USER} "{PASSWORD}"')[-1].startswith(b"a NO [LIMIT]")
        fourth.sock.close()
    with Line(server) as again:
        assert again.ask("n NOOP")[-1].startswith(b"n OK")


def test_connections_of_one_address_are_limited(server: Server) -> None:
    time.sleep(0.2)
    held = [Line(server) for _ in range(8)]
    assert all(c.greeting.startswith(b"* OK") for c in held)
    assert Line(server).greeting.startswith(b"* BYE [LIMIT]")
    for c in held:
        c.sock.close()


def test_a_protocol_that_is_off_for_a_mailbox(server: Server) -> None:
    time.sleep(0.2)
    server.run("set-casmailbox", "bob@demo.test", "--imap-enabled", "false")
    with pytest.raises(imaplib.IMAP4.error, match="CONTACTADMIN"):
        server.imap_client("bob@demo.test")
    server.pop_client("bob@demo.test").quit()


def test_a_changed_password_counts_at_once(server: Server) -> None:
    server.pop_client("bob@demo.test").quit()
    server.run("set-mailboxpassword", "bob@demo.test", "--password", "another one")
    with pytest.raises(Exception, match="AUTH"):
        server.pop_client("bob@demo.test")
