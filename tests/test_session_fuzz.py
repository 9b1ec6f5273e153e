"""Any octets in any pieces: a session answers or closes, raises nothing, and keeps no more than its limits."""

from __future__ import annotations

import asyncio
import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from letterlock.session import Next
from letterlock.store.sqlite import SqliteStore
from tests.dialogue import BOX, MESSAGES, OwnPeer
from tests.store.support import put

LONG = bool(os.environ.get("LETTERLOCK_LONG"))
MOST = 200_000  # octets a session may hold for a client that does not wait for answers

NAMES = [
    b"INBOX",
    b"inbox",
    b"x",
    b'"x y"',
    b"{1+}\r\nz",
    b"&U,BTFw-",
    b"&bad",
    b'""',
    b"*",
    b"a/b/c",
    b"\xff",
    b"Sent",
]
SETS = [b"1", b"1:*", b"*", b"2,1", b"$", b"0", b"4294967295", b"1:4294967295", b"5:3", b"1,", b"9" * 50, b"*:*"]
ITEMS = [
    b"FLAGS", b"(UID FLAGS)", b"ALL", b"FULL", b"BODY[]", b"BODY.PEEK[1.2.MIME]", b"BODY[HEADER.FIELDS (a b)]<0.5>",
    b"(BODY[1] BODYSTRUCTURE ENVELOPE)", b"BODY[", b"BODY[]<1>", b"PREVIEW (LAZY)", b"(FLAGS) (CHANGEDSINCE 1)",
    b"(MODSEQ)", b"RFC822", b"BODY[HEADER.FIELDS ({1+}\r\nx)]", b"((((", b"%s%d%b", b"BODY[2.TEXT]", b"INTERNALDATE",
]  # fmt: skip
KEYS = [
    b"ALL", b"SEEN", b"NOT", b"OR", b"(", b")", b"1:*", b"UID 1", b"SUBJECT x", b'HEADER "a%" ""', b"BODY {1+}\r\n\xe4",
    b"BEFORE 1-Jan-2000", b"ON 31-Feb-1999", b"LARGER 1", b"KEYWORD $x", b"MODSEQ 1", b"YOUNGER 10", b"CHARSET UTF-8",
    b"RETURN (MIN SAVE)", b"RETURN ()", b"TEXT %_\\", b"OLD", b"SENTSINCE 1-Jan-0001", b"$", b"*",
    b"SMALLER " + b"9" * 30,
]  # fmt: skip
FLAGS = [
    b"(\\Seen)",
    b"()",
    b"\\Deleted",
    b"($k1 $k2)",
    b"(\\*)",
    b"(\\Recent)",
    b"(" + b"a " * 150 + b"b)",
    b"(",
    b"(%d)",
]


def commands(rng: random.Random) -> bytes:
    """A command that is nearly right."""
    pick = rng.choice
    made: list[Callable[[], bytes]] = [
        lambda: pick([b"", b"UID "]) + b"FETCH " + pick(SETS) + b" " + pick(ITEMS),
        lambda: pick([b"", b"UID "]) + b"STORE " + pick(SETS) + b" " + pick([b"", b"(UNCHANGEDSINCE 1) "])
        + pick([b"+FLAGS", b"-FLAGS", b"FLAGS", b"FLAGS.SILENT", b"*FLAGS"]) + b" " + pick(FLAGS),
        lambda: pick([b"", b"UID "]) + b"SEARCH " + b" ".join(rng.choices(KEYS, k=rng.randrange(1, 6))),
        lambda: pick([b"COPY ", b"MOVE ", b"UID COPY ", b"UID MOVE "]) + pick(SETS) + b" " + pick(NAMES),
        lambda: pick([b"SELECT ", b"EXAMINE ", b"CREATE ", b"DELETE ", b"SUBSCRIBE ", b"UNSUBSCRIBE "]) + pick(NAMES),
        lambda: b"RENAME " + pick(NAMES) + b" " + pick(NAMES),
        lambda: b"STATUS " + pick(NAMES) + b" " + pick([b"(MESSAGES)", b"()", b"(HIGHESTMODSEQ SIZE)", b"x"]),
        lambda: pick([b"LIST ", b"LSUB "]) + pick([b"", b"(SUBSCRIBED RECURSIVEMATCH) ", b"(", b"(SPECIAL-USE) "])
        + pick(NAMES) + b" " + pick([b"*", b"%", b"(a b*)", b'""', b"%*%*%", b"&"])
        + pick([b"", b" RETURN (STATUS (MESSAGES))", b" RETURN (CHILDREN", b" RETURN ()"]),
        lambda: b"APPEND " + pick(NAMES) + b" " + pick([b"", b"(\\Seen) ", b'"01-Jan-0001 00:00:00 +2359" ', b"UTF8 "])
        + pick([b"{3+}\r\nabc", b"{0+}\r\n", b"{3+}\r\nabc {2+}\r\nxy", b"{3}\r\nabc", b"{9999999999}", b"{1+}\r\nab"]),
        lambda: pick([b"NOOP", b"CHECK", b"CLOSE", b"UNSELECT", b"EXPUNGE", b"UID EXPUNGE 1:*", b"NAMESPACE"]),
        lambda: pick([b"IDLE\r\nDONE", b"IDLE\r\nx", b'ID ("a" NIL)', b"ENABLE CONDSTORE", b"ID (", b"CAPABILITY"]),
        lambda: pick([b"LOGIN a {1+}\r\nb", b"LOGIN a", b"STARTTLS", b"LOGOUT"]),
        lambda: pick([b"AUTHENTICATE PLAIN\r\n*", b"AUTHENTICATE LOGIN\r\nYQ==\r\nYg==", b"AUTHENTICATE PLAIN AAAA"]),
    ]  # fmt: skip
    return b"t%d " % rng.randrange(1000) + pick(made)() + b"\r\n"


