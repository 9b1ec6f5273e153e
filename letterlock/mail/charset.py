"""Octets to text: character sets, transfer encodings, encoded words (RFC 2045 §6, RFC 2047).

Character set names come from senders. They are looked up in a table made from Python's own text codecs, never handed
to `codecs.lookup`: that would import modules by a stranger's wish, remember every wrong name for ever, and offer
codecs that are no character sets or need quadratic time (idna, punycode).
"""

from __future__ import annotations

import binascii
import re
from encodings.aliases import aliases
from typing import Final

_NO_CHARSETS: Final = frozenset(
    (
        "base64_codec",
        "bz2_codec",
        "hex_codec",
        "quopri_codec",
        "rot_13",
        "uu_codec",
        "zlib_codec",
        "idna",
        "punycode",
        "mbcs",
        "oem",
        "undefined",
        "raw_unicode_escape",
        "unicode_escape",
        "tactis",
        "ascii",  # \ both are what `to_text` does
        "utf_8",  # / without a codec
    )
)
# Names that mail carries and Python does not know, and supersets that senders mean.
_MORE: Final = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "x_gbk": "gb18030",
    "gb_2312_80": "gb18030",
    "euc_cn": "gb18030",
    "ks_c_5601_1987": "cp949",
    "ks_c_5601": "cp949",
    "euc_kr": "cp949",
    "shift_jis": "cp932",
    "x_sjis": "cp932",
    "big5": "cp950",
    "x_big5": "cp950",
    "iso_8859_8_i": "iso8859_8",
    "iso_8859_8_e": "iso8859_8",
    "iso_8859_6_i": "iso8859_6",
    "iso_8859_6_e": "iso8859_6",
    "windows_874": "cp874",
    "tis_620": "cp874",
    "x_mac_roman": "mac_roman",
    "unicode_1_1_utf_7": "utf_7",
    "cp_1250": "cp1250",
    "cp_1251": "cp1251",
    "cp_1252": "cp1252",
    "ansi_x3_110_1983": "latin_1",
}
# Names that are modules of `encodings` but no aliases.
_SELF: Final = (
    "cp037 cp437 cp720 cp737 cp775 cp850 cp852 cp855 cp856 cp857 cp858 cp860 cp861 cp862 cp863 cp864 cp865 cp866 cp869 "
    "cp874 cp932 cp949 cp950 cp1006 cp1125 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258 "
    "big5hkscs euc_jp euc_jis_2004 gb18030 hz iso2022_jp iso2022_jp_1 iso2022_jp_2 iso2022_jp_2004 iso2022_jp_3 "
    "iso2022_jp_ext iso2022_kr johab koi8_r koi8_t koi8_u kz1048 latin_1 mac_cyrillic mac_greek mac_iceland mac_latin2 "
    "mac_roman mac_turkish ptcp154 shift_jis_2004 utf_16 utf_16_be utf_16_le utf_32 utf_32_be utf_32_le utf_7 utf_8_sig"
)


def _table() -> dict[bytes, str]:
    names = {alias: codec for alias, codec in aliases.items() if codec not in _NO_CHARSETS}
    names.update({name: name for name in _SELF.split()})
    names.update({f"iso8859_{n}": f"iso8859_{n}" for n in range(1, 17) if n != 12})
    names.update(_MORE)
    return {name.encode("ascii"): codec for name, codec in names.items()}


_CODECS: Final = _table()
_WORD: Final = re.compile(rb"=\?([^?\s=]{1,60}+)\?([bBqQ])\?([^?\r\n]*+)\?=")
_GAP: Final = re.compile(rb"[ \t\r\n]++")
_FOLD: Final = re.compile(rb"\r?\n[ \t]*+|\r")
_NOT_BASE64: Final = bytes(set(range(256)) - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"))


def to_text(data: bytes, charset: bytes | None = None) -> str:
    """Text of octets in a named character set; an unknown one is taken for UTF-8, else for latin-1.

    Never fails: what the character set does not have becomes U+FFFD. The result has no lone surrogates.
    """
    if charset is not None:
        codec = _CODECS.get(charset.strip().lower().replace(b"-", b"_").replace(b":", b"_").replace(b" ", b"_"))
        if codec is not None:
            text = data.decode(codec, "replace")
            return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def from_base64(data: bytes) -> bytes:
    """Base64 with any rubbish in it (RFC 2045 §6.8): up to the first padding, as far as it goes."""
    try:
        return binascii.a2b_base64(data)
    except binascii.Error:
        stop = data.find(b"=")
        clean = (data if stop < 0 else data[:stop]).translate(None, _NOT_BASE64)
        clean = clean[: len(clean) - 1] if len(clean) % 4 == 1 else clean
        return binascii.a2b_base64(clean + b"=" * (-len(clean) % 4))


def from_transfer(data: bytes, encoding: bytes) -> bytes:
    """Undo a Content-Transfer-Encoding; what is unknown stays as it is."""
    match encoding.lower():
        case b"base64":
            return from_base64(data)
        case b"quoted-printable":
            return binascii.a2b_qp(data)
        case _:
            return data


def decode_words(value: bytes) -> str:
    """A header value as text on one line: unfolded, encoded words decoded (RFC 2047), raw 8-bit as in `to_text`.

    Neighbouring words of one character set are joined before decoding: senders split characters between them.
    """
    if b"\n" in value or b"\r" in value:
        value = _FOLD.sub(b" ", value)
    value = value.strip(b" \t")
    if b"=?" not in value:
        return value.decode("ascii") if value.isascii() else to_text(value)
    pieces: list[str] = []
    pending = bytearray()  # octets of the words so far, in `charset`
    charset = b""
    at = 0
    for match in _WORD.finditer(value):
        between = value[at : match.start()]
        name = match[1].partition(b"*")[0].lower()  # RFC 2231 §5: a language may follow
        adjacent = bool(charset) and (not between or _GAP.fullmatch(between) is not None)
        if not (adjacent and name == charset):
            if charset:
                pieces.append(to_text(bytes(pending), charset))
            pending.clear()
            if not adjacent:
                pieces.append(to_text(between))
            charset = name
        encoded = match[3]
        if match[2] in b"bB":
            pending += from_base64(encoded)
        else:
            pending += binascii.a2b_qp(encoded, header=True)
        at = match.end()
    if charset:
        pieces.append(to_text(bytes(pending), charset))
    pieces.append(to_text(value[at:]))
    return "".join(pieces)
