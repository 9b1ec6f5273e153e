"""Settings exports as facts: any form that people have, recognised by itself, several files and folders at once.

    reading = read(["exports/", "pasted.txt"])
    reading.facts       SettingFacts, with file and line
    reading.files       what became of each file: its form, objects, and what could not be read, with line numbers
    reading.logs        files that are logs: they are for the log readers

Forms: Format-List and Format-Table text, JSON, CSV, CLIXML, `doveconf -n`; UTF-8 with or without a mark, UTF-16,
Windows-1252; plain, gzip or zstd. What one file has wrong never stops the others. Everything is hostile: sizes,
nesting and line lengths are bounded, and texts are made visible before they are shown (`logs_lines.visible`).
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import zstandard

from letterlock.analyze import exports_data, exports_dovecot, exports_kinds, exports_text, logs
from letterlock.analyze.exports_data import Unreadable
from letterlock.analyze.exports_kinds import Raw
from letterlock.analyze.logs_lines import STDIN, named, visible
from letterlock.base.facts import SettingFact

MAX_FILE: Final = 64 << 20  # octets, decompressed
MAX_LINE: Final = 1 << 16  # characters; no property of a listing is longer
MAX_MIXED: Final = 1 << 20  # characters of a text that may be a log and a listing
LOG_FORMATS: Final = frozenset(logs.FORMATS) - {"auto"}
SHOWN: Final = 5  # problems that are shown for each file
_JSON: Final = re.compile(r"[\[{]\s*(?:[\"\[\]{}]|\Z|-?\d[\d.]*\s*(?:[,\]]|\Z))")
_LOG: Final = re.compile(r"\A(?:#Software|#Version|#Log-type|#Date|#Fields|dateTime,)", re.I)


@dataclass(slots=True)
class ExportFile:
    """What became of one file."""

    name: str
    form: str = ""  # "list", "json", "csv", "clixml", "doveconf", "log", "empty", "unknown"
    objects: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)  # (line, sentence); line 0: the file as a whole
    more: int = 0  # problems that are not in the list
    notes: list[tuple[int, str]] = field(default_factory=list)  # what was passed over without harm

    def problem(self, line: int, why: str) -> None:
        """Something that could not be read."""
        if len(self.problems) < SHOWN:
            self.problems.append((line, why))
        else:
            self.more += 1


@dataclass(slots=True)
class Reading:
    """What was read from all files."""

    facts: list[SettingFact] = field(default_factory=list)
    files: list[ExportFile] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)


def read(patterns: list[str]) -> Reading:
    """Read files, folders and patterns; `Malformed` where a name is nothing at all."""
    reading = Reading()
    for name in named(patterns):
        file = ExportFile(name)
        reading.files.append(file)
        data = _octets(name, file)
        if data is None:
            continue
        if not data.strip():
            file.form = "empty"
            file.problem(0, "is empty")
            continue
        text = decoded(data)
        if text is None:
            file.form = "unknown"
            file.problem(0, "is binary, not a text export")
        else:
            facts = read_text(text, file)
            reading.facts += facts
            if file.form == "log":
                reading.logs.append(name)
    return reading


def _octets(name: str, file: ExportFile) -> bytes | None:
    try:
        if name == STDIN:
            data = sys.stdin.buffer.read(MAX_FILE + 1)
        else:
            with Path(name).open("rb") as source:
                data = _unpacked(source.read(MAX_FILE + 1))
    except OSError as error:
        file.problem(0, f"cannot be read: {error.strerror or 'damaged compression'}")
        return None
    except (EOFError, zlib.error, zstandard.ZstdError):
        file.problem(0, "ends in the middle of its compression, or is damaged")
        return None
    if len(data) > MAX_FILE:
        if _is_log(data[: 1 << 16]):  # logs may be as large as they like: their reader streams
            return data[: 1 << 16]
        file.problem(0, f"is larger than {MAX_FILE >> 20} MiB; no export is")
        return None
    return data


def _unpacked(data: bytes) -> bytes:
    if data[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            return packed.read(MAX_FILE + 1)
    if data[:4] == b"\x28\xb5\x2f\xfd":
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(io.BytesIO(data)) as reader:
            return reader.read(MAX_FILE + 1)
    return data


def decoded(data: bytes) -> str | None:
    """The text; None for what is none. UTF-16 is known by its mark, or by its zeros."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
    ):
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    head = data[:4096]
    if b"\0" in head:
        for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[0::2])):
            if zeros.count(0) * 10 > len(zeros) * 7:
                return data.decode(encoding, "replace")
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    control = sum(c < " " and c not in "\r\n\t\f\x1b" for c in text[:4096])
    return None if control * 20 > min(len(text), 4096) else text


