"""Rules judge as the reference has it: each verdict of each rule, on exports in the form people have."""

from __future__ import annotations

import datetime
import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from letterlock.analyze import rules
from letterlock.analyze.exports import ExportFile, read_text
from letterlock.analyze.findings import SMTP, Finding
from letterlock.analyze.inventory import PRODUCTS
from letterlock.analyze.inventory_sort import Fact, take
from letterlock.base.facts import EndpointFact, Origin, SettingFact
from letterlock.base.values import Protocol
from tests.analyze import exports_samples as samples

NOW = datetime.datetime(2026, 11, 26, tzinfo=datetime.UTC).timestamp()
ROOT = Path(__file__).parents[2]


def found(*texts: str, more: list[Fact] | None = None, now: float = NOW) -> list[Finding]:
    """Findings on several exports together."""
    facts: list[Fact] = list(more or [])
    for number, text in enumerate(texts):
        facts += read_text(text, ExportFile(f"export{number}.txt"))
    return rules.judge(take(facts, now))


def said(identity: str, *texts: str, **named: Any) -> list[tuple[str, str]]:
    """(verdict, detail) of one rule."""
    return [(f.verdict.value, f.detail) for f in found(*texts, **named) if f.id == identity]


def verdicts(identity: str, *texts: str, **named: Any) -> list[str]:
    """Only the verdicts."""
    return [v for v, _ in said(identity, *texts, **named)]


def listing(base: str = samples.IMAP_LIST, **changes: str) -> str:
    """A listing with some values changed; None-like "-" takes the line out."""
    lines = []
    for line in base.splitlines():
        name = line.partition(":")[0].strip()
        if name in changes:
            if changes[name] != "-":
                lines.append(f"{name} : {changes[name]}")
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def services(front: str, back: str, mode: str = "Automatic", which: str = "Imap4") -> str:
    return (
        f"Status : {front}\nName : MSExchange{which}\nStartType : {mode}\n\n"
        f"Status : {back}\nName : MSExchange{which.upper()}BE\nStartType : {mode}\n"
    )


# --- Exchange Analyzer's six


@pytest.mark.parametrize(("identity", "base"), [("IMAP", samples.IMAP_LIST), ("POP", samples.POP_LIST)])
def test_002_verdicts(identity: str, base: str) -> None:
    rule = f"{identity}002"
    assert verdicts(rule, listing(base)) == ["Pass"]
    for login in ("PlainTextLogin", "PlainTextAuthentication", "1", "2"):
        ((verdict, detail),) = said(rule, listing(base, LoginType=login))
        assert verdict == "Fail" and "allows plain text login over insecure ports" in detail
        ((verdict, detail),) = said(rule, listing(base, LoginType=login, UnencryptedOrTLSBindings="{}"))
        assert verdict == "Warning" and "has no insecure port bindings" in detail
    assert verdicts(rule, listing(base, LoginType="-")) == ["Error"]
    assert verdicts(rule, listing(base, LoginType="PlainTextLogin", UnencryptedOrTLSBindings="-")) == ["Error"]
    assert verdicts(rule, listing(base, UnencryptedOrTLSBindings="-")) == ["Pass"], (
        "SecureLogin passes without bindings"
    )
    assert verdicts(rule, listing(base, LoginType="Sometimes")) == ["Error"]


@pytest.mark.parametrize(("identity", "base"), [("IMAP", samples.IMAP_LIST), ("POP", samples.POP_LIST)])
def test_003_verdicts(identity: str, base: str) -> None:
    rule = f"{identity}003"
    assert verdicts(rule, listing(base)) == ["Pass"]
    assert verdicts(rule, listing(base, ProtocolLogEnabled="True")) == ["Warning"]
    assert verdicts(rule, listing(base, ProtocolLogEnabled="-")) == ["Error"]
    assert verdicts(rule, listing(base, ProtocolLogEnabled="maybe")) == ["Error"]


