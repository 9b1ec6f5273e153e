"""Who may manage the server from another machine: log-on by password or token, throttled, and what a role may run.

A failed log-on costs its network a growing wait (policy.limits). While one attempt of a network waits, its others are
turned away at once: guessing is as slow as the waits, however many connections are used. Unknown, disabled and wrong
answer alike and cost the same hash. A log-on by password gives a session token of 256 random bits, which is kept in
memory as its hash and ends by time, with the service, or when role, password or switch of its owner change.
"""

from __future__ import annotations

import asyncio
import datetime
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, NamedTuple

from letterlock.directory.administrators import (
    TOKEN_PREFIX,
    Administrator,
    Administrators,
    PasswordCheck,
    Role,
    token_hash,
)
from letterlock.directory.config import Config
from letterlock.manage.registry import Cmdlet
from letterlock.policy.limits import FailureThrottle, network

SESSION_PREFIX: Final = "lls_"
MAX_SESSIONS: Final = 1000
MAX_WAITING: Final = 50
MAX_NAME: Final = 64
MAX_PASSWORD: Final = 1024

# A view-only administrator does not make the server open files or connect to other hosts.
_REACHING: Final = frozenset({"path", "filepath", "endpoint", "report", "baseline", "format", "outfile"})
_SECRET: Final = ("Export-",)


class Caller(NamedTuple):
    """Who asks, after a successful log-on."""

    name: str
    role: Role
    lasting: bool  # by a long-lived token


class NotAdmitted(Exception):
    """The log-on failed: 401, or 429 with a wait in seconds."""

    def __init__(self, wait_s: int = 0) -> None:
        super().__init__("not admitted")
        self.wait_s = wait_s


class _Session(NamedTuple):
    administrator: str
    proof: str  # the password hash at log-on: another one ends the session
    expires: float  # monotonic


class Gate:
    """Admits administrators."""

    def __init__(self, config: Config) -> None:
        self._administrators = Administrators(config)
        self._check = PasswordCheck(self._administrators)
        self._throttle = FailureThrottle()
        self._waiting: set[str] = set()
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()

    async def password(self, name: str, password: str, address: str) -> Caller:
        """By name and password; raises `NotAdmitted`."""
        name = name.strip().lower()
        known = self._check.remembered(name, password)
        if known is not None:
            return Caller(known.name, known.role, False)
        await self._wait(name[:MAX_NAME], address)
        found, stored = self._check.candidate(name)
        fits = len(name) <= MAX_NAME and len(password) <= MAX_PASSWORD
        right = await asyncio.to_thread(self._check.verify, stored, password if fits else "")
        if not right or not fits or found is None or not found.enabled:
            self._throttle.failed(name[:MAX_NAME], address, time.monotonic())
            raise NotAdmitted
        self._throttle.succeeded(name, address, time.monotonic())
        self._check.remember(found, password)
        return Caller(found.name, found.role, False)

    async def token(self, text: str, address: str) -> Caller:
        """By session or long-lived token; raises `NotAdmitted`."""
        if text.startswith(SESSION_PREFIX):
            owner = self._session_owner(text)
            if owner is not None:
                return Caller(owner.name, owner.role, False)
        elif text.startswith(TOKEN_PREFIX):
            owner = self._administrators.by_token(text, address)
            if owner is not None:
                return Caller(owner.name, owner.role, True)
        await self._wait("", address)
        self._throttle.failed("", address, time.monotonic())
        raise NotAdmitted

    def open_session(self, caller: Caller, lifetime_s: int) -> tuple[str, str]:
        """A session token for somebody who was admitted by password, and when it ends (ISO 8601)."""
        owner = self._administrators.one(caller.name)
        text = SESSION_PREFIX + secrets.token_urlsafe(32)
        while len(self._sessions) >= MAX_SESSIONS:
            self._sessions.popitem(last=False)
        ends = time.monotonic() + lifetime_s
        self._sessions[token_hash(text)] = _Session(owner.id, owner.password_hash, ends)
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=lifetime_s)
        return text, until.isoformat(timespec="seconds")

    def close_session(self, text: str) -> bool:
        """Log off; whether there was such a session."""
        return self._sessions.pop(token_hash(text), None) is not None

    def _session_owner(self, text: str) -> Administrator | None:
        key = token_hash(text)
        session = self._sessions.get(key)
        if session is None:
            return None
        owner = next((a for a in self._administrators.all() if a.id == session.administrator), None)
        if (
            session.expires <= time.monotonic()
            or owner is None
            or not owner.enabled
            or owner.password_hash != session.proof
        ):
            del self._sessions[key]
            return None
        return owner

    async def _wait(self, name: str, address: str) -> None:
        """The price of what failed before; `NotAdmitted` with a wait while another attempt of that network waits."""
        delay = self._throttle.delay(name, address, time.monotonic())
        if delay <= 0:
            return
        place = network(address)
        if place in self._waiting or len(self._waiting) >= MAX_WAITING:
            raise NotAdmitted(int(delay) + 1)
        self._waiting.add(place)
        try:
            await asyncio.sleep(delay)
        finally:
            self._waiting.discard(place)


def may_run(caller: Caller, cmdlet: Cmdlet, parameters: Iterable[str]) -> str:
    """Empty when the caller may run this; else the sentence that says why not."""
    if caller.role is Role.ViewOnly:
        if cmdlet.changes or not cmdlet.name.startswith("Get-") or cmdlet.name.startswith(_SECRET):
            return f"the role ViewOnly may not run {cmdlet.name}"
        asked = {cmdlet.parameter(name).name for name in parameters}
        reaching = sorted(name for name in asked if name.lower() in _REACHING)
        if reaching:
            return f"the role ViewOnly may not use -{reaching[0]} of {cmdlet.name}: it reaches files or other hosts"
    if caller.lasting and cmdlet.changes and "-Administrator" in cmdlet.name:
        return f"{cmdlet.name} needs a log-on by password: a token cannot make or change administrators and tokens"
    return ""
