"""Get-InsecureLogin and Get-LoginReadiness as the contract has them; advice; the report."""

# ruff: noqa: E501 - log lines as servers write them

from __future__ import annotations

import asyncio
import datetime
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from letterlock.analyze import clients, report
from letterlock.analyze.logs import analyze
from letterlock.analyze.readiness import judge
from letterlock.base.errors import Malformed, Refused
from letterlock.base.values import LoginType, Protocol
from letterlock.manage import CMDLETS, logins
from letterlock.manage.here import Local
from letterlock.manage.login_logs import moment
from letterlock.policy.exceptions import LoginException, parse_range
from tests.analyze.test_exchange_logs import log, row
from tests.clients.server import PROGRAM

COLUMNS = ["IPAddress", "Protocol", "Logins", "Users", "Mechanisms", "Clients", "FirstSeen", "LastSeen", "Source"]


def busy(tmp_path: Path) -> str:
    """Two clear clients of one subnet, one of another; one under TLS; one that was refused; one with a wrong password."""
    rows = []
    logins = (
        ("scanner@contoso.test", "198.51.100.7:1", 143, "R=OK", "Old Scanner"),
        ("scanner@contoso.test", "198.51.100.7:2", 143, "R=OK", "Old Scanner"),
        ("alice@contoso.test", "198.51.100.8:3", 143, "R=OK", "Thunderbird"),
        ("alice@contoso.test", "203.0.113.5:4", 143, "R=OK", ""),
        ("bob@contoso.test", "203.0.113.6:5", 993, "R=OK", ""),
        ("carol@contoso.test", "203.0.113.7:6", 143, '"R=""1 NO [PRIVACYREQUIRED] Use TLS."""', ""),
        ("dave@contoso.test", "203.0.113.8:7", 143, '"R=""1 NO LOGIN failed.""",', ""),
    )
    for n, (user, address, port, context, client) in enumerate(logins):
        rows.append(row(n, 0, "OpenSession", ",,", port, n, client=address))
        if client:
            rows.append(row(n, 1, "id", f'"(""name"" ""{client}"")",R=ok,', port, n, client=address))
        rows.append(row(n, 2, "login", f"{user} *****,{context},", port, n, user, address))
    return log(tmp_path / "IMAP4.LOG", *rows)


def run(name: str, **named: Any) -> tuple[list[dict[str, Any]], Local, list[str]]:
    """A cmdlet where the command line runs, without any server."""
    warnings: list[str] = []

    async def nowhere(asked: str, *_: Any) -> Any:
        assert asked == "Get-LoginException", "no server is needed"
        raise Refused("this is not a data directory", b"NONEXISTENT")

    local = Local(CMDLETS, nowhere, warnings.append)
    items = asyncio.run(local(name, named, []))
    return [item["properties"] for item in items], local, warnings


def test_the_columns_of_the_contract(tmp_path: Path) -> None:
    items, _, _ = run("Get-InsecureLogin", Path=busy(tmp_path))
    assert all(list(i) == COLUMNS for i in items)
    first = items[0]
    assert (first["IPAddress"], first["Protocol"], first["Logins"]) == ("198.51.100.7", "Imap", 2)
    assert (first["Users"], first["Mechanisms"], first["Clients"]) == (
        ["scanner@contoso.test"], ["LOGIN command"], ["Old Scanner"],
    )  # fmt: skip
    assert (first["FirstSeen"], first["LastSeen"]) == ("2026-03-02T08:17:00Z", "2026-03-02T08:17:01Z")
    assert first["Source"] == [f"{tmp_path}/IMAP4.LOG:4"]
    assert {i["IPAddress"] for i in items} == {f"198.51.100.{n}" for n in (7, 8)} | {
        f"203.0.113.{n}" for n in (5, 7, 8)
    }


@pytest.mark.parametrize(
    ("by", "rows"),
    [("IPAddress", 5), ("User", 4), ("Client", 3), ("Subnet", 2)],
)
def test_groupings(tmp_path: Path, by: str, rows: int) -> None:
    items, _, _ = run("Get-InsecureLogin", Path=busy(tmp_path), GroupBy=by)
    assert len(items) == rows and sum(i["Logins"] for i in items) == 6
    by_name = {str(i["IPAddress"]): i for i in items}
    if by == "Subnet":
        assert by_name["198.51.100.0/24"]["Logins"] == 3
    if by == "User":
        assert next(i for i in items if i["Users"] == ["alice@contoso.test"])["IPAddress"] == [
            "198.51.100.8",
            "203.0.113.5",
        ]
    if by == "Client":
        assert sorted(i["Clients"] for i in items) == [[], ["Old Scanner"], ["Thunderbird"]]