def _is_log(head: bytes) -> bool:
    text = decoded(head)
    return text is not None and (bool(_LOG.match(text)) or logs.recognise(head) in LOG_FORMATS)


def read_text(text: str, file: ExportFile) -> list[SettingFact]:
    """The facts of one text; `file` gets its form and problems."""
    text = text.lstrip("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    begin = text.lstrip()[:200]
    try:
        if begin.startswith(("<Objs", "<?xml", "<!DOCTYPE", "<!--")):
            file.form = "clixml"
            return _facts(exports_data.read_clixml(text.lstrip()), file)
        if _JSON.match(begin):
            file.form = "json"
            return _facts(exports_data.read_json(text), file)
        if _csv(text):
            file.form = "csv"
            return _facts(exports_data.read_csv(_bounded_text(text, file)), file)
    except Unreadable as error:
        file.problem(error.line, error.why)
        return []
    if exports_dovecot.looks_like(text):
        file.form = "doveconf"
        facts, problems = exports_dovecot.read(_bounded(text, file), file.name)
        for line, why in problems:
            file.problem(line, why)
        file.objects = 1 if facts else 0
        return facts
    if _is_log(text[: 1 << 16].encode("utf-8", "replace")):
        file.form = "log"
        # a post may hold a few rows of a log beside a listing
        return _facts(exports_text.read(_bounded(text, file)), file) if len(text) < MAX_MIXED else []
    file.form = "list"
    found = _facts(exports_text.read(_bounded(text, file)), file)
    if not found and not file.problems:
        file.form = "unknown"
        file.problem(
            0, "has nothing that could be recognised as settings, certificates, services, connectors or mailboxes"
        )
    return found


def _csv(text: str) -> bool:
    """A header of names, separated, of which some are known."""
    if text.startswith("#TYPE"):
        return True
    head = text.partition("\n")[0][:4096]
    separator = max(",;\t", key=head.count)
    names = [n.strip().strip('"').lower() for n in head.split(separator)]
    single = len(names) == 1 and head.startswith('"') and names[0] in exports_kinds.KNOWN
    return single or (
        len(names) > 1
        and all(re.fullmatch(r"[\w .()-]+", n) for n in names)
        and any(n in exports_kinds.KNOWN for n in names)
    )


def _bounded(text: str, file: ExportFile) -> list[str]:
    """Lines; one that is too long is named and left out."""
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE:
            file.problem(number, f"is a line of {len(line)} characters; it was left out")
            lines[number - 1] = ""
    return lines


def _bounded_text(text: str, file: ExportFile) -> str:
    return "\n".join(_bounded(text, file))


def _facts(found: list[Raw], file: ExportFile) -> list[SettingFact]:
    facts: list[SettingFact] = []
    for raw in found:
        kind = exports_kinds.kind_of(raw, Path(file.name).name)
        if kind == "Settings":
            file.problem(raw.line, "has settings of POP or of IMAP, and nothing tells which: name the file after it, "
                         "or keep the command line in it")  # fmt: skip
        elif kind:
            file.objects += 1
            facts += exports_kinds.facts_of(kind, raw, file.name)
        elif file.form != "list" and raw.properties and len(file.notes) < SHOWN:
            names = ", ".join(visible(n) for n in list(raw.properties)[:4])
            file.notes.append((raw.line, f"has an object that is not judged (with {names})"))
    if not facts and not file.problems and found and file.form != "log":
        file.problem(0, "has no object that is judged here")
    return facts
