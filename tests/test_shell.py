"""The management shell: its language, its own commands, its refusals, and the layout of its output."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from letterlock.app import Letterlock
from letterlock.base.errors import LetterlockError, Malformed
from letterlock.base.values import ListChange, LoginType, MimeFormat, Secret, parse_enum
from letterlock.faces import cli, output
from letterlock.faces.console import Console
from letterlock.faces.shell import Shell
from letterlock.language.parse import Unfinished, parse, parse_filter, unfinished
from letterlock.language.tree import Command, Pipeline
from letterlock.language.values import show
from letterlock.manage import CMDLETS
from letterlock.manage.filters import FILTER
from letterlock.manage.here import Local
from letterlock.manage.registry import Row

PEOPLE = [
    {"Name": "anna", "Size": 3145728, "Enabled": True, "Tags": ["a", "b"], "Since": "2026-01-05T10:00:00+00:00"},
    {"Name": "Bob", "Size": 10, "Enabled": False, "Tags": [], "Since": "2026-03-01T00:00:00+00:00"},
    {"Name": "carl", "Size": 2048, "Enabled": True, "Tags": ["b"], "Since": None},
]
SHOWN = {3145728: "3 MB (3,145,728 bytes)", 10: "10 B (10 bytes)", 2048: "2 KB (2,048 bytes)"}


class Recorder(Console):
    """A console that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    @property
    def width(self) -> int | None:
        return None

    @property
    def interactive(self) -> bool:
        return False

    def write(self, text: str) -> None:
        self.text += text


class Bench:
    """A shell whose dispatcher answers Get-Mailbox with people, and keeps every other call."""

    def __init__(self) -> None:
        self.console = Recorder()
        self.shell = Shell(CMDLETS, self.console)
        self.calls: list[tuple[str, dict[str, Any], list[Any], Any]] = []
        self.shell.dispatch = Local(CMDLETS, self._answer, self.console.message)

    async def _answer(self, name: str, named: dict[str, Any], positional: list[Any], piped: Any) -> list[Any]:
        CMDLETS[name.lower()].bind(named, positional, piped)
        if name != "Get-Mailbox":
            self.calls.append((name, named, positional, piped))
            return []
        wanted = positional[0] if positional else "*"
        return [
            {
                "properties": dict(p),
                "shown": {k: SHOWN.get(v, show(v)) if k == "Size" else show(v) for k, v in p.items()},
                "columns": ["Name", "Enabled"],
            }
            for p in PEOPLE
            if wanted in ("*", p["Name"])
        ]

    def run(self, text: str) -> str:
        """The text's output."""
        self.console.text = ""
        asyncio.run(self.shell.run_text(text))
        return self.console.text

    def lines(self, text: str) -> list[str]:
        """Its lines that are not empty."""
        return [line for line in self.run(text).splitlines() if line]


@pytest.fixture
def bench() -> Bench:
    return Bench()


# --- the language


def commands(text: str) -> list[list[str]]:
    """The names of each statement's commands."""
    return [[e.name for e in s.elements if isinstance(e, Command)] for s in parse(text) if isinstance(s, Pipeline)]


def test_statements_pipes_comments_and_line_ends() -> None:
    text = """Get-Service MSEx*; Get-ImapSettings | Select LoginType | fl *  # a comment; with | signs
    <# a comment
       of two lines #>
    Get-Mailbox |
        Where Name -eq x
        | Sort Name
    Set-Mailbox `
        alice
    """
    wanted = [["Get-Service"], ["Get-ImapSettings", "Select", "fl"], ["Get-Mailbox", "Where", "Sort"], ["Set-Mailbox"]]
    assert commands(text) == wanted


