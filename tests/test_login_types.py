"""LoginType's whole truth table as clients meet it: what is offered, and what is answered, on each kind of port."""

from __future__ import annotations

import asyncio
import base64
import itertools
from pathlib import Path
from typing import Any

import pytest

from letterlock.base.settings import ImapSettings, PopSettings
from letterlock.base.values import LoginType, Tls
from letterlock.imap.session import ImapSession
from letterlock.policy.login import Channel, LoginRules
from letterlock.pop3 import Pop3Session
from letterlock.store.sqlite import SqliteStore
from tests.dialogue import BOX, FakeHost

PLAIN = base64.b64encode(b"\0alice\0secret 1")
USER, SECRET = base64.b64encode(b"alice"), base64.b64encode(b"secret 1")
IMAP = {
    "LOGIN": [b'a LOGIN alice "secret 1"\r\n'],
    "AUTHENTICATE PLAIN": [b"a AUTHENTICATE PLAIN\r\n", PLAIN + b"\r\n"],
    "AUTHENTICATE PLAIN at once": [b"a AUTHENTICATE PLAIN " + PLAIN + b"\r\n"],
    "AUTHENTICATE LOGIN": [b"a AUTHENTICATE LOGIN\r\n", USER + b"\r\n", SECRET + b"\r\n"],
}
POP3 = {
    "USER": [b"USER alice\r\n", b"PASS secret 1\r\n"],
    "AUTH PLAIN": [b"AUTH PLAIN\r\n", PLAIN + b"\r\n"],
    "AUTH PLAIN at once": [b"AUTH PLAIN " + PLAIN + b"\r\n"],
    "AUTH LOGIN": [b"AUTH LOGIN\r\n", USER + b"\r\n", SECRET + b"\r\n"],
}
# On a clear channel only PlainTextLogin lets a password pass that can be read on the wire; under TLS everything goes.
ALLOWED = {
    (login_type, tls): tls is not Tls.NONE or login_type is LoginType.PlainTextLogin
    for login_type, tls in itertools.product(LoginType, (Tls.NONE, Tls.STARTTLS, Tls.IMPLICIT))
}


async def talk(path: Path, protocol: str, login_type: LoginType, tls: Tls, packets: list[bytes]) -> tuple[bytes, bool]:
    """Everything answered, and whether the session is logged in."""
    store = SqliteStore(path, inline=True)
    await store.create_mailbox(BOX)
    settings: Any = ImapSettings(LoginType=login_type) if protocol == "imap" else PopSettings(LoginType=login_type)
    make: Any = ImapSession if protocol == "imap" else Pop3Session
    host = FakeHost(store.mailbox(BOX))
    session = make(settings, host, Channel(tls=tls), LoginRules(login_type), tls is Tls.NONE)
    answer = b""
    for packet in packets:
        session.receive(packet)
        await session.advance()
        if b"NO [" in b"".join(session.out) or b"-ERR" in b"".join(session.out):
            break  # a client does not go on
    answer = b"".join(session.out)
    await store.close()
    return answer, session.authenticated


@pytest.mark.parametrize(("login_type", "tls"), ALLOWED, ids=lambda v: v.name)
@pytest.mark.parametrize("way", IMAP)
def test_imap(tmp_path: Path, login_type: LoginType, tls: Tls, way: str) -> None:
    answer, entered = asyncio.run(talk(tmp_path, "imap", login_type, tls, IMAP[way]))
    assert entered is ALLOWED[login_type, tls]
    if entered:
        assert b"a OK [CAPABILITY" in answer
    else:
        assert answer.startswith(b"a NO [PRIVACYREQUIRED] ")
        assert answer.count(b"\r\n") == 1, "no exchange is begun"


@pytest.mark.parametrize(("login_type", "tls"), ALLOWED, ids=lambda v: v.name)
@pytest.mark.parametrize("way", POP3)
def test_pop3(tmp_path: Path, login_type: LoginType, tls: Tls, way: str) -> None:
    answer, entered = asyncio.run(talk(tmp_path, "pop3", login_type, tls, POP3[way]))
    assert entered is ALLOWED[login_type, tls]
    if not entered:
        assert answer.startswith(b"-ERR [SYS/PERM] ")
        assert answer.count(b"\r\n") == 1, "no exchange is begun, and USER is refused before the password is sent"


@pytest.mark.parametrize(("login_type", "tls"), ALLOWED, ids=lambda v: v.name)
def test_what_is_offered(tmp_path: Path, login_type: LoginType, tls: Tls) -> None:
    allowed = ALLOWED[login_type, tls]
    imap, _ = asyncio.run(talk(tmp_path / "imap", "imap", login_type, tls, [b"a CAPABILITY\r\n"]))
    words = imap.split(b"\r\n")[0].split()
    assert (b"LOGINDISABLED" in words) is not allowed
    assert (b"AUTH=PLAIN" in words and b"AUTH=LOGIN" in words) is allowed
    assert (b"STARTTLS" in words) is (tls is Tls.NONE)
    pop, _ = asyncio.run(talk(tmp_path / "pop", "pop3", login_type, tls, [b"CAPA\r\n"]))
    lines = pop.split(b"\r\n")
    assert (b"USER" in lines) is allowed
    assert (b"SASL PLAIN LOGIN" in lines) is allowed
    assert (b"STLS" in lines) is (tls is Tls.NONE)
