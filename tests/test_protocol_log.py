"""Exchange's columns, roll-over, retention, and no forged lines."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pytest

from letterlock.base.settings import ImapSettings
from letterlock.base.values import ByteSize, LogFileRollOver, TimeSpan
from letterlock.runtime.protocol_log import ProtocolLog, format_row

NOW = 1_780_000_000.123  # 2026-05-28T20:26:40.123Z


def row(parameters: bytes = b"INBOX", context: bytes = b"R=OK") -> bytes:
    return format_row(NOW, 0xA0, 1, "192.0.2.10:993", "198.51.100.7:52144", "a@demo.test", 3, 14, 53, b"select",
                      parameters, context)  # fmt: skip


def test_a_row_has_the_thirteen_columns() -> None:
    fields = next(csv.reader([row(b'say "x", y').decode()]))
    assert len(fields) == 13
    assert fields[:4] == ["2026-05-28T20:26:40.123Z", "00000000000000A0", "1", "192.0.2.10:993"]
    assert fields[10] == 'say "x", y'


def test_no_line_can_be_forged() -> None:
    forged = row(b"x\r\n2026-01-01T00:00:00.000Z,fake\x00")
    assert forged.count(b"\n") == 1 and forged.endswith(b"\r\n") and b"\x00" not in forged


def test_roll_over_by_time_and_by_size(tmp_path: Path) -> None:
    log = ProtocolLog(tmp_path, "IMAP4", ImapSettings())
    for hour in range(2):
        log.add(row())
        log.flush(NOW + hour * 3600)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["IMAP42026052820-1.LOG", "IMAP42026052821-1.LOG"]
    head = (tmp_path / "IMAP42026052820-1.LOG").read_bytes().split(b"\r\n")
    assert head[4].startswith(b"#Fields: dateTime,sessionId,seqNumber,sIp,cIp,user,duration,rqsize,rpsize,command,")
    daily = tmp_path / "daily"
    log = ProtocolLog(daily, "IMAP4", ImapSettings(LogFileRollOverSettings=LogFileRollOver.Daily))
    log.add(row())
    log.flush(NOW)
    assert [p.name for p in daily.iterdir()] == ["IMAP420260528-1.LOG"]
    sized = tmp_path / "sized"
    log = ProtocolLog(sized, "IMAP4", ImapSettings(LogPerFileSizeQuota=ByteSize(500)))
    for _ in range(12):
        log.add(row())
        log.flush(NOW)
    assert len(list(sized.iterdir())) > 2
    assert all(p.stat().st_size < 1000 for p in sized.iterdir())


@pytest.mark.parametrize(
    ("kind", "days", "names"),
    [
        (LogFileRollOver.Hourly, 0, ["IMAP42026052820-1.LOG", "IMAP42026052821-1.LOG"]),
        (LogFileRollOver.Daily, 1, ["IMAP420260528-1.LOG", "IMAP420260529-1.LOG"]),
        (LogFileRollOver.Weekly, 4, ["IMAP420260525-1.LOG", "IMAP420260601-1.LOG"]),  # Thursday, the Monday after
        (LogFileRollOver.Monthly, 4, ["IMAP420260501-1.LOG", "IMAP420260601-1.LOG"]),
    ],
)
def test_each_period_begins_a_new_file(tmp_path: Path, kind: LogFileRollOver, days: int, names: list[str]) -> None:
    """LogFileRollOverSettings."""
    log = ProtocolLog(tmp_path, "IMAP4", ImapSettings(LogFileRollOverSettings=kind))
    begin = NOW - NOW % 3600 + 1
    step = days * 86400 or 3600
    for moment in (begin, begin + 60, begin + step, begin + step + 60):
        log.add(row())
        log.flush(moment)
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    assert all(p.read_bytes().count(b",select,") == 2 for p in tmp_path.iterdir())


def test_unlimited_is_one_file_for_ever(tmp_path: Path) -> None:
    """LogPerFileSizeQuota unlimited."""
    settings = ImapSettings(LogPerFileSizeQuota=ByteSize(-1), LogFileRollOverSettings=LogFileRollOver.Hourly)
    log = ProtocolLog(tmp_path, "IMAP4", settings)
    for day in range(40):
        log.add(row())
        log.flush(NOW + day * 86400)
    assert [p.name for p in tmp_path.iterdir()] == ["IMAP4-1.LOG"]
    again = ProtocolLog(tmp_path, "IMAP4", settings)
    again.add(row())
    again.flush(NOW + 50 * 86400)
    assert (tmp_path / "IMAP4-1.LOG").read_bytes().count(b",select,") == 41


def test_retention_removes_old_files_and_only_ours(tmp_path: Path) -> None:
    settings = ImapSettings(LogRetentionAge=TimeSpan(86400), LogDirectoryQuota=ByteSize(2000))
    log = ProtocolLog(tmp_path, "IMAP4", settings)
    for name, age, size in (
        ("IMAP42026052001-1.LOG", 8 * 86400, 10),
        ("IMAP42026052819-1.LOG", 3600, 100),
        ("IMAP42026052818-1.LOG", 7200, 5000),
        ("notes.txt", 99 * 86400, 10),
    ):
        (tmp_path / name).write_bytes(b"x" * size)
        os.utime(tmp_path / name, (NOW - age, NOW - age))
    log.add(row())
    log.flush(NOW)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"IMAP42026052820-1.LOG", "IMAP42026052819-1.LOG", "notes.txt"}


def test_a_full_disk_drops_rows_and_goes_on(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    log = ProtocolLog(blocked, "IMAP4", ImapSettings())
    log.add(row())
    log.flush(NOW)
    assert log.dropped == 1
