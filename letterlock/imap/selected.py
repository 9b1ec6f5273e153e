"""The client's view of the open folder.

A client numbers messages by position; the store knows only UIDs. This module keeps the client's numbering and decides
what it may be told:

1. Numbers change only when an EXPUNGE is put in `out` (RFC 3501 §7.4.1).
2. The told view is the store's own `View` object whenever the client knows all of it; while an EXPUNGE must wait, it is
   the older one with newer flags.
3. Changes that the client itself made and was answered are not told a second time.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

from letterlock.base.errors import Malformed
from letterlock.imap.grammar import SAVED, STAR, NumberSet
from letterlock.store.api import Change, Folder, MailStore, View

Runs = list[tuple[int, int]]  # index slices [i, j) of the view, ascending, not overlapping


class Selected:
    """An open folder of one session."""

    def __init__(self, mail: MailStore, view: View, read_only: bool, recent: int) -> None:
        self.mail = mail
        self.folder: Folder = view.folder
        self.read_only = read_only
        self.recent = recent  # messages with this UID or a greater one are \Recent here
        self.view = view
        self.saved: array[int] = array("I")  # "$" (RFC 5182)
        self._latest = view
        self._told = view.highestmodseq
        self._answered: dict[int, int] = {}  # UID → modseq that a STORE's own answer showed
        self._told_recent = self.recent_count()

    @property
    def count(self) -> int:
        """EXISTS."""
        return len(self.view.uids)

    @property
    def expunge_waits(self) -> bool:
        """Messages are gone that the client may not be told of yet."""
        return self.view is not self._latest

    def recent_count(self) -> int:
        """RECENT."""
        return self.count - bisect_left(self.view.uids, self.recent)

    def flags_at(self, index: int) -> bytes:
        r"""Rendered flags of a message, \Recent included."""
        flags = self.view.flagsets[self.view.flags[index]]
        return self.with_recent(flags) if self.view.uids[index] >= self.recent else flags

    @staticmethod
    def with_recent(flags: bytes) -> bytes:
        r"""`flags` and \Recent."""
        return flags + b" \\Recent" if flags else b"\\Recent"

    def runs(self, numbers: NumberSet, uid: bool) -> Runs:
        """Index slices of a message set. By number, one beyond the folder is `Malformed`; by UID it is nothing."""
        if numbers is SAVED:
            return self.runs_of(self.saved)
        found = sorted(self._run(a, b, uid) for a, b in numbers)
        merged: Runs = []
        for i, j in found:
            if i >= j:
                continue
            if merged and i <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(j, merged[-1][1]))
            else:
                merged.append((i, j))
        return merged

    def _run(self, a: int, b: int, uid: bool) -> tuple[int, int]:
        uids = self.view.uids
        if uid:
            last = uids[-1] if uids else 0
            low, high = sorted((a if a != STAR else last, b if b != STAR else last))
            return bisect_left(uids, low), bisect_right(uids, high)
        count = len(uids)
        low, high = sorted((a if a != STAR else count, b if b != STAR else count))
        if high > count:
            if not count and STAR in (a, b):
                return 0, 0  # clients ask an empty folder for 1:*
            raise Malformed(f"there is no message {high}; the folder has {count}")
        return max(low, 1) - 1, high

    def runs_of(self, uids: array[int]) -> Runs:
        """Index slices of ascending UIDs; those that are gone are left out."""
        mine = self.view.uids
        found: Runs = []
        for uid in uids:
            i = bisect_left(mine, uid)
            if i < len(mine) and mine[i] == uid:
                if found and found[-1][1] == i:
                    found[-1] = (found[-1][0], i + 1)
                else:
                    found.append((i, i + 1))
        return found

    def uid_ranges(self, runs: Runs) -> list[tuple[int, int]]:
        """UID ranges of slices: UIDs only grow, so all that the store has between two neighbours is in the view."""
        uids = self.view.uids
        return [(uids[i], uids[j - 1]) for i, j in runs]

    def number_of(self, uid: int) -> int:
        """The message's number, 0 when the client does not know it."""
        i = bisect_left(self.view.uids, uid)
        return i + 1 if i < len(self.view.uids) and self.view.uids[i] == uid else 0

    def answered(self, changes: list[Change]) -> None:
        """The client has been answered these changes of its own."""
        self._answered.update((c.uid, c.modseq) for c in changes)

    async def refresh(self, out: list[bytes], expunge: bool, modseq: bool, uid: bool = False) -> None:
        """Put in `out` what others changed; EXPUNGE only when allowed. `modseq`, `uid`: items of FETCH responses."""
        new = await self.mail.view(self.folder)
        if new is self._latest and new is self.view:
            self._answered.clear()
            return
        old = self.view
        added = len(new.uids) - bisect_left(new.uids, old.uidnext)
        gone = len(old.uids) + added - len(new.uids)
        changes = (await self.mail.changes_since(self.folder, self._told)).changed
        if gone and not expunge:
            self.view = _patched(old, changes)
        else:
            if gone:
                self._expunge(out, old, new)
            self.view = new
            if added:
                out.append(b"* %d EXISTS\r\n" % self.count)
            recent = self.recent_count()
            if recent != self._told_recent:
                out.append(b"* %d RECENT\r\n" % recent)
                self._told_recent = recent
        self._latest = new
        self._told = max(self._told, new.highestmodseq)
        self._fetches(out, [c for c in changes if c.uid < old.uidnext], modseq, uid)
        self._answered.clear()

    def _expunge(self, out: list[bytes], old: View, new: View) -> None:
        """EXPUNGE lines: each number is that of the moment (RFC 3501 §7.4.1)."""
        present = set(new.uids)
        number = 0
        for uid in old.uids:
            number += 1
            if uid not in present:
                out.append(b"* %d EXPUNGE\r\n" % number)
                number -= 1

    def _fetches(self, out: list[bytes], changes: list[Change], modseq: bool, uid: bool) -> None:
        for change in changes:
            number = self.number_of(change.uid)
            if not number or self._answered.get(change.uid) == change.modseq:
                continue
            flags = self.with_recent(change.flags) if change.uid >= self.recent else change.flags
            items = b"UID %d " % change.uid if uid or modseq else b""
            items += b"FLAGS (" + flags + b")" + (b" MODSEQ (%d)" % change.modseq if modseq else b"")
            out.append(b"* %d FETCH (%b)\r\n" % (number, items))


def _patched(view: View, changes: list[Change]) -> View:
    """`view` with newer flags, its messages unchanged."""
    flags, modseqs, sets = array("I", view.flags), array("Q", view.modseqs), list(view.flagsets)
    known = {text: i for i, text in enumerate(sets)}
    for change in changes:
        i = bisect_left(view.uids, change.uid)
        if i < len(view.uids) and view.uids[i] == change.uid:
            if change.flags not in known:
                known[change.flags] = len(sets)
                sets.append(change.flags)
            flags[i] = known[change.flags]
            modseqs[i] = change.modseq
    return view._replace(flags=flags, modseqs=modseqs, flagsets=sets)
