"""Certificates in the directory: files of every form, names, selection, validity, and hostile input."""

from __future__ import annotations

import base64
import json
import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from letterlock.base.errors import LetterlockError, Malformed, Refused
from letterlock.base.settings import ImapSettings
from letterlock.directory import certificate_files as files
from letterlock.directory import selection
from letterlock.directory.certificate_names import Wish, distinguished_name, domain, parse_subject
from letterlock.directory.certificates import Certificate, Certificates, PendingRequest
from letterlock.directory.config import Config
from letterlock.directory.trust import trust
from letterlock.policy.certificates import DAY_S, Dates, renewal_time, validity
from letterlock.runtime.contexts import Contexts
from tests.authority import Authority, key_pem, pem


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    opened = Config.create(tmp_path, "mail.contoso.com", "EX1", 0)
    yield opened
    opened.close()


@pytest.fixture
def store(config: Config) -> Certificates:
    return Certificates(config)


def take(store: Certificates, data: bytes, password: str | None = None, exportable: bool = False) -> Certificate:
    return store.take_in(files.read(data, password), "", exportable, "test")[0]


def enable(store: Certificates, one: Certificate, *services: str) -> Certificate:
    return store.enable(one, list(services), "test")


def state(store: Certificates) -> object:
    """Everything that a failed change must leave as it was."""
    rows = store._config.db.execute("SELECT * FROM certificate").fetchall()
    folder = store.directory
    return rows, sorted((p.name, p.read_bytes()) for p in folder.iterdir()) if folder.is_dir() else []


# --- forms of files