def test_refused_clients_and_totals(tmp_path: Path) -> None:
    name = busy(tmp_path)
    ((refused), _, _) = run("Get-InsecureLogin", Path=name, Refused=True)
    assert [(r["IPAddress"], r["Refusals"], r["Told"]) for r in refused] == [
        ("203.0.113.7", 1, "1 NO [PRIVACYREQUIRED] Use TLS.")
    ]
    ((total,), _, _) = run("Get-InsecureLogin", Path=name, Totals=True)
    assert (total["Time"], total["Logins"], total["Insecure"], total["Secure"]) == ("2026-03-02T08:00:00Z", 7, 6, 1)


def test_protocol_since_until_and_resolve(tmp_path: Path) -> None:
    name = busy(tmp_path)
    assert run("Get-InsecureLogin", Path=name, Protocol="Pop")[0] == []
    items, _, _ = run("Get-InsecureLogin", Path=name, Since="2026-03-02T08:17:02", Until="2026-03-02T08:17:04Z")
    assert [i["Users"] for i in items] == [["alice@contoso.test"]] * 2
    for bad in ({"Since": "yesterday"}, {"Since": "2026-03-03", "Until": "2026-03-02"}, {"GroupBy": "Moon"},
                {"Protocol": "Gopher"}, {"Path": str(tmp_path / "missing*")}, {"SSLBindings": "993x"}, {"Format": "x"}):  # fmt: skip
        with pytest.raises(Malformed, match="Get-InsecureLogin"):
            run("Get-InsecureLogin", **({"Path": name} | bad))
    assert moment("7d") < moment("1h") < moment("2099-01-01")


def test_readiness(tmp_path: Path) -> None:
    items, local, warnings = run("Get-LoginReadiness", Path=busy(tmp_path))
    assert local.last_words == ["ready: no, 5 of 6 logins would be refused"]
    assert list(items[0]) == ["IPAddress", "User", "Protocol", "Logins", "LastSeen", "CoveredByException", "Advice"]
    assert (items[0]["User"], items[0]["Logins"], items[0]["CoveredByException"]) == ("scanner@contoso.test", 2, False)
    assert items[0]["Advice"].startswith("Other scanner, printer or fax: ")
    assert any(i["Advice"].startswith("Thunderbird: ") for i in items)
    assert any("1 failed logins" in w for w in warnings)
    _, local, _ = run("Get-LoginReadiness", Path=busy(tmp_path), LoginType="PlainTextLogin")
    assert local.last_words == ["ready: yes, 0 of 6 logins would be refused"]


def test_nothing_seen_is_not_ready(tmp_path: Path) -> None:
    _, local, warnings = run("Get-LoginReadiness", Path=log(tmp_path / "a.LOG", row(1, 0, "OpenSession", ",,")))
    assert local.last_words == ["ready: no, 0 of 0 logins would be refused"]
    assert "that proves nothing" in warnings[-1]
    target = tmp_path / "r.html"
    run("Get-LoginReadiness", Path=busy(tmp_path), Report=str(target))
    before = report.history_path(target).read_text()
    run("Get-LoginReadiness", Path=str(tmp_path / "a.LOG"), Report=str(target))
    assert "Not known." in target.read_text() and "Progress since" not in target.read_text()
    assert report.history_path(target).read_text() == before


def exception(text: str = "198.51.100.0/24", **changes: Any) -> LoginException:
    made = LoginException("e1", Protocol.IMAP4, (parse_range(text),), "", (), True, "", time.time() + 86400, "o", "r")
    return made._replace(**changes)


