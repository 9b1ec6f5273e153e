"""LIST: patterns, options, what is answered; the parts that dialogues do not reach."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letterlock.base.errors import Malformed
from letterlock.imap.commands.folders import MAX_PATTERNS, parse_list
from letterlock.imap.grammar import list_match
from letterlock.imap.reader import Args


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("*", "a/b/c", True),
        ("%", "a", True),
        ("%", "a/b", False),
        ("a%", "a", True),
        ("a%", "a/b", False),
        ("a/%", "a", False),
        ("a/%", "a/b", True),
        ("a*", "a/b", True),
        ("*b", "a/b", True),
        ("%b", "a/b", False),
        ("%/%", "a/b", True),
        ("%/%", "a/b/c", False),
        ("*/%a/b", "x/y/a/b", True),
        ("*x%y", "x/xy", True),
        ("", "a", False),
        ("a", "A", False),
        ("inbox", "INBOX", True),
        ("iN*", "INBOX", True),
        ("inbox/a", "INBOX/a", True),
        ("INBOX", "inboxes", False),
        ("%*%", "a/b", True),
        ("%%", "a/b", False),
        ("**a", "b/a", True),
        ("[a]", "a", False),
        ("a.c", "abc", False),
        ("é%", "é/x", False),
        ("😀*", "😀/x", True),
    ],
)
def test_patterns(pattern: str, name: str, matches: bool) -> None:
    assert list_match(pattern, name) is matches


@given(st.text("ab/*%", max_size=8), st.text("ab/", max_size=8))
def test_patterns_agree_with_regular_expressions(pattern: str, name: str) -> None:
    expression = "".join({"*": ".*", "%": "[^/]*"}.get(c, re.escape(c)) for c in pattern)
    assert list_match(pattern, name) == bool(re.fullmatch(expression, name))


@pytest.mark.parametrize("pattern", ["*a" * 490 + "b", "%*" * 490, "*" + "a" * 254 + "b", "%a" * 490], ids=len)
def test_a_thousand_names_and_the_worst_pattern(pattern: str) -> None:
    start = time.process_time()
    for n in range(1000):
        list_match(pattern, "a" * 250 + str(n))
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "text",
    [
        b' (SUBSCRIBED REMOTE RECURSIVEMATCH SPECIAL-USE) "" (a b) RETURN (CHILDREN SUBSCRIBED SPECIAL-USE)',
        b' () "" *',
        b' "" % RETURN (STATUS (MESSAGES) CHILDREN)',
        b" x y",
        b' "" {3}\r\na*b',
    ],
)
def test_what_is_list(text: bytes) -> None:
    args = Args(text)
    parse_list(args)
    args.end()


@pytest.mark.parametrize(
    "text",
    [
        b' (SUBSCRIBED) ""',
        b' (SUBSCRIBED)"" *',
        b' (a b) "" *',
        b' (RECURSIVEMATCH REMOTE) "" *',
        b' "" () ',
        b' "" (a',
        b' "" * RETURN',
        b' "" * RETURN (',
        b' "" * RETURN (CHILDREN',
        b' "" * RETURN (STATUS)',
        b' "" * RETURN (STATUS ())',
        b' "" * RETURN (STATUS (X))',
        b' "" * RETURN CHILDREN',
        b' "" (' + b"a " * MAX_PATTERNS + b"a)",
        b' "" "' + b"a" * 1001 + b'"',
        b' "' + b"a" * 1001 + b'" *',
        b' "" "&"',
        b' "" "\xff"',
    ],
)
def test_what_is_not_list(text: bytes) -> None:
    args = Args(text)
    with pytest.raises(Malformed):
        parse_list(args)
        args.end()