def test_values_reach_a_cmdlet_as_they_are_written(bench: Bench) -> None:
    bench.run(
        '''$name = 'mail'; $domain = "contoso.com"
        Set-ImapSettings -ExternalConnectionSettings "$name.$($domain):993:SSL", 'mail.contoso.com:143:TLS' -Conf:$false
        Set-ImapSettings -UnencryptedOrTLSBindings @{Add="[::]:143", '0.0.0.0:144'; Remove=0.0.0.0:143}
        Set-PopSettings -LogPerFileSizeQuota 2MB -ProtocolLogEnabled $true -Verbose
        Set-ImapSettings -SSLBind [::]:993,0.0.0.0:993 -Banner "it``s `"here`" ""now""" -X509Cert "$name.contoso.com"
        Set-ImapSettings -OwaServerUrl $null \u2013MaxCommandSize 0x800'''
    )
    named = [call[1] for call in bench.calls]
    assert named[0]["ExternalConnectionSettings"] == ["mail.contoso.com:993:SSL", "mail.contoso.com:143:TLS"]
    assert named[0]["Confirm"] is False
    change = ListChange(None, ("[::]:143", "0.0.0.0:144"), ("0.0.0.0:143",))
    assert named[1]["UnencryptedOrTLSBindings"] == change
    assert named[2] == {"LogPerFileSizeQuota": "2MB", "ProtocolLogEnabled": True, "Verbose": True}
    assert named[3]["SSLBindings"] == ["[::]:993", "0.0.0.0:993"]
    assert named[3]["Banner"] == 'it`s "here" "now"'
    assert named[3]["X509CertificateName"] == "mail.contoso.com"
    assert named[4] == {"OwaServerUrl": None, "MaxCommandSize": "0x800"}


def test_expressions(bench: Bench) -> None:
    cases = {
        "1 + 2 * 3": "7",
        "(1 + 2) * 3": "9",
        "7 / 2": "3.5",
        "8 / 2": "4",
        "7 % 4": "3",
        "-(2) - 3": "-5",
        "2KB + 1": "2049",
        "1.5GB": "1610612736",
        "'a' + 1": "a1",
        "'x','y' -contains 'Y'": "True",
        "'x' -cin 'X'": "False",
        "'10' -gt 9": "True",
        "10 -gt '9'": "True",
        "'Mail' -like 'm*L'": "True",
        "'a*' -like 'a`*'": "True",
        "'ab' -like 'a[a-c]'": "True",
        "'abc' -match 'B.$'": "True",
        "'abc' -notmatch '^b'": "True",
        "'01:00:00' -gt '00:59:00'": "True",
        "'1.00:00:00' -gt '23:00:00'": "True",
        "'unlimited' -gt 5GB": "True",
        "$true -and -not $false": "True",
        "$false -or !$true": "False",
        "$true -xor $true": "False",
        "$null -eq $null": "True",
        "$null -eq 0": "False",
        "'False' -eq $false": "True",
        "@(1).Count": "1",
        "('a','b','c')[-1]": "c",
        "'abc'.Length": "3",
        "@{Add='x'}.add": "x",
        '"a$(1 + 1)b"': "a2b",
        '"$(\'q\' + "r")"': "qr",
        "'it''s'": "it's",
        '"`$x`t|"': "$x\\x09|",
        "“curly” + \u2018quotes\u2019": "curlyquotes",
    }
    for text, wanted in cases.items():
        assert bench.run(text).rstrip("\n") == wanted, text


