"""The NO STARTTLS study (USENIX Security 2021) and the repairs that were not complete."""

from __future__ import annotations

import contextlib
import ssl
import time
from pathlib import Path

import pytest

import letterlock
from tests.clients.server import PASSWORD, Server
from tests.raw import Raw

USER = "alice@demo.test"

# What is sent in one packet with the command, or in several right behind it, before the answer is read.
IMAP = {
    "the same packet": [b"a STARTTLS\r\nx CAPABILITY\r\n"],
    "pipelined tags": [b"x1 NOOP\r\na STARTTLS\r\nx2 NOOP\r\nx3 CAPABILITY\r\nx4 LOGIN m m\r\n"],
    "split in the line end": [b"a STARTTLS\r", b"\nx CAPABILITY\r\n"],
    "split in the injected command": [b"a STARTTLS\r\nx CAPABI", b""],
    "octet by octet": [bytes([c]) for c in b"a STARTTLS\r\n"],
    "an open literal": [b"a STARTTLS\r\nx LOGIN {5+}\r\nmal"],
    "a literal that waits": [b"a STARTTLS\r\nx LOGIN {5}\r\n"],
    "an open quoted string": [b'a STARTTLS\r\nx LOGIN "mallory'],
    "an open exchange": [b"a STARTTLS\r\nx AUTHENTICATE PLAIN\r\nAGEAYg==\r\n"],
    "a second one": [b"a STARTTLS\r\nx STARTTLS\r\n"],
    "white space": [b"a STARTTLS\r\n \r\n"],
    "a bare line feed": [b"a STARTTLS\r\nx NOOP\n"],
    "NULs": [b"a STARTTLS\r\n\0\0\0\0x NOOP\r\n"],
    "a megabyte": [b"a STARTTLS\r\n" + b"x NOOP\r\n" * 2000],
}
POP3 = {
    "the same packet": [b"STLS\r\nCAPA\r\n"],
    "pipelined": [b"CAPA\r\nSTLS\r\nUSER mallory\r\nPASS x\r\n"],
    "split in the line end": [b"STLS\r", b"\nUSER mallory\r\n"],
    "an open exchange": [b"STLS\r\nAUTH PLAIN\r\nAGEAYg==\r\n"],
    "half a line": [b"STLS\r\nUSER mall"],
    "a bare line feed": [b"STLS\r\nUSER mallory\n"],
}


def spoken(raw: Raw, packets: list[bytes], answer: bytes) -> None:
    """Send the packets, read to the answer; nothing may come in clear behind it."""
    for packet in packets:
        raw.send(packet)
        time.sleep(0.01)
    assert raw.until(answer)
    time.sleep(0.05)
    raw.sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        raw.buffer += raw.sock.recv(65536)
    raw.sock.setblocking(True)
    raw.sock.settimeout(20)
    assert not raw.buffer, "answered in clear behind STARTTLS"


@pytest.mark.parametrize("kind", IMAP)
def test_command_injection_and_incomplete_repair_imap(server: Server, kind: str) -> None:
    raw = Raw(server.imap)
    raw.line()
    spoken(raw, IMAP[kind], b"a OK")
    raw.tls(server)
    raw.send(b"z NOOP\r\n")
    assert raw.line() == b"z OK NOOP completed.\r\n", "something was carried into TLS"
    raw.close()


@pytest.mark.parametrize("kind", POP3)
def test_command_injection_and_incomplete_repair_pop3(server: Server, kind: str) -> None:
    raw = Raw(server.pop)
    raw.line()
    spoken(raw, POP3[kind], b"+OK Begin TLS")
    raw.tls(server)
    raw.send(b"PASS x\r\n")
    assert raw.line() == b"-ERR USER comes before PASS\r\n", "something was carried into TLS"
    raw.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"a STARTTLS\rb NOOP\r\n",
        b"a STARTTLS\n",
        b"a STARTTLS {5+}\r\nabcde\r\n",
        b"a STARTTLS x\r\n",
        b"a STARTTLS \r\n",
    ],
    ids=["CR only", "LF only", "literal", "argument", "space"],
)
def test_what_is_not_quite_starttls_upgrades_nothing(server: Server, sent: bytes) -> None:
    raw = Raw(server.imap)
    raw.line()
    raw.send(sent)
    assert b" BAD " in raw.line()
    raw.send(b"z NOOP\r\n")
    assert raw.until(b"z ").startswith(b"z OK"), "still in clear"
    raw.close()


