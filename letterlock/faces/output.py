"""Objects on the terminal: tables and lists in Exchange's layout, JSON, CSV. Control characters never get through.

Without a width (no terminal) nothing is wrapped or cut, so that a script finds every value whole. On a terminal a
list's long values go on below themselves, and a table's columns are cut from the right, with `...`.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any, Final

from letterlock.language.tree import ScriptBlock
from letterlock.language.values import Measured, Record, to_text

Item = dict[str, Any]  # what Row.wire() makes: properties, shown, columns
FEW: Final = 4  # as many properties of several selected objects make a table, more a list
NARROWEST: Final = 5  # columns; less is not cut


class Formatted:
    """Text that Format-List or Format-Table has made; it can only be written out."""

    def __init__(self, text: str) -> None:
        self.text = text


class Selected(Record):
    """What Select-Object makes: how it is shown depends on how many there are."""

    __slots__ = ()


def clean(text: str) -> str:
    """Terminal escapes and other control characters made visible."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


# --- lists


def _wrapped(text: str, room: int) -> list[str]:
    """Lines of at most `room` characters, broken at blanks where there are some."""
    lines = []
    while len(text) > room:
        cut = text.rfind(" ", room // 2, room + 1)
        at = cut if cut > 0 else room
        lines.append(text[:at].rstrip())
        text = text[at:].lstrip() if cut > 0 else text[at:]
    return [*lines, text]


def as_list(records: Sequence[Record], width: int | None = None) -> str:
    """`Name : value` lines, a blank line between objects."""
    blocks = []
    for record in records:
        label = max((len(n) for n in record.shown), default=0)
        lines = []
        for name, value in record.shown.items():
            text = clean(value)
            room = width - label - 4 if width else 0
            parts = _wrapped(text, room) if room >= 10 else [text]
            lines.append(f"{clean(name):<{label}} : {parts[0]}".rstrip())
            lines += [" " * (label + 3) + part for part in parts[1:]]
        blocks.append("\n".join(lines))
    return "\n" + "\n\n".join(blocks) + "\n\n" if blocks else ""


# --- tables

# Exchange's own views give these columns a width
_LEAST: Final[dict[tuple[str, ...], tuple[int, ...]]] = {
    ("Status", "Name"): (8, 18, 11),
    ("CasServer", "LocalSite"): (10, 10, 24, 8, 11),
}


def _numeric(records: Sequence[Record], column: str) -> bool:
    """Numbers that are shown as such stand at the right."""
    values = [r.get(column) for r in records]
    return all(isinstance(v, int | float) and not isinstance(v, bool | Measured) for v in values)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 3, 0)] + "..."[:width]


def _fitted(widths: list[int], columns: Sequence[str], width: int | None) -> list[int]:
    """Widths that fit the terminal: the widest are cut first, then columns at the right are left out."""
    if not width:
        return widths
    widths = list(widths)
    while sum(widths) + len(widths) - 1 >= width:
        widest = max(range(len(widths)), key=lambda i: (widths[i], i))
        if widths[widest] <= max(NARROWEST, min(12, len(columns[widest]))):
            if len(widths) == 1:
                break
            widths.pop()
            continue
        over = sum(widths) + len(widths) - width
        others = sorted(widths)[-2] if len(widths) > 1 else NARROWEST
        widths[widest] = max(widths[widest] - over, min(others, widths[widest] - 1), NARROWEST)
    return widths


def as_table(
    records: Sequence[Record], columns: Sequence[str], width: int | None = None, wrap: bool = False, head: bool = True
) -> str:
    """Header, dashes, rows; each column as wide as its widest value."""
    rows = [[clean(r.shown.get(r.name(c) or c, "")) for c in columns] for r in records]
    widths = [max([len(c), *(len(r[i]) for r in rows)]) for i, c in enumerate(columns)]
    least = _LEAST.get(tuple(columns[:2]), ())
    right = [not least and _numeric(records, c) for c in columns]
    widths = [max(w, low) for w, low in zip_longest(widths, least[: len(widths)], fillvalue=0)]
    for at in [i for i, column in enumerate(columns) if column == "Latency(MS)"]:
        for row in rows:
            row[at] = f"{row[at]:>9}"  # numbers stand at the right, as Exchange shows them
    widths = _fitted(widths, columns, width)
    lines = [list(columns), ["-" * len(c) for c in columns]] if head else []
    for row in rows:
        lines += _table_row(row, widths, wrap)
    text = "\n".join(
        " ".join(
            f"{_cut(v, w):>{w}}" if r else f"{_cut(v, w):<{w}}" for v, w, r in zip(line, widths, right, strict=False)
        ).rstrip()
        for line in lines
    )
    return f"\n{text}\n\n"


