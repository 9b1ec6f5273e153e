"""How an ACME challenge is answered: by a listener of its own, by a file for a web server, or by a program for DNS.

Each is there for the moment of the proof and gone afterwards, whatever happens. What an authority says is not trusted:
a token is a token (RFC 8555 §8.3: base64url) before it becomes part of a path, a name is one that was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, NamedTuple

from letterlock.base.errors import Refused
from letterlock.base.settings_acme import AcmeSettings
from letterlock.base.values import Binding

PREFIX: Final = "/.well-known/acme-challenge/"
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,256}")
MAX_REQUEST: Final = 8192
MAX_CLIENTS: Final = 50
CLIENT_S: Final = 10.0
HOOK_S: Final = 300.0

Bound = Callable[[Binding], "socket.socket | None"]


class External(NamedTuple):
    """Binds an account here to one that the authority knows otherwise (RFC 8555 §7.3.4)."""

    key_id: str
    hmac_key: str


class Proof(NamedTuple):
    """What is to be seen: for HTTP a token and its content, for DNS a record and its value."""

    domain: str
    name: str  # the token, or the record's name
    value: str


def listen(binding: Binding) -> socket.socket | None:
    """A socket that listens, where no server runs; None where there is no IPv6."""
    family = socket.AF_INET6 if binding.ipv6 else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if binding.ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((binding.address, binding.port))
        sock.listen(MAX_CLIENTS)
    except OSError as error:
        sock.close()
        if binding.address == "::":
            return None
        raise Refused(f"ACME cannot listen on {binding}: {os.strerror(error.errno or 0)}") from None
    return sock


def token(text: str) -> str:
    """A token as it may stand in a path; `Refused` otherwise."""
    if not _TOKEN.fullmatch(text):
        raise Refused("the authority sent a challenge with a malformed token")
    return text


# --- HTTP


@contextlib.asynccontextmanager
async def by_listener(settings: AcmeSettings, proofs: list[Proof], bound: Bound) -> AsyncIterator[None]:
    """Answer at HttpBindings."""
    answers = {PREFIX + token(p.name): p.value.encode() for p in proofs}
    servers: list[asyncio.Server] = []
    try:
        for binding in settings.HttpBindings:
            sock = _bound(binding, bound)
            if sock is not None:
                servers.append(await asyncio.start_server(_Http(answers), sock=sock, limit=MAX_REQUEST))
        if not servers:
            raise Refused("none of HttpBindings can be listened on; see Get-AcmeSettings")
        yield
    finally:
        for server in servers:
            server.close()


def _bound(binding: Binding, bound: Bound) -> socket.socket | None:
    try:
        return bound(binding)
    except Refused as error:
        raise Refused(
            f"{error.text}; where a web server has that port, set WebRoot to its folder: Set-AcmeSettings -WebRoot PATH"
        ) from None


class _Http:
    """As much of HTTP/1.1 as an authority needs, for anybody who comes by."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self._answers = answers
        self._clients = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one request."""
        self._clients += 1
        try:
            if self._clients <= MAX_CLIENTS:
                async with asyncio.timeout(CLIENT_S):
                    await self._answer(reader, writer)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._clients -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, _ = (*head.split(b"\r\n", 1)[0].split(b" "), b"", b"", b"")[:3]
        body = self._answers.get(path.decode("ascii", "replace")) if method in (b"GET", b"HEAD") else None
        status = b"200 OK" if body is not None else b"404 Not Found"
        sent = body or b""
        head = b"HTTP/1.1 %b\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n" % (status, len(sent))
        writer.write(head + b"Connection: close\r\n\r\n" + (b"" if method == b"HEAD" else sent))
        await writer.drain()


@contextlib.asynccontextmanager
async def by_file(settings: AcmeSettings, proofs: list[Proof]) -> AsyncIterator[None]:
    """Put files into the folder of a web server."""
    folder = Path(settings.WebRoot) / PREFIX.strip("/")
    written: list[Path] = []
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for proof in proofs:
                path = folder / token(proof.name)
                flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
                descriptor = os.open(path, flags, 0o644)
                written.append(path)
                with os.fdopen(descriptor, "wb") as file:
                    os.fchmod(file.fileno(), 0o644)
                    file.write(proof.value.encode())
        except OSError as error:
            raise Refused(f"WebRoot: {folder} cannot be written: {error.strerror}") from None
        yield
    finally:
        for path in written:
            path.unlink(missing_ok=True)


# --- DNS


@contextlib.asynccontextmanager
async def by_hook(settings: AcmeSettings, proofs: list[Proof], hooks: Path) -> AsyncIterator[None]:
    """Let a program put TXT records into DNS, and take them out."""
    program = hooks / settings.DnsHook
    done: list[Proof] = []
    try:
        for proof in proofs:
            done.append(proof)
            await asyncio.to_thread(_run, program, "present", proof)
        await asyncio.sleep(settings.DnsWait.seconds)
        yield
    finally:
        for proof in done:
            with contextlib.suppress(Refused):
                await asyncio.to_thread(_run, program, "cleanup", proof)


def _run(program: Path, action: str, proof: Proof) -> None:
    """`PROGRAM present|cleanup NAME _acme-challenge.NAME VALUE`; `Refused` with its first line when it fails."""
    lowered = os.getuid() != os.geteuid()  # started as root: the program gets the rights that are in use, for good
    try:
        done = subprocess.run(  # noqa: S603 - chosen by whoever owns the data directory, no shell
            [str(program), action, proof.domain, proof.name, proof.value],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=HOOK_S,
            cwd=program.parent,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": os.environ.get("HOME", "/")},
            check=False,
            user=os.geteuid() if lowered else None,
            group=os.getegid() if lowered else None,
            extra_groups=[] if lowered else None,
        )
    except OSError as error:
        raise Refused(f"DnsHook: {program} cannot be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise Refused(f"DnsHook: {program} {action} did not end within {HOOK_S:.0f} seconds") from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip().partition("\n")[0][:200]
        text = "".join(c if c.isprintable() else " " for c in said)
        raise Refused(f"DnsHook: {program} {action} {proof.domain} ended with status {done.returncode}: {text}")
