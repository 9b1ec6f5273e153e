"""The management shell: runs the statements of a text over one set of variables.

A text is parsed as a whole before any of it runs: a mistake in its last line changes nothing. Statements then run in
order, and the first that fails ends the text. Objects go through a pipeline from one command to the next; cmdlets are
called once for every object that is piped to them.
"""

from __future__ import annotations

import difflib
from typing import Any, Final

from letterlock.base.errors import LetterlockError, Malformed, Refused
from letterlock.base.values import Secret
from letterlock.faces import confirm, grammar_cache, output
from letterlock.faces.arguments import arguments, travelling
from letterlock.faces.console import Console, ask_passwords
from letterlock.faces.output import Formatted
from letterlock.faces.pipeline import STAGES, Stage
from letterlock.language.evaluate import CONSTANTS, evaluate
from letterlock.language.operators import wildcard
from letterlock.language.parse import parse
from letterlock.language.tree import Assignment, Command, Node, Parameter, Pipeline, ScriptBlock
from letterlock.language.values import Record, to_text
from letterlock.manage.here import Local
from letterlock.manage.registry import Cmdlet, described

MAX_DEPTH: Final = 60  # script blocks and sub-expressions within each other
_READ_ONLY: Final = (*CONSTANTS, "_", "psitem", "args", "input", "error", "matches", "host", "home", "pwd")


class Leave(LetterlockError):
    """exit."""