@pytest.mark.parametrize(
    ("changes", "covered"),
    [
        ({}, {"198.51.100.7", "198.51.100.8"}),
        ({"mailbox": "Scanner@contoso.test"}, {"198.51.100.7"}),
        ({"mailbox": "alice@contoso.test"}, {"198.51.100.8"}),
        ({"mechanisms": ("LOGIN command",)}, {"198.51.100.7", "198.51.100.8"}),
        ({"mechanisms": ("PLAIN",)}, set()),
        ({"protocol": Protocol.POP3}, set()),
        ({"clear_text": False, "tls_minimum": "1.0"}, set()),  # it lowers the floor, and opens nothing
        ({"expires": time.time() - 1}, set()),  # an expired one refuses, whenever the login was
    ],
)
def test_exceptions_cover_what_the_listener_would_let_in(
    tmp_path: Path, changes: dict[str, Any], covered: set[str]
) -> None:
    found = judge(analyze([busy(tmp_path)]).tally, exceptions=[exception(**changes)])
    assert {a for a, _, _, g in found.rows if g.covered} == covered
    assert found.covered == sum(g.logins for _, _, _, g in found.rows if g.covered)
    assert found.refused + found.covered == 5 and found.total == 6
    assert all(set(g.exceptions) == ({"e1"} if g.covered else set()) for _, _, _, g in found.rows)


def test_an_exception_for_a_mailbox_does_not_cover_a_login_without_a_name(tmp_path: Path) -> None:
    line = "Mar  2 08:15:30 mx dovecot: imap-login: Disconnected (tried to use disallowed cleartext auth): user=<>, rip=198.51.100.9, lip=192.0.2.1, session=<a>"
    name = tmp_path / "mail.log"
    name.write_text(line + "\n")
    tally = analyze([str(name)]).tally
    assert judge(tally, exceptions=[exception(mailbox="a@contoso.test")]).refused == 1
    assert judge(tally, exceptions=[exception()]).covered == 1


def test_a_login_by_two_mechanisms_is_covered_when_both_are(tmp_path: Path) -> None:
    rows = [row(1, 0, "OpenSession", ",,"), row(1, 1, "login", "a *****,R=OK,", user="a")]
    rows += [row(2, 0, "OpenSession", ",,"), row(2, 1, "authenticate", "PLAIN,R=OK,", user="a")]
    tally = analyze([log(tmp_path / "a.LOG", *rows)]).tally
    (only,) = judge(tally, exceptions=[exception("198.51.100.20", mechanisms=("LOGIN command",))]).rows
    assert not only[3].covered
    (both,) = judge(tally, exceptions=[exception("198.51.100.20")]).rows
    assert both[3].covered


def test_logs_of_another_server_with_the_exceptions_of_this_one(tmp_path: Path) -> None:
    name, data = busy(tmp_path), tmp_path / "data"

    def ours(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, *words, "--data", str(data)], capture_output=True, text=True, timeout=60, check=True
        )

    ours("init", "--hostname", "mail.contoso.test")
    until = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=90)).date().isoformat()
    ours("new-loginexception", "--protocol", "Imap", "--remote-ipranges", "198.51.100.7", "--owner", "print room",
         "--reason", "old scanner", "--expires-on", until)  # fmt: skip
    done = ours("get-loginreadiness", "--path", name, "--output", "json")
    rows = {r["IPAddress"]: r for r in json.loads(done.stdout)}
    assert [a for a, r in rows.items() if r["CoveredByException"]] == ["198.51.100.7"]
    assert rows["198.51.100.7"]["Advice"].startswith(f"Covered until {until} by ")
    assert "(print room)" in rows["198.51.100.7"]["Advice"]
    assert done.stderr.splitlines()[-1] == "ready: no, 3 of 6 logins would be refused"
    assert "2 logins are covered by exceptions" in done.stderr
    (data / "letterlock.db").write_bytes(b"not a database")
    done = ours("get-loginreadiness", "--path", name)
    assert "exceptions are not taken into account" in done.stderr and "5 of 6 logins" in done.stdout


def test_plain_text_authentication_refuses_what_shows_the_password(tmp_path: Path) -> None:
    rows = [row(n, 0, "OpenSession", ",,") for n in (1, 2)]
    rows += [row(1, 1, "authenticate", "PLAIN,R=OK,", user="a"), row(2, 1, "authenticate", "NTLM,R=OK,", user="b")]
    tally = analyze([log(tmp_path / "a.LOG", *rows)]).tally
    assert judge(tally, LoginType.PlainTextAuthentication).summary == "ready: no, 1 of 2 logins would be refused"
    assert judge(tally, LoginType.SecureLogin).summary == "ready: no, 2 of 2 logins would be refused"


