"""Settings declared once: reading, validating, comparing and describing declared dataclasses.

`setting()` puts a `Setting` into a dataclass field's metadata. From it derive validation and its error texts, the
Get-/Set- cmdlets, command-line options, help and `docs/settings.md`. Attributes keep Exchange's spelling, so that one
search finds a setting everywhere.
"""

from __future__ import annotations

import dataclasses
import enum
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from letterlock.base import values
from letterlock.base.errors import Malformed

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """What is known of a setting besides its name, type and default."""

    help: str
    unit: str = ""
    range: tuple[Any, Any] | None = None
    read: Callable[[str], Any] | None = None  # its own reader, where the type's is too wide
    weaker: Callable[[Any], str] | None = None  # what it weakens; "" when it does not
    here: Callable[[Any], str] | None = None  # a value that cannot mean here what it means in Exchange: what it does
    read_only: bool = False


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    range: tuple[Any, Any] | None = None,
    read: Callable[[str], Any] | None = None,
    weaker: Callable[[Any], str] | None = None,
    here: Callable[[Any], str] | None = None,
    read_only: bool = False,
) -> Any:
    """A dataclass field that carries its declaration."""
    declaration = Setting(help, unit, range, read, weaker, here, read_only)
    return dataclasses.field(default=default, metadata={"setting": declaration})


@dataclasses.dataclass(frozen=True, slots=True)
class Declared:
    """One field of a declared class, ready for use."""

    name: str
    type: Any  # the element's type for lists
    many: bool
    default: Any
    setting: Setting

    def read(self, value: object) -> Any:
        """One value from text or JSON; `Malformed` says what is allowed."""
        found = self._parse(value)
        if self.setting.range and not self.setting.range[0] <= found <= self.setting.range[1]:
            low, high = self.setting.range
            unit = f" {self.setting.unit}" if self.setting.unit else ""
            raise Malformed(f"value {value} is out of range; it must be between {low} and {high}{unit}.")
        return found

    def _parse(self, value: object) -> Any:
        if isinstance(self.type, type) and isinstance(value, self.type) and not isinstance(value, str):
            return value
        text = "" if value is None else str(value)
        if self.setting.read:
            return self.setting.read(text)
        if self.type is bool:
            if text.strip().lower().lstrip("$") not in ("true", "false"):
                raise Malformed(f"'{text}' is not $true or $false")
            return text.strip().lower().lstrip("$") == "true"
        if self.type is int:
            try:
                return int(text)
            except ValueError:
                raise Malformed(f"'{text}' is not a whole number") from None
        if isinstance(self.type, type) and issubclass(self.type, enum.Enum):
            return values.parse_enum(self.type, text)
        if self.type is str:
            if any(ord(c) < 32 or ord(c) == 127 for c in text):
                raise Malformed("control characters are not allowed")
            return text
        return self.type.parse(text)

    @property
    def type_name(self) -> str:
        """For help: Boolean, Int32, an enumeration's values…"""
        names = {bool: "Boolean", int: "Int32", str: "String"}
        if isinstance(self.type, type) and issubclass(self.type, enum.Enum):
            return " | ".join(values.enum_name(m) for m in self.type)
        name = names.get(self.type, getattr(self.type, "__name__", "String"))
        return f"{name}[]" if self.many else name


def fields(cls: type[Any]) -> dict[str, Declared]:
    """The declared fields in order, by name."""
    hints = typing.get_type_hints(cls)
    found = {}
    for field in dataclasses.fields(cls):
        if "setting" in field.metadata:
            hint = hints[field.name]
            many = typing.get_origin(hint) is tuple
            kind = typing.get_args(hint)[0] if many else hint
            found[field.name] = Declared(field.name, kind, many, field.default, field.metadata["setting"])
    return found


def read(cls: type[Any], name: str, value: object, old: object = None) -> Any:
    """The new value of setting `name`; lists take a list, a comma list, or a `ListChange` applied to `old`."""
    declared = fields(cls)[name]
    if not declared.many:
        if isinstance(value, list | tuple):
            raise Malformed(f"{name}: one value is expected, not a list")
        return _named(name, declared.read, value)
    if isinstance(value, values.ListChange) and value.replace is None:
        present = list(typing.cast(tuple[Any, ...], old or ()))
        for text in value.remove:
            gone = _named(name, declared.read, text)
            present = [p for p in present if p != gone]
        for text in value.add:
            new = _named(name, declared.read, text)
            if new not in present:
                present.append(new)
        return tuple(present)
    if isinstance(value, values.ListChange):
        value = value.replace
    if value is None or value == "":
        return ()
    items = value if isinstance(value, list | tuple) else str(value).split(",")
    return tuple(dict.fromkeys(_named(name, declared.read, item) for item in items))


def _named(name: str, reader: Callable[[object], Any], value: object) -> Any:
    try:
        return reader(value)
    except Malformed as error:
        raise Malformed(f"{name}: {error.text}") from None


def to_json(value: object) -> object:
    """The stored and transmitted form of a value."""
    if isinstance(value, tuple | list):
        return [to_json(v) for v in value]
    if isinstance(value, enum.Enum):
        return values.enum_name(value)
    if hasattr(value, "to_json"):
        return value.to_json()
    return value


def stored(value: object) -> dict[str, object]:
    """A declared object as a mapping of JSON values."""
    return {name: to_json(getattr(value, name)) for name in fields(type(value))}


def restored(cls: type[T], rows: Mapping[str, object], **more: object) -> T:
    """A declared object from stored rows; what is not stored has its default."""
    known = fields(cls)
    return cls(**{n: read(cls, n, v) for n, v in rows.items() if n in known}, **more)


def weaknesses(value: object) -> list[str]:
    """What the object's settings weaken, in words."""
    found = []
    for name, declared in fields(type(value)).items():
        text = declared.setting.weaker(getattr(value, name)) if declared.setting.weaker else ""
        if text:
            found.append(f"{name}: {text}")
    return found
