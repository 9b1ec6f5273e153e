"""Exchange's POP3 and IMAP4 protocol logs: the reference's samples, header variants, sessions across files, bad input."""

# ruff: noqa: E501 - log lines as servers write them

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import zstandard

from letterlock.analyze.logs import Analysis, Options, analyze
from letterlock.analyze.logs_exchange import Ports, client_name
from letterlock.analyze.logs_tally import readable
from letterlock.base.facts import LoginFact, LoginResult
from letterlock.base.values import Protocol, Tls

HEAD = "#Fields: dateTime,sessionId,seqNumber,sIp,cIp,user,duration,rqsize,rpsize,command,parameters,context,puid\r\n"
PROXIED = '"R=OK;Msg=""Proxy:ex01.contoso.test:1993:SSL;ProxySuccess"""'


def row(
    session: int, number: int, command: str, rest: str = ",R=ok,", port: int = 143, second: int = 0, user: str = "",
    client: str = "198.51.100.20:33110", size: int = 20,
) -> str:  # fmt: skip
    """One line in Exchange's format."""
    return (
        f"2026-03-02T08:17:{second:02}.000Z,{session:016X},{number},192.0.2.10:{port},{client},{user},1,{size},23,"
        f"{command},{rest}\r\n"
    )


def log(path: Path, *rows: str, head: str = HEAD) -> str:
    """A file; its name."""
    path.write_bytes((head + "".join(rows)).encode())
    return str(path)


def facts(analysis: Analysis) -> list[LoginFact]:
    """Each login once, by time."""
    found = [f for f, entry in analysis.tally.facts() for _ in range(entry.count)]
    return sorted(found, key=lambda f: (f.at, f.user))


def insecure(analysis: Analysis) -> list[tuple[str, str]]:
    return sorted((f.address, f.user) for f in facts(analysis) if readable(f))


def test_samples_of_every_kind(tmp_path: Path) -> None:
    name = log(
        tmp_path / "IMAP4.LOG",
        row(0xA0, 0, "OpenSession", ",,", 993, 1),
        row(0xA0, 1, "login", "a@contoso.test *****," + PROXIED + ",", 993, 2, "a@contoso.test"),
        row(0xB0, 0, "OpenSession", ",,", 143, 3),
        row(0xB0, 1, "login", "scan@contoso.test *****," + PROXIED + ",", 143, 4, "scan@contoso.test"),
        row(0xB1, 0, "OpenSession", ",,", 143, 5),
        row(0xB1, 1, "starttls", ",R=ok,", 143, 6),
        row(0xB1, 2, "login", "b@contoso.test *****," + PROXIED + ",", 143, 7, "b@contoso.test"),
        row(0xB2, 1, "login", 'c@contoso.test *****,"R=""1 BAD Command received in Invalid state.""",', 143, 8, "c"),
        row(0xB3, 0, "OpenSession", ",,", 143, 9),
        row(0xB3, 1, "starttls", '"","R=""1 BAD no""",', 143, 10),
        row(0xB3, 2, "authenticate", "PLAIN,R=OK,", 143, 11, "d@contoso.test"),
        row(0xB4, 0, "OpenSession", ",,", 143, 12),
        row(0xB4, 1, "authenticate", "NTLM,R=OK,", 143, 13, "ntlm@contoso.test"),
        row(0xB5, 0, "OpenSession", ",,", 1993, 14),
        row(0xB5, 1, "authenticate", "PLAIN,R=OK,", 1993, 15, "a"),
        row(0xB6, 0, "OpenSession", ",,", 993, 16),
        row(0xB6, 1, "login", 'x *****,"R=""2 NO LOGIN failed."";ErrMsg=AuthFailed:LogonDenied",', 993, 17, "x"),
    )
    found = analyze([name])
    assert insecure(found) == [("198.51.100.20", u) for u in ("c", "d@contoso.test", "scan@contoso.test")]
    assert found.unreadable == 0
    by_user = {f.user: f for f in facts(found)}
    assert by_user["b@contoso.test"].tls is Tls.STARTTLS
    assert by_user["c"].result is LoginResult.REFUSED and "Invalid state" in by_user["c"].text
    assert by_user["x"].result is LoginResult.FAILED
    assert by_user["d@contoso.test"].mechanism == "PLAIN"
    assert "a" not in by_user and any("1 back-end login" in n for n in found.files[0].notes)


