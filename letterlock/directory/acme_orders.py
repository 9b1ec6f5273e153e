"""What is had from an ACME authority, and when it is renewed: one order a certificate, kept in `letterlock.db`."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from typing import Any, Final

from letterlock.base.errors import Refused
from letterlock.directory.certificate_names import Wish
from letterlock.directory.certificates import Certificate
from letterlock.directory.config import Config
from letterlock.policy.certificates import renewal_time

BACK_OFF_S: Final = 3600.0  # after the first failure; doubled with each further one
LONGEST_S: Final = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeOrder:
    """A certificate that renews itself. Times are seconds since 1970, 0 where there is none."""

    identity: str  # its first name
    domains: tuple[str, ...]
    services: tuple[str, ...]
    friendly_name: str
    algorithm: str
    size: int
    exportable: bool
    directory_url: str
    thumbprint: str = ""
    last_attempt: float = 0.0
    last_success: float = 0.0
    failures: int = 0  # since the last success
    error: str = ""

    @property
    def wish(self) -> Wish:
        """What is asked for."""
        return Wish(list(self.domains), "", self.friendly_name, self.algorithm, self.size, self.exportable)

    def due(self, installed: Certificate | None) -> float:
        """From when on it is to be tried: a third of the life left, at once without one, later after failures."""
        wanted = 0.0
        if installed is not None and not installed.revoked:
            start, end = installed.x509.not_valid_before_utc.timestamp(), installed.x509.not_valid_after_utc.timestamp()
            wanted = renewal_time(start, end)
        return max(wanted, self.last_attempt + back_off(self.failures)) if self.failures else wanted

    def succeeded(self, thumbprint: str) -> AcmeOrder:
        """After a certificate was had."""
        now = time.time()
        return dataclasses.replace(
            self, thumbprint=thumbprint, last_attempt=now, last_success=now, failures=0, error=""
        )

    def failed(self, error: str) -> AcmeOrder:
        """After an attempt that came to nothing."""
        return dataclasses.replace(self, last_attempt=time.time(), failures=self.failures + 1, error=error[:500])


def back_off(failures: int) -> float:
    """Seconds to wait after so many failures in a row: 1, 2, 4 … hours, at most a day."""
    return min(LONGEST_S, BACK_OFF_S * 2.0 ** (min(failures, 10) - 1)) if failures else 0.0


class AcmeOrders:
    """The orders of one data directory."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def all(self) -> list[AcmeOrder]:
        """By name."""
        rows = self._config.db.execute("SELECT json FROM acme_order ORDER BY id").fetchall()
        return [_read(str(text)) for (text,) in rows]

    def find(self, identity: str) -> AcmeOrder | None:
        """By its first name, in any case."""
        wanted = identity.strip().lower()
        return next((o for o in self.all() if o.identity == wanted), None)

    def one(self, identity: str) -> AcmeOrder:
        """`Refused` when there is none."""
        found = self.find(identity)
        if found is None:
            raise Refused(f"there is no ACME order for '{identity}'; see Get-AcmeCertificate", b"NONEXISTENT")
        return found

    def of(self, thumbprint: str) -> AcmeOrder | None:
        """The order that a certificate came from."""
        return next((o for o in self.all() if o.thumbprint == thumbprint), None)

    def save(self, order: AcmeOrder, who: str, what: str) -> None:
        """Durable, with its audit row."""
        old = self.find(order.identity)
        before = dataclasses.asdict(old) if old is not None else None
        with self._config.transaction(who, f"{what} {order.identity}", before, dataclasses.asdict(order)):
            self._config.db.execute(
                "INSERT OR REPLACE INTO acme_order VALUES (?, ?)",
                (order.identity, json.dumps(dataclasses.asdict(order))),
            )

    def remove(self, order: AcmeOrder, who: str) -> None:
        """No more renewals."""
        with self._config.transaction(who, f"Remove-AcmeCertificate {order.identity}", dataclasses.asdict(order)):
            self._config.db.execute("DELETE FROM acme_order WHERE id = ?", (order.identity,))


def _read(text: str) -> AcmeOrder:
    values = json.loads(text)
    known = {f.name for f in dataclasses.fields(AcmeOrder)}
    found: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
    return AcmeOrder(**found)
