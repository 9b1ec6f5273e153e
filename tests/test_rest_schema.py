"""schemathesis against the live REST interface: no server error, and nothing that the document does not say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.rest_server import ADMIN, RestServer

SECONDS = 40
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)
# They would stop the service under test, log on as nobody again and again (throttled), or reach for other hosts.
LEFT_OUT = "/login$|Stop-Service|Restart-Service|Test-|Invoke-Analyzer"


def test_no_server_error_and_no_undocumented_answer(tmp_path: Path) -> None:
    server = RestServer(tmp_path)
    server.start()
    try:
        program = Path(sys.executable).parent / "schemathesis"
        command = [str(program), "run", f"{server.url}/api/v1/openapi.json", "--tls-verify", str(server.ca)]
        command += ["--auth", ":".join(ADMIN), "--checks", ",".join(CHECKS), "--exclude-path-regex", LEFT_OUT]
        command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "10", "--max-time", str(SECONDS)]
        command += ["--generation-deterministic", "--continue-on-failure", "--no-color", "--request-timeout", "20"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        assert "Coverage" in done.stdout and " passed" in done.stdout, done.stdout
        assert "Traceback" not in (server.data / "serve.stderr").read_text()
    finally:
        server.kill()
