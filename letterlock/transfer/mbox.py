"""The mbox format, read and written, message by message however large the file.

Written: mboxrd. A line `From MAILER-DAEMON <date>`, four fields of ours (Status, X-Status, X-Keywords and
X-Letterlock-Export, which ends them and has exact flags and date), the message with `>` before each line that matches
`>*From `, an empty line. Reading takes these fields away again, so that a message comes back as it was.

Read: a message begins at a line `From …` with a date in it, at the beginning of the file or after an empty line. Where
the first such line has no date, none needs one. Status, X-Status, X-Keywords, X-UID, X-IMAP, X-IMAPbase and the
X-Mozilla-Status fields are the file's notes about a message, not the message: they become flags.
"""

from __future__ import annotations

import datetime
import email.utils
import re
from collections.abc import Iterator
from typing import BinaryIO, Final

from letterlock.base.errors import Malformed
from letterlock.imap.grammar import date_time
from letterlock.store.api import ANSWERED, DELETED, FLAGGED, SEEN, Flags
from letterlock.transfer.items import CHUNK, STATUS, Found, Intake, Open, flags_of, letters, to_lf

FIELD: Final = b"X-Letterlock-Export: "
_FROM: Final = re.compile(rb"From .*\d{1,2}:\d{2}(:\d{2})?\b.*\b(19|20)\d{2}\b")
_QUOTED: Final = re.compile(rb">+From ")
_TO_QUOTE: Final = re.compile(rb"^(?=>*From )", re.M)
_NOTES: Final = (
    b"status",
    b"x-status",
    b"x-keywords",
    b"x-uid",
    b"x-imap",
    b"x-imapbase",
    b"x-mozilla-status",
    b"x-mozilla-status2",
    b"x-mozilla-keys",
)
_EXPORT: Final = re.compile(rb'1 flags="([^"]*)" date="([^"]{26})"(?: exact=(\d{1,12}))?')
_MOZILLA: Final = ((1, SEEN), (2, ANSWERED), (4, FLAGGED), (8, DELETED))


def write_message(file: BinaryIO, raw: bytes, flags: bytes, date: bytes) -> None:
    """Append one message. `flags` and `date` are as IMAP renders them, the date without its quotes."""
    system = flags_of(flags.split()).system
    moment = date_time(date).astimezone(datetime.UTC)
    keywords = [f for f in flags.split() if not f.startswith(b"\\")]
    text = to_lf(raw)
    exact = b" exact=%d" % len(raw) if text is None else b""
    lines = [
        f"From MAILER-DAEMON {moment:%a %b} {moment.day:2d} {moment:%H:%M:%S} {moment.year:04d}".encode(),
        b"Status: " + (b"RO" if system & SEEN else b"O"),
        b"X-Status: " + letters(system & ~SEEN, STATUS).encode(),
        b"X-Keywords: " + b" ".join(keywords),
        FIELD + b'1 flags="' + flags.replace(b'"', b"") + b'" date="' + date + b'"' + exact,
    ]
    body = _TO_QUOTE.sub(b">", raw if text is None else text)
    file.write(b"\n".join(lines) + b"\n" + body + (b"\n" if text is not None else b"\n\n"))


class Reader:
    """Messages of one file, in order."""

    def __init__(self, file: BinaryIO, folder: str, open_spool: Open, keep_quoting: bool = False) -> None:
        self._file, self._folder, self._open = file, folder, open_spool
        self._keep = keep_quoting
        self._strict = True
        self._read = 0
        self._next = b""  # the From line of the next message

    def __iter__(self) -> Iterator[Found]:
        """Each message; `Malformed` when the file is no mbox."""
        line = self._line()
        while line in (b"\n", b"\r\n"):
            line = self._line()
        if line and not line.startswith(b"From "):
            raise Malformed(f"this is no mbox file: it begins with {line[:40]!r} instead of a line 'From …'")
        self._strict = bool(_FROM.match(line))
        self._next = line
        number = 0
        while self._next:
            number += 1
            found, internal = self._message()
            if internal and number == 1:  # UW IMAP keeps its folder's data in a message of its own
                found.spool.close()
            else:
                yield found

    def _line(self) -> bytes:
        """The next line, or as much of it as is kept at a time."""
        line = self._file.readline(CHUNK)
        self._read += len(line)
        return line

    def _begins(self, line: bytes) -> bool:
        return line.startswith(b"From ") and (not self._strict or bool(_FROM.match(line)))

    def _message(self) -> tuple[Found, bool]:
        date = _date(self._next)
        while self._next and not self._next.endswith(b"\n"):  # a From line of more than CHUNK octets
            self._next = self._line()
        notes = _Notes()
        message = _Message(Intake(self._open), notes, self._keep)
        try:
            self._next = self._lines(message)
        except BaseException:
            message.intake.close()
            raise
        return message.intake.found(self._folder, notes.flags(), notes.date or date, self._read), notes.internal

    def _lines(self, message: _Message) -> bytes:
        """Up to the next From line, which is answered; empty at the end of the file."""
        held = b""  # an empty line: it is the message's own unless the next message follows
        whole = True  # a line begins here, not the rest of a long one
        while line := self._line():
            if held:
                if self._begins(line):
                    message.end()
                    return line
                message.add(held, True)
                held = b""
            if whole and line in (b"\n", b"\r\n"):
                held = line
            else:
                message.add(line, whole)
            whole = line.endswith(b"\n")
        message.end()
        return b""


