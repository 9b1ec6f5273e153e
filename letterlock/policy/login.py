"""Whether a login may go on, before any password is looked at, and what may be offered.

One pure function, `decide`, serves the listeners, the capability lists (`offered` is defined through it), the
analysis of logs ("what if SecureLogin had been on?") and the analyzer. Its rules:

1. A mechanism that is switched off is refused on every channel.
2. On a channel protected by TLS every mechanism that is on is allowed, whatever LoginType says.
3. On a clear channel LoginType decides: PlainTextLogin allows all; PlainTextAuthentication allows only mechanisms
   that do not show the password; SecureLogin allows none.
4. Loopback is not secure by itself, and a proxy's word counts only when its address was listed (`trusted_hop`).

Exchange refuses with BAD; RFC 3501 §6.2.3 and RFC 5530 §3 ask for NO [PRIVACYREQUIRED], so that is what we send.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

from letterlock.base.values import LoginType, Protocol, Tls


class Channel(NamedTuple):
    """What is known about the way to the peer. Never folded into one 'secure'."""

    tls: Tls = Tls.NONE
    version: str = ""  # "TLSv1.3"; empty without TLS
    cipher: str = ""
    peer: str = ""  # the client's address, without port
    peer_port: int = 0
    local: str = ""  # our address
    local_port: int = 0
    trusted_hop: bool = False  # a proxy that we were told to believe
    client_tls: bool | None = None  # what that proxy says of its client; None: nothing

    @property
    def protected(self) -> bool:
        """Credentials sent now cannot be read on the wire between the client and the first hop we believe."""
        if self.trusted_hop and self.client_tls is not None:
            return self.client_tls
        return self.tls is not Tls.NONE


class Mechanism(NamedTuple):
    """A way to log in. `clear`: the password itself is on the wire."""

    name: bytes
    clear: bool


# The protocols' own commands count as mechanisms: IMAP LOGIN (RFC 3501 §6.2.3), POP3 USER/PASS (RFC 1939 §7).
LOGIN_COMMAND: Final = Mechanism(b"LOGIN command", clear=True)
USER_PASS: Final = Mechanism(b"USER", clear=True)
PLAIN: Final = Mechanism(b"PLAIN", clear=True)  # RFC 4616
LOGIN: Final = Mechanism(b"LOGIN", clear=True)  # draft-murchison-sasl-login


class LoginAttempt(NamedTuple):
    """Plain facts of one try, live or from a log."""

    protocol: Protocol
    channel: Channel
    mechanism: Mechanism
    user: str = ""


class LoginRules(NamedTuple):
    """What one service enforces."""

    login_type: LoginType
    mechanisms: tuple[Mechanism, ...] = (LOGIN_COMMAND, USER_PASS, PLAIN, LOGIN)


class Reason(enum.Enum):
    """Why; the value is the sentence for a person."""

    PROTECTED = "The channel is protected by TLS."
    CLEAR_ALLOWED = "LoginType allows this login without TLS."
    MECHANISM_OFF = "This login mechanism is not available here."
    TLS_REQUIRED = (
        "Clear-text login is not allowed on this connection: switch your mail program to SSL/TLS or STARTTLS."
    )


class Decision(NamedTuple):
    """The answer. `would_refuse_under` names the weakest stricter LoginType that would refuse what is allowed now."""

    allowed: bool
    reason: Reason
    would_refuse_under: LoginType | None = None


def _allows(login_type: LoginType, mechanism: Mechanism) -> bool:
    """Whether `login_type` allows `mechanism` on a clear channel (reference table of LoginType)."""
    if login_type is LoginType.PlainTextLogin:
        return True
    return login_type is LoginType.PlainTextAuthentication and not mechanism.clear


_STRICTER: Final = (LoginType.PlainTextLogin, LoginType.PlainTextAuthentication, LoginType.SecureLogin)


def decide(attempt: LoginAttempt, rules: LoginRules) -> Decision:
    """Decide on `attempt` under `rules`; pure, and independent of whether the password is right."""
    if attempt.mechanism not in rules.mechanisms:
        return Decision(False, Reason.MECHANISM_OFF)
    if attempt.channel.protected:
        return Decision(True, Reason.PROTECTED)
    if not _allows(rules.login_type, attempt.mechanism):
        return Decision(False, Reason.TLS_REQUIRED)
    stricter = next(t for t in _STRICTER if t.value > rules.login_type.value and not _allows(t, attempt.mechanism))
    return Decision(True, Reason.CLEAR_ALLOWED, stricter)


def offered(protocol: Protocol, channel: Channel, rules: LoginRules) -> tuple[Mechanism, ...]:
    """The mechanisms that `decide` would let through here: what CAPABILITY, CAPA and EHLO may list."""
    return tuple(m for m in rules.mechanisms if decide(LoginAttempt(protocol, channel, m), rules).allowed)
