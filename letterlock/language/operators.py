"""The operators of expressions, over values. Texts compare without case; a `c` before an operator makes case count.

The right side is read as what the left side is, as in PowerShell; where that would surprise (`'10' -gt 9`, a time
span of days beside one of hours, dates), numbers, time spans and dates are compared as what they are. With a list at
the left, a comparison gives the members for which it holds.
"""

from __future__ import annotations

import datetime
import fnmatch
import functools
import math
import operator
import re
from collections.abc import Callable
from typing import Any, Final

from letterlock.base.errors import Malformed
from letterlock.base.values import TimeSpan
from letterlock.language.values import Record, to_number, to_text, truth

MAX_MAGNITUDE: Final = 1 << 63
MAX_LENGTH: Final = 1 << 20  # of a text or list that + makes
MAX_PATTERN: Final = 1000
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d(?:[T ].{1,32})?", re.ASCII)
_SPAN: Final = re.compile(r"(?:\d{1,5}\.)?\d{1,2}:\d\d(?::\d\d)?", re.ASCII)
_ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "ge": operator.ge,
    "lt": operator.lt,
    "le": operator.le,
}


def _moment(text: str) -> float | None:
    """A time span's or a date's number."""
    try:
        if _SPAN.fullmatch(text):
            return float(TimeSpan.parse(text).seconds)
        if _DATE.fullmatch(text):
            found = datetime.datetime.fromisoformat(text)
            return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, OverflowError, Malformed):
        return None
    return None


def _pair(left: Any, right: Any, exact: bool) -> tuple[Any, Any] | None:
    """Both sides in a form that compares; None when they cannot be alike."""
    if left is None or right is None:
        return (left is not None, right is not None)
    if isinstance(left, bool) or (isinstance(right, bool) and not isinstance(left, int | float)):
        return _boolean(left), _boolean(right)
    if isinstance(left, int | float) or isinstance(right, int | float):
        numbers = to_number(left), to_number(right)
        if None not in numbers:
            return numbers
        if isinstance(left, int | float):
            return (to_text(left), to_text(right)) if isinstance(right, str) else None
    first, second = to_text(left), to_text(right)
    moments = _moment(first), _moment(second)
    if None not in moments and bool(_SPAN.fullmatch(first)) is bool(_SPAN.fullmatch(second)):
        return moments
    return (first, second) if exact else (first.casefold(), second.casefold())


def _boolean(value: Any) -> bool:
    """'True', 'False' and '$false' as what they say."""
    if isinstance(value, str):
        return value.strip().lower().lstrip("$") not in ("", "false", "0")
    return truth(value)


def order(left: Any, right: Any) -> int:
    """-1, 0 or 1: for sorting. Nothing comes first, then numbers, then texts."""
    ranks = [0 if v is None else 1 if isinstance(v, int | float) else 2 for v in (left, right)]
    if ranks[0] != ranks[1] and 0 in ranks:
        return ranks[0] - ranks[1]
    pair = _pair(left, right, False) or (to_text(left).casefold(), to_text(right).casefold())
    return -1 if pair[0] < pair[1] else int(pair[0] > pair[1])


def alike(left: Any, right: Any) -> bool:
    """-eq."""
    return _one("eq", left, right, False)


def _one(name: str, left: Any, right: Any, exact: bool) -> bool:
    pair = _pair(left, right, exact)
    if pair is None:
        return name == "ne"
    if (left is None or right is None) and name not in ("eq", "ne"):
        return False
    return _ORDERS[name](*pair)


@functools.lru_cache(256)
def wildcard(pattern: str, exact: bool = False) -> re.Pattern[str]:
    """`*`, `?` and `[a-z]`; a backtick before one of them takes its meaning away."""
    if len(pattern) > MAX_PATTERN:
        raise Malformed(f"a pattern of more than {MAX_PATTERN} characters is refused")
    literal = re.sub(r"`([*?\[\]`])", lambda m: f"[{m[1]}]" if m[1] in "*?[" else m[1], pattern)
    # a bracket that is never closed, or closed at once, stands for itself (fnmatch agrees); `!` is nothing special
    translated = fnmatch.translate(literal.replace("[!", "[\\!"))
    try:
        return re.compile(translated, 0 if exact else re.IGNORECASE)
    except re.error:
        return re.compile(re.escape(pattern), 0 if exact else re.IGNORECASE)


@functools.lru_cache(64)
def _expression(pattern: str, exact: bool) -> re.Pattern[str]:
    if len(pattern) > MAX_PATTERN:
        raise Malformed(f"a pattern of more than {MAX_PATTERN} characters is refused")
    try:
        return re.compile(pattern, 0 if exact else re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise Malformed(f"-match: '{pattern}' is not a regular expression: {error}") from None


def _matches(name: str, left: Any, right: Any, exact: bool) -> bool:
    if name == "like":
        return wildcard(to_text(right), exact).match(to_text(left)) is not None
    return _expression(to_text(right), exact).search(to_text(left)) is not None


def compare(name: str, left: Any, right: Any) -> Any:
    """One of the comparisons, without its dash; `c` in front: case counts."""
    exact = name[0] == "c" and name != "contains"
    name = name[1:] if exact else name
    if name in ("contains", "notcontains"):
        return _member(left, right, exact) is (name == "contains")
    if name in ("in", "notin"):
        return _member(right, left, exact) is (name == "in")
    if isinstance(left, list | tuple):
        return [v for v in left if compare(("c" if exact else "") + name, v, right)]
    if name in _ORDERS:
        return _one(name, left, right, exact)
    wanted = not name.startswith("not")
    return _matches(name.removeprefix("not"), left, right, exact) is wanted


def _member(many: Any, one: Any, exact: bool) -> bool:
    items = many if isinstance(many, list | tuple) else [many]
    return any(_one("eq", item, one, exact) for item in items)


_ARITHMETIC: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": math.fmod,
}


def arithmetic(name: str, left: Any, right: Any) -> Any:
    """+ - * / %; + also puts texts and lists together."""
    if name == "+" and isinstance(left, list):
        return _bounded([*left, *(right if isinstance(right, list) else [right])])
    if name == "+" and isinstance(left, str):
        return _bounded(left + to_text(right))
    numbers = [0 if v is None else to_number(v) for v in (left, right)]
    for value, number in zip((left, right), numbers, strict=True):
        if number is None:
            shown = "an object" if isinstance(value, Record) else f"'{to_text(value)[:60]}'"
            raise Malformed(f"'{name}' needs numbers, not {shown}")
    if name in "/%" and not numbers[1]:
        raise Malformed("a number cannot be divided by zero")
    try:
        return _number(_ARITHMETIC[name](*numbers), name)
    except (OverflowError, ValueError):
        raise Malformed(f"the result of '{name}' is too large") from None


def _number(value: int | float, name: str) -> int | float:
    if not math.isfinite(value) or abs(value) >= MAX_MAGNITUDE:
        raise Malformed(f"the result of '{name}' is too large")
    return int(value) if isinstance(value, float) and value.is_integer() and name != "+" else value


def _bounded(value: Any) -> Any:
    if len(value) > MAX_LENGTH:
        raise Malformed("the result of '+' is too large")
    return value
