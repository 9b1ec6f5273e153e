"""Mailboxes as accounts: identity, switches, quotas, password hash, exposure. The rows live in `config.py`'s file.

An account's id is random and names its mailbox file, so that nothing a person types becomes a path. Look-ups by login
name are cached and forgotten whenever any process writes to the file.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import re
import secrets
import unicodedata
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from letterlock.base import declare
from letterlock.base.errors import Malformed, Refused
from letterlock.base.switches import Switches
from letterlock.base.values import ByteSize
from letterlock.directory.config import Config, now
from letterlock.store.api import Quota

MAX_ADDRESS: Final = 254  # RFC 5321 §4.5.3.1
MAX_PASSWORD: Final = 1024
RETIRED: Final = 2  # passwords remembered after they were replaced
_ADDRESS = re.compile(r"[^\s@\x00-\x20\x7f\"(),:;<>\[\]\\*%]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """What a mailbox may hold: from the first on its owner is warned, beyond the second nothing more is taken."""

    IssueWarningQuota: ByteSize = ByteSize(-1)
    ProhibitSendReceiveQuota: ByteSize = ByteSize(-1)

    def check(self) -> None:
        """`Malformed` when the warning would never come."""
        warning, limit = self.IssueWarningQuota, self.ProhibitSendReceiveQuota
        if not warning.unlimited and not limit.unlimited and warning > limit:
            raise Malformed(f"IssueWarningQuota: {warning} is more than ProhibitSendReceiveQuota, {limit}")

    def store(self) -> Quota:
        """As the store wants it."""
        warning, limit = self.IssueWarningQuota, self.ProhibitSendReceiveQuota
        return Quota(None if limit.unlimited else limit.octets, None if warning.unlimited else warning.octets)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A mailbox that may log in."""

    id: str
    address: str
    alias: str
    display_name: str
    created: str
    switches: Switches
    quotas: Quotas = Quotas()
    proxies: tuple[str, ...] = ()  # further addresses by which it is found and may log in
    password_hash: str = dataclasses.field(repr=False)


def check_address(text: str) -> str:
    """An address in canonical form: NFC, domain in lower case; `Malformed` otherwise."""
    address = unicodedata.normalize("NFC", text.strip())
    if len(address.encode()) > MAX_ADDRESS or not _ADDRESS.fullmatch(address):
        raise Malformed(f"'{text}' is not a mail address; expected NAME@DOMAIN")
    local, _, domain = address.rpartition("@")
    return f"{local}@{domain.lower()}"


def check_password(text: str) -> str:
    """Not empty, no NUL (RFC 4616), bounded."""
    if not text or "\x00" in text or len(text.encode()) > MAX_PASSWORD:
        raise Malformed(f"Password: must have 1 to {MAX_PASSWORD} bytes and no NUL")
    return text


def check_name(parameter: str, text: str, most: int) -> str:
    """A display name or alias: something, bounded, no control characters; `Malformed` otherwise."""
    name = unicodedata.normalize("NFC", text.strip())
    if not name or len(name) > most or any(unicodedata.category(ch) in ("Cc", "Cs", "Zl", "Zp") for ch in name):
        raise Malformed(f"{parameter}: must have 1 to {most} characters, and no control characters")
    return name


def check_alias(text: str) -> str:
    """A short name that is one word and no pattern; `Malformed` otherwise."""
    alias = check_name("Alias", text, 64)
    if any(ch.isspace() or ch in '@*?,;:<>()[]\\"' for ch in alias):
        raise Malformed('Alias: is one word, without blanks and without any of @ * ? , ; : < > ( ) [ ] \\ "')
    return alias


def _quotas_json(quotas: Quotas) -> str:
    return json.dumps({name: value.octets for name, value in _quota_items(quotas)})


def _quota_items(quotas: Quotas) -> list[tuple[str, ByteSize]]:
    return [(f.name, getattr(quotas, f.name)) for f in dataclasses.fields(quotas)]


def _switches_json(switches: Switches) -> str:
    return json.dumps(declare.stored(switches))


def _switches(text: str) -> Switches:
    return declare.restored(Switches, json.loads(text))


class Exposure(NamedTuple):
    """A right password that crossed the network in clear text."""

    account: Account
    protocol: str
    address: str


