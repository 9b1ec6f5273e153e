"""Exchange's POP3 and IMAP4 protocol logs, front and back end, and our own, which have the same columns.

The columns are those of the `#Fields` line, or the usual ones where a file begins in the middle. One split a line; of
most lines only the command is looked at. How a login's channel is known, first that applies:

1. Our own logs say it in the login's row: `Tls=none`, `Tls=starttls:TLSv1.3`, …
2. The server's port: always TLS, back end, or clear with STARTTLS (`Ports`).
3. On a clear port, an earlier `starttls` or `stls` of the same session that succeeded.
4. A session whose first row here is not its beginning (sequence number above 1) is looked up in the earlier file; where
   there is none, its channel is unknown.

Back-end rows repeat what the front end logged, with the front end's address: they are counted and left out.
"""

from __future__ import annotations

import csv
import datetime
import re
from typing import Final, NamedTuple

from letterlock.analyze.logs_lines import FileReport
from letterlock.analyze.logs_tally import Open, Sessions, Slot
from letterlock.base.facts import LoginFact, LoginResult, Origin
from letterlock.base.values import Protocol, Tls

FIELDS: Final = (
    "datetime", "sessionid", "seqnumber", "sip", "cip", "user", "duration", "rqsize", "rpsize", "command",
    "parameters", "context", "puid",
)  # fmt: skip
NEEDED: Final = ("datetime", "sessionid", "seqnumber", "sip", "cip", "user", "command", "parameters", "context")
FIRST_ROW: Final = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z?,[0-9A-Fa-f]{8,16},\d+,[^,]*,[^,]*,")
MAX_TEXT: Final = 300
MAX_VERBS: Final = 300
MAX_ALIKE: Final = 20_000  # remembered logins, some 500 octets each

SKIP, OPEN, CLOSE, STARTTLS, LOGIN, USER, ID = range(7)
_VERBS: Final = {
    b"OpenSession": OPEN, b"CloseSession": CLOSE, b"starttls": STARTTLS, b"stls": STARTTLS, b"login": LOGIN,
    b"authenticate": LOGIN, b"pass": LOGIN, b"auth": LOGIN, b"apop": LOGIN, b"user": USER, b"id": ID,
}  # fmt: skip
_POP: Final = frozenset((b"pass", b"auth", b"apop", b"user", b"stls"))
_RESULT: Final = re.compile(r'(?:^|;)R=(?:"([^"]*)"?|([^;]*))')
_ERROR: Final = re.compile(r"(?:^|;)ErrMsg=([^;]*)")
_NAMED_USER: Final = re.compile(r"User: ([^\";,]+)")
_TLS: Final = re.compile(r"(?:^|;)Tls=([a-z]+)(?::([A-Za-z0-9.]+))?")
# What servers answer to a login that needs TLS: ours (RFC 5530), and Exchange's two
_WANTS_TLS: Final = re.compile(
    r"PRIVACYREQUIRED|LOGINDISABLED|clear-?text|plain-?text|invalid state|not valid in this state", re.IGNORECASE
)
_PAIR: Final = re.compile(r'"((?:[^"\\]|\\.){0,100})" (?:"((?:[^"\\]|\\.){0,300})"|NIL)', re.IGNORECASE)


class Ports(NamedTuple):
    """What the server's ports mean; with those of a data directory made with --port-offset 10000."""

    implicit: frozenset[int] = frozenset((993, 995, 10993, 10995))
    clear: frozenset[int] = frozenset((143, 110, 10143, 10110))
    back: frozenset[int] = frozenset((1993, 1995, 11993, 11995))

    def state(self, port: int) -> Open | None:
        """How a session on this port begins; None: a back end's."""
        if port in self.back:
            return None
        if port in self.implicit:
            return _ALWAYS
        return _CLEAR if port in self.clear else _UNKNOWN


_ALWAYS: Final = Open(Tls.IMPLICIT)
_CLEAR: Final = Open(Tls.NONE)
_UNKNOWN: Final = Open(None)
_UPGRADED: Final = Open(Tls.STARTTLS)