def test_pop_logs(tmp_path: Path) -> None:
    name = log(
        tmp_path / "POP3.LOG",
        row(1, 0, "OpenSession", ",,", 110),
        row(1, 1, "user", "a@contoso.test,R=ok,", 110, 1, "a@contoso.test"),
        row(1, 2, "pass", "*****,R=ok,", 110, 2, "a@contoso.test"),
        row(2, 0, "OpenSession", ",,", 110),
        row(2, 1, "stls", ",R=ok,", 110, 3),
        row(2, 2, "user", "b,R=ok,", 110, 4, "b"),
        row(2, 3, "pass", "*****,R=ok,", 110, 5, "b"),
        row(3, 0, "OpenSession", ",,", 110),
        row(3, 1, "user", 'c,"R=""-ERR Command is not valid in this state.""",', 110, 6, "c"),
        row(4, 0, "OpenSession", ",,", 110),
        row(4, 1, "apop", "d *****,R=ok,", 110, 7, "d"),
    )
    found = analyze([name])
    assert insecure(found) == [("198.51.100.20", "a@contoso.test")]
    refused = [f for f in facts(found) if f.result is LoginResult.REFUSED]
    assert [(f.user, f.sent, f.protocol) for f in refused] == [("c", False, Protocol.POP3)]


def test_a_refused_authenticate_exposed_its_password_only_with_an_initial_response(tmp_path: Path) -> None:
    refusal = 'PLAIN,"R=""a1 BAD Command received in Invalid state.""",'
    name = log(
        tmp_path / "a.LOG",
        row(1, 0, "OpenSession", ",,"),
        row(1, 1, "authenticate", refusal, second=1, user="bare", size=len("a1 AUTHENTICATE PLAIN")),
        row(2, 0, "OpenSession", ",,"),
        row(2, 1, "authenticate", refusal, second=2, user="sent", size=len("a1 AUTHENTICATE PLAIN AGEAYg==")),
    )
    assert insecure(analyze([name])) == [("198.51.100.20", "sent")]


@pytest.mark.parametrize(
    "fields",
    [
        "#Fields: dateTime,sessionId,seqNumber,sIp,cIp,user,duration,rqsize,rpsize,command,parameters,context",
        "#Fields: date-time,session-id,seq-number,s-ip,c-ip,user,command,parameters,context",
        "#Fields: command,parameters,context,cIp,sIp,user,seqNumber,sessionId,dateTime,extra",
    ],
)
def test_header_variants(tmp_path: Path, fields: str) -> None:
    names = fields.partition(": ")[2].lower().replace("-", "").split(",")
    values = {
        "datetime": "2026-03-02T08:17:01.000Z", "sessionid": "00000000000000B0", "seqnumber": "1",
        "sip": "192.0.2.10:143", "cip": "[2001:db8::7]:40000", "user": "u@contoso.test", "command": "login",
        "parameters": "u@contoso.test *****", "context": "R=OK",
    }  # fmt: skip
    opened = values | {"seqnumber": "0", "command": "OpenSession", "parameters": "", "context": "", "user": ""}
    lines = [",".join(v.get(n, "0") for n in names) for v in (opened, values)]
    found = analyze([log(tmp_path / "v.LOG", "\r\n".join(lines) + "\r\n", head="#Software: x\r\n" + fields + "\r\n")])
    assert insecure(found) == [("2001:db8::7", "u@contoso.test")] and not found.unreadable


def test_the_columns_of_an_smtp_log_are_named(tmp_path: Path) -> None:
    head = "#Fields: date-time,connector-id,session-id,sequence-number,local-endpoint,remote-endpoint,event,data,context\r\n"
    found = analyze([log(tmp_path / "s.LOG", "2026-03-02T08:17:01.000Z,c,8,0,1,2,+,,\r\n", head=head)])
    assert found.unreadable == 1 and "SMTP protocol log" in found.warnings()[1]


def test_without_a_header_the_usual_columns_are_taken(tmp_path: Path) -> None:
    rows = row(1, 0, "OpenSession", ",,") + row(1, 1, "login", "u *****,R=OK,", user="u")
    assert insecure(analyze([log(tmp_path / "piece.LOG", rows, head="")])) == [("198.51.100.20", "u")]


def test_a_session_that_began_before_the_log_is_unknown(tmp_path: Path) -> None:
    name = log(tmp_path / "a.LOG", row(1, 4, "login", "u *****,R=OK,", user="u"))
    (fact,) = facts(analyze([name]))
    assert fact.tls is None and not readable(fact)


