"""The benchmark counts what it says: CPU time and memory of the supervisor and of every worker."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import peers
from benchmarks.workloads import connect


def test_cpu_and_memory_of_all_processes_are_counted(tmp_path: Path) -> None:
    directory = tmp_path / "letterlock"
    directory.mkdir()
    peer = peers.Letterlock(directory)
    peer.start()
    try:
        pids = peers._descendants(peer.process.pid)
        assert len(pids) >= 2, "a supervisor and its workers"
        time.sleep(0.5)
        start = peer.cpu()
        before = {pid: _ticks(pid) for pid in pids}
        for n in range(30):
            client = connect(peer, n % 10)
            for _ in range(50):
                client.command(b"NOOP")
            client.command(b"LOGOUT")
            client.close()
        time.sleep(0.2)
        spent = {pid: (_ticks(pid) - before[pid]) / peers.TICK for pid in pids}
        counted = peer.cpu() - start
        assert counted >= sum(spent.values()) - 0.02
        assert max(spent.values()) > 0.05, "the work is in the workers, and it is seen"
        alone = sum(_pss(pid) for pid in pids)
        assert 0.8 < peer.memory() / alone < 1.25
    finally:
        peer.stop()


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
