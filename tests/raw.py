"""A socket that reads lines, for what no well-behaved client sends."""

from __future__ import annotations

import socket

from tests.clients.server import Server


class Raw:
    """A socket that reads lines."""

    def __init__(self, port: int, address: str = "127.0.0.1") -> None:
        self.sock: socket.socket = socket.create_connection(("127.0.0.1", port), 20, source_address=(address, 0))
        self.buffer = b""

    def line(self) -> bytes:
        while b"\n" not in self.buffer:
            try:
                data = self.sock.recv(65536)
            except ConnectionError:
                return b""
            if not data:
                return b""
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line + b"\n"

    def until(self, start: bytes) -> bytes:
        while line := self.line():
            if line.startswith(start):
                return line
        return b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def rest(self) -> bytes:
        """Everything until the server closes."""
        try:
            while data := self.sock.recv(65536):
                self.buffer += data
        except OSError:
            pass
        return self.buffer

    def tls(self, server: Server) -> None:
        assert not self.buffer
        self.sock = server.context().wrap_socket(self.sock, server_hostname="localhost")

    def close(self) -> None:
        self.sock.close()
