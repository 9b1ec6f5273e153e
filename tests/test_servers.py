"""Two servers of one organisation: logins and commands find the right one, over the back-end port with mutual TLS."""

from __future__ import annotations

import datetime
import imaplib
import json
import poplib
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.clients.server import PASSWORD, Server, free_ports

BIG = b"Subject: big\r\n\r\n" + b"0123456789abcdef\r\n" * 150_000


class Joined:
    """Server A (alice) and B (bob); both running."""

    def __init__(self, directory: Path) -> None:
        self.a = Server(directory / "a", users=("alice",), server="EXA")
        self.b = Server(directory / "b", users=("bob",), server="EXB")
        self.ports = free_ports(4)
        for server, (imap, pop) in ((self.a, self.ports[:2]), (self.b, self.ports[2:])):
            server.shell(f"Set-ImapSettings -ProxyTargetPort {imap} -ProtocolLogEnabled $true")
            server.shell(f"Set-PopSettings -ProxyTargetPort {pop}")
        self.said = self.a.run("join", "--to", str(self.b.data)).stdout

    def start(self) -> None:
        self.a.start()
        self.b.start()

    def kill(self) -> None:
        self.a.kill()
        self.b.kill()


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Joined]:
    both = Joined(tmp_path_factory.mktemp("joined"))
    both.start()
    try:
        yield both
        for server in (both.a, both.b):
            assert "Traceback" not in (server.data / "serve.stderr").read_text()
    finally:
        both.kill()


def test_join_makes_both_known(joined: Joined) -> None:
    assert "EXB" in joined.said
    for server, names in ((joined.a, ["EXA", "EXB"]), (joined.b, ["EXB", "EXA"])):
        rows = json.loads(server.run("get-exchangeserver", "--output", "json").stdout)
        assert [r["Name"] for r in rows] == names


def test_a_login_is_handed_over_to_the_mailboxs_server(joined: Joined) -> None:
    client = joined.a.imap_client("bob@demo.test")
    assert client.append("INBOX", "", None, BIG)[0] == "OK"  # type: ignore[arg-type]
    client.select("INBOX")
    assert client.fetch("1", "(BODY.PEEK[])")[1][0][1] == BIG  # type: ignore[index]
    direct = joined.b.imap_client("bob@demo.test")
    direct.select("INBOX")
    direct.store("1", "+FLAGS", "(\\Flagged)")
    client.noop()
    assert b"\\Flagged" in client.response("FETCH")[1][0]  # type: ignore[operator]
    pop = joined.a.pop_client("bob@demo.test")
    assert pop.stat()[0] == 1
    assert b"\r\n".join(pop.retr(1)[1]) + b"\r\n" == BIG
    pop.quit()
    client.logout()
    direct.logout()
    time.sleep(1.5)
    log = "".join(p.read_text() for p in (joined.b.data / "logs" / "Imap4BE").iterdir())
    assert ",bob@demo.test," in log  # with the client's own address and our front end's port
    assert f"127.0.0.1:{joined.a.imaps}," in log


def test_pipelined_commands_and_idle_pass_through(joined: Joined) -> None:
    raw = socket.create_connection(("127.0.0.1", joined.a.imaps), 20)
    with joined.a.context().wrap_socket(raw, server_hostname="localhost") as sock:
        file = sock.makefile("rwb")
        file.readline()
        file.write(f'a LOGIN bob@demo.test "{PASSWORD}"\r\nb SELECT INBOX\r\nc IDLE\r\n'.encode())
        file.flush()
        while not file.readline().startswith(b"+ "):
            pass
        other = joined.b.imap_client("bob@demo.test")
        other.append("INBOX", "", None, b"Subject: x\r\n\r\nx\r\n")  # type: ignore[arg-type]
        assert b"EXISTS" in file.readline()
        other.logout()


def test_wrong_passwords_and_unknown_users_get_the_same_answer(joined: Joined) -> None:
    for user in ("bob@demo.test", "nobody@demo.test"):
        client = imaplib.IMAP4_SSL("localhost", joined.a.imaps, ssl_context=joined.a.context(), timeout=30)
        with pytest.raises(
            imaplib.IMAP4.error, match=r"\[AUTHENTICATIONFAILED\] the user name or the password is wrong"
        ):
            client.login(user, "wrong")
        client.logout()


