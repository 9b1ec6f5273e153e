"""The service LetterlockAdmin: HTTPS for the administration, by uvicorn in the process of the server.

The application is made by whoever puts the parts together (app); here are its settings, listeners, TLS and times. What
uvicorn leaves open is closed by `_Protocol`: a header that never ends, a peer that does not read, more connections than
allowed, and pages of another origin's protocol on the always-TLS port (ALPN that is not http/1.1).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from letterlock import tls
from letterlock.base.errors import Refused
from letterlock.base.settings import AdminSettings
from letterlock.directory.certificates import Certificate, Certificates
from letterlock.directory.config import Config
from letterlock.runtime.listeners import Listeners

MAX_HEADER: Final = 16384
KEEP_ALIVE_S: Final = 15
DRAIN_S: Final = 10
_inside: contextvars.ContextVar[bool] = contextvars.ContextVar("inside an administration request", default=False)

# settings, host names → ASGI application
MakeApplication = Callable[[AdminSettings, frozenset[str]], Any]


class _Protocol(H11Protocol):
    """One connection, with the limits that uvicorn does not have."""

    limit = 100
    timeout_s = 30.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accepted."""
        super().connection_made(transport)
        if len(self.connections) > self.limit:
            transport.abort()
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """A request's header must be whole within the time that its first octet (or the connection) began."""
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._arm()
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._disarm()

    def on_response_complete(self) -> None:
        """From here on uvicorn's keep-alive timer counts."""
        self._disarm()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The peer does not read."""
        self._arm()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It reads again."""
        self._disarm()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is answered as every other failure, and the connection ends."""
        body = {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": msg}
        text = json.dumps(body).encode()
        head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nConnection: close\r\n"
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(head + b"Content-Length: %d\r\n\r\n%b" % (len(text), text))
        self.transport.close()

    def _arm(self) -> None:
        self._disarm()
        self._timer = self.loop.call_later(self.timeout_s, self.transport.abort)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Uvicorn(uvicorn.Server):
    """Signals belong to the server's own process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


class AdminService:
    """LetterlockAdmin: one start is one frozen copy of the settings, as with the mail services."""

    def __init__(
        self, config: Config, certificates: Certificates, warn: Callable[[str], None], make: MakeApplication
    ) -> None:
        self._config, self._certificates, self._warn, self._make = config, certificates, warn, make
        self.running = False
        self.settings: AdminSettings | None = None
        self._server: _Uvicorn | None = None
        self._task: asyncio.Task[None] | None = None
        self._tls: ssl.SSLContext | None = None
        self._draining: set[asyncio.Task[None]] = set()

    def _certificate(self, settings: AdminSettings) -> Certificate:
        return self._certificates.choose(settings.X509CertificateName, "IIS")[0]

    async def start(self) -> None:
        """Read and freeze the settings, build the TLS context, listen; all or nothing."""
        if self.running:
            return
        settings = self._config.settings(AdminSettings)
        certificate = self._certificate(settings)
        context = tls.server_context(certificate.file, certificate.key, ["http/1.1"])
        sockets = self._listen(settings)
        names = {settings.X509CertificateName, self._config.fqdn, self._config.server_name.lower()}
        names |= {b.address for b in settings.SSLBindings} | set(settings.AllowedHosts)
        names |= {d for d in certificate.domains if not d.startswith("*.")}
        protocol = type(
            "_Limited",
            (_Protocol,),
            {"limit": settings.MaxConnections, "timeout_s": float(settings.RequestTimeout.seconds)},
        )
        app = self._make(settings, frozenset(n.lower() for n in names if n))

        async def inside(scope: Any, receive: Any, send: Any) -> None:
            _inside.set(True)
            await app(scope, receive, send)

        config = uvicorn.Config(
            inside,
            http=protocol,
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
            h11_max_incomplete_event_size=MAX_HEADER,
        )
        config.load()
        config.ssl = context
        self._server, self._tls, self.settings = _Uvicorn(config), context, settings
        self._task = asyncio.create_task(self._server.serve(sockets))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0.005)
        if self._task.done():
            await self._task
            raise Refused("LetterlockAdmin did not start")
        self.running = True

    def _listen(self, settings: AdminSettings) -> list[socket.socket]:
        """All or nothing; uvicorn accepts by itself."""
        binder = Listeners("LetterlockAdmin", self._warn, lambda *_: None, lambda: False)
        found: list[socket.socket] = []
        try:
            for binding in settings.SSLBindings:
                sock = binder.bound(binding)
                if sock is not None:
                    found.append(sock)
        except Refused:
            for sock in found:
                sock.close()
            raise
        return found

    async def restart(self, force: bool) -> None:
        """Go on with the settings as they are now. `force`: sessions of HTTP are single requests, which end anyway."""
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        """Close the listeners, let running requests finish; one that stops the service does not wait for itself."""
        if not self.running or self._server is None or self._task is None:
            return
        self.running = False
        for listener in self._server.servers:
            listener.close()
        self._server.should_exit = True
        task, self._task, self._server, self._tls = self._task, None, None, None
        if _inside.get():
            self._draining.add(task)
            task.add_done_callback(self._draining.discard)
            return
        await asyncio.wait({task, *self._draining}, timeout=2 * DRAIN_S)

    def reload(self) -> None:
        """Choose and read certificate and key again: the next handshake uses them."""
        if self.running and self._tls is not None and self.settings is not None:
            certificate = self._certificate(self.settings)
            tls.reload(self._tls, certificate.file, certificate.key)
