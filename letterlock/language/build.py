"""From lark's tree to ours: numbers, quotes and escapes are read here, and texts with variables are taken apart."""

from __future__ import annotations

import re
from typing import Any, Final, Protocol

from lark import Token, v_args
from lark.visitors import Transformer_NonRecursive

from letterlock.language.grammar import COMPARISONS, DASH, DOUBLE, QUOTED, SINGLE
from letterlock.language.tree import (
    Assignment,
    Chain,
    Command,
    Expandable,
    HashTable,
    Index,
    ListOf,
    Member,
    Node,
    Number,
    Parameter,
    Pipeline,
    Property,
    ScriptBlock,
    Sub,
    Text,
    Unary,
    Variable,
)

_UNITS: Final = {"kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40, "pb": 1 << 50}
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "e": "\x1b"}


class Source(Protocol):
    """The whole text; parses parts of it."""

    text: str

    def parse(self, start: str, begin: int, end: int, depth: int = 0) -> Any: ...


@v_args(meta=True)
class Build(Transformer_NonRecursive[Token, Any]):
    """Bottom up; every method gets the positions and the finished children."""

    def __init__(self, source: Source, begin: int, depth: int) -> None:
        super().__init__()
        self.source, self.begin, self.depth = source, begin, depth

    def _span(self, meta: Any) -> tuple[int, int]:
        if getattr(meta, "empty", True):
            return self.begin, self.begin
        return self.begin + int(meta.start_pos), self.begin + int(meta.end_pos)

    # statements

    def start(self, _meta: Any, children: list[Any]) -> tuple[Node, ...]:
        """A whole text."""
        return tuple(children[0]) if children else ()

    def body(self, _meta: Any, children: list[Any]) -> list[Node]:
        """Statements."""
        return list(children)

    def filter(self, _meta: Any, children: list[Any]) -> Node:
        """An expression of -Filter."""
        found: Node = children[0]
        return found

    def assignment(self, meta: Any, children: list[Any]) -> Node:
        """$name = …"""
        return Assignment(*self._span(meta), _name(children[0]), children[1])

    def pipeline(self, meta: Any, children: list[Any]) -> Node:
        """a | b"""
        return Pipeline(*self._span(meta), tuple(children))

    def command(self, meta: Any, children: list[Any]) -> Node:
        """Name and arguments."""
        return Command(*self._span(meta), _unescaped(str(children[0])), tuple(children[1:]))

    def parameter(self, meta: Any, children: list[Any]) -> Node:
        """-Name"""
        return Parameter(*self._span(meta), str(children[0])[1:])

    def parameter_value(self, meta: Any, children: list[Any]) -> Node:
        """-Name:value"""
        return Parameter(*self._span(meta), str(children[0])[1:-1], children[1])

    # lists and chains

    def items(self, meta: Any, children: list[Any]) -> Node:
        """a, b"""
        return children[0] if len(children) == 1 else ListOf(*self._span(meta), tuple(children))

    commas = filter_values = items

    def bare(self, meta: Any, children: list[Any]) -> Node:
        """Words without quotes, after an operator."""
        at, _ = self._span(meta)
        first = int(children[0].start_pos or 0)
        words = [
            Text(at + int(c.start_pos) - first, at + int(c.end_pos) - first, _unescaped(str(c)), True) for c in children
        ]
        return words[0] if len(words) == 1 else ListOf(*self._span(meta), tuple(words))

    def _chain(self, meta: Any, children: list[Any]) -> Node:
        if len(children) == 1:
            return children[0]  # type: ignore[no-any-return]
        pairs = tuple((_operator(o), v) for o, v in zip(children[1::2], children[2::2], strict=True))
        return Chain(*self._span(meta), children[0], pairs)

    logical = comparison = sum = product = filter_or = filter_comparison = _chain

    def negated(self, meta: Any, children: list[Any]) -> Node:
        """-not x, -x"""
        return Unary(*self._span(meta), _operator(children[0]), children[1])

    filter_negated = negated

    # values

    def number(self, meta: Any, children: list[Any]) -> Node:
        """7, 1.5, 0x1F, 2MB"""
        return Number(*self._span(meta), _number(str(children[0])), str(children[0]))

    def word(self, meta: Any, children: list[Any]) -> Node:
        """A bare word."""
        at, end = self._span(meta)
        text = str(children[0])
        return self._expanded(text, at, end, True) if "$" in text else Text(at, end, _unescaped(text), True)

    def property_word(self, meta: Any, children: list[Any]) -> Node:
        """A bare word of a filter."""
        return Property(*self._span(meta), str(children[0]))

    def single(self, meta: Any, children: list[Any]) -> Node:
        """'…'"""
        return Text(*self._span(meta), _single(str(children[0])))

    def double(self, meta: Any, children: list[Any]) -> Node:
        """\"…\""""
        at, end = self._span(meta)
        return self._expanded(str(children[0])[1:-1], at + 1, end - 1, False)

    def variable(self, meta: Any, children: list[Any]) -> Node:
        """$name"""
        return Variable(*self._span(meta), _name(children[0]))

    def member(self, meta: Any, children: list[Any]) -> Node:
        """value.Name"""
        return Member(*self._span(meta), children[0], str(children[1])[1:])

    def index(self, meta: Any, children: list[Any]) -> Node:
        """value[0]"""
        return Index(*self._span(meta), children[0], children[2])

    def parenthesis(self, meta: Any, children: list[Any]) -> Node:
        """( … )"""
        return Sub(*self._span(meta), tuple(children))

    def sub(self, meta: Any, children: list[Any]) -> Node:
        """$( … )"""
        return Sub(*self._span(meta), tuple(children[0]))

    def array(self, meta: Any, children: list[Any]) -> Node:
        """@( … )"""
        return Sub(*self._span(meta), tuple(children[0]), True)

    def block(self, meta: Any, children: list[Any]) -> Node:
        """{ … }"""
        at, end = self._span(meta)
        return ScriptBlock(at, end, tuple(children[0]), self.source.text[at + 1 : end - 1].strip())

    def pairs(self, _meta: Any, children: list[Any]) -> list[Any]:
        """name=value; …"""
        return list(children)

    def pair(self, _meta: Any, children: list[Any]) -> tuple[str, Node]:
        """name=value"""
        key = str(children[0])
        return (key if key[0] not in DOUBLE + SINGLE else key[1:-1]), children[1]

    def hash_table(self, meta: Any, children: list[Any]) -> Node:
        """@{ … }"""
        return HashTable(*self._span(meta), tuple(children[0]))

    # texts with variables

    def _expanded(self, text: str, at: int, end: int, bare: bool) -> Node:
        """`text`, which stands at `at`: its literal pieces and what is put between them."""
        parts: list[Node] = []
        literal: list[str] = []
        place = 0

        def flush() -> None:
            if any(literal):
                parts.append(Text(at, end, "".join(literal), bare))
            literal.clear()

        for match in _INSERTED.finditer(text):
            literal.append(_unescaped(text[place : match.start()], not bare))
            place = match.end()
            if match["escape"] is not None:
                literal.append(_ESCAPES.get(match["escape"], match["escape"]) if not bare else match["escape"])
                continue
            flush()
            begin = at + match.start()
            if match["name"] is not None:
                parts.append(self._variable(match, begin))
            else:
                statements = self.source.parse("start", begin + 2, at + match.end() - 1, self.depth + 1)
                parts.append(Sub(begin, at + match.end(), statements))
        literal.append(_unescaped(text[place:], not bare))
        flush()
        if all(isinstance(p, Text) for p in parts):
            return Text(at, end, "".join(p.value for p in parts if isinstance(p, Text)), bare)
        return Expandable(at - (not bare), end + (not bare), tuple(parts))

    def _variable(self, match: re.Match[str], at: int) -> Node:
        found: Node = Variable(at, at + len(match["name"]) + 1, _name("$" + match["name"]))
        for name in (match["members"] or "").split(".")[1:]:
            found = Member(at, found.end + len(name) + 1, found, name)
        return found