def test_commands_are_routed_by_server(joined: Joined) -> None:
    assert (
        json.loads(joined.a.run("get-imapsettings", "--server", "exa", "--output", "json").stdout)[0]["Server"] == "EXA"
    )
    joined.a.run("set-imapsettings", "--server", "EXB", "--banner", "set from A")
    at_b = json.loads(joined.b.run("get-imapsettings", "--output", "json").stdout)[0]
    assert at_b["Banner"] == "set from A"
    assert json.loads(joined.a.run("get-imapsettings", "--output", "json").stdout)[0]["Banner"] != "set from A"
    warned = joined.a.run("set-imapsettings", "--server", "EXB", "--banner", "again").stderr
    assert "take effect when the services are restarted" in warned
    joined.a.run("stop-service", "LetterlockPop3", "--computer-name", "EXB")
    assert "Stopped" in joined.b.run("get-service", "LetterlockPop3").stdout
    joined.a.run("start-service", "LetterlockPop3", "--computer-name", "EXB")
    done = joined.a.run("get-imapsettings", "--server", "EXC", status=1)
    assert "there is no server 'EXC' here; there is: EXA, EXB" in done.stderr


def test_the_back_end_port_is_for_the_organisations_servers_only(joined: Joined) -> None:
    port = joined.ports[2]
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["letterlock-imap"])
    with (
        pytest.raises((ssl.SSLError, ConnectionError)),
        context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10)) as sock,
    ):
        sock.sendall(b'{"protocol": "IMAP4", "user": "bob@demo.test"}\n')
        if not sock.recv(100):
            raise ConnectionResetError


def test_a_front_end_refuses_an_impostor(joined: Joined, tmp_path: Path) -> None:
    """Somebody else listens at the back end's port, with a certificate that was never exchanged."""
    joined.b.run("stop-service", "LetterlockImap4BE")
    impostor = Server(tmp_path, users=(), server="EXI")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (certificate,) = (impostor.data / "certificates").glob("*.pem")
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    with socket.create_server(("127.0.0.1", joined.ports[2])) as listener:
        listener.settimeout(20)
        client = imaplib.IMAP4_SSL("localhost", joined.a.imaps, ssl_context=joined.a.context(), timeout=30)
        client.send(f'a LOGIN bob@demo.test "{PASSWORD}"\r\n'.encode())
        sock, _ = listener.accept()
        received = b""
        try:
            with context.wrap_socket(sock, server_side=True) as secured:
                received = secured.recv(1000)
        except OSError:
            pass
        assert PASSWORD.encode() not in received
        assert received == b""
        assert b"[UNAVAILABLE]" in client.readline()
    joined.b.run("start-service", "LetterlockImap4BE")


def test_a_back_end_that_is_away_is_unavailable_and_local_logins_go_on(joined: Joined) -> None:
    joined.b.run("stop-service", "LetterlockPop3BE")
    client = poplib.POP3_SSL("localhost", joined.a.pops, context=joined.a.context(), timeout=30)
    client.user("bob@demo.test")
    with pytest.raises(poplib.error_proto, match="SYS/TEMP"):
        client.pass_(PASSWORD)
    joined.a.pop_client("alice@demo.test").quit()
    joined.b.run("start-service", "LetterlockPop3BE")
    joined.a.pop_client("bob@demo.test").quit()


def test_strict_certificates_are_accepted_when_all_is_right(joined: Joined) -> None:
    joined.a.shell("Set-ImapSettings -EnforceCertificateErrors $true; Restart-Service LetterlockImap4")
    joined.a.imap_client("bob@demo.test").logout()


def test_what_cannot_be_joined_is_refused(tmp_path: Path) -> None:
    one, two, three = (
        Server(tmp_path / name, users=users, server=server)
        for name, users, server in (("1", ("alice",), "ONE"), ("2", ("alice",), "TWO"), ("3", (), "ONE"))
    )
    assert "both servers have a mailbox alice@demo.test" in one.run("join", "--to", str(two.data), status=1).stderr
    assert "two servers are named ONE" in one.run("join", "--to", str(three.data), status=1).stderr
    assert "cannot join itself" in one.run("join", "--to", str(one.data), status=2).stderr
    assert "is not a data directory" in one.run("join", "--to", str(tmp_path / "none"), status=1).stderr


