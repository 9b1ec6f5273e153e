"""Dovecot, Cyrus, Courier, Postfix and Exim, in every prefix that syslog, journald and their own files use."""

# ruff: noqa: E501 - log lines as servers write them

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path

import pytest

from letterlock.analyze.logs import Options, analyze
from letterlock.analyze.logs_syslog import Clock, prefix
from letterlock.analyze.logs_tally import readable
from letterlock.base.facts import LoginResult
from letterlock.base.values import Protocol, Tls
from tests.analyze.test_exchange_logs import facts, insecure

ISO = "2026-03-02T08:15:30.123456+01:00 mail "
AT = datetime.datetime(2026, 3, 2, 7, 15, 30, 123456, datetime.UTC).timestamp()


def write(tmp_path: Path, *lines: str, name: str = "mail.log") -> str:
    path = tmp_path / name
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("head", "at"),
    [
        (ISO, AT),
        ("2026-03-02T08:15:30+0100 mail ", AT - 0.123456),
        ("<22>1 2026-03-02T07:15:30.123456Z mail ", AT),
        ("<22>Mar  2 08:15:30 mail ", None),
        ("Mar 2 08:15:30 mail ", None),
        ("Mar  2 2026 08:15:30 mail ", None),
        ("2026-03-02 08:15:30.123 mail ", None),
        ("Mon 2026-03-02 07:15:30 UTC mail ", AT - 0.123456),
        ("Mon 2026-03-02 08:15:30 CET mail ", None),
    ],
)
def test_prefixes(tmp_path: Path, head: str, at: float | None) -> None:
    message = (
        "imap-login: Login: user=<u@example.com>, method=PLAIN, rip=203.0.113.7, lip=192.0.2.1, mpid=1, session=<a>"
    )
    line = head + ("dovecot 99 - - " + message if head.startswith("<22>1") else "dovecot: " + message)
    found = analyze([write(tmp_path, line)])
    (fact,) = facts(found)
    assert readable(fact) and fact.user == "u@example.com" and not found.unreadable
    local = time.mktime((2026, 3, 2, 8, 15, 30, 0, 0, -1))
    assert fact.at == pytest.approx(at if at is not None else local, abs=0.2)


def test_years_that_syslog_leaves_out() -> None:
    clock = Clock(datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.UTC).timestamp())
    december = prefix(b"Dec 31 23:59:59 mail x: y", clock)
    january = prefix(b"Jan  2 01:00:00 mail x: y", clock)
    assert december and january and january[0] - december[0] == pytest.approx(86400 + 3601)


DOVECOT = "dovecot: imap-login: "
FIELDS = "rip=203.0.113.7, lip=192.0.2.1"


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        (f"Login: user=<u>, method=PLAIN, {FIELDS}, mpid=1, session=<a>", "insecure"),
        (f"Login: user=<u>, method=PLAIN, {FIELDS}, mpid=1, TLS, session=<a>", "secure"),
        (f"Login: user=<u>, method=PLAIN, {FIELDS}, mpid=1, secured, session=<a>", "secure"),
        (f"Login: user=<u>, method=CRAM-MD5, {FIELDS}, mpid=1, session=<a>", "secure"),
        (f"Login: user=<u>, method=PLAIN, {FIELDS}, mpid=1, TLSv1.3 with cipher X (256/256 bits), session=<a>", "secure"),
        (f"Logged in: user=<u>, method=PLAIN, {FIELDS}, session=<a>", "insecure"),
        (f"Logged in: user=<u>, method=PLAIN, {FIELDS}, TLS, session=<a>", "secure"),
        (f"Aborted login (tried to use disallowed plaintext auth): user=<>, {FIELDS}, session=<a>", "refused"),
        (f"Disconnected (tried to use disallowed plaintext auth): user=<>, {FIELDS}, session=<a>", "refused"),
        (f"Disconnected: Logged out (tried to use disallowed plaintext auth): user=<>, {FIELDS}, session=<a>", "refused"),
        (
            "Login aborted: Connection closed (tried to use disallowed cleartext auth) (cleartext_auth_disabled): "
            f"user=<>, {FIELDS}, session=<a>",
            "refused",
        ),
        (f"Disconnected: Connection closed (auth failed, 1 attempts in 2 secs): user=<u>, method=PLAIN, {FIELDS}, TLS, "
         "session=<a>", "failed"),
        (f"Disconnected: Inactivity (no auth attempts in 180 secs): user=<>, {FIELDS}, session=<a>", "nothing"),
        # Debian's 2.3.19 on LOGIN without TLS: no mechanism was begun
        (f"Disconnected: Aborted login by logging out (auth failed, 1 attempts in 0 secs): user=<u>, {FIELDS}, session=<a>", "refused"),
        # user names that imitate what follows them
        (f"Login: user=<u>, method=PLAIN, rip=192.0.2.99, lip=1, TLS, session=<b>, method=PLAIN, {FIELDS}, mpid=1, "
         "session=<a>", "insecure"),
        (f"Disconnected: Connection closed (no auth attempts): user=<(auth failed, 9 attempts)>, {FIELDS}, TLS, "
         "session=<a>", "nothing"),
    ],
)  # fmt: skip
def test_dovecot(tmp_path: Path, message: str, wanted: str) -> None:
    for number, line in enumerate((ISO + DOVECOT + message, "2026-03-02 08:15:30 imap-login: Info: " + message)):
        found = facts(analyze([write(tmp_path, line, name=f"{number}.log")]))
        if wanted == "nothing":
            assert not found
            continue
        (fact,) = found
        assert fact.address == "203.0.113.7" and fact.protocol is Protocol.IMAP4
        assert readable(fact) == (wanted in ("insecure", "refused"))
        assert (fact.result is LoginResult.REFUSED) == (wanted == "refused")
        assert (fact.result is LoginResult.FAILED) == (wanted == "failed")


