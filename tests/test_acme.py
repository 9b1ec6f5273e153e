"""Certificates from a real ACME server: Debian's pebble, with its DNS server for tests, against a running `serve`."""

from __future__ import annotations

import datetime
import json
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from acme import messages
from acme.client import ClientNetwork, ClientV2
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from letterlock.base.errors import Refused
from letterlock.base.settings_acme import AcmeSettings
from letterlock.base.values import TimeSpan
from letterlock.directory import acme_answers
from letterlock.directory.acme_answers import Proof, by_file, by_hook, by_listener
from letterlock.directory.acme_orders import BACK_OFF_S, AcmeOrder, back_off
from tests.authority import pem
from tests.clients.server import PROGRAM, Server, free_ports
from tests.programs import need, path
from tests.test_certificates_served import rows, shown

HOOK = """#!{python}
import json, sys, urllib.request
action, domain, name, value = sys.argv[1:]
assert name == "_acme-challenge." + domain
body = {{"host": name + "."}} | ({{"value": value}} if action == "present" else {{}})
call = "set-txt" if action == "present" else "clear-txt"
urllib.request.urlopen("http://127.0.0.1:{port}/" + call, json.dumps(body).encode(), 10).read()
open("{log}", "a").write(action + " " + domain + "\\n")
"""


class Pebble:
    """The ACME server and its DNS."""

    def __init__(self, folder: Path, life_s: int = 90 * 86400, external: bool = False, bad_nonces: int = 5) -> None:
        need("pebble", "pebble-challtestsrv")
        folder.mkdir()
        self.folder, self.bad_nonces = folder, bad_nonces
        self.port, self.management, self.http, self.dns, self.control = free_ports(5)
        ca = trustme.CA()
        self.ca = folder / "ca.pem"
        ca.cert_pem.write_to_path(str(self.ca))
        made = ca.issue_cert("localhost", "127.0.0.1")
        made.private_key_pem.write_to_path(str(folder / "key.pem"))
        made.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))
        config = {
            "listenAddress": f"127.0.0.1:{self.port}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(folder / "cert.pem"),
            "privateKey": str(folder / "key.pem"),
            "httpPort": self.http,
            "tlsPort": 1,
            "externalAccountBindingRequired": external,
            "externalAccountMACKeys": {"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"},
            "certificateValidityPeriod": life_s,
        }
        (folder / "config.json").write_text(json.dumps({"pebble": config}))
        self.processes: list[subprocess.Popen[bytes]] = []
        dns = ["-dns01", f"127.0.0.1:{self.dns}", "-management", f"127.0.0.1:{self.control}", "-defaultIPv6", ""]
        self._run([path("pebble-challtestsrv"), *dns, "-http01", "", "-https01", "", "-tlsalpn01", ""])
        self.start()

    def start(self) -> None:
        """Again, having forgotten everything: pebble keeps nothing on disk."""
        command = [path("pebble"), "-config", str(self.folder / "config.json")]
        self._run([*command, "-dnsserver", f"127.0.0.1:{self.dns}", "-strict"])
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "pebble did not start"
                time.sleep(0.05)

    def _run(self, command: list[str]) -> None:
        with (self.folder / "log").open("ab") as log:
            environment = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0", "HOME": str(self.folder)}
            environment["PEBBLE_WFE_NONCEREJECT"] = str(self.bad_nonces)
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))

    def stop_authority(self) -> None:
        """The ACME server only."""
        self.processes[-1].kill()
        self.processes.pop().wait()

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def get(self, what: str) -> bytes:
        """From the management interface."""
        context = ssl.create_default_context(cafile=str(self.ca))
        with urllib.request.urlopen(
            f"https://localhost:{self.management}/{what}", context=context, timeout=10
        ) as found:
            answer: bytes = found.read()
        return answer

    @property
    def settings(self) -> str:
        return (
            f"Set-AcmeSettings -DirectoryUrl https://localhost:{self.port}/dir -CaFile {self.ca} "
            f"-HttpBindings 127.0.0.1:{self.http} -Contact postmaster@contoso.com"
        )


@pytest.fixture
def pebble(tmp_path: Path) -> Iterator[Pebble]:
    running = Pebble(tmp_path / "pebble")
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "server", users=("alice",))
    running.start(workers=2)
    try:
        yield running
        assert "Traceback" not in (running.data / "serve.stderr").read_text()
    finally:
        running.kill()


def agreed(server: Server, pebble: Pebble, more: str = "") -> None:
    server.shell(f"{pebble.settings} -TermsOfServiceAgreed $true {more}")