def test_variables_and_properties(bench: Bench) -> None:
    bench.run("$one = Get-Mailbox anna; $all = Get-Mailbox; $names = $all.Name; $n = $m = 5")
    cases = {
        "$one.name": "anna",
        '"<I>$($one.Name)<S>$one.Size"': "<I>anna<S>3 MB (3,145,728 bytes)",
        "$all.Count": "3",
        "$all[1].Name": "Bob",
        '"$names"': "anna Bob carl",
        "$n + $m": "10",
        "$one.Size / 1MB": "3",
        "$one.Nothing -eq $null": "True",
        "${n}": "5",
        "(Get-Mailbox).Count": "3",
        "(Get-Mailbox Bob).Enabled": "False",
    }
    for text, wanted in cases.items():
        assert bench.run(text).rstrip("\n") == wanted, text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Get-X (1", "line 1, column 7: the '(' here is not closed"),
        ('Get-X "open', "line 1, column 7: the quote is not closed"),
        ("| Select", "line 1, column 1: expected a command, not '|'"),
        ("Get-X -A a,", "line 1, column 12: something is missing at the end"),
        ("Get-X\nGet-Y | Where {", "line 2, column 15: the '{' here is not closed"),
        ("Get-X )", "line 1, column 7: the command should have ended here, not ')'"),
        ("$x 5", "line 1, column 4: expected an operator such as -eq, or the end of the command, not '5'"),
        ("Set-X @{5}", "line 1, column 9: expected a name, as in @{Add=…; Remove=…}, not '5'"),
        ('Get-X a"b"', 'line 1, column 7: a"b": put quotes around the whole value'),
        ("$_.Name -eq )", "line 1, column 13: expected a value, not ')'"),
    ],
)
def test_mistakes_are_pointed_at(text: str, said: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse(text)
    assert caught.value.text.startswith(said), caught.value.text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("if ($a) { Get-X }", "'if'"),
        ("Get-X\nforeach ($x in $y) { }", "'foreach'"),
        ("function f { }", "'function'"),
        ("try { } catch { }", "'try'"),
        ("& notepad", "'&'"),
        (". ./script.ps1", "'.'"),
        ("[int]5", "[int]"),
        ("[System.IO.File]::ReadAllBytes('x')", "[System.IO.File]"),
        ("$a.ToUpper()", ".ToUpper()"),
        ("Get-X > a.txt", "'>'"),
        ("Get-X 2>&1", "'2>&1'"),
        ("Get-X && Get-Y", "'&&'"),
        ("Get-X @splat", "@splat"),
        ("$env:PATH", "$env:PATH"),
        ("$a += 1", "'+='"),
        ("$a -split ','", "-split"),
        ("1..5", "1..5"),
        ("@'\ntext\n'@", "here-strings"),
    ],
)
def test_what_is_not_supported_is_named(text: str, named: str, bench: Bench) -> None:
    with pytest.raises(Malformed) as caught:
        bench.run(text)
    assert named in caught.value.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Get-Mailboxx", "'Get-Mailboxx' is not a command; did you mean Get-Mailbox?"),
        ("Get-Mailbox | Selct Name", "did you mean Select-Object?"),
        ("Set-ImapSettings -LoginTipe 1", "did you mean -LoginType?"),
        ("Set-ImapSettings -MaxConnectionsFromSingleIP 5", "did you mean -MaxConnectionFromSingleIP?"),
        ("Set-PopSettings -ProtocolLoggingEnabled $true", "did you mean -ProtocolLogEnabled?"),
        ("Get-Mailbox | Sort -Descendng Name", "did you mean -Descending?"),
        ("Set-ImapSettings -Max 5", "-Max is ambiguous"),
        ("Set-ImapSettings -LoginType", "Set-ImapSettings: -LoginType needs a value"),
        ("Set-ImapSettings -LoginType 1 -logintype 2", "-LoginType is given twice"),
        ("Set-ImapSettings -SSLBindings @{Ad='x'}", "there is no Ad in @{Add"),
        ("$nothing", "there is no variable $nothing"),
        ("$_", "$_ has a value only in a script block"),
        ("$true = 5", "$true cannot be set"),
        ("Select Name", "Select needs something piped to it"),
        ("Get-Mailbox | FL | Select Name", "must be the last command of a pipeline"),
        ("Get-Mailbox | Select -First x", "Select-Object: First: 'x' is not a whole number from 0 on"),
        ("Get-Mailbox | Where { $_.Size -gt 1 } -eq 5", "a script block is the whole condition"),
        ("Get-Mailbox | Where Size 5", "an operator such as -eq is missing"),
        ("Get-Mailbox | Where Size -gt", "-gt needs a value"),
        ("Get-Mailbox | Select -Expand Nothing", "there is no property 'Nothing'"),
        ("Get-Mailbox | Measure Name -Sum", "'anna' is not a number"),
        ("'a' - 1", "'-' needs numbers, not 'a'"),
        ("$a = 'mail'; Set-ImapSettings -X509Cert $a.contoso.com", "'mail' is no object, and has no contoso"),
        ("1 / 0", "cannot be divided by zero"),
        ("'a' -match '('", "is not a regular expression"),
        ("Set-ImapSettings -Confirm -Banner x", "-Confirm asks on a terminal, and there is none"),
        ("Read-Host 'Name'", "there is no terminal to ask on"),
        ("ConvertTo-SecureString x", "-AsPlainText -Force is needed"),
    ],
)
def test_mistakes_are_explained(text: str, said: str, bench: Bench) -> None:
    with pytest.raises(LetterlockError) as caught:
        bench.run(text)
    assert said in caught.value.text
    assert bench.calls == []


