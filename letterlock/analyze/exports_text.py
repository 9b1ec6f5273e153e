"""What people paste: the output of Format-List and Format-Table, with everything that a forum does to it.

Indented, quoted with `>`, in code fences, with bullets, with blank lines between all lines or with none between
objects, wrapped in the middle of a value, cut short, with prompts, commands and sentences around it. Rules:

1. A line is a property when it is `Name : value` and the name is one that some cmdlet prints, or stands as those do
   (a blank before the colon, as Format-List pads names).
2. A line that is none continues the value before it while that value's brace is open, or where the line is indented
   deeper than the property's name; else it is prose and ends nothing.
3. An object ends where a name comes again, where a command or a table begins, or where a name comes that no cmdlet
   prints together with the ones before.
4. A line of dashes below a header is a table; its columns are cut where the dashes begin, or at the blanks where a
   paste has collapsed them.
"""

from __future__ import annotations

import re
from typing import Final

from letterlock.analyze.exports_kinds import KNOWN, Raw, kinds_with

MAX_CONTINUED: Final = 30  # lines of one value
_QUOTE: Final = re.compile(r"\s*(?:[>|]\s?)+(?=\s*\S)|\s*(?:[*•]|-(?=\s))\s+(?=\w+\s*:)")
_PROPERTY: Final = re.compile(r"(\s*)([A-Za-z][A-Za-z0-9_]{1,63})(\s*):(?:\s(.*)|)\Z", re.S)
_DASHES: Final = re.compile(r"\s*-{2,}(?:\s+-{2,})+\s*\Z")
_COMMAND: Final = re.compile(r"\b(Get-[A-Za-z0-9]+)\b")
_SERVER: Final = re.compile(
    r"-(?:Server|ComputerName)[\s:]+[\"']?([\w.-]+)"
    r"|Get-ServerComponentState\s+(?:-Identity\s+)?[\"']?([\w.-]+)",
    re.I,
)
_BLANKS: Final = str.maketrans({"\u00a0": " ", "\u2007": " ", "\u202f": " ", "\t": "    ", "\u200b": "", "\ufeff": ""})


class _Pasted:
    """The objects of one text as they are found."""

    def __init__(self) -> None:
        self.found: list[Raw] = []
        self.hint = self.server = ""
        self._properties: dict[str, tuple[str, int]] = {}
        self._lower: set[str] = set()
        self._last = ""  # the property that a line may continue
        self._indent = self._continued = 0

    def end(self) -> None:
        """The object is complete."""
        if self._properties:
            self.found.append(Raw(dict(self._properties), self.hint, self.server))
        self._properties, self._lower, self._last = {}, set(), ""

    def command(self, line: str, name: str) -> None:
        """A command line: what follows is its output."""
        self.end()
        self.hint = name
        server = _SERVER.search(line)
        self.server = (server[1] or server[2]) if server else ""

    def add(self, indent: int, name: str, value: str, number: int) -> None:
        """One property."""
        lower = name.lower()
        if lower in self._lower or (lower in KNOWN and self._lower and not kinds_with(self._lower | {lower})):
            self.end()
        self._properties[name] = (value.strip(), number)
        self._lower.add(lower)
        self._last, self._indent, self._continued = name, indent, 0

    @property
    def open(self) -> bool:
        """The value before has a brace that is not closed."""
        value = self._properties[self._last][0] if self._last else ""
        return value.startswith("{") and "}" not in value

    def more(self, line: str) -> None:
        """A line that is no property."""
        if not self._last or self._continued >= MAX_CONTINUED:
            return
        indent = len(line) - len(line.lstrip())
        value, number = self._properties[self._last]
        if self.open or (value and indent > self._indent + 3):
            self._continued += 1
            joined = value + ("" if self.open and not value.endswith((",", "{")) else " ") + line.strip()
            self._properties[self._last] = (joined, number)
        else:
            self._last = ""


def read(lines: list[str]) -> list[Raw]:
    """The objects of a text; never raises."""
    pasted = _Pasted()
    lines = [_bare(line) for line in lines]
    at = 0
    while at < len(lines):
        line = lines[at]
        below = lines[at + 1] if at + 1 < len(lines) else ""
        if line.strip() and not below.strip() and at + 2 < len(lines) and _DASHES.match(lines[at + 2]):
            below = lines[at + 2]  # there is a blank line between all lines
        if line.strip() and _DASHES.match(below) and not _DASHES.match(line):
            pasted.end()
            at = _table(pasted, lines, at)
            continue
        _line(pasted, line, at + 1)
        at += 1
    pasted.end()
    return pasted.found


def _bare(line: str) -> str:
    line = line.translate(_BLANKS).rstrip()
    quote = _QUOTE.match(line)
    return line[quote.end() :] if quote else line


def _line(pasted: _Pasted, line: str, number: int) -> None:
    if not line.strip() or line.strip().startswith("```"):
        return
    command = _COMMAND.search(line)
    match = _PROPERTY.match(line)
    known = match and match[2].lower() in KNOWN
    if command and not known:
        pasted.command(line, command[1])
    elif match and (known or match[3]) and not (pasted.open and not known):
        pasted.add(len(match[1]), match[2], match[4] or "", number)
    else:
        pasted.more(line)


def _table(pasted: _Pasted, lines: list[str], at: int) -> int:
    """The rows of a table whose header is at `at`; where it ends."""
    header = lines[at]
    dashes = at + 1 if _DASHES.match(lines[at + 1]) else at + 2
    double = dashes == at + 2
    starts = [m.start() for m in re.finditer(r"-{2,}", lines[dashes])]
    names = header.split()
    if len(names) != len(starts):
        return dashes + 1
    at = dashes + 1
    empty = 0
    while at < len(lines):
        line = lines[at]
        if not line.strip():
            empty += 1
            if empty > (1 if double else 0):
                break
            at += 1
            continue
        empty = 0
        if _COMMAND.search(line) or _PROPERTY.match(line):
            break
        cells = _cells(line, starts, lines[dashes])
        if cells is not None:
            pasted.found.append(
                Raw(
                    {n: (c.removesuffix("...").removesuffix("…"), at + 1) for n, c in zip(names, cells, strict=True)},
                    pasted.hint,
                    pasted.server,
                )
            )
        at += 1
    return at


def _cells(line: str, starts: list[int], dashes: str) -> list[str] | None:
    ends = [*starts[1:], len(line) + 1]
    at_borders = all(s == 0 or s > len(line) or line[s - 1] == " " for s in starts)
    if at_borders and dashes.count(" ") >= len(starts) - 1:
        found = [line[s:e].strip() for s, e in zip(starts, ends, strict=True)]
        if all(found[:2]):
            return found
    words = line.split(None, len(starts) - 1)
    return words if len(words) == len(starts) else None
