"""Text of the shell language to its tree; every failure is a `SyntaxFault` with line and column.

What PowerShell has and this language has not is refused by its name (`_NAMED`), as soon as the lexer meets it.
`Unfinished` is the fault of a text that may still be continued: an open quote, bracket, or a pipe at the end.
"""

from __future__ import annotations

import hashlib
import io
import re
import sys
from collections.abc import Callable
from typing import Any, Final

import lark
from lark import Lark, Token
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken, VisitError

from letterlock.base.errors import Malformed
from letterlock.language.build import Build
from letterlock.language.grammar import COMPARISONS, DOUBLE, GRAMMAR, QUOTED, SINGLE
from letterlock.language.tree import Node, Place

MAX_TEXT: Final = 4 << 20  # characters of one script
MAX_NESTING: Final = 40  # brackets within brackets; a person needs five


class SyntaxFault(Malformed):
    """A text that is not of the language."""

    def __init__(self, place: Place, what: str) -> None:
        super().__init__(f"{place}: {what}")
        self.place = place


class Unfinished(SyntaxFault):
    """What is there is right, and something is missing at its end."""


_NAMED: Final[dict[str, str]] = {
    "NO_KEYWORD": "the statement '{}' is not supported by this shell; it has commands, pipes and variables",
    "NO_CALL": "'{}', which runs a program, a script or a block, is not supported by this shell",
    "NO_LABEL": "labels such as '{}' are not supported by this shell",
    "NO_TYPE": ".NET types such as {} are not supported by this shell",
    "NO_SPLAT": "splatting ({}) is not supported by this shell; write the parameters out",
    "NO_HERE_STRING": "here-strings ({}) are not supported by this shell; quotes may span lines",
    "NO_SCOPE": "variables of a scope, a drive or the system such as {} are not supported by this shell",
    "NO_METHOD": "methods such as {}) are not supported by this shell",
    "NO_STATIC": "static members such as {} are not supported by this shell",
    "NO_ASSIGNMENT": "'{}' is not supported by this shell; write $name = $name + …",
    "NO_OPERATOR": "the operator {} is not supported by this shell; it has " + " ".join(f"-{c}" for c in COMPARISONS),
    "NO_REDIRECTION": "redirection ('{}') is not supported by this shell; pipe to Out-File or Export-Csv",
    "NO_CHAIN": "'{}' is not supported by this shell; separate commands with ;",
}


def _refuser(text: str) -> Callable[[Token], Token]:
    def refuse(token: Token) -> Token:
        raise _Named(token, text.format(token))

    return refuse


class _Named(Exception):
    """Raised inside the lexer."""

    def __init__(self, token: Token, text: str) -> None:
        super().__init__(text)
        self.at, self.text = int(token.start_pos or 0), text


_CALLBACKS: Final = {name: _refuser(text) for name, text in _NAMED.items()}
_ready: list[Lark] = []  # the parser, once it is made or loaded


def _built() -> Lark:
    return Lark(
        GRAMMAR,
        parser="lalr",
        lexer="contextual",
        start=["start", "filter"],
        propagate_positions=True,
        maybe_placeholders=False,
    )


def fingerprint() -> str:
    """What the parser's tables depend on."""
    made_from = f"{lark.__version__} {sys.version} {GRAMMAR}"
    return hashlib.sha256(made_from.encode()).hexdigest()[:32]


def tables() -> bytes:
    """The parser's tables, for `load` in another process."""
    data = io.BytesIO()
    _built().save(data)
    return data.getvalue()


def load(data: bytes) -> bool:
    """Take the tables that `tables` gave. Only from a file that is trusted as our own code is."""
    try:
        parser = Lark.__new__(Lark)
        # lark keeps no callbacks in a file, and this is how its own cache gives them back
        parser._load(io.BytesIO(data), lexer_callbacks=_CALLBACKS)
    except Exception:
        return False
    _ready[:] = [parser]
    return True


def _lark() -> Lark:
    if not _ready:
        load(tables())
    return _ready[0]


