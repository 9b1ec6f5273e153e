"""What Postfix and Exim say of a login, message by message.

How each tells a login without TLS:
- Postfix: no TLS line and no `starttls=` among the counters of the same session; where the log has neither anywhere,
  nothing is known of it.
- Exim: `P=esmtpa`, without the `s` of `esmtpsa`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from letterlock.analyze.logs_lines import FileReport
from letterlock.analyze.logs_messages import BRACKETED, MAX_ATTEMPTS, Messages, plain_address, plain_text
from letterlock.analyze.logs_tally import Open, Sessions
from letterlock.base.facts import LoginFact, LoginResult
from letterlock.base.values import Protocol, Tls

MAX_SMTP: Final = 20_000  # Postfix sessions that are followed at a time

_SMTP_CLIENT: Final = re.compile(
    rb"[^:]+: client=\S*\[([^\]]+)\](?::\d+)?, sasl_method=([^,]*), sasl_username=(.*?)(?:, sasl_sender=.*)?$",
    re.DOTALL,
)
_SMTP_TLS: Final = re.compile(rb"\w+ TLS connection established from \S*\[([^\]]+)\](?::\d+)?: (\S+)")
_SMTP_FAILED: Final = re.compile(
    rb"warning: \S*\[([^\]]+)\](?::\d+)?: SASL (\S+) authentication failed: (.*)$", re.DOTALL
)
_SMTP_AUTH: Final = re.compile(rb" auth=(\d+)(?:/(\d+))?")
_EXIM_IN: Final = re.compile(rb"(?:\[\d+\] )?\S{16,23} <= (\S+) (.*)$", re.DOTALL)
_EXIM_HOST: Final = re.compile(rb"\bH=.*?\[([0-9a-fA-F.:]+)\]")
_EXIM_FAILED: Final = re.compile(
    rb"(?:\[\d+\] )?(\S+) authenticator failed for .*?\[([0-9a-fA-F.:]+)\].*?: (535.*?)(?: \(set_id=(.*)\))?$",
    re.DOTALL,
)
_EXIM_REFUSED: Final = re.compile(
    rb'(?:\[\d+\] )?SMTP protocol error in "AUTH ?([A-Za-z0-9-]*)([^"]*)".*?\[([0-9a-fA-F.:]+)\].*AUTH command used',
    re.DOTALL,
)


@dataclass(slots=True)
class _Smtp:
    """A Postfix session."""

    whole: bool  # its `connect` line was seen
    tls: Tls | None = None
    version: str = ""
    address: str = ""
    failed: int = 0
    logins: list[LoginFact] = field(default_factory=list)


class SmtpServers(Messages):
    """Messages of servers that take mail in."""

    def __init__(self, report: FileReport, sessions: Sessions) -> None:
        super().__init__(report, sessions)
        self._smtp: dict[bytes, _Smtp] = {}
        self._upgrading: set[str] = set()  # Postfix services whose sessions tell of STARTTLS
        self._tls_logged = False
        self._services: set[str] = set()
        self._failure: tuple[float, bytes] = (0.0, b"")

    # --- Postfix

    def postfix(self, at: float, tag: bytes, pid: bytes, message: bytes, number: int) -> None:
        """A line of smtpd: its sessions are followed by process id."""
        key = b"P" + tag + b"[" + pid
        if message.startswith(b"connect from "):
            self._smtp_end(key)
            if len(self._smtp) >= MAX_SMTP:
                self._smtp_end(next(iter(self._smtp)))
            self._smtp[key] = _Smtp(True, Tls.IMPLICIT if _wrapped(tag) else None)
            return
        session = self._smtp.get(key) or _Smtp(False, Tls.IMPLICIT if _wrapped(tag) else None)
        found = _SMTP_TLS.match(message)
        if found:
            self._tls_logged = True
            session.tls, session.version = session.tls or Tls.STARTTLS, plain_text(found[2], 20)
            self._smtp[key] = session
            return
        if message.startswith(b"disconnect from "):
            self._smtp_counters(key, session, at, tag, message, number)
            return
        result, text = LoginResult.SUCCEEDED, ""
        found = _SMTP_CLIENT.match(message)
        user, method = (found[3], found[2]) if found else (b"", b"")
        if found is None:
            found = _SMTP_FAILED.match(message)
            if found is None:
                return
            result, method = LoginResult.FAILED, found[2]
            user = found[3].partition(b"sasl_username=")[2]
            session.failed += 1
        self.report.servers.add("Postfix")
        service = plain_text(tag)
        self._services.add(service)
        fact = LoginFact(
            at,
            Protocol.SMTP,
            plain_address(found[1]),
            plain_text(user),
            plain_text(method, 40).upper(),
            session.tls,
            result,
            "",
            session.version,
            text,
            self.origin(number, service),
        )
        session.address = fact.address
        if not session.whole and session.tls is None:
            self.report.logins += 1
            self.sessions.undecided(key, fact)
        elif not any(f.user == fact.user and f.result is result is LoginResult.SUCCEEDED for f in session.logins):
            self.report.logins += 1
            session.logins.append(fact)  # one login may send many messages
            self._smtp[key] = session

    def _smtp_counters(self, key: bytes, session: _Smtp, at: float, tag: bytes, message: bytes, number: int) -> None:
        """The last line of a session counts its commands; AUTH that was not even tried leaves no other trace."""
        if b" starttls=" in message:
            self._upgrading.add(plain_text(tag))
            if not session.whole:
                self.sessions.settle(key, Tls.STARTTLS)
            session.tls = session.tls or Tls.STARTTLS
        counted = _SMTP_AUTH.search(message)
        host = BRACKETED.search(message)
        if counted and counted[2] and session.whole:
            refused = int(counted[2]) - int(counted[1]) - session.failed
            fact = LoginFact(
                at,
                Protocol.SMTP,
                plain_address(host[1] if host else b""),
                "",
                "",
                session.tls,
                LoginResult.REFUSED,
                text="AUTH was not accepted",
                origin=self.origin(number, plain_text(tag)),
                sent=False,
            )
            self.count(fact, max(0, min(refused, MAX_ATTEMPTS)))
        self._smtp[key] = session
        self._smtp_end(key)

    def _smtp_end(self, key: bytes) -> None:
        session = self._smtp.pop(key, None)
        for fact in session.logins if session else ():
            self.sessions.tally.add(fact if fact.tls or session is None else fact._replace(tls=session.tls))

    # --- Exim

    def exim(self, at: float, rest: bytes, number: int) -> bool:
        """A message that came in after a login, or a login that failed."""
        found = _EXIM_IN.match(rest)
        if found:
            self.report.servers.add("Exim")
            self._exim_in(at, found[2], number)
            return True
        if (at, rest) == self._failure:
            return True  # to syslog Exim tells a failure twice: of its main log, and of its reject log
        found = _EXIM_FAILED.match(rest)
        if found:
            self._failure = at, rest
            self.count(
                LoginFact(
                    at,
                    Protocol.SMTP,
                    plain_address(found[2]),
                    plain_text(found[4]),
                    _exim_mechanism(found[1]),
                    None,
                    LoginResult.FAILED,
                    origin=self.origin(number),
                )
            )
            return True
        found = _EXIM_REFUSED.match(rest)
        if found:
            # the credentials may stand in this very line: only the mechanism is taken from it
            self._failure = at, rest
            self.count(
                LoginFact(
                    at,
                    Protocol.SMTP,
                    plain_address(found[3]),
                    "",
                    plain_text(found[1], 40).upper(),
                    None,
                    LoginResult.REFUSED,
                    text="AUTH command used when not advertised",
                    origin=self.origin(number),
                    sent=bool(found[2].strip()),
                )
            )
            return True
        return False

    def _exim_in(self, at: float, fields: bytes, number: int) -> None:
        protocol = re.search(rb"\bP=(\S+)", fields)
        login = re.search(rb"\bA=([^:\s]+)(?::(\S+))?", fields)
        host = _EXIM_HOST.search(fields)
        if login is None or protocol is None or host is None:
            return  # not a login: mail from another server or from this one
        name = protocol[1].lower()
        tls = Tls.STARTTLS if name in (b"esmtpsa", b"smtpsa") or b" X=TLS" in fields else Tls.NONE
        self.count(
            LoginFact(
                at,
                Protocol.SMTP,
                plain_address(host[1]),
                plain_text(login[2]),
                _exim_mechanism(login[1]),
                tls,
                LoginResult.SUCCEEDED,
                origin=self.origin(number),
            )
        )

    def finish(self) -> frozenset[str]:
        """Count what waits; hand over what may go on in the next file. Answers Postfix services whose logins without
        a trace of TLS were in clear."""
        for key in list(self._smtp):
            session = self._smtp.pop(key)
            for fact in session.logins[:-1]:
                self.sessions.tally.add(fact)
            self.sessions.begin(key, Open(session.tls, "", session.logins[-1] if session.logins else None))
        return frozenset(self._services if self._tls_logged else self._services & self._upgrading)


def _wrapped(tag: bytes) -> bool:
    """Services that speak TLS from the first byte, by Postfix's usual names."""
    return any(part in (b"smtps", b"submissions", b"465") for part in tag.split(b"/"))


def _exim_mechanism(authenticator: bytes) -> str:
    """Authenticators are named by the administrator, mostly after their mechanism."""
    name = authenticator.lower()
    for word, mechanism in (
        (b"plain", "PLAIN"), (b"login", "LOGIN"), (b"scram", "SCRAM-SHA-256"), (b"cram", "CRAM-MD5"),
        (b"gssapi", "GSSAPI"), (b"ntlm", "NTLM"), (b"oauth", "XOAUTH2"),
    ):  # fmt: skip
        if word in name:
            return mechanism
    return plain_text(authenticator, 40)
