"""Certificate files are read and written where the command line runs, never by the server.

So a path means what the person typing it sees, a remote administrator cannot make the server read or write files, and
what is written belongs to whoever asked. A key never goes to a file that others can read, and no file is overwritten.
"""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path
from typing import Any, Final

from letterlock.base.errors import Malformed, Refused
from letterlock.directory.certificate_files import MAX_FILE
from letterlock.manage.certificate_rows import Pem
from letterlock.manage.here import Local
from letterlock.manage.registry import Row

MIN_PASSWORD: Final = 8


def friendly_name(text: str) -> str:
    """At most 64 characters for people."""
    if len(text) > 64 or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise Malformed("FriendlyName: at most 64 characters, no control characters")
    return text


def file_data(value: Any) -> Any:
    """What -FileData means here: the content of a file that exists, or the content itself."""
    if not isinstance(value, str) or "\n" in value or "-----BEGIN " in value or len(value) > 4096 or "\0" in value:
        return value
    path = Path(value).expanduser()
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise Malformed(f"FileData: {value} is not a file")
        if found.st_size > MAX_FILE:
            raise Malformed(f"FileData: {value} has {found.st_size} octets; allowed are {MAX_FILE}")
        data = path.read_bytes()
    except FileNotFoundError:
        if "/" in value.rstrip("=") or "." in value:
            raise Malformed(f"FileData: {value}: No such file or directory") from None
        return value
    except OSError as error:
        raise Malformed(f"FileData: {value}: {error.strerror}") from None
    if not data:
        raise Malformed(f"FileData: {value} is empty")
    return data.decode("ascii", "replace") if b"-----BEGIN " in data else base64.b64encode(data).decode()


def write_new(name: str, data: bytes, mode: int) -> None:
    """A file that was not there before."""
    try:
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    except OSError as error:
        raise Refused(f"{name} cannot be written: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _rows(items: list[dict[str, Any]]) -> list[Row]:
    """Objects as they came; PEM text is not spelled out in a list."""
    rows = []
    for item in items:
        properties = {k: Pem(v) if str(v).startswith("-----BEGIN ") else v for k, v in item["properties"].items()}
        rows.append(Row(properties, tuple(item["columns"]), item.get("cells", {})))
    return rows


async def import_here(local: Local, p: dict[str, Any]) -> list[Row]:
    """Import-ExchangeCertificate: the file is read here."""
    p["FileData"] = file_data(p["FileData"])
    return _rows(await local.server("Import-ExchangeCertificate", p, [], None))


async def new_here(local: Local, p: dict[str, Any]) -> list[Row]:
    """New-ExchangeCertificate: a request's text is written or shown here."""
    name = p.pop("RequestFile", "")
    if name and not p.get("GenerateRequest"):
        raise Malformed("RequestFile: goes together with -GenerateRequest")
    if name and Path(name).exists():
        raise Refused(f"{name} is there already; nothing was changed")
    rows = _rows(await local.server("New-ExchangeCertificate", p, [], None))
    for row in rows:
        text = "".join(row.properties.get("FileData", ""))
        if name and text:
            write_new(name, text.encode(), 0o644)
        elif text:
            local.last_words += text.splitlines()
    return rows


async def export_here(local: Local, p: dict[str, Any]) -> list[Row]:
    """Export-ExchangeCertificate: the file is written here."""
    name = p.pop("FileName", "")
    if name and Path(name).exists():
        raise Refused(f"{name} is there already; it is not overwritten")
    rows = _rows(await local.server("Export-ExchangeCertificate", p, [], None))
    for row in rows if name else ():
        text = "".join(row.properties.pop("FileData"))
        write_new(name, base64.b64decode(text) if row.properties["Format"] == "Pkcs12" else text.encode(), 0o600)
        row.properties["FileName"] = name
    return rows
