"""One registry of management commands, from which shell, command line and later REST derive.

A `Cmdlet` is its name, its parameters and a coroutine that takes a `Context` and the bound values and answers rows.
Binding accepts any unambiguous prefix of a parameter, without case, and says what was meant when it is misspelt.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from letterlock.base import values
from letterlock.base.declare import to_json
from letterlock.base.errors import Malformed, Refused
from letterlock.manage.context import Context

# Spellings of Microsoft's own pages that are not the names of the parameters.
MISSPELT: Final = {
    "maxconnectionsfromsingleip": "MaxConnectionFromSingleIP",
    "protocolloggingenabled": "ProtocolLogEnabled",
}


@dataclass(slots=True)
class Row:
    """An object that a cmdlet answers: properties in order, and the columns of its default table.

    `columns` empty: it is shown as a list. `cells`: what the default table shows instead of the property's value.
    """

    properties: dict[str, Any]
    columns: tuple[str, ...] = ()
    cells: Mapping[str, str] = field(default_factory=dict)

    def wire(self) -> dict[str, Any]:
        """For the control socket and `--output json`; `shown` keeps what a list prints."""
        return {
            "properties": {k: to_json(v) for k, v in self.properties.items()},
            "shown": {k: show(v) for k, v in self.properties.items()},
            "columns": list(self.columns),
            **({"cells": dict(self.cells)} if self.cells else {}),
        }


class _Travelled(Row):
    """An object that another server has answered."""

    __slots__ = ("_wire",)

    def __init__(self, wire: dict[str, Any]) -> None:
        super().__init__(wire["properties"], tuple(wire["columns"]))
        self._wire = wire

    def wire(self) -> dict[str, Any]:
        """As it came."""
        return self._wire


def show(value: object) -> str:
    """A value as Format-List prints it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, list | tuple):
        return "{" + ", ".join(show(v) for v in value) + "}"
    if isinstance(value, enum.Enum):
        return values.enum_name(value)
    return str(value)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. `read` turns text, list, bool or ListChange into the value; raises `Malformed`."""

    name: str
    help: str = ""
    read: Callable[[Any], Any] = str
    position: int = -1
    mandatory: bool = False
    pipeline: bool = False  # takes a piped object's property of its name, or its Identity
    switch: bool = False
    type_name: str = "String"
    default: str = ""
    allowed: tuple[Any, Any] | None = None  # least and greatest value
    several: bool = False  # on the command line, the words after it belong to it as well: --path a.log b.log
    restart: str = ""  # services that have to be restarted before it takes effect


@dataclass(frozen=True, slots=True)
class Cmdlet:
    """A management command."""

    name: str
    help: str
    run: Callable[[Context, dict[str, Any]], Awaitable[list[Row]]]
    parameters: tuple[Parameter, ...] = ()
    changes: bool = False
    aliases: tuple[str, ...] = field(default=())
    here: Callable[[Any, dict[str, Any]], Awaitable[list[Row]]] | None = None  # takes a manage.here.Local: see there

    @property
    def all_parameters(self) -> tuple[Parameter, ...]:
        """Its own and the common ones."""
        return (*self.parameters, *(COMMON if self.changes else ()))

    @property
    def high_impact(self) -> bool:
        """It takes something away for good: on a terminal it is confirmed."""
        return self.changes and self.name.startswith("Remove-")

    def parameter(self, text: str) -> Parameter:
        """By name, or an unambiguous beginning of it."""
        wanted = text.lower()
        found = [p for p in self.all_parameters if p.name.lower() == wanted]
        found = found or [p for p in self.all_parameters if p.name.lower().startswith(wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(p.name for p in found)
            raise Malformed(f"{self.name}: -{text} is ambiguous; it may be {names}")
        wanted = MISSPELT.get(wanted, wanted).lower()
        near = difflib.get_close_matches(wanted, [p.name.lower() for p in self.all_parameters], 1)
        meant = next((p.name for p in self.all_parameters if near and p.name.lower() == near[0]), "")
        raise Malformed(f"{self.name}: there is no parameter -{text}" + (f"; did you mean -{meant}?" if meant else ""))

    def bind(self, named: Mapping[str, Any], positional: list[Any], piped: Mapping[str, Any] | None) -> dict[str, Any]:
        """Values by parameter name; `Malformed` names cmdlet, parameter, value and what is allowed."""
        raw: dict[str, Any] = {}
        for text, value in named.items():
            raw[self.parameter(text).name] = value
        places = sorted((p for p in self.parameters if p.position >= 0), key=lambda p: p.position)
        free = [p for p in places if p.name not in raw]
        if len(positional) > len(free):
            raise Malformed(f"{self.name}: '{positional[len(free)]}' is one argument too many")
        raw.update((p.name, v) for p, v in zip(free, positional, strict=False))
        for p in self.parameters:
            if piped is not None and p.pipeline and p.name not in raw:
                value = piped.get("Identity", piped.get("Name")) if p.name not in piped else piped[p.name]
                if value is not None:
                    raw[p.name] = value
            if p.mandatory and p.name not in raw:
                raise Malformed(f"{self.name}: -{p.name} is needed: {p.help}")
        return {name: self._read(name, value) for name, value in raw.items()}

    def _read(self, name: str, value: Any) -> Any:
        read = self.parameter(name).read
        try:
            _check_text(value)
            return read("" if value is None and read is str else value)
        except Malformed as error:
            text = error.text if error.text.startswith(name) else f"{name}: {error.text}"
            raise Malformed(f"{self.name}: {_shortened(text, [value])}") from None


def _check_text(value: Any) -> None:
    """`Malformed` for a text, or a list of texts, that cannot be written anywhere: half a character."""
    for text in value if isinstance(value, list | tuple) else (value,):
        text = text.reveal() if isinstance(text, values.Secret) else text
        if isinstance(text, str) and any("\ud800" <= ch <= "\udfff" for ch in text):
            raise Malformed("has half characters (surrogates) in it, which are no text")


def described(cmdlet: Cmdlet) -> str:
    """Help on a command."""
    text = f"{cmdlet.name}: {cmdlet.help}\n\n"
    if cmdlet.aliases:
        text += f"  also {', '.join(cmdlet.aliases)}\n"
    for p in cmdlet.all_parameters:
        default = f" Default: {p.default.rstrip('.')}." if p.default else ""
        later = f" Takes effect at: Restart-Service {p.restart}." if p.restart else ""
        needed = " Needed." if p.mandatory else ""
        text += f"  -{p.name} <{p.type_name}>\n      {p.help}{default}{needed}{later}\n"
    return text


LONGEST_VALUE: Final = 100  # characters of a value that an error repeats


def _shortened(text: str, given: Iterable[Any]) -> str:
    """An error's sentence, without the greater part of values that nobody would read."""
    flat = [w for v in given for w in (v if isinstance(v, list | tuple) else [v])]
    for value in map(str, flat):
        if len(value) > LONGEST_VALUE:
            text = text.replace(value, value[:LONGEST_VALUE] + "…")
    return text


