"""A strict reader of ENVELOPE, BODY and BODYSTRUCTURE (RFC 3501 §9); raises AssertionError where they are not valid."""

from __future__ import annotations

import re

_QUOTED = re.compile(rb'"((?:[\x01-\x09\x0b\x0c\x0e-!#-\[\]-\x7f]|\\["\\])*)"')
_LITERAL = re.compile(rb"\{([0-9]+)\}\r\n")
_NUMBER = re.compile(rb"[0-9]+")


class Grammar:
    """A cursor."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, what: bytes) -> bool:
        if self.data.startswith(what, self.at):
            self.at += len(what)
            return True
        return False

    def expect(self, what: bytes) -> None:
        assert self.take(what), (what, self.data[self.at - 30 : self.at + 60])

    def next_is(self, what: bytes) -> bool:
        return self.data.startswith(what, self.at)

    def end(self) -> None:
        assert self.at == len(self.data), self.data[self.at : self.at + 80]

    def string(self) -> bytes:
        quoted = _QUOTED.match(self.data, self.at)
        if quoted:
            self.at = quoted.end()
            return re.sub(rb"\\(.)", rb"\1", quoted[1])
        literal = _LITERAL.match(self.data, self.at)
        assert literal, self.data[self.at : self.at + 60]
        value = self.data[literal.end() : literal.end() + int(literal[1])]
        assert len(value) == int(literal[1]) and b"\0" not in value
        self.at = literal.end() + len(value)
        return value

    def nstring(self) -> bytes | None:
        return None if self.take(b"NIL") else self.string()

    def number(self) -> int:
        found = _NUMBER.match(self.data, self.at)
        assert found, self.data[self.at : self.at + 60]
        self.at = found.end()
        return int(found[0])

    def space(self) -> None:
        self.expect(b" ")

    # --- ENVELOPE

    def envelope(self) -> None:
        self.expect(b"(")
        self.nstring()
        self.space()
        self.nstring()
        for _ in range(6):
            self.space()
            self.addresses()
        for _ in range(2):
            self.space()
            self.nstring()
        self.expect(b")")

    def addresses(self) -> None:
        """ "(" 1*address ")" / nil; groups open and close in turn."""
        if self.take(b"NIL"):
            return
        self.expect(b"(")
        within = False
        first = True
        while first or not self.take(b")"):
            first = False
            self.expect(b"(")
            name = self.nstring()
            self.space()
            adl = self.nstring()
            self.space()
            mailbox = self.nstring()
            self.space()
            host = self.nstring()
            self.expect(b")")
            if host is None:
                assert name is None and adl is None
                assert (mailbox is None) == within, "groups open and close in turn"
                within = not within
            else:
                assert mailbox is not None
        assert not within

    # --- BODY, BODYSTRUCTURE

    def body(self, extended: bool) -> None:
        self.expect(b"(")
        if self.next_is(b"("):
            while self.next_is(b"("):
                self.body(extended)
            self.space()
            self.string()
            if extended:
                self.space()
                self.params()
                self.common()
            self.expect(b")")
            return
        kind = self.string().upper()
        self.space()
        subtype = self.string().upper()
        self.space()
        self.params()
        for _ in range(2):
            self.space()
            self.nstring()
        self.space()
        self.string()
        self.space()
        self.number()
        if kind == b"TEXT":
            self.space()
            self.number()
        elif kind == b"MESSAGE" and subtype in (b"RFC822", b"GLOBAL") and self.next_is(b" ("):
            self.space()
            self.envelope()
            self.space()
            self.body(extended)
            self.space()
            self.number()
        if extended:
            self.space()
            self.nstring()
            self.common()
        self.expect(b")")

    def params(self) -> None:
        if self.take(b"NIL"):
            return
        self.expect(b"(")
        while True:
            self.string()
            self.space()
            self.string()
            if self.take(b")"):
                return
            self.space()

    def common(self) -> None:
        """Disposition, language, location."""
        self.space()
        if not self.take(b"NIL"):
            self.expect(b"(")
            self.string()
            self.space()
            self.params()
            self.expect(b")")
        self.space()
        if not self.take(b"NIL"):
            if self.take(b"("):
                self.string()
                while self.take(b" "):
                    self.string()
                self.expect(b")")
            else:
                self.string()
        self.space()
        self.nstring()


def check(envelope: bytes, body: bytes, bodystructure: bytes) -> None:
    """All three are what the grammar allows."""
    one = Grammar(envelope)
    one.envelope()
    one.end()
    for data, extended in ((body, False), (bodystructure, True)):
        cursor = Grammar(data)
        cursor.body(extended)
        cursor.end()
