"""Lists of bindings, IPv4 and IPv6; ALPN on every always-TLS port."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.server import Server, free_ports


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Every listener twice: on 127.0.0.1, and on ::1."""
    running = Server(tmp_path_factory.mktemp("bindings"))
    ports = (running.imap, running.imaps, running.pop, running.pops)
    clear, tls, pop_clear, pop_tls = ports
    running.shell(
        f"Set-ImapSettings -SSLBindings 127.0.0.1:{tls},[::1]:{tls} "
        f"-UnencryptedOrTLSBindings 127.0.0.1:{clear},[::1]:{clear}\n"
        f"Set-PopSettings -SSLBindings 127.0.0.1:{pop_tls},[::1]:{pop_tls} "
        f"-UnencryptedOrTLSBindings 127.0.0.1:{pop_clear},[::1]:{pop_clear}"
    )
    try:
        running.start()
        yield running
        assert "Traceback" not in (running.data / "serve.stderr").read_text()
    finally:
        running.kill()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("port", ["imap", "imaps", "pop", "pops"])
def test_every_binding_of_a_list_listens(server: Server, address: str, port: str) -> None:
    sock = socket.create_connection((address, getattr(server, port)), 20)
    if port.endswith("s"):
        sock = server.context().wrap_socket(sock, server_hostname="localhost")
    assert sock.recv(100).startswith(b"* OK" if port.startswith("imap") else b"+OK")
    sock.close()


def test_sessions_over_ipv6_are_shown_and_counted(server: Server) -> None:
    sock = socket.create_connection(("::1", server.imap), 20)
    sock.recv(100)
    assert "[::1]:" in server.run("get-clientconnection", "--output", "json").stdout
    sock.close()


@pytest.mark.parametrize(
    ("port", "offer", "allowed"),
    [
        ("imaps", ["imap"], True),
        ("imaps", ["h2", "imap"], True),
        ("imaps", ["pop3"], False),
        ("imaps", ["h2", "http/1.1"], False),
        ("pops", ["pop3"], True),
        ("pops", ["imap"], False),
        ("pops", ["http/1.1"], False),
    ],
)
def test_alpn_is_strict_on_every_always_tls_port(server: Server, port: str, offer: list[str], allowed: bool) -> None:
    context = server.context()
    context.set_alpn_protocols(offer)
    raw = socket.create_connection(("127.0.0.1", getattr(server, port)), 20)
    try:
        tls = context.wrap_socket(raw, server_hostname="localhost")
        answer = tls.recv(100)
        chosen = tls.selected_alpn_protocol()
    except (ssl.SSLError, OSError):
        answer, chosen = b"", None
    assert bool(answer) is allowed
    assert chosen == (offer[-1] if allowed else None)


def test_a_binding_that_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    running = Server(tmp_path)
    [port] = free_ports(1)
    running.shell(f"Set-ImapSettings -SSLBindings 192.0.2.1:{port}")
    running.shell("Set-Service LetterlockImap4 -StartupType Manual")
    running.start(workers=1)
    try:
        done = running.run("start-service", "LetterlockImap4", status=1)
        assert done.stderr.startswith("letterlock: error: ") and f"192.0.2.1:{port}" in done.stderr
        assert done.stderr.count("\n") == 1
    finally:
        running.kill()
