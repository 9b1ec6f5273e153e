"""The command line: program commands, every cmdlet as a subcommand, and the shell."""

from __future__ import annotations

import asyncio
import codecs
import difflib
import getpass
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from letterlock import __version__
from letterlock.base.errors import LetterlockError, Malformed
from letterlock.base.values import Secret
from letterlock.faces import confirm, output, remote
from letterlock.faces.console import Console, ask_passwords
from letterlock.manage import CMDLETS
from letterlock.manage.here import Audience, Dispatch, Local
from letterlock.manage.registry import Cmdlet, described

USAGE = """usage: letterlock COMMAND [--data DIR] …

  init --hostname FQDN [--server NAME] [--port-offset N]   make a data directory
  serve [--workers N]                                      run the server
  join --to DIR                                            make another data directory's server known, and this to it
  demo [--check]                                           try everything in a throw-away directory
  shell [-c TEXT]… [-f FILE]                               management shell
  help [CMDLET]                                            parameters of a cmdlet; without one, all cmdlets
  CMDLET [--parameter VALUE]… [--output table|list|json|csv]
  --url https://HOST:PORT --credential USER [--cacert FILE] CMDLET … or shell …   on another machine
  --version
"""


class Program(Protocol):
    """What `app` provides."""

    def init(self, data: Path, hostname: str, server: str | None, port_offset: int) -> None: ...
    def join(self, data: Path, other: Path) -> list[str]: ...
    def serve(self, data: Path, workers: int | None) -> int: ...
    def demo(self, check: bool) -> int: ...
    def dispatcher(self, data: Path, audience: Audience) -> AbstractAsyncContextManager[Dispatch]: ...


def default_data() -> Path:
    """The platform's state directory."""
    if os.name == "posix" and os.getuid() == 0:
        return Path("/var/lib/letterlock")
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "letterlock"


class Options:
    """Words of the command line, read one option at a time."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def take(self, *names: str) -> list[str]:
        """Remove all `--name VALUE` and `--name=VALUE`; their values."""
        values, rest, at = [], [], 0
        while at < len(self.words):
            word = self.words[at]
            name, equals, value = word.partition("=")
            if word in names:
                at += 1
                if at >= len(self.words):
                    raise Malformed(f"{word} needs a value")
                values.append(self.words[at])
            elif equals and name in names:
                values.append(value)
            else:
                rest.append(word)
            at += 1
        self.words = rest
        return values

    def one(self, name: str, default: str | None = None) -> str | None:
        """The last value given."""
        values = self.take(name)
        return values[-1] if values else default

    def flag(self, name: str) -> bool:
        """Whether `name` is there."""
        found = name in self.words
        self.words = [w for w in self.words if w != name]
        return found

    def number(self, name: str, low: int, high: int) -> int | None:
        """A whole number in a range."""
        text = self.one(name)
        if text is None:
            return None
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise Malformed(f"{name}: '{text}' is not allowed; use a number from {low} to {high}")
        return int(text)

    def end(self) -> None:
        """Nothing may be left."""
        if self.words:
            raise Malformed(f"'{self.words[0]}' is not an option here; see: letterlock --help")


def main(words: list[str], program: Program) -> int:
    """Run one command line; the exit status."""
    options = Options(words)
    debug = options.flag("--debug")
    try:
        return _run(options, program)
    except LetterlockError as error:
        if debug:
            raise
        print(f"letterlock: error: {output.clean(error.text)}", file=sys.stderr)
        return 2 if isinstance(error, Malformed) else 1
    except (KeyboardInterrupt, BrokenPipeError):
        return 130
    except Exception as error:
        if debug:
            raise
        print(f"letterlock: error: {output.clean(str(error) or type(error).__name__)} (see --debug)", file=sys.stderr)
        return 1


def _run(options: Options, program: Program) -> int:
    if options.flag("--version"):
        print(f"letterlock {__version__}")
        return 0
    program = remote.reached(options, program)
    data = Path(options.one("--data") or os.environ.get("LETTERLOCK_DATA") or default_data()).absolute()
    if not options.words or options.words[0] in ("--help", "-h"):
        print(USAGE, end="")
        return 0 if options.words else 2
    command = options.words.pop(0)
    commands: dict[str, Callable[[Options, Path, Program], int]] = {
        "init": _init,
        "join": _join,
        "serve": _serve,
        "demo": _demo,
        "shell": _shell,
        "help": _help,
    }
    if command in commands:
        return commands[command](options, data, program)
    return _cmdlet(command, options, data, program)


def _join(options: Options, data: Path, program: Program) -> int:
    """letterlock join."""
    other = options.one("--to")
    options.end()
    if not other:
        raise Malformed("join needs --to DIR, the data directory of the other server")
    names = program.join(data, Path(other).absolute())
    print(f"joined; servers known here besides this one: {', '.join(names)}")
    print("back ends that are running listen for the others after: Restart-Service LetterlockImap4BE, LetterlockPop3BE")
    return 0


def _init(options: Options, data: Path, program: Program) -> int:
    hostname = options.one("--hostname")
    if not hostname:
        raise Malformed("init needs --hostname FQDN, the name that clients connect to")
    server = options.one("--server")
    offset = options.number("--port-offset", 0, 60000) or 0
    options.end()
    program.init(data, hostname, server, offset)
    return 0


def _serve(options: Options, data: Path, program: Program) -> int:
    workers = options.number("--workers", 1, 256)
    options.end()
    return program.serve(data, workers)


def _demo(options: Options, _data: Path, program: Program) -> int:
    check = options.flag("--check")
    options.end()
    return program.demo(check)


def _shell(options: Options, data: Path, program: Program) -> int:
    texts = options.take("-c")
    for name in options.take("-f"):
        texts.append(_script(name))
    options.end()
    if texts or not sys.stdin.isatty():
        return asyncio.run(_texts(texts or [_decoded("standard input", sys.stdin.buffer.read())], data, program))
    from letterlock.faces.interactive import run

    return run(lambda console: local(data, program, console))


def _script(name: str) -> str:
    """A file's text."""
    try:
        return _decoded(name, Path(name).read_bytes())
    except OSError as error:
        raise Malformed(f"{name}: {error.strerror}") from None