def acme_files(server: Server) -> dict[str, int]:
    return {p.suffix: stat.S_IMODE(p.stat().st_mode) for p in (server.data / "acme").iterdir()}


def account(server: Server) -> messages.Registration:
    """What the authority has noted; asked with the account's own key. Its Contact is a setting."""
    (key_file,) = (server.data / "acme").glob("*.key")
    known = json.loads(key_file.with_suffix(".json").read_text())
    key = JWKEC(key=serialization.load_pem_private_key(key_file.read_bytes(), None))
    resource = messages.RegistrationResource(uri=known["Uri"], body=messages.Registration())
    (row,) = rows(server, "get-acmesettings")
    network = ClientNetwork(key, account=resource, alg=ES256, verify_ssl=row["CaFile"])  # type: ignore[arg-type]
    client = ClientV2(ClientV2.get_directory(str(row["DirectoryUrl"]), network), network)
    return client.query_registration(resource).body


def test_order_by_http_serve_renew_and_revoke(server: Server, pebble: Pebble) -> None:
    server.shell(pebble.settings)  # Contact among them
    words = ("new-acmecertificate", "mail.contoso.com,imap.contoso.com", "--services", "IMAP,POP")
    done = server.run(*words, status=1)
    assert (
        "terms of service are not agreed to (data:text/plain" in done.stderr and "-TermsOfServiceAgreed" in done.stderr
    )
    assert rows(server, "get-acmecertificate") == []

    server.shell("Set-AcmeSettings -TermsOfServiceAgreed $true")
    assert "What if: order a certificate" in server.run(*words, "--what-if").stderr
    (row,) = rows(server, *words)
    first = str(row["Thumbprint"])
    assert row["CertificateDomains"] == ["mail.contoso.com", "imap.contoso.com"] and row["Services"] == "IMAP, POP"
    assert row["AcmeOrder"] == "mail.contoso.com" and row["IsSelfSigned"] is False
    assert acme_files(server) == {".key": 0o600, ".json": 0o600}
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", pebble.http), 1)  # it listens for the moment of the proof only

    assert account(server).contact == ("mailto:postmaster@contoso.com",)

    # it is served at once to clients that ask for its names, with its chain
    root = x509.load_pem_x509_certificate(pebble.get("roots/0"))
    context = ssl.create_default_context(cadata=pem(root).decode())
    for name in ("mail.contoso.com", "imap.contoso.com"):
        with (
            socket.create_connection(("127.0.0.1", server.imaps), 10) as sock,
            context.wrap_socket(sock, server_hostname=name) as connection,
        ):
            assert connection.version() == "TLSv1.3"

    (order,) = rows(server, "get-acmecertificate")
    assert (
        order["State"] == "Valid" and order["Failures"] == 0 and str(order["RenewalTime"]) > str(order["LastSuccess"])
    )
    assert "already" in server.run(*words, status=1).stderr

    # services enabled since are kept by the renewal; the one before is removed when it is not served any more
    server.run("enable-exchangecertificate", "--thumbprint", first, "--services", "SMTP")
    (row,) = rows(server, "update-acmecertificate", "mail.contoso.com")
    second = str(row["Thumbprint"])
    assert second != first and row["Services"] == "IMAP, POP, SMTP"
    assert first not in {r["Thumbprint"] for r in rows(server, "get-exchangecertificate")}
    assert f"{shown(server.imaps, 'mail.contoso.com').serial_number:X}" == row["SerialNumber"]

    # revocation arrives at the authority, and what is revoked is renewed
    done = server.run("revoke-acmecertificate", "--thumbprint", second, "--reason", "KeyCompromise")
    assert "Update-AcmeCertificate mail.contoso.com" in done.stderr
    status = json.loads(pebble.get(f"cert-status-by-serial/{int(str(row['SerialNumber']), 16):x}"))
    assert status["Status"] == "Revoked" and status["Reason"] == 1
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:  # the server replaces it by itself, and what was revoked is removed
        (order,) = rows(server, "get-acmecertificate")
        if order["Thumbprint"] != second:
            break
    assert order["State"] == "Valid" and order["Thumbprint"] != second
    assert second not in {r["Thumbprint"] for r in rows(server, "get-exchangecertificate")}

    server.run("remove-acmecertificate", "mail.contoso.com")
    assert rows(server, "get-acmecertificate") == []
    assert "there is no ACME order" in server.run("update-acmecertificate", "mail.contoso.com", status=1).stderr
    errors = (server.data / "serve.stderr").read_text()
    assert "PRIVATE KEY" not in errors


