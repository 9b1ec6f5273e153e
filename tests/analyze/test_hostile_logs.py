"""Whatever a log holds: no reader fails, nothing foreign reaches terminal, browser or spreadsheet as it stands."""

# ruff: noqa: E501 - log lines as servers write them

from __future__ import annotations

import html.parser
import json
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from letterlock.analyze import report
from letterlock.analyze.logs import FORMATS, Options, analyze
from letterlock.analyze.readiness import judge
from tests.analyze.test_exchange_logs import HEAD, facts, insecure, log, row
from tests.clients.server import PROGRAM
from tests.programs import need, path

PIECES = [
    HEAD, "#Fields: command,dateTime", "2026-03-02T08:17:01.000Z,00000000000000B0,1,192.0.2.10:143,1.2.3.4:5,", "login", ",",
    '"', "R=OK", "OpenSession", "Mar  2 08:15:30 h ", "2026-03-02T08:15:30+01:00 h ", "<22>1 ", "dovecot: imap-login: ",
    "Login: user=<", ">, method=PLAIN, rip=1.2.3.4", "imaps[1]: login: ", "badlogin: ", "event=login.good ", "imapd: LOGIN, user=",
    "postfix/smtpd[1]: ", "connect from ", "client=h[1.2.3.4], sasl_method=", "disconnect from h[1.2.3.4] auth=1/2 starttls=1",
    "1abcde-0001AB-0X <= a H=[1.2.3.4] P=esmtpa A=plain:u", " authenticator failed for [1.2.3.4]: 535", "\n", "\r\n", "\x00",
    "\x1b[2J", "ID sent: name=x", "session=<a>", "starttls", "id", '("name" "x")', "[", "]", "User logged in", "(auth failed, 9999999999 attempts",
]  # fmt: skip
LINES = (
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=8)), max_size=40)
    .map("".join)
    .map(lambda text: text.encode("utf-8", "replace"))
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(LINES, st.binary(max_size=2000)), form=st.sampled_from(FORMATS))
def test_no_reader_fails(tmp_path: Path, content: bytes, form: str) -> None:
    name = tmp_path / "any.log"
    name.write_bytes(content)
    found = analyze([str(name)], Options(form))
    judge(found.tally)
    for text in found.warnings():
        assert text.isprintable()


EVIL = "<script>alert(1)</script>\x1b[31m"
FORMULA = '=HYPERLINK("http://192.0.2.66")'


def evil_log(tmp_path: Path) -> str:
    quoted = FORMULA.replace('"', '""')
    return log(
        tmp_path / "evil.LOG",
        row(1, 0, "OpenSession", ",,"),
        row(1, 1, "id", f'"(""name"" ""{EVIL}"")",R=ok,'),
        row(1, 2, "login", "u *****,R=OK,", second=1, user=f'"{quoted}"'),
        row(2, 0, "OpenSession", ",,", client="<b>1:1"),
        row(2, 1, "login", "u *****,R=OK,", second=2, user=EVIL, client="<b>1:1"),
        row(3, 1, "login", f'u *****,"R=""x NO [PRIVACYREQUIRED] {EVIL}""",', second=3, user="r"),
        f"garbage {EVIL}\r\n",
    )


