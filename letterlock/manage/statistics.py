"""Get-MailboxStatistics and Get-MailboxFolderStatistics."""

from __future__ import annotations

import fnmatch
from typing import Any, Final

from letterlock.base.values import ByteSize
from letterlock.directory.accounts import Account
from letterlock.directory.logons import Logons
from letterlock.manage.context import Context
from letterlock.manage.mailboxes import find, one
from letterlock.manage.registry import Cmdlet, Parameter, Row
from letterlock.store.api import Folder, MailStore, Status

_COLUMNS: Final = ("DisplayName", "ItemCount", "StorageLimitStatus", "LastLogonTime")
_FOLDER_COLUMNS: Final = ("FolderPath", "ItemsInFolder", "UnreadItemsInFolder", "FolderSize")


async def _folders(mail: MailStore) -> list[tuple[Folder, Status]]:
    folders = [f for f in await mail.folders() if f.selectable]
    return list(zip(folders, await mail.status(folders), strict=True))


def _limit(a: Account, octets: int) -> str:
    """Exchange's words."""
    limit, warning = a.quotas.ProhibitSendReceiveQuota, a.quotas.IssueWarningQuota
    if limit.unlimited and warning.unlimited:
        return "NoChecking"
    if not limit.unlimited and octets >= limit.octets:
        return "MailboxDisabled"
    return "IssueWarning" if not warning.unlimited and octets >= warning.octets else "BelowLimit"


async def get_statistics(c: Context, p: dict[str, Any]) -> list[Row]:
    """One row a mailbox."""
    rows, logons = [], Logons(c.config)
    for a in find(c, p.get("Identity")):
        statuses = [status for _, status in await _folders(c.store.mailbox(a.id))]
        octets = sum(s.size for s in statuses)
        latest = logons.of(a.id)
        properties = {
            "DisplayName": a.display_name,
            "Identity": a.address,
            "MailboxGuid": a.id,
            "ServerName": c.config.server_name,
            "ItemCount": sum(s.messages for s in statuses),
            "UnreadItemCount": sum(s.unseen for s in statuses),
            "DeletedItemCount": sum(s.deleted for s in statuses),
            "TotalItemSize": ByteSize(octets),
            "FolderCount": len(statuses),
            "StorageLimitStatus": _limit(a, octets),
            "LastLogonTime": latest[0].at if latest else None,
            "LastLogonProtocol": latest[0].protocol if latest else "",
            "LastLogonAddress": latest[0].address if latest else "",
            "LastLogonClient": latest[0].client if latest else "",
            "LastImapLogonTime": next((x.at for x in latest if x.protocol == "IMAP4"), None),
            "LastPopLogonTime": next((x.at for x in latest if x.protocol == "POP3"), None),
        }
        rows.append(Row(properties, _COLUMNS))
    return rows


async def get_folder_statistics(c: Context, p: dict[str, Any]) -> list[Row]:
    """One row a folder."""
    account = one(c, p["Identity"])
    pattern = p.get("FolderPath", "*").strip("/").lower().replace("[", "[[]")
    rows = []
    for folder, status in await _folders(c.store.mailbox(account.id)):
        if not fnmatch.fnmatchcase(folder.name.lower(), pattern):
            continue
        properties = {
            "Name": folder.name.rpartition("/")[2],
            "FolderPath": f"/{folder.name}",
            "Identity": f"{account.address}/{folder.name}",
            "FolderType": folder.special_use.decode().lstrip("\\") or ("Inbox" if folder.name == "INBOX" else "User"),
            "ItemsInFolder": status.messages,
            "UnreadItemsInFolder": status.unseen,
            "DeletedItemsInFolder": status.deleted,
            "FolderSize": ByteSize(status.size),
            "UidValidity": status.uidvalidity,
            "UidNext": status.uidnext,
        }
        rows.append(Row(properties, _FOLDER_COLUMNS))
    return rows


_SERVER: Final = Parameter("Server", "The server where the mailbox is; this one where nothing is said.")

CMDLETS: Final = (
    Cmdlet(
        "Get-MailboxStatistics",
        "Shows what mailboxes hold, and when they last logged on.",
        get_statistics,
        (Parameter("Identity", "Address, alias or name; * matches.", str, 0, pipeline=True), _SERVER),
    ),
    Cmdlet(
        "Get-MailboxFolderStatistics",
        "Shows what the folders of a mailbox hold.",
        get_folder_statistics,
        (
            Parameter("Identity", "Address, alias or name.", str, 0, True, True),
            Parameter("FolderPath", "Only folders of this path; * matches."),
            _SERVER,
        ),
    ),
)