class Accounts:
    """All accounts of one data directory."""

    _STORED: Final = "id, address, alias, display_name, created, switches, password_hash"
    _PROXIES: Final = "(SELECT json_group_array(p.address) FROM proxy_address p WHERE p.account = account.id)"
    _COLUMNS: Final = f"{_STORED}, quotas, {_PROXIES}"

    def __init__(self, config: Config) -> None:
        self.config = self._config = config
        self._by_login: dict[str, Account | None] = {}

    @staticmethod
    def _account(row: tuple[Any, ...]) -> Account:
        return Account(
            id=row[0],
            address=row[1],
            alias=row[2],
            display_name=row[3],
            created=row[4],
            switches=_switches(row[5]),
            password_hash=row[6],
            quotas=Quotas(**{name: ByteSize(octets) for name, octets in json.loads(row[7]).items()}),
            proxies=tuple(sorted(json.loads(row[8]))),
        )

    def all(self) -> list[Account]:
        """Every account, by address."""
        rows = self._config.db.execute(f"SELECT {self._COLUMNS} FROM account ORDER BY address")  # noqa: S608 - constant
        return [self._account(row) for row in rows]

    def find(self, pattern: str | None) -> list[Account]:
        """By any address, alias, display name or id, with `*` and `?`; None is all.

        `Refused` when a plain name is none.
        """
        accounts = self.all()
        if pattern is None or pattern == "*":
            return accounts
        wanted = pattern.lower()
        names = [(a, _keys(a)) for a in accounts]
        if "*" in wanted or "?" in wanted:
            escaped = wanted.replace("[", "[[]")
            return [a for a, keys in names if any(fnmatch.fnmatchcase(k, escaped) for k in keys)]
        found = [a for a, keys in names if wanted in keys]
        if not found:
            raise Refused(f"there is no mailbox '{pattern}'", b"NONEXISTENT")
        return found

    def one(self, identity: str) -> Account:
        """Exactly one account; `Refused` otherwise."""
        found = self.find(identity)
        if len(found) != 1:
            raise Refused(f"'{identity}' names {len(found)} mailboxes; use the full address")
        return found[0]

    def by_login(self, user: str) -> Account | None:
        """The account that logs in as `user` (one of its full addresses, without case), cached."""
        if self._config.changed():
            self._by_login.clear()
        key = unicodedata.normalize("NFC", user).lower()
        if key not in self._by_login:
            if len(self._by_login) > 10_000:  # names come from the wire
                self._by_login.clear()
            row = self._config.db.execute(
                f"SELECT {self._COLUMNS} FROM account WHERE address = ?1 "  # noqa: S608 - constant
                "OR id = (SELECT account FROM proxy_address WHERE address = ?1)",
                (key,),
            ).fetchone()
            self._by_login[key] = self._account(row) if row else None
        return self._by_login[key]

    def check_free(self, address: str, but: str = "") -> None:
        """`Refused` when a mailbox other than `but` (its id) has this address."""
        row = self._config.db.execute(
            "SELECT address FROM account WHERE id <> ?2 AND "
            "(address = ?1 OR id = (SELECT account FROM proxy_address WHERE address = ?1))",
            (address, but),
        ).fetchone()
        if row is not None and str(row[0]).lower() == address.lower():
            raise Refused(f"there is a mailbox {address} already", b"ALREADYEXISTS")
        if row is not None:
            raise Refused(f"{address} is an address of mailbox {row[0]} already", b"ALREADYEXISTS")

    def create(self, address: str, password_hash: str, display_name: str, alias: str, who: str) -> Account:
        """Durable; `Refused` when the address is taken."""
        address = check_address(address)
        local = address.rpartition("@")[0]
        account = Account(
            id=secrets.token_hex(16),
            address=address,
            alias=alias or local,
            display_name=display_name or local,
            created=now(),
            switches=Switches(),
            password_hash=password_hash,
        )
        self.check_free(address)
        new = {"Alias": account.alias, "DisplayName": account.display_name}
        with self._config.transaction(who, f"New-Mailbox {address}", None, new):
            self._config.db.execute(
                f"INSERT INTO account ({self._STORED}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constant
                (
                    *(account.id, address, account.alias, account.display_name, account.created),
                    *(_switches_json(account.switches), password_hash),
                ),
            )
        return account

    def set_switches(self, account: Account, changes: dict[str, Any], who: str) -> None:
        """Durable; running sessions keep what they have, the next login meets the new values."""
        old = {k: declare.to_json(getattr(account.switches, k)) for k in changes}
        new = dataclasses.replace(account.switches, **changes)
        with self._config.transaction(
            who, f"Set-CASMailbox {account.address}", old, {k: declare.to_json(v) for k, v in changes.items()}
        ):
            self._config.db.execute("UPDATE account SET switches = ? WHERE id = ?", (_switches_json(new), account.id))

    def change(self, account: Account, new: Account, who: str) -> None:
        """Durable: names, addresses and quotas as in `new`; all or nothing."""
        new.quotas.check()
        for address in (new.address, *new.proxies):
            self.check_free(address, account.id)
        before, after = facts(account), facts(new)
        differing = [name for name in after if before[name] != after[name]]
        old = {name: before[name] for name in differing}
        with self._config.transaction(who, f"Set-Mailbox {account.address}", old, {n: after[n] for n in differing}):
            db = self._config.db
            db.execute("DELETE FROM proxy_address WHERE account = ?", (account.id,))
            db.executemany("INSERT INTO proxy_address VALUES (?, ?)", [(p, account.id) for p in new.proxies])
            db.execute(
                "UPDATE account SET address = ?, alias = ?, display_name = ?, quotas = ? WHERE id = ?",
                (new.address, new.alias, new.display_name, _quotas_json(new.quotas), account.id),
            )

    def set_password(self, account: Account, password_hash: str, who: str) -> None:
        """Durable; clears the marks of exposure. The old one is remembered as retired: who tries it is found."""
        with self._config.transaction(who, f"Set-MailboxPassword {account.address}"):
            self._config.db.execute("INSERT INTO retired VALUES (?, ?, ?)", (account.id, account.password_hash, now()))
            self._config.db.execute(
                "DELETE FROM retired WHERE account = ?1 AND rowid NOT IN "
                "(SELECT rowid FROM retired WHERE account = ?1 ORDER BY rowid DESC LIMIT ?2)",
                (account.id, RETIRED),
            )
            self._config.db.execute("UPDATE account SET password_hash = ? WHERE id = ?", (password_hash, account.id))
            self._config.db.execute("DELETE FROM exposed WHERE account = ?", (account.id,))

    def remove(self, account: Account, who: str) -> None:
        """Durable."""
        with self._config.transaction(who, f"Remove-Mailbox {account.address}", facts(account), None):
            self._config.db.execute("DELETE FROM account WHERE id = ?", (account.id,))
            for table in ("retired", "exposed", "proxy_address", "logon"):
                self._config.db.execute(f"DELETE FROM {table} WHERE account = ?", (account.id,))  # noqa: S608 - constant

    def mark_exposed(self, exposures: Iterable[Exposure]) -> None:
        """Right passwords that crossed the network in clear text (at most 100 marks are kept for an account).

        Written without a sync, like counts: a mark must not cost more time than what is written of a wrong password.
        """
        for account, protocol, address in exposures:
            present = self.by_login(account.address)
            if present is None or present.password_hash != account.password_hash:
                continue  # the password was changed in the meantime
            # the first mark goes into the audit trail: whoever has the password could fill it with the others
            what = "" if self.exposed(account) else f"exposed {account.address}"
            with self._config.counted("server", what, {"Protocol": protocol, "RemoteAddress": address}) as db:
                db.execute(
                    "INSERT INTO exposed (account, at, protocol, address) VALUES (?, ?, ?, ?)",
                    (account.id, now(), protocol, address),
                )
                db.execute(
                    "DELETE FROM exposed WHERE account = ?1 AND rowid NOT IN "
                    "(SELECT rowid FROM exposed WHERE account = ?1 ORDER BY rowid DESC LIMIT 100)",
                    (account.id,),
                )

    def clear_exposed(self, account: Account, who: str) -> None:
        """Durable: the marks are taken away, the password stays."""
        with self._config.transaction(who, f"Clear-ExposedCredential {account.address}"):
            self._config.db.execute("DELETE FROM exposed WHERE account = ?", (account.id,))

    def retired(self, account: Account) -> list[str]:
        """Hashes of the last passwords that are no longer valid, newest first."""
        rows = self._config.db.execute(
            "SELECT password_hash FROM retired WHERE account = ? ORDER BY rowid DESC", (account.id,)
        )
        return [str(row[0]) for row in rows]

    def exposed(self, account: Account) -> list[tuple[str, str, str]]:
        """(when, protocol, address) of each mark."""
        rows = self._config.db.execute(
            "SELECT at, protocol, address FROM exposed WHERE account = ? ORDER BY rowid", (account.id,)
        )
        return [(str(r[0]), str(r[1]), str(r[2])) for r in rows]


def _keys(a: Account) -> list[str]:
    """What a mailbox is found by."""
    return [k.lower() for k in (a.address, a.alias, a.display_name, a.id, *a.proxies)]


def facts(a: Account) -> dict[str, object]:
    """What the audit trail tells of a mailbox."""
    sizes = {name: value.to_json() for name, value in _quota_items(a.quotas)}
    return {
        "PrimarySmtpAddress": a.address,
        "EmailAddresses": list(a.proxies),
        "Alias": a.alias,
        "DisplayName": a.display_name,
        **sizes,
    }