class Source:
    """A whole text, of which parts are parsed: those inside of `"$( … )"` point into it as well."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_TEXT:
            raise Malformed(f"a script of more than {MAX_TEXT:,} characters is refused")
        self.text = text

    def fault(self, at: int, what: str, kind: type[SyntaxFault] = SyntaxFault) -> SyntaxFault:
        """A failure at offset `at`."""
        return kind(Place.of(self.text, at), what)

    def parse(self, start: str, begin: int, end: int, depth: int = 0) -> Any:
        """The tree of `text[begin:end]`."""
        if depth > MAX_NESTING:
            raise self.fault(begin, "this is nested too deeply")
        part = self.text[begin:end]
        try:
            tree = _lark().parse(part, start=start)
            return Build(self, begin, depth).transform(tree)
        except _Named as error:
            raise self.fault(begin + error.at, error.text) from None
        except VisitError as error:
            if isinstance(error.orig_exc, Malformed):
                raise error.orig_exc from None
            raise
        except UnexpectedInput as error:
            raise self._unexpected(error, part, begin) from None

    def _unexpected(self, error: UnexpectedInput, part: str, begin: int) -> SyntaxFault:
        found = getattr(error, "token", None)
        at = getattr(error, "pos_in_stream", None)
        if isinstance(found, Token):
            at = found.start_pos if found.type != "$END" else None
        if at is None or at >= len(part):
            opened = _open_bracket(part)
            if opened is not None:
                what = f"the '{part[opened]}' here is not closed"
                return self.fault(begin + opened, what, Unfinished)
            return self.fault(begin + len(part.rstrip()), "something is missing at the end", Unfinished)
        blank = re.compile(r"\s*").match(part, at)
        at = blank.end() if blank is not None and blank.end() < len(part) else at
        what, unfinished = _explained(part, at, error)
        return self.fault(begin + at, what, Unfinished if unfinished else SyntaxFault)


def _open_bracket(text: str) -> int | None:
    """Where the innermost bracket that is never closed stands."""
    stack = []
    skip = re.compile(rf"{QUOTED}|[{SINGLE}][^{SINGLE}]*[{SINGLE}]|(?<!\S)#[^\n]*|`.", re.DOTALL)
    at = 0
    while at < len(text):
        match = skip.match(text, at)
        if match:
            at = match.end()
            continue
        if text[at] in "({[":
            stack.append(at)
        elif text[at] in ")}]" and stack:
            stack.pop()
        at += 1
    return stack[-1] if stack else None


def _explained(text: str, at: int, error: UnexpectedInput) -> tuple[str, bool]:
    """What is wrong at `at`, and whether more text may mend it."""
    character = text[at]
    if character in DOUBLE + SINGLE and isinstance(error, UnexpectedCharacters):
        return "the quote is not closed", True
    word = re.compile(r"[^\s;|,(){}]*").match(text, at)
    shown = (word[0] if word else "") or character
    if re.search(rf"[{DOUBLE}{SINGLE}]", shown[1:]):
        return f"{shown}: put quotes around the whole value", False
    expected = {str(e) for e in getattr(error, "accepts", None) or getattr(error, "allowed", None) or ()}
    if isinstance(error, UnexpectedToken):
        expected = {str(e) for e in error.expected}
    shown = "the end of the line" if character in "\r\n" else f"'{shown[:40]}'"
    return f"{_wanted(expected)}, not {shown}", False


_CLOSING: Final = (("_CLOSE", "')'"), ("_CLOSE_BLOCK", "'}'"), ("_CLOSE_INDEX", "']'"))


def _wanted(expected: set[str]) -> str:
    """What could stand here, in words."""
    if "_EQUAL" in expected and len(expected) < 4:
        return "expected ="
    if {"KEY"} <= expected:
        return "expected a name, as in @{Add=…; Remove=…}"
    if "PROPERTY" in expected:
        return "expected a property, as in PopEnabled -eq $true"
    if "NAME" in expected:
        return "expected a command"
    if expected & {"WORD", "NUMBER", "VARIABLE", "BARE"}:
        return "expected a value"
    if "COMPARISON" in expected:
        return "expected an operator such as -eq, or the end of the command"
    closing = [shown for name, shown in _CLOSING if name in expected]
    return f"expected {closing[0]}" if closing else "the command should have ended here"


# --- what others call


def parse(text: str) -> tuple[Node, ...]:
    """Statements, in order."""
    found: tuple[Node, ...] = Source(text).parse("start", 0, len(text))
    return found


def parse_filter(text: str) -> Node:
    """The expression of a -Filter: `PopEnabled -eq $true -and Name -like 'a*'`."""
    found: Node = Source(text).parse("filter", 0, len(text))
    return found


def unfinished(text: str) -> bool:
    """Whether more lines are needed."""
    try:
        parse(text)
    except Unfinished:
        return True
    except Malformed:
        return False
    return False
