"""The demonstration: two mailboxes with realistic mail, what to try, and a check of it all by standard clients."""

from __future__ import annotations

import imaplib
import poplib
import ssl
from collections.abc import Awaitable, Callable, Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any, NamedTuple

from letterlock.store.api import ANSWERED, FLAGGED, SEEN, Flags, Incoming, Spool

PASSWORDS = {"alice@demo.test": "alice-demo-2026", "bob@demo.test": "bob-demo-2026"}
SERVICES = ("LetterlockImap4", "LetterlockImap4BE", "LetterlockPop3", "LetterlockPop3BE")


class Ports(NamedTuple):
    """Where the demonstration listens, on 127.0.0.1."""

    imap: int
    imaps: int
    pop: int
    pops: int


def ports(offset: int) -> Ports:
    """Default ports and an offset."""
    return Ports(143 + offset, 993 + offset, 110 + offset, 995 + offset)


async def prepare(run: Callable[[str, dict[str, Any], list[Any]], Awaitable[None]]) -> None:
    """Mailboxes, loopback bindings, running services."""
    for user, password in PASSWORDS.items():
        await run("New-Mailbox", {"Password": password}, [user])
    where = ports(10000)
    for noun, clear, always in (("Imap", where.imap, where.imaps), ("Pop", where.pop, where.pops)):
        bindings = {"UnencryptedOrTLSBindings": f"127.0.0.1:{clear}", "SSLBindings": f"127.0.0.1:{always}"}
        await run(f"Set-{noun}Settings", bindings, [])
    for name in SERVICES:
        await run("Start-Service", {}, [name])


def incoming(spool: Spool, flags: int) -> Incoming:
    """One message for the store."""
    return Incoming(spool, Flags(flags))


def _message(sender: str, to: str, subject: str, day: int, text: str) -> EmailMessage:
    m = EmailMessage()
    m["From"], m["To"], m["Subject"] = sender, to, subject
    m["Date"] = f"Mon, {day:02} Jun 2026 09:{day:02}:00 +0200"
    m["Message-ID"] = f"<demo-{day}-{to.partition('@')[0]}@example.com>"
    m.set_content(text)
    return m


def mail() -> Iterator[tuple[str, str, int, bytes]]:
    """(mailbox, folder, flags, message): replies, attachments, HTML, other scripts, several folders."""
    for user in PASSWORDS:
        other = next(u for u in PASSWORDS if u != user)
        texts = [
            ("Quarterly figures", "The figures are attached to my next message.\n", SEEN),
            ("Re: Quarterly figures", "> The figures are attached\n\nThank you!\n", SEEN | ANSWERED),
            ("Printer on the second floor", "It cannot fetch its mail since we require TLS.\n", FLAGGED),
            ("Grüße aus Köln", "Schöne Grüße, bis nächste Woche!\n", 0),
            ("会議の予定", "来週の会議は火曜日です。\n", 0),
            ("Счёт за июнь", "Счёт во вложении.\n", SEEN),
            ("Maintenance on Saturday", "The server restarts at 22:00.\n", 0),
            ("Lunch?", "At noon, the usual place.\n", SEEN),
        ]
        for day, (subject, text, flags) in enumerate(texts, 1):
            m = _message(f"Example Sender <{other}>", user, subject, day, text)
            yield user, "INBOX", flags, m.as_bytes().replace(b"\n", b"\r\n")
        m = _message(other, user, "Figures as a table", 9, "See the attachment.\n")
        m.add_attachment(b"month,amount\nJune,42\n", maintype="text", subtype="csv", filename="figures.csv")
        yield user, "INBOX", 0, m.as_bytes().replace(b"\n", b"\r\n")
        m = _message(other, user, "Newsletter", 10, "The plain part.\n")
        m.add_alternative("<html><body><h1>News</h1><p>The <b>HTML</b> part.</p></body></html>", subtype="html")
        yield user, "INBOX", 0, m.as_bytes().replace(b"\n", b"\r\n")
        forwarded = _message(other, user, "Forwarded", 11, "Please look.\n")
        forwarded.add_attachment(_message("office@example.com", other, "The original", 12, "Original text.\n"))
        yield user, "INBOX", 0, forwarded.as_bytes().replace(b"\n", b"\r\n")
        sent = _message(user, other, "What I sent", 13, "A copy of what I sent.\n")
        yield user, "Sent", SEEN, sent.as_bytes().replace(b"\n", b"\r\n")


