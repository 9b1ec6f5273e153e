"""`kill -9` of the server and of its workers while four clients write: nothing acknowledged is lost or doubled.

The short form runs in `make test`; `LETTERLOCK_LONG=1` runs 200 kills.
"""

from __future__ import annotations

import contextlib
import imaplib
import os
import random
import re
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.clients.server import PASSWORD, Server

KILLS = 200 if os.environ.get("LETTERLOCK_LONG") else 6
LOST_CONNECTION = (imaplib.IMAP4.abort, imaplib.IMAP4.error, OSError)


class Writer(threading.Thread):
    """Appends, flags, moves and expunges in folders of its own; remembers what was acknowledged.

    `must`: markers whose APPEND got OK and that no acknowledged or unanswered EXPUNGE may have removed.
    `may`: markers that were under way when the connection broke: there or not, but never twice.
    """

    def __init__(self, server: Server, number: int) -> None:
        super().__init__(daemon=True)
        self.server, self.number = server, number
        self.random = random.Random(number)
        self.must: set[bytes] = set()
        self.may: set[bytes] = set()
        self.meaning: dict[tuple[str, int, int], bytes] = {}
        self.errors: list[str] = []
        self.done = threading.Event()
        self.user = server.users[number % len(server.users)]
        self.serial = 0

    def run(self) -> None:
        """Connects again whenever the server went away."""
        while not self.done.is_set():
            with contextlib.suppress(*LOST_CONNECTION):
                client = imaplib.IMAP4_SSL(
                    "localhost", self.server.imaps, ssl_context=self.server.context(), timeout=20
                )
                client.login(self.user, PASSWORD)
                folders = [f"w{self.number}", f"moved{self.number}"]
                for folder in folders:
                    client.create(folder)
                while not self.done.is_set():
                    self.step(client, folders)
            time.sleep(0.05)

    def step(self, client: imaplib.IMAP4_SSL, folders: list[str]) -> None:
        """One message in; sometimes one marked, moved or removed."""
        self.serial += 1
        marker = b"<%d.%d@example.com>" % (self.number, self.serial)
        size = 300_000 if self.serial % 25 == 0 else 200
        text = b"Message-ID: " + marker + b"\r\nSubject: x\r\n\r\n" + b"y" * size + b"\r\n"
        self.may.add(marker)
        status, answer = client.append(folders[0], "", None, text)  # type: ignore[arg-type]
        if status != "OK":
            return
        self.may.discard(marker)
        self.must.add(marker)
        found = re.search(rb"APPENDUID (\d+) (\d+)", answer[0])
        assert found
        self.learn(folders[0], int(found[1]), int(found[2]), marker)
        client.select(folders[0])
        choice = self.random.randrange(4)
        if choice == 0:
            client.uid("STORE", found[2].decode(), "+FLAGS", "(\\Flagged)")
        elif choice == 1:
            client.uid("MOVE", found[2].decode(), folders[1])
        elif choice == 2:
            # from here on a later EXPUNGE may remove it, also when this STORE's answer never comes
            self.must.discard(marker)
            self.may.add(marker)
            client.uid("STORE", found[2].decode(), "+FLAGS", "(\\Deleted)")
            if client.expunge()[0] == "OK":
                self.may.discard(marker)

    def learn(self, folder: str, uidvalidity: int, uid: int, marker: bytes) -> None:
        """A UID means one message, for ever."""
        known = self.meaning.setdefault((folder, uidvalidity, uid), marker)
        if known != marker:
            self.errors.append(f"{folder} UID {uid} was {known!r} and is {marker!r}")


def contents(server: Server, user: str, folder: str) -> list[tuple[int, int, bytes]]:
    """(UIDVALIDITY, UID, Message-ID) of every message."""
    client = server.imap_client(user)
    if client.select(folder, readonly=True)[0] != "OK":
        return []
    validity = int(client.response("UIDVALIDITY")[1][0])  # type: ignore[arg-type]
    _, answer = client.uid("FETCH", "1:*", "(UID BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")
    client.logout()
    rows = []
    for part in answer:
        if isinstance(part, tuple):
            uid = re.search(rb"UID (\d+)", part[0])
            assert uid
            rows.append((validity, int(uid[1]), part[1].split(b":", 1)[1].strip()))
    return rows


def check(server: Server, writers: list[Writer]) -> None:
    """What is there is what was acknowledged, no more than once, under the UIDs that were told."""
    for writer in writers:
        assert not writer.errors, writer.errors
        seen: list[bytes] = []
        for folder in (f"w{writer.number}", f"moved{writer.number}"):
            for validity, uid, marker in contents(server, writer.user, folder):
                seen.append(marker)
                writer.learn(folder, validity, uid, marker)
        assert not writer.errors, writer.errors
        assert len(seen) == len(set(seen)), "a message is there twice"
        lost = writer.must - set(seen)
        assert not lost, f"acknowledged and lost: {lost}"
        unexpected = set(seen) - writer.must - writer.may
        assert not unexpected, f"expunged and back, or never sent: {unexpected}"


@pytest.mark.timeout(60 + 12 * KILLS)
def test_kill_9_while_four_clients_write(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.start()
    writers = [Writer(server, n) for n in range(4)]
    rng = random.Random(7)
    try:
        for writer in writers:
            writer.start()
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.3, 1.5))
            if rng.random() < 0.5:  # one worker: the supervisor replaces it, the others go on
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(server.workers()), signal.SIGKILL)
                continue
            server.kill()
            server.start()
        for _ in range(600):  # a busy machine: the clients have begun late
            if sum(len(w.must) for w in writers) > 4 * KILLS:
                break
            time.sleep(0.1)
        for writer in writers:
            writer.done.set()
        for writer in writers:
            writer.join(60)
        assert sum(len(w.must) for w in writers) > 4 * KILLS, "the clients hardly got anything done"
        check(server, writers)
    finally:
        server.kill()
