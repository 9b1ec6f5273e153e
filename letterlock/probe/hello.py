"""Hand-built ClientHellos: which versions and cipher suites a server takes, without any of their cryptography.

A TLS library of today cannot speak SSL 3.0 to TLS 1.1 any more, and need not: a server answers a ClientHello with a
ServerHello that names version and cipher suite, or with an alert, before any key is used (RFC 5246 §7.4.1, RFC 8446
§4.1). For TLS 1.3 the offer has no key share, so the answer is a HelloRetryRequest, which names the suite as well.
Suites are found by offering all, noting the one taken, and offering the rest again until an alert comes.
"""

from __future__ import annotations

import ipaddress
import secrets
import struct
from typing import Final, NamedTuple

SSL3, TLS10, TLS11, TLS12, TLS13 = 0x0300, 0x0301, 0x0302, 0x0303, 0x0304
VERSIONS: Final = {TLS13: "TLSv1.3", TLS12: "TLSv1.2", TLS11: "TLSv1.1", TLS10: "TLSv1.0", SSL3: "SSLv3"}
MAX_ANSWER: Final = 1 << 16

# TLS Cipher Suites registry of IANA; every suite that OpenSSL, Schannel, GnuTLS or BoringSSL ever offered by default,
# and the weak ones a scan is for
TLS13_SUITES: Final = {
    0x1301: "TLS_AES_128_GCM_SHA256",
    0x1302: "TLS_AES_256_GCM_SHA384",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
    0x1304: "TLS_AES_128_CCM_SHA256",
    0x1305: "TLS_AES_128_CCM_8_SHA256",
}
SUITES: Final = {
    0x0001: "TLS_RSA_WITH_NULL_MD5",
    0x0002: "TLS_RSA_WITH_NULL_SHA",
    0x0003: "TLS_RSA_EXPORT_WITH_RC4_40_MD5",
    0x0004: "TLS_RSA_WITH_RC4_128_MD5",
    0x0005: "TLS_RSA_WITH_RC4_128_SHA",
    0x0006: "TLS_RSA_EXPORT_WITH_RC2_CBC_40_MD5",
    0x0007: "TLS_RSA_WITH_IDEA_CBC_SHA",
    0x0008: "TLS_RSA_EXPORT_WITH_DES40_CBC_SHA",
    0x0009: "TLS_RSA_WITH_DES_CBC_SHA",
    0x000A: "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    0x0014: "TLS_DHE_RSA_EXPORT_WITH_DES40_CBC_SHA",
    0x0015: "TLS_DHE_RSA_WITH_DES_CBC_SHA",
    0x0016: "TLS_DHE_RSA_WITH_3DES_EDE_CBC_SHA",
    0x0017: "TLS_DH_anon_EXPORT_WITH_RC4_40_MD5",
    0x0018: "TLS_DH_anon_WITH_RC4_128_MD5",
    0x001A: "TLS_DH_anon_WITH_DES_CBC_SHA",
    0x001B: "TLS_DH_anon_WITH_3DES_EDE_CBC_SHA",
    0x002F: "TLS_RSA_WITH_AES_128_CBC_SHA",
    0x0033: "TLS_DHE_RSA_WITH_AES_128_CBC_SHA",
    0x0034: "TLS_DH_anon_WITH_AES_128_CBC_SHA",
    0x0035: "TLS_RSA_WITH_AES_256_CBC_SHA",
    0x0039: "TLS_DHE_RSA_WITH_AES_256_CBC_SHA",
    0x003A: "TLS_DH_anon_WITH_AES_256_CBC_SHA",
    0x003B: "TLS_RSA_WITH_NULL_SHA256",
    0x003C: "TLS_RSA_WITH_AES_128_CBC_SHA256",
    0x003D: "TLS_RSA_WITH_AES_256_CBC_SHA256",
    0x0041: "TLS_RSA_WITH_CAMELLIA_128_CBC_SHA",
    0x0045: "TLS_DHE_RSA_WITH_CAMELLIA_128_CBC_SHA",
    0x0067: "TLS_DHE_RSA_WITH_AES_128_CBC_SHA256",
    0x006B: "TLS_DHE_RSA_WITH_AES_256_CBC_SHA256",
    0x006C: "TLS_DH_anon_WITH_AES_128_CBC_SHA256",
    0x006D: "TLS_DH_anon_WITH_AES_256_CBC_SHA256",
    0x0084: "TLS_RSA_WITH_CAMELLIA_256_CBC_SHA",
    0x0088: "TLS_DHE_RSA_WITH_CAMELLIA_256_CBC_SHA",
    0x0096: "TLS_RSA_WITH_SEED_CBC_SHA",
    0x009A: "TLS_DHE_RSA_WITH_SEED_CBC_SHA",
    0x009C: "TLS_RSA_WITH_AES_128_GCM_SHA256",
    0x009D: "TLS_RSA_WITH_AES_256_GCM_SHA384",
    0x009E: "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256",
    0x009F: "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384",
    0x00A6: "TLS_DH_anon_WITH_AES_128_GCM_SHA256",
    0x00A7: "TLS_DH_anon_WITH_AES_256_GCM_SHA384",
    0x00BA: "TLS_RSA_WITH_CAMELLIA_128_CBC_SHA256",
    0x00BE: "TLS_DHE_RSA_WITH_CAMELLIA_128_CBC_SHA256",
    0x00C0: "TLS_RSA_WITH_CAMELLIA_256_CBC_SHA256",
    0x00C4: "TLS_DHE_RSA_WITH_CAMELLIA_256_CBC_SHA256",
    0xC006: "TLS_ECDHE_ECDSA_WITH_NULL_SHA",
    0xC007: "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    0xC008: "TLS_ECDHE_ECDSA_WITH_3DES_EDE_CBC_SHA",
    0xC009: "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    0xC00A: "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    0xC010: "TLS_ECDHE_RSA_WITH_NULL_SHA",
    0xC011: "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    0xC012: "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    0xC013: "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    0xC014: "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    0xC015: "TLS_ECDH_anon_WITH_NULL_SHA",
    0xC016: "TLS_ECDH_anon_WITH_RC4_128_SHA",
    0xC017: "TLS_ECDH_anon_WITH_3DES_EDE_CBC_SHA",
    0xC018: "TLS_ECDH_anon_WITH_AES_128_CBC_SHA",
    0xC019: "TLS_ECDH_anon_WITH_AES_256_CBC_SHA",
    0xC023: "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    0xC024: "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384",
    0xC027: "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    0xC028: "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384",
    0xC02B: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    0xC02C: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    0xC02F: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    0xC030: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    0xC072: "TLS_ECDHE_ECDSA_WITH_CAMELLIA_128_CBC_SHA256",
    0xC073: "TLS_ECDHE_ECDSA_WITH_CAMELLIA_256_CBC_SHA384",
    0xC076: "TLS_ECDHE_RSA_WITH_CAMELLIA_128_CBC_SHA256",
    0xC077: "TLS_ECDHE_RSA_WITH_CAMELLIA_256_CBC_SHA384",
    0xC09C: "TLS_RSA_WITH_AES_128_CCM",
    0xC09D: "TLS_RSA_WITH_AES_256_CCM",
    0xC09E: "TLS_DHE_RSA_WITH_AES_128_CCM",
    0xC09F: "TLS_DHE_RSA_WITH_AES_256_CCM",
    0xC0A0: "TLS_RSA_WITH_AES_128_CCM_8",
    0xC0A1: "TLS_RSA_WITH_AES_256_CCM_8",
    0xC0AC: "TLS_ECDHE_ECDSA_WITH_AES_128_CCM",
    0xC0AD: "TLS_ECDHE_ECDSA_WITH_AES_256_CCM",
    0xC0AE: "TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8",
    0xC0AF: "TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8",
    0xCCA8: "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    0xCCA9: "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    0xCCAA: "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
}
GROUPS: Final = (0x001D, 0x0017, 0x0018, 0x0019, 0x001E, 0x0100, 0x0101, 0x0102)
SIGNATURES: Final = (
    *(0x0403, 0x0503, 0x0603, 0x0807, 0x0808, 0x0809, 0x080A, 0x080B, 0x0804, 0x0805, 0x0806),
    *(0x0401, 0x0501, 0x0601, 0x0303, 0x0301, 0x0302, 0x0402, 0x0203, 0x0201, 0x0202),
)


