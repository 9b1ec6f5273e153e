"""An IMAP server of a few folders that a test bends to its purpose."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from pathlib import Path

import trustme


class Imap:
    """Answers what an import asks. Each of the attributes is one way to misbehave."""

    def __init__(self, directory: Path, implicit: bool = True, name: str = "127.0.0.1") -> None:
        authority = trustme.CA()
        self.trust = directory / "authority.pem"
        authority.cert_pem.write_to_path(self.trust)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(self.context)
        self.implicit = implicit
        self.greeting = b"* OK ready\r\n"
        self.clear_capabilities = b"IMAP4rev1 STARTTLS LOGINDISABLED"
        self.capabilities = b"IMAP4rev1 AUTH=PLAIN SASL-IR"
        self.after_starttls = b""
        self.login_answer = b"OK logged in"
        self.listing: list[bytes] = [b'* LIST () "/" INBOX\r\n']
        self.folders: dict[bytes, list[bytes]] = {b"INBOX": []}
        self.uidvalidity = 7
        self.before_fetch = b""  # unasked answers
        self.size: int | None = None  # announced instead of the true one
        self.literal: int | None = None  # likewise, in the message's literal
        self.cut_after = -1  # messages until the line breaks
        self.received: list[bytes] = []
        self.fetched: list[int] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            self._talk(sock)
        except OSError:
            pass
        finally:
            sock.close()

    def _talk(self, sock: socket.socket) -> None:
        secure = self.implicit
        if secure:
            sock = self.context.wrap_socket(sock, server_side=True)
        file = sock.makefile("rwb")
        file.write(self.greeting)
        file.flush()
        selected: list[bytes] = []
        while line := file.readline():
            self.received.append(line)
            tag, _, command = line.strip().partition(b" ")
            word = command.upper().split(b" ")[0]
            if command.endswith(b"}"):
                file.write(b"+ go on\r\n")
                file.flush()
                file.read(int(command[command.rindex(b"{") + 1 : -1]))
                file.readline()
                command = b'EXAMINE ""'
            if command.upper() == b"STARTTLS":
                sock.sendall(tag + b" OK begin\r\n" + self.after_starttls)
                sock = self.context.wrap_socket(sock, server_side=True)
                file, secure = sock.makefile("rwb"), True
                continue
            answer = b"OK done"
            if word == b"CAPABILITY":
                known = self.capabilities if secure else self.clear_capabilities
                file.write(b"* CAPABILITY " + known + b"\r\n")
            elif word == b"AUTHENTICATE":
                answer = self.login_answer
            elif word == b"LIST":
                file.write(b"".join(self.listing))
            elif word == b"EXAMINE":
                selected = self.folders.get(command.split(b'"')[1], [])
                file.write(b"* %d EXISTS\r\n* OK [UIDVALIDITY %d] x\r\n" % (len(selected), self.uidvalidity))
            elif word == b"FETCH":
                for number, raw in enumerate(selected, 1):
                    size = len(raw) if self.size is None else self.size
                    file.write(b"* %d FETCH (RFC822.SIZE %d UID %d)\r\n" % (number, size, number * 10))
            elif command.upper().startswith(b"UID FETCH"):
                file.write(self.before_fetch)
                for uid in map(int, re.findall(rb"\d+", command.split(b" ")[2])):
                    if len(self.fetched) == self.cut_after:
                        file.write(b"* %d FETCH (UID %d BODY[] {1000}\r\nhalf" % (uid // 10, uid))
                        file.flush()
                        sock.shutdown(socket.SHUT_RDWR)
                        return
                    raw = selected[uid // 10 - 1]
                    self.fetched.append(uid)
                    size = len(raw) if self.literal is None else self.literal
                    file.write(b"* %d FETCH (FLAGS (\\Seen) UID %d BODY[] {%d}\r\n" % (uid // 10, uid, size))
                    file.write(raw + b' INTERNALDATE "17-Jul-1996 02:44:25 -0700")\r\n')
            elif word == b"LOGOUT":
                file.write(b"* BYE\r\n")
            file.write(tag + b" " + answer + b"\r\n")
            file.flush()
