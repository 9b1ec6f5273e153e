"""Servers that tests of real clients share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.server import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Two mailboxes, all services running."""
    running = Server(tmp_path)
    running.start()
    try:
        yield running
        errors = (running.data / "serve.stderr").read_text()
        assert "Traceback" not in errors, errors
    finally:
        running.kill()
