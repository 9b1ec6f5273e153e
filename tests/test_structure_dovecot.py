"""ENVELOPE and BODYSTRUCTURE agree with what Debian's Dovecot answers for the same messages: CPython's e-mail corpus,
our well-formed messages and our malformed ones. docs/mime-differences.md explains each difference."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from letterlock.mail.mime import parse
from letterlock.mail.structure import describe
from tests.messages import MALFORMED, WELL_FORMED, cpython, crlf
from tests.programs import need

HERE = Path(__file__).parent
IMAP = Path("/usr/lib/dovecot/imap")
ITEMS = ("ENVELOPE", "BODYSTRUCTURE")
# Dovecot's maildir does not hold an empty message.
MESSAGES = {
    **{f"{name}.txt": crlf(raw) for name, raw in cpython().items()},
    **{name: raw for name, raw in (WELL_FORMED | MALFORMED).items() if raw},
}


def listed() -> set[tuple[str, str]]:
    """The rows of the table in docs/mime-differences.md: item and message."""
    text = (HERE.parent / "docs" / "mime-differences.md").read_text()
    rows = re.findall(r"^\| (ENVELOPE|BODYSTRUCTURE|both) \| (\S+) \|", text, re.MULTILINE)
    return {(item, name) for which, name in rows for item in (ITEMS if which == "both" else (which,))}


def plain(text: bytes) -> bytes:
    """Without quoting, literal sizes and case, which RFC 3501 leaves free."""
    text = re.sub(rb"\{\d+\}\r\n", b"", text)
    return re.sub(rb'[\s"\\]+', b" ", text).lower().replace(b" )", b")").replace(b"( ", b"(")


@pytest.fixture(scope="module")
def dovecot() -> Iterator[dict[str, dict[str, bytes]]]:
    """Dovecot's answers by item and message."""
    need("dovecot")
    home = Path(tempfile.mkdtemp(prefix="letterlock-dovecot-"))
    try:
        for sub in ("cur", "new", "tmp"):
            (home / "mail" / sub).mkdir(parents=True)
        for number, raw in enumerate(MESSAGES.values(), 1000):
            (home / "mail" / "cur" / f"{number}.x.y:2,S").write_bytes(raw)
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
        answers: dict[str, dict[str, bytes]] = {}
        names = list(MESSAGES)
        for key in ITEMS:
            pattern = rb"\* (\d+) FETCH \(" + key.encode() + rb" (.*?)\)\r\n(?=\* \d+ FETCH|[bc] OK)"
            answers[key] = {names[int(m[1]) - 1]: m[2] for m in re.finditer(pattern, done.stdout, re.DOTALL)}
            assert len(answers[key]) == len(MESSAGES), done.stderr
        yield answers
    finally:
        shutil.rmtree(home)


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("item", ITEMS)
def test_agrees_with_dovecot(dovecot: dict[str, dict[str, bytes]], item: str, name: str) -> None:
    ours = describe(MESSAGES[name])
    mine = ours.envelope if item == "ENVELOPE" else ours.bodystructure
    theirs = dovecot[item][name]
    same = plain(mine) == plain(theirs)
    assert same == ((item, name) not in listed()), (mine[:3000], theirs[:3000])


def test_every_difference_is_of_a_message_that_is_compared() -> None:
    assert {name for _, name in listed()} <= set(MESSAGES)


def test_a_message_within_a_message() -> None:
    raw = b"Content-Type: message/rfc822\r\n\r\nFrom: a@example.com\r\nSubject: inner\r\n\r\nbody\r\n"
    message = parse(raw).message
    assert message is not None
    assert raw[message.body : message.end] == b"body\r\n"
    assert b'"inner"' in describe(raw).bodystructure
