"""What settings do to a running server, where no other test shows it."""

from __future__ import annotations

import datetime
import imaplib
import poplib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.server import PASSWORD, Server, free_ports
from tests.rest_server import ADMIN, RestServer


@pytest.fixture
def rest(tmp_path: Path) -> Iterator[RestServer]:
    server = RestServer(tmp_path)
    server.start()
    yield server
    server.kill()


def change(server: Server, text: str, *services: str) -> None:
    """Settings, and the restart they need."""
    server.shell("\n".join([text, *(f"Restart-Service {name}" for name in services)]))


def test_both_time_outs_of_both_protocols(tmp_path: Path) -> None:
    """Silence ends a connection: before log-on after the one time-out, then after the other. POP3 says nothing then
    (RFC 1939 §3)."""
    spans = "-PreAuthenticatedConnectionTimeout 00:00:30 -AuthenticatedConnectionTimeout 00:00:33"
    server = Server(tmp_path, settings=f"Set-ImapSettings {spans}; Set-PopSettings {spans}")
    server.start()
    try:
        begun = time.monotonic()
        waiting: list[tuple[float, bytes, ssl.SSLSocket]] = []
        bye = b"* BYE Connection is closed: it was idle for too long.\r\n"
        for port, goodbye in ((server.imaps, bye), (server.pops, b"")):
            raw = socket.create_connection(("127.0.0.1", port), timeout=60)
            waiting.append((30, goodbye, server.context().wrap_socket(raw, server_hostname="localhost")))
            waiting[-1][2].recv(1000)
        imap, pop = server.imap_client(), server.pop_client()
        waiting += [(33, bye, imap.sock), (33, b"", pop.sock)]  # type: ignore[list-item]
        for limit, goodbye, sock in waiting:
            sock.settimeout(60)
            assert sock.recv(1000) == goodbye
            assert limit - 1 < time.monotonic() - begun < limit + 8
    finally:
        server.kill()


def test_max_command_size(server: Server) -> None:
    change(
        server,
        "Set-ImapSettings -MaxCommandSize 1024; Set-PopSettings -MaxCommandSize 40",
        "LetterlockImap4",
        "LetterlockPop3",
    )
    client = server.imap_client()
    assert client.noop()[0] == "OK"
    client.send(b'x1 LIST "" "' + b"y" * 1000 + b'"\r\nx2 LIST "" "' + b"y" * 1100 + b'"\r\n')
    assert client.readline().startswith(b"x1 OK") and client.readline().startswith(b"x2 BAD")
    with socket.create_connection(("127.0.0.1", server.pops), 20) as raw:
        sock = server.context().wrap_socket(raw, server_hostname="localhost")
        sock.recv(1000)
        sock.sendall(b"USER " + b"y" * 33 + b"\r\n")  # 40 octets with the line end
        assert sock.recv(1000).startswith(b"+OK")
        sock.sendall(b"USER " + b"y" * 34 + b"\r\n")
        assert sock.recv(1000) == b"-ERR The line is too long.\r\n"


def test_the_certificate_is_chosen_by_its_name(server: Server) -> None:
    """X509CertificateName."""
    server.shell("New-ExchangeCertificate -DomainName mail.contoso.com -Services POP,IMAP")
    change(server, "Set-ImapSettings -X509CertificateName mail.contoso.com", "LetterlockImap4")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    shown = {}
    for port in (server.imaps, server.pops):
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 20)) as sock:  # it names no host
            shown[port] = sock.getpeercert(binary_form=True) or b""
    assert b"mail.contoso.com" in shown[server.imaps] and b"mail.contoso.com" not in shown[server.pops]


def test_protocol_log_and_its_place(server: Server, tmp_path: Path) -> None:
    """ProtocolLogEnabled, LogFileLocation."""
    server.imap_client().logout()
    time.sleep(1.5)
    assert not (server.data / "logs" / "Imap4").exists()
    for kind, service, word in (("Imap", "LetterlockImap4", "IMAP4"), ("Pop", "LetterlockPop3", "POP3")):
        place = tmp_path / "elsewhere" / kind
        place.mkdir(parents=True)
        place.chmod(0o777)
        change(server, f"Set-{kind}Settings -ProtocolLogEnabled $true -LogFileLocation {place}", service)
        if kind == "Imap":
            server.imap_client().logout()
        else:
            server.pop_client().quit()
        time.sleep(1.5)
        (log,) = place.iterdir()
        assert log.name.startswith(word) and ",alice@demo.test," in log.read_text()
        assert PASSWORD not in log.read_text()


