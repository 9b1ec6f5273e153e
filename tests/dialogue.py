"""Runs dialogues: text files that a person who knows the protocol can read and write.

    == title of a dialogue                      each begins with a new, empty mailbox
    @ neutral                                   Debian's Dovecot must pass it as well, so that the script is tested
    @ mail:tiny mail:dots                       INBOX holds these messages (for POP3, which cannot put them there)
    @ clear | starttls | new                    not logged in: on the clear port, after STARTTLS, on the always-TLS port
    @ quota                                     the mailbox may hold 4 KiB
    C: a APPEND INBOX <msg:plain>               the first client sends a line (a message as a non-synchronising literal)
    S: a OK [APPENDUID <validity> <uid>]…       a line of the answer; … is anything, <name> a word, the same ever after
    S! …EXPUNGE…                                no line of the answer is like this
    S.                                          no line has come that was not named
    2 C: a SELECT INBOX                         the second client
    C~ a NO                                     sends without line end; \\x00, \\r and \\n are written so
    C ends                                      the server closes

A line of the answer holds its literals; ⏎ is CR LF. An IMAP command's answer ends with its tagged line or a
continuation request. `S:` lines match in their order; others may come between them.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from letterlock.base.errors import Refused
from letterlock.base.settings import ImapSettings, PopSettings
from letterlock.base.values import Tls
from letterlock.imap.session import ImapSession
from letterlock.policy.login import Channel, LoginAttempt, LoginRules
from letterlock.pop3 import Pop3Session
from letterlock.session import Next, Password, Session, Welcome
from letterlock.store.api import NO_QUOTA, MailStore, Quota
from letterlock.store.sqlite import SqliteStore
from tests.messages import MALFORMED, WELL_FORMED, crlf

HERE = Path(__file__).parent / "dialogues"
BOX = "0123456789abcdef0123456789abcdef"
LITERAL = re.compile(rb"\{(\d+)\}\r\n$")
MESSAGES = {
    **WELL_FORMED,
    **MALFORMED,
    "tiny": b"Subject: tiny\r\n\r\nx\r\n",
    "report": crlf(
        b"From: Alice Example <alice@demo.test>\nTo: bob@demo.test\nCc: carol@demo.test\nSubject: Weekly report\n"
        b"Date: Thu, 1 Feb 2024 23:30:00 -0800\nMessage-ID: <one@demo.test>\nX-Mood: sunny\n\n"
        b"The quick brown fox\njumps over 100% of the lazy dogs\n"
    ),
    "dots": b"Subject: dots\r\n\r\n.\r\n..two\r\n.three\r\nend",
    "umlauts": b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nGr\xc3\xbc\xc3\x9fe aus K\xc3\xb6ln\r\n",
}


class Line(NamedTuple):
    """One line of a script."""

    number: int
    client: int
    what: str  # C:, C~, S:, S!, S., ends
    text: str


class Dialogue(NamedTuple):
    """One script."""

    file: str
    title: str
    words: frozenset[str]
    lines: list[Line]

    @property
    def mail(self) -> list[bytes]:
        """What INBOX holds at the beginning."""
        return [MESSAGES[word[5:]] for word in sorted(self.words) if word.startswith("mail:")]

    @property
    def name(self) -> str:
        """For the test's name."""
        return f"{self.file}: {self.title}"


_LINE = re.compile(r"(?:([1-9]) )?(C:|C~|S:|S!|S\.|C ends)(?: (.*))?$")


def read(path: Path) -> list[Dialogue]:
    """All dialogues of a file."""
    found: list[Dialogue] = []
    for number, raw in enumerate(path.read_text().splitlines(), 1):
        if raw.startswith("== "):
            found.append(Dialogue(path.stem, raw[3:], frozenset(), []))
        elif raw.startswith("@ "):
            found[-1] = found[-1]._replace(words=found[-1].words | set(raw[2:].split()))
        elif raw.strip() and not raw.startswith("#"):
            match = _LINE.match(raw)
            assert match, f"{path.name}:{number}: not a line of a dialogue: {raw}"
            found[-1].lines.append(Line(number, int(match[1] or 1), match[2], match[3] or ""))
    return found


def all_of(protocol: str) -> list[Dialogue]:
    """Every dialogue of "imap" or "pop3"."""
    return [d for path in sorted((HERE / protocol).glob("*.txt")) for d in read(path)]


