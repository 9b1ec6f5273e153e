"""Declared settings: parsing, refusing with a sentence, storing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import letterlock
from letterlock.base import declare
from letterlock.base.errors import Malformed
from letterlock.base.settings import ImapSettings, PopSettings, defaults
from letterlock.base.values import Binding, ByteSize, ConnectionSetting, ListChange, LoginType, TimeSpan


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("MaxCommandSize", "20", "MaxCommandSize: value 20 is out of range; it must be between 1024 and 16384"),
        ("LoginType", "Secure", "PlainTextLogin (1), PlainTextAuthentication (2), SecureLogin (3)"),
        ("SSLBindings", "x", "expected <IPv4 or IPv6 address>:<port>"),
        ("SSLBindings", "[::]:70000", "expected <IPv4 or IPv6 address>:<port>"),
        ("ExternalConnectionSettings", "a:b:c:d", "expected <host>:<port>[:TLS or :SSL]"),
        ("LogPerFileSizeQuota", "2 XB", "use a number with B, KB, MB, GB or TB"),
        ("X509CertificateName", "*.contoso.com", "must be a host name, not '*.contoso.com'"),
        ("LogFileLocation", "relative", "absolute path"),
        ("AuthenticatedConnectionTimeout", "00:00:10", "between 00:00:30 and 1.00:00:00"),
        ("Banner", "a\r\nb", "control characters"),
        ("ProtocolLogEnabled", "maybe", "$true or $false"),
    ],
)
def test_bad_values_are_refused_with_what_is_allowed(name: str, text: str, said: str) -> None:
    with pytest.raises(Malformed, match=re.escape(said)):
        declare.read(ImapSettings, name, text)


def test_values_print_as_exchange_prints_them() -> None:
    assert str(ByteSize.parse("2MB")) == "2 MB (2,097,152 bytes)"
    assert str(ByteSize(0)) == "0 B (0 bytes)"
    assert ByteSize.parse(str(ByteSize.parse("2MB"))) == ByteSize(2 * 1024**2)
    assert str(TimeSpan.parse("1:00:00")) == "01:00:00"
    assert str(TimeSpan.parse("1.00:00:00")) == "1.00:00:00"
    assert str(Binding.parse("[::]:993")) == "[::]:993"
    assert str(ConnectionSetting.parse("Mail.Contoso.com:993:ssl")) == "mail.contoso.com:993:SSL"


def test_lists_change_by_add_and_remove() -> None:
    old = declare.read(ImapSettings, "SSLBindings", "0.0.0.0:993,[::]:993")
    change = ListChange(None, add=("127.0.0.1:1993",), remove=("0.0.0.0:993",))
    assert list(map(str, declare.read(ImapSettings, "SSLBindings", change, old))) == ["[::]:993", "127.0.0.1:1993"]
    assert declare.read(ImapSettings, "SSLBindings", None, old) == ()


@pytest.mark.parametrize("kind", [ImapSettings, PopSettings])
def test_stored_and_restored(kind: type[ImapSettings]) -> None:
    made = defaults(kind, "mail.example.com", 10000)
    assert declare.restored(kind, declare.stored(made)) == made
    assert made.LoginType is LoginType.SecureLogin
    assert str(made.SSLBindings[0]).endswith(("10993", "10995"))


def test_the_whole_object_is_checked() -> None:
    with pytest.raises(Malformed, match="OwaServerUrl is required"):
        declare.restored(ImapSettings, {"CalendarItemRetrievalOption": "Custom"}).check()


@pytest.mark.parametrize("kind", [ImapSettings, PopSettings])
def test_every_setting_has_a_reader_or_says_that_it_has_none_yet(kind: type[ImapSettings]) -> None:
    package = Path(letterlock.__file__).parent
    code = "".join(p.read_text() for p in package.rglob("*.py") if p.parent.name != "base")
    shown_only = {"InternalConnectionSettings", "ExternalConnectionSettings"}
    for name, declared in declare.fields(kind).items():
        used = f".{name}" in code or name in shown_only
        # RFC822.SIZE is always exact: only POP3 reads this one
        assert used != bool(declared.setting.later), name