def _decoded(name: str, data: bytes) -> str:
    """UTF-8, or UTF-16 with its mark, as Windows PowerShell writes."""
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(f"{name}: octet {error.start} is not {'UTF-16' if wide else 'UTF-8'} text") from None


async def _texts(texts: list[str], data: Path, program: Program) -> int:
    from letterlock.faces.shell import Leave, Shell

    shell = Shell(CMDLETS, Console())
    async with local(data, program, shell.console) as shell.dispatch:
        for text in texts:
            try:
                await shell.run_text(text)
            except Leave:
                break
    return 0


def _help(options: Options, _data: Path, _program: Program) -> int:
    if not options.words:
        for each in sorted({c.name: c.help for c in CMDLETS.values()}.items()):
            print(f"{each[0]:<30} {each[1]}")
        return 0
    print(described(_known(options.words[0])), end="")
    return 0


def _known(name: str) -> Cmdlet:
    """The cmdlet of that name, in any case."""
    cmdlet = CMDLETS.get(name.lower())
    if cmdlet is None:
        near = difflib.get_close_matches(name.lower(), CMDLETS, 1)
        meant = f"did you mean {near[0]}?" if near else "see: letterlock --help and letterlock help"
        raise Malformed(f"'{name}' is not a command; {meant}")
    return cmdlet


def _cmdlet(name: str, options: Options, data: Path, program: Program) -> int:
    cmdlet = _known(name)
    form = options.one("--output", "") or ""
    if form not in ("", "table", "list", "json", "csv"):
        raise Malformed(f"--output: '{form}' is not one of table, list, json, csv")
    named, positional = _parameters(cmdlet, options.words)
    for p in cmdlet.parameters:
        if p.type_name == "PSCredential" and isinstance(named.get(p.name), str):
            named[p.name] = _credential(p.name, named[p.name])
    return asyncio.run(_one(cmdlet, named, positional, form, data, program))


async def _one(
    cmdlet: Cmdlet, named: dict[str, Any], positional: list[Any], form: str, data: Path, program: Program
) -> int:
    console = Console()
    await ask_passwords(cmdlet, named, console)
    async with local(data, program, console) as dispatch:
        items = await confirm.run(cmdlet, named, positional, None, dispatch, console, confirm.Answers())
        console.write(output.render(items, form, console.width))
        _last_words(dispatch, form)
    # a test that failed and a finding that is grave are for monitoring and pipelines to see
    found = [(item["properties"].get("Result"), item["properties"].get("Verdict")) for item in items]
    return 1 if any(result == "Failure" or verdict in ("Fail", "Error") for result, verdict in found) else 0


@asynccontextmanager
async def local(data: Path, program: Program, console: Console) -> AsyncIterator[Local]:
    """Cmdlets that work here stay here; the server, or its data directory, is opened for the first that needs it."""
    async with AsyncExitStack() as stack:
        opened: list[Dispatch] = []

        async def server(name: str, named: dict[str, Any], positional: list[Any], piped: Any) -> list[Any]:
            if not opened:
                opened.append(await stack.enter_async_context(program.dispatcher(data, console)))
            return await opened[0](name, named, positional, piped)

        yield Local(CMDLETS, server, console.message)


def _last_words(dispatch: Local, form: str) -> None:
    """Below a table or list; beside what a program reads."""
    for line in dispatch.last_words:
        print(output.clean(line), file=sys.stderr if form in ("json", "csv") else sys.stdout)
    dispatch.last_words.clear()


def _parameters(cmdlet: Cmdlet, words: list[str]) -> tuple[dict[str, Any], list[Any]]:
    """`--login-type SecureLogin`, `--logintype=SecureLogin`; repeated ones make a list."""
    named: dict[str, Any] = {}
    positional: list[Any] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if not word.startswith("--"):
            positional.append(word)
            continue
        text, equals, value = word[2:].partition("=")
        parameter = cmdlet.parameter(text.replace("-", ""))
        if parameter.switch and not equals:
            named[parameter.name] = True
            continue
        if not equals:
            if at >= len(words):
                raise Malformed(f"--{text} needs a value")
            value = words[at]
            at += 1
        if parameter.name in named:
            old = named[parameter.name]
            named[parameter.name] = [*(old if isinstance(old, list) else [old]), value]
        else:
            named[parameter.name] = value
        while parameter.several and at < len(words) and not words[at].startswith("--"):
            old = named[parameter.name]
            named[parameter.name] = [*(old if isinstance(old, list) else [old]), words[at]]
            at += 1
    if len(positional) > 1 and any(p.several and p.position == 0 for p in cmdlet.parameters):
        positional = [positional]
    return named, positional


def _credential(name: str, user: str) -> dict[str, Any]:
    """A user name of the command line with its password: from the environment, or typed."""
    password = os.environ.get("LETTERLOCK_PASSWORD", "")
    if not password and sys.stdin.isatty():
        password = getpass.getpass(f"Password of {output.clean(user)}: ")
    if not password:
        raise Malformed(f"{name}: the password is asked for on a terminal, or taken from LETTERLOCK_PASSWORD")
    return {"UserName": user, "Password": Secret(password)}
