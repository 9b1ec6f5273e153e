"""Puts the parts together; the only module that knows everybody: init, serve, demo, and where a cmdlet runs."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

from letterlock import control, demo
from letterlock.base.errors import Malformed, Refused
from letterlock.base.settings import AdminSettings
from letterlock.directory.accounts import Accounts
from letterlock.directory.certificate_names import Wish
from letterlock.directory.certificates import SERVICES, Certificates
from letterlock.directory.config import Config
from letterlock.directory.servers import Peer, Servers
from letterlock.manage import CMDLETS
from letterlock.manage.admission import Gate
from letterlock.manage.context import Context
from letterlock.manage.here import Audience, Dispatch
from letterlock.manage.registry import invoke
from letterlock.runtime import privileges
from letterlock.runtime.admin import AdminService
from letterlock.runtime.supervisor import Server, cores
from letterlock.store.sqlite import SqliteStore
from letterlock.tls import ignore_undecodable_names

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
            certificates.create(Wish([config.fqdn]), SERVICES, "init")
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
        return Servers(Config.open(data.resolve())).join(Servers(Config.open(other.resolve())), control.who())

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
    async def dispatcher(self, data: Path, audience: Audience) -> AsyncIterator[Dispatch]:
        """Cmdlets run in the server of that directory when there is one, else here."""
        connected = await control.connect(data)
        if connected is not None:
            try:
                yield connected.dispatcher(audience)
            finally:
                connected.close()
            return
        config = Config.open(data)
        with _lock(data):
            store = SqliteStore(data / "mailboxes")
            try:
                yield _local(config, store, audience)
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


def _local(config: Config, store: SqliteStore, audience: Audience) -> Dispatch:
    accounts, certificates = Accounts(config), Certificates(config)

    async def local(name: str, named: dict[str, Any], positional: list[Any], piped: Any) -> list[Any]:
        context = Context(config, accounts, certificates, store, None, control.who(), forward=_forward)
        context.progress = audience.progress
        work = asyncio.ensure_future(invoke(CMDLETS, context, name, named, positional, piped))
        try:
            rows = await asyncio.shield(work)
        except asyncio.CancelledError:
            # a change is not torn in the middle: it ends by itself, or where it reports how far it is
            context.cancelled = True
            if not (name.lower() in CMDLETS and CMDLETS[name.lower()].changes):
                work.cancel()
            await asyncio.wait({work})
            raise
        finally:
            for message in context.messages:
                audience.message(message)
        return [row.wire() for row in rows]

    return local


async def _forward(
    peer: Peer, name: str, named: Mapping[str, Any], positional: list[Any], piped: Mapping[str, Any] | None, who: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """A cmdlet at another server: through its control socket when it runs, on its data directory when it does not."""
    connected = await control.connect(peer.data)
    if connected is not None:
        heard = control.Heard()
        try:
            objects = await connected.dispatcher(heard, who)(
                name, dict(named), positional, None if piped is None else dict(piped)
            )
        finally:
            connected.close()
        return objects, heard.messages
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


# --- running


def _administration(server: Server) -> AdminService:
    """The REST interface; its libraries are loaded when it starts."""
    gate = Gate(server.config)

    def context(who: str) -> Context:
        return Context(server.config, server.accounts, server.certificates, server.store, server, who, forward=_forward)

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

    def context(who: str) -> Context:
        """For one cmdlet."""
        return Context(config, server.accounts, server.certificates, server.store, server, who, forward=_forward)

    commands = control.Control(CMDLETS, context, server.incident)
    flusher = asyncio.create_task(server.flush_logs())
    listener = None
    try:
        await server.open()
        await server.start_automatic()
        with control.socket_path(config.data) as path:
            Path(path).unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                listener = await asyncio.start_unix_server(commands.serve, path, limit=control.MAX_REQUEST)
            finally:
                os.umask(before)
        yield server
    finally:
        flusher.cancel()
        if listener is not None:
            listener.close()
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