def columns(header: bytes) -> tuple[int, ...] | str:
    """Where the needed columns are in a `#Fields` line; a sentence where one is missing."""
    text = header.partition(b":")[2].decode("latin-1")
    names = [n.strip().lower().replace("-", "") for n in text.split(",")]
    if "event" in names and "data" in names:
        return "these are the columns of an SMTP protocol log, not of a POP3 or IMAP4 one"
    missing = [n for n in NEEDED if n not in names and n not in ("user", "context", "parameters")]
    if missing:
        return f"the #Fields line lacks {', '.join(missing)}"
    return tuple(names.index(n) if n in names else -1 for n in NEEDED)


def client_name(parameters: str) -> str:
    """What the ID command told (RFC 2971): name and version, or what there is."""
    pairs = {k.lower(): (v or "").strip() for k, v in _PAIR.findall(parameters)}
    name = pairs.get("name") or pairs.get("vendor") or pairs.get("os") or ""
    version = pairs.get("version", "") if pairs.get("name") else ""
    return f"{name} {version}".strip()[:200]


def address(endpoint: bytes) -> str:
    """Without port and brackets; an IPv4 address in IPv6 form as IPv4."""
    host = endpoint.rpartition(b":")[0] or endpoint
    text = host.strip(b"[]").decode("latin-1")
    return text[7:] if text.lower().startswith("::ffff:") else text


