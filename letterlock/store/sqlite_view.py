"""Views of folders: compact arrays, shared by the sessions of a process, renewed from what changed.

A cached view is checked by reading the folder's row (about 3 µs); when its modseq has grown, only the changed and
vanished messages are read, and a new View is made beside the old one, which sessions may still hold.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from letterlock.base.errors import Refused
from letterlock.store import sqlite_sql as sql
from letterlock.store.api import Change, Changes, Folder, Status, View
from letterlock.store.sqlite_flags import GONE, rendered
from letterlock.store.sqlite_folders import folder_of
from letterlock.store.sqlite_handles import Execute, Handle

Row = Sequence[int]
PATCH: Final = 64  # as many vanished messages are cut out one by one; beyond it the arrays are made anew


class Cached:
    """A view and what it was made from."""

    __slots__ = ("codes", "state", "view")

    def __init__(self, state: tuple[object, ...], view: View, codes: dict[int, int]) -> None:
        self.state = state
        self.view = view
        self.codes = codes  # message.flags → index in view.flagsets


class Views:
    """The cached views of a process; bounded by their number and by the messages in them."""

    def __init__(self, most: int, most_messages: int) -> None:
        self._most = most
        self._most_messages = most_messages
        self._messages = 0
        self._views: OrderedDict[tuple[str, int], Cached] = OrderedDict()

    def get(self, handle: Handle, folder: Folder) -> View:
        """The folder now; the same object as last time when nothing has changed."""
        state = handle.execute(sql.FOLDER_STATE, (folder.id,)).fetchone()
        key = (handle.id, folder.id)
        cached = self._views.get(key)
        if cached is not None and cached.state == state:
            return cached.view
        if cached is not None:
            self._messages -= len(cached.view.uids)
            del self._views[key]
        handle.execute(sql.BEGIN_READ)
        try:
            fresh = _load(handle, folder) if cached is None else _renew(handle, folder, cached)
        finally:
            handle.execute(sql.COMMIT)
        self._views[key] = fresh
        self._messages += len(fresh.view.uids)
        while len(self._views) > 1 and (len(self._views) > self._most or self._messages > self._most_messages):
            self._messages -= len(self._views.popitem(last=False)[1].view.uids)
        return fresh.view

    def forget(self, mailbox_id: str) -> None:
        """A mailbox is gone."""
        for key in [key for key in self._views if key[0] == mailbox_id]:
            self._messages -= len(self._views.pop(key).view.uids)


def _state(execute: Execute, folder: Folder) -> tuple[tuple[int, int, int, str], Folder]:
    state = execute(sql.FOLDER_STATE, (folder.id,)).fetchone()
    if state is None:
        raise Refused(GONE, b"NONEXISTENT")
    return state, folder_of(execute(sql.FOLDER_BY_ID, (folder.id,)).fetchone())


def keywords_of(execute: Execute, folder: int) -> tuple[bytes, ...]:
    """The keywords that a folder knows, oldest first."""
    return tuple(row[0] for row in execute(sql.FOLDER_KEYWORDS, (folder,)))


def _load(handle: Handle, folder: Folder) -> Cached:
    execute = handle.execute
    state, folder = _state(execute, folder)
    rows = execute(sql.VIEW_ROWS, (folder.id,)).fetchall()
    uids, flags, modseqs = zip(*rows, strict=True) if rows else ((), (), ())
    codes: dict[int, int] = {}
    flagsets = _encode(handle, codes, flags, [])
    view = View(
        folder,
        array("I", uids),
        array("I", map(codes.__getitem__, flags)),
        array("Q", modseqs),
        flagsets,
        state[1],
        state[0],
        keywords_of(execute, folder.id),
        state[2],
    )
    return Cached(state, view, codes)


def _encode(handle: Handle, codes: dict[int, int], flags: Sequence[int], flagsets: list[bytes]) -> list[bytes]:
    """`codes` gets an entry for every flags integer; the list of rendered sets that belongs to it is returned."""
    for value in sorted(set(flags).difference(codes)):
        codes[value] = len(flagsets)
        flagsets.append(rendered(handle.execute, handle.flag_names, value))
    return flagsets


def _renew(handle: Handle, folder: Folder, old: Cached) -> Cached:
    execute = handle.execute
    state, folder = _state(execute, folder)
    view = old.view
    if state[0] == view.highestmodseq:  # only \Recent was claimed, or the name is another
        return Cached(state, view._replace(folder=folder, recent=state[2]), old.codes)
    rows = execute(sql.CHANGED_ROWS, (folder.id, view.highestmodseq)).fetchall()
    gone = [row[0] for row in execute(sql.VANISHED_ROWS, (folder.id, view.highestmodseq))]
    codes = dict(old.codes)
    if len(codes) > 2 * len(view.uids) + 256:  # sets that nobody has any more pile up: begin again
        return _load(handle, folder)
    flagsets = _encode(handle, codes, [row[1] for row in rows], list(view.flagsets))
    uids, flags, modseqs = _without(view, gone)
    uidnext = view.uidnext
    fresh = []
    for row in rows:
        uid, value, modseq = row
        if uid >= uidnext:
            fresh.append(row)
            continue
        at = bisect_left(uids, uid)
        flags[at] = codes[value]
        modseqs[at] = modseq
    if fresh:
        new_uids, new_flags, new_modseqs = zip(*fresh, strict=True)
        uids.extend(array("I", new_uids))
        flags.extend(array("I", map(codes.__getitem__, new_flags)))
        modseqs.extend(array("Q", new_modseqs))
    known = keywords_of(execute, folder.id)
    return Cached(state, View(folder, uids, flags, modseqs, flagsets, state[1], state[0], known, state[2]), codes)


def _without(view: View, gone: Sequence[int]) -> tuple[array[int], array[int], array[int]]:
    """Copies of the view's arrays, without the messages that vanished."""
    uids, flags, modseqs = view.uids[:], view.flags[:], view.modseqs[:]
    if len(gone) <= PATCH:
        for uid in reversed(gone):
            at = bisect_left(uids, uid)
            if at < len(uids) and uids[at] == uid:  # it may have come and gone since the last look
                del uids[at], flags[at], modseqs[at]
        return uids, flags, modseqs
    left = set(gone)
    keep = [at for at, uid in enumerate(uids) if uid not in left]
    return (
        array("I", [uids[at] for at in keep]),
        array("I", [flags[at] for at in keep]),
        array("Q", [modseqs[at] for at in keep]),
    )


