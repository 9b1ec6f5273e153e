"""Who vouches for a certificate: its chain followed to a root, and where that root is known from."""

from __future__ import annotations

import functools
import ssl
import warnings
from typing import NamedTuple

from cryptography import x509

from letterlock.directory import certificate_files as files
from letterlock.directory.certificates import Certificate


class Trust(NamedTuple):
    """`root`: Exchange's RootCAType. `trouble`: why clients may not trust it; empty when they do."""

    root: str
    trouble: str


@functools.lru_cache(maxsize=1)
def _system_roots() -> dict[bytes, x509.Certificate]:
    """What this machine trusts, by subject."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    found = {}
    for der in context.get_ca_certs(binary_form=True):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some old roots have serial numbers that are not positive
                root = x509.load_der_x509_certificate(der)
            found[root.subject.public_bytes()] = root
        except ValueError:  # an old root with a serial number that is none
            continue
    return found


def trust(certificate: Certificate) -> Trust:
    """ThirdParty: a root that this machine trusts. Enterprise: another one, that came with the certificate.

    Registry: self-signed. Unknown: the chain ends before a root.
    """
    if certificate.self_signed:
        return Trust("Registry", "")
    last = (certificate.x509, *certificate.chain)[-1]
    if last.issuer == last.subject:
        known = _system_roots().get(last.subject.public_bytes())
        return Trust("ThirdParty" if known == last else "Enterprise", "")
    known = _system_roots().get(last.issuer.public_bytes())
    if known is not None and files.issued(last, known):
        return Trust("ThirdParty", "")
    who = last.issuer.rfc4514_string()
    return Trust("Unknown", f"the chain ends before a root: the certificate of '{who}' is missing; import it as well")