class ExchangeReader:
    """Reads one file; what its sessions leave open is in `sessions`."""

    def __init__(self, report: FileReport, sessions: Sessions, ports: Ports) -> None:
        self.report = report
        self.sessions = sessions
        self.ports = ports
        self.back_rows = 0
        self.unknown_ports: set[int] = set()
        self._at: tuple[int, ...] = tuple(FIELDS.index(n) for n in NEEDED)
        self._usual = True  # the columns that the fast way expects
        self._unfit = ""  # why the rows below the present header cannot be read
        self._kinds: dict[bytes, int] = dict(_VERBS)
        self._states: dict[bytes, Open | None] = {}
        self._alike: dict[tuple[bytes, ...], Slot] = {}
        self._minutes: dict[bytes, float] = {}

    def read(self, first: int, lines: list[bytes]) -> None:
        """Take lines; `first` is the number of the first."""
        kinds, row, odd = self._kinds, self._noted, self._odd
        if not self._usual:
            for number, line in enumerate(lines, first):
                odd(number, line)
            return
        for number, line in enumerate(lines, first):
            parts = line.split(b",", 10)
            try:
                kind = kinds[parts[9]]
            except (KeyError, IndexError):
                odd(number, line)
                if not self._usual:
                    self.read(number + 1, lines[number + 1 - first :])
                    return
                continue
            if b'"' <= parts[5] < b"#":  # a user name in quotes may hold commas, and forge columns
                odd(number, line)
            elif kind:
                row(kind, number, parts)

    # --- lines that are not the usual row

    def _odd(self, number: int, line: bytes) -> None:
        """Headers, rows with quotes before the command, rows with other columns, and what is no row at all."""
        line = line.rstrip(b"\r")
        if not line:
            return
        if line.startswith(b"#"):
            self._header(number, line)
            return
        if self._unfit:
            self.report.bad(number, self._unfit)
            return
        if b"\x00" in line or b"," not in line or (self._at[0] == 0 and not line[:4].isdigit()):
            self.report.bad(number, "not a row of a protocol log", line)
            return
        values = next(csv.reader([line.decode("latin-1").replace("\r", " ")]), [])
        if len(values) <= max(self._at[:5]) or len(values) <= self._at[6]:
            self.report.bad(number, "cut off, or not a row of a protocol log", line)
            return
        picked = [values[i].encode("latin-1") if 0 <= i < len(values) else b"" for i in self._at]
        verb = picked[6]
        kind = self._kinds.get(verb)
        if kind is None:
            kind = next((k for v, k in _VERBS.items() if v.lower() == verb.lower()), SKIP)
            if not re.fullmatch(rb"(?:[A-Za-z][A-Za-z0-9 _.-]{0,39})?", verb):
                self.report.bad(number, "not a command of a protocol log", line)
                return
            if self._usual and len(self._kinds) < MAX_VERBS:
                self._kinds[verb] = kind
        if kind:
            before = [*picked[:6], b"", b"", b"", verb]
            self._noted(kind, number, [*before, _quoted(picked[7]) + b"," + _quoted(picked[8])])

    def _header(self, number: int, line: bytes) -> None:
        lower = line.lower()
        if lower.startswith(b"#software:") and b"letterlock" in lower:
            self.report.format = "Letterlock"
        if not lower.startswith(b"#fields:"):
            return
        found = columns(line)
        if isinstance(found, str):
            self._unfit = found
            self._usual = False
            return
        self._unfit = ""
        self._at = found
        self._usual = found == tuple(FIELDS.index(n) for n in NEEDED)

    # --- rows that matter

    def _clock(self, stamp: bytes) -> float | None:
        """Seconds since 1970; the minute is worked out once."""
        minute = stamp[:17]  # "2026-03-02T08:15:"
        base = self._minutes.get(minute)
        if base is None or not stamp.endswith(b"Z"):
            at = time_of(stamp)
            begin = time_of(minute + b"00Z")
            if begin is not None and len(self._minutes) < 5000:
                self._minutes[minute] = begin
            return at
        try:
            seconds = float(stamp[17:-1])
        except ValueError:
            return None
        return base + seconds if 0 <= seconds < 61 else None

    def _noted(self, kind: int, number: int, parts: list[bytes]) -> None:
        local = parts[3]
        try:
            state = self._states[local]
        except KeyError:
            state = self._learn(local)
        if state is None:
            self.back_rows += kind == LOGIN
            return
        key = parts[1] + parts[4]
        if kind == OPEN:
            if state is not _ALWAYS:
                self.sessions.begin(key, state)
        elif kind == CLOSE:
            self.sessions.end(key)
        elif kind == STARTTLS:
            self._upgraded(key, parts[10])
        elif kind == ID:
            if state is not _ALWAYS:
                self.sessions.name(key, client_name(_parameters(parts[10])[0]))
        else:
            self._login(kind, number, parts, state, key)

    def _learn(self, local: bytes) -> Open | None:
        text = local.rpartition(b":")[2]
        port = int(text) if text.isdigit() and len(text) < 6 else 0
        state = self.ports.state(port)
        if state is _UNKNOWN:
            self.unknown_ports.add(port)
        if len(self._states) < 10_000:
            self._states[local] = state
        return state

    def _upgraded(self, key: bytes, rest: bytes) -> None:
        _, context = _parameters(rest)
        if _result(context)[0] is LoginResult.SUCCEEDED and "discarded" not in context:
            old = self.sessions.open.get(key)
            self.sessions.begin(key, _UPGRADED if old is None or not old.client else Open(Tls.STARTTLS, old.client))

    def _login(self, kind: int, number: int, parts: list[bytes], state: Open, key: bytes) -> None:
        at = self._clock(parts[0])
        if at is None:
            self.report.bad(number, "the time cannot be read", parts[0])
            return
        alike = (parts[4].rpartition(b":")[0], parts[5], parts[9], parts[10]) if state is _ALWAYS else None
        slot = self._alike.get(alike) if alike else None
        if slot is not None:  # most logins repeat one of the same client; nothing has to be followed under TLS
            self.report.logins += 1
            self.sessions.tally.again(slot, at)
            return
        parameters, context = _parameters(parts[10])
        result, text = _result(context)
        verb = parts[9].lower()
        known = state if state is _ALWAYS else self.sessions.open.get(key)
        early = known is None
        if known is None:
            # only row 0 was missed: nothing can have happened in it
            known, early = (state, False) if parts[2] in (b"0", b"1") else (_UNKNOWN, True)
        told = _TLS.search(context)
        version = ""
        tls = known.tls
        if told:
            tls, version, early = _word(told[1]), told[2] or "", False
        if result is LoginResult.FAILED and tls is not Tls.IMPLICIT and _WANTS_TLS.search(text):
            result = LoginResult.REFUSED
            if "PRIVACYREQUIRED" in text:  # only said where there is no TLS (RFC 5530 §3)
                tls, early = Tls.NONE, False
        if kind == USER and result is not LoginResult.REFUSED:
            return  # PASS is the login
        user = parts[5].decode("utf-8", "replace") or _user(verb, parameters, context)
        fact = LoginFact(
            at,
            Protocol.POP3 if verb in _POP else Protocol.IMAP4,
            address(parts[4]),
            user[:256],
            _mechanism(verb, parameters),
            tls,
            result,
            known.client,
            version,
            text if result is LoginResult.REFUSED else "",
            Origin(self.report.name, number),
            kind != USER and (result is not LoginResult.REFUSED or _was_sent(verb, parts, parameters, text)),
        )
        self.report.logins += 1
        if early:
            self.sessions.undecided(key, fact)
        elif alike is not None:
            slot = self.sessions.tally.add(fact)
            if slot is not None and result is LoginResult.SUCCEEDED and len(self._alike) < MAX_ALIKE:
                self._alike[alike] = slot
        else:
            self.sessions.login(key, known, fact)


