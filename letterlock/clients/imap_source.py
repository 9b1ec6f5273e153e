"""The client's side of IMAP as far as an import needs it: folders, message sizes, and messages streamed away.

A message never sits here whole: its literal goes into a sink as it arrives. Answers are taken for what was asked, by
UID, once: what a server sends unasked is not believed. Referrals are not followed (RFC 2221, RFC 2193): the client
talks to the server whose certificate was verified, or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from letterlock.clients.imap import Answer, ImapClient, tagged
from letterlock.clients.outcomes import Failed, Outcome
from letterlock.clients.wire import MAX_ANSWER, Dialogue

WINDOW: Final = 1000  # messages whose sizes are asked for at a time
_LITERAL: Final = re.compile(rb"\{(\d{1,10})\+?\}$")
_BODY_LITERAL: Final = re.compile(rb"BODY\[\] \{(\d{1,10})\+?\}$", re.I)
_BODY_QUOTED: Final = re.compile(rb'BODY\[\] (?:NIL|"((?:[^"\\]|\\.)*)")', re.I)
_FETCH: Final = re.compile(rb"\* (\d{1,10}) FETCH \(", re.I)
_UID: Final = re.compile(rb"[( ]UID (\d{1,10})", re.I)
_SIZE: Final = re.compile(rb"[( ]RFC822\.SIZE (\d{1,12})", re.I)
_FLAGS: Final = re.compile(rb"[( ]FLAGS \(([^()]*)\)", re.I)
_DATE: Final = re.compile(rb'[( ]INTERNALDATE "([^"]{1,40})"', re.I)
_COUNT: Final = re.compile(rb"\* (\d{1,10}) (EXISTS|EXPUNGE)$", re.I)
_LIST: Final = re.compile(rb'\* LIST \(([^()]*)\) (NIL|"(?:[^"\\]|\\.)") (.*)$', re.I | re.S)
_NUMBERED: Final = re.compile(rb"\[(UIDVALIDITY|UIDNEXT) (\d{1,10})\]", re.I)


class Sink(Protocol):
    """Where a message's octets go."""

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class Listed(NamedTuple):
    """A folder: its name as the server writes it, the separator, attributes in lower case."""

    name: bytes
    separator: bytes
    attributes: frozenset[bytes]


class Opened(NamedTuple):
    """A folder that was examined."""

    uidvalidity: int
    uidnext: int  # 0: the server did not say
    exists: int


class Fetched(NamedTuple):
    """A message that has arrived."""

    uid: int
    flags: list[bytes]
    date: bytes
    sink: Sink


