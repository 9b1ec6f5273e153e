"""The interactive shell in a real terminal (tmux): lines, history, completion, questions, Ctrl-C, progress."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.server import PROGRAM, Server
from tests.programs import need


class Terminal:
    """A window of 100 by 40 in which the shell runs."""

    def __init__(self, server: Server, home: Path) -> None:
        need("tmux")
        self.tmux = ["tmux", "-L", f"letterlock-shell-{os.getpid()}-{home.name}", "-f", "/dev/null"]
        self.home = home
        state = shlex.quote(str(home))
        command = f"env XDG_STATE_HOME={state} {PROGRAM} shell --data {shlex.quote(str(server.data))}; sleep 60"
        self._run("new-session", "-d", "-x", "100", "-y", "40", command)
        self.wait("letterlock>")

    def _run(self, *words: str) -> str:
        return subprocess.run([*self.tmux, *words], capture_output=True, text=True, check=True).stdout

    def screen(self) -> str:
        """What is to be seen."""
        return self._run("capture-pane", "-p")

    def keys(self, *names: str) -> None:
        """Press keys: tmux's names, or text as it is."""
        self._run("send-keys", *names)

    def type(self, text: str) -> None:
        """A line and Enter."""
        self._run("send-keys", "-l", text)
        self.keys("Enter")

    def wait(self, text: str, seconds: float = 30) -> str:
        """Until `text` is on the screen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            screen = self.screen()
            if text in screen:
                return screen
            time.sleep(0.1)
        raise AssertionError(f"{text!r} never came; the screen:\n{screen}")

    def clear(self) -> None:
        """An empty screen with a prompt."""
        self.keys("C-l")
        time.sleep(0.3)

    def cancel(self) -> None:
        """Ctrl-C, and the next prompt: what is typed before it is drawn is drawn into it."""
        self.keys("C-c")
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if self.screen().rstrip().splitlines()[-1].strip() == "letterlock>":
                return
            time.sleep(0.1)
        raise AssertionError(f"no prompt came; the screen:\n{self.screen()}")

    def close(self) -> None:
        """End of the window."""
        subprocess.run([*self.tmux, "kill-server"], capture_output=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(tmp_path, settings="New-Mailbox carol@demo.test -Password 'correct horse 7'")
    found.start(workers=1)
    yield found
    found.kill()


@pytest.fixture
def terminal(server: Server, tmp_path: Path) -> Iterator[Terminal]:
    home = tmp_path / "home"
    home.mkdir()
    found = Terminal(server, home)
    yield found
    found.close()


def test_lines_completion_history_and_mistakes(terminal: Terminal) -> None:
    terminal.type("$m = Get-Mailbox carol@demo.test")
    terminal.type("$m | fl PrimarySmtpAddress")
    terminal.wait("PrimarySmtpAddress : carol@demo.test")
    # a mistake is pointed at
    terminal.type("Get-Mailbox )")
    screen = terminal.wait("the command should have ended here")
    assert "  Get-Mailbox )\n              ^" in screen
    # several lines
    terminal.type("Get-Mailbox |")
    terminal.wait(">>")
    terminal.type("measure | select -expand Count")
    terminal.wait("\n3\n")
    # completion: command, parameter, value, name
    terminal.clear()
    terminal.keys("Set-ImapS", "Tab")
    terminal.wait("Set-ImapSettings")
    terminal.keys(" -LoginTypeM", "Tab")
    terminal.wait("-LoginTypeMode")
    terminal.keys(" rep", "Tab")
    terminal.wait("-LoginTypeMode ReportOnly")
    terminal.cancel()
    terminal.keys("Get-CASMailbox ca", "Tab")
    terminal.wait("Get-CASMailbox carol@demo.test")
    terminal.cancel()
    terminal.keys("Get-ImapSettings | Select Banner,ProxyT", "Tab")
    terminal.wait("Select Banner,ProxyTargetPort")
    terminal.cancel()
    # passwords stay out of the file, and the file is ours alone
    terminal.type("Set-MailboxPassword carol@demo.test -Password 'another horse 8'")
    terminal.type("New-Mailbox dora@demo.test -Pass 'third horse 9'")
    terminal.wait("dora dora")
    terminal.type("Get-Service LetterlockImap4 | ft Status")
    terminal.wait("Running")
    terminal.keys("C-d")
    time.sleep(0.5)
    file = terminal.home / "letterlock-shell" / "history"
    text = file.read_text()
    assert "Get-Service LetterlockImap4 | ft Status" in text
    assert "horse" not in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_questions_before_something_is_removed(terminal: Terminal, server: Server) -> None:
    terminal.type("Remove-Mailbox carol@demo.test")
    screen = terminal.wait("[Y] Yes  [A] Yes to All")
    assert "Are you sure you want to perform this action?" in screen
    assert "Remove mailbox carol@demo.test with all its messages" in screen
    terminal.type("n")
    terminal.type("'still there: ' + (Get-Mailbox).Count")
    terminal.wait("still there: 3")
    terminal.type("'carol@demo.test','bob@demo.test' | Remove-Mailbox")
    terminal.wait("Remove mailbox carol@demo.test with all its messages")
    terminal.type("a")
    time.sleep(1)
    terminal.type("'left: ' + (Get-Mailbox).PrimarySmtpAddress")
    terminal.wait("left: alice@demo.test")
    terminal.type("Set-ImapSettings -Banner Hello -Confirm")
    terminal.wait("Set Banner from")
    terminal.type("l")
    terminal.type("Remove-Mailbox alice@demo.test -Confirm:$false; 'none: ' + @(Get-Mailbox).Count")
    terminal.wait("none: 0")
    assert "Hello" not in server.shell("Get-ImapSettings | fl Banner")


def test_ctrl_c_cancels_a_command_and_progress_is_shown(terminal: Terminal, server: Server, tmp_path: Path) -> None:
    message = "From x Thu Jan  1 00:00:00 2026\nSubject: {}\n\n" + "text\n" * 200 + "\n"
    (tmp_path / "big.mbox").write_text("".join(message.format(i) for i in range(30_000)))
    terminal.type(f"New-MailboxImportRequest carol@demo.test {tmp_path / 'big.mbox'}")
    terminal.wait("Import carol@demo.test")
    terminal.keys("C-c")
    terminal.wait("letterlock: cancelled")
    terminal.type("'still ' + 'here'")
    terminal.wait("still here")
    time.sleep(1)
    first = server.shell("Get-MailboxStatistics carol@demo.test | select -expand ItemCount").strip()
    time.sleep(1)
    second = server.shell("Get-MailboxStatistics carol@demo.test | select -expand ItemCount").strip()
    assert first == second
    assert 0 < int(second) < 30_000
    terminal.type("exit")
    time.sleep(0.5)
    assert terminal.screen().rstrip().endswith("letterlock> exit")
