"""Cmdlets that work where the command line runs: they read the caller's files and standard input, and show progress.

A cmdlet with `here` is not sent to the server. What it needs from the server it asks through ordinary cmdlets, so it
works beside a running server, without one, against another machine, and, where it is given files, without any data
directory. `Local` stands between a face and its dispatcher; `last_words` are lines that come after a cmdlet's objects.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from letterlock.base.errors import Malformed
from letterlock.manage.registry import Cmdlet

Item = dict[str, Any]
Dispatch = Callable[[str, dict[str, Any], list[Any], dict[str, Any] | None], Awaitable[list[Item]]]


class Audience(Protocol):
    """Who asked: is shown what a command says, and how far it is."""

    def message(self, text: str) -> None: ...
    def progress(self, activity: str, done: int, total: int) -> None: ...


@dataclass(slots=True)
class Local:
    """A dispatcher that keeps some cmdlets here. `warn` shows a line to the person."""

    commands: Mapping[str, Cmdlet]
    server: Dispatch
    warn: Callable[[str], None]
    last_words: list[str] = field(default_factory=list)

    async def __call__(
        self, name: str, named: dict[str, Any], positional: list[Any], piped: dict[str, Any] | None = None
    ) -> list[Item]:
        """Run a cmdlet here or there; its objects as `Row.wire` makes them."""
        cmdlet = self.commands.get(name.lower())
        if cmdlet is None or cmdlet.here is None:
            return await self.server(name, named, positional, piped)
        bound = cmdlet.bind(named, positional, piped)
        try:
            rows = await cmdlet.here(self, bound)
        except Malformed as error:
            text = error.text if error.text.startswith(cmdlet.name) else f"{cmdlet.name}: {error.text}"
            raise Malformed(text) from None
        return [row.wire() for row in rows]

    async def ask(self, name: str) -> list[dict[str, Any]]:
        """What another cmdlet answers: its objects' properties."""
        return [item["properties"] for item in await self(name, {}, [], None)]