def test_dovecot_names_clients(tmp_path: Path) -> None:
    login = f"Login: user=<u>, method=PLAIN, {FIELDS}, mpid=1, session=<s1>"
    name = write(
        tmp_path,
        ISO + DOVECOT + f"ID sent: name=Printer, version=3: user=<>, {FIELDS}, session=<s1>",
        ISO + DOVECOT + login,
        ISO + DOVECOT + login.replace("s1", "s2").replace("<u>", "<v>"),
        ISO + "dovecot: imap(v)<12><s2>: ID sent: name=Later",
        ISO + "dovecot: imap(v)<12><s2>: Disconnected: Logged out in=1 out=2",
    )
    assert [f.client for f in facts(analyze([name]))] == ["Printer 3", "Later"]


def test_cyrus(tmp_path: Path) -> None:
    name = write(
        tmp_path,
        ISO + "cyrus/imap[1]: login: host.example [203.0.113.1] clear plaintext User logged in SESSIONID=<a>",
        ISO + "imap[1]: login: [203.0.113.2] tls plaintext+TLS User logged in SESSIONID=<a>",
        ISO + "imaps[1]: login: h [203.0.113.3] tls2 plaintext+TLS User logged in",
        ISO + "pop3[1]: login: h [203.0.113.4] clear2 plaintext User logged in",
        ISO + "imap[1]: login: h [203.0.113.5] hidden CRAM-MD5 User logged in",
        ISO + "imaps[1]: badlogin: h [203.0.113.6] plaintext wrong SASL(-13): authentication failure: checkpass failed",
        ISO
        + 'imap[1]: event=login.good session.id=<a> r.clienthost="h [203.0.113.7]" u.username=new login.mech=plaintext '
        "login.tls=0",
        ISO
        + 'imap[1]: event=login.good session.id=<a> r.clienthost="h [203.0.113.8]" u.username=new2 login.mech=PLAIN '
        "login.tls=1",
        ISO + 'imap[1]: event=login.bad session.id=<a> r.clienthost="h [203.0.113.9]" u.username=x login.mech=PLAIN',
        ISO + "imap[1]: starttls: TLSv1.3 with cipher X (256/256 bits new) no authentication",
        ISO + "lmtpunix[1]: login: h [203.0.113.9] a plaintext User logged in",
    )
    found = analyze([name])
    assert insecure(found) == [("203.0.113.1", "clear"), ("203.0.113.4", "clear2"), ("203.0.113.7", "new")]
    assert not found.unreadable and len(facts(found)) == 9


