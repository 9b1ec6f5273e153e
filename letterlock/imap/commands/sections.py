"""BODY[…]: cutting sections out of a message (RFC 3501 §6.4.5). MIME is parsed once a message, and only when needed."""

from __future__ import annotations

from letterlock.imap import reply
from letterlock.imap.commands.fetch_plan import Kind, Section
from letterlock.mail import mime


class Message:
    """One message while its sections are rendered."""

    def __init__(self, header: bytes, text: bytes) -> None:
        self.header = header
        self.text = text
        self._raw: bytes | None = None
        self._root: mime.Part | None = None

    @property
    def raw(self) -> bytes:
        """The whole message."""
        if self._raw is None:
            self._raw = self.header + self.text
        return self._raw

    def part(self, numbers: tuple[int, ...]) -> mime.Part | None:
        """A part by its numbers."""
        if self._root is None:
            self._root = mime.parse(self.raw)
        return mime.find(self._root, numbers)


def render(section: Section, message: Message, preview: str) -> bytes:
    """The response item: its label and a literal (NIL where the part does not exist)."""
    if section.kind is Kind.PREVIEW:
        return section.label + reply.literal(preview.encode())
    value = _cut(section, message)
    if value is None:
        return section.label + b"NIL"
    if section.length >= 0:
        value = value[section.start : section.start + section.length]
    return section.label + reply.literal(value)


def _cut(section: Section, message: Message) -> bytes | None:
    if not section.part:
        if section.kind is Kind.WHOLE:
            return message.raw
        if section.kind is Kind.TEXT:
            return message.text
        return _header(section, message.header)
    part = message.part(section.part)
    if part is None:
        return None
    if section.kind is Kind.PART:
        return message.raw[part.body : part.end]
    if section.kind is Kind.MIME:
        return message.raw[part.start : part.body]
    inner = part.message
    if inner is None:
        return None
    if section.kind is Kind.TEXT:
        return message.raw[inner.body : inner.end]
    return _header(section, message.raw[inner.start : inner.body])


def _header(section: Section, header: bytes) -> bytes:
    if section.kind is Kind.FIELDS:
        header = mime.select_fields(header, frozenset(section.names), section.invert)
    return header
