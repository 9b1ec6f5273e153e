"""Names in certificates: host names, wildcards, addresses and distinguished names.

What a certificate says is hostile until it is known to be a host name: a NUL, a line end or a blank in a name once made
others read it wrongly. Such names are left out, here and nowhere else.
"""

from __future__ import annotations

import contextlib
import ipaddress
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.x509.oid import NameOID

from letterlock.base.errors import Malformed, Refused
from letterlock.base.values import host_name

MAX_NAMES: Final = 100


class Wish(NamedTuple):
    """What a new certificate or request is to be."""

    domains: list[str]
    subject: str = ""  # distinguished name; "": the first domain as common name
    friendly_name: str = "Letterlock"
    algorithm: str = "ECDSA"  # or RSA
    size: int = 256
    exportable: bool = False


def common_name(subject: x509.Name) -> str:
    """Of a subject, in lower case, where it is a host name, a wildcard or an address; else empty."""
    for attribute in subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        with contextlib.suppress(Malformed):
            return domain(str(attribute.value))
    return ""


def alternative_names(value: x509.Certificate | x509.CertificateSigningRequest) -> tuple[str, ...]:
    """Its alternative names, as far as they are host names or addresses."""
    try:
        names = value.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    found = []
    for name in names.get_values_for_type(x509.DNSName):
        with contextlib.suppress(Malformed):
            found.append(domain(name))
    found += [str(a) for a in names.get_values_for_type(x509.IPAddress)]
    return tuple(dict.fromkeys(found))


def check_service(name: str, service: str) -> None:
    """The wildcard rule of POP and IMAP."""
    if service in ("IMAP", "POP") and name.startswith("*."):
        cmdlet = "Set-ImapSettings" if service == "IMAP" else "Set-PopSettings"
        raise Refused(wildcard_text(name, service, cmdlet))


def wildcard_text(name: str, service: str, cmdlet: str) -> str:
    """What to do with a wildcard certificate."""
    return (
        f"a certificate whose subject is the wildcard {name} cannot be enabled for {service}, as that is no host name; "
        f"set a host name it covers with {cmdlet} -X509CertificateName instead, then it is chosen by that name"
    )


def domain(text: str) -> str:
    """A host name, or `*.` and a host name, in lower case; `Malformed` otherwise."""
    name = text.strip().lower()
    if ":" in name:
        return _address(text)
    wildcard = name.startswith("*.")
    try:
        bare = host_name(name[2:] if wildcard else name)
    except Malformed as error:
        raise Malformed(f"DomainName: {error.text}") from None
    return f"*.{bare}" if wildcard else bare


def _address(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text.strip()))
    except ValueError:
        raise Malformed(f"DomainName: '{text}' is not a host name") from None


def identity(wish: Wish) -> tuple[list[str], x509.Name]:
    """Names, the subject's first, and the subject."""
    if len(wish.friendly_name) > 64 or any(ord(c) < 32 or ord(c) == 127 for c in wish.friendly_name):
        raise Malformed("FriendlyName: at most 64 characters, no control characters")
    names = [domain(d) for d in wish.domains]
    if wish.subject:
        subject = parse_subject(wish.subject)
        own = common_name(subject)
        names = [own, *names] if own else names
    names = list(dict.fromkeys(names))
    if not names:
        raise Malformed("DomainName: at least one name is needed")
    if len(names) > MAX_NAMES:
        raise Malformed(f"DomainName: {len(names)} names are too many; allowed are {MAX_NAMES}")
    if not wish.subject:
        # X.520 ub-common-name: a longer host name only stands in the subject alternative names
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])] if len(names[0]) <= 64 else [])
    return names, subject


def parse_subject(text: str) -> x509.Name:
    """`C=US, O=Contoso, CN=mail.contoso.com`, in either order, quotes and escapes as in RFC 4514."""
    try:
        if any(ord(c) < 32 or ord(c) == 127 for c in text) or len(text) > 1024:
            raise ValueError
        tidy = ",".join(part.strip() for part in text.replace("\\,", "\0").split(",")).replace("\0", "\\,")
        found = x509.Name.from_rfc4514_string(tidy)
        if not len(found):
            raise ValueError
    except ValueError:
        raise Malformed(
            f"SubjectName: '{text}' is not a distinguished name; expected for example C=US, O=Contoso, "
            "CN=mail.contoso.com"
        ) from None
    first = next(iter(found.rdns[0]))
    # the country first and the common name last is how authorities write it, whichever way it was typed
    return x509.Name(list(reversed(found.rdns))) if first.oid == NameOID.COMMON_NAME else found


def distinguished_name(name: x509.Name) -> str:
    """A subject or issuer as Exchange shows it, `CN=mail.contoso.com, O=Contoso, C=US`."""
    return ", ".join(part.rfc4514_string() for part in reversed(name.rdns))
