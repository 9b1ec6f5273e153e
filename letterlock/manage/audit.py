"""Search-AdminAuditLog: who changed what, when, from which value to which."""

from __future__ import annotations

import datetime
import fnmatch
import json
from typing import Any, Final

from letterlock.base.errors import Malformed
from letterlock.manage.administrators import read_moment
from letterlock.manage.context import Context
from letterlock.manage.filters import RESULT_SIZE, RESULTS
from letterlock.manage.registry import Cmdlet, Parameter, Row, words

_COLUMNS: Final = ("RunDate", "Caller", "CmdletName", "ObjectModified")


def _values(text: str | None) -> Any:
    return json.loads(text) if text else None


def _modified(old: Any, new: Any) -> list[str]:
    """`Name: old -> new` for each property; a value without properties stands for itself."""
    if not isinstance(old, dict) and not isinstance(new, dict):
        return [] if old is None and new is None else [f"{_word(old)} -> {_word(new)}"]
    before, after = (v if isinstance(v, dict) else {} for v in (old, new))
    return [f"{n}: {_word(before.get(n))} -> {_word(after.get(n))}" for n in dict.fromkeys((*before, *after))]


def _word(value: Any) -> str:
    if value is None:
        return "(none)"
    return ",".join(map(_word, value)) if isinstance(value, list) else str(value)


def _row(number: int, at: str, who: str, what: str, old: Any, new: Any) -> Row:
    command, _, target = what.partition(" ")
    before, after = _values(old), _values(new)
    properties = {
        "RunDate": at,
        "Caller": who,
        "CmdletName": command,
        "ObjectModified": target,
        "ModifiedProperties": _modified(before, after),
        "OldValue": json.dumps(before, ensure_ascii=False) if before is not None else "",
        "NewValue": json.dumps(after, ensure_ascii=False) if after is not None else "",
        "Identity": number,
    }
    return Row(properties, _COLUMNS)


def _matches(patterns: list[str], text: str) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(text.lower(), p.lower().replace("[", "[[]")) for p in patterns)


async def search(c: Context, p: dict[str, Any]) -> list[Row]:
    """Newest first."""
    c.check_server(p.get("Server", ""))
    since, until = p.get("StartDate"), p.get("EndDate")
    if since and until and since > until:
        raise Malformed("StartDate: is later than EndDate")
    found: list[Row] = []
    for row in c.config.audit(_text(since), _text(until)):
        made = _row(*row)
        names = [m.partition(":")[0] for m in made.properties["ModifiedProperties"]]
        if (
            _matches(p.get("Cmdlets", []), made.properties["CmdletName"])
            and _matches(p.get("ObjectIds", []), made.properties["ObjectModified"])
            and _matches(p.get("UserIds", []), made.properties["Caller"])
            and (not p.get("Parameters") or any(_matches(p["Parameters"], n) for n in names))
        ):
            found.append(made)
            if len(found) == p.get("ResultSize", RESULTS):
                break
    return found


def _text(moment: datetime.datetime | None) -> str:
    return moment.astimezone(datetime.UTC).isoformat(timespec="milliseconds") if moment else ""


def _patterns(name: str, text: str) -> Parameter:
    return Parameter(name, f"{text} * matches.", words, type_name="String[]")


def _moment(name: str, text: str) -> Parameter:
    return Parameter(name, text, read_moment, type_name="DateTime")


CMDLETS: Final = (
    Cmdlet(
        "Search-AdminAuditLog",
        "Shows who changed what, newest first.",
        search,
        (
            _patterns("Cmdlets", "Only these cmdlets."),
            _patterns("Parameters", "Only changes of these properties."),
            _patterns("ObjectIds", "Only changes of these objects."),
            _patterns("UserIds", "Only changes by these callers."),
            _moment("StartDate", "From then on."),
            _moment("EndDate", "Until then."),
            RESULT_SIZE,
            Parameter("Server", "Which server's."),
        ),
        aliases=("Get-AdminAuditLog",),
    ),
)
