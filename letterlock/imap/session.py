"""The IMAP4rev1 session (RFC 3501): states, dispatch, what may be reported when.

One table (`commands/__init__.py`) says which commands exist; this module does the rest for all of them: tag, state
check, arguments, running, reporting of changes as the row allows, tagged line, log row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, Protocol

from letterlock.base.errors import Malformed, Refused
from letterlock.base.values import TimeSpan
from letterlock.imap import grammar, reply
from letterlock.imap.reader import Args, Literal, Reader, TooLong
from letterlock.imap.selected import Selected
from letterlock.policy.login import Channel, LoginRules
from letterlock.session import Host, Next, Stop, Welcome, tls_note
from letterlock.store.api import MailStore

MAX_BAD: Final = 10  # commands in a row that make no sense, before the session is ended
MAX_FAILED_LOGINS: Final = 5
DRAIN: Final = 65536

# Lines of other protocols: a page can make a browser send them (cross-protocol attacks).
FOREIGN: Final = tuple(
    b"GET |POST |HEAD |PUT |DELETE |PATCH |OPTIONS |CONNECT |TRACE |PRI |EHLO |HELO |MAIL FROM:|\x16\x03".split(b"|")
)


class Settings(Protocol):
    """What the session reads of ImapSettings."""

    @property
    def Banner(self) -> str: ...
    @property
    def MaxCommandSize(self) -> int: ...
    @property
    def PreAuthenticatedConnectionTimeout(self) -> TimeSpan: ...
    @property
    def AuthenticatedConnectionTimeout(self) -> TimeSpan: ...
    @property
    def ShowHiddenFoldersEnabled(self) -> bool: ...


class Done(NamedTuple):
    """A command that succeeded: response code without brackets, and text."""

    code: bytes = b""
    text: bytes = b""  # empty: NAME completed.


class Row(NamedTuple):
    """One command."""

    name: bytes
    run: Callable[[ImapSession, Any, bool], Awaitable[Done | None]]
    parse: Callable[[Args], Any]
    states: int
    flags: int
    spec: str


# states
NOT_AUTHENTICATED: Final = 1
AUTHENTICATED: Final = 2
SELECTED: Final = 4
ANY: Final = 7
LOGGED_IN: Final = 6
# flags
NO_EXPUNGE: Final = 1  # FETCH, STORE, SEARCH by number: EXPUNGE may not be sent (RFC 3501 §7.4.1)
REPORTS: Final = 2  # changes are looked for before the tagged line
FRESH: Final = 4  # and before the command, so that it sees other sessions' flags
UID: Final = 8  # the UID variant


def _nothing() -> None:
    """No APPEND is under way."""


class ImapSession:
    """One connection's protocol state (letterlock.session.Session)."""

    def __init__(self, settings: Settings, host: Host, channel: Channel, rules: LoginRules, starttls: bool) -> None:
        self.settings = settings
        self.host = host
        self.channel = channel
        self.rules = rules
        self.starttls = starttls  # may still be offered
        self.out: list[bytes] = []
        self.timeout: float = settings.PreAuthenticatedConnectionTimeout.seconds
        self.authenticated = False
        self.user = ""
        self.client = ""  # what it told of itself (RFC 2971)
        self.mail: MailStore | None = None
        self.selected: Selected | None = None
        self.enabled: set[bytes] = set()
        self.reader = Reader(settings.MaxCommandSize)
        self.tag = b"*"
        self.name = b""
        # one of these is set while the client's next line is not a command
        self.continuation: Callable[[ImapSession], Awaitable[bool]] | None = None
        self.cleanup: Callable[[], None] = _nothing  # throws away what an APPEND has received
        self.upgrading = False
        self.ending = False
        self.relayed = False  # another server goes on
        self.hint = False
        self.idling = False
        self.failed_logins = 0
        self._bad = 0
        self._eof = False

    # --- the driver's side

    def greet(self) -> None:
        """The greeting; never PREAUTH, no capabilities (MS-STANXIMAP: none unsolicited before login)."""
        self.out.append(b"* OK " + reply.text(self.settings.Banner) + b"\r\n")

    def receive(self, data: bytes) -> None:
        """Take what arrived."""
        if not data:
            self._eof = True
        elif not self.ending:
            self.reader.buffer += data

    def changed(self) -> None:
        """Somebody changed the open mailbox."""
        self.hint = True

    def secured(self, channel: Channel) -> None:
        """TLS is up: forget everything learnt in clear (RFC 3501 §6.2.1)."""
        self.reader.discard()
        self.channel = channel
        self.starttls = False
        self.client = ""
        self.upgrading = False
        self._bad = self.failed_logins = 0

    async def enter(self, welcome: Welcome) -> None:
        """The login succeeded."""
        self.user, self.mail = welcome.mailbox, welcome.mail
        self.authenticated = True
        self.relayed = welcome.mail is None
        self.failed_logins = 0
        self.timeout = self.settings.AuthenticatedConnectionTimeout.seconds
        self.reader.max_literals = self.settings.MaxCommandSize * 4
        if self.mail is not None:
            self.host.watch(self.mail)

    def unread(self) -> bytes:
        """For the server that goes on."""
        data = bytes(self.reader.buffer)
        self.reader.discard()
        return data

    def stop(self, why: Stop) -> None:
        """The protocol's goodbye."""
        sentence = {
            Stop.TIMEOUT: b"* BYE Connection is closed: it was idle for too long.\r\n",
            Stop.SHUTDOWN: b"* BYE The server is shutting down; please connect again later.\r\n",
            Stop.REFUSED: b"* BYE [LIMIT] Too many connections; close some or try again later.\r\n",
            Stop.FAILURE: b"* BYE [SERVERBUG] Internal error; the administrator finds it in the server's log.\r\n",
        }[why]
        self.out.append(sentence)
        self.ending = True

    def ended(self) -> None:
        """The connection is gone."""
        self.continuation = None
        self.cleanup()
        self.host.watch(None)

    async def advance(self) -> Next:
        """Do what is complete."""
        while not self.ending and not self.upgrading and not self.relayed:
            try:
                if not await self._step():
                    break
            except TooLong as error:
                self._refuse(error)
            if len(self.out) > 64 or (self.out and len(self.out[-1]) > DRAIN):
                await self.host.drain()
        if self.upgrading:
            return Next.START_TLS
        if self.relayed and not self.ending:
            return Next.RELAY
        return Next.CLOSE if self.ending or self._eof else Next.READ

    # --- one step

    async def _step(self) -> bool:
        """Whether something was done."""
        if self.continuation is not None:
            return await self.continuation(self)
        command = self.reader.next(streams=self.authenticated)
        if self.reader.continuation:
            self.reader.continuation = False
            self.out.append(b"+ Ready for the literal.\r\n")
        if command is None:
            return False
        if isinstance(command, Literal):
            await self.stream(command)
        else:
            await self._command(command)
        return True

    async def stream(self, literal: Literal) -> None:
        """APPEND's literal: decided before it is sent."""
        from letterlock.imap.commands import append

        self.host.begin()
        self.tag, _, rest = literal.prefix.partition(b" ")
        self.name = b"APPEND"
        await append.begin(self, Args(rest, 7), literal.size, literal.waits)

    def _refuse(self, error: TooLong) -> None:
        """A command that is too long; where it cannot be skipped, the session ends."""
        self.out.append(error.tag + b" BAD " + reply.text(error.text) + b"\r\n")
        self.note(b"", b"", error.tag + b" BAD " + reply.text(error.text), 0)
        self._count_bad()
        if error.fatal and not self.ending:
            self.bye(b"The rest cannot be read as commands.")

    def bye(self, why: bytes) -> None:
        """End the session from our side."""
        self.out.append(b"* BYE " + why + b"\r\n")
        self.ending = True

    def _count_bad(self) -> None:
        self._bad += 1
        if self._bad >= MAX_BAD:
            self.bye(b"Too many commands that are not IMAP.")

    async def _command(self, command: bytes) -> None:
        self.host.begin()
        size = len(command)
        before = sum(map(len, self.out)) if self.host.logging else 0
        self.tag = b"*"
        self.name = b""
        parameters = b""
        try:
            if command.startswith(FOREIGN):
                self.bye(b"This is an IMAP server.")
                self.note(command[:4].strip().lower(), b"", b"another protocol", size)
                return
            tag = grammar.TAG.match(command)
            if tag is None or len(tag[0]) > 100 or command[tag.end() : tag.end() + 1] != b" ":
                raise Malformed("expected a tag, a space and a command")
            self.tag = tag[0]
            if b"\x00" in command:
                raise Malformed("NUL is not allowed in a command")
            row, args = self._row(command, tag.end() + 1)
            parameters = args.data[args.at :]
            if self.name in (b"LOGIN", b"AUTHENTICATE"):
                parameters = self._masked(parameters)
            parameters = parameters.strip()
            line = await self._run(row, args)
            self._bad = 0
        except Malformed as error:
            line = self.tag + b" BAD " + reply.text(error.text) + b"\r\n"
            self._count_bad()
        except Refused as error:
            line = self.tag + b" NO " + reply.code(error.code) + reply.text(error.text) + b"\r\n"
        if line is None:
            return
        if self.ending and self.name != b"LOGOUT":
            self.out.insert(max(0, len(self.out) - 1), line)
        else:
            self.out.append(line)
        if self.host.logging:
            sent = sum(map(len, self.out)) - before
            result = b"R=OK" if line[len(self.tag) + 1 : len(self.tag) + 3] == b"OK" else b'R="' + line[:-2] + b'"'
            user = self.user
            if self.name in (b"LOGIN", b"AUTHENTICATE"):
                user = user or self.last_user
                result += tls_note(self.channel)
            if self.name == b"LOGIN":
                parameters = reply.text(user) + b" *****"
            self.host.note(self.name.lower(), parameters, result, size, max(sent, len(line)), user)

    last_user = ""  # as given in the last attempt; for the log

    def _masked(self, parameters: bytes) -> bytes:
        """What the log shows of LOGIN's and AUTHENTICATE's: the mechanism, and whether credentials came with it."""
        self.last_user = ""
        mechanism, _, initial = parameters.strip().partition(b" ")
        if self.name == b"LOGIN" or not grammar.TAG.fullmatch(mechanism[:40]):
            return b"*****"
        return mechanism[:40].upper() + (b" *****" if initial else b"")

    def note(self, command: bytes, parameters: bytes, context: bytes, size: int) -> None:
        """A log row outside the usual way."""
        if self.host.logging:
            self.host.note(command, parameters, context, size, 0, self.user)

    def _row(self, command: bytes, at: int) -> tuple[Row, Args]:
        from letterlock.imap.commands import COMMANDS

        end = command.find(b" ", at)
        word = command[at : end if end >= 0 else len(command)].upper()
        if word == b"UID" and end >= 0:
            at = end + 1
            end = command.find(b" ", at)
            word = b"UID " + command[at : end if end >= 0 else len(command)].upper()
        row = COMMANDS.get(word)
        if row is None:
            raise Malformed("the command is not known here")
        self.name = row.name
        state = SELECTED if self.selected else AUTHENTICATED if self.authenticated else NOT_AUTHENTICATED
        if not row.states & state:
            where = {NOT_AUTHENTICATED: "log in first", SELECTED: "not while a folder is open"}
            hint = where.get(state, "open a folder first" if row.states == SELECTED else "you are logged in already")
            if state == SELECTED and row.states == NOT_AUTHENTICATED:
                hint = "you are logged in already"
            raise Malformed(f"{row.name.decode()} is not possible now: {hint}")
        return row, Args(command, end if end >= 0 else len(command))

    async def _run(self, row: Row, args: Args) -> bytes | None:
        """The tagged line, or None where the command goes on."""
        parsed = row.parse(args)
        args.end()
        selected = self.selected
        if selected and row.flags & FRESH:
            await self.report(expunge=False)
            if self.ending:
                raise Refused("this folder does not exist any more", b"NONEXISTENT")
        done = await row.run(self, parsed, bool(row.flags & UID))
        if done is None:
            return None
        if self.selected is not None and self.selected is selected and row.flags & REPORTS:
            await self.report(expunge=not row.flags & NO_EXPUNGE, uid=bool(row.flags & UID))
        if row.flags & NO_EXPUNGE and not done.code and self.open.expunge_waits:
            done = done._replace(code=b"EXPUNGEISSUED")  # RFC 5530 §3
        return self.completed(done)

    async def report(self, expunge: bool, uid: bool = False) -> None:
        """Tell what others changed in the open folder; where it is gone, the session ends (RFC 2180 §3.3)."""
        if self.selected is None or self.ending:
            return
        self.hint = False
        try:
            await self.selected.refresh(self.out, expunge, b"CONDSTORE" in self.enabled, uid)
        except Refused as error:
            if error.code != b"INUSE":  # a busy mailbox reports next time
                self.bye(reply.text(error.text))

    def completed(self, done: Done) -> bytes:
        """The tagged OK line."""
        return self.tag + b" OK " + reply.code(done.code) + (done.text or self.name + b" completed.") + b"\r\n"

    # --- for commands

    @property
    def store(self) -> MailStore:
        """The mailbox; commands that use it run only after login."""
        assert self.mail is not None  # noqa: S101 - the table's states say so
        return self.mail

    @property
    def open(self) -> Selected:
        """The open folder."""
        assert self.selected is not None  # noqa: S101 - the table's states say so
        return self.selected

    def close_folder(self) -> None:
        """No folder is open any more."""
        self.selected = None