def test_cyrus_as_debian_has_it(tmp_path: Path) -> None:
    """Lines that Debian's Cyrus 3.6.1 wrote for LOGIN and AUTHENTICATE PLAIN without TLS, right, wrong and begun in vain."""
    head = "<21>Nov 24 03:26:34 cyrus/imap[9539]: "
    name = write(
        tmp_path,
        head
        + "login: localhost [127.0.0.1] ann plaintext User logged in SESSIONID=<vm-1795490794-9539-1-734964153561391169>",
        head + "USAGE ann user: 0.005721 sys: 0.014304",
        head
        + "login: localhost [127.0.0.1] ben PLAIN User logged in SESSIONID=<vm-1795490794-9539-2-5587324616567582171>",
        head + "badlogin: localhost [127.0.0.1] plaintext (cleo) [SASL(-13): authentication failure: checkpass failed]",
        head
        + "badlogin: localhost [127.0.0.1] PLAIN (dora) [SASL(-13): authentication failure: Password verification failed]",
        head
        + "badlogin: localhost [127.0.0.1] PLAIN (-notset-) [SASL(-6): can't request information until later in exchange: Information that was requested is not yet available.]",
        "<22>Nov 24 03:26:41 master[9538]: attempting clean shutdown on signal",
    )
    found = analyze([name])
    assert insecure(found) == [("127.0.0.1", "ann"), ("127.0.0.1", "ben")] and not found.unreadable
    failed = sorted((f.user, f.mechanism) for f in facts(found) if f.result is LoginResult.FAILED)
    assert failed == [("", "PLAIN"), ("cleo", "LOGIN command"), ("dora", "PLAIN")]


def test_courier(tmp_path: Path) -> None:
    name = write(
        tmp_path,
        ISO + "imapd: LOGIN, user=clear, ip=[::ffff:203.0.113.1], port=[4], protocol=IMAP",
        ISO + "imapd: LOGIN, user=tls, ip=[::ffff:203.0.113.2], port=[4], protocol=IMAP, starttls=1",
        ISO + "imapd-ssl: LOGIN, user=tls2, ip=[::ffff:203.0.113.3], port=[4], protocol=IMAP",
        ISO + "pop3d: LOGIN, user=x, ip=[1.2.3.4], port=[9], ip=[::ffff:203.0.113.4], port=[4]",
        ISO + "pop3d-ssl: LOGIN FAILED, user=wrong, ip=[::ffff:203.0.113.5]",
        ISO + "imapd: LOGIN, user=upgraded, ip=[::ffff:203.0.113.6], port=[4], protocol=IMAP",
        ISO + "pop3d: LOGIN, user=stls, ip=[::ffff:203.0.113.6], port=[4]",
        ISO + "imapd: LOGIN, user=goes on, ip=[::ffff:203.0.113.7], port=[4], protocol=IMAP",
        ISO + "imapd: DISCONNECTED, user=clear, ip=[::ffff:203.0.113.1], port=[4], headers=0, body=0, time=0",
        ISO + "pop3d: LOGOUT, user=x, ip=[1.2.3.4], port=[9], ip=[::ffff:203.0.113.4], port=[4], top=0, retr=0",
        ISO + "imapd: LOGOUT, user=upgraded, ip=[::ffff:203.0.113.6], port=[4], headers=0, time=0, starttls=1",
        ISO + "pop3d: TIMEOUT, user=stls, ip=[::ffff:203.0.113.6], port=[4], top=0, time=9, stls=1",
        ISO + "imapd: LOGOUT, ip=[::ffff:203.0.113.7], port=[4], rcvd=59, sent=360",  # its login failed
    )
    found = analyze([name])
    assert insecure(found) == [("203.0.113.1", "clear"), ("203.0.113.4", "x, ip=[1.2.3.4], port=[9]")]
    assert {f.user: f.tls for f in facts(found)} == {
        "clear": Tls.NONE, "x, ip=[1.2.3.4], port=[9]": Tls.NONE, "tls": Tls.STARTTLS, "upgraded": Tls.STARTTLS,
        "stls": Tls.STARTTLS, "tls2": Tls.IMPLICIT, "wrong": Tls.IMPLICIT, "goes on": None,
    }  # fmt: skip


