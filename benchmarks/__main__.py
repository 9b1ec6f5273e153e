"""`make bench`: Letterlock beside Dovecot on this machine, in one run.

Every workload runs on one peer after the other, several rounds in turn; the median of the rounds is shown: operations
a second as one client sees them, CPU time of the server's processes per operation, and the ratio of that CPU time to
tuned Dovecot's (below 1.00: Letterlock needs less). JSON goes to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import logs, workloads
from benchmarks.peers import PEERS, Letterlock, Peer, TunedDovecot

RESULTS = Path(__file__).parent / "results"


def measure(peer: Peer, workload: workloads.Workload) -> tuple[float, float]:
    """(operations a second, CPU seconds per operation) of one round."""
    client = workloads.connect(peer)
    client.command(b"SELECT INBOX")
    before, start = peer.cpu(), time.perf_counter()
    count = workload.run(peer, client)
    wall = time.perf_counter() - start
    time.sleep(0.05)  # children that end are counted when they have been waited for
    cpu = peer.cpu() - before
    client.command(b"LOGOUT")
    client.close()
    return count / wall, cpu / count


def run(peers: list[Peer], chosen: list[workloads.Workload], rounds: int, idle: int) -> list[dict[str, object]]:
    """All rounds of all workloads on all peers."""
    rows: list[dict[str, object]] = []
    for workload in chosen:
        samples: dict[str, list[tuple[float, float]]] = {p.name: [] for p in peers}
        for _ in range(rounds):
            for peer in peers:
                samples[peer.name].append(measure(peer, workload))
        row: dict[str, object] = {"workload": workload.key, "title": workload.title, "unit": workload.unit}
        row["peers"] = {
            name: {
                "rate": statistics.median(s[0] for s in found),
                "cpu_us": statistics.median(s[1] for s in found) * 1e6,
                "cpu_us_rounds": [s[1] * 1e6 for s in found],
            }
            for name, found in samples.items()
        }
        rows.append(row)
        print_row(row)
    if idle:
        memory = {peer.name: {"kib": workloads.idle_memory(peer, idle) / 1024} for peer in peers}
        rows.append({"workload": "idle", "title": f"memory per idle TLS connection ({idle})", "peers": memory})
        print_row(rows[-1])
    return rows


def print_row(row: dict[str, object]) -> None:
    """One line per workload as soon as it is known."""
    peers = row["peers"]
    assert isinstance(peers, dict)
    key = "kib" if row["workload"] == "idle" else "cpu_us"
    unit = "KiB" if key == "kib" else "µs"
    cells = [f"{name} {found[key]:9.1f} {unit}" for name, found in peers.items()]
    if key == "cpu_us":
        cells = [f"{c} {peers[c.split()[0]]['rate']:9.0f}/s" for c in cells]
    tuned = peers.get(TunedDovecot.name)
    ours = peers.get(Letterlock.name)
    ratio = f"  ratio {ours[key] / tuned[key]:5.2f}" if ours and tuned and tuned[key] else ""
    print(f"{row['title']!s:38} " + "   ".join(cells) + ratio, flush=True)


def main() -> int:
    """Parse options, run, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--idle", type=int, default=500, help="idle connections; 0 leaves that row out")
    parser.add_argument("--only", nargs="*", default=[], help="workloads to run")
    parser.add_argument("--log-lines", type=int, default=1_000_000, help="log analysis; 0 leaves it out")
    parser.add_argument("--peers", nargs="*", default=[p.name for p in PEERS])
    options = parser.parse_args()
    chosen = [w for w in workloads.WORKLOADS if not options.only or w.key in options.only]
    with tempfile.TemporaryDirectory(prefix="letterlock-bench-") as root:
        peers = []
        try:
            for kind in PEERS:
                if kind.name in options.peers:
                    directory = Path(root) / kind.name
                    directory.mkdir()
                    peer = kind(directory)
                    peer.start()
                    peers.append(peer)
                    workloads.fill(peer)
                    print(f"{peer.name}: {peer.version()}, {workloads.MESSAGES} messages", flush=True)
            rows = run(peers, chosen, options.rounds, options.idle)
            versions = {p.name: p.version() for p in peers}
        finally:
            for peer in peers:
                peer.stop()
    if options.log_lines and not options.only:
        rows += logs.run(options.log_lines, options.rounds)
    report = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "versions": versions,
        "rounds": options.rounds,
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{report['date']}.json"
    target.write_text(json.dumps(report, indent=2) + "\n")
    print(f"written: {target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
