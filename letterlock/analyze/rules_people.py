"""Rules on mailboxes, receive connectors, what logs show, and what only our own server knows."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Final

from letterlock.analyze.certificates import matches
from letterlock.analyze.findings import Rule, Said, Verdict, both
from letterlock.analyze.inventory import EXCHANGE, LETTERLOCK, MailService, System, Thing, Unknown, quoted
from letterlock.analyze.logs_lines import visible
from letterlock.analyze.rules_certificates import label
from letterlock.analyze.rules_services import MICROSOFT, WINDOWS
from letterlock.base.errors import Malformed
from letterlock.base.values import Binding

LISTED: Final = 5  # names in one finding
MANY_FAILURES: Final = 50  # of one address
SPRAYED: Final = 10  # users that one address failed for
_L: Final = frozenset({LETTERLOCK})
_E: Final = frozenset({EXCHANGE})


def some(names: list[str]) -> str:
    """The first few, and how many more."""
    shown = ", ".join(visible(n)[:80] for n in names[:LISTED])
    return shown + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


# --- mailboxes


def _enabled(m: MailService) -> list[Thing]:
    return [b for b in m.system.of("CASMailbox") if b.get(f"{m.noun}Enabled") and b.yes(f"{m.noun}Enabled")]


def mailboxes_used(m: MailService) -> Iterator[Said]:
    """MBX-ON."""
    usage = [u for u in m.system.of("Usage") if u.text("Protocol") == m.protocol.value]
    seen = {u.identity.partition(" ")[2].lower() for u in usage}
    locals_ = {u.partition("@")[0] for u in seen} | {u.rpartition("\\")[2] for u in seen}
    idle = []
    for box in _enabled(m):
        names = {str(f.value).lower() for n in ("primarysmtpaddress", "identity", "name", "samaccountname")
                 if (f := box.facts.get(n)) is not None}  # fmt: skip
        if not names & seen and not {n.partition("@")[0] for n in names} & locals_:
            idle.append(box.identity)
    if idle:
        yield Said(Verdict.WARNING, f"{len(idle)} mailboxes may use {m.protocol.value}, and no log shows that they "
                                    f"do: {some(idle)}",
                   words={"mailbox": quoted(idle[0])})  # fmt: skip
    else:
        yield Said(Verdict.PASS, "every mailbox that may, does")


_PRIVILEGED: Final = re.compile(r"(?:.*\\)?(?:administrator|admin|root|postmaster|hostmaster|security|sysadmin"
                                r"|domain ?admin"
                                r"|(?:svc|service|sa|adm|srv)[-_.]\S*|\S*[-_.](?:adm|admin|svc)|krbtgt|sql\S*|backup\S*)(?:@.*)?",
                                re.I)  # fmt: skip
_SYSTEM: Final = re.compile(
    r"(?:healthmailbox|systemmailbox|discoverysearchmailbox|federatedemail|migration|exchange online)", re.I
)


def privileged(m: MailService) -> Iterator[Said]:
    """MBX-PRIV."""
    found = [b.identity for b in _enabled(m) if _PRIVILEGED.fullmatch(b.identity) and not _SYSTEM.match(b.identity)]
    if found:
        yield Said(Verdict.WARNING, f"{len(found)} mailboxes of administrators or services may use "
                                    f"{m.protocol.value}: {some(found)}",
                   words={"mailbox": quoted(found[0])})  # fmt: skip
    else:
        yield Said(Verdict.PASS, "no mailbox looks like an administrator's or a service's")


# --- connectors


def _mechanisms(c: Thing) -> set[str]:
    return {x.lower() for x in c.items("AuthMechanism")}


def _ports(c: Thing) -> set[int]:
    found = set()
    for text in c.items("Bindings"):
        try:
            found.add(Binding.parse(text).port)
        except Malformed:
            continue
    return found


def _client(c: Thing) -> bool:
    return "client frontend" in c.identity.lower() or (c.get("Bindings") is not None and 587 in _ports(c))


def submission(s: System) -> Iterator[Said]:
    """SMTP-PAIR."""
    connectors = s.of("ReceiveConnector")
    if not any(_client(c) for c in connectors):
        yield Said(Verdict.INFO, "there is no connector for clients (port 587): POP3 and IMAP4 users cannot send")
    for c in connectors:
        name = visible(c.identity)
        try:
            mechanisms = _mechanisms(c)
        except Unknown as unknown:
            yield Said(Verdict.ERROR, unknown.text, name, c.origin)
            continue
        words = {"connector": quoted(c.identity)}
        said = False
        if "basicauth" in mechanisms and "basicauthrequiretls" not in mechanisms:
            said = True
            yield Said(
                Verdict.FAIL,
                "BasicAuth without BasicAuthRequireTLS: passwords are taken in clear text",
                name,
                c.origin,
                words,
            )
        if "tls" not in mechanisms and (_client(c) or "basicauth" in mechanisms):
            said = True
            yield Said(Verdict.FAIL, "AuthMechanism has no Tls: STARTTLS is not offered", name, c.origin, words)
        if _client(c) and s.certificates and c.get("Fqdn") is not None:
            fqdn = c.text("Fqdn").strip()
            if not any(matches(x, fqdn) for x in s.certificates):
                said = True
                yield Said(
                    Verdict.WARNING, f"no certificate has the name {visible(fqdn)} (Fqdn)", name, c.origin, words
                )
        if not said:
            yield Said(Verdict.PASS, f"AuthMechanism: {visible(', '.join(sorted(mechanisms)))}", name, c.origin)


_TLS_NAME: Final = re.compile(r"<i>(.*)<s>(.*)\Z", re.I | re.S)


def tls_name(s: System) -> Iterator[Said]:
    """SMTP-TLSNAME."""
    for c in s.of("ReceiveConnector"):
        role = c.text("TransportRole") if c.get("TransportRole") is not None else ""
        if role and role.lower() not in ("frontendtransport", "16384"):
            continue
        if not role and not _client(c):
            continue
        name, words = visible(c.identity), {"connector": quoted(c.identity)}
        fact = c.get("TlsCertificateName")
        text = str(fact.value) if fact is not None and fact.value is not None else None
        if text is None:
            yield Said(Verdict.ERROR, f"TlsCertificateName is not in {visible(c.source)}", name, c.origin)
        elif not text.strip():
            yield Said(Verdict.WARNING, "TlsCertificateName is empty: the certificate is guessed by the "
                                        "connector's Fqdn", name,
                       c.origin, words)  # fmt: skip
        elif not (match := _TLS_NAME.match(text.strip())):
            yield Said(Verdict.WARNING, f"TlsCertificateName is not of the form <I>issuer<S>subject: "
                                        f"{visible(text)[:120]}", name,
                       c.origin, words)  # fmt: skip
        elif not s.certificates:
            yield Said(
                Verdict.ERROR,
                "no certificate was given to compare it with (Get-ExchangeCertificate)",
                name,
                c.origin,
                words,
            )
        else:
            same = [x for x in s.certificates if (x.issuer, x.subject) == (match[1], match[2])]
            if len(same) == 1:
                yield Said(Verdict.PASS, f"it names {label(same[0])}", name, c.origin)
            elif same:
                yield Said(Verdict.WARNING, f"{len(same)} certificates have this issuer and subject; the one that "
                                            f"is valid longest is "
                           "used", name, c.origin, words)  # fmt: skip
            else:
                yield Said(
                    Verdict.WARNING,
                    "no certificate has this issuer and subject: STARTTLS is not offered",
                    name,
                    c.origin,
                    words,
                )


# --- what logs show


def clear_logins(s: System) -> Iterator[Said]:
    """LOG-CLEAR."""
    found = s.of("ClearLogin")
    for t in found[:200]:
        yield Said(Verdict.FAIL, f"{t.text('Logins')} log-ons in clear text over {t.text('Protocol')}, of "
                                 f"{visible(t.text('Users'))[:200]}, "
                   f"last {t.text('LastSeen')}", t.identity, t.origin)  # fmt: skip
    if len(found) > 200:
        yield Said(Verdict.FAIL, f"and {len(found) - 200} more addresses; Get-InsecureLogin lists all")
    if not found:
        total = s.of("Log")[0].text("Logins")
        if total == "0":
            raise Unknown("no log-on was seen in these logs: that proves nothing")
        yield Said(Verdict.PASS, f"{total} log-ons were seen, none of them in clear text")


def failures(s: System) -> Iterator[Said]:
    """LOG-FAIL."""
    said = False
    for t in s.of("FailedLogin"):
        count, users = int(t.text("Logins")), int(t.text("UserCount"))
        if users >= SPRAYED:
            said = True
            yield Said(Verdict.WARNING, f"{count} failed log-ons for {users} users: passwords are being tried "
                                        f"on many", t.identity,
                       t.origin, {"address": quoted(t.identity)})  # fmt: skip
        elif count >= MANY_FAILURES:
            said = True
            yield Said(Verdict.WARNING, f"{count} failed log-ons for "
                                        f"{visible(t.text('Users'))[:120]}", t.identity, t.origin,
                       {"address": quoted(t.identity)})  # fmt: skip
    if not said:
        yield Said(Verdict.PASS, "no address failed often or for many users")


# --- our own server


def _exception(status: str, verdict: Verdict, text: str, well: str) -> Callable[[System], Iterator[Said]]:
    def check(s: System) -> Iterator[Said]:
        found = [t for t in s.of("LoginException") if t.text("Status") == status]
        for t in found:
            who = visible(f"{t.text('Owner')}: {t.text('Reason')}")[:160]
            yield Said(verdict, f"{text}: {visible(t.text('RemoteIPRanges'))[:80]}, {t.text('ExpiresOn')[:10]} "
                                f"({who})", t.identity,
                       t.origin, {"exception": quoted(t.identity)})  # fmt: skip
        if not found:
            yield Said(Verdict.PASS, well)

    return check


def open_exceptions(s: System) -> Iterator[Said]:
    """EXC-OPEN."""
    active = [t for t in s.of("LoginException") if t.text("Status") != "Expired"]
    for t in active:
        yield Said(Verdict.INFO, f"{visible(t.text('Protocol'))} log-ons from "
                                 f"{visible(t.text('RemoteIPRanges'))[:80]} for "
                   f"{visible(t.text('Mailbox')) or 'any mailbox'} until {t.text('ExpiresOn')[:10]}, used "
                   f"{t.text('Uses')} times",
                   t.identity, t.origin)  # fmt: skip
    if not active:
        yield Said(Verdict.PASS, "there is no exception")


def _credentials(kind: str, verdict: Verdict, text: str, well: str) -> Callable[[System], Iterator[Said]]:
    def check(s: System) -> Iterator[Said]:
        found = [t for t in s.of("ExposedCredential") if t.text("Kind") == kind]
        for t in found:
            yield Said(verdict, f"{text} {t.text('Count')} times, last {t.text('LastSeen')[:19]} from "
                                f"{visible(t.text('IPAddresses'))[:120]}",
                       t.text("Mailbox"), t.origin, {"mailbox": quoted(t.text("Mailbox"))})  # fmt: skip
        if not found:
            yield Said(Verdict.PASS, well)

    return check


def strangers(s: System) -> Iterator[Said]:
    """EXC-STRANGER."""
    found = s.of("Stranger")
    for t in found[:50]:
        yield Said(Verdict.WARNING, f"{t.text('Logins')} log-ons at the listener for exceptions only, last "
                                    f"{t.text('LastSeen')[:19]}",
                   t.identity, t.origin)  # fmt: skip
    if not found:
        yield Said(Verdict.PASS, "nobody without an exception came to the listener for exceptions")


def administration(s: System) -> Iterator[Said]:
    """ADMIN-BIND."""
    for t in s.of("AdminSettings"):
        name = "Bindings" if t.get("Bindings") else "SSLBindings"
        beyond = [b for b in t.items(name) if not ipaddress.ip_address(Binding.parse(b).address).is_loopback]
        if beyond:
            yield Said(
                Verdict.WARNING, f"administration listens at {', '.join(beyond)}, beyond this machine", "", t.origin
            )
        else:
            yield Said(Verdict.PASS, "administration listens on this machine only", "", t.origin)


def space(s: System) -> Iterator[Said]:
    """WSSRV001: Exchange Analyzer's thresholds: 30 % and more, 15 to 30, below."""
    for t in s.of("Volume"):
        free, total = int(t.text("Free")), int(t.text("Size"))
        if total <= 0:
            raise Unknown(f"the size of the volume of {visible(t.identity)} is not known")
        percent = free * 100 / total
        verdict = Verdict.PASS if percent >= 30 else Verdict.WARNING if percent >= 15 else Verdict.FAIL
        yield Said(verdict, f"{percent:.1f} % of {total / 2**30:.0f} GiB are free", t.identity, t.origin)


