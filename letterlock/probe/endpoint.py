"""What a live endpoint does before and after TLS, as facts for the analyzer's rules.

    facts = await probe_endpoint("mail.example.com", 993, Protocol.IMAP4, 60.0)

Every fact is an `EndpointFact` whose `name` is one of `NAMES` (docs/connectivity.md says what each means), plus one
`CertificateFact` for the certificate that was presented. What could not be found out is a fact with value None and the
reason in `detail`, never a missing one; missing is only what does not apply (nothing "before TLS" on an always-TLS
port, no LOGINDISABLED in POP3, no certificate without TLS). Nothing is judged here.

What a probe sends is harmless: greetings, capabilities, STARTTLS, handshakes, one pipelined NOOP. Whether a clear-text
log-on is refused is tried with an invented user name ("letterlock-probe-…") and a random password, never a real one;
it may show in the server's log as failed log-ons, at most one for each mechanism.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from letterlock.base.errors import Malformed
from letterlock.base.facts import CertificateFact, EndpointFact, Origin
from letterlock.base.values import Protocol, host_name
from letterlock.clients import imap, pop3, smtp
from letterlock.clients.imap import ImapClient
from letterlock.clients.outcomes import Failed, Outcome, quoted
from letterlock.clients.wire import recognise
from letterlock.probe import clear_login, handshake, hello, injection, scanner
from letterlock.probe.channel import Address, Resolve, resolve
from letterlock.probe.walk import PATIENCE_S, Place, presented, walking

STEP_S: Final = 10.0
IMPLICIT_PORTS: Final = frozenset({993, 995, 465})
PORTS: Final = {
    143: Protocol.IMAP4,
    993: Protocol.IMAP4,
    110: Protocol.POP3,
    995: Protocol.POP3,
    25: Protocol.SMTP,
    465: Protocol.SMTP,
    587: Protocol.SMTP,
}
_SERVICE: Final = {Protocol.IMAP4: "IMAP", Protocol.POP3: "POP", Protocol.SMTP: "SMTP"}
_GREETS: Final = {"IMAP": Protocol.IMAP4, "POP3": Protocol.POP3, "SMTP": Protocol.SMTP}
_MECHANISMS: Final = {
    Protocol.IMAP4: imap.MECHANISMS,
    Protocol.POP3: pop3.MECHANISMS,
    Protocol.SMTP: smtp.MECHANISMS,
}
_VERSION: Final = re.compile(r"(?<![\d.\[])\d{1,4}(?:\.\d{1,5}){1,4}(?![\d.])")
_PRODUCT: Final = re.compile(
    r"dovecot|microsoft exchange|microsoft esmtp|cyrus|courier|postfix|exim|sendmail|stalwart|apache james|zimbra"
    r"|hmailserver|mdaemon|kerio|gimap|qpopper|haraka|opensmtpd|letterlock",
    re.I,
)

Fact = EndpointFact | CertificateFact

# Every name that a fact of probe_endpoint can have, in the order in which they come.
CLEAR_NAMES: Final = ("STARTTLS", "CapabilitiesBeforeTls", "ClearTextOffers")
IMAP_NAMES: Final = ("LOGINDISABLED", "IdBeforeTls", "LOGINDISABLEDAfterTls")
CERTIFICATE_NAMES: Final = (
    "CertificateName",
    "CertificateTrusted",
    "CertificateInTime",
    "CertificateExpiry",
    "CertificateSelfSigned",
    "CertificateKey",
    "CertificateSignature",
)
TLS_NAMES: Final = ("NegotiatedVersion", "NegotiatedCipher", "CapabilitiesAfterTls")
SCAN_NAMES: Final = (*hello.VERSIONS.values(), "WeakCiphers", "CiphersWithoutForwardSecrecy")
NAMES: Final = (
    "Reachable",
    "ImplicitTls",
    "Greeting",
    "BannerProduct",
    "BannerVersion",
    *CLEAR_NAMES,
    *IMAP_NAMES,
    "ClearTextLogin",
    "NtlmUnadvertised",
    "STARTTLSInjection",
    *CERTIFICATE_NAMES,
    *TLS_NAMES,
    "AlpnStrict",
    "AnswersAfterHttp",
    *SCAN_NAMES,
    *(f"Ciphers {version}" for version in hello.VERSIONS.values()),
    "Scanner",
    "SSLv2",
    *scanner.FAULTS,
)


def parse_endpoint(text: str) -> list[tuple[str, int, Protocol | None]]:
    """`HOST[:PORT]` or `[IPV6][:PORT]`: what to probe. Without a port, the four of IMAP and POP3.

    The protocol is None where the port does not tell it: the greeting will. Raises `Malformed`.
    """
    wanted = text.strip()
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\s\[\]]+))(?::(\d{1,5}))?", wanted)
    if not found or (found[3] and not 0 < int(found[3]) < 65536):
        raise Malformed(f"'{text}' is not an endpoint; expected HOST, HOST:PORT or [IPv6 address]:PORT")
    host = found[1] or host_name(found[2])
    if found[3]:
        port = int(found[3])
        return [(host, port, PORTS.get(port))]
    return [(host, port, protocol) for port, protocol in PORTS.items() if protocol is not Protocol.SMTP]


async def probe_endpoint(
    host: str,
    port: int,
    protocol: Protocol | None,
    timeout: float,
    *,
    trust: Path | None = None,
    resolve: Resolve = resolve,
) -> list[Fact]:
    """Probe one endpoint; ends within about `timeout` seconds whatever the server does.

    `protocol` None: recognised by port or greeting. `trust`: a file with certificates that are trusted besides the
    system's. Failures of the endpoint are facts; only wrong arguments raise (`Malformed`, or `Refused` for `trust`).
    """
    deadline = asyncio.get_running_loop().time() + timeout
    probe = _Probe(host, port, protocol, trust, deadline)
    try:
        async with asyncio.timeout_at(deadline):
            addresses = await resolve(host)
    except TimeoutError:
        probe.unreachable(Failed(Outcome.NAME_SERVER_FAILED, host))
    except Failed as failure:
        probe.unreachable(failure)
    else:
        await probe.run(addresses)
    return probe.facts


class _Probe:
    """One endpoint's facts as they are found."""

    def __init__(self, host: str, port: int, protocol: Protocol | None, trust: Path | None, deadline: float) -> None:
        self.facts: list[Fact] = []
        self.deadline = deadline
        self.chain_only = handshake.verifying(trust, name=False)
        self.place = Place(protocol or PORTS.get(port, Protocol.IMAP4), host, (), port)
        self.guess = protocol is None and port not in PORTS
        self.implicit = False

    def fact(self, name: str, value: str | bool | None, detail: str = "") -> None:
        """Add one."""
        where = str(self.place)
        self.facts.append(EndpointFact(where, self.place.protocol, name, value, detail, Origin(where)))

    def unreachable(self, failure: Failed) -> None:
        """The only fact there is."""
        self.fact("Reachable", False, failure.text)

    @property
    def step_end(self) -> float:
        """A step's deadline."""
        return min(self.deadline, asyncio.get_running_loop().time() + STEP_S)

    async def run(self, addresses: list[Address]) -> None:
        """All steps; each adds its own facts, or None for those it could not find."""
        self.place = self.place._replace(addresses=tuple(addresses))
        try:
            if self.guess:
                self.place = self.place._replace(protocol=await self._recognise())
            await self._greeting()
        except Failed as failure:
            self.unreachable(failure)
            return
        imap4 = self.place.protocol is Protocol.IMAP4
        if not self.implicit:
            await self._step(CLEAR_NAMES + (IMAP_NAMES[:2] if imap4 else ()), self._clear)
            await self._step(("ClearTextLogin",), self._clear_login)
            await self._step(("NtlmUnadvertised",), self._ntlm)
            if self.value("STARTTLS"):
                await self._step(("STARTTLSInjection",), self._injection)
        if self.implicit or self.value("STARTTLS"):
            await self._step(CERTIFICATE_NAMES, self._certificate)
            await self._step(TLS_NAMES + (IMAP_NAMES[2:] if imap4 else ()), self._inside)
            if self.implicit:
                await self._step(("AlpnStrict",), self._alpn)
        await self._step(("AnswersAfterHttp",), self._http)
        if self.implicit or self.value("STARTTLS"):
            await self._step(SCAN_NAMES, self._scan)

    def value(self, name: str) -> str | bool | None:
        """What a fact says that was found already."""
        return next((f.value for f in self.facts if isinstance(f, EndpointFact) and f.name == name), None)

    async def _step(self, names: tuple[str, ...], work: Callable[[], Awaitable[None]]) -> None:
        why = "the server gave no answer that tells"
        try:
            await work()
        except Failed as failure:
            why = failure.text
        except (OSError, ssl.SSLError, EOFError):
            why = "the connection broke"
        if asyncio.get_running_loop().time() >= self.deadline:
            why = "the time for the probe was used up"
        have = {f.name for f in self.facts if isinstance(f, EndpointFact)}
        for name in names:
            if name not in have:
                self.fact(name, None, why)

    # --- before TLS

    async def _recognise(self) -> Protocol:
        """By the greeting, in clear or inside TLS."""
        for tls in (False, True):
            async with walking(self.place, self.step_end) as walk:
                await walk.connect()
                if tls:
                    await walk.handshake(handshake.unverified())
                end = min(self.step_end, asyncio.get_running_loop().time() + (STEP_S if tls else PATIENCE_S))
                try:
                    data = await walk.channel.read(end)
                except (TimeoutError, OSError):
                    continue
                found = recognise(data)
                if found in _GREETS:
                    return _GREETS[found]
                if found not in ("", "TLS") or tls:
                    raise Failed(Outcome.FOREIGN_GREETING, found or "an unknown one", data[:200])
        raise Failed(Outcome.NO_GREETING, str(self.place))

    async def _greeting(self) -> None:
        async with walking(self.place, self.step_end) as walk:
            await walk.connect()
            try:
                if self.place.port in IMPLICIT_PORTS:
                    await walk.handshake(handshake.unverified())
                    self.implicit = True
                greeting = await walk.greeting()
            except Failed as failure:
                other = (Outcome.CLEAR_ON_TLS_PORT, Outcome.TLS_ON_CLEAR_PORT)
                if failure.outcome not in other:
                    raise
                self.implicit = failure.outcome is Outcome.TLS_ON_CLEAR_PORT
                async with walking(self.place, self.step_end) as second:
                    await second.connect()
                    if self.implicit:
                        await second.handshake(handshake.unverified())
                    greeting = await second.greeting()
        self.fact("Reachable", True, walk.channel.where)
        self.fact("ImplicitTls", self.implicit)
        self.fact("Greeting", quoted(greeting.text)[1:-1])
        product, version = _PRODUCT.search(greeting.text), _VERSION.search(greeting.text)
        self.fact("BannerProduct", product[0] if product else "")
        self.fact("BannerVersion", version[0] if version else "")

    async def _clear(self) -> None:
        async with walking(self.place, self.step_end) as walk:
            await walk.connect()
            await walk.greeting()
            found = await walk.ask(walk.client.capability())
            self.fact("CapabilitiesBeforeTls", _joined(found))
            starttls = "STLS" if self.place.protocol is Protocol.POP3 else "STARTTLS"
            self.fact("STARTTLS", starttls in found)
            self.fact("ClearTextOffers", ", ".join(walk.client.mechanisms()))
            if isinstance(walk.client, ImapClient):
                self.fact("LOGINDISABLED", "LOGINDISABLED" in found)
                told = await walk.ask(walk.client.identify()) if "ID" in found else ""
                self.fact("IdBeforeTls", quoted(told)[1:-1])

    async def _clear_login(self) -> None:
        """Each mechanism on a connection of its own, until one is processed."""
        said: list[str] = []
        results: list[bool | None] = []
        for mechanism in _MECHANISMS[self.place.protocol]:
            async with walking(self.place, self.step_end) as walk:
                await walk.connect()
                await walk.greeting()
                await walk.ask(walk.client.capability())
                processed, words = await clear_login.try_login(walk, mechanism)
            results.append(processed)
            said.append(f"{mechanism}: {words}")
            if processed:
                break
        value = True if True in results else None if None in results else False
        self.fact("ClearTextLogin", value, "; ".join(said))

    async def _ntlm(self) -> None:
        """Exchange was seen to start NTLM without announcing it, which tells its names and build."""
        async with walking(self.place, self.step_end) as walk:
            await walk.connect()
            await walk.greeting()
            found = await walk.ask(walk.client.capability())
            if any("NTLM" in line for line in found):
                self.fact("NtlmUnadvertised", False, "NTLM is announced")
                return
            try:
                challenge = await walk.ask(walk.client.challenge("NTLM"))
            except Failed as failure:
                if failure.outcome is not Outcome.CONNECTION_LOST:
                    raise
                challenge = None
            self.fact("NtlmUnadvertised", challenge is not None)

    async def _injection(self) -> None:
        async with walking(self.place, self.step_end) as walk:
            vulnerable, words = await injection.starttls_injection(walk)
        self.fact("STARTTLSInjection", vulnerable, words)

    # --- TLS

    async def _certificate(self) -> None:
        der = await presented(self.place, self.implicit, self.step_end)
        certificate = handshake.load(der) if der else None
        if certificate is None:
            raise Failed(Outcome.CERTIFICATE_INVALID, "it could not be read")
        fact = handshake.fact(certificate, (_SERVICE[self.place.protocol],), Origin(str(self.place)))
        self.facts.append(fact)
        self.fact("CertificateName", handshake.matches(certificate, self.place.name), ", ".join(fact.names[:20]))
        late, early = handshake.out_of_time(certificate)
        self.fact("CertificateInTime", not (late or early), "expired" if late else "not valid yet" if early else "")
        self.fact("CertificateExpiry", handshake.date(certificate.not_valid_after_utc))
        self.fact("CertificateSelfSigned", fact.self_signed)
        self.fact("CertificateKey", fact.key)
        self.fact("CertificateSignature", handshake.signature(certificate))
        async with walking(self.place, self.step_end) as walk:
            try:
                await walk.secure(self.chain_only, self.implicit)
            except Failed as failure:
                if failure.outcome not in handshake.CERTIFICATE:
                    raise
                self.fact("CertificateTrusted", False, failure.text)
            else:
                self.fact("CertificateTrusted", True)

    async def _inside(self) -> None:
        async with walking(self.place, self.step_end) as walk:
            await walk.secure(handshake.unverified(), self.implicit)
            tls = walk.channel.tls
            cipher = tls.cipher() if tls is not None else None
            self.fact("NegotiatedVersion", (tls.version() or "") if tls is not None else "")
            self.fact("NegotiatedCipher", cipher[0] if cipher else "")
            found = await walk.ask(walk.client.capability())
            self.fact("CapabilitiesAfterTls", _joined(found))
            if self.place.protocol is Protocol.IMAP4:
                self.fact("LOGINDISABLEDAfterTls", "LOGINDISABLED" in found)

    async def _alpn(self) -> None:
        """A client that offers only another protocol must not be served (ALPACA; RFC 7301 §3.2)."""
        async with walking(self.place, self.step_end) as walk:
            await walk.connect()
            try:
                await walk.handshake(handshake.unverified(["http/1.1"]))
                greeting = await walk.ask(walk.client.greeting(), Outcome.NO_GREETING)
            except Failed as failure:
                if failure.outcome is Outcome.NO_GREETING:
                    raise
                self.fact("AlpnStrict", True, f"not served: {failure.outcome.value}")
            else:
                self.fact("AlpnStrict", False, f"a client that offers only http/1.1 was greeted with {greeting.text!r}")

    async def _http(self) -> None:
        async with walking(self.place, self.step_end) as walk:
            await walk.connect()
            if self.implicit:
                await walk.handshake(handshake.unverified())
            await walk.greeting()
            self.fact("AnswersAfterHttp", await injection.answers_after_http(walk))

    async def _scan(self) -> None:
        name, found, faults = await scanner.all_of(self.place, self.implicit, self.deadline)
        self.fact("Scanner", name)
        for fault, there in faults.items():
            self.fact(fault, there, "" if there is not None else "sslyze could not tell")
        weak: list[str] = []
        old: list[str] = []
        for version, offered in found.offered.items():
            self.fact(version, offered, found.why.get(version, ""))
            suites = found.suites.get(version, ())
            if offered:
                self.fact(f"Ciphers {version}", ", ".join(suites), found.why.get(version, ""))
            weak += [f"{suite} ({version})" for suite in suites if hello.weak(suite)]
            old += [f"{suite} ({version})" for suite in suites if not hello.forward_secret(suite)]
        if any(found.offered.values()):
            self.fact("WeakCiphers", ", ".join(weak))
            self.fact("CiphersWithoutForwardSecrecy", ", ".join(old))


def _joined(capabilities: frozenset[str]) -> str:
    return quoted("; ".join(sorted(capabilities)))[1:-1]
