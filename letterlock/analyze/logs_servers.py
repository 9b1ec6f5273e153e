"""What Dovecot, Cyrus and Courier say of a login, message by message.

How each tells a login without TLS:
- Dovecot: no `TLS` after the addresses, and no `secured` (same host, or a proxy that is trusted).
- Cyrus: `plaintext` without `+TLS`; `login.tls=0` in the structured lines of its 3.13 series.
- Courier: a daemon without `-ssl` in its name, and no `starttls=1` or `stls=1` in the line that ends the session; a
  session whose end is not in the logs is not known.

User names are the peer's, and may imitate what follows them: fields are taken from the end of the message.
"""

from __future__ import annotations

import re
from typing import Final

from letterlock.analyze.logs_messages import BRACKETED, MAX_ATTEMPTS, Messages, plain_address, plain_text
from letterlock.analyze.logs_tally import Open
from letterlock.base.facts import LoginFact, LoginResult
from letterlock.base.values import Protocol, Tls

_PROTOCOLS: Final = {
    b"imap": Protocol.IMAP4, b"pop3": Protocol.POP3, b"submission": Protocol.SMTP, b"managesieve": Protocol.SIEVE,
}  # fmt: skip
_DOVECOT: Final = re.compile(
    rb"(?:[^\s\[\]:]+ )?(?:dovecot(?:\[\d+\])?: )?(imap|pop3|submission|managesieve)(-login)?(?:\((.*?)\))?"
    rb"(?:<\d+>)?(?:<([^>\s]*)>)?(?:\[\d+\])?: (?:(?:Info|Warning|Error|Debug|Notice): )?(.*)",
    re.DOTALL,
)
_DOVECOT_USER: Final = re.compile(rb"user=<(.*)>(?:, method=([^,]*))?$", re.DOTALL)
_DOVECOT_FAILED: Final = re.compile(rb"\(auth failed, (\d+) attempts")
_DOVECOT_REFUSED: Final = re.compile(rb"tried to use disallowed (?:plaintext|cleartext) auth")
_SESSION: Final = re.compile(rb"session=<([^>]*)>")
_CYRUS: Final = re.compile(rb"login: (?:\S* )?\[([^\]]+)\] (.*) ([A-Za-z0-9_-]+)(\+TLS)? User logged in", re.DOTALL)
_CYRUS_BAD: Final = re.compile(
    rb"badlogin: (?:\S* )?\[([^\]]+)\] ([A-Za-z0-9_-]+)(?: \((.*)\)(?= \[SASL)| (\S+))?(?: (.*))?$", re.DOTALL
)
_CYRUS_REFUSED: Final = re.compile(rb"not allowed|not permitted|encryption|disabled", re.IGNORECASE)
_LOGFMT: Final = re.compile(rb'([a-z0-9._]+)=(?:"((?:[^"\\]|\\.)*)"|(\S*))')
_COURIER: Final = re.compile(rb"LOGIN( FAILED)?, (user|method)=(.*), ip=\[([^\]]*)\](.*)$", re.DOTALL)
_COURIER_END: Final = re.compile(rb"(?:LOGOUT|DISCONNECTED|TIMEOUT), (?:user=(.*), )?ip=\[([^\]]*)\](.*)$", re.DOTALL)
_COURIER_PORT: Final = re.compile(rb", port=\[(\d+)\]")
_COURIER_TLS: Final = re.compile(rb", s(?:tart)?tls=1\b")
_CYRUS_ID: Final = re.compile(rb"client id sessionid=<([^>]*)>: (.*)", re.DOTALL)
_CYRUS_SESSION: Final = re.compile(rb"SESSIONID=<([^>]*)>")
_CYRUS_PAIR: Final = re.compile(rb'"([^"]*)" (?:"([^"]*)"|NIL)')


