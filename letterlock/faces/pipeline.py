"""Runs pipelines: cmdlets through a dispatcher; Select, Format-List and Format-Table here, over what they answered."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

from letterlock.base.errors import Malformed
from letterlock.faces import output
from letterlock.faces.language import Command, parse
from letterlock.faces.output import Item

# name, named, positional, piped properties → objects; messages are shown by the dispatcher
Dispatch = Callable[[str, dict[str, Any], list[Any], dict[str, Any] | None], Awaitable[list[Item]]]

_SELECT = ("select", "select-object")
_LIST = ("format-list", "fl")
_TABLE = ("format-table", "ft")


def _patterns(command: Command) -> list[str]:
    found: list[str] = []
    for value in (*command.positional, *(v for k, v in command.named.items() if "property".startswith(k.lower()))):
        found += [str(v) for v in value] if isinstance(value, list) else [str(value)]
    return found


async def run(text: str, dispatch: Dispatch) -> None:
    """Run all pipelines of `text`, printing what each answers."""
    for commands in parse(text):
        sys.stdout.write(await _pipeline(commands, dispatch))
        sys.stdout.flush()


async def _pipeline(commands: list[Command], dispatch: Dispatch) -> str:
    items: list[Item] | None = None
    for number, command in enumerate(commands):
        name = command.name.lower()
        if name in (*_SELECT, *_LIST, *_TABLE):
            if items is None:
                raise Malformed(f"{command.name} needs something piped to it")
            if name in _SELECT:
                items = _select(items, command)
                continue
            if number + 1 < len(commands):
                raise Malformed(f"{command.name} must be the last command of a pipeline")
            chosen = [output.select(i, _patterns(command) or ["*"]) for i in items]
            if name in _LIST:
                return output.as_list(chosen)
            columns = _patterns(command) and list(chosen[0]["shown"]) if chosen else []
            return output.as_table(items, columns or items[0]["columns"] or list(items[0]["shown"])) if items else ""
        if items is None:
            items = await dispatch(command.name, command.named, command.positional, None)
        else:
            piped = items
            items = []
            for item in piped:
                items += await dispatch(command.name, command.named, command.positional, item["properties"])
    return output.default(items or [])


def _select(items: list[Item], command: Command) -> list[Item]:
    named = {k.lower(): v for k, v in command.named.items()}
    unknown = [k for k in named if not any(o.startswith(k) for o in ("property", "first", "expandproperty"))]
    if unknown:
        raise Malformed(f"{command.name}: there is no parameter -{unknown[0]}")
    first = next((v for k, v in named.items() if "first".startswith(k)), None)
    if first is not None:
        if not str(first).isdigit():
            raise Malformed(f"{command.name}: First: '{first}' is not a number")
        items = items[: int(first)]
    patterns = _patterns(command)
    return [output.select(i, patterns) for i in items] if patterns else items