def test_wildcards_by_dns_through_the_hook(server: Server, pebble: Pebble, tmp_path: Path) -> None:
    agreed(server, pebble)
    words = ("new-acmecertificate", "--domain-name", "*.contoso.com,contoso.com", "--services", "SMTP")
    assert "can only be proved by DNS" in server.run(*words, status=1).stderr
    assert "DnsHook is required" in server.run("set-acmesettings", "--challenge-type", "Dns01", status=2).stderr
    for bad in ("/bin/sh", "../x", "a b", ".hidden"):
        done = server.run("set-acmesettings", "--challenge-type", "Dns01", "--dns-hook", bad, status=2)
        assert "is not the name of a program in the folder hooks" in done.stderr
    server.run("set-acmesettings", "--challenge-type", "Dns01", "--dns-hook", "dns", "--dns-wait", "0")
    assert "cannot be started: No such file" in server.run(*words, status=1).stderr

    hook, log = server.data / "hooks" / "dns", tmp_path / "hook.log"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\necho 'no \x1b[31mrights' >&2\nexit 3\n")
    hook.chmod(0o755)
    done = server.run(*words, status=1)
    assert "dns present contoso.com ended with status 3: no  [31mrights" in done.stderr

    hook.write_text(HOOK.format(python=sys.executable, port=pebble.control, log=log))
    (row,) = rows(server, *words)
    assert row["CertificateDomains"] == ["*.contoso.com", "contoso.com"]
    said = log.read_text().splitlines()
    assert said.count("present contoso.com") == 2 and said.count("cleanup contoso.com") == 2
    assert (
        shown(server.imaps, "any.contoso.com").subject
        == x509.load_pem_x509_certificate(
            (server.data / "certificates" / f"{row['Thumbprint']}.pem").read_bytes()
        ).subject
    )


def test_failures_are_one_line_and_leave_everything(server: Server, pebble: Pebble, tmp_path: Path) -> None:
    agreed(server, pebble)
    before = server.run("get-exchangecertificate").stdout
    words = ("new-acmecertificate", "mail.contoso.com")

    def fails(text: str, *more: str, status: int = 1) -> None:
        done = server.run(*(more or words), status=status)
        assert text in done.stderr and done.stderr.count("\n") == 1, done.stderr

    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", pebble.http))
        taken.listen()
        fails("Address already in use; where a web server has that port, set WebRoot")
    (other,) = free_ports(1)
    server.run("set-acmesettings", "--http-bindings", f"127.0.0.1:{other}")
    fails("the authority could not verify mail.contoso.com: ")  # nobody answers at the port it asks
    server.run("set-acmesettings", "--http-bindings", f"127.0.0.1:{pebble.http}")
    for name in ("localhost", "10.1.2.3"):
        fails("is no name in public DNS", "new-acmecertificate", name, status=2)
    fails("is not a host name", "new-acmecertificate", "a b.com", status=2)
    server.run("set-acmesettings", "--ca-file", "")
    fails("the authority's own certificate cannot be trusted")
    server.run("set-acmesettings", "--ca-file", str(tmp_path / "missing.pem"))
    fails("cannot be reached")
    server.run("set-acmesettings", "--ca-file", str(pebble.ca))
    server.run("set-acmesettings", "--directory-url", f"https://localhost:{pebble.management}/roots/0")
    fails("does not answer as an ACME authority does")
    server.run("set-acmesettings", "--directory-url", f"https://localhost:{other}/dir")
    fails("cannot be reached")
    assert "is not an https URL" in server.run("set-acmesettings", "--directory-url", "http://x/", status=2).stderr
    assert server.run("get-exchangecertificate").stdout == before
    assert rows(server, "get-acmecertificate") == []


