"""Item lists of FETCH compiled to plans, and plans to templates."""

from __future__ import annotations

import pytest

from letterlock.base.errors import Malformed
from letterlock.imap.commands.fetch import parse_fetch
from letterlock.imap.commands.fetch_plan import MAX_SECTIONS, Kind, compile_plan
from letterlock.imap.commands.sections import Message, render
from letterlock.imap.reader import Args
from letterlock.store.api import Column

RAW = (
    b"Subject: one\r\nTo: a\r\nsubject: two\r\n folded\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain\r\nX: 1\r\n\r\nhello\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n"
    b"Subject: in\r\n\r\nwithin\r\n--b--\r\n"
)
HEAD = RAW.index(b"\r\n\r\n") + 4


def shown(items: bytes) -> bytes:
    """All sections of an item list, of RAW."""
    message = Message(RAW[:HEAD], RAW[HEAD:])
    return b" ".join(render(s, message, "pre") for s in compile_plan(items, False).sections)


@pytest.mark.parametrize(
    ("items", "columns"),
    [
        (b"ALL", (Column.INTERNALDATE, Column.SIZE, Column.ENVELOPE)),
        (b"fast", (Column.INTERNALDATE, Column.SIZE)),
        (b"FULL", (Column.INTERNALDATE, Column.SIZE, Column.ENVELOPE, Column.BODY)),
        (b"(ENVELOPE RFC822.SIZE ENVELOPE)", (Column.ENVELOPE, Column.SIZE)),
        (b"BODYSTRUCTURE", (Column.BODYSTRUCTURE,)),
        (b"(UID FLAGS MODSEQ)", ()),
        (b"BODY[HEADER]", (Column.HEADER,)),
        (b"BODY[TEXT]", (Column.TEXT,)),
        (b"(BODY[] BODY[HEADER])", (Column.HEADER, Column.TEXT)),
        (b"BODY[1]", (Column.HEADER, Column.TEXT)),
        (b"PREVIEW", (Column.PREVIEW,)),
    ],
)
def test_columns_asked_for(items: bytes, columns: tuple[Column, ...]) -> None:
    assert compile_plan(items, False).columns == columns


def test_templates() -> None:
    plan = compile_plan(b"(FLAGS RFC822.SIZE UID)", False)
    assert plan.head(b"\\Seen 100%", False) % (3, 7, 20) == b"* 3 FETCH (UID 7 FLAGS (\\Seen 100%) RFC822.SIZE 20)\r\n"
    assert plan.head(None, True) % (3, 9, 7, 20) == b"* 3 FETCH (MODSEQ (9) UID 7 RFC822.SIZE 20)\r\n"
    assert compile_plan(b"BODY[]", False).head(None, False) % 1 == b"* 1 FETCH ("
    assert compile_plan(b"BODY[]", True).head(None, False) % (1, 2) == b"* 1 FETCH (UID 2 "
    assert compile_plan(b"FLAGS", True).in_memory and not compile_plan(b"BODY", True).in_memory


@pytest.mark.parametrize(
    ("items", "seen"),
    [
        (b"BODY[]", True),
        (b"BODY.PEEK[]", False),
        (b"RFC822", True),
        (b"RFC822.HEADER", False),
        (b"RFC822.TEXT", True),
        (b"(BODY.PEEK[] BODY[TEXT])", True),
        (b"PREVIEW", False),
        (b"BODY", False),
    ],
)
def test_what_sets_seen(items: bytes, seen: bool) -> None:
    assert compile_plan(items, False).sets_seen is seen


