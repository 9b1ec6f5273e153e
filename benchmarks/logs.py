"""Log analysis beside the csv module and DuckDB: `python -m benchmarks.logs`, and part of `make bench`.

Each contender reads the same Exchange log in a process of its own; measured are CPU seconds of that process and its
children, and the peak memory of the largest. The csv module and DuckDB count logins on clear ports without following
sessions, so logins after STARTTLS are among theirs; ours follows every session and answers who, how often and when.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import loglines

RESULTS = Path(__file__).parent / "results"
LOGINS = ("login", "authenticate", "pass", "auth")


def with_csv(files: list[str]) -> int:
    """Logins on clear ports, by the csv module."""
    found = 0
    for name in files:
        with open(name, encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                if len(row) > 9 and row[9] in LOGINS and row[3].endswith(":143"):
                    found += 1
    return found


def with_duckdb(files: list[str]) -> int:
    """Logins on clear ports, by DuckDB's CSV reader."""
    import duckdb  # type: ignore[import-not-found,unused-ignore]

    names = [
        "dateTime",
        "sessionId",
        "seqNumber",
        "sIp",
        "cIp",
        "user",
        "duration",
        "rqsize",
        "rpsize",
        "command",
        "parameters",
        "context",
        "puid",
    ]
    columns = "{" + ", ".join(f"'{n}': 'VARCHAR'" for n in names) + "}"
    query = (
        f"SELECT count(*) FROM read_csv(?, columns={columns}, header=false, skip=5, delim=',', quote='\"') "
        "WHERE command IN ('login', 'authenticate', 'pass', 'auth') AND sIp LIKE '%:143'"
    )
    (answer,) = duckdb.execute(query, [files]).fetchone()
    return int(answer)


def with_ours(files: list[str], processes: int = 1) -> int:
    """Insecure logins, sessions followed."""
    from letterlock.analyze.logs import Options, analyze
    from letterlock.analyze.logs_tally import readable

    tally = analyze(files, Options(processes=processes)).tally
    return sum(entry.count for fact, entry in tally.facts() if readable(fact))


CONTENDERS = {
    "csv module": with_csv,
    "DuckDB": with_duckdb,
    "letterlock": with_ours,
    "letterlock, all cores": lambda files: with_ours(files, os.cpu_count() or 1),
}


def one(name: str, files: list[str]) -> None:
    """In a process of its own: run, and print what it took."""
    start = time.perf_counter()
    found = CONTENDERS[name](files)
    wall = time.perf_counter() - start
    mine, theirs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime
    print(
        json.dumps(
            {"found": found, "cpu_s": cpu, "wall_s": wall, "peak_mib": max(mine.ru_maxrss, theirs.ru_maxrss) / 1024}
        )
    )


def run(lines: int, rounds: int) -> list[dict[str, object]]:
    """All contenders on one log of `lines` lines, and ours on four times as many in four files; the median CPU."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="letterlock-bench-") as root:
        files = [str(Path(root) / f"IMAP4202603{day:02}-1.LOG") for day in (2, 3, 4, 5)]
        wanted = [loglines.write(Path(name), lines, seed) for seed, name in enumerate(files)]
        size = os.path.getsize(files[0])
        print(f"log analysis: {lines} lines, {size / 1e6:.0f} MB, {wanted[0]} logins in clear", flush=True)
        for name, used in (
            ("csv module", files[:1]), ("DuckDB", files[:1]), ("letterlock", files[:1]), ("letterlock", files),
            ("letterlock, all cores", files),
        ):  # fmt: skip
            if name == "DuckDB" and importlib.util.find_spec("duckdb") is None:
                print("DuckDB is not installed here (pip install duckdb): left out", flush=True)
                continue
            command = [sys.executable, "-m", "benchmarks.logs", "--one", name, *used]
            samples = [
                json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                for _ in range(rounds)
            ]
            sample = sorted(samples, key=lambda s: float(s["cpu_s"]))[len(samples) // 2]
            if name.startswith("letterlock") and sample["found"] != sum(wanted[: len(used)]):
                raise RuntimeError(f"{name} found {sample['found']} instead of {sum(wanted[: len(used)])}")
            row = {"workload": "logs", "contender": name, "files": len(used), "lines": lines * len(used), **sample}
            rows.append(row)
            print(
                f"{name:24} {len(used)} file{'s' if len(used) > 1 else ' '} {row['lines']:>10,} lines  "
                f"{sample['cpu_s']:6.2f} s CPU  {sample['wall_s']:6.2f} s  {sample['peak_mib']:6.0f} MiB",
                flush=True,
            )
    return rows


def main() -> int:
    """Parse options, run, write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.logs")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one[0], options.one[1:])
        return 0
    rows = run(options.lines, options.rounds)
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{time.strftime('%Y-%m-%d', time.gmtime())}-logs.json"
    target.write_text(json.dumps({"cores": os.cpu_count(), "rows": rows}, indent=2) + "\n")
    print(f"written: {target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
