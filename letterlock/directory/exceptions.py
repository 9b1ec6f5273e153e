"""Login exceptions, kept in `letterlock.db`; those in force are read by every worker, and anew after any change."""

from __future__ import annotations

import dataclasses
import json
import secrets
import time
from typing import Any, Final

from letterlock.base.errors import Malformed, Refused
from letterlock.base.values import Protocol
from letterlock.directory.config import Config
from letterlock.policy.exceptions import LONGEST_S, LoginException, parse_range

LIMIT: Final = 1000  # exceptions; a policy with more has no rule left


@dataclasses.dataclass(frozen=True, slots=True)
class _Cache:
    version: int
    rows: tuple[LoginException, ...]


class LoginExceptions:
    """All exceptions of one data directory."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._cache = _Cache(-1, ())

    def all(self) -> tuple[LoginException, ...]:
        """Every one, expired ones too, oldest first."""
        version = self._config.version()
        if version != self._cache.version:
            rows = self._config.db.execute("SELECT id, json FROM login_exception")
            restored = [_restored(str(i), json.loads(str(text))) for i, text in rows]
            found = sorted((e._replace(names=self._names(e.mailbox)) for e in restored), key=lambda e: e.created)
            self._cache = _Cache(version, tuple(found))
        return self._cache.rows

    def _names(self, mailbox: str) -> tuple[str, ...]:
        """All addresses by which the mailbox logs in."""
        rows = self._config.db.execute(
            "SELECT p.address FROM proxy_address p JOIN account a ON a.id = p.account WHERE a.address = ?1 "
            "UNION SELECT a.address FROM account a JOIN proxy_address p ON a.id = p.account WHERE p.address = ?1 "
            "UNION SELECT q.address FROM proxy_address p JOIN proxy_address q ON q.account = p.account "
            "WHERE p.address = ?1",
            (mailbox.lower(),),
        )
        return tuple(str(row[0]) for row in rows) if mailbox else ()

    def in_force(self, protocol: Protocol, address: str, now: float) -> tuple[LoginException, ...]:
        """Those that may let a client at `address` in at `now` (seconds since 1970)."""
        everything = self.all()
        if not everything:
            return ()
        return tuple(e for e in everything if e.protocol is protocol and e.active(now) and e.contains(address))

    def one(self, identity: str) -> LoginException:
        """By identity; `Refused` when there is none."""
        for exception in self.all():
            if exception.identity == identity.strip().lower():
                return exception
        raise Refused(f"there is no login exception '{identity}'; Get-LoginException lists them")

    def create(self, exception: LoginException, who: str) -> LoginException:
        """Durable; answers it with its new identity. `Malformed` when it is not narrow enough."""
        if len(self.all()) >= LIMIT:
            raise Refused(f"there are {LIMIT} login exceptions already; remove some first")
        made = exception._replace(identity=secrets.token_hex(4), created=time.time())
        check(made)
        with self._config.transaction(who, f"New-LoginException {made.identity}", None, _stored(made)):
            self._config.db.execute("INSERT INTO login_exception VALUES (?, ?)", _row(made))
        return made

    def change(self, exception: LoginException, who: str) -> None:
        """Durable."""
        check(exception)
        old = self.one(exception.identity)
        with self._config.transaction(who, f"Set-LoginException {old.identity}", _stored(old), _stored(exception)):
            self._config.db.execute("INSERT OR REPLACE INTO login_exception VALUES (?, ?)", _row(exception))

    def remove(self, identity: str, who: str) -> None:
        """Durable; `Refused` when there is none."""
        old = self.one(identity)
        with self._config.transaction(who, f"Remove-LoginException {old.identity}", _stored(old), None):
            self._config.db.execute("DELETE FROM login_exception WHERE id = ?", (old.identity,))


def check(exception: LoginException) -> None:
    """What the whole object must be; raises `Malformed`."""
    if not exception.ranges:
        raise Malformed("RemoteIPRanges: an exception is for certain addresses; name at least one")
    if exception.protocol is Protocol.SMTP:
        raise Malformed("Protocol: this server has no SMTP logins; use Imap or Pop")
    if exception.expires <= time.time():
        raise Malformed("ExpiresOn: is in the past")
    if exception.expires > time.time() + LONGEST_S:
        raise Malformed("ExpiresOn: an exception may last a year at most; it can be renewed then")
    if not exception.owner.strip() or not exception.reason.strip():
        raise Malformed("Owner and Reason: say who answers for the exception, and why there is one")
    if not exception.clear_text and not exception.tls_minimum:
        raise Malformed("the exception would except nothing: allow clear text, or give a TlsMinimum")


def _stored(e: LoginException) -> dict[str, Any]:
    rows = {**e._asdict(), "protocol": e.protocol.name, "ranges": [str(r) for r in e.ranges]}
    del rows["names"]  # they are the mailbox's, and may change
    return rows


def _row(e: LoginException) -> tuple[str, str]:
    return e.identity, json.dumps(_stored(e))


def _restored(identity: str, rows: dict[str, Any]) -> LoginException:
    rows["protocol"] = Protocol[rows["protocol"]]
    rows["ranges"] = tuple(parse_range(r) for r in rows["ranges"])
    rows["mechanisms"] = tuple(rows["mechanisms"])
    return LoginException(**{**rows, "identity": identity})
