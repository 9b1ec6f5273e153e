"""Which cmdlet an exported object came from, told by its own properties, and what becomes of it: facts.

An export says rarely what it is: a paste has lost its command line, JSON has no type names. So a kind is told by the
names of the properties; the command line, the type's name or the file's name only help where these do not tell
(a listing with nothing but LoginType is POP's as well as IMAP's).

Values stay texts and lists of texts here; what they mean is read where they are judged, with the parsers of the
declared settings (`inventory.py`). A value that the export has lost (a type's name in place of a list) is None.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from letterlock.base import declare
from letterlock.base.facts import Origin, SettingFact
from letterlock.base.settings import ImapSettings, PopSettings

Value = str | bool | int | tuple[str, ...] | None
MORE: Final = "..."  # last element of a list that the source has cut


class Raw(NamedTuple):
    """An object as it was read: properties by name as spelt, each with its line."""

    properties: dict[str, tuple[Value, int]]
    hint: str = ""  # the command, the type's name, a JSON key: what stood around it
    server: str = ""  # the server that was asked, where a command line says so

    def get(self, *names: str) -> str:
        """The first of these properties that has text; without case."""
        lower = {n.lower(): v for n, (v, _) in self.properties.items()}
        for name in names:
            value = lower.get(name.lower())
            if isinstance(value, str) and value.strip():
                return value.strip()
            if isinstance(value, int) and not isinstance(value, bool):
                return str(value)
        return ""

    @property
    def line(self) -> int:
        """Where it begins."""
        return min((line for _, line in self.properties.values()), default=0)


def _lower(*names: str) -> frozenset[str]:
    """Names, several in a text."""
    return frozenset(n.lower() for text in names for n in text.split())


_ALL: Final = _lower(
    "Name Identity Server Guid DistinguishedName IsValid ObjectState ObjectClass WhenChanged WhenCreated "
    "WhenChangedUTC",
    "WhenCreatedUTC OrganizationId Id AdminDisplayName ExchangeVersion OriginatingServer ObjectCategory RunspaceId",
    "PSComputerName PSShowComputerName",
)
_EXTRA: Final = ("LiveIdBasicAuthReplacement", "ProtocolName")
IMAP: Final = _lower(*declare.fields(ImapSettings), *_EXTRA)
POP: Final = _lower(*declare.fields(PopSettings), *_EXTRA)

# Properties that cmdlets print, by the kind of the object.
VOCABULARY: Final = {
    "ImapSettings": IMAP,
    "PopSettings": POP,
    "CASMailbox": _lower(
        "PopEnabled ImapEnabled ActiveSyncEnabled OWAEnabled MapiEnabled ECPEnabled EwsEnabled EmailAddresses",
        "PopUseProtocolDefaults ImapUseProtocolDefaults PopSuppressReadReceipt ImapSuppressReadReceipt DisplayName",
        "PopMessagesRetrievalMimeFormat ImapMessagesRetrievalMimeFormat PopEnableExactRFC822Size PrimarySmtpAddress",
        "ImapEnableExactRFC822Size PopForceICalForCalendarRetrievalOption ImapForceICalForCalendarRetrievalOption",
        "SamAccountName LegacyExchangeDN LinkedMasterAccount ServerName ServerLegacyDN OWAMailboxPolicy",
        "ActiveSyncMailboxPolicy LastLogonTime",
    ),
    "ExchangeCertificate": _lower(
        "Thumbprint Services Subject CertificateDomains HasPrivateKey IsSelfSigned Issuer NotBefore NotAfter Status",
        "PublicKeySize RootCAType SerialNumber AccessRules FriendlyName SignatureAlgorithm KeyAlgorithm DnsNameList",
        "EnhancedKeyUsageList HasServerAuthentication",
    ),
    "ReceiveConnector": _lower(
        "AuthMechanism PermissionGroups Bindings Fqdn RemoteIPRanges RequireTLS TlsCertificateName TransportRole",
        "AdvertiseClientSettings EnableAuthGSSAPI ExtendedProtectionPolicy MaxLogonFailures ProtocolLoggingLevel "
        "Banner",
        "SuppressXAnonymousTls RequireEHLODomain Enabled MaxInboundConnection MaxInboundConnectionPerSource",
        "ConnectionTimeout ConnectionInactivityTimeout TarpitInterval",
    ),
    "Service": _lower(
        "Status DisplayName StartType StartMode State ServiceName StartupType MachineName CanStop CanPauseAndContinue",
        "DependentServices ServicesDependedOn ServiceType RequiredServices ServiceHandle CanShutdown Site Container",
        "SystemName ProcessId PathName StartName",
    ),
    "ServerComponentState": _lower("Component State ServerFqdn ServerWideOfflineIsOffline RemoteStates LocalStates"),
}
_SIGNS: Final[dict[str, tuple[frozenset[str], int]]] = {
    "ServerComponentState": (_lower("Component State"), 2),
    "ExchangeCertificate": (_lower("Thumbprint CertificateDomains NotAfter Subject IsSelfSigned"), 2),
    "ReceiveConnector": (_lower("AuthMechanism PermissionGroups RemoteIPRanges Bindings TransportRole"), 2),
    "CASMailbox": (_lower("PopEnabled ImapEnabled"), 1),
    "Service": (_lower("Status State StartType StartMode"), 1),
}
# Names that other objects have as well say nothing about POP and IMAP settings.
_SETTINGS: Final = (IMAP | POP) - _ALL - _lower("Banner ExtendedProtectionPolicy")
_ONLY_IMAP: Final = _lower("ShowHiddenFoldersEnabled")
_ONLY_POP: Final = _lower("MessageRetrievalSortOrder")
_KEYWORDS: Final = (
    ("imapsettings", "ImapSettings"),
    ("imap4adconfiguration", "ImapSettings"),
    ("popsettings", "PopSettings"),
    ("pop3adconfiguration", "PopSettings"),
    ("casmailbox", "CASMailbox"),
    ("exchangecertificate", "ExchangeCertificate"),
    ("receiveconnector", "ReceiveConnector"),
    ("servercomponent", "ServerComponentState"),
    ("get-service", "Service"),
    ("win32_service", "Service"),
    ("servicecontroller", "Service"),
    ("certificate", "ExchangeCertificate"),
    ("services", "Service"),
    ("imap", "ImapSettings"),
    ("pop", "PopSettings"),
)
KNOWN: Final = frozenset[str]().union(*VOCABULARY.values()) | _ALL


def hinted(text: str) -> str:
    """The kind that a command, type or file name speaks of; "" where none."""
    lower = text.lower()
    return next((kind for word, kind in _KEYWORDS if word in lower), "")


def kinds_with(names: set[str]) -> set[str]:
    """The kinds that could have all of these properties (in lower case), as far as they are known at all."""
    telling = {n for n in names if n in KNOWN and n not in _ALL}
    return {kind for kind, known in VOCABULARY.items() if telling <= known}


def kind_of(raw: Raw, file_name: str = "") -> str:
    """The kind of an object; "Settings" where it is POP's or IMAP's and nothing tells which; "" for all else."""
    names = {n.lower() for n in raw.properties}
    hint = hinted(raw.hint)
    for kind, (signs, least) in _SIGNS.items():
        if len(names & signs) >= least and not (kind == "Service" and not _service_name(raw)):
            if kind == "Service" and hint == "ExchangeCertificate" and "thumbprint" in names:
                return hint
            return kind
    if "thumbprint" in names and names & _lower("Services Subject"):
        return "ExchangeCertificate"
    if not names & _SETTINGS and not (hint in ("ImapSettings", "PopSettings") and names & (IMAP | POP)):
        return ""
    return _protocol(raw, names, hint, file_name)


def _protocol(raw: Raw, names: set[str], hint: str, file_name: str) -> str:
    told = raw.get("ProtocolName").upper()
    if told.startswith("IMAP") or (not told and names & _ONLY_IMAP):
        return "ImapSettings"
    if told.startswith("POP") or (not told and names & _ONLY_POP):
        return "PopSettings"
    if hint in ("ImapSettings", "PopSettings"):
        return hint
    text = " ".join(_flat(v) for v, _ in raw.properties.values())
    if re.search(r":(?:993|143)(?!\d)|imap", text, re.I) and not re.search(r":(?:995|110)(?!\d)|pop3", text, re.I):
        return "ImapSettings"
    if re.search(r":(?:995|110)(?!\d)|pop3", text, re.I) and not re.search(r":(?:993|143)(?!\d)|imap", text, re.I):
        return "PopSettings"
    by_name = hinted(file_name)
    return by_name if by_name in ("ImapSettings", "PopSettings") else "Settings"


def _flat(value: Value) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)


_SERVICE: Final = re.compile(r"MSExchange\w+|Letterlock\w+|\w*(?:imap|pop3)\w*", re.I)


def _service_name(raw: Raw) -> str:
    """Services of mail only: a paste of all services of a machine is fine."""
    name = raw.get("Name", "ServiceName")
    return name if _SERVICE.fullmatch(name) else ""


def server_of(kind: str, raw: Raw) -> str:
    """Which server the object belongs to; "" where nothing says so."""
    found = raw.get("Server", "ServerFqdn", "MachineName", "SystemName")
    identity = raw.get("Identity")
    if not found and "\\" in identity and kind != "CASMailbox":
        found = identity.partition("\\")[0]
    if not found and kind == "CASMailbox":
        found = raw.get("ServerName")
    found = found or raw.get("PSComputerName") or raw.server
    found = found.rpartition("/")[2] or found  # contoso.test/…/Servers/EX01
    return "" if found in (".", "localhost") else found


def identity_of(kind: str, raw: Raw, server: str) -> str:
    """Which object it is."""
    if kind in ("ImapSettings", "PopSettings", "Settings"):
        return server
    names = {
        "CASMailbox": ("PrimarySmtpAddress", "Identity", "Name", "DisplayName"),
        "ExchangeCertificate": ("Thumbprint", "Subject"),
        "ReceiveConnector": ("Identity", "Name"),
        "Service": ("Name", "ServiceName"),
        "ServerComponentState": ("Component",),
    }[kind]
    return raw.get(*names)


_LOST: Final = re.compile(r"\{?(?:System|Microsoft|Deserialized)\.[\w.]+(?:`\d.*)?(?:\[\])?\}?\Z")


def clean_value(value: Value) -> Value:
    """A text in braces as a list; a type's name, which stands where a value was lost, as None."""
    if isinstance(value, str):
        text = value.strip()
        if _LOST.match(text):
            return None
        if text.startswith("{") and text.endswith("}"):
            return split_list(text[1:-1])
        return text
    if isinstance(value, tuple):
        return tuple(v.strip() for v in value)
    return value


def split_list(text: str) -> tuple[str, ...]:
    """`a, b` as PowerShell shows lists; a trailing `...` or `…` stays as `MORE`."""
    text = text.strip().replace("…", MORE)
    cut = text.endswith(MORE)
    if cut:
        text = text.removesuffix(MORE).rstrip().rstrip(",")
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    return (*found, MORE) if cut else found


def facts_of(kind: str, raw: Raw, source: str) -> list[SettingFact]:
    """The object's properties as facts."""
    server = server_of(kind, raw)
    identity = identity_of(kind, raw, server)
    return [
        SettingFact(kind, identity, name, clean_value(value), Origin(source, line, server))
        for name, (value, line) in raw.properties.items()
    ]
