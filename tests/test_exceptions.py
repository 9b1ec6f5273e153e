"""Login exceptions, report-only enforcement, exposed and retired passwords: on a live server, client by client."""

from __future__ import annotations

import asyncio
import datetime
import json
import socket
import ssl
import statistics
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from letterlock.base.errors import Malformed
from letterlock.base.values import LoginType, Protocol, Tls
from letterlock.directory import verifiers
from letterlock.directory.accounts import Accounts, Exposure
from letterlock.directory.config import Config
from letterlock.directory.verifiers import Verifier, hash_password, matches
from letterlock.policy.exceptions import LoginException, parse_range
from letterlock.policy.login import (
    LOGIN_COMMAND,
    PLAIN,
    Channel,
    LoginAttempt,
    LoginRules,
    Reason,
    decide,
    offered,
    tls_rank,
)
from letterlock.session import Password
from tests.clients.server import PASSWORD, Server, free_ports

ALICE, BOB = "alice@demo.test", "bob@demo.test"
SOON = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=60)).date().isoformat()
SECURE = LoginRules(LoginType.SecureLogin, tls_minimum="1.2")


def exception(**changes: Any) -> LoginException:
    """For 10.1.2.0/28 and the printer's mailbox."""
    made = LoginException(
        "e1", Protocol.IMAP4, (parse_range("10.1.2.0/28"),), "printer@demo.test", (), True, "", time.time() + 1000
    )
    return made._replace(**changes)


def attempt(peer: str = "10.1.2.3", user: str = "printer@demo.test", version: str = "", **more: Any) -> LoginAttempt:
    channel = Channel(tls=Tls.STARTTLS if version else Tls.NONE, version=version, peer=peer)
    return LoginAttempt(more.get("protocol", Protocol.IMAP4), channel, more.get("mechanism", PLAIN), user)


# --- the decision


def test_an_exception_lets_through_what_it_names_and_nothing_else() -> None:
    rules = SECURE._replace(exceptions=(exception(),))
    assert decide(attempt(), rules) == (True, Reason.EXCEPTION, None, "e1", None)
    for other in (
        attempt(peer="10.1.2.99"),
        attempt(user=ALICE),
        attempt(protocol=Protocol.POP3),
        attempt(version="TLSv1"),
    ):
        assert not decide(other, rules).allowed
    assert decide(attempt(peer="::ffff:10.1.2.3"), rules).allowed
    narrow = SECURE._replace(exceptions=(exception(mechanisms=("LOGIN command",)),))
    assert not decide(attempt(), narrow).allowed
    assert decide(attempt(mechanism=LOGIN_COMMAND), narrow).allowed
    assert [m.name for m in offered(Protocol.IMAP4, attempt().channel, narrow)] == [b"LOGIN command"]


def test_an_exception_for_old_tls_lets_no_clear_text_through() -> None:
    rules = SECURE._replace(exceptions=(exception(clear_text=False, tls_minimum="1.1"),))
    assert decide(attempt(version="TLSv1.1"), rules).reason is Reason.EXCEPTION
    assert decide(attempt(version="TLSv1"), rules).reason is Reason.TLS_TOO_OLD
    assert decide(attempt(), rules).reason is Reason.TLS_REQUIRED
    assert decide(attempt(version="TLSv1.2"), rules).reason is Reason.PROTECTED


def test_a_listener_for_exceptions_only_refuses_others_even_over_tls() -> None:
    rules = SECURE._replace(exceptions=(exception(),), exceptions_only=True)
    assert decide(attempt(), rules).allowed
    assert decide(attempt(version="TLSv1.3"), rules).allowed
    assert decide(attempt(peer="10.9.9.9", version="TLSv1.3"), rules).reason is Reason.EXCEPTIONS_ONLY


@pytest.mark.parametrize("login_type", list(LoginType))
@pytest.mark.parametrize("version", ["", "TLSv1", "TLSv1.2", "TLSv1.3"])
def test_report_only_never_refuses_what_was_allowed(login_type: LoginType, version: str) -> None:
    for floor in ("1.0", "1.2"):
        enforced = LoginRules(login_type, tls_minimum=floor)
        reporting = enforced._replace(reported_login_type=LoginType.SecureLogin, reported_tls_minimum="1.3")
        strict = LoginRules(LoginType.SecureLogin, tls_minimum="1.3")
        tried = attempt(version=version)
        before, now = decide(tried, enforced), decide(tried, reporting)
        assert now.allowed is before.allowed
        if now.allowed:
            assert (now.reported is not None) is not decide(tried, strict).allowed