_MBX: Final = "Mailboxes"
_SMTP: Final = "SMTP"
_LOGS: Final = "Observed logins"
_OWN: Final = "Exceptions and exposure"
_OFF: Final = both("Set-CASMailbox -Identity {mailbox} -{noun}Enabled $false")

MAIL: Final[tuple[Rule[MailService], ...]] = (
    Rule("MBX-ON", _MBX, "Only who uses a protocol may",
         "New mailboxes may use POP3 and IMAP4: each that does not is a password that can be tried there all the same.",
         mailboxes_used, _OFF, MICROSOFT + "set-casmailbox", WINDOWS, ("CASMailbox", "Usage")),
    Rule("MBX-PRIV", _MBX, "No privileged mailbox by POP3 or IMAP4",
         "Accounts of administrators and services have no second factor there, and are what attackers try first.",
         privileged, _OFF, MICROSOFT + "set-casmailbox", WINDOWS, ("CASMailbox",)),
)  # fmt: skip

SYSTEM: Final[tuple[Rule[System], ...]] = (
    Rule("SMTP-PAIR", _SMTP, "Clients send over TLS as well",
         "Whoever reads by IMAP4 sends by SMTP with the same password: what one protects the other must not give away.",
         submission, {EXCHANGE: "Set-ReceiveConnector {connector} -AuthMechanism "
                                "Tls,Integrated,BasicAuth,BasicAuthRequireTLS"},
         MICROSOFT + "set-receiveconnector", _E, ("ReceiveConnector",)),
    Rule("SMTP-TLSNAME", _SMTP, "TlsCertificateName names one certificate",
         "Where it is empty, wrong or ambiguous, Exchange guesses, or offers no STARTTLS at all.",
         tls_name, {EXCHANGE: "$c = Get-ExchangeCertificate -Thumbprint THUMBPRINT; Set-ReceiveConnector {connector} "
                              "-TlsCertificateName \"<I>$($c.Issuer)<S>$($c.Subject)\""},
         MICROSOFT + "set-receiveconnector", _E, ("ReceiveConnector",)),
    Rule("LOG-CLEAR", _LOGS, "Nobody logs in in clear text",
         "These passwords could be read on the way; whoever listened has them.",
         clear_logins, {LETTERLOCK: "letterlock get-loginreadiness --report readiness.html  # who must change, and how",
                        "": "letterlock get-loginreadiness --path LOGS --report readiness.html  # who must change, "
                            "and how"},
         "https://www.rfc-editor.org/rfc/rfc8314", needs=("Log",)),
    Rule("LOG-FAIL", _LOGS, "No address tries passwords",
         "Many failures of one address are a forgotten device or an attack; many users from one address are an attack.",
         failures, {"": "Block {address} in the firewall, or find the device that has an old "
                        "password"}, needs=("Log",)),
    Rule("EXC-EXPIRED", _OWN, "No expired exceptions",
         "An exception that has ended refuses its device: remove it, or say that the device is still needed.",
         _exception("Expired", Verdict.WARNING, "it has expired", "no exception has expired"),
         {LETTERLOCK: "Remove-LoginException {exception}"}, products=_L),
    Rule("EXC-EXPIRING", _OWN, "No exception ends soon",
         "Its device is refused from that day on: time to replace it, or to decide again.",
         _exception("Expiring", Verdict.WARNING, "it ends within 14 days", "no exception ends soon"),
         {LETTERLOCK: "Set-LoginException {exception} -ExpiresOn DATE"}, products=_L),
    Rule("EXC-UNUSED", _OWN, "Every exception is used",
         "An exception that nobody uses is a hole for nothing.",
         _exception("Unused", Verdict.WARNING, "nobody has used it for 30 days", "every exception is used"),
         {LETTERLOCK: "Remove-LoginException {exception}"}, products=_L),
    Rule("EXC-OPEN", _OWN, "Exceptions in force",
         "Each of them is a client that may do what nobody else may; they are listed so that nobody forgets them.",
         open_exceptions, products=_L),
    Rule("EXC-STRANGER", _OWN, "Nobody else at the listener for exceptions",
         "The listener for old devices is known to them only; whoever else comes has looked for it.",
         strangers, {LETTERLOCK: "Get-ReportedLogin -Kind Stranger"}, products=_L),
    Rule("CRED-EXPOSED", _OWN, "No exposed password is in use",
         "The right password was sent in clear text: whoever listened can log in. Only a new password ends that.",
         _credentials("Exposed", Verdict.FAIL, "the right password came in clear text", "no password is known to be "
                                                                                        "exposed"),
         {LETTERLOCK: "Set-MailboxPassword {mailbox}"}, products=_L),
    Rule("CRED-RETIRED", _OWN, "No device tries an old password",
         "A device that still has the old password tries it for ever, and fills the logs where attacks should be seen.",
         _credentials("RetiredPasswordTried", Verdict.WARNING, "an old password was tried", "no old password is tried"),
         {LETTERLOCK: "Get-ExposedCredential {mailbox}  # the address tells the device"}, products=_L),
    Rule("ADMIN-BIND", "Administration", "Administration listens on this machine only",
         "The administration port can change everything here; beyond this machine it needs a firewall before it.",
         administration, {LETTERLOCK: "Set-AdminSettings -SSLBindings 127.0.0.1:443; Restart-Service LetterlockAdmin"},
         products=_L),
    Rule("WSSRV001", "Disk", "Free disk space",
         "A full volume stops mail: 30 % and more is well, 15 to 30 % is little, less is urgent.",
         space, {"": "Free space on the volume, or move the data directory to a larger one"}, products=_L),
)  # fmt: skip