def suites(version: int) -> dict[int, str]:
    """All that can be offered in a version."""
    if version == TLS13:
        return TLS13_SUITES
    if version == TLS12:
        return SUITES
    # AEAD, SHA-256 and SHA-384 suites exist from TLS 1.2 on (RFC 5246 §A.5, RFC 5288)
    return {n: name for n, name in SUITES.items() if not name.endswith(("SHA256", "SHA384", "CCM", "CCM_8"))}


def weak(suite: str) -> bool:
    """Suites that RFC 9325 §4.1 forbids: no encryption, no authentication, RC4, export grade, less than 112 bits."""
    return any(part in suite for part in ("NULL", "anon", "RC4", "EXPORT", "RC2", "_DES_", "DES40", "3DES", "IDEA"))


def forward_secret(suite: str) -> bool:
    """An ephemeral key exchange: a stolen key does not open what was recorded (RFC 9325 §4.1)."""
    return "DHE_" in suite or "_anon_" in suite or suite in TLS13_SUITES.values()


def client_hello(version: int, offered: list[int], name: str) -> bytes:
    """One ClientHello record; `name` goes into SNI when it is a host name."""
    body = struct.pack("!H", min(version, TLS12)) + secrets.token_bytes(32)
    body += b"\x20" + secrets.token_bytes(32) if version == TLS13 else b"\x00"
    numbers = [*offered, 0x00FF]  # TLS_EMPTY_RENEGOTIATION_INFO_SCSV (RFC 5746 §3.3)
    body += struct.pack("!H", 2 * len(numbers)) + b"".join(struct.pack("!H", n) for n in numbers) + b"\x01\x00"
    if version > SSL3:  # SSL 3.0 has no extensions
        extensions = _extensions(version, name)
        body += struct.pack("!H", len(extensions)) + extensions
    message = b"\x01" + len(body).to_bytes(3) + body
    return b"\x16" + struct.pack("!HH", min(version, TLS10), len(message)) + message


