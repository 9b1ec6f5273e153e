"""Logins for mailboxes of other servers: the front end hands the client over to that server's back-end port.

The line between two servers is TLS with certificates on both sides, each pinned. The front end sends one line of JSON,
who logs in, how, from where and over which TLS; the back end verifies and answers one line. From then on it speaks the
protocol to the client, and the front end passes octets on in both directions, each waiting while the other is slow.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from typing import TYPE_CHECKING, Any, Final

from letterlock.base.errors import LetterlockError, Refused
from letterlock.base.values import Protocol, Tls
from letterlock.policy.login import LOGIN, LOGIN_COMMAND, PLAIN, USER_PASS, Channel, LoginAttempt, LoginRules
from letterlock.session import Next, Password, Stop, Welcome

if TYPE_CHECKING:
    from letterlock.directory.servers import Peer
    from letterlock.runtime.connection import Connection
    from letterlock.runtime.engine import Engine
    from letterlock.runtime.host import ConnectionHost

MAX_LINE: Final = 16384
ANSWER_S: Final = 30.0
MECHANISMS: Final = {m.name.decode(): m for m in (LOGIN_COMMAND, USER_PASS, PLAIN, LOGIN)}
UNREACHABLE: Final = "the mailbox server is not reachable; please try again later"


def pin(pem: str) -> bytes:
    """A certificate as the other side shows it."""
    return ssl.PEM_cert_to_DER_cert(pem)


def client_context(engine: Engine, peer: Peer, strict: bool, alpn: str) -> ssl.SSLContext:
    """For the way to a back end. `strict` (EnforceCertificateErrors): name and dates must be right besides the pin."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # both sides are ours
    context.check_hostname = strict
    context.verify_mode = ssl.CERT_REQUIRED if strict else ssl.CERT_NONE  # the pin is compared in either case
    context.load_verify_locations(cadata=peer.certificate)
    context.load_cert_chain(engine.servers.certificate, engine.servers.key)
    context.set_alpn_protocols([alpn])
    return context


def server_context(engine: Engine, alpn: str) -> ssl.SSLContext:
    """For the back-end port: nobody but the organisation's servers gets through the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(engine.servers.certificate, engine.servers.key)
    context.verify_mode = ssl.CERT_REQUIRED
    for peer in engine.servers.all():
        context.load_verify_locations(cadata=peer.certificate)
    context.set_alpn_protocols([alpn])
    return context


class BackEnd(asyncio.Protocol):
    """The front end's line to another server."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._line = bytearray()
        self._answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._session: RelaySession | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done."""
        self.transport = transport  # type: ignore[assignment]

    async def ask(self, request: dict[str, Any], certificate: str) -> dict[str, Any]:
        """Hand over; the back end's answer. `Refused` when it is not the pinned one, or goes away."""
        shown = self.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if shown != pin(certificate):
            raise Refused(UNREACHABLE, b"UNAVAILABLE")
        self.transport.write(json.dumps(request).encode() + b"\n")
        try:
            return await asyncio.wait_for(self._answer, ANSWER_S)
        except (TimeoutError, ConnectionError, ValueError):
            raise Refused(UNREACHABLE, b"UNAVAILABLE") from None

    def data_received(self, data: bytes) -> None:
        """The answer, and then the protocol."""
        if self._session is not None:
            self._session.from_back_end(data)
            return
        self._line += data
        line, end, rest = self._line.partition(b"\n")
        if end and not self._answer.done():
            try:
                self._answer.set_result(dict(json.loads(line)))
            except ValueError as error:
                self._answer.set_exception(error)
            self._line = bytearray(rest)
        elif len(self._line) > MAX_LINE:
            self.transport.abort()

    def take_over(self, session: RelaySession) -> None:
        """From now on what arrives is for the client."""
        self._session = session
        if self._line:
            session.from_back_end(bytes(self._line))
            self._line.clear()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The back end has gone, or has said goodbye."""
        if not self._answer.done():
            self._answer.set_exception(exc if isinstance(exc, ConnectionError) else ConnectionResetError())
            self._answer.exception()  # seen, also when nobody waits
        if self._session is not None:
            self._session.back_end_gone()

    def pause_writing(self) -> None:
        """The back end is slow: the client waits."""
        if self._session is not None:
            self._session.connection.transport.pause_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._session is not None:
            self._session.connection.transport.resume_reading()


class RelaySession:
    """Takes the place of a session that was handed over (letterlock.session.Session)."""

    authenticated = True
    idling = False

    def __init__(self, old: Any, back_end: BackEnd, connection: Connection, unread: bytes) -> None:
        self.out: list[bytes] = []
        self.host: ConnectionHost = old.host
        self.user: str = old.user
        self.timeout: float = old.timeout + 5  # the back end says goodbye first
        self.back_end, self.connection = back_end, connection
        self._gone = False
        if unread:
            back_end.transport.write(unread)

    def greet(self) -> None:
        """Was done."""

    def secured(self, channel: Channel) -> None:
        """Was done."""

    def changed(self) -> None:
        """The back end tells."""

    def receive(self, data: bytes) -> None:
        """From the client."""
        if data:
            self.back_end.transport.write(data)
        else:
            self.back_end.transport.close()
            self._gone = True

    def from_back_end(self, data: bytes) -> None:
        """For the client."""
        self.out.append(data)
        self.connection.hint()
        if self.out or self.connection.slow:
            self.back_end.transport.pause_reading()

    def back_end_gone(self) -> None:
        """No more can come."""
        self._gone = True
        self.connection.hint()

    async def advance(self) -> Next:
        """Pass on; wait while the client is slow."""
        await self.host.drain()
        if not self._gone:
            self.back_end.transport.resume_reading()
        return Next.CLOSE if self._gone else Next.READ

    async def enter(self, welcome: Welcome) -> None:
        """Was done."""

    def unread(self) -> bytes:
        """Everything was passed on."""
        return b""

    def stop(self, why: Stop) -> None:
        """What is under way is not known here, so that a goodbye could end up inside a message: it is just closed."""
        self._gone = True

    def ended(self) -> None:
        """The client has gone."""
        self.back_end.transport.close()
        self.host.watch(None)


async def hand_over(host: ConnectionHost, peer: Peer, attempt: LoginAttempt, password: Password) -> BackEnd:
    """Log in at the mailbox's home; `Refused` with what it said, or when it cannot be reached."""
    engine, service = host.service.engine, host.service
    channel = attempt.channel
    request = {
        "protocol": attempt.protocol.value,
        "user": attempt.user,
        "password": base64.b64encode(password.reveal()).decode(),
        "mechanism": attempt.mechanism.name.decode(),
        "tls": channel.tls.value,
        "version": channel.version,
        "cipher": channel.cipher,
        "peer": [channel.peer, channel.peer_port],
        "local": [channel.local, channel.local_port],
        "protected": channel.protected,
    }
    strict = bool(service.settings.EnforceCertificateErrors)
    try:
        context = client_context(engine, peer, strict, f"letterlock-{service.kind.alpn}")
        port = engine.servers.port(peer, service.kind.settings)
        _, back_end = await asyncio.wait_for(
            asyncio.get_running_loop().create_connection(
                BackEnd, "127.0.0.1", port, ssl=context, server_hostname=peer.fqdn
            ),
            ANSWER_S,
        )
    except (OSError, TimeoutError) as error:
        reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or type(error).__name__
        engine.warn(f"{service.name}: the back end of {peer.name} is not reachable: {reason}")
        raise Refused(UNREACHABLE, b"UNAVAILABLE") from None
    try:
        answer = await back_end.ask(request, peer.certificate)
        if not answer.get("ok"):
            raise Refused(str(answer.get("text", UNREACHABLE)), str(answer.get("code", "UNAVAILABLE")).encode())
    except BaseException:
        back_end.transport.close()
        raise
    return back_end


