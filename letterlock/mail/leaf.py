"""New MIME parts: texts with the transfer encoding they need, and multiparts with a boundary nobody else has."""

from __future__ import annotations

import base64
import binascii
from typing import Final, NamedTuple

LONGEST_LINE: Final = 998  # octets (RFC 5322 §2.1.1)


class Piece(NamedTuple):
    """A part: its header fields with their line ends, without the empty line, and its body."""

    header: bytes
    body: bytes


def text_leaf(subtype: bytes, text: str, eol: bytes, more: bytes = b"") -> Piece:
    """A text part. `more` are further header fields."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    data = text.encode("utf-8", "replace")
    charset = b"us-ascii" if data.isascii() else b"utf-8"
    encoding, body = _encoded(data, eol)
    header = b"Content-Type: text/%b; charset=%b%b" % (subtype, charset, eol)
    return Piece(header + b"Content-Transfer-Encoding: " + encoding + eol + more, body)


def _encoded(data: bytes, eol: bytes) -> tuple[bytes, bytes]:
    """7bit where that is possible, else what takes less room. Line ends of the text are CRLF inside base64."""
    if data.isascii() and max(map(len, data.split(b"\n"))) <= LONGEST_LINE:
        return b"7bit", data.replace(b"\n", eol)
    others = len(data) - len(data.decode("utf-8").encode("ascii", "ignore"))
    if others * 6 > len(data):
        coded = base64.encodebytes(data.replace(b"\n", b"\r\n")).rstrip(b"\n")
        return b"base64", coded.replace(b"\n", eol)
    # One line after the other: a soft line break never meets a hard one.
    coded = eol.join([binascii.b2a_qp(line, quotetabs=False, istext=False) for line in data.split(b"\n")])
    return b"quoted-printable", coded.replace(b"=\n", b"=" + eol)


def compose(subtype: bytes, pieces: list[Piece], token: bytes, eol: bytes, kind: bytes = b"") -> Piece:
    """A multipart of pieces. `token` is made longer until no piece contains it."""
    while any(token in piece.body or token in piece.header for piece in pieces):
        token += b"="
    boundary = b"=_" + token
    body = b"".join(
        [b"--" + boundary + eol + piece.header + eol + piece.body + eol for piece in pieces],
    )
    kinds = b'; type="' + kind + b'"' if kind else b""
    header = b'Content-Type: multipart/%b%b;%b boundary="%b"%b' % (subtype, kinds, eol, boundary, eol)
    body += b"--" + boundary + b"--" + eol
    if not body.isascii():
        header += b"Content-Transfer-Encoding: 8bit" + eol
    return Piece(header, body)
