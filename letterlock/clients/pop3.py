"""POP3, the client's side up to "logged in", and the few commands that a round trip needs (RFC 1939, RFC 2449)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from letterlock.clients import verdicts
from letterlock.clients.outcomes import Failed, Outcome
from letterlock.clients.wire import Client, Dialogue, Greeting, Login, base64_of, redacted

_CODE: Final = re.compile(rb"\[([A-Za-z0-9/.-]{1,100})\] ?")
_STAT: Final = re.compile(rb"(\d{1,10}) (\d{1,18})")
MECHANISMS: Final = ("PLAIN", "USER", "LOGIN")
_MAX_COMMAND: Final = 255  # RFC 2449 §4


class Answer(NamedTuple):
    """A status line."""

    ok: bool
    code: bytes
    text: bytes
    line: bytes


class Pop3Client(Client):
    """One connection to a POP3 server. `capabilities` holds CAPA's lines, upper case; empty where CAPA is unknown."""

    def __init__(self) -> None:
        super().__init__()
        self.capa_known = False

    def greeting(self) -> Dialogue[Greeting]:
        """RFC 1939 §4."""
        line = yield from self._first_line("POP3")
        if line.upper().startswith(b"-ERR"):
            raise Failed(Outcome.SERVER_BUSY, "", line)
        if line[:3].upper() != b"+OK":
            raise Failed(Outcome.NOT_UNDERSTOOD, "this is not a POP3 greeting", line)
        return Greeting(line[3:].strip().decode("utf-8", "replace"), line)

    def capability(self) -> Dialogue[frozenset[str]]:
        """CAPA, asked for again on each channel (RFC 2449 §5)."""
        answer = yield from self.command(b"CAPA")
        self.capa_known = answer.ok
        self.capabilities = frozenset()
        if answer.ok:
            lines = yield from self._lines_to_dot()
            self.capabilities = frozenset(line.decode("ascii", "replace").upper() for line in lines)
        return self.capabilities

    def _words(self, first: str) -> list[str] | None:
        """The words after a capability's name; None when it is not there."""
        for line in self.capabilities:
            words = line.split()
            if words and words[0] == first:
                return words[1:]
        return None

    def starttls(self) -> Dialogue[None]:
        """RFC 2595 §4; then the driver starts TLS and calls `secured`."""
        if self.capa_known and self._words("STLS") is None:
            raise Failed(Outcome.STARTTLS_NOT_OFFERED)
        answer = yield from self.command(b"STLS")
        if not answer.ok:
            raise Failed(Outcome.STARTTLS_REFUSED if self.capa_known else Outcome.STARTTLS_NOT_OFFERED, "", answer.line)
        self._nothing_behind()

    def mechanisms(self) -> tuple[str, ...]:
        """Those this client speaks and the server offers, the best first."""
        if not self.capa_known:
            return ("USER",)
        sasl = self._words("SASL") or []
        found = ["PLAIN"] if "PLAIN" in sasl else []
        if self._words("USER") is not None:
            found.append("USER")
        if "LOGIN" in sasl:
            found.append("LOGIN")
        return tuple(found)

    def login(self, login: Login, mechanism: str = "") -> Dialogue[str]:
        """Log in by `mechanism`, or the best that is offered; the one used. `Failed` tells why not."""
        login.check()
        offered = self.mechanisms()
        if not mechanism and not offered:
            if self.secure:
                raise Failed(Outcome.NO_MECHANISM)
            raise Failed(Outcome.POLICY_REFUSED, "neither USER nor SASL is announced, so the password was not sent")
        mechanism = mechanism or offered[0]
        if mechanism == "USER":
            answer = yield from self.command(b"USER " + login.user.encode())
            if answer.ok:
                answer = yield from self.command(b"PASS " + login.password.encode())
        else:
            answer = yield from self._authenticate(login, mechanism)
        if not answer.ok:
            raise Failed(verdicts.pop3(answer.code, answer.text), "", redacted(answer.line, login))
        return mechanism

    def _authenticate(self, login: Login, mechanism: str) -> Dialogue[Answer]:
        responses = [login.plain()] if mechanism == "PLAIN" else [base64_of(login.user), base64_of(login.password)]
        line = b"AUTH " + mechanism.encode()
        if mechanism == "PLAIN" and len(line) + len(responses[0]) + 3 <= _MAX_COMMAND:
            line += b" " + responses.pop()  # RFC 5034 §4
        self._send(line)
        for response in responses:
            answer = yield from self._status()
            if not answer.line.startswith(b"+ ") and answer.line != b"+":
                return answer
            self._send(response)
        return (yield from self._status())

    def challenge(self, mechanism: str) -> Dialogue[bytes | None]:
        """Begin AUTH `mechanism` without credentials, and cancel it: the challenge, or None when refused."""
        answer = yield from self.command(b"AUTH " + mechanism.encode())
        if not answer.line.startswith(b"+ ") and answer.line != b"+":
            return None
        yield from self.command(b"*")
        return answer.line[1:].strip()

    def stat(self) -> Dialogue[int]:
        """How many messages there are."""
        answer = yield from self.command(b"STAT")
        found = _STAT.match(answer.text)
        if not answer.ok or not found:
            outcome = verdicts.pop3(answer.code, answer.text)
            known = outcome is Outcome.PROTOCOL_DISABLED or outcome is Outcome.BACK_END_DOWN
            raise Failed(outcome if known else Outcome.SELECT_FAILED, "", answer.line)
        return int(found[1])

    def headers(self, number: int) -> Dialogue[list[bytes]]:
        """TOP n 0 (RFC 1939 §7); empty when the message or the command is not there."""
        answer = yield from self.command(b"TOP %d 0" % number)
        return (yield from self._lines_to_dot()) if answer.ok else []

    def delete(self, number: int) -> Dialogue[None]:
        """DELE; done at QUIT."""
        answer = yield from self.command(b"DELE %d" % number)
        if not answer.ok:
            raise Failed(Outcome.DELETE_FAILED, "", answer.line)

    def logout(self, deleting: bool = False) -> Dialogue[None]:
        """QUIT; a server that closes without its goodbye is forgiven, unless it had something to delete."""
        try:
            answer = yield from self.command(b"QUIT")
        except Failed as failure:
            if failure.outcome is not Outcome.CONNECTION_LOST or deleting:
                raise
            return
        if deleting and not answer.ok:
            raise Failed(Outcome.DELETE_FAILED, "", answer.line)

    # --- one command

    def command(self, text: bytes) -> Dialogue[Answer]:
        """Any command; its status line."""
        self._send(text)
        return (yield from self._status())

    def _status(self) -> Dialogue[Answer]:
        line = yield from self._line()
        upper = line[:4].upper()
        if not upper.startswith(b"+") and upper != b"-ERR":
            raise Failed(Outcome.NOT_UNDERSTOOD, "neither +OK nor -ERR", line)
        ok = upper[:3] == b"+OK"
        rest = line[3 if ok else 4 :].strip()
        found = _CODE.match(rest)
        code, text = (found[1], rest[found.end() :]) if found else (b"", rest)
        return Answer(ok, code, text, line)

    def _lines_to_dot(self) -> Dialogue[list[bytes]]:
        found: list[bytes] = []
        while (line := (yield from self._line())) != b".":
            found.append(line.removeprefix(b"."))
        return found