def test_the_report_is_written_and_says_what_the_cmdlet_says(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    _, _, warnings = run("Get-LoginReadiness", Path=busy(tmp_path), Report=str(target), Resolve=False)
    assert f"written: {target}" in warnings
    text = target.read_text("utf-8")
    for wanted in ("5 of 6 logins would be refused", "scanner@contoso.test", "Set-ImapSettings -Server $server.Name -LoginType SecureLogin",
                   "disable_plaintext_auth = yes", "auth_allow_cleartext = no", "<rect class=\"Insecure\""):  # fmt: skip
        assert wanted in text
    assert len(json.loads(report.history_path(target).read_text())["reports"]) == 1
    with pytest.raises(Refused, match="cannot be written"):
        run("Get-LoginReadiness", Path=busy(tmp_path), Report=str(tmp_path / "no" / "such" / "r.html"))


def test_as_a_program_without_any_data_directory(tmp_path: Path) -> None:
    name = busy(tmp_path)
    ours = [PROGRAM, "--data", str(tmp_path / "none")]
    done = subprocess.run([*ours, "get-loginreadiness", "--path", name], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "ready: no, 5 of 6 logins would be refused"
    done = subprocess.run(
        [*ours, "get-loginreadiness", "--path", "-", "--output", "json"],
        input=Path(name).read_text(), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert len(json.loads(done.stdout)) == 4 and done.stderr.splitlines()[-1].startswith("ready: no")
    done = subprocess.run([*ours, "get-insecurelogin"], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("client", "user", "family"),
    [
        ("Thunderbird 115.0", "", "Thunderbird"),
        ("K-9 Mail", "", "Thunderbird for Android, K-9 Mail"),
        ("Mac OS X Mail 16.0", "", "Apple Mail"),
        ("iPhone Mail", "", "Apple Mail"),
        ("Microsoft Outlook", "", "Outlook"),
        ("fetchmail 6.4", "", "fetchmail"),
        ("OfflineIMAP 8", "", "OfflineIMAP"),
        ("NeoMutt", "", "Mutt, NeoMutt"),
        ("MailKit 4.3", "", "MailKit (.NET)"),
        ("", "jira@contoso.test", "Jira"),
        ("", "otrs@contoso.test", "Znuny, OTOBO, OTRS"),
        ("Roundcube 1.6", "", "Roundcube"),
        ("JavaMail 1.6", "", "Jakarta Mail (JavaMail)"),
        ("PHP 8.2", "", "PHP's imap functions (c-client)"),
        ("", "ricoh-2@contoso.test", "Ricoh multi-function printer"),
        ("", "scan@contoso.test", "Other scanner, printer or fax"),
        ("", "printer1@contoso.test", "Other scanner, printer or fax"),
        ("", "scandinavia@contoso.test", ""),
        ("", "alice@contoso.test", ""),
    ],
)
def test_families(client: str, user: str, family: str) -> None:
    advice = clients.advise(client, user, Protocol.IMAP4)
    assert advice.family == family and advice.text
    assert advice.source.startswith("http") == bool(family)


def test_the_table_of_families() -> None:
    names = [f.name for f in clients.FAMILIES]
    assert len(set(names)) == len(names)
    for f in clients.FAMILIES:
        assert f.source.startswith(("https://", "http://")) and f.advice.endswith(".")
        assert any(word in f.advice.lower() for word in ("ssl", "tls", "imaps", "secure_imap")), f.name
    assert "every 5 min" in clients.advise("", "x", Protocol.POP3, "USER", 300).text


def test_reverse_dns_answers_or_leaves_out() -> None:
    found = logins.resolve({"127.0.0.1", "not an address"})
    assert "not an address" not in found and all(found.values())


def test_long_lists_are_shown_short_and_given_whole(tmp_path: Path) -> None:
    rows = [row(1, 0, "OpenSession", ",,")]
    rows += [row(1, n, "login", "u *****,R=OK,", user=f"u{n}") for n in range(1, 8)]
    name = log(tmp_path / "a.LOG", *rows)
    items, _, _ = run("Get-InsecureLogin", Path=name)
    assert items[0]["Users"] == [f"u{n}" for n in range(1, 8)]
    done = subprocess.run([PROGRAM, "get-insecurelogin", "--path", name], capture_output=True, text=True, timeout=60)
    assert "{u1, u2, u3, u4, and 3 more}" in done.stdout
