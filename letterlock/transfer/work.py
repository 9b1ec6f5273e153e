"""The work of a request: messages from a source into a mailbox, or out of it.

Every batch is durable with the receipts of its messages (store.api.Receipt), in one transaction: an import that was
killed goes on where it was, and one that is run again brings nothing twice. Receipts of files are digests of messages,
so that a file may have grown or been rewritten meanwhile; those of a server are UIDVALIDITY and the last UID.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Final

from letterlock.base.errors import Refused
from letterlock.store.api import Column, Folder, Incoming, MailStore, Receipt
from letterlock.transfer.files import Export, Source, is_wanted
from letterlock.transfer.items import Found, Open
from letterlock.transfer.requests import Reporter

BATCH: Final = 200  # messages of one transaction
BATCH_OCTETS: Final = 16 * 1024 * 1024
EVERYTHING: Final = ((1, 0xFFFFFFFF),)


class Target:
    """The folders that messages go to."""

    def __init__(self, mail: MailStore, root: str) -> None:
        self.mail, self._root = mail, root.strip("/")
        self._folders: dict[str, Folder] = {}
        self._uses: dict[bytes, Folder] = {}

    async def folder(self, name: str, special_use: bytes = b"") -> Folder:
        """The folder for a source's folder, made where there is none; `Refused` when it cannot be."""
        if not self._folders and not self._root:
            self._uses = {f.special_use: f for f in await self.mail.folders() if f.special_use and f.selectable}
        if name not in self._folders:
            self._folders[name] = await self._find(name, special_use)
        return self._folders[name]

    async def _find(self, name: str, special_use: bytes) -> Folder:
        if special_use in self._uses:
            return self._uses[special_use]
        wanted = f"{self._root}/{name}".removesuffix("/INBOX") if self._root else name
        try:
            return await self.mail.folder(wanted)
        except Refused:
            pass
        try:
            return await self.mail.create(wanted, special_use if not self._root else b"")
        except Refused as error:
            if error.code != b"USEATTR":
                raise
            return await self.mail.create(wanted)


async def import_files(source: Source, origin: str, target: Target, open_spool: Open, to: Reporter, total: int) -> None:
    """Everything of a path. `origin` names it in receipts; `total`: octets, for progress."""
    known = await target.mail.receipts(origin)
    for name in source.folders:
        await target.folder(name)
    to.request.folders = len(source.folders)
    seen: Counter[str] = Counter()
    messages = source.messages(open_spool)
    while batch := await asyncio.to_thread(_some, messages):
        try:
            await _store(batch, known, seen, origin, target, to)
        finally:
            for found in batch:
                found.spool.close()
        to.report(batch[-1].folder, 100 * batch[-1].read / max(1, total))


def _some(messages: Iterator[Found]) -> list[Found]:
    """The next messages, a transaction's worth; in a thread, as it reads files."""
    batch: list[Found] = []
    octets = 0
    for found in messages:
        batch.append(found)
        octets += found.spool.size
        if len(batch) == BATCH or octets >= BATCH_OCTETS:
            break
    return batch


async def _store(
    batch: list[Found], known: dict[str, str], seen: Counter[str], origin: str, target: Target, to: Reporter
) -> None:
    for name, group in itertools.groupby(batch, key=lambda found: found.folder):
        incoming, receipts = [], []
        octets = 0
        for found in group:
            if found.skipped:
                to.request.skipped += 1
                continue
            item = f"{name}\n{found.digest}"
            seen[item] += 1
            if seen[item] > 1:  # a message that is there twice comes twice
                item += f" {seen[item]}"
            if item in known:
                to.request.present += 1
                continue
            incoming.append(Incoming(found.spool, found.flags, found.date))
            receipts.append(Receipt(origin, item))
            octets += found.spool.size
        if incoming:
            await target.mail.append(await target.folder(name), incoming, receipts)
            to.request.messages += len(incoming)
            to.request.octets += octets


async def export(mail: MailStore, wanted: list[str], out: Export, to: Reporter) -> int:
    """The folders of a mailbox into a new path; how many messages lost a keyword that the format has no place for."""
    folders = [f for f in await mail.folders() if f.selectable and is_wanted(f.name, wanted)]
    total = sum(status.size for status in await mail.status(folders))
    columns = (Column.FLAGS, Column.INTERNALDATE, Column.HEADER, Column.TEXT)
    lost = 0
    await asyncio.to_thread(out.begin)
    try:
        for folder in folders:
            await asyncio.to_thread(out.folder, folder.name)
            to.request.folders += 1
            async for batch in mail.fetch(folder, EVERYTHING, columns):
                rows = [(int(str(r[0])), _bytes(r[3]) + _bytes(r[4]), _bytes(r[1]), _bytes(r[2])[1:-1]) for r in batch]
                lost += await asyncio.to_thread(out.write, folder.name, rows)
                to.request.messages += len(rows)
                to.request.octets += sum(len(raw) for _, raw, _, _ in rows)
                to.report(folder.name, 100 * to.request.octets / max(1, total))
        await asyncio.to_thread(out.finish)
    except BaseException:
        await asyncio.to_thread(out.give_up)
        raise
    return lost


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes)  # noqa: S101 - these columns are
    return value
