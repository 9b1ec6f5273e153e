"""Invoke-Analyzer as the contract has it: columns, exit status, files, baseline, report; our own server, running."""

from __future__ import annotations

import asyncio
import csv
import html.parser
import imaplib
import io
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from letterlock.analyze import baseline
from letterlock.base.errors import Malformed, Refused
from letterlock.manage import CMDLETS, checks
from letterlock.manage.here import Local
from tests.analyze import exports_samples as samples
from tests.clients.server import PASSWORD, PROGRAM, Server

COLUMNS = ["Id", "Check", "Target", "Verdict", "Detail", "Remedy"]
VERDICTS = {"Pass", "Warning", "Fail", "Info", "Error"}


def run(**named: Any) -> tuple[list[dict[str, Any]], Local, list[str]]:
    """The cmdlet where the command line runs, without any server."""
    told: list[str] = []

    async def nowhere(*_: Any) -> Any:
        raise AssertionError("no server is needed")

    local = Local(CMDLETS, nowhere, told.append)
    items = asyncio.run(local("Invoke-Analyzer", named, []))
    return [item["properties"] for item in items], local, told


def program(*words: str, data: Path | None = None) -> subprocess.CompletedProcess[str]:
    """letterlock invoke-analyzer."""
    where = ["--data", str(data)] if data else ["--data", "/nonexistent"]
    return subprocess.run([PROGRAM, "invoke-analyzer", *where, *words], capture_output=True, text=True, timeout=120)


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    folder = tmp_path / "exports"
    folder.mkdir()
    (folder / "imap.txt").write_text(samples.IMAP_LIST)
    (folder / "certificates.txt").write_text(samples.CERTIFICATES)
    return folder


# --- the contract


def test_columns_verdicts_and_exit_status(exports: Path) -> None:
    good = program("--path", str(exports), "--id", "IMAP002", "--output", "json")
    rows = json.loads(good.stdout)
    assert good.returncode == 0 and [list(r) for r in rows] == [COLUMNS] and rows[0]["Verdict"] == "Pass"
    assert good.stderr.strip() == "1 findings: 1 Pass"
    (exports / "imap.txt").write_text(samples.FORUM)
    bad = program("--path", str(exports), "--output", "csv")
    table = list(csv.DictReader(io.StringIO(bad.stdout)))
    assert bad.returncode == 1 and list(table[0]) == COLUMNS and {r["Verdict"] for r in table} <= VERDICTS
    assert {r["Id"]: r["Verdict"] for r in table}["IMAP002"] == "Fail"


def test_several_files_in_every_way_of_writing_them(exports: Path) -> None:
    files = [str(exports / "imap.txt"), str(exports / "certificates.txt")]
    for words in (["--path", *files], ["--path", files[0], "--path", files[1]], ["--path", ",".join(files)], files):
        done = program(*words, "--id", "CERT-NAME", "--output", "json")
        assert [r["Verdict"] for r in json.loads(done.stdout)] == ["Pass"], (words, done.stderr)


def test_error_alone_is_exit_status_1(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    done = program("--path", str(tmp_path), "--output", "json")
    assert done.returncode == 1
    assert [(r["Id"], r["Verdict"]) for r in json.loads(done.stdout)] == [("INPUT-FILE", "Error")]
    assert json.loads(done.stdout)[0]["Target"].endswith("broken.json:1")


def test_a_table_for_people_has_the_six_columns(exports: Path) -> None:
    text = program("--path", str(exports)).stdout
    assert text.splitlines()[1].split() == COLUMNS
    assert text.rstrip().splitlines()[-1].startswith("31 findings" if "31 findings" in text else "")


def test_standard_input(exports: Path) -> None:
    done = subprocess.run(
        [PROGRAM, "invoke-analyzer", "--path", "-", "--id", "IMAP002", "--output", "json"],
        input=samples.FORUM, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout)[0]["Verdict"] == "Fail"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--path", "/no/such/file"], "no such file"),
        (["--id", "NOPE-1"], "there is no check 'NOPE-1'"),
        (["--category", "Nothing"], "is not one of"),
        (["--endpoint", "mail.example.com:99999"], "is not an endpoint"),
        (["--endpoint", "a b"], "is not"),
        (["--timeout", "0"], "from 1 to 600"),
        (["--reason", "x"], "belong to -WriteBaseline"),
        (["--write-baseline", "x.json"], "needs -Reason and -ExpiresOn"),
        (["--expires-on", "soon"], "is not a date"),
    ],
)
def test_wrong_input_is_named(words: list[str], text: str, exports: Path) -> None:
    more = [] if "--path" in words else ["--path", str(exports)]
    done = program(*more, *words)
    assert done.returncode == 2 and text in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.startswith("letterlock: error: Invoke-Analyzer: ")


