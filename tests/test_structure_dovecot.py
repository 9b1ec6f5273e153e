"""ENVELOPE and BODYSTRUCTURE beside what Debian's Dovecot answers for the same messages.

Answers are compared by meaning: case does not matter where RFC 2045 and RFC 3501 say so, parameters have no order.
Every difference is in DIFFERENCES with its reason; one that is not there fails, and so does one that vanished.
docs/mime-differences.md tells them to people.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from letterlock.mail.structure import describe
from tests import messages
from tests.programs import SYSTEM_PATH, need, path

Tree = list["Tree | bytes | int | None"]

CORPUS = {f"cpython-{name}": messages.crlf(raw) for name, raw in messages.cpython().items()}
ALL = CORPUS | messages.WELL_FORMED | messages.MALFORMED

DIFFERENCES: dict[tuple[str, str], str] = {}

CONFIGURATION = """
base_dir = {home}/run
state_dir = {home}/run
log_path = {home}/log
protocols = imap
ssl = no
mail_location = maildir:{home}/mail
default_internal_user = {user}
default_login_user = {user}
default_internal_group = {group}
stats_writer_socket_path =
first_valid_uid = 0
first_valid_gid = 0
"""


class Dovecot:
    """Dovecot's imap program on standard input and output, logged in, over a Maildir with given messages.

    It refuses to serve root: then it runs as nobody, outside pytest's directories, which are closed to others.
    """

    def __init__(self, stored: list[bytes]) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="letterlock-dovecot-"))
        account = pwd.getpwnam("nobody") if os.getuid() == 0 else pwd.getpwuid(os.getuid())
        group = grp.getgrgid(account.pw_gid).gr_name
        for name in ("run", "mail", "mail/cur", "mail/new", "mail/tmp"):
            (self.home / name).mkdir()
        for number, raw in enumerate(stored):
            (self.home / "mail" / "new" / f"{1000000000 + number}.M{number:06d}.test").write_bytes(raw)
        (self.home / "dovecot.conf").write_text(CONFIGURATION.format(home=self.home, user=account.pw_name, group=group))
        command = [path("doveadm"), "-c", str(self.home / "dovecot.conf"), "exec", "imap"]
        environment = {"USER": account.pw_name, "HOME": str(self.home), "PATH": SYSTEM_PATH}
        if os.getuid() == 0:
            for found in (self.home, *self.home.rglob("*")):
                os.chown(found, account.pw_uid, account.pw_gid)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=self.home,
            user=account.pw_uid if os.getuid() == 0 else None,
            group=account.pw_gid if os.getuid() == 0 else None,
            extra_groups=[] if os.getuid() == 0 else None,
        )
        assert self._response().startswith(b"* PREAUTH"), self.log()

    def log(self) -> str:
        """What Dovecot complained about."""
        log = self.home / "log"
        return log.read_text(errors="replace") if log.exists() else "no log"

    def _response(self) -> bytes:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        while literal := re.search(rb"\{([0-9]+)\}\r\n\Z", line):
            line += self.process.stdout.read(int(literal[1])) + self.process.stdout.readline()
        return line

    def command(self, text: bytes) -> list[bytes]:
        """Untagged responses to a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"a " + text + b"\r\n")
        self.process.stdin.flush()
        found = []
        while not (line := self._response()).startswith(b"a "):
            assert line, self.log()
            found.append(line)
        assert line.startswith(b"a OK"), line
        return found

    def close(self) -> None:
        """End it and remove everything."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()
        shutil.rmtree(self.home)


TOKEN = re.compile(rb' *(?:(\()|(\))|"((?:[^"\\]|\\.)*)"|\{([0-9]+)\}\r\n|([^\s()"{]+))', re.DOTALL)


def read(wire: bytes, at: int = 0) -> tuple[Tree, int]:
    """The parenthesised list at a position, and where it ends. Strings are bytes, numbers int, NIL None."""
    stack: list[Tree] = []
    while True:
        match = TOKEN.match(wire, at)
        assert match is not None, wire[at : at + 80]
        at = match.end()
        opening, closing, quoted, literal, atom = match.groups()
        if opening:
            stack.append([])
        elif closing:
            done = stack.pop()
            if not stack:
                return done, at
            stack[-1].append(done)
        elif quoted is not None:
            stack[-1].append(re.sub(rb"\\(.)", rb"\1", quoted, flags=re.DOTALL))
        elif literal is not None:
            stack[-1].append(wire[at : at + int(literal)])
            at += int(literal)
        elif atom.upper() == b"NIL":
            stack[-1].append(None)
        else:
            stack[-1].append(int(atom))


def lower(value: object) -> bytes | None:
    assert value is None or isinstance(value, bytes)
    return None if value is None else value.lower()


def tidy_parameters(value: object) -> Tree | None:
    """Names and character sets without case, in any order."""
    if not isinstance(value, list):
        assert value is None
        return None
    pairs = [(lower(value[i]), value[i + 1]) for i in range(0, len(value), 2)]
    return sorted([name, lower(text) if name == b"charset" else text] for name, text in pairs)  # type: ignore[type-var]


def tidy(body: Tree, counts: bool = True) -> Tree:
    """A BODYSTRUCTURE in the form in which it is compared; without octet and line counts where asked."""
    if isinstance(body[0], list):
        number = next(i for i, part in enumerate(body) if not isinstance(part, list))
        parts = [tidy(part, counts) for part in body[:number] if isinstance(part, list)]
        return [*parts, lower(body[number]), tidy_parameters(body[number + 1]), *tidy_extension(body[number + 2 :])]
    kind, subtype = lower(body[0]), lower(body[1])
    found: Tree = [kind, subtype, tidy_parameters(body[2]), body[3], body[4], lower(body[5])]
    found.append(body[6] if counts else 0)
    rest = 7
    if kind == b"text":
        found.append(body[7] if counts else 0)
        rest = 8
    elif kind == b"message" and len(body) > 11:
        assert isinstance(body[8], list)
        found += [body[7], tidy(body[8], counts), body[9] if counts else 0]
        rest = 10
    return [*found, body[rest], *tidy_extension(body[rest + 1 :])]


def tidy_extension(rest: Tree) -> Tree:
    """Disposition, language, location."""
    disposition, language, location = rest
    if isinstance(disposition, list):
        disposition = [lower(disposition[0]), tidy_parameters(disposition[1])]
    if isinstance(language, list):
        language = [lower(tag) for tag in language]
    return [disposition, language, location]


def ours(raw: bytes, counts: bool = True) -> dict[str, Tree]:
    about = describe(raw)
    envelope, at = read(about.envelope)
    assert at == len(about.envelope)
    structure, at = read(about.bodystructure)
    assert at == len(about.bodystructure)
    return {"ENVELOPE": envelope, "BODYSTRUCTURE": tidy(structure, counts)}


@pytest.fixture(scope="module")
def theirs() -> Iterator[dict[str, dict[str, Tree]]]:
    """What Dovecot answers, by name of message."""
    need("doveadm")
    dovecot = Dovecot(list(ALL.values()))
    try:
        dovecot.command(b"SELECT INBOX")
        answers: dict[str, dict[str, Tree]] = {name: {} for name in ALL}
        names = list(ALL)
        for item in ("ENVELOPE", "BODYSTRUCTURE"):
            for line in dovecot.command(b"FETCH 1:* (%b)" % item.encode()):
                match = re.match(rb"\* ([0-9]+) FETCH \(([A-Z]+) ", line)
                assert match is not None, line[:100]
                tree, _ = read(line, match.end())
                answers[names[int(match[1]) - 1]][item] = tree if item == "ENVELOPE" else tidy(tree)
        yield answers
    finally:
        dovecot.close()


@pytest.mark.parametrize("item", ["ENVELOPE", "BODYSTRUCTURE"])
@pytest.mark.parametrize("name", ALL)
def test_agrees_with_dovecot(name: str, item: str, theirs: dict[str, dict[str, Tree]]) -> None:
    same = ours(ALL[name])[item] == theirs[name][item]
    reason = DIFFERENCES.get((name, item))
    if reason is None:
        assert ours(ALL[name])[item] == theirs[name][item]
    else:
        assert not same, f"listed as different, and is no longer: {reason}"


def test_differences_name_messages_that_exist() -> None:
    assert {name for name, _ in DIFFERENCES} <= set(ALL)
    assert CORPUS, "this interpreter has no test corpus"


@pytest.mark.parametrize("name", [*CORPUS, *messages.WELL_FORMED])
def test_bare_line_feeds_change_nothing_but_counts(name: str) -> None:
    bare = ALL[name].replace(b"\r\n", b"\n")
    assert ours(bare, counts=False) == ours(ALL[name], counts=False)
    assert describe(bare).crlf_size == len(messages.crlf(bare))


def test_no_difference_is_in_an_ordinary_message() -> None:
    """What is well-formed agrees, but for what RFC 2231 leaves open."""
    well_formed = {name for name, _ in DIFFERENCES} & set(messages.WELL_FORMED)
    assert well_formed <= {"continuations"}