class MailServers(Messages):
    """Messages of servers that give mail out."""

    # --- Dovecot 2.2 to 2.4

    def dovecot(self, at: float, rest: bytes, number: int) -> bool:
        """A line of one of its login processes or mail processes; whether it was one."""
        found = _DOVECOT.match(rest)
        if found is None:
            return False
        service, login, user, session, message = found.groups()
        if not login and user is None:
            return False  # Cyrus names its processes imap and pop3
        if not login:
            self._dovecot_mail(session, message)
            return True
        if message.startswith(b"ID sent: "):
            in_line = _SESSION.search(message)
            if in_line:
                self._named(b"D" + in_line[1], message[9:].partition(b": user=<")[0])
            return True
        reason = message.partition(b"user=<")[0]
        refused = _DOVECOT_REFUSED.search(reason)
        failed = _DOVECOT_FAILED.search(reason)
        entered = reason.startswith((b"Login: ", b"Logged in: ")) or b"tarted proxying to" in reason
        if not (entered or refused or failed):
            return True
        head, rip, rest_of_it = message[len(reason) :].rpartition(b", rip=")
        fields = _DOVECOT_USER.match(head)
        if fields is None:
            self.report.bad(number, "a login of Dovecot without its fields", rest)
            return True
        self.report.servers.add("Dovecot")
        user, method = fields.groups()
        rip, _, tail = rest_of_it.partition(b", ")
        in_line = _SESSION.search(tail)
        tls, version = _dovecot_tls(tail)
        # 2.3 counts LOGIN, USER and PASS that it refused for want of TLS as failed: no mechanism was begun then. With
        # ssl = required so are mechanisms: their user never becomes known
        turned_away = bool(refused) or (tls is Tls.NONE and not (method and user))
        result = LoginResult.SUCCEEDED if entered else LoginResult.REFUSED if turned_away else LoginResult.FAILED
        fact = LoginFact(
            at,
            _PROTOCOLS[service],
            plain_address(rip),
            plain_text(user),
            plain_text(method, 40).upper(),
            tls,
            result,
            "",
            version,
            "refused for want of TLS" if result is LoginResult.REFUSED else "",
            self.origin(number),
        )
        if entered and in_line:
            self.report.logins += 1
            key = b"D" + in_line[1]
            self.sessions.login(key, self.sessions.open.get(key, Open(tls)), fact)
            return True
        times = 1 if entered or refused or failed is None else max(1, min(int(failed[1]), MAX_ATTEMPTS))
        if result is LoginResult.REFUSED and not refused and service == b"pop3":
            self.count(fact._replace(sent=False))  # USER alone; a client that goes on with PASS is counted once more
            times -= 1
        self.count(fact, times)
        return True

    def _dovecot_mail(self, session: bytes | None, message: bytes) -> None:
        if not session:
            return
        if message.startswith(b"ID sent: "):
            self._named(b"D" + session, message[9:])
        elif message.startswith((b"Disconnected", b"Logged out", b"Connection closed")):
            self.sessions.end(b"D" + session)

    def _named(self, key: bytes, pairs: bytes) -> None:
        told = dict(p.partition("=")[::2] for p in plain_text(pairs, 1000).split(", "))
        name = f"{told.get('name', '')} {told.get('version', '')}".strip()[:200]
        if name and key in self.sessions.open:
            self.sessions.name(key, name)
        elif name:
            self.sessions.begin(key, Open(None, name))

    # --- Cyrus

    def cyrus(self, at: float, service: bytes, message: bytes, number: int) -> None:
        """`login:`, `badlogin:`, `client id` and the structured `event=login.…`."""
        protocol = _protocol(service)
        if protocol is None:
            return
        told = _CYRUS_ID.match(message)
        if told:
            name = _cyrus_client(told[2])
            if name:
                self.sessions.begin(b"C" + told[1], Open(None, name))
            return
        self.report.servers.add("Cyrus")
        always = service.endswith((b"imaps", b"pop3s"))
        start = message.find(b"event=login.")
        if start >= 0:
            self._cyrus_event(at, protocol, always, message[start:], number)
            return
        good = _CYRUS.match(message)
        if good:
            tls = (Tls.IMPLICIT if always else Tls.STARTTLS) if good[4] else Tls.NONE
            self.count(
                LoginFact(
                    at,
                    protocol,
                    plain_address(good[1]),
                    plain_text(good[2]),
                    _cyrus_mechanism(good[3]),
                    tls,
                    LoginResult.SUCCEEDED,
                    self._cyrus_told(message[good.end() :]),
                    origin=self.origin(number),
                )
            )
            return
        bad = _CYRUS_BAD.match(message)
        if bad is None:
            self.report.bad(number, "a login of Cyrus that cannot be read", message)
            return
        text = bad[5] or b""
        refused = bad[2] == b"plaintext" and _CYRUS_REFUSED.search(text) is not None
        tls_known = Tls.IMPLICIT if always else Tls.NONE if refused else None
        user = bad[3] if bad[3] is not None else bad[4] if bad[2] == b"plaintext" else b""
        user = b"" if user == b"-notset-" else user
        result = LoginResult.REFUSED if refused else LoginResult.FAILED
        self.count(
            LoginFact(
                at,
                protocol,
                plain_address(bad[1]),
                plain_text(user),
                _cyrus_mechanism(bad[2]),
                tls_known,
                result,
                text=plain_text(text) if refused else "",
                origin=self.origin(number),
            )
        )

    def _cyrus_told(self, tail: bytes) -> str:
        """What the client said of itself before it logged in; nothing is to be remembered of it any more."""
        found = _CYRUS_SESSION.search(tail)
        state = self.sessions.open.pop(b"C" + found[1], None) if found else None
        return state.client if state else ""

    def _cyrus_event(self, at: float, protocol: Protocol, always: bool, message: bytes, number: int) -> None:
        told = {k: v if v else w for k, v, w in _LOGFMT.findall(message)}
        host = BRACKETED.search(told.get(b"r.clienthost", b""))
        if b"r.clienthost" not in told:
            self.report.bad(number, "a login of Cyrus without its client", message)
            return
        word = told.get(b"login.tls")
        tls = None if word is None else Tls.NONE if word == b"0" else Tls.IMPLICIT if always else Tls.STARTTLS
        good = told[b"event"] == b"login.good"
        if tls is None and always:
            tls = Tls.IMPLICIT
        self.count(
            LoginFact(
                at,
                protocol,
                plain_address(host[1] if host else told[b"r.clienthost"]),
                plain_text(told.get(b"u.username")),
                _cyrus_mechanism(told.get(b"login.mech", b"")),
                tls,
                LoginResult.SUCCEEDED if good else LoginResult.FAILED,
                origin=self.origin(number),
            )
        )

    # --- Courier

    def courier(self, at: float, service: bytes, message: bytes, number: int) -> None:
        """`LOGIN, user=…`, `LOGIN FAILED, …`, and what ends a session, which alone tells of STARTTLS."""
        ended = _COURIER_END.match(message)
        if ended:
            self._courier_end(service, *ended.groups())
            return
        found = _COURIER.match(message)
        protocol = _protocol(service)
        if found is None or protocol is None:
            self.report.bad(number, "a login of Courier that cannot be read", message)
            return
        self.report.servers.add("Courier")
        failed, what, value, ip, tail = found.groups()
        tls = Tls.IMPLICIT if service.endswith(b"-ssl") else Tls.STARTTLS if _COURIER_TLS.search(tail) else None
        fact = LoginFact(
            at,
            protocol,
            plain_address(ip),
            plain_text(value) if what == b"user" else "",
            plain_text(value, 40).upper() if what == b"method" else "",
            tls,
            LoginResult.FAILED if failed else LoginResult.SUCCEEDED,
            origin=self.origin(number),
        )
        if failed or tls is not None:
            self.count(fact)
            return
        self.report.logins += 1
        self.sessions.begin(_courier_key(service, value, ip, tail), Open(None, "", fact))

    def _courier_end(self, service: bytes, user: bytes | None, ip: bytes, tail: bytes) -> None:
        if user is None:
            return  # nobody had logged in
        key = _courier_key(service, user, ip, tail)
        self.sessions.settle(key, Tls.STARTTLS if _COURIER_TLS.search(tail) else Tls.NONE)