def test_nothing_judged_is_never_taken_for_a_pass(exports: Path, tmp_path: Path) -> None:
    done = program("--path", str(exports), "--id", "TLS-LIST", "--output", "json")
    assert done.returncode == 1 and [r["Detail"] for r in json.loads(done.stdout)] == ["nothing was judged"]
    (tmp_path / "settings.txt").write_text("LoginType : SecureLogin\n")
    done = program("--path", str(tmp_path / "settings.txt"), "--id", "IMAP002", "--output", "json")
    assert done.returncode == 1 and "nothing tells which" in json.loads(done.stdout)[0]["Detail"]


def test_detailed_findings_name_file_and_line(exports: Path) -> None:
    rows, _, _ = run(Path=str(exports), Detailed=True, Id="IMAP002")
    assert rows[0]["Source"].endswith("imap.txt") and rows[0]["Line"] == 10
    assert rows[0]["Why"] and rows[0]["Link"].startswith("https://") and rows[0]["Category"] == "Logins"


def test_ids_and_categories_choose(exports: Path) -> None:
    rows, _, _ = run(Path=str(exports), Id=["CERT-*", "pop002"])
    assert {r["Id"].partition("-")[0] for r in rows} <= {"CERT", "INPUT"}
    rows, _, _ = run(Path=str(exports), Category="Limits", Detailed=True)
    assert {r["Category"] for r in rows} <= {"Limits", "Input"}


# --- logs among the files


def test_logs_among_the_files(exports: Path) -> None:
    head = "#Fields: dateTime,sessionId,seqNumber,sIp,cIp,user,duration,rqsize,rpsize,command,parameters,context,puid\n"
    rows = [
        f"2026-03-02T08:17:00.{n:03}Z,{n:016X},{n % 2},192.0.2.10:143,198.51.100.20:{33110 + n // 2},"
        + (
            "scanner@contoso.test,80,40,23,login,scanner@contoso.test *****,R=OK,\n"
            if n % 2
            else ",2,0,53,OpenSession,,,\n"
        )
        for n in range(4)
    ]
    rows = [r.replace(f"{n:016X}", f"{n // 2:016X}", 1) for n, r in enumerate(rows)]
    (exports / "IMAP420260302-1.LOG").write_text(head + "".join(rows))
    boxes = "PrimarySmtpAddress,PopEnabled,ImapEnabled\nscanner@contoso.test,True,True\nidle@contoso.test,False,True\n"
    (exports / "cas.csv").write_text(boxes)
    found = {(r["Id"], r["Verdict"]): r for r in run(Path=str(exports))[0]}
    assert "2 log-ons in clear text over IMAP4, of scanner@contoso.test" in found["LOG-CLEAR", "Fail"]["Detail"]
    assert "198.51.100.20" in found["LOG-CLEAR", "Fail"]["Target"]
    assert "idle@contoso.test" in found["MBX-ON", "Warning"]["Detail"]
    assert "scanner" not in found["MBX-ON", "Warning"]["Detail"]


# --- baseline