def _extensions(version: int, name: str) -> bytes:
    found = b""
    if name and not _is_address(name):
        host = name.encode("idna") if not name.isascii() else name.encode()
        found += _extension(0, _vector(b"\x00" + _vector(host)))
    found += _extension(10, _vector(b"".join(struct.pack("!H", g) for g in GROUPS)))
    found += _extension(11, b"\x01\x00")
    if version >= TLS12:
        found += _extension(13, _vector(b"".join(struct.pack("!H", s) for s in SIGNATURES)))
    if version == TLS13:
        found += _extension(43, b"\x02\x03\x04") + _extension(51, b"\x00\x00")
    return found


def _extension(kind: int, data: bytes) -> bytes:
    return struct.pack("!HH", kind, len(data)) + data


def _vector(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Chosen(NamedTuple):
    """A ServerHello's version and suite."""

    version: int
    suite: int


class HelloReader:
    """Reads records until the ServerHello is complete, an alert came, or it is not TLS. Bounded, never raises."""

    def __init__(self) -> None:
        self.chosen: Chosen | None = None
        self.refused = False  # an alert
        self.garbage = False
        self._records = bytearray()
        self._messages = bytearray()
        self._taken = 0

    @property
    def done(self) -> bool:
        """Nothing more is needed."""
        return self.chosen is not None or self.refused or self.garbage

    def receive(self, data: bytes) -> None:
        """Take what arrived."""
        self._records += data
        self._taken += len(data)
        while not self.done and len(self._records) >= 5:
            kind, major, length = self._records[0], self._records[1], int.from_bytes(self._records[3:5])
            if kind not in (0x15, 0x16) or major != 3 or not 0 < length <= 18432:
                self.garbage = True
                return
            if len(self._records) < 5 + length:
                break
            fragment = bytes(self._records[5 : 5 + length])
            del self._records[: 5 + length]
            if kind == 0x15:
                # a warning, such as "unrecognized name", comes before the ServerHello (RFC 6066 §3)
                self.refused = length >= 2 and fragment[0] == 2
                continue
            self._messages += fragment
            self._message()
        self.garbage = self.garbage or (not self.done and self._taken > MAX_ANSWER)

    def _message(self) -> None:
        if len(self._messages) < 4:
            return
        if self._messages[0] != 2:
            self.garbage = True
            return
        length = int.from_bytes(self._messages[1:4])
        if length > MAX_ANSWER:
            self.garbage = True
        if len(self._messages) < 4 + length:
            return
        self._server_hello(bytes(self._messages[4 : 4 + length]))

    def _server_hello(self, body: bytes) -> None:
        try:
            version = int.from_bytes(body[:2])
            at = 2 + 32
            at += 1 + body[at]
            suite = int.from_bytes(body[at : at + 2])
            at += 3
            if len(body) < at:
                raise IndexError
            end = min(len(body), at + 2 + int.from_bytes(body[at : at + 2]))
            at += 2
            while at + 4 <= end:
                kind, length = int.from_bytes(body[at : at + 2]), int.from_bytes(body[at + 2 : at + 4])
                if kind == 43 and length == 2:
                    version = int.from_bytes(body[at + 4 : at + 6])
                at += 4 + length
        except IndexError:
            self.garbage = True
            return
        self.chosen = Chosen(version, suite)
