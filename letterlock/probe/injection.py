"""Two probes that break the rules on purpose, with commands that do nothing (NO STARTTLS study, 2021; ALPACA, 2021)."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from letterlock.base.values import Protocol
from letterlock.clients.outcomes import Failed, Outcome, quoted
from letterlock.probe import handshake
from letterlock.probe.walk import Walk

# What is sent in one packet: the upgrade, and a harmless command behind it; then, inside TLS, the goodbye.
_STARTTLS: Final = {
    Protocol.IMAP4: (b"L900 STARTTLS\r\nL901 NOOP\r\n", b"L902 LOGOUT\r\n"),
    Protocol.POP3: (b"STLS\r\nCAPA\r\n", b"QUIT\r\n"),
    Protocol.SMTP: (b"STARTTLS\r\nNOOP\r\n", b"QUIT\r\n"),
}
_AGREED: Final = {Protocol.IMAP4: b"L900 OK", Protocol.POP3: b"+OK", Protocol.SMTP: b"220"}
_HTTP: Final = b"GET / HTTP/1.1\r\nHost: probe.invalid\r\nUser-Agent: letterlock-probe\r\n\r\n"
_AFTER: Final = {Protocol.IMAP4: b"L910 NOOP\r\n", Protocol.POP3: b"QUIT\r\n", Protocol.SMTP: b"NOOP\r\n"}
MAX_ANSWER: Final = 65536
QUIET_S: Final = 3.0


async def starttls_injection(walk: Walk) -> tuple[bool | None, str]:
    """Whether a command that was sent in clear behind STARTTLS is answered inside TLS. `walk` is fresh."""
    protocol = walk.place.protocol
    await walk.connect()
    await walk.greeting()
    await walk.ask(walk.client.capability())
    request, goodbye = _STARTTLS[protocol]
    channel = walk.channel
    try:
        answer = await channel.exchange(request, walk.deadline)
        while b"\n" not in answer and len(answer) < MAX_ANSWER:
            data = await channel.read(walk.deadline)
            if not data:
                return False, "the server closed the connection"
            answer += data
    except OSError:
        return False, "the server closed the connection"
    first, _, rest = answer.partition(b"\n")
    if not first.upper().startswith(_AGREED[protocol]):
        return False, f"the server refused: {quoted(first.rstrip())}"
    if rest:
        return None, f"the command was answered in clear, before TLS: {quoted(rest[:200])}"
    try:
        await channel.handshake(handshake.unverified(), walk.place.name, walk.deadline)
    except Exception as error:  # a server that breaks off here did not run it
        failure = handshake.failure(error, channel.first_in_handshake, channel.where)
        return False, f"the server broke off the handshake: {failure.outcome.value}"
    inside = await _all(walk, goodbye)
    if protocol is Protocol.IMAP4:
        injected = b"L901 " in inside
    elif protocol is Protocol.POP3:
        injected = b"\n.\r\n" in inside or inside.count(b"\n+OK") + inside.count(b"\n-ERR") > 0
    else:
        injected = inside.startswith(b"250")
    return injected, f"inside TLS the server answered {quoted(inside[:200])}"


async def answers_after_http(walk: Walk) -> bool:
    """Whether a command is still answered behind an HTTP request: then web pages can make browsers talk to it."""
    inside = await _all(walk, _HTTP + _AFTER[walk.place.protocol])
    lines = inside.split(b"\n")
    if walk.place.protocol is Protocol.IMAP4:
        return any(line.startswith(b"L910 ") for line in lines)
    good = b"+OK" if walk.place.protocol is Protocol.POP3 else b"250"
    return any(line.startswith(good) for line in lines)


async def _all(walk: Walk, data: bytes) -> bytes:
    """Send, then read until the server closes, falls silent, or has said too much."""
    found = b""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError, Failed):
        await walk.channel.write(data, walk.deadline)
        while len(found) < MAX_ANSWER:
            more = await walk.channel.read(min(walk.deadline, loop.time() + QUIET_S))
            if not more:
                break
            found += more
    if not found and loop.time() >= walk.deadline:
        raise Failed(Outcome.ANSWER_TIMED_OUT, walk.channel.where)
    return found
