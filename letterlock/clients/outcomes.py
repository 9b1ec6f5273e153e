"""Everything that can come of talking to a mail server, each with its stage, its own sentence and what to do about it.

`Outcome` is the closed list; docs/connectivity.md shows it (a test compares). `Failed` is raised by the clients of this
room and by the probes, and carries one of them. What the server said is quoted in the text, made printable and cut.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from letterlock.base.errors import Refused

MAX_QUOTED: Final = 200  # characters of a server's answer that are shown


class Stage(enum.Enum):
    """How far the dialogue had come."""

    CONNECT = "Connect"
    GREETING = "Greeting"
    TLS = "TLS"
    CAPABILITY = "Capability"
    LOGIN = "Log-on"
    MAILBOX = "Mailbox"
    ROUND_TRIP = "Round trip"
    DIALOGUE = "Any"


class Outcome(enum.Enum):
    """One kind of failure; the value is its word in objects and JSON, and never changes its meaning."""

    NAME_NOT_FOUND = "NameNotFound"
    NAME_SERVER_FAILED = "NameServerFailed"
    CONNECTION_REFUSED = "ConnectionRefused"
    CONNECT_TIMED_OUT = "ConnectTimedOut"
    UNREACHABLE = "Unreachable"
    NO_GREETING = "NoGreeting"
    CLOSED_AT_ONCE = "ClosedAtOnce"
    TLS_ON_CLEAR_PORT = "TlsOnClearPort"
    CLEAR_ON_TLS_PORT = "ClearTextOnTlsPort"
    FOREIGN_GREETING = "ForeignGreeting"
    SERVER_BUSY = "ServerBusy"
    PRE_AUTHENTICATED = "PreAuthenticated"
    STARTTLS_NOT_OFFERED = "StartTlsNotOffered"
    STARTTLS_REFUSED = "StartTlsRefused"
    RESPONSE_INJECTION = "ResponseInjection"
    TLS_VERSION = "TlsVersion"
    TLS_NO_CIPHER = "TlsNoSharedCipher"
    TLS_ALERT = "TlsAlert"
    TLS_CLOSED = "TlsClosed"
    TLS_GARBAGE = "TlsGarbage"
    TLS_TIMED_OUT = "TlsTimedOut"
    CERTIFICATE_NAME = "CertificateName"
    CERTIFICATE_EXPIRED = "CertificateExpired"
    CERTIFICATE_NOT_YET_VALID = "CertificateNotYetValid"
    CERTIFICATE_SELF_SIGNED = "CertificateSelfSigned"
    CERTIFICATE_UNTRUSTED = "CertificateUntrusted"
    CERTIFICATE_REVOKED = "CertificateRevoked"
    CERTIFICATE_WEAK = "CertificateWeak"
    CERTIFICATE_INVALID = "CertificateInvalid"
    LOGIN_DISABLED_OVER_TLS = "LoginDisabledOverTls"
    NO_MECHANISM = "NoMechanism"
    POLICY_REFUSED = "PolicyRefused"
    BAD_CREDENTIALS = "BadCredentials"
    PROTOCOL_DISABLED = "ProtocolDisabled"
    PASSWORD_EXPIRED = "PasswordExpired"  # noqa: S105 - the name of an outcome
    LIMIT_REACHED = "LimitReached"
    BACK_END_DOWN = "BackEndDown"
    MAILBOX_IN_USE = "MailboxInUse"
    LOGIN_FAILED = "LoginFailed"
    SELECT_FAILED = "SelectFailed"
    SEND_FAILED = "SendFailed"
    MESSAGE_NOT_SEEN = "MessageNotSeen"
    DELETE_FAILED = "DeleteFailed"
    CONNECTION_LOST = "ConnectionLost"
    ANSWER_TIMED_OUT = "AnswerTimedOut"
    TOO_MUCH = "TooMuch"
    NOT_UNDERSTOOD = "NotUnderstood"
    TIMED_OUT = "TimedOut"


class Meaning(NamedTuple):
    """What a person reads: the stage, the sentence without full stop, what to do."""

    stage: Stage
    sentence: str
    advice: str


_C, _G, _T, _L = Stage.CONNECT, Stage.GREETING, Stage.TLS, Stage.LOGIN
MEANING: Final[dict[Outcome, Meaning]] = {
    Outcome.NAME_NOT_FOUND: Meaning(
        _C, "The server's name was not found", "Check the spelling, and its A and AAAA entries in DNS."
    ),
    Outcome.NAME_SERVER_FAILED: Meaning(
        _C, "The name servers gave no answer", "Check this machine's DNS servers and network."
    ),
    Outcome.CONNECTION_REFUSED: Meaning(
        _C,
        "The connection was refused: nothing listens there, or a firewall rejects it",
        "Check that the service runs, and the port.",
    ),
    Outcome.CONNECT_TIMED_OUT: Meaning(
        _C,
        "The connection timed out: nothing answers at that address",
        "Check that the machine is up, and that no firewall drops the port.",
    ),
    Outcome.UNREACHABLE: Meaning(
        _C,
        "There is no way to that address from here",
        "Check the route; an IPv6 address needs IPv6 on both sides.",
    ),
    Outcome.NO_GREETING: Meaning(
        _G, "The server took the connection but sent no greeting in time", "It may be overloaded, or another service."
    ),
    Outcome.CLOSED_AT_ONCE: Meaning(
        _G,
        "The server closed the connection before its greeting",
        "It may refuse this address, or have reached a limit of connections; its log says why.",
    ),
    Outcome.TLS_ON_CLEAR_PORT: Meaning(
        _G, "This port speaks TLS from the first byte", "Use -ConnectionType Ssl for it, or the clear port."
    ),
    Outcome.CLEAR_ON_TLS_PORT: Meaning(
        _G, "This port greets in clear text; it does not speak TLS from the first byte", "Use -ConnectionType Tls."
    ),
    Outcome.FOREIGN_GREETING: Meaning(_G, "Another protocol answers on this port", "Check the port."),
    Outcome.SERVER_BUSY: Meaning(
        _G, "The server turned the connection away in its greeting", "Try again later, or raise its connection limits."
    ),
    Outcome.PRE_AUTHENTICATED: Meaning(
        _G,
        "The server says that the connection is logged on already (PREAUTH)",
        "A log-on cannot be tested, and on a clear port TLS cannot be started any more: somebody may be in between.",
    ),
    Outcome.STARTTLS_NOT_OFFERED: Meaning(
        _T,
        "The server does not offer TLS on this port",
        "Install a certificate there or use the always-TLS port; when it should be offered, somebody may strip it.",
    ),
    Outcome.STARTTLS_REFUSED: Meaning(_T, "The server offers TLS and refused to start it", "Its log says why."),
    Outcome.RESPONSE_INJECTION: Meaning(
        _T,
        "The server sent data in clear after its agreement to start TLS",
        "Somebody in between may be injecting answers; nothing of it was believed.",
    ),
    Outcome.TLS_VERSION: Meaning(
        _T, "No common TLS version: this test speaks TLS 1.2 and 1.3", "Enable TLS 1.2 or newer on the server."
    ),
    Outcome.TLS_NO_CIPHER: Meaning(
        _T, "No common TLS cipher suite", "Enable forward-secret AES-GCM or ChaCha20 suites on the server."
    ),
    Outcome.TLS_ALERT: Meaning(_T, "The server broke off the TLS handshake", "Its log says why."),
    Outcome.TLS_CLOSED: Meaning(
        _T,
        "The server closed the connection during the TLS handshake",
        "Often it has no usable certificate, or a middle box blocks TLS.",
    ),
    Outcome.TLS_GARBAGE: Meaning(
        _T, "What the server sent in the TLS handshake is not TLS", "Check the port and what stands in between."
    ),
    Outcome.TLS_TIMED_OUT: Meaning(
        _T, "The TLS handshake did not finish in time", "The port may not speak TLS, or the server is overloaded."
    ),
    Outcome.CERTIFICATE_NAME: Meaning(
        _T,
        "The certificate is for another name",
        "Connect by a name that it has, or install one for this name (X509CertificateName).",
    ),
    Outcome.CERTIFICATE_EXPIRED: Meaning(_T, "The certificate has expired", "Renew it."),
    Outcome.CERTIFICATE_NOT_YET_VALID: Meaning(
        _T, "The certificate is not valid yet", "Check the clocks of both machines."
    ),
    Outcome.CERTIFICATE_SELF_SIGNED: Meaning(
        _T,
        "The certificate is self-signed and not trusted here",
        "Install one from an authority, or trust it on the clients.",
    ),
    Outcome.CERTIFICATE_UNTRUSTED: Meaning(
        _T,
        "The certificate's issuer is not trusted here",
        "Make the server send the intermediate certificates, or trust its authority.",
    ),
    Outcome.CERTIFICATE_REVOKED: Meaning(_T, "The certificate was revoked by its issuer", "Replace it."),
    Outcome.CERTIFICATE_WEAK: Meaning(
        _T, "The certificate's key or signature is too weak", "Use RSA 2048 or ECDSA P-256, signed with SHA-256."
    ),
    Outcome.CERTIFICATE_INVALID: Meaning(_T, "The certificate cannot be used for this", "Replace it."),
    Outcome.LOGIN_DISABLED_OVER_TLS: Meaning(
        Stage.CAPABILITY,
        "The server says LOGINDISABLED although TLS is in use, and offers no mechanism this test speaks",
        "Enable password log-on over TLS, or modern authentication is required there.",
    ),
    Outcome.NO_MECHANISM: Meaning(
        Stage.CAPABILITY,
        "The server offers no log-on mechanism that this test speaks (PLAIN, LOGIN, LOGIN command, USER and PASS)",
        "Without TLS: use -ConnectionType Ssl or Tls.",
    ),
    Outcome.POLICY_REFUSED: Meaning(
        _L,
        "The log-on was refused by policy: the server takes no clear-text log-on on this connection",
        "Use -ConnectionType Ssl or Tls; on the server, LoginType decides.",
    ),
    Outcome.BAD_CREDENTIALS: Meaning(
        _L, "The user name or the password is wrong", "Check both; some servers want the full address."
    ),
    Outcome.PROTOCOL_DISABLED: Meaning(
        _L,
        "The mailbox is not allowed to use this protocol",
        "Switch it on: Set-CASMailbox with -ImapEnabled or -PopEnabled $true.",
    ),
    Outcome.PASSWORD_EXPIRED: Meaning(_L, "The password or the account has expired", "Set a new password."),
    Outcome.LIMIT_REACHED: Meaning(
        _L,
        "A limit of connections was reached",
        "Close some, or raise MaxConnectionsPerUser, MaxConnectionFromSingleIP or MaxConnections.",
    ),
    Outcome.BACK_END_DOWN: Meaning(
        _L,
        "The mailbox service behind the server is not available",
        "Start the back-end service (Get-Service shows it); otherwise try again later.",
    ),
    Outcome.MAILBOX_IN_USE: Meaning(_L, "Another session has the mailbox open", "Try again when it has ended."),
    Outcome.LOGIN_FAILED: Meaning(_L, "The log-on was refused", "The server's log says why."),
    Outcome.SELECT_FAILED: Meaning(
        Stage.MAILBOX, "Logged on, but the mailbox could not be opened", "Check the mailbox and its protocol switch."
    ),
    Outcome.SEND_FAILED: Meaning(Stage.ROUND_TRIP, "The test message could not be sent", "Check what the server said."),
    Outcome.MESSAGE_NOT_SEEN: Meaning(
        Stage.ROUND_TRIP, "The test message did not arrive in time", "Check the mail queues and rules of the mailbox."
    ),
    Outcome.DELETE_FAILED: Meaning(
        Stage.ROUND_TRIP, "The test message could not be deleted", "Delete it by hand; its subject tells it."
    ),
    Outcome.CONNECTION_LOST: Meaning(
        Stage.DIALOGUE, "The server closed the connection in the middle of the dialogue", "Its log says why."
    ),
    Outcome.ANSWER_TIMED_OUT: Meaning(
        Stage.DIALOGUE, "The server did not answer in time", "It may be overloaded or hang."
    ),
    Outcome.TOO_MUCH: Meaning(
        Stage.DIALOGUE, "The server's answer is longer than any sensible one, and was cut off", "Check what it is."
    ),
    Outcome.NOT_UNDERSTOOD: Meaning(
        Stage.DIALOGUE, "The server's answer does not follow its protocol", "Check what listens there."
    ),
    Outcome.TIMED_OUT: Meaning(
        Stage.DIALOGUE, "The whole test took longer than -Timeout allows", "Raise -Timeout, or find the slow step."
    ),
}


def quoted(data: bytes | str) -> str:
    """A server's words, printable, on one line, cut, in quotation marks."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text[: MAX_QUOTED + 1])
    return f'"{text[:MAX_QUOTED]}…"' if len(text) > MAX_QUOTED else f'"{text}"'


class Failed(Refused):
    """The dialogue cannot go on. `outcome` tells the kind; `text` is for a person; `answer` is what the server said."""

    def __init__(self, outcome: Outcome, detail: str = "", answer: bytes = b"") -> None:
        meaning = MEANING[outcome]
        said = f"the server said {quoted(answer)}" if answer else ""
        details = ", ".join(part for part in (detail, said) if part)
        super().__init__(f"{meaning.sentence}{': ' if details else ''}{details}. {meaning.advice}")
        self.outcome = outcome
        self.detail = detail
        self.answer = answer

    @property
    def stage(self) -> Stage:
        """How far the dialogue had come."""
        return MEANING[self.outcome].stage
