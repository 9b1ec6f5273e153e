"""Rules on what may log in how, and on what users are told to connect to.

Whether a login would be allowed is asked of `policy.login`, the function that the listeners obey.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from letterlock.analyze.findings import Rule, Said, Verdict, both
from letterlock.analyze.inventory import DOVECOT, EXCHANGE, LETTERLOCK, MailService, System
from letterlock.analyze.inventory_sort import short
from letterlock.analyze.logs_lines import visible
from letterlock.analyze.rules_services import MICROSOFT, WINDOWS, twice
from letterlock.base import declare
from letterlock.base.settings import ImapSettings, PopSettings
from letterlock.base.values import LoginType, PolicyMode, Protocol
from letterlock.policy.login import (
    LOGIN,
    LOGIN_COMMAND,
    PLAIN,
    USER_PASS,
    Channel,
    LoginAttempt,
    LoginRules,
    Mechanism,
    decide,
    offered,
    tls_rank,
)

GSSAPI: Final = Mechanism(b"GSSAPI", clear=False)
_CLEAR: Final = Channel()


def _rules(m: MailService) -> LoginRules:
    """What the service enforces on a clear port."""
    own = (LOGIN_COMMAND if m.protocol is Protocol.IMAP4 else USER_PASS, PLAIN, LOGIN)
    hidden = m.system.product == DOVECOT or (
        m.system.product == EXCHANGE
        and m.login_type is LoginType.PlainTextAuthentication
        and m.value("EnableGSSAPIAndNTLMAuth")
    )
    return LoginRules(m.login_type, (*own, GSSAPI) if hidden else own)


def _allowed(m: MailService, mechanism: Mechanism) -> bool:
    rules = LoginRules(m.login_type, (PLAIN, GSSAPI))
    return decide(LoginAttempt(m.protocol, _CLEAR, mechanism), rules).allowed


def login_type(m: MailService) -> Iterator[Said]:
    """POP002, IMAP002: Exchange Analyzer's verdicts."""
    if m.login_type is LoginType.SecureLogin:
        yield Said(Verdict.PASS, _login_shown(m))
    elif m.clear:
        yield Said(Verdict.FAIL, f"{_login_shown(m)}: allows plain text login over insecure ports")
    else:
        yield Said(Verdict.WARNING, f"{_login_shown(m)}: allows plain text login, but has no insecure port bindings")


def _login_shown(m: MailService) -> str:
    if m.has("LoginTypeMode") and m.value("LoginTypeMode") is PolicyMode.ReportOnly:
        return f"{m.shown('LoginType')}, which is only reported; {m.login_type.name} decides"
    return m.shown("LoginType")


def clear_text(m: MailService) -> Iterator[Said]:
    """LOGIN-CLEAR."""
    if not _allowed(m, PLAIN):
        yield Said(Verdict.PASS, f"{_login_shown(m)}: no password is taken without TLS")
    elif m.clear:
        ports = ", ".join(map(str, m.clear))
        yield Said(Verdict.FAIL, f"{_login_shown(m)}: passwords are taken in clear text at {ports}")
    else:
        yield Said(Verdict.PASS, "there is no listener without TLS")


def integrated(m: MailService) -> Iterator[Said]:
    """LOGIN-INTEGRATED."""
    if _allowed(m, GSSAPI) and not _allowed(m, PLAIN) and m.clear:
        yield Said(Verdict.WARNING, f"{_login_shown(m)}: mail is read over the network in clear text after a log-on "
                                    f"that "
                   "hides only the password")  # fmt: skip
    else:
        yield Said(Verdict.PASS, _login_shown(m))


def dead_end(m: MailService) -> Iterator[Said]:
    """LOGIN-DEADEND: a mode that allows logins without TLS, and no mechanism that could use it."""
    if m.login_type is not LoginType.PlainTextAuthentication or not m.clear:
        yield Said(Verdict.PASS, _login_shown(m))
        return
    if offered(m.protocol, _CLEAR, _rules(m)):
        yield Said(Verdict.PASS, "a mechanism that hides the password is offered on the clear port")
    else:
        yield Said(Verdict.INFO, f"{_login_shown(m)}, and no mechanism is left that may be used on the clear port: "
                                 f"it is as "
                   "SecureLogin")  # fmt: skip


def report_only(m: MailService) -> Iterator[Said]:
    """LOGIN-REPORT."""
    said = False
    for mode, name, decides in (
        ("LoginTypeMode", "LoginType", "EnforcedLoginType"),
        ("TlsMinimumMode", "TlsMinimum", "EnforcedTlsMinimum"),
    ):
        if m.has(mode) and m.value(mode) is PolicyMode.ReportOnly:
            said = True
            yield Said(Verdict.WARNING, f"{m.shown(name)} is only reported; {visible(m.thing.text(decides))} decides",
                       words={"mode": mode})  # fmt: skip
    if not said:
        yield Said(Verdict.PASS, "what is set is enforced")


