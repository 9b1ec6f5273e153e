"""Puts the parts together; the only module that knows everybody: init, serve, demo, and where a cmdlet runs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pwd
import resource
import shutil
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

from letterlock import demo
from letterlock.base.errors import LetterlockError, Malformed, Refused
from letterlock.base.settings import AdminSettings
from letterlock.base.values import ListChange, Secret
from letterlock.directory.accounts import Accounts
from letterlock.directory.certificate_names import Wish
from letterlock.directory.certificates import Certificates
from letterlock.directory.config import Config
from letterlock.directory.servers import Peer, Servers
from letterlock.faces.pipeline import Dispatch
from letterlock.manage import CMDLETS
from letterlock.manage.admission import Gate
from letterlock.manage.context import Context
from letterlock.manage.registry import invoke
from letterlock.runtime import privileges
from letterlock.runtime.admin import AdminService
from letterlock.runtime.supervisor import Server, cores
from letterlock.store.sqlite import SqliteStore
from letterlock.tls import ignore_undecodable_names

MAX_REQUEST = 1 << 20
MAX_WORKERS = 256


class Letterlock:
    """What the command line calls (faces.cli.Program)."""

    def init(self, data: Path, hostname: str, server: str | None, port_offset: int) -> None:
        """Make a data directory whole, or nothing."""
        if data.exists() and (not data.is_dir() or any(data.iterdir())):
            raise Refused(f"{data} exists and is not empty; choose another directory")
        name = server or socket.gethostname().split(".")[0].upper()
        if not name.replace("-", "").replace("_", "").isalnum() or len(name) > 63:
            raise Malformed(f"--server: '{name}' is not a server name; use letters, digits and hyphens")
        data.mkdir(parents=True, exist_ok=True, mode=0o755)
        try:
            (data / "mailboxes").mkdir(mode=0o700)
            config = Config.create(data, hostname, name, port_offset)
            certificates = Certificates(config)
            certificates.create(Wish([config.fqdn]), ("IMAP", "POP", "SMTP"), "init")
            certificates.publish()
            config.close()
        except BaseException:
            for path in data.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            raise

    def join(self, data: Path, other: Path) -> list[str]:
        """Make two data directories servers of one organisation; the names of those that `data` knows now."""
        if data.resolve() == other.resolve():
            raise Malformed("--to: a server cannot join itself; name another data directory")
        return Servers(Config.open(data.resolve())).join(Servers(Config.open(other.resolve())), _who())

    def serve(self, data: Path, workers: int | None) -> int:
        """Run until SIGTERM or SIGINT."""
        if not 1 <= (workers or 1) <= MAX_WORKERS:
            raise Malformed(f"--workers: {workers} is out of range; it must be between 1 and {MAX_WORKERS}")
        privileges.lower(data)
        config = Config.open(data)
        with _lock(data):
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            if soft != hard:
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            _run(_serve(config, workers or cores()))
        return 0

    def demo(self, check: bool) -> int:
        """A throw-away server with two mailboxes."""
        with tempfile.TemporaryDirectory(prefix="letterlock-demo-") as directory:
            data = Path(directory) / "data"
            self.init(data, "localhost", "DEMO", 10000)
            status: int = _run(_demo(data, check))
            return status

    @asynccontextmanager
    async def dispatcher(self, data: Path) -> AsyncIterator[Dispatch]:
        """Cmdlets run in the server of that directory when there is one, else here."""
        connected = await _connect(data)
        if connected is not None:
            reader, writer = connected

            async def remote(name: str, named: dict[str, Any], positional: list[Any], piped: Any) -> list[Any]:
                request = {"name": name, "named": named, "positional": positional, "piped": piped}
                writer.write(json.dumps(request, default=_plain).encode() + b"\n")
                answer = json.loads(await reader.readline() or b"{}")
                return _answered(answer)

            try:
                yield remote
            finally:
                writer.close()
            return
        config = Config.open(data)
        with _lock(data):
            store = SqliteStore(data / "mailboxes")
            try:
                yield _local(config, store)
            finally:
                await store.close()
                config.close()


def _run(work: Any) -> Any:
    """On uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(work)
    return uvloop.run(work)


@contextlib.contextmanager
def _lock(data: Path) -> Any:
    """One server, or one command without a server, at a time."""
    with (data / ".lock").open("w") as file:
        _flock(file, data)
        yield


def _flock(file: IO[str], data: Path) -> None:
    for _ in range(100):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            # a command that is just finishing holds it for a moment
            signal.sigtimedwait([], 0.05)
    raise Refused(f"{data} is in use by another letterlock")


# --- cmdlets


def _plain(value: object) -> object:
    if isinstance(value, ListChange):
        return {"ListChange": {"replace": value.replace, "add": value.add, "remove": value.remove}}
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(type(value).__name__)


def _rich(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"ListChange"}:
        change = value["ListChange"]
        return ListChange(None, tuple(change["add"]), tuple(change["remove"]))
    return value


def _local(config: Config, store: SqliteStore) -> Dispatch:
    accounts, certificates = Accounts(config), Certificates(config)

    async def local(name: str, named: dict[str, Any], positional: list[Any], piped: Any) -> list[Any]:
        context = Context(config, accounts, certificates, store, None, _who(), forward=_forward)
        try:
            rows = await invoke(CMDLETS, context, name, named, positional, piped)
        finally:
            for message in context.messages:
                print(message, file=sys.stderr)
        return [row.wire() for row in rows]

    return local