class FakeHost:
    """Lets alice in with her password; the mailbox is there always."""

    logging = False

    def __init__(self, mail: MailStore) -> None:
        self.mail = mail
        self.refusals: list[str] = []

    async def log_in(self, attempt: LoginAttempt, password: Password) -> Welcome:
        if attempt.user == "busy":
            raise Refused("too many connections of this user", b"LIMIT")
        if attempt.user == "down":
            raise Refused("the mailbox service is not running; please try again later", b"UNAVAILABLE")
        if attempt.user != "alice" or password.reveal() != b"secret 1":
            raise Refused("the user name or the password is wrong", b"AUTHENTICATIONFAILED")
        return Welcome("alice@demo.test", self.mail)

    def refused(self, attempt: LoginAttempt, password: Password | None) -> None:
        self.refusals.append(attempt.user)

    async def drain(self) -> None: ...
    def note(self, *_: object) -> None: ...
    def begin(self) -> None: ...
    def watch(self, mail: MailStore | None) -> None: ...
    def now(self) -> float:
        return 0.0

    def wall(self) -> float:
        return time.time()


class Peer(Protocol):
    """What a dialogue talks to."""

    async def send(self, data: bytes) -> None: ...
    async def more(self) -> bytes:
        """What has come; waits a little where it may still come; b"" when nothing does."""

    def ended(self) -> bool: ...
    def close(self) -> None: ...


class OwnPeer:
    """A session of ours, stepped by hand."""

    def __init__(self, protocol: str, store: SqliteStore, words: frozenset[str]) -> None:
        self.mail = store.mailbox(BOX, Quota(4096) if "quota" in words else NO_QUOTA)
        channel = Channel() if words & {"clear", "starttls"} else Channel(tls=Tls.IMPLICIT)
        self.session: Session
        settings: Any = ImapSettings() if protocol == "imap" else PopSettings()
        make: Any = ImapSession if protocol == "imap" else Pop3Session
        self.session = make(
            settings, FakeHost(self.mail), channel, LoginRules(settings.LoginType), not channel.protected
        )
        self.step = Next.READ
        self.session.greet()

    async def send(self, data: bytes) -> None:
        if data:
            self.session.receive(data)
        self.step = await self.session.advance()
        if self.step is Next.START_TLS:
            out = b"".join(self.session.out)
            self.session.secured(Channel(tls=Tls.STARTTLS))
            self.step = await self.session.advance()
            assert b"".join(self.session.out) == out, "something was answered inside TLS that came before it"

    async def more(self) -> bytes:
        if getattr(self.session, "idling", False):
            self.session.changed()
            self.step = await self.session.advance()
        data = b"".join(self.session.out)
        self.session.out.clear()
        return data

    def ended(self) -> bool:
        return self.step is Next.CLOSE

    def close(self) -> None:
        self.session.ended()


class DovecotHome:
    """A mailbox of Dovecot's, and its programs on pipes."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="letterlock-dovecot-"))
        self.config = self.home / "dovecot.conf"
        owner = "mail_uid = mail\nmail_gid = mail\n" if os.getuid() == 0 else ""
        self.config.write_text(
            f"mail_location = sdbox:{self.home}/mail\nfirst_valid_uid = 0\nlog_path = /dev/stderr\n{owner}"
            "namespace inbox {\n inbox = yes\n separator = /\n"
            + "".join(
                f" mailbox {n} {{\n special_use = \\{n}\n auto = subscribe\n }}\n"
                for n in ("Archive", "Drafts", "Junk", "Sent", "Trash")
            )
            + "}\nprotocol imap {\n mail_max_userip_connections = 20\n}\n"
        )
        self.config.chmod(0o644)
        if owner:  # Dovecot does not open mail as root
            subprocess.run(["chown", "-R", "mail:mail", str(self.home)], check=True)

    def peer(self, protocol: str) -> DovecotPeer:
        """Another connection."""
        command = [f"/usr/lib/dovecot/{protocol}", "-c", str(self.config)]
        if os.getuid() == 0:
            command = ["setpriv", "--reuid=mail", "--regid=mail", "--clear-groups", *command]
        return DovecotPeer(command, {**os.environ, "HOME": str(self.home), "USER": "alice"})

    def remove(self) -> None:
        """Everything of it."""
        shutil.rmtree(self.home)


class DovecotPeer:
    """A Dovecot session, logged in."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        self.eof = False

    async def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    async def more(self) -> bytes:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 5)
        if not ready:
            return b""
        data = os.read(self.process.stdout.fileno(), 1 << 20)
        self.eof = not data
        return data

    def ended(self) -> bool:
        end = time.monotonic() + 5
        while not self.eof and time.monotonic() < end:
            ready, _, _ = select.select([self.process.stdout], [], [], 1)
            if ready:
                assert self.process.stdout is not None
                self.eof = not os.read(self.process.stdout.fileno(), 65536)
        return self.eof

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


