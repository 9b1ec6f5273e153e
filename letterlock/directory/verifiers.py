"""Credentials to account, or refusal.

Passwords are Argon2id at rest (OWASP's parameters: 19 MiB, 2 passes). Hashing runs in a thread. An unknown user costs
the same hash. A login that was verified is remembered for a few minutes under a keyed hash of account, stored hash and
password, so that a client which opens many connections pays once; a changed password changes the stored hash, and so
its entry is never found again.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from concurrent.futures import Executor
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from letterlock.directory.accounts import RETIRED, Account, Accounts
from letterlock.session import Password

HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
REMEMBERED_S: Final = 300.0
REMEMBERED: Final = 10_000


def hash_password(password: str) -> str:
    """Argon2id with a fresh salt."""
    return HASHER.hash(password)


class Verifier:
    """Verifies passwords against accounts."""

    def __init__(self, accounts: Accounts, executor: Executor) -> None:
        self.accounts = accounts
        self._executor = executor
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._nobody = hash_password(secrets.token_hex(16))

    def _entry(self, account: Account, password: bytes) -> bytes:
        text = b"\x00".join((account.id.encode(), account.password_hash.encode(), password))
        return hmac.digest(self._key, text, hashlib.sha256)

    async def verify(self, user: str, password: Password) -> Account | None:
        """The account when `password` is its password."""
        account = self.accounts.by_login(user)
        secret = password.reveal()
        if account is not None:
            entry = self._entry(account, secret)
            if self._known.get(entry, 0.0) > time.monotonic():
                return account
        stored = account.password_hash if account else self._nobody
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._executor, matches, stored, secret)
        if account is None or not right:
            return None
        while len(self._known) >= REMEMBERED:
            self._known.popitem(last=False)
        self._known[entry] = time.monotonic() + REMEMBERED_S
        return account

    async def examine(self, user: str, password: Password) -> tuple[Account | None, bool]:
        """The account when `password` is its password, and whether it is one that it no longer has. The same hashes are
        made for everybody, and nothing is remembered: what it costs does not tell what it found."""
        account = self.accounts.by_login(user)
        stored = account.password_hash if account else self._nobody
        loop = asyncio.get_running_loop()
        right = await loop.run_in_executor(self._executor, matches, stored, password.reveal())
        retired = await self.retired(user, password)
        return (account if right else None), retired

    async def retired(self, user: str, password: Password) -> bool:
        """Whether `password` is one that the account no longer has; costs the same for everybody."""
        account = self.accounts.by_login(user)
        hashes = self.accounts.retired(account) if account else []
        loop = asyncio.get_running_loop()
        found = False
        for stored in (hashes + [self._nobody] * RETIRED)[:RETIRED]:
            found = await loop.run_in_executor(self._executor, matches, stored, password.reveal()) or found
        return found


def matches(stored: str, password: bytes) -> bool:
    """Whether `password` made the stored hash."""
    try:
        return HASHER.verify(stored, password)
    except (Argon2Error, InvalidHashError):
        return False
