"""Asking before a change: with -Confirm, and, on a terminal, before commands that take something away (Remove-…).

The question is what -WhatIf says of the very same command, so it cannot promise something else than what is done.
"""

from __future__ import annotations

from typing import Any

from letterlock.base.errors import Refused
from letterlock.faces.console import Console
from letterlock.manage.here import Dispatch, Item
from letterlock.manage.registry import Cmdlet

_HELP = """Y - go on with this step only.
A - go on with all the steps of this command.
N - leave this step out, and go on with the next.
L - leave out this step and all that follow.
"""
_CHOICES = '[Y] Yes  [A] Yes to All  [N] No  [L] No to All  [?] Help (default is "Y"): '


class Answers:
    """What was answered for all steps of one command."""

    def __init__(self) -> None:
        self.all: bool | None = None


def asks(cmdlet: Cmdlet, named: dict[str, Any], console: Console) -> bool:
    """Whether the command is to be confirmed; `Refused` when it must be, and there is nobody to ask."""
    if not cmdlet.changes or _is(named.get("WhatIf")):
        return False
    wanted = named.get("Confirm")
    if wanted is None:
        return cmdlet.high_impact and console.interactive
    if _is(wanted) and not console.interactive:
        raise Refused(f"{cmdlet.name}: -Confirm asks on a terminal, and there is none; leave it out")
    return _is(wanted)


def _is(value: Any) -> bool:
    return value is True or str(value).strip().lower().lstrip("$") == "true"


async def run(
    cmdlet: Cmdlet,
    named: dict[str, Any],
    positional: list[Any],
    piped: dict[str, Any] | None,
    dispatch: Dispatch,
    console: Console,
    answers: Answers,
) -> list[Item]:
    """Run the cmdlet, after a question where it needs one."""
    if asks(cmdlet, named, console):
        with console.captured() as said:
            await dispatch(cmdlet.name, {**named, "WhatIf": True, "Confirm": False}, positional, piped)
        plan = [line.removeprefix("What if: ") for line in said if line.startswith("What if: ")]
        if plan and not await _agreed(plan, console, answers):
            return []
        named = {**named, "Confirm": False}
    return await dispatch(cmdlet.name, named, positional, piped)


async def _agreed(plan: list[str], console: Console, answers: Answers) -> bool:
    if answers.all is not None:
        return answers.all
    steps = "\n".join(line[:1].upper() + line[1:] + "." for line in plan)
    console.message("\nConfirm\nAre you sure you want to perform this action?".lstrip("\n"))
    for line in steps.split("\n"):
        console.message(line)
    while True:
        try:
            answer = (await console.ask(_CHOICES)).strip().lower()
        except Refused:
            return False
        if answer in ("", "y", "yes", "a", "n", "no", "l"):
            break
        for line in _HELP.splitlines():
            console.message(line)
    if answer in ("a", "l"):
        answers.all = answer == "a"
    return answer in ("", "y", "yes", "a")