def _courier_key(service: bytes, user: bytes, ip: bytes, tail: bytes) -> bytes:
    """A session: its address and port, or its user where an old Courier does not log the port."""
    port = _COURIER_PORT.match(tail)
    return b"K%b %b %b" % (service, ip, port[1] if port else b"user " + user)


def _cyrus_client(pairs: bytes) -> str:
    told = {k.lower(): v for k, v in _CYRUS_PAIR.findall(pairs[:2000])}
    return plain_text(b"%b %b" % (told.get(b"name", b""), told.get(b"version", b"")), 200).strip()


def _dovecot_tls(tail: bytes) -> tuple[Tls, str]:
    for word in tail.split(b", "):
        if word.startswith((b"TLS", b"SSLv")):
            version = word.split(b" ")[0].partition(b":")[0]
            return Tls.IMPLICIT, plain_text(version) if b"v" in version else ""
        if word == b"secured":
            return Tls.IMPLICIT, "secured"  # the same host, or a proxy that Dovecot was told to believe
    return Tls.NONE, ""


def _protocol(service: bytes) -> Protocol | None:
    """By the name of a process."""
    for word, protocol in ((b"imap", Protocol.IMAP4), (b"pop3", Protocol.POP3), (b"sieve", Protocol.SIEVE)):
        if word in service:
            return protocol
    return None


def _cyrus_mechanism(name: bytes) -> str:
    return "LOGIN command" if name.lower() == b"plaintext" else plain_text(name, 40).upper()