def mutated(rng: random.Random, data: bytes) -> bytes:
    """Sometimes with octets changed, doubled or missing."""
    if rng.random() < 0.6:
        return data
    out = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(out) or 1)
        kind = rng.randrange(4)
        if kind == 0 and out:
            out[min(at, len(out) - 1)] = rng.randrange(256)
        elif kind == 1:
            del out[at : at + rng.randrange(1, 5)]
        elif kind == 2:
            out[at:at] = out[at : at + 8]
        else:
            out[at:at] = rng.choice([b'"', b"{5}\r\n", b"{5+}\r\n", b"(", b")", b"\r\n", b"\0", b"\\", b" ", b"%s"])
    return bytes(out)


POP = [
    b"USER alice", b"PASS secret 1", b"STAT", b"LIST", b"LIST 1", b"UIDL", b"RETR 1", b"TOP 1 1", b"TOP 2 99999999999",
    b"DELE 1", b"RSET", b"NOOP", b"CAPA", b"AUTH PLAIN", b"AUTH LOGIN YQ==", b"*", b"XYZ", b"RETR " + b"9" * 40,
]  # fmt: skip


def stream(rng: random.Random, protocol: str) -> bytes:
    """What a hostile client sends."""
    count = rng.randrange(3, 25)
    if protocol == "imap":
        return b"".join(mutated(rng, commands(rng)) for _ in range(count))
    return b"".join(mutated(rng, rng.choice(POP) + b"\r\n") for _ in range(count))


async def feed(peer: OwnPeer, data: bytes, rng: random.Random) -> None:
    """In pieces; checks the bounds after each."""
    at = 0
    while at < len(data) and peer.step is not Next.CLOSE:
        size = rng.choice([1, 2, 7, 100, 5000, len(data)])
        peer.session.receive(data[at : at + size])
        peer.step = await peer.session.advance()
        at += size
        peer.session.out.clear()
        if rng.random() < 0.1:
            peer.session.changed()
        if peer.step is Next.START_TLS:
            return
        held = getattr(peer.session, "reader", peer.session).buffer  # type: ignore[attr-defined]
        assert len(held) < MOST
    peer.session.receive(b"")
    if peer.step is not Next.CLOSE:
        assert await peer.session.advance() is Next.CLOSE
    peer.session.ended()


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
@pytest.mark.parametrize(
    "words", [frozenset[str](), frozenset({"clear"}), frozenset({"new"})], ids=["in", "clear", "tls"]
)
def test_nearly_right_commands(tmp_path: Path, protocol: str, words: frozenset[str]) -> None:
    async def play() -> None:
        store = SqliteStore(tmp_path, inline=True)
        await store.create_mailbox(BOX)
        inbox = await store.mailbox(BOX).folder("INBOX")
        await put(store.mailbox(BOX), inbox, MESSAGES["parts"], MESSAGES["nothing"], MESSAGES["forwarded"])
        for seed in range(4000 if LONG else 250):
            rng = random.Random(seed)
            peer = OwnPeer(protocol, store, words)
            if not words:
                login = b'l LOGIN alice "secret 1"\r\n' if protocol == "imap" else b"USER alice\r\nPASS secret 1\r\n"
                await peer.send(login + (b"s SELECT INBOX\r\n" if protocol == "imap" else b""))
            data = stream(rng, protocol)
            try:
                await feed(peer, data, rng)
            except Exception as error:
                raise AssertionError(f"seed {seed}: {data!r}") from error
        await store.close()

    asyncio.run(play())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=2000), st.sampled_from(["imap", "pop3"]), st.integers(0, 2**32))
def test_any_octets(data: bytes, protocol: str, seed: int) -> None:
    async def play() -> None:
        with tempfile.TemporaryDirectory() as directory:
            store = SqliteStore(Path(directory), inline=True)
            await store.create_mailbox(BOX)
            await feed(OwnPeer(protocol, store, frozenset({"new"})), data, random.Random(seed))
            await store.close()

    asyncio.run(play())


@pytest.mark.parametrize(
    "data",
    [b"a" * 1000, b"a LOGIN {2000+}\r\n" + b"x" * 1000, b"(" * 1000, b"\r\n" * 500, b'a LOGIN "' + b"\\\\" * 500],
    ids=["line", "literal", "parentheses", "ends", "quotes"],
)
@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_memory_before_login_is_bounded_however_much_comes(tmp_path: Path, protocol: str, data: bytes) -> None:
    async def play() -> None:
        store = SqliteStore(tmp_path, inline=True)
        await store.create_mailbox(BOX)
        peer = OwnPeer(protocol, store, frozenset({"new"}))
        for _ in range(2000):
            peer.session.receive(data)
            peer.step = await peer.session.advance()
            assert sum(map(len, peer.session.out)) < 1_000_000
            peer.session.out.clear()
            assert len(getattr(peer.session, "reader", peer.session).buffer) < 40_000  # type: ignore[attr-defined]
            if peer.step is Next.CLOSE:
                break
        await store.close()

    asyncio.run(play())
