"""Values of settings and cmdlets: parsing with an error a person can act on, printing as Exchange prints, and JSON.

Each value type has `parse(text)` (raises `Malformed`), `str()` as `Format-List` shows it, and `to_json()` for
`--output json` and the stored row.
"""

from __future__ import annotations

import difflib
import enum
import ipaddress
import re
from dataclasses import dataclass
from typing import Final, TypeVar

from letterlock.base.errors import Malformed

MAX_INT: Final = 2147483647


class LoginType(enum.Enum):
    """Which logins are accepted before TLS is in use; Exchange's names and numbers."""

    PlainTextLogin = 1
    PlainTextAuthentication = 2
    SecureLogin = 3


class PolicyMode(enum.Enum):
    """Whether a rule is enforced, or what it would refuse is only reported."""

    Enforce = 0
    ReportOnly = 1


class Protocol(enum.Enum):
    """A protocol of the front end."""

    IMAP4 = "IMAP4"
    POP3 = "POP3"
    SMTP = "SMTP"
    SIEVE = "SIEVE"  # ManageSieve; only seen in logs of other servers


class Tls(enum.Enum):
    """How TLS came about on a connection."""

    NONE = "none"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"


class CalendarItemRetrievalOption(enum.Enum):
    """How meeting items are shown."""

    iCalendar = 0
    intranetUrl = 1
    InternetUrl = 2
    Custom = 3


class ExtendedProtectionPolicy(enum.Enum):
    """Channel binding for integrated authentication."""

    # "None" is Exchange's word, and none of Python's.
    None_ = 0
    Allow = 1
    Require = 2


class LogFileRollOver(enum.Enum):
    """When a new log file begins."""

    Hourly = 1
    Daily = 2
    Weekly = 3
    Monthly = 4


class MimeFormat(enum.Enum):
    """MessageRetrievalMimeFormat."""

    TextOnly = 0
    HtmlOnly = 1
    HtmlAndTextAlternative = 2
    TextEnrichedOnly = 3
    TextEnrichedAndTextAlternative = 4
    BestBodyFormat = 5
    Tnef = 6


class SortOrder(enum.Enum):
    """MessageRetrievalSortOrder."""

    Ascending = 0
    Descending = 1


class StartType(enum.Enum):
    """When a service starts."""

    Disabled = 0
    Manual = 1
    Automatic = 2


E_ = TypeVar("E_", bound=enum.Enum)

# Spellings of Microsoft's own pages that are not the names of the values.
_MISSPELT: Final = {"textenriched": "textenrichedonly"}


def enum_name(value: enum.Enum) -> str:
    """The name as Exchange spells it."""
    return value.name.rstrip("_")


def parse_enum(kind: type[E_], text: str) -> E_:
    """By name without case, or by number; `Malformed` lists what is allowed."""
    wanted = text.strip().lower()
    for member in kind:
        if wanted in (enum_name(member).lower(), str(member.value).lower()):
            return member
    allowed = ", ".join(f"{enum_name(m)} ({m.value})" if isinstance(m.value, int) else enum_name(m) for m in kind)
    names = {enum_name(m).lower(): enum_name(m) for m in kind}
    near = difflib.get_close_matches(_MISSPELT.get(wanted, wanted), names, 1)
    meant = f"; did you mean {names[near[0]]}?" if near else ""
    raise Malformed(f"'{text}' is not one of the allowed values: {allowed}{meant}")


