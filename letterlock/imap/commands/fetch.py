"""FETCH and UID FETCH (RFC 3501 §6.4.5, §6.4.8): plans of `fetch_plan` run against memory or the store.

UID, FLAGS and MODSEQ are answered from the session's view without asking the store. Everything else is one bulk SELECT
whose rows go through a template; the response's head is made once for each distinct set of flags.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import repeat
from typing import NamedTuple

from letterlock.base.errors import Malformed
from letterlock.imap.commands.fetch_plan import Plan, compile_plan
from letterlock.imap.commands.sections import Message, render
from letterlock.imap.grammar import NumberSet
from letterlock.imap.reader import Args
from letterlock.imap.selected import Runs, Selected
from letterlock.imap.session import DRAIN, Done, ImapSession
from letterlock.store.api import SEEN, Column, FlagAction, Flags, Row

BATCH = 2000  # messages formatted from memory before others get a turn


class FetchArgs(NamedTuple):
    """Messages, items, and CHANGEDSINCE (-1: not given)."""

    numbers: NumberSet
    items: bytes
    changed_since: int


def parse_fetch(args: Args) -> FetchArgs:
    """ "FETCH" SP sequence-set SP items [SP "(CHANGEDSINCE" SP mod-sequence-value ")"] (RFC 7162 §3.1.4)."""
    args.space()
    numbers = args.number_set()
    args.space()
    items = args.rest()
    changed_since = -1
    at = items.upper().rfind(b" (CHANGEDSINCE ")
    if at > 0 and items.endswith(b")"):
        modifier = Args(items, at + 15)
        changed_since = modifier.number()
        modifier.expect(b")")
        items = items[:at]
    return FetchArgs(numbers, items, changed_since)


class _Heads:
    """Response heads by flag set; index -1 - k is the set k with \\Recent."""

    def __init__(self, plan: Plan, opened: Selected, modseq: bool) -> None:
        self.plan, self.opened, self.modseq = plan, opened, modseq
        self.made: dict[int, bytes] = {}
        self.recent_from = bisect_left(opened.view.uids, opened.recent)

    def get(self, index: int, shown: bool) -> bytes:
        """The head for the message at `index`; `shown`: with FLAGS though they were not asked for."""
        if not (self.plan.flags or shown):
            return self._head(1 << 40, None)
        k = self.opened.view.flags[index]
        key = -1 - k if index >= self.recent_from else k
        if key in self.made:
            return self.made[key]
        return self._head(key, self.opened.flags_at(index))

    def _head(self, key: int, flags: bytes | None) -> bytes:
        if key not in self.made:
            self.made[key] = self.plan.head(flags, self.modseq)
        return self.made[key]


async def fetch(s: ImapSession, args: FetchArgs, uid: bool) -> Done:
    """Answer one FETCH."""
    opened = s.open
    plan = compile_plan(args.items, uid)
    if plan.modseq or args.changed_since >= 0:
        s.enabled.add(b"CONDSTORE")  # RFC 7162 §3.1
    modseq = plan.modseq or args.changed_since >= 0
    runs = opened.runs(args.numbers, uid)
    if args.changed_since >= 0:
        runs = _changed(opened, runs, args.changed_since)
    seen: set[int] = set()
    if plan.sets_seen and not opened.read_only and runs:
        seen = await _mark_seen(s, opened, runs)
        modseq = modseq or b"CONDSTORE" in s.enabled  # RFC 7162 §3.2: where flags change, MODSEQ is told
    heads = _Heads(plan, opened, modseq)
    if plan.in_memory and not plan.sections:
        await _from_memory(s, opened, heads, runs)
    else:
        await _from_store(s, opened, heads, runs, seen)
    return Done()


def _changed(opened: Selected, runs: Runs, since: int) -> Runs:
    """CHANGEDSINCE."""
    modseqs = opened.view.modseqs
    found: Runs = []
    for i, j in runs:
        for k in range(i, j):
            if modseqs[k] > since:
                if found and found[-1][1] == k:
                    found[-1] = (found[-1][0], k + 1)
                else:
                    found.append((k, k + 1))
    return found


async def _mark_seen(s: ImapSession, opened: Selected, runs: Runs) -> set[int]:
    """BODY[…] without PEEK sets \\Seen; the UIDs whose FLAGS must be shown for it."""
    stored = await s.store.change_flags(opened.folder, opened.uid_ranges(runs), FlagAction.ADD, Flags(SEEN))
    if stored.changed:
        opened.answered(stored.changed)
        await s.report(expunge=False)
    return {c.uid for c in stored.changed}


async def _from_memory(s: ImapSession, opened: Selected, heads: _Heads, runs: Runs) -> None:
    view, plan = opened.view, heads.plan
    for start, end in runs:
        for i in range(start, end, BATCH):
            j = min(i + BATCH, end)
            cut = heads.recent_from if i < heads.recent_from < j else j
            for a, b in ((i, cut), (cut, j)):
                if a == b:
                    continue
                s.out.append(b"".join(_piece(heads, plan, view.uids[a:b], view.flags[a:b], view.modseqs[a:b], a)))
            if len(s.out) > 8:
                await s.host.drain()


def _piece(heads: _Heads, plan: Plan, uids, flags, modseqs, first: int) -> list[bytes]:  # type: ignore[no-untyped-def]
    """Responses of one slice, all \\Recent or none."""
    numbers = range(first + 1, first + 1 + len(uids))
    if plan.flags:
        by_set = {k: heads.get(first + flags.index(k), True) for k in set(flags)}
        chosen = [by_set[k] for k in flags]
    else:
        chosen = repeat(heads.get(first, False), len(uids))  # type: ignore[assignment]
    if heads.modseq:
        if plan.uid:
            return [h % (n, m, u) for h, n, m, u in zip(chosen, numbers, modseqs, uids, strict=True)]
        return [h % (n, m) for h, n, m in zip(chosen, numbers, modseqs, strict=True)]
    if plan.uid:
        return [h % (n, u) for h, n, u in zip(chosen, numbers, uids, strict=True)]
    return [h % n for h, n in zip(chosen, numbers, strict=True)]


async def _from_store(s: ImapSession, opened: Selected, heads: _Heads, runs: Runs, seen: set[int]) -> None:
    plan, view = heads.plan, opened.view
    uids = view.uids
    position = runs[0][0] if runs else 0
    width = len(plan.fields)
    first = 0 if plan.uid else 1
    async for batch in s.store.fetch(opened.folder, opened.uid_ranges(runs), plan.columns):
        lines: list[bytes] = []
        octets = 0
        for row in batch:
            uid: int = row[0]  # type: ignore[assignment]
            if uids[position] != uid:
                position = bisect_left(uids, uid, position)
            head = heads.get(position, uid in seen)
            values = row[first : 1 + width]
            if heads.modseq:
                line = head % (position + 1, view.modseqs[position], *values)
            else:
                line = head % (position + 1, *values)
            position = min(position + 1, len(uids) - 1)
            if plan.sections:
                line += _sections(plan, row, width) + b")\r\n"
                octets += len(line)
            lines.append(line)
            if octets > DRAIN:
                s.out.append(b"".join(lines))
                lines.clear()
                octets = 0
                await s.host.drain()
        s.out.append(b"".join(lines))
        await s.host.drain()


def _sections(plan: Plan, row: Row, width: int) -> bytes:
    """The sections of one message."""
    given = dict(zip(plan.columns[width:], row[1 + width :], strict=True))
    header, text = given.get(Column.HEADER, b""), given.get(Column.TEXT, b"")
    preview = given.get(Column.PREVIEW, "")
    if not isinstance(header, bytes) or not isinstance(text, bytes) or not isinstance(preview, str):
        raise Malformed("the message cannot be read")
    message = Message(header, text)
    return b" ".join(render(section, message, preview) for section in plan.sections)