def protection(m: MailService) -> Iterator[Said]:
    """AUTH-EPA."""
    if not m.value("EnableGSSAPIAndNTLMAuth"):
        yield Said(Verdict.PASS, "NTLM and GSSAPI are off")
    elif declare.to_json(m.value("ExtendedProtectionPolicy")) == "None":
        yield Said(Verdict.WARNING, "NTLM is on, and ExtendedProtectionPolicy is None: a log-on can be relayed to this "
                   "server")  # fmt: skip
    else:
        yield Said(Verdict.PASS, m.shown("ExtendedProtectionPolicy"))


def floor(m: MailService) -> Iterator[Said]:
    """TLS-FLOOR."""
    version = m.value("EnforcedTlsMinimum") if m.has("EnforcedTlsMinimum") else m.value("TlsMinimum")
    verdict = Verdict.PASS if tls_rank(str(version)) >= 12 else Verdict.FAIL
    yield Said(
        verdict, m.shown("TlsMinimum") if not m.has("EnforcedTlsMinimum") else f"TLS {version} and later are taken"
    )


def weaker(m: MailService) -> Iterator[Said]:
    """SET-WEAK: what the declarations themselves call weaker."""
    kind: type[ImapSettings] | type[PopSettings] = ImapSettings if m.protocol is Protocol.IMAP4 else PopSettings
    said = False
    for name, declared in declare.fields(kind).items():
        if declared.setting.weaker is None or not m.has(name):
            continue
        text = declared.setting.weaker(m.value(name))
        if text:
            said = True
            usual = str(declare.to_json(declared.default))
            yield Said(Verdict.WARNING, f"{m.shown(name)}: {text}", name,
                       words={"setting": name, "usual": usual})  # fmt: skip
    if not said:
        yield Said(Verdict.PASS, "no setting is weaker than a new server's")


def banner(m: MailService) -> Iterator[Said]:
    """BANNER."""
    text = str(m.thing.text("Banner"))
    told = re.search(r"exchange|microsoft|dovecot|letterlock|cyrus|courier|debian|ubuntu|\d+\.\d+", text, re.I)
    host = next(
        (h for h in (m.system.name, short(m.system.name)) if h and len(h) > 2 and h.lower() in text.lower()), ""
    )
    if told or host:
        yield Said(
            Verdict.INFO, f"the greeting names {visible(host or (told[0] if told else ''))}: {visible(text)[:120]}"
        )
    else:
        yield Said(Verdict.PASS, f"the greeting is neutral: {visible(text)[:120]}")


# --- what users are told


_CONNECTIONS: Final = ("InternalConnectionSettings", "ExternalConnectionSettings")


def connections_match(m: MailService) -> Iterator[Said]:
    """CONN-MATCH."""
    ports = {"SSL": {b.port for b in m.always}, "TLS": {b.port for b in m.clear}, "": {b.port for b in m.clear}}
    said = False
    for name in _CONNECTIONS:
        for setting in m.connections(name):
            if setting.port not in ports[setting.encryption]:
                said = True
                kind = {"SSL": "always-TLS", "TLS": "STARTTLS", "": "clear"}[setting.encryption]
                yield Said(Verdict.FAIL, f"{name}: {setting} has no {kind} listener at port {setting.port}")
    if not said:
        yield Said(Verdict.PASS, "every connection setting has its listener")


def connections_encrypted(m: MailService) -> Iterator[Said]:
    """CONN-CLEAR."""
    clear = [f"{n}: {c}" for n in _CONNECTIONS for c in m.connections(n) if not c.encryption]
    if clear:
        yield Said(Verdict.FAIL, f"users are told to connect without encryption: {'; '.join(clear)}")
    else:
        yield Said(Verdict.PASS, "users are told to connect with TLS")


def connections_told(m: MailService) -> Iterator[Said]:
    """CONN-EMPTY."""
    external = m.connections("ExternalConnectionSettings")
    if external or not m.published:
        yield Said(Verdict.PASS, ", ".join(map(str, external)) or "the service does not run")
    else:
        yield Said(Verdict.WARNING, "ExternalConnectionSettings is empty: users outside are told nothing, and guess")


def internal_names(m: MailService) -> Iterator[Said]:
    """CONN-INTFQDN."""
    other = [str(c) for c in m.connections("InternalConnectionSettings") if short(c.host) != short(m.system.name)]
    if other and m.system.name:
        yield Said(Verdict.WARNING, f"{', '.join(other)} is not this server ({visible(m.system.name)}): a newer "
                                    f"front end "
                   "that proxies to it looks there")  # fmt: skip
    else:
        yield Said(Verdict.PASS, "they name this server")


