"""The house's order: who may import whom, and which rooms know no I/O (CONTRIBUTING.md has the table)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import letterlock

HOUSE = Path(letterlock.__file__).parent

GROUND = {"base", "mail", "policy", "sasl", "tls"}
PROTOCOLS = {"imap", "pop3"}
MAY_IMPORT: dict[str, set[str]] = {
    "base": set(),
    "mail": {"base"},
    "policy": {"base"},
    "sasl": {"base", "policy"},
    "tls": {"base"},
    "store": {"base", "mail"},
    "session": {"base", "policy", "store.api"},
    "imap": {"base", "mail", "policy", "sasl", "session", "store.api"},
    "pop3": {"base", "mail", "policy", "sasl", "session", "store.api"},
    "directory": {"base", "policy", "sasl", "tls", "store", "session"},
    "runtime": GROUND | PROTOCOLS | {"store", "session", "directory"},
    "clients": {"base", "sasl", "imap.grammar"},
    "probe": {"base", "clients", "tls"},
    "analyze": {"base", "policy", "tls"},
    "transfer": {"base", "store", "directory", "clients", "probe", "imap.grammar"},
    "language": {"base"},
    "manage": {"base", "language", "policy", "directory", "store", "mail", "clients", "probe", "analyze", "transfer"},
    "faces": {"base", "language", "manage"},
    "control": {"base", "manage"},
    "demo": {"base", "mail", "store.api"},
}
KNOWS_EVERYBODY = {"app", "__main__"}
SANS_IO = ("base", "language", "mail", "policy", "sasl", "session", "imap", "pop3", "clients", "store.api")
IO_MODULES = {
    "asyncio",
    "socket",
    "ssl",
    "threading",
    "sqlite3",
    "apsw",
    "os",
    "time",
    "logging",
    "uvloop",
    "subprocess",
}


def modules() -> list[tuple[str, Path]]:
    """Every module as a dotted name below the package, and its file."""
    found = []
    for path in sorted(HOUSE.rglob("*.py")):
        parts = list(path.relative_to(HOUSE).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        if parts:
            found.append((".".join(parts), path))
    return found


def imports(path: Path) -> set[str]:
    """Absolute names that a file imports, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def room(name: str) -> str:
    """The room a dotted name belongs to."""
    return name.split(".")[0]


@pytest.mark.parametrize(("name", "path"), modules(), ids=[m[0] for m in modules()])
def test_imports_only_the_layers_below(name: str, path: Path) -> None:
    if room(name) in KNOWS_EVERYBODY:
        return
    allowed = MAY_IMPORT[room(name)]
    for imported in imports(path):
        if not imported.startswith("letterlock."):
            continue
        target = imported.removeprefix("letterlock.")
        if room(target) == room(name) or target == "__version__":
            continue
        fits = any(target == a or target.startswith(a + ".") for a in allowed)
        assert fits, f"{name} may not import {imported}; allowed: {', '.join(sorted(allowed))}"


@pytest.mark.parametrize(("name", "path"), modules(), ids=[m[0] for m in modules()])
def test_protocols_know_no_io(name: str, path: Path) -> None:
    if not any(name == s or name.startswith(s + ".") for s in SANS_IO):
        return
    used = {i.split(".")[0] for i in imports(path)} & IO_MODULES
    assert not used, f"{name} imports {', '.join(sorted(used))}"