def test_tls_versions_are_ordered() -> None:
    ranks = [tls_rank(v) for v in ("", "SSLv3", "TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")]
    assert ranks == sorted(ranks)
    assert tls_rank("1.2") == tls_rank("TLSv1.2") == 12


@pytest.mark.parametrize("text", ["10.0.0.0/8", "10.1.0.0/23", "::/0", "2001:db8::/63", "printer", "", "10.1.2.3/33"])
def test_wide_and_senseless_ranges_are_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_range(text)


# --- a live server


def objects(server: Server, *words: str) -> list[dict[str, Any]]:
    """A cmdlet's objects."""
    found: list[dict[str, Any]] = json.loads(server.run(*words, "--output", "json").stdout or "[]")
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("exceptions"))
    running.quarantine = free_ports(1)[0]  # type: ignore[attr-defined]
    running.shell(
        f"Set-ImapSettings -ProtocolLogEnabled $true -ExceptionsOnlyBindings 127.0.0.1:{running.quarantine}"  # type: ignore[attr-defined]
    )
    running.start(workers=2)
    try:
        yield running
        assert "Traceback" not in (running.data / "serve.stderr").read_text()
    finally:
        running.kill()


def login(
    server: Server,
    address: str,
    user: str = ALICE,
    password: str = PASSWORD,
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> str:
    """The answer to LOGIN on the clear port, or through `tls` on the always-TLS port."""
    raw = socket.create_connection(
        ("127.0.0.1", port or (server.imaps if tls else server.imap)), 20, source_address=(address, 0)
    )
    with tls.wrap_socket(raw, server_hostname="localhost") if tls else raw as sock:
        file = sock.makefile("rwb")
        file.readline()
        file.write(f'a LOGIN {user} "{password}"\r\n'.encode())
        file.flush()
        answer = file.readline()
        while answer and not answer.startswith(b"a "):
            answer = file.readline()
    return answer.decode()


def settle() -> None:
    """Counts are written every two seconds, log rows every second."""
    time.sleep(3.2)


def test_the_printer_goes_on_while_everybody_else_is_protected(server: Server) -> None:
    assert "PRIVACYREQUIRED" in login(server, "127.0.0.21")
    made = objects(
        server,
        "new-loginexception",
        "--protocol",
        "Imap",
        "--remote-ipranges",
        "127.0.0.16/28",
        "--mailbox",
        ALICE,
        "--owner",
        "print room",
        "--reason",
        "scanner without TLS",
        "--expires-on",
        SOON,
    )
    identity = made[0]["Identity"]
    assert login(server, "127.0.0.21").startswith("a OK")
    assert "PRIVACYREQUIRED" in login(server, "127.0.0.21", user=BOB)
    assert "PRIVACYREQUIRED" in login(server, "127.0.0.33")
    settle()
    shown = objects(server, "get-loginexception", identity)[0]
    assert (shown["Uses"], shown["Status"]) == (1, "Active")
    assert shown["LastUsed"]
    log = "".join(p.read_text() for p in (server.data / "logs" / "Imap4").iterdir())
    assert f",exception,,Msg={identity};Mechanism=LOGIN command;Tls=none" in log
    server.run("remove-loginexception", identity)
    assert "PRIVACYREQUIRED" in login(server, "127.0.0.21")
    refused = objects(server, "get-reportedlogin", "--kind", "Refused")
    assert {r["IPAddress"] for r in refused} >= {"127.0.0.21", "127.0.0.33"}
    assert all("switch your mail program" in r["Detail"] for r in refused)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--remote-ipranges", "10.0.0.0/8", "--expires-on", SOON), "too wide"),
        (("--remote-ipranges", "10.0.0.1", "--expires-on", "2020-01-01"), "in the past"),
        (("--remote-ipranges", "10.0.0.1", "--expires-on", "2099-01-01"), "a year at most"),
        (("--remote-ipranges", "10.0.0.1", "--expires-on", "soon"), "is not a date"),
        (("--remote-ipranges", "10.0.0.1"), "-ExpiresOn is needed"),
        (("--expires-on", SOON), "-RemoteIPRanges is needed"),
        (
            ("--remote-ipranges", "10.0.0.1", "--expires-on", SOON, "--mailbox", "nobody@demo.test"),
            "there is no mailbox",
        ),
        (("--remote-ipranges", "10.0.0.1", "--expires-on", SOON, "--mechanisms", "NTLM"), "is not a mechanism"),
        (("--remote-ipranges", "10.0.0.1", "--expires-on", SOON, "--allow-clear-text", "$false"), "except nothing"),
    ],
)
def test_exceptions_are_narrow(server: Server, words: tuple[str, ...], said: str) -> None:
    command = ("new-loginexception", "--protocol", "Imap", "--owner", "o", "--reason", "r", *words)
    done = server.run(*command, status=1 if "there is no mailbox" in said else 2)
    assert said in done.stderr
    assert not objects(server, "get-loginexception")


