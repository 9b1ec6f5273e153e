"""The readiness report: its charts, its list, and commands that can be pasted."""

from __future__ import annotations

import re
import time
from html import unescape
from pathlib import Path

import pytest

from letterlock.analyze import report
from letterlock.analyze.charts import HEIGHT, WIDTH, curve, scale, timeline
from letterlock.analyze.logs import analyze
from letterlock.analyze.logs_tally import Kind
from letterlock.analyze.readiness import judge
from letterlock.base.values import LoginType, Protocol
from tests.analyze.test_exchange_logs import log, row
from tests.analyze.test_login_cmdlets import exception

HOURS = {"an hour": 30, "three hours": 100, "a day": 24 * 60, "a week": 24 * 400, "30 days": 24 * 2000}


@pytest.mark.parametrize(("most", "top"), [(1, 1), (3, 3), (5, 6), (9, 10), (99, 100), (101, 150), (48_000, 60_000)])
def test_axes_end_in_round_figures(most: int, top: int) -> None:
    assert scale(most)[0] == top and top % scale(most)[1] == 0


@pytest.mark.parametrize(("period", "span"), HOURS.items())
def test_a_chart_of_any_span_has_room_for_its_columns(period: str, span: int) -> None:
    insecure, secure = Kind(Protocol.IMAP4, "Insecure"), Kind(Protocol.POP3, "Secure")
    hours = {insecure: {490_000: 7, 490_000 + span - 1: 3}, secure: {490_000: 2}}
    chart = timeline(hours)
    assert chart is not None and chart.period == period
    assert [b.title.partition(": ")[2] for b in chart.bars] == ["2 secure", "7 insecure", "3 insecure"]
    assert all(b.x >= 0 and b.x + b.width <= WIDTH and b.y >= 0 and b.y + b.height <= HEIGHT for b in chart.bars)
    assert 1 <= len(chart.below) <= 12 and all(0 < x < WIDTH - 60 for x, _ in chart.below)
    only = timeline(hours, ("Insecure",))
    assert only is not None and len(only.bars) == 2
    assert timeline(hours, ("Failed",)) is None


def test_times_that_no_log_can_have_make_no_endless_chart() -> None:
    kind = Kind(Protocol.IMAP4, "Insecure")
    chart = timeline({kind: dict.fromkeys(range(-17000000, 70000000, 40000), 1)})
    assert chart is not None and len(chart.bars) <= 1001


def test_the_curve_keeps_the_order_of_its_reports_whatever_the_clock_says() -> None:
    found = curve([(2000.0, 9), (1000.0, 5), (2000.0, 0)])
    assert all(0 <= x <= WIDTH and 0 <= y <= 150 for x, y, _ in found.points)


def page(tmp_path: Path, *rows: str, login_type: LoginType = LoginType.SecureLogin, **more: object) -> str:
    """The report on an Exchange log."""
    analysis = analyze([log(tmp_path / "a.LOG", *rows)])
    report.write(tmp_path / "r.html", analysis, judge(analysis.tally, login_type, **more), {})  # type: ignore[arg-type]
    return (tmp_path / "r.html").read_text("utf-8")


def block(text: str, name: str) -> str:
    """The commands of a block, as a browser would copy them."""
    found = re.search(rf'<pre class="{re.escape(name)}">(.*?)</pre>', text, re.DOTALL)
    return unescape(found[1]).strip() if found else ""


def session(n: int, user: str, port: int = 143, client: str = "198.51.100.7:1", name: str = "") -> list[str]:
    rows = [row(n, 0, "OpenSession", ",,", port, n, client=client)]
    if name:
        rows.append(row(n, 1, "id", f'"(""name"" ""{name}"")",R=ok,', port, n, client=client))
    return [*rows, row(n, 2, "login", f"{user} *****,R=OK,", port, n, user, client)]


def test_commands_are_for_what_was_seen_and_asked(tmp_path: Path) -> None:
    text = page(tmp_path, *session(1, "a"), login_type=LoginType.PlainTextAuthentication)
    assert block(text, "enforce").splitlines()[0] == (
        "Set-ImapSettings -LoginType PlainTextAuthentication -LoginTypeMode Enforce"
    )
    assert "Set-Pop" not in text and "No POP login was seen" in text
    assert block(text, "dovecot-2.3") == "disable_plaintext_auth = yes\nssl = yes"
    assert "MSExchangePOP3" not in block(text, "exchange")
    text = page(tmp_path, *session(1, "a"))
    assert block(text, "dovecot-2.4") == "auth_allow_cleartext = no\nssl = required"


def test_exceptions_are_proposed_for_devices_with_plain_names_only(tmp_path: Path) -> None:
    rows = session(1, "printer@contoso.test") + session(2, '"printer$(calc)"', client="198.51.100.8:1", name="Ricoh")
    rows += session(3, "alice@contoso.test", client="198.51.100.9:1", name="Thunderbird")
    rows += session(4, "printer@contoso.test", client="$(calc):1")
    (line,) = block(page(tmp_path, *rows), "exceptions").splitlines()
    assert line.startswith(
        'New-LoginException -Protocol Imap -RemoteIPRanges 198.51.100.7 -Mailbox "printer@contoso.test"'
    )


def test_what_is_covered_and_what_was_changed_is_marked(tmp_path: Path) -> None:
    rows = session(1, "a") + session(2, "b", client="198.51.100.8:1") + session(3, "b", 993, "198.51.100.8:2")
    text = page(tmp_path, *rows, exceptions=[exception("198.51.100.7", owner="<i>print room")])
    assert "&lt;i&gt;print room" in text and "<i>" not in text
    assert text.count("Over TLS since, last 2026-03-02 08:17") == 1
    assert "1 client has to be changed first: 1 of 3 logins would be refused." in text
    assert "1 logged in over TLS later and seems to be changed already" in text
    assert "Exception e1 until " + time.strftime("%Y-%m-%d", time.gmtime(time.time() + 86400)) in text


def test_the_page_reads_its_verdict_from_the_same_figures(tmp_path: Path) -> None:
    assert "Not ready yet." in page(tmp_path, *session(1, "a"))
    assert "Ready." in page(tmp_path, *session(1, "a", 993)) and "Enforce it, and look" in page(
        tmp_path, *session(1, "a", 993)
    )
    assert "Not known." in page(tmp_path, row(1, 0, "OpenSession", ",,"))
