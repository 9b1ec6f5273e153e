"""A raw IMAP client, as cheap as Python allows: what is measured is the server."""

from __future__ import annotations

import re
import socket
import ssl
from pathlib import Path

LITERAL = re.compile(rb"\{(\d+)\}\r\n$")


class Client:
    """One connection; commands are sent as bytes and answered when the tagged line has come."""

    def __init__(self, port: int, ca: Path, hostname: str = "localhost") -> None:
        context = ssl.create_default_context(cafile=str(ca))
        raw = socket.create_connection(("127.0.0.1", port))
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = context.wrap_socket(raw, server_hostname=hostname)
        self.buffer = b""
        self.number = 0
        self.greeting = self.line()

    def line(self) -> bytes:
        """One line, without its literals' meaning."""
        while (end := self.buffer.find(b"\n")) < 0:
            self._more()
        line, self.buffer = self.buffer[: end + 1], self.buffer[end + 1 :]
        return line

    def _more(self) -> None:
        data = self.socket.recv(262144)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.buffer += data

    def command(self, text: bytes) -> bytes:
        """Send one command, return everything up to and including its tagged OK line."""
        self.number += 1
        tag = b"A%d" % self.number
        self.socket.sendall(tag + b" " + text + b"\r\n")
        return self.until(tag)

    def until(self, tag: bytes) -> bytes:
        """Everything up to the tagged line; raises when that is not OK."""
        ending = b"\r\n" + tag + b" "
        chunks = [self.buffer]
        tail = b"\r\n" + self.buffer
        self.buffer = b""
        while True:
            found = tail.find(ending)
            if found >= 0 and tail.find(b"\n", found + 2) >= 0:
                break
            data = self.socket.recv(262144)
            if not data:
                raise ConnectionError("the server closed the connection")
            chunks.append(data)
            tail = tail[-4096:] + data
        answer = b"".join(chunks)
        last = answer[answer.rfind(tag + b" ") :]
        if not last.startswith(tag + b" OK"):
            raise RuntimeError(last.decode("utf-8", "replace"))
        return answer

    def append(self, folder: bytes, message: bytes) -> None:
        """APPEND with a non-synchronizing literal (RFC 7888)."""
        self.command(b'APPEND "%b" {%d+}\r\n%b' % (folder, len(message), message))

    def login(self, user: str, password: str) -> None:
        """LOGIN."""
        self.command(f"LOGIN {user} {password}".encode())

    def close(self) -> None:
        """Drop the connection."""
        self.socket.close()
