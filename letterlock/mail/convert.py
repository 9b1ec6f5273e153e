"""Messages in another body format: MessageRetrievalMimeFormat, and meetings as links.

A conversion replaces bodies and nothing else: it is a list of edits of the stored octets, so that every header field,
attachment, preamble and boundary line outside of them stays as it was sent. Rules:

1. A *body* is a text/plain, text/html or text/enriched part that is no attachment, or a multipart/alternative or
   multipart/related of such; in multipart/mixed each body is converted for itself. Forwarded messages are attachments.
2. What the sender provided is preferred to what can be made: TextOnly of a multipart/alternative is the sender's text.
3. Images and files that belonged to a body that goes away stay, as parts of a multipart/mixed.
4. Signed and encrypted messages are not touched, wherever in the message the signature is.
5. The result depends on the octets and the format alone, so that partial fetches fit together.

`Untouchable` says that the message stays as it is. Other exceptions are caught by the caller (`presentation.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from letterlock.base.values import MimeFormat
from letterlock.mail import calendar
from letterlock.mail.charset import to_text
from letterlock.mail.header import fields
from letterlock.mail.leaf import Piece, compose, text_leaf
from letterlock.mail.markup import enriched_of_text, html_of_text, text_of_enriched, text_of_html, unflowed
from letterlock.mail.parts import Part, parse
from letterlock.mail.text import decode_body

MAX_LEAF: Final = 12 << 20  # octets of one body
MAX_BODIES: Final = 200
MAX_DEPTH: Final = 8  # multiparts within one body
HASHED: Final = 64 << 10
_BODY_TYPES: Final = (b"PLAIN", b"HTML", b"ENRICHED", b"RICHTEXT")
_PROTECTED: Final = frozenset(
    (
        (b"MULTIPART", b"SIGNED"),
        (b"MULTIPART", b"ENCRYPTED"),
        (b"APPLICATION", b"PKCS7-MIME"),
        (b"APPLICATION", b"X-PKCS7-MIME"),
        (b"APPLICATION", b"PKCS7-SIGNATURE"),
        (b"APPLICATION", b"X-PKCS7-SIGNATURE"),
        (b"APPLICATION", b"PGP"),
        (b"APPLICATION", b"PGP-ENCRYPTED"),
        (b"APPLICATION", b"PGP-SIGNATURE"),
    )
)
_INLINE_PGP: Final = b"-----BEGIN PGP "
_REPLACED: Final = (b"content-type", b"content-transfer-encoding", b"content-md5", b"content-length", b"lines")


class Untouchable(Exception):
    """The message is given as it was stored."""


class Body(NamedTuple):
    """What a body consists of."""

    plain: Piece | None = None  # the sender's text
    rich: Piece | None = None  # the sender's HTML, with all that belongs to it
    enriched: Piece | None = None
    source: tuple[Part, ...] = ()  # the best text to make another form of
    inside: tuple[Piece, ...] = ()  # images and files within `rich`
    beside: tuple[Piece, ...] = ()  # and others
    calendars: tuple[Piece, ...] = ()


class Converter:
    """One message; `raw` with CRLF or LF line ends."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.root = parse(raw)
        self.eol = b"\n" if b"\n" in raw[: self.root.body] and b"\r\n" not in raw[: self.root.body] else b"\r\n"
        self.edits: list[tuple[int, int, bytes]] = []
        if any(_is_protected(part) for part in walk(self.root)):
            raise Untouchable

    # --- the two conversions

    def to_format(self, form: MimeFormat) -> bytes:
        """Every body in a format."""
        target = _TARGETS[form]
        for part in self._bodies(self.root):
            piece = target(self, self.body(part))
            if piece is not None:
                self._replace(part, piece)
        return self.result()

    def to_links(self, base: str) -> bytes:
        """Meetings as words with a link: beside the body, where the calendar was an alternative of it."""
        self._links(self.root, base)
        return self.result()

    def _links(self, part: Part, base: str) -> None:
        if _is_calendar(part):
            self._replace(part, self._link_leaf(part, base))
        elif part.type == b"MULTIPART" and part.subtype == b"ALTERNATIVE":
            meetings = [child for child in part.children if _is_calendar(child)]
            others = [self.slice(child) for child in part.children if not _is_calendar(child)]
            if not meetings:
                for child in part.children:
                    self._links(child, base)
                return
            links = [self._link_leaf(child, base) for child in meetings]
            beside = [self.multipart(b"alternative", others)] if len(others) > 1 else others
            pieces = [*beside, *links]
            self._replace(part, self.multipart(b"mixed", pieces) if len(pieces) > 1 else pieces[0])
        else:
            for child in part.children:
                self._links(child, base)

    def _link_leaf(self, part: Part, base: str) -> Piece:
        words = calendar.in_words(decode_body(self.raw, part), base)
        return text_leaf(b"plain", words, self.eol, b"Content-Disposition: inline" + self.eol)

    # --- reading

    def _bodies(self, part: Part) -> Iterator[Part]:
        """The outermost bodies, in order."""
        if _is_leaf(part) or (part.type == b"MULTIPART" and part.subtype in (b"ALTERNATIVE", b"RELATED")):
            yield part
        elif part.type == b"MULTIPART" and part.subtype != b"DIGEST":
            for child in part.children:
                yield from self._bodies(child)

    def body(self, part: Part, depth: int = 0) -> Body:
        """What a body consists of."""
        if part.type == b"MULTIPART" and part.children:
            if depth > MAX_DEPTH:  # each level costs a copy
                raise Untouchable
            if part.subtype == b"ALTERNATIVE":
                return self._alternative(part, depth)
            return self._related(part, depth) if part.subtype == b"RELATED" else self._mixed(part, depth)
        if _is_calendar(part):
            return Body(calendars=(self.slice(part),))
        if not _is_leaf(part):
            return Body(beside=(self.slice(part),))
        octets = decode_body(self.raw, part)
        if _INLINE_PGP in octets:  # also where another form would be chosen: that would drop the signature
            raise Untouchable
        if part.subtype == b"HTML":
            return Body(rich=self.slice(part), source=(part,))
        if part.subtype == b"PLAIN":
            return Body(plain=self.slice(part), source=(part,)) if octets.strip() else Body()
        return Body(enriched=self.slice(part), source=(part,))

    def _alternative(self, part: Part, depth: int) -> Body:
        """The last form of each kind is the best (RFC 2046 §5.1.4); unknown kinds of text are forms, and not kept."""
        best = Body()
        for child in part.children:
            form = self.body(child, depth + 1)
            calendars, beside = best.calendars + form.calendars, best.beside
            if child.type != b"TEXT" or _is_attachment(child):
                beside += form.beside
            source = form.source if form.plain or not best.source else best.source
            best = best._replace(source=source, beside=beside, calendars=calendars)
            if form.rich is not None:
                best = best._replace(rich=form.rich, inside=form.inside)
            best = best._replace(plain=form.plain or best.plain, enriched=form.enriched or best.enriched)
        return best

    def _related(self, part: Part, depth: int) -> Body:
        """A root, and what it shows (RFC 2387)."""
        start = part.param(b"start")
        root = next((child for child in part.children if start and child.id == start), part.children[0])
        shown = tuple(self.slice(child) for child in part.children if child is not root)
        inner = self.body(root, depth + 1)
        if inner.rich is None:
            return inner._replace(beside=inner.beside + shown)
        whole = _is_leaf(root)
        rich = self.slice(part) if whole else self.multipart(b"related", [inner.rich, *shown], b"text/html")
        return inner._replace(rich=rich, inside=inner.inside + shown)

    def _mixed(self, part: Part, depth: int) -> Body:
        """HTML in pieces with files between them, as one form of an alternative (Apple Mail writes such)."""
        forms = [self.body(child, depth + 1) for child in part.children]
        source = tuple(leaf for form in forms for leaf in form.source)
        files = tuple(piece for form in forms for piece in (*form.inside, *form.beside))
        calendars = tuple(piece for form in forms for piece in form.calendars)
        if any(form.rich is not None for form in forms):
            return Body(rich=self.slice(part), source=source, inside=files, calendars=calendars)
        plain = [form.plain for form in forms if form.plain is not None]
        return Body(plain=plain[0] if len(plain) == 1 else None, source=source, beside=files, calendars=calendars)

    def text(self, body: Body) -> str:
        """A body as plain text."""
        return "\n".join(map(self._leaf_text, body.source))

    def _leaf_text(self, part: Part) -> str:
        if part.size > MAX_LEAF:
            raise Untouchable
        data = decode_body(self.raw, part)
        charset = part.param(b"charset")
        if part.subtype == b"HTML" and charset is None:
            charset = _declared_charset(data)
        text = to_text(data, charset)
        if part.subtype == b"HTML":
            return text_of_html(text)
        if part.subtype != b"PLAIN":
            return text_of_enriched(text)
        if (part.param(b"format") or b"").lower() == b"flowed":
            return unflowed(text, (part.param(b"delsp") or b"").lower() == b"yes")
        return text

    # --- writing

    def slice(self, part: Part) -> Piece:
        """A part as it was sent."""
        header = b"".join([field for _, field in fields(self.raw[part.start : part.body])])
        if part is self.root:
            header = b"".join([f for name, f in fields(header) if name.startswith(b"content-")])
        return Piece(header, self.raw[part.body : part.end])

    def multipart(self, subtype: bytes, pieces: list[Piece], kind: bytes = b"") -> Piece:
        """A new multipart of pieces; its boundary follows from them."""
        digest = hashlib.sha256(subtype)
        for piece in pieces:
            digest.update(b"%d %d %b" % (len(piece.header), len(piece.body), piece.header))
            digest.update(piece.body[:HASHED])
        return compose(subtype, pieces, digest.hexdigest()[:40].encode(), self.eol, kind)

    def _replace(self, part: Part, piece: Piece) -> None:
        """Put a piece in a part's place. Header fields that are not about the old content stay."""
        if len(self.edits) >= MAX_BODIES:
            raise Untouchable
        given = fields(piece.header)
        if part is self.root:
            given = [(name, field) for name, field in given if name.startswith(b"content-")]
        names = {name for name, _ in given if name}
        many = piece.header[:24].lower() == b"content-type: multipart/"  # what is old describes one of its parts then
        old = fields(self.raw[part.start : part.body])
        kept = [
            field
            for name, field in old
            if name not in _REPLACED and name not in names and not (many and name.startswith(b"content-"))
        ]
        if part is self.root and not any(name == b"mime-version" for name, _ in old):
            kept.append(b"MIME-Version: 1.0" + self.eol)
        header = b"".join([field if field.endswith(b"\n") else field + self.eol for field in kept])
        body = piece.body
        if part is self.root and not body.endswith(b"\n"):
            body += self.eol
        self.edits.append((part.start, part.end, header + b"".join([f for _, f in given]) + self.eol + body))

    def result(self) -> bytes:
        """The message with its edits; the stored octets themselves when there are none."""
        if not self.edits:
            return self.raw
        pieces: list[bytes] = []
        at = 0
        for start, end, new in self.edits:
            pieces += (self.raw[at:start], new)
            at = end
        return b"".join([*pieces, self.raw[at:]])

    # --- the formats

    def _made(self, subtype: bytes, text: str) -> Piece:
        return text_leaf(subtype, text, self.eol)

    def _plain(self, body: Body) -> Piece:
        return body.plain or self._made(b"plain", self.text(body))

    def _html(self, body: Body) -> Piece:
        return body.rich or self._made(b"html", html_of_text(self.text(body)))

    def _enriched(self, body: Body) -> Piece:
        return body.enriched or self._made(b"enriched", enriched_of_text(self.text(body)))

    def _given(self, forms: list[Piece], body: Body, has_rich: bool) -> Piece:
        """Forms with the meetings and files that came with them."""
        forms = [*forms, *body.calendars]
        piece = self.multipart(b"alternative", forms) if len(forms) > 1 else forms[0]
        files = body.beside if has_rich and body.rich is not None else (*body.inside, *body.beside)
        return self.multipart(b"mixed", [piece, *files]) if files else piece

    def text_only(self, body: Body) -> Piece | None:
        """TextOnly."""
        if body.rich is None and body.enriched is None:
            return None
        return self._given([self._plain(body)], body, False)

    def html_only(self, body: Body) -> Piece | None:
        """HtmlOnly."""
        if not body.source or (body.rich is not None and body.plain is None and body.enriched is None):
            return None
        return self._given([self._html(body)], body, True)

    def html_and_text(self, body: Body) -> Piece | None:
        """HtmlAndTextAlternative."""
        if not body.source or (body.rich is not None and body.plain is not None):
            return None
        return self._given([self._plain(body), self._html(body)], body, True)

    def enriched_only(self, body: Body) -> Piece | None:
        """TextEnrichedOnly."""
        if not body.source or (body.enriched is not None and body.plain is None and body.rich is None):
            return None
        return self._given([self._enriched(body)], body, False)

    def enriched_and_text(self, body: Body) -> Piece | None:
        """TextEnrichedAndTextAlternative."""
        if not body.source or (body.enriched is not None and body.plain is not None and body.rich is None):
            return None
        return self._given([self._plain(body), self._enriched(body)], body, False)


