"""The line between supervisor and worker: whole messages over a SOCK_SEQPACKET pair, a socket along with some.

Both sides are ours and of one version. A message is a JSON list, its first item says what it is; log rows travel as
they are behind one octet. Sending never waits: what the other side does not take at once is queued.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, Final

MAX_MESSAGE: Final = 65536
SENDABLE: Final = 60000  # what a sender may put into one message
_BUFFER: Final = 1 << 20


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends; raises OSError where the system has no such sockets."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        end.setblocking(False)
    return ours, theirs


class Link:
    """One end. `received(message, socket or None)`, `rows(data)` and `closed()` are called in the event loop."""

    def __init__(
        self,
        sock: socket.socket,
        received: Callable[[list[Any], socket.socket | None], None],
        rows: Callable[[bytes], None],
        closed: Callable[[], None],
    ) -> None:
        self._sock = sock
        self._received, self._rows, self._closed = received, rows, closed
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[bytes, socket.socket | None]] = deque()
        self._open = True
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def behind(self) -> int:
        """Messages that the other side has not taken yet."""
        return len(self._waiting)

    def send(self, message: list[Any], passed: socket.socket | None = None) -> None:
        """Send; `passed` is closed here once it is on its way."""
        self._put(json.dumps(message).encode(), passed)

    def send_rows(self, service: int, data: bytes) -> None:
        """Log rows of a service, by its number; at most SENDABLE octets."""
        self._put(b"L%c" % service + data, None)

    def _put(self, data: bytes, passed: socket.socket | None) -> None:
        if not self._open:
            if passed is not None:
                passed.close()
            return
        if self._waiting or not self._send(data, passed):
            if not self._waiting:
                self._loop.add_writer(self._sock.fileno(), self._writable)
            self._waiting.append((data, passed))

    def _send(self, data: bytes, passed: socket.socket | None) -> bool:
        try:
            if passed is None:
                self._sock.send(data)
            else:
                socket.send_fds(self._sock, [data], [passed.fileno()])
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self.close()
        if passed is not None:
            passed.close()
        return True

    def _writable(self) -> None:
        while self._waiting and self._send(*self._waiting[0]):
            if self._waiting:
                self._waiting.popleft()
        if self._open and not self._waiting:
            self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        # One a turn: the loop comes back at once while there are more, and asking in vain costs a system call.
        try:
            data, descriptors, _, _ = socket.recv_fds(self._sock, MAX_MESSAGE, 1, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data, descriptors = b"", []
        if not data:
            self.close()
        elif data[:1] == b"L":
            self._rows(data[1:])
        else:
            self._received(json.loads(data), socket.socket(fileno=descriptors[0]) if descriptors else None)

    def close(self) -> None:
        """No more; the other side sees it."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        for _, passed in self._waiting:
            if passed is not None:
                passed.close()
        self._waiting.clear()
        self._sock.close()
        self._closed()
