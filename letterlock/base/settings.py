"""The declarations: every setting of the IMAP4 and POP3 services, in the order in which Get-ImapSettings lists them.

Names, types, defaults and ranges are Exchange's (Set-ImapSettings, Set-PopSettings). A setting that cannot mean here
what it means in Exchange says in `here` what it does; Set- repeats that, and docs/settings.md lists them apart.
All take effect when the protocol's services are restarted, as in Exchange.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlsplit

from letterlock.base import values
from letterlock.base.declare import setting
from letterlock.base.errors import Malformed
from letterlock.base.values import (
    MAX_INT,
    Binding,
    ByteSize,
    CalendarItemRetrievalOption,
    ConnectionSetting,
    ExtendedProtectionPolicy,
    LogFileRollOver,
    LoginType,
    MimeFormat,
    PolicyMode,
    SortOrder,
    TimeSpan,
    host_name,
)

_PROXY: Final = "Port at which the back end takes sessions that other servers of the organisation hand over."
_MIME_FORMAT: Final = (
    "Form in which message bodies are given. BestBodyFormat: as they were sent, octet for octet. TextOnly, HtmlOnly, "
    "HtmlAndTextAlternative: in that form, the sender's own where there is one, else converted. TextEnrichedOnly, "
    "TextEnrichedAndTextAlternative: as text/enriched (RFC 1896) made of the text. Tnef: as BestBodyFormat, as only "
    "Exchange has the MAPI properties that TNEF holds. Attachments, inline images and header fields stay; signed and "
    "encrypted messages, and those that cannot be converted in bounded time, are given as they were sent."
)
_TNEF: Final = "TNEF holds MAPI properties, which only Exchange has; messages are given as with BestBodyFormat"
_RECEIPTS: Final = (
    "senders who ask for a read receipt get none any more; in Exchange this only stops the receipt that the server "
    "sends on download, which this server never does"
)
HALF_MINUTE: Final = TimeSpan(30)
HOUR: Final = TimeSpan(3600)
DAY: Final = TimeSpan(86400)
TLS_VERSIONS: Final = ("1.0", "1.1", "1.2", "1.3")


def _certificate_name(text: str) -> str:
    """A host name, no wildcard (E8)."""
    try:
        return host_name(text)
    except Malformed:
        raise Malformed(f"X509CertificateName must be a host name, not '{text}'") from None


def _url(text: str) -> str:
    """Empty, or an http(s) URL (E7)."""
    if text and (urlsplit(text).scheme not in ("http", "https") or not urlsplit(text).hostname):
        raise Malformed(f"'{text}' is not an http or https URL")
    return text


def _folder(text: str) -> str:
    """Empty (the data directory's logs), or an absolute path (E9)."""
    if text and not text.startswith("/"):
        raise Malformed("LogFileLocation must be an absolute path the service can write")
    if any(ord(c) < 32 for c in text):
        raise Malformed("control characters are not allowed")
    return text


def _clear_text(value: LoginType) -> str:
    if value is LoginType.SecureLogin:
        return ""
    return "logins without TLS are accepted on the clear ports" + (
        ": passwords may cross the network in clear text" if value is LoginType.PlainTextLogin else ""
    )


def _tls_version(text: str) -> str:
    version = text.strip().lower().removeprefix("tlsv").removeprefix("tls")
    version = "1.0" if version == "1" else version
    if version not in TLS_VERSIONS:
        raise Malformed(f"'{text}' is not a TLS version; allowed are {', '.join(TLS_VERSIONS)}")
    return version


def _old_tls(value: str) -> str:
    return "" if value >= "1.2" else "TLS 1.0 and 1.1 are broken: passwords may be read by whoever records the traffic"


def _reported_only(value: PolicyMode) -> str:
    return "" if value is PolicyMode.Enforce else "what would be refused is reported, and not refused"


_TOLD: Final = (
    (CalendarItemRetrievalOption.intranetUrl, "InternalConnectionSettings"),
    (CalendarItemRetrievalOption.InternetUrl, "ExternalConnectionSettings"),
)


def _many(value: int) -> str:
    return "" if value < MAX_INT else "no limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every declared object of settings can do."""

    def settled(self, old: Any) -> Self:
        """What it is after a change from `old`, where that makes a difference."""
        return self

    def check(self) -> None:
        """What only the whole object can tell; raises `Malformed`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientAccessSettings(Settings):
    """What IMAP4 and POP3 have in common."""

    ProtocolName: str = setting("", "The protocol.", read_only=True)
    MaxCommandSize: int = setting(10240, "Longest command line a client may send, without literals.", unit="bytes")
    UnencryptedOrTLSBindings: tuple[Binding, ...] = setting((), "Clear listeners, with STARTTLS or STLS.")
    SSLBindings: tuple[Binding, ...] = setting((), "Listeners that speak TLS from the first byte.")
    InternalConnectionSettings: tuple[ConnectionSetting, ...] = setting(
        (), "Host, port and encryption that users inside are told; no effect on listening."
    )
    ExternalConnectionSettings: tuple[ConnectionSetting, ...] = setting(
        (), "Host, port and encryption that users outside are told; no effect on listening."
    )
    X509CertificateName: str = setting(
        "", "Host name by which the certificate is chosen among those installed.", read=_certificate_name
    )
    Banner: str = setting("", "Text of the greeting.")
    LoginType: LoginType = setting(
        LoginType.SecureLogin, "Which logins are accepted before TLS is in use.", weaker=_clear_text
    )
    AuthenticatedConnectionTimeout: TimeSpan = setting(
        TimeSpan(1800), "Silence after log-on that ends the connection.", range=(HALF_MINUTE, DAY)
    )
    PreAuthenticatedConnectionTimeout: TimeSpan = setting(
        TimeSpan(60), "Time before log-on that ends the connection.", range=(HALF_MINUTE, HOUR)
    )
    MaxConnections: int = setting(MAX_INT, "Connections at a time, logged on or not.", range=(1, MAX_INT))
    MaxConnectionFromSingleIP: int = setting(MAX_INT, "Connections at a time from one address.", range=(1, MAX_INT))
    MaxConnectionsPerUser: int = setting(16, "Connections at a time of one user.", range=(1, MAX_INT), weaker=_many)
    MessageRetrievalMimeFormat: MimeFormat = setting(
        MimeFormat.BestBodyFormat, _MIME_FORMAT, here=lambda v: _TNEF if v is MimeFormat.Tnef else ""
    )
    ProxyTargetPort: int = setting(1993, _PROXY, range=(1, 65535))
    CalendarItemRetrievalOption: CalendarItemRetrievalOption = setting(
        CalendarItemRetrievalOption.iCalendar,
        "How meetings are shown. iCalendar: as they were sent. The others: text/calendar parts are replaced by kind, "
        "summary, time, place and organizer in words, and a link with the event's UID to the host that "
        "InternalConnectionSettings (intranetUrl) or ExternalConnectionSettings (InternetUrl) begins with, or to "
        "OwaServerUrl (Custom).",
    )
    OwaServerUrl: str = setting(
        "", "Base of the links to meetings when CalendarItemRetrievalOption is Custom.", read=_url
    )
    EnableExactRFC822Size: bool = setting(False, "Sizes of messages exactly.")
    SuppressReadReceipt: bool = setting(
        False,
        "True: header fields that ask for a receipt (Disposition-Notification-To, Return-Receipt-To and the like) are "
        "left out of what clients are given, so that no client sends one. False: they are given, and the reader's "
        "client decides. The server itself never sends receipts.",
        here=lambda v: _RECEIPTS if v else "",
    )
    ProtocolLogEnabled: bool = setting(False, "Protocol log on or off.")
    EnforceCertificateErrors: bool = setting(
        False,
        "On the way to another server's back end: name and dates of its certificate must be right, too. That it is the "
        "certificate exchanged when the servers were joined is checked in any case.",
    )
    LogFileLocation: str = setting("", "Folder of protocol logs; empty: logs in the data directory.", read=_folder)
    LogFileRollOverSettings: LogFileRollOver = setting(
        LogFileRollOver.Hourly, "When a new log file begins, while LogPerFileSizeQuota is 0."
    )
    LogPerFileSizeQuota: ByteSize = setting(
        ByteSize(0), "0: new files by time; more: a new file at that size; unlimited: one file for ever."
    )
    LogRetentionAge: TimeSpan = setting(
        TimeSpan(30 * 86400),
        "Log files older than this are removed (Exchange has no retention).",
        range=(HOUR, TimeSpan(3650 * 86400)),
    )
    LogDirectoryQuota: ByteSize = setting(
        ByteSize(1024**3), "The oldest log files are removed when all together are larger."
    )
    ExtendedProtectionPolicy: ExtendedProtectionPolicy = setting(
        ExtendedProtectionPolicy.None_,
        "Channel binding for integrated authentication (NTLM and GSSAPI). No effect here, as these are not offered.",
        here=lambda v: "NTLM and GSSAPI, which this is about, are not offered here; nothing changes",
    )
    EnableGSSAPIAndNTLMAuth: bool = setting(
        True,
        "NTLM and GSSAPI on or off. Neither is offered here, whatever this says: NTLM gives password hashes away, "
        "GSSAPI needs a domain.",
        here=lambda v: "NTLM and GSSAPI are not offered here, whatever this says; nothing changes",
    )
    LoginTypeMode: PolicyMode = setting(
        PolicyMode.Enforce,
        "ReportOnly: what LoginType would refuse is logged and counted, and EnforcedLoginType goes on deciding.",
        weaker=_reported_only,
    )
    # `values.`: the field LoginType above hides the class of that name here
    EnforcedLoginType: values.LoginType = setting(
        values.LoginType.SecureLogin,
        "The LoginType that decides: the last one that was set with Enforce.",
        read_only=True,
    )
    TlsMinimum: str = setting("1.2", "Oldest TLS version: 1.0, 1.1, 1.2 or 1.3.", read=_tls_version, weaker=_old_tls)
    TlsMinimumMode: PolicyMode = setting(
        PolicyMode.Enforce,
        "ReportOnly: logins below TlsMinimum are logged and counted, and EnforcedTlsMinimum goes on deciding.",
        weaker=_reported_only,
    )
    EnforcedTlsMinimum: str = setting(
        "1.2", "The TLS version that decides: the last one that was set with Enforce.", read_only=True
    )
    ExceptionsOnlyBindings: tuple[Binding, ...] = setting(
        (), "Listeners with STARTTLS or STLS that serve nobody but devices with a login exception."
    )

    def check(self) -> None:
        """What only the whole object can tell; raises `Malformed`."""
        if self.CalendarItemRetrievalOption is CalendarItemRetrievalOption.Custom and not self.OwaServerUrl:
            raise Malformed("OwaServerUrl is required when CalendarItemRetrievalOption is Custom")
        for option, name in _TOLD:
            if self.CalendarItemRetrievalOption is option and not getattr(self, name):
                raise Malformed(f"{name} is required when CalendarItemRetrievalOption is {option.name}")
        for name in ("SSLBindings", "UnencryptedOrTLSBindings"):
            twice = set(getattr(self, name)) & set(self.ExceptionsOnlyBindings)
            if twice:
                raise Malformed(f"{min(twice)} is in both {name} and ExceptionsOnlyBindings; it can only be in one")
        both = set(self.SSLBindings) & set(self.UnencryptedOrTLSBindings)
        if both:
            raise Malformed(f"{min(both)} is in both SSLBindings and UnencryptedOrTLSBindings; it can only be in one")

    def settled(self, old: Any) -> Self:
        """After a change from `old`: what decides while a rule is only reported stays what was enforced before.

        Report-only can so never let in what was refused until then.
        """
        enforced, report = PolicyMode.Enforce, PolicyMode.ReportOnly
        login = self.LoginType if self.LoginTypeMode is enforced else self.EnforcedLoginType
        floor = self.TlsMinimum if self.TlsMinimumMode is enforced else self.EnforcedTlsMinimum
        if self.LoginTypeMode is report and old.LoginTypeMode is enforced:
            login = old.LoginType
        if self.TlsMinimumMode is report and old.TlsMinimumMode is enforced:
            floor = old.TlsMinimum
        return dataclasses.replace(self, EnforcedLoginType=login, EnforcedTlsMinimum=floor)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImapSettings(ClientAccessSettings):
    """Get-ImapSettings, Set-ImapSettings; services LetterlockImap4 and LetterlockImap4BE."""

    ProtocolName: str = setting("IMAP4", "The protocol.", read_only=True)
    MaxCommandSize: int = setting(
        10240, "Longest command a client may send, without literals.", unit="bytes", range=(1024, 16384)
    )
    Banner: str = setting("The Letterlock IMAP4 service is ready.", "Text after `* OK ` in the greeting.")
    EnableExactRFC822Size: bool = setting(
        False,
        "RFC822.SIZE is always exact here, converted messages included, so this changes nothing: clients fetch as many "
        "octets as it says, and an estimate would cut messages off.",
        here=lambda v: "RFC822.SIZE is always exact here; nothing changes",
    )
    ShowHiddenFoldersEnabled: bool = setting(
        False, "List folders that are hidden (Set-MailboxFolder -Hidden), with all below them."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PopSettings(ClientAccessSettings):
    """Get-PopSettings, Set-PopSettings; services LetterlockPop3 and LetterlockPop3BE."""

    ProtocolName: str = setting("POP3", "The protocol.", read_only=True)
    MaxCommandSize: int = setting(512, "Longest command line a client may send.", unit="bytes", range=(40, 1024))
    Banner: str = setting("The Letterlock POP3 service is ready.", "Text after `+OK ` in the greeting.")
    ProxyTargetPort: int = setting(1995, _PROXY, range=(1, 65535))
    EnableExactRFC822Size: bool = setting(
        False,
        "True: LIST and STAT count octets as RETR sends them: every line end CRLF, and after conversion, which at "
        "log-on means converting every message that was not seen before. False: an estimate, the size as stored.",
    )
    MessageRetrievalSortOrder: SortOrder = setting(
        SortOrder.Ascending, "Numbering: oldest message first, or newest first."
    )


def _everywhere(value: tuple[Binding, ...]) -> str:
    outside = [str(b) for b in value if not ipaddress.ip_address(b.address).is_loopback]
    return f"other machines can reach the administration at {', '.join(outside)}" if outside else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSettings(Settings):
    """Get-AdminSettings, Set-AdminSettings; service LetterlockAdmin (REST over HTTPS, docs/rest.md)."""

    ProtocolName: str = setting("REST", "The protocol.", read_only=True)
    SSLBindings: tuple[Binding, ...] = setting(
        (), "Where HTTPS is served; the default is 127.0.0.1, port 443 and the port offset.", weaker=_everywhere
    )
    X509CertificateName: str = setting("", "Host name by which the certificate is chosen.", read=_certificate_name)
    AllowedHosts: tuple[str, ...] = setting(
        (),
        "Host names a request may be addressed to, besides X509CertificateName, the server's own names and localhost "
        "(the Host header is checked, which ends DNS rebinding).",
        read=host_name,
    )
    MaxConnections: int = setting(100, "Connections at a time.", range=(1, 10000))
    MaxRequestSize: ByteSize = setting(
        ByteSize(1 << 20), "Longest request body.", range=(ByteSize(4096), ByteSize(16 << 20))
    )
    RequestTimeout: TimeSpan = setting(
        TimeSpan(30),
        "Time in which a request must have arrived, and a peer that reads slowly must go on.",
        range=(TimeSpan(5), TimeSpan(600)),
    )
    SessionTimeout: TimeSpan = setting(
        TimeSpan(8 * 3600), "How long a log-on by password lasts.", range=(TimeSpan(300), DAY)
    )

    def check(self) -> None:
        """What only the whole object can tell; raises `Malformed`."""
        if not self.SSLBindings:
            raise Malformed("SSLBindings: at least one is needed; to serve nothing, use: Stop-Service LetterlockAdmin")


def admin_defaults(hostname: str, port_offset: int = 0) -> AdminSettings:
    """The administration's settings of a new data directory for server `hostname`: loopback only."""
    return AdminSettings(SSLBindings=(Binding("127.0.0.1", 443 + port_offset),), X509CertificateName=hostname)


def defaults(cls: type[ClientAccessSettings], hostname: str, port_offset: int = 0) -> ClientAccessSettings:
    """The settings of a new data directory for server `hostname`."""
    clear, always, back = (143, 993, 1993) if cls is ImapSettings else (110, 995, 1995)

    def listeners(port: int) -> tuple[Binding, ...]:
        return (Binding("::", port + port_offset), Binding("0.0.0.0", port + port_offset))  # noqa: S104 - as Exchange

    return cls(
        UnencryptedOrTLSBindings=listeners(clear),
        SSLBindings=listeners(always),
        InternalConnectionSettings=(
            ConnectionSetting(hostname, always + port_offset, "SSL"),
            ConnectionSetting(hostname, clear + port_offset, "TLS"),
        ),
        X509CertificateName=hostname,
        ProxyTargetPort=back + port_offset,
    )
