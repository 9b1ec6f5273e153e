"""The declarations: every setting of the IMAP4 and POP3 services, in the order in which Get-ImapSettings lists them.

Names, types, defaults and ranges are Exchange's (Set-ImapSettings, Set-PopSettings). A setting whose effect belongs to
a later piece of work says so in `later`; it is accepted with a warning and listed apart in docs/settings.md.
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
        MimeFormat.BestBodyFormat, "Body conversion of messages.", later="messages are given as they were stored"
    )
    ProxyTargetPort: int = setting(1993, _PROXY, range=(1, 65535))
    CalendarItemRetrievalOption: CalendarItemRetrievalOption = setting(
        CalendarItemRetrievalOption.iCalendar,
        "How meeting items are shown.",
        later="calendar parts are given as stored",
    )
    OwaServerUrl: str = setting("", "Base of calendar links.", read=_url, later="there are no calendar links")
    EnableExactRFC822Size: bool = setting(
        False,
        "POP3: LIST and STAT count octets as RETR sends them (every line end CRLF) instead of as stored. "
        "IMAP4: RFC822.SIZE is always exact here, so this changes nothing.",
    )
    SuppressReadReceipt: bool = setting(
        False, "No read receipt on download.", later="read receipts are never sent by the server"
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
        "Channel binding for integrated authentication.",
        later="NTLM and GSSAPI are not offered",
    )
    EnableGSSAPIAndNTLMAuth: bool = setting(
        True, "NTLM and GSSAPI on or off.", later="NTLM and GSSAPI are not offered, whatever this says"
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
    ShowHiddenFoldersEnabled: bool = setting(False, "List folders that are marked hidden.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PopSettings(ClientAccessSettings):
    """Get-PopSettings, Set-PopSettings; services LetterlockPop3 and LetterlockPop3BE."""

    ProtocolName: str = setting("POP3", "The protocol.", read_only=True)
    MaxCommandSize: int = setting(512, "Longest command line a client may send.", unit="bytes", range=(40, 1024))
    Banner: str = setting("The Letterlock POP3 service is ready.", "Text after `+OK ` in the greeting.")
    ProxyTargetPort: int = setting(1995, _PROXY, range=(1, 65535))
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
