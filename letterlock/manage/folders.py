"""Get-MailboxFolder, Set-MailboxFolder: a mailbox's folders, and which of them are hidden (ShowHiddenFoldersEnabled).

A folder is named as in Exchange, `alice@contoso.com:\\Projects\\2026`; `/` between the levels is taken as well.
"""

from __future__ import annotations

from typing import Any, Final

from letterlock.base.errors import Malformed, Refused
from letterlock.directory.accounts import Account
from letterlock.manage.context import Context
from letterlock.manage.mailboxes import one
from letterlock.manage.registry import Cmdlet, Parameter, Row, boolean
from letterlock.store.api import Folder


def _read(identity: str) -> tuple[str, str]:
    """Mailbox, and folder ("" for none)."""
    mailbox, _, path = identity.partition(":")
    path = path if "/" in path.lstrip("\\/") else path.replace("\\", "/")
    return mailbox, path.strip("\\/")


def _row(account: Account, folder: Folder) -> Row:
    path = folder.name.replace("/", "\\")
    properties = {
        "Identity": f"{account.address}:\\{path}",
        "Name": folder.name.rpartition("/")[2],
        "FolderPath": folder.name,
        "Hidden": folder.hidden,
        "Subscribed": folder.subscribed,
        "SpecialUse": folder.special_use.decode().removeprefix("\\"),
        "Selectable": folder.selectable,
    }
    return Row(properties, ("FolderPath", "SpecialUse", "Subscribed", "Hidden"))


async def get_folder(c: Context, p: dict[str, Any]) -> list[Row]:
    """All folders of a mailbox, or one with what is below it."""
    mailbox, path = _read(p["Identity"])
    account = one(c, mailbox)
    folders = await c.store.mailbox(account.id).folders()
    if path:
        top = "INBOX" if path.upper() == "INBOX" else path
        folders = [f for f in folders if f.name == top or f.name.startswith(top + "/")]
        if not folders:
            raise Refused(f"{account.address} has no folder '{path}'; Get-MailboxFolder {mailbox} lists them")
    return [_row(account, folder) for folder in folders]


async def set_folder(c: Context, p: dict[str, Any]) -> list[Row]:
    """Hide a folder, or show it again; it counts for the next LIST."""
    mailbox, path = _read(p["Identity"])
    if not path:
        raise Malformed(
            "Set-MailboxFolder: Identity: expected a mailbox and a folder, as in alice@contoso.com:\\Projects"
        )
    account = one(c, mailbox)
    if "Hidden" in p and c.should(f"{'hide' if p['Hidden'] else 'show'} folder {path} of {account.address}"):
        await c.store.mailbox(account.id).hide(path, p["Hidden"])
        with c.config.transaction(c.who, f"Set-MailboxFolder {account.address}:{path}", None, {"Hidden": p["Hidden"]}):
            pass  # only the audit trail
    return []


_IDENTITY: Final = "Mailbox, or mailbox and folder: alice@contoso.com:\\Projects."

_SERVER: Final = Parameter("Server", "The server where the mailbox is; this one where nothing is said.")

CMDLETS: Final = (
    Cmdlet(
        "Get-MailboxFolder",
        "Shows folders of a mailbox.",
        get_folder,
        (Parameter("Identity", _IDENTITY, str, 0, True, True), _SERVER),
    ),
    Cmdlet(
        "Set-MailboxFolder",
        "Hides a folder from IMAP clients, or shows it again.",
        set_folder,
        (
            Parameter("Identity", "Mailbox and folder: alice@contoso.com:\\Projects.", str, 0, True, True),
            Parameter(
                "Hidden",
                "True: LIST leaves the folder and all below it out, unless ShowHiddenFoldersEnabled is true. It can "
                "still be opened by its name.",
                boolean,
                type_name="Boolean",
            ),
            _SERVER,
        ),
        True,
    ),
)
