"""Rules on what a live endpoint was seen to do. The facts and their names: `probe/endpoint.py`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

from letterlock.analyze.certificates import moment
from letterlock.analyze.findings import SMTP, Rule, Said, Verdict
from letterlock.analyze.inventory import Endpoint
from letterlock.analyze.rules_certificates import RSA_BITS, lifetime
from letterlock.base.values import Protocol

Check = Callable[[Endpoint], Iterator[Said]]
OLD: Final = ("TLSv1.1", "TLSv1.0", "SSLv3", "SSLv2")
BACK_ENDS: Final = frozenset({1993, 1995})


def flag(name: str, bad: bool, verdict: Verdict, text: str, well: str) -> Check:
    """A rule on one fact that is true or false; where it does not apply, it says nothing."""

    def check(e: Endpoint) -> Iterator[Said]:
        if not e.has(name):
            return
        detail = f": {e.detail(name)[:300]}" if e.detail(name) else ""
        yield Said(verdict, text + detail) if e.value(name) is bad else Said(Verdict.PASS, well)

    return check


def reachable(e: Endpoint) -> Iterator[Said]:
    """WIRE-REACH: an endpoint that cannot be reached could not be judged."""
    if e.port in BACK_ENDS:
        return
    if e.has("Unserved"):
        yield Said(Verdict.INFO, f"not served: {e.detail('Reachable')}")
    elif not e.has("Reachable") or e.value("Reachable"):
        yield Said(Verdict.PASS, str(e.facts["Greeting"].value) if e.has("Greeting") else "it answers")
    else:
        yield Said(Verdict.ERROR, f"could not be judged: {e.detail('Reachable')}")


def back_end(e: Endpoint) -> Iterator[Said]:
    """BIND-BE."""
    if e.port not in BACK_ENDS:
        return
    if e.value("Reachable"):
        yield Said(Verdict.FAIL, f"port {e.port}, which only other servers need, can be reached from here")
    else:
        yield Said(Verdict.PASS, f"port {e.port} cannot be reached from here")


def password_offers(e: Endpoint) -> Iterator[Said]:
    """WIRE-OFFER."""
    if not e.has("ClearTextOffers"):
        return
    offers = [
        m
        for m in str(e.value("ClearTextOffers")).split(", ")
        if m.upper() in ("PLAIN", "LOGIN", "USER", "LOGIN COMMAND")
    ]
    if e.protocol is Protocol.IMAP4 and e.has("LOGINDISABLED") and not e.value("LOGINDISABLED"):
        offers.append("no LOGINDISABLED")
    if offers:
        yield Said(
            Verdict.WARNING, f"before TLS it offers {', '.join(dict.fromkeys(offers))}: clients will send passwords"
        )
    else:
        yield Said(Verdict.PASS, "before TLS no password is asked for")


def versions(e: Endpoint) -> Iterator[Said]:
    """TLS-VER."""
    if not e.has("TLSv1.2"):
        return
    taken = [v for v in OLD if e.has(v) and e.facts[v].value is True]
    new = [v for v in ("TLSv1.3", "TLSv1.2") if e.has(v) and e.facts[v].value is True]
    known = e.has("WeakCiphers") and e.facts["WeakCiphers"].value is not None
    weak = str(e.facts["WeakCiphers"].value) if known else ""
    if taken:
        yield Said(Verdict.FAIL, f"{', '.join(taken)} {'is' if len(taken) == 1 else 'are'} accepted")
    if weak:
        yield Said(Verdict.FAIL, f"weak cipher suites are accepted: {weak[:300]}")
    for version in ("TLSv1.2", "TLSv1.1", "TLSv1.0"):
        if not taken:
            e.value(version)  # raises where it could not be determined
    if e.has("WeakCiphers") and not known and not taken:
        e.value("WeakCiphers")  # raises
    if not taken and not weak:
        if not new:
            yield Said(Verdict.FAIL, "neither TLS 1.2 nor TLS 1.3 is accepted")
        else:
            yield Said(Verdict.PASS, f"{' and '.join(new)} only, no weak cipher suites")


def modern(e: Endpoint) -> Iterator[Said]:
    """TLS-13."""
    if e.has("TLSv1.3"):
        yield (
            Said(Verdict.PASS, "TLS 1.3 is accepted")
            if e.value("TLSv1.3")
            else Said(Verdict.INFO, "TLS 1.3 is not accepted")
        )


def forward_secrecy(e: Endpoint) -> Iterator[Said]:
    """TLS-FS."""
    if e.has("CiphersWithoutForwardSecrecy"):
        found = str(e.value("CiphersWithoutForwardSecrecy"))
        text = f"recorded traffic can be read with a key that is stolen later: {found[:300]}"
        yield Said(Verdict.WARNING, text) if found else Said(Verdict.PASS, "all suites are forward secret")


def faults(e: Endpoint) -> Iterator[Said]:
    """TLS-FAULTS: what a scanner finds, where one is installed."""
    names = [n for n in ("Heartbleed", "ROBOT", "CcsInjection", "TlsCompression", "InsecureRenegotiation") if e.has(n)]
    found = [n for n in names if e.facts[n].value is True]
    unknown = [n for n in names if e.facts[n].value is None]
    if found:
        yield Said(Verdict.FAIL, f"known faults of TLS: {', '.join(found)}")
    elif unknown:
        yield Said(Verdict.ERROR, f"could not be determined: {', '.join(unknown)}")
    elif names:
        yield Said(Verdict.PASS, f"none of {', '.join(names)}")
    elif e.has("Scanner"):
        yield Said(Verdict.INFO, "not looked for: the scanner sslyze is not installed (docs/analyzer.md)")


def trusted(e: Endpoint) -> Iterator[Said]:
    """WIRE-TRUST."""
    if not e.has("CertificateTrusted"):
        return
    if e.value("CertificateTrusted"):
        yield Said(Verdict.PASS, "it is issued by an authority that this machine trusts")
    elif e.has("CertificateSelfSigned") and e.value("CertificateSelfSigned"):
        yield Said(Verdict.WARNING, "it is self-signed, and no client trusts it")
    elif e.has("CertificateInTime") and e.value("CertificateInTime") is False:
        yield Said(Verdict.FAIL, f"its chain is not trusted: {e.detail('CertificateTrusted')[:200]}")
    else:
        yield Said(Verdict.FAIL, f"its chain is not trusted: {e.detail('CertificateTrusted')[:200]}")


def date(e: Endpoint) -> Iterator[Said]:
    """WIRE-DATE."""
    if not e.has("CertificateExpiry"):
        return
    end = moment(str(e.value("CertificateExpiry")))
    if e.certificate is not None:
        end = e.certificate.not_after
    now = e.now
    if e.has("CertificateInTime") and e.value("CertificateInTime") is False and end > now:
        yield Said(Verdict.FAIL, f"the certificate is {e.detail('CertificateInTime') or 'not valid yet'}")
    else:
        yield Said(*lifetime(end, now))


def key(e: Endpoint) -> Iterator[Said]:
    """WIRE-KEY."""
    if not e.has("CertificateKey"):
        return
    text, signed = str(e.value("CertificateKey")), str(e.value("CertificateSignature"))
    size = re.match(r"(?:RSA|DSA) (\d+)", text)
    if size and int(size[1]) < RSA_BITS:
        yield Said(Verdict.FAIL, f"the key is {text} only")
    elif signed in ("sha1", "md5"):
        yield Said(Verdict.FAIL, f"the certificate is signed with {signed.upper()}")
    else:
        yield Said(Verdict.PASS, f"{text}, {signed}")


def greeting(e: Endpoint) -> Iterator[Said]:
    """WIRE-BANNER."""
    if not e.has("Greeting"):
        return
    told = [str(e.value(n)) for n in ("BannerProduct", "BannerVersion") if e.value(n)]
    if told:
        yield Said(Verdict.INFO, f"the greeting names {' '.join(told)}: {str(e.value('Greeting'))[:120]}")
    else:
        yield Said(Verdict.PASS, f"the greeting names no product: {str(e.value('Greeting'))[:120]}")


_LOGIN: Final = "Logins"
_TLS: Final = "TLS"
_CERT: Final = "Certificates"
_SECURE: Final = {
    "Exchange": "Set-{noun}Settings -LoginType SecureLogin  # then restart the services",
    "Letterlock": "Set-{noun}Settings -LoginType SecureLogin  # then restart the services",
    "Dovecot": "ssl = required",
    SMTP: "Exchange: Set-ReceiveConnector NAME -AuthMechanism Tls,Integrated,BasicAuth,BasicAuthRequireTLS\n"
    "Postfix: smtpd_tls_auth_only = yes",
    "": "Exchange and Letterlock: Set-{noun}Settings -LoginType SecureLogin. Dovecot: ssl = required",
}
_PATCH: Final = {
    "": "Update the server, or the proxy in front of it; test again with: letterlock invoke-analyzer --endpoint "
    "{endpoint}"
}
_LOOK: Final = {"": "openssl s_client -connect {endpoint} -servername {host}{mode} -showcerts"}
_NOSTARTTLS: Final = "https://nostarttls.secvuln.info/"

ENDPOINT: Final[tuple[Rule[Endpoint], ...]] = (
    Rule("WIRE-REACH", "Endpoints", "The endpoint answers",
         "What cannot be reached from here could not be judged; that says nothing about others who try.", reachable,
         {"": "Check name, port and firewall, or run this where clients are"}),
    Rule("BIND-BE", "Listeners", "Back ends cannot be reached",
         "The back-end ports trust what front ends say; nobody else may talk to them.", back_end,
         {"": "Close ports 1993 and 1995 in the firewall for all but the servers of the organisation"}),
    Rule("WIRE-STARTTLS", _TLS, "STARTTLS is offered",
         "Without it, clients on this port can only talk in clear text.",
         flag("STARTTLS", False, Verdict.FAIL, "no STARTTLS is offered on this clear port", "STARTTLS is offered"),
         {"Dovecot": "ssl = required", "": "Give the service a certificate that fits its name, or close the port"},
         "https://www.rfc-editor.org/rfc/rfc2595"),
    Rule("WIRE-CLEAR", _LOGIN, "Clear-text log-ons are refused",
         "Tried with an invented user and a random password: what is looked at could be read by everybody on the way.",
         flag("ClearTextLogin", True, Verdict.FAIL, "a log-on without TLS is processed", "log-ons without TLS are "
                                                                                         "refused"),
         _SECURE, "https://www.rfc-editor.org/rfc/rfc8314"),
    Rule("WIRE-OFFER", _LOGIN, "No password is asked for before TLS",
         "Clients believe what is offered: they send the password although it is then refused.", password_offers,
         _SECURE,
         "https://www.rfc-editor.org/rfc/rfc9051#section-6.2.3"),
    Rule("AUTH-NTLMLEAK", _LOGIN, "NTLM is not answered unasked",
         "The NTLM challenge tells the server's names and build to anybody, also where NTLM is not offered.",
         flag("NtlmUnadvertised", True, Verdict.WARNING, "NTLM is answered although it is not "
                                                         "offered", "NTLM is not answered"),
         {SMTP: "Set-ReceiveConnector NAME -AuthMechanism Tls,BasicAuth,BasicAuthRequireTLS",
          "": "Set-{noun}Settings -EnableGSSAPIAndNTLMAuth $false  # then restart the services"}),
    Rule("WIRE-INJECTION", _TLS, "STARTTLS drops what was sent before it",
         "A command that an attacker puts behind STARTTLS would be run inside TLS as if the client had sent it.",
         flag("STARTTLSInjection", True, Verdict.FAIL, "a command sent in clear was answered inside TLS",
              "what was sent before TLS is dropped"), _PATCH, _NOSTARTTLS),
    Rule("TLS-VER", _TLS, "TLS 1.2 and later, no weak suites",
         "SSL 3.0, TLS 1.0 and 1.1 are broken and deprecated (RFC 8996); RC4, 3DES, NULL, anonymous and export "
         "suites as "
         "well (RFC 9325).", versions,
         {"Exchange": "Disable TLS 1.0 and 1.1 in SCHANNEL (registry), as Microsoft's Exchange TLS guidance says, "
                      "and restart",
          "Letterlock": "Set-{noun}Settings -TlsMinimum 1.2  # then restart the services",
          "Dovecot": "ssl_min_protocol = TLSv1.2\nssl_cipher_list = ECDHE+AESGCM:ECDHE+CHACHA20",
          "": "Switch off everything before TLS 1.2 in the server's settings"}, "https://www.rfc-editor.org/rfc/rfc8996"),
    Rule("TLS-13", _TLS, "TLS 1.3 is accepted", "TLS 1.3 is faster to begin with and has none of the old "
                                                "weaknesses.", modern,
         {"": "Update the TLS library of the server"}, "https://www.rfc-editor.org/rfc/rfc8446"),
    Rule("TLS-FS", _TLS, "All suites are forward secret",
         "With RSA key exchange, whoever records today and gets the key later reads everything.", forward_secrecy,
         {"Dovecot": "ssl_cipher_list = ECDHE+AESGCM:ECDHE+CHACHA20", "": "Allow ECDHE suites only"},
         "https://www.rfc-editor.org/rfc/rfc9325#section-4.1"),
    Rule("TLS-FAULTS", _TLS, "No known faults of TLS implementations",
         "Heartbleed, ROBOT, CCS injection, compression and insecure renegotiation each give away keys or "
         "content.", faults,
         _PATCH),
    Rule("TLS-ALPN", _TLS, "Other protocols are refused (ALPN)",
         "A browser that is sent here by an attacker must not be served: strict ALPN ends cross-protocol attacks.",
         flag("AlpnStrict", False, Verdict.INFO, "clients that offer only another protocol are served",
              "clients that offer only another protocol are refused"), _PATCH, "https://alpaca-attack.com/"),
    Rule("TLS-HTTP", _TLS, "HTTP requests end the connection",
         "A web page can make browsers send requests here; a server that goes on after one runs what stands behind it.",
         flag("AnswersAfterHttp", True, Verdict.WARNING, "commands behind an HTTP request are answered",
              "an HTTP request ends the connection"), _PATCH, "https://alpaca-attack.com/"),
    Rule("WIRE-NAME", _CERT, "The certificate has the endpoint's name",
         "Clients that check refuse it; users who click the warning away accept any attacker's as well.",
         flag("CertificateName", False, Verdict.FAIL, "the certificate is for other names", "the certificate has "
                                                                                            "the name"),
         _LOOK, "https://www.rfc-editor.org/rfc/rfc9525"),
    Rule("WIRE-TRUST", _CERT, "The certificate's chain is trusted",
         "Without a chain to a known authority a client cannot tell the server from an attacker.", trusted, _LOOK),
    Rule("WIRE-DATE", _CERT, "The certificate is valid for 60 days and more", "On the day after, no client connects "
                                                                              "any more.",
         date, {"": "Renew the certificate, and restart or reload the server"}),
    Rule("WIRE-KEY", _CERT, "Key and signature are strong",
         "RSA keys below 2048 bits and SHA-1 signatures can be forged with money.", key,
         {"": "Have the certificate issued again with ECDSA P-256 or RSA 2048 and SHA-256"},
         "https://www.rfc-editor.org/rfc/rfc9325#section-4.5"),
    Rule("WIRE-BANNER", "Disclosure", "The greeting tells no product",
         "Product and version in the greeting save an attacker the first step.", greeting,
         {"Dovecot": "login_greeting = Ready.", SMTP: "Postfix: smtpd_banner = $myhostname ESMTP",
          "": "Set-{noun}Settings -Banner \"Ready.\""}),
)  # fmt: skip
