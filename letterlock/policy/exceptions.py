"""Login exceptions: the one printer that cannot do better keeps working while everybody else is protected.

Narrow by design: an address range and an expiry are always there; mailbox and mechanism narrow it further. An exception
never widens what LoginType allows anyway, and never goes for a login that it does not name.
"""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple

from letterlock.base.errors import Malformed
from letterlock.base.values import Protocol

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

WIDEST_IPV4: Final = 24  # 256 addresses: a room of printers, not an office
WIDEST_IPV6: Final = 64
LONGEST_S: Final = 366 * 86400.0
WARN_S: Final = 14 * 86400.0  # an exception that ends sooner is warned of
UNUSED_S: Final = 30 * 86400.0  # one that was not used for so long is reported


class LoginException(NamedTuple):
    """One exception."""

    identity: str
    protocol: Protocol
    ranges: tuple[Network, ...]
    mailbox: str  # primary address; "": any mailbox
    mechanisms: tuple[str, ...]  # names as in policy.login; none: any
    clear_text: bool  # lets logins without TLS pass
    tls_minimum: str  # "1.0", "1.1", "1.2": the floor for these clients; "": as everybody's
    expires: float  # seconds since 1970
    owner: str = ""
    reason: str = ""
    created: float = 0.0
    names: tuple[str, ...] = ()  # in lower case: what else the mailbox logs in as

    def contains(self, address: str) -> bool:
        """Whether `address` is in its ranges; IPv4-mapped IPv6 counts as IPv4."""
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
        wanted = mapped or parsed
        return any(wanted.version == r.version and wanted in r for r in self.ranges)

    def covers(self, protocol: Protocol, address: str, mechanism: str, user: str) -> bool:
        """Whether it is for such a login. An empty user is one that is not known yet: it may turn out to be."""
        return (
            protocol is self.protocol
            and (not self.mechanisms or mechanism in self.mechanisms)
            and (not self.mailbox or not user or user.lower() in (self.mailbox.lower(), *self.names))
            and self.contains(address)
        )

    def active(self, at: float) -> bool:
        """Not expired at `at`, seconds since 1970."""
        return at < self.expires


def parse_range(text: str) -> Network:
    """An address or CIDR range, no wider than a /24 or an IPv6 /64; `Malformed` says what is allowed."""
    try:
        network = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise Malformed(f"'{text}' is not an address or a range such as 10.1.2.0/28") from None
    widest = WIDEST_IPV4 if network.version == 4 else WIDEST_IPV6
    if network.prefixlen < widest:
        raise Malformed(f"{network} is too wide for an exception; the widest allowed is /{widest}")
    return network
