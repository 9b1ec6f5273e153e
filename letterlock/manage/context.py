"""What a cmdlet may reach: the directory, the store, the running services, and who is asking."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from letterlock.base.errors import Refused
from letterlock.base.values import Binding
from letterlock.directory.accounts import Accounts
from letterlock.directory.certificates import Certificates
from letterlock.directory.config import Config
from letterlock.directory.servers import Peer, Servers
from letterlock.store.api import Store


class ServerControl(Protocol):
    """The running server, as far as management needs it."""

    def running(self, name: str) -> bool: ...
    async def start(self, name: str) -> None: ...
    async def stop(self, name: str) -> None: ...
    async def restart(self, name: str, force: bool) -> None: ...
    def reload(self) -> None: ...
    def bound(self, binding: Binding) -> socket.socket | None: ...
    async def connections(self) -> list[dict[str, Any]]: ...
    async def disconnect(self, identity: int) -> bool: ...
    async def disconnect_mailbox(self, mailbox: str) -> int: ...
    def warn(self, text: str) -> None: ...


# (the server, cmdlet, named, positional, piped, who asks) to (objects as they travel, warnings)
Forward = Callable[
    [Peer, str, Mapping[str, Any], list[Any], Mapping[str, Any] | None, str],
    Awaitable[tuple[list[dict[str, Any]], list[str]]],
]


Progress = Callable[[str, int, int], None]  # activity, how much is done, of how much (0: nobody knows)


@dataclass(slots=True)
class Context:
    """One invocation's surroundings."""

    config: Config
    accounts: Accounts
    certificates: Certificates
    store: Store
    server: ServerControl | None
    who: str
    what_if: bool = False
    verbose: bool = False
    messages: list[str] = field(default_factory=list)
    forward: Forward | None = None  # runs a cmdlet at another server of the organisation
    progress: Progress | None = None  # shows whoever asked how far it is
    cancelled: bool = False  # whoever asked does not want it any more

    def warn(self, text: str) -> None:
        """A warning line for whoever asked."""
        self.messages.append(f"WARNING: {text}")

    def tell(self, text: str) -> None:
        """A line for whoever asked with -Verbose."""
        if self.verbose:
            self.messages.append(f"VERBOSE: {text}")

    def report(self, activity: str, done: int, total: int = 0) -> None:
        """How far a long command is. A command that was cancelled ends here, between two steps that are each whole."""
        if self.cancelled:
            raise Refused(
                f"cancelled: {activity}, {done} of {total} done" if total else f"cancelled: {activity}, {done} done"
            )
        if self.progress is not None:
            self.progress(activity, done, total)

    def should(self, what: str) -> bool:
        """Whether a change is to be made; under -WhatIf it is only told, with -Verbose told as well."""
        if self.what_if:
            self.messages.append(f"What if: {what}")
        else:
            self.tell(what)
        return not self.what_if

    def elsewhere(self, name: str) -> Peer | None:
        """The other server that `-Server` or `-ComputerName` names; None: this one."""
        own = {self.config.server_name.lower(), self.config.fqdn.lower()}
        return None if not name or name.lower() in own else Servers(self.config).one(name)

    def check_server(self, name: str) -> None:
        """`-Server` and `-ComputerName` name this server by now; one that nobody knows is an error."""
        own = {self.config.server_name.lower(), self.config.fqdn.lower()}
        if name and name.lower() not in own:
            known = ", ".join([self.config.server_name, *(p.name for p in Servers(self.config).all())])
            raise Refused(f"there is no server '{name}' here; there is: {known}", b"NONEXISTENT")

    def running_server(self) -> ServerControl:
        """The running server; `Refused` when there is none."""
        if self.server is None:
            raise Refused("the server is not running; start it with: letterlock serve")
        return self.server