def test_every_form_of_file_gives_the_same_certificate(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("mail.contoso.com")
    chain = pem(authority.intermediate, authority.root)
    forms = {
        "key last": (pem(certificate) + chain + key_pem(key), None),
        "key first, chain backwards": (
            key_pem(key) + pem(authority.root, authority.intermediate, certificate),
            None,
        ),
        "windows line ends": ((pem(certificate) + chain + key_pem(key)).replace(b"\n", b"\r\n"), None),
        "encrypted key": (pem(certificate) + chain + key_pem(key, "secret 12"), "secret 12"),
        "pkcs12": (authority.pkcs12(certificate, key, "secret 12"), "secret 12"),
    }
    for number, (form, (data, password)) in enumerate(forms.items()):
        (folder := tmp_path / str(number)).mkdir()
        store = Certificates(Config.create(folder, "x.contoso.com", "EX1", 0))
        one = take(store, data, password)
        assert one.x509 == certificate and not one.fault, form
        assert one.chain[0] == authority.intermediate, form
        served = x509.load_pem_x509_certificates(one.file.read_bytes())
        assert served == [certificate, authority.intermediate], f"{form}: the root is not sent"
        assert stat.S_IMODE(one.key.stat().st_mode) == 0o600


def test_a_request_is_answered_by_pem_pkcs7_or_der(authority: Authority, store: Certificates) -> None:
    for number in range(4):
        wish = Wish([f"m{number}.contoso.com"], "", "Mail", exportable=True)
        request = store.request(wish, ("IMAP",), "test")
        assert stat.S_IMODE(request.key.stat().st_mode) == 0o600
        assert [r.thumbprint for r in store.pending()] == [request.thumbprint]
        answer = authority.answer(request.file.read_bytes())
        forms = (
            pem(answer),
            authority.pkcs7(answer, Encoding.PEM),
            authority.pkcs7(answer, Encoding.DER),
            answer.public_bytes(Encoding.DER),
        )
        one, completed = store.take_in(files.read(forms[number], None), "", False, "test")
        assert isinstance(completed, PendingRequest) and not store.pending()
        assert one.x509 == answer and not one.fault
        assert one.services == ("IMAP",) and one.exportable and one.friendly_name == "Mail"
        assert not request.file.exists() and not request.key.exists()


def test_an_answer_without_its_request_is_refused(authority: Authority, store: Certificates) -> None:
    certificate, _ = authority.issue("mail.contoso.com")
    with pytest.raises(Refused, match="no private key, and no pending request"):
        take(store, pem(certificate))
    assert state(store) == ([], [])


def test_importing_again_renews_the_chain_and_keeps_services(authority: Authority, store: Certificates) -> None:
    certificate, key = authority.issue("mail.contoso.com")
    one = enable(store, take(store, pem(certificate) + key_pem(key), exportable=True), "IMAP")
    assert trust(one).root == "Unknown" and "Test CA" in trust(one).trouble
    again = take(store, pem(certificate, authority.intermediate, authority.root))
    assert again.services == ("IMAP",) and again.exportable and not again.fault
    assert trust(again) == ("Enterprise", "")
    assert len(store.all()) == 1


# --- hostile and broken input


def test_each_bad_file_is_one_clear_line_and_changes_nothing(authority: Authority, store: Certificates) -> None:
    certificate, key = authority.issue("mail.contoso.com")
    other = ec.generate_private_key(ec.SECP256R1())
    weak = rsa.generate_private_key(65537, 1024)
    weak_certificate, _ = authority.issue("weak.contoso.com", key=weak)
    sealed = authority.pkcs12(certificate, key, "right one")
    kept = take(store, authority.whole("kept.contoso.com"))
    before = state(store)
    cases: list[tuple[bytes, str | None, str]] = [
        (b"hello", None, "neither PEM nor"),
        (b"\x30\x82\xff\xff" + b"\0" * 100, None, "neither PEM nor"),
        (b"-----BEGIN CERTIFICATE-----\n", None, "damaged or cut off"),
        (pem(certificate)[:-60], None, "damaged or cut off"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None, "malformed"),
        (b"-----BEGIN PKCS7-----\nAAAA\n-----END PKCS7-----\n", None, "PKCS #7 data is malformed"),
        (
            pem(certificate) + b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            None,
            "key is malformed",
        ),
        (key_pem(key), None, "no certificate in it"),
        (pem(certificate) + key_pem(other), None, "does not belong to any certificate"),
        (pem(certificate) + key_pem(key) + key_pem(other), None, "more than one private key"),
        (pem(certificate) + key_pem(key, "right one"), None, "give its -Password"),
        (pem(certificate) + key_pem(key, "right one"), "wrong one", "password is wrong"),
        (sealed, "wrong one", "password is wrong"),
        (sealed, None, "needs a -Password"),
        (sealed[:-40], "right one", "neither PEM nor|damaged"),
        (pem(weak_certificate) + key_pem(weak), None, "1024 bits is too weak"),
        (pem(*[certificate] * 30), None, "more than 20 certificates"),
        (store.request(Wish(["r.contoso.com"]), (), "test").file.read_bytes(), None, "certificate request"),
    ]
    store.remove(store.pending()[0], "test")
    for data, password, text in cases:
        with pytest.raises(LetterlockError, match=text) as caught:
            take(store, data, password)
        assert "\n" not in caught.value.text and "wrong one" not in caught.value.text
        assert state(store) == before, text
    assert store.one(kept.thumbprint) == kept


def test_file_data_is_bounded_and_of_known_kinds() -> None:
    for value, text in (
        ("A" * 600_000, "octets are too many"),
        ("not base64 at all!", "neither PEM text nor base64"),
        ("", "is empty"),
        ([1, 2, 256], "numbers from 0 to 255"),
        (["x"], "numbers from 0 to 255"),
        ("/etc/shadow", "neither PEM text nor base64"),
    ):
        with pytest.raises(Malformed, match=text):
            files.decode(value)
    assert files.decode([48, 130]) == b"0\x82"
    assert files.decode(base64.encodebytes(b"x" * 100).decode()) == b"x" * 100


def test_a_file_that_asks_for_endless_key_derivation_is_refused_at_once(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = authority.issue("mail.contoso.com")
    sealed = authority.pkcs12(certificate, key, "secret 12", rounds=3000)
    sealed_pem = pem(certificate) + key_pem(key, "secret 12")
    files.read(sealed, "secret 12")
    assert 3000 in set(files._rounds(sealed, 0))
    monkeypatch.setattr(files, "MAX_ROUNDS", 2000)
    for data in (sealed, sealed_pem):
        with pytest.raises(Malformed, match="rounds of password derivation; allowed are 2000"):
            files.read(data, "secret 12")


def test_damaged_input_never_raises_anything_else(authority: Authority) -> None:
    certificate, key = authority.issue("mail.contoso.com")
    texts = [
        pem(certificate, authority.intermediate) + key_pem(key),
        authority.pkcs12(certificate, key, "secret 12", rounds=10),
        authority.pkcs7(certificate, Encoding.DER),
    ]
    rng = random.Random(7)
    for _ in range(600):
        data = bytearray(rng.choice(texts))
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            files.read(bytes(data), "secret 12")
        except LetterlockError:
            continue


def test_names_with_control_characters_never_match(authority: Authority, store: Certificates) -> None:
    """Attack class: certificate name taken wrongly (a NUL ends a name for some readers)."""
    one = take(
        store, authority.whole("mail.contoso.com\0.evil.example", "a b.contoso.com", "ok.contoso.com", subject="x\r\ny")
    )
    assert one.domains == ("ok.contoso.com",)
    for name in ("mail.contoso.com", "mail.contoso.com\0.evil.example", "x"):
        assert not one.matches(name)
    assert one.matches("OK.contoso.com.")


def test_a_certificate_file_that_is_gone_or_damaged_does_not_stop_the_others(
    authority: Authority, store: Certificates
) -> None:
    bad = enable(store, take(store, authority.whole("mail.contoso.com")), "IMAP")
    good = store.create(Wish(["mail.contoso.com"]), (), "test")
    bad.file.write_text("damaged")
    assert store.choose("mail.contoso.com", "IMAP")[0] == good
    assert str(bad.file) in store.faults[0]
    good.key.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))
    with pytest.raises(Refused, match="private key belongs to another certificate"):
        store.choose("mail.contoso.com", "IMAP")
    good.key.unlink()
    with pytest.raises(Refused, match="cannot be read: No such file"):
        store.choose("mail.contoso.com", "IMAP")