# --- Dovecot's own


def trusted_networks(s: System) -> Iterator[Said]:
    """LOGIN-TRUSTED."""
    for thing in s.of("Dovecot"):
        networks = str(fact.value) if (fact := thing.get("login_trusted_networks")) else ""
        if networks:
            origin = fact.origin if fact else None
            yield Said(Verdict.WARNING, f"login_trusted_networks = {visible(networks)}: clients there may log in "
                                        f"without "
                       "TLS, and their word on other clients' addresses is taken", origin=origin)  # fmt: skip
        else:
            yield Said(Verdict.PASS, "no network is trusted")


def tls_off(s: System) -> Iterator[Said]:
    """TLS-OFF."""
    for thing in s.of("Dovecot"):
        value = str(fact.value) if (fact := thing.get("ssl")) else "yes"
        verdict = Verdict.FAIL if value.lower() == "no" else Verdict.PASS
        yield Said(
            verdict,
            f"ssl = {visible(value)}" + ("" if fact else " (the default)"),
            origin=fact.origin if fact else None,
        )


_WEAK: Final = re.compile(r"(?:\A|[:, "
                          r"])\+?(ALL|COMPLEMENTOFALL|LOW|EXP(?:ORT)?\d*|MEDIUM|[ae]?NULL|ADH|AECDH|3?DES|DES-CBC3-SHA|RC4|RC2|MD5|IDEA"
                          r"|SSLv2|SSLv3)(?=[:, ]|\Z)")  # fmt: skip


def cipher_list(s: System) -> Iterator[Said]:
    """TLS-LIST: as far as OpenSSL's words in ssl_cipher_list tell."""
    for thing in s.of("Dovecot"):
        fact = thing.get("ssl_cipher_list")
        text = str(fact.value) if fact else ""
        excluded = {w.lstrip("!") for w in re.split(r"[:, ]", text) if w.startswith("!")}
        weak = [w for w in _WEAK.findall(text) if w not in excluded]
        # ALL without the anonymous and the weak ones taken out is all of them
        weak = [w for w in weak if w != "ALL" or not {"LOW", "aNULL"} <= excluded]
        if weak:
            yield Said(Verdict.FAIL, f"ssl_cipher_list takes {', '.join(weak)}", origin=fact.origin if fact else None)
        else:
            yield Said(Verdict.PASS, f"ssl_cipher_list = {visible(text)[:120]}" if text else "the default ciphers")


def logged_passwords(s: System) -> Iterator[Said]:
    """LOG-PASSWORDS."""
    for thing in s.of("Dovecot"):
        bad, origin = [], None
        for name, well in (("auth_verbose_passwords", ("no", "sha1", "")), ("auth_debug_passwords", ("no", ""))):
            fact = thing.get(name)
            if fact is not None and str(fact.value).lower().partition(":")[0] not in well:
                bad.append(f"{name} = {visible(str(fact.value))}")
                origin = origin or fact.origin
        if bad:
            yield Said(Verdict.FAIL, f"{', '.join(bad)}: passwords are written to the log", origin=origin)
        else:
            yield Said(Verdict.PASS, "passwords are not logged")


_LOGIN: Final = "Logins"
_CONN: Final = "Connection settings"
_SECURE: Final = {
    **both("{set} -LoginType SecureLogin; {restart}  # Get-LoginReadiness tells first who would be refused"),
    LETTERLOCK: "{set} -LoginType SecureLogin -LoginTypeMode ReportOnly; {restart}  # watch Get-ReportedLogin, then "
                "-LoginTypeMode "
                "Enforce",
    DOVECOT: "ssl = required\n{cleartext_off}\n# then: doveadm reload",
}  # fmt: skip
_D: Final = frozenset({DOVECOT})
_L: Final = frozenset({LETTERLOCK})

