"""Administrators: who may manage this server from another machine, their roles, and their long-lived tokens.

A password is kept as an Argon2id hash, a token as the SHA-256 of 32 random octets: nothing here can be used to log in.
A token names its administrator and has an expiry; it can be taken back at any time and shows when it was last used.
Whoever owns the data directory needs no entry here: the control socket belongs to them.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

from letterlock.base.errors import Malformed, Refused
from letterlock.directory.config import Config, now
from letterlock.directory.verifiers import hash_password, matches

TOKEN_PREFIX: Final = "llt_"  # noqa: S105 - secret scanners recognise a leaked token by it
DEFAULT_TOKEN_DAYS: Final = 90
MAX_TOKEN_DAYS: Final = 366
MAX_TOKENS: Final = 100  # of one administrator
USED_STEP_S: Final = 60  # "last used" is written at most this often
REMEMBERED_S: Final = 300.0
REMEMBERED: Final = 1000
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?")


class Role(enum.Enum):
    """What an administrator may do."""

    Administrator = "Organization Management"
    ViewOnly = "View-Only Organization Management"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Administrator:
    """Somebody who may manage the server."""

    id: str
    name: str
    role: Role
    enabled: bool
    created: str
    password_hash: str = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A long-lived token, without the token."""

    id: str
    administrator: str  # its name
    description: str
    created: str
    expires: str
    last_used: str
    last_address: str

    @property
    def expired(self) -> bool:
        """Its time is over."""
        return self.expires <= now()


def check_name(text: str) -> str:
    """Letters, digits, `. _ @ -`, at most 64; in lower case."""
    name = text.strip()
    if not _NAME.fullmatch(name):
        raise Malformed(f"Name: '{text}' is not an administrator's name; use up to 64 letters, digits and . _ @ -")
    return name.lower()


