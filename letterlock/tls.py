"""The TLS profile: what our listeners speak, as data, and contexts made from it.

TLS 1.2 is the floor; with 1.2 only forward-secret AEAD suites; no compression, no renegotiation; session tickets are on
(RFC 5077, RFC 8446 §2.2), under keys that all workers share. ALPN is strict on the always-TLS ports (cross-protocol
attacks): a client that offers ALPN must offer our protocol. OpenSSL goes on without ALPN when nothing matches, so
`client_hello_alpn` reads the offer.
"""

from __future__ import annotations

import _ssl
import ctypes
import functools
import hashlib
import hmac
import ssl
import sys
import warnings
from collections.abc import Callable
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


# the name a client asks for → another context, or None to go on with this one
ByName = Callable[[str], ssl.SSLContext | None]


def server_context(
    certificate: Path, key: Path, alpn: list[str], minimum: str = "1.2", by_name: ByName | None = None
) -> ssl.SSLContext:
    """A server's context; `Refused` with one clear line when certificate or key cannot be used.

    `minimum` is the oldest TLS version; below 1.2 somebody has decided so deliberately (TlsMinimum, an exception).
    `by_name` is asked when a client names a host (SNI, RFC 6066 §3); it must not raise.
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
    if by_name is not None:
        ask = by_name

        def named(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            other = ask(name) if name else None
            if other is not None:
                connection.context = other

        context.sni_callback = named
    reload(context, certificate, key)
    return context


def ignore_undecodable_names() -> None:
    """For a process that serves: a name outside ASCII (SNI) gets an alert and prints no traceback.

    The ssl module decodes the name before anybody is asked, and reports what it cannot decode as an error of ours.
    """
    before = sys.unraisablehook

    def report(what: sys.UnraisableHookArgs) -> None:
        if not (isinstance(what.exc_value, UnicodeDecodeError) and isinstance(what.object, bytes)):
            before(what)

    sys.unraisablehook = report


_SET_TICKET_KEYS: Final = 59  # SSL_CTRL_SET_TLSEXT_TICKET_KEYS
_TICKET_KEYS: Final = 80  # name 16, HMAC 32, AES 32; OpenSSL is asked before it is relied upon


@functools.cache
def _ssl_ctx_ctrl() -> Callable[..., int] | None:
    """SSL_CTX_ctrl of the OpenSSL that the ssl module uses; None where it cannot be reached (hidden, not CPython)."""
    if sys.implementation.name != "cpython" or sys.version_info >= (3, 15):
        return None  # the object's layout, relied on below, was looked up for 3.11 to 3.14
    try:
        function = ctypes.CDLL(_ssl.__file__).SSL_CTX_ctrl
    except (AttributeError, OSError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p)
    function.restype = ctypes.c_long
    return function


def share_tickets(context: ssl.SSLContext, secret: bytes, purpose: str) -> bool:
    """Encrypt session tickets under keys made from `secret`: contexts with the same ones take each other's tickets.

    A ticket is good for one `purpose` (a service and its certificate) and no other, so that no session is carried from
    one virtual host to another. The ssl module has no such call; where the library's own cannot be reached this answers
    False, and each process goes on with keys of its own.
    """
    control = _ssl_ctx_ctrl()
    if control is None:
        return False
    # PyObject_HEAD, and then the first member of PySSLContext: its SSL_CTX
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    if pointer is None or control(pointer, _SET_TICKET_KEYS, 0, None) != _TICKET_KEYS:
        return False
    keys = b"".join(hmac.digest(secret, f"{purpose}\0{part}".encode(), hashlib.sha512) for part in range(2))
    return control(pointer, _SET_TICKET_KEYS, _TICKET_KEYS, keys[:_TICKET_KEYS]) == 1


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
