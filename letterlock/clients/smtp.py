"""SMTP submission, the client's side up to "logged in", and sending one message (RFC 5321, RFC 6409, RFC 4954)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from letterlock.clients import verdicts
from letterlock.clients.outcomes import Failed, Outcome
from letterlock.clients.wire import Client, Dialogue, Greeting, Login, base64_of, redacted

_REPLY: Final = re.compile(rb"([2-5][0-9][0-9])([ -]|$)(.*)", re.S)
_ADDRESS: Final = re.compile(r"[^\s<>\x00-\x1f\x7f]{1,320}")
MECHANISMS: Final = ("PLAIN", "LOGIN")
_MAX_COMMAND: Final = 512  # RFC 5321 §4.5.3.1.4


class Answer(NamedTuple):
    """A reply, its lines joined."""

    status: int
    lines: tuple[bytes, ...]
    raw: bytes

    @property
    def ok(self) -> bool:
        """2xx."""
        return self.status // 100 == 2


class SmtpClient(Client):
    """One connection to an SMTP server. `capabilities` holds EHLO's keyword lines, upper case."""

    def __init__(self, name: str = "[127.0.0.1]") -> None:
        super().__init__()
        self.name = name  # how this client calls itself in EHLO: a host name or an address literal

    def greeting(self) -> Dialogue[Greeting]:
        """RFC 5321 §4.2."""
        yield from self._first_of_smtp()
        answer = yield from self._answer()
        if answer.status != 220:
            raise Failed(Outcome.SERVER_BUSY, "", answer.raw)
        return Greeting(b" ".join(answer.lines).decode("utf-8", "replace"), answer.raw)

    def _first_of_smtp(self) -> Dialogue[None]:
        """Look at the first line and put it back: a greeting may have several."""
        line = yield from self._first_line("SMTP")
        self._buffer[:0] = line + b"\r\n"

    def capability(self) -> Dialogue[frozenset[str]]:
        """EHLO, asked for again on each channel (RFC 5321 §4.1.1.1)."""
        answer = yield from self.command(b"EHLO " + self.name.encode())
        if not answer.ok:
            raise Failed(Outcome.NOT_UNDERSTOOD, "EHLO was not accepted", answer.raw)
        self.capabilities = frozenset(line.decode("ascii", "replace").upper() for line in answer.lines[1:])
        return self.capabilities

    def starttls(self) -> Dialogue[None]:
        """RFC 3207 §4; then the driver starts TLS and calls `secured`."""
        if "STARTTLS" not in self.capabilities:
            raise Failed(Outcome.STARTTLS_NOT_OFFERED)
        answer = yield from self.command(b"STARTTLS")
        if answer.status != 220:
            raise Failed(Outcome.STARTTLS_REFUSED, "", answer.raw)
        self._nothing_behind()

    def mechanisms(self) -> tuple[str, ...]:
        """Those this client speaks and the server offers, the best first."""
        offered: set[str] = set()
        for line in self.capabilities:
            words = line.replace("AUTH=", "AUTH ", 1).split()  # "AUTH=LOGIN": a form of old servers
            if words and words[0] == "AUTH":
                offered.update(words[1:])
        return tuple(m for m in MECHANISMS if m in offered)

    def login(self, login: Login, mechanism: str = "") -> Dialogue[str]:
        """Log in by `mechanism`, or the best that is offered; the one used. `Failed` tells why not."""
        login.check()
        offered = self.mechanisms()
        if not mechanism and not offered:
            if self.secure:
                raise Failed(Outcome.NO_MECHANISM)
            raise Failed(Outcome.POLICY_REFUSED, "AUTH is not announced, so the password was not sent")
        mechanism = mechanism or offered[0]
        responses = [login.plain()] if mechanism == "PLAIN" else [base64_of(login.user), base64_of(login.password)]
        line = b"AUTH " + mechanism.encode()
        if mechanism == "PLAIN" and len(line) + len(responses[0]) + 3 <= _MAX_COMMAND:
            line += b" " + responses.pop()
        answer = yield from self.command(line)
        for response in responses:
            if answer.status != 334:
                break
            answer = yield from self.command(response)
        if not answer.ok:
            raise Failed(verdicts.smtp(answer.status, answer.raw), "", redacted(answer.raw, login))
        return mechanism

    def challenge(self, mechanism: str) -> Dialogue[bytes | None]:
        """Begin AUTH `mechanism` without credentials, and cancel it: the challenge, or None when refused."""
        answer = yield from self.command(b"AUTH " + mechanism.encode())
        if answer.status != 334:
            return None
        yield from self.command(b"*")
        return b" ".join(answer.lines)

    def send(self, sender: str, recipient: str, message: bytes) -> Dialogue[None]:
        """MAIL, RCPT, DATA (RFC 5321 §3.3); `message` has CRLF line ends."""
        for address in (sender, recipient):
            if not _ADDRESS.fullmatch(address):
                raise Failed(Outcome.SEND_FAILED, f"{address!r} is not an address")
        for line in (f"MAIL FROM:<{sender}>", f"RCPT TO:<{recipient}>", "DATA"):
            answer = yield from self.command(line.encode())
            if not answer.ok and answer.status != 354:
                raise Failed(Outcome.SEND_FAILED, line.partition(":")[0], answer.raw)
        stuffed = (b"\n" + message).replace(b"\n.", b"\n..")[1:]
        answer = yield from self.command(stuffed.removesuffix(b"\r\n") + b"\r\n.")
        if not answer.ok:
            raise Failed(Outcome.SEND_FAILED, "after the message", answer.raw)

    def logout(self) -> Dialogue[None]:
        """QUIT; a server that closes without its goodbye is forgiven."""
        try:
            yield from self.command(b"QUIT")
        except Failed as failure:
            if failure.outcome is not Outcome.CONNECTION_LOST:
                raise

    # --- one command

    def command(self, text: bytes) -> Dialogue[Answer]:
        """Any command; its reply."""
        self._send(text)
        return (yield from self._answer())

    def _answer(self) -> Dialogue[Answer]:
        lines: list[bytes] = []
        raw: list[bytes] = []
        while True:
            line = yield from self._line()
            found = _REPLY.fullmatch(line)
            if not found or (raw and raw[0][:3] != found[1]):
                raise Failed(Outcome.NOT_UNDERSTOOD, "not an SMTP reply", line)
            lines.append(found[3])
            raw.append(line)
            if found[2] != b"-":
                return Answer(int(found[1]), tuple(lines), b" ".join(raw))
