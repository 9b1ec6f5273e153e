"""What the cmdlets that read logs share: their parameters, where the logs are, and running the analysis.

Files given with -Path are read where the command line runs; otherwise the server's own protocol logs are read. The
analysis never runs in the server's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, NamedTuple

from letterlock.analyze import logs
from letterlock.analyze.logs_exchange import Ports
from letterlock.base.errors import Malformed, Refused
from letterlock.base.settings import ImapSettings, PopSettings
from letterlock.base.values import Binding
from letterlock.base.values import Protocol as MailProtocol
from letterlock.manage.context import Context
from letterlock.manage.here import Local
from letterlock.manage.registry import Parameter, boolean, words

SHOWN: Final = {
    MailProtocol.IMAP4: "Imap", MailProtocol.POP3: "Pop", MailProtocol.SMTP: "Smtp", MailProtocol.SIEVE: "Sieve",
}  # fmt: skip


class Logs(NamedTuple):
    """What is to be read, and how."""

    patterns: list[str]
    options: logs.Options
    own: bool = False


# --- parameters


def moment(value: Any) -> float:
    """A date, a time (UTC where no zone is given), or an age such as `7d`, `12h`, `30m`; seconds since 1970."""
    text = str(value).strip()
    if text[:-1].isascii() and text[:-1].isdigit() and text[-1:].lower() in ("d", "h", "m") and len(text) < 7:
        age = int(text[:-1]) * {"d": 86400, "h": 3600, "m": 60}[text[-1].lower()]
        return datetime.datetime.now(datetime.UTC).timestamp() - age
    try:
        at = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise Malformed(
            f"'{text}' is not a time; use 2026-03-02, 2026-03-02T08:15, or an age such as 7d, 12h, 30m"
        ) from None
    return (at if at.tzinfo else at.replace(tzinfo=datetime.UTC)).timestamp()


def protocols(value: Any) -> frozenset[MailProtocol]:
    """Imap, Pop, Smtp, Sieve."""
    found = set()
    for word in words(value):
        match = [p for p, name in SHOWN.items() if word.lower() in (name.lower(), p.value.lower())]
        if not match:
            raise Malformed(f"'{word}' is not one of {', '.join(SHOWN.values())}")
        found.add(match[0])
    return frozenset(found)


def paths(value: Any) -> list[str]:
    """A list, or a comma list; a file whose name has a comma is found as it stands."""
    if isinstance(value, list | tuple):
        return [str(v) for v in value]
    return [str(value)] if Path(str(value)).exists() else words(value)


def choice(allowed: tuple[str, ...]) -> Any:
    """Reads one of some words, without case."""

    def read(value: Any) -> str:
        for name in allowed:
            if str(value).strip().lower() == name.lower():
                return name
        raise Malformed(f"'{value}' is not one of {', '.join(allowed)}")

    return read


def _bindings(value: Any) -> frozenset[int]:
    """Ports of bindings, or plain port numbers."""
    found = set()
    for word in words(value):
        if word.isascii() and word.isdigit() and len(word) < 6 and 0 < int(word) < 65536:
            found.add(int(word))
        else:
            found.add(Binding.parse(word).port)
    return frozenset(found)


def _options(p: dict[str, Any], implicit: frozenset[int], clear: frozenset[int]) -> logs.Options:
    usual = Ports()
    implicit |= p.get("SSLBindings", frozenset())
    clear |= p.get("UnencryptedOrTLSBindings", frozenset())
    ports = Ports((usual.implicit - clear) | implicit, (usual.clear - implicit) | clear, usual.back - implicit - clear)
    since, until = p.get("Since", float("-inf")), p.get("Until", float("inf"))
    if since >= until:
        raise Malformed("Since lies after Until")
    return logs.Options(p.get("Format", "auto"), since, until, ports)


# --- where the logs are


def _own(folders: list[tuple[str, str]]) -> list[str]:
    """The server's own logs: (folder, prefix of the files)."""
    found = [str(f) for folder, prefix in folders for f in sorted(Path(folder).glob(f"{prefix}*.LOG"))]
    if not found:
        places = ", ".join(folder for folder, _ in folders)
        raise Refused(
            f"there is no protocol log in {places}: nobody has come yet, or it is off; it is switched on with: "
            "Set-ImapSettings -ProtocolLogEnabled $true; Set-PopSettings -ProtocolLogEnabled $true, then "
            "Restart-Service; -Path names other files"
        )
    return found


