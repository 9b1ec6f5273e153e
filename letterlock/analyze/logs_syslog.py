"""Lines of syslog and of servers' own log files: time, program, message; the message goes to its server's reader.

Read are RFC 3164 (no year, local time), RFC 5424, ISO 8601 times as rsyslog and journald (`short-iso`, `short-full`)
write them, and the times of Dovecot's and Exim's own files. A line of another program is no concern of ours; a line
without a readable time is counted as unreadable.
"""

from __future__ import annotations

import datetime
import re
import time
from typing import Final

from letterlock.analyze.logs_lines import FileReport
from letterlock.analyze.logs_servers import MailServers
from letterlock.analyze.logs_smtp import SmtpServers
from letterlock.analyze.logs_tally import Sessions

_MONTHS: Final = {m: i for i, m in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)}
_OLD: Final = re.compile(rb"(?:<\d{1,3}>)?([A-Z][a-z]{2}) {1,2}(\d{1,2}) (?:(\d{4}) )?(\d\d):(\d\d):(\d\d)(?:\.\d+)? ")
_ISO: Final = re.compile(
    rb"(?:<\d{1,3}>)?(1 )?(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?(Z|[+-]\d\d:?\d\d)?(?: |$)"
)
_FULL: Final = re.compile(rb"[A-Z][a-z]{2} (\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.\d+)? ([A-Z]{1,5}) ")
_RFC5424: Final = re.compile(rb'\S+ (\S+) (\S+) \S+ (?:-|(?:\[(?:"(?:[^"\\]|\\.)*"|[^"\]])*\])+) ?(.*)', re.DOTALL)
_TAGGED: Final = re.compile(
    rb"(?:[^\s\[\]]*[^\s:\[\]] )?([A-Za-z0-9_./@+-]{1,64})(?:\[(\d{1,10})\])?: ?(.*)", re.DOTALL
)
# what a line about a login holds; everything else is passed over
_WORDS: Final = (
    b"ogin", b"LOGIN", b"ogged in", b"smtpd[", b"smtpd: ", b" A=", b"ID sent", b"AUTH", b"authenticat",
    b"LOGOUT, ", b"DISCONNECTED, ", b"TIMEOUT, ", b"client id ",
)  # fmt: skip
MAX_MEMO: Final = 5000


class Clock:
    """Times of lines. `reference`: a moment not before the file's last line, for years that syslog leaves out."""

    def __init__(self, reference: float = 0.0) -> None:
        self._reference = reference or time.time()
        self._minutes: dict[bytes, float] = {}

    def old(self, found: re.Match[bytes]) -> float | None:
        """`Mar  2 08:15:30`: local time; the latest year that does not lie in the future."""
        month, day, year, hour, minute, second = found.groups()
        key = b"%b %b %b %b %b" % (month, day, year or b"", hour, minute)
        base = self._minutes.get(key)
        if base is None:
            number = _MONTHS.get(month, 0)
            now = time.localtime(self._reference + 86400)
            wanted = int(year) if year else now.tm_year
            if not number or not 1 <= int(day) <= 31 or int(hour) > 23 or int(minute) > 59:
                return None
            if not year and (number, int(day)) > (now.tm_mon, now.tm_mday):
                wanted -= 1
            base = self._keep(key, local(wanted, number, int(day), int(hour), int(minute)))
        return base + int(second)

    def iso(self, date: bytes, clock: bytes, fraction: bytes | None, zone: bytes | None) -> float | None:
        """A full time; local where no zone is given."""
        key = date + clock[:5] + (zone or b"")
        base = self._minutes.get(key)
        if base is None:
            text = (date + b"T" + clock[:5]).decode("ascii")
            try:
                if zone is None:
                    at = datetime.datetime.fromisoformat(text)
                    value = local(at.year, at.month, at.day, at.hour, at.minute)
                else:
                    value = datetime.datetime.fromisoformat(text + zone.decode("ascii")).timestamp()
            except (ValueError, OverflowError):
                return None
            base = self._keep(key, value)
        return base + int(clock[6:8]) + (float(b"." + fraction) if fraction else 0.0)

    def _keep(self, key: bytes, value: float) -> float:
        if len(self._minutes) > MAX_MEMO:
            self._minutes.clear()
        self._minutes[key] = value
        return value


