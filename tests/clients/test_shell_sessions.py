"""Sessions of the shell as they are written down, played against a server and compared line by line.

`transcripts/exchange.txt` are the lines that Exchange's administrators bring along; docs/shell.md is what users read.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.shell_session import Host, parsed, play

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", ["tests/transcripts/exchange.txt", "docs/shell.md"])
def test_sessions_are_as_written(name: str) -> None:
    written = (ROOT / name).read_text().splitlines()
    now = play(ROOT / name).splitlines()
    for number, (old, new) in enumerate(zip(written, now, strict=False), 1):
        assert new == old, f"{name}:{number}"
    assert len(now) == len(written)


def test_a_session_is_read_with_its_continued_lines(tmp_path: Path) -> None:
    session = "### Hidden\nPS> Get-X |\n>>   Select a\nPS> b\nout\n\nmore\n"
    assert parsed(session) == [
        ("### ", "Hidden", ""),
        ("PS> ", "Get-X |\n  Select a", ""),
        ("PS> ", "b", "out\n\nmore\n"),
    ]
    host = Host.__new__(Host)
    host.data, host.offset, host.seen = tmp_path, 21000, {}
    assert host.steady(f"[::]:21143 {tmp_path}/x 2026-11-26T01:02:03+00:00") == (
        "[::]:10143 /srv/mail/x 2027-01-31T08:00:00+00:00"
    )
