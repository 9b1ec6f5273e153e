"""IMAP4rev1, the client's side up to "logged in", and the few commands that a round trip needs (RFC 3501, RFC 9051)."""

from __future__ import annotations

import datetime
import re
from typing import Final, NamedTuple

from letterlock.clients import verdicts
from letterlock.clients.outcomes import Failed, Outcome
from letterlock.clients.wire import MAX_ANSWER, Client, Dialogue, Greeting, Login, base64_of, redacted
from letterlock.imap.grammar import MONTHS

_LITERAL: Final = re.compile(rb"\{(\d{1,10})\+?\}$")
_CODE: Final = re.compile(rb"\[([^\]]{1,1000})\] ?")
_EXISTS: Final = re.compile(rb"\* (\d{1,10}) EXISTS$", re.I)
MECHANISMS: Final = ("PLAIN", "LOGIN", "LOGIN command")


class Answer(NamedTuple):
    """A tagged answer and the untagged ones before it."""

    status: bytes  # OK, NO, BAD
    code: bytes  # response code without brackets
    text: bytes
    untagged: tuple[bytes, ...]
    line: bytes


class ImapClient(Client):
    """One connection to an IMAP server."""

    def __init__(self) -> None:
        super().__init__()
        self._tag = 0
        self._asked = False

    def greeting(self) -> Dialogue[Greeting]:
        """RFC 3501 §7.1.1, §7.1.4, §7.1.5. PREAUTH is never accepted."""
        line = yield from self._first_line("IMAP")
        status, _, text = line.removeprefix(b"* ").partition(b" ")
        if status.upper() == b"PREAUTH":
            raise Failed(Outcome.PRE_AUTHENTICATED, "", line)
        if status.upper() == b"BYE":
            raise Failed(Outcome.SERVER_BUSY, "", line)
        if not line.startswith(b"* ") or status.upper() != b"OK":
            raise Failed(Outcome.NOT_UNDERSTOOD, "this is not an IMAP greeting", line)
        return Greeting(text.decode("utf-8", "replace"), line)

    def capability(self) -> Dialogue[frozenset[str]]:
        """CAPABILITY, asked for again on each channel (RFC 3501 §6.1.1)."""
        answer = yield from self.command(b"CAPABILITY")
        found: set[str] = set()
        for line in answer.untagged:
            if line[:13].upper() == b"* CAPABILITY ":
                found.update(word.decode("ascii", "replace").upper() for word in line[13:].split())
        if answer.status != b"OK" or not found:
            raise Failed(Outcome.NOT_UNDERSTOOD, "CAPABILITY was not answered", answer.line)
        self.capabilities = frozenset(found)
        return self.capabilities

    def starttls(self) -> Dialogue[None]:
        """RFC 3501 §6.2.1; then the driver starts TLS and calls `secured`."""
        if "STARTTLS" not in self.capabilities:
            raise Failed(Outcome.STARTTLS_NOT_OFFERED)
        answer = yield from self.command(b"STARTTLS")
        if answer.status != b"OK":
            raise Failed(Outcome.STARTTLS_REFUSED, "", answer.line)
        self._nothing_behind()

    def mechanisms(self) -> tuple[str, ...]:
        """Those this client speaks and the server offers, the best first."""
        found = [m for m in ("PLAIN", "LOGIN") if f"AUTH={m}" in self.capabilities]
        if "LOGINDISABLED" not in self.capabilities:
            found.append("LOGIN command")
        return tuple(found)

    def login(self, login: Login, mechanism: str = "") -> Dialogue[str]:
        """Log in by `mechanism`, or the best that is offered; the one used. `Failed` tells why not."""
        login.check()
        offered = self.mechanisms()
        if not mechanism and not offered:
            if self.secure:
                raise Failed(Outcome.LOGIN_DISABLED_OVER_TLS)
            raise Failed(Outcome.POLICY_REFUSED, "LOGINDISABLED is announced, so the password was not sent")
        mechanism = mechanism or offered[0]
        if mechanism == "LOGIN command":
            answer = yield from self._login_command(login)
        else:
            answer = yield from self._authenticate(login, mechanism)
        if answer.status != b"OK":
            outcome = verdicts.imap(answer.status, answer.code, answer.text)
            raise Failed(outcome, "", redacted(answer.line, login))
        return mechanism

    def _login_command(self, login: Login) -> Dialogue[Answer]:
        tag = self._next_tag()
        line = tag + b" LOGIN"
        for value in (login.user.encode(), login.password.encode()):
            if value.isascii() and value.isalnum():
                line += b" " + value  # an atom; quoting would do as well
            elif value.isascii():
                line += b' "' + value.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'
            else:  # 8-bit only in a literal (RFC 3501 §9)
                self._send(line + b" {%d}" % len(value))
                refused = yield from self._continuation(tag)
                if refused is not None:
                    return refused
                line = value
        self._send(line)
        return (yield from self._answer(tag))

    def _authenticate(self, login: Login, mechanism: str) -> Dialogue[Answer]:
        tag = self._next_tag()
        responses = [login.plain()] if mechanism == "PLAIN" else [base64_of(login.user), base64_of(login.password)]
        line = tag + b" AUTHENTICATE " + mechanism.encode()
        if mechanism == "PLAIN" and "SASL-IR" in self.capabilities:
            line += b" " + responses.pop()
        self._send(line)
        for response in responses:
            refused = yield from self._continuation(tag)
            if refused is not None:
                return refused
            self._send(response)
        return (yield from self._answer(tag))

    def challenge(self, mechanism: str) -> Dialogue[bytes | None]:
        """Begin AUTHENTICATE `mechanism` without credentials, and cancel it: the challenge, or None when refused."""
        tag = self._next_tag()
        self._send(tag + b" AUTHENTICATE " + mechanism.encode())
        line = yield from self._response()
        while line.startswith(b"* "):
            line = yield from self._response()
        if not line.startswith(b"+"):
            return None
        self._send(b"*")
        yield from self._answer(tag)
        return line[1:].strip()

    def select(self, folder: str = "INBOX") -> Dialogue[int]:
        """Open a folder; the number of messages in it."""
        answer = yield from self.command(b"SELECT " + folder.encode())
        if answer.status != b"OK":
            outcome = verdicts.imap(answer.status, answer.code, answer.text)
            known = outcome is Outcome.PROTOCOL_DISABLED or outcome is Outcome.BACK_END_DOWN
            raise Failed(outcome if known else Outcome.SELECT_FAILED, "", answer.line)
        return max((int(found[1]) for line in answer.untagged if (found := _EXISTS.match(line))), default=0)

    def append(self, message: bytes, folder: str = "INBOX") -> Dialogue[None]:
        """APPEND (RFC 3501 §6.3.11)."""
        tag = self._next_tag()
        self._send(tag + b" APPEND " + folder.encode() + b" {%d}" % len(message))
        refused = yield from self._continuation(tag)
        if refused is None:
            self._send(message)
            refused = yield from self._answer(tag)
        if refused.status != b"OK":
            raise Failed(Outcome.SEND_FAILED, "", refused.line)

    def search(self, criteria: bytes) -> Dialogue[list[int]]:
        """UID SEARCH (RFC 3501 §6.4.4)."""
        answer = yield from self.command(b"UID SEARCH " + criteria)
        if answer.status != b"OK":
            raise Failed(Outcome.MESSAGE_NOT_SEEN, "", answer.line)
        found: list[int] = []
        for line in answer.untagged:
            if line[:8].upper() == b"* SEARCH":
                found += [int(word) for word in line[8:].split() if word.isdigit() and len(word) < 11]
        return found

    def search_header(self, name: str, value: str, before: datetime.date | None = None) -> Dialogue[list[int]]:
        """Messages with `value` in a header field; `before`: only those that arrived before that day."""
        criteria = b'HEADER %b "%b"' % (name.encode(), value.encode())
        if before is not None:
            month = MONTHS[before.month - 1]
            criteria += b" BEFORE %d-%b-%d" % (before.day, month, before.year)
        return (yield from self.search(criteria))

    def delete(self, uids: list[int]) -> Dialogue[bool]:
        """Mark and expunge these messages and no others; False: left marked, as others are marked too."""
        numbers = ",".join(map(str, uids)).encode()
        answer = yield from self.command(b"UID STORE " + numbers + rb" +FLAGS.SILENT (\Deleted)")
        if answer.status != b"OK":
            raise Failed(Outcome.DELETE_FAILED, "", answer.line)
        if "UIDPLUS" in self.capabilities or "IMAP4REV2" in self.capabilities:
            answer = yield from self.command(b"UID EXPUNGE " + numbers)
        else:
            # EXPUNGE takes all that are marked: only when nobody else's message is (RFC 4315 has the reason)
            marked = yield from self.search(b"DELETED")
            if set(marked) - set(uids):
                return False
            answer = yield from self.command(b"EXPUNGE")
        if answer.status != b"OK":
            raise Failed(Outcome.DELETE_FAILED, "", answer.line)
        return True

    def identify(self) -> Dialogue[str]:
        """ID NIL (RFC 2971): what the server tells of itself; empty when it does not."""
        answer = yield from self.command(b"ID NIL")
        for line in answer.untagged:
            if line[:5].upper() == b"* ID " and line[5:].upper() != b"NIL":
                return line[5:].decode("utf-8", "replace")
        return ""

    def logout(self) -> Dialogue[None]:
        """LOGOUT; a server that closes without its goodbye is forgiven."""
        try:
            yield from self.command(b"LOGOUT")
        except Failed as failure:
            if failure.outcome is not Outcome.CONNECTION_LOST:
                raise

    # --- one command

    def command(self, text: bytes) -> Dialogue[Answer]:
        """Any command without literals."""
        tag = self._next_tag()
        self._send(tag + b" " + text)
        return (yield from self._answer(tag))

    def _next_tag(self) -> bytes:
        self._tag += 1
        return b"L%03d" % self._tag

    def _continuation(self, tag: bytes) -> Dialogue[Answer | None]:
        """Wait for `+`; the tagged answer when it comes instead."""
        untagged: list[bytes] = []
        while True:
            line = yield from self._response()
            if line.startswith(b"+"):
                return None
            if line.startswith(tag + b" "):
                return tagged(tag, line, untagged)
            self._untagged(line, untagged)

    def _answer(self, tag: bytes) -> Dialogue[Answer]:
        untagged: list[bytes] = []
        while True:
            line = yield from self._response()
            if line.startswith(tag + b" "):
                return tagged(tag, line, untagged)
            self._untagged(line, untagged)

    def _untagged(self, line: bytes, found: list[bytes]) -> None:
        if line.startswith(b"* "):
            found.append(line)
        elif not line.startswith(b"+"):
            raise Failed(Outcome.NOT_UNDERSTOOD, "neither tagged nor untagged", line)

    def _response(self) -> Dialogue[bytes]:
        """A line with the literals in it."""
        whole = b""
        while True:
            line = yield from self._line()
            whole += line
            found = _LITERAL.search(line)
            if not found or not whole.startswith(b"* "):
                return whole
            if int(found[1]) > MAX_ANSWER:
                raise Failed(Outcome.TOO_MUCH, f"a literal of {int(found[1])} octets")
            whole += b"\r\n" + (yield from self._take(int(found[1])))


def tagged(tag: bytes, line: bytes, untagged: list[bytes]) -> Answer:
    """A tagged answer, read."""
    status, _, rest = line[len(tag) + 1 :].partition(b" ")
    if status.upper() not in (b"OK", b"NO", b"BAD"):
        raise Failed(Outcome.NOT_UNDERSTOOD, "a tagged answer without OK, NO or BAD", line)
    found = _CODE.match(rest)
    code, text = (found[1], rest[found.end() :]) if found else (b"", rest)
    return Answer(status.upper(), code, text, tuple(untagged), line)