class Shell:
    """Variables, and what runs a text. `dispatch` is set by whoever has a server or a data directory at hand."""

    def __init__(self, commands: dict[str, Cmdlet], console: Console) -> None:
        self.commands, self.console = commands, console
        self.variables: dict[str, Any] = {}
        self.dispatch: Local | None = None
        self._items: list[Any] = []
        self._depth = 0
        grammar_cache.warm()

    @property
    def width(self) -> int | None:
        """Of the terminal."""
        return self.console.width

    async def run_text(self, text: str) -> None:
        """All statements of `text`, each with its output."""
        try:
            for statement in parse(text):
                self.console.write(output.default(await self._statement(statement), self.width))
                self._last_words()
        except RecursionError:
            raise Malformed("this is nested too deeply") from None
        finally:
            self._items.clear()
            self._depth = 0
            self.console.done()

    def _last_words(self) -> None:
        """What a command says below its objects."""
        if self.dispatch is not None:
            self.console.write("".join(f"{output.clean(line)}\n" for line in self.dispatch.last_words))
            self.dispatch.last_words.clear()

    # --- letterlock.language.evaluate.Scope

    def variable(self, name: str) -> Any:
        """$name."""
        if name in ("_", "psitem"):
            if not self._items:
                raise Malformed("$_ has a value only in a script block of Where-Object, ForEach-Object and the like")
            return self._items[-1]
        if name not in self.variables:
            near = difflib.get_close_matches(name, self.variables, 1)
            raise Malformed(f"there is no variable ${name}" + (f"; did you mean ${near[0]}?" if near else ""))
        return self.variables[name]

    def property(self, name: str) -> Any:
        """Only filters have properties without $_."""
        raise Malformed(f"'{name}' is not a value; write $_.{name}")

    async def run(self, statements: tuple[Node, ...]) -> list[Any]:
        """The statements of a sub-expression."""
        found: list[Any] = []
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Malformed("this is nested too deeply")
        for statement in statements:
            found += await self._statement(statement)
        self._depth -= 1
        return found

    # --- letterlock.faces.choosing.Shell

    async def block(self, block: ScriptBlock, item: Any) -> list[Any]:
        """A script block, with `item` as $_."""
        self._items.append(item)
        try:
            return await self.run(block.statements)
        finally:
            if self._items:
                self._items.pop()

    def write(self, text: str) -> None:
        """At once."""
        self.console.write(text)

    async def ask(self, question: str) -> str:
        """A line."""
        return await self.console.ask(question)

    async def secret(self, question: str) -> str:
        """A password."""
        return await self.console.secret(question)

    def help(self, name: str) -> str:
        """A command's parameters, or all commands."""
        if not name or "*" in name:
            pattern = wildcard(name or "*")
            known = {c.name: c.help for c in (*self.commands.values(), *(s.cmdlet for s in STAGES.values()))}
            return "".join(f"{n:<30} {h}\n" for n, h in sorted(known.items()) if pattern.match(n))
        return described(self.find(name)[0])

    # --- statements

    def find(self, name: str) -> tuple[Cmdlet, Stage | None]:
        """A command by its name or alias; `Malformed` says which was meant."""
        stage = STAGES.get(name.lower())
        if stage is not None:
            return stage.cmdlet, stage
        cmdlet = self.commands.get(name.lower())
        if cmdlet is not None:
            return cmdlet, None
        near = difflib.get_close_matches(name.lower(), [*self.commands, *STAGES], 1)
        meant = (self.commands.get(near[0]) or STAGES[near[0]].cmdlet).name if near else ""
        raise Malformed(f"'{name}' is not a command" + (f"; did you mean {meant}?" if meant else ""))

    async def _statement(self, statement: Node) -> list[Any]:
        if isinstance(statement, Assignment):
            return await self._assign(statement)
        return await self._pipeline(statement) if isinstance(statement, Pipeline) else []

    async def _assign(self, statement: Assignment) -> list[Any]:
        if statement.name in _READ_ONLY:
            raise Malformed(f"${statement.name} cannot be set")
        if isinstance(statement.value, Assignment):
            await self._assign(statement.value)
            value = self.variables[statement.value.name]
        else:
            found = await self._statement(statement.value)
            if any(isinstance(v, Formatted) for v in found):
                raise Malformed("Format-List and Format-Table make text for people; assign the objects themselves")
            whole = len(found) > 1 or _is_array(statement.value)
            value = found if whole else found[0] if found else None
        self.variables[statement.name] = value
        return []

    async def _pipeline(self, pipeline: Pipeline) -> list[Any]:
        values: list[Any] | None = None
        for element in pipeline.elements:
            if isinstance(element, Command):
                values = await self._command(element, values)
            else:
                value = await evaluate(element, self)
                values = value if isinstance(value, list) else [] if value is None else [value]
        return values or []

    async def _command(self, command: Command, piped: list[Any] | None) -> list[Any]:
        if command.name.lower() in ("exit", "quit") and piped is None:
            raise Leave("")
        cmdlet, stage = self.find(command.name)
        if piped and any(isinstance(v, Formatted) for v in piped) and not command.name.lower().startswith("out-"):
            raise Malformed(f"{command.name}: Format-List and Format-Table must be the last command of a pipeline")
        if stage is not None:
            return await self._stage(stage, command, piped)
        command, action = await self._error_action(command, cmdlet)
        named, positional = await travelling(command, cmdlet, self._argument)
        await ask_passwords(cmdlet, named, self.console)
        answers = confirm.Answers()
        found: list[Any] = []
        for item in [None] if piped is None else piped:
            source = None if item is None else _piped(item)
            try:
                found += await self._call(cmdlet, dict(named), positional, source, answers)
            except Refused as error:
                if action == "stop":
                    raise
                if action == "continue":
                    self.console.message(f"ERROR: {error.text}")
        return found

    async def _error_action(self, command: Command, cmdlet: Cmdlet) -> tuple[Command, str]:
        """-ErrorAction, which every cmdlet has in the shell: whether what a server refuses ends the text."""
        arguments = list(command.arguments)
        for at, node in enumerate(arguments):
            if isinstance(node, Parameter) and node.name.lower() in ("erroraction", "ea"):
                following = arguments[at + 1 : at + 2] if node.value is None else [node.value]
                text = to_text(await self._argument(following[0])) if following else ""
                action = {"ignore": "silentlycontinue"}.get(text.lower(), text.lower())
                if action not in ("stop", "continue", "silentlycontinue"):
                    raise Malformed(
                        f"{cmdlet.name}: ErrorAction: '{text}' is not one of the allowed values: "
                        "Stop, Continue, SilentlyContinue, Ignore"
                    )
                del arguments[at : at + (1 if node.value is not None else 2)]
                return Command(command.at, command.end, command.name, tuple(arguments)), action
        return command, "stop"

    async def _argument(self, node: Node) -> Any:
        return await evaluate(node, self)

    async def _call(
        self, cmdlet: Cmdlet, named: dict[str, Any], positional: list[Any], piped: Any, answers: confirm.Answers
    ) -> list[Any]:
        if self.dispatch is None:
            raise Malformed(f"{cmdlet.name}: there is no server")
        items = await confirm.run(cmdlet, named, positional, piped, self.dispatch, self.console, answers)
        self.console.done()
        return [Record.of(item) for item in items]

    async def _stage(self, stage: Stage, command: Command, piped: list[Any] | None) -> list[Any]:
        named, positional = await arguments(command, stage.cmdlet, self._argument)
        bound = stage.cmdlet.bind(named, positional, None)
        if piped is None and not stage.first:
            if "InputObject" not in bound:
                raise Malformed(f"{command.name} needs something piped to it")
            given = bound["InputObject"]
            piped = given if isinstance(given, list) else [given]
        return await stage.run(self, piped or [], bound)


def _is_array(node: Node) -> bool:
    """`@( … )` stays a list, whatever is in it."""
    element = node.elements[0] if isinstance(node, Pipeline) and len(node.elements) == 1 else None
    return bool(getattr(element, "array", False))


def _piped(item: Any) -> dict[str, Any]:
    """What a cmdlet's parameters take from a piped value."""
    if isinstance(item, Record):
        return {n: v for n, v in item.properties.items() if not isinstance(v, Secret | Record)}
    if isinstance(item, dict | ScriptBlock | Secret | list):
        raise Malformed("only objects and texts can be piped to a command")
    return {"Identity": to_text(item)}
