"""Commands of the shell that choose, order, group and measure the objects that go through a pipeline.

Each gets the shell, everything that was piped to it, and its parameters; it answers what goes on.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from letterlock.base.errors import Malformed
from letterlock.faces.output import Selected
from letterlock.language import operators
from letterlock.language.evaluate import member
from letterlock.language.grammar import COMPARISONS
from letterlock.language.tree import ScriptBlock
from letterlock.language.values import Record, show, to_number, to_text, truth


class Shell(Protocol):
    """What a stage may ask of the shell."""

    @property
    def width(self) -> int | None: ...

    async def block(self, block: ScriptBlock, item: Any) -> list[Any]: ...
    def write(self, text: str) -> None: ...
    async def ask(self, question: str) -> str: ...
    async def secret(self, question: str) -> str: ...
    def help(self, name: str) -> str: ...


# --- properties, as Select, Sort, Group and Format name them


@dataclass(frozen=True, slots=True)
class Wanted:
    """One property of a list such as `Name, *Bindings, @{Name='Size'; Expression={…}}`."""

    label: str
    pattern: bool = False
    block: ScriptBlock | None = None
    descending: bool | None = None


_KEYS: Final = ("name", "label", "expression", "descending", "ascending", "width", "alignment", "formatstring")


def wanted_ones(command: str, values: Iterable[Any]) -> list[Wanted]:
    found = []
    for value in values:
        if isinstance(value, ScriptBlock):
            found.append(Wanted(value.text, block=value))
        elif isinstance(value, dict):
            found.append(_calculated(command, value))
        else:
            text = to_text(value)
            found.append(Wanted(text, any(c in text for c in "*?[")))
    return found


def _calculated(command: str, table: dict[str, Any]) -> Wanted:
    """@{Name='…'; Expression={…}}, in PowerShell's short forms as well."""
    rows: dict[str, Any] = {}
    for key, value in table.items():
        full = [k for k in _KEYS if k.startswith(key.lower())] if key else []
        if len(full) != 1:
            raise Malformed(f"{command}: there is no {key} in @{{Name='…'; Expression={{…}}; Descending=$true}}")
        rows[full[0]] = value
    expression = rows.get("expression")
    if expression is None:
        raise Malformed(f"{command}: @{{…}} needs an Expression")
    block = expression if isinstance(expression, ScriptBlock) else None
    label = to_text(rows.get("name", rows.get("label", to_text(expression))))
    descending = truth(rows["descending"]) if "descending" in rows else None
    descending = not truth(rows["ascending"]) if "ascending" in rows else descending
    if block is None:
        return Wanted(to_text(expression), descending=descending)
    return Wanted(label, block=block, descending=descending)


async def _value(shell: Shell, item: Any, wanted: Wanted) -> Any:
    if wanted.block is None:
        return member(item, wanted.label)
    found = await shell.block(wanted.block, item)
    return found[0] if len(found) == 1 else found or None


async def chosen(shell: Shell, item: Any, wanted: Sequence[Wanted], kind: type[Record] = Record) -> Record:
    """The properties that match, in the order asked for; an unknown plain name is empty, as in PowerShell."""
    names = list(item.properties) if isinstance(item, Record) else []
    properties: dict[str, Any] = {}
    shown: dict[str, str] = {}
    for each in wanted:
        if each.block is not None or not isinstance(item, Record):
            value = await _value(shell, item, each)
            properties.setdefault(each.label, value)
            shown.setdefault(each.label, show(value))
            continue
        pattern = operators.wildcard(each.label)
        found = [n for n in names if pattern.match(n)] or ([] if each.pattern else [each.label])
        for name in found:
            properties.setdefault(name, item.properties.get(name))
            shown.setdefault(name, item.shown.get(name, ""))
    return kind(properties, shown)


# --- choosing


async def select(shell: Shell, items: list[Any], p: dict[str, Any]) -> list[Any]:
    """Select-Object."""
    first, last, skip = (p.get(n) for n in ("First", "Last", "Skip"))
    if last is not None and first is None:
        items = items[: len(items) - skip] if skip else items
        items = items[len(items) - last :] if last < len(items) else items
    else:
        items = items[skip or 0 :]
        items = items[:first] if first is not None else items
        items = items if last is None else items[max(len(items) - last, 0) :]
    found: list[Any] = items
    if "ExpandProperty" in p:
        found = []
        for item in items:
            found += await _expanded(shell, item, p["ExpandProperty"])
    elif "Property" in p or "ExcludeProperty" in p:
        wanted = wanted_ones("Select-Object", p.get("Property", ["*"]))
        found = [await chosen(shell, item, wanted, Selected) for item in items]
        hidden = [operators.wildcard(to_text(x)) for x in p.get("ExcludeProperty", [])]
        found = [_without(record, hidden) if hidden else record for record in found]
    return _unique(found) if p.get("Unique") else found


def _without(record: Record, hidden: list[Any]) -> Record:
    names = [n for n in record.properties if not any(h.match(n) for h in hidden)]
    return Selected({n: record.properties[n] for n in names}, record.shown)


async def _expanded(shell: Shell, item: Any, name: Any) -> list[Any]:
    wanted = wanted_ones("Select-Object", [name])[0]
    if isinstance(item, Record) and wanted.block is None and item.name(wanted.label) is None:
        raise Malformed(f"Select-Object: ExpandProperty: there is no property '{wanted.label}'")
    value = await _value(shell, item, wanted)
    return value if isinstance(value, list) else [] if value is None else [value]