class HandedOver:
    """The back end's session: reads the front end's line, then is the protocol's own session, logged in."""

    idling = False

    def __init__(
        self, settings: Any, host: ConnectionHost, channel: Channel, rules: LoginRules, starttls: bool
    ) -> None:
        self.settings, self.host, self.rules = settings, host, rules
        self.out: list[bytes] = []
        self.timeout: float = ANSWER_S
        self.authenticated = False
        self.user = ""
        self._buffer = bytearray()
        self._eof = False

    def greet(self) -> None:
        """The front end begins."""

    def secured(self, channel: Channel) -> None:
        """The handshake has shown that it is one of ours."""

    def changed(self) -> None:
        """Nothing is open yet."""

    async def enter(self, welcome: Welcome) -> None:
        """The protocol's own session is."""

    def unread(self) -> bytes:
        """Goes to the protocol's own session."""
        return b""

    def stop(self, why: Stop) -> None:
        """Nothing to say."""
        self._eof = True

    def ended(self) -> None:
        """Gone."""
        self.host.watch(None)

    def receive(self, data: bytes) -> None:
        """From the front end."""
        if data:
            self._buffer += data
        else:
            self._eof = True

    async def advance(self) -> Next:
        """The one line."""
        line, end, rest = self._buffer.partition(b"\n")
        if not end or self._eof:
            return Next.CLOSE if self._eof or len(self._buffer) > MAX_LINE else Next.READ
        try:
            await self._log_in(json.loads(line), bytes(rest))
        except LetterlockError as error:
            code = getattr(error, "code", b"").decode()
            self.out.append(json.dumps({"ok": False, "code": code, "text": error.text}).encode() + b"\n")
            return Next.CLOSE
        return Next.READ

    async def _log_in(self, request: dict[str, Any], rest: bytes) -> None:
        channel = Channel(
            tls=Tls(request["tls"]),
            version=str(request["version"]),
            cipher=str(request["cipher"]),
            peer=str(request["peer"][0]),
            peer_port=int(request["peer"][1]),
            local=str(request["local"][0]),
            local_port=int(request["local"][1]),
            trusted_hop=True,
            client_tls=bool(request["protected"]),
        )
        self.host.connection.channel = channel
        mechanism = MECHANISMS[request["mechanism"]]
        attempt = LoginAttempt(Protocol(request["protocol"]), channel, mechanism, str(request["user"]))
        welcome = await self.host.log_in(attempt, Password(base64.b64decode(request["password"])))
        session = self.host.service.kind.session(self.settings, self.host, channel, self.rules, False)
        session.out.append(json.dumps({"ok": True, "mailbox": welcome.mailbox}).encode() + b"\n")
        await session.enter(welcome)
        session.receive(rest) if rest else None
        self.host.connection.session = session
