"""Objects on the terminal: tables and lists in Exchange's layout, JSON, CSV. Control characters never get through."""

from __future__ import annotations

import csv
import fnmatch
import io
import json
from itertools import zip_longest
from typing import Any

Item = dict[str, Any]  # what Row.wire() makes: properties, shown, columns


def clean(text: str) -> str:
    """Terminal escapes and other control characters made visible."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def select(item: Item, patterns: list[str]) -> Item:
    """The properties that match, in the order asked for; an unknown plain name is empty, as in PowerShell."""
    names: list[str] = []
    for pattern in patterns:
        found = [n for n in item["properties"] if fnmatch.fnmatchcase(n.lower(), pattern.lower())]
        if not found and "*" not in pattern:
            found = [pattern]
        names += [n for n in found if n not in names]
    return {
        "properties": {n: item["properties"].get(n) for n in names},
        "shown": {n: item["shown"].get(n, "") for n in names},
        "columns": names if len(names) > 4 else [],
    }


def as_list(items: list[Item]) -> str:
    """`Name : value` lines, a blank line between objects."""
    blocks = []
    for item in items:
        width = max((len(n) for n in item["shown"]), default=0)
        blocks.append("\n".join(f"{n:<{width}} : {clean(v)}".rstrip() for n, v in item["shown"].items()))
    return "\n" + "\n\n".join(blocks) + "\n\n" if blocks else ""


# Exchange's own views give these columns a width
_LEAST: dict[tuple[str, ...], tuple[int, ...]] = {
    ("Status", "Name"): (8, 18, 11),
    ("CasServer", "LocalSite"): (10, 10, 24, 8, 11),
}


def as_table(items: list[Item], columns: list[str]) -> str:
    """Header, dashes, rows; each column as wide as its widest value."""
    rows = [[clean(item["shown"].get(c, "")) for c in columns] for item in items]
    widths = [max([len(c), *(len(r[i]) for r in rows)]) for i, c in enumerate(columns)]
    least = _LEAST.get(tuple(columns[:2]), ())
    widths = [max(w, low) for w, low in zip_longest(widths, least[: len(widths)], fillvalue=0)]
    for at in [i for i, column in enumerate(columns) if column == "Latency(MS)"]:
        for row in rows:
            row[at] = f"{row[at]:>9}"  # numbers stand at the right, as Exchange shows them
    lines = [columns, ["-" * len(c) for c in columns], *rows]
    text = "\n".join(" ".join(f"{v:<{w}}" for v, w in zip(line, widths, strict=True)).rstrip() for line in lines)
    return f"\n{text}\n\n"


def default(items: list[Item]) -> str:
    """Each run of like objects in its own default layout."""
    if not items:
        return ""
    columns = items[0]["columns"]
    if not columns:
        return as_list(items)
    return as_table([{**i, "shown": {**i["shown"], **i.get("cells", {})}} for i in items], columns)


def render(items: list[Item], form: str) -> str:
    """`table`, `list`, `json` or `csv`; empty: the default layout."""
    if form == "json":
        return json.dumps([i["properties"] for i in items], indent=2, ensure_ascii=False) + "\n"
    if form == "list":
        return as_list(items)
    if form == "table":
        return as_table(items, items[0]["columns"] or list(items[0]["shown"])) if items else ""
    if form == "csv":
        out = io.StringIO()
        if items:
            writer = csv.writer(out)
            writer.writerow(items[0]["shown"])
            writer.writerows([_defused(clean(v)) for v in i["shown"].values()] for i in items)
        return out.getvalue()
    return default(items)


def _defused(text: str) -> str:
    """A field that a spreadsheet would take for a formula begins with an apostrophe."""
    return "'" + text if text[:1] in "=+-@" and len(text) > 1 else text
