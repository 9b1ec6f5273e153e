"""The management shell: its language, its refusals, and the layout of its output."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letterlock.base.errors import Malformed
from letterlock.base.values import ListChange
from letterlock.faces import output
from letterlock.faces.language import parse
from letterlock.manage import CMDLETS


def test_commands_parameters_lists_and_pipes() -> None:
    text = """Set-ImapSettings -X "a b",'c''d' -Y @{Add="e","f"; Remove="g"} -Z:$false -W # comment
    Get-Service MSEx*; Get-ImapSettings | Select LoginType | fl *"""
    first, second, third = parse(text)
    change = ListChange(None, ("e", "f"), ("g",))
    assert first[0].named == {"X": ["a b", "c'd"], "Y": change, "Z": False, "W": True}
    assert second[0].positional == ["MSEx*"]
    assert [c.name for c in third] == ["Get-ImapSettings", "Select", "fl"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Get-X (1)", "line 1, column 7: sub-expressions"),
        ("Get-X\n$a = 1", "line 2, column 1: variables"),
        ('Get-X "open', "line 1, column 7: the quote is not closed"),
        ("| Select", "expected a command"),
        ("Get-X -A a,", "expected a value"),
    ],
)
def test_errors_point_at_the_place(text: str, said: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse(text)
    assert said in caught.value.text


@given(st.text(max_size=200))
def test_random_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(Malformed):
        parse(text)


def test_parameters_by_prefix_and_misspelt() -> None:
    cmdlet = CMDLETS["set-imapsettings"]
    assert cmdlet.parameter("proxyt").name == "ProxyTargetPort"
    assert cmdlet.parameter("MaxConnectionsFromSingleIP").name == "MaxConnectionFromSingleIP"
    with pytest.raises(Malformed, match="ambiguous"):
        cmdlet.parameter("Max")
    with pytest.raises(Malformed, match="did you mean -LoginType"):
        cmdlet.parameter("LoginTipe")


def test_terminal_escapes_and_formulas_never_get_through() -> None:
    item = {"properties": {"A": "\x1b[2J=1"}, "shown": {"A": "\x1b[2J=1", "B": "=cmd()"}, "columns": []}
    for form in ("list", "table", "csv"):
        text = output.render([item], form)
        assert "\x1b" not in text
    assert "'=cmd()" in output.render([item], "csv")
