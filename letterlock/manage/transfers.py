"""New-MailboxImportRequest: mail from an mbox file or a Maildir."""

from __future__ import annotations

import asyncio
import datetime
import mailbox as formats
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from letterlock.base.errors import Malformed, Refused
from letterlock.manage.context import Context
from letterlock.manage.mailboxes import one
from letterlock.manage.registry import Cmdlet, Parameter, Row
from letterlock.store.api import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN, Flags, Incoming, MailStore

BATCH: Final = 100  # messages of one import transaction
BATCH_OCTETS: Final = 16 * 1024 * 1024

_MBOX_FLAGS: Final = (("R", SEEN), ("A", ANSWERED), ("F", FLAGGED), ("D", DELETED), ("T", DRAFT))
_MAILDIR_FLAGS: Final = (("S", SEEN), ("R", ANSWERED), ("F", FLAGGED), ("T", DELETED), ("D", DRAFT))
_Found = tuple[str, bytes, Flags, "datetime.datetime | None"]  # folder, message, flags, when it arrived


def _crlf(data: bytes) -> bytes:
    """Files have the system's line ends; mail has CRLF."""
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _mbox(path: Path) -> Iterator[_Found]:
    box = formats.mbox(path, create=False)
    try:
        for key in box.iterkeys():
            message = box.get_message(key)
            flags = sum(bit for letter, bit in _MBOX_FLAGS if letter in message.get_flags())
            yield "INBOX", _crlf(box.get_bytes(key)), Flags(flags), None
    finally:
        box.close()


def _maildir(path: Path) -> Iterator[_Found]:
    """A Maildir and its `.Folder.Sub` directories (Maildir++)."""
    folders = [("INBOX", path)]
    folders += [(p.name[1:].replace(".", "/"), p) for p in sorted(path.glob(".*")) if (p / "cur").is_dir()]
    for name, directory in folders:
        for file in sorted((*(directory / "new").glob("*"), *(directory / "cur").glob("*"))):
            letters = file.name.rpartition(":2,")[2] if ":2," in file.name else ""
            flags = sum(bit for letter, bit in _MAILDIR_FLAGS if letter in letters)
            arrived = datetime.datetime.fromtimestamp(int(file.stat().st_mtime), datetime.UTC)
            yield name, _crlf(file.read_bytes()), Flags(flags), arrived


async def _folder(mail: MailStore, name: str) -> Any:
    try:
        return await mail.folder(name)
    except Refused:
        return await mail.create(name)


async def import_request(c: Context, p: dict[str, Any]) -> list[Row]:
    """Messages of an mbox file or a Maildir, in batches that are each durable."""
    account = one(c, p["Mailbox"])
    path = Path(p["FilePath"])
    if not path.is_absolute() or not path.exists():
        raise Malformed(f"New-MailboxImportRequest: FilePath: '{path}' must be an absolute path that exists")
    if path.is_dir() and not (path / "cur").is_dir():
        raise Malformed(f"New-MailboxImportRequest: FilePath: '{path}' is a directory, but not a Maildir")
    if not c.should(f"import {path} into {account.address}"):
        return []
    mail = c.store.mailbox(account.id)
    root = p.get("TargetRootFolder", "")
    found = _maildir(path) if path.is_dir() else _mbox(path)
    batches: dict[str, list[Incoming]] = {}
    count = octets = 0

    async def write() -> None:
        for name, messages in batches.items():
            await mail.append(await _folder(mail, name), messages)
        batches.clear()

    while (item := await asyncio.to_thread(next, found, None)) is not None:
        name, data, flags, arrived = item
        spool = mail.spool(len(data))
        spool.write(data)
        target = f"{root}/{name}".removesuffix("/INBOX") if root else name
        batches.setdefault(target, []).append(Incoming(spool, flags, arrived))
        count += 1
        octets += len(data)
        if count % BATCH == 0 or octets > BATCH_OCTETS:
            await write()
            octets = 0
            c.report(f"importing into {account.address}", count)
    await write()
    properties = {"Mailbox": account.address, "FilePath": str(path), "Status": "Completed", "Messages": count}
    return [Row(properties, ("Mailbox", "Status", "Messages", "FilePath"))]


CMDLETS: Final = (
    Cmdlet(
        "New-MailboxImportRequest",
        "Imports an mbox file or a Maildir.",
        import_request,
        (
            Parameter("Mailbox", "Whose mailbox.", str, 0, True, True),
            Parameter("FilePath", "Absolute path of an mbox file or a Maildir.", str, 1, True),
            Parameter("TargetRootFolder", "Folder below which everything goes."),
        ),
        True,
    ),
)