def _table_row(row: list[str], widths: list[int], wrap: bool) -> list[list[str]]:
    """One line, or with `wrap` as many as its longest value needs."""
    if not wrap:
        return [row]
    cells = [_wrapped(value, w) for value, w in zip(row, widths, strict=False)]
    return [list(line) for line in zip_longest(*cells, fillvalue="")]


# --- the default layout


def _layout(value: Any) -> tuple[Any, ...]:
    """Values with the same key are shown together."""
    if isinstance(value, Selected):
        return ("selected", tuple(n.lower() for n in value.properties))
    if isinstance(value, Record):
        return ("record", value.columns, () if value.columns else tuple(value.properties))
    return ("text",)


def default(values: Iterable[Any], width: int | None = None) -> str:
    """Each run of like objects in its own default layout; texts and numbers a line each."""
    found = []
    for key, group in itertools.groupby(values, _layout):
        run = list(group)
        if key[0] == "text":
            found += [v.text if isinstance(v, Formatted) else _line(v) for v in run]
        elif key[0] == "selected":
            table = len(run) > 1 and len(key[1]) <= FEW
            found.append(as_table(run, list(run[0].properties), width) if table else as_list(run, width))
        else:
            found.append(_default_table(run, width) if run[0].columns else as_list(run, width))
    return "".join(found)


def _default_table(records: Sequence[Record], width: int | None) -> str:
    if any(r.cells for r in records):
        records = [Record(r.properties, {**r.shown, **r.cells}, r.columns) for r in records]
    return as_table(records, records[0].columns, width)


def _line(value: Any) -> str:
    if isinstance(value, list):
        return default(value)
    if isinstance(value, dict):
        return as_table([Record({"Name": k, "Value": v}) for k, v in value.items()], ("Name", "Value"))
    return "".join(f"{clean(line)}\n" for line in to_text(value).split("\n"))


# --- what programs read


def plain(value: Any) -> Any:
    """A value for JSON; never a secret."""
    if isinstance(value, Record):
        return {name: plain(v) for name, v in value.properties.items()}
    if isinstance(value, dict):
        return {str(name): plain(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, bool | float) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    return value.text if isinstance(value, ScriptBlock | Formatted) else str(value)


def as_csv(values: Iterable[Any], delimiter: str = ",", quoted: bool = False, head: bool = True) -> str:
    """A header and a line for each object; the columns are those of the first."""
    out = io.StringIO()
    records = [v if isinstance(v, Record) else Record({"Value": v}) for v in values]
    if records:
        names = list(records[0].properties)
        if quoted:
            writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
        else:
            writer = csv.writer(out, delimiter=delimiter)
        if head:
            writer.writerow([clean(n) for n in names])
        writer.writerows([_defused(clean(r.shown.get(r.name(n) or "", ""))) for n in names] for r in records)
    return out.getvalue()


def _defused(text: str) -> str:
    """A field that a spreadsheet would take for a formula begins with an apostrophe."""
    return "'" + text if text[:1] in "=+-@" and len(text) > 1 else text


def render(items: Sequence[Item], form: str, width: int | None = None) -> str:
    """`table`, `list`, `json` or `csv`; empty: the default layout."""
    records = [Record.of(item) for item in items]
    if form == "json":
        return json.dumps([plain(r) for r in records], indent=2, ensure_ascii=False) + "\n"
    if form == "list":
        return as_list(records, width)
    if form == "table":
        return as_table(records, records[0].columns or list(records[0].properties), width) if records else ""
    if form == "csv":
        return as_csv(records)
    return default(records, width)
