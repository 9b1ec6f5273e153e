"""Certificates as Get-ExchangeCertificate shows them, and which one POP and IMAP serve.

Dates in listings follow the language of whoever made them: `3/2/2026 8:15:30 AM` is March, `02.03.2026 08:15:30` too,
and `02/03/2026 08:15:30` may be either; then the earlier one is taken, so that no certificate is praised that has
expired.
"""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING, Final

from letterlock.analyze.exports_kinds import MORE
from letterlock.base.facts import CertificateFact

if TYPE_CHECKING:
    from letterlock.analyze.inventory import MailService, Thing

_LETTERS: Final = {"I": "IMAP", "P": "POP", "U": "UM", "W": "IIS", "S": "SMTP", "F": "Federation"}
# the order of the letters is that of the bits
_BITS: Final = ((1, "IMAP"), (2, "POP"), (4, "UM"), (8, "IIS"), (16, "SMTP"), (32, "Federation"))
_TICKS: Final = re.compile(r"/Date\((-?\d{1,15})(?:[+-]\d{4})?\)/\Z")
_NUMERIC: Final = re.compile(
    r"(\d{1,4})([./-])(\d{1,2})\2(\d{1,4})\.?,?(?:[ "
    r"T]+(\d{1,2})[:.](\d{2})(?:[:.](\d{2}))?\s*([AaPp])?\.?[Mm]?\.?)?.*\Z",
    re.S,
)
NEVER: Final = float("nan")


def moment(text: str) -> float:
    """Seconds since 1970 of a date as exports write it; NaN where it is none."""
    text = text.strip().replace("\u202f", " ")
    ticks = _TICKS.match(text)
    if ticks:
        return int(ticks[1]) / 1000
    try:
        if not re.match(r"\d{4}-\d\d-\d\d", text):
            raise ValueError
        parsed = datetime.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, OverflowError):
        pass
    for pattern in ("%A, %B %d, %Y %I:%M:%S %p", "%A, %d %B %Y %H:%M:%S", "%d %B %Y %H:%M:%S", "%B %d, %Y"):
        try:
            return datetime.datetime.strptime(text, pattern).replace(tzinfo=datetime.UTC).timestamp()
        except ValueError:
            continue
    return _numeric(text)


def _numeric(text: str) -> float:
    match = _NUMERIC.match(text)
    if not match:
        return NEVER
    first, separator, second, third = int(match[1]), match[2], int(match[3]), int(match[4])
    hour, minute, second_ = int(match[5] or 0), int(match[6] or 0), int(match[7] or 0)
    half = (match[8] or "").lower()
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    if len(match[1]) == 4:
        orders = [(first, second, third)]
    elif separator == "." or (separator == "-" and not half):
        orders = [(third, second, first)]
    elif half:
        orders = [(third, first, second)]
    else:
        orders = [(third, first, second), (third, second, first)]
    found = []
    for year, month, day in orders:
        try:
            at = datetime.datetime(
                year + 2000 if year < 100 else year, month, day, hour, minute, second_, tzinfo=datetime.UTC
            )
            found.append(at.timestamp())
        except (ValueError, OverflowError):
            continue
    return min(found, default=NEVER)


def services(text: str) -> tuple[str, ...]:
    """`IMAP, POP, IIS, SMTP`, `IP.WS..` or a number."""
    text = text.strip()
    if re.fullmatch(r"[IPUWSF.]{4,8}", text):
        return tuple(_LETTERS[c] for c in text if c != ".")
    if text.isascii() and text.isdigit() and len(text) < 6:
        return tuple(name for bit, name in _BITS if int(text) & bit)
    return tuple(word for word in (w.strip() for w in text.split(",")) if word and word.lower() != "none")


def names_of(thing: Thing) -> tuple[tuple[str, ...], bool]:
    """DNS names, and whether the list is whole."""
    subject = _optional(thing, "Subject")
    common = re.search(r"(?:\A|[,/]\s*)CN=([^,/]+)", subject, re.I)
    listed = thing.items("CertificateDomains") if thing.get("CertificateDomains") else ()
    found = [re.sub(r"\ADNS( Name)?[=:]", "", n).strip().lower() for n in listed if n != MORE]
    if common and "." in common[1] and common[1].strip().lower() not in found:
        found.append(common[1].strip().lower())
    return tuple(found), bool(listed) and MORE not in listed


