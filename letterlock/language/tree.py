"""What a parsed text of the shell language is made of.

Every node knows where it stands (`at`, an offset into the text it was parsed from), so that an error that is found
only when it runs can point there as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Place(NamedTuple):
    """A line and a column, from 1, and the text of that line."""

    line: int
    column: int
    source: str

    @classmethod
    def of(cls, text: str, at: int) -> Place:
        """Where offset `at` of `text` is."""
        at = min(at, len(text))
        start = text.rfind("\n", 0, at) + 1
        end = text.find("\n", at)
        return cls(text.count("\n", 0, at) + 1, at - start + 1, text[start : end if end >= 0 else len(text)])

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


@dataclass(frozen=True, slots=True)
class Node:
    """A part of a text, from offset `at` up to offset `end`."""

    at: int
    end: int


@dataclass(frozen=True, slots=True)
class Text(Node):
    """A text as it is: a bare word, or in single quotes."""

    value: str
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Number(Node):
    """A number; `word` is how it was written, because a parameter of type text keeps `007`."""

    value: int | float
    word: str


@dataclass(frozen=True, slots=True)
class Expandable(Node):
    """Double quotes, or a bare word with variables in it: texts and the values that are put between them."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Variable(Node):
    """`$name`, without the dollar sign, in lower case."""

    name: str


@dataclass(frozen=True, slots=True)
class Property(Node):
    """A bare word at the place of a property, as in a filter."""

    name: str


@dataclass(frozen=True, slots=True)
class Member(Node):
    """`value.Name`."""

    value: Node
    name: str


@dataclass(frozen=True, slots=True)
class Index(Node):
    """`value[index]`."""

    value: Node
    index: Node


@dataclass(frozen=True, slots=True)
class ListOf(Node):
    """`a, b`."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class HashTable(Node):
    """`@{Name = value; …}`."""

    pairs: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class ScriptBlock(Node):
    """`{ … }`: its statements, and its text for those who read it otherwise (a filter, one quoted value)."""

    statements: tuple[Node, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Sub(Node):
    """`( … )`, `$( … )` and `@( … )`; the last is always a list."""

    statements: tuple[Node, ...]
    array: bool = False


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """`-not value` and `-value`."""

    operator: str
    value: Node


@dataclass(frozen=True, slots=True)
class Chain(Node):
    """Operators of one precedence, from left to right: first value, then pairs of operator and value."""

    first: Node
    rest: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Parameter(Node):
    """`-Name`, or `-Name:value`."""

    name: str
    value: Node | None = None


@dataclass(frozen=True, slots=True)
class Command(Node):
    """A command's name and its arguments in order: `Parameter` and values."""

    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Pipeline(Node):
    """Commands through which objects go; the first may be an expression."""

    elements: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Assignment(Node):
    """`$name = …`."""

    name: str
    value: Node
