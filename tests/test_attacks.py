"""Attacks that mail servers fell to, one test a class, over real sockets against a real server."""

from __future__ import annotations

import base64
import socket
import ssl
import time
from collections.abc import Iterator

import pytest

from tests.clients.server import PASSWORD, Server
from tests.raw import Raw

USER = "alice@demo.test"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all of them."""
    settings = "Set-ImapSettings -ProtocolLogEnabled $true\nSet-PopSettings -ProtocolLogEnabled $true"
    running = Server(tmp_path_factory.mktemp("attacks"), settings=settings)
    running.start()
    try:
        yield running
        errors = (running.data / "serve.stderr").read_text()
        assert "Traceback" not in errors
        running.stop()
        logs = b"".join(p.read_bytes() for p in (running.data / "logs").rglob("*.LOG"))
        assert b"login" in logs and b"*****" in logs
        assert PASSWORD.encode() not in logs
        assert base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()) not in logs
    finally:
        running.kill()


def test_command_injection_before_starttls_is_discarded(server: Server) -> None:
    raw = Raw(server.imap)
    raw.line()
    raw.send(b"a STARTTLS\r\nb CAPABILITY\r\nc LOGIN mallory x\r\n")
    assert raw.line().startswith(b"a OK")
    raw.tls(server)
    raw.send(b"d NOOP\r\n")
    assert raw.line().startswith(b"d OK"), "an injected command was answered inside TLS"


def test_command_injection_before_stls_is_discarded(server: Server) -> None:
    raw = Raw(server.pop)
    raw.line()
    raw.send(b"STLS\r\nUSER mallory\r\n")
    assert raw.line().startswith(b"+OK")
    raw.tls(server)
    raw.send(b"NOOP\r\n")
    assert raw.line().startswith(b"-ERR"), "NOOP needs a login: the injected USER must not have been answered first"
    raw.send(b"PASS x\r\n")
    assert b"USER comes before PASS" in raw.line()


def test_stripping_login_without_tls_is_not_offered_and_refused(server: Server) -> None:
    raw = Raw(server.imap)
    raw.line()
    raw.send(b"a CAPABILITY\r\n")
    line = raw.line()
    assert b"LOGINDISABLED" in line and b"STARTTLS" in line and b"AUTH=" not in line
    raw.until(b"a ")
    raw.send(f"b LOGIN {USER} {{{len(PASSWORD)}+}}\r\n{PASSWORD}\r\n".encode())
    assert raw.line().startswith(b"b NO [PRIVACYREQUIRED]")
    raw.send(b"c AUTHENTICATE PLAIN\r\n")
    assert raw.line().startswith(b"c NO [PRIVACYREQUIRED]"), "no exchange may be begun"


def test_refusal_of_clear_text_does_not_tell_whether_the_password_was_right(server: Server) -> None:
    answers = []
    for password in ("wrong", PASSWORD):
        raw = Raw(server.imap)
        raw.line()
        raw.send(f'a LOGIN {USER} "{password}"\r\n'.encode())
        answers.append(raw.line())
    assert answers[0] == answers[1]
    for _ in range(100):  # the right one is marked in the background
        if '"PasswordExposed": true' in server.run("get-mailbox", USER, "--output", "json").stdout:
            return
        time.sleep(0.1)
    raise AssertionError("the exposed password was not marked")


def test_starttls_a_second_time_and_after_login_is_refused(server: Server) -> None:
    raw = Raw(server.imap)
    raw.line()
    raw.send(b"a STARTTLS\r\n")
    raw.line()
    raw.tls(server)
    raw.send(b"b STARTTLS\r\n")
    assert raw.line().startswith(b"b BAD")
    raw.send(f'c LOGIN {USER} "{PASSWORD}"\r\n'.encode())
    assert raw.line().startswith(b"c OK")
    raw.send(b"d STARTTLS\r\n")
    assert raw.line().startswith(b"d BAD")


@pytest.mark.parametrize("protocol", ["imap", "pop"])
def test_cross_protocol_http_ends_the_session(server: Server, protocol: str) -> None:
    raw = Raw(server.imap if protocol == "imap" else server.pop)
    raw.line()
    raw.send(b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\na LOGIN x y\r\n")
    answer = raw.rest()
    assert answer.count(b"\n") == 1 and b"server" in answer


@pytest.mark.parametrize(("offer", "allowed"), [(["http/1.1"], False), (["pop3"], False), (["imap"], True)])
def test_strict_alpn(server: Server, offer: list[str], allowed: bool) -> None:
    context = server.context()
    context.set_alpn_protocols(offer)
    raw = socket.create_connection(("127.0.0.1", server.imaps), 20)
    try:
        tls = context.wrap_socket(raw, server_hostname="localhost")
        answer = tls.recv(100)
    except (ssl.SSLError, OSError):
        answer = b""
    assert answer.startswith(b"* OK") == allowed


def test_old_tls_is_refused(server: Server) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(socket.create_connection(("127.0.0.1", server.imaps), 20))


def test_memory_by_literal_before_login(server: Server) -> None:
    raw = Raw(server.imap)
    raw.line()
    raw.send(b"a LOGIN {2000000000}\r\n")
    assert raw.line().startswith(b"a BAD"), "no continuation for a literal that no credentials need"
    raw.send(b"b LOGIN {2000000000+}\r\n" + b"x" * 100_000)
    assert raw.line().startswith(b"b BAD")
    assert b"* BYE" in raw.rest(), "what follows cannot be told from commands"


def test_memory_by_an_endless_line(server: Server) -> None:
    raw = Raw(server.imap)
    raw.line()
    raw.send(b"a " + b"x" * 200_000)
    assert b"BAD" in raw.line()


def test_bad_base64_in_sasl_hurts_nobody_else(server: Server) -> None:
    raw = Raw(server.imap)
    raw.line()
    raw.send(b"a STARTTLS\r\n")
    raw.line()
    raw.tls(server)
    raw.send(b"b AUTHENTICATE PLAIN\r\n")
    assert raw.line().startswith(b"+ ")
    raw.send(b"!!!not base64!!!\r\n")
    assert raw.line().startswith(b"b BAD")
    client = server.imap_client()
    client.logout()


def test_parenthesis_bomb(server: Server) -> None:
    client = server.imap_client()
    client.select()
    client.send(b"x1 SEARCH " + b"(" * 3000 + b"ALL" + b")" * 3000 + b"\r\n")
    assert client.readline().startswith(b"x1 BAD")


def test_log_injection(server: Server) -> None:
    raw = Raw(server.imap)
    raw.line()
    raw.send(b"a LOGIN {13+}\r\nx\r\n2026-01-01T\r\n {1+}\r\ny\r\n")
    raw.line()
    raw.sock.close()
    time.sleep(1.3)
    logs = b"".join(p.read_bytes() for p in (server.data / "logs").rglob("*.LOG"))
    rows = [row for row in logs.split(b"\r\n") if row and not row.startswith(b"#")]
    assert rows
    assert all(row[:2] == b"20" and row[10:11] == b"T" and row.count(b",") >= 12 for row in rows)


def test_path_traversal_through_folder_names(server: Server) -> None:
    client = server.imap_client()
    before = set(server.data.rglob("*"))
    client.create('"../../evil"')
    client.create('"/etc/evil"')
    client.logout()
    new = set(server.data.rglob("*")) - before
    assert not [p for p in new if "evil" in p.name]
    assert not (server.data.parent / "evil").exists()
