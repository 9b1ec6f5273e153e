"""ENVELOPE and BODYSTRUCTURE of CPython's e-mail corpus agree with what Debian's Dovecot answers for the same files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import test.test_email

from letterlock.mail.mime import parse
from letterlock.mail.structure import describe
from tests.programs import need

# Differences, each with its reason; one that is not listed fails, and so does a listed one that vanished.
DIFFERENT = {
    ("BODYSTRUCTURE", "msg_14.txt"): "Content-Type is 'text' alone: we take text/plain (RFC 2045 §5.2), Dovecot NIL",
    ("BODYSTRUCTURE", "msg_33.txt"): "the same parameters; we keep the order of the field",
}
IMAP = Path("/usr/lib/dovecot/imap")


def corpus() -> list[Path]:
    return sorted((Path(test.test_email.__file__).parent / "data").glob("*.txt"))


def crlf(path: Path) -> bytes:
    return path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def plain(text: bytes) -> bytes:
    """Without quoting, literal sizes and case, which RFC 3501 leaves free."""
    text = re.sub(rb"\{\d+\}\r\n", b"", text)
    return re.sub(rb'[\s"\\]+', b" ", text).lower().replace(b" )", b")").replace(b"( ", b"(")


@pytest.fixture(scope="module")
def dovecot() -> Iterator[dict[str, dict[int, bytes]]]:
    """Dovecot's answers by item and message number."""
    need("dovecot")
    home = Path(tempfile.mkdtemp(prefix="letterlock-dovecot-"))
    try:
        for sub in ("cur", "new", "tmp"):
            (home / "mail" / sub).mkdir(parents=True)
        for number, path in enumerate(corpus(), 1000):
            (home / "mail" / "cur" / f"{number}.x.y:2,S").write_bytes(crlf(path))
        config = home / "dovecot.conf"
        command = [str(IMAP), "-c", str(config)]
        owner = ""
        if os.getuid() == 0:  # Dovecot does not open mail as root
            subprocess.run(["chown", "-R", "mail:mail", str(home)], check=True)
            command = ["setpriv", "--reuid=mail", "--regid=mail", "--clear-groups", *command]
            owner = "mail_uid = mail\nmail_gid = mail\n"
        config.write_text(f"mail_location = maildir:{home}/mail\nfirst_valid_uid = 0\nlog_path = /dev/stderr\n{owner}")
        config.chmod(0o644)
        talk = b"a SELECT INBOX\r\nb FETCH 1:* (ENVELOPE)\r\nc FETCH 1:* (BODYSTRUCTURE)\r\nd LOGOUT\r\n"
        environment = {**os.environ, "HOME": str(home), "USER": "x"}
        done = subprocess.run(command, input=talk, capture_output=True, env=environment, timeout=60)
        answers: dict[str, dict[int, bytes]] = {}
        for key in ("ENVELOPE", "BODYSTRUCTURE"):
            pattern = rb"\* (\d+) FETCH \(" + key.encode() + rb" (.*?)\)\r\n(?=\* \d+ FETCH|[bc] OK)"
            answers[key] = {int(m[1]): m[2] for m in re.finditer(pattern, done.stdout, re.DOTALL)}
            assert len(answers[key]) == len(corpus()), done.stderr
        yield answers
    finally:
        shutil.rmtree(home)


@pytest.mark.parametrize("number", range(1, len(corpus()) + 1), ids=[p.name for p in corpus()])
@pytest.mark.parametrize("item", ["ENVELOPE", "BODYSTRUCTURE"])
def test_agrees_with_dovecot(dovecot: dict[str, dict[int, bytes]], item: str, number: int) -> None:
    path = corpus()[number - 1]
    ours = describe(crlf(path))
    mine = ours.envelope if item == "ENVELOPE" else ours.bodystructure
    same = plain(mine) == plain(dovecot[item][number])
    assert same == ((item, path.name) not in DIFFERENT), (mine, dovecot[item][number])


def test_a_message_within_a_message() -> None:
    raw = b"Content-Type: message/rfc822\r\n\r\nFrom: a@example.com\r\nSubject: inner\r\n\r\nbody\r\n"
    message = parse(raw).message
    assert message is not None
    assert raw[message.body : message.end] == b"body\r\n"
    assert b'"inner"' in describe(raw).bodystructure
