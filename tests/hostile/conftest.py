"""One server for all hostile tests: two workers, clear-text logins refused, logs on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.server import Server

USERS = ("alice", "bob", *(f"user{n}" for n in range(8)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Nothing that a client does may make it write a traceback."""
    running = Server(tmp_path_factory.mktemp("hostile"), users=USERS)
    running.start()
    try:
        yield running
        assert "Traceback" not in (running.data / "serve.stderr").read_text()
    finally:
        running.kill()