def test_half_a_tls_record_behind_starttls_is_thrown_away(server: Server) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = server.context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    raw = Raw(server.imap)
    raw.line()
    raw.send(b"a STARTTLS\r\n" + hello[:50])  # whoever puts octets there is in the middle
    assert raw.until(b"a OK")
    raw.send(hello[50:])
    answer = raw.rest()
    assert not answer or answer[0] == 21, "an alert, or nothing: no handshake with octets from before the answer"
    raw.close()


def test_session_fixation(tmp_path: Path) -> None:
    """A login or a user name from before TLS does not survive it."""
    running = Server(
        tmp_path, settings="Set-ImapSettings -LoginType PlainTextLogin\nSet-PopSettings -LoginType PlainTextLogin"
    )
    running.start(workers=1)
    try:
        raw = Raw(running.imap)
        raw.line()
        raw.send(f'a LOGIN {USER} "{PASSWORD}"\r\nb SELECT INBOX\r\nc STARTTLS\r\n'.encode())
        assert raw.until(b"a ").startswith(b"a OK")
        assert raw.until(b"c ").startswith(b"c BAD"), "STARTTLS after a login in clear"
        raw.close()
        raw = Raw(running.pop)
        raw.line()
        raw.send(f"USER {USER}\r\n".encode())
        assert raw.line().startswith(b"+OK")
        raw.send(b"STLS\r\n")
        assert raw.line().startswith(b"+OK")
        raw.tls(running)
        raw.send(f"PASS {PASSWORD}\r\n".encode())
        assert raw.line() == b"-ERR USER comes before PASS\r\n"
        raw.close()
    finally:
        running.kill()


def test_preauth_is_never_sent(server: Server) -> None:
    for port in (server.imap, server.imaps):
        raw = Raw(port)
        if port == server.imaps:
            raw.tls(server)
        assert raw.line().startswith(b"* OK ")
        raw.close()
    assert not _in_sources(b"PREAUTH", "imap", "pop3.py", "runtime")


def test_referrals_are_never_sent(server: Server) -> None:
    assert not _in_sources(b"REFERRAL", "imap", "pop3.py", "runtime")
    raw = Raw(server.imaps)
    raw.tls(server)
    raw.send(b"a LOGIN nobody@elsewhere.example.com x\r\n")
    assert raw.until(b"a ").startswith(b"a NO [AUTHENTICATIONFAILED] ")
    raw.close()


def _in_sources(word: bytes, *places: str) -> list[Path]:
    """Modules that have the word in a bytes literal, as what is sent would be."""
    root = Path(letterlock.__file__).parent
    files = [f for place in places for f in ([root / place] if place.endswith(".py") else (root / place).rglob("*.py"))]
    return [f for f in files if b'b"' + word in f.read_bytes() or b"[" + word in f.read_bytes()]


def test_no_alert_and_nothing_untagged_that_was_not_asked_for_before_tls(server: Server) -> None:
    raw = Raw(server.imap)
    lines = [raw.line()]
    raw.send(b'a NOOP\r\nb LOGIN x y\r\nc SELECT INBOX\r\nd ID NIL\r\ne CAPABILITY\r\nf LIST "" *\r\ng LOGOUT\r\n')
    lines += raw.rest().splitlines(keepends=True)
    untagged = [line for line in lines[1:] if line.startswith(b"*")]
    assert [line.split()[1] for line in untagged] == [b"ID", b"CAPABILITY", b"BYE"]
    assert not [line for line in lines if b"ALERT" in line]
    raw.close()
