"""Protocol logs in Exchange's format: 13 columns, one line a command, one folder a protocol.

Rows are collected and written about once a second. A new file begins by time, or at a size; files older than the
retention, and the oldest beyond the folder's quota, are removed. A full disk never stops mail: rows are dropped, and
counted in the next row that can be written.
"""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Final

from letterlock.base.settings import ClientAccessSettings
from letterlock.base.values import LogFileRollOver

FIELDS: Final = (
    b"#Fields: dateTime,sessionId,seqNumber,sIp,cIp,user,duration,rqsize,rpsize,command,parameters,context,puid\r\n"
)
MAX_FIELD: Final = 2000
_PLAIN: Final = re.compile(rb"[^\x00-\x1f\x7f,\"]*")
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")


def field(value: bytes) -> bytes:
    """A CSV field: control characters escaped (no line can be forged), quotes doubled, length bounded."""
    value = value[:MAX_FIELD]
    if _PLAIN.fullmatch(value):
        return value
    value = _CONTROL.sub(lambda m: b"\\x%02x" % m[0][0], value)
    if b"," in value or b'"' in value:
        return b'"' + value.replace(b'"', b'""') + b'"'
    return value


def format_row(
    when: float,
    session: int,
    sequence: int,
    local: str,
    peer: str,
    user: str,
    duration: int,
    request_size: int,
    response_size: int,
    command: bytes,
    parameters: bytes,
    context: bytes,
) -> bytes:
    """One line; `when` in seconds since 1970, `duration` in milliseconds."""
    at = datetime.datetime.fromtimestamp(when, datetime.UTC)
    stamp = at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03}Z"
    return b"%b,%016X,%d,%b,%b,%b,%d,%d,%d,%b,%b,%b,\r\n" % (
        stamp.encode(),
        session,
        sequence,
        local.encode(),
        peer.encode(),
        field(user.encode("utf-8", "replace")),
        duration,
        request_size,
        response_size,
        field(command),
        field(parameters),
        field(context),
    )


class ProtocolLog:
    """The log of one protocol; `flush` is called with the present time."""

    def __init__(self, directory: Path, prefix: str, settings: ClientAccessSettings) -> None:
        self.directory = directory
        self.prefix = prefix  # IMAP4 or POP3
        self.settings = settings
        self.dropped = 0
        self._rows: list[bytes] = []
        self._pattern = re.compile(re.escape(prefix) + r"\d{8,10}-\d+\.LOG|" + re.escape(prefix) + r"-1\.LOG")
        self._path: Path | None = None
        self._period = ""

    def add(self, row: bytes) -> None:
        """Keep a row until the next flush."""
        self._rows.append(row)

    def flush(self, now: float) -> None:
        """Write what was collected."""
        if not self._rows:
            return
        data, count = b"".join(self._rows), len(self._rows)
        self._rows.clear()
        try:
            self._write(data, now)
        except OSError:
            self.dropped += count
            self._path = None

    def _write(self, data: bytes, now: float) -> None:
        period = self._period_of(now)
        quota = self.settings.LogPerFileSizeQuota
        size = self._path.stat().st_size if self._path is not None and self._path.is_file() else -1
        full = quota.octets > 0 and size >= quota.octets
        if self._path is None or size < 0 or period != self._period or full:
            self._open(period, now, full)
        assert self._path is not None  # noqa: S101
        with self._path.open("ab") as file:
            file.write(data)

    def _period_of(self, now: float) -> str:
        """The part of the name that changes when a new file begins; empty: one file for ever."""
        quota = self.settings.LogPerFileSizeQuota
        at = datetime.datetime.fromtimestamp(now, datetime.UTC)
        if quota.unlimited:
            return ""
        if quota.octets > 0:
            return at.strftime("%Y%m%d")
        kind = self.settings.LogFileRollOverSettings
        if kind is LogFileRollOver.Hourly:
            return at.strftime("%Y%m%d%H")
        if kind is LogFileRollOver.Weekly:
            at -= datetime.timedelta(days=at.weekday())
        elif kind is LogFileRollOver.Monthly:
            at = at.replace(day=1)
        return at.strftime("%Y%m%d")

    def _open(self, period: str, now: float, full: bool) -> None:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        number = 1
        quota = self.settings.LogPerFileSizeQuota
        while True:
            path = self.directory / f"{self.prefix}{period}-{number}.LOG"
            if not path.is_file() or quota.octets <= 0 or path.stat().st_size < quota.octets:
                break
            number += 1
        self._path, self._period = path, period
        if not path.is_file():
            at = datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            head = f"#Software: Letterlock\r\n#Version: 15.0.0.0\r\n#Log-type: {self.prefix} Log\r\n#Date: {at}\r\n"
            path.write_bytes(head.encode() + FIELDS)
        self.retain(now)

    def retain(self, now: float) -> None:
        """Remove files that are too old, and the oldest beyond the folder's quota; never the present one."""
        files = [p for p in self.directory.iterdir() if self._pattern.fullmatch(p.name) and p != self._path]
        stats = sorted(((p.stat().st_mtime, p.stat().st_size, p) for p in files), reverse=True)
        quota = self.settings.LogDirectoryQuota
        total = self._path.stat().st_size if self._path is not None and self._path.is_file() else 0
        for changed, size, path in stats:
            total += size
            if now - changed > self.settings.LogRetentionAge.seconds or (not quota.unlimited and total > quota.octets):
                path.unlink(missing_ok=True)