def boolean(value: Any) -> bool:
    """$true or $false."""
    text = str(value).strip().lower().lstrip("$")
    if text not in ("true", "false"):
        raise Malformed(f"'{value}' is not $true or $false")
    return text == "true"


def words(value: Any) -> list[str]:
    """A list, or a comma list."""
    items = value if isinstance(value, list | tuple) else str(value).split(",")
    return [str(item).strip() for item in items if str(item).strip()]


def secret(value: Any) -> values.Secret:
    """A password."""
    return value if isinstance(value, values.Secret) else values.Secret(str(value))


COMMON: Final = (
    Parameter("WhatIf", "Only say what would change.", boolean, switch=True, type_name="Switch"),
    Parameter(
        "Confirm",
        "Ask before the change, on a terminal; -Confirm:$false never asks.",
        boolean,
        switch=True,
        type_name="Switch",
    ),
    Parameter("Verbose", "Say what is changed, and more.", boolean, switch=True, type_name="Switch"),
)


def table(*cmdlets: Cmdlet) -> dict[str, Cmdlet]:
    """By name in lower case, aliases included."""
    return {name.lower(): c for c in cmdlets for name in (c.name, *c.aliases)}


async def invoke(
    commands: Mapping[str, Cmdlet],
    context: Context,
    name: str,
    named: Mapping[str, Any],
    positional: list[Any],
    piped: Mapping[str, Any] | None = None,
) -> list[Row]:
    """Bind and run."""
    cmdlet = commands.get(name.lower())
    if cmdlet is None:
        near = difflib.get_close_matches(name.lower(), commands, 1)
        raise Malformed(f"'{name}' is not a command" + (f"; did you mean {commands[near[0]].name}?" if near else ""))
    bound = cmdlet.bind(named, positional, piped)
    context.what_if = bool(bound.pop("WhatIf", False))
    bound.pop("Confirm", None)
    context.verbose = bool(bound.pop("Verbose", False))
    server = str(bound.get("Server") or bound.get("ComputerName") or "")
    peer = context.elsewhere(server)
    if peer is None:
        context.check_server(server)
    elif context.forward is None:
        raise Refused(f"server {peer.name} is not reached this way; ask it itself")
    else:
        objects, messages = await context.forward(peer, name, named, positional, piped, context.who)
        context.messages += messages
        return [_Travelled(o) for o in objects]
    try:
        return await cmdlet.run(context, bound)
    except Malformed as error:
        text = error.text if error.text.startswith(cmdlet.name) else f"{cmdlet.name}: {error.text}"
        raise Malformed(_shortened(text, bound.values())) from None