class Administrators:
    """All administrators of one data directory."""

    _COLUMNS: Final = "id, name, role, enabled, created, password_hash"

    def __init__(self, config: Config) -> None:
        self._config = config

    @staticmethod
    def _read(row: tuple[Any, ...]) -> Administrator:
        return Administrator(
            id=row[0], name=row[1], role=Role[row[2]], enabled=bool(row[3]), created=row[4], password_hash=row[5]
        )

    def all(self) -> list[Administrator]:
        """Every administrator, by name."""
        rows = self._config.db.execute(f"SELECT {self._COLUMNS} FROM administrator ORDER BY name")  # noqa: S608 - constant
        return [self._read(row) for row in rows]

    def by_name(self, name: str) -> Administrator | None:
        """By name, without case."""
        row = self._config.db.execute(
            f"SELECT {self._COLUMNS} FROM administrator WHERE name = ?",  # noqa: S608 - constant
            (name.strip().lower(),),
        ).fetchone()
        return self._read(row) if row else None

    def one(self, name: str) -> Administrator:
        """By name; `Refused` NONEXISTENT when there is none."""
        found = self.by_name(name)
        if found is None:
            raise Refused(f"there is no administrator '{name}'", b"NONEXISTENT")
        return found

    def create(self, name: str, password_hash: str, role: Role, who: str) -> Administrator:
        """Durable; `Refused` ALREADYEXISTS when the name is taken."""
        name = check_name(name)
        if self.by_name(name) is not None:
            raise Refused(f"there is an administrator {name} already", b"ALREADYEXISTS")
        with self._config.transaction(who, f"New-Administrator {name}", None, {"Role": role.name}):
            self._config.db.execute(
                f"INSERT INTO administrator ({self._COLUMNS}) VALUES (?, ?, ?, 1, ?, ?)",  # noqa: S608 - constant
                (secrets.token_hex(16), name, role.name, now(), password_hash),
            )
        return self.one(name)

    def change(self, a: Administrator, role: Role, enabled: bool, password_hash: str, who: str) -> None:
        """Durable; the password itself is never in the audit trail."""
        old = {"Role": a.role.name, "Enabled": a.enabled}
        new: dict[str, object] = {"Role": role.name, "Enabled": enabled}
        if password_hash != a.password_hash:
            new |= {"Password": "changed"}
        with self._config.transaction(who, f"Set-Administrator {a.name}", old, new):
            self._config.db.execute(
                "UPDATE administrator SET role = ?, enabled = ?, password_hash = ? WHERE id = ?",
                (role.name, int(enabled), password_hash, a.id),
            )

    def remove(self, a: Administrator, who: str) -> None:
        """Durable, with all tokens."""
        with self._config.transaction(who, f"Remove-Administrator {a.name}"):
            self._config.db.execute("DELETE FROM administrator_token WHERE administrator = ?", (a.id,))
            self._config.db.execute("DELETE FROM administrator WHERE id = ?", (a.id,))

    # tokens

    def tokens(self, owner: Administrator | None = None) -> list[Token]:
        """Tokens, the newest first; of one administrator, or all."""
        where = "WHERE a.id = ?" if owner else ""
        rows = self._config.db.execute(
            "SELECT t.id, a.name, t.description, t.created, t.expires, t.last_used, t.last_address "  # noqa: S608
            f"FROM administrator_token t JOIN administrator a ON a.id = t.administrator {where} "
            "ORDER BY t.created DESC, t.id",
            (owner.id,) if owner else (),
        )
        names = [f.name for f in dataclasses.fields(Token)]
        return [Token(**dict(zip(names, map(str, row), strict=True))) for row in rows]

    def token(self, identity: str) -> Token:
        """By id; `Refused` NONEXISTENT."""
        for found in self.tokens():
            if found.id == identity.strip().lower():
                return found
        raise Refused(f"there is no token '{identity}'", b"NONEXISTENT")

    def create_token(
        self, a: Administrator, description: str, expires: datetime.datetime, who: str
    ) -> tuple[Token, str]:
        """Durable; the token itself is answered here and never again."""
        if len(self.tokens(a)) >= MAX_TOKENS:
            raise Refused(f"{a.name} has {MAX_TOKENS} tokens already; remove some with Remove-AdministratorToken")
        secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
        identity, until = secrets.token_hex(8), expires.astimezone(datetime.UTC).isoformat(timespec="milliseconds")
        with self._config.transaction(
            who, f"New-AdministratorToken {a.name}", None, {"Id": identity, "Expires": until}
        ):
            self._config.db.execute(
                "INSERT INTO administrator_token (id, administrator, hash, description, created, expires, last_used, "
                "last_address) VALUES (?, ?, ?, ?, ?, ?, '', '')",
                (identity, a.id, token_hash(secret), description, now(), until),
            )
        return self.token(identity), secret

    def remove_token(self, token: Token, who: str) -> None:
        """Durable; it is refused from now on."""
        with self._config.transaction(who, f"Remove-AdministratorToken {token.administrator} {token.id}"):
            self._config.db.execute("DELETE FROM administrator_token WHERE id = ?", (token.id,))

    def by_token(self, secret: str, address: str) -> Administrator | None:
        """Whose valid token this is; notes the use. The look-up is by hash, so its time tells nothing of the token."""
        wanted = token_hash(secret)
        row = self._config.db.execute(
            "SELECT id, administrator, hash, expires, last_used FROM administrator_token WHERE hash = ?", (wanted,)
        ).fetchone()
        if row is None or not hmac.compare_digest(bytes(row[2]), wanted) or str(row[3]) <= now():
            return None
        owner = next((a for a in self.all() if a.id == row[1]), None)
        if owner is None or not owner.enabled:
            return None
        step = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=USED_STEP_S)
        if str(row[4]) < step.isoformat(timespec="milliseconds"):
            self._config.db.execute(
                "UPDATE administrator_token SET last_used = ?, last_address = ? WHERE id = ?", (now(), address, row[0])
            )
        return owner


def token_hash(secret: str) -> bytes:
    """What is stored of a token: it has 256 random bits, so one plain hash cannot be searched."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


class PasswordCheck:
    """Verifies administrators' passwords; blocking, for a thread. Unknown and disabled ones cost the same hash."""

    def __init__(self, administrators: Administrators) -> None:
        self._administrators = administrators
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._nobody = hash_password(secrets.token_hex(16))

    def _entry(self, parts: Iterable[str]) -> bytes:
        return hmac.digest(self._key, "\x00".join(parts).encode("utf-8", "surrogatepass"), hashlib.sha256)

    def remembered(self, name: str, password: str) -> Administrator | None:
        """Without hashing: the same right password within the last minutes, nothing changed since."""
        a = self._administrators.by_name(name)
        if a is None or not a.enabled:
            return None
        return a if self._known.get(self._entry((a.id, a.password_hash, password)), 0.0) > time.monotonic() else None

    def candidate(self, name: str) -> tuple[Administrator | None, str]:
        """The administrator, and the hash to verify against (somebody's in any case)."""
        a = self._administrators.by_name(name)
        return a, a.password_hash if a is not None else self._nobody

    @staticmethod
    def verify(stored: str, password: str) -> bool:
        """For a thread."""
        return matches(stored, password.encode("utf-8", "surrogatepass"))

    def remember(self, a: Administrator, password: str) -> None:
        """It was right."""
        while len(self._known) >= REMEMBERED:
            self._known.popitem(last=False)
        self._known[self._entry((a.id, a.password_hash, password))] = time.monotonic() + REMEMBERED_S