def _unique(items: list[Any]) -> list[Any]:
    seen, found = set(), []
    for item in items:
        key = tuple(item.shown.items()) if isinstance(item, Record) else to_text(item).casefold()
        if key not in seen:
            seen.add(key)
            found.append(item)
    return found


async def where(shell: Shell, items: list[Any], p: dict[str, Any]) -> list[Any]:
    """Where-Object."""
    block = p.get("FilterScript", p.get("Property"))
    if block is None:
        raise Malformed("Where-Object: a condition is needed: { $_.Name -like 'a*' }, or Name -like 'a*'")
    chosen = [name for name in (*COMPARISONS, *(f"c{n}" for n in COMPARISONS)) if p.get(name.upper())]
    if isinstance(block, ScriptBlock):
        if chosen or "Value" in p:
            raise Malformed("Where-Object: a script block is the whole condition; put the operator inside it")
        return [item for item in items if truth(await shell.block(block, item))]
    if len(chosen) > 1:
        raise Malformed(f"Where-Object: -{chosen[1]} is one operator too many; use {{ $_.Name … -and … }}")
    if not chosen and "Value" in p:
        raise Malformed(f"Where-Object: an operator such as -eq is missing before '{to_text(p['Value'])}'")
    if chosen and "Value" not in p:
        raise Malformed(f"Where-Object: -{chosen[0]} needs a value")
    name = to_text(block)
    if chosen:
        return [item for item in items if truth(operators.compare(chosen[0], member(item, name), p["Value"]))]
    return [item for item in items if truth(member(item, name)) is not bool(p.get("Not"))]


async def sort(shell: Shell, items: list[Any], p: dict[str, Any]) -> list[Any]:
    """Sort-Object."""
    wanted = wanted_ones("Sort-Object", p.get("Property", []))
    keyed = []
    for item in items:
        keys = [await _value(shell, item, w) for w in wanted]
        keyed.append((keys or [item.identity if isinstance(item, Record) else item], item))
    downward = [bool(p.get("Descending")) if w.descending is None else w.descending for w in wanted]
    downward = downward or [bool(p.get("Descending"))]

    def compare(a: tuple[list[Any], Any], b: tuple[list[Any], Any]) -> int:
        for left, right, down in zip(a[0], b[0], downward, strict=True):
            found = operators.order(left, right)
            if found:
                return -found if down else found
        return 0

    keyed.sort(key=functools.cmp_to_key(compare))
    if p.get("Unique"):
        keyed = [k for i, k in enumerate(keyed) if not i or compare(keyed[i - 1], k)]
    return [item for _, item in keyed]


async def group(shell: Shell, items: list[Any], p: dict[str, Any]) -> list[Any]:
    """Group-Object."""
    wanted = wanted_ones("Group-Object", p.get("Property", []))
    groups: dict[str, list[Any]] = {}
    names: dict[str, str] = {}
    for item in items:
        values = [await _value(shell, item, w) for w in wanted] or [item]
        name = ", ".join(to_text(v) for v in values)
        names.setdefault(name.casefold(), name)
        groups.setdefault(name.casefold(), []).append(item)
    found = []
    for key in sorted(groups):
        properties: dict[str, Any] = {"Count": len(groups[key]), "Name": names[key]}
        if not p.get("NoElement"):
            properties["Group"] = groups[key]
        few = show(groups[key][:4])
        shown = {"Group": few if len(groups[key]) < 5 else few[:-1] + ", ...}"}
        found.append(Record(properties, shown, list(properties)))
    return found


async def measure(_shell: Shell, items: list[Any], p: dict[str, Any]) -> list[Any]:
    """Measure-Object."""
    found = []
    for name in p.get("Property", [""]):
        values = [member(i, to_text(name)) if name else i for i in items]
        values = [v for v in values if v is not None]
        numbers = [to_number(v) for v in values]
        wants = any(p.get(n) for n in ("Sum", "Average"))
        if wants and None in numbers:
            raise Malformed(f"Measure-Object: '{to_text(values[numbers.index(None)])}' is not a number")
        known = [n for n in numbers if n is not None]
        total = sum(known) if wants else None
        ordered = sorted(values, key=functools.cmp_to_key(operators.order))
        properties = {
            "Count": len(values),
            "Average": total / len(known) if p.get("Average") and known and total is not None else None,
            "Sum": total if p.get("Sum") else None,
            "Maximum": ordered[-1] if p.get("Maximum") and ordered else None,
            "Minimum": ordered[0] if p.get("Minimum") and ordered else None,
            "Property": to_text(name) or None,
        }
        found.append(Record(properties))
    return found


async def foreach(shell: Shell, items: list[Any], p: dict[str, Any]) -> list[Any]:
    """ForEach-Object."""
    what = p.get("Process", p.get("MemberName"))
    if what is None:
        raise Malformed("ForEach-Object: a script block is needed: { $_.Name }")
    found = await shell.block(p["Begin"], None) if isinstance(p.get("Begin"), ScriptBlock) else []
    for item in items:
        if isinstance(what, ScriptBlock):
            found += await shell.block(what, item)
        else:
            value = member(item, to_text(what))
            found += value if isinstance(value, list) else [] if value is None else [value]
    return found + (await shell.block(p["End"], None) if isinstance(p.get("End"), ScriptBlock) else [])
