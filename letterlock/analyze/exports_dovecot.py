"""`doveconf -n` of Dovecot 2.3 and 2.4: nested blocks and settings, each with its path, as facts of kind "Dovecot".

    service imap-login {                    service imap-login/inet_listener imaps/port = 993
      inet_listener imaps {
        port = 993

Blocks that apply to some connections only (`protocol imap`, `remote 192.0.2.0/24`, `local …`) keep their place in the
path. Passwords and keys never become facts.
"""

from __future__ import annotations

import re
from typing import Final

from letterlock.analyze.exports_kinds import Value
from letterlock.base.facts import Origin, SettingFact

_VERSION: Final = re.compile(r"#\s*(\d+\.\d+[\w.]*)\s*\([0-9a-f]+\)\s*:?\s*(\S*)")
_HOST: Final = re.compile(r"#\s*Hostname:\s*(\S+)")
_BLOCK: Final = re.compile(r"([a-z_][\w-]*)(?:\s+(\S.*?))?\s*\{\Z")
_SETTING: Final = re.compile(r"([A-Za-z_][\w/.-]*)\s*=\s?(.*)\Z")
_QUOTE: Final = re.compile(r"\s*(?:>\s?)+(?=\s*\S)")
_SECRET: Final = re.compile(r"(?:^|_)(?:password|passwd|secret|nonce|key)$|args$|dhparam", re.I)
_TELLS: Final = re.compile(
    r"^\s*(?:>\s*)?(?:(?:service|protocol|passdb|userdb|namespace|inet_listener|remote|local|plugin|ssl_server)\b[^=\n]*\{\s*$"
    r"|(?:ssl|disable_plaintext_auth|auth_allow_cleartext|mail_location|mail_driver|dovecot_config_version|ssl_min_protocol"
    r"|auth_mechanisms|protocols|ssl_cert|ssl_key|ssl_server_cert_file|listen|login_trusted_networks)\s*=)",
    re.M,
)
MAX_DEPTH: Final = 20


def looks_like(text: str) -> bool:
    """Whether this is Dovecot's configuration: its header, or two of its lines."""
    return bool(_VERSION.match(text)) or len(_TELLS.findall(text[: 1 << 20])) > 1


def read(lines: list[str], source: str) -> tuple[list[SettingFact], list[tuple[int, str]]]:
    """Facts, and (line, sentence) for what was not understood."""
    version, host = "", ""
    path: list[str] = []
    rows: list[tuple[str, Value, int]] = []
    problems: list[tuple[int, str]] = []
    for number, full in enumerate(lines, 1):
        quote = _QUOTE.match(full)
        line = (full[quote.end() :] if quote else full).strip()
        if line.startswith("#"):
            found, named = _VERSION.match(line), _HOST.match(line)
            version = found[1] if found and not version else version
            host = named[1] if named and not host else host
        elif line == "}":
            if path:
                path.pop()
            else:
                problems.append((number, "closes a block that was not opened"))
        elif block := _BLOCK.match(line):
            path.append(block[1] + (f" {block[2]}" if block[2] else ""))
            if len(path) > MAX_DEPTH:
                return [], [(number, "is nested too deeply")]
            rows.append(("/".join(path), True, number))
        elif setting := _SETTING.match(line):
            name = setting[1]
            secret = _SECRET.search(name) and name not in ("auth_verbose_passwords", "auth_debug_passwords")
            value = "***" if secret and setting[2] else setting[2].strip().strip('"')
            rows.append(("/".join([*path, name]), value, number))
        elif line and not line.startswith(("```", "doveconf", "$", "!include", "[")):
            problems.append((number, "is not a line of doveconf"))
    if path:
        problems.append((len(lines), f"ends inside of '{path[-1]} {{'"))
    facts = [SettingFact("Dovecot", host, name, value, Origin(source, line, host)) for name, value, line in rows]
    facts.append(SettingFact("Dovecot", host, "version", version, Origin(source, 1, host)))
    return facts, problems