MAIL: Final[tuple[Rule[MailService], ...]] = (
    *twice(Rule(
        "002", _LOGIN, "login type",
        "With any LoginType but SecureLogin, user names and passwords, or the mail, cross the network so that "
        "everybody on the way can read them.",
        login_type, _SECURE, "https://www.rfc-editor.org/rfc/rfc8314")),
    Rule("LOGIN-CLEAR", _LOGIN, "No password without TLS",
         "A password that was sent in clear text once is everybody's who listened: it opens mail, and often much more.",
         clear_text, _SECURE, "https://www.rfc-editor.org/rfc/rfc8314#section-3"),
    Rule("LOGIN-INTEGRATED", _LOGIN, "No log-on without TLS, whatever it hides",
         "NTLM, GSSAPI or CRAM-MD5 without TLS hide the password at best; the mail that follows is readable, and the "
         "connection can be taken over.",
         integrated, _SECURE, "https://www.rfc-editor.org/rfc/rfc8314#section-3"),
    Rule("LOGIN-DEADEND", _LOGIN, "The login type allows what it seems to",
         "PlainTextAuthentication without NTLM and GSSAPI lets nobody in without TLS: saying SecureLogin is clearer.",
         dead_end, _SECURE, MICROSOFT + "set-imapsettings", WINDOWS),
    Rule("LOGIN-REPORT", _LOGIN, "Report-only rules come to an end",
         "A rule that is only reported protects nobody; it is meant for the time until the last client has changed.",
         report_only, {LETTERLOCK: "Get-ReportedLogin; {set} -{mode} Enforce; {restart}"}, products=_L),
    Rule("SET-WEAK", _LOGIN, "No setting weaker than a new server's",
         "Each of these settings protects something; what it gives up is said with it.",
         weaker, {LETTERLOCK: "{set} -{setting} {usual}; {restart}"}, products=_L),
    Rule("AUTH-EPA", _LOGIN, "Extended protection",
         "Without channel binding, an attacker between client and server can pass an NTLM log-on on and be logged on "
         "as the user.", protection,
         {EXCHANGE: "{set} -ExtendedProtectionPolicy Allow; {restart}  # later Require"},
         MICROSOFT + "set-imapsettings", frozenset({EXCHANGE})),
    Rule("TLS-FLOOR", "TLS", "TLS 1.2 or later by configuration",
         "TLS 1.0 and 1.1 are formally deprecated (RFC 8996): their ciphers and hashes are broken.",
         floor, {LETTERLOCK: "{set} -TlsMinimum 1.2; {restart}", DOVECOT: "ssl_min_protocol = TLSv1.2"},
         "https://www.rfc-editor.org/rfc/rfc8996", frozenset({LETTERLOCK, DOVECOT})),
    Rule("CONN-MATCH", _CONN, "Connection settings have listeners",
         "Users copy these lines into their mail programs; one without a listener costs each of them a call.",
         connections_match, both("{get} | Format-List *ConnectionSettings,*Bindings  # then correct with {set}"),
         MICROSOFT + "set-imapsettings", WINDOWS),
    Rule("CONN-CLEAR", _CONN, "Connection settings say TLS or SSL",
         "A line without encryption tells users to send their password in clear text.",
         connections_encrypted, both("{set} -ExternalConnectionSettings \"HOST:{tls_port}:SSL\"; {restart}"),
         MICROSOFT + "set-imapsettings", WINDOWS),
    Rule("CONN-EMPTY", _CONN, "Users outside are told how to connect",
         "Where nothing is told, users and mail programs guess, and guess port 110 or 143 without TLS.",
         connections_told, both("{set} -ExternalConnectionSettings \"HOST:{tls_port}:SSL\"; {restart}"),
         MICROSOFT + "set-imapsettings", WINDOWS),
    Rule("CONN-INTFQDN", _CONN, "Internal connection settings name the server",
         "Newer front ends read them to proxy to this server; a load-balanced name sends them in circles.",
         internal_names, both("{set} -InternalConnectionSettings \"FQDN:{tls_port}:SSL\",\"FQDN:{clear_port}:TLS\"; "
                              "{restart}"),
         MICROSOFT + "set-imapsettings", WINDOWS),
    Rule("BANNER", "Disclosure", "The greeting tells no product",
         "Product and host name in the greeting save an attacker the first step.",
         banner, {**both("{set} -Banner \"Ready.\"; {restart}"), DOVECOT: "login_greeting = Ready."}),
)  # fmt: skip

SYSTEM: Final[tuple[Rule[System], ...]] = (
    Rule("LOGIN-TRUSTED", _LOGIN, "No network is trusted without TLS",
         "Clients in these networks count as secure: whoever gets into one may log in in clear text and claim any "
         "address.",
         trusted_networks, {DOVECOT: "login_trusted_networks ="}, "https://doc.dovecot.org/", _D),
    Rule("TLS-OFF", "TLS", "TLS is on",
         "Without TLS every password and every message is readable on the way.",
         tls_off, {DOVECOT: "ssl = required"}, "https://doc.dovecot.org/", _D),
    Rule("TLS-LIST", "TLS", "No weak words in the cipher list",
         "Export grade, RC4, 3DES and anonymous ciphers can be broken or need no certificate (RFC 9325).",
         cipher_list, {DOVECOT: "ssl_cipher_list = ECDHE+AESGCM:ECDHE+CHACHA20"},
         "https://www.rfc-editor.org/rfc/rfc9325#section-4", _D),
    Rule("LOG-PASSWORDS", "Logging", "Passwords are not logged",
         "A log with passwords is read by more people and kept longer than any password file.",
         logged_passwords, {DOVECOT: "auth_verbose_passwords = no\nauth_debug_passwords = no"},
         "https://doc.dovecot.org/", _D),
)  # fmt: skip
