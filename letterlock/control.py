"""The control socket of a data directory: cmdlets from the command line to the server that runs, and its answers.

Only the directory's owner can open it. A line of JSON is a request (name, named, positional, piped); the answer is a
line with `objects` or `error`, and `messages`; before it there may be lines with `progress`. A client that goes away
cancels its command, which ends where it reports how far it is, between two steps that are each whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from letterlock.base.errors import LetterlockError, Malformed, Refused
from letterlock.manage.context import Context
from letterlock.manage.here import Audience, Dispatch
from letterlock.manage.registry import Cmdlet, invoke
from letterlock.manage.wire import plain, rich

MAX_REQUEST: Final = 1 << 20
MAX_ANSWER: Final = 1 << 26
PROGRESS_S: Final = 0.1  # between two lines on how far a command is


def who(uid: int | None = None) -> str:
    """Who acts, for the audit trail: this process, or the one at the other end of the control socket."""
    uid = os.getuid() if uid is None else uid
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _peer(writer: asyncio.StreamWriter) -> str:
    sock = writer.get_extra_info("socket")
    if not hasattr(socket, "SO_PEERCRED") or sock is None:
        return who()
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return who(struct.unpack("3i", credentials)[1])


@contextlib.contextmanager
def socket_path(data: Path) -> Iterator[str]:
    """A path below the 107 bytes of a socket address, through a directory descriptor where DIR is long."""
    path = data / "control.sock"
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    descriptor = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/control.sock"
    finally:
        os.close(descriptor)


async def connect(data: Path) -> Connection | None:
    """The running server of that data directory; None when there is none."""
    with contextlib.suppress(OSError), socket_path(data) as path:
        return Connection(*await asyncio.open_unix_connection(path, limit=MAX_ANSWER))
    return None


class Connection:
    """The side of whoever asks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def close(self) -> None:
        """A command that still runs is cancelled."""
        self._writer.close()

    def dispatcher(self, audience: Audience, on_behalf_of: str = "") -> Dispatch:
        """Cmdlets run in the server. `on_behalf_of`: who has asked another server, for the audit trail of this one."""

        async def remote(name: str, named: dict[str, Any], positional: list[Any], piped: Any) -> list[Any]:
            request = {"name": name, "named": named, "positional": positional, "piped": piped, "for": on_behalf_of}
            self._writer.write(json.dumps(request, default=plain).encode() + b"\n")
            while "progress" in (answer := json.loads(await self._reader.readline() or b"{}")):
                audience.progress(*answer["progress"])
            for message in answer.get("messages", []):
                audience.message(message)
            return _answered(answer)

        return remote


class Heard:
    """An audience that only remembers what is said."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        """Kept."""
        self.messages.append(text)

    def progress(self, activity: str, done: int, total: int) -> None:
        """Nobody sees it."""


def _answered(answer: dict[str, Any]) -> list[Any]:
    error = answer.get("error")
    if error:
        raise (Malformed if error["kind"] == "malformed" else Refused)(error["text"])
    if "objects" not in answer:
        raise Refused("the server ended before it answered")
    return list(answer["objects"])


class Control:
    """Answers cmdlets over the control socket, which only its owner can open."""

    def __init__(
        self,
        commands: Mapping[str, Cmdlet],
        context: Callable[[str], Context],
        incident: Callable[[BaseException], None],
    ) -> None:
        self.commands, self.context, self.incident = commands, context, incident

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client: a line of JSON a request; lines of JSON on progress, and one with the answer.

        A client that goes away cancels its command, which ends where it reports how far it is.
        """
        following: asyncio.Task[bytes] | None = None
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ValueError):
            while line := await (following or reader.readline()):
                context = self._context(writer)
                work = asyncio.create_task(self._answer(line, context))
                following = asyncio.create_task(reader.readline())
                following.add_done_callback(lambda t: None if t.cancelled() else t.exception() and None)
                await asyncio.wait({work, following}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done() and _ended(following):
                    context.cancelled = True
                writer.write(json.dumps(await work).encode() + b"\n")
                await writer.drain()
        if following is not None:
            following.cancel()
        writer.close()

    def _context(self, writer: asyncio.StreamWriter) -> Context:
        shown = 0.0

        def progress(activity: str, done: int, total: int) -> None:
            nonlocal shown
            now = asyncio.get_running_loop().time()
            if now - shown >= PROGRESS_S and not writer.is_closing():
                shown = now
                writer.write(json.dumps({"progress": [activity, done, total]}).encode() + b"\n")

        found = self.context(_peer(writer))
        found.progress = progress
        return found

    async def _answer(self, line: bytes, context: Context) -> dict[str, Any]:
        try:
            request = json.loads(line)
            named = {str(k): rich(v) for k, v in request["named"].items()}
            positional = [rich(v) for v in request["positional"]]
            if request.get("for"):
                context.who = f"{str(request['for'])[:200]} through {context.who}"
            rows = await invoke(self.commands, context, str(request["name"]), named, positional, request["piped"])
        except LetterlockError as error:
            kind = "malformed" if isinstance(error, Malformed) else "refused"
            return {"messages": context.messages, "error": {"kind": kind, "text": error.text}}
        except Exception as error:
            self.incident(error)
            text = "internal error; the server's error output has the details"
            return {"messages": context.messages, "error": {"kind": "refused", "text": text}}
        return {"messages": context.messages, "objects": [row.wire() for row in rows]}


def _ended(reading: asyncio.Task[bytes]) -> bool:
    """Whether the client has gone away."""
    return reading.done() and (reading.cancelled() or reading.exception() is not None or not reading.result())
