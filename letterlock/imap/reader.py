"""From bytes to commands: lines, literals and their limits, and the cursor that parsers read arguments with.

A command is kept as it came, its literals in place (`{5}` CR LF and five octets), so that nothing is parsed twice.
The reader remembers how far it has searched. A literal is refused or accepted before its continuation is sent; that of
APPEND is not collected here but handed on in pieces.
"""

from __future__ import annotations

import datetime
import re
from typing import Final, NamedTuple

from letterlock.base.errors import Malformed
from letterlock.imap import grammar
from letterlock.store.api import SYSTEM_FLAGS, Flags

_LITERAL_AT_END: Final = re.compile(rb"\{([0-9]{1,20})(\+?)\}\r\n$")
_APPEND: Final = re.compile(rb'[^\x00-\x20(){%*"\\+]+ APPEND ', re.IGNORECASE)
MAX_LITERALS: Final = 50  # in one command
SYSTEM_FLAG_BITS: Final = {name.lower(): bit for bit, name in SYSTEM_FLAGS}


class Literal(NamedTuple):
    """APPEND wants to send `size` octets; `prefix` is the command so far, without the literal's announcement."""

    prefix: bytes
    size: int
    waits: bool  # the client waits for a continuation


class TooLong(Malformed):
    """A line or a literal beyond its limit. `fatal`: what follows cannot be told from commands any more."""

    def __init__(self, text: str, tag: bytes, fatal: bool) -> None:
        super().__init__(text)
        self.tag = tag
        self.fatal = fatal


class Reader:
    """Collects what a client sends."""

    def __init__(self, max_line: int) -> None:
        self.buffer = bytearray()
        self.max_line = max_line
        self.max_literals = 2048  # octets of all literals of a command; more after login
        self.continuation = False  # a continuation request is due
        self._line = 0  # where the present line begins
        self._searched = 0
        self._literals = 0
        self._literal_octets = 0
        self._skipping = False

    def discard(self) -> None:
        """Forget everything (after STARTTLS: RFC 2595 §3.1)."""
        self.buffer.clear()
        self._reset()

    def _reset(self) -> None:
        self._line = self._searched = self._literals = self._literal_octets = 0

    def line(self) -> bytes | None:
        """One line without its end, literals not looked at (SASL responses, DONE)."""
        end = self.buffer.find(b"\n")
        if end < 0:
            if len(self.buffer) > self.max_line:
                raise TooLong("the line is too long", b"*", fatal=True)
            return None
        text = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return text.removesuffix(b"\r")

    def take(self, most: int) -> bytes:
        """At most `most` octets of a streamed literal."""
        data = bytes(self.buffer[:most])
        del self.buffer[: len(data)]
        return data

    def next(self, streams: bool) -> bytes | Literal | None:
        """A whole command without its last CRLF, an APPEND literal (when `streams`), or None: more is needed."""
        if self._skipping and not self._skip():
            return None
        while True:
            if self._line > len(self.buffer):
                return None  # inside a literal
            end = self.buffer.find(b"\n", max(self._searched, self._line))
            lines = (end if end >= 0 else len(self.buffer)) - self._literal_octets
            if lines > self.max_line:
                tag = self._tag()
                self._skipping = True
                self._skip()
                raise TooLong(f"the command is longer than {self.max_line} bytes", tag, fatal=False)
            if end < 0:
                self._searched = len(self.buffer)
                return None
            if self.buffer[end - 1 : end] != b"\r":
                tag = self._tag()
                del self.buffer[: end + 1]
                self._reset()
                raise TooLong("lines end in CR LF", tag, fatal=False)
            announced = _LITERAL_AT_END.search(self.buffer, max(self._line, end - 24), end + 1)
            if announced is None:
                command = bytes(self.buffer[: end - 1])
                del self.buffer[: end + 1]
                self._reset()
                return command
            size, waits = int(announced[1]), not announced[2]
            if streams and self._is_message():
                prefix = bytes(self.buffer[: announced.start()])
                del self.buffer[: end + 1]
                self._reset()
                return Literal(prefix, size, waits)
            self._accept(size, waits)
            self._line = self._searched = end + 1 + size

    def _is_message(self) -> bool:
        """Whether the literal announced is the message of an APPEND; the one before it may be the folder's name."""
        head = _APPEND.match(self.buffer)
        return head is not None and self._literals == (self.buffer[head.end() : head.end() + 1] == b"{")

    def _accept(self, size: int, waits: bool) -> None:
        self._literals += 1
        self._literal_octets += size
        if self._literal_octets > self.max_literals or self._literals > MAX_LITERALS:
            tag = self._tag()
            self.buffer.clear()
            self._reset()
            # a client that does not wait sends the octets all the same: they must not become commands
            raise TooLong("the literal is too large here", tag, fatal=not waits)
        self.continuation |= waits

    def _skip(self) -> bool:
        """Drop the rest of a line that was too long; whether its end was found."""
        end = self.buffer.find(b"\n")
        self._reset()
        if end < 0:
            self.buffer.clear()
            return False
        del self.buffer[: end + 1]
        self._skipping = False
        return True

    def _tag(self) -> bytes:
        match = grammar.TAG.match(self.buffer)
        return bytes(match[0]) if match and len(match[0]) <= 100 else b"*"


