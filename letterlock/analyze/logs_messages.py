"""What readers of servers' messages share: counting, and foreign octets as text."""

from __future__ import annotations

import re
from typing import Final

from letterlock.analyze.logs_lines import FileReport
from letterlock.analyze.logs_tally import Sessions
from letterlock.base.facts import LoginFact, Origin

MAX_ATTEMPTS: Final = 100  # of one line; more are not believed
BRACKETED: Final = re.compile(rb"\[([0-9a-fA-F.:]+)\]")


class Messages:
    """A reader of messages in one file."""

    def __init__(self, report: FileReport, sessions: Sessions) -> None:
        self.report = report
        self.sessions = sessions

    def origin(self, number: int, server: str = "") -> Origin:
        """Where a login was read."""
        return Origin(self.report.name, number, server)

    def count(self, fact: LoginFact, times: int = 1) -> None:
        """A login whose session does not have to be followed."""
        for _ in range(times):
            self.report.logins += 1
            self.sessions.tally.add(fact)


def plain_text(value: bytes | None, limit: int = 256) -> str:
    """Octets of a log as bounded text."""
    return (value or b"").decode("utf-8", "replace")[:limit]


def plain_address(value: bytes | None) -> str:
    """Without brackets; an IPv4 address in IPv6 form as IPv4."""
    text = plain_text(value, 64).strip("[]")
    return text[7:] if text.lower().startswith("::ffff:") else text
