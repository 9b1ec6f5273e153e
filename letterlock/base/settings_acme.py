"""The declaration of the ACME client's settings (RFC 8555): where certificates come from, and how names are proved.

They are read each time a certificate is ordered or renewed, so a change needs no restart.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from letterlock.base.declare import setting
from letterlock.base.errors import Malformed
from letterlock.base.settings import Settings
from letterlock.base.values import Binding, TimeSpan, host_name

LETS_ENCRYPT: Final = "https://acme-v02.api.letsencrypt.org/directory"


class AcmeChallenge(enum.Enum):
    """How the authority is shown that a name is ours."""

    Http01 = 0  # RFC 8555 §8.3
    Dns01 = 1  # RFC 8555 §8.4


def _directory(text: str) -> str:
    parts = urlsplit(text.strip())
    if parts.scheme != "https" or not parts.hostname or any(ord(c) < 33 or ord(c) > 126 for c in text.strip()):
        raise Malformed(f"'{text}' is not an https URL; expected the directory of an ACME authority")
    return text.strip()


def _contact(text: str) -> str:
    address = text.strip().removeprefix("mailto:")
    local, at, domain = address.rpartition("@")
    if not at or not re.fullmatch(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}", local):
        raise Malformed(f"'{text}' is not a mail address")
    return f"{local}@{host_name(domain)}"


def _path(text: str) -> str:
    if text and (not text.startswith("/") or any(ord(c) < 32 or ord(c) == 127 for c in text)):
        raise Malformed(f"'{text}' is not an absolute path")
    return text


def _hook(text: str) -> str:
    """A file name only: who may change settings may not start any program there is."""
    if text and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", text):
        raise Malformed(f"'{text}' is not the name of a program in the folder hooks of the data directory")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeSettings(Settings):
    """Get-AcmeSettings, Set-AcmeSettings (docs/certificates.md)."""

    ProtocolName: str = setting("ACME", "The protocol.", read_only=True)
    DirectoryUrl: str = setting(LETS_ENCRYPT, "Directory of the authority.", read=_directory)
    CaFile: str = setting(
        "", "PEM file by which the authority's own server is trusted; empty: as this machine does.", read=_path
    )
    Contact: tuple[str, ...] = setting((), "Mail addresses the authority may write to.", read=_contact)
    TermsOfServiceAgreed: bool = setting(
        False, "You have read the authority's terms of service and agree; nothing is ordered before."
    )
    ChallengeType: AcmeChallenge = setting(
        AcmeChallenge.Http01, "How names are proved: a file by HTTP at port 80, or a TXT record (needed for wildcards)."
    )
    HttpBindings: tuple[Binding, ...] = setting(
        (),
        "Http01: where the challenge is answered, for its moment only; the default is port 80 and the port offset on "
        "all addresses.",
    )
    WebRoot: str = setting(
        "", "Http01: folder of a web server that has port 80; challenges are put there instead.", read=_path
    )
    DnsHook: str = setting(
        "",
        "Dns01: program in the folder hooks of the data directory, called with present or cleanup, the name, the "
        "record's name and its value.",
        read=_hook,
    )
    DnsWait: TimeSpan = setting(
        TimeSpan(30), "Dns01: time for the record to reach all name servers.", range=(TimeSpan(0), TimeSpan(3600))
    )
    RenewalEnabled: bool = setting(True, "Whether the server renews by itself when a third of the life remains.")

    def check(self) -> None:
        """What only the whole object can tell; raises `Malformed`."""
        if self.ChallengeType is AcmeChallenge.Dns01 and not self.DnsHook:
            raise Malformed("DnsHook is required when ChallengeType is Dns01")
        if self.ChallengeType is AcmeChallenge.Http01 and not self.WebRoot and not self.HttpBindings:
            raise Malformed("HttpBindings or WebRoot is required when ChallengeType is Http01")


def acme_defaults(port_offset: int = 0) -> AcmeSettings:
    """The settings of a directory that has none of them stored."""
    everywhere = (Binding("::", 80 + port_offset), Binding("0.0.0.0", 80 + port_offset))  # noqa: S104 - an authority comes from anywhere
    return AcmeSettings(HttpBindings=everywhere)
