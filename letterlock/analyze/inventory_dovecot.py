"""Dovecot's configuration as the settings that rules know: LoginType, bindings, limits.

- `ssl = required`: SecureLogin (other logins without TLS are refused);
- `disable_plaintext_auth = yes`, `auth_allow_cleartext = no`: SecureLogin, or PlainTextAuthentication where a mechanism
  that hides the password is offered;
- `disable_plaintext_auth = no`, `auth_allow_cleartext = yes`: PlainTextLogin;
- `inet_listener` with its `ssl`, `port` and `address`, and `listen`: SSLBindings and UnencryptedOrTLSBindings;
- `mail_max_userip_connections`: MaxConnectionsPerUser;
- `process_limit`, `client_limit` and `service_count` of the login service: MaxConnections.

`doveconf -n` shows what differs from the defaults, so what is not there has its default; defaults are those of the
version in its head (TLS 1.0 was the floor before 2.3.15).
"""

from __future__ import annotations

import re
from typing import Final

from letterlock.analyze.inventory import MailService, System, Thing
from letterlock.base.facts import SettingFact
from letterlock.base.values import MAX_INT, Protocol

_PLAIN: Final = frozenset({"plain", "login", "xoauth2", "oauthbearer", "external", "anonymous"})
_NAMES: Final = {Protocol.IMAP4: ("imap", "imaps", 143, 993), Protocol.POP3: ("pop3", "pop3s", 110, 995)}


class _Configuration:
    """Settings with the defaults of their version."""

    def __init__(self, thing: Thing) -> None:
        self.thing = thing
        self.version = self.text("version")
        config = self.text("dovecot_config_version")
        numbers = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", self.version or config)
        self.number = tuple(int(n or 0) for n in numbers.groups()) if numbers else (2, 3, 19)
        self.version = self.version or config

    def text(self, name: str, default: str = "") -> str:
        """A setting of the top level or by path."""
        fact = self.thing.get(name)
        return str(fact.value) if fact is not None and fact.value is not None else default

    def words(self, name: str, default: str) -> set[str]:
        """A list of words, or a block of `word = yes`."""
        inside = {
            path.removeprefix(f"{name}/")
            for path, fact in self.thing.facts.items()
            if path.startswith(f"{name}/") and str(fact.value).lower() == "yes"
        }
        return inside or set(self.text(name, default).lower().split())

    def under(self, path: str) -> dict[str, str]:
        """The settings directly below a block."""
        found = {}
        for name, fact in self.thing.facts.items():
            if name.startswith(path + "/") and "/" not in name[len(path) + 1 :]:
                found[name[len(path) + 1 :]] = str(fact.value)
        return found


def translated(system: System, thing: Thing) -> None:
    """Add the mail services of a configuration to its system."""
    c = _Configuration(thing)
    system.version = c.version
    protocols = c.words("protocols", "imap pop3 lmtp")
    if "none" in protocols:
        protocols = set()
    for protocol, (name, _, _, _) in _NAMES.items():
        # 1.x and old configurations name imaps as a protocol
        if name in protocols or f"{name}s" in protocols:
            system.mail.append(_service(system, c, protocol))


def _service(system: System, c: _Configuration, protocol: Protocol) -> MailService:
    kind = "ImapSettings" if protocol is Protocol.IMAP4 else "PopSettings"
    thing = Thing(kind, system.name, system.name)

    def put(name: str, value: str | int | bool | tuple[str, ...], *paths: str, spelled: str = "") -> None:
        source = next((f for p in paths if (f := c.thing.get(p)) is not None), None)
        origin = source.origin if source else c.thing.origin._replace(line=0)
        thing.facts[name.lower()] = SettingFact(kind, system.name, name, value, origin)
        if spelled:
            thing.spelled[name.lower()] = spelled

    clear, always = _listeners(c, protocol)
    put("UnencryptedOrTLSBindings", clear, spelled=f"listening without TLS at first: {', '.join(clear) or 'nothing'}")
    put("SSLBindings", always, spelled=f"listening with TLS from the first byte: {', '.join(always) or 'nothing'}")
    login, spelled = _login_type(c, protocol)
    put("LoginType", login, "ssl", "disable_plaintext_auth", "auth_allow_cleartext", spelled=spelled)
    floor = c.text("ssl_min_protocol", "TLSv1.2" if c.number >= (2, 3, 15) else "TLSv1")
    name = "ssl_min_protocol"
    given = name in c.thing.facts
    put("TlsMinimum", {"ANY": "1.0", "SSLv3": "1.0", "LATEST": "1.3"}.get(floor, floor), name,
        spelled=f"{name} = {floor}" + ("" if given else f" (the default of "
                                                        f"{c.version or 'this version'})"))  # fmt: skip
    block = f"protocol {'imap' if protocol is Protocol.IMAP4 else 'pop3'}"
    per_user = c.text(f"{block}/mail_max_userip_connections", c.text("mail_max_userip_connections", "10"))
    put("MaxConnectionsPerUser", per_user, "mail_max_userip_connections",
        spelled=f"mail_max_userip_connections = {per_user} (of one user from one address)")  # fmt: skip
    most, how = _connections(c, protocol)
    put("MaxConnections", most, spelled=how)
    put("Banner", c.text("login_greeting", "Dovecot ready."), "login_greeting",
        spelled=f"login_greeting = {c.text('login_greeting', 'Dovecot ready.')}")  # fmt: skip
    return MailService(system, protocol, thing)