def test_courier_without_ports_and_over_rolled_files(tmp_path: Path) -> None:
    first = write(
        tmp_path,
        "2026-03-02T08:15:30+01:00 mail imapd: LOGIN, user=old, ip=[::ffff:203.0.113.1], protocol=IMAP",
        "2026-03-02T08:15:31+01:00 mail imapd: LOGIN, user=upgraded, ip=[::ffff:203.0.113.2], port=[4], protocol=IMAP",
        name="mail.log.1",
    )
    second = write(
        tmp_path,
        "2026-03-02T08:16:30+01:00 mail imapd: LOGOUT, user=old, ip=[::ffff:203.0.113.1], headers=0, body=0",
        "2026-03-02T08:16:31+01:00 mail imapd: LOGOUT, user=upgraded, ip=[::ffff:203.0.113.2], port=[4], starttls=1",
    )
    for names in ([first, second], [second, first]):
        assert {f.user: f.tls for f in facts(analyze(names))} == {"old": Tls.NONE, "upgraded": Tls.STARTTLS}


def test_cyrus_clients_that_tell_their_name(tmp_path: Path) -> None:
    name = write(
        tmp_path,
        ISO + 'imap[7]: client id sessionid=<a-1>: "vendor" NIL "name" "Old Scanner" "version" "7"',
        ISO + "imap[7]: login: h [203.0.113.1] clear plaintext User logged in SESSIONID=<a-1>",
        ISO + "imap[7]: login: h [203.0.113.2] other plaintext User logged in SESSIONID=<a-2>",
    )
    assert {f.user: f.client for f in facts(analyze([name]))} == {"clear": "Old Scanner 7", "other": ""}


def test_exim_tells_failures_twice(tmp_path: Path) -> None:
    failed = "plain authenticator failed for h [203.0.113.9]: 535 Incorrect authentication data (set_id=wrong)"
    name = write(
        tmp_path, *(f"2026-03-02T08:15:{s}+01:00 mail exim[7]: {failed}" for s in (30, 30, 31)), name="mail.log"
    )
    assert len(facts(analyze([name]))) == 2
    folder = tmp_path / "exim4"
    folder.mkdir()
    for log in ("mainlog", "rejectlog"):
        (folder / log).write_text(f"2026-03-02 08:15:30 {failed}\n")
    found = analyze([str(folder)])
    assert len(facts(found)) == 1 and any("rejectlog" in w and "left out" in w for w in found.warnings())
    assert len(facts(analyze([str(folder / "rejectlog")]))) == 1


def smtpd(pid: int, *messages: str, service: str = "postfix/submission/smtpd") -> list[str]:
    return [f"{ISO}{service}[{pid}]: {m}" for m in messages]


def session(pid: int, user: str, *more: str, end: str = "ehlo=1 auth=1 quit=1 commands=3") -> list[str]:
    host = f"h[203.0.113.{pid}]"
    return smtpd(
        pid, f"connect from {host}", *more, f"4A{pid}: client={host}, sasl_method=PLAIN, sasl_username={user}",
        f"disconnect from {host} {end}",
    )  # fmt: skip


TLS_LINE = "Anonymous TLS connection established from h[203.0.113.2]: TLSv1.3 with cipher X (256/256 bits)"


def test_postfix(tmp_path: Path) -> None:
    with_lines = write(tmp_path, *session(1, "clear"), *session(2, "tls", TLS_LINE), name="1.log")
    assert insecure(analyze([with_lines])) == [("203.0.113.1", "clear")]
    silent = write(tmp_path, *session(1, "unknown"), name="2.log")
    (fact,) = facts(analyze([silent]))
    assert fact.tls is None
    counted = write(
        tmp_path,
        *session(3, "clear"),
        *session(4, "tls", end="ehlo=2 starttls=1 auth=1 quit=1 commands=5"),
        name="3.log",
    )
    assert insecure(analyze([counted])) == [("203.0.113.3", "clear")]
    wrapped = write(tmp_path, *[x.replace("submission", "smtps") for x in session(5, "a")], *session(2, "b", TLS_LINE))
    assert not insecure(analyze([wrapped]))
    refused = write(
        tmp_path,
        *smtpd(6, "connect from h[203.0.113.6]", "disconnect from h[203.0.113.6] ehlo=1 auth=0/2 commands=1/3"),
        *smtpd(7, "connect from h[203.0.113.7]", "warning: h[203.0.113.7]: SASL LOGIN authentication failed: no, sasl_username=w",
               "disconnect from h[203.0.113.7] ehlo=1 auth=0/1 commands=1/2"),
        *session(2, "b", TLS_LINE),
    )  # fmt: skip
    results = [(f.address, f.result) for f in facts(analyze([refused])) if f.user != "b"]
    assert results.count(("203.0.113.6", LoginResult.REFUSED)) == 2
    assert results.count(("203.0.113.7", LoginResult.FAILED)) == 1 and len(results) == 3


