"""Reading logs of many files: formats are recognised, files ordered by their first line, sessions followed across them.

`analyze` is the one way in. Several large files are read by several processes; what each leaves open (sessions without
an end, logins whose session began before the file) is joined in the order of time. Nothing that cannot be read is
dropped silently: every file has its `FileReport`.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from letterlock.analyze import logs_exchange, logs_syslog
from letterlock.analyze.logs_exchange import ExchangeReader, Ports
from letterlock.analyze.logs_lines import FAULTS, STDIN, FileReport, Source, lines, named, visible
from letterlock.analyze.logs_syslog import SyslogReader
from letterlock.analyze.logs_tally import Sessions, Tally

FORMATS: Final = ("auto", "Exchange", "Letterlock", "Dovecot", "Cyrus", "Courier", "Postfix", "Exim", "Syslog")
PARALLEL: Final = 4 << 20  # octets on disk from which processes are worth their start

_TEXT: Final = bytes({9, 10, 13, *range(32, 127), *range(128, 256)})  # everything but control characters

Progress = Callable[[int, int], None]  # octets read, octets in all (0: not known)


class Options(NamedTuple):
    """How to read."""

    format: str = "auto"  # one of FORMATS
    since: float = float("-inf")
    until: float = float("inf")
    ports: Ports = Ports()
    processes: int = 0  # 0: one for each core


@dataclass(slots=True)
class Analysis:
    """What all files together say."""

    tally: Tally
    files: list[FileReport] = field(default_factory=list)

    @property
    def lines(self) -> int:
        """Lines read."""
        return sum(f.lines for f in self.files)

    @property
    def unreadable(self) -> int:
        """Lines that could not be read."""
        return sum(f.unreadable for f in self.files)

    def warnings(self) -> list[str]:
        """What a person should know about the reading itself; foreign text is made visible."""
        found = []
        for f in self.files:
            name = visible(f.name)
            if f.unreadable:
                found.append(f"{name}: {f.unreadable} of {f.lines} lines could not be read")
            found += [f"{name}, line {number}: {text}" if number else f"{name}: {text}" for number, text in f.problems]
            if f.unreadable > len(f.problems) > 0:
                found.append(f"{name}: … and {f.unreadable - len(f.problems)} more lines that could not be read")
            found += [f"{name}: {text}" for text in f.notes]
        return found


@dataclass(slots=True)
class _Read:
    """One file's outcome, as a worker hands it back."""

    report: FileReport
    tally: Tally
    sessions: Sessions
    clear: frozenset[str] = frozenset()  # services that this log shows to be without implicit TLS


def recognise(head: bytes) -> str:
    """The format by a file's first octets: "Exchange", "Syslog", "Empty", "Binary" or "Unknown"."""
    if not head.strip():
        return "Empty"
    if len(head[:8192].translate(None, _TEXT)) * 20 > len(head[:8192]):
        return "Binary"
    some = [line for line in head.split(b"\n")[:200] if line.strip()]
    for line in some:
        if line[:8].lower() == b"#fields:" or logs_exchange.FIRST_ROW.match(line):
            return "Exchange"
    if any(logs_syslog.prefix(line) is not None for line in some):
        return "Syslog"
    if any(line[:10].lower() in (b"#software:", b"#log-type:") for line in some):
        return "Exchange"
    return "Unknown"


def first_time(head: bytes) -> float:
    """When a file begins, by its first readable line; infinity where no line is readable."""
    for line in head.split(b"\n")[:200]:
        if logs_exchange.FIRST_ROW.match(line):
            at = logs_exchange.time_of(line.partition(b",")[0])
        else:
            found = logs_syslog.prefix(line)
            at = found[0] if found else None
        if at is not None:
            return at
    return float("inf")


def analyze(patterns: list[str], options: Options = Options(), progress: Progress | None = None) -> Analysis:  # noqa: B008 - immutable
    """Read files, folders, patterns and standard input (`-`). Raises `Malformed` where a name leads nowhere."""
    names = named(patterns)
    reports, starts = {}, {}
    for name in names:
        reports[name] = FileReport(name)
        starts[name] = 0.0
        if name == STDIN or not os.path.isfile(name):
            continue  # what can be read once only is not looked into beforehand
        try:
            source = Source(name)
        except FAULTS as error:
            reports[name].fault(0, f"cannot be opened: {_why(error)}")
            continue
        starts[name] = first_time(source.head)
        source.close()
    for name in _repeated(names):
        reports[name].notes.append("left out: Exim's reject log repeats lines of the main log beside it")
        reports[name].format = "Exim"
    names = sorted((n for n in names if not reports[n].problems and not reports[n].notes), key=lambda n: (starts[n], n))
    analysis = Analysis(Tally(options.since, options.until))
    sessions = Sessions(analysis.tally)
    clear: set[str] = set()
    for done in _each(names, options, progress):
        reports[done.report.name] = done.report
        analysis.tally.merge(done.tally)
        sessions.follow(done.sessions)
        clear |= done.clear
    sessions.finish()
    analysis.tally.settle(frozenset(clear))
    analysis.files = list(reports.values())
    return analysis


