"""Mailboxes: New-, Get-, Set-, Remove-Mailbox, Set-MailboxPassword."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any, Final

from letterlock.base.errors import Malformed, Refused
from letterlock.base.values import ByteSize, ListChange
from letterlock.directory.accounts import (
    Account,
    check_address,
    check_alias,
    check_name,
    check_password,
    facts,
)
from letterlock.directory.servers import Servers
from letterlock.directory.verifiers import hash_password
from letterlock.manage.context import Context
from letterlock.manage.filters import FILTER, RESULT_SIZE, limited
from letterlock.manage.registry import Cmdlet, Parameter, Row, secret, words

MOST_ADDRESSES: Final = 200  # besides the primary one


def find(c: Context, identity: str | None) -> list[Account]:
    """Mailboxes by address, alias or name; where another server has the one that is meant, the error says so."""
    try:
        return c.accounts.find(identity)
    except Refused as error:
        raise _elsewhere(c, identity or "", error) from None


def one(c: Context, identity: str) -> Account:
    """Exactly one."""
    try:
        return c.accounts.one(identity)
    except Refused as error:
        raise _elsewhere(c, identity, error) from None


def _elsewhere(c: Context, identity: str, error: Refused) -> Refused:
    home = Servers(c.config).home(identity) if error.code == b"NONEXISTENT" else None
    if home is None:
        return error
    return Refused(f"mailbox {home[1].address} is on server {home[0].name}; add: -Server {home[0].name}", error.code)


def email_addresses(a: Account) -> list[str]:
    """As Exchange shows them: the primary one with SMTP in capitals."""
    return [f"SMTP:{a.address}", *(f"smtp:{p}" for p in a.proxies)]


def _mailbox_row(c: Context, a: Account) -> Row:
    properties = {
        "Name": a.display_name,
        "Alias": a.alias,
        "PrimarySmtpAddress": a.address,
        "EmailAddresses": email_addresses(a),
        "DisplayName": a.display_name,
        "Identity": a.address,
        "Guid": a.id,
        "ServerName": c.config.server_name,
        "IssueWarningQuota": a.quotas.IssueWarningQuota,
        "ProhibitSendReceiveQuota": a.quotas.ProhibitSendReceiveQuota,
        "WhenCreated": a.created,
        "PasswordExposed": bool(c.accounts.exposed(a)),
    }
    return Row(properties, ("Name", "Alias", "ServerName", "PrimarySmtpAddress"))


async def _hash(password: str) -> str:
    return await asyncio.to_thread(hash_password, password)


def _check_free(c: Context, address: str, but: str = "") -> None:
    """No other mailbox of the organisation has the address; `Refused`."""
    c.accounts.check_free(address, but)
    home = Servers(c.config).home(address)
    if home is not None:
        raise Refused(f"server {home[0].name} has a mailbox {home[1].address} already", b"ALREADYEXISTS")


async def new_mailbox(c: Context, p: dict[str, Any]) -> list[Row]:
    """A mailbox that can log in with its full address."""
    address = check_address(p["Name"])
    password = check_password(p["Password"].reveal())
    _check_free(c, address)
    if not c.should(f"make mailbox {address}"):
        return []
    account = c.accounts.create(address, await _hash(password), p.get("DisplayName", ""), p.get("Alias", ""), c.who)
    try:
        await c.store.create_mailbox(account.id)
    except BaseException:  # a mailbox that could log in and open nothing is worse than none
        c.accounts.remove(account, c.who)
        raise
    return [_mailbox_row(c, account)]


async def get_mailbox(c: Context, p: dict[str, Any]) -> list[Row]:
    """Mailboxes."""
    return limited(c, [_mailbox_row(c, a) for a in find(c, p.get("Identity"))], p)


def _addresses(account: Account, change: ListChange) -> tuple[str, tuple[str, ...]]:
    """Primary and further addresses after a change of EmailAddresses; `SMTP:` in capitals makes one the primary."""
    wanted = email_addresses(account) if change.replace is None else list(change.replace)
    gone = {_bare(text).lower() for text in change.remove}
    wanted = [text for text in wanted if _bare(text).lower() not in gone]
    wanted += [text for text in change.add if _bare(text).lower() not in {_bare(w).lower() for w in wanted}]
    primary = [_bare(text) for text in change.add if text.startswith("SMTP:")]
    primary = primary or [_bare(text) for text in wanted if text.startswith("SMTP:")] or [account.address]
    if len(primary) > 1:
        raise Malformed(f"EmailAddresses: {', '.join(primary)}: only one address can be the primary one (SMTP:)")
    if primary[0].lower() in gone:
        raise Malformed(f"EmailAddresses: {primary[0]} is the primary address; make another one the primary first")
    others = {_bare(t).lower(): _bare(t) for t in wanted if _bare(t).lower() != primary[0].lower()}
    if len(others) > MOST_ADDRESSES:
        raise Malformed(f"EmailAddresses: a mailbox can have {MOST_ADDRESSES} addresses, not {len(others)}")
    return primary[0], tuple(sorted(others.values()))


def _bare(text: str) -> str:
    kind, colon, address = text.strip().partition(":")
    if colon and kind.lower() == "smtp":
        return check_address(address)
    if colon:
        raise Malformed(f"EmailAddresses: '{text}': only addresses of the kind smtp: are known here")
    return check_address(text)


def _read_addresses(value: Any) -> ListChange:
    change = value if isinstance(value, ListChange) else ListChange(tuple(words(value)))
    for text in (*(change.replace or ()), *change.add, *change.remove):
        _bare(str(text))
    return change


def _changed(c: Context, account: Account, p: dict[str, Any]) -> Account:
    """The account as it would be; nothing is written."""
    address, proxies = account.address, account.proxies
    if "EmailAddresses" in p:
        address, proxies = _addresses(account, p["EmailAddresses"])
    if "PrimarySmtpAddress" in p and p["PrimarySmtpAddress"] != address:
        old, address = address, p["PrimarySmtpAddress"]
        proxies = tuple(sorted({*(a for a in proxies if a.lower() != address.lower()), old} - {address}))
    for each in (address, *proxies):
        _check_free(c, each, account.id)
    quotas = {name: p[name] for name in ("IssueWarningQuota", "ProhibitSendReceiveQuota") if name in p}
    new = dataclasses.replace(
        account,
        address=address,
        proxies=proxies,
        display_name=p.get("DisplayName", account.display_name),
        alias=p.get("Alias", account.alias),
        quotas=dataclasses.replace(account.quotas, **quotas),
    )
    new.quotas.check()
    return new


async def set_mailbox(c: Context, p: dict[str, Any]) -> list[Row]:
    """Names, addresses and quotas; all or nothing. Sessions that are open keep the quota they began with."""
    account = one(c, p["Identity"])
    new = _changed(c, account, p)
    before, after = facts(account), facts(new)
    differing = [name for name in after if before[name] != after[name]]
    for name in differing:
        c.should(f"set {name} of {account.address} from {_text(before[name])} to {_text(after[name])}")
    if not differing:
        c.warn("nothing was changed: the mailbox is as wanted already")
    elif not c.what_if:
        c.accounts.change(account, new, c.who)
    return []


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


async def remove_mailbox(c: Context, p: dict[str, Any]) -> list[Row]:
    """The account first, so that nobody logs in any more; then its sessions; then all its mail."""
    account = one(c, p["Identity"])
    usage = await _usage(c, account)
    if c.should(f"remove mailbox {account.address} with all its messages ({usage})"):
        c.accounts.remove(account, c.who)
        if c.server is not None:
            await c.server.disconnect_mailbox(account.id)
        await c.store.delete_mailbox(account.id)
    return []


async def _usage(c: Context, account: Account) -> str:
    try:
        used = await c.store.mailbox(account.id).usage()
    except Refused:
        return "its file cannot be read"
    return f"{used.messages} messages, {ByteSize(used.octets)}"


async def set_password(c: Context, p: dict[str, Any]) -> list[Row]:
    """A new password. Every worker forgets the old one, as what it remembers of logins is bound to the stored hash."""
    account = one(c, p["Identity"])
    password = check_password(p["Password"].reveal())
    if c.should(f"set the password of {account.address}"):
        c.accounts.set_password(account, await _hash(password), c.who)
    return []


def _quota(value: Any) -> ByteSize:
    return value if isinstance(value, ByteSize) else ByteSize.parse(str(value))


_ONE: Final = Parameter("Identity", "Address, alias or name.", str, 0, True, True)
_MANY: Final = Parameter("Identity", "Address, alias or name; * matches.", str, 0, pipeline=True)
_PASSWORD: Final = Parameter("Password", "The new password.", secret, mandatory=True, type_name="SecureString")
_DISPLAY: Final = Parameter("DisplayName", "Name for people.", lambda v: check_name("DisplayName", str(v), 256))
_ALIAS: Final = Parameter("Alias", "Short name; one word.", lambda v: check_alias(str(v)))
_SERVER: Final = Parameter("Server", "The server where the mailbox is; this one where nothing is said.")
_ADDRESSES: Final = Parameter(
    "EmailAddresses",
    "All addresses, the primary one with SMTP: in capitals before it; or @{Add=…; Remove=…}. By each of them the "
    "mailbox is found and may log in.",
    _read_addresses,
    type_name="String[]",
)
_PRIMARY: Final = Parameter(
    "PrimarySmtpAddress",
    "The address it logs in with; the one it had before stays as a further one.",
    lambda v: check_address(str(v)),
)
_WARNING: Final = Parameter(
    "IssueWarningQuota",
    "From this size on APPEND warns: * NO [OVERQUOTA].",
    _quota,
    type_name="ByteSize",
    default="unlimited",
)
_LIMIT: Final = Parameter(
    "ProhibitSendReceiveQuota",
    "What would go beyond this size is refused: APPEND, COPY and import answer OVERQUOTA.",
    _quota,
    type_name="ByteSize",
    default="unlimited",
)

CMDLETS: Final = (
    Cmdlet(
        "New-Mailbox",
        "Makes a mailbox.",
        new_mailbox,
        (Parameter("Name", "NAME@DOMAIN.", str, 0, True), _PASSWORD, _DISPLAY, _ALIAS, _SERVER),
        True,
    ),
    Cmdlet("Get-Mailbox", "Shows mailboxes.", get_mailbox, (_MANY, FILTER, RESULT_SIZE, _SERVER)),
    Cmdlet(
        "Set-Mailbox",
        "Changes a mailbox's names, addresses and quotas.",
        set_mailbox,
        (_ONE, _DISPLAY, _ALIAS, _ADDRESSES, _PRIMARY, _WARNING, _LIMIT, _SERVER),
        True,
    ),
    Cmdlet(
        "Remove-Mailbox",
        "Removes a mailbox and its messages, and ends its sessions.",
        remove_mailbox,
        (_ONE, _SERVER),
        True,
    ),
    Cmdlet("Set-MailboxPassword", "Sets a mailbox's password.", set_password, (_ONE, _PASSWORD, _SERVER), True),
)
