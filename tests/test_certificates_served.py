"""Certificates as clients meet them: replaced without a restart, chosen by SNI, resumed, warned of; the cmdlets."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12

from tests.authority import Authority, pem
from tests.clients.server import Server
from tests.programs import need
from tests.rest_server import VIEWER, RestServer


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A data directory where nothing runs."""
    return Server(tmp_path_factory.mktemp("idle"), users=())


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path, users=("alice",))
    running.start(workers=2)
    try:
        yield running
        assert "Traceback" not in (running.data / "serve.stderr").read_text()
    finally:
        running.kill()


def shown(port: int, name: str | None = "localhost", source: str = "127.0.0.1") -> x509.Certificate:
    """The certificate of a handshake; `name` None: without SNI."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), 10, source_address=(source, 0)) as sock,
        context.wrap_socket(sock, server_hostname=name) as connection,
    ):
        der = connection.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der)


def rows(server: Server, *words: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(server.run(*words, "--output", "json").stdout)
    return found


def imported(server: Server, tmp_path: Path, data: bytes, *more: str) -> str:
    path = tmp_path / "import.pem"
    path.write_bytes(data)
    (row,) = rows(server, "import-exchangecertificate", "--file-data", str(path), *more)
    return str(row["Thumbprint"])


def test_a_new_certificate_is_used_by_the_next_handshake_in_every_worker(
    server: Server, authority: Authority, tmp_path: Path
) -> None:
    old = shown(server.imaps)
    client = server.imap_client()
    certificate, key = authority.issue("localhost")
    from tests.authority import key_pem

    thumbprint = imported(server, tmp_path, pem(certificate, authority.intermediate, authority.root) + key_pem(key))
    assert shown(server.imaps) == old, "not before it is enabled"
    done = server.run("enable-exchangecertificate", "--thumbprint", thumbprint, "--services", "IMAP,POP,SMTP,IIS")
    assert done.stderr == ""
    for n in range(1, 9):  # addresses are spread over the workers
        assert shown(server.imaps, source=f"127.0.0.{n}") == certificate
        assert shown(server.pops, source=f"127.0.0.{n}") == certificate
    assert client.noop()[0] == "OK", "connections that were there go on"
    # the intermediate is sent along, and what clients should trust is the root now
    assert server.ca.read_bytes() == pem(authority.root)
    again = server.imap_client()
    again.logout()
    # STARTTLS, too
    context = server.context()
    import imaplib

    clear = imaplib.IMAP4("localhost", server.imap, timeout=10)
    clear.starttls(context)
    der = clear.sock.getpeercert(binary_form=True)  # type: ignore[attr-defined]
    assert der == certificate.public_bytes(Encoding.DER)
    clear.logout()


def test_sni_finds_other_certificates_in_service(server: Server, authority: Authority, tmp_path: Path) -> None:
    default = shown(server.imaps)
    thumbprint = imported(server, tmp_path, authority.whole("imap.contoso.com"))
    wild = imported(server, tmp_path, authority.whole("*.fabrikam.com"))
    assert shown(server.imaps, "imap.contoso.com") == default, "not enabled"
    server.run("enable-exchangecertificate", "--thumbprint", thumbprint, "--services", "IMAP")
    installed = {str(r["Thumbprint"]): r for r in rows(server, "get-exchangecertificate")}
    assert installed[wild]["Services"] == "None"

    def subject(name: str | None) -> str:
        return shown(server.imaps, name).subject.rfc4514_string()

    assert subject("imap.contoso.com") == "CN=imap.contoso.com"
    assert subject("anything.fabrikam.com") == "CN=*.fabrikam.com"
    for name in (None, "localhost", "nobody.example", "a.b.fabrikam.com", "fabrikam.com", "x" * 60 + ".example"):
        assert shown(server.imaps, name) == default, name
    assert shown(server.pops, "imap.contoso.com") == default, "enabled for IMAP only"


def test_hostile_server_names_neither_fill_logs_nor_memory(server: Server) -> None:
    """Attack class: SNI look-ups eat memory (CVE-2017-15130)."""
    default = shown(server.imaps)
    hello = client_hello(b"a.example")
    for name in (b"\xff\xfe\xfd", b"a\0b.com", b"." * 200, b"*.com", b"%s%n", b"../../etc"):
        with socket.create_connection(("127.0.0.1", server.imaps), 10) as sock:
            sock.sendall(client_hello(name))
            sock.settimeout(10)
            assert len(sock.recv(10)) > 0  # a ServerHello or an alert, and not silence
    assert hello
    for n in range(300):
        shown(server.imaps, f"x{n}.example")
    assert shown(server.imaps) == default
    assert (server.data / "serve.stderr").read_text().count("\n") < 5


def client_hello(name: bytes) -> bytes:
    """A real ClientHello with another server name put in, of the same length where that is possible."""
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    stand_in = ("n" * (len(name) - 2) + ".x").encode() if len(name) < 60 else b"n" * 50 + b"." + b"n" * 50
    client = context.wrap_bio(incoming, outgoing, server_hostname=stand_in.decode())
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read().replace(stand_in, name[: len(stand_in)].ljust(len(stand_in), b"."))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed_at_another_worker(server: Server, version: ssl.TLSVersion) -> None:
    context = server.context()
    context.minimum_version = context.maximum_version = version

    def connect(source: str, session: ssl.SSLSession | None = None) -> tuple[bool, ssl.SSLSession | None, int]:
        with (
            socket.create_connection(("127.0.0.1", server.imaps), 10, source_address=(source, 0)) as sock,
            context.wrap_socket(sock, server_hostname="localhost", session=session) as connection,
        ):
            connection.recv(1024)  # the greeting; TLS 1.3 tickets come before it
            return bool(connection.session_reused), connection.session, sock.fileno()

    workers = server.workers()
    assert len(workers) == 2
    reused, session, _ = connect("127.0.0.1")
    assert not reused and session is not None
    # every worker is another process now: none of them has made this ticket
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if len(set(server.workers()) - set(workers)) == 2:
            break
        time.sleep(0.1)
    for n in range(1, 7):
        reused, _, _ = connect(f"127.0.0.{n}", session)
        assert reused, f"from 127.0.0.{n}"
    # a ticket is good for one service
    with (
        socket.create_connection(("127.0.0.1", server.pops), 10) as sock,
        context.wrap_socket(sock, server_hostname="localhost", session=session) as connection,
    ):
        assert not connection.session_reused


def test_openssl_resumes_and_sees_the_whole_chain(server: Server, authority: Authority, tmp_path: Path) -> None:
    need("openssl")
    thumbprint = imported(server, tmp_path, authority.whole("localhost"))
    server.run("enable-exchangecertificate", "--thumbprint", thumbprint, "--services", "IMAP,IIS,POP")
    root = tmp_path / "root.pem"
    root.write_bytes(pem(authority.root))
    saved = tmp_path / "session"
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.imaps}", "-servername", "localhost", "-CAfile"]
    command += [str(root), "-verify_return_error", "-verify_hostname", "localhost", "-tls1_2"]
    for option, expected in (("-sess_out", "New, TLSv1.2"), ("-sess_in", "Reused, TLSv1.2")):
        done = subprocess.run(
            [*command, option, str(saved)], input="a LOGOUT\n", capture_output=True, text=True, timeout=30
        )
        assert "Verify return code: 0 (ok)" in done.stdout, done.stdout + done.stderr
        assert expected in done.stdout


def test_reload_on_sighup_takes_files_that_were_replaced_by_hand(server: Server, authority: Authority) -> None:
    from tests.authority import key_pem

    (path,) = (p for p in (server.data / "certificates").glob("*.pem") if p.name != "server.pem")
    certificate, key = authority.issue("localhost")
    path.with_suffix(".key").write_bytes(key_pem(key))
    path.write_bytes(pem(certificate, authority.intermediate))
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 10
    while shown(server.imaps) != certificate and time.monotonic() < deadline:
        time.sleep(0.05)
    assert shown(server.imaps) == certificate


def test_an_unusable_replacement_leaves_the_old_one_served(server: Server) -> None:
    old = shown(server.imaps)
    (path,) = (p for p in (server.data / "certificates").glob("*.key") if p.name != "server.key")
    path.write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    assert server.process is not None
    server.process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert shown(server.imaps) == old
    errors = (server.data / "serve.stderr").read_text()
    assert "is damaged" in errors and "AAAA" not in errors


def test_warnings_at_start(tmp_path: Path, authority: Authority) -> None:
    server = Server(tmp_path / "s", users=("alice",))
    thumbprint = imported(server, tmp_path, authority.whole("localhost", days=(-80, 10.5)))
    server.run("enable-exchangecertificate", "--thumbprint", thumbprint, "--services", "IMAP,POP,IIS")
    server.start()
    try:
        errors = (server.data / "serve.stderr").read_text()
        deadline = time.monotonic() + 5
        while "expires" not in errors and time.monotonic() < deadline:
            time.sleep(0.05)
            errors = (server.data / "serve.stderr").read_text()
        assert f"certificate {thumbprint} (localhost), served for IMAP, POP, IIS, expires in 10 days" in errors
        (row,) = rows(server, "get-exchangecertificate", "--thumbprint", thumbprint)
        assert row["Status"] == "Valid" and row["StatusDetail"] == "expires in 10 days" and row["DaysLeft"] == 10
    finally:
        server.kill()


# --- cmdlets


def test_the_commands_of_an_administrator(server: Server) -> None:
    made = server.shell('New-ExchangeCertificate -DomainName mail.contoso.com,*.contoso.com -FriendlyName "Mail"')
    lines = made.strip().splitlines()
    assert lines[0].split() == ["Thumbprint", "Services", "Subject"]
    thumbprint, services, subject = lines[2].split()
    assert services == "IP..S.." and subject == "CN=mail.contoso.com"
    server.shell(f"Enable-Certificate -Thumbprint {thumbprint} -Services POP,IMAP,SMTP,IIS")
    assert f"{thumbprint} IP.WS.." in server.shell("Get-Certificate")
    listed = server.shell(f"Get-ExchangeCertificate {thumbprint} | Format-List Subject,NotAfter,Services")
    assert "Services : IMAP, POP, IIS, SMTP" in listed
    (row,) = rows(server, "get-exchangecertificate", "--thumbprint", thumbprint)
    assert row["CertificateDomains"] == ["mail.contoso.com", "*.contoso.com"]
    assert row["IsSelfSigned"] is True and row["RootCAType"] == "Registry" and row["PublicKeySize"] == 256
    assert row["FriendlyName"] == "Mail" and row["HasPrivateKey"] is True and row["PrivateKeyExportable"] is False


def test_wildcards_are_taken_by_name(server: Server, authority: Authority, tmp_path: Path) -> None:
    thumbprint = imported(server, tmp_path, authority.whole("*.contoso.com", "contoso.com"))
    done = server.run("enable-exchangecertificate", "--thumbprint", thumbprint, "--services", "IMAP,SMTP")
    assert (
        "WARNING: a certificate whose subject is the wildcard *.contoso.com cannot be enabled for IMAP" in done.stderr
    )
    assert "Set-ImapSettings -X509CertificateName" in done.stderr
    (row,) = rows(server, "get-exchangecertificate", "--thumbprint", thumbprint)
    assert row["Services"] == "SMTP"
    server.shell("Set-ImapSettings -X509CertificateName mail.contoso.com; Restart-Service LetterlockImap4")
    assert shown(server.imaps, None).subject.rfc4514_string() == "CN=*.contoso.com"
    (first, *_) = rows(server, "get-exchangecertificate", "--domain-name", "mail.contoso.com")
    assert first["Thumbprint"] == thumbprint and str(first["Selection"]).startswith("IMAP, mail.contoso.com: served")
    assert first["ServedFor"] == ["IMAP (mail.contoso.com)"]


def test_enabling_says_when_another_one_is_served(server: Server) -> None:
    (made,) = rows(server, "new-exchangecertificate", "--domain-name", "elsewhere.contoso.com", "--services", "None")
    done = server.run("enable-exchangecertificate", "--thumbprint", str(made["Thumbprint"]), "--services", "IMAP")
    assert "chooses its certificate by the name localhost" in done.stderr
    assert "Set-ImapSettings -X509CertificateName elsewhere.contoso.com" in done.stderr
    done = server.run(
        "enable-exchangecertificate", "--thumbprint", str(made["Thumbprint"]), "--services", "UM", status=2
    )
    assert "'UM' is not one of the services here: None, IMAP, POP, IIS, SMTP" in done.stderr


def test_a_request_is_made_kept_and_completed(server: Server, authority: Authority, tmp_path: Path) -> None:
    need("openssl")
    request = tmp_path / "request.pem"
    (made,) = rows(
        server, "new-exchangecertificate", "--generate-request", "--request-file", str(request),
        "--subject-name", "C=US, O=Contoso, CN=localhost", "--domain-name", "imap.contoso.com",
        "--services", "IMAP,POP", "--private-key-exportable", "true",
    )  # fmt: skip
    assert made["Status"] == "PendingRequest"
    text = subprocess.run(
        ["openssl", "req", "-in", str(request), "-noout", "-text", "-verify"], capture_output=True, text=True
    )
    assert text.returncode == 0 and "DNS:localhost, DNS:imap.contoso.com" in text.stdout
    assert made["FileData"] == request.read_text()
    assert str(made["Thumbprint"]) in server.shell("Get-ExchangeCertificate")
    again = server.run("export-exchangecertificate", "--thumbprint", str(made["Thumbprint"]), "--output", "json")
    assert json.loads(again.stdout)[0]["FileData"] == request.read_text()
    refused = server.run(
        "enable-exchangecertificate", "--thumbprint", str(made["Thumbprint"]), "--services", "POP", status=1
    )
    assert "is a pending request" in refused.stderr
    answer = tmp_path / "answer.p7b"
    certificate = authority.answer(request.read_bytes())
    answer.write_bytes(authority.pkcs7(certificate, Encoding.DER))
    (row,) = rows(server, "import-exchangecertificate", "--file-data", str(answer))
    assert row["Services"] == "IMAP, POP" and row["Status"] == "Valid"
    assert shown(server.imaps) == certificate
    assert all(r["Status"] != "PendingRequest" for r in rows(server, "get-exchangecertificate"))


def test_export_and_import_again(server: Server, authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("localhost")
    source = tmp_path / "source.p12"
    source.write_bytes(authority.pkcs12(certificate, key, "secret 12"))
    words = ("import-exchangecertificate", "--file-data", str(source), "--password", "secret 12")
    (row,) = rows(server, *words)
    thumbprint = str(row["Thumbprint"])
    out = tmp_path / "out.p12"
    export = ("export-exchangecertificate", "--thumbprint", thumbprint, "--file-name", str(out))
    done = server.run(*export, "--password", "another 12", status=1)
    assert "is not exportable" in done.stderr and not out.exists()
    rows(server, *words, "--private-key-exportable", "true")
    (row,) = rows(server, *export, "--password", "another 12")
    assert "FileData" not in row and stat.S_IMODE(out.stat().st_mode) == 0o600
    loaded = pkcs12.load_pkcs12(out.read_bytes(), b"another 12")
    assert loaded.cert is not None and loaded.cert.certificate == certificate
    assert [c.certificate for c in loaded.additional_certs] == [authority.intermediate]
    assert "is not overwritten" in server.run(*export, "--password", "another 12", status=1).stderr
    assert "at least 8 characters" in server.run(*export[:3], "--password", "short", status=2).stderr
    (row,) = rows(server, *export[:3], "--format", "Pem", "--password", "another 12")
    assert "BEGIN ENCRYPTED PRIVATE KEY" in str(row["FileData"]) and "BEGIN PRIVATE KEY" not in str(row["FileData"])
    (row,) = rows(server, *export[:3])
    assert row["FileData"] == pem(certificate, authority.intermediate).decode()


def test_removal_is_refused_while_in_use(server: Server, authority: Authority, tmp_path: Path) -> None:
    (first,) = rows(server, "get-exchangecertificate")
    words = ("remove-exchangecertificate", "--thumbprint", str(first["Thumbprint"]))
    assert "no other certificate could take its place" in server.run(*words, "--force", status=1).stderr
    thumbprint = imported(server, tmp_path, authority.whole("localhost"))
    done = server.run(*words, status=1)
    assert f"with -Force it is removed, and {thumbprint} takes its place" in done.stderr
    server.run("enable-exchangecertificate", "--thumbprint", thumbprint, "--services", "IMAP,POP,IIS")
    server.run(*words)
    assert [r["Thumbprint"] for r in rows(server, "get-exchangecertificate")] == [thumbprint]
    left = {p.name for p in (server.data / "certificates").iterdir()}
    assert left == {f"{thumbprint}.{e}" for e in ("pem", "key", "root")}
    assert all(stat.S_IMODE((server.data / "certificates" / n).stat().st_mode) == 0o600 for n in left)


def test_what_if_changes_nothing(server: Server, authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "x.pem"
    path.write_bytes(authority.whole("localhost"))
    (first,) = rows(server, "get-exchangecertificate")
    for words in (
        ("new-exchangecertificate", "--domain-name", "a.contoso.com"),
        ("new-exchangecertificate", "--domain-name", "a.contoso.com", "--generate-request"),
        ("import-exchangecertificate", "--file-data", str(path)),
        ("enable-exchangecertificate", "--thumbprint", str(first["Thumbprint"]), "--services", "IIS"),
    ):
        done = server.run(*words, "--what-if")
        assert "What if: " in done.stderr
    assert rows(server, "get-exchangecertificate") == [first]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("import-exchangecertificate", "--file-data", "/nonexistent/x.pem"), "No such file or directory"),
        (("import-exchangecertificate", "--file-data", "/etc"), "is not a file"),
        (("import-exchangecertificate", "--file-data", "/etc/passwd"), "neither PEM text nor base64|neither PEM nor"),
        (("new-exchangecertificate", "--domain-name", "a b"), "'a b' is not a host name"),
        (("new-exchangecertificate", "--domain-name", "a.b", "--key-size", "1024"), "1024 is not allowed for RSA"),
        (("new-exchangecertificate", "--domain-name", "a.b", "--key-size", "x"), "'x' is not a number"),
        (("new-exchangecertificate", "--domain-name", "a.b", "--key-algorithm", "DSA"), "ECDSA, RSA"),
        (("new-exchangecertificate", "--domain-name", "a.b", "--friendly-name", "x" * 65), "at most 64"),
        (("new-exchangecertificate", "--subject-name", "nonsense"), "is not a distinguished name"),
        (("get-exchangecertificate", "--thumbprint", "../x"), "40 hexadecimal digits"),
        (("get-exchangecertificate", "--server", "OTHER"), "there is no server 'OTHER' here"),
    ],
)
def test_each_mistake_is_one_clear_line(idle: Server, words: tuple[str, ...], text: str) -> None:
    before = sorted((p.name, p.read_bytes()) for p in (idle.data / "certificates").iterdir())
    done = subprocess.run(server_command(idle, words), capture_output=True, text=True, timeout=60)
    assert done.returncode in (1, 2) and done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("letterlock: error: ") and re.search(text, done.stderr)
    assert sorted((p.name, p.read_bytes()) for p in (idle.data / "certificates").iterdir()) == before


def server_command(server: Server, words: tuple[str, ...]) -> list[str]:
    from tests.clients.server import PROGRAM

    return [PROGRAM, words[0], "--data", str(server.data), *words[1:]]


# --- from another machine


def test_remote_administrators_never_make_the_server_read_or_write_files(authority: Authority, tmp_path: Path) -> None:
    """Path tricks: files belong to whoever types the command; REST knows content only, and ViewOnly no keys."""
    rest = RestServer(tmp_path / "rest")
    rest.start()
    try:
        for name in ("/etc/passwd", "../../etc/passwd", "file:///etc/passwd", str(rest.data / "letterlock.db")):
            answer = rest.cmdlet("Import-ExchangeCertificate", FileData=name)
            assert answer.status == 400 and b"neither PEM text nor base64" in answer.body, answer.body
            assert b"root:" not in answer.body
        for name, parameters in (
            ("New-ExchangeCertificate", {"GenerateRequest": True, "RequestFile": str(tmp_path / "written")}),
            ("Export-ExchangeCertificate", {"Thumbprint": "0" * 40, "FileName": str(tmp_path / "written")}),
        ):
            rest.ask("POST", f"cmdlets/{name}", parameters)
            assert not (tmp_path / "written").exists()

        certificate, key = authority.issue("localhost")
        source, out = tmp_path / "source.p12", tmp_path / "out.p12"
        source.write_bytes(authority.pkcs12(certificate, key, "secret 12"))
        words = ("--file-data", str(source), "--password", "secret 12", "--private-key-exportable", "true")
        done = rest.remote("import-exchangecertificate", *words, "--output", "json")
        assert done.returncode == 0, done.stderr
        thumbprint = str(json.loads(done.stdout)[0]["Thumbprint"])
        export = ("export-exchangecertificate", "--thumbprint", thumbprint, "--password", "another 12")
        done = rest.remote(*export, "--file-name", str(out))
        assert done.returncode == 0, done.stderr
        assert stat.S_IMODE(out.stat().st_mode) == 0o600
        loaded = pkcs12.load_pkcs12(out.read_bytes(), b"another 12").cert
        assert loaded is not None and loaded.certificate == certificate

        done = rest.remote(*export, who=VIEWER)
        assert done.returncode == 1 and "the role ViewOnly may not run Export-ExchangeCertificate" in done.stderr
        assert rest.cmdlet("Get-ExchangeCertificate", who=VIEWER).status == 200
        errors = (rest.data / "serve.stderr").read_text()
        assert "secret 12" not in errors and "PRIVATE KEY" not in errors
        assert shown(rest.port) != certificate
        # the administration itself gives out the new certificate once that is enabled for it
        rest.remote("enable-exchangecertificate", "--thumbprint", thumbprint, "--services", "IIS")
        assert shown(rest.port) == certificate
    finally:
        rest.kill()
