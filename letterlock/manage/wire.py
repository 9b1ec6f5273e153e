"""Values of a cmdlet's parameters as JSON, for the way to another process or another machine, and back."""

from __future__ import annotations

from typing import Any

from letterlock.base.errors import Malformed
from letterlock.base.values import ListChange, Secret


def plain(value: object) -> object:
    """For json.dumps(default=…). A secret goes in the clear: only over the control socket, or over TLS."""
    if isinstance(value, ListChange):
        return {"ListChange": {"replace": value.replace, "add": value.add, "remove": value.remove}}
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(type(value).__name__)


def rich(value: Any) -> Any:
    """What `plain` made, as it was; `Malformed` when it is not whole."""
    if not isinstance(value, dict) or set(value) != {"ListChange"}:
        return value
    change = value["ListChange"]
    if not isinstance(change, dict):
        raise Malformed("ListChange: an object with add and remove is expected")
    parts = {name: change.get(name) for name in ("replace", "add", "remove")}
    for name, part in parts.items():
        if part is not None and not (isinstance(part, list) and all(isinstance(x, str) for x in part)):
            raise Malformed(f"ListChange: {name} must be a list of texts")
    replace = parts["replace"]
    return ListChange(
        tuple(replace) if replace is not None else None, tuple(parts["add"] or ()), tuple(parts["remove"] or ())
    )