def old_tls(server: Server) -> ssl.SSLContext:
    """A client that speaks no more than TLS 1.1."""
    context = server.context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def test_an_exception_can_lower_the_tls_floor_for_its_clients_alone(server: Server) -> None:
    with pytest.raises(ssl.SSLError):
        login(server, "127.0.0.50", tls=old_tls(server))
    made = objects(
        server,
        "new-loginexception",
        "--protocol",
        "Imap",
        "--remote-ipranges",
        "127.0.0.50",
        "--owner",
        "lab",
        "--reason",
        "old firmware",
        "--expires-on",
        SOON,
        "--tls-minimum",
        "1.1",
    )
    assert login(server, "127.0.0.50", tls=old_tls(server)).startswith("a OK")
    assert "PRIVACYREQUIRED" in login(server, "127.0.0.50")
    with pytest.raises(ssl.SSLError):
        login(server, "127.0.0.51", tls=old_tls(server))
    server.run("remove-loginexception", made[0]["Identity"])


def test_the_quarantine_listener_serves_devices_with_an_exception_only(server: Server) -> None:
    """ExceptionsOnlyBindings."""
    port = server.quarantine  # type: ignore[attr-defined]
    made = objects(
        server,
        "new-loginexception",
        "--protocol",
        "Imap",
        "--remote-ipranges",
        "127.0.0.60",
        "--owner",
        "lab",
        "--reason",
        "scale",
        "--expires-on",
        SOON,
    )
    assert login(server, "127.0.0.60", port=port).startswith("a OK")
    assert "only for devices with a login exception" in login(server, "127.0.0.61", port=port)
    assert "127.0.0.61 has no login exception" in (server.data / "serve.stderr").read_text()
    settle()
    assert "only for devices" in login(server, "127.0.0.61", port=port)
    settle()
    (stranger,) = objects(server, "get-reportedlogin", "--kind", "Stranger")
    assert (stranger["IPAddress"], stranger["Logins"]) == ("127.0.0.61", 2)
    assert "1 client without an exception" in server.run("get-loginexception").stderr
    server.run("remove-loginexception", made[0]["Identity"])


def test_exposed_and_retired_passwords_are_found(server: Server) -> None:
    server.run("clear-exposedcredential", BOB)
    assert "PRIVACYREQUIRED" in login(server, "127.0.0.70", user=BOB)
    assert "PRIVACYREQUIRED" in login(server, "127.0.0.71", user=BOB, password="guess")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not objects(server, "get-exposedcredential", BOB):
        time.sleep(0.2)
    (shown,) = objects(server, "get-exposedcredential", BOB)
    assert (shown["Kind"], shown["Count"], shown["IPAddresses"]) == ("Exposed", 1, ["127.0.0.70"])
    server.run("set-mailboxpassword", BOB, "--password", "another 8 words")
    assert not objects(server, "get-exposedcredential", BOB)
    assert "AUTHENTICATIONFAILED" in login(server, "127.0.0.72", user=BOB, tls=server.context())  # the forgotten device
    assert "AUTHENTICATIONFAILED" in login(server, "127.0.0.73", user=BOB, password="x", tls=server.context())
    settle()
    (shown,) = objects(server, "get-exposedcredential", BOB)
    assert (shown["Kind"], shown["IPAddresses"]) == ("RetiredPasswordTried", ["127.0.0.72"])
    server.run("clear-exposedcredential", BOB)
    assert not objects(server, "get-exposedcredential", BOB)