def local(year: int, month: int, day: int, hour: int, minute: int) -> float:
    """Seconds since 1970 of a local time; 0 where the platform cannot tell."""
    try:
        return time.mktime((year, month, day, hour, minute, 0, 0, 0, -1))
    except (OverflowError, ValueError):
        return 0.0


def prefix(line: bytes, clock: Clock | None = None) -> tuple[float, bytes] | None:
    """(time, the rest) of a line; None where it does not begin with a time. RFC 5424 becomes `tag[pid]: message`."""
    clock = clock or Clock()
    found = _ISO.match(line)
    if found:
        at = clock.iso(*found.group(2, 3, 4, 5))
        rest = line[found.end() :]
        if at is None:
            return None
        if found[1]:
            parts = _RFC5424.match(rest)
            if parts is None:
                return None
            pid = b"[%b]" % parts[2] if parts[2].isdigit() else b""
            return at, b"%b%b: %b" % (parts[1], pid, parts[3].removeprefix(b"\xef\xbb\xbf"))
        return at, rest
    found = _OLD.match(line)
    if found:
        at = clock.old(found)
        return None if at is None else (at, line[found.end() :])
    found = _FULL.match(line)
    if found:
        at = clock.iso(found[1], found[2], None, b"+00:00" if found[3] in (b"UTC", b"GMT") else None)
        return None if at is None else (at, line[found.end() :])
    return None


class SyslogReader:
    """Reads one file of any mixture of servers."""

    def __init__(self, report: FileReport, sessions: Sessions, reference: float = 0.0) -> None:
        self.report = report
        self._clock = Clock(reference)
        self._mail = MailServers(report, sessions)
        self._smtp = SmtpServers(report, sessions)

    def read(self, first: int, lines: list[bytes]) -> None:
        """Take lines; `first` is the number of the first."""
        clock, words = self._clock, _WORDS
        for number, line in enumerate(lines, first):
            for word in words:
                if word in line:
                    break
            else:
                head = line[:1]
                if not (head.isdigit() or head == b"<" or line[:3] in _MONTHS or _FULL.match(line)) and line.strip():
                    self.report.bad(number, "does not begin with a time", line)
                continue
            found = prefix(line.rstrip(b"\r"), clock)
            if found is None or b"\x00" in line:
                self.report.bad(number, "does not begin with a time", line)
                continue
            self._message(found[0], found[1], number)

    def _message(self, at: float, rest: bytes, number: int) -> None:
        mail, smtp = self._mail, self._smtp
        if mail.dovecot(at, rest, number):
            return
        tagged = _TAGGED.match(rest)
        if tagged is None:
            smtp.exim(at, rest, number)
            return
        tag, pid, message = tagged.groups()
        name = tag.rpartition(b"/")[2]
        if name == b"smtpd":
            smtp.postfix(at, tag, pid or b"", message, number)
        elif name.startswith(b"exim"):
            inner = prefix(message, self._clock)  # log_timestamp with syslog
            smtp.exim(at, inner[1] if inner else message, number)
        elif message.startswith((b"LOGIN, ", b"LOGIN FAILED, ", b"LOGOUT, ", b"DISCONNECTED, ", b"TIMEOUT, ")):
            mail.courier(at, name, message, number)
        elif (
            message.startswith((b"login: ", b"badlogin: ", b"client id ", b"event=login."))
            or b"event=login." in message[:200]
        ):
            mail.cyrus(at, name, message, number)
        else:
            smtp.exim(at, rest, number)

    def finish(self) -> frozenset[str]:
        """The file has ended; services that it shows to have TLS only by STARTTLS."""
        return self._smtp.finish()
