"""STORE, COPY, MOVE, EXPUNGE and their UID variants (RFC 3501 §6.4, RFC 4315, RFC 6851, RFC 7162)."""

from __future__ import annotations

from typing import Final, NamedTuple

from letterlock.base.errors import Malformed, Refused
from letterlock.imap import reply
from letterlock.imap.grammar import NumberSet
from letterlock.imap.reader import Args
from letterlock.imap.selected import Selected
from letterlock.imap.session import Done, ImapSession
from letterlock.store.api import Change, Copied, FlagAction, Flags, Folder

_ACTIONS: Final = {b"FLAGS": FlagAction.SET, b"+FLAGS": FlagAction.ADD, b"-FLAGS": FlagAction.REMOVE}


class StoreArgs(NamedTuple):
    """STORE's."""

    numbers: NumberSet
    unchanged_since: int | None
    action: FlagAction
    silent: bool
    flags: Flags


def parse_store(args: Args) -> StoreArgs:
    """ "STORE" SP sequence-set [SP "(UNCHANGEDSINCE" SP n ")"] SP store-att-flags."""
    args.space()
    numbers = args.number_set()
    args.space()
    unchanged = None
    if args.take(b"("):
        if args.keyword() != b"UNCHANGEDSINCE":
            raise Malformed("STORE: expected UNCHANGEDSINCE")
        args.space()
        unchanged = args.number()
        args.expect(b") ")
    word = args.keyword()
    silent = word.endswith(b".SILENT")
    action = _ACTIONS.get(word.removesuffix(b".SILENT"))
    if action is None:
        raise Malformed("STORE: expected FLAGS, +FLAGS or -FLAGS, with or without .SILENT")
    args.space()
    return StoreArgs(numbers, unchanged, action, silent, args.flags())


def _writable(s: ImapSession) -> Selected:
    if s.open.read_only:
        raise Refused("the folder was opened read-only (EXAMINE)")
    return s.open


async def store(s: ImapSession, args: StoreArgs, uid: bool) -> Done:
    """RFC 3501 §6.4.6, RFC 7162 §3.1.3."""
    opened = _writable(s)
    if args.unchanged_since is not None:
        s.enabled.add(b"CONDSTORE")
    runs = opened.runs(args.numbers, uid)
    if not runs:
        return Done()
    ranges = opened.uid_ranges(runs)
    stored = await s.store.change_flags(opened.folder, ranges, args.action, args.flags, args.unchanged_since)
    modseq = b"CONDSTORE" in s.enabled
    opened.answered(stored.changed)
    await opened.refresh(s.out, False, modseq, uid)
    if not args.silent:
        _answer(s, opened, stored.changed, runs, uid, modseq)
    elif modseq:
        s.out.extend(
            b"* %d FETCH (UID %d MODSEQ (%d))\r\n" % (opened.number_of(c.uid), c.uid, c.modseq) for c in stored.changed
        )
    if stored.modified:
        failed = stored.modified if uid else [opened.number_of(u) for u in stored.modified]
        return Done(b"MODIFIED " + reply.number_set(failed))
    return Done()


def _answer(
    s: ImapSession, opened: Selected, changed: list[Change], runs: list[tuple[int, int]], uid: bool, modseq: bool
) -> None:
    """FETCH responses for all messages named, changed or not (RFC 3501 §6.4.6: the new value is sent)."""
    view = opened.view
    uids, sets, flags = view.uids, view.flagsets, view.flags
    rendered = [opened.with_recent(t) for t in sets] if opened.recent_count() else sets
    boundary = opened.recent
    for i, j in runs:
        lines = []
        for k in range(i, j):
            text = (rendered if uids[k] >= boundary else sets)[flags[k]]
            if modseq:
                lines.append(
                    b"* %d FETCH (UID %d FLAGS (%b) MODSEQ (%d))\r\n" % (k + 1, uids[k], text, view.modseqs[k])
                )
            elif uid:
                lines.append(b"* %d FETCH (UID %d FLAGS (%b))\r\n" % (k + 1, uids[k], text))
            else:
                lines.append(b"* %d FETCH (FLAGS (%b))\r\n" % (k + 1, text))
        s.out.append(b"".join(lines))


class CopyArgs(NamedTuple):
    """COPY's and MOVE's."""

    numbers: NumberSet
    folder: str


def parse_copy(args: Args) -> CopyArgs:
    """copy = "COPY" SP sequence-set SP mailbox."""
    args.space()
    numbers = args.number_set()
    args.space()
    return CopyArgs(numbers, args.mailbox())


async def _target(s: ImapSession, name: str) -> Folder:
    try:
        return await s.store.folder(name)
    except Refused as error:
        raise Refused(error.text, b"TRYCREATE" if error.code == b"NONEXISTENT" else error.code) from None


def _code(copied: Copied) -> bytes:
    return reply.copyuid(copied) if copied.source else b""


async def copy(s: ImapSession, args: CopyArgs, uid: bool) -> Done:
    """RFC 3501 §6.4.7."""
    opened = s.open
    target = await _target(s, args.folder)
    runs = opened.runs(args.numbers, uid)
    if not runs:
        return Done()
    return Done(_code(await s.store.copy(opened.folder, opened.uid_ranges(runs), target)))


async def move(s: ImapSession, args: CopyArgs, uid: bool) -> Done:
    """RFC 6851 §3.3: COPYUID in an untagged OK, then the EXPUNGEs."""
    opened = _writable(s)
    target = await _target(s, args.folder)
    runs = opened.runs(args.numbers, uid)
    if not runs:
        return Done()
    copied = await s.store.move(opened.folder, opened.uid_ranges(runs), target)
    if copied.source:
        s.out.append(b"* OK [" + _code(copied) + b"] Moved.\r\n")
    return Done()


async def expunge(s: ImapSession, _args: None, _uid: bool) -> Done:
    """RFC 3501 §6.4.3; the table's flags report the EXPUNGEs."""
    opened = _writable(s)
    await s.store.expunge(opened.folder, None)
    return await _expunged(s, opened)


async def _expunged(s: ImapSession, opened: Selected) -> Done:
    await s.report(expunge=True)
    if b"CONDSTORE" in s.enabled:
        return Done(b"HIGHESTMODSEQ %d" % opened.view.highestmodseq)
    return Done()


def parse_uid_expunge(args: Args) -> NumberSet:
    """ "UID EXPUNGE" SP sequence-set (RFC 4315 §2.1)."""
    args.space()
    return args.number_set()


async def uid_expunge(s: ImapSession, numbers: NumberSet, uid: bool) -> Done:
    """RFC 4315 §2.1."""
    opened = _writable(s)
    runs = opened.runs(numbers, uid)
    if runs:
        await s.store.expunge(opened.folder, opened.uid_ranges(runs))
    return await _expunged(s, opened)
