"""New-, Get- and Remove-MailboxImportRequest and -MailboxExportRequest: mbox, Maildir, an account on an IMAP server.

New-… does the work and answers when it is done; Get-… shows, from anywhere, how far each request is. Run again, an
import goes on where it ended, and takes what has come since.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from letterlock.base.errors import LetterlockError, Malformed
from letterlock.base.values import ByteSize
from letterlock.clients.wire import Login
from letterlock.directory.accounts import Account
from letterlock.manage.connectivity import credential, number, server_name
from letterlock.manage.context import Context
from letterlock.manage.mailboxes import one
from letterlock.manage.registry import Cmdlet, Parameter, Row, boolean, words
from letterlock.store.api import MailStore
from letterlock.transfer import files, remote, work
from letterlock.transfer.requests import Reporter, Request, Requests

MOST_WARNINGS: Final = 20
_COLUMNS: Final = ("Identity", "Mailbox", "Status", "PercentComplete", "Messages", "FilePath")
_FORMATS: Final = ("Mbox", "Maildir")


def _row(r: Request) -> Row:
    properties = {
        "Identity": r.identity,
        "Mailbox": r.mailbox,
        "Status": r.state,
        "PercentComplete": r.percent,
        "Messages": r.messages,
        "AlreadyPresent": r.present,
        "Skipped": r.skipped,
        "Folders": r.folders,
        "Size": ByteSize(r.octets),
        "CurrentFolder": r.folder,
        "FilePath": r.place,
        "StartTime": r.started,
        "CompletionTime": r.ended or None,
        "Message": r.error,
    }
    return Row(properties, _COLUMNS)


async def _carried_out(c: Context, request: Request, work: Callable[[Reporter], Awaitable[None]]) -> list[Row]:
    """Run a request with its row kept up to date."""
    requests = Requests(c.config)
    requests.start(request, c.who)
    activity = f"{request.kind} {request.mailbox}"

    def show(status: str, percent: int) -> None:
        c.report(f"{activity}: {status}", percent, 100)

    reporter = Reporter(requests, request, show)
    try:
        await work(reporter)
    except LetterlockError as error:
        reporter.end(error.text)
        if request.kind == "Import" and request.messages:
            c.warn(f"{request.messages} messages were taken before this; the same command goes on from there")
        raise
    except BaseException:
        reporter.end("ended by an internal error, or with the program")
        raise
    reporter.end()
    if request.skipped:
        c.warn(f"{request.skipped} messages could not be taken: they are larger than a message can be here")
    return [_row(request)]


def _mails(c: Context, account: Account) -> tuple[MailStore, MailStore]:
    """Under its quota, for what is added; and without, for what is still on its way."""
    return c.store.mailbox(account.id, account.quotas.store()), c.store.mailbox(account.id)


async def new_import(c: Context, p: dict[str, Any]) -> list[Row]:
    """From a path, or from another server."""
    account = one(c, p["Mailbox"])
    if ("FilePath" in p) == ("RemoteHostName" in p):
        raise Malformed("say where from: either -FilePath, or -RemoteHostName with -RemoteCredential")
    return await (_from_server if "RemoteHostName" in p else _from_path)(c, account, p)


async def _from_path(c: Context, account: Account, p: dict[str, Any]) -> list[Row]:
    foreign = [name for name in ("RemotePort", "RemoteCredential", "StartTls", "TrustedCertificate") if name in p]
    if foreign:
        raise Malformed(f"{foreign[0]}: belongs to -RemoteHostName, not to -FilePath")
    path = files.checked(Path(p["FilePath"]))
    source = files.Source(path, p.get("IncludeFolders", []), p.get("KeepQuoting", False))
    if not c.should(f"import {path} ({len(source.folders)} folders) into {account.address}"):
        return []
    bounded, free = _mails(c, account)
    root = p.get("TargetRootFolder", "")
    origin = f"{path} {root}".rstrip()

    async def run(to: Reporter) -> None:
        if p.get("Again"):
            await bounded.forget_receipts(origin)
        target = work.Target(bounded, root)
        await work.import_files(source, origin, target, lambda: free.spool(0), to, files.size(path))

    return await _carried_out(c, Request(kind="Import", mailbox=account.address, place=str(path)), run)


async def _from_server(c: Context, account: Account, p: dict[str, Any]) -> list[Row]:
    if "RemoteCredential" not in p:
        raise Malformed("RemoteCredential: is needed: (Get-Credential user@example.com)")
    if p.get("KeepQuoting"):
        raise Malformed("KeepQuoting: belongs to -FilePath, not to -RemoteHostName")
    login: Login = p["RemoteCredential"]
    implicit = not p.get("StartTls", False)
    port = p.get("RemotePort", 993 if implicit else 143)
    where = remote.Account(p["RemoteHostName"], port, implicit, login, p.get("TrustedCertificate"))
    if not c.should(f"import {login.user} of {where} into {account.address}"):
        return []
    bounded, free = _mails(c, account)
    root = p.get("TargetRootFolder", "")

    async def run(to: Reporter) -> None:
        job = remote.Import(where, work.Target(bounded, root), root, lambda: free.spool(0), to)
        if p.get("Again"):
            await bounded.forget_receipts(job.origin)
        try:
            await job.run(p.get("IncludeFolders", []))
        finally:
            for text in job.warnings[:MOST_WARNINGS]:
                c.warn(text)

    return await _carried_out(c, Request(kind="Import", mailbox=account.address, place=str(where)), run)


async def new_export(c: Context, p: dict[str, Any]) -> list[Row]:
    """Into a new directory."""
    account = one(c, p["Mailbox"])
    path, form = Path(p["FilePath"]), p.get("Format", "Mbox")
    out = files.Export(path, form)
    out.check(c.config.data)
    if not c.should(f"export {account.address} to {path} as {form}"):
        return []
    mail = c.store.mailbox(account.id)

    async def run(to: Reporter) -> None:
        lost = await work.export(mail, p.get("IncludeFolders", []), out, to)
        if lost:
            c.warn(f"{lost} messages have keywords that a Maildir has no letter for (26 a folder); Mbox keeps them")

    return await _carried_out(c, Request(kind="Export", mailbox=account.address, place=str(path)), run)


def _getter(kind: str) -> Callable[[Context, dict[str, Any]], Awaitable[list[Row]]]:
    async def get(c: Context, p: dict[str, Any]) -> list[Row]:
        """Newest first."""
        requests = Requests(c.config)
        found = [requests.one(kind, p["Identity"])] if "Identity" in p else requests.all(kind)
        mailbox = p.get("Mailbox", "").lower()
        return [_row(r) for r in found if mailbox in ("", r.mailbox.lower())]

    return get


def _remover(kind: str) -> Callable[[Context, dict[str, Any]], Awaitable[list[Row]]]:
    async def remove(c: Context, p: dict[str, Any]) -> list[Row]:
        """What it has transferred stays."""
        requests = Requests(c.config)
        request = requests.one(kind, p["Identity"])
        if c.should(f"remove {kind.lower()} request {request.identity} of {request.mailbox} ({request.state})"):
            requests.remove(request, c.who)
        return []

    return remove


# --- parameters


def _format(value: Any) -> str:
    for form in _FORMATS:
        if form.lower() == str(value).strip().lower():
            return form
    raise Malformed(f"'{value}' is not one of the allowed values: {', '.join(_FORMATS)}")


def _path(value: Any) -> str:
    text = str(value)
    if not text or "\x00" in text or len(text.encode("utf-8", "replace")) > 4000:
        raise Malformed("a path has 1 to 4000 bytes and no NUL")
    return text


def _file(value: Any) -> Path:
    path = Path(_path(value))
    if not path.is_absolute() or not path.is_file():
        raise Malformed(f"'{value}' must be the absolute path of a file")
    return path


def _root(value: Any) -> str:
    text = str(value).strip().strip("/")
    if any(ord(ch) < 32 for ch in text) or "//" in text:
        raise Malformed(f"{value!r} is not a folder name: levels are separated by one /, without control characters")
    return text


_MAILBOX: Final = Parameter("Mailbox", "Whose mailbox.", str, 0, True, True)
_SERVER: Final = Parameter("Server", "The server where the mailbox is; this one where nothing is said.")
_FOLDERS: Final = Parameter("IncludeFolders", "Only these folders; * matches.", words, type_name="String[]")


def _switch(name: str, text: str) -> Parameter:
    return Parameter(name, text, boolean, switch=True, type_name="Switch")


_IMPORT: Final = (
    _MAILBOX,
    Parameter(
        "FilePath", "Absolute path, on the server, of an mbox file, a directory of mbox files, or a Maildir.", _path, 1
    ),
    Parameter("RemoteHostName", "IMAP server to import from; its certificate is verified.", server_name),
    Parameter("RemotePort", "Its port; 993, or 143 with -StartTls.", number(1, 65535), type_name="Int32"),
    Parameter("RemoteCredential", "Who logs on there: (Get-Credential user).", credential, type_name="PSCredential"),
    _switch("StartTls", "Begin in clear and require STARTTLS, instead of TLS from the first octet."),
    Parameter("TrustedCertificate", "File of a certificate to trust besides the system's authorities.", _file),
    Parameter("TargetRootFolder", "Folder below which everything goes.", _root),
    _FOLDERS,
    _switch("KeepQuoting", "Leave lines that begin with >From as they are; otherwise one > is taken away (mboxrd)."),
    _switch("Again", "Import what an earlier request has imported from there once more."),
    _SERVER,
)
_EXPORT: Final = (
    _MAILBOX,
    Parameter("FilePath", "Absolute path, on the server, of a directory that does not exist yet.", _path, 1, True),
    Parameter(
        "Format",
        "Mbox: a file a folder; Maildir: a file a message.",
        _format,
        type_name="Mbox | Maildir",
        default="Mbox",
    ),
    _FOLDERS,
    _SERVER,
)
_REQUEST: Final = Parameter(
    "Identity", "Number of the request.", number(1, 1 << 31), 0, pipeline=True, type_name="Int32"
)
_THE_REQUEST: Final = Parameter("Identity", _REQUEST.help, _REQUEST.read, 0, True, True, type_name="Int32")
_OF: Final = Parameter("Mailbox", "Only those of this mailbox (its address).")


def _pair(kind: str, words: str) -> tuple[Cmdlet, Cmdlet]:
    noun = f"Mailbox{kind}Request"
    return (
        Cmdlet(f"Get-{noun}", f"Shows how far {words} are.", _getter(kind), (_REQUEST, _OF, _SERVER)),
        Cmdlet(
            f"Remove-{noun}",
            "Removes a request from the list; one that runs ends.",
            _remover(kind),
            (_THE_REQUEST, _SERVER),
            True,
        ),
    )


CMDLETS: Final = (
    Cmdlet("New-MailboxImportRequest", "Imports mbox, Maildir, or an IMAP account.", new_import, _IMPORT, True),
    *_pair("Import", "imports"),
    Cmdlet("New-MailboxExportRequest", "Exports a mailbox as mbox or Maildir.", new_export, _EXPORT, True),
    *_pair("Export", "exports"),
)
