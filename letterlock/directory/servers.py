"""The organisation: servers that know each other, and at which of them a mailbox lives.

For now all are on one machine: a server finds the others by their data directories, and asks their `letterlock.db` who
has a mailbox. Logins go to the other server's back-end port over TLS with certificates on both sides; each server has
a certificate for that alone, and knows the others' by heart (pinned at `join`).
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from letterlock.base.errors import LetterlockError, Refused
from letterlock.base.settings import ClientAccessSettings
from letterlock.directory.accounts import Account, Accounts
from letterlock.directory.config import Config

LIFETIME: Final = datetime.timedelta(days=3650)  # pinned, so that a replacement needs a new join


class Peer(NamedTuple):
    """A server of the organisation."""

    name: str
    fqdn: str
    data: Path
    certificate: str  # PEM; what it shows at its back-end port


class Servers:
    """The servers that one data directory knows, itself left out."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._version = -1
        self._peers: list[Peer] = []
        self._accounts: dict[Path, Accounts] = {}

    def all(self) -> list[Peer]:
        """By name."""
        version = self._config.version()
        if version != self._version:
            rows = self._config.db.execute("SELECT name, fqdn, data, certificate FROM server ORDER BY name")
            self._peers = [Peer(str(r[0]), str(r[1]), Path(str(r[2])), str(r[3])) for r in rows]
            self._version = version
        return self._peers

    def one(self, name: str) -> Peer | None:
        """By name or host name, in any case."""
        wanted = name.lower()
        return next((p for p in self.all() if wanted in (p.name.lower(), p.fqdn.lower())), None)

    def home(self, user: str) -> tuple[Peer, Account] | None:
        """The server where a mailbox lives that does not live here; None when no server has it."""
        for peer in self.all():
            accounts = self._of(peer)
            account = accounts.by_login(user) if accounts is not None else None
            if account is not None:
                return peer, account
        return None

    def port(self, peer: Peer, kind: type[ClientAccessSettings]) -> int:
        """ProxyTargetPort of another server; `Refused` when its settings cannot be read."""
        accounts = self._of(peer)
        if accounts is None:
            raise Refused(f"the server {peer.name} cannot be reached", b"UNAVAILABLE")
        return int(accounts.config.settings(kind).ProxyTargetPort)

    def _of(self, peer: Peer) -> Accounts | None:
        known = self._accounts.get(peer.data)
        if known is None:
            try:
                known = Accounts(Config.open(peer.data))
            except LetterlockError:
                return None
            self._accounts[peer.data] = known
        return known

    # --- this server's part

    @property
    def certificate(self) -> Path:
        """What this server shows to the others, made on first use; the key is beside it."""
        path = self._config.data / "certificates" / "server.pem"
        if not path.is_file():
            self._make(path)
        return path

    @property
    def key(self) -> Path:
        """Its key, 0600."""
        return self.certificate.with_suffix(".key")

    def _make(self, path: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._config.fqdn)])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(self._config.fqdn)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(path.with_suffix(".key"), private)
        _write(path, certificate.public_bytes(serialization.Encoding.PEM))

    def _add(self, peer: Peer, who: str) -> None:
        with self._config.transaction(who, f"join {peer.name}", None, {"Fqdn": peer.fqdn, "Data": str(peer.data)}):
            self._config.db.execute(
                "INSERT OR REPLACE INTO server VALUES (?, ?, ?, ?)",
                (peer.name, peer.fqdn, str(peer.data), peer.certificate),
            )

    def _as_peer(self) -> Peer:
        config = self._config
        return Peer(config.server_name, config.fqdn, config.data.resolve(), self.certificate.read_text())

    def join(self, other: Servers, who: str) -> list[str]:
        """Make both organisations one, durably; the names of the servers that this one knows now.

        `Refused` when two servers have one name, or two mailboxes one address.
        """
        mine, theirs = [self._as_peer(), *self.all()], [other._as_peer(), *other.all()]
        everybody = {p.data: p for p in (*mine, *theirs)}
        names = [p.name.lower() for p in everybody.values()]
        double = next((n for n in names if names.count(n) > 1), "")
        if double:
            raise Refused(f"two servers are named {double.upper()}; make one of them anew with another --server NAME")
        for account in Accounts(self._config).all():
            if Accounts(other._config).by_login(account.address) is not None:
                raise Refused(f"both servers have a mailbox {account.address}; remove one of them first")
        for peer in everybody.values():
            servers = self if peer.data == mine[0].data else Servers(Config.open(peer.data))
            known = {p.data for p in servers.all()}
            for another in everybody.values():
                if another.data != peer.data and another.data not in known:
                    servers._add(another, who)
        return [p.name for p in self.all()]


def _write(path: Path, data: bytes) -> None:
    """All or nothing, 0600, synced."""
    part = path.with_suffix(path.suffix + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