def test_a_full_disk_leaves_nothing_half_made(
    authority: Authority, store: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(store, authority.whole("kept.contoso.com"))
    before = state(store)
    real = os.fsync
    calls = 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:  # key, root, certificate
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Refused, match="No space left on device; nothing was changed"):
        take(store, authority.whole("new.contoso.com"))
    assert state(store) == before


def test_thumbprints_are_checked(store: Certificates) -> None:
    one = store.create(Wish(["mail.contoso.com"]), (), "test")
    spaced = ":".join(one.thumbprint[i : i + 2] for i in range(0, 40, 2)).lower()
    assert store.one(spaced) == one
    assert store.one(f"mail.contoso.com\\{one.thumbprint}") == one
    for bad in ("../../etc/passwd", "", "0" * 39, "G" * 40, "0" * 40 + "\0"):
        with pytest.raises(Malformed, match="40 hexadecimal digits"):
            store.one(bad)
    with pytest.raises(Refused, match="there is no certificate"):
        store.one("0" * 40)


# --- names


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("Mail.Contoso.COM.", "mail.contoso.com"),
        ("*.contoso.com", "*.contoso.com"),
        ("10.1.2.3", "10.1.2.3"),
        ("::1", "::1"),
        ("a.*.com", None),
        ("*", None),
        ("**.x.com", None),
        ("mail contoso.com", None),
        ("mail.contoso.com\0", None),
        ("-x.com", None),
        ("", None),
        ("x" * 300, None),
        ("fe80::zz", None),
    ],
)
def test_domain_names(text: str, result: str | None) -> None:
    if result is None:
        with pytest.raises(Malformed, match="DomainName"):
            domain(text)
    else:
        assert domain(text) == result


def test_subject_names_in_either_order() -> None:
    for text in ("C=US, O=Contoso\\, Ltd, CN=mail.contoso.com", "CN=mail.contoso.com,O=Contoso\\, Ltd,C=US"):
        assert distinguished_name(parse_subject(text)) == "CN=mail.contoso.com, O=Contoso\\, Ltd, C=US"
    for bad in ("mail.contoso.com", "", "CN=a\nb", "XYZ=1", "CN=" + "x" * 2000):
        with pytest.raises(Malformed, match="SubjectName"):
            parse_subject(bad)


def test_wildcards_stand_for_exactly_one_label() -> None:
    """RFC 9525 §6.3."""
    names = ("*.contoso.com",)
    assert selection.matches(names, "mail.contoso.com")
    assert selection.matches(names, "MAIL.contoso.com.")
    for name in ("contoso.com", "a.b.contoso.com", "contoso.com.evil.example", "xcontoso.com", "com", "", "*.com"):
        assert not selection.matches(names, name)


def test_keys_of_all_kinds_serve(store: Certificates) -> None:
    for algorithm, size in (("ECDSA", 256), ("ECDSA", 384), ("RSA", 2048)):
        one = store.create(Wish(["mail.contoso.com"], algorithm=algorithm, size=size), (), "test")
        assert not one.fault
        assert one.x509.public_key().key_size == size  # type: ignore[union-attr]


# --- selection


