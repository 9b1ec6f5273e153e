"""What is measured. Each workload does its operations over one TLS connection and says how many they were."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.client import Client
from benchmarks.peers import PASSWORD, Peer, users

MESSAGES = 10_000
WORDS = (
    *("invoice", "printer", "meeting", "delivery", "account", "server", "password", "certificate", "schedule"),
    *("quarterly", "budget", "shipment", "customer", "warehouse", "maintenance", "contract", "reminder", "attached"),
    *("regards", "project", "review", "update", "release", "migration"),
)


def message(number: int, size: int = 3072) -> bytes:
    """A plain message of about `size` octets; the same for the same number."""
    rng = random.Random(number)
    subject = " ".join(rng.choices(WORDS, k=5))
    head = (
        f"From: Sender {number % 97} <sender{number % 97}@example.com>\r\n"
        f"To: user0@bench.test\r\nCc: copy{number % 13}@example.com\r\n"
        f"Date: Tue, {1 + number % 28} Jan 2026 10:{number % 60:02}:00 +0000\r\nSubject: {subject}\r\n"
        f"Message-ID: <{number}.{rng.getrandbits(60)}@example.com>\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    )
    lines, length = [], len(head)
    while length < size:
        line = " ".join(rng.choices(WORDS, k=9)) + "\r\n"
        lines.append(line)
        length += len(line)
    if number % 500 == 0:
        lines.append("the needle in this haystack\r\n")
    return (head + "".join(lines)).encode()


def fill(peer: Peer) -> None:
    """The large mailbox: MESSAGES messages in INBOX, some flags set."""
    client = connect(peer)
    for number in range(MESSAGES):
        client.append(b"INBOX", message(number))
    client.command(b"SELECT INBOX")
    client.command(b"STORE 1:5000 +FLAGS.SILENT (\\Seen)")
    client.command(b"CREATE Copies")
    client.command(b"CREATE Appended")
    client.command(b"FETCH 1:* (ENVELOPE BODYSTRUCTURE)")  # caches are warm for all who have any
    client.command(b"LOGOUT")
    client.close()


def connect(peer: Peer, user: int = 0) -> Client:
    """Connected and logged in."""
    client = Client(peer.port, peer.ca, peer.hostname)
    client.login(users()[user], PASSWORD)
    return client


class Workload(NamedTuple):
    """`run(peer, client)` answers the number of operations; `client` is logged in, INBOX selected."""

    key: str
    title: str
    unit: str
    run: Callable[[Peer, Client], int]


def login(peer: Peer, _client: Client) -> int:
    """Connect, TLS handshake without resumption, LOGIN, LOGOUT."""
    for _ in range(400):
        client = connect(peer, 1)
        client.command(b"LOGOUT")
        client.close()
    return 400


def noop(_peer: Peer, client: Client) -> int:
    """NOOP with a folder selected."""
    for _ in range(10_000):
        client.command(b"NOOP")
    return 10_000


def append(_peer: Peer, client: Client) -> int:
    """Durable APPEND of 4 KiB."""
    data = message(1, 4096)
    for _ in range(1000):
        client.append(b"Appended", data)
    return 1000


def listing(items: bytes, rounds: int) -> Callable[[Peer, Client], int]:
    """FETCH of the whole folder."""

    def run(_peer: Peer, client: Client) -> int:
        for _ in range(rounds):
            client.command(b"FETCH 1:* (" + items + b")")
        return rounds * MESSAGES

    return run


def cold_listing(peer: Peer, _client: Client) -> int:
    """The first ENVELOPE listing of a new connection."""
    for _ in range(5):
        client = connect(peer)
        client.command(b"SELECT INBOX")
        client.command(b"FETCH 1:* (UID FLAGS RFC822.SIZE ENVELOPE)")
        client.command(b"LOGOUT")
        client.close()
    return 5 * MESSAGES


def uid_fetch(_peer: Peer, client: Client) -> int:
    """UID FETCH of one message's flags and body."""
    first = _first_uid(client)
    for n in range(4000):
        client.command(b"UID FETCH %d (FLAGS BODY.PEEK[])" % (first + n * 2))
    return 4000


def _first_uid(client: Client) -> int:
    answer = client.command(b"FETCH 1 (UID)")
    return int(answer.split(b"UID ")[1].split(b")")[0])


def single_store(_peer: Peer, client: Client) -> int:
    """STORE of one message."""
    for n in range(4000):
        client.command(b"STORE %d %bFLAGS (\\Flagged)" % (1 + n // 2, b"+" if n % 2 == 0 else b"-"))
    return 4000


def bulk_store(_peer: Peer, client: Client) -> int:
    """STORE of the whole folder, with answers."""
    for n in range(6):
        client.command(b"STORE 1:* %bFLAGS (\\Answered)" % (b"+" if n % 2 == 0 else b"-"))
    return 6 * MESSAGES


def copy(_peer: Peer, client: Client) -> int:
    """COPY of half the folder."""
    for _ in range(3):
        client.command(b"COPY 1:5000 Copies")
    return 15_000


def search_body(_peer: Peer, client: Client) -> int:
    """SEARCH BODY over the whole folder, one word that few messages hold and one that none holds."""
    for word in (b"needle", b"absentword") * 3:
        client.command(b"SEARCH BODY " + word)
    return 6 * MESSAGES


WORKLOADS = (
    Workload("login", "TLS login and logout", "login", login),
    Workload("noop", "NOOP", "command", noop),
    Workload("append", "APPEND 4 KiB, durable", "message", append),
    Workload("envelope", "ENVELOPE listing", "message", listing(b"UID FLAGS RFC822.SIZE ENVELOPE", 10)),
    Workload("envelope-new", "ENVELOPE listing, new connection", "message", cold_listing),
    Workload("flags", "FLAGS listing", "message", listing(b"UID FLAGS", 50)),
    Workload("bodies", "3 KiB bodies", "message", listing(b"UID BODY.PEEK[]", 4)),
    Workload("uid-fetch", "UID FETCH of one message", "command", uid_fetch),
    Workload("store", "STORE of one message", "command", single_store),
    Workload("bulk-store", "STORE of 10,000 messages", "message", bulk_store),
    Workload("copy", "COPY of 5,000 messages", "message", copy),
    Workload("search-body", "SEARCH BODY", "message", search_body),
)


def idle_memory(peer: Peer, connections: int) -> float:
    """Bytes (proportional set size) that one more idle TLS connection costs: logged in, INBOX selected, IDLE."""
    warm = [connect(peer, n % 50) for n in range(20)]
    before = peer.memory()
    clients = []
    for n in range(connections):
        client = connect(peer, 1 + n % 49)
        client.command(b"SELECT INBOX")
        client.socket.sendall(b"I IDLE\r\n")
        client.line()
        clients.append(client)
    used = (peer.memory() - before) / connections
    for client in (*warm, *clients):
        client.close()
    return used
