"""The TLS profile: what our listeners speak, as data, and contexts made from it.

TLS 1.2 is the floor; with 1.2 only forward-secret AEAD suites; no compression, no renegotiation; session tickets are on
(RFC 5077, RFC 8446 §2.2). ALPN is strict on the always-TLS ports (cross-protocol attacks): a client that offers ALPN
must offer our protocol. OpenSSL goes on without ALPN when nothing matches, so `client_hello_alpn` reads the offer.
"""

from __future__ import annotations

import ssl
import warnings
from pathlib import Path
from typing import Final

from letterlock.base.errors import Refused

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"


# OpenSSL keeps TLS 1.0 and 1.1 behind its lowest security level: they sign handshakes with SHA-1 and MD5
OLD_CIPHERS: Final = CIPHERS + ":ECDHE+AES:AES128-SHA:AES256-SHA:@SECLEVEL=0"
VERSIONS: Final = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}


def server_context(certificate: Path, key: Path, alpn: list[str], minimum: str = "1.2") -> ssl.SSLContext:
    """A server's context; `Refused` with one clear line when certificate or key cannot be used.

    `minimum` is the oldest TLS version; below 1.2 somebody has decided so deliberately (TlsMinimum, an exception).
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is the point of asking for it
        context.minimum_version = VERSIONS[minimum]
    context.set_ciphers(CIPHERS if minimum >= "1.2" else OLD_CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 1  # a client that resumes gets a new one each time; the second of OpenSSL's two is waste
    if alpn:
        context.set_alpn_protocols(alpn)
    reload(context, certificate, key)
    return context


def reload(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Read certificate and key again into `context`: the next handshake uses them."""
    try:
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else getattr(error, "reason", "")
        raise Refused(
            f"the certificate {certificate} with key {key} cannot be used: {reason or 'not a PEM key that fits it'}"
        ) from None


def client_hello_alpn(data: bytes) -> list[bytes] | None:
    """Protocols a ClientHello offers by ALPN (RFC 7301 §3.1); None when it offers none or is not complete yet.

    Reads one TLS record (RFC 8446 §5.1): a ClientHello that is split over records is taken as offering none.
    """
    try:
        if data[0] != 22 or data[5] != 1:
            return None
        end = 5 + int.from_bytes(data[3:5])
        at = 9 + 2 + 32  # record and handshake headers, version, random
        at += 1 + data[at]  # session id
        at += 2 + int.from_bytes(data[at : at + 2])  # cipher suites
        at += 1 + data[at]  # compression
        at += 2
        while at + 4 <= min(end, len(data)):
            kind, length = int.from_bytes(data[at : at + 2]), int.from_bytes(data[at + 2 : at + 4])
            if kind == 16:
                return _protocols(data[at + 6 : at + 4 + length])
            at += 4 + length
    except IndexError:
        pass
    return None


def _protocols(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        found.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    return found
