"""The person at the terminal: what is written to them, what they are asked, and how far a long command is.

Objects go to standard output, everything else to standard error. Nobody is asked where there is no terminal.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

from letterlock.base.errors import Refused
from letterlock.base.values import Secret
from letterlock.faces.output import clean
from letterlock.manage.registry import Cmdlet

_COLOURS = {"ERROR": "31", "WARNING": "33", "VERBOSE": "36", "What if": "36"}


class Console:
    """Standard output, standard error, and the terminal where there is one."""

    def __init__(self) -> None:
        self._captured: list[str] | None = None
        self._bar: Any = None
        self._task: Any = None

    @property
    def width(self) -> int | None:
        """Characters of a line; None where output goes elsewhere than to a terminal, and nothing is cut."""
        return shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    @property
    def interactive(self) -> bool:
        """Whether somebody can be asked."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def write(self, text: str) -> None:
        """To standard output."""
        self.done()
        sys.stdout.write(text)
        sys.stdout.flush()

    def message(self, text: str) -> None:
        """A warning, or what a command says with -Verbose and -WhatIf."""
        if self._captured is not None:
            self._captured.append(text)
            return
        self.done()
        sys.stdout.flush()
        line = clean(text)
        colour = _COLOURS.get(text.partition(":")[0])
        if colour and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
            line = f"\x1b[{colour}m{line}\x1b[0m"
        print(line, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def captured(self) -> Iterator[list[str]]:
        """Messages are collected instead of shown."""
        before, self._captured = self._captured, []
        try:
            yield self._captured
        finally:
            self._captured = before

    def progress(self, activity: str, done: int, total: int) -> None:
        """How far a command is; a bar on a terminal, nothing elsewhere. `total` 0: nobody knows."""
        if not sys.stderr.isatty() or self._captured is not None:
            return
        if self._bar is None:
            from rich.console import Console as Terminal
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Terminal(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        self._bar.update(self._task, description=clean(activity), completed=done, total=total or None)

    def done(self) -> None:
        """The command is over: its bar goes."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    async def ask(self, question: str, hidden: bool = False) -> str:
        """A line that is typed; `Refused` where there is no terminal."""
        if not self.interactive:
            what = f" ('{clean(question).strip()}')" if question.strip() else ""
            raise Refused(f"there is no terminal to ask on{what}")
        from prompt_toolkit import PromptSession
        from prompt_toolkit.output import create_output

        self.done()
        sys.stdout.flush()
        session: PromptSession[str] = PromptSession(output=create_output(stdout=sys.stderr))
        try:
            return await session.prompt_async(question, is_password=hidden)
        except EOFError:
            raise Refused("nothing was answered") from None

    async def secret(self, question: str) -> str:
        """A password; nothing is shown."""
        text = await self.ask(question, True)
        if not text:
            raise Refused("nothing was typed")
        return text


async def ask_passwords(cmdlet: Cmdlet, named: dict[str, Any], console: Console) -> None:
    """A password that is needed and not given is asked for on a terminal."""
    for p in cmdlet.parameters:
        if p.type_name == "SecureString" and p.mandatory and p.name not in named and console.interactive:
            named[p.name] = Secret(await console.secret(f"{p.name}: "))
