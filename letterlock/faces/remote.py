"""Cmdlets on another machine: `letterlock --url https://HOST:PORT --credential USER …` and `shell --url …`.

Log-on by password gives a session, which every cmdlet of the run uses and which is ended after it; a long-lived token
in LETTERLOCK_TOKEN needs no user name. The server's certificate and name are always verified, by the system's
authorities or by `--cacert FILE`. No proxy, netrc or redirect is followed: the password goes to that host or nowhere.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from letterlock.base.errors import Malformed, Refused
from letterlock.faces.output import clean
from letterlock.manage.here import Audience, Dispatch
from letterlock.manage.wire import plain

ANSWER_S: Final = 600.0  # an import, or a test of a server that does not answer, takes its time
CONNECT_S: Final = 20.0
PASSWORD: Final = "LETTERLOCK_PASSWORD"  # noqa: S105 - the variable's name
TOKEN: Final = "LETTERLOCK_TOKEN"  # noqa: S105 - the variable's name


class _Options(Protocol):
    words: list[str]


class _Program(Protocol):
    def init(self, data: Path, hostname: str, server: str | None, port_offset: int) -> None: ...
    def join(self, data: Path, other: Path) -> list[str]: ...
    def serve(self, data: Path, workers: int | None) -> int: ...
    def demo(self, check: bool) -> int: ...
    def dispatcher(self, data: Path, audience: Audience) -> AbstractAsyncContextManager[Dispatch]: ...


def reached(options: _Options, program: _Program) -> _Program:
    """`program`, or with `--url` one whose cmdlets run there; the options are taken out of the words."""
    url = _take(options, "--url")
    if url is None:
        return program
    user, authorities = _take(options, "--credential"), _take(options, "--cacert")
    return _Remote(_base(url), user, Path(authorities) if authorities else None)


def _take(options: _Options, name: str) -> str | None:
    """The first `NAME VALUE` or `NAME=VALUE`: a later one may be a cmdlet's own parameter."""
    for at, word in enumerate(options.words):
        if word == name:
            if at + 1 == len(options.words):
                raise Malformed(f"{name} needs a value")
            value = options.words[at + 1]
            options.words = options.words[:at] + options.words[at + 2 :]
            return value
        if word.startswith(name + "="):
            options.words = options.words[:at] + options.words[at + 1 :]
            return word.removeprefix(name + "=")
    return None