class ImapSource(ImapClient):
    """A server to import from."""

    max_lines = 50_000  # a LIST may be long

    def __init__(self) -> None:
        super().__init__()
        self._exists = 0
        self._asked_for = 0  # messages by number whose sizes are known

    def folders(self) -> Dialogue[list[Listed]]:
        """All of them (RFC 3501 §6.3.8), with their special uses where the server tells (RFC 6154)."""
        extended = "LIST-EXTENDED" in self.capabilities and "SPECIAL-USE" in self.capabilities
        answer = yield from self.command(b'LIST "" "*"' + (b" RETURN (SPECIAL-USE)" if extended else b""))
        self._check(answer)
        found = []
        for line in answer.untagged:
            match = _LIST.match(line)
            if match:
                separator = b"" if match[2].upper() == b"NIL" else match[2][1:-1].replace(b"\\", b"", 1) or b"\\"
                attributes = frozenset(match[1].lower().split())
                found.append(Listed(_string(match[3]), separator, attributes))
        return found

    def examine(self, folder: bytes) -> Dialogue[Opened]:
        """Open a folder for reading only (RFC 3501 §6.3.2): nothing is changed on that server."""
        self._exists = self._asked_for = 0
        answer = yield from self._with_string(b"EXAMINE ", folder)
        self._check(answer)
        numbers = {m[1].upper(): int(m[2]) for line in answer.untagged for m in _NUMBERED.finditer(line)}
        if not numbers.get(b"UIDVALIDITY"):
            raise Failed(Outcome.NOT_UNDERSTOOD, "EXAMINE without UIDVALIDITY", answer.line)
        return Opened(numbers[b"UIDVALIDITY"], numbers.get(b"UIDNEXT", 0), self._exists)

    def sizes(self) -> Dialogue[list[tuple[int, int]]]:
        """UID and size of the next messages of the folder; empty: that was all."""
        first = self._asked_for + 1
        last = min(self._asked_for + WINDOW, self._exists)
        if first > last:
            return []
        self._asked_for = last
        answer = yield from self.command(b"FETCH %d:%d (UID RFC822.SIZE)" % (first, last))
        self._check(answer)
        found = {}
        for line in answer.untagged:
            uid, size = _UID.search(line), _SIZE.search(line)
            if _FETCH.match(line) and uid and size and first <= int(_FETCH.match(line)[1]) <= last:  # type: ignore[index]
                found[int(uid[1])] = int(size[1])
        return sorted(found.items())

    def fetch(self, uids: list[int], sink: Callable[[int], Sink]) -> Dialogue[list[Fetched]]:
        r"""These messages, without setting \Seen. `sink` is called with the size of each."""
        tag = self._next_tag()
        numbers = b",".join(b"%d" % uid for uid in uids)
        self._send(tag + b" UID FETCH " + numbers + b" (UID FLAGS INTERNALDATE BODY.PEEK[])")
        wanted, found = set(uids), list[Fetched]()
        untagged: list[bytes] = []
        try:
            while True:
                line = yield from self._line()
                if line.startswith(tag + b" "):
                    self._check(tagged(tag, line, untagged))
                    return found
                whole, body = yield from self._message(line, sink)
                self._untagged(whole, untagged)
                untagged.clear()
                one = _fetched(whole, body, sink)
                if one is not None and one.uid in wanted:
                    wanted.discard(one.uid)
                    found.append(one)
                elif one is not None:
                    one.sink.close()
                elif body is not None:
                    body.close()
        except BaseException:
            for one in found:
                one.sink.close()
            raise

    def _message(self, line: bytes, sink: Callable[[int], Sink]) -> Dialogue[tuple[bytes, Sink | None]]:
        """An untagged answer whole, its message's literal streamed away."""
        whole, body = b"", None
        while True:
            whole += line
            literal = _LITERAL.search(line)
            if not literal or not whole.startswith(b"* "):
                return whole, body
            large = _BODY_LITERAL.search(line)
            if large and body is None and _FETCH.match(whole):
                body = sink(int(large[1]))
                try:
                    yield from self._pour(int(large[1]), body)
                except BaseException:
                    body.close()
                    raise
            elif int(literal[1]) > MAX_ANSWER:
                raise Failed(Outcome.TOO_MUCH, f"a literal of {int(literal[1])} octets")
            else:
                whole += b"\r\n" + (yield from self._take(int(literal[1])))
            line = yield from self._line()

    def _pour(self, count: int, sink: Sink) -> Dialogue[None]:
        while count:
            part = bytes(self._buffer[:count])
            del self._buffer[: len(part)]
            self._searched = 0
            sink.write(part)
            count -= len(part)
            if count:
                if self._eof:
                    raise Failed(Outcome.CONNECTION_LOST)
                yield

    def _untagged(self, line: bytes, found: list[bytes]) -> None:
        super()._untagged(line, found)
        count = _COUNT.match(line)
        if count and count[2].upper() == b"EXISTS":
            self._exists = int(count[1])
        elif count:  # numbers above it move down by one
            self._exists = max(0, self._exists - 1)
            self._asked_for -= int(count[1]) <= self._asked_for

    def _with_string(self, command: bytes, value: bytes) -> Dialogue[Answer]:
        """A command with one string, as a literal where it cannot be quoted."""
        if all(32 <= c < 127 for c in value):
            quoted = value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
            return (yield from self.command(command + b'"' + quoted + b'"'))
        tag = self._next_tag()
        self._send(tag + b" " + command + b"{%d}" % len(value))
        refused = yield from self._continuation(tag)
        if refused is not None:
            return refused
        self._send(value)
        return (yield from self._answer(tag))

    def _check(self, answer: Answer) -> None:
        if answer.status != b"OK":
            raise Failed(Outcome.SELECT_FAILED, "", answer.line)


def _string(text: bytes) -> bytes:
    """An astring as the server wrote it: quoted, a literal that `_response` put behind its length, or an atom."""
    if text.startswith(b'"') and text.endswith(b'"') and len(text) > 1:
        return re.sub(rb"\\(.)", rb"\1", text[1:-1])
    literal = re.match(rb"\{\d{1,10}\+?\}\r\n", text)
    return text[literal.end() :] if literal else text


def _fetched(line: bytes, body: Sink | None, sink: Callable[[int], Sink]) -> Fetched | None:
    """A message's answer; None when it is not one, or has no body."""
    if not _FETCH.match(line):
        return None
    quoted = _BODY_QUOTED.search(line) if body is None else None
    if quoted is not None:  # a message's own octets could imitate an item
        line = line[: quoted.start()] + line[quoted.end() :]
    uid, flags, date = _UID.search(line), _FLAGS.search(line), _DATE.search(line)
    if body is None:
        if quoted is None or uid is None:
            return None
        text = re.sub(rb"\\(.)", rb"\1", quoted[1] or b"")
        body = sink(len(text))
        body.write(text)
    if uid is None:
        return None
    return Fetched(int(uid[1]), flags[1].split() if flags else [], date[1] if date else b"", body)