class _Message:
    """Lines of one message: notes are taken out, quoting and line ends undone."""

    def __init__(self, intake: Intake, notes: _Notes, keep_quoting: bool) -> None:
        self.intake, self._notes, self._keep = intake, notes, keep_quoting
        self._first: list[bytes] = []  # what may turn out to be our own fields
        self._beginning = self._header = True
        self._in_note = False
        self._left = -1  # octets that remain of an exact message

    def add(self, line: bytes, whole: bool) -> None:
        """The next line; `whole`: it is not the rest of a long one."""
        if self._beginning and whole:
            if line.startswith(FIELD) and self._notes.ours(line):
                self._beginning = self._header = False
                self._first.clear()
                self._left = self._notes.exact
                return
            if len(self._first) < 3 and line.startswith((b"Status: ", b"X-Status: ", b"X-Keywords: ")):
                self._first.append(line)
                return
        self._not_ours()
        self._add(line, whole)

    def _not_ours(self) -> None:
        if self._beginning:
            self._beginning = False
            for line in self._first:
                self._add(line, True)
            self._first.clear()

    def _add(self, line: bytes, whole: bool) -> None:
        if self._header and self._is_note(line, whole):
            return
        if whole and not self._keep and _QUOTED.match(line):
            line = line[1:]
        if self._left >= 0:
            line = line[: self._left]
            self._left -= len(line)
        elif line.endswith(b"\n") and not line.endswith(b"\r\n"):
            line = line[:-1] + b"\r\n"
        self.intake.write(line)

    def _is_note(self, line: bytes, whole: bool) -> bool:
        if not whole or line[:1] in (b" ", b"\t"):
            return self._in_note
        if line in (b"\n", b"\r\n"):
            self._header = self._in_note = False
            return False
        name, colon, value = line.partition(b":")
        self._in_note = bool(colon) and name.lower() in _NOTES
        if self._in_note:
            self._notes.take(name.lower(), value.strip())
        return self._in_note

    def end(self) -> None:
        """No more lines."""
        self._not_ours()


class _Notes:
    """What a file notes about a message."""

    def __init__(self) -> None:
        self.exact = -1
        self.internal = False
        self.date: datetime.datetime | None = None
        self._system = 0
        self._names: list[bytes] = []

    def ours(self, line: bytes) -> bool:
        """Take X-Letterlock-Export; False when it is not as we write it."""
        found = _EXPORT.fullmatch(line.strip().removeprefix(FIELD))
        if not found:
            return False
        try:
            self.date = date_time(found[2])
        except Malformed:
            return False
        self._names = found[1].split()
        self.exact = int(found[3]) if found[3] else -1
        return True

    def take(self, name: bytes, value: bytes) -> None:
        """A field of another program."""
        if name in (b"status", b"x-status"):
            known = dict(STATUS)
            self._system |= sum(known.get(letter, 0) for letter in set(value.decode("latin-1")))
        elif name in (b"x-keywords", b"x-mozilla-keys"):
            self._names += value.split()
        elif name == b"x-imap":
            self.internal = True
        elif name == b"x-mozilla-status" and re.fullmatch(rb"[0-9A-Fa-f]{1,8}", value):
            bits = int(value, 16)
            self._system |= sum(flag for bit, flag in _MOZILLA if bits & bit)

    def flags(self) -> Flags:
        """All that was noted."""
        named = flags_of(self._names)
        return Flags(named.system | self._system, named.keywords)


def _date(line: bytes) -> datetime.datetime | None:
    """When a message arrived, by its From line (`From SENDER Fri Jul  8 12:08:34 2011`); UTC where no zone is said."""
    found = re.search(rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? .*", line)
    parsed = email.utils.parsedate_tz(found[0].decode("latin-1")) if found else None
    if parsed is None:
        return None
    try:
        zone = datetime.timezone(datetime.timedelta(seconds=parsed[9] or 0))
        return datetime.datetime(*parsed[:6], tzinfo=zone)
    except (ValueError, OverflowError):
        return None