@pytest.mark.parametrize(
    ("identity", "base", "which"), [("IMAP", samples.IMAP_LIST, "Imap4"), ("POP", samples.POP_LIST, "Pop3")]
)
def test_001_is_always_information_a_line_a_service(identity: str, base: str, which: str) -> None:
    lines = said(f"{identity}001", listing(base), services("Running", "Stopped", "Manual", which))
    assert [v for v, _ in lines] == ["Info", "Info"]
    assert re.fullmatch(rf"EX01: MSExchange{which} is Running \(Start Mode: Manual\)", lines[0][1])
    assert lines[1][1].endswith("BE is Stopped (Start Mode: Manual)")
    other = "Pop3" if which == "Imap4" else "Imap4"
    assert verdicts(f"{identity}001", listing(base), services("Running", "Running", which=other)) == ["Error"]
    assert not verdicts(f"{identity}001", listing(base)), "no services were given at all"
    assert any(f.id == "INPUT" and f"{identity}001" in f.detail for f in found(listing(base)))


# --- services


@pytest.mark.parametrize(
    ("front", "back", "mode", "pair", "start"),
    [
        ("Running", "Running", "Automatic", ["Pass"], ["Pass", "Pass"]),
        ("Running", "Stopped", "Automatic", ["Fail"], ["Warning", "Pass"]),
        ("Stopped", "Stopped", "Manual", ["Pass"], ["Pass", "Pass"]),
        ("Running", "Running", "Manual", ["Pass"], ["Warning", "Warning"]),
        ("4", "1", "2", ["Fail"], ["Warning", "Pass"]),
        ("Odd", "Running", "Manual", ["Error"], ["Error"]),
    ],
)
def test_services(front: str, back: str, mode: str, pair: list[str], start: list[str]) -> None:
    texts = (samples.IMAP_LIST, services(front, back, mode))
    assert verdicts("SVC-PAIR", *texts) == pair
    assert sorted(verdicts("SVC-START", *texts)) == sorted(start)


def test_a_service_without_users() -> None:
    boxes = "PrimarySmtpAddress : a@contoso.test\nImapEnabled : {}\nPopEnabled : False\n"
    texts = (samples.IMAP_LIST, services("Running", "Running"))
    assert verdicts("SVC-UNUSED", *texts, boxes.format("False")) == ["Info"]
    assert verdicts("SVC-UNUSED", *texts, boxes.format("True")) == ["Pass"]


def test_component_states() -> None:
    text = (
        "ServerFqdn : ex01.contoso.test\nComponent : ImapProxy\nState : {}\nLocalStates : {{}}\nRemoteStates : {{{}}}\n"
    )
    assert verdicts("COMP-INACTIVE", text.format("Active", "")) == ["Pass"]
    assert verdicts("COMP-INACTIVE", text.format("Active", "(HealthApi:Inactive)")) == ["Warning"]
    ((verdict, detail),) = said("COMP-INACTIVE", text.format("Inactive", "(Maintenance:Inactive)"))
    assert verdict == "Fail" and "Maintenance" in detail


# --- settings: each rule, a value that passes and one that does not


