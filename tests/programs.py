"""Programs of the real world that tests talk to."""

from __future__ import annotations

import os
import shutil

import pytest

# Debian keeps servers here, outside the PATH of ordinary users.
SYSTEM_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))


def required() -> bool:
    """Whether a missing program is a failure: in CI, and where LETTERLOCK_REQUIRE_PROGRAMS says so."""
    return os.environ.get("CI", "").lower() == "true" or os.environ.get("LETTERLOCK_REQUIRE_PROGRAMS") == "1"


def need(*names: str) -> None:
    """Skip the test when a program is not installed; fail it when programs are required."""
    missing = [name for name in names if shutil.which(name, path=SYSTEM_PATH) is None]
    if not missing:
        return
    text = f"not installed: {', '.join(missing)}"
    if required():
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def path(name: str) -> str:
    """Where a program is; call `need` first."""
    found = shutil.which(name, path=SYSTEM_PATH)
    assert found is not None, f"not installed: {name}"
    return found