def _stranger_certificate(server: Server, name: str, days: int) -> None:
    """In place of the one that the server would make for its back-end port."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - datetime.timedelta(days=400)).not_valid_after(
        now + datetime.timedelta(days=days)
    )
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    path = server.data / "certificates" / "server.pem"
    path.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    path.with_suffix(".key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


@pytest.mark.parametrize(("name", "days"), [("localhost", -1), ("other.contoso.com", 30)], ids=["expired", "name"])
def test_enforce_certificate_errors_and_proxy_target_port(tmp_path: Path, name: str, days: int) -> None:
    """A certificate that was exchanged at `join` is enough, unless EnforceCertificateErrors asks for more."""
    a = Server(tmp_path / "a", users=("alice",), server="EXA")
    b = Server(tmp_path / "b", users=("bob",), server="EXB")
    ports = free_ports(6)
    for server, (imap, pop) in ((a, ports[:2]), (b, ports[2:4])):
        server.shell(f"Set-ImapSettings -ProxyTargetPort {imap}; Set-PopSettings -ProxyTargetPort {pop}")
    _stranger_certificate(b, name, days)
    a.run("join", "--to", str(b.data))
    a.start()
    b.start()
    try:
        a.imap_client("bob@demo.test").logout()
        a.pop_client("bob@demo.test").quit()
        a.shell("Set-ImapSettings -EnforceCertificateErrors $true; Set-PopSettings -EnforceCertificateErrors $true")
        a.imap_client("bob@demo.test").logout()  # not before the restart
        a.shell("Restart-Service LetterlockImap4; Restart-Service LetterlockPop3")
        with pytest.raises(imaplib.IMAP4.error, match=r"\[UNAVAILABLE\]"):
            a.imap_client("bob@demo.test")
        with pytest.raises(poplib.error_proto, match="SYS/TEMP"):
            a.pop_client("bob@demo.test")
        said = (a.data / "serve.stderr").read_text()
        assert ("expired" if days < 0 else "ostname mismatch") in said
        a.imap_client("alice@demo.test").logout()
        a.shell("Set-ImapSettings -EnforceCertificateErrors $false; Restart-Service LetterlockImap4")
        b.shell(f"Set-ImapSettings -ProxyTargetPort {ports[4]}; Restart-Service LetterlockImap4BE")
        a.imap_client("bob@demo.test").logout()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", ports[2]), 5)
    finally:
        a.kill()
        b.kill()


def test_mailboxes_of_the_other_server_are_managed_from_here(joined: Joined) -> None:
    joined.a.run("new-mailbox", "carol@demo.test", "--password", PASSWORD, "--server", "exb")
    rows = json.loads(joined.b.run("get-mailbox", "carol@demo.test", "--output", "json").stdout)
    assert rows[0]["ServerName"] == "EXB"
    joined.a.imap_client("carol@demo.test").logout()  # logs in at A, lives at B
    there = json.loads(joined.a.run("get-mailbox", "--server", "EXB", "--output", "json").stdout)
    assert {r["PrimarySmtpAddress"] for r in there} == {"bob@demo.test", "carol@demo.test"}
    done = joined.a.run("new-mailbox", "carol@demo.test", "--password", PASSWORD, status=1)
    assert "server EXB has a mailbox carol@demo.test already" in done.stderr
    done = joined.a.run("set-mailbox", "alice@demo.test", "--email-addresses", "bob@demo.test", status=1)
    assert "server EXB has a mailbox bob@demo.test already" in done.stderr
    done = joined.a.run("get-mailboxstatistics", "carol@demo.test", status=1)
    assert "mailbox carol@demo.test is on server EXB; add: -Server EXB" in done.stderr
    (row,) = json.loads(
        joined.a.run("get-mailboxstatistics", "carol@demo.test", "--server", "EXB", "--output", "json").stdout
    )
    assert row["ServerName"] == "EXB"
    joined.a.run("set-mailboxpassword", "carol@demo.test", "--server", "EXB", "--password", "another 9")
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        joined.a.imap_client("carol@demo.test")
    trail = json.loads(joined.b.run("search-adminauditlog", "--output", "json", "--object-ids", "carol*").stdout)
    assert [r["CmdletName"] for r in trail] == ["Set-MailboxPassword", "New-Mailbox"]
    assert all(r["Caller"].count("uid") == 2 and " through " in r["Caller"] for r in trail)  # whom A says, and A
    joined.a.run("remove-mailbox", "carol@demo.test", "--server", "EXB")
    assert "there is no mailbox" in joined.b.run("get-mailbox", "carol@demo.test", status=1).stderr
    assert (
        "there is no server 'EXC'"
        in joined.a.run("new-mailbox", "x@y.z", "--password", "p", "--server", "EXC", status=1).stderr
    )


def test_sessions_that_were_handed_over_are_seen_and_ended_at_both(joined: Joined) -> None:
    client = joined.a.imap_client("bob@demo.test")
    client.select("INBOX")
    (front,) = json.loads(joined.a.run("get-clientconnection", "--user", "bob*", "--output", "json").stdout)
    (back,) = json.loads(
        joined.a.run("get-clientconnection", "--server", "EXB", "--user", "bob*", "--output", "json").stdout
    )
    assert (front["Service"], back["Service"]) == ("LetterlockImap4", "LetterlockImap4BE")
    assert (
        back["RemoteAddress"] == front["RemoteAddress"]
        and back["Folder"] == "INBOX"
        and back["TlsVersion"] == "TLSv1.3"
    )
    assert (front["Server"], back["Server"]) == ("EXA", "EXB")
    joined.a.run("disconnect-clientconnection", back["Identity"], "--server", "EXB")
    assert client.readline().startswith(b"* BYE")
    assert client.readline() == b""
    assert json.loads(joined.a.run("get-clientconnection", "--user", "bob*", "--output", "json").stdout) == []


def test_a_server_that_is_down_is_unavailable_and_comes_back(joined: Joined) -> None:
    relayed = joined.a.imap_client("bob@demo.test")
    joined.b.kill()
    with pytest.raises((imaplib.IMAP4.abort, OSError)):  # its home is gone
        relayed.noop()
    client = imaplib.IMAP4_SSL("localhost", joined.a.imaps, ssl_context=joined.a.context(), timeout=30)
    with pytest.raises(imaplib.IMAP4.error, match=r"\[UNAVAILABLE\] the mailbox server is not reachable"):
        client.login("bob@demo.test", PASSWORD)
    client.login("alice@demo.test", PASSWORD)  # the same connection, for a mailbox that is here
    client.logout()
    # commands are carried out on its data directory meanwhile; those that need it running say so
    assert "bob@demo.test" in joined.a.run("get-mailbox", "--server", "EXB").stdout
    done = joined.a.run("get-clientconnection", "--server", "EXB", status=1)
    assert "the server is not running" in done.stderr
    joined.b.start()
    joined.a.imap_client("bob@demo.test").logout()


def test_a_replaced_certificate_is_refused(joined: Joined) -> None:
    """B shows another certificate than the one that was exchanged at the join: A does not send the password."""
    joined.b.kill()
    before = {p: p.read_bytes() for p in joined.b.data.glob("certificates/server*")} or {
        p: p.read_bytes() for p in joined.b.data.rglob("*") if p.suffix in (".pem", ".key") and "server" in p.name
    }
    assert before, "where is the back end's certificate?"
    for path in before:
        path.unlink()
    joined.b.start()
    client = imaplib.IMAP4_SSL("localhost", joined.a.imaps, ssl_context=joined.a.context(), timeout=30)
    with pytest.raises(imaplib.IMAP4.error, match=r"\[UNAVAILABLE\]"):
        client.login("bob@demo.test", PASSWORD)
    client.logout()
    joined.b.kill()
    for path, data in before.items():
        path.write_bytes(data)
        path.chmod(0o600)
    joined.b.start()
    joined.a.imap_client("bob@demo.test").logout()
