"""Whether a server really refuses a clear-text log-on: tried with an invented user and a random password."""

from __future__ import annotations

import re
import secrets
from typing import Final

from letterlock.clients.outcomes import Failed, Outcome, quoted
from letterlock.clients.wire import Login
from letterlock.probe.walk import Walk

_UNSUPPORTED: Final = re.compile(rb"mechanism|unsupported|not supported|not available|unrecogni[sz]ed|unknown command"
                                 rb"|unknown auth|not enabled|not implemented|invalid command", re.I)  # fmt: skip


async def try_login(walk: Walk, mechanism: str) -> tuple[bool | None, str]:
    """Whether invented credentials were looked at in clear, and what the server said."""
    login = Login(f"letterlock-probe-{secrets.token_hex(4)}", secrets.token_urlsafe(12))
    try:
        await walk.ask(walk.client.login(login, mechanism))
    except Failed as failure:
        words = quoted(failure.answer) if failure.answer else failure.outcome.value
        if failure.outcome in (Outcome.POLICY_REFUSED, Outcome.CONNECTION_LOST):
            return False, words
        if failure.outcome in (Outcome.BAD_CREDENTIALS, Outcome.PROTOCOL_DISABLED, Outcome.BACK_END_DOWN):
            return True, words
        if failure.outcome is Outcome.LOGIN_FAILED:
            bad = re.match(rb"\S+ BAD\b|50[0-4]", failure.answer) or _UNSUPPORTED.search(failure.answer)
            return (False if bad else None), words
        return None, words
    return True, "the log-on of an invented user was accepted"
