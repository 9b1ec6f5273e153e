"""SASL mechanisms, server side, without I/O: PLAIN (RFC 4616) and LOGIN (draft-murchison-sasl-login).

`start(mechanism)` answers an exchange; `step(response)` answers a challenge to send or the finished credentials.
Base64 and the protocol's framing are done by `decode` and the sessions; an exchange holds nothing after it ended.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final, NamedTuple, Protocol

from letterlock.base.errors import Malformed
from letterlock.policy.login import LOGIN, PLAIN, Mechanism

MAX_RESPONSE: Final = 4096  # decoded; three fields of at most 1024 octets and their separators fit


class Credentials(NamedTuple):
    """What a finished exchange yields; its repr hides the password."""

    user: str
    password: bytes

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r}, password=***)"


class Challenge(NamedTuple):
    """Octets for the client, before base64."""

    data: bytes


class Exchange(Protocol):
    """One authentication."""

    def step(self, response: bytes | None) -> Challenge | Credentials:
        """The next answer; None where the client sent no initial response. Raises `Malformed`."""


def decode(text: bytes) -> bytes:
    """Strict, bounded base64 (RFC 4648 §3.3); `=` alone is an empty response (RFC 4959 §3, RFC 5034 §4)."""
    if text == b"=":
        return b""
    if len(text) > MAX_RESPONSE * 4 // 3 + 4:
        raise Malformed("the authentication response is too long")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("the authentication response is not base64") from None


def _user(name: bytes) -> str:
    """UTF-8, no control characters, not empty."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        raise Malformed("the user name is not UTF-8") from None
    if not text or len(name) > 1024 or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise Malformed("the user name is empty, too long or has control characters")
    return text


class _Plain:
    """message = [authzid] NUL authcid NUL passwd (RFC 4616 §2)."""

    def step(self, response: bytes | None) -> Challenge | Credentials:
        if response is None:
            return Challenge(b"")
        fields = response.split(b"\x00")
        if len(fields) != 3 or not fields[2] or len(fields[2]) > 1024:
            raise Malformed("PLAIN expects authorization identity, user and password, separated by NUL")
        # acting as somebody else is not offered
        if fields[0] and fields[0] != fields[1]:
            raise Malformed("the authorization identity must be empty or the user itself")
        return Credentials(_user(fields[1]), fields[2])


class _Login:
    """Two challenges, two answers."""

    def __init__(self) -> None:
        self._name: str | None = None

    def step(self, response: bytes | None) -> Challenge | Credentials:
        if response is None:
            return Challenge(b"Username:")
        if self._name is None:
            self._name = _user(response)
            return Challenge(b"Password:")
        if not response or len(response) > 1024 or b"\x00" in response:
            raise Malformed("the password is empty, too long or has a NUL")
        return Credentials(self._name, response)


def start(mechanism: Mechanism) -> Exchange:
    """A new exchange; the caller has asked `decide` whether it may be started."""
    if mechanism == PLAIN:
        return _Plain()
    if mechanism == LOGIN:
        return _Login()
    raise Malformed(f"{mechanism.name.decode()} is not a SASL mechanism here")


def mechanism(name: bytes) -> Mechanism | None:
    """By name, without case."""
    return {b"PLAIN": PLAIN, b"LOGIN": LOGIN}.get(name.upper())
