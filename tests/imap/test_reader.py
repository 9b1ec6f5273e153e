"""From bytes to commands: fed whole and byte by byte; limits; the small grammars."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letterlock.base.errors import Malformed
from letterlock.imap import grammar
from letterlock.imap.commands.search import parse_search
from letterlock.imap.reader import Args, Literal, Reader, TooLong


def feed(data: bytes, step: int) -> list[object]:
    reader = Reader(1000)
    found: list[object] = []
    for at in range(0, len(data), step):
        reader.buffer += data[at : at + step]
        while (command := reader.next(streams=True)) is not None:
            found.append(command)
    return found


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_commands_with_literals_however_they_arrive(step: int) -> None:
    data = b"a NOOP\r\nb LOGIN {3}\r\nx\r\n {1+}\r\ny\r\nc APPEND box {5}\r\n"
    commands = feed(data, step)
    assert commands == [b"a NOOP", b"b LOGIN {3}\r\nx\r\n {1+}\r\ny", Literal(b"c APPEND box ", 5, True)]
    args = Args(b"b LOGIN {3}\r\nx\r\n {1+}\r\ny", 7)
    args.space()
    assert args.astring() == b"x\r\n"
    args.space()
    assert args.astring() == b"y"
    args.end()


def test_a_line_that_is_too_long_is_skipped_and_the_next_one_read() -> None:
    reader = Reader(100)
    reader.buffer += b"t1 " + b"x" * 500
    with pytest.raises(TooLong) as caught:
        reader.next(streams=False)
    assert caught.value.tag == b"t1" and not caught.value.fatal
    reader.buffer += b"yyy\r\nt2 NOOP\r\n"
    assert reader.next(streams=False) == b"t2 NOOP"


def test_bare_line_feeds_are_refused() -> None:
    reader = Reader(100)
    reader.buffer += b"a NOOP\nb NOOP\r\n"
    with pytest.raises(TooLong):
        reader.next(streams=False)
    assert reader.next(streams=False) == b"b NOOP"


@pytest.mark.parametrize("name", ["INBOX", "A & B", "Entwürfe", "会議/2026", "tab&", "😀"])
def test_modified_utf7_both_ways(name: str) -> None:
    assert grammar.decode_utf7(grammar.encode_utf7(name)) == name


@pytest.mark.parametrize("bad", [b"&", b"&AGE-", b"a&-&", b"\xff", b"&Jjo!"])
def test_modified_utf7_refuses_what_is_not_canonical(bad: bytes) -> None:
    with pytest.raises(Malformed):
        grammar.decode_utf7(bad)


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("*", "a/b", True),
        ("%", "a/b", False),
        ("a/%", "a/b", True),
        ("inbox", "INBOX", True),
        ("a*c", "abbc", True),
        ("a*c", "abbd", False),
        ("", "a", False),
    ],
)
def test_list_patterns(pattern: str, name: str, fits: bool) -> None:
    assert grammar.list_match(pattern, name) is fits


def test_list_pattern_of_many_stars_is_no_attack() -> None:
    start = time.process_time()
    assert not grammar.list_match("*a" * 100 + "b", "a" * 255)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("bad", [b"0", b"4294967296", b"1:", b",1", b"1,,2", b"99999999999999"])
def test_bad_message_sets(bad: bytes) -> None:
    with pytest.raises(Malformed):
        grammar.number_set(bad)


@given(st.binary(max_size=200))
def test_no_input_makes_a_search_parser_fail_otherwise(data: bytes) -> None:
    try:
        parse_search(Args(b" " + data))
    except Malformed:
        pass
    except Exception as error:
        assert type(error).__name__ == "Refused"
