"""APPEND (RFC 3501 §6.3.11) with MULTIAPPEND (RFC 3502): the literals stream into the store's spool.

Everything that can refuse the message (folder, flags, size, space) is asked before the continuation goes out. A client
that does not wait has its octets read and thrown away.
"""

from __future__ import annotations

import datetime
import re
from typing import Final

from letterlock.base.errors import Malformed, Refused
from letterlock.imap import reply
from letterlock.imap.reader import Args
from letterlock.imap.session import Done, ImapSession
from letterlock.store.api import Flags, Folder, Incoming, Spool

MAX_MESSAGES: Final = 1000
_NEXT: Final = re.compile(rb"\{([0-9]{1,20})(\+?)\}$")


def parse_append(_args: Args) -> None:
    """An APPEND that has no literal where one must be."""
    raise Malformed("APPEND expects a folder, flags, a date and the message as a literal")


async def append(_s: ImapSession, _args: None, _uid: bool) -> Done:
    """Never reached: APPEND with a literal goes to `begin`."""
    return Done()


class Job:
    """An APPEND under way."""

    def __init__(self, tag: bytes) -> None:
        self.tag = tag
        self.folder: Folder | None = None
        self.messages: list[Incoming] = []
        self.spool: Spool | None = None  # of the literal that is being received
        self.left = 0
        self.octets = 0
        self.error: Malformed | Refused | None = None

    def fail(self, error: Malformed | Refused) -> None:
        """Remember the first error; what was received is thrown away."""
        self.error = self.error or error
        self.close()

    def close(self) -> None:
        """Throw the spools away."""
        for message in self.messages:
            message.spool.close()
        self.messages.clear()
        self.spool = None

    async def announce(self, s: ImapSession, args: Args, size: int, waits: bool) -> bool:
        """A literal is announced: accept it, or refuse it before it comes. False: the command is over."""
        self.octets += size
        if self.error is None:
            try:
                flags, date = _message(args)
                if self.messages and not size:
                    raise Refused("the APPEND was cancelled by an empty message")  # RFC 3502 §6.3.11
                if len(self.messages) >= MAX_MESSAGES:
                    raise Refused(f"more than {MAX_MESSAGES} messages in one APPEND", b"LIMIT")
                self.spool = s.store.spool(size)
                self.messages.append(Incoming(self.spool, flags, date))
            except (Malformed, Refused) as error:
                self.fail(error)
        if self.error is not None and waits:
            finish(s, self, None)
            return False
        self.left = size
        if waits:
            s.out.append(b"+ Ready for the message.\r\n")
        return True

    async def proceed(self, s: ImapSession) -> bool:
        """What has arrived of a literal, or the line after it."""
        if self.left:
            data = s.reader.take(self.left)
            if not data:
                return False
            self.left -= len(data)
            if self.spool is not None:
                try:
                    self.spool.write(data)
                except Refused as error:
                    self.fail(error)
            return True
        line = s.reader.line()
        if line is None:
            return False
        if not line:
            await self.store(s)
            return True
        more = _NEXT.search(line)
        if more is None:
            self.fail(Malformed("unexpected text after the message"))
            finish(s, self, None)
            return True
        await self.announce(s, Args(line[: more.start()]), int(more[1]), not more[2])
        return True

    async def store(self, s: ImapSession) -> None:
        """All messages have arrived."""
        done = None
        if self.error is None and self.folder is not None:
            try:
                appended = await s.store.append(self.folder, self.messages)
                done = Done(reply.appenduid(appended))
                await self._warn(s)
            except Refused as error:
                self.error = error
        await s.report(expunge=True)
        finish(s, self, done)

    async def _warn(self, s: ImapSession) -> None:
        """The soft quota (RFC 5530 §3, OVERQUOTA)."""
        warning = s.store.quota.warning
        if warning is not None and (await s.store.usage()).octets >= warning:
            s.out.append(b"* NO [OVERQUOTA] The mailbox is nearly full; please delete messages.\r\n")


def finish(s: ImapSession, job: Job, done: Done | None) -> None:
    """The tagged line and the log row."""
    s.continuation = None
    job.close()
    s.tag, s.name = job.tag, b"APPEND"
    if done is not None:
        line = s.completed(done)
    elif isinstance(job.error, Refused):
        line = job.tag + b" NO " + reply.code(job.error.code) + reply.text(job.error.text) + b"\r\n"
    else:
        line = job.tag + b" BAD " + reply.text(job.error.text if job.error else "?") + b"\r\n"
    s.out.insert(len(s.out) - 1 if s.ending else len(s.out), line)
    if s.host.logging:
        result = b"R=OK" if done else b'R="' + line[:-2] + b'"'
        name = job.folder.name.encode() if job.folder else b""
        s.host.note(b"append", name, result, job.octets, len(line), s.user)


async def begin(s: ImapSession, args: Args, size: int, waits: bool) -> None:
    """The first literal of an APPEND is announced; `args` stand after the command's name."""
    job = Job(s.tag)
    s.continuation = job.proceed
    s.cleanup = job.close
    try:
        name = args.mailbox()
        try:
            job.folder = await s.store.folder(name)
        except Refused as error:
            raise Refused(error.text, b"TRYCREATE" if error.code == b"NONEXISTENT" else error.code) from None
    except (Malformed, Refused) as error:
        job.fail(error)
    await job.announce(s, args, size, waits)


def _message(args: Args) -> tuple[Flags, datetime.datetime | None]:
    """[SP flag-list] [SP date-time] SP, up to the literal (RFC 3502 §6.3.11)."""
    flags, date = Flags(), None
    args.space()
    if args.peek() == b"(":
        flags = args.flags()
        args.space()
    if args.peek() == b'"':
        date = args.date_time()
        args.space()
    if args.take(b"UTF8") or args.peek() == b"~":
        raise Refused("UTF8 and binary literals are not supported", b"CANNOT")
    args.end()
    return flags, date
