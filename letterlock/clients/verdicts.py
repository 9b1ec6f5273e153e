"""What a refused log-on means: response codes first (RFC 5530, RFC 2449, RFC 3206, RFC 4954), then the words.

Servers without response codes are told by their sentences: those of Exchange, Dovecot, Courier and Cyrus as their
documentation and answers show them. A sentence that fits nothing is `LOGIN_FAILED`, never guessed.
"""

from __future__ import annotations

import re
from typing import Final

from letterlock.clients.outcomes import Outcome

_IMAP_CODES: Final = {
    b"AUTHENTICATIONFAILED": Outcome.BAD_CREDENTIALS,
    b"PRIVACYREQUIRED": Outcome.POLICY_REFUSED,
    b"UNAVAILABLE": Outcome.BACK_END_DOWN,
    b"LIMIT": Outcome.LIMIT_REACHED,
    b"AUTHORIZATIONFAILED": Outcome.PROTOCOL_DISABLED,
    b"CONTACTADMIN": Outcome.PROTOCOL_DISABLED,
    b"NOPERM": Outcome.PROTOCOL_DISABLED,
    b"EXPIRED": Outcome.PASSWORD_EXPIRED,
    b"INUSE": Outcome.MAILBOX_IN_USE,
}
_POP3_CODES: Final = {
    b"AUTH": Outcome.BAD_CREDENTIALS,
    b"IN-USE": Outcome.MAILBOX_IN_USE,
    b"LOGIN-DELAY": Outcome.LIMIT_REACHED,
}
_SMTP_CODES: Final = {
    421: Outcome.LIMIT_REACHED,
    432: Outcome.PASSWORD_EXPIRED,
    454: Outcome.BACK_END_DOWN,
    523: Outcome.POLICY_REFUSED,
    525: Outcome.PROTOCOL_DISABLED,
    530: Outcome.POLICY_REFUSED,
    534: Outcome.POLICY_REFUSED,
    535: Outcome.BAD_CREDENTIALS,
    538: Outcome.POLICY_REFUSED,
}
# in this order: a sentence about too many connections may also say "failed"
_WORDS: Final = (
    (re.compile(rb"too many|connection limit|maximum number of connections|rate limit", re.I), Outcome.LIMIT_REACHED),
    (
        re.compile(
            rb"(clear|plain)-?text|starttls|(must use|until) (tls|ssl)|(ssl|tls) (is )?required|encrypt|invalid state"
            rb"|not valid in this state|login is disabled|logindisabled|privacy",
            re.I,
        ),
        Outcome.POLICY_REFUSED,
    ),
    (
        re.compile(
            rb"switched off|disabled for|not enabled|protocol.{0,30}disabled|(imap|pop3?|smtp) access"
            rb"|authenticated but not connected|account.{0,20}(disabled|locked)|not (allowed|permitted|authori[sz]ed)",
            re.I,
        ),
        Outcome.PROTOCOL_DISABLED,
    ),
    (re.compile(rb"expired", re.I), Outcome.PASSWORD_EXPIRED),
    (
        re.compile(rb"unavailable|temporar|try again|not running|internal error|backend|back end", re.I),
        Outcome.BACK_END_DOWN,
    ),
    (re.compile(rb"in use|locked by|another (session|client)", re.I), Outcome.MAILBOX_IN_USE),
    (
        re.compile(
            rb"(login|logon|authenticat\w*|auth|password|credentials?|user ?name).{0,40}"
            rb"(fail|invalid|incorrect|wrong|denied|reject|unknown|bad|error)"
            rb"|(invalid|incorrect|wrong|bad|unknown).{0,40}(login|user|password|credential)",
            re.I,
        ),
        Outcome.BAD_CREDENTIALS,
    ),
)


def _by_words(text: bytes) -> Outcome:
    return next((outcome for words, outcome in _WORDS if words.search(text)), Outcome.LOGIN_FAILED)


def imap(status: bytes, code: bytes, text: bytes) -> Outcome:
    """A tagged NO or BAD to LOGIN or AUTHENTICATE."""
    named = _IMAP_CODES.get(code.split(b" ")[0].upper())
    if named is Outcome.PROTOCOL_DISABLED and code.upper() == b"CONTACTADMIN":
        found = _by_words(text)  # RFC 5530 §3: the word alone only says who can help
        return named if found in (Outcome.LOGIN_FAILED, Outcome.BAD_CREDENTIALS) else found
    if named is not None:
        return named
    return _by_words(text)


def pop3(code: bytes, text: bytes) -> Outcome:
    """-ERR to USER, PASS or AUTH."""
    named = _POP3_CODES.get(code.split(b" ")[0].upper())
    found = _by_words(text)
    if named is Outcome.BAD_CREDENTIALS and found is Outcome.POLICY_REFUSED:
        return found  # Dovecot 2.3 sends [AUTH] with "Plaintext authentication disallowed" as well
    if named is not None:
        return named
    if code.upper() == b"SYS/TEMP" and found in (Outcome.LOGIN_FAILED, Outcome.BAD_CREDENTIALS):
        return Outcome.BACK_END_DOWN
    if code.upper() == b"SYS/PERM" and found in (Outcome.LOGIN_FAILED, Outcome.BAD_CREDENTIALS):
        return Outcome.PROTOCOL_DISABLED
    return found


def smtp(status: int, text: bytes) -> Outcome:
    """4xx or 5xx to AUTH (RFC 4954 §4, §6)."""
    named = _SMTP_CODES.get(status)
    return named if named is not None else _by_words(text)