def test_the_server_renews_by_itself(tmp_path: Path) -> None:
    """A life of 45 seconds: after 30 a third is left. RenewalEnabled switches it off and on."""
    pebble = Pebble(tmp_path / "pebble", life_s=45)
    server = Server(tmp_path / "server", users=("alice",))
    try:
        agreed(server, pebble)
        # without a running server: it is had all the same
        (row,) = rows(server, "new-acmecertificate", "mail.contoso.com", "--services", "IMAP,POP")
        server.run("set-acmesettings", "--renewal-enabled", "false")
        server.start(workers=2)
        end = datetime.datetime.fromisoformat(str(row["NotAfter"])).timestamp()
        time.sleep(max(0, end - 14 - time.time()))
        served = {row["SerialNumber"]}
        assert f"{shown(server.imaps, 'mail.contoso.com').serial_number:X}" in served, "renewal is switched off"
        assert rows(server, "get-acmecertificate")[0]["State"] == "RenewalDue"
        server.run("set-acmesettings", "--renewal-enabled", "true")
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while len(served) < 2 and time.monotonic() < deadline:
            served.add(f"{shown(server.imaps, 'mail.contoso.com').serial_number:X}")
            time.sleep(0.25)
        assert len(served) == 2, (server.data / "serve.stderr").read_text()
        assert "the certificate for mail.contoso.com was renewed" in (server.data / "serve.stderr").read_text()

        # an authority that is down: told, counted, waited for; the certificate that is there stays
        pebble.stop_authority()
        deadline = time.monotonic() + 60
        order: dict[str, object] = {}
        while time.monotonic() < deadline:
            (order,) = rows(server, "get-acmecertificate")
            if order["Failures"]:
                break
            time.sleep(0.25)
        assert order["Failures"] == 1 and "cannot be reached" in str(order["LastError"])
        assert "could not be renewed, next try in 1 hours" in (server.data / "serve.stderr").read_text()
        # back again, and it has forgotten the account: registered anew with the same key
        pebble.start()
        (row,) = rows(server, "update-acmecertificate", "mail.contoso.com")
        (order,) = rows(server, "get-acmecertificate")
        assert order["Failures"] == 0 and order["LastError"] == ""
        assert "Traceback" not in (server.data / "serve.stderr").read_text()
    finally:
        server.kill()
        pebble.stop()


def test_accounts_that_need_another_one_first(tmp_path: Path) -> None:
    """RFC 8555 §7.3.4; at an authority that finds fault with 40 of 100 nonces (§6.5)."""
    pebble = Pebble(tmp_path / "pebble", external=True, bad_nonces=40)
    server = Server(tmp_path / "server", users=())
    try:
        agreed(server, pebble)
        words = ("new-acmecertificate", "mail.contoso.com")
        assert "give -ExternalAccountKeyId" in server.run(*words, status=1).stderr
        key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
        assert "go together" in server.run(*words, "--external-account-key-id", "kid-1", status=2).stderr
        wrong = server.run(
            *words, "--external-account-key-id", "kid-1", "--external-account-hmac-key", "AAAA" + key[4:], status=1
        )
        assert "the authority refuses" in wrong.stderr and key[4:] not in wrong.stderr
        (row,) = rows(server, *words, "--external-account-key-id", "kid-1", "--external-account-hmac-key", key)
        assert row["Status"] in ("Valid", "Untrusted")
        assert key not in server.run("get-acmesettings").stdout
        assert key.encode() not in (server.data / "letterlock.db").read_bytes()
    finally:
        pebble.stop()


def test_a_web_server_answers_from_the_web_root(server: Server, pebble: Pebble, tmp_path: Path) -> None:
    root = tmp_path / "www"
    root.mkdir()
    command = [sys.executable, "-m", "http.server", str(pebble.http), "--bind", "127.0.0.1", "--directory", str(root)]
    web = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        agreed(server, pebble, f"-WebRoot {root}")
        rows(server, "new-acmecertificate", "mail.contoso.com")
        assert list((root / ".well-known" / "acme-challenge").iterdir()) == []
    finally:
        web.kill()
        web.wait()


# --- without an authority


def _order(**more: object) -> AcmeOrder:
    values: dict[str, object] = {
        "identity": "a.example.com", "domains": ("a.example.com",), "services": (), "friendly_name": "",
        "algorithm": "ECDSA", "size": 256, "exportable": False, "directory_url": "https://x/",
    }  # fmt: skip
    return AcmeOrder(**(values | more))  # type: ignore[arg-type]


def test_back_off_doubles_up_to_a_day() -> None:
    assert [back_off(n) / BACK_OFF_S for n in range(8)] == [0, 1, 2, 4, 8, 16, 24, 24]
    assert back_off(10_000) == 86400
    failed = _order().failed("x" * 1000)
    assert failed.failures == 1 and len(failed.error) == 500
    assert failed.due(None) == pytest.approx(failed.last_attempt + 3600)
    assert failed.succeeded("T").due(None) == 0


async def _ask(port: int, text: bytes) -> bytes:
    import asyncio

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    try:
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


