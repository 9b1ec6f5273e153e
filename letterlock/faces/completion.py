"""What Tab offers in the interactive shell: commands, parameters, values, names that the server knows, variables.

What is being typed is found by a few rules over the text before the cursor, not by the grammar: it is unfinished.
Names are asked of the server (mailboxes, services, certificates, servers) and kept for a few seconds.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any, Final, NamedTuple

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from letterlock.base.errors import LetterlockError
from letterlock.faces.pipeline import STAGES
from letterlock.language.values import Record
from letterlock.manage.registry import Cmdlet, Parameter

KEPT_S: Final = 5.0
_WORD: Final = re.compile(r"\"[^\"]*\"?|'[^']*'?|[^\s;|(){}\"']+|[;|(){}\n]")
_BEGINS: Final = ("|", ";", "(", "{", "\n")
# whose values a parameter takes: (cmdlet that lists them, property)
_NAMES: Final[dict[str, tuple[str, str]]] = {
    "mailbox": ("Get-Mailbox", "PrimarySmtpAddress"),
    "user": ("Get-Mailbox", "PrimarySmtpAddress"),
    "thumbprint": ("Get-ExchangeCertificate", "Thumbprint"),
    "server": ("Get-ExchangeServer", "Name"),
    "computername": ("Get-ExchangeServer", "Name"),
    "clientaccessserver": ("Get-ExchangeServer", "Name"),
}

_PROPERTIES: Final = ("Property", "ExpandProperty", "ExcludeProperty", "MemberName")

# cmdlet → its objects' properties
Ask = Callable[[str], Awaitable[list[dict[str, Any]]]]


class Typing(NamedTuple):
    """What stands before the cursor: the command, its words so far, the word that is being typed, and what is piped."""

    command: str
    before: list[str]
    word: str
    source: str = ""  # the first command of the pipeline, where this is a later one


def typing(text: str) -> Typing:
    """Take the text before the cursor apart."""
    words = _WORD.findall(text)
    unfinished = bool(words) and bool(text) and not text[-1].isspace() and words[-1] not in _BEGINS
    word = words.pop() if unfinished else ""
    start = max((i for i, w in enumerate(words) if w in _BEGINS), default=-1) + 1
    element = words[start:]
    first = max((i for i, w in enumerate(words[:start]) if w in _BEGINS and w not in "|{("), default=-1) + 1
    pipeline = words[first : start - 1] if start else []
    if len(pipeline) > 1 and pipeline[0].startswith("$") and pipeline[1] == "=":
        pipeline = pipeline[2:]
    if len(element) > 1 and element[0].startswith("$") and element[1] == "=":
        element = element[2:]
    return Typing(element[0] if element else "", element[1:], word, pipeline[0] if pipeline else "")


def allowed(parameter: Parameter) -> list[str]:
    """The values that a declaration names."""
    if " | " in parameter.type_name:
        return parameter.type_name.split(" | ")
    if parameter.type_name in ("Boolean", "Switch"):
        return ["$true", "$false"]
    return []


class ShellCompleter(Completer):
    """Completion over the command tables, the shell's variables and what the server knows."""

    def __init__(self, commands: dict[str, Cmdlet], variables: dict[str, Any], ask: Ask) -> None:
        self.commands, self.variables, self.ask = commands, variables, ask
        self._known: dict[str, tuple[float, list[dict[str, Any]]]] = {}

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """Nothing without an event loop."""
        return ()

    async def get_completions_async(
        self, document: Document, complete_event: CompleteEvent
    ) -> AsyncGenerator[Completion, None]:
        """For Tab."""
        found = typing(document.text_before_cursor)
        for value in await self.offered(found):
            start = len(found.word.rpartition(",")[2]) if "," in found.word else len(found.word)
            yield Completion(_quoted(value), start_position=-start)

    async def offered(self, t: Typing) -> list[str]:
        """What may stand in place of the word, in order."""
        if t.word.startswith("$"):
            return self._variables(t.word)
        if not t.command:
            names = {c.name for c in self.commands.values()} | {s.cmdlet.name for s in STAGES.values()}
            return sorted(n for n in names if n.lower().startswith(t.word.lower()))
        stage = STAGES.get(t.command.lower())
        cmdlet = stage.cmdlet if stage is not None else self.commands.get(t.command.lower())
        if cmdlet is None:
            return []
        if t.word.startswith("-"):
            wanted = t.word[1:].lower()
            return [f"-{p.name}" for p in cmdlet.all_parameters if p.name.lower().startswith(wanted)]
        parameter = _meant(cmdlet, t.before)
        if parameter is None:
            return []
        typed = t.word.rpartition(",")[2].lstrip("\"'").lower()
        if stage is not None and parameter.name in _PROPERTIES:
            values = await self._properties(t.source)
        else:
            values = allowed(parameter) or await self._named(cmdlet, parameter)
        return [v for v in values if v.lower().startswith(typed)]

    def _variables(self, word: str) -> list[str]:
        name, dot, rest = word[1:].partition(".")
        if not dot:
            names = sorted({*self.variables, "true", "false", "null"})
            return [f"${n}" for n in names if n.startswith(name.lower())]
        value = self.variables.get(name.lower())
        value = value[0] if isinstance(value, list) and value else value
        names = list(value.properties) if isinstance(value, Record) else []
        return [f"${name}.{n}" for n in names if n.lower().startswith(rest.lower())]

    async def _named(self, cmdlet: Cmdlet, parameter: Parameter) -> list[str]:
        source = _NAMES.get(parameter.name.lower())
        noun = cmdlet.name.partition("-")[2]
        if parameter.name == "Name" and noun == "Service":
            source = ("Get-Service", "Name")
        elif source is None and parameter.name in ("Identity", "Name") and not cmdlet.name.startswith("New-"):
            source = self._own_names(noun, parameter.name)
        if source is None:
            return []
        return [str(row[source[1]]) for row in await self._rows(source[0]) if row.get(source[1])]

    def _own_names(self, noun: str, name: str) -> tuple[str, str] | None:
        """Get-NOUN lists what NOUN's other cmdlets take."""
        if "Mailbox" in noun:
            return ("Get-Mailbox", "PrimarySmtpAddress")
        get = self.commands.get(f"get-{noun.lower()}")
        return (get.name, name) if get is not None else None

    async def _properties(self, source: str) -> list[str]:
        """What a listing command's objects have; nothing is run that changes something or needs more to be said."""
        if source.startswith("$"):
            value = self.variables.get(source[1:].lower())
            value = value[0] if isinstance(value, list) and value else value
            return list(value.properties) if isinstance(value, Record) else []
        cmdlet = self.commands.get(source.lower())
        if (
            cmdlet is None
            or not cmdlet.name.startswith("Get-")
            or cmdlet.here
            or any(p.mandatory for p in cmdlet.parameters)
        ):
            return []
        rows = await self._rows(cmdlet.name)
        return list(rows[0]) if rows else []

    async def _rows(self, name: str) -> list[dict[str, Any]]:
        now = time.monotonic()
        if name not in self._known or now - self._known[name][0] > KEPT_S:
            try:
                rows = await self.ask(name)
            except LetterlockError:
                rows = []
            self._known[name] = (now, rows)
        return self._known[name][1]


def _meant(cmdlet: Cmdlet, before: list[str]) -> Parameter | None:
    """The parameter whose value is being typed: the one just named, or the next by position."""
    if before and before[-1].startswith("-"):
        try:
            parameter = cmdlet.parameter(before[-1][1:].rstrip(":"))
        except LetterlockError:
            return None
        if not parameter.switch:
            return parameter
    given, named = 0, set()
    for at, word in enumerate(before):
        if word.startswith("-"):
            named.add(word[1:].lower())
        elif at == 0 or not before[at - 1].startswith("-"):
            given += 1
    places = sorted((p for p in cmdlet.parameters if p.position >= 0), key=lambda p: p.position)
    free = [p for p in places if p.name.lower() not in named]
    return free[given] if given < len(free) else None


def _quoted(value: str) -> str:
    """With quotes where a bare word would end too early."""
    return "'" + value.replace("'", "''") + "'" if re.search(r"[\s;|,(){}&<>'\"`]", value) else value