@pytest.mark.parametrize(
    ("rule", "good", "bad", "verdict"),
    [
        ("LOGIN-CLEAR", {}, {"LoginType": "PlainTextLogin"}, "Fail"),
        ("LOGIN-CLEAR", {"LoginType": "PlainTextLogin", "UnencryptedOrTLSBindings": "{}"}, {"LoginType": "1"}, "Fail"),
        ("LOGIN-CLEAR", {"LoginType": "PlainTextAuthentication"}, {"LoginType": "PlainTextLogin"}, "Fail"),
        ("LOGIN-INTEGRATED", {}, {"LoginType": "PlainTextAuthentication"}, "Warning"),
        (
            "LOGIN-DEADEND",
            {"LoginType": "PlainTextAuthentication"},
            {"LoginType": "PlainTextAuthentication", "EnableGSSAPIAndNTLMAuth": "False"},
            "Info",
        ),
        ("AUTH-EPA", {"ExtendedProtectionPolicy": "Allow"}, {}, "Warning"),
        ("AUTH-EPA", {"EnableGSSAPIAndNTLMAuth": "False"}, {}, "Warning"),
        ("CONN-MATCH", {}, {"ExternalConnectionSettings": "{mail.contoso.test:994:SSL}"}, "Fail"),
        ("CONN-MATCH", {}, {"ExternalConnectionSettings": "{mail.contoso.test:993:TLS}"}, "Fail"),
        ("CONN-CLEAR", {}, {"ExternalConnectionSettings": "{mail.contoso.test:143}"}, "Fail"),
        ("CONN-EMPTY", {"ExternalConnectionSettings": "{mail.contoso.test:993:SSL}"}, {}, "Warning"),
        ("CONN-INTFQDN", {}, {"InternalConnectionSettings": "{mail.contoso.test:993:SSL}"}, "Warning"),
        (
            "LIM-UNLIM",
            {"MaxConnections": "2000", "MaxConnectionFromSingleIP": "20"},
            {"MaxConnections": "9"},
            "Warning",
        ),
        ("LIM-USER", {}, {"MaxConnectionsPerUser": "4"}, "Info"),
        ("LIM-USER", {}, {"MaxConnectionsPerUser": "5000"}, "Info"),
        ("LIM-TIMEOUT", {}, {"PreAuthenticatedConnectionTimeout": "00:05:01"}, "Warning"),
        ("LIM-TIMEOUT", {}, {"AuthenticatedConnectionTimeout": "00:29:59"}, "Warning"),
        ("LOG-ON", {}, {"ProtocolLogEnabled": "True"}, "Warning"),
        ("LOG-OFF", {"ProtocolLogEnabled": "True"}, {}, "Info"),
        ("LOG-UNLIM", {}, {"LogPerFileSizeQuota": "Unlimited"}, "Warning"),
        (
            "BIND-LOOP",
            {},
            {"SSLBindings": "{192.0.2.1:993}", "UnencryptedOrTLSBindings": "{[2001:db8::1]:143}"},
            "Warning",
        ),
        ("BANNER", {"Banner": "Ready."}, {}, "Info"),
        ("BANNER", {"Banner": "Ready."}, {"Banner": "ex01 waits"}, "Info"),
        ("CERT-NAME", {}, {"X509CertificateName": "*.contoso.test"}, "Fail"),
        ("CERT-NAME", {}, {"X509CertificateName": ""}, "Fail"),
        ("CERT-NAME", {}, {"X509CertificateName": "other.contoso.test"}, "Fail"),
        ("CERT-FLAG", {"X509CertificateName": "mail.contoso.test"}, {"X509CertificateName": "EX01"}, "Warning"),
        ("CERT-MULTI", {"X509CertificateName": "mail.contoso.test"}, {}, "Warning"),
        ("CERT-SELF", {}, {"X509CertificateName": "EX01"}, "Warning"),
        ("CERT-CONNNAME", {}, {"ExternalConnectionSettings": "{pop.contoso.test:993:SSL}"}, "Fail"),
        ("INPUT-CUT", {}, {"SSLBindings": "{[::]:993, 0.0.0.0:993...}"}, "Error"),
    ],
)
def test_a_rule_passes_and_does_not(rule: str, good: dict[str, str], bad: dict[str, str], verdict: str) -> None:
    assert verdicts(rule, listing(**good), samples.CERTIFICATES) == ["Pass"]
    assert verdicts(rule, listing(**bad), samples.CERTIFICATES) == [verdict]


def test_what_is_missing_is_an_error_of_each_rule_that_needs_it() -> None:
    """Every property in turn: whoever needs it says Error, and nobody passes or fails for want of it."""
    whole = {f.id: f for f in found(samples.IMAP_LIST, samples.CERTIFICATES)}
    for line in samples.IMAP_LIST.splitlines():
        name = line.partition(":")[0].strip()
        if name in ("Server", "ProtocolName"):
            continue
        for finding in found(listing(**{name: "-"}), samples.CERTIFICATES):
            if finding.verdict.value == "Error":
                assert name in finding.detail, (name, finding)
            elif finding.id in whole and not finding.id.startswith(("INPUT", "CERT")):
                assert finding.detail == whole[finding.id].detail, (name, finding)