def test_an_exception_for_a_mailbox_is_for_all_its_addresses(server: Server) -> None:
    server.shell(f'Set-Mailbox {ALICE} -EmailAddresses @{{Add="smtp:device@demo.test"}}')
    words = ("--remote-ipranges", "127.0.0.95", "--owner", "lab", "--reason", "scale", "--expires-on", SOON)
    (made,) = objects(server, "new-loginexception", "--protocol", "Imap", "--mailbox", "device@demo.test", *words)
    assert (made["Mailbox"], made["LoginNames"]) == (ALICE, [ALICE, "device@demo.test"])
    assert login(server, "127.0.0.95", user="Device@demo.test").startswith("a OK")
    assert login(server, "127.0.0.95").startswith("a OK")
    assert "PRIVACYREQUIRED" in login(server, "127.0.0.95", user=BOB)
    server.shell(f'Set-Mailbox {ALICE} -EmailAddresses @{{Remove="smtp:device@demo.test"}}')
    assert "PRIVACYREQUIRED" in login(server, "127.0.0.95", user="device@demo.test")
    server.run("remove-loginexception", made["Identity"])


def test_an_exception_ends_by_itself_and_says_so_ahead(server: Server) -> None:
    ends = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=8)).isoformat(timespec="milliseconds")
    words = ("--remote-ipranges", "127.0.0.90", "--owner", "lab", "--reason", "scale", "--expires-on", ends)
    (made,) = objects(server, "new-loginexception", "--protocol", "Imap", *words)
    assert made["Status"] == "Expiring"
    assert login(server, "127.0.0.90").startswith("a OK")
    said = server.run("get-loginexception").stderr
    assert f"{made['Identity']} (lab: scale) ends on {ends[:10]}" in said
    time.sleep(max(0.0, datetime.datetime.fromisoformat(ends).timestamp() - time.time()) + 0.2)
    assert "PRIVACYREQUIRED" in login(server, "127.0.0.90")
    done = server.run("get-loginexception", "--output", "json")
    (shown,) = json.loads(done.stdout)
    assert (shown["Status"], shown["Uses"]) == ("Expired", 1) and "has ended" in done.stderr
    server.run("remove-loginexception", made["Identity"])


def test_what_a_refused_password_was_shows_in_no_word_and_no_time(server: Server) -> None:
    """Right or wrong: the answer, its time, and the time of what the client does while the password is examined."""
    seen: dict[str, list[tuple[float, float, str]]] = {"right": [], "wrong": []}
    settle()
    server.run("clear-exposedcredential", ALICE)
    for n in range(50):
        kind = ("right", "wrong")[n % 2]
        source = (f"127.0.{10 + n // 250}.{1 + n % 250}", 0)
        with socket.create_connection(("127.0.0.1", server.imap), 20, source_address=source) as sock:
            file = sock.makefile("rwb")
            file.readline()
            spent = []
            password = PASSWORD if kind == "right" else PASSWORD[::-1]
            for command in (f'a LOGIN {ALICE} "{password}"', *["b NOOP"] * 25):
                begin = time.perf_counter()
                file.write(command.encode() + b"\r\n")
                file.flush()
                answer = file.readline().decode()
                spent.append(time.perf_counter() - begin)
                if len(spent) == 1:
                    said = answer
                time.sleep(0.002)
            seen[kind].append((spent[0], max(spent[1:]), said))
    assert {s for _, _, s in seen["right"]} == {s for _, _, s in seen["wrong"]}
    for which in (0, 1):
        right, wrong = (statistics.median(row[which] for row in seen[kind]) for kind in ("right", "wrong"))
        assert right < wrong * 4 + 0.001 and wrong < right * 4 + 0.001, (which, right, wrong)
    deadline = time.monotonic() + 60  # passwords are examined one after the other
    while (shown := objects(server, "get-exposedcredential", ALICE)) and time.monotonic() < deadline:
        if shown[0]["Count"] >= 25:
            break
        time.sleep(0.5)
    assert shown[0]["Count"] == 25
    server.run("clear-exposedcredential", ALICE)


