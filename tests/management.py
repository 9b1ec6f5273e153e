"""Cmdlets in this process on a data directory of their own: no server, no sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from letterlock.app import Letterlock
from letterlock.directory.accounts import Accounts
from letterlock.directory.certificates import Certificates
from letterlock.directory.config import Config
from letterlock.manage import CMDLETS
from letterlock.manage.context import Context, ServerControl
from letterlock.manage.registry import invoke
from letterlock.store.sqlite import SqliteStore

PASSWORD = "correct horse 7"


class Services:
    """A running server without sockets (manage.context.ServerControl)."""

    def __init__(self) -> None:
        self.up: set[str] = set()
        self.did: list[str] = []
        self.sessions: list[dict[str, Any]] = []

    def running(self, name: str) -> bool:
        return name in self.up

    async def start(self, name: str) -> None:
        self.did.append(f"start {name}")
        self.up.add(name)

    async def stop(self, name: str) -> None:
        self.did.append(f"stop {name}")
        self.up.discard(name)

    async def restart(self, name: str, force: bool) -> None:
        self.did.append(f"restart {name} {force}")

    def reload(self) -> None:
        self.did.append("reload")

    def bound(self, binding: object) -> None:
        """No listener."""

    async def connections(self) -> list[dict[str, Any]]:
        return self.sessions

    async def disconnect(self, identity: int) -> bool:
        self.did.append(f"disconnect {identity:016X}")
        return True

    async def disconnect_mailbox(self, mailbox: str) -> int:
        self.did.append(f"disconnect mailbox {mailbox}")
        return 0

    def warn(self, text: str) -> None:
        self.did.append(f"warn {text}")


class Management:
    """`run` a cmdlet; its warnings are in `messages`."""

    def __init__(self, data: Path, server: ServerControl | None = None) -> None:
        Letterlock().init(data, "mail.example.com", "EX1", 10000)
        self.config = Config.open(data)
        self.accounts = Accounts(self.config)
        self.certificates = Certificates(self.config)
        self.server = server
        self.data = data
        self.messages: list[str] = []

    def run(self, name: str, *positional: Any, piped: dict[str, Any] | None = None, **named: Any) -> list[Any]:
        """The objects' properties, as values."""
        return asyncio.run(self._run(name, list(positional), piped, named))

    async def _run(self, name: str, positional: list[Any], piped: Any, named: dict[str, Any]) -> list[Any]:
        store = SqliteStore(self.data / "mailboxes")
        context = Context(
            self.config, self.accounts, self.certificates, store, self.server, "uid 1000 (tester)", messages=[]
        )
        try:
            return [r.properties for r in await invoke(CMDLETS, context, name, named, positional, piped)]
        finally:
            self.messages = context.messages
            await store.close()

    def mailbox(self, address: str = "alice@example.com") -> None:
        """A mailbox that can log in."""
        self.run("New-Mailbox", address, Password=PASSWORD)

    def audit(self) -> list[tuple[str, str, str, str]]:
        """who, what, old, new of each row, oldest first."""
        return [tuple(row) for row in self.config.db.execute("SELECT who, what, old, new FROM audit ORDER BY id")]