@pytest.mark.parametrize("processes", [1, 2])
def test_sessions_are_followed_over_roll_over(tmp_path: Path, processes: int) -> None:
    """The files' names say nothing of their order: their first lines do."""
    first = log(
        tmp_path / "z.LOG",
        row(1, 0, "OpenSession", ",,", second=1),
        row(1, 1, "starttls", ",R=ok,", second=2),
        row(2, 0, "OpenSession", ",,", second=3, client="198.51.100.21:1"),
        row(3, 0, "OpenSession", ",,", second=4, client="198.51.100.22:1"),
        row(3, 1, "login", "three *****,R=OK,", second=5, user="three", client="198.51.100.22:1"),
    )
    second = log(
        tmp_path / "a.LOG",
        row(1, 2, "login", "one *****,R=OK,", second=10, user="one"),
        row(2, 5, "login", "two *****,R=OK,", second=11, user="two", client="198.51.100.21:1"),
        row(3, 2, "id", '"(""name"" ""Late"" ""version"" ""2"")",R=ok,', second=12, client="198.51.100.22:1"),
        row(4, 5, "login", "four *****,R=OK,", second=13, user="four", client="198.51.100.23:1"),
    )
    found = analyze([second, first], Options(processes=processes))
    by_user = {f.user: f for f in facts(found)}
    assert by_user["one"].tls is Tls.STARTTLS
    assert by_user["two"].tls is Tls.NONE
    assert by_user["three"].client == "Late 2"
    assert by_user["four"].tls is None
    assert insecure(found) == [("198.51.100.21", "two"), ("198.51.100.22", "three")]


def test_custom_ports(tmp_path: Path) -> None:
    rows = [row(n, 0, "OpenSession", ",,", port) for n, port in ((1, 2143), (2, 2993))]
    rows += [row(n, 1, "login", "u *****,R=OK,", port, user=f"u{n}") for n, port in ((1, 2143), (2, 2993))]
    name = log(tmp_path / "a.LOG", *rows)
    unknown = analyze([name])
    assert not insecure(unknown) and "2143" in unknown.warnings()[0]
    told = analyze([name], Options(ports=Ports(frozenset((2993,)), frozenset((2143,)))))
    assert insecure(told) == [("198.51.100.20", "u1")]


def test_clients_by_their_id(tmp_path: Path) -> None:
    assert client_name('("name" "Thunderbird" "version" "115.0" "os" NIL)') == "Thunderbird 115.0"
    assert client_name('("vendor" "ACME")') == "ACME"
    assert client_name("NIL") == ""
    name = log(
        tmp_path / "a.LOG",
        row(1, 0, "OpenSession", ",,"),
        row(1, 1, "id", '"(""name"" ""Early"")",R=ok,'),
        row(1, 2, "login", "u *****,R=OK,", second=1, user="u"),
        row(2, 0, "OpenSession", ",,", client="198.51.100.21:1"),
        row(2, 1, "login", "v *****,R=OK,", second=2, user="v", client="198.51.100.21:1"),
        row(2, 2, "id", '"(""name"" ""After"")",R=ok,', client="198.51.100.21:1"),
        row(2, 3, "CloseSession", ",,", client="198.51.100.21:1"),
    )
    assert [f.client for f in facts(analyze([name]))] == ["Early", "After"]


def test_our_own_rows_say_how_the_channel_was(tmp_path: Path) -> None:
    head = "#Software: Letterlock\r\n" + HEAD
    name = log(
        tmp_path / "a.LOG",
        row(1, 7, "login", "a *****,R=OK;Tls=none,", 4711, 1, "a"),
        row(2, 7, "login", "b *****,R=OK;Tls=starttls:TLSv1.3,", 4711, 2, "b"),
        row(3, 7, "authenticate", 'PLAIN,"R=""a NO [PRIVACYREQUIRED] no"";Tls=none",', 4711, 3, "c", size=20),
        row(4, 7, "authenticate", 'PLAIN *****,"R=""a NO [PRIVACYREQUIRED] no"";Tls=none",', 4711, 4, "d"),
        head=head,
    )
    found = analyze([name])
    assert insecure(found) == [("198.51.100.20", "a"), ("198.51.100.20", "d")]
    assert found.files[0].format == "Letterlock"


