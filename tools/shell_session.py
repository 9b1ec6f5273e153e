"""Plays the shell sessions of a page or transcript on a server of their own, and compares or rewrites them.

    tools/shell_session.py check|write docs/shell.md …

A session is a block between ```console and ```, a comment `<!-- console`, or a whole .txt file. `PS> ` begins a
command, `>> ` continues it, and what follows is its output (standard error with it); `### ` begins a command whose
output is not kept. What differs from run to run (thumbprints, dates, durations, ports, the data directory) is replaced
by fixed values first.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAM = str(Path(sys.executable).parent / "letterlock")
PASSWORD = "correct horse 7"
MARK = "=== next ==="
PORTS = (143, 993, 110, 995, 25, 587, 465, 24, 1993, 1995, 443)
THUMBPRINTS = tuple(f"{first}B2470C7C8C049BA0E908318588320918D23C1{first}0" for first in "28A4CE")
BLOCK = re.compile(r"(?:(?<=^```console\n)|(?<=^<!-- console\n)).*?(?=^```$|^-->$)", re.DOTALL | re.MULTILINE)


def offset() -> int:
    """A port offset at which nobody listens."""
    for candidate in range(21000, 45000, 1500):
        try:
            for port in PORTS:
                with socket.socket() as s:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    s.bind(("0.0.0.0", candidate + port))
        except OSError:
            continue
        return candidate
    raise SystemExit("no free ports")


class Host:
    """A data directory with a server, and shells on it."""

    def __init__(self, directory: Path, hostname: str = "mail.contoso.com", server: str = "EX2016SRV1") -> None:
        self.data, self.directory, self.offset = directory / "data", directory, offset()
        self.process: subprocess.Popen[str] | None = None
        self.seen: dict[str, str] = {}
        where = ["--hostname", hostname, "--server", server, "--port-offset", str(self.offset)]
        subprocess.run([PROGRAM, "init", "--data", str(self.data), *where], check=True)

    def start(self) -> None:
        """Serve."""
        with (self.directory / "stderr").open("w") as errors:
            words = [PROGRAM, "serve", "--data", str(self.data), "--workers", "1"]
            self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "letterlock: ready\n":
            raise SystemExit((self.directory / "stderr").read_text())

    def stop(self) -> None:
        """Until it has ended."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)

    def run(self, commands: list[str]) -> list[str]:
        """Run in one shell; each command's output."""
        words = [PROGRAM, "shell", "--data", str(self.data)]
        for command in commands:
            words += ["-c", f"Write-Host '{MARK}'", "-c", command]
        environment = {**os.environ, "LETTERLOCK_PASSWORD": PASSWORD}
        done = subprocess.run(
            words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env=environment,
            timeout=120,
            cwd=self.directory,
        )
        outputs = done.stdout.split(f"{MARK}\n")[1:]
        return [self.steady(text) for text in outputs] + [""] * (len(commands) - len(outputs))

    def steady(self, text: str) -> str:
        """The same from run to run."""
        text = text.replace(str(self.data), "/srv/mail")
        for port in sorted(PORTS, reverse=True):
            text = re.sub(rf"\b{self.offset + port}\b", str(10000 + port), text)
        for found in re.findall(r"\b[0-9A-F]{40}\b", text):
            self.seen.setdefault(found, THUMBPRINTS[len(self.seen) % len(THUMBPRINTS)])
            text = text.replace(found, self.seen[found])
        text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?=\+00:00|Z)", "2027-01-31T08:00:00", text)
        text = re.sub(r"(?m) +\d+\.\d\d(?= |$)", lambda m: f"{'12.34':>{len(m[0])}}", text)
        return re.sub(r"\b\d+\.\d\d ms", "12.34 ms", text)


def parsed(session: str) -> list[tuple[str, str, str]]:
    """(prompt, command, output) of each command."""
    found: list[list[str]] = []
    for line in session.split("\n"):
        if line.startswith(("PS> ", "### ")):
            found.append([line[:4], line[4:], ""])
        elif line.startswith(">> ") and found and not found[-1][2]:
            found[-1][1] += "\n" + line[3:]
        elif found:
            found[-1][2] += line + "\n"
    return [(p, c, o.removesuffix("\n")) for p, c, o in found]


def played(session: str, host: Host) -> str:
    """The session with the output that its commands have now."""
    commands = parsed(session)
    outputs = host.run([command for _, command, _ in commands])
    text = ""
    for (prompt, command, _), output in zip(commands, outputs, strict=True):
        text += prompt + command.replace("\n", "\n>> ") + "\n"
        text += (
            output.rstrip("\n") + "\n" * (2 if output.endswith("\n\n") else 1) if output and prompt == "PS> " else ""
        )
    return text


def renewed(text: str, whole: bool, host: Host) -> str:
    """A page with all its sessions played again."""
    if whole:
        return played(text, host)
    return BLOCK.sub(lambda m: played(m[0], host), text)


def play(path: Path) -> str:
    """What the file should hold now."""
    with tempfile.TemporaryDirectory(prefix="letterlock-session-") as directory:
        host = Host(Path(directory))
        host.start()
        try:
            return renewed(path.read_text(), path.suffix == ".txt", host)
        finally:
            host.stop()


def main() -> int:
    stale = 0
    for name in sys.argv[2:]:
        path = Path(name)
        text = play(path)
        if sys.argv[1] == "write":
            path.write_text(text)
        elif path.read_text() != text:
            print(f"{path} is stale: run tools/shell_session.py write {path}")
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