def _quoted(value: bytes) -> bytes:
    return b'"' + value.replace(b'"', b'""') + b'"'


def _parameters(rest: bytes) -> tuple[str, str]:
    """Parameters and context of a row."""
    text = rest.rstrip(b"\r").decode("utf-8", "replace")
    if '"' not in text:
        parameters, _, after = text.partition(",")
        return parameters, after.partition(",")[0]
    values = next(csv.reader([text.replace("\r", " ").replace("\n", " ")]), [])
    return (values[0] if values else ""), (values[1] if len(values) > 1 else "")


def _result(context: str) -> tuple[LoginResult, str]:
    """How it ended, and the response line as far as it is logged."""
    found = _RESULT.search(context)
    if found:
        text = (found[1] if found[1] is not None else found[2] or "").strip()
        if text.lower() == "ok" or re.match(r"(?:\S+ OK|\+OK)\b", text):
            return LoginResult.SUCCEEDED, ""
        return LoginResult.FAILED, text[:MAX_TEXT]
    failed = _ERROR.search(context)
    if failed:
        return LoginResult.FAILED, failed[1][:MAX_TEXT]
    return (LoginResult.SUCCEEDED if "ProxySuccess" in context else LoginResult.UNKNOWN), ""


def _word(word: str) -> Tls:
    """`Tls=` of our own rows."""
    return {"none": Tls.NONE, "starttls": Tls.STARTTLS}.get(word, Tls.IMPLICIT)


def _mechanism(verb: bytes, parameters: str) -> str:
    if verb == b"login":
        return "LOGIN command"
    if verb in (b"pass", b"user"):
        return "USER"
    if verb == b"apop":
        return "APOP"
    name = parameters.partition(" ")[0].upper()
    return name[:40] if re.fullmatch(r"[A-Z0-9_-]+", name) else ""


def _user(verb: bytes, parameters: str, context: str) -> str:
    found = _NAMED_USER.search(context)
    if found:
        return found[1].strip()
    words = parameters.split(" ")
    if verb == b"login" or verb == b"user":
        return "" if words[0].startswith("*****") else words[0]
    return words[1] if len(words) > 2 else ""


def _was_sent(verb: bytes, parts: list[bytes], parameters: str, text: str) -> bool:
    """Whether a refused login had sent its credentials: not where AUTHENTICATE came without an initial response."""
    if verb not in (b"authenticate", b"auth") or parameters.endswith("*****"):
        return True
    if not parts[7].isdigit():
        return True
    tag = text.partition(" ")[0] if verb == b"authenticate" else ""
    bare = len(tag) + bool(tag) + len(verb) + 1 + len(parameters.partition(" ")[0])
    return int(parts[7]) > bare


def time_of(stamp: bytes) -> float | None:
    """Seconds since 1970; UTC where no zone is given."""
    try:
        at = datetime.datetime.fromisoformat(stamp.decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=datetime.UTC)
    try:
        return at.timestamp()
    except (OverflowError, ValueError):
        return None