# --- certificates


@pytest.mark.parametrize(
    ("end", "verdict"),
    [("2027-06-01", "Pass"), ("2027-01-25", "Pass"), ("2027-01-24", "Warning"), ("2026-12-26", "Warning"),
     ("2026-12-25", "Fail"), ("2026-11-25", "Fail"), ("soon", "Error"), ("", "Error")],
)  # fmt: skip
def test_certificate_dates(end: str, verdict: str) -> None:
    text = samples.CERTIFICATES.replace("3/2/2027 11:59:59 PM", end)
    details = [f for f in found(samples.IMAP_LIST, text) if f.id == "CERT-DATE" and "mail.contoso" in f.target]
    assert [f.verdict.value for f in details] == [verdict]


@pytest.mark.parametrize(
    ("status", "verdict"),
    [("Valid", "Pass"), ("Untrusted", "Warning"), ("PendingRequest", "Warning"), ("RevocationCheckFailure", "Warning"),
     ("Unknown", "Warning"), ("Revoked", "Fail"), ("DateInvalid", "Fail"), ("Invalid", "Fail"), ("7", "Error")],
)  # fmt: skip
def test_certificate_status(status: str, verdict: str) -> None:
    text = samples.CERTIFICATES.replace("Status             : Valid", f"Status : {status}", 1)
    assert verdict in verdicts("CERT-STATUS", samples.IMAP_LIST, text)


def test_certificate_keys() -> None:
    def key(**changes: str) -> list[str]:
        text = samples.CERTIFICATES
        for name, value in changes.items():
            text = re.sub(rf"^{name} +:.*$", f"{name} : {value}", text, count=1, flags=re.M)
        return [
            f.verdict.value for f in found(samples.IMAP_LIST, text) if f.id == "CERT-KEY" and "mail.contoso" in f.target
        ]

    assert key() == ["Pass"]
    assert key(PublicKeySize="1024") == ["Fail"]
    assert key(PublicKeySize="256") == ["Pass"], "an elliptic curve"
    assert key(HasPrivateKey="False") == ["Fail"]
    assert key(SerialNumber="1\nSignatureAlgorithm : sha1RSA") == ["Fail"]
    assert key(PublicKeySize="") == ["Error"]


def test_the_certificate_on_the_wire() -> None:
    def wire(thumbprint: str) -> list[str]:
        more: list[Fact] = [
            SettingFact("Listener", "0.0.0.0:993", n, v, Origin("live", 0, "EX01"))
            for n, v in (("Protocol", "IMAP4"), ("Listening", True), ("Configured", True), ("Thumbprint", thumbprint))
        ]
        return verdicts("CERT-PRESENTED", samples.IMAP_LIST, samples.CERTIFICATES, more=more)

    assert wire("AB12CD34EF56AB12CD34EF56AB12CD34EF56AB12") == ["Pass"]
    assert wire("99AACD34EF56AB12CD34EF56AB12CD34EF56AB12") == ["Fail"]


# --- connectors


def test_connectors() -> None:
    connectors = said("SMTP-PAIR", samples.CONNECTORS, samples.CERTIFICATES)
    assert ("Fail", "BasicAuth without BasicAuthRequireTLS: passwords are taken in clear text") in connectors
    good = samples.CONNECTORS.replace("BasicAuth\n", "BasicAuth, BasicAuthRequireTLS\n")
    assert verdicts("SMTP-PAIR", good, samples.CERTIFICATES) == ["Pass", "Pass"]
    assert "Warning" in verdicts("SMTP-PAIR", good.replace("mail.contoso", "smtp.contoso"), samples.CERTIFICATES)
    assert "Fail" in verdicts("SMTP-PAIR", good.replace("Tls, ", ""), samples.CERTIFICATES)
    names = verdicts("SMTP-TLSNAME", samples.CONNECTORS, samples.CERTIFICATES)
    assert sorted(names) == ["Pass", "Warning"]
    assert "Warning" in verdicts(
        "SMTP-TLSNAME", samples.CONNECTORS.replace("<S>CN=mail", "<S>CN=gone"), samples.CERTIFICATES
    )
    assert "Warning" in verdicts("SMTP-TLSNAME", samples.CONNECTORS.replace("<I>", ""), samples.CERTIFICATES)
    assert verdicts("SMTP-TLSNAME", samples.CONNECTORS).count("Error") == 1


