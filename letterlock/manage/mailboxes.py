"""Mailboxes: New-, Get-, Set-, Remove-Mailbox, Set-MailboxPassword, Get-, Set-CASMailbox, New-MailboxImportRequest."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import mailbox as formats
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from letterlock.base.errors import Malformed, Refused
from letterlock.base.values import MimeFormat, parse_enum
from letterlock.directory.accounts import Account, Switches, check_address, check_password
from letterlock.directory.verifiers import hash_password
from letterlock.manage.context import Context
from letterlock.manage.registry import Cmdlet, Parameter, Row, boolean, secret
from letterlock.store.api import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN, Flags, Incoming, MailStore

BATCH: Final = 100  # messages of one import transaction
BATCH_OCTETS: Final = 16 * 1024 * 1024


def _mailbox_row(c: Context, a: Account) -> Row:
    properties = {
        "Name": a.display_name,
        "Alias": a.alias,
        "PrimarySmtpAddress": a.address,
        "DisplayName": a.display_name,
        "Identity": a.address,
        "Guid": a.id,
        "ServerName": c.config.server_name,
        "WhenCreated": a.created,
        "PasswordExposed": bool(c.accounts.exposed(a)),
    }
    return Row(properties, ("Name", "Alias", "ServerName", "PrimarySmtpAddress"))


async def _hash(password: str) -> str:
    return await asyncio.to_thread(hash_password, check_password(password))


async def new_mailbox(c: Context, p: dict[str, Any]) -> list[Row]:
    """A mailbox that can log in with its full address."""
    address = check_address(p["Name"])
    if not c.should(f"make mailbox {address}"):
        return []
    hashed = await _hash(p["Password"].reveal())
    account = c.accounts.create(address, hashed, p.get("DisplayName", ""), p.get("Alias", ""), c.who)
    await c.store.create_mailbox(account.id)
    return [_mailbox_row(c, account)]


async def get_mailbox(c: Context, p: dict[str, Any]) -> list[Row]:
    """Mailboxes."""
    return [_mailbox_row(c, a) for a in c.accounts.find(p.get("Identity"))]


async def set_mailbox(c: Context, p: dict[str, Any]) -> list[Row]:
    """Names."""
    account = c.accounts.one(p["Identity"])
    if c.should(f"change mailbox {account.address}"):
        display_name, alias = p.get("DisplayName", account.display_name), p.get("Alias", account.alias)
        c.accounts.set_names(account, display_name, alias, c.who)
    return []


async def remove_mailbox(c: Context, p: dict[str, Any]) -> list[Row]:
    """The account first, so that nobody logs in any more; then all its mail."""
    account = c.accounts.one(p["Identity"])
    if c.should(f"remove mailbox {account.address} with all its messages"):
        c.accounts.remove(account, c.who)
        await c.store.delete_mailbox(account.id)
    return []


async def set_password(c: Context, p: dict[str, Any]) -> list[Row]:
    """A new password."""
    account = c.accounts.one(p["Identity"])
    if c.should(f"set the password of {account.address}"):
        c.accounts.set_password(account, await _hash(p["Password"].reveal()), c.who)
    return []


_SWITCHES: Final = {f.name: f for f in dataclasses.fields(Switches)}
_WORKS: Final = ("PopEnabled", "ImapEnabled")  # the others have their effect with message conversion


async def get_cas_mailbox(c: Context, p: dict[str, Any]) -> list[Row]:
    """Protocol switches."""
    rows = []
    for a in c.accounts.find(p.get("Identity")):
        properties: dict[str, Any] = {"Name": a.display_name, "Identity": a.address, "PrimarySmtpAddress": a.address}
        properties |= {name: getattr(a.switches, name) for name in _SWITCHES}
        rows.append(Row(properties, ("Name", "PrimarySmtpAddress", "PopEnabled", "ImapEnabled")))
    return rows


async def set_cas_mailbox(c: Context, p: dict[str, Any]) -> list[Row]:
    """Protocol switches; they count from the next login on."""
    account = c.accounts.one(p.pop("Identity"))
    changes = {n: v for n, v in p.items() if getattr(account.switches, n) != v}
    for name, value in changes.items():
        c.should(f"set {name} of {account.address} to {value}")
        if name not in _WORKS:
            c.warn(f"{name} has no effect yet: messages are given as they were stored")
    if changes and not c.what_if:
        c.accounts.set_switches(account, changes, c.who)
    return []


def _switch_parameter(field: dataclasses.Field[Any]) -> Parameter:
    if isinstance(field.default, bool):
        return Parameter(field.name, "", boolean, type_name="Boolean", default=str(field.default))
    names = " | ".join(m.name for m in MimeFormat)
    return Parameter(field.name, "", lambda v: parse_enum(MimeFormat, str(v)), type_name=names)


# --- import


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
    account = c.accounts.one(p["Mailbox"])
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
    await write()
    properties = {"Mailbox": account.address, "FilePath": str(path), "Status": "Completed", "Messages": count}
    return [Row(properties, ("Mailbox", "Status", "Messages", "FilePath"))]


_ONE: Final = Parameter("Identity", "Address, alias or name.", str, 0, True, True)
_MANY: Final = Parameter("Identity", "Address, alias or name; * matches.", str, 0, pipeline=True)
_PASSWORD: Final = Parameter("Password", "The new password.", secret, mandatory=True, type_name="SecureString")
_DISPLAY: Final = Parameter("DisplayName", "Name for people.")
_ALIAS: Final = Parameter("Alias", "Short name.")

CMDLETS: Final = (
    Cmdlet(
        "New-Mailbox",
        "Makes a mailbox.",
        new_mailbox,
        (Parameter("Name", "NAME@DOMAIN.", str, 0, True), _PASSWORD, _DISPLAY, _ALIAS),
        True,
    ),
    Cmdlet("Get-Mailbox", "Shows mailboxes.", get_mailbox, (_MANY,)),
    Cmdlet("Set-Mailbox", "Changes a mailbox's names.", set_mailbox, (_ONE, _DISPLAY, _ALIAS), True),
    Cmdlet("Remove-Mailbox", "Removes a mailbox and its messages.", remove_mailbox, (_ONE,), True),
    Cmdlet("Set-MailboxPassword", "Sets a mailbox's password.", set_password, (_ONE, _PASSWORD), True),
    Cmdlet("Get-CASMailbox", "Shows protocol switches of mailboxes.", get_cas_mailbox, (_MANY,)),
    Cmdlet(
        "Set-CASMailbox",
        "Changes protocol switches of a mailbox.",
        set_cas_mailbox,
        (_ONE, *map(_switch_parameter, _SWITCHES.values())),
        True,
    ),
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
