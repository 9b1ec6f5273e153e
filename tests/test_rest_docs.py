"""docs/rest.md: every example is run, as it stands there."""

from __future__ import annotations

import datetime
import os
import re
import subprocess
from pathlib import Path

from tests.clients.server import PROGRAM, Server, free_ports
from tests.programs import need

PAGE = Path(__file__).parent.parent / "docs" / "rest.md"


def test_the_examples_run(tmp_path: Path) -> None:
    need("curl", "sh", "sed")
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 8
    server = Server(tmp_path)
    (first,) = free_ports(1)
    (port,) = free_ports(1)
    server.shell(f"Set-AdminSettings -SSLBindings 127.0.0.1:{first}")
    server.start()
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=100)
    environment = {
        **os.environ,
        "PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}",
        "LETTERLOCK_DATA": str(server.data),
        "DIR": str(server.data),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "URL": f"https://localhost:{port}",
        "DAY": soon.date().isoformat(),
    }
    try:
        # --fail: a status that is no success fails the example
        script = 'set -eu\ncurl() { command curl --fail --silent --show-error "$@"; echo; }\n' + "\n".join(blocks)
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        for said in (
            '"Objects": [{"Status": "Running", "Name": "LetterlockImap4"',
            '"LoginType": "SecureLogin"',
            "nightly report",
            "What if: set MaxConnections",
            '"PrimarySmtpAddress": "carol@demo.test"',
            '"openapi": "3.1.0"',
            "LetterlockAdmin    Letterlock Administration",
            "carol True       True",
        ):
            assert said in done.stdout, (said, done.stdout)
    finally:
        server.kill()