# --- Dovecot by the same ideas


def test_dovecot() -> None:
    weak = {f.id: f.verdict.value for f in found(samples.DOVECOT_23) if "POP3" not in f.target}
    assert (
        weak["IMAP002"]
        == weak["LOGIN-CLEAR"]
        == weak["TLS-FLOOR"]
        == weak["TLS-LIST"]
        == weak["LOG-PASSWORDS"]
        == "Fail"
    )
    assert weak["LOGIN-TRUSTED"] == "Warning" and weak["LIM-UNLIM"] == "Pass" and weak["TLS-OFF"] == "Pass"
    assert verdicts("POP002", samples.DOVECOT_23) == ["Warning"], "no listener without TLS for POP3"
    new = found(samples.DOVECOT_24)
    assert {f.id: f.verdict.value for f in new}["LOGIN-CLEAR"] == "Pass"
    assert not [f for f in new if f.id.startswith("POP")], "pop3 is not among its protocols"
    opened = samples.DOVECOT_24.replace("ssl = required", "ssl = yes").replace("cleartext = no", "cleartext = yes")
    failing = next(f for f in found(opened) if f.id == "LOGIN-CLEAR")
    assert failing.verdict.value == "Fail" and "auth_allow_cleartext = yes" in failing.detail
    assert "auth_allow_cleartext = no" in failing.remedy and "disable_plaintext_auth" not in failing.remedy
    old = next(f for f in found(samples.DOVECOT_23) if f.id == "LOGIN-CLEAR")
    assert "disable_plaintext_auth = yes" in old.remedy and old.origin.line == 6


@pytest.mark.parametrize(
    ("lines", "verdict", "integrated"),
    [
        ("ssl = yes", "Pass", "Pass"),
        ("ssl = required\ndisable_plaintext_auth = no", "Pass", "Pass"),
        ("ssl = no\ndisable_plaintext_auth = no", "Fail", "Pass"),
        ("ssl = yes\nauth_mechanisms = plain cram-md5", "Pass", "Warning"),
        ("ssl = required\nauth_mechanisms = plain cram-md5", "Pass", "Pass"),
    ],
)
def test_dovecots_switches(lines: str, verdict: str, integrated: str) -> None:
    text = f"# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf\nprotocols = imap\n{lines}\n"
    assert verdicts("LOGIN-CLEAR", text) == [verdict]
    assert verdicts("LOGIN-INTEGRATED", text) == [integrated]


def test_the_floor_of_old_dovecots_is_known() -> None:
    for version, verdict in (("2.3.14", "Fail"), ("2.3.19.1", "Pass"), ("2.4.0", "Pass")):
        assert verdicts("TLS-FLOOR", f"# {version} (abc): /x\nprotocols = imap\nssl = yes\n") == [verdict]


# --- endpoints


def endpoint(**values: Any) -> list[Fact]:
    """A good endpoint with some facts changed; None: could not be determined."""
    good: dict[str, Any] = {
        "Reachable": True, "ImplicitTls": False, "Greeting": "* OK Ready.", "BannerProduct": "", "BannerVersion": "",
        "STARTTLS": True, "ClearTextOffers": "", "LOGINDISABLED": True, "ClearTextLogin": False,
        "NtlmUnadvertised": False,
        "STARTTLSInjection": False, "CertificateName": True, "CertificateTrusted": True, "CertificateInTime": True,
        "CertificateExpiry": "2027-11-01", "CertificateSelfSigned": False, "CertificateKey": "ECDSA 256",
        "CertificateSignature": "sha256", "AlpnStrict": True, "AnswersAfterHttp": False, "TLSv1.3": True,
        "TLSv1.2": True,
        "TLSv1.1": False, "TLSv1.0": False, "SSLv3": False, "WeakCiphers": "", "CiphersWithoutForwardSecrecy": "",
        "Heartbleed": False,
    }  # fmt: skip
    where = "mail.example.com:143"
    merged = {**good, **{k.replace("_", "."): v for k, v in values.items()}}
    return [EndpointFact(where, Protocol.IMAP4, n, v, "", Origin(where)) for n, v in merged.items()]


