"""Exports for machines: ConvertTo-Json, Export-Csv, Export-Clixml. Objects out, texts as values, everything bounded.

JSON shows what PowerShell does to objects: enumerations as numbers, time spans and dates as objects, sizes as
`{"Value": …}`, bindings as `{"Address": …, "Port": …}`; `_text` turns each back into what Format-List would print.
CLIXML is read with expat and without any entity or document type: a file that has one is refused (entity bombs), and
nesting is bounded.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import Any, Final
from xml.parsers import expat

from letterlock.analyze.exports_kinds import Raw, Value, hinted

MAX_DEPTH: Final = 60
MAX_OBJECTS: Final = 500_000
MAX_CELL: Final = 1 << 20


class Unreadable(Exception):
    """The file is not what it seemed, from `line` on."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line, self.why = line, why


# --- JSON


def read_json(text: str) -> list[Raw]:
    """One object, a list, or lists by name; `Unreadable`."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise Unreadable(error.lineno, f"is not valid JSON: {error.msg}") from None
    except (ValueError, RecursionError):
        raise Unreadable(1, "is JSON that is nested too deeply or has a number that is too long") from None
    lines = _Lines(text)
    return [Raw(_properties(item, lines), hint) for item, hint in _objects(data, "", 0)]


class _Lines:
    """Line numbers of property names: the parser does not tell them, so the nth `"Name":` of the text is looked for."""

    def __init__(self, text: str) -> None:
        self._places: dict[str, list[int]] = {}
        line, at = 1, 0
        for match in re.finditer(r'"((?:[^"\\\n]|\\.){1,64})"\s*:', text):
            line += text.count("\n", at, match.start())
            at = match.start()
            self._places.setdefault(match[1], []).append(line)
        for places in self._places.values():
            places.reverse()

    def next(self, name: str) -> int:
        """The line of the next property of this name."""
        places = self._places.get(name)
        return places.pop() if places else 0


def _objects(data: Any, hint: str, depth: int) -> Iterator[tuple[dict[str, Any], str]]:
    if depth > MAX_DEPTH:
        return
    if isinstance(data, list):
        for item in data:
            yield from _objects(item, hint, depth + 1)
    elif isinstance(data, dict):
        inner = [
            (k, v)
            for k, v in data.items()
            if (isinstance(v, list) and any(isinstance(x, dict) for x in v) and (k.lower() == "value" or hinted(k)))
            or (isinstance(v, dict) and hinted(k) and len(v) > 2)
        ]
        if inner and not any(n.lower() in ("logintype", "thumbprint", "status") for n in data):
            for key, value in inner:
                yield from _objects(value, hint if key.lower() == "value" else key, depth + 1)
        else:
            yield data, hint


def _properties(item: dict[str, Any], lines: _Lines) -> dict[str, tuple[Value, int]]:
    return {str(name)[:128]: (_value(value), lines.next(str(name))) for name, value in item.items()}


def _value(value: Any) -> Value:
    if value is None:
        return ""
    if isinstance(value, bool | int):
        return value
    if isinstance(value, list):
        return tuple(_text(v) for v in value)
    return _text(value)


def _text(value: Any) -> str:
    """A nested value as Format-List prints it."""
    if isinstance(value, dict):
        lower = {str(k).lower(): v for k, v in value.items()}
        if lower.get("isunlimited") is True:
            return "unlimited"
        if "port" in lower and "address" in lower:
            address = lower["address"]
            address = str(lower.get("ipaddresstostring") or (address if isinstance(address, str) else ""))
            return f"[{address}]:{lower['port']}" if ":" in address else f"{address}:{lower['port']}"
        if "hostname" in lower and "port" in lower:
            kind = lower.get("encryptiontype")
            encryption = {0: "SSL", 1: "SSL", 2: "TLS"}.get(kind, "") if isinstance(kind, int) else str(kind or "")
            host = lower["hostname"]
            host = _text(host) if isinstance(host, dict) else str(host)
            return f"{host}:{lower['port']}" + (f":{encryption}" if encryption else "")
        if "totalseconds" in lower:
            return str(int(float(lower["totalseconds"])))
        for name in ("value", "datetime", "hostnamestring", "name", "domain", "address"):
            if name in lower and not isinstance(lower[name], dict | list):
                return _text(lower[name])
        return " ".join(_text(v) for v in list(value.values())[:4] if not isinstance(v, dict | list))
    if isinstance(value, list):
        return ", ".join(_text(v) for v in value[:20])
    return "" if value is None else str(value)


# --- CSV


def read_csv(text: str) -> list[Raw]:
    """A header and rows, separated by comma, semicolon or tab; `Unreadable`."""
    hint, skipped = "", 0
    if text.startswith("#TYPE"):
        hint, _, text = text.partition("\n")
        skipped = 1
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=False)
    found: list[Raw] = []
    csv.field_size_limit(MAX_CELL)
    try:
        names = [n.strip().strip("\ufeff") for n in next(reader, [])]
        before = reader.line_num
        for row in reader:
            number, before = before + 1 + skipped, reader.line_num
            if not any(row):
                continue
            if len(row) != len(names):
                raise Unreadable(number, f"has {len(row)} fields where the header has {len(names)}")
            found.append(Raw({n: (undone(v), number) for n, v in zip(names, row, strict=True) if n}, hint))
            if len(found) > MAX_OBJECTS:
                raise Unreadable(number, f"has more than {MAX_OBJECTS} objects")
    except csv.Error as error:
        raise Unreadable(reader.line_num + skipped, f"is not valid CSV: {error}") from None
    return found


def undone(cell: str) -> str:
    """Without the apostrophe that keeps a spreadsheet from computing it."""
    return cell[1:] if cell[:1] == "'" and cell[1:2] in ("=", "+", "-", "@") else cell


# --- CLIXML

_ESCAPED: Final = re.compile(r"_x([0-9A-Fa-f]{4})_")
_SPAN: Final = re.compile(r"-?P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:([\d.]+)S)?)?\Z")
_SIMPLE: Final = frozenset(
    (
        "S",
        "I32",
        "I64",
        "U32",
        "U64",
        "I16",
        "U16",
        "By",
        "SB",
        "B",
        "DT",
        "TS",
        "G",
        "URI",
        "Version",
        "C",
        "Db",
        "Sg",
        "D",
        "XD",
        "SS",
        "BA",
    )
)  # MS-PSRP §2.2.5.1
_LISTS: Final = ("LST", "QUE", "STK", "IE")


class _Node:
    """An object or list that is open."""

    __slots__ = ("items", "line", "name", "properties", "reference", "tag", "text", "types")

    def __init__(self, tag: str, name: str, reference: str, line: int) -> None:
        self.tag, self.name, self.reference, self.line = tag, name, reference, line
        self.properties: dict[str, tuple[Value, int]] = {}
        self.items: list[str] | None = None
        self.types: list[str] = []
        self.text = ""


class _Clixml:
    """Expat's handlers: objects of the top level become `Raw`, those inside become texts or lists."""

    def __init__(self) -> None:
        self.found: list[Raw] = []
        self._open: list[_Node] = []
        self._depth = 0
        self._texts: list[str] = []
        self._simple: tuple[str, str, int] | None = None  # tag, name, line
        self._types: dict[str, list[str]] = {}
        self._values: dict[str, Value] = {}
        self.parser = expat.ParserCreate(namespace_separator=" ")
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._texts.append
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.EntityDeclHandler = self._doctype

    def _doctype(self, *_: object) -> None:
        raise Unreadable(
            self.parser.CurrentLineNumber, "has a document type or entities; no export has one, so it is not read"
        )

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        tag, line = name.rpartition(" ")[2], self.parser.CurrentLineNumber
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable(line, "is nested too deeply")
        self._texts.clear()
        own = _plain(attributes.get("N", ""))
        if tag == "Obj":
            if len(self.found) >= MAX_OBJECTS:
                raise Unreadable(line, f"has more than {MAX_OBJECTS} objects")
            self._open.append(_Node(tag, own, attributes.get("RefId", ""), line))
        elif tag in _LISTS and self._open:
            self._open[-1].items = []
        elif tag == "TN" and self._open:
            self._types[attributes.get("RefId", "")] = self._open[-1].types
        elif tag == "TNRef" and self._open:
            self._open[-1].types = self._types.get(attributes.get("RefId", ""), [])
        elif tag == "Ref" and self._open:
            self._put(own, self._values.get(attributes.get("RefId", ""), ""), line)
        elif tag == "Nil":
            self._put(own, "", line)
        elif tag in _SIMPLE or tag in ("T", "ToString"):
            self._simple = (tag, own, line)

    def _end(self, name: str) -> None:
        tag = name.rpartition(" ")[2]
        self._depth -= 1
        text = "".join(self._texts)
        self._texts.clear()
        if tag == "Obj":
            self._close()
        elif tag == "T" and self._open:
            self._open[-1].types.append(text)
        elif tag == "ToString" and self._open:
            self._open[-1].text = _plain(text)
        elif self._simple and self._simple[0] == tag:
            self._put(self._simple[1], _simple(tag, _plain(text)), self._simple[2])
        self._simple = None

    def _put(self, name: str, value: Value, line: int) -> None:
        if not self._open:
            return
        node = self._open[-1]
        if name:
            node.properties.setdefault(name[:128], (value, line))
        elif node.items is not None:
            node.items.append(" ".join(value) if isinstance(value, tuple) else str(value))
        else:
            node.text = node.text or str(value)

    def _close(self) -> None:
        node = self._open.pop()
        if not self._open and node.items is None:
            self.found.append(Raw(node.properties, " ".join(node.types[:1])))
            return
        if not self._open:
            return  # a list of the top level: its objects were texts only
        value: Value = node.text
        if node.items is not None:
            value = tuple(node.items)
        elif not node.text and node.properties:
            value = _text({n: v for n, (v, _) in node.properties.items()})
        if node.reference:
            self._values[node.reference] = value
        parent = self._open[-1]
        # objects in a list of the top level (Export-Clixml -InputObject $list) are objects all the same
        if not node.name and parent.items is not None and len(self._open) == 1 and len(node.properties) > 2:
            self.found.append(Raw(node.properties, " ".join(node.types[:1])))
            return
        self._put(node.name, value, node.line)


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda m: chr(int(m[1], 16)), text)


def _simple(tag: str, text: str) -> Value:
    if tag == "B":
        return text.strip().lower() == "true"
    span = _SPAN.match(text.strip()) if tag == "TS" else None
    if span:
        days, hours, minutes = (int(part or 0) for part in span.groups()[:3])
        return str(int(((days * 24 + hours) * 60 + minutes) * 60 + float(span[4] or 0)))
    return text


def read_clixml(text: str) -> list[Raw]:
    """The objects of an Export-Clixml file; `Unreadable`."""
    reader = _Clixml()
    try:
        # the text is decoded already: what its declaration says about an encoding is no longer true
        reader.parser.Parse(re.sub(r"\A\s*<\?xml[^>]*\?>", "", text).encode("utf-8", "replace"), True)
    except expat.ExpatError as error:
        raise Unreadable(error.lineno, f"is not valid XML: {expat.ErrorString(error.code)}") from None
    except (ValueError, OverflowError) as error:
        raise Unreadable(reader.parser.CurrentLineNumber, f"has a value that cannot be read: {error}") from None
    return reader.found
