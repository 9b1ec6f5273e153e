"""`letterlock shell` as scripts use it: files, standard input, exit status, and what a subcommand loads."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.server import PROGRAM, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A data directory whose server does not run."""
    yield Server(tmp_path_factory.mktemp("shell"), users=("alice", "bob"))


def shell(server: Server, *words: str, status: int = 0, stdin: bytes = b"") -> tuple[str, str]:
    """Output and errors."""
    done = subprocess.run(
        [PROGRAM, "shell", "--data", str(server.data), *words], input=stdin, capture_output=True, timeout=60
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == status, out + err
    assert "Traceback" not in err
    return out, err


def test_variables_live_from_one_text_to_the_next(server: Server) -> None:
    out, _ = shell(server, "-c", "$m = Get-Mailbox alice", "-c", "$m.PrimarySmtpAddress", "-c", "exit", "-c", "'no'")
    assert out == "alice@demo.test\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_as_windows_writes_them(server: Server, tmp_path: Path, encoding: str) -> None:
    script = tmp_path / "a.ps1"
    text = "# Zugänge\r\n$d = 'demo.test'\r\nGet-Mailbox `\r\n  \"bob@$d\" |\r\n  Select -Expand Name\r\n'für alle'\r\n"
    script.write_bytes(text.encode(encoding))
    assert shell(server, "-f", str(script))[0] == "bob\nfür alle\n"
    if encoding == "utf-8":
        assert shell(server, stdin=script.read_bytes())[0] == "bob\nfür alle\n"


def test_what_is_no_text_is_one_clear_line(server: Server, tmp_path: Path) -> None:
    script = tmp_path / "b.ps1"
    script.write_bytes(b"Get-Mailbox\n\xff\xfe\x80")
    assert shell(server, "-f", str(script), status=2)[1].endswith("octet 12 is not UTF-8 text\n")
    assert shell(server, "-f", str(tmp_path / "none"), status=2)[1].count("\n") == 1
    assert "not UTF-8" in shell(server, stdin=b"'\xff'", status=2)[1]


def test_exit_status_and_what_was_done_before(server: Server) -> None:
    out, err = shell(server, "-c", "'first'; Get-Mailbox nobody@demo.test; 'second'", status=1)
    assert out == "first\n"
    assert err.startswith("letterlock: error: ")
    assert err.count("\n") == 1
    out, err = shell(server, "-c", "'first'\nGet-Mailbox )", status=2)
    assert (out, err) == ("", "letterlock: error: line 2, column 13: the command should have ended here, not ')'\n")


def test_error_action(server: Server) -> None:
    text = "'nobody@demo.test','bob@demo.test' | Get-Mailbox -ErrorAction {} | Select -Expand Name; 'after'"
    out, err = shell(server, "-c", text.format("SilentlyContinue"))
    assert (out, err) == ("bob\nafter\n", "")
    out, err = shell(server, "-c", text.format("Continue"))
    assert out == "bob\nafter\n"
    assert err.startswith("ERROR: ")
    assert "nobody@demo.test" in err
    out, err = shell(server, "-c", text.format("Stop"), status=1)
    assert out == ""
    assert "is not one of the allowed values: Stop," in shell(server, "-c", text.format("Maybe"), status=2)[1]
    # what is wrong in the text itself is never passed over
    assert "no parameter" in shell(server, "-c", "Get-Mailbox -Nothing 1 -EA Ignore", status=2)[1]


def test_how_many(server: Server) -> None:
    assert shell(server, "-c", "@(Get-Mailbox -ResultSize 1).Count; @(Get-CASMailbox -ResultSize Unlimited).Count")[
        0
    ] == ("1\n2\n")
    assert "use a number from 1 to" in shell(server, "-c", "Get-Mailbox -ResultSize x", status=2)[1]


def test_verbose_and_confirm_without_a_terminal(server: Server) -> None:
    _, err = shell(server, "-c", "Set-CASMailbox bob@demo.test -PopEnabled $false -Verbose")
    assert "VERBOSE: set PopEnabled of bob@demo.test from True to False" in err
    _, err = shell(server, "-c", "Set-CASMailbox bob@demo.test -PopEnabled $true -Confirm", status=1)
    assert "Set-CASMailbox: -Confirm asks on a terminal, and there is none" in err
    assert shell(server, "-c", "(Get-CASMailbox bob@demo.test).PopEnabled")[0] == "False\n"
    shell(
        server, "-c", "New-Mailbox gone@demo.test -Password 'correct horse 7' | Out-Null; Remove-Mailbox gone@demo.test"
    )
    assert "gone" not in shell(server, "-c", "Get-Mailbox")[0]


def test_a_filter_is_evaluated_where_the_mailboxes_are(server: Server) -> None:
    text = "$n = 'ali*'; Get-Mailbox -Filter {Name -like $n -and PasswordExposed -eq $false} | Select -Expand Name"
    assert shell(server, "-c", text)[0] == "alice\n"
    done = subprocess.run(
        [PROGRAM, "get-mailbox", "--data", str(server.data), "--filter", "Name -like 'b*'", "--output", "csv"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[1].startswith("bob,")
    _, err = shell(server, "-c", "Get-Mailbox -Filter {Nme -eq 1}", status=2)
    assert "Get-Mailbox: there is no property 'Nme'" in err


def test_a_subcommand_loads_no_grammar_and_no_line_editor(server: Server) -> None:
    program = (
        "import sys; from letterlock.__main__ import main; sys.argv[1:] = ['get-service', '--data', sys.argv[1]];"
        "main(); print([m for m in ('lark', 'prompt_toolkit', 'rich', 'jinja2', 'httpx', 'acme') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(server.data)], capture_output=True, text=True, timeout=60)
    assert done.stdout.endswith("\n[]\n"), done.stdout + done.stderr


def test_the_grammar_is_kept_for_the_next_time(server: Server, tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    words = [PROGRAM, "shell", "--data", str(server.data), "-c", "1 + 1"]
    for _ in range(2):
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment)
        assert done.stdout == "2\n", done.stderr
    (file,) = (tmp_path / "letterlock").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    # what is damaged, or somebody else's, is not read
    file.write_bytes(b"cos\nsystem\n(S'exit 7'\ntR.")
    file.chmod(0o666)
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    file.write_bytes(b"damaged")
    file.chmod(0o600)
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