@pytest.mark.parametrize(
    ("rule", "changed", "verdict"),
    [
        ("WIRE-STARTTLS", {"STARTTLS": False}, "Fail"), ("WIRE-CLEAR", {"ClearTextLogin": True}, "Fail"),
        ("WIRE-OFFER", {"ClearTextOffers": "PLAIN"}, "Warning"), ("WIRE-OFFER", {"LOGINDISABLED": False}, "Warning"),
        ("AUTH-NTLMLEAK", {"NtlmUnadvertised": True}, "Warning"),
        ("WIRE-INJECTION", {"STARTTLSInjection": True}, "Fail"),
        ("TLS-VER", {"TLSv1_0": True}, "Fail"), ("TLS-VER", {"WeakCiphers": "RC4"}, "Fail"),
        ("TLS-13", {"TLSv1_3": False}, "Info"), ("TLS-FS", {"CiphersWithoutForwardSecrecy": "X"}, "Warning"),
        ("TLS-FAULTS", {"Heartbleed": True}, "Fail"), ("TLS-ALPN", {"AlpnStrict": False}, "Info"),
        ("TLS-HTTP", {"AnswersAfterHttp": True}, "Warning"), ("WIRE-NAME", {"CertificateName": False}, "Fail"),
        ("WIRE-TRUST", {"CertificateTrusted": False}, "Fail"),
        ("WIRE-TRUST", {"CertificateTrusted": False, "CertificateSelfSigned": True}, "Warning"),
        ("WIRE-DATE", {"CertificateExpiry": "2027-01-10"}, "Warning"),
        ("WIRE-DATE", {"CertificateExpiry": "2026-12-01"}, "Fail"),
        ("WIRE-KEY", {"CertificateKey": "RSA 1024"}, "Fail"), ("WIRE-KEY", {"CertificateSignature": "sha1"}, "Fail"),
        ("WIRE-BANNER", {"BannerProduct": "Dovecot"}, "Info"),
    ],
)  # fmt: skip
def test_endpoints(rule: str, changed: dict[str, Any], verdict: str) -> None:
    assert verdicts(rule, more=endpoint()) == ["Pass"]
    assert verdicts(rule, more=endpoint(**changed)) == [verdict]
    assert verdicts(rule, more=endpoint(**dict.fromkeys(changed))) == ["Error"], "what could not be determined"


def test_an_endpoint_that_cannot_be_reached_is_an_error_and_nothing_else() -> None:
    where = "mail.example.com:993"
    facts: list[Fact] = [EndpointFact(where, Protocol.IMAP4, "Reachable", False, "no route", Origin(where))]
    assert [(f.id, f.verdict.value) for f in found(more=facts)] == [("WIRE-REACH", "Error")]
    back = [
        EndpointFact("mail.example.com:1993", Protocol.IMAP4, "Reachable", up, "", Origin("x")) for up in (True, False)
    ]
    assert verdicts("BIND-BE", more=[back[0]]) == ["Fail"] and verdicts("BIND-BE", more=[back[1]]) == ["Pass"]


