"""The figures of earlier reports, kept in `NAME.history.json` beside a report, and what changed since the last one.

A history that cannot be read is put aside, never trusted.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Final, NamedTuple

from letterlock.analyze.charts import Curve, curve
from letterlock.analyze.logs_lines import visible
from letterlock.analyze.readiness import Readiness
from letterlock.base.values import Protocol

KEPT: Final = 100  # earlier reports in the history
DRAWN: Final = 60
NAMED: Final = 100
MAX_HISTORY: Final = 16 << 20

Report = dict[str, Any]


def key(address: str, user: str, protocol: Protocol) -> str:
    """A client in the history."""
    return json.dumps([address, user, protocol.value], ensure_ascii=False)


def history_path(target: Path) -> Path:
    """Where the figures of earlier reports to `target` are kept."""
    return target.with_name(target.stem + ".history.json")


def earlier(path: Path) -> tuple[list[Report], str]:
    """Earlier reports, oldest first, and a warning."""
    try:
        if not path.exists():
            return [], ""
        if path.stat().st_size > MAX_HISTORY:
            raise ValueError
        found = json.loads(path.read_text("utf-8"))["reports"]
        for entry in found:
            if not all(isinstance(entry[n], int | float) for n in ("at", "refused", "total", "clients")):
                raise ValueError
            if not all(isinstance(k, str) for k in entry.get("list", {})):
                raise ValueError
        return list(found), ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        with contextlib.suppress(OSError):
            path.replace(path.with_suffix(".unreadable"))
        return [], f"the history {visible(str(path))} could not be read; it was put aside, and progress begins anew"


def with_this(before: list[Report], found: Readiness, now: float) -> str:
    """The history with this report, as it is to be written."""
    left = [(a, u, p, g) for a, u, p, g in found.rows if not g.covered]
    for entry in before:
        entry.pop("list", None)  # only the latest is compared with
    this = {
        "at": now,
        "refused": found.refused,
        "total": found.total,
        "clients": len(left),
        "list": {key(a, u, p): g.logins for a, u, p, g in left},
    }
    return json.dumps({"reports": [*before, this][-KEPT:]}, ensure_ascii=False)


class Progress(NamedTuple):
    """What changed since the last report."""

    since: float
    before: int
    now: int
    new: list[str]
    gone: list[str]
    moved: int  # of those gone, seen logging in over TLS
    covered: int  # of those gone, covered by an exception now
    curve: Curve


def since_last(before: list[Report], found: Readiness, now: float) -> Progress | None:
    """None where there is nothing to compare: logs without a login prove nothing."""
    if not before or not found.total:
        return None
    last = before[-1]
    old = set(last.get("list", {}))
    left = {key(a, u, p) for a, u, p, g in found.rows if not g.covered}
    covered = {key(a, u, p) for a, u, p, g in found.rows if g.covered}
    secure = {key(a, u, p) for a, u, p in found.secure} - covered
    gone = old - left
    counts = [(float(e["at"]), int(e["clients"])) for e in before[-DRAWN:]] + [(now, len(left))]
    return Progress(
        last["at"], int(last["clients"]), len(left), _named(left - old), _named(gone), len(gone & secure),
        len(gone & covered), curve(counts),
    )  # fmt: skip


def _named(keys: set[str]) -> list[str]:
    shown = []
    for text in sorted(keys)[:NAMED]:
        with contextlib.suppress(ValueError, TypeError):
            address, user, protocol = json.loads(text)
            shown.append(f"{address} {user} ({protocol})")
    return shown
