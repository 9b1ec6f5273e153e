"""Our own servers' logs of a run with mixed clients: exactly the insecure logins are found, whatever is enforced."""

from __future__ import annotations

import imaplib
import json
import poplib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.server import PASSWORD, Server
from tests.test_servers import Joined

ALICE, BOB = "alice@demo.test", "bob@demo.test"
LOGGED = "Set-ImapSettings -ProtocolLogEnabled $true; Set-PopSettings -ProtocolLogEnabled $true"


def initial(user: str) -> bytes:
    """What a client sends for PLAIN."""
    return f"\0{user}\0{PASSWORD}".encode()


def mixed(server: Server, context: ssl.SSLContext, first: str, second: str) -> None:
    """Seven clients of each kind: four of them show their password, three do not. Refusals are borne."""
    plain = imaplib.IMAP4("127.0.0.1", server.imap, timeout=20)
    plain.xatom("ID", '("name" "Old Printer" "version" "1.0")')
    bear(lambda: plain.login(first, PASSWORD))
    plain.logout()
    sasl = imaplib.IMAP4("127.0.0.1", server.imap, timeout=20)
    bear(lambda: sasl.authenticate("PLAIN", lambda _: initial(second)))
    sasl.logout()
    wrong = imaplib.IMAP4("127.0.0.1", server.imap, timeout=20)
    bear(lambda: wrong.login(first, "wrong"))
    wrong.logout()
    pop = poplib.POP3("127.0.0.1", server.pop, timeout=20)
    bear(lambda: (pop.user(second), pop.pass_(PASSWORD)))
    pop.quit()
    upgraded = imaplib.IMAP4("localhost", server.imap, timeout=20)
    upgraded.starttls(context)
    upgraded.login(second, PASSWORD)
    upgraded.logout()
    stls = poplib.POP3("localhost", server.pop, timeout=20)
    stls.stls(context)
    stls.user(first)
    stls.pass_(PASSWORD)
    stls.quit()
    server.imap_client(first).logout()


def bear(attempt: Any) -> None:
    """An attempt that may be refused."""
    try:
        attempt()
    except (imaplib.IMAP4.error, poplib.error_proto):
        return


def found(server: Server, *words: str) -> list[tuple[Any, ...]]:
    """Get-InsecureLogin by user."""
    answer = server.run("get-insecurelogin", "--group-by", "User", *words, "--output", "json").stdout
    return sorted((tuple(r["Users"]), r["Protocol"], r["Logins"], tuple(r["Mechanisms"])) for r in json.loads(answer))


def ready(server: Server, *words: str) -> str:
    """The last line of Get-LoginReadiness."""
    return server.run("get-loginreadiness", *words).stdout.splitlines()[-1]


EXPOSED = [
    ((ALICE,), "Imap", 2, ("LOGIN command",)),
    ((BOB,), "Imap", 1, ("PLAIN",)),
    ((BOB,), "Pop", 1, ("USER",)),
]


@pytest.mark.parametrize("mode", ["allowed", "report-only"])
def test_clear_text_that_is_let_in(tmp_path: Path, mode: str) -> None:
    server = Server(tmp_path, settings=LOGGED)
    server.shell("Set-ImapSettings -LoginType PlainTextLogin; Set-PopSettings -LoginType PlainTextLogin")
    if mode == "report-only":
        for noun in ("Imap", "Pop"):
            server.shell(f"Set-{noun}Settings -LoginType SecureLogin -LoginTypeMode ReportOnly")
    server.start()
    try:
        mixed(server, server.context(), ALICE, BOB)
    finally:
        server.stop()
    assert found(server) == EXPOSED
    assert ready(server) == "ready: no, 3 of 6 logins would be refused"  # the wrong password is not counted
    assert ready(server, "--login-type", "PlainTextLogin") == "ready: yes, 0 of 6 logins would be refused"
    reported = json.loads(server.run("get-reportedlogin", "--output", "json").stdout)
    assert sum(r["Logins"] for r in reported) == (3 if mode == "report-only" else 0)


def test_clear_text_that_is_refused(tmp_path: Path) -> None:
    server = Server(tmp_path, settings=LOGGED)
    server.start()
    try:
        mixed(server, server.context(), ALICE, BOB)
        for command in ("USER stopped@demo.test", "AUTH PLAIN"):  # refused before the password was sent
            pop = poplib.POP3("127.0.0.1", server.pop, timeout=20)
            with pytest.raises(poplib.error_proto):
                pop._shortcmd(command)  # type: ignore[attr-defined]
            pop.quit()
    finally:
        server.stop()
    # AUTHENTICATE is refused before its password goes out, USER before PASS: Python's clients stop there
    assert found(server) == [((ALICE,), "Imap", 2, ("LOGIN command",))]
    (imap, pop3) = json.loads(server.run("get-insecurelogin", "--refused", "--output", "json").stdout)
    assert (imap["Protocol"], imap["Refusals"], pop3["Protocol"], pop3["Refusals"]) == ("Imap", 3, "Pop", 3)
    assert "Clear-text login is not allowed" in imap["Told"] and "Clear-text login is not allowed" in pop3["Told"]
    assert "Old Printer 1.0" in imap["Clients"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Joined]:
    """Alice's mailbox is on A, Bob's on B; both servers log front end and back end."""
    both = Joined(tmp_path_factory.mktemp("pair"))
    for server in (both.a, both.b):
        server.shell(f"{LOGGED}; Set-ImapSettings -LoginType PlainTextLogin; Set-PopSettings -LoginType PlainTextLogin")
    both.start()
    try:
        yield both
    finally:
        both.kill()


def test_logins_that_were_handed_over_count_once(pair: Joined) -> None:
    mixed(pair.a, pair.a.context(), ALICE, BOB)
    pair.b.imap_client(BOB).logout()
    pair.a.stop()
    pair.b.stop()
    assert found(pair.a) == EXPOSED
    assert found(pair.b) == []
    everything = [str(s.data / "logs") for s in (pair.a, pair.b)]
    back = [p for s in everything for p in Path(s).rglob("*.LOG") if p.parent.name.endswith("BE")]
    assert {p.parent.name for p in back if b",bob@demo.test," in p.read_bytes()} == {"Imap4BE", "Pop3BE"}
    assert found(pair.b, "--path", ",".join(everything)) == EXPOSED
    assert found(pair.b, "--path", ",".join(map(str, back))) == []