def test_remedies_fit_what_answers() -> None:
    """By the greeting where no configuration was given; SMTP has commands of its own."""

    def remedy(banner: str, protocol: Protocol = Protocol.IMAP4) -> str:
        facts = [f for f in endpoint(ClearTextLogin=True, BannerProduct=banner) if isinstance(f, EndpointFact)]
        more: list[Fact] = [f._replace(protocol=protocol) for f in facts]
        return next(f.remedy for f in found(more=more) if f.id == "WIRE-CLEAR")

    assert remedy("Dovecot") == "ssl = required"
    assert remedy("Microsoft Exchange").startswith("Set-ImapSettings -LoginType SecureLogin")
    assert "Dovecot: ssl = required" in remedy("")
    assert "BasicAuthRequireTLS" in remedy("Postfix", Protocol.SMTP)
    assert "PopSettings" not in remedy("Microsoft ESMTP", Protocol.SMTP)


# --- the table itself


def test_the_table() -> None:
    ids = [rule.id for rule in rules.ALL]
    assert len(ids) == len(set(ids))
    for rule in rules.ALL:
        assert re.fullmatch(r"[A-Z]+[0-9]{3}|[A-Z]+-[A-Z0-9]+|BANNER", rule.id), rule.id
        assert rule.why.endswith(".") and len(rule.why) > 30, rule.id
        assert set(rule.remedy) <= PRODUCTS | {"", SMTP}, rule.id
        assert rule.link == "" or rule.link.startswith("https://"), rule.id
        assert set(rule.needs) <= set(rules.GIVE), rule.id


def test_no_word_of_a_remedy_is_left_open() -> None:
    """Whatever is judged: no {placeholder} reaches a person."""
    texts = (samples.IMAP_LIST, samples.POP_LIST, samples.CERTIFICATES, samples.CONNECTORS, samples.SERVICES_CSV)
    for one in itertools.chain([texts], ((t,) for t in texts), [(samples.DOVECOT_23,), (samples.FORUM,)]):
        bad = found(*one, more=endpoint(ClearTextLogin=True, TLSv1_0=True, STARTTLS=False))
        open_words = [(f.id, f.remedy) for f in bad if re.search(r"\{[a-z_]+\}", f.remedy)]
        assert not open_words


def test_names_in_remedies_cannot_break_out_of_their_quotes() -> None:
    hostile = listing(Server="EX01'; Remove-Item C:\\ #", LoginType="PlainTextLogin")
    remedy = next(f.remedy for f in found(hostile) if f.id == "IMAP002")
    assert "-Server 'EX01''; Remove-Item C:\\ #'" in remedy


def test_escapes_never_get_through() -> None:
    text = listing(Banner="\x1b]0;owned\x07Microsoft", Server="EX\x1b[31m01")
    for finding in found(text):
        assert "\x1b" not in finding.detail + finding.target + finding.remedy


def test_short_and_full_names_are_one_server() -> None:
    other = listing(samples.POP_LIST, Server="ex01.contoso.test")
    assert {f.target for f in found(samples.IMAP_LIST, other) if f.id in ("IMAP002", "POP002")} == {
        "EX01 IMAP4",
        "EX01 POP3",
    }
    two = listing(Server="EX02", InternalConnectionSettings="{ex02.contoso.test:993:SSL}")
    assert len({f.target for f in found(samples.IMAP_LIST, two) if f.id == "IMAP002"}) == 2
    assert verdicts("CERT-ENFORCE", samples.IMAP_LIST, two) == ["Info", "Info"]


def test_dates_of_listings() -> None:
    from letterlock.analyze.certificates import moment

    march = datetime.datetime(2026, 3, 2, 8, 15, 30, tzinfo=datetime.UTC).timestamp()
    for text in ("3/2/2026 8:15:30 AM", "02.03.2026 08:15:30", "2026-03-02T08:15:30Z",
                 "2026-03-02T08:15:30.0000000+00:00",
                 "2/03/2026 08:15:30", "2026-03-02 08:15:30", f"/Date({int(march)}000)/", "Monday, March 2, 2026 "
                                                                                          "8:15:30 AM",
                 "02-03-2026 08:15:30"):  # fmt: skip
        at = moment(text)
        assert at == march or (text.startswith("2/03") and at < march), text
    for text in ("", "soon", "99/99/2026", "0/0/0", "1" * 100, "/Date(1)"):
        assert moment(text) != moment(text)