class Page(html.parser.HTMLParser):
    """Tags of a page, its policy and its links."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.policy = ""
        self.attributes: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = dict(attrs)
        self.attributes.update(found)
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""
        self.links += [v or "" for k, v in attrs if k in ("href", "src", "xlink:href")]


def test_the_report_holds_nothing_that_runs(tmp_path: Path) -> None:
    analysis = analyze([evil_log(tmp_path)])
    target = tmp_path / "r.html"
    report.write(target, analysis, judge(analysis.tally), {"<b>1": "<img src=x>"})
    text = target.read_text("utf-8")
    page = Page()
    page.feed(text)
    assert not page.tags & {"script", "img", "iframe", "object", "link", "b1"}
    assert not any(a.startswith("on") or a == "style" for a in page.attributes)
    assert page.policy.startswith("default-src 'none'; style-src 'sha256-")
    assert all(link.startswith(("https://", "http://")) for link in page.links)
    assert "\x1b" not in text and "&lt;script&gt;" in text


def dumped(page: Path, profile: Path) -> str:
    """A page's DOM after a browser has loaded it and run what runs."""
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    done = subprocess.run(
        [path("chromium"), *words, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_in_a_browser_hostile_text_is_text(tmp_path: Path) -> None:
    need("chromium")
    analysis = analyze([evil_log(tmp_path)])
    report.write(tmp_path / "r.html", analysis, judge(analysis.tally), {"<b>1": "<img src=x onerror=alert(1)>"})
    whole = dumped(tmp_path / "r.html", tmp_path / "profile")
    page = Page()
    page.feed(whole)
    assert not page.tags & {"script", "img", "iframe", "object", "form"} and "circle" not in page.tags
    assert {"table", "svg", "rect"} <= page.tags and not any(a.startswith("on") for a in page.attributes)
    for text in ("&lt;script&gt;alert(1)&lt;/script&gt;\\x1b[31m", "&lt;img src=x onerror=alert(1)&gt;"):
        assert text in whole
    # the browser runs what is not escaped: the test can fail
    open_page = tmp_path / "open.html"
    open_page.write_text("<!doctype html><p>x<script>document.body.append(document.createElement('form'))</script>")
    page = Page()
    page.feed(dumped(open_page, tmp_path / "other"))
    assert page.tags >= {"script", "form"}


@pytest.mark.parametrize("form", ["table", "list", "json", "csv"])
def test_nothing_reaches_terminal_or_spreadsheet(tmp_path: Path, form: str) -> None:
    name = evil_log(tmp_path)
    for extra in ([], ["--group-by", "User"], ["--refused"]) if form in ("table", "csv") else ([],):
        done = subprocess.run(
            [PROGRAM, "get-insecurelogin", "--path", name, "--output", form, *extra],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        if form == "json":
            assert json.loads(done.stdout)
        else:
            assert "\x1b" not in done.stdout
        assert "\x1b" not in done.stderr and "Traceback" not in done.stderr
        if form == "csv":
            fields = [f for line in done.stdout.splitlines()[1:] for f in line.split(",")]
            assert not any(f.strip('"').startswith(("=", "+", "@", "-")) for f in fields)


def test_a_damaged_history_is_put_aside(tmp_path: Path) -> None:
    analysis = analyze([evil_log(tmp_path)])
    target = tmp_path / "r.html"
    for content in ("{", "[]", '{"reports": [{"at": "x"}]}', '{"reports": 7}', '{"reports": [{"at":1,"refused":1,"total":1,"clients":1,"list":7}]}'):  # fmt: skip
        report.history_path(target).write_text(content)
        sentences = report.write(target, analysis, judge(analysis.tally), {})
        assert "put aside" in sentences[0]
        assert len(json.loads(report.history_path(target).read_text())["reports"]) == 1


def test_progress_since_the_last_report(tmp_path: Path) -> None:
    def day(*clients: tuple[str, int]) -> str:
        rows = []
        for n, (user, port) in enumerate(clients):
            rows += [row(n, 0, "OpenSession", ",,", port), row(n, 1, "login", "u *****,R=OK,", port, n, user)]
        return log(tmp_path / "day.LOG", *rows)

    target = tmp_path / "r.html"
    for clients in ((("a", 143), ("b", 143)), (("a", 993), ("c", 143))):
        analysis = analyze([day(*clients)])
        assert insecure(analysis) and facts(analysis)
        report.write(target, analysis, judge(analysis.tally), {})
    tiles = re.findall(r"<b>([^<]*)</b>([^<]*)<", target.read_text("utf-8").partition("Progress since")[2])
    assert [figure for figure, _ in tiles[:4]] == ["2 → 1", "1", "1", "1"]  # left, over TLS now, not seen, new
    assert "log in over TLS now" in tiles[1][1] and "new" in tiles[3][1]
