"""Rules on installed certificates, and on the one that POP3 and IMAP4 present. Thresholds are HealthChecker's."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator
from typing import Final

from letterlock.analyze.certificates import matches, ranked, usable
from letterlock.analyze.exports_kinds import MORE
from letterlock.analyze.findings import Rule, Said, Verdict, both
from letterlock.analyze.inventory import EXCHANGE, LETTERLOCK, MailService, System, Unknown, quoted, running
from letterlock.analyze.logs_lines import visible
from letterlock.analyze.rules_services import MICROSOFT, WINDOWS
from letterlock.base.facts import CertificateFact

DAY: Final = 86400.0
SOON_DAYS: Final = 60  # below: warning
URGENT_DAYS: Final = 30  # below: failure
RSA_BITS: Final = 2048
_MAIL: Final = frozenset({"IMAP", "POP", "SMTP", "IIS"})


def date(at: float) -> str:
    """For people; UTC."""
    try:
        return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d")
    except (OverflowError, ValueError, OSError):
        return "an unreadable date"


def label(c: CertificateFact) -> str:
    """Subject and the beginning of the thumbprint."""
    subject = visible(c.subject)[:80] or (visible(c.names[0])[:80] if c.names else "certificate")
    return f"{subject} ({visible(c.thumbprint)[:8]}…)" if c.thumbprint else subject


def lifetime(not_after: float, now: float) -> tuple[Verdict, str]:
    """60 days and more Pass, 30 to 59 Warning, below 30 and expired Fail."""
    if math.isnan(not_after):
        raise Unknown("its end (NotAfter) is not in the export, or could not be read")
    days = math.floor((not_after - now) / DAY)
    if not_after < now:
        return Verdict.FAIL, f"expired on {date(not_after)}"
    if days < URGENT_DAYS:
        return Verdict.FAIL, f"expires in {days} days, on {date(not_after)}"
    if days < SOON_DAYS:
        return Verdict.WARNING, f"expires in {days} days, on {date(not_after)}"
    return Verdict.PASS, f"valid until {date(not_after)}"


def _relevant(s: System) -> list[CertificateFact]:
    """Those enabled for a service, or named by a mail service."""
    names = [str(f.value) for m in s.mail if (f := m.thing.get("X509CertificateName")) is not None and f.value]
    return [c for c in s.certificates if _MAIL & {v.upper() for v in c.services} or any(matches(c, n) for n in names)]


def _each(s: System, none: str) -> Iterator[CertificateFact]:
    found = _relevant(s)
    if not found:
        raise Unknown(none)
    yield from found


_NONE: Final = "no certificate is enabled for IMAP, POP, SMTP or IIS, and none has the name that is set"


def dates(s: System) -> Iterator[Said]:
    """CERT-DATE."""
    for c in _each(s, _NONE):
        try:
            verdict, text = lifetime(c.not_after, s.now)
        except Unknown as unknown:
            verdict, text = Verdict.ERROR, unknown.text
        yield Said(verdict, text, label(c), c.origin, {"thumbprint": quoted(c.thumbprint)})


_STATUS: Final = {
    "valid": Verdict.PASS,
    **dict.fromkeys(("unknown", "untrusted", "revocationcheckfailure", "pendingrequest"), Verdict.WARNING),
    **dict.fromkeys(("revoked", "dateinvalid", "invalid"), Verdict.FAIL),
}


def status(s: System) -> Iterator[Said]:
    """CERT-STATUS."""
    for c in s.certificates:
        if c not in _relevant(s) and c.status.lower() != "pendingrequest":
            continue
        words = {"thumbprint": quoted(c.thumbprint)}
        verdict = _STATUS.get(c.status.lower())
        if verdict is None:
            why = "Status is not in the export" if not c.status else f"Status is '{visible(c.status)[:40]}'"
            yield Said(Verdict.ERROR, why, label(c), c.origin, words)
        else:
            yield Said(verdict, f"Status is {visible(c.status)}", label(c), c.origin, words)


def keys(s: System) -> Iterator[Said]:
    """CERT-KEY."""
    for c in _each(s, _NONE):
        faults, unknown = key_faults(c), []
        if c.private_key is False:
            faults.append("there is no private key")
        if c.server_auth is False:
            faults.append("it is not for server authentication")
        if not c.key:
            unknown.append("the size of its key is not in the export")
        words = {"thumbprint": quoted(c.thumbprint)}
        if faults:
            yield Said(Verdict.FAIL, "; ".join(faults), label(c), c.origin, words)
        elif unknown:
            yield Said(Verdict.ERROR, "; ".join(unknown), label(c), c.origin, words)
        else:
            yield Said(Verdict.PASS, ", ".join(x for x in (c.key, c.signature) if x), label(c), c.origin, words)


def key_faults(c: CertificateFact) -> list[str]:
    """RSA below 2048 bits (elliptic curves are exempt), SHA-1, MD5."""
    faults = []
    size = re.search(r"\d+\Z", c.key)
    curve = c.key.startswith(("EC", "Ed")) or (c.key.isdigit() and int(c.key) in (256, 384, 521))
    if size and not curve and int(size[0]) < RSA_BITS:
        faults.append(f"the key has {size[0]} bits only")
    if c.signature in ("sha1", "md5"):
        faults.append(f"it is signed with {c.signature.upper()}")
    return faults


# --- the one that is presented


def _wanted(m: MailService) -> str:
    name = str(m.thing.text("X509CertificateName")).strip()
    if "*" in name:
        return ""
    return name


def chosen_name(m: MailService) -> Iterator[Said]:
    """CERT-NAME."""
    name = str(m.thing.text("X509CertificateName")).strip()
    if not name:
        yield Said(Verdict.FAIL, "X509CertificateName is empty")
        return
    if "*" in name:
        yield Said(Verdict.FAIL, f"X509CertificateName is {visible(name)}: a wildcard matches no certificate; it "
                                 f"must be a "
                   "host name that the certificate covers")  # fmt: skip
        return
    if not m.system.certificates:
        yield Said(Verdict.INFO, f"{visible(name)}: no certificate was given to compare it with "
                                 f"(Get-ExchangeCertificate | "
                   "Format-List)")  # fmt: skip
        return
    found = ranked(m, m.system.now)
    if found:
        yield Said(Verdict.PASS, f"{visible(name)} is on {label(found[0])}")
        return
    if any(not c.complete and usable(c) for c in m.system.certificates):
        raise Unknown("the listing shows only the first names of a certificate; "
                      "set $FormatEnumerationLimit = -1 and list again")  # fmt: skip
    wrong = [c for c in m.system.certificates if matches(c, name)]
    why = f"; {label(wrong[0])} has it, and cannot be used" if wrong else ""
    yield Said(Verdict.FAIL, f"no usable certificate has the name {visible(name)}{why}: TLS cannot start")


def several(m: MailService) -> Iterator[Said]:
    """CERT-MULTI."""
    found = ranked(m, m.system.now) if _wanted(m) else []
    if len(found) > 1:
        order = ", then ".join(f"{label(c)} of {date(c.not_before)}" for c in found[:5])
        yield Said(Verdict.WARNING, f"{len(found)} certificates have the name; presented is {order}")
    else:
        yield Said(Verdict.PASS, "one certificate has the name" if found else "none has the name (CERT-NAME)")


def flagged(m: MailService) -> Iterator[Said]:
    """CERT-FLAG."""
    flag = m.noun.upper()
    said = False
    for c in ranked(m, m.system.now)[:1] if _wanted(m) else []:
        only_wildcards = bool(c.names) and all(n.startswith("*.") for n in c.names)
        if flag not in {v.upper() for v in c.services} and not only_wildcards:
            said = True
            yield Said(Verdict.WARNING, f"{label(c)} is chosen by its name, and is not enabled for "
                                        f"{flag}", "", c.origin,
                       {"thumbprint": quoted(c.thumbprint)})  # fmt: skip
    for c in m.system.certificates:
        subject = re.search(r"CN=(\*\.[^,/]+)", c.subject)
        if subject and flag in {v.upper() for v in c.services}:
            said = True
            yield Said(Verdict.WARNING, f"{label(c)} is a wildcard certificate enabled for {flag}: it is only found by "
                       "X509CertificateName", "", c.origin, {"thumbprint": quoted(c.thumbprint)})  # fmt: skip
    if not said:
        yield Said(Verdict.PASS, f"the certificate is enabled for {flag}, or needs not to be")


def self_signed(m: MailService) -> Iterator[Said]:
    """CERT-SELF."""
    found = ranked(m, m.system.now) if _wanted(m) else []
    external = m.connections("ExternalConnectionSettings") if m.has("ExternalConnectionSettings") else ()
    if found and found[0].self_signed and (external or m.system.product == EXCHANGE):
        told = f"users are told {external[0]}, and" if external else "clients"
        yield Said(Verdict.WARNING, f"{told} get the self-signed {label(found[0])}, which no client trusts", "",
                   found[0].origin)  # fmt: skip
    elif found and found[0].self_signed:
        yield Said(
            Verdict.INFO, f"{label(found[0])} is self-signed: clients must be given it to trust", "", found[0].origin
        )
    else:
        yield Said(Verdict.PASS, f"{label(found[0])} is issued by {visible(found[0].issuer)[:80] or 'an authority'}"
                   if found else "none has the name (CERT-NAME)")  # fmt: skip


def covers_connections(m: MailService) -> Iterator[Said]:
    """CERT-CONNNAME."""
    found = ranked(m, m.system.now) if _wanted(m) else []
    if not found:
        yield Said(Verdict.PASS, "none has the name (CERT-NAME)")
        return
    hosts = {
        c.host for name in ("InternalConnectionSettings", "ExternalConnectionSettings") for c in m.connections(name)
    }
    missing = sorted(h for h in hosts if not matches(found[0], h))
    if missing and not found[0].complete:
        raise Unknown("the listing shows only the first names of the certificate")
    if missing:
        yield Said(Verdict.FAIL, f"{label(found[0])} does not cover {', '.join(missing)}, which users are told", "",
                   found[0].origin)  # fmt: skip
    else:
        yield Said(Verdict.PASS, f"{label(found[0])} covers {', '.join(sorted(hosts)) or 'what is told: nothing'}")


def on_the_wire(m: MailService) -> Iterator[Said]:
    """CERT-PRESENTED."""
    found = ranked(m, m.system.now) if _wanted(m) else []
    seen = [
        (e.name, e.certificate.thumbprint) for e in m.system.endpoints if e.protocol is m.protocol and e.certificate
    ]
    seen += [(x.identity, x.text("Thumbprint")) for x in m.system.of("Listener")
             if x.text("Protocol") == m.protocol.value and x.get("Thumbprint")]  # fmt: skip
    front = m.service(0)
    if not seen and m.system.of("Server") and (front is None or not running(front)):
        yield Said(Verdict.PASS, "the service does not run")
        return
    if not seen:
        raise Unknown("no endpoint of this server with TLS was probed; name it with -Endpoint")
    if not found:
        raise Unknown("no installed certificate was found that should be presented")
    wrong = [(where, thumbprint) for where, thumbprint in seen if thumbprint.upper() != found[0].thumbprint.upper()]
    if wrong:
        where, thumbprint = wrong[0]
        yield Said(Verdict.FAIL, f"{visible(where)} presents {visible(thumbprint)[:16]}…, selected is "
                                 f"{label(found[0])}: a "
                   "restart is due, or something in between ends TLS", "", found[0].origin)  # fmt: skip
    else:
        yield Said(Verdict.PASS, f"{label(found[0])} is what is presented")


def enforced(m: MailService) -> Iterator[Said]:
    """CERT-ENFORCE."""
    servers = m.system.fleet + len(m.system.of("Peer"))
    if servers > 1 and not m.value("EnforceCertificateErrors"):
        yield Said(
            Verdict.INFO, f"EnforceCertificateErrors is False, and there are {servers} servers that proxy to each other"
        )
    else:
        yield Said(
            Verdict.PASS, "only one server is known here" if servers < 2 else m.shown("EnforceCertificateErrors")
        )


def cut_lists(m: MailService) -> Iterator[Said]:
    """INPUT-CUT."""
    cut = [f.name for f in m.thing.facts.values() if isinstance(f.value, tuple) and MORE in f.value]
    if cut:
        yield Said(Verdict.ERROR, f"the listing shows only the first values of {', '.join(cut)}")
    else:
        yield Said(Verdict.PASS, "lists are whole")


_CERT: Final = "Certificates"
_RENEW: Final = {
    EXCHANGE: "Get-ExchangeCertificate -Thumbprint {thumbprint} | New-ExchangeCertificate -GenerateRequest  # then "
              "import the answer "
              "and Enable-ExchangeCertificate -Services IMAP,POP,SMTP",
    LETTERLOCK: "New-ExchangeCertificate -DomainName {server} -Services IMAP,POP; then Restart-Service "
                "LetterlockImap4, LetterlockPop3",
}  # fmt: skip
_LIST: Final = both("Get-ExchangeCertificate | Format-List Subject,CertificateDomains,NotAfter,Services,Thumbprint")
_CHOOSE: Final = both("{set} -X509CertificateName HOST; {restart}  # HOST: a name that a certificate covers")

MAIL: Final[tuple[Rule[MailService], ...]] = (
    Rule("CERT-NAME", _CERT, "X509CertificateName finds a certificate",
         "POP3 and IMAP4 look for their certificate by this name; where none fits, TLS cannot start at all.",
         chosen_name, _CHOOSE, MICROSOFT + "set-imapsettings", WINDOWS),
    Rule("CERT-MULTI", _CERT, "One certificate has the name",
         "Where several fit, nobody can say at a glance which one is presented, and a new one may take over unawares.",
         several, both("Get-ExchangeCertificate -DomainName {server} | Format-List; Remove-ExchangeCertificate "
                       "-Thumbprint OLD"),
         MICROSOFT + "remove-exchangecertificate", WINDOWS, ("ExchangeCertificate",)),
    Rule("CERT-FLAG", _CERT, "The certificate is enabled for the service",
         "A certificate with plain names should be enabled for the services it serves; a wildcard one cannot be, "
         "and is "
         "found by X509CertificateName.",
         flagged, both("Enable-ExchangeCertificate -Thumbprint {thumbprint} -Services {flag}"),
         MICROSOFT + "enable-exchangecertificate", WINDOWS, ("ExchangeCertificate",)),
    Rule("CERT-SELF", _CERT, "An authority has issued the certificate",
         "Users who must click a warning away learn to click every warning away, also an attacker's.",
         self_signed, {EXCHANGE: _RENEW[EXCHANGE].replace("{thumbprint}", "OLD"),
                       LETTERLOCK: "Import-ExchangeCertificate"},
         MICROSOFT + "import-exchangecertificate", WINDOWS, ("ExchangeCertificate",)),
    Rule("CERT-CONNNAME", _CERT, "The certificate covers what users are told",
         "A name that users enter and the certificate does not have gives a warning in every mail program.",
         covers_connections, _LIST, MICROSOFT + "new-exchangecertificate", WINDOWS, ("ExchangeCertificate",)),
    Rule("CERT-PRESENTED", _CERT, "The selected certificate is presented",
         "Certificates are loaded when the service starts; a proxy or load balancer may end TLS with its own.",
         on_the_wire, both("{restart}"), MICROSOFT + "get-exchangecertificate", WINDOWS,
         ("ExchangeCertificate", "Endpoint")),
    Rule("CERT-ENFORCE", _CERT, "Certificates between servers are checked",
         "On the way to another server's back end, wrong names and dates are let pass unless this is on.",
         enforced, both("{set} -EnforceCertificateErrors $true; {restart}  # once the chain is clean"),
         MICROSOFT + "set-imapsettings", WINDOWS),
    Rule("INPUT-CUT", "Input", "Lists of the export are whole",
         "PowerShell shows four values of a list only; what comes after was not judged.",
         cut_lists, both("$FormatEnumerationLimit = -1  # then list again"), products=WINDOWS),
)  # fmt: skip
SYSTEM: Final[tuple[Rule[System], ...]] = (
    Rule("CERT-DATE", _CERT, "Certificates are valid for 60 days and more",
         "On the day after, no client connects any more.", dates, _RENEW,
         MICROSOFT + "new-exchangecertificate", WINDOWS,
         ("ExchangeCertificate",)),
    Rule("CERT-STATUS", _CERT, "Exchange calls the certificate valid",
         "Revoked and invalid certificates are refused by clients; a pending request was never completed.",
         status, {EXCHANGE: "Get-ExchangeCertificate -Thumbprint {thumbprint} | Format-List *"},
         MICROSOFT + "get-exchangecertificate", WINDOWS, ("ExchangeCertificate",)),
    Rule("CERT-KEY", _CERT, "Keys and signatures are strong",
         "RSA keys below 2048 bits and SHA-1 signatures can be forged with money; without private key or server "
         "usage, TLS "
         "does not start.", keys, _RENEW, "https://www.rfc-editor.org/rfc/rfc9325#section-4.5", WINDOWS,
         ("ExchangeCertificate",)),
)  # fmt: skip