@dataclass(frozen=True, slots=True, order=True)
class ByteSize:
    """A number of octets; -1 is `unlimited`."""

    octets: int

    UNITS = ("B", "KB", "MB", "GB", "TB")

    @classmethod
    def parse(cls, text: str) -> ByteSize:
        """`2MB`, `512`, `unlimited`; powers of 1024 (E6)."""
        wanted = text.strip().replace(",", "")
        if wanted.lower() == "unlimited":
            return cls(-1)
        # "2 MB (2,097,152 bytes)" is how we print it, so it is read as well
        found = re.fullmatch(r"(\d{1,15})(?:\.0+)?\s*(B|KB|MB|GB|TB)?(?:\s*\(\d+ bytes\))?", wanted, re.IGNORECASE)
        if not found:
            raise Malformed(f"'{text}' is not a size; use a number with B, KB, MB, GB or TB, or the word unlimited")
        return cls(int(found[1]) * 1024 ** cls.UNITS.index((found[2] or "B").upper()))

    @property
    def unlimited(self) -> bool:
        """No bound."""
        return self.octets < 0

    def __str__(self) -> str:
        if self.unlimited:
            return "Unlimited"
        power = 0
        while power < 4 and self.octets >= 1024 ** (power + 1):
            power += 1
        number = f"{self.octets / 1024**power:.4g}" if self.octets % 1024**power else str(self.octets // 1024**power)
        return f"{number} {self.UNITS[power]} ({self.octets:,} bytes)"

    def to_json(self) -> int | str:
        """Octets, or `unlimited`."""
        return "unlimited" if self.unlimited else self.octets


@dataclass(frozen=True, slots=True, order=True)
class TimeSpan:
    """A duration in whole seconds, written `[d.]hh:mm:ss`."""

    seconds: int

    @classmethod
    def parse(cls, text: str) -> TimeSpan:
        """`00:30:00`, `1.00:00:00`, or plain seconds."""
        wanted = text.strip()
        if wanted.isascii() and wanted.isdigit() and len(wanted) < 10:
            return cls(int(wanted))
        found = re.fullmatch(r"(?:(\d{1,5})\.)?(\d{1,2}):([0-5]?\d)(?::([0-5]?\d))?", wanted, re.ASCII)
        if not found or int(found[2]) > 23:
            raise Malformed(f"'{text}' is not a time span; expected [d.]hh:mm:ss, for example 00:30:00")
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        return cls(((days * 24 + hours) * 60 + minutes) * 60 + seconds)

    def __str__(self) -> str:
        days, rest = divmod(self.seconds, 86400)
        clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
        return f"{days}.{clock}" if days else clock

    def to_json(self) -> str:
        """As printed."""
        return str(self)


def _port(text: str) -> int | None:
    """1 to 65535, or None."""
    if text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= 65535:
        return int(text)
    return None


@dataclass(frozen=True, slots=True, order=True)
class Binding:
    """Where a listener listens: an IPv4 or IPv6 address and a port."""

    address: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Binding:
        """`0.0.0.0:993` or `[::]:993` (E4)."""
        host, colon, number = text.strip().rpartition(":")
        port = _port(number)
        bracketed = host.startswith("[") and host.endswith("]")
        try:
            address = ipaddress.ip_address(host[1:-1] if bracketed else host)
        except ValueError:
            address = None
        if not colon or port is None or address is None or bracketed != (address.version == 6):
            raise Malformed(
                f"'{text}' is not a valid binding; expected <IPv4 or IPv6 address>:<port>, "
                "for example 0.0.0.0:993 or [::]:993"
            )
        return cls(str(address), port)

    @property
    def ipv6(self) -> bool:
        """The address is an IPv6 one."""
        return ":" in self.address

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if self.ipv6 else f"{self.address}:{self.port}"

    def to_json(self) -> str:
        """As printed."""
        return str(self)


_HOST_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def host_name(text: str) -> str:
    """A DNS name without wildcard, in lower case; `Malformed` otherwise."""
    name = text.strip().rstrip(".").lower()
    if not name or len(name) > 253 or not all(_HOST_LABEL.fullmatch(label) for label in name.split(".")):
        raise Malformed(f"'{text}' is not a host name")
    return name


@dataclass(frozen=True, slots=True, order=True)
class ConnectionSetting:
    """What users are told: host, port and encryption (`SSL`, `TLS` or empty)."""

    host: str
    port: int
    encryption: str = ""

    @classmethod
    def parse(cls, text: str) -> ConnectionSetting:
        """`host:port`, `host:port:TLS`, `host:port:SSL` (E5)."""
        parts = text.strip().split(":")
        port = _port(parts[1]) if len(parts) in (2, 3) else None
        encryption = parts[2].upper() if len(parts) == 3 else ""
        try:
            if port is not None and encryption in ("", "TLS", "SSL"):
                return cls(host_name(parts[0]), port, encryption)
        except Malformed:
            pass
        raise Malformed(f"'{text}' is not a connection setting; expected <host>:<port>[:TLS or :SSL]")

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" + (f":{self.encryption}" if self.encryption else "")

    def to_json(self) -> str:
        """As printed."""
        return str(self)


class Secret:
    """A password in management: prints as ***, opened only where it is hashed."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    @classmethod
    def parse(cls, text: str) -> Secret:
        """Any text."""
        return cls(text)

    def reveal(self) -> str:
        """The text itself."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def to_json(self) -> str:
        """Never the text."""
        return "***"


@dataclass(frozen=True, slots=True)
class ListChange:
    """What happens to a multi-valued property: replaced as a whole, or `@{Add=…; Remove=…}`."""

    replace: tuple[str, ...] | None = None
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