def test_user_names_forge_no_columns(tmp_path: Path) -> None:
    """A name with commas stands in quotes; the columns after it are where they were."""
    evil = '"x,1,2,3,noop,y"'
    forged = '"x,1,2,3,login,""z *****"",R=OK,"'
    name = log(
        tmp_path / "a.LOG",
        row(1, 0, "OpenSession", ",,"),
        row(1, 1, "login", '"x *****",R=OK,', user=evil),
        row(2, 0, "OpenSession", ",,", client="198.51.100.9:1"),
        row(2, 1, "noop", ",R=OK,", user=forged, client="198.51.100.9:1"),
    )
    assert insecure(analyze([name])) == [("198.51.100.20", "x,1,2,3,noop,y")]


@pytest.mark.parametrize("how", ["gz", "zst", "utf-16", "utf-16-le", "bom"])
def test_compressed_and_other_encodings(tmp_path: Path, how: str) -> None:
    text = HEAD + row(1, 0, "OpenSession", ",,") + row(1, 1, "login", "ü *****,R=OK,", user="ü@contoso.test")
    data = text.encode()
    data = {
        "gz": lambda: gzip.compress(data), "zst": lambda: zstandard.compress(data), "utf-16": lambda: text.encode("utf-16"),
        "utf-16-le": lambda: text.encode("utf-16-le"), "bom": lambda: b"\xef\xbb\xbf" + data,
    }[how]()  # fmt: skip
    path = tmp_path / "a.LOG"
    path.write_bytes(data)
    assert insecure(analyze([str(path)])) == [("198.51.100.20", "ü@contoso.test")]


def test_lines_that_cannot_be_read_are_counted_and_shown(tmp_path: Path) -> None:
    good = row(1, 0, "OpenSession", ",,") + row(1, 1, "login", "u *****,R=OK,", user="u")
    bad = (
        "2026-03-02T08:17:01.000Z,0000000000000001,2,192.0.2.10:143\r\n\x1b[31mred\r\n\x00\x01\r\n" + "nonsense\r\n" * 9
    )
    found = analyze([log(tmp_path / "a.LOG", good, bad, good.replace("000001,", "000002,"))])
    assert len(insecure(found)) == 2
    assert found.unreadable == 12
    warnings = found.warnings()
    assert warnings[0].endswith("12 of 17 lines could not be read")
    assert "line 4: cut off" in warnings[1] and "\\x1b[31mred" in warnings[2]
    assert not any("\x1b" in w for w in warnings)


def test_files_that_cannot_be_read_do_not_stop_the_others(tmp_path: Path) -> None:
    good = log(tmp_path / "good.LOG", row(1, 0, "OpenSession", ",,"), row(1, 1, "login", "u *****,R=OK,", user="u"))
    packed = gzip.compress((HEAD + row(2, 0, "OpenSession", ",,") + row(2, 1, "noop") * 2000).encode())
    (tmp_path / "cut.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 50)
    (tmp_path / "empty.LOG").write_bytes(b"")
    (tmp_path / "poem.txt").write_text("roses\nviolets\n")
    (tmp_path / "long.LOG").write_bytes(HEAD.encode() + b"x" * 3_000_000 + b"\r\n" + row(9, 0, "noop").encode())
    found = analyze([str(tmp_path)])
    assert insecure(found) == [("198.51.100.20", "u")]
    text = "\n".join(found.warnings())
    assert "cut.gz, line" in text and "cannot be read beyond this line" in text
    assert "binary, line 1: this is not a text file" in text
    assert "empty.LOG: the file is empty" in text
    assert "poem.txt, line 1: the format is not recognised" in text
    assert "long.LOG, line 2: longer than 256 KiB, skipped" in text
    assert good in [f.name for f in found.files]


def test_since_and_until(tmp_path: Path) -> None:
    rows = [row(n, 0, "OpenSession", ",,", second=n) for n in range(1, 6)]
    rows += [row(n, 1, "login", "u *****,R=OK,", second=n, user=f"u{n}") for n in range(1, 6)]
    at = 1_772_439_420.0  # 2026-03-02T08:17:00Z
    found = analyze([log(tmp_path / "a.LOG", *rows)], Options(since=at + 2, until=at + 4))
    assert [u for _, u in insecure(found)] == ["u2", "u3"]


def test_sessions_that_never_end_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from letterlock.analyze.logs_tally import Sessions

    monkeypatch.setattr(Sessions, "LIMIT", 100)
    rows = []
    for n in range(1, 1000):
        rows += [row(n, 0, "OpenSession", ",,", client=f"198.51.100.20:{n}")]
        rows += [row(n, 1, "login", "u *****,R=OK,", client=f"198.51.100.20:{n}", user="u")]
    assert len(insecure(analyze([log(tmp_path / "a.LOG", *rows)]))) == 999
