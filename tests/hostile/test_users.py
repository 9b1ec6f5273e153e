"""Who exists, who may log in, whose mail it is: nothing tells, nothing is mixed up."""

from __future__ import annotations

import gc
import statistics
import threading
import time
import weakref

import pytest

from letterlock.store.sqlite import SqliteStore
from tests.clients.server import PASSWORD, Server
from tests.dialogue import OwnPeer
from tests.raw import Raw


def attempt(server: Server, user: str, password: str, address: str) -> tuple[float, bytes]:
    """Seconds and the tagged answer of one LOGIN from an address of its own."""
    raw = Raw(server.imaps, address)
    raw.tls(server)
    raw.line()
    start = time.perf_counter()
    raw.send(f'a LOGIN {user} "{password}"\r\n'.encode())
    answer = raw.until(b"a ")
    taken = time.perf_counter() - start
    raw.close()
    return taken, answer


def test_user_enumeration_by_time_and_words(server: Server) -> None:
    """WildDuck #68, and every server that hashes only for users it has."""
    known, unknown = [], []
    answers = set()
    for n in range(8):
        for user, times in ((f"user{n}@demo.test", known), (f"nobody{n}@demo.test", unknown)):
            taken, answer = attempt(server, user, "wrong", f"127.1.{n}.{len(known) + 1}")
            times.append(taken)
            answers.add(answer)
    assert len(answers) == 1, answers
    here, away = statistics.median(known), statistics.median(unknown)
    assert 0.5 < here / away < 2, (known, unknown)


def test_user_enumeration_by_limit_and_switch(server: Server) -> None:
    """A full or switched-off mailbox says so only to who has the password."""
    held = [server.imap_client("alice@demo.test") for _ in range(16)]
    server.run("set-casmailbox", "bob@demo.test", "--imap-enabled", "false")
    try:
        _, full = attempt(server, "alice@demo.test", "wrong", "127.2.0.1")
        _, off = attempt(server, "bob@demo.test", "wrong", "127.2.0.2")
        _, nobody = attempt(server, "nobody@demo.test", "wrong", "127.2.0.3")
        assert full == off == nobody
        _, right = attempt(server, "alice@demo.test", PASSWORD, "127.2.0.4")
        assert right.startswith(b"a NO [LIMIT]")
        _, right = attempt(server, "bob@demo.test", PASSWORD, "127.2.0.5")
        assert right.startswith(b"a NO [CONTACTADMIN]")
    finally:
        for client in held:
            client.logout()
        server.run("set-casmailbox", "bob@demo.test", "--imap-enabled", "true")


@pytest.mark.parametrize(
    "name",
    [
        "' OR 1=1 --", "alice@demo.test' --", "%{user}", "${HOME}", "*)(uid=*", "alice@demo.test\\00", "../alice",
        "%s%n", "alice@demo.test,bob@demo.test", "{alice}", "alice@demo.test;x", "\uff21LICE@demo.test", "a" * 900,
    ],
)  # fmt: skip
def test_injection_into_the_directory(server: Server, name: str) -> None:
    """Dovecot CVE-2026-24031, CVE-2026-27860, CVE-2017-2669."""
    raw = Raw(server.imaps, f"127.3.{len(name) % 250}.{sum(name.encode()) % 250 + 1}")
    raw.tls(server)
    raw.line()
    data = name.encode()
    raw.send(b"a LOGIN {%d+}\r\n%b {%d+}\r\n%b\r\n" % (len(data), data, len(PASSWORD), PASSWORD.encode()))
    assert raw.until(b"a ").startswith(b"a NO [AUTHENTICATIONFAILED]")
    raw.close()


def test_another_users_mail_is_never_seen(server: Server) -> None:
    """Dovecot CVE-2025-30189, Stalwart #1842: equal folders, numbers, UIDs and sizes, asked for at the same moment."""
    people = ["alice@demo.test", "bob@demo.test", *(f"user{n}@demo.test" for n in range(4))]
    for person in people:
        server.fill([f"Subject: of {person:>20}\r\n\r\nfor {person:>20} only\r\n".encode()] * 3, person)
    faults: list[bytes] = []

    def look(person: str) -> None:
        for _ in range(10):
            client = server.imap_client(person)
            client.select()
            for items in ("(ENVELOPE)", "(BODY.PEEK[])", "(PREVIEW)", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])"):
                text = b"".join(b"".join(p) if isinstance(p, tuple) else p for p in client.fetch("1:3", items)[1])
                if text.count(person.encode()) < 3 or any(o.encode() in text for o in people if o != person):
                    faults.append(text)
            _, found = client.search(None, "BODY", f'"{person}"')
            if found != [b"1 2 3"]:
                faults.append(b"search")
            client.logout()

    threads = [threading.Thread(target=look, args=(person,)) for person in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults, faults[:1]


def test_a_new_mailbox_of_an_old_name_is_empty(server: Server) -> None:
    """Stalwart #1842."""
    user = "user7@demo.test"
    server.fill([b"Subject: secret\r\n\r\nsecret\r\n"], user)
    client = server.imap_client(user)
    client.select()
    before = client.response("UIDVALIDITY")[1]
    server.run("remove-mailbox", user)
    server.run("new-mailbox", user, "--password", PASSWORD)
    again = server.imap_client(user)
    assert again.select() == ("OK", [b"0"])
    assert again.response("UIDVALIDITY")[1] != before or before is None
    assert again.search(None, "ALL")[1] == [b""]
    again.logout()


def test_aborted_sasl_leaks_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Dovecot CVE-2017-15132: every exchange that is broken off is forgotten."""
    import asyncio

    async def play() -> list[weakref.ref[object]]:
        store = SqliteStore(tmp_path_factory.mktemp("sasl"), inline=True)
        await store.create_mailbox("0" * 32)
        seen: list[weakref.ref[object]] = []
        for sent in (
            b"a AUTHENTICATE PLAIN\r\n",
            b"a AUTHENTICATE LOGIN\r\nYQ==\r\n",
            b"a AUTHENTICATE PLAIN\r\n*\r\n",
        ):
            for _ in range(200):
                peer = OwnPeer("imap", store, frozenset({"new"}))
                await peer.send(sent)
                seen.append(weakref.ref(peer.session))
                peer.close()
        for _ in range(200):
            peer = OwnPeer("pop3", store, frozenset({"new"}))
            await peer.send(b"AUTH LOGIN\r\nYQ==\r\n")
            seen.append(weakref.ref(peer.session))
            peer.close()
        await store.close()
        return seen

    seen = asyncio.run(play())
    gc.collect()
    assert len([r for r in seen if r() is not None]) == 0
