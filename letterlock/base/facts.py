"""What was observed, with its origin: the vocabulary of log readers, settings exports, probes and rules.

A fact says what was seen, never what to think of it. Readers and probes make facts; `policy.login.decide` and the
analyzer's rules judge them. Our own live settings, another server's export and a live endpoint become the same facts.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from letterlock.base.values import Protocol, Tls


class Origin(NamedTuple):
    """Where a fact was read: for the person who wants to check it."""

    source: str  # file name, "host:port", "live"
    line: int = 0  # 1-based; 0: does not apply
    server: str = ""


class LoginResult(enum.Enum):
    """How a login ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"  # the credentials were wrong, or the mailbox may not log in
    REFUSED = "Refused"  # by policy, before the credentials were looked at
    UNKNOWN = "Unknown"  # the log does not say


class LoginFact(NamedTuple):
    """One login that was tried."""

    at: float  # seconds since 1970-01-01 UTC
    protocol: Protocol
    address: str  # the client's, without port and brackets
    user: str
    mechanism: str  # "LOGIN command", "USER", "PLAIN", "LOGIN", "SCRAM-SHA-256", …; "" when the log does not say
    tls: Tls | None  # None: the log does not say
    result: LoginResult
    client: str = ""  # from the ID command or a user agent, where known
    tls_version: str = ""
    text: str = ""  # what the client was told, where the log has it
    origin: Origin = Origin("")
    sent: bool = True  # False: refused before the credentials crossed the network


class SettingFact(NamedTuple):
    """One setting of one object of one server: `Get-ImapSettings`' LoginType, Dovecot's disable_plaintext_auth."""

    kind: str  # "ImapSettings", "PopSettings", "CASMailbox", "ReceiveConnector", "Service", "Dovecot"
    identity: str  # which object: the server's name, the connector's name, the mailbox's address
    name: str  # as the source spells it
    value: str | bool | int | tuple[str, ...] | None  # None: it is there, but its value could not be read
    origin: Origin


class CertificateFact(NamedTuple):
    """A certificate that is installed, or was presented."""

    subject: str
    names: tuple[str, ...]  # DNS names, wildcards as they stand
    not_before: float  # seconds since 1970
    not_after: float
    services: tuple[str, ...]  # "IMAP", "POP", "SMTP", "IIS"
    thumbprint: str
    self_signed: bool
    key: str = ""  # "ECDSA 256", "RSA 2048"; "2048": of a kind that the source does not tell
    origin: Origin = Origin("")
    issuer: str = ""
    private_key: bool | None = None  # None: the source does not say
    status: str = ""  # Exchange's: Valid, Revoked, PendingRequest, …
    root: str = ""  # Exchange's RootCAType
    signature: str = ""  # hash of the signature: "sha256"
    server_auth: bool | None = None  # fit for servers by its extended key usage
    complete: bool = True  # False: the source shows only the first names


class EndpointFact(NamedTuple):
    """What a live endpoint was seen to do: `name` is the thing tried, `value` what came of it."""

    endpoint: str  # "host:port"
    protocol: Protocol
    name: str  # "STARTTLS", "LOGINDISABLED", "TLSv1.1", "ClearTextLogin", "CertificateName", …
    value: str | bool | None  # None: could not be determined
    detail: str = ""
    origin: Origin = Origin("")
