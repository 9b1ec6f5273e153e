"""POP3 as a person types it, against a real store, without sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from letterlock.base.settings import PopSettings
from letterlock.base.values import SortOrder, Tls
from letterlock.policy.login import Channel, LoginAttempt, LoginRules
from letterlock.pop3 import Pop3Session
from letterlock.session import Next, Password, Welcome
from letterlock.store.api import Incoming, MailStore
from letterlock.store.sqlite import SqliteStore

BOX = "0123456789abcdef0123456789abcdef"
MESSAGES = (b"Subject: one\r\n\r\n.dot\r\nlast line", b"Subject: two\n\nbare\n")


class FakeHost:
    """Lets everybody in."""

    logging = False

    def __init__(self, mail: MailStore, exact_size: bool) -> None:
        self.mail, self.exact_size = mail, exact_size
        self.shown: list[str] = []

    async def log_in(self, attempt: LoginAttempt, password: Password) -> Welcome:
        return Welcome(attempt.user, self.mail, self.exact_size)

    def refused(self, attempt: LoginAttempt, password: Password | None) -> None:
        self.shown.append(attempt.user)

    async def drain(self) -> None: ...
    def note(self, *_: object) -> None: ...
    def begin(self) -> None: ...
    def watch(self, mail: MailStore | None) -> None: ...
    def now(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 0.0


def talk(path: Path, lines: bytes, settings: PopSettings | None = None, tls: Tls = Tls.IMPLICIT) -> tuple[bytes, Next]:
    """Everything the session answers to `lines`, and what it wants next."""

    async def run() -> tuple[bytes, Next]:
        store = SqliteStore(path, inline=True)
        await store.create_mailbox(BOX)
        mail = store.mailbox(BOX)
        folder = await mail.folder("INBOX")
        if not (await mail.view(folder)).uids:
            for raw in MESSAGES:
                spool = mail.spool(len(raw))
                spool.write(raw)
                await mail.append(folder, [Incoming(spool)])
        channel = Channel(tls=tls)
        chosen = settings or PopSettings()
        host = FakeHost(mail, chosen.EnableExactRFC822Size)
        session = Pop3Session(chosen, host, channel, LoginRules(chosen.LoginType), tls is Tls.NONE)
        session.receive(lines)
        step = await session.advance()
        await store.close()
        return b"".join(session.out), step

    return asyncio.run(run())


LOGIN = b"USER a\r\nPASS p\r\n"


def test_retr_stuffs_dots_and_ends_lines_with_crlf(tmp_path: Path) -> None:
    answer, _ = talk(tmp_path, LOGIN + b"RETR 1\r\nRETR 2\r\n")
    assert b"+OK\r\nSubject: one\r\n\r\n..dot\r\nlast line\r\n.\r\n" in answer
    assert b"+OK\r\nSubject: two\r\n\r\nbare\r\n.\r\n" in answer


def test_sizes_as_stored_or_exact(tmp_path: Path) -> None:
    answer, _ = talk(tmp_path, LOGIN + b"LIST 2\r\n")
    assert answer.endswith(b"+OK 2 19\r\n")
    answer, _ = talk(tmp_path, LOGIN + b"LIST 2\r\n", PopSettings(EnableExactRFC822Size=True))
    assert answer.endswith(b"+OK 2 22\r\n")
    answer, _ = talk(tmp_path, LOGIN + b"LIST 1\r\n", PopSettings(EnableExactRFC822Size=True))
    assert answer.endswith(b"+OK 1 %d\r\n" % len(b"Subject: one\r\n\r\n.dot\r\nlast line\r\n"))


def test_top_uidl_and_order(tmp_path: Path) -> None:
    answer, _ = talk(tmp_path, LOGIN + b"TOP 1 1\r\nUIDL 1\r\n")
    assert b"+OK\r\nSubject: one\r\n\r\n..dot\r\n.\r\n" in answer
    uid = answer.rsplit(b" ", 1)[1]
    turned, _ = talk(tmp_path, LOGIN + b"UIDL 2\r\n", PopSettings(MessageRetrievalSortOrder=SortOrder.Descending))
    assert turned.rsplit(b" ", 1)[1] == uid


def test_deletions_are_made_at_quit_only(tmp_path: Path) -> None:
    talk(tmp_path, LOGIN + b"DELE 1\r\n")
    answer, _ = talk(tmp_path, LOGIN + b"DELE 1\r\nRETR 1\r\nSTAT\r\nRSET\r\nSTAT\r\nDELE 1\r\nQUIT\r\n")
    assert b"-ERR message 1 is marked as deleted" in answer
    assert b"+OK 1 19\r\n" in answer and b"+OK 2 " in answer
    answer, step = talk(tmp_path, LOGIN + b"STAT\r\nQUIT\r\n")
    assert b"+OK 1 19\r\n" in answer
    assert step is Next.CLOSE


def test_clear_text_is_refused_before_the_password(tmp_path: Path) -> None:
    answer, _ = talk(tmp_path, b"CAPA\r\nUSER a\r\nPASS p\r\nAUTH PLAIN\r\nSTAT\r\n", tls=Tls.NONE)
    capa, rest = answer.split(b"\r\n.\r\n")
    assert b"STLS" in capa and b"USER" not in capa and b"SASL" not in capa
    assert rest.count(b"-ERR [SYS/PERM]") == 3
    assert b"+OK" not in rest


@pytest.mark.parametrize(
    "line", [b"RETR 0", b"RETR 99", b"RETR x", b"LIST -1", b"TOP 1", b"NOOP x", b"APOP a b", b"XYZ"]
)
def test_bad_commands_get_an_error(tmp_path: Path, line: bytes) -> None:
    answer, step = talk(tmp_path, LOGIN + line + b"\r\n")
    assert answer.rstrip(b"\r\n").rsplit(b"\r\n", 1)[-1].startswith(b"-ERR")
    assert step is Next.READ


def test_a_line_that_is_too_long_ends_the_session(tmp_path: Path) -> None:
    answer, step = talk(tmp_path, b"USER " + b"x" * 600 + b"\r\n")
    assert answer.startswith(b"-ERR") and step is Next.CLOSE
