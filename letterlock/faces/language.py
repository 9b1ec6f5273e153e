"""The shell language, small for now: commands, parameters, quotes, lists, `@{Add=…; Remove=…}`, variables' constants,
pipes to Select, Format-List and Format-Table. What is not supported gets an error with line and column.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

from letterlock.base.errors import Malformed
from letterlock.base.values import ListChange

_TOKEN: Final = re.compile(
    r"""(?P<blank>[ \t\r]+|`\n|\#[^\n]*)
    |(?P<end>[;\n])
    |(?P<pipe>\|)
    |(?P<comma>,[ \t]*)
    |(?P<double>"(?:[^"`]|`.|"")*")
    |(?P<single>'(?:[^']|'')*')
    |(?P<hash>@\{[^}\n]*\})
    |(?P<block>\{[^}\n]*\})
    |(?P<parameter>-[A-Za-z][A-Za-z0-9]*:?)
    |(?P<constant>\$(?:true|false|null)\b)
    |(?P<word>[^\s;|,"'{}()$@`\#][^\s;|,"'{}()`]*)""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_CONSTANTS: Final = {"$true": True, "$false": False, "$null": None}
_UNIT: Final = re.compile(r"\d+[KMGT]B", re.IGNORECASE)


@dataclass(slots=True)
class Command:
    """One command of a pipeline."""

    name: str
    named: dict[str, Any] = field(default_factory=dict)
    positional: list[Any] = field(default_factory=list)


def _fail(text: str, at: int, what: str) -> Malformed:
    line = text.count("\n", 0, at) + 1
    column = at - text.rfind("\n", 0, at)
    return Malformed(f"line {line}, column {column}: {what}")


def _tokens(text: str) -> list[tuple[str, str, int]]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            what = {"(": "sub-expressions '('", "$": "variables '$'", "{": "an open '{'"}.get(text[at], repr(text[at]))
            if text[at] in "\"'":
                raise _fail(text, at, "the quote is not closed")
            raise _fail(text, at, f"{what} is not supported by this shell yet")
        kind = match.lastgroup or ""
        if kind != "blank":
            found.append((kind, match[0], at))
        at = match.end()
    return found


def _change(body: str, text: str, at: int) -> ListChange:
    """@{Add="a","b"; Remove="c"}."""
    lists: dict[str, tuple[str, ...]] = {"add": (), "remove": ()}
    for part in body.split(";"):
        if not part.strip():
            continue
        key, equals, rest = part.partition("=")
        if not equals or key.strip().lower() not in lists:
            raise _fail(text, at, 'expected @{Add="a","b"; Remove="c"}')
        lists[key.strip().lower()] = tuple(w.strip().strip("\"'") for w in rest.split(",") if w.strip())
    return ListChange(None, lists["add"], lists["remove"])


def _value(kind: str, token: str, text: str, at: int) -> Any:
    if kind == "double":
        return re.sub(r'`(.)|""', lambda m: m[1] or '"', token[1:-1])
    if kind == "single":
        return token[1:-1].replace("''", "'")
    if kind == "constant":
        return _CONSTANTS[token.lower()]
    if kind == "hash":
        return _change(token[2:-1], text, at)
    if kind == "block":
        return token[1:-1].strip()
    return token


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = _tokens(text)
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else "end"

    def pipelines(self) -> list[list[Command]]:
        """All pipelines of the text."""
        found = []
        while self.at < len(self.tokens):
            if self.peek() == "end":
                self.at += 1
                continue
            found.append(self.pipeline())
        return found

    def pipeline(self) -> list[Command]:
        commands = [self.command()]
        while self.peek() == "pipe":
            self.at += 1
            commands.append(self.command())
        return commands

    def command(self) -> Command:
        kind, token, at = self.tokens[self.at] if self.at < len(self.tokens) else ("", "", len(self.text))
        if kind != "word":
            raise _fail(self.text, at, "expected a command")
        self.at += 1
        command = Command(token)
        while self.peek() not in ("end", "pipe"):
            kind, token, at = self.tokens[self.at]
            if kind == "parameter":
                self.at += 1
                attached = token.endswith(":")
                if self.peek() in ("end", "pipe", "parameter") and not attached:
                    command.named[token[1:]] = True
                else:
                    command.named[token[1:].rstrip(":")] = self.values()
            else:
                command.positional.append(self.values())
        return command

    def values(self) -> Any:
        """A value, or a comma list."""
        items = [self.one()]
        while self.peek() == "comma":
            self.at += 1
            items.append(self.one())
        return items if len(items) > 1 else items[0]

    def one(self) -> Any:
        kind, token, at = self.tokens[self.at] if self.at < len(self.tokens) else ("", "", len(self.text))
        if kind in ("", "end", "pipe", "comma"):
            raise _fail(self.text, at, "expected a value")
        self.at += 1
        return _value(kind, token, self.text, at)


def parse(text: str) -> list[list[Command]]:
    """Pipelines, in order; `Malformed` points at line and column."""
    return _Parser(text).pipelines()