async def _forward(
    peer: Peer, name: str, named: Mapping[str, Any], positional: list[Any], piped: Mapping[str, Any] | None, who: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """A cmdlet at another server: through its control socket when it runs, on its data directory when it does not."""
    connected = await _connect(peer.data)
    if connected is not None:
        reader, writer = connected
        request = {"name": name, "named": dict(named), "positional": positional, "piped": piped}
        writer.write(json.dumps(request, default=_plain).encode() + b"\n")
        answer = json.loads(await reader.readline() or b"{}")
        writer.close()
        messages = list(answer.get("messages", []))
        return _answered({**answer, "messages": []}), messages
    config = Config.open(peer.data)
    with _lock(peer.data):
        store = SqliteStore(peer.data / "mailboxes")
        try:
            context = Context(config, Accounts(config), Certificates(config), store, None, who)
            rows = await invoke(CMDLETS, context, name, named, positional, piped)
        finally:
            await store.close()
            config.close()
    return [row.wire() for row in rows], context.messages


def _who(uid: int | None = None) -> str:
    """Who acts, for the audit trail: this process, or the one at the other end of the control socket."""
    uid = os.getuid() if uid is None else uid
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


def _peer(writer: asyncio.StreamWriter) -> str:
    sock = writer.get_extra_info("socket")
    if not hasattr(socket, "SO_PEERCRED") or sock is None:
        return _who()
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return _who(struct.unpack("3i", credentials)[1])


def _answered(answer: dict[str, Any]) -> list[Any]:
    for message in answer.get("messages", []):
        print(message, file=sys.stderr)
    error = answer.get("error")
    if error:
        raise (Malformed if error["kind"] == "malformed" else Refused)(error["text"])
    if "objects" not in answer:
        raise Refused("the server ended before it answered")
    return list(answer["objects"])


# --- the control socket


@contextlib.contextmanager
def _socket_path(data: Path) -> Any:
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


async def _connect(data: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
    with contextlib.suppress(OSError), _socket_path(data) as path:
        return await asyncio.open_unix_connection(path, limit=1 << 26)
    return None


class _Control:
    """Answers cmdlets over the control socket, which only its owner can open."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client: a line of JSON a request, a line of JSON an answer."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ValueError):
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line, _peer(writer))).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _answer(self, line: bytes, who: str) -> dict[str, Any]:
        s = self.server
        context = Context(s.config, s.accounts, s.certificates, s.store, s, who, forward=_forward)
        try:
            request = json.loads(line)
            named = {str(k): _rich(v) for k, v in request["named"].items()}
            positional = [_rich(v) for v in request["positional"]]
            rows = await invoke(CMDLETS, context, str(request["name"]), named, positional, request["piped"])
        except LetterlockError as error:
            kind = "malformed" if isinstance(error, Malformed) else "refused"
            return {"messages": context.messages, "error": {"kind": kind, "text": error.text}}
        except Exception as error:
            s.incident(error)
            text = "internal error; the server's error output has the details"
            return {"messages": context.messages, "error": {"kind": "refused", "text": text}}
        return {"messages": context.messages, "objects": [row.wire() for row in rows]}


# --- running


def _administration(server: Server) -> AdminService:
    """The REST interface; its libraries are loaded when it starts."""
    gate = Gate(server.config)

    def context(who: str) -> Context:
        return Context(server.config, server.accounts, server.certificates, server.store, server, who)

    def make(settings: AdminSettings, hosts: frozenset[str]) -> Any:
        from letterlock.faces import rest

        return rest.application(CMDLETS, context, gate, settings, hosts, server.incident)

    return AdminService(server.config, server.certificates, server.warn, make)


@asynccontextmanager
async def _running(config: Config, workers: int) -> AsyncIterator[Server]:
    """A server with its automatic services, control socket and log writer."""
    ignore_undecodable_names()
    server = Server(config, workers)
    server.services["LetterlockAdmin"] = _administration(server)
    flusher = asyncio.create_task(server.flush_logs())
    control = None
    try:
        await server.open()
        await server.start_automatic()
        with _socket_path(config.data) as path:
            Path(path).unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                control = await asyncio.start_unix_server(_Control(server).serve, path, limit=MAX_REQUEST)
            finally:
                os.umask(before)
        yield server
    finally:
        flusher.cancel()
        if control is not None:
            control.close()
            (config.data / "control.sock").unlink(missing_ok=True)
        await server.close()


async def _serve(config: Config, workers: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with _running(config, workers) as server:
        loop.add_signal_handler(signal.SIGHUP, server.reload)
        if os.geteuid() == 0:
            server.warn("this runs as root; give the data directory to a user of its own")
        print("letterlock: ready", flush=True)
        await stop.wait()


async def _demo(data: Path, check: bool) -> int:
    config = Config.open(data)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with _running(config, 1) as server:
        await demo.prepare(_local_quiet(server))
        for user, folder, flags, message in demo.mail():
            mail = server.store.mailbox(server.accounts.one(user).id)
            spool = mail.spool(len(message))
            spool.write(message)
            await mail.append(await mail.folder(folder), [demo.incoming(spool, flags)])
        ports = demo.ports(10000)
        if check:
            return await asyncio.to_thread(demo.check, data / "certificate.pem", ports)
        print(demo.instructions(data / "certificate.pem", ports), flush=True)
        await stop.wait()
    return 0


def _local_quiet(server: Server) -> Any:
    async def run(name: str, named: dict[str, Any], positional: list[Any]) -> None:
        context = Context(server.config, server.accounts, server.certificates, server.store, server, "demo")
        await invoke(CMDLETS, context, name, named, positional)

    return run