def test_a_mistake_in_the_last_line_changes_nothing(bench: Bench) -> None:
    with pytest.raises(Malformed):
        bench.run("Set-ImapSettings -Banner x\nSet-ImapSettings -Banner 'y")
    assert bench.calls == []


def test_more_lines_are_asked_for_only_where_they_help() -> None:
    for text in ("Get-X |", "Get-X (", "Get-X {\n a", "$a = ", "'open", "Get-X a,", "$a -and", "@{a=1;"):
        assert unfinished(text), text
    for text in ("", "Get-X", "Get-X )", "if", "Get-X a b | Select c", "$x 5"):
        assert not unfinished(text), text
    with pytest.raises(Unfinished):
        parse("Get-X | Where { ")


# --- the shell's own commands


def test_where(bench: Bench) -> None:
    cases = {
        "Where Enabled": "anna carl",
        "Where -Not Enabled": "Bob",
        "Where {$_.Name -like '*N*'}": "anna",
        "? { $_.Size -ge 2KB -and $_.Enabled -eq $true }": "anna carl",
        "Where-Object -FilterScript { -not ($_.Size -lt 1MB) }": "anna",
        "Where Size -lt 1MB": "Bob carl",
        "where NAME -EQ BOB": "Bob",
        "where Name -ceq bob": "",
        "Where Name -notmatch '^[ab]'": "carl",
        "Where Name -in 'anna','carl'": "anna carl",
        "Where Name -notin anna,carl": "Bob",
        "Where Tags -contains b": "anna carl",
        "Where {$_.Tags -notcontains 'a'}": "Bob carl",
        "Where {$_.Size -like '*MB*'}": "anna",
        "Where {$_.Since -lt '2026-02-01'}": "anna",
        "Where {$_.Nothing}": "",
        "Where {($_.Name -eq anna -or $_.Name -eq 'Bob') -and $_.Enabled}": "anna",
    }
    for text, wanted in cases.items():
        assert bench.run(f'"$(Get-Mailbox | {text} | ForEach Name)"').strip() == wanted, text


def test_select(bench: Bench) -> None:
    assert bench.run("Get-Mailbox anna | Select Name") == "\nName : anna\n\n"
    assert bench.run("Get-Mailbox | Select Name,Size") == (
        "\nName Size\n---- ----\nanna 3 MB (3,145,728 bytes)\nBob  10 B (10 bytes)\ncarl 2 KB (2,048 bytes)\n\n"
    )
    assert bench.lines("Get-Mailbox | Select -Expand Name -First 2") == ["anna", "Bob"]
    assert bench.lines("Get-Mailbox | Select -Expand Name -Last 1") == ["carl"]
    assert bench.lines("Get-Mailbox | Select -Expand Name -Skip 1 -First 1") == ["Bob"]
    assert bench.lines("Get-Mailbox | Select -Expand Tags -Unique") == ["a", "b"]
    assert bench.lines("Get-Mailbox anna | Select *S*,Nothing -Exclude Tags") == [
        "Size    : 3 MB (3,145,728 bytes)",
        "Since   : 2026-01-05T10:00:00+00:00",
        "Nothing :",
    ]
    calculated = "Get-Mailbox anna | Select @{n='Who';e={$_.Name + '!'}},@{Label='MB'; Expression={$_.Size / 1MB}}"
    assert bench.lines(calculated) == ["Who : anna!", "MB  : 3"]


