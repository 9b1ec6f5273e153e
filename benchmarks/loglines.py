"""Makes large Exchange IMAP4 protocol logs that look like a working day: the same for the same seed.

Each session is followed to its end in the file: a greeting, perhaps STARTTLS, a login, some commands, a goodbye; many
sessions are open at a time, so that their lines lie between each other's.
"""

from __future__ import annotations

import random
from pathlib import Path

HEAD = (
    b"#Software: Microsoft Exchange Server\r\n#Version: 15.0.0.0\r\n#Log-type: IMAP4 Log\r\n"
    b"#Date: 2026-03-02T00:00:00.000Z\r\n"
    b"#Fields: dateTime,sessionId,seqNumber,sIp,cIp,user,duration,rqsize,rpsize,command,parameters,context,puid\r\n"
)
COMMANDS = (
    (b"select", b"INBOX", b"R=OK;Rows=0"),
    (b"fetch", b"1:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE)", b"R=OK;Rows=214"),
    (b"uid", b"FETCH 11021:* (FLAGS BODY.PEEK[HEADER.FIELDS (DATE)])", b'"R=OK;Rows=3;Msg=""Folder:INBOX;Items:3"""'),
    (b"noop", b"", b"R=OK"),
    (b"status", b"Archive (MESSAGES UNSEEN UIDNEXT)", b"R=OK"),
    (b"idle", b"", b"R=OK"),
)


def write(path: Path, lines: int, seed: int = 1, clients: int = 3000) -> int:
    """Write about `lines` lines to `path`; how many logins in clear it holds."""
    chance = random.Random(seed)
    open_sessions: list[list[bytes]] = []
    written = insecure = number = 0
    clock = 1_772_409_600_000  # 2026-03-02T00:00:00Z in milliseconds
    with path.open("wb") as file:
        file.write(HEAD)
        batch: list[bytes] = []
        while written < lines:
            if len(open_sessions) < 200:
                number += 1
                rows, clear = _session(chance, number, clients)
                insecure += clear
                open_sessions.append(rows)
            at = chance.randrange(len(open_sessions))
            rows = open_sessions[at]
            clock += chance.randrange(30, 120)
            batch.append(_stamp(clock) + rows.pop())
            written += 1
            if not rows:
                open_sessions[at] = open_sessions[-1]
                open_sessions.pop()
            if len(batch) > 10_000:
                file.write(b"".join(batch))
                batch.clear()
        for rows in open_sessions:
            batch += [_stamp(clock) + row for row in reversed(rows)]
        file.write(b"".join(batch))
    return insecure


def _stamp(milliseconds: int) -> bytes:
    second, rest = divmod(milliseconds // 1000 % 86400, 60)
    day = 2 + milliseconds // 86_400_000 - 1_772_409_600_000 // 86_400_000
    return b"2026-03-%02dT%02d:%02d:%02d.%03dZ," % (day, second // 60, second % 60, rest, milliseconds % 1000)


def _session(chance: random.Random, number: int, clients: int) -> tuple[list[bytes], bool]:
    """Rows without their time, last first, and whether the login is in clear."""
    client = chance.randrange(clients)
    way = client % 20  # 0: clear, 1 to 4: STARTTLS, others: always TLS
    port = 143 if way < 5 else 993
    user = b"user%d@contoso.test" % client
    ends = b"192.0.2.10:%d,198.51.%d.%d:%d" % (port, client >> 8, client & 255, 1024 + number % 60000)
    before = b"%016X," % number
    sequence = [(b"OpenSession", b"", b"", b""), (b"capability", b"", b"R=ok", b"")]
    if 0 < way < 5:
        sequence.append((b"starttls", b"", b"R=ok", b""))
    if client % 3 == 0:
        sequence.append((b"id", b'"(""name"" ""Mailer %d"" ""version"" ""1.2"")"' % (client % 7), b"R=ok", b""))
    proxied = b'"R=OK;Msg=""Proxy:ex01.contoso.test:1993:SSL;ProxySuccess"""'
    sequence.append((b"login", user + b" *****", proxied, user))
    sequence += [(*chance.choice(COMMANDS), user) for _ in range(chance.randrange(2, 12))]
    sequence += [(b"logout", b"", b"R=ok", user), (b"CloseSession", b"", b"", user)]
    rows = [
        b"%b%d,%b,%b,%d,%d,%d,%b,%b,%b,\r\n"
        % (before, i, ends, name, chance.randrange(200), len(p) + 9, chance.randrange(20, 3000), c, p, context)
        for i, (c, p, context, name) in enumerate(sequence)
    ]
    rows.reverse()
    return rows, way == 0
