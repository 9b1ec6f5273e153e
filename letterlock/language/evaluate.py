"""The value of an expression's tree.

One evaluator serves the shell and the filters of cmdlets. What a variable is, and how the commands of a
sub-expression run, the `Scope` says. Nothing here waits by itself: with a scope that does not, `at_once` gives the
value without an event loop.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

from letterlock.base.errors import Malformed
from letterlock.language import operators
from letterlock.language.tree import (
    Chain,
    Expandable,
    HashTable,
    Index,
    ListOf,
    Member,
    Node,
    Number,
    Property,
    ScriptBlock,
    Sub,
    Text,
    Unary,
    Variable,
)
from letterlock.language.values import Record, to_number, to_text, truth

CONSTANTS = {"true": True, "false": False, "null": None}


class Scope(Protocol):
    """What surrounds an expression."""

    def variable(self, name: str) -> Any: ...
    def property(self, name: str) -> Any: ...
    async def run(self, statements: tuple[Node, ...]) -> list[Any]: ...


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    except RecursionError:
        raise Malformed("the expression is nested too deeply") from None
    work.close()
    raise RuntimeError("an expression waited")


async def evaluate(node: Node, scope: Scope) -> Any:
    """The value of `node`; `Malformed` says what cannot be computed."""
    match node:
        case Text():
            return node.value
        case Number():
            return node.value
        case Variable():
            return CONSTANTS[node.name] if node.name in CONSTANTS else scope.variable(node.name)
        case Property():
            return scope.property(node.name)
        case Member():
            return _property(await evaluate(node.value, scope), node.name)
        case Index():
            return _indexed(await evaluate(node.value, scope), await evaluate(node.index, scope))
        case Expandable():
            return "".join([await _inserted(part, scope) for part in node.parts])
        case ListOf():
            return [await evaluate(item, scope) for item in node.items]
        case HashTable():
            return {name: await evaluate(value, scope) for name, value in node.pairs}
        case ScriptBlock():
            return node
        case Sub():
            found = await scope.run(node.statements)
            return found if node.array or len(found) > 1 else found[0] if found else None
        case Unary():
            return _unary(node.operator, await evaluate(node.value, scope))
        case Chain():
            return await _chain(node, scope)
    raise Malformed("this is not a value")


async def _chain(node: Chain, scope: Scope) -> Any:
    value = await evaluate(node.first, scope)
    for name, right in node.rest:
        if name in ("and", "or"):
            if truth(value) is (name == "or"):
                value = name == "or"
                continue
            value = truth(await evaluate(right, scope))
        elif name == "xor":
            value = truth(value) is not truth(await evaluate(right, scope))
        elif name in "+-*/%":
            value = operators.arithmetic(name, value, await evaluate(right, scope))
        else:
            value = operators.compare(name, value, await evaluate(right, scope))
    return value


async def _inserted(part: Node, scope: Scope) -> str:
    """A piece of a text. `$name.Property` where $name is no object: the dot is part of the text."""
    names: list[str] = []
    while isinstance(part, Member):
        names.append(part.name)
        part = part.value
    value = await evaluate(part, scope)
    while names and isinstance(value, Record | dict):
        value = member(value, names.pop())
    return to_text(value) + "".join(f".{name}" for name in reversed(names))


def member(value: Any, name: str) -> Any:
    """`value.Name`; of a list, the property of each member, and its own Count."""
    if isinstance(value, Record):
        return value.get(name)
    if isinstance(value, dict):
        return next((v for k, v in value.items() if str(k).lower() == name.lower()), None)
    if isinstance(value, list):
        if name.lower() in ("count", "length"):
            return len(value)
        found = [member(v, name) for v in value if isinstance(v, Record | dict)]
        flat = [w for v in found for w in (v if isinstance(v, list) else [v]) if w is not None]
        return flat if len(flat) != 1 else flat[0]
    if isinstance(value, str) and name.lower() == "length":
        return len(value)
    return 1 if name.lower() == "count" and value is not None else None


def _property(value: Any, name: str) -> Any:
    """In an expression a text has no properties: `$name.contoso.com` without quotes would silently be nothing."""
    if isinstance(value, str | int | float) and name.lower() not in ("count", "length"):
        raise Malformed(f"'{to_text(value)[:60]}' is no object, and has no {name}; put longer texts into double quotes")
    return member(value, name)


def _indexed(value: Any, index: Any) -> Any:
    if isinstance(value, dict):
        return member(value, to_text(index))
    number = to_number(index)
    if number is None or number != number // 1:
        raise Malformed(f"'{to_text(index)}' is not an index; use a whole number")
    items = value if isinstance(value, list | str) else [] if value is None else [value]
    return items[int(number)] if -len(items) <= number < len(items) else None


def _unary(name: str, value: Any) -> Any:
    return not truth(value) if name == "not" else operators.arithmetic("-", 0, value)