class Args:
    """A cursor over a command's arguments. Every method raises `Malformed` saying what was expected."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def at_end(self) -> bool:
        """Nothing is left."""
        return self.at >= len(self.data)

    def end(self) -> None:
        """Nothing may be left."""
        if self.at < len(self.data):
            raise Malformed("unexpected text after the arguments")

    def peek(self) -> bytes:
        """The next octet, or b""."""
        return self.data[self.at : self.at + 1]

    def take(self, what: bytes) -> bool:
        """Skip `what` if it is next."""
        if self.data.startswith(what, self.at):
            self.at += len(what)
            return True
        return False

    def expect(self, what: bytes) -> None:
        """Skip `what`, which must be next."""
        if not self.take(what):
            raise Malformed(f"expected '{what.decode()}'")

    def space(self) -> None:
        """One space."""
        if not self.take(b" "):
            raise Malformed("expected a space and another argument")

    def rest(self) -> bytes:
        """All that is left."""
        text = self.data[self.at :]
        self.at = len(self.data)
        return text

    def match(self, pattern: re.Pattern[bytes], what: str) -> bytes:
        """What `pattern` matches here."""
        found = pattern.match(self.data, self.at)
        if found is None:
            raise Malformed(f"expected {what}")
        self.at = found.end()
        return found[0]

    def atom(self) -> bytes:
        """atom."""
        return self.match(grammar.ATOM, "an atom")

    def keyword(self) -> bytes:
        """An atom in capitals."""
        return self.atom().upper()

    def string(self) -> bytes:
        """quoted / literal."""
        found = grammar.QUOTED.match(self.data, self.at)
        if found is not None:
            self.at = found.end()
            text = found[1]
            return grammar.ESCAPED.sub(rb"\1", text) if b"\\" in text else text
        literal = grammar.LITERAL.match(self.data, self.at)
        if literal is None:
            raise Malformed("expected a string")
        self.at = literal.end() + int(literal[1])
        text = self.data[literal.end() : self.at]
        if b"\x00" in text:
            raise Malformed("NUL is not allowed in a string")
        return text

    def astring(self) -> bytes:
        """ASTRING-CHARs / string."""
        if self.peek() in (b'"', b"{"):
            return self.string()
        return self.match(grammar.ASTRING_ATOM, "a word or a string")

    def list_mailbox(self) -> bytes:
        """list-char words (with wildcards) / string."""
        if self.peek() in (b'"', b"{"):
            return self.string()
        return self.match(grammar.LIST_ATOM, "a folder pattern")

    def mailbox(self) -> str:
        """A folder name, decoded."""
        return grammar.decode_utf7(self.astring())

    def number(self) -> int:
        """number, up to 64 bits."""
        text = self.match(grammar.NUMBER, "a number")
        if len(text) > 19 or int(text) >= 2**63:
            raise Malformed("the number is too large")
        return int(text)

    def number_set(self) -> grammar.NumberSet:
        """sequence-set."""
        return grammar.number_set(self.match(grammar.SEQUENCE_SET, "a message set"))

    def flags(self) -> Flags:
        """flag-list, or flags without parentheses (STORE allows both)."""
        listed = self.take(b"(")
        names: list[bytes] = []
        if not (listed and self.peek() == b")"):
            names.append(self.match(grammar.FLAG, "a flag"))
            while self.take(b" "):
                names.append(self.match(grammar.FLAG, "a flag"))
        if listed:
            self.expect(b")")
        system = 0
        keywords: dict[bytes, bytes] = {}
        for name in names:
            if not name.startswith(b"\\"):
                if len(name) > 100:
                    raise Malformed("a keyword has at most 100 characters")
                keywords.setdefault(name.lower(), name)
            elif name.lower() in SYSTEM_FLAG_BITS:
                system |= SYSTEM_FLAG_BITS[name.lower()]
            else:
                raise Malformed(f"{name.decode()} is not a flag that can be set")
        return Flags(system, tuple(sorted(keywords.values())))

    def date(self) -> datetime.date:
        """date, quoted or not."""
        return grammar.date(self.astring())

    def date_time(self) -> datetime.datetime:
        """date-time."""
        return grammar.date_time(self.string())
