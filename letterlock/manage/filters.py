"""-Filter of the cmdlets that list: `{PopEnabled -eq $true -and Name -like 'a*'}`, or the same as a text.

As Exchange's: bare words are properties, and there are -eq -ne -gt -ge -lt -le -like -notlike with -and, -or, -not and
parentheses. It is evaluated by the expressions of the shell, over what the cmdlet would answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from letterlock.base.errors import Malformed
from letterlock.manage.context import Context
from letterlock.manage.registry import Parameter, Row

OPERATORS: Final = ("eq", "ne", "gt", "ge", "lt", "le", "like", "notlike")
MAX_LENGTH: Final = 10_000

Keep = Callable[[list[Row]], list[Row]]


def read(value: Any) -> Keep:
    """The filter as a function; `Malformed` points at the place of a mistake."""
    # loaded with the first filter: the parser takes a tenth of a second
    from letterlock.language.parse import parse_filter

    text = str(value).strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    if len(text) > MAX_LENGTH:
        raise Malformed(f"a filter of more than {MAX_LENGTH} characters is refused")
    tree = parse_filter(text)
    _check(tree)
    return lambda rows: _kept(tree, rows)


def _check(tree: Any) -> None:
    from letterlock.language.evaluate import CONSTANTS
    from letterlock.language.tree import Chain, Node, Variable

    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, tuple):
            waiting += node
        if not isinstance(node, Node):
            continue
        if isinstance(node, Variable) and node.name not in (*CONSTANTS, "_"):
            raise Malformed(f"${node.name}: a filter has no variables but $true, $false and $null")
        for name, _ in node.rest if isinstance(node, Chain) else ():
            if name not in ("and", "or", *OPERATORS):
                raise Malformed(
                    f"-{name} is not an operator of filters; there are " + " ".join(f"-{o}" for o in OPERATORS)
                )
        waiting += [getattr(node, name) for name in node.__slots__]


class _Scope:
    """One object: its properties are what bare words mean."""

    def __init__(self, record: Any) -> None:
        self.record = record

    def variable(self, name: str) -> Any:
        """$_."""
        return self.record

    def property(self, name: str) -> Any:
        """A bare word; one that no object has is a mistake."""
        if self.record.name(name) is None:
            raise Malformed(f"there is no property '{name}'; there are {', '.join(self.record.properties)}")
        return self.record.get(name)

    async def run(self, statements: Any) -> list[Any]:
        """No commands in a filter."""
        raise Malformed("a filter has no commands")


def _kept(tree: Any, rows: list[Row]) -> list[Row]:
    from letterlock.language.evaluate import at_once, evaluate
    from letterlock.language.values import Record, truth

    found = []
    for row in rows:
        record = Record.of(row.wire())
        if truth(at_once(evaluate(tree, _Scope(record)))):
            found.append(row)
    return found


def kept(rows: list[Row], p: dict[str, Any]) -> list[Row]:
    """The rows that a cmdlet's -Filter keeps; all without one."""
    keep: Keep | None = p.get("Filter")
    return keep(rows) if keep is not None else rows


FILTER: Final = Parameter(
    "Filter",
    "Only objects for which it holds: {PopEnabled -eq $true -and Name -like 'a*'}.",
    read,
)

RESULTS: Final = 1000  # as Exchange
MOST_RESULTS: Final = 250_000


def result_size(value: Any) -> int:
    """A number of objects, or `unlimited`."""
    text = str(value).strip()
    if text.lower() == "unlimited":
        return MOST_RESULTS
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:10]) <= MOST_RESULTS:
        raise Malformed(f"'{value}' is not allowed; use a number from 1 to {MOST_RESULTS}, or unlimited")
    return int(text)


def limited(c: Context, rows: list[Row], p: dict[str, Any]) -> list[Row]:
    """What -Filter keeps, at most -ResultSize of it; that there is more is said."""
    rows, most = kept(rows, p), p.get("ResultSize", RESULTS)
    if len(rows) > most:
        c.warn(f"there are {len(rows)} objects, and only {most} are shown; for all: -ResultSize unlimited")
    return rows[:most]


RESULT_SIZE: Final = Parameter(
    "ResultSize", "At most so many objects.", result_size, type_name="Unlimited", default=str(RESULTS)
)
