"""A live server with its REST interface, and a small HTTPS client, for the tests of both."""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from tests.clients.server import PROGRAM, Server, free_ports

ADMIN = ("chief", "a long password 1")
VIEWER = ("looker", "a long password 2")


class Answer(NamedTuple):
    """One HTTP answer."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The parsed body."""
        return json.loads(self.body)


def basic(who: tuple[str, str]) -> dict[str, str]:
    """Authorization by name and password."""
    return {"Authorization": "Basic " + base64.b64encode(":".join(who).encode()).decode()}


def bearer(token: str) -> dict[str, str]:
    """Authorization by a token."""
    return {"Authorization": f"Bearer {token}"}


class RestServer(Server):
    """Two mailboxes, two administrators, the administration on a free port of 127.0.0.1."""

    def __init__(self, directory: Path, settings: str = "") -> None:
        (self.port,) = free_ports(1)
        super().__init__(
            directory,
            settings="\n".join(
                [
                    f"Set-AdminSettings -SSLBindings 127.0.0.1:{self.port}",
                    f'New-Administrator {ADMIN[0]} -Password "{ADMIN[1]}"',
                    f'New-Administrator {VIEWER[0]} -Password "{VIEWER[1]}" -Role ViewOnly',
                    "Set-Service LetterlockAdmin -StartupType Automatic",
                    settings,
                ]
            ),
        )
        self.url = f"https://localhost:{self.port}"

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        who: tuple[str, str] | None = ADMIN,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request; `body` bytes as they are, anything else as JSON."""
        sent = {**(basic(who) if who else {}), "Content-Type": "application/json", **(headers or {})}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=30, context=self.context())
        try:
            connection.request(method, f"/api/v1/{path}", data, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def cmdlet(self, name: str, who: tuple[str, str] = ADMIN, **parameters: object) -> Answer:
        """POST a cmdlet."""
        return self.ask("POST", f"cmdlets/{name}", parameters, who)

    def remote(
        self, *words: str, who: tuple[str, str] = ADMIN, ca: Path | None = None, url: str = "", token: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """`letterlock --url … WORDS`."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("LETTERLOCK_")}
        environment |= {"LETTERLOCK_TOKEN": token} if token else {"LETTERLOCK_PASSWORD": who[1]}
        command = [PROGRAM, "--url", url or self.url, "--cacert", str(ca or self.ca)]
        command += [] if token else ["--credential", who[0]]
        return subprocess.run([*command, *words], capture_output=True, text=True, timeout=60, env=environment)

    def raw(self) -> ssl.SSLSocket:
        """A bare TLS connection."""
        import socket

        sock = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        return self.context().wrap_socket(sock, server_hostname="localhost")