def test_the_listener_answers_its_tokens_and_nothing_else(tmp_path: Path) -> None:
    import asyncio

    (port,) = free_ports(1)
    settings = AcmeSettings(HttpBindings=(acme_answers.Binding("127.0.0.1", port),))
    proofs = [Proof("a.example.com", "t" * 20, "t" * 20 + ".thumb")]
    good = b"/.well-known/acme-challenge/" + b"t" * 20

    async def run() -> None:
        async with by_listener(settings, proofs, acme_answers.listen):
            answer = await _ask(port, b"GET " + good + b" HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\n" + b"t" * 20 + b".thumb")
            for request in (
                b"GET / HTTP/1.1\r\n\r\n",
                b"POST " + good + b" HTTP/1.1\r\n\r\n",
                b"GET /.well-known/acme-challenge/../../letterlock.db HTTP/1.1\r\n\r\n",
                b"GET " + good + b"x HTTP/1.1\r\n\r\n",
                b"\xff\xfe\r\n\r\n",
                b"\r\n\r\n",
            ):
                assert (await _ask(port, request)).startswith(b"HTTP/1.1 404 Not Found\r\n"), request
            assert await _ask(port, b"GET /" + b"x" * 20000 + b"\r\n\r\n") == b"", "a request without end"
        with pytest.raises(OSError):
            await _ask(port, b"")

    asyncio.run(run())


@pytest.mark.parametrize("token", ["../../../etc/cron.d/x", "short", "a/b" * 10, "x" * 20 + "\n", ""])
def test_a_malformed_token_is_no_path(tmp_path: Path, token: str) -> None:
    """Path tricks by an authority."""
    import asyncio

    settings = AcmeSettings(WebRoot=str(tmp_path / "www"), HttpBindings=(acme_answers.Binding("127.0.0.1", 1),))
    proofs = [Proof("a.example.com", token, "x")]

    async def run() -> None:
        with pytest.raises(Refused, match="malformed token"):
            async with by_file(settings, proofs):
                pass
        with pytest.raises(Refused, match="malformed token"):
            async with by_listener(settings, proofs, acme_answers.listen):
                pass

    asyncio.run(run())
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_records_are_taken_out_when_a_later_one_fails(tmp_path: Path) -> None:
    import asyncio

    hook, log = tmp_path / "dns", tmp_path / "log"
    hook.write_text(f'#!/bin/sh\necho "$1 $2" >>{log}\n[ "$1 $2" != "present b.example.com" ]\n')
    hook.chmod(0o755)
    settings = AcmeSettings(DnsHook="dns")
    proofs = [Proof(d, f"_acme-challenge.{d}", "v") for d in ("a.example.com", "b.example.com")]

    async def run() -> None:
        with pytest.raises(Refused, match=r"present b\.example\.com ended with status 1"):
            async with by_hook(settings, proofs, tmp_path):
                raise AssertionError

    asyncio.run(run())
    assert log.read_text().split("\n")[2:4] == ["cleanup a.example.com", "cleanup b.example.com"]


def test_the_record_is_given_time(tmp_path: Path) -> None:
    import asyncio

    hook = tmp_path / "dns"
    hook.write_text("#!/bin/sh\n")
    hook.chmod(0o755)

    async def waited(seconds: int) -> float:
        settings = AcmeSettings(DnsHook="dns", DnsWait=TimeSpan(seconds))
        began = time.monotonic()
        async with by_hook(settings, [Proof("a.example.com", "_acme-challenge.a.example.com", "v")], tmp_path):
            return time.monotonic() - began

    assert asyncio.run(waited(2)) >= 2 > asyncio.run(waited(0))


def test_settings_refuse_what_cannot_be(tmp_path: Path) -> None:
    server = Server(tmp_path, users=())
    for words, text in (
        (("--contact", "nobody"), "'nobody' is not a mail address"),
        (("--ca-file", "relative.pem"), "is not an absolute path"),
        (("--http-bindings", ""), "HttpBindings or WebRoot is required"),
        (("--dns-wait", "2.00:00:00"), "out of range"),
        (("--challenge-type", "TlsAlpn01"), "Http01 (0), Dns01 (1)"),
    ):
        done = subprocess.run(
            [PROGRAM, "set-acmesettings", "--data", str(server.data), *words],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 2 and text in done.stderr, done.stderr
    assert "restarted" not in server.run("set-acmesettings", "--contact", "a@contoso.com").stderr
    (row,) = rows(server, "get-acmesettings")
    assert row["Contact"] == ["a@contoso.com"] and row["HttpBindings"] == ["[::]:80", "0.0.0.0:80"]
