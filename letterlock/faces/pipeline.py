"""The shell's own commands, declared as cmdlets are: binding, prefixes, "did you mean" and completion are the same.

What they do is in `choosing` and `showing`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from letterlock.base.errors import Malformed
from letterlock.faces import choosing, showing
from letterlock.faces.choosing import Shell
from letterlock.language.grammar import COMPARISONS
from letterlock.language.values import count, to_text
from letterlock.manage.registry import Cmdlet, Parameter, Row, boolean, secret

Run = Callable[[Shell, list[Any], dict[str, Any]], Awaitable[list[Any]]]


@dataclass(frozen=True, slots=True)
class Stage:
    """A command of the shell itself. `first`: it may begin a pipeline."""

    cmdlet: Cmdlet
    run: Run
    first: bool = False


def _many(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _number(name: str) -> Callable[[Any], int]:
    return lambda value: count(value, name)


def _delimiter(value: Any) -> str:
    text = {"`t": "\t"}.get(to_text(value), to_text(value))
    if len(text) != 1 or text in '"\r\n\0':
        raise Malformed(f"Delimiter: '{to_text(value)}' is not one character such as , or ;")
    return text


def _path(value: Any) -> Path:
    text = to_text(value)
    if not text or "\0" in text:
        raise Malformed("a file name is needed")
    return Path(text).expanduser()


def _utf8(value: Any) -> str:
    if to_text(value).lower().replace("-", "") not in ("utf8", "utf8nobom", "unicode", "default", "ascii"):
        raise Malformed(f"Encoding: '{to_text(value)}' is not allowed; files are written in UTF8")
    return "utf8"


def _same(value: Any) -> Any:
    return value


def _switch(name: str, help: str) -> Parameter:
    return Parameter(name, help, boolean, switch=True, type_name="Switch")


_PROPERTY: Final = Parameter("Property", "Properties; * matches.", _many, 0, type_name="Object[]")
_INPUT: Final = Parameter("InputObject", "Instead of what is piped.", _same, type_name="Object")
_FILES: Final = (
    _switch("Append", "Go on at the end of the file."),
    _switch("NoClobber", "Leave a file that exists as it is."),
    _switch("Force", "Accepted."),
    Parameter("Encoding", "UTF8, which is always written.", _utf8),
)
_DELIMITER: Final = Parameter("Delimiter", "Character between fields.", _delimiter, default=",")
_TYPES: Final = _switch("NoTypeInformation", "Accepted: types are never written.")
_WIDTH: Final = Parameter("Width", "Characters of a line.", _number("Width"), type_name="Int32")


async def _nothing(_context: Any, _p: dict[str, Any]) -> list[Row]:
    raise Malformed("this command belongs to the shell")


def _stage(
    name: str, aliases: tuple[str, ...], help: str, run: Run, *parameters: Parameter, first: bool = False
) -> Stage:
    more = () if first else (_INPUT,)
    return Stage(Cmdlet(name, help, _nothing, (*parameters, *more), aliases=aliases), run, first)


_ALL: Final = (
    _stage(
        "Select-Object",
        ("Select",),
        "Chooses properties and objects.",
        choosing.select,
        _PROPERTY,
        Parameter("ExcludeProperty", "Properties left out; * matches.", _many, type_name="Object[]"),
        Parameter("ExpandProperty", "One property, whose values go on by themselves.", _same),
        *(Parameter(n, f"{n} so many objects.", _number(n), type_name="Int32") for n in ("First", "Last", "Skip")),
        _switch("Unique", "Each only once."),
    ),
    _stage(
        "Where-Object",
        ("Where", "?"),
        "Chooses objects by a condition.",
        choosing.where,
        Parameter("Property", "A property, or { $_.Name -like 'a*' }.", _same, 0, type_name="Object"),
        Parameter("Value", "What it is compared with.", _same, 1, type_name="Object"),
        Parameter("FilterScript", "{ $_.Name -like 'a*' }.", _same, type_name="ScriptBlock"),
        _switch("Not", "Objects whose property is empty or false."),
        *(_switch(name.upper(), "Comparison.") for name in COMPARISONS),
        *(_switch(f"C{name.upper()}", "Comparison; case counts.") for name in COMPARISONS),
    ),
    _stage(
        "Sort-Object",
        ("Sort",),
        "Orders objects.",
        choosing.sort,
        _PROPERTY,
        _switch("Descending", "Greatest first."),
        _switch("Unique", "One of those that are alike."),
    ),
    _stage(
        "Group-Object",
        ("Group",),
        "Groups objects that are alike in properties.",
        choosing.group,
        _PROPERTY,
        _switch("NoElement", "Without the objects themselves."),
    ),
    _stage(
        "Measure-Object",
        ("Measure",),
        "Counts objects and adds numbers.",
        choosing.measure,
        _PROPERTY,
        *(_switch(n, f"The {n.lower()} too.") for n in ("Sum", "Average", "Maximum", "Minimum")),
    ),
    _stage(
        "ForEach-Object",
        ("ForEach", "%"),
        "Does something with each object.",
        choosing.foreach,
        Parameter("Process", "{ … $_ … }, or a property's name.", _same, 0, type_name="ScriptBlock"),
        Parameter("Begin", "Before the first.", _same, type_name="ScriptBlock"),
        Parameter("End", "After the last.", _same, type_name="ScriptBlock"),
        Parameter("MemberName", "A property.", _same),
    ),
    _stage("Format-List", ("FL",), "Shows objects as Name : value lines.", showing.format_list, _PROPERTY),
    _stage(
        "Format-Table",
        ("FT",),
        "Shows objects as a table.",
        showing.format_table,
        _PROPERTY,
        _switch("AutoSize", "Accepted: columns always have the width of their values."),
        _switch("Wrap", "Long values go on in the next line."),
        _switch("HideTableHeaders", "Rows only."),
    ),
    _stage(
        "ConvertTo-Json",
        (),
        "Objects as JSON.",
        showing.to_json,
        Parameter("Depth", "Accepted: everything is written.", _number("Depth"), type_name="Int32"),
        _switch("Compress", "In one line."),
        _switch("AsArray", "An array also of one object."),
    ),
    _stage("ConvertTo-Csv", (), "Objects as CSV.", showing.to_csv, _DELIMITER, _TYPES),
    _stage(
        "Export-Csv",
        ("Epcsv",),
        "Writes objects to a CSV file.",
        showing.export_csv,
        Parameter("Path", "The file.", _path, 0, True),
        _DELIMITER,
        _TYPES,
        *_FILES,
    ),
    _stage(
        "Out-File",
        (),
        "Writes to a file what would be shown.",
        showing.out_file,
        Parameter("FilePath", "The file.", _path, 0, True),
        _WIDTH,
        _switch("NoNewline", "Without the last end of line."),
        *_FILES,
    ),
    _stage("Out-String", (), "What would be shown, as text.", showing.out_string, _WIDTH),
    _stage("Out-Null", (), "Shows nothing.", showing.out_null),
    _stage(
        "Write-Output",
        ("Echo", "Write"),
        "Passes values on.",
        showing.write_output,
        Parameter("InputObject", "Values.", _same, 0, type_name="Object"),
        first=True,
    ),
    _stage(
        "Write-Host",
        (),
        "Shows a text at once.",
        showing.write_host,
        Parameter("Object", "Text.", _many, 0, type_name="Object"),
        first=True,
    ),
    _stage(
        "Read-Host",
        (),
        "Asks for a line.",
        showing.read_host,
        Parameter("Prompt", "The question.", to_text, 0),
        _switch("AsSecureString", "A password: nothing is shown."),
        first=True,
    ),
    _stage(
        "ConvertTo-SecureString",
        (),
        "A text as a password.",
        showing.to_secure,
        Parameter("String", "The text.", secret, 0, type_name="SecureString"),
        _switch("AsPlainText", "Needed."),
        _switch("Force", "Needed by PowerShell; accepted."),
        first=True,
    ),
    _stage(
        "Get-Credential",
        (),
        "A user name with its password, which is asked for or taken from LETTERLOCK_PASSWORD.",
        showing.get_credential,
        Parameter("UserName", "The user.", to_text, 0),
        Parameter("Message", "Accepted.", to_text),
        first=True,
    ),
    _stage(
        "Get-Help",
        ("Help", "Man", "Get-Command", "GCM"),
        "Shows what there is, or a command's parameters.",
        showing.get_help,
        Parameter("Name", "A command.", to_text, 0),
        first=True,
    ),
)

STAGES: Final = {name.lower(): stage for stage in _ALL for name in (stage.cmdlet.name, *stage.cmdlet.aliases)}