async def _here_logs(local: Local, p: dict[str, Any]) -> Logs:
    if p.get("Path"):
        return Logs(p["Path"], _options(p, frozenset(), frozenset()))
    folders, implicit, clear = [], set[int](), set[int]()
    for name, prefix in (("Get-ImapSettings", "IMAP4"), ("Get-PopSettings", "POP3")):
        for settings in await local.ask(name):
            folders.append((str(settings["LogFileLocation"]), prefix))
            implicit |= _bindings(settings["SSLBindings"])
            clear |= _bindings(settings["UnencryptedOrTLSBindings"])
    return Logs(_own(folders), _options(p, frozenset(implicit), frozenset(clear)), True)


def _server_logs(c: Context, p: dict[str, Any]) -> Logs:
    if p.get("Path"):
        if c.server is not None:
            raise Refused("files are read where the command line runs: use letterlock get-insecurelogin --path …")
        return Logs(p["Path"], _options(p, frozenset(), frozenset()))
    folders, implicit, clear = [], set[int](), set[int]()
    for kind, prefix in ((ImapSettings, "IMAP4"), (PopSettings, "POP3")):
        settings = c.config.settings(kind)
        place = settings.LogFileLocation or str(c.config.data / "logs" / settings.ProtocolName.capitalize())
        folders.append((place, prefix))
        implicit |= {b.port for b in settings.SSLBindings}
        clear |= {b.port for b in settings.UnencryptedOrTLSBindings}
    return Logs(_own(folders), _options(p, frozenset(implicit), frozenset(clear)), True)


@contextlib.contextmanager
def _bar() -> Iterator[logs.Progress | None]:
    """A progress bar on a terminal; nothing elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    # loaded only where a bar is shown: every command would pay for it
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("Reading logs"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("logs", total=None)
        yield lambda done, whole: bar.update(task, completed=done, total=whole or None)


async def analyzed_here(local: Local, p: dict[str, Any]) -> tuple[logs.Analysis, Logs]:
    """Read where the command line runs, with a progress bar on a terminal; warnings go to the person."""
    found = await _here_logs(local, p)
    with _bar() as progress:
        analysis = logs.analyze(found.patterns, found.options, progress)
    for text in analysis.warnings():
        local.warn(f"WARNING: {text}")
    return analysis, found


async def analyzed_there(c: Context, p: dict[str, Any]) -> tuple[logs.Analysis, Logs]:
    """In a process of its own: the server goes on serving."""
    found = _server_logs(c, p)
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        analysis = await loop.run_in_executor(pool, logs.analyze, found.patterns, found.options._replace(processes=1))
    for text in analysis.warnings():
        c.warn(text)
    return analysis, found


# --- parameters of all of them


def switch(name: str, text: str) -> Parameter:
    """A parameter that is on when it is named."""
    return Parameter(name, text, boolean, switch=True, type_name="Switch")


COMMON: Final = (
    Parameter(
        "Path",
        "Files, folders, patterns with *, or - for standard input; plain, gzip or zstd. "
        "Without it the server's own logs.",
        paths,
        0,
        type_name="String[]",
        several=True,
    ),
    Parameter("Format", "How files are read.", choice(logs.FORMATS), type_name=" | ".join(logs.FORMATS),
              default="auto"),
    Parameter("Protocol", "Only these: Imap, Pop, Smtp, Sieve.", protocols, type_name="String[]"),
    Parameter("Since", "Logins from this time on: 2026-03-02, 2026-03-02T08:15, or an age as 7d, 12h, 30m.", moment,
              type_name="DateTime"),
    Parameter("Until", "Logins before this time.", moment, type_name="DateTime"),
    Parameter("SSLBindings", "Ports of an Exchange log that are always TLS, besides 993 and 995.", _bindings,
              type_name="String[]"),
    Parameter("UnencryptedOrTLSBindings", "Ports of an Exchange log that begin without TLS, besides 143 and 110.",
              _bindings, type_name="String[]"),
    switch("Resolve", "Look up host names by reverse DNS."),
)  # fmt: skip
