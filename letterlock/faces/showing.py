"""Commands of the shell that show, convert, write and read: what comes first or last in a pipeline."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from letterlock.base.errors import Malformed, Refused
from letterlock.base.values import Secret
from letterlock.faces import output
from letterlock.faces.choosing import Shell, Wanted, chosen, wanted_ones
from letterlock.faces.output import Formatted
from letterlock.language.values import Record, to_text
from letterlock.manage.registry import secret

# --- showing


async def _shown(shell: Shell, items: list[Any], p: dict[str, Any], table: bool) -> list[Record]:
    records = [i if isinstance(i, Record) else Record({"Value": i}) for i in items]
    if "Property" not in p:
        return records if not table else [await chosen(shell, r, _columns(records[0])) for r in records]
    wanted = wanted_ones("Format-Table" if table else "Format-List", p["Property"])
    return [await chosen(shell, i, wanted) for i in items]


def _columns(record: Record) -> list[Wanted]:
    return [Wanted(name) for name in record.columns or record.properties]


async def format_list(shell: Shell, items: list[Any], p: dict[str, Any]) -> list[Any]:
    """Format-List."""
    return [Formatted(output.as_list(await _shown(shell, items, p, False), shell.width))]


async def format_table(shell: Shell, items: list[Any], p: dict[str, Any]) -> list[Any]:
    """Format-Table."""
    records = await _shown(shell, items, p, True)
    if not records:
        return []
    columns = list(dict.fromkeys(n for r in records for n in r.properties))
    head = not p.get("HideTableHeaders")
    return [Formatted(output.as_table(records, columns, shell.width, bool(p.get("Wrap")), head))]


def _no_formatted(command: str, items: list[Any]) -> None:
    if any(isinstance(i, Formatted) for i in items):
        raise Malformed(f"{command}: Format-List and Format-Table come last; what they make is text for people")


async def to_json(_shell: Shell, items: list[Any], p: dict[str, Any]) -> list[Any]:
    """ConvertTo-Json."""
    _no_formatted("ConvertTo-Json", items)
    found = [output.plain(i) for i in items]
    value = found[0] if len(found) == 1 and not p.get("AsArray") else found
    separators = (",", ":") if p.get("Compress") else None
    return [json.dumps(value, indent=None if p.get("Compress") else 2, separators=separators, ensure_ascii=False)]


async def to_csv(_shell: Shell, items: list[Any], p: dict[str, Any]) -> list[Any]:
    """ConvertTo-Csv."""
    _no_formatted("ConvertTo-Csv", items)
    return output.as_csv(items, p.get("Delimiter", ","), True).splitlines()


# --- files


def _written(command: str, path: Path, text: str, p: dict[str, Any]) -> None:
    if p.get("NoClobber") and path.exists() and not p.get("Append"):
        raise Refused(f"{command}: {path} exists, and -NoClobber forbids to replace it")
    try:
        with path.open("a" if p.get("Append") else "w", encoding="utf-8", newline="") as file:
            file.write(text)
    except OSError as error:
        raise Refused(f"{command}: {path}: {os.strerror(error.errno) if error.errno else error}") from None


async def export_csv(_shell: Shell, items: list[Any], p: dict[str, Any]) -> list[Any]:
    """Export-Csv."""
    _no_formatted("Export-Csv", items)
    path = p["Path"]
    head = not (p.get("Append") and path.is_file() and path.stat().st_size)
    _written("Export-Csv", path, output.as_csv(items, p.get("Delimiter", ","), True, head), p)
    return []


async def out_file(_shell: Shell, items: list[Any], p: dict[str, Any]) -> list[Any]:
    """Out-File."""
    text = output.default(items, p.get("Width"))
    _written("Out-File", p["FilePath"], text.removesuffix("\n") if p.get("NoNewline") else text, p)
    return []


async def out_string(shell: Shell, items: list[Any], p: dict[str, Any]) -> list[Any]:
    """Out-String."""
    return [output.default(items, p.get("Width", shell.width))]


async def out_null(_shell: Shell, _items: list[Any], _p: dict[str, Any]) -> list[Any]:
    """Out-Null."""
    return []


# --- values


async def write_output(_shell: Shell, items: list[Any], p: dict[str, Any]) -> list[Any]:
    """Write-Output."""
    if "InputObject" not in p:
        return items
    value = p["InputObject"]
    return value if isinstance(value, list) else [value]


async def write_host(shell: Shell, items: list[Any], p: dict[str, Any]) -> list[Any]:
    """Write-Host."""
    shell.write(output.clean(" ".join(to_text(v) for v in p.get("Object", items))) + "\n")
    return []


async def read_host(shell: Shell, _items: list[Any], p: dict[str, Any]) -> list[Any]:
    """Read-Host."""
    question = f"{p['Prompt']}: " if p.get("Prompt") else ""
    if p.get("AsSecureString"):
        return [Secret(await shell.secret(question))]
    return [await shell.ask(question)]


async def to_secure(_shell: Shell, items: list[Any], p: dict[str, Any]) -> list[Any]:
    """ConvertTo-SecureString."""
    if not p.get("AsPlainText"):
        raise Malformed("ConvertTo-SecureString: -AsPlainText -Force is needed: only plain text can be converted here")
    values = [p["String"]] if "String" in p else [secret(to_text(i)) for i in items]
    if not values:
        raise Malformed("ConvertTo-SecureString: -String is needed: the text")
    return values


async def get_credential(shell: Shell, _items: list[Any], p: dict[str, Any]) -> list[Any]:
    """Get-Credential."""
    user = p.get("UserName") or await shell.ask("User: ")
    password = os.environ.get("LETTERLOCK_PASSWORD", "") or await shell.secret(f"Password of {output.clean(user)}: ")
    return [Record({"UserName": user, "Password": Secret(password)}, None, ("UserName", "Password"))]


async def get_help(shell: Shell, _items: list[Any], p: dict[str, Any]) -> list[Any]:
    """Get-Help."""
    return [Formatted(shell.help(p.get("Name", "")))]