def changes_since(handle: Handle, folder: Folder, modseq: int) -> Changes:
    """Changed, new and vanished messages; one consistent state."""
    execute = handle.execute
    state = execute(sql.FOLDER_STATE, (folder.id,)).fetchone()
    if state is not None and state[0] <= modseq:
        return Changes([], [], state[0], state[1])
    execute(sql.BEGIN_READ)
    try:
        state = execute(sql.FOLDER_STATE, (folder.id,)).fetchone()
        if state is None:
            raise Refused(GONE, b"NONEXISTENT")
        rows = execute(sql.CHANGED_ROWS, (folder.id, modseq)).fetchall()
        gone = [row[0] for row in execute(sql.VANISHED_ROWS, (folder.id, modseq))]
        names = {value: rendered(execute, handle.flag_names, value) for value in {row[1] for row in rows}}
    finally:
        execute(sql.COMMIT)
    return Changes([Change(uid, names[value], reached) for uid, value, reached in rows], gone, state[0], state[1])


def status(handle: Handle, folder: Folder) -> Status:
    """STATUS; the counts are remembered until the folder's modseq grows."""
    execute = handle.execute
    execute(sql.BEGIN_READ)
    try:
        state = execute(sql.FOLDER_STATE, (folder.id,)).fetchone()
        if state is None:
            raise Refused(GONE, b"NONEXISTENT")
        known = handle.statuses.get(folder.id)
        if known is None or known[0] != state:
            recent = execute(sql.COUNT_FROM, (folder.id, state[2])).fetchone()[0]
            known = (state, (recent, *execute(sql.STATUS, (folder.id,)).fetchone()))
            handle.statuses[folder.id] = known
    finally:
        execute(sql.COMMIT)
    recent, messages, unseen, deleted, size = known[1]
    return Status(messages, recent, state[1], folder.uidvalidity, unseen, state[0], deleted, size)