_TARGETS: Final[dict[MimeFormat, Callable[[Converter, Body], Piece | None]]] = {
    MimeFormat.TextOnly: Converter.text_only,
    MimeFormat.HtmlOnly: Converter.html_only,
    MimeFormat.HtmlAndTextAlternative: Converter.html_and_text,
    MimeFormat.TextEnrichedOnly: Converter.enriched_only,
    MimeFormat.TextEnrichedAndTextAlternative: Converter.enriched_and_text,
}


def walk(root: Part) -> Iterator[Part]:
    """Every part, but nothing inside of forwarded messages."""
    todo = [root]
    while todo:
        part = todo.pop()
        yield part
        todo.extend(part.children)


def _is_protected(part: Part) -> bool:
    """Signed or encrypted: S/MIME (also by the name of its file) and PGP/MIME."""
    if (part.type, part.subtype) in _PROTECTED:
        return True
    return part.type == b"APPLICATION" and (part.param(b"name") or b"").lower().endswith((b".p7m", b".p7s"))


def _is_attachment(part: Part) -> bool:
    if part.disposition is not None:
        word, params = part.disposition
        if word.lower() == b"attachment" or any(name.lower().startswith(b"filename") for name, _ in params):
            return True
    return any(name.lower().startswith(b"name") for name, _ in part.params)


def _is_leaf(part: Part) -> bool:
    """Whether a part is a text that a person reads as the message."""
    return part.type == b"TEXT" and part.subtype in _BODY_TYPES and part.size > 0 and not _is_attachment(part)


def _is_calendar(part: Part) -> bool:
    disposition = part.disposition[0].lower() if part.disposition else b""
    return part.type == b"TEXT" and part.subtype == b"CALENDAR" and disposition != b"attachment"


def _declared_charset(data: bytes) -> bytes | None:
    """The character set that HTML itself declares near its beginning."""
    at = data[:2048].lower().find(b"charset=")
    if at < 0:
        return None
    value = data[at + 8 : at + 60].lstrip(b"\"'")
    end = next((n for n, octet in enumerate(value) if octet in b"\"'>;/ \t\r\n"), len(value))
    name = value[:end]
    # What could be read as ASCII up to here is not UTF-16, whatever it says (WHATWG HTML, 13.2.3.2).
    return name if name and not name.lower().startswith((b"utf-16", b"utf-32", b"utf16", b"utf32")) else None
