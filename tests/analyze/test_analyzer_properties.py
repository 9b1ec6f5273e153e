"""Whatever the facts are: every rule ends in findings, none of them unreadable; and cost grows with the facts only."""

from __future__ import annotations

import datetime
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from letterlock.analyze import analyzer_report, rules
from letterlock.analyze.exports import ExportFile, read_text
from letterlock.analyze.exports_kinds import VOCABULARY
from letterlock.analyze.findings import Verdict
from letterlock.analyze.inventory_sort import Fact, take
from letterlock.base.facts import EndpointFact, Origin, SettingFact
from letterlock.base.values import Protocol
from letterlock.probe.endpoint import NAMES
from tests.analyze import exports_samples as samples

NOW = 1.8e9
_WORDS = st.sampled_from(
    [
        *("", "True", "False", "SecureLogin", "PlainTextLogin", "ReportOnly", "1", "2", "3", "4", "-1", "2147483647"),
        *("99999999999999999999", "0.0.0.0:993", "[::]:143", "ex01.contoso.test:993:SSL", "*.contoso.test", "1.2"),
        *("ex01.contoso.test", "00:30:00", "unlimited", "Running", "Stopped", "Automatic", "Inactive", "IMAP, POP"),
        *(
            "IP.WS..",
            "3/2/2027 1:00:00 AM",
            "Valid",
            "Tls, BasicAuth",
            "...",
            "<I>a<S>b",
            "\x1b[31m",
            "<script>",
            "NaN",
        ),
        *("Expired", "Exposed", "IMAP4", "{restart}"),
    ]
)
_VALUES = st.one_of(
    _WORDS, st.text(max_size=12), st.booleans(), st.integers(), st.none(), st.lists(_WORDS, max_size=3).map(tuple)
)
_OWN = [
    *("Status", "Kind", "Mailbox", "Uses", "Owner", "Reason", "ExpiresOn", "RemoteIPRanges", "Protocol", "Logins"),
    *("Users", "UserCount", "LastSeen", "Free", "Size", "Listening", "Configured", "Thumbprint", "Count"),
    *("IPAddresses", "SSLBindings", "LoginTypeMode", "EnforcedLoginType", "TlsMinimum", "ssl", "protocols", "listen"),
    *("auth_mechanisms", "version", "service imap-login/inet_listener imap/port", "ssl_cipher_list"),
    "service imap-login/process_limit",
]
_KINDS = [
    *VOCABULARY,
    *("Dovecot", "Server", "AdminSettings", "LoginException", "ExposedCredential", "Stranger", "Listener", "Volume"),
    *("Log", "ClearLogin", "FailedLogin", "Usage", "Peer", "Strange"),
]
_SPELLED = sorted({n for names in VOCABULARY.values() for n in names})
_NAMES = st.sampled_from(_SPELLED + _OWN)
_SETTINGS = st.builds(
    SettingFact,
    st.sampled_from(_KINDS),
    st.sampled_from(["", "EX01", "MSExchangeImap4", "MSExchangeIMAP4BE", "0.0.0.0:993", "a@b", "x y"]),
    _NAMES,
    _VALUES,
    st.builds(
        Origin,
        st.sampled_from(["a.txt", "b.txt"]),
        st.integers(0, 9),
        st.sampled_from(["", "EX01", "ex01.contoso.test", "EX02"]),
    ),
)
_ENDPOINTS = st.builds(
    EndpointFact,
    st.sampled_from(["mail.example.com:993", "[::1]:143", "ex01.contoso.test:1993"]),
    st.sampled_from(list(Protocol)),
    st.sampled_from([*NAMES, "Unserved"]),
    st.one_of(st.booleans(), st.none(), st.sampled_from(["", "RSA 1024", "2027-01-01", "x", "sha1"])),
    st.text(max_size=8),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(_SETTINGS, _SETTINGS, _ENDPOINTS), max_size=60))
def test_no_facts_break_a_rule(facts: list[Fact]) -> None:
    inventory = take(facts, NOW)
    for finding in rules.judge(inventory):
        assert finding.verdict in Verdict
        assert finding.detail and finding.check and finding.target
        assert all(c.isprintable() for c in finding.detail + finding.target)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.one_of(_SETTINGS, _ENDPOINTS), max_size=40))
def test_no_findings_break_the_report(facts: list[Any]) -> None:
    inventory = take(facts, NOW)
    page = analyzer_report.render(rules.judge(inventory), inventory, ["x"], datetime.datetime.now(datetime.UTC))
    assert "<script>" not in page and "\x1b" not in page


def test_a_large_organisation_is_judged_in_seconds() -> None:
    """10,000 mailboxes as Format-List: time grows with them, not with their square."""

    def seconds(count: int) -> float:
        text = samples.IMAP_LIST + "".join(
            f"\nPrimarySmtpAddress : user{n}@contoso.test\nPopEnabled : False\nImapEnabled : True\n"
            for n in range(count)
        )
        begin = time.process_time()
        facts: list[Fact] = list(read_text(text, ExportFile("cas.txt")))
        assert sum(isinstance(f, SettingFact) and f.kind == "CASMailbox" for f in facts) == 3 * count
        rules.judge(take(facts, NOW))
        return time.process_time() - begin

    small, large = seconds(1000), seconds(10_000)
    assert large < 25 * small + 1, (small, large)
    assert large < 20
