"""Log files as lines: what was named, opened, decompressed and cut, in bounded memory.

Lines come in lists with the number of the first. A line longer than `MAX_LINE` is reported and skipped; a file that
ends in the middle of its compression is reported where it ends, and what was read before counts.
"""

from __future__ import annotations

import codecs
import glob
import gzip
import io
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import zstandard

from letterlock.base.errors import Malformed

BLOCK: Final = 1 << 18  # stays in the processor's cache; larger blocks are slower, not faster
HEAD: Final = 1 << 16  # octets by which a format is recognised
MAX_LINE: Final = 1 << 18
SHOWN: Final = 5  # unreadable lines that are shown for each file
MAX_WINDOW: Final = 1 << 27  # memory that a zstd file may ask for, as the zstd program itself allows
STDIN: Final = "-"


class Raw(Protocol):
    """What is read from."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(slots=True)
class FileReport:
    """What became of one file."""

    name: str
    format: str = ""  # "Exchange", "Letterlock", "Syslog", "Empty", "Unknown"
    lines: int = 0
    octets: int = 0
    logins: int = 0
    unreadable: int = 0
    problems: list[tuple[int, str]] = field(default_factory=list)  # (line number, sentence); the first few
    notes: list[str] = field(default_factory=list)
    servers: set[str] = field(default_factory=set)  # whose logins a syslog file holds

    def bad(self, number: int, why: str, line: bytes = b"") -> None:
        """Count a line that cannot be read; the first few are kept to be shown."""
        self.unreadable += 1
        if len(self.problems) < SHOWN:
            shown = f": {visible(line[:100])}" if line else ""
            self.problems.append((number, why + shown))

    def fault(self, number: int, why: str) -> None:
        """Something about the file rather than about a line."""
        self.problems.append((number, why))


def visible(text: bytes | str) -> str:
    """Foreign text for a person: control characters and terminal escapes are made visible."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def named(patterns: list[str]) -> list[str]:
    """Files behind names, folders and patterns, each once; `-` is standard input. `Malformed` where nothing is."""
    found: dict[str, None] = {}
    for pattern in patterns:
        if pattern == STDIN:
            found[pattern] = None
            continue
        if os.path.isdir(pattern):
            inside = sorted(_inside(pattern))
            if not inside:
                raise Malformed(f"{visible(pattern)}: the folder holds no files")
            found.update(dict.fromkeys(inside))
        elif os.path.exists(pattern):
            found[pattern] = None
        else:
            matching = sorted(m for m in glob.glob(pattern, recursive=True) if os.path.isfile(m))
            if not matching:
                raise Malformed(f"{visible(pattern)}: no such file or folder, and nothing matches it as a pattern")
            found.update(dict.fromkeys(matching))
    return list(found)


def _inside(folder: str) -> Iterator[str]:
    for directory, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".")]
        yield from (os.path.join(directory, f) for f in files if not f.startswith("."))


class Source:
    """An open log: decompressed, as UTF-8 octets. `position` is in the file as it lies on disk, for progress."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._file: BinaryIO = sys.stdin.buffer if name == STDIN else Path(name).open("rb")  # noqa: SIM115 - kept open
        self.position: Callable[[], int] = self._tell if self._seekable() else lambda: 0
        stream, magic = _peeked(self._file)
        self._stream = _decompressed(stream, magic)
        head = _read(self._stream, HEAD)
        decoder = _utf16(head)
        if decoder is not None:
            self._stream = _Transcoded(_Joined(head, self._stream), decoder)
            head = _read(self._stream, HEAD)
        self.utf16 = decoder is not None
        self.head = head.removeprefix(codecs.BOM_UTF8)

    def _seekable(self) -> bool:
        return self._file.seekable()

    def _tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        """Let go; standard input stays open."""
        if self.name != STDIN:
            self._file.close()

    def blocks(self) -> Iterator[bytes]:
        """The content from its beginning."""
        yield self.head
        while block := self._stream.read(BLOCK):
            yield block


# what opening and reading can end with: the file's fault, not ours
FAULTS: Final = (OSError, EOFError, zlib.error, zstandard.ZstdError, UnicodeError)


def lines(source: Source, report: FileReport) -> Iterator[tuple[int, list[bytes]]]:
    """(number of the first line, lines without their LF). Faults of the file are reported, and end it."""
    tail, number, skipping = b"", 1, False
    blocks = source.blocks()
    while True:
        try:
            block = next(blocks, b"")
        except FAULTS as error:
            report.fault(number, f"the file cannot be read beyond this line: {visible(str(error) or 'it is cut off')}")
            block = b""
        if not block:
            break
        report.octets += len(block)
        data = tail + block if tail else block
        if skipping:
            end = data.find(b"\n")
            if end < 0:
                continue
            data, skipping, number = data[end + 1 :], False, number + 1
        cut = data.rfind(b"\n")
        tail = data[cut + 1 :]
        if cut >= 0:
            found = data[:cut].split(b"\n")
            yield number, found
            number += len(found)
        if len(tail) > MAX_LINE:
            report.bad(number, f"longer than {MAX_LINE // 1024} KiB, skipped", tail)
            tail, skipping = b"", True
    if tail:
        yield number, [tail]
        number += 1
    report.lines = number - 1 + skipping


def _read(stream: Raw, size: int) -> bytes:
    """Up to `size` octets; less only at the end."""
    parts = []
    while size > 0 and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class _Joined:
    """What was read already, then the rest."""

    def __init__(self, head: bytes, rest: Raw) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1, /) -> bytes:
        """Up to `size` octets."""
        if self._head:
            found, self._head = self._head[:size] if size >= 0 else self._head, self._head[size:] if size >= 0 else b""
            return found
        return self._rest.read(size)


class _Transcoded:
    """UTF-16 as UTF-8."""

    def __init__(self, rest: Raw, decoder: codecs.IncrementalDecoder) -> None:
        self._rest = rest
        self._decoder = decoder

    def read(self, size: int, /) -> bytes:
        """What the next octets mean; may be more than `size` of them."""
        while block := self._rest.read(size):
            if text := self._decoder.decode(block):
                return text.encode("utf-8", "replace")
        return b""


def _peeked(file: Raw) -> tuple[Raw, bytes]:
    if isinstance(file, io.BufferedReader) and file.seekable():
        magic = file.read(6)
        file.seek(0)
        return file, magic
    magic = _read(file, 6)
    return _Joined(magic, file), magic


def _decompressed(stream: Any, magic: bytes) -> Raw:
    if magic.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=stream)
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        return decompressor.stream_reader(stream, read_across_frames=True)
    found: Raw = stream
    return found


def _utf16(head: bytes) -> codecs.IncrementalDecoder | None:
    """A decoder where the text is UTF-16: by its mark, or because every other octet is zero."""
    name = ""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        name = "utf-16"
    elif len(head) >= 8 and head.count(0) * 5 > len(head) * 2:
        sample = head[: len(head) & ~1]
        if sample[1::2].count(0) * 10 > len(sample) * 4 and not sample[0::2].count(0):
            name = "utf-16-le"
        elif sample[0::2].count(0) * 10 > len(sample) * 4 and not sample[1::2].count(0):
            name = "utf-16-be"
    return codecs.getincrementaldecoder(name)("replace") if name else None
