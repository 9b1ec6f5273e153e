"""Which messages a path holds: an mbox file, a directory of them, or a Maildir; and the export into a new path."""

from __future__ import annotations

import fnmatch
import os
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from letterlock.base.errors import Malformed, Refused
from letterlock.transfer import maildir, mbox
from letterlock.transfer.items import EXPORT_MARK, Found, Open

SUFFIX: Final = ".mbox"
MAX_DEPTH: Final = 32
MAX_NAME: Final = 255


def checked(path: Path) -> Path:
    """A path to import from; `Malformed` when there is nothing that could be read."""
    if not path.is_absolute():
        raise Malformed(f"FilePath: '{path}' must be an absolute path")
    try:
        if path.is_dir() and not maildir.is_maildir(path) and not _mboxes(path):
            raise Malformed(f"FilePath: '{path}' is a directory, but neither a Maildir nor one with mbox files in it")
        if not path.is_dir() and not path.is_file():
            raise Malformed(f"FilePath: '{path}' must be a file or a directory that exists")
        size(path)
    except OSError as error:
        raise Refused(f"FilePath: '{path}' cannot be read: {os.strerror(error.errno or 0)}") from None
    return path


def _mboxes(path: Path, depth: int = 0) -> list[tuple[str, Path]]:
    """Folder names and files of a directory of mbox files; `Name.sbd` holds what is below `Name` (Thunderbird)."""
    found: list[tuple[str, Path]] = []
    for entry in sorted(path.iterdir()):
        name = entry.name.removesuffix(SUFFIX)
        if entry.is_symlink() or entry.name.startswith("."):
            continue
        if entry.is_dir() and depth < MAX_DEPTH:
            below = _decoded(entry.name.removesuffix(".sbd"))
            found += [(f"{below}/{inner}", file) for inner, file in _mboxes(entry, depth + 1)]
        elif entry.is_file() and (_is_mbox(entry) or (entry.name.endswith(SUFFIX) and not entry.stat().st_size)):
            name = _decoded(name)
            found.append(("INBOX" if not depth and name.upper() == "INBOX" else name, entry))
    return found