def instructions(ca: Path, where: Ports) -> str:
    """What a person needs to try it."""
    lines = [
        "Letterlock demonstration: everything is thrown away when you press Ctrl-C.",
        "",
        f"  IMAP  localhost:{where.imaps} (TLS)  localhost:{where.imap} (STARTTLS)",
        f"  POP3  localhost:{where.pops} (TLS)  localhost:{where.pop} (STLS)",
        *(f"  user  {user}  password  {password}" for user, password in PASSWORDS.items()),
        f"  CA    {ca}",
        "",
        "Try:",
        f"  curl --cacert {ca} --user alice@demo.test:alice-demo-2026 imaps://localhost:{where.imaps}/INBOX",
        f"  letterlock get-service --data {ca.parent}",
        f"  letterlock shell --data {ca.parent} -c 'Get-ImapSettings | Select LoginType'",
    ]
    return "\n".join(lines)


def check(ca: Path, where: Ports) -> int:
    """Standard clients over every protocol; 0 only if every step holds."""
    context = ssl.create_default_context(cafile=str(ca))
    steps: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("IMAP, TLS from the start, certificate verified", lambda: _imap(where, context, False)),
        ("IMAP, STARTTLS, certificate verified", lambda: _imap(where, context, True)),
        ("POP3, TLS from the start, certificate verified", lambda: _pop(where, context, False)),
        ("POP3, STLS, certificate verified", lambda: _pop(where, context, True)),
        ("IMAP, login without TLS is refused", lambda: _imap_refused(where)),
        ("POP3, login without TLS is refused", lambda: _pop_refused(where)),
    )
    failed = 0
    for title, step in steps:
        try:
            good = step()
            detail = ""
        except Exception as error:
            good, detail = False, f" ({error})"
        failed += not good
        print(f"{'ok    ' if good else 'FAILED'} {title}{detail}", flush=True)
    return 1 if failed else 0


def _imap(where: Ports, context: ssl.SSLContext, starttls: bool) -> bool:
    if starttls:
        client = imaplib.IMAP4("localhost", where.imap, timeout=20)
        client.starttls(context)
    else:
        client = imaplib.IMAP4_SSL("localhost", where.imaps, ssl_context=context, timeout=20)
    client.login("alice@demo.test", PASSWORDS["alice@demo.test"])
    client.select("INBOX", readonly=True)
    _, answer = client.fetch("1", "(BODY.PEEK[])")
    client.logout()
    return isinstance(answer[0], tuple) and b"Quarterly figures" in answer[0][1]


def _pop(where: Ports, context: ssl.SSLContext, stls: bool) -> bool:
    if stls:
        client = poplib.POP3("localhost", where.pop, timeout=20)
        client.stls(context)
    else:
        client = poplib.POP3_SSL("localhost", where.pops, context=context, timeout=20)
    client.user("bob@demo.test")
    client.pass_(PASSWORDS["bob@demo.test"])
    _, lines, _ = client.retr(1)
    client.quit()
    return b"Subject: Quarterly figures" in lines


def _imap_refused(where: Ports) -> bool:
    client = imaplib.IMAP4("localhost", where.imap, timeout=20)
    try:
        client.login("alice@demo.test", PASSWORDS["alice@demo.test"])
    except imaplib.IMAP4.error as error:
        return "LOGINDISABLED" in client.capabilities and "PRIVACYREQUIRED" in str(error)
    return False


def _pop_refused(where: Ports) -> bool:
    client = poplib.POP3("localhost", where.pop, timeout=20)
    try:
        client.user("bob@demo.test")
    except poplib.error_proto:
        return "USER" not in client.capa()
    return False
