"""SASL exchanges, server side."""

from __future__ import annotations

import pytest

from letterlock import sasl
from letterlock.base.errors import Malformed
from letterlock.policy.login import LOGIN, PLAIN


def test_plain() -> None:
    assert sasl.start(PLAIN).step(None) == sasl.Challenge(b"")
    assert sasl.start(PLAIN).step(b"\0u\0p") == sasl.Credentials("u", b"p")
    assert sasl.start(PLAIN).step(b"u\0u\0p") == sasl.Credentials("u", b"p")


@pytest.mark.parametrize(
    "bad", [b"", b"u\0p", b"other\0u\0p", b"\0u\0", b"\0\0p", b"\0u\0p\0x", b"\0\xff\0p", b"\0u\r\0p"]
)
def test_plain_refuses(bad: bytes) -> None:
    with pytest.raises(Malformed):
        sasl.start(PLAIN).step(bad)


def test_login() -> None:
    exchange = sasl.start(LOGIN)
    assert exchange.step(None) == sasl.Challenge(b"Username:")
    assert exchange.step(b"u") == sasl.Challenge(b"Password:")
    assert exchange.step(b"p") == sasl.Credentials("u", b"p")


def test_credentials_do_not_print_the_password() -> None:
    assert "secret" not in repr(sasl.Credentials("u", b"secret"))


@pytest.mark.parametrize("bad", [b"a", b"!!!!", b"YQ", b"Y Q=", b"A" * 10_000])
def test_base64_is_strict_and_bounded(bad: bytes) -> None:
    with pytest.raises(Malformed):
        sasl.decode(bad)
    assert sasl.decode(b"=") == b""