def _optional(thing: Thing, *names: str) -> str:
    for name in names:
        fact = thing.get(name)
        if fact is not None and fact.value is not None:
            return ", ".join(fact.value) if isinstance(fact.value, tuple) else str(fact.value)
    return ""


def _flag(thing: Thing, name: str) -> bool | None:
    text = _optional(thing, name).strip().lower()
    return {"true": True, "false": False}.get(text)


def certificate(thing: Thing) -> CertificateFact:
    """An installed certificate; what the listing leaves out is unknown: NaN, None or empty."""
    found, complete = names_of(thing)
    own = _flag(thing, "IsSelfSigned")
    size = re.search(r"\d{3,5}", _optional(thing, "PublicKeySize"))
    algorithm = _optional(thing, "KeyAlgorithm")
    kind = "ECDSA " if algorithm.upper().startswith(("EC", "1.2.840.10045")) else ""
    usage = _optional(thing, "EnhancedKeyUsageList", "HasServerAuthentication")
    return CertificateFact(
        _optional(thing, "Subject"),
        found,
        moment(_optional(thing, "NotBefore")),
        moment(_optional(thing, "NotAfter")),
        services(_optional(thing, "Services")),
        _optional(thing, "Thumbprint").replace(" ", "").upper() or thing.identity.upper(),
        bool(own) if own is not None else bool(
            _optional(thing, "Issuer") and _optional(thing, "Issuer") == _optional(thing, "Subject")
        ),
        kind + size[0] if size else "",
        thing.origin._replace(server=thing.server),
        _optional(thing, "Issuer"),
        _flag(thing, "HasPrivateKey"),
        _optional(thing, "Status"),
        _optional(thing, "RootCAType"),
        _hash(_optional(thing, "SignatureAlgorithm")),
        _for_servers(usage),
        complete,
    )  # fmt: skip


def _for_servers(usage: str) -> bool | None:
    """By EnhancedKeyUsageList, or a plain yes or no; None where the source does not tell."""
    if not usage or usage == MORE:
        return None
    lower = usage.lower()
    return lower == "true" or "server auth" in lower or "1.3.6.1.5.5.7.3.1" in lower


def _hash(text: str) -> str:
    found = re.search(r"md5|sha-?1(?!\d)|sha-?(?:224|256|384|512)", text, re.I)
    return found[0].lower().replace("-", "") if found else ""


def matches(fact: CertificateFact, name: str) -> bool:
    """One of its names is `name`, or a wildcard for it: exactly one label (RFC 9525 §6.3)."""
    wanted = name.lower().rstrip(".")
    parent = wanted.partition(".")[2]
    return any(n == wanted or (n.startswith("*.") and bool(parent) and n[2:] == parent) for n in fact.names)


UNUSABLE: Final = frozenset({"pendingrequest", "invalid", "revoked"})


def usable(fact: CertificateFact) -> bool:
    """Has its key as far as is known, and is for servers."""
    return fact.private_key is not False and fact.server_auth is not False and fact.status.lower() not in UNUSABLE


def ranked(service: MailService, now: float) -> list[CertificateFact]:
    """The usable certificates with the service's name, the one that is presented first.

    Exchange: issued by an authority before self-signed, then the newest. Letterlock looks first whether it is valid and
    enabled for the service; our own server says itself which one it serves.
    """
    name = service.thing.text("X509CertificateName")
    fitting = [c for c in service.system.certificates if matches(c, name) and usable(c)]
    own = service.system.product == "Letterlock"
    served = str(fact.value) if (fact := service.thing.get("ServedCertificate")) is not None else ""
    return sorted(
        fitting,
        key=lambda c: (
            c.thumbprint != served,
            c.not_after < now if own else False,
            service.noun.upper() not in c.services if own else False,
            c.self_signed,
            -c.not_before if c.not_before == c.not_before else 0.0,
        ),
    )
