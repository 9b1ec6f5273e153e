"""The round trip of a full scenario: a test message goes in, is found, and is deleted again.

With a server that takes mail it is sent there and has to arrive; without one, IMAP puts it into the INBOX by APPEND,
and POP3, which cannot put, has no round trip. Test messages that an earlier, broken test left behind and that are
older than a day are deleted as well (IMAP); no other message is ever touched.
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import secrets
from typing import TYPE_CHECKING, Final

from letterlock.base.values import Protocol
from letterlock.clients.imap import ImapClient
from letterlock.clients.outcomes import Failed, Outcome
from letterlock.clients.pop3 import Pop3Client
from letterlock.clients.smtp import SmtpClient
from letterlock.clients.wire import Dialogue
from letterlock.probe.walk import Walk

if TYPE_CHECKING:
    from letterlock.probe.scenarios import Run

HEADER: Final = "X-Letterlock-Connectivity-Test"
POLL_S: Final = 1.0
RECENT: Final = 20  # messages at the end of a POP3 maildrop that are looked at


def message(mark: str, address: str) -> bytes:
    """The test message; CRLF line ends."""
    lines = (
        f"From: <{address}>",
        f"To: <{address}>",
        f"Subject: Connectivity test {mark}",
        f"Date: {email.utils.format_datetime(datetime.datetime.now(datetime.UTC))}",
        f"Message-ID: <{mark}@connectivity-test.invalid>",
        f"{HEADER}: {mark}",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        "This message was made by a connectivity test, which deletes it again.",
        "",
    )
    return "\r\n".join(lines).encode()


def _address(run: Run) -> str:
    """Whose mailbox it is."""
    assert run.scenario.login is not None  # noqa: S101 - a round trip comes after the log-on
    user = run.scenario.login.user
    return user if "@" in user else f"{user}@{run.scenario.name}"


def submission(walk: Walk, address: str, text: bytes) -> Dialogue[None]:
    """Send to oneself."""
    if not isinstance(walk.client, SmtpClient):
        raise Failed(Outcome.SEND_FAILED, "not an SMTP connection")
    return walk.client.send(address, address, text)


async def imap(run: Run, walk: Walk, client: ImapClient) -> None:
    """Append or send, find, delete; the folder is selected."""
    mark = secrets.token_hex(8)
    if run.scenario.send_by is None:
        async with run.step("APPEND test message"):
            await walk.ask(client.append(message(mark, _address(run))))
    else:
        await run.send(message(mark, _address(run)), _address(run))
    async with run.step("Find test message"):
        while not (found := await walk.ask(client.search_header(HEADER, mark))):
            await _pause(run, walk.deadline)
            await walk.ask(client.command(b"NOOP"))
    async with run.step("Delete test message"):
        yesterday = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=1)
        old = await walk.ask(client.search_header(HEADER, "", yesterday))
        if not await walk.ask(client.delete(sorted({*found, *old}))):
            run.report.warnings.append(
                "the test message was left marked as deleted: other messages are marked too, and the server cannot "
                "expunge one alone (no UIDPLUS)"
            )


async def pop3(run: Run) -> None:
    """Send, then log on again and again until it is there, then delete."""
    mark = secrets.token_hex(8)
    await run.send(message(mark, _address(run)), _address(run))
    while not await _found_and_deleted(run, mark):
        await _pause(run, run.end)


async def _found_and_deleted(run: Run, mark: str) -> bool:
    walk = await run.logged_on(run.scenario)
    client = walk.client
    deleting = False
    try:
        if not isinstance(client, Pop3Client) or run.scenario.protocol is not Protocol.POP3:
            return False
        async with run.step("Find test message"):
            last = await walk.ask(client.stat())
            wanted = f"{HEADER}: {mark}".lower().encode()
            for number in range(last, max(0, last - RECENT), -1):
                lines = await walk.ask(client.headers(number))
                if any(line.strip().lower() == wanted for line in lines):
                    deleting = True
                    break
        if deleting:
            async with run.step("Delete test message"):
                await walk.ask(client.delete(number))
                await walk.ask(client.logout(deleting=True))
        return deleting
    finally:
        if deleting:
            await walk.close()
        else:
            await run.leave(walk)


async def _pause(run: Run, deadline: float) -> None:
    if min(deadline, run.end) - run.loop.time() <= POLL_S:
        raise Failed(Outcome.MESSAGE_NOT_SEEN)
    await asyncio.sleep(POLL_S)