def _login_type(c: _Configuration, protocol: Protocol) -> tuple[str, str]:
    block = f"protocol {'imap' if protocol is Protocol.IMAP4 else 'pop3'}"
    ssl = c.text(f"{block}/ssl", c.text("ssl", "yes")).lower()
    new, old = c.thing.get("auth_allow_cleartext"), c.thing.get("disable_plaintext_auth")
    if new is not None:
        allowed, said = str(new.value).lower() == "yes", f"auth_allow_cleartext = {new.value}"
    elif old is not None:
        allowed, said = str(old.value).lower() == "no", f"disable_plaintext_auth = {old.value}"
    else:
        name = "auth_allow_cleartext = no" if c.number >= (2, 4) else "disable_plaintext_auth = yes"
        allowed, said = False, f"{name} (the default)"
    if ssl == "required":
        return "SecureLogin", f"ssl = required, {said}"
    if allowed:
        return "PlainTextLogin", f"ssl = {ssl}, {said}"
    hidden = sorted(c.words("auth_mechanisms", "plain") - _PLAIN)
    if hidden:
        return "PlainTextAuthentication", f"ssl = {ssl}, {said}, auth_mechanisms with {', '.join(hidden)}"
    return "SecureLogin", f"ssl = {ssl}, {said}"


def _listeners(c: _Configuration, protocol: Protocol) -> tuple[tuple[str, ...], tuple[str, ...]]:
    name, tls_name, clear_port, tls_port = _NAMES[protocol]
    service = f"service {name}-login"
    known: dict[str, dict[str, str]] = {
        name: {"port": str(clear_port), "ssl": "no"},
        tls_name: {"port": str(tls_port), "ssl": "yes"},
    }
    for path in c.thing.facts:
        if path.startswith(f"{service}/inet_listener "):
            listener = path.split("/")[1]
            known.setdefault(listener.removeprefix("inet_listener "), {"port": "0", "ssl": "no"}).update(
                c.under(f"{service}/{listener}")
            )
    # `ssl = no` switches TLS off at the always-TLS ports as well: they do not listen then
    without = c.text(f"protocol {name}/ssl", c.text("ssl", "yes")).lower() == "no"
    clear: list[str] = []
    always: list[str] = []
    for one in known.values():
        if one["port"] == "0" or not one["port"].isdigit() or (without and one["ssl"] == "yes"):
            continue
        for address in re.split(r"[\s,]+", one.get("address") or one.get("listen") or c.text("listen", "*, ::")):
            shown = {"*": "0.0.0.0"}.get(address, address)  # noqa: S104 - as configured there
            if shown:
                bound = f"[{shown}]:{one['port']}" if ":" in shown else f"{shown}:{one['port']}"
                (always if one["ssl"] == "yes" else clear).append(bound)
    return tuple(clear), tuple(always)


def _connections(c: _Configuration, protocol: Protocol) -> tuple[int, str]:
    """Logins at a time: processes, times clients of each unless a process serves one only."""
    name = "imap-login" if protocol is Protocol.IMAP4 else "pop3-login"
    block = c.under(f"service {name}")

    def number(setting: str, default: str) -> int:
        text = block.get(setting) or "0"
        if text in ("0", "default"):
            text = c.text(f"default_{setting}", default)
        return int(text) if text.isdigit() and len(text) < 10 else MAX_INT

    processes, clients = number("process_limit", "100"), number("client_limit", "1000")
    once = block.get("service_count", "1") == "1"
    most = min(MAX_INT, processes * (1 if once else clients))
    how = f"{name}: process_limit {processes}" + ("" if once else f", client_limit {clients}")
    return max(most, 1), f"{how}: {most} connections before log-on at a time"
