"""What makes each service: its settings, protocol and certificate; and what follows from its settings."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from letterlock import tls
from letterlock.base import declare, values
from letterlock.base.settings import ClientAccessSettings, ImapSettings, PopSettings
from letterlock.base.values import PolicyMode
from letterlock.directory.certificates import Certificate, Certificates
from letterlock.imap.session import ImapSession
from letterlock.policy.login import LoginRules
from letterlock.pop3 import Pop3Session
from letterlock.session import Session


class Kind(NamedTuple):
    """What makes a service. `back`: it serves what other servers hand over, at ProxyTargetPort."""

    settings: type[ClientAccessSettings]
    session: Callable[..., Session]
    alpn: str
    certificate: str  # the service flag of certificates
    back_end: str
    protocol: values.Protocol
    back: bool = False


_FRONT: Final = {
    "LetterlockImap4": Kind(ImapSettings, ImapSession, "imap", "IMAP", "LetterlockImap4BE", values.Protocol.IMAP4),
    "LetterlockPop3": Kind(PopSettings, Pop3Session, "pop3", "POP", "LetterlockPop3BE", values.Protocol.POP3),
}


_BACK: Final = {k.back_end: k._replace(alpn=f"letterlock-{k.alpn}", back=True) for k in _FRONT.values()}
KINDS: Final = {**_FRONT, **_BACK}


def choose(certificates: Certificates, name: str, settings: Any) -> Certificate:
    """The certificate of a front end by its settings; `Refused` when there is none."""
    return certificates.choose(settings.X509CertificateName, KINDS[name].certificate)[0]


def make_context(
    certificate: Certificate, name: str, minimum: str, by_name: tls.ByName | None = None
) -> ssl.SSLContext:
    """A front end's TLS context; `Refused` when the certificate cannot be used."""
    return tls.server_context(certificate.file, certificate.key, [KINDS[name].alpn], minimum, by_name)


def tls_floor(settings: Any) -> str:
    """What listeners agree on: under report-only, whatever was agreed on before."""
    return str(settings.EnforcedTlsMinimum)


def rules_of(settings: Any) -> LoginRules:
    """The rules that settings make."""
    return LoginRules(
        login_type=settings.EnforcedLoginType,
        tls_minimum=settings.EnforcedTlsMinimum,
        reported_login_type=settings.LoginType if settings.LoginTypeMode is PolicyMode.ReportOnly else None,
        reported_tls_minimum=settings.TlsMinimum if settings.TlsMinimumMode is PolicyMode.ReportOnly else "",
    )


def settings_of(name: str, rows: Mapping[str, object]) -> Any:
    """Settings of a front end from what `declare.stored` made of them."""
    return declare.restored(KINDS[name].settings, rows)
