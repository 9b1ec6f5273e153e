"""The names by which the other rooms read mail. The readers live in `parts` (structure), `header`, `address`,
`charset` (encodings) and `text` (what a person reads); all are pure functions that take any octets and never raise.
"""

from __future__ import annotations

from letterlock.mail.address import Address, addresses
from letterlock.mail.charset import decode_words, from_transfer, to_text
from letterlock.mail.header import fields, parse_date, parse_datetime, select_fields, split_fields, unfold
from letterlock.mail.parts import Part, Raw, find, header_end, parse
from letterlock.mail.text import Searchable, decode_body, preview, searchable

__all__ = [
    "Address",
    "Part",
    "Raw",
    "Searchable",
    "addresses",
    "decode_body",
    "decode_words",
    "fields",
    "find",
    "from_transfer",
    "header_end",
    "parse",
    "parse_date",
    "parse_datetime",
    "preview",
    "searchable",
    "select_fields",
    "split_fields",
    "to_text",
    "unfold",
]