def _repeated(names: list[str]) -> list[str]:
    """Reject logs of Exim whose main log is among the files as well."""
    main = {os.path.dirname(n) for n in names if os.path.basename(n).startswith(("mainlog", "exim_mainlog"))}
    return [
        n
        for n in names
        if os.path.basename(n).startswith(("rejectlog", "exim_rejectlog")) and os.path.dirname(n) in main
    ]


def _why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return visible(str(error)) or "the file is cut off"


def _each(names: list[str], options: Options, progress: Progress | None) -> Iterator[_Read]:
    """Outcomes in the order of `names`."""
    sizes = {n: os.path.getsize(n) if n != STDIN and os.path.isfile(n) else 0 for n in names}
    whole = sum(sizes.values())
    regular = [n for n in names if sizes[n]]
    count = min(options.processes or os.cpu_count() or 1, len(regular))
    if count > 1 and (whole > PARALLEL or options.processes > 1):
        yield from _parallel(names, sizes, options, count, progress)
        return
    before = 0
    for name in names:

        def told(position: int, before: int = before) -> None:
            if progress is not None:
                progress(before + position, whole)

        yield read_file(name, options, told)
        before += sizes[name]
        told(0, before)


def _parallel(
    names: list[str], sizes: dict[str, int], options: Options, count: int, progress: Progress | None
) -> Iterator[_Read]:
    """Regular files by processes, the others here; answered in order."""
    # forking is quick, and safe only while this process has no other threads
    method = "fork" if hasattr(os, "fork") and threading.active_count() == 1 else "spawn"
    context = multiprocessing.get_context(method)
    positions = context.Array("Q", len(names), lock=False)
    whole = sum(sizes.values())
    with ProcessPoolExecutor(count, context, _remember, (positions,)) as pool:
        try:
            waiting = {n: pool.submit(_work, i, n, options) for i, n in enumerate(names) if sizes[n]}
            for name in names:
                if name not in waiting:
                    yield read_file(name, options, lambda _: None)
                    continue
                while not wait([waiting[name]], 0.1, FIRST_COMPLETED).done:
                    if progress is not None:
                        progress(sum(positions), whole)
                yield waiting.pop(name).result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    if progress is not None:
        progress(whole, whole)


_positions: Any = None  # in a worker process: where it tells how far it is


def _remember(positions: Any) -> None:
    global _positions
    _positions = positions


def _work(index: int, name: str, options: Options) -> _Read:
    def told(position: int) -> None:
        _positions[index] = position

    return read_file(name, options, told)


def read_file(name: str, options: Options, progress: Callable[[int], None]) -> _Read:
    """Read one file; its faults are in the report, never raised."""
    report = FileReport(name)
    tally = Tally(options.since, options.until)
    sessions = Sessions(tally)
    try:
        source = Source(name)
    except FAULTS as error:
        report.fault(0, f"cannot be opened: {_why(error)}")
        return _Read(report, tally, sessions)
    with contextlib.closing(source):
        reader = _reader(source, options, report, sessions)
        if reader is None:
            return _Read(report, tally, sessions)
        collecting = gc.isenabled()
        gc.disable()  # nothing here makes cycles, and every line makes a list: the collector would run for nothing
        try:
            for number, found in lines(source, report):
                reader.read(number, found)
                progress(source.position())
        finally:
            if collecting:
                gc.enable()
    clear: frozenset[str] = frozenset()
    if isinstance(reader, SyslogReader):
        clear = reader.finish()
    else:
        report.notes += _left_out(reader)
    return _Read(report, tally, sessions, clear)


def _reader(source: Source, options: Options, report: FileReport, sessions: Sessions) -> Any:
    seen = recognise(source.head)
    if source.utf16:
        report.notes.append("the text is UTF-16; it was read as such")
    report.format = seen
    if options.format in ("Exchange", "Letterlock") or (options.format == "auto" and seen == "Exchange"):
        report.format = "Exchange"
        return ExchangeReader(report, sessions, options.ports)
    if options.format != "auto" or seen == "Syslog":
        report.format = "Syslog"
        reference = os.path.getmtime(source.name) if source.name != STDIN and os.path.isfile(source.name) else 0.0
        return SyslogReader(report, sessions, reference)
    sentence = {
        "Empty": "the file is empty",
        "Binary": "this is not a text file",
        "Unknown": "the format is not recognised; -Format names it. It begins with: " + visible(source.head[:80]),
    }[seen]
    (report.notes.append if seen == "Empty" else lambda s: report.fault(1, s))(sentence)
    return None


def _left_out(reader: ExchangeReader) -> list[str]:
    found = []
    if reader.back_rows:
        found.append(
            f"{reader.back_rows} back-end logins were left out: the front end's log has the clients' own addresses"
        )
    if reader.unknown_ports:
        ports = ", ".join(str(p) for p in sorted(reader.unknown_ports)[:5])
        found.append(
            f"it is not known whether port {ports} is always TLS; -SSLBindings and -UnencryptedOrTLSBindings say so"
        )
    return found
