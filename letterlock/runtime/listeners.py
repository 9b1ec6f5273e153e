"""Listening sockets of one service: bound all or nothing, kept over a restart where the binding stays.

A socket that is kept goes on queueing connections while the settings behind it change: a restart refuses nobody.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from typing import Final

from letterlock.base.errors import Refused
from letterlock.base.values import Binding
from letterlock.runtime.privileges import raised

BACKLOG: Final = 1024
PAUSE_S: Final = 0.1  # when the process has no descriptor left, or there is nobody to serve

# What a binding is for.
CLEAR: Final = "clear"  # with STARTTLS or STLS
IMPLICIT: Final = "implicit"  # TLS from the first octet
EXCEPTIONS_ONLY: Final = "exceptions"  # like CLEAR, for nobody but devices with a login exception

Wanted = dict[Binding, str]


class Listeners:
    """`accepted(socket, address, what for)` is called while `ready()` says that connections can be taken."""

    def __init__(
        self,
        name: str,
        warn: Callable[[str], None],
        accepted: Callable[[socket.socket, tuple[str, int], str], None],
        ready: Callable[[], bool],
    ) -> None:
        self.name, self._warn, self._accepted, self._ready = name, warn, accepted, ready
        self._sockets: dict[Binding, tuple[socket.socket, str]] = {}
        self._reading = False

    def bind(self, wanted: Wanted) -> Callable[[], None]:
        """Bind what is not bound yet, or raise `Refused` with nothing changed; what is answered makes it so."""
        new: dict[Binding, socket.socket] = {}
        try:
            for binding in wanted:
                if binding not in self._sockets:
                    sock = self.bound(binding)
                    if sock is not None:
                        new[binding] = sock
        except Refused:
            for sock in new.values():
                sock.close()
            raise

        def commit() -> None:
            self._stop_reading()
            for binding in [b for b in self._sockets if b not in wanted]:
                self._sockets.pop(binding)[0].close()
            for binding, door in wanted.items():
                kept = new.get(binding) or (self._sockets[binding][0] if binding in self._sockets else None)
                if kept is not None:
                    self._sockets[binding] = (kept, door)
            self._start_reading()

        return commit

    def close(self) -> None:
        """Listen no more."""
        self._stop_reading()
        for sock, _ in self._sockets.values():
            sock.close()
        self._sockets.clear()

    def bound(self, binding: Binding) -> socket.socket | None:
        """A socket that listens; None where the host has no IPv6 at all; `Refused` with one clear line."""
        family = socket.AF_INET6 if binding.ipv6 else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError:
            if binding.address == "::":
                self._warn(f"{self.name}: this host has no IPv6, {binding} is left out")
                return None
            raise Refused(f"{self.name} cannot listen on {binding}: this host has no such address family") from None
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if binding.ipv6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            with raised():
                sock.bind((binding.address, binding.port))
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            if binding.address == "::" and error.errno == errno.EADDRNOTAVAIL:
                self._warn(f"{self.name}: this host has no IPv6, {binding} is left out")
                return None
            # uvloop's errors have no strerror
            raise Refused(f"{self.name} cannot listen on {binding}: {os.strerror(error.errno or 0)}") from None
        return sock

    def _start_reading(self) -> None:
        loop = asyncio.get_running_loop()
        for sock, door in self._sockets.values():
            loop.add_reader(sock.fileno(), self._readable, sock, door)
        self._reading = True

    def _stop_reading(self) -> None:
        if self._reading:
            loop = asyncio.get_running_loop()
            for sock, _ in self._sockets.values():
                loop.remove_reader(sock.fileno())
        self._reading = False

    def _pause(self) -> None:
        self._stop_reading()
        asyncio.get_running_loop().call_later(PAUSE_S, self._resume)

    def _resume(self) -> None:
        if not self._reading and self._sockets:
            self._start_reading()

    def _readable(self, listener: socket.socket, door: str) -> None:
        # One a turn: the loop comes back at once while there are more, and asking in vain costs a system call.
        if not self._ready():
            self._pause()
            return
        try:
            sock, address = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            self._warn(f"{self.name}: a connection could not be accepted: {os.strerror(error.errno or 0)}")
            self._pause()
            return
        sock.setblocking(False)
        self._accepted(sock, (str(address[0]), int(address[1])), door)