def test_sort_group_measure_foreach(bench: Bench) -> None:
    names = "| Select -Expand Name"
    assert bench.lines(f"Get-Mailbox | Sort Size {names}") == ["Bob", "carl", "anna"]
    assert bench.lines(f"Get-Mailbox | Sort-Object Enabled,Name -Descending {names}") == ["carl", "anna", "Bob"]
    assert bench.lines(f"Get-Mailbox | Sort @{{e={{$_.Enabled}};Descending=$true}},Name {names}") == [
        "anna",
        "carl",
        "Bob",
    ]
    assert bench.lines("3,1,'b',2,'a' | Sort") == ["1", "2", "3", "a", "b"]
    assert bench.run("Get-Mailbox | Group Enabled") == (
        "\nCount Name  Group\n----- ----  -----\n    1 False {Bob}\n    2 True  {anna, carl}\n\n"
    )
    assert bench.lines("(Get-Mailbox | Group Enabled | Where Name -eq True).Group | ForEach Name") == ["anna", "carl"]
    assert bench.lines("Get-Mailbox | Measure Size -Sum -Maximum | FL Count,Sum,Maximum") == [
        "Count   : 3",
        "Sum     : 3147786",
        "Maximum : 3 MB (3,145,728 bytes)",
    ]
    assert bench.lines('Get-Mailbox | ForEach-Object { $x = $_; 1,2 | % { "$($x.Name)$_" } }')[:3] == [
        "anna1",
        "anna2",
        "Bob1",
    ]
    assert bench.lines("1,2 | % -Begin {'a'} -Process {$_} -End {'z'}") == ["a", "1", "2", "z"]


def test_formats(bench: Bench) -> None:
    assert bench.run("Get-Mailbox") == ("\nName Enabled\n---- -------\nanna True\nBob  False\ncarl True\n\n")
    assert bench.run("Get-Mailbox Bob | Format-List Name,T*") == "\nName : Bob\nTags : {}\n\n"
    assert bench.lines("Get-Mailbox | FT N*,Tags -AutoSize")[2] == "anna {a, b}"
    assert bench.lines("Get-Mailbox | FT Name -HideTableHeaders") == ["anna", "Bob", "carl"]
    assert json.loads(bench.run("Get-Mailbox | ConvertTo-Json")) == PEOPLE
    assert json.loads(bench.run("Get-Mailbox Bob | ConvertTo-Json -Compress")) == PEOPLE[1]
    assert bench.lines("Get-Mailbox Bob | Select Name,Tags | ConvertTo-Csv -NoType") == ['"Name","Tags"', '"Bob","{}"']


def test_files(bench: Bench, tmp_path: Path) -> None:
    bench.run(f"$dir = '{tmp_path}'; Get-Mailbox | Select Name | Export-Csv $dir/a.csv -NoTypeInformation")
    bench.run("Get-Mailbox Bob | Select Name | Export-Csv $dir/a.csv -Append -Delimiter ';'")
    assert (tmp_path / "a.csv").read_text() == '"Name"\n"anna"\n"Bob"\n"carl"\n"Bob"\n'
    bench.run('Get-Mailbox Bob | FL Name | Out-File "$dir/b.txt"; "more" | Out-File $dir/b.txt -Append')
    assert (tmp_path / "b.txt").read_text() == "\nName : Bob\n\nmore\n"
    with pytest.raises(LetterlockError, match="NoClobber"):
        bench.run("'x' | Out-File $dir/b.txt -NoClobber")
    with pytest.raises(LetterlockError, match="No such file"):
        bench.run("'x' | Out-File $dir/none/b.txt")


