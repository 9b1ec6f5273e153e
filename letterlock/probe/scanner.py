"""sslyze, run as a program of its own, for versions, cipher suites and known faults of TLS implementations.

It is a well-kept scanner, and cannot live in our environment: it holds the cryptography library below a version that we
need, and its licence is the AGPL (docs/decisions/0005-sslyze-as-a-program.md). So it is looked for on the PATH, in
LETTERLOCK_SSLYZE, and where `make scan` puts it. What it writes is read like anything foreign: bounded, and only the
few fields that are needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

from letterlock.base.values import Protocol
from letterlock.probe import hello, tls_scan
from letterlock.probe.tls_scan import Versions
from letterlock.probe.walk import Place

MAX_REPORT: Final = 32 << 20
FAULTS: Final = ("Heartbleed", "ROBOT", "CcsInjection", "TlsCompression", "InsecureRenegotiation")
_STARTTLS: Final = {Protocol.IMAP4: "imap", Protocol.POP3: "pop3", Protocol.SMTP: "smtp"}
_VERSIONS: Final = {
    "ssl_2_0_cipher_suites": "SSLv2",
    "ssl_3_0_cipher_suites": "SSLv3",
    "tls_1_0_cipher_suites": "TLSv1.0",
    "tls_1_1_cipher_suites": "TLSv1.1",
    "tls_1_2_cipher_suites": "TLSv1.2",
    "tls_1_3_cipher_suites": "TLSv1.3",
}
_OPTIONS: Final = (
    *("--quiet", "--mozilla_config=disable", "--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3"),
    *("--heartbleed", "--openssl_ccs", "--robot", "--compression", "--reneg"),
)


class Scan(NamedTuple):
    """What the scanner found. Versions that it could not tell are not in `versions.offered`."""

    name: str  # "sslyze 6.3.1"
    versions: Versions
    faults: dict[str, bool | None]

    @property
    def complete(self) -> bool:
        """Every version of ours is told."""
        return set(hello.VERSIONS.values()) <= set(self.versions.offered)


def program() -> str | None:
    """Where sslyze is; None where it is not installed."""
    named = os.environ.get("LETTERLOCK_SSLYZE")
    if named is not None:
        return named if os.access(named, os.X_OK) else None
    beside = Path(sys.prefix).parent / ".venv-scan" / "bin" / "sslyze"
    return shutil.which("sslyze") or (str(beside) if os.access(beside, os.X_OK) else None)


async def all_of(place: Place, implicit: bool, deadline: float) -> tuple[str, Versions, dict[str, bool | None]]:
    """Who scanned, versions and suites, known faults: by the scanner where it is installed and has half of the time.

    What it does not tell, or all, by our own ClientHellos; faults are empty where there is no scanner.
    """
    now = asyncio.get_running_loop().time()
    found = await scan(place, implicit, now + (deadline - now) / 2)
    nothing: dict[str, bool | None] = {} if program() is None else dict.fromkeys(FAULTS)
    if found is not None and found.complete:
        return found.name, found.versions, found.faults
    own = await tls_scan.scan(place, implicit, deadline)
    if found is None:
        return "own", own, nothing
    more = {v: o for v, o in found.versions.offered.items() if own.offered.get(v) is None}
    suites = {**own.suites, **found.versions.suites}
    return found.name, own._replace(offered={**own.offered, **more}, suites=suites), found.faults


async def scan(place: Place, implicit: bool, deadline: float) -> Scan | None:
    """Run it; None where it is not installed, does not end in time, or says nothing that can be used."""
    path = program()
    if path is None or not place.addresses:
        return None
    with tempfile.TemporaryDirectory(prefix="letterlock-scan-") as folder:
        report = Path(folder) / "report.json"
        words = [path, *_OPTIONS, f"--json_out={report}"]
        if not implicit:
            words.append(f"--starttls={_STARTTLS[place.protocol]}")
        words.append(f"{place}{{{place.addresses[0].address}}}" if ":" not in place.name else str(place))
        if not await _run(words, deadline):
            return None
        return _read(report)


async def _run(words: list[str], deadline: float) -> bool:
    """Whether it ended by itself, and well; at the deadline it and its children are killed."""
    quiet = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *words, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
        )
    except OSError:
        return False
    try:
        async with asyncio.timeout_at(deadline):
            return await process.wait() == 0
    except TimeoutError:
        return False
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _read(path: Path) -> Scan | None:
    try:
        if path.stat().st_size > MAX_REPORT:
            return None
        return parse(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, RecursionError):
        return None


def parse(report: Any) -> Scan | None:
    """The report of one server; None where it holds no scan."""
    try:
        results = report["server_scan_results"][0]["scan_result"]
        version = str(report.get("sslyze_version", ""))[:20]
        if not isinstance(results, dict):
            return None
        return Scan(f"sslyze {version}".strip(), _versions(results), _faults(results))
    except (KeyError, IndexError, TypeError, AttributeError):
        return None


def _result(results: dict[str, Any], name: str) -> dict[str, Any] | None:
    attempt = results.get(name)
    if isinstance(attempt, dict) and attempt.get("status") == "COMPLETED" and isinstance(attempt.get("result"), dict):
        found: dict[str, Any] = attempt["result"]
        return found
    return None


def _versions(results: dict[str, Any]) -> Versions:
    offered: dict[str, bool | None] = {}
    suites: dict[str, tuple[str, ...]] = {}
    for key, name in _VERSIONS.items():
        found = _result(results, key)
        if found is None:
            continue
        accepted = [str(a["cipher_suite"]["name"])[:80] for a in found["accepted_cipher_suites"][:200]]
        offered[name] = bool(accepted)
        if accepted:
            suites[name] = tuple(accepted)
    return Versions(offered, suites, {})


def _faults(results: dict[str, Any]) -> dict[str, bool | None]:
    found: dict[str, bool | None] = dict.fromkeys(FAULTS)
    for name, key, field in (
        ("Heartbleed", "heartbleed", "is_vulnerable_to_heartbleed"),
        ("CcsInjection", "openssl_ccs_injection", "is_vulnerable_to_ccs_injection"),
        ("TlsCompression", "tls_compression", "supports_compression"),
    ):
        result = _result(results, key)
        if result is not None and isinstance(result.get(field), bool):
            found[name] = result[field]
    robot = _result(results, "robot")
    if robot is not None and not str(robot.get("robot_result")).startswith("UNKNOWN"):
        found["ROBOT"] = str(robot.get("robot_result")).startswith("VULNERABLE")
    renegotiation = _result(results, "session_renegotiation")
    if renegotiation is not None and isinstance(renegotiation.get("supports_secure_renegotiation"), bool):
        found["InsecureRenegotiation"] = not renegotiation["supports_secure_renegotiation"]
    return found