def _is_mbox(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(5) == b"From "


def size(path: Path) -> int:
    """Octets of all files, for progress; raises OSError where a file cannot be read."""
    if path.is_dir() and maildir.is_maildir(path):
        directories = [d / part for _, d in maildir.folders(path) for part in ("new", "cur")]
        return sum(e.stat().st_size for d in directories if d.is_dir() for e in os.scandir(d))
    files = [file for _, file in _mboxes(path)] if path.is_dir() else [path]
    for file in files:
        file.open("rb").close()
    return sum(file.stat().st_size for file in files)


class Source:
    """A path to import from. `folders` names all of its folders, `messages` reads those that are wanted."""

    def __init__(self, path: Path, wanted: list[str], keep_quoting: bool) -> None:
        self.path, self._keep = path, keep_quoting
        self._maildir = path.is_dir() and maildir.is_maildir(path)
        files = _mboxes(path) if path.is_dir() and not self._maildir else [("INBOX", path)]
        found = maildir.folders(path) if self._maildir else files
        self._folders = [(name, where) for name, where in found if is_wanted(name, wanted)]

    @property
    def folders(self) -> list[str]:
        """Their names, with / between levels."""
        return [name for name, _ in self._folders]

    def messages(self, open_spool: Open) -> Iterator[Found]:
        """All of them; reads files, so for a thread."""
        start = 0
        for name, where in self._folders:
            if self._maildir:
                for found in maildir.messages(name, where, open_spool, start):
                    start = found.read
                    yield found
                continue
            with where.open("rb") as file:
                for found in mbox.Reader(file, name, open_spool, self._keep):
                    yield found._replace(read=start + found.read)
            start += where.stat().st_size


def is_wanted(name: str, patterns: list[str]) -> bool:
    """Whether a folder is among those that were asked for; all are when none was."""
    lower = name.lower()
    return not patterns or any(fnmatch.fnmatchcase(lower, p.lower().strip("/").replace("[", "[[]")) for p in patterns)


# --- export


class Export:
    """A new directory, made under another name and renamed when it is whole: half an export is never taken for one."""

    def __init__(self, path: Path, form: str) -> None:
        self.path, self._form = path, form
        self._partial = path.with_name(path.name + ".partial")
        self._maildir: maildir.Writer | None = None
        self._file: tuple[str, object] | None = None

    def check(self, data: Path) -> None:
        """`Malformed` when it cannot be made there. What an export that was killed left behind is no hindrance."""
        if not self.path.is_absolute():
            raise Malformed(f"FilePath: '{self.path}' must be an absolute path")
        if ".." in self.path.parts or any(unicodedata.category(ch) == "Cc" for ch in str(self.path)):
            raise Malformed(f"FilePath: '{self.path}' must be without .. and without control characters")
        if self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir())):
            raise Malformed(f"FilePath: '{self.path}' exists; name a directory that does not exist yet")
        if not self.path.parent.is_dir():
            raise Malformed(f"FilePath: '{self.path.parent}' must be a directory that exists")
        if data.resolve() in (self.path.parent.resolve(), *self.path.parent.resolve().parents):
            raise Malformed(f"FilePath: '{self.path}' is inside the data directory; choose a place outside it")
        if self._partial.exists() and not (self._partial / EXPORT_MARK).is_file():
            raise Malformed(f"FilePath: '{self._partial}' is in the way; remove it, or choose another name")

    def begin(self) -> None:
        """Make the directory."""
        if self._partial.exists():
            shutil.rmtree(self._partial)
        self._partial.mkdir(mode=0o700)
        (self._partial / EXPORT_MARK).touch(mode=0o600)
        if self._form == "Maildir":
            self._maildir = maildir.Writer(self._partial)
            self._maildir.folder("INBOX")

    def folder(self, name: str) -> None:
        """The next folder, empty or not."""
        if self._maildir is not None:
            self._maildir.folder(name)
            return
        levels = [_encoded(level) for level in name.split("/")]
        levels[-1] += SUFFIX
        if any(len(level.encode()) > MAX_NAME for level in levels):
            raise Refused(f"folder {name}: its name is too long for a file; rename it first")
        path = self._partial.joinpath(*levels)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        self._current = path

    def write(self, folder: str, rows: list[tuple[int, bytes, bytes, bytes]]) -> int:
        """Add messages (UID, octets, flags, date) of the folder; how many lost a keyword."""
        if self._maildir is not None:
            for uid, raw, flags, date in rows:
                self._maildir.write(folder, uid, raw, flags, date)
            return sum(self._maildir.lost(folder, flags) for _, _, flags, _ in rows)
        with self._current.open("ab") as file:
            for _, raw, flags, date in rows:
                mbox.write_message(file, raw, flags, date)
        return 0

    def finish(self) -> None:
        """Durable, and under its own name."""
        os.sync()
        (self._partial / EXPORT_MARK).unlink()
        if self.path.exists():
            self.path.rmdir()
        self._partial.rename(self.path)

    def give_up(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self._partial, ignore_errors=True)


def _encoded(level: str) -> str:
    """A level of a folder name as a file name: nothing in it is a path, hidden, or taken for a suffix of ours."""
    text = "".join(f"%{ord(ch):02X}" if ch in '%/\\:*?"<>|' or ord(ch) < 32 else ch for ch in level)
    if text.startswith("."):
        text = "%2E" + text[1:]
    for suffix in (SUFFIX, ".sbd"):
        if text.endswith(suffix):
            text = text[: -len(suffix)] + "%2E" + suffix[1:]
    return text


def _decoded(name: str) -> str:
    parts = name.split("%")
    text = parts[0]
    for part in parts[1:]:
        code = part[:2]
        known = len(code) == 2 and all(ch in "0123456789ABCDEF" for ch in code)
        text += chr(int(code, 16)) + part[2:] if known else "%" + part
    return unicodedata.normalize("NFC", text.replace("/", "_"))