def test_examining_a_password_costs_the_same_whatever_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = Config.create(tmp_path, "mail.demo.test", "VM", 0)
    accounts = Accounts(config)
    accounts.create(ALICE, hash_password("first 8 words"), "Alice", "alice", "test")
    for password in ("second 8 words", "third 8 words"):
        accounts.set_password(accounts.one(ALICE), hash_password(password), "test")
    tried: list[str] = []

    def counting(stored: str, password: bytes) -> bool:
        tried.append(stored)
        return matches(stored, password)

    monkeypatch.setattr(verifiers, "matches", counting)
    with ThreadPoolExecutor(1) as pool:
        verifier = Verifier(accounts, pool)

        def examined(user: str, text: str) -> tuple[bool, bool, int]:
            tried.clear()
            account, retired = asyncio.run(verifier.examine(user, Password(text.encode())))
            return account is not None, retired, len(tried)

        assert asyncio.run(verifier.verify(ALICE, Password(b"third 8 words")))  # remembered from here on
        assert examined(ALICE, "third 8 words") == (True, False, 3)
        assert examined(ALICE, "wrong") == (False, False, 3)
        assert examined(ALICE, "first 8 words") == (False, True, 3)
        assert examined("nobody@demo.test", "wrong") == (False, False, 3)


def test_a_mark_is_for_the_password_that_was_exposed(tmp_path: Path) -> None:
    config = Config.create(tmp_path, "mail.demo.test", "VM", 0)
    accounts = Accounts(config)
    accounts.create(ALICE, hash_password("first 8 words"), "Alice", "alice", "test")
    before = accounts.one(ALICE)
    accounts.mark_exposed([Exposure(before, "IMAP4", "192.0.2.1")])
    assert [mark[2] for mark in accounts.exposed(before)] == ["192.0.2.1"]
    accounts.set_password(before, hash_password("second 8 words"), "test")
    accounts.mark_exposed([Exposure(before, "IMAP4", "192.0.2.2")])  # was on its way while the password was changed
    assert not accounts.exposed(accounts.one(ALICE))


# --- report-only, last: it changes the server's settings


def test_report_only_enforcement_on_a_live_server(server: Server) -> None:
    server.shell("Set-ImapSettings -LoginType PlainTextLogin -TlsMinimum 1.0; Restart-Service LetterlockImap4")
    server.shell(
        "Set-ImapSettings -LoginType SecureLogin -LoginTypeMode ReportOnly -TlsMinimum 1.2 -TlsMinimumMode ReportOnly;"
        "Restart-Service LetterlockImap4"
    )
    said = server.run("set-imapsettings", "--login-type", "SecureLogin").stderr
    assert "LoginType SecureLogin is only reported, PlainTextLogin decides" in said
    assert "TlsMinimum 1.2 is only reported, 1.0 decides" in said and "Get-ReportedLogin" in said
    settings = objects(server, "get-imapsettings")[0]
    assert (settings["EnforcedLoginType"], settings["EnforcedTlsMinimum"]) == ("PlainTextLogin", "1.0")
    assert login(server, "127.0.0.80").startswith("a OK")
    assert login(server, "127.0.0.81", tls=old_tls(server)).startswith("a OK")
    assert login(server, "127.0.0.82", tls=server.context()).startswith("a OK")
    settle()
    rows = {r["IPAddress"]: r for r in objects(server, "get-reportedlogin")}
    assert set(rows) == {"127.0.0.80", "127.0.0.81"}
    assert "LOGIN command, no TLS" in rows["127.0.0.80"]["Detail"]
    assert "TLSv1.1" in rows["127.0.0.81"]["Detail"]
    log = "".join(p.read_text() for p in (server.data / "logs" / "Imap4").iterdir())
    assert ",reportonly,,Msg=would be refused: Clear-text login is not allowed" in log
    server.shell("Set-ImapSettings -LoginTypeMode Enforce -TlsMinimumMode Enforce; Restart-Service LetterlockImap4")
    assert "PRIVACYREQUIRED" in login(server, "127.0.0.80")
    with pytest.raises(ssl.SSLError):
        login(server, "127.0.0.81", tls=old_tls(server))


def test_report_only_on_an_enforced_rule_loosens_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.shell("Set-ImapSettings -LoginTypeMode ReportOnly")
    server.start(workers=1)
    try:
        assert objects(server, "get-imapsettings")[0]["EnforcedLoginType"] == "SecureLogin"
        assert "PRIVACYREQUIRED" in login(server, "127.0.0.1")
    finally:
        server.kill()
