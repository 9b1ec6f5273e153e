"""What a session may ask of the outside (letterlock.session.Host), answered by the running server."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from letterlock.base.errors import Refused
from letterlock.base.values import Protocol
from letterlock.directory.accounts import Account
from letterlock.policy.login import LoginAttempt
from letterlock.runtime.connection import Connection
from letterlock.runtime.protocol_log import format_row
from letterlock.session import Password, Welcome
from letterlock.store.api import MailStore

if TYPE_CHECKING:
    from letterlock.runtime.service import FrontEnd

MAX_CHECKS: Final = 100  # exposure checks that may wait; beyond it they are dropped


class ConnectionHost:
    """One connection's host."""

    __slots__ = ("_began", "_id", "_sequence", "_watched", "connection", "service", "user")

    def __init__(self, service: FrontEnd, connection: Connection) -> None:
        self.service = service
        self.connection = connection
        self.user = ""
        self._watched: MailStore | None = None
        self._began = time.perf_counter()
        self._sequence = 0
        self._id = service.server.next_session_id()

    # --- login

    async def log_in(self, attempt: LoginAttempt, password: Password) -> Welcome:
        """Verify and admit."""
        server, service = self.service.server, self.service
        if not service.back_end.running:
            raise Refused("the mailbox service is not running; please try again later", b"UNAVAILABLE")
        user, address = attempt.user.lower(), self.connection.channel.peer
        delay = server.throttle.delay(user, address, time.monotonic())
        if delay:
            await asyncio.sleep(delay)
        account = await server.verifier.verify(attempt.user, password)
        if account is None:
            server.throttle.failed(user, address, time.monotonic())
            raise Refused("the user name or the password is wrong", b"AUTHENTICATIONFAILED")
        server.throttle.succeeded(user, address, time.monotonic())
        if not _enabled(account, attempt.protocol):
            raise Refused(
                f"{attempt.protocol.value} is switched off for this mailbox; ask the administrator", b"CONTACTADMIN"
            )
        if not service.limits.enter(account.id):
            raise Refused(
                "too many connections of this user; close some in your mail programs or try again later", b"LIMIT"
            )
        self.user = account.id
        return Welcome(account.address, server.store.mailbox(account.id))

    def exposed(self, attempt: LoginAttempt, password: Password) -> None:
        """The password crossed the network in clear: if it is right, the mailbox is marked. The client sees nothing."""
        server = self.service.server
        if len(server.checks) < MAX_CHECKS:
            task = asyncio.get_running_loop().create_task(self._check(attempt, password))
            server.checks.add(task)
            task.add_done_callback(server.checks.discard)

    async def _check(self, attempt: LoginAttempt, password: Password) -> None:
        server, address = self.service.server, attempt.channel.peer
        async with server.one_check:
            if server.throttle.delay(attempt.user.lower(), address, time.monotonic()):
                return  # somebody who guesses is not told, and does not make us hash
            account = await server.verifier.verify(attempt.user, password)
            if account is None:
                server.throttle.failed(attempt.user.lower(), address, time.monotonic())
            else:
                server.accounts.mark_exposed(account, attempt.protocol.value, address)

    # --- the rest

    async def drain(self) -> None:
        """Send, and wait while the peer is slow."""
        await self.connection.drain()

    def begin(self) -> None:
        """A command was read."""
        self._began = time.perf_counter()

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def wall(self) -> float:
        """Seconds since 1970."""
        return time.time()

    @property
    def logging(self) -> bool:
        """Whether the protocol log is on."""
        return self.service.log is not None

    def note(
        self, command: bytes, parameters: bytes, context: bytes, request_size: int, response_size: int, user: str
    ) -> None:
        """One row of the protocol log."""
        log = self.service.log
        if log is None:
            return
        channel = self.connection.channel
        duration = int((time.perf_counter() - self._began) * 1000)
        row = format_row(
            time.time(),
            self._id,
            self._sequence,
            f"{_bracket(channel.local)}:{channel.local_port}",
            f"{_bracket(channel.peer)}:{channel.peer_port}",
            user,
            duration,
            request_size,
            response_size,
            command,
            parameters,
            context,
        )
        self._sequence += 1
        log.add(row)

    def watch(self, mail: MailStore | None) -> None:
        """Call `hint` when the mailbox changes; None ends that (and the user's session)."""
        server = self.service.server
        if self._watched is not None:
            server.unwatch(self._watched.id, self.connection)
        self._watched = mail
        if mail is not None:
            server.watch(mail.id, self.connection)
        elif self.user:
            self.service.limits.leave(self.user)
            self.user = ""


def _bracket(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _enabled(account: Account, protocol: Protocol) -> bool:
    if protocol is Protocol.POP3:
        return account.switches.PopEnabled
    return account.switches.ImapEnabled