_INSERTED: Final = re.compile(
    rf"`(?P<escape>.)|\$(?P<name>\w+|\{{[^}}\n]+\}})(?P<members>(?:\.[a-z_]\w*)*)"
    rf"|\$(?P<sub>\((?:[^(){DOUBLE}{SINGLE}`]|`.|{QUOTED}|[{SINGLE}][^{SINGLE}]*[{SINGLE}]"
    r"|\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))*+\))",
    re.DOTALL | re.IGNORECASE,
)


def _name(token: object) -> str:
    text = str(token)[1:]
    return (text[1:-1] if text.startswith("{") else text).lower()


def _operator(token: object) -> str:
    """In lower case, without the dash, and without the letters i and c of a comparison's case."""
    text = re.sub(f"^{DASH}(?=[a-z])", "", str(token).lower()).split()[0]
    if text[:1] in ("i", "c") and text[1:] in COMPARISONS and text != "in":
        return text if text[0] == "c" else text[1:]
    return {"!": "not"}.get(text, "-" if re.fullmatch(DASH, text) else text)


def _number(word: str) -> int | float:
    text = re.sub(f"^{DASH}", "-", word.lower())
    if "0x" in text:
        return int(text, 16)
    unit = _UNITS.get(text[-2:], 1)
    text = text[:-2] if unit > 1 else text
    value = float(text) if "." in text else int(text)
    product = value * unit
    return int(product) if isinstance(product, float) and unit > 1 and product.is_integer() else product


def _single(token: str) -> str:
    return re.sub(f"[{SINGLE}]{{2}}", "'", token[1:-1])


def _unescaped(text: str, quoted: bool = False) -> str:
    """Backticks of a bare word are gone; in double quotes two quotes are one (`_expanded` has read the backticks)."""
    return re.sub(f"[{DOUBLE}]{{2}}", '"', text) if quoted else text.replace("`", "")