def test_pop_can_be_off_for_a_mailbox(server: Server) -> None:
    """PopEnabled."""
    server.shell("Set-CASMailbox alice@demo.test -PopEnabled $false")
    client = poplib.POP3_SSL("localhost", server.pops, context=server.context(), timeout=30)
    client.user("alice@demo.test")
    with pytest.raises(poplib.error_proto, match="POP3 is switched off for this mailbox"):
        client.pass_(PASSWORD)
    server.pop_client("bob@demo.test").quit()
    server.imap_client().logout()


@pytest.mark.parametrize("kind", ["Imap", "Pop"])
def test_connection_limits_of_each_protocol(server: Server, kind: str) -> None:
    """MaxConnections, MaxConnectionFromSingleIP, MaxConnectionsPerUser: the first that is reached refuses."""
    service = "LetterlockImap4" if kind == "Imap" else "LetterlockPop3"
    port = server.imaps if kind == "Imap" else server.pops
    for limit in ("MaxConnections", "MaxConnectionFromSingleIP"):
        change(server, f"Set-{kind}Settings -{limit} 3", service)
        socks = []
        for _ in range(4):
            raw = socket.create_connection(("127.0.0.1", port), 20)
            socks.append(server.context().wrap_socket(raw, server_hostname="localhost"))
        words = [sock.recv(1000) for sock in socks]
        assert sum(b"Too many connections" in word for word in words) == 1, limit
        for sock in socks:
            sock.close()
        change(server, f"Set-{kind}Settings -{limit} 100", service)
        time.sleep(0.3)
    change(server, f"Set-{kind}Settings -MaxConnectionsPerUser 1", service)
    first = server.imap_client() if kind == "Imap" else server.pop_client()
    with pytest.raises((imaplib.IMAP4.error, poplib.error_proto), match="too many connections of this user"):
        server.imap_client() if kind == "Imap" else server.pop_client()
    (first.logout if isinstance(first, imaplib.IMAP4) else first.quit)()


def test_administration_hosts_and_sizes(rest: RestServer) -> None:
    """SSLBindings, AllowedHosts, MaxRequestSize, X509CertificateName of Set-AdminSettings."""
    (second,) = free_ports(1)
    wanted = {"Host": "console.contoso.com"}
    assert rest.ask("GET", "objects/Service", headers=wanted).status == 421
    assert rest.cmdlet("Get-Service", Name="y" * 6000).status != 413
    rest.shell("New-ExchangeCertificate -DomainName admin.contoso.com,localhost")
    change(
        rest,
        f"Set-AdminSettings -SSLBindings @{{Add='127.0.0.1:{second}'}} -AllowedHosts console.contoso.com "
        "-MaxRequestSize 4KB -X509CertificateName admin.contoso.com",
        "LetterlockAdmin",
    )
    pem = ssl.get_server_certificate(("127.0.0.1", second), timeout=20)
    assert pem == ssl.get_server_certificate(("127.0.0.1", rest.port), timeout=20)
    assert b"admin.contoso.com" in ssl.PEM_cert_to_DER_cert(pem)
    (rest.data / "served.pem").write_text(pem)
    rest.ca = rest.data / "served.pem"
    assert rest.ask("GET", "objects/Service", headers=wanted).status == 200
    assert rest.cmdlet("Get-Service", Name="y" * 6000).status == 413


def test_administration_connections_and_sessions(rest: RestServer) -> None:
    """MaxConnections and SessionTimeout of Set-AdminSettings."""
    change(rest, "Set-AdminSettings -MaxConnections 2 -SessionTimeout 00:07:00", "LetterlockAdmin")
    answer = rest.ask("POST", "login", {"UserName": ADMIN[0], "Password": ADMIN[1]}, who=None)
    ends = datetime.datetime.fromisoformat(answer.json["ExpiresOn"])
    assert 400 <= (ends - datetime.datetime.now(datetime.UTC)).total_seconds() <= 420
    held = [rest.raw() for _ in range(2)]
    for sock in held:
        sock.sendall(b"GET /api/v1/cmdlets HTTP/1.1\r\nHost: localhost\r\n")
    time.sleep(0.5)
    refused = False
    try:
        third = rest.raw()
        third.sendall(b"GET /api/v1/cmdlets HTTP/1.1\r\nHost: localhost\r\n\r\n")
        refused = not third.recv(100).startswith(b"HTTP/1.1 401")
    except (OSError, ssl.SSLError):
        refused = True
    assert refused
    for sock in held:
        sock.close()