def _base(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Malformed(f"--url: '{url}' is not a URL; expected https://HOST:PORT") from None
    plain_host = parts.hostname and not parts.username and not parts.query and not parts.fragment
    if parts.scheme != "https" or not plain_host or parts.path not in ("", "/"):
        raise Malformed(f"--url: '{url}' is not allowed; expected https://HOST:PORT, nothing else")
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else str(parts.hostname)
    return f"https://{host}" + (f":{port}" if port else "")


class _Remote:
    """The program, elsewhere."""

    def __init__(self, base: str, user: str | None, authorities: Path | None) -> None:
        self.base, self.user, self.authorities = base, user, authorities
        self.password: str | None = None  # asked for once in a run

    def init(self, data: Path, hostname: str, server: str | None, port_offset: int) -> None:
        """Only on the machine itself."""
        raise Malformed("--url is for cmdlets and the shell; init, serve and demo run on the machine itself")

    def join(self, data: Path, other: Path) -> list[str]:
        """Only on the machine itself."""
        raise Malformed("--url is for cmdlets and the shell; join runs on the machine itself")

    def serve(self, data: Path, workers: int | None) -> int:
        """Only on the machine itself."""
        raise Malformed("--url is for cmdlets and the shell; init, serve and demo run on the machine itself")

    def demo(self, check: bool) -> int:
        """Only on the machine itself."""
        raise Malformed("--url is for cmdlets and the shell; init, serve and demo run on the machine itself")

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=str(self.authorities) if self.authorities else None)
        except (OSError, ssl.SSLError) as error:
            reason = getattr(error, "strerror", None) or "it holds no certificate"
            raise Malformed(f"--cacert: {self.authorities}: {reason}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context

    def _credentials(self) -> tuple[str, str]:
        if not self.user:
            raise Malformed(f"--url needs --credential USER (or a token in {TOKEN})")
        if self.password is None:
            self.password = os.environ.get(PASSWORD)
        if self.password is None:
            if not sys.stdin.isatty():
                raise Malformed(f"there is no terminal to ask for the password of {self.user}; set {PASSWORD}")
            self.password = getpass.getpass(f"Password of {self.user}: ")
        return self.user, self.password

    @asynccontextmanager
    async def dispatcher(self, data: Path, audience: Audience) -> AsyncIterator[Dispatch]:
        """Cmdlets run there."""
        import httpx  # loaded only here: it takes a tenth of a second

        client = httpx.AsyncClient(
            base_url=self.base,
            verify=self._context(),
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
        )
        async with client:
            token = "" if self.user else os.environ.get(TOKEN, "")
            ours = not token
            if ours:
                user, password = self._credentials()
                answer = await self._post(client, "login", {"UserName": user, "Password": password})
                token = str(answer["Token"])
            client.headers["Authorization"] = f"Bearer {token}"

            async def remote(name: str, named: dict[str, Any], positional: list[Any], piped: Any) -> list[Any]:
                request = {"name": name, "named": named, "positional": positional, "piped": piped}
                answer = await self._post(client, "invoke", request)
                for message in answer.get("messages", []):
                    audience.message(str(message))
                return list(answer["objects"])

            try:
                yield remote
            finally:
                if ours:
                    with suppress(Refused, Malformed):
                        await self._post(client, "logout", {})

    async def _post(self, client: Any, what: str, body: object) -> dict[str, Any]:
        import httpx

        content = json.dumps(body, default=plain).encode()
        try:
            response = await client.post(
                f"/api/v1/{what}", content=content, headers={"Content-Type": "application/json"}
            )
        except httpx.TransportError as error:
            raise Refused(f"{self.base}: {_reason(error)}") from None
        kind = response.headers.get("content-type", "").partition(";")[0]
        try:
            answer = response.json() if kind.endswith("json") else None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Refused(f"{self.base} does not answer like a Letterlock server (status {response.status_code})")
        if response.status_code == 200:
            return answer
        detail = clean(str(answer.get("detail", "")))
        if response.status_code == 401 and what == "login":
            raise Refused(f"{self.base}: the user name or the password is wrong")
        if response.status_code == 401:
            raise Refused(f"{self.base}: the session or the token is not valid any more")
        if response.status_code in (400, 413) and what == "invoke":
            raise Malformed(detail)
        raise Refused(detail or f"{self.base}: status {response.status_code}")


def _reason(error: BaseException) -> str:
    """Why there was no answer, in words: TLS failures first, which hide in the chain of causes."""
    import httpx

    chain: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and len(chain) < 20:
        chain.append(step)
        step = step.__cause__ or step.__context__
    for each in chain:
        if isinstance(each, ssl.SSLCertVerificationError):
            return (
                f"the certificate cannot be trusted: {each.verify_message}; --cacert FILE names an authority to trust"
            )
    for each in chain:
        if isinstance(each, ssl.SSLError):
            return f"TLS failed: {each.reason or each}"
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection within {CONNECT_S:.0f} seconds"
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    for each in chain:
        if isinstance(each, socket.gaierror):
            return f"the name is not known: {each.strerror}"
        if isinstance(each, OSError) and each.errno:
            return f"cannot be reached: {os.strerror(each.errno)}"
    text = str(error)
    if isinstance(error, httpx.ConnectError):
        return f"cannot be reached{': ' + text if text else ''}"
    return f"the connection broke{': ' + text if text else ''}"
