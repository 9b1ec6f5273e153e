"""Which certificate is served: by name, with rules that leave nothing to chance.

1. The name is X509CertificateName of the service. A certificate fits when one of its names is that name, or a wildcard
   for it: one whole left-most label, nothing less and nothing more (RFC 9525 §6.3).
2. It must be usable: its key is there and fits, and it is not for other purposes than servers.
3. Of those that fit, the best is the first by: within its dates and not revoked; *in service* (enabled for the
   service, or a wildcard certificate, which cannot be enabled for POP and IMAP); issued by an authority rather than
   self-signed; enabled rather than a wildcard; newest; thumbprint.
4. A client that asks for another name (SNI, RFC 6066 §3) gets the best certificate in service for that name; where
   there is none, the one of rule 1.

The server and Get-ExchangeCertificate use the same function, so what is explained is what is served. Nothing is kept by
a client's name: a look-up takes no memory.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from letterlock.directory.certificates import Certificate


class Rank(NamedTuple):
    """Smaller is better."""

    out_of_dates: bool
    not_in_service: bool
    self_signed: bool
    not_enabled: bool
    age: float  # minus its NotBefore
    thumbprint: str

    def words(self, service: str) -> str:
        """What speaks for and against it."""
        found = ["not within its dates, or revoked"] if self.out_of_dates else []
        kind = "a wildcard for it" if self.not_enabled else f"enabled for {service}"
        found.append(f"not enabled for {service}" if self.not_in_service else kind)
        found.append("self-signed" if self.self_signed else "issued by an authority")
        return ", ".join(found)


class Candidate(NamedTuple):
    """A usable certificate that fits a name."""

    rank: Rank
    certificate: Certificate
    why: str


def matches(domains: Iterable[str], name: str) -> bool:
    """Whether one of `domains` is `name`, or a wildcard for it (RFC 9525 §6.3)."""
    wanted = name.lower().rstrip(".")
    parent = wanted.partition(".")[2]
    return any(d == wanted or (d.startswith("*.") and parent != "" and d[2:] == parent) for d in domains)


def in_service(certificate: Certificate, service: str) -> bool:
    """Enabled for the service, or one that cannot be and goes by its name."""
    return service in certificate.services or (certificate.wildcard and service in ("IMAP", "POP"))


def candidates(certificates: Iterable[Certificate], name: str, service: str) -> list[Candidate]:
    """Usable certificates that fit `name`, the one that is served first; `why` says what decided."""
    now = time.time()
    found = sorted((_rank(c, service, now), c) for c in certificates if c.matches(name) and not c.fault)
    if not found:
        return []
    best = found[0][0]
    result = []
    for rank, certificate in found:
        if rank is best:
            others = f", the best of {len(found)} that fit" if len(found) > 1 else ""
            why = f"served: {rank.words(service)}{others}"
        else:
            why = f"not served: {_against(rank, best, service)}"
        result.append(Candidate(rank, certificate, why))
    return result


def _rank(c: Certificate, service: str, now: float) -> Rank:
    start = c.x509.not_valid_before_utc.timestamp()
    enabled = service in c.services
    return Rank(
        not c.validity(now).in_force or bool(c.revoked),
        not in_service(c, service),
        c.self_signed,
        not enabled,
        -start,
        c.thumbprint,
    )


def _against(rank: Rank, best: Rank, service: str) -> str:
    """The first rule by which it loses."""
    if rank.out_of_dates != best.out_of_dates:
        return "not within its dates, or revoked"
    if rank.not_in_service != best.not_in_service:
        return f"not enabled for {service}, as {best.thumbprint} is"
    if rank.self_signed != best.self_signed:
        return f"self-signed, and {best.thumbprint} is issued by an authority"
    if rank.not_enabled != best.not_enabled:
        return f"a wildcard, and {best.thumbprint} is enabled for {service}"
    return f"{best.thumbprint} is newer" if rank.age != best.age else f"as good as {best.thumbprint}, which comes first"


def by_server_name(certificates: Iterable[Certificate], name: str, service: str) -> Certificate | None:
    """For a client that asks for `name`: the best in service within its dates, if there is one."""
    for candidate in candidates(certificates, name, service):
        if not candidate.rank.not_in_service and not candidate.rank.out_of_dates:
            return candidate.certificate
    return None
