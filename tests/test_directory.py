"""Accounts, certificates and the files they live in."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from letterlock import tls
from letterlock.base.errors import Malformed, Refused
from letterlock.directory.accounts import Accounts
from letterlock.directory.certificate_names import Wish
from letterlock.directory.certificates import Certificates
from letterlock.directory.config import Config
from letterlock.directory.verifiers import Verifier, hash_password
from letterlock.session import Password
from tests.programs import need


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A new data directory."""
    return Config.create(tmp_path, "mail.example.com", "EX1", 0)


def test_a_newer_directory_is_refused_with_one_sentence(config: Config) -> None:
    config.db.pragma("user_version", 99)
    config.close()
    with pytest.raises(Refused, match="newer version of letterlock"):
        Config.open(config.data)


@pytest.mark.parametrize(
    "bad", ["x", "a b@example.com", "a@", "@b", "a@b\r\nc", "a" * 300 + "@example.com", "a\x00@b.c"]
)
def test_bad_addresses(config: Config, bad: str) -> None:
    with pytest.raises(Malformed):
        Accounts(config).create(bad, "x", "", "", "test")


def test_logins_are_found_without_case_and_changes_are_seen_from_elsewhere(config: Config) -> None:
    accounts, elsewhere = Accounts(config), Accounts(Config.open(config.data))
    made = accounts.create("Alice@Example.COM", hash_password("one"), "", "", "test")
    assert made.address == "Alice@example.com"
    assert len(made.id) == 32 and "one" not in repr(made) and made.password_hash not in repr(made)
    found = elsewhere.by_login("alice@EXAMPLE.com")
    assert found is not None and found.id == made.id
    accounts.set_password(made, hash_password("two"), "test")
    again = elsewhere.by_login("alice@example.com")
    assert again is not None and again.password_hash != found.password_hash
    with pytest.raises(Refused):
        accounts.create("alice@example.com", "x", "", "", "test")


def test_verifier(config: Config) -> None:
    accounts = Accounts(config)
    made = accounts.create("a@example.com", hash_password("right"), "", "", "test")

    async def run() -> None:
        with ThreadPoolExecutor(1) as executor:
            verifier = Verifier(accounts, executor)
            assert await verifier.verify("a@example.com", Password(b"wrong")) is None
            assert await verifier.verify("nobody@example.com", Password(b"right")) is None
            for _ in range(2):
                assert await verifier.verify("a@example.com", Password(b"right")) is not None
            accounts.set_password(made, hash_password("new"), "test")
            assert await verifier.verify("a@example.com", Password(b"right")) is None, "remembered after a change"

    asyncio.run(run())


def test_certificates_by_name_and_the_wildcard_rule(config: Config) -> None:
    store = Certificates(config)
    plain = store.create(Wish(["mail.example.com"]), ("IMAP",), "test")
    wild = store.create(Wish(["*.example.org"]), (), "test")
    assert (plain.key.stat().st_mode & 0o777) == 0o600
    assert store.choose("mail.example.com", "IMAP")[0].thumbprint == plain.thumbprint
    assert store.choose("a.example.org", "IMAP")[0].thumbprint == wild.thumbprint
    for name in ("a.b.example.org", "example.org", "mail.example.net"):
        with pytest.raises(Refused, match="X509CertificateName"):
            store.choose(name, "IMAP")
    with pytest.raises(Refused, match="Set-ImapSettings -X509CertificateName"):
        store.enable(wild, ["IMAP"], "test")
    assert store.enable(plain, ["POP"], "test").services == ("IMAP", "POP")


def test_a_strict_verifier_accepts_the_certificate(config: Config) -> None:
    need("openssl")
    made = Certificates(config).create(Wish(["mail.example.com"]), (), "test")
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "mail.example.com"]
    done = subprocess.run([*command, "-CAfile", str(made.file), str(made.file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alpn_is_read_from_a_real_client_hello() -> None:
    for offered in (["imap", "http/1.1"], []):
        context = ssl.create_default_context()
        if offered:
            context.set_alpn_protocols(offered)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="mail.example.com")
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        hello = outgoing.read()
        assert tls.client_hello_alpn(hello) == ([o.encode() for o in offered] or None)
        for cut in range(0, len(hello), 7):
            tls.client_hello_alpn(hello[:cut])


def test_a_key_that_does_not_fit_is_one_clear_line(config: Config, tmp_path: Path) -> None:
    store = Certificates(config)
    one, two = (store.create(Wish([n]), (), "test") for n in ("a.example.com", "b.example.com"))
    with pytest.raises(Refused, match="cannot be used"):
        tls.server_context(one.file, two.key, [])
