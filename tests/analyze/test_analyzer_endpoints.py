"""Live endpoints judged: Debian's Dovecot, weak and strong, our own server, and OpenSSL's s_server.

Dovecot listens on 127.0.0.2 and is spoken to from 127.0.0.1: it takes a client on its own address for secure.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from letterlock.analyze import rules
from letterlock.analyze.inventory_sort import Fact, take
from letterlock.base.facts import EndpointFact
from letterlock.base.values import Protocol
from letterlock.probe import scanner
from letterlock.probe.endpoint import probe_endpoint
from tests.analyze.test_analyzer_cmdlet import program
from tests.analyze.test_real_servers import HOST, Dovecot
from tests.clients.server import Server, free_ports
from tests.programs import need, path, required

WEAK = "ssl_min_protocol = TLSv1\nssl_cipher_list = ALL:COMPLEMENTOFALL:@SECLEVEL=0\nssl_prefer_server_ciphers = yes\n"
STRONG = (
    "ssl = required\nssl_min_protocol = TLSv1.2\nssl_cipher_list = ECDHE+AESGCM:ECDHE+CHACHA20\n"
    "login_greeting = Ready.\n"
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path: sockets live in it."""
    with tempfile.TemporaryDirectory(prefix="ll-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def dovecot(place: Path) -> Iterator[Callable[[str], Dovecot]]:
    need("dovecot", "openssl")
    running: list[Dovecot] = []

    def start(more: str) -> Dovecot:
        running.append(Dovecot(place, False, more))
        return running[-1]

    yield start
    for each in running:
        each.process.kill()
        each.process.wait()


def judged(host: str, port: int, protocol: Protocol, trust: Path | None = None) -> dict[str, tuple[str, str]]:
    """Verdict and detail by rule."""
    facts: list[Fact] = list(asyncio.run(probe_endpoint(host, port, protocol, 60.0, trust=trust)))
    return {f.id: (f.verdict.value, f.detail) for f in rules.judge(take(facts, time.time()))}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the scanner."""
    monkeypatch.setenv("LETTERLOCK_SSLYZE", "")


def old_certificate(place: Path) -> str:
    """RSA 1024, expired, for another name."""
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old.example.com")])
    day = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(day)
        .not_valid_after(day + datetime.timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("old.example.com")]), False)
        .sign(key, hashes.SHA256())
    )
    (place / "old.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (place / "old.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return f"ssl_cert = <{place}/old.pem\nssl_key = <{place}/old.key\n"


@pytest.mark.usefixtures("alone")
def test_a_weak_dovecot_fails_where_it_is_weak(dovecot: Callable[[str], Dovecot], place: Path) -> None:
    server = dovecot(WEAK + old_certificate(place))
    found = judged(HOST, server.imap, Protocol.IMAP4)
    assert found["WIRE-CLEAR"][0] == "Fail", "invented credentials were looked at in clear"
    assert found["WIRE-OFFER"][0] == "Warning" and "PLAIN" in found["WIRE-OFFER"][1]
    assert found["TLS-VER"][0] == "Fail"
    assert found["WIRE-NAME"][0] == "Fail" and "old.example.com" in found["WIRE-NAME"][1]
    assert found["WIRE-DATE"] == ("Fail", "expired on 2020-12-31")
    assert found["WIRE-KEY"] == ("Fail", "the key is RSA 1024 only")
    assert found["TLS-FS"][0] == "Warning"
    assert found["WIRE-BANNER"][0] == "Info" and found["WIRE-INJECTION"][0] == "Pass"
    assert found["TLS-FAULTS"][0] == "Info" and "not installed" in found["TLS-FAULTS"][1]
    pop = judged(HOST, server.pop, Protocol.POP3)
    assert pop["WIRE-CLEAR"][0] == "Fail" and pop["TLS-VER"][0] == "Fail"


@pytest.mark.usefixtures("alone")
def test_a_strong_dovecot_passes(dovecot: Callable[[str], Dovecot], place: Path) -> None:
    server = dovecot(STRONG)
    for port, protocol in ((server.imap, Protocol.IMAP4), (server.imaps, Protocol.IMAP4), (server.pop, Protocol.POP3)):
        found = judged(HOST, port, protocol, place / "certificate.pem")
        # 30 days is what the test's certificate has
        bad = {i: f for i, f in found.items() if f[0] in ("Fail", "Error") and i != "WIRE-DATE"}
        assert not bad, (port, bad)
        assert found["WIRE-TRUST"][0] == found["WIRE-NAME"][0] == found["TLS-VER"][0] == "Pass"


def test_its_configuration_says_the_same(dovecot: Callable[[str], Dovecot], place: Path) -> None:
    """doveconf -n of the running server, judged: what the wire shows, and both together as one system."""
    need("doveconf")
    server = dovecot(WEAK)
    text = subprocess.run(
        [path("doveconf"), "-n", "-c", str(place / "dovecot.conf")], check=True, capture_output=True, text=True
    ).stdout
    (place / "doveconf.txt").write_text(text)
    done = program("--path", str(place / "doveconf.txt"), "--endpoint", f"{HOST}:{server.imap}", "--output", "json")
    rows = {(r["Id"], r["Target"].split()[-1]): r for r in json.loads(done.stdout)}
    assert done.returncode == 1
    for identity in ("IMAP002", "LOGIN-CLEAR", "TLS-FLOOR"):
        assert rows[identity, "IMAP4"]["Verdict"] == "Fail", rows[identity, "IMAP4"]
    assert f"{HOST}:{server.imap}" in rows["LOGIN-CLEAR", "IMAP4"]["Detail"]
    assert rows["WIRE-CLEAR", f"{HOST}:{server.imap}"]["Verdict"] == "Fail"
    assert "disable_plaintext_auth = yes" in rows["LOGIN-CLEAR", "IMAP4"]["Remedy"]
    assert not [r for r in rows.values() if r["Id"] == "INPUT-FILE"], "every line of doveconf is understood"


def test_our_own_server_passes_on_the_wire(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    server.start()
    try:
        ends = ",".join(f"localhost:{p}" for p in (server.imap, server.imaps, server.pop, server.pops))
        done = program("--endpoint", ends, "--trusted-certificate", str(server.ca), "--output", "json")
        rows = json.loads(done.stdout)
        assert done.returncode == 0, [r for r in rows if r["Verdict"] in ("Fail", "Error")]
        assert {r["Verdict"] for r in rows} <= {"Pass", "Info"}
        assert len({r["Target"] for r in rows}) == 4
    finally:
        server.stop()


def test_the_scanner_and_our_own_probe_agree(
    dovecot: Callable[[str], Dovecot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """sslyze, where it is installed, finds what our own ClientHellos find."""
    if scanner.program() is None:
        if required():
            pytest.fail("sslyze is not installed: make scan")
        pytest.skip("sslyze is not installed: make scan")
    server = dovecot(WEAK)

    def facts() -> dict[str, Any]:
        found = asyncio.run(probe_endpoint(HOST, server.imap, Protocol.IMAP4, 90.0))
        return {f.name: f.value for f in found if isinstance(f, EndpointFact)}

    by_scanner = facts()
    monkeypatch.setenv("LETTERLOCK_SSLYZE", "")
    own = facts()
    assert str(by_scanner["Scanner"]).startswith("sslyze 6.") and own["Scanner"] == "own"
    for name in ("SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"):
        assert by_scanner[name] == own[name], name
    known = set(str(own["Ciphers TLSv1.2"]).split(", "))
    theirs = set(str(by_scanner["Ciphers TLSv1.2"]).split(", "))
    assert known & theirs and all("ARIA" in s or "CCM" in s or "SM4" in s for s in theirs - known), theirs - known
    assert by_scanner["Heartbleed"] is False and by_scanner["CcsInjection"] is False


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"server_scan_results": [{"scan_result": null}]}', "[" * 100_000, "\xff"]
)
def test_a_scanners_report_is_foreign_text(tmp_path: Path, text: str) -> None:
    file = tmp_path / "report.json"
    file.write_text(text, "latin-1")
    assert scanner._read(file) is None


def test_a_scanner_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = tmp_path / "sslyze"
    hangs.write_text("#!/bin/sh\nsleep 60 & echo $! > $0.child\nwait\n")
    hangs.chmod(0o755)
    monkeypatch.setenv("LETTERLOCK_SSLYZE", str(hangs))

    async def run() -> bool:
        return await scanner._run([str(hangs)], asyncio.get_running_loop().time() + 1)

    assert asyncio.run(run()) is False
    child = int(Path(f"{hangs}.child").read_text())
    time.sleep(0.2)
    assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]


def test_openssls_silent_server_could_not_be_judged(place: Path) -> None:
    """A TLS server that says nothing is no mail server; that is an error, and never a pass."""
    need("openssl")
    old_certificate(place)
    (port,) = free_ports(1)
    server = subprocess.Popen(
        [path("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(place / "old.pem"), "-key",
         str(place / "old.key"), "-cipher", "ALL:@SECLEVEL=0", "-quiet"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        time.sleep(0.5)
        done = program("--endpoint", f"127.0.0.1:{port}", "--timeout", "20", "--output", "json")
        rows = json.loads(done.stdout)
        assert done.returncode == 1 and [(r["Id"], r["Verdict"]) for r in rows] == [("WIRE-REACH", "Error")]
    finally:
        server.kill()
        server.wait()


def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    done = program("--endpoint", f"127.0.0.1:{port}", "--output", "json")
    assert done.returncode == 1 and json.loads(done.stdout)[0]["Verdict"] == "Error"
    assert "refused" in json.loads(done.stdout)[0]["Detail"].lower()
