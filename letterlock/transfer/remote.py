"""Import from an account on another IMAP server, over TLS with its certificate verified, always.

STARTTLS that is not offered or refused ends the import before the password is sent, so does a server that says it is
logged in already (PREAUTH), and octets that come in clear behind the agreement to start TLS (response injection).
What a server tells before TLS is forgotten; referrals are not followed. Its folders are opened for reading only.
"""

from __future__ import annotations

import asyncio
import datetime
import unicodedata
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from letterlock.base.errors import Malformed, Refused
from letterlock.base.values import Protocol
from letterlock.clients.imap_source import Fetched, ImapSource, Listed
from letterlock.clients.outcomes import Failed, Outcome
from letterlock.clients.wire import Dialogue, Login
from letterlock.imap.grammar import date_time, decode_utf7
from letterlock.probe import handshake
from letterlock.probe.channel import resolve
from letterlock.probe.walk import Place, Walk
from letterlock.store.api import Incoming, Receipt
from letterlock.transfer.files import is_wanted
from letterlock.transfer.items import Intake, Open, flags_of
from letterlock.transfer.requests import Reporter
from letterlock.transfer.work import BATCH, BATCH_OCTETS, Target

T = TypeVar("T")

STEP_S: Final = 60.0
FETCH_S: Final = 900.0  # a batch over a slow line
UNLIMITED: Final = 1 << 62
_USES: Final = (b"\\Archive", b"\\Drafts", b"\\Junk", b"\\Sent", b"\\Trash")
SPECIAL_USES: Final = {use.lower(): use for use in _USES}
# What a server shows a second time under these is elsewhere as well (RFC 6154, RFC 8457).
VIRTUAL: Final = frozenset((b"\\flagged", b"\\important"))
CLOSED: Final = frozenset((b"\\noselect", b"\\nonexistent"))


class Account(NamedTuple):
    """Where to import from."""

    host: str
    port: int
    implicit: bool  # TLS from the first octet; otherwise STARTTLS, required
    login: Login
    trust: Path | None  # a certificate to trust besides the system's authorities

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"imap{'s' if self.implicit else ''}://{host}:{self.port}"


class _Folder(NamedTuple):
    """One of its folders: the name as it writes it, and as we would."""

    wire: bytes
    name: str
    special_use: bytes