def test_the_rules_of_selection_in_order(authority: Authority, store: Certificates) -> None:
    name, service = "mail.contoso.com", "IMAP"

    def best() -> str:
        found = store.candidates(name, service)
        assert found[0].why.startswith("served") and all(c.why.startswith("not served") for c in found[1:])
        assert store.choose(name, service)[0] == found[0].certificate
        return found[0].certificate.thumbprint

    selfmade = store.create(Wish([name]), ("IMAP", "POP"), "test")
    assert best() == selfmade.thumbprint
    own_wildcard = store.create(Wish(["*.contoso.com"]), (), "test")
    assert best() == selfmade.thumbprint, "enabled before a wildcard"
    expired = enable(store, take(store, authority.whole(name, days=(-90, -1))), "IMAP")
    assert best() == selfmade.thumbprint, "within its dates before expired"
    imported = take(store, authority.whole(name, days=(-2, 90)))
    assert best() == selfmade.thumbprint, "not before it is enabled"
    wildcard = take(store, authority.whole("*.contoso.com", "contoso.com"))
    assert best() == wildcard.thumbprint, "issued by an authority before self-signed; a wildcard needs no flag"
    enable(store, imported, "IMAP")
    assert best() == imported.thumbprint, "enabled before a wildcard"
    newer = enable(store, take(store, authority.whole(name, days=(-1, 90))), "IMAP")
    assert best() == newer.thumbprint, "newest"
    client_only = enable_forced(store, take(store, authority.whole(name, usage=ExtendedKeyUsageOID.CLIENT_AUTH)))
    assert client_only.fault and best() == newer.thumbprint, "usable only"
    whys = {c.certificate.thumbprint: c.why for c in store.candidates(name, service)}
    assert whys[imported.thumbprint] == f"not served: {newer.thumbprint} is newer"
    assert whys[expired.thumbprint] == "not served: not within its dates, or revoked"
    assert "is issued by an authority" in whys[selfmade.thumbprint]
    assert own_wildcard.thumbprint in whys and client_only.thumbprint not in whys
    assert store.choose(name, "POP")[0] == wildcard, "enabled for IMAP alone does not count for POP"


def enable_forced(store: Certificates, one: Certificate) -> Certificate:
    """Enabled although it cannot be served: as a row that an older version left."""
    store._config.db.execute(
        "UPDATE certificate SET services = ? WHERE thumbprint = ?", (json.dumps(["IMAP"]), one.thumbprint)
    )
    return store.one(one.thumbprint)


def test_names_asked_for_by_sni_only_find_what_is_in_service(authority: Authority, store: Certificates) -> None:
    enabled = enable(store, take(store, authority.whole("imap.contoso.com")), "IMAP")
    admin = enable(store, take(store, authority.whole("admin.contoso.com")), "IIS")
    wildcard = take(store, authority.whole("*.fabrikam.com"))
    everything = store.all()
    assert selection.by_server_name(everything, "IMAP.contoso.com", "IMAP") == enabled
    assert selection.by_server_name(everything, "x.fabrikam.com", "IMAP") == wildcard
    assert selection.by_server_name(everything, "admin.contoso.com", "IMAP") is None
    assert selection.by_server_name(everything, "admin.contoso.com", "IIS") == admin
    assert selection.by_server_name(everything, "nobody.example", "IMAP") is None


def test_no_flood_of_names_takes_memory(authority: Authority, store: Certificates) -> None:
    """Attack class: SNI look-ups eat memory (CVE-2017-15130). Contexts are kept by certificate, never by name."""
    enable(store, store.create(Wish(["mail.contoso.com"]), (), "test"), "IMAP")
    wildcard = take(store, authority.whole("*.fabrikam.com"))
    contexts = Contexts(store, "LetterlockImap4", store._config.settings(ImapSettings), b"s" * 32)
    contexts.reload("1.2")
    found = {contexts._by_name("1.2", f"host{n}.fabrikam.com") for n in range(500)}
    assert len(found) == 1 and None not in found
    assert {contexts._by_name("1.2", f"host{n}.example") for n in range(500)} == {None}
    assert len(contexts._contexts) == 2 and (wildcard.thumbprint, "1.2") in contexts._contexts


def test_the_published_certificate_is_what_clients_should_trust(authority: Authority, store: Certificates) -> None:
    path = store._config.data / "certificate.pem"
    first = store.create(Wish(["mail.contoso.com"]), ("IMAP", "POP"), "test")
    store.publish()
    assert path.read_bytes() == pem(first.x509) and stat.S_IMODE(path.stat().st_mode) == 0o644
    enable(store, take(store, authority.whole("mail.contoso.com")), "IMAP", "POP", "IIS")
    store.publish()
    assert path.read_bytes() == pem(authority.root)


# --- dates


def test_validity_and_warnings() -> None:
    def judged(life: float, left: float) -> tuple[Dates, str]:
        found = validity((left - life) * DAY_S, left * DAY_S, 0)
        return found.dates, found.warning

    assert judged(825, 31) == (Dates.GOOD, "")
    assert judged(825, 29) == (Dates.ENDING, "expires in 29 days")
    assert judged(90, 23) == (Dates.GOOD, "")
    assert judged(90, 22) == (Dates.ENDING, "expires in 22 days")
    assert judged(6, 1) == (Dates.ENDING, "expires in 24 hours")
    assert judged(90, -3) == (Dates.EXPIRED, "expired 3 days ago")
    assert validity(5 * DAY_S, 90 * DAY_S, 0) == (Dates.NOT_YET, 90, "is not valid for another 5 days")
    assert not validity(0, 10, 11).in_force and validity(0, 10, 9).in_force
    assert renewal_time(0, 90 * DAY_S) == 60 * DAY_S
