"""Values of settings and cmdlets: parsing, printing as Exchange prints, and JSON."""

from __future__ import annotations

import enum


class LoginType(enum.Enum):
    """Which logins are accepted before TLS is in use; Exchange's names and numbers."""

    PlainTextLogin = 1
    PlainTextAuthentication = 2
    SecureLogin = 3


class Protocol(enum.Enum):
    """A protocol of the front end."""

    IMAP4 = "IMAP4"
    POP3 = "POP3"
    SMTP = "SMTP"


class Tls(enum.Enum):
    """How TLS came about on a connection."""

    NONE = "none"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"
