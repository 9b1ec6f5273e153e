"""The values that expressions work with, and their forms as text, number, and yes or no.

Values are texts, numbers, `True`, `False`, `None`, lists, hash tables (dict), secrets, script blocks of the tree, and
`Record`, an object that a cmdlet has answered.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from letterlock.base.errors import Malformed
from letterlock.base.values import Secret
from letterlock.language.tree import ScriptBlock

_UNITS: Final = {"b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
_NUMBER: Final = re.compile(r"([+-]?\d{1,18}(?:\.\d{1,18})?)\s*([kmgt]?b)?(?:\s*\([\d,]+ bytes\))?", re.IGNORECASE)


class Measured(int):
    """A number that is shown otherwise: 2097152 as `2 MB (2,097,152 bytes)`."""

    shown: str

    def __new__(cls, value: int, shown: str) -> Measured:
        found = super().__new__(cls, value)
        found.shown = shown
        return found

    def __str__(self) -> str:
        return self.shown


class Record:
    """An object: properties in order, how each is shown, and the columns of its default table.

    `columns` empty: it is shown as a list. `cells`: what the default table shows otherwise than a list does.
    """

    __slots__ = ("_names", "cells", "columns", "properties", "shown")

    def __init__(self, properties: dict[str, Any], shown: Mapping[str, str] | None = None, columns: Iterable[str] = ()):
        self.properties = properties
        self.shown = {n: shown[n] if shown is not None and n in shown else show(v) for n, v in properties.items()}
        self.columns = tuple(columns)
        self.cells: Mapping[str, str] = {}
        self._names: dict[str, str] | None = None

    @classmethod
    def of(cls, wire: Mapping[str, Any]) -> Record:
        """From what `Row.wire` makes."""
        found = cls(wire["properties"], wire["shown"], wire["columns"])
        found.cells = wire.get("cells", {})
        return found

    def wire(self) -> dict[str, Any]:
        """As it travels."""
        return {"properties": self.properties, "shown": self.shown, "columns": list(self.columns)}

    def name(self, text: str) -> str | None:
        """The property's own spelling."""
        if self._names is None:
            self._names = {n.lower(): n for n in reversed(self.properties)}
        return self._names.get(text.lower())

    def get(self, text: str) -> Any:
        """A property's value, without case; None when there is none."""
        name = self.name(text)
        if name is None:
            return None
        value = self.properties[name]
        if type(value) is int and self.shown[name] != str(value):
            return Measured(value, self.shown[name])
        return value

    @property
    def identity(self) -> str:
        """What stands for the object where a text is needed."""
        for name in ("Identity", "Name"):
            if self.properties.get(name) is not None:
                return str(self.properties[name])
        return "@{" + "; ".join(f"{n}={v}" for n, v in self.shown.items()) + "}"


def show(value: Any) -> str:
    """As a list or a table shows it: lists in braces."""
    if isinstance(value, list | tuple):
        return "{" + ", ".join(show(v) for v in value) + "}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}={show(v)}" for k, v in value.items()) + "}"
    return to_text(value)


def to_text(value: Any) -> str:
    """As it is put into a text; never a secret."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " ".join(to_text(v) for v in value)
    if isinstance(value, Record):
        return value.identity
    if isinstance(value, ScriptBlock):
        return value.text
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, float):
        return f"{value:.15g}"
    return repr(value) if isinstance(value, Secret) else str(value)


def truth(value: Any) -> bool:
    """Whether it counts as $true: not empty, not zero, not $false."""
    if isinstance(value, list | tuple):
        return truth(value[0]) if len(value) == 1 else bool(value)
    return value is not None and value is not False and value not in ("", 0)


def to_number(value: Any) -> int | float | None:
    """A number, also from a text such as `7`, `1.5`, `2MB` or `unlimited`; None when it is not one."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float):
        return value
    if not isinstance(value, str) or len(value) > 60:
        return None
    if value.strip().lower() == "unlimited":
        return math.inf
    found = _NUMBER.fullmatch(value.strip())
    if not found:
        return None
    number = float(found[1]) if "." in found[1] else int(found[1])
    return number * _UNITS[(found[2] or "b").lower()]


def count(value: Any, name: str) -> int:
    """A whole number from 0 on; `Malformed` names the parameter."""
    number = to_number(value)
    if number is None or number < 0 or number != number // 1 or number > 1 << 53:
        raise Malformed(f"{name}: '{to_text(value)}' is not a whole number from 0 on")
    return int(number)
