"""A command's arguments, as they stand in the text, to named and positional values for a cmdlet's `bind`.

Whether a word after `-Name` is its value or the next argument, the declaration says: a switch takes none. Values for
cmdlets travel as texts, numbers, lists, secrets and list changes; what else there is in the shell becomes one of
these here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from letterlock.base.errors import Malformed
from letterlock.base.values import ListChange, Secret
from letterlock.language.parse import parse_filter
from letterlock.language.tree import Command, Expandable, ListOf, Node, Number, Parameter, ScriptBlock, Variable
from letterlock.language.values import Record, to_text
from letterlock.manage.registry import Cmdlet

Evaluate = Callable[[Node], Awaitable[Any]]
Arguments = tuple[dict[str, Any], list[Any]]


async def arguments(command: Command, cmdlet: Cmdlet, evaluate: Evaluate) -> Arguments:
    """Values by the parameters' full names, and those without a name; `Malformed` names cmdlet and parameter."""
    named: dict[str, Any] = {}
    positional: list[Any] = []
    waiting = list(command.arguments)
    while waiting:
        node = waiting.pop(0)
        if not isinstance(node, Parameter):
            positional.append(await evaluate(node))
            continue
        declared = cmdlet.parameter(node.name)
        if declared.name in named:
            raise Malformed(f"{cmdlet.name}: -{declared.name} is given twice")
        if node.value is not None:
            named[declared.name] = await evaluate(node.value)
        elif declared.switch:
            named[declared.name] = True
        elif waiting and not isinstance(waiting[0], Parameter):
            named[declared.name] = await evaluate(waiting.pop(0))
        else:
            raise Malformed(f"{cmdlet.name}: -{declared.name} needs a value ({declared.type_name})")
    return named, positional


async def travelling(command: Command, cmdlet: Cmdlet, evaluate: Evaluate) -> Arguments:
    """For a cmdlet: as `arguments`, with values as they travel."""

    async def worded(node: Node) -> Any:
        """Numbers keep the form they are written in: 007, 2MB."""
        if isinstance(node, Number):
            return node.word
        if isinstance(node, ListOf):
            return [await worded(item) for item in node.items]
        if isinstance(node, ScriptBlock):
            return await _block(node, cmdlet, evaluate)
        return await evaluate(node)

    named, positional = await arguments(command, cmdlet, worded)
    return (
        {name: _travels(value, name, cmdlet) for name, value in named.items()},
        [_travels(value, "", cmdlet) for value in positional],
    )


async def _block(block: ScriptBlock, cmdlet: Cmdlet, evaluate: Evaluate) -> str:
    """A script block is its text; in a filter, variables are replaced by their values."""
    if "$" not in block.text or not any(p.name == "Filter" for p in cmdlet.parameters):
        return block.text
    text, end = "", 0
    for node in _variables(parse_filter(block.text)):
        value = to_text(await evaluate(node))
        text += block.text[end : node.at] + "'" + value.replace("'", "''") + "'"
        end = node.end
    return text + block.text[end:]


def _variables(node: Any) -> list[Node]:
    """Variables and texts with variables, in order; the constants stay."""
    if isinstance(node, Expandable):
        return [node]
    if isinstance(node, Variable):
        return [] if node.name in ("true", "false", "null", "_") else [node]
    if isinstance(node, tuple):
        return [v for part in node for v in _variables(part)]
    if isinstance(node, Node):
        parts = [getattr(node, name) for name in node.__slots__]
        found = [v for part in parts for v in _variables(part)]
        # $name.Property is replaced as a whole
        whole = bool(found) and type(node).__name__ == "Member"
        return [node] if whole else found
    return []


def _travels(value: Any, name: str, cmdlet: Cmdlet) -> Any:
    if isinstance(value, list):
        return [_travels(v, name, cmdlet) for v in value]
    if isinstance(value, ScriptBlock):
        return value.text
    if isinstance(value, Record):
        if isinstance(value.properties.get("Password"), Secret):
            return dict(value.properties)  # what Get-Credential gives
        found = value.get(name) if name else None
        return value.identity if found is None else found
    if isinstance(value, dict):
        return _change(value, name, cmdlet)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return value


def _change(table: dict[str, Any], name: str, cmdlet: Cmdlet) -> ListChange:
    """@{Add="a","b"; Remove="c"}."""
    lists: dict[str, tuple[str, ...]] = {"add": (), "remove": ()}
    for key, value in table.items():
        if key.lower() not in lists:
            raise Malformed(
                f'{cmdlet.name}: {name}: there is no {key} in @{{Add="a","b"; Remove="c"}}; it has Add and Remove'
            )
        items = value if isinstance(value, list) else [] if value is None else [value]
        lists[key.lower()] = tuple(to_text(item) for item in items)
    return ListChange(None, lists["add"], lists["remove"])
