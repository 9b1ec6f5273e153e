"""How sessions are ended from outside: the running command finishes, then the protocol's goodbye.

A command may take STOP_S. A patient farewell (restart, one session ended) lets one go on for as long as its client
takes what is sent; nobody waits for it, and one that stands for STOP_S is cut off.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from letterlock.runtime.connection import Connection

STOP_S: Final = 10.0
LOOK_S: Final = 0.5  # so often is looked whether a command still gets anywhere


async def end(connections: list[Connection], patient: bool = False) -> None:
    """End these sessions; all but those that may go on have ended when this returns."""
    for connection in connections:
        connection.stop()
    until = time.monotonic() + STOP_S
    waiting = [c for c in connections if not c.gone]
    while waiting and time.monotonic() < until:
        await asyncio.sleep(0.01)
        waiting = [c for c in waiting if not c.gone]
    for connection in waiting:
        if patient:
            _look_again(connection, connection.sent, time.monotonic())
        else:
            connection.transport.abort()


def _look_again(connection: Connection, sent: int, since: float) -> None:
    connection.loop.call_later(LOOK_S, _look, connection, sent, since)


def _look(connection: Connection, sent: int, since: float) -> None:
    if connection.gone:
        return
    if connection.sent != sent:
        sent, since = connection.sent, time.monotonic()
    if time.monotonic() - since > STOP_S:
        connection.transport.abort()
    else:
        _look_again(connection, sent, since)
