"""The shell at a terminal: lines with history and completion, several lines where one is not finished.

Ctrl-C drops the line, or cancels the command that runs; Ctrl-D or `exit` leaves. The history is a file that only its
owner can read; lines that may hold a password stay out of it (they can be called back until the shell ends).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Any, Final

from prompt_toolkit import PromptSession
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from letterlock.base.errors import LetterlockError, Malformed
from letterlock.faces.completion import ShellCompleter
from letterlock.faces.console import Console
from letterlock.faces.output import clean
from letterlock.faces.shell import Leave, Shell
from letterlock.language.parse import SyntaxFault, parse, unfinished
from letterlock.language.tree import Command, Node, Parameter
from letterlock.manage import CMDLETS
from letterlock.manage.here import Local

PROMPT: Final = "letterlock> "
_SECRETS: Final = ("password", "passwd", "secret", "token", "securestring", "credential", "passphrase")

Open = Callable[[Console], AbstractAsyncContextManager[Local]]


def holds_secret(text: str) -> bool:
    """Whether a line may hold a password: by its words, or because a parameter takes one. In doubt, yes."""
    lowered = text.lower()
    if any(word in lowered for word in _SECRETS):
        return True
    try:
        return any(map(_secret_node, parse(text)))
    except LetterlockError:
        return True


def _secret_node(node: Any) -> bool:
    if isinstance(node, tuple):
        return any(map(_secret_node, node))
    if not isinstance(node, Node):
        return False
    if isinstance(node, Command):
        cmdlet = CMDLETS.get(node.name.lower())
        for argument in node.arguments if cmdlet is not None else ():
            if cmdlet is not None and isinstance(argument, Parameter):
                with suppress(Malformed):
                    if cmdlet.parameter(argument.name).type_name in ("SecureString", "PSCredential"):
                        return True
    return any(_secret_node(getattr(node, name)) for name in node.__slots__)


class History(FileHistory):
    """A file of mode 0600, without what `holds_secret`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        path.chmod(0o600)
        super().__init__(str(path))

    def store_string(self, string: str) -> None:
        """Add a line to the file."""
        if not holds_secret(string):
            super().store_string(string)


def history_path() -> Path:
    """Beside no data directory: `init` wants that one empty."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "letterlock-shell" / "history"


def _history() -> History | None:
    try:
        return History(history_path())
    except OSError as error:
        print(f"letterlock: no history: {history_path()}: {error.strerror}", file=sys.stderr)
        return None


def _bindings() -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def enter(event: KeyPressEvent) -> None:
        """Run what is finished; go on with what is not. An empty line ends it in any case."""
        buffer = event.current_buffer
        last = buffer.document.current_line.strip()
        if last and unfinished(buffer.text) and buffer.document.is_cursor_at_the_end:
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    return bindings


def complain(error: LetterlockError, text: str) -> None:
    """An error line; where the text itself is wrong, the place is shown."""
    print(f"letterlock: error: {clean(error.text)}", file=sys.stderr)
    if isinstance(error, SyntaxFault) and error.place.source.strip():
        print(f"  {clean(error.place.source)}\n  {' ' * (error.place.column - 1)}^", file=sys.stderr)


def run(open_: Open) -> int:
    """Until Ctrl-D or exit."""
    return asyncio.run(_Session(open_).run())


class _Session:
    def __init__(self, open_: Open) -> None:
        self.open = open_
        self.console = Console()
        self.shell = Shell(CMDLETS, self.console)

    async def run(self) -> int:
        """Line by line."""
        session: PromptSession[str] = PromptSession(
            history=_history(),
            completer=ShellCompleter(CMDLETS, self.shell.variables, self._names),
            complete_while_typing=False,
            key_bindings=_bindings(),
            multiline=True,
            prompt_continuation=">> ".rjust(len(PROMPT)),
        )
        while True:
            try:
                text = await session.prompt_async(PROMPT)
            except KeyboardInterrupt:
                continue
            except EOFError:
                return 0
            if text.strip() and not await self._line(text):
                return 0

    async def _line(self, text: str) -> bool:
        """Whether the shell goes on."""
        work = asyncio.ensure_future(self._run(text))
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, work.cancel)
        try:
            await work
        except Leave:
            return False
        except asyncio.CancelledError:
            print("letterlock: cancelled", file=sys.stderr)
        except LetterlockError as error:
            complain(error, text)
        except Exception as error:
            print(f"letterlock: error: {clean(str(error) or type(error).__name__)}", file=sys.stderr)
        finally:
            loop.remove_signal_handler(signal.SIGINT)
        return True

    async def _run(self, text: str) -> None:
        async with self.open(self.console) as self.shell.dispatch:
            await self.shell.run_text(text)

    async def _names(self, cmdlet: str) -> list[dict[str, Any]]:
        with self.console.captured():
            async with self.open(self.console) as dispatch:
                return await dispatch.ask(cmdlet)