@pytest.mark.parametrize(
    ("items", "answer"),
    [
        (
            b"BODY[HEADER.FIELDS (Subject)]",
            b"BODY[HEADER.FIELDS (Subject)] {39}\r\nSubject: one\r\nsubject: two\r\n folded\r\n\r\n",
        ),
        (
            b"BODY[HEADER.FIELDS.NOT (subject content-type)]",
            b"BODY[HEADER.FIELDS.NOT (subject content-type)] {9}\r\nTo: a\r\n\r\n",
        ),
        (b'BODY[header.fields ("x(y")]', b'BODY[HEADER.FIELDS ("x(y")] {2}\r\n\r\n'),
        (b"BODY[HEADER.FIELDS ({2}\r\nto)]", b"BODY[HEADER.FIELDS (to)] {9}\r\nTo: a\r\n\r\n"),
        (b"BODY[1]", b"BODY[1] {5}\r\nhello"),
        (b"BODY[1.MIME]", b"BODY[1.MIME] {34}\r\nContent-Type: text/plain\r\nX: 1\r\n\r\n"),
        (b"BODY[1]<1.3>", b"BODY[1]<1> {3}\r\nell"),
        (b"BODY[1]<9.3>", b"BODY[1]<9> {0}\r\n"),
        (b"BODY[1]<0.99999999999999>", b"BODY[1]<0> {5}\r\nhello"),
        (b"BODY[2.HEADER]", b"BODY[2.HEADER] {15}\r\nSubject: in\r\n\r\n"),
        (b"BODY[2.TEXT]", b"BODY[2.TEXT] {6}\r\nwithin"),
        (b"BODY[2.1]", b"BODY[2.1] {6}\r\nwithin"),
        (b"BODY[2.HEADER.FIELDS (subject)]", b"BODY[2.HEADER.FIELDS (subject)] {15}\r\nSubject: in\r\n\r\n"),
        (b"BODY[1.HEADER]", b"BODY[1.HEADER] NIL"),
        (b"BODY[3]", b"BODY[3] NIL"),
        (b"PREVIEW (LAZY)", b"PREVIEW {3}\r\npre"),
        (b"(BODY[1] BODY[1])", b"BODY[1] {5}\r\nhello"),
    ],
)
def test_sections(items: bytes, answer: bytes) -> None:
    assert shown(items) == answer


@pytest.mark.parametrize(
    "items",
    [
        b"",
        b"()",
        b"(FLAGS",
        b"FLAGS)",
        b"FLAGS UID",
        b"(FLAGS  UID)",
        b"NOTHING",
        b"(ALL FLAGS)",
        b"BODY[",
        b"BODY[]]",
        b"BODY[X]",
        b"BODY[0]",
        b"BODY[1.0]",
        b"BODY[1.]",
        b"BODY[.1]",
        b"BODY[MIME]",
        b"BODY[HEADER.FIELDS]",
        b"BODY[HEADER.FIELDS ()]",
        b"BODY[HEADER.FIELDS (a:b)]",
        b"BODY[HEADER.FIELDS (a]",
        b"BODY[]<",
        b"BODY[]<1>",
        b"BODY[]<1.0>",
        b"BODY[]<-1.1>",
        b"BODY[]<9999999999999999999.1>",
        b"BODY[4294967296]",
        b"RFC822[]",
        b"BODY[1MIME]",
        b"(" + b" ".join(b"BODY[%d]" % n for n in range(1, MAX_SECTIONS + 2)) + b")",
        b"FLAGS\0",
        b"%s",
    ],
)
def test_what_is_no_item_list(items: bytes) -> None:
    with pytest.raises(Malformed):
        compile_plan(items, False)


def test_changedsince() -> None:
    assert parse_fetch(Args(b" 1:* (FLAGS) (CHANGEDSINCE 12)")).changed_since == 12
    assert parse_fetch(Args(b" 1:* FLAGS (changedsince 0)")).changed_since == 0
    assert parse_fetch(Args(b" 1 FLAGS")).changed_since == -1
    for text in (
        b" 1 FLAGS (CHANGEDSINCE x)",
        b" 1 FLAGS (CHANGEDSINCE " + b"9" * 5000 + b")",
        b" 1 FLAGS (CHANGEDSINCE )",
    ):
        with pytest.raises(Malformed):
            parse_fetch(Args(text))


def test_kinds_of_rfc822() -> None:
    kinds = [s.kind for s in compile_plan(b"(RFC822 RFC822.HEADER RFC822.TEXT)", False).sections]
    assert kinds == [Kind.WHOLE, Kind.HEADER, Kind.TEXT]