class Import:
    """One connection, and what becomes of its messages."""

    def __init__(self, account: Account, target: Target, root: str, open_spool: Open, to: Reporter) -> None:
        self._account, self._target, self._open, self._to = account, target, open_spool, to
        self._client = ImapSource()
        self._walk: Walk
        self.origin = f"{account} {account.login.user} {root}".rstrip()  # as receipts name it
        self.warnings: list[str] = []

    async def run(self, wanted: list[str]) -> None:
        """All wanted folders; `Failed` says what went wrong, and what was taken by then stays."""
        await self._log_in()
        try:
            folders = self._readable(await self._ask(self._client.folders()), wanted)
            known = await self._target.mail.receipts(self.origin)
            for number, folder in enumerate(folders):
                await self._folder(folder, known.get(folder.name, ""), number, len(folders))
                self._to.request.folders += 1
            await self._ask(self._client.logout())
        finally:
            await self._walk.close()

    async def _log_in(self) -> None:
        account, loop = self._account, asyncio.get_running_loop()
        addresses = tuple(await resolve(account.host))
        place = Place(Protocol.IMAP4, account.host, addresses, account.port)
        self._walk = Walk(place, loop.time() + STEP_S, self._client)
        try:
            await self._walk.secure(handshake.verifying(account.trust), account.implicit)
            if self._walk.channel.tls is None or not self._client.secure:
                raise Failed(Outcome.STARTTLS_REFUSED)
            self._walk.channel.most = UNLIMITED
            await self._ask(self._client.capability())
            await self._ask(self._client.login(account.login))
            await self._ask(self._client.capability())
        except BaseException:
            await self._walk.close()
            raise

    async def _ask(self, dialogue: Dialogue[T], seconds: float = STEP_S) -> T:
        self._walk.deadline = asyncio.get_running_loop().time() + seconds
        return await self._walk.ask(dialogue)

    def _readable(self, listed: list[Listed], wanted: list[str]) -> list[_Folder]:
        found: dict[str, _Folder] = {}
        for entry in listed:
            name = folder_name(entry)
            if not name or entry.attributes & CLOSED or not is_wanted(name, wanted):
                continue
            if entry.attributes & VIRTUAL:
                self.warnings.append(f"folder {name} was left out: it shows messages of other folders")
                continue
            uses = [SPECIAL_USES[a] for a in entry.attributes if a in SPECIAL_USES]
            found.setdefault(name, _Folder(entry.name, name, uses[0] if uses else b""))
        return sorted(found.values(), key=lambda f: (f.name != "INBOX", f.name))

    async def _folder(self, folder: _Folder, state: str, number: int, folders: int) -> None:
        try:
            await self._target.folder(folder.name, folder.special_use)
        except Refused as error:
            if error.code != b"CANNOT":
                raise
            self.warnings.append(f"folder {folder.name} was left out: {error.text}")
            return
        opened = await self._ask(self._client.examine(folder.wire))
        validity, _, reached = state.partition(":")
        last = int(reached or 0) if validity == str(opened.uidvalidity) else 0
        if validity and not last and validity != str(opened.uidvalidity):
            self.warnings.append(f"folder {folder.name}: the server has numbered it anew, so it is taken once more")
        if opened.uidnext and opened.uidnext - 1 <= last:
            self._to.request.present += opened.exists
            return
        done = 0
        while window := await self._ask(self._client.sizes()):
            done += len(window)
            self._to.request.present += sum(uid <= last for uid, _ in window)
            for batch in batches([(uid, size) for uid, size in window if uid > last]):
                await self._batch(folder, opened.uidvalidity, batch)
                fraction = done / max(1, opened.exists)
                self._to.report(folder.name, 100 * (number + min(1.0, fraction)) / folders)

    async def _batch(self, folder: _Folder, uidvalidity: int, uids: list[int]) -> None:
        fetched = await self._ask(self._client.fetch(uids, lambda _: Intake(self._open)), FETCH_S)
        try:
            incoming = [i for f in sorted(fetched, key=lambda f: f.uid) if (i := self._incoming(f)) is not None]
            receipt = Receipt(self.origin, folder.name, f"{uidvalidity}:{uids[-1]}")
            octets = sum(i.spool.size for i in incoming)
            await self._target.mail.append(await self._target.folder(folder.name), incoming, [receipt])
            self._to.request.messages += len(incoming)
            self._to.request.octets += octets
        finally:
            for one in fetched:
                one.sink.close()

    def _incoming(self, fetched: Fetched) -> Incoming | None:
        intake = fetched.sink
        assert isinstance(intake, Intake)  # noqa: S101 - we made it
        if intake.skipped:
            self._to.request.skipped += 1
            self.warnings.append(f"message UID {fetched.uid} was left out: {intake.skipped}")
            return None
        return Incoming(intake.spool, flags_of(fetched.flags), arrived(fetched.date))


def batches(messages: list[tuple[int, int]]) -> list[list[int]]:
    """UIDs in transactions' worth."""
    found: list[list[int]] = []
    octets = 0
    for uid, size in messages:
        if not found or len(found[-1]) == BATCH or octets + size > BATCH_OCTETS:
            found.append([])
            octets = 0
        found[-1].append(uid)
        octets += size
    return found


def arrived(text: bytes) -> datetime.datetime | None:
    """INTERNALDATE; None where the server's is none."""
    try:
        return date_time(text)
    except Malformed:
        return None


def folder_name(entry: Listed) -> str:
    """A folder's name as we would write it: / between levels, no control characters; INBOX in capitals."""
    try:
        text = decode_utf7(entry.name)
    except Malformed:  # not canonical, or UTF-8
        text = entry.name.decode("utf-8", "replace")
    separator = entry.separator.decode("latin-1")
    levels = text.split(separator) if separator else [text]
    clean = ["".join("_" if unicodedata.category(ch)[0] in "CZ" and ch != " " else ch for ch in lv) for lv in levels]
    name = "/".join(level.replace("/", "_") for level in clean if level)
    head, slash, rest = name.partition("/")
    return f"INBOX{slash}{rest}" if head.upper() == "INBOX" else name