def test_secrets_are_passed_on_and_never_shown(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LETTERLOCK_PASSWORD", "hunter22 secret")
    bench.run("$s = ConvertTo-SecureString 'hunter22 secret' -AsPlainText -Force; $c = Get-Credential a@contoso.com")
    for text in (
        "$s",
        '"$s"',
        "$c",
        "$c | fl *",
        "$c | ConvertTo-Json",
        "$c | ConvertTo-Csv",
        "$c.Password",
        "$s + 'x'",
    ):
        with contextlib.suppress(Malformed):
            assert "hunter" not in bench.run(text), text
    bench.run("New-Mailbox a@contoso.com -Password $s; Test-ImapConnectivity -MailboxCredential $c")
    (_, first, _, _), (_, second, _, _) = bench.calls
    assert isinstance(first["Password"], Secret)
    assert first["Password"].reveal() == "hunter22 secret"
    assert second["MailboxCredential"]["UserName"] == "a@contoso.com"
    assert second["MailboxCredential"]["Password"].reveal() == "hunter22 secret"


def test_objects_and_texts_are_piped_into_cmdlets(bench: Bench) -> None:
    bench.run("Get-Mailbox | Where Enabled | Set-CASMailbox -PopEnabled $false")
    bench.run("'MSExchangeIMAP4','MSExchangePOP3' | Restart-Service")
    bench.run("$m = Get-Mailbox Bob; Set-CASMailbox $m -ImapEnabled $false")
    pairs = [(c[0], (c[3] or {}).get("Name") or (c[3] or {}).get("Identity") or c[2]) for c in bench.calls]
    assert pairs == [
        ("Set-CASMailbox", "anna"),
        ("Set-CASMailbox", "carl"),
        ("Restart-Service", "MSExchangeIMAP4"),
        ("Restart-Service", "MSExchangePOP3"),
        ("Set-CASMailbox", ["Bob"]),
    ]


def test_nothing_piped_calls_nothing(bench: Bench) -> None:
    bench.run("Get-Mailbox nobody | Set-CASMailbox -PopEnabled $false; @() | Remove-Mailbox")
    assert bench.calls == []


# --- layout


def test_terminal_escapes_and_formulas_never_get_through(bench: Bench) -> None:
    item = {"properties": {"A": "\x1b[2J=1", "B": "=cmd()"}, "shown": {"A": "\x1b[2J=1", "B": "=cmd()"}, "columns": []}
    for form in ("list", "table", "csv"):
        text = output.render([item], form)
        assert "\x1b" not in text
    assert "'=cmd()" in output.render([item], "csv")
    assert "\x1b" not in bench.run('"`e[2J"')


def test_long_values_go_on_below_themselves_on_a_terminal() -> None:
    record = output.Record({"Name": "x", "Subject": "word " * 10})
    lines = output.as_list([record], 40).splitlines()
    assert max(map(len, lines)) < 40
    assert lines[3].startswith("          word")


def test_tables_fit_the_terminal() -> None:
    record = output.Record({"Name": "x" * 30, "DisplayName": "y" * 80, "Last": "z"})
    for width in (60, 40, 20, 8):
        lines = output.as_table([record], ["Name", "DisplayName", "Last"], width).splitlines()
        assert max(map(len, lines)) < width, width
    assert "..." in output.as_table([record], ["Name", "DisplayName"], 60)
    assert "..." not in output.as_table([record], ["Name", "DisplayName"], None)


# --- random text

VALID = [
    'Get-Mailbox | Where {$_.Services -like "*IMAP*"} | Format-List Subject,NotAfter',
    'Set-ImapSettings -SSLBindings @{Add="a","b"; Remove="c"} -WhatIf',
    '$a = "x $(Get-Mailbox | Select -Expand Name) $b.c"; $a.Length + 2KB * 3',
    "Get-Mailbox | Sort @{e={$_.Size}; d=$true} | Group Name | Measure Count -Sum",
    "(1,2,'3' | % { $_ + 1 })[0] -in 1..3 -and -not $true # end",
    "Get-CASMailbox -Filter {PopEnabled -eq $true -and (Name -like 'a*' -or -not ImapEnabled)}",
    "Get-Mailbox | ConvertTo-Json; Get-Mailbox | FT -AutoSize N*",
]
PIECES = [
    "$",
    "(",
    ")",
    "{",
    "}",
    '"',
    "'",
    "`",
    "@{",
    "|",
    ";",
    "-eq",
    ",",
    "[",
    "]",
    ".",
    "..",
    "$(",
    "#",
    "\n",
    "&",
    "-",
]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A valid text with pieces taken out, put in and doubled."""
    text = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(text)))
        end = draw(st.integers(at, min(len(text), at + 8)))
        text = text[:at] + draw(st.sampled_from(["", *PIECES, text[at:end] * 2])) + text[end:]
    return text


@settings(max_examples=400, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(max_size=200), mutated(), st.lists(st.sampled_from(PIECES), max_size=60).map("".join)))
def test_random_text_runs_or_is_refused(text: str) -> None:
    bench = Bench()
    assert unfinished(text) in (True, False)
    with contextlib.suppress(LetterlockError):
        bench.run(text.replace("Out-File", "Out-Null").replace("Export-Csv", "Out-Null"))
    with contextlib.suppress(Malformed):
        parse_filter(text)


@pytest.mark.parametrize(
    "piece", ["(", "{", "$(", "@{a=", '"$(', "-not ", "!", "a|", "$a.", "1+", "a -and ", "[", "'", "@("]
)
def test_very_long_and_deep_text_is_bounded(piece: str) -> None:
    with contextlib.suppress(Malformed):
        Bench().run(piece * 3000 + "1")


def test_values_that_are_nearly_right() -> None:
    for kind, text, meant in (
        (LoginType, "SecureLogn", "SecureLogin"),
        (MimeFormat, "TextEnriched", "TextEnrichedOnly"),
    ):
        with pytest.raises(Malformed, match=f"did you mean {meant}"):
            parse_enum(kind, text)


def test_parameters_by_prefix() -> None:
    assert CMDLETS["set-imapsettings"].parameter("proxyt").name == "ProxyTargetPort"


# --- filters


def filtered(text: str) -> list[str]:
    """The names that a filter keeps."""
    rows = [Row(dict(p)) for p in PEOPLE]
    return [row.properties["Name"] for row in FILTER.read(text)(rows)]


def test_filters() -> None:
    cases = {
        "Enabled -eq $true": ["anna", "carl"],
        "{Enabled -eq 'False'}": ["Bob"],
        "Name -like 'B*' -or Size -gt 1MB": ["anna", "Bob"],
        "-not (Enabled -eq $true)": ["Bob"],
        "(Enabled -eq $true) -and (Name -notlike '*n*')": ["carl"],
        "$_.Size -ge 2KB -and Enabled -eq true": ["anna", "carl"],
        "Since -eq $null": ["carl"],
        "Enabled": ["anna", "carl"],
    }
    for text, wanted in cases.items():
        assert filtered(text) == wanted, text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Nothing -eq 1", "there is no property 'Nothing'; there are Name, Size"),
        ("Name -match 'a'", "-match is not an operator of filters"),
        ("Name -eq $x", "a filter has no variables"),
        ("Name -eq", "something is missing at the end"),
        ("Name -eq (Get-Mailbox)", "expected a value"),
        ("", "something is missing"),
    ],
)
def test_wrong_filters(text: str, said: str) -> None:
    with pytest.raises(Malformed) as caught:
        filtered(text)
    assert said in caught.value.text


def test_variables_of_the_shell_in_a_filter(bench: Bench) -> None:
    bench.run('$who = "o\'Neil*"; Get-CASMailbox -Filter {Name -like $who -and PopEnabled -eq $true}')
    assert bench.calls[0][1]["Filter"] == "Name -like 'o''Neil*' -and PopEnabled -eq $true"


@pytest.mark.parametrize("words", [["get-inssecurelogin"], ["help", "Get-InssecureLogin"]])
def test_a_subcommand_that_is_nearly_one_is_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words, Letterlock()) == 2
    error = capsys.readouterr().err
    assert (
        error.lower() == f"letterlock: error: '{words[-1]}' is not a command; did you mean get-insecurelogin?\n".lower()
    )
