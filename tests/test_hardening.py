"""docs/hardening.md is what happens: every command is run again, and prints what stands there."""

from __future__ import annotations

from pathlib import Path

from tests.hardening import IMAGES, MOST_OCTETS, PAGE, Office, alike, walk
from tests.programs import need


def test_the_walk_through_is_true(tmp_path: Path) -> None:
    need("sh")
    office = Office(tmp_path)
    reports: list[str] = []
    try:
        steps = list(walk(office, lambda _: reports.append((tmp_path / "readiness.html").read_text("utf-8"))))
    finally:
        office.close()
    assert len(steps) >= 14
    for written, now in steps:
        assert alike(now) == alike(written), f"python -m tests.hardening writes it anew:\n{now}"
    before, progress, after = reports
    assert "Not ready yet." in before and "5 clients have to be changed first" in before
    assert "<b>5 → 1</b>" in progress and "judged from here on" in progress
    assert ">Ready.<" in after and "Exception " in after


def test_the_pictures_are_there_and_small() -> None:
    text = PAGE.read_text()
    pictures = sorted(IMAGES.glob("hardening-*.png"))
    assert [p.name for p in pictures] == ["hardening-after.png", "hardening-before.png", "hardening-progress.png"]
    assert all(f"images/{p.name}" in text and p.read_bytes()[:4] == b"\x89PNG" for p in pictures)
    assert sum(p.stat().st_size for p in pictures) < MOST_OCTETS
