"""The dialogues of tests/dialogues, against our sessions; those marked neutral against Debian's Dovecot as well."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from letterlock.imap.commands import COMMANDS
from letterlock.pop3 import COMMANDS as POP3_COMMANDS
from letterlock.store.sqlite import SqliteStore
from tests.dialogue import BOX, Dialogue, DovecotHome, OwnPeer, Peer, all_of, run
from tests.programs import need
from tests.store.support import put

LOGIN = {"imap": b'login LOGIN alice "secret 1"\r\n', "pop3": b"USER alice\r\nPASS secret 1\r\n"}
EVERY = [(protocol, dialogue) for protocol in ("imap", "pop3") for dialogue in all_of(protocol)]
NEUTRAL = [(protocol, dialogue) for protocol, dialogue in EVERY if "neutral" in dialogue.words]


def name_of(value: object) -> str:
    return value.name if isinstance(value, Dialogue) else str(value)


@pytest.mark.parametrize(("protocol", "dialogue"), EVERY, ids=name_of)
def test_dialogue(tmp_path: Path, protocol: str, dialogue: Dialogue) -> None:
    async def play() -> None:
        store = SqliteStore(tmp_path, inline=True)
        await store.create_mailbox(BOX)
        inbox = await store.mailbox(BOX).folder("INBOX")
        for raw in dialogue.mail:
            await put(store.mailbox(BOX), inbox, raw)

        async def connect() -> Peer:
            peer = OwnPeer(protocol, store, dialogue.words)
            if not dialogue.words & {"clear", "starttls", "new"}:
                await peer.send(LOGIN[protocol])
                assert b"OK" in await peer.more()
            elif "starttls" in dialogue.words:
                await peer.send(b"tls STARTTLS\r\n" if protocol == "imap" else b"STLS\r\n")
                assert b"OK" in await peer.more()
            return peer

        await run(dialogue, protocol, connect)
        await store.close()

    asyncio.run(play())


@pytest.fixture
def dovecot() -> Iterator[DovecotHome]:
    need("dovecot")
    home = DovecotHome()
    try:
        yield home
    finally:
        home.remove()


@pytest.mark.parametrize(("protocol", "dialogue"), NEUTRAL, ids=name_of)
def test_dovecot_agrees(dovecot: DovecotHome, protocol: str, dialogue: Dialogue) -> None:
    async def connect() -> Peer:
        return dovecot.peer(protocol)

    async def play() -> None:
        imap = dovecot.peer("imap")
        for raw in dialogue.mail:
            await imap.send(b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(raw), raw))
        await imap.send(b"b LOGOUT\r\n")
        imap.close()
        await run(dialogue, protocol, connect)

    asyncio.run(play())


def test_every_command_has_a_dialogue() -> None:
    spoken = {line.text for _, dialogue in EVERY for line in dialogue.lines if line.what == "C:"}
    for row in COMMANDS:
        said = re.compile(rf"\S+ {row.decode()}( |$)")
        assert any(said.match(text) for text in spoken), f"no dialogue says {row.decode()}"
    for word in POP3_COMMANDS:
        said = re.compile(rf"{word.decode()}( |$)")
        assert any(said.match(text) for text in spoken), f"no dialogue says {word.decode()}"


def test_most_dialogues_are_neutral() -> None:
    assert len(NEUTRAL) > len(EVERY) / 3
