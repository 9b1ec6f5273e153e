"""Mail of the real world and malformed mail of every kind: in over IMAP, out byte-identical."""

from __future__ import annotations

import imaplib
import re
from pathlib import Path

import pytest
import test.test_email

from tests.clients.server import Server


def corpus() -> list[bytes]:
    """CPython's own e-mail test corpus."""
    directory = Path(test.test_email.__file__).parent / "data"
    found = [p.read_bytes() for p in sorted(directory.glob("*.txt"))]
    assert len(found) > 40
    return found


def nested(depth: int) -> bytes:
    """`depth` multiparts, one in the other."""
    opening = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))
    return opening + b"Content-Type: text/plain\r\n\r\ninnermost\r\n"


MALFORMED = {
    "no headers": b"\r\njust a body\r\n",
    "no body": b"Subject: only a header\r\n",
    "one octet": b"x",
    "NULs": b"Subject: a\x00b\r\n\r\nbody \x00 with \x00\r\n",
    "header line of 1 MB": b"Subject: " + b"a" * 1_000_000 + b"\r\n\r\nbody\r\n",
    "500 nested multiparts": nested(500),
    "bad charset": b"Subject: =?no-such-charset?B?gICA?=\r\nContent-Type: text/plain; charset=\xff\r\n\r\n\xff\xfe\r\n",
    "bare LF": b"Subject: unix\nFrom: a@example.com\n\nline\nline\n",
    "bare CR": b"Subject: mac\rFrom: a@example.com\r\rline\r",
    "mixed line ends": b"Subject: a\nTo: b@example.com\r\n\r\nline\nline\r\n\r",
    "no end of line": b"Subject: a\r\n\r\nno end",
    "boundary never comes": b"Content-Type: multipart/mixed; boundary=x\r\n\r\nno parts at all\r\n",
    "10,000 address header": b"To: " + b", ".join(b"u%d@example.com" % n for n in range(10_000)) + b"\r\n\r\n.\r\n",
    "nested comments": b"From: " + b"(" * 5000 + b"a@example.com" + b")" * 5000 + b"\r\n\r\n.\r\n",
}


def test_real_and_malformed_mail_comes_back_byte_for_byte(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [*corpus(), *MALFORMED.values()]
    monkeypatch.setattr(imaplib, "MapCRLF", re.compile(rb"(?!)"))  # imaplib must not mend line ends
    monkeypatch.setattr(imaplib, "_MAXLINE", 10_000_000)  # nor mind the line of 1 MB in an ENVELOPE
    server.fill(messages)
    assert server.messages() == messages
    client = server.imap_client()
    client.select()
    status, answer = client.fetch("1:*", "(ENVELOPE BODYSTRUCTURE RFC822.SIZE)")
    assert status == "OK"
    numbers = [part for part in answer if (part[0] if isinstance(part, tuple) else part)[:1].isdigit()]
    assert len(numbers) == len(messages)
    client.logout()