def test_a_baseline_accepts_with_reason_and_end(exports: Path, tmp_path: Path) -> None:
    (exports / "imap.txt").write_text(samples.IMAP_LIST.replace("SecureLogin", "PlainTextLogin"))
    file = tmp_path / "accepted.json"
    done = program("--path", str(exports), "--write-baseline", str(file), "--reason", "moving in March", "--expires-on",
                   "2099-03-31")  # fmt: skip
    assert done.returncode == 1, "writing it accepts nothing yet"
    entries = json.loads(file.read_text())["accepted"]
    assert {
        "Id": "LOGIN-CLEAR",
        "Target": "EX01 IMAP4",
        "Reason": "moving in March",
        "Expires": "2099-03-31",
    } in entries
    done = program("--path", str(exports), "--baseline", str(file), "--output", "json")
    rows = {r["Id"]: r for r in json.loads(done.stdout)}
    assert done.returncode == 0 and rows["LOGIN-CLEAR"]["Verdict"] == "Info"
    assert rows["LOGIN-CLEAR"]["Detail"].startswith(
        "accepted until 2099-03-31 (moving in March); Fail: LoginType is PlainText"
    )
    assert "accepted)" in done.stderr
    entries[0]["Expires"] = "2020-01-01"
    entries.append({"Id": "TLS-VER", "Target": "gone*", "Reason": "old", "Expires": "2099-01-01"})
    file.write_text(json.dumps({"accepted": entries}))
    rows_, _, _ = run(Path=str(exports), Baseline=str(file))
    about = {r["Target"]: (r["Verdict"], r["Detail"]) for r in rows_ if r["Id"] == "BASELINE"}
    assert about[f"{entries[0]['Id']} {entries[0]['Target']}"][0] == "Warning"
    assert about["TLS-VER gone*"] == ("Info", "nothing needs this entry any more: remove it from the baseline")
    assert any(r["Id"] == entries[0]["Id"] and r["Verdict"] in ("Fail", "Warning") for r in rows_)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not valid JSON"),
        ("[]", 'must be {"accepted"'),
        ("[" * 100_000, "is not valid JSON"),
        ('{"accepted": [{"Id": "X"}]}', "entry 1 needs Id, Target, Reason, Expires"),
        ('{"accepted": [{"Id": "X", "Target": "*", "Reason": " ", "Expires": "2027-01-01"}]}', "entry 1 needs"),
        ('{"accepted": [{"Id": "X", "Target": "*", "Reason": "r", "Expires": "soon"}]}', "'soon' is not a date"),
    ],
)
def test_a_wrong_baseline_is_named(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "b.json"
    file.write_text(text)
    with pytest.raises(Malformed, match=why.replace("{", r"\{")):
        baseline.read(file)


# --- report


class Page(html.parser.HTMLParser):
    """What a page refers to, and its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_report_is_self_contained_and_hostile_text_is_only_text(exports: Path, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    (exports / "imap.txt").write_text(
        samples.IMAP_LIST.replace("SecureLogin", "PlainTextLogin").replace("The Microsoft", f"{evil} Microsoft")
    )
    (exports / "<b>bold.json").write_text("{")
    target = tmp_path / "report.html"
    _, _, told = run(Path=str(exports), Report=str(target))
    assert told == [f"written: {target}"]
    text = target.read_text()
    page = Page(text)
    assert (
        "<script" not in text
        and "onerror" not in str(page.tags)
        and not [t for t, _ in page.tags if t in ("img", "b ")]
    )
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "style", "onclick"):
            value = attributes.get(name)
            assert value is None or (tag == "a" and name == "href" and value.startswith("https://")), (tag, attributes)
    assert "Action is needed" in text and "Set-ImapSettings -Server EX01 -LoginType SecureLogin" in text
    assert "&lt;script&gt;" in text
    assert list(tmp_path.glob(".report*")) == []


def test_a_report_that_cannot_be_written_is_named(exports: Path) -> None:
    done = program("--path", str(exports), "--report", "/nonexistent/report.html")
    assert done.returncode == 1 and "cannot be written" in done.stderr and "Traceback" not in done.stderr


# --- our own server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "data")
    made.start()
    yield made
    made.stop()


def test_our_own_running_server(server: Server, tmp_path: Path) -> None:
    """Facts of the running server, its listeners tried, and what was set weaker than it should be."""

    def found() -> dict[str, list[tuple[str, str]]]:
        done = program("--output", "json", "--report", str(tmp_path / "own.html"), data=server.data)
        assert done.stdout, done.stderr
        by_id: dict[str, list[tuple[str, str]]] = {}
        for row in json.loads(done.stdout):
            by_id.setdefault(row["Id"], []).append((row["Verdict"], row["Detail"]))
        by_id["exit"] = [(str(done.returncode), "")]
        return by_id

    before = found()
    assert before["SVC-PAIR"] == [("Pass", "both are running")] * 2
    assert before["BIND-DEAD"] == [("Pass", "what is configured is what listens")] * 2
    assert {v for v, _ in before["CERT-PRESENTED"]} == {"Pass"}
    assert {v for v, _ in before["IMAP002"] + before["POP002"]} == {"Pass"}
    assert not [d for d in before.get("INPUT", []) if "Log" not in d[1]], "nothing but logs is missing"
    server.shell(
        "Set-ImapSettings -LoginType PlainTextLogin -TlsMinimum 1.0\n"
        "Set-PopSettings -LoginTypeMode ReportOnly -MaxConnectionsPerUser 2147483647",
    )
    after = found()
    assert after["exit"] == [("1", "")]
    assert [v for v, _ in after["IMAP002"]] == ["Fail"] and after["POP002"][0][0] == "Pass"
    assert "Fail" in {v for v, _ in after["TLS-FLOOR"]} and "Warning" in {v for v, _ in after["LOGIN-REPORT"]}
    weak = " ".join(d for _, d in after["SET-WEAK"])
    assert "LoginType is PlainTextLogin" in weak and "MaxConnectionsPerUser is 2147483647: no limit" in weak
    assert "Action is needed" in (tmp_path / "own.html").read_text()


def test_facts_are_the_servers_own_words(server: Server) -> None:
    done = subprocess.run(
        [PROGRAM, "get-analyzerfact", "--data", str(server.data), "--output", "json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    facts = json.loads(done.stdout)
    kinds = {f["Kind"] for f in facts}
    assert {"Server", "ImapSettings", "PopSettings", "AdminSettings", "Service", "CASMailbox", "Volume"} <= kinds
    assert {"ExchangeCertificate", "Listener"} <= kinds
    assert "password" not in done.stdout.lower().replace("passwordexposed", "")


@pytest.mark.parametrize("name", ["Path", "Endpoint", "Report", "Baseline", "WriteBaseline", "TrustedCertificate"])
def test_the_server_itself_reads_no_files_and_connects_nowhere(name: str) -> None:
    """By REST, an administrator of another machine must not make the server do that."""
    nowhere: Any = None
    with pytest.raises(Refused, match=f"{name}: files are read and endpoints probed where the command line runs"):
        asyncio.run(checks.analyze_there(nowhere, {name: ["x"]}))


def test_clear_text_logins_in_the_servers_own_logs(tmp_path: Path) -> None:
    wanted = "Set-ImapSettings -ProtocolLogEnabled $true -LoginType PlainTextLogin"
    server = Server(tmp_path / "data", settings=wanted)
    server.start()
    try:
        client = imaplib.IMAP4("127.0.0.1", server.imap)
        client.login("alice@demo.test", PASSWORD)
        client.logout()
        wait = "log-ons in clear text"
        for _ in range(40):
            rows = json.loads(program("--id", "LOG-CLEAR,MBX-ON", "--output", "json", data=server.data).stdout)
            if any(wait in r["Detail"] for r in rows):
                break
            time.sleep(0.25)
        found = [r["Detail"] for r in rows if r["Verdict"] == "Fail"]
        assert len(found) == 1 and found[0].startswith("1 log-ons in clear text over IMAP4, of alice@demo.test")
    finally:
        server.stop()
