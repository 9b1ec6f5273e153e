"""Maildir and Maildir++, read and written: one file a message, flags in its name, folders as `.Name.Sub` beside it.

The time a message arrived is its file's modification time. Keywords are letters a to z, named in `dovecot-keywords`.
Folder names are in modified UTF-7, as IMAP servers write them, a dot within a level as `&AC4-`. A message that has to
stay as it is to the octet (items.py) says `letterlock-exact` in its file's name.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from letterlock.base.errors import Malformed, Refused
from letterlock.imap.grammar import date_time, decode_utf7, encode_utf7
from letterlock.store.api import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN, Flags
from letterlock.transfer.items import CHUNK, Found, Intake, Open, flags_of, keyword, letters, to_lf

LETTERS: Final = (("D", DRAFT), ("F", FLAGGED), ("R", ANSWERED), ("S", SEEN), ("T", DELETED))  # in this order
KEYWORDS: Final = "dovecot-keywords"
MAX_NAME: Final = 255
EXACT: Final = "letterlock-exact"
_DOT: Final = "&AC4-"


def is_maildir(path: Path) -> bool:
    """Whether this directory is one."""
    return (path / "cur").is_dir()


def folders(path: Path) -> list[tuple[str, Path]]:
    """Names and directories of all folders, INBOX first."""
    found = [("INBOX", path)]
    for entry in sorted(path.iterdir()):
        if entry.name.startswith(".") and entry.name not in (".", "..") and is_maildir(entry):
            found.append((_folder_name(entry.name[1:]), entry))
    return found


def _folder_name(name: str) -> str:
    levels = []
    for level in name.split("."):
        try:
            levels.append(".".join(decode_utf7(part.encode("ascii")) for part in level.split(_DOT)))
        except (Malformed, UnicodeEncodeError):  # a name in UTF-8, as some programs write it
            levels.append(level)
    return "/".join(level.replace("/", "_") for level in levels if level)


def messages(folder: str, path: Path, open_spool: Open, start: int = 0) -> Iterator[Found]:
    """The messages of one folder in the order of their names; `start`: octets read before."""
    names = _keywords(path)
    files = sorted((e for part in ("new", "cur") for e in _files(path / part)), key=lambda e: e.name)
    for entry in files:
        made = _message(folder, entry, names, open_spool, start)
        if made is not None:
            start = made.read
            yield made


def _files(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return [e for e in entries if not e.name.startswith(".") and e.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _keywords(path: Path) -> dict[str, bytes]:
    """Letter to keyword."""
    try:
        text = (path / KEYWORDS).read_bytes()
    except OSError:
        return {}
    found = {}
    for line in text.splitlines():
        number, _, name = line.partition(b" ")
        word = keyword(name)
        if number.isdigit() and int(number[:4]) < 26 and word is not None:
            found[chr(ord("a") + int(number[:4]))] = word
    return found


def _message(
    folder: str, entry: os.DirEntry[str], names: dict[str, bytes], open_spool: Open, start: int
) -> Found | None:
    base, _, info = entry.name.partition(":2,")
    try:
        file = open(entry.path, "rb", buffering=0)  # noqa: SIM115 - closed below
    except FileNotFoundError:  # another program has moved it meanwhile
        return None
    intake = Intake(open_spool)
    with file:
        moment = datetime.datetime.fromtimestamp(int(os.fstat(file.fileno()).st_mtime), datetime.UTC)
        exact, last, size = EXACT in base.split(",")[0], b"", 0
        while data := file.read(CHUNK):
            size += len(data)
            if exact:
                intake.write(data)
                continue
            data, last = last + data, b""
            if data.endswith(b"\r"):  # its LF may be in the next part
                data, last = data[:-1], b"\r"
            intake.write(re.sub(rb"(?<!\r)\n", b"\r\n", data))
        intake.write(last)
    system = sum(bit for letter, bit in LETTERS if letter in info)
    words = flags_of([names[letter] for letter in info if letter in names]).keywords
    return intake.found(folder, Flags(system, words), moment, start + size)


class Writer:
    """A new Maildir."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: dict[str, dict[bytes, str]] = {}  # keywords of a folder: letters
        self._directories: dict[str, Path] = {}

    def folder(self, name: str) -> None:
        """Make a folder, empty or not; `Refused` when the file system cannot have its name."""
        path = self._path
        if name != "INBOX":
            own = "." + ".".join(_level(level) for level in name.split("/"))
            if len(own.encode()) > MAX_NAME:
                raise Refused(f"folder {name}: its name is too long for a Maildir; export as Mbox, or rename it")
            path = self._path / own
        for part in ("cur", "new", "tmp"):
            (path / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        if name != "INBOX":
            (path / "maildirfolder").touch(mode=0o600)
        self._directories[name], self._names[name] = path, {}

    def write(self, folder: str, uid: int, raw: bytes, flags: bytes, date: bytes) -> None:
        """Add a message."""
        path, found = self._directories[folder], flags_of(flags.split())
        text = to_lf(raw)
        moment = int(date_time(date).timestamp())
        host = "letterlock" if text is not None else EXACT
        octets = raw if text is None else text
        size, lines = len(octets), octets.count(b"\n") - octets.count(b"\r\n")
        info = letters(found.system, LETTERS) + "".join(sorted(self._letter(folder, w) for w in found.keywords))
        name = f"{max(0, moment)}.M0P{os.getpid()}Q{uid}.{host},S={size},W={size + lines}:2,{info}"
        descriptor = os.open(path / "cur" / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(octets)
        os.utime(path / "cur" / name, (moment, moment))

    def _letter(self, folder: str, word: bytes) -> str:
        names = self._names[folder]
        if word not in names and len(names) < 26:
            names[word] = chr(ord("a") + len(names))
            lines = [b"%d %b\n" % (ord(letter) - ord("a"), name) for name, letter in names.items()]
            (self._directories[folder] / KEYWORDS).write_bytes(b"".join(lines))
        return names.get(word, "")

    def lost(self, folder: str, flags: bytes) -> bool:
        """Whether a keyword of a message has no letter left."""
        return any(word not in self._names[folder] for word in flags_of(flags.split()).keywords)


def _level(level: str) -> str:
    return _DOT.join(encode_utf7(part).decode("ascii") for part in level.split("."))
