"""A mailbox presented in another form: one truth in every column, work done once, memory bounded."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from letterlock.base.values import MimeFormat
from letterlock.mail import presentation
from letterlock.mail.presentation import Presentation, present
from letterlock.mail.structure import describe
from letterlock.store import presented
from letterlock.store.api import (
    All,
    And,
    Column,
    Flags,
    Folder,
    Incoming,
    Larger,
    MailStore,
    Not,
    Or,
    Smaller,
)
from letterlock.store.presented import Conversions
from letterlock.store.sqlite import SqliteStore
from tests import messages
from tests.test_conversion import meeting, newsletter

BOX = "0123456789abcdef0123456789abcdef"
HTML = b"Subject: h\r\nDisposition-Notification-To: a@contoso.com\r\nContent-Type: text/html\r\n\r\n<p>x</p>\r\n"
LARGE = b"Subject: l\r\nContent-Type: text/html\r\n\r\n" + b"<p>large</p>\r\n" * 30_000  # in a file of its own
RAW = [*messages.WELL_FORMED.values(), newsletter(), meeting(), HTML, LARGE, b"bare\nline\n"]
EVERYTHING = tuple(Column)
ALL = [(1, 2**32 - 1)]


async def inline(work: Callable[[], Any]) -> Any:
    return work()


def on_store(tmp_path: Path, check: Callable[[MailStore, Folder], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        store = SqliteStore(tmp_path, inline=True)
        await store.create_mailbox(BOX)
        mail = store.mailbox(BOX)
        folder = await mail.folder("INBOX")
        for raw in RAW:
            spool = mail.spool(len(raw))
            spool.write(raw)
            await mail.append(folder, [Incoming(spool, Flags())])
        await check(mail, folder)
        await store.close()

    asyncio.run(run())


async def rows(mail: MailStore, folder: Folder, columns: tuple[Column, ...]) -> list[tuple[object, ...]]:
    return [row async for batch in mail.fetch(folder, ALL, columns) for row in batch]


HOWS = [
    *[Presentation(f) for f in MimeFormat],
    Presentation(MimeFormat.TextOnly, "https://mail.contoso.com/", True),
    Presentation(no_receipts=True),
    Presentation(calendar_link="https://mail.contoso.com/"),
    Presentation(MimeFormat.HtmlOnly, exact_size=False),
]


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_every_column_tells_of_the_message_as_it_is_given(tmp_path: Path, how: Presentation) -> None:
    async def check(mail: MailStore, folder: Folder) -> None:
        shown = Conversions(inline).mailbox(mail, how)
        assert (shown is mail) == how.as_stored
        stored = await rows(mail, folder, EVERYTHING)
        at = {column: number for number, column in enumerate(EVERYTHING, 1)}
        whole = await rows(shown, folder, EVERYTHING)
        assert len(whole) == len(stored) == len(RAW)
        for raw, old, new in zip(RAW, stored, whole, strict=True):
            given = present(raw, how)
            about = describe(given)
            assert new[at[Column.HEADER]] == given[: about.header_size]
            assert new[at[Column.TEXT]] == given[about.header_size :]
            assert new[at[Column.SIZE]] == (len(given) if how.exact_size else len(raw))
            assert new[at[Column.CRLF_SIZE]] == about.crlf_size
            assert new[at[Column.BODYSTRUCTURE]] == about.bodystructure
            assert new[at[Column.BODY]] == about.body
            for column in (Column.FLAGS, Column.INTERNALDATE, Column.ENVELOPE, Column.PREVIEW, Column.MODSEQ):
                assert new[at[column]] == old[at[column]]
        # one by one, from a fresh mind and from what is remembered
        for column in EVERYTHING:
            for made in (Conversions(inline), Conversions(inline, 1, 1)):
                single = await rows(made.mailbox(mail, how), folder, (column,))
                assert single == [(row[0], row[at[column]]) for row in whole], column
            assert await rows(shown, folder, (column,)) == [(row[0], row[at[column]]) for row in whole]
        pairs = (Column.FLAGS, Column.SIZE, Column.HEADER)
        assert await rows(shown, folder, pairs) == [(r[0], *[r[at[c]] for c in pairs]) for r in whole]

    on_store(tmp_path, check)


def test_a_message_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bytes] = []

    def counted(raw: bytes, how: Presentation) -> bytes:
        calls.append(raw)
        return present(raw, how)

    monkeypatch.setattr(presented, "present", counted)

    async def check(mail: MailStore, folder: Folder) -> None:
        made = Conversions(inline)
        for _ in range(3):
            shown = made.mailbox(mail, Presentation(MimeFormat.TextOnly))
            await rows(shown, folder, (Column.SIZE,))
            await rows(shown, folder, (Column.BODYSTRUCTURE, Column.HEADER))
            await rows(shown, folder, (Column.HEADER, Column.TEXT))
        assert len(calls) == len(set(calls)) < len(RAW)  # and those without HTML not at all
        await rows(made.mailbox(mail, Presentation(MimeFormat.HtmlOnly)), folder, (Column.SIZE,))
        assert len(calls) > len(set(calls))  # another form is another message

    on_store(tmp_path, check)


@pytest.mark.parametrize("form", [MimeFormat.TextOnly, MimeFormat.HtmlAndTextAlternative])
def test_searches_and_status_go_by_the_sizes_that_are_told(tmp_path: Path, form: MimeFormat) -> None:
    async def check(mail: MailStore, folder: Folder) -> None:
        shown = Conversions(inline).mailbox(mail, Presentation(form))
        told = await rows(shown, folder, (Column.SIZE,))
        assert told != await rows(mail, folder, (Column.SIZE,))
        octets = sorted(size for _, size in told)[len(told) // 2]  # type: ignore[type-var]
        assert isinstance(octets, int)
        for tree, expected in (
            (Larger(octets), [u for u, n in told if n > octets]),  # type: ignore[operator]
            (Smaller(octets), [u for u, n in told if n < octets]),  # type: ignore[operator]
            (Not(Larger(octets)), [u for u, n in told if n <= octets]),  # type: ignore[operator]
            (Or(Larger(octets), Smaller(octets)), [u for u, n in told if n != octets]),
            (And((All(), Smaller(0))), []),
            (All(), [u for u, _ in told]),
        ):
            assert list(await shown.search(folder, None, tree)) == expected
            assert list(await shown.search(folder, [(3, 5)], tree)) == [u for u in expected if u in (3, 4, 5)]
        (status,) = await shown.status([folder])
        assert status.size == sum(size for _, size in told) and status.messages == len(RAW)  # type: ignore[misc]
        assert (await shown.status([folder], sizes=False))[0].messages == len(RAW)

    on_store(tmp_path, check)


def test_memory_is_bounded(tmp_path: Path) -> None:
    async def check(mail: MailStore, folder: Folder) -> None:
        made = Conversions(inline, 3000, 5000)
        await rows(made.mailbox(mail, Presentation(MimeFormat.HtmlOnly)), folder, (Column.HEADER, Column.TEXT))
        assert 0 < len(made.looks) < 10 and 0 < len(made.messages) < 10
        assert made.looks.room >= 0 and made.messages.room >= 0

    on_store(tmp_path, check)


def test_a_fault_in_a_conversion_gives_the_message_as_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> str:
        raise RecursionError

    monkeypatch.setattr("letterlock.mail.convert.text_of_html", fault)
    raw = newsletter().replace(b"text/plain", b"text/x-other")
    assert present(raw, Presentation(MimeFormat.TextOnly)) is raw
    assert presentation.MAX_MESSAGE >= 1 << 20


def test_what_it_does_itself_takes_what_a_mailbox_takes() -> None:
    own = [name for name in vars(presented.PresentedMailbox) if name in vars(MailStore) and not name.startswith("_")]
    assert set(own) == {"fetch", "search", "status"}
    for name in own:
        signatures = [inspect.signature(getattr(kind, name)) for kind in (presented.PresentedMailbox, MailStore)]
        assert signatures[0] == signatures[1], name
