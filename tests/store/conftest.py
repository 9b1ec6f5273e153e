"""Engines for the contract tests, and async test functions."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from letterlock.store.sqlite import SqliteStore
from tests.store.support import Engine


@pytest.fixture(params=["threads", "inline"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Every engine there is; PostgreSQL joins this list."""
    inline = request.param == "inline"
    yield Engine(lambda notify, **options: SqliteStore(tmp_path / "boxes", notify, inline=inline, **options))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run async tests; close the stores they opened in the same loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def run() -> None:
        try:
            await pyfuncitem.obj(**wanted)
        finally:
            for value in wanted.values():
                if isinstance(value, Engine):
                    for store in value.opened:
                        await store.close()

    asyncio.run(run())
    return True