def test_one_postfix_login_may_send_many_messages(tmp_path: Path) -> None:
    lines = session(1, "a")
    name = write(tmp_path, *lines[:2], *lines[1:2] * 5, *lines[2:], *session(2, "b", TLS_LINE))
    assert [f.user for f in facts(analyze([name]))].count("a") == 1


@pytest.mark.parametrize("processes", [1, 2])
def test_postfix_sessions_over_roll_over(tmp_path: Path, processes: int) -> None:
    one, two = session(1, "a", TLS_LINE.replace("113.2", "113.1")), session(2, "late")
    first = write(tmp_path, *one[:2], *two[:2], name="mail.log.1")
    second = write(tmp_path, *[x.replace("08:15", "08:16") for x in one[2:] + two[2:]], name="mail.log")
    found = analyze([second, first], Options(processes=processes))
    by_user = {f.user: f for f in facts(found)}
    assert by_user["a"].tls is Tls.STARTTLS and by_user["late"].tls is Tls.NONE


def test_exim(tmp_path: Path) -> None:
    name = write(
        tmp_path,
        "2026-03-02 08:15:30 1abcde-0001AB-0X <= u@example.com H=(x) [203.0.113.1] P=esmtpa A=plain_server:clear S=100",
        "2026-03-02 08:15:30 1abcde-0001AB-0Y <= u@example.com H=h (x) [203.0.113.2]:99 P=esmtpsa X=TLS1.3:E:256 A=login:tls",
        "2026-03-02 08:15:30 1abcde-0001AB-0Z <= u@example.com H=h [203.0.113.3] P=esmtps X=TLS1.3:E:256 S=9",
        "2026-03-02 08:15:31 plain authenticator failed for (x) [203.0.113.4]: 535 Incorrect authentication data (set_id=w)",
        '2026-03-02 08:15:31 SMTP protocol error in "AUTH PLAIN AGEAYg==" H=(x) [203.0.113.5] AUTH command used when not '
        "advertised",
        ISO + "exim[7]: 1abcde-0001AB-0W <= u@example.com H=(x) [203.0.113.6] P=esmtpa A=login_server:clear2 S=100",
    )
    found = analyze([name])
    assert insecure(found) == [("203.0.113.1", "clear"), ("203.0.113.6", "clear2")]
    assert len(facts(found)) == 5
    assert not any("AGEAYg" in str(f) for f in facts(found))


def test_lines_of_others_are_passed_over_and_unreadable_ones_counted(tmp_path: Path) -> None:
    name = write(
        tmp_path,
        ISO + "CRON[1]: (root) CMD (logins)",
        ISO + "dovecot: master: Dovecot v2.3.19.1 starting up",
        "nothing that begins with a time",
        "",
        ISO + "dovecot: imap-login: Login: user=<cut",
    )
    found = analyze([name])
    assert found.unreadable == 2
    assert "line 3: does not begin with a time" in found.warnings()[1]
    assert "line 5: a login of Dovecot without its fields" in found.warnings()[2]


def test_standard_input_and_folders(tmp_path: Path) -> None:
    line = ISO + DOVECOT + f"Login: user=<u>, method=PLAIN, {FIELDS}, mpid=1, session=<a>"
    (tmp_path / "deep").mkdir()
    for where in (tmp_path, tmp_path / "deep"):
        write(where, line)
    assert len(facts(analyze([str(tmp_path)]))) == 2
    assert len(facts(analyze([str(tmp_path / "*.log")]))) == 1
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    if os.fork() == 0:
        with fifo.open("w") as out:
            out.write(line + "\n")
        os._exit(0)
    assert len(facts(analyze([str(fifo)]))) == 1
    os.wait()