class Client:
    """One connection of a dialogue, and what it has read."""

    def __init__(self, peer: Peer, imap: bool) -> None:
        self.peer, self.imap = peer, imap
        self.buffer = b""
        self.answer: list[str] = []  # lines since the last command
        self.at = 0  # lines before this one have been named or passed over
        self.named: set[int] = set()

    async def command(self, data: bytes, tag: bytes) -> None:
        """Send, and read to the end of the answer."""
        self.answer, self.at, self.named = [], 0, set()
        await self.peer.send(data)
        while self.imap and tag and not self.complete(tag):
            if not await self.read():
                break
        if not (self.imap and tag):
            await self.read()

    def complete(self, tag: bytes) -> bool:
        return any(line.startswith(("+ ", tag.decode("latin-1") + " ")) for line in self.answer)

    async def read(self) -> bool:
        """Take what has come into lines; False when nothing did."""
        data = await self.peer.more()
        self.buffer += data
        while (end := self.line_end()) >= 0:
            self.answer.append(self.buffer[:end].decode("latin-1").removesuffix("\r\n").replace("\r\n", _wire("⏎")))
            self.buffer = self.buffer[end:]
        return bool(data)

    def line_end(self) -> int:
        """The end of the first line with its literals; -1 when it is not there yet."""
        at = 0
        while True:
            end = self.buffer.find(b"\r\n", at)
            if end < 0:
                return -1
            literal = LITERAL.search(self.buffer, at, end + 2) if self.imap else None
            if literal is None:
                return end + 2
            at = end + 2 + int(literal[1])

    async def expect(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """The first line after the last named one that matches."""
        while True:
            for i in range(self.at, len(self.answer)):
                match = pattern.fullmatch(self.answer[i])
                if match:
                    self.named.add(i)
                    self.at = i + 1
                    return match
            if not await self.read():
                return None


_PIECE = re.compile(r"…|<([a-z]+)>|⏎")


def pattern(text: str, known: dict[str, str]) -> re.Pattern[str]:
    """A line of a script as an expression; `known` words stand for themselves."""
    out, at = "", 0
    new: set[str] = set()
    for piece in _PIECE.finditer(text):
        out += re.escape(_wire(text[at : piece.start()]))
        at = piece.end()
        name = piece[1]
        if piece[0] == "…":
            out += "(?s:.*?)"
        elif piece[0] == "⏎":
            out += _wire("⏎")
        elif name in known:
            out += re.escape(known[name])
        elif name in new:
            out += f"(?P={name})"
        else:
            new.add(name)
            out += rf"(?P<{name}>[\w:,.$-]+)"
    return re.compile(out + re.escape(_wire(text[at:])))


def _wire(text: str) -> str:
    """Script text as the octets' latin-1, as answers are shown."""
    return text.encode().decode("latin-1")


def octets(text: str, known: dict[str, str]) -> bytes:
    """What `C:` sends."""
    data = b""
    at = 0
    for piece in re.finditer(r"<msg:([a-z0-9-]+)>|<([a-z]+)>|⏎|\\x([0-9a-f]{2})|\\r|\\n", text):
        data += text[at : piece.start()].encode()
        at = piece.end()
        if piece[1]:
            raw = MESSAGES[piece[1]]
            data += b"{%d+}\r\n%b" % (len(raw), raw)
        elif piece[2]:
            data += known[piece[2]].encode() if piece[2] in known else piece[0].encode()
        elif piece[3]:
            data += bytes([int(piece[3], 16)])
        else:
            data += {"⏎": b"\r\n", "\\r": b"\r", "\\n": b"\n"}[piece[0]]
    return data + text[at:].encode()


async def run(dialogue: Dialogue, protocol: str, connect: Any) -> None:
    """Play it; raises AssertionError with the script's line."""
    clients: dict[int, Client] = {}
    known: dict[str, str] = {}
    try:
        for line in dialogue.lines:
            if line.client not in clients:
                clients[line.client] = Client(await connect(), protocol == "imap")
                await clients[line.client].read()
            await _play(dialogue, line, clients[line.client], known)
    finally:
        for client in clients.values():
            client.peer.close()


async def _play(dialogue: Dialogue, line: Line, client: Client, known: dict[str, str]) -> None:
    where = f"{dialogue.file}.txt:{line.number}: {line.client} {line.what} {line.text}\nthe answer was\n"
    if line.what in ("C:", "C~"):
        data = octets(line.text, known)
        whole = line.what == "C:"
        tag = data.split(b" ")[0] if whole and re.match(r"[a-z][0-9]* ", line.text) else b""
        await client.command(data + b"\r\n" if whole else data, tag)
        return
    if line.what == "C ends":
        assert client.peer.ended(), where + "\n".join(client.answer)
    elif line.what == "S:":
        match = await client.expect(pattern(line.text, known))
        assert match, where + "\n".join(client.answer[:60])
        known.update(match.groupdict())
    elif line.what == "S!":
        unwanted = pattern(line.text, known)
        assert not [a for a in client.answer if unwanted.fullmatch(a)], where + "\n".join(client.answer[:60])
    else:
        others = [a for i, a in enumerate(client.answer) if i not in client.named]
        assert not others, where + "\n".join(others[:60])
