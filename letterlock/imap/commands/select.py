"""SELECT, EXAMINE, CLOSE, UNSELECT (RFC 3501 §6.3.1, §6.3.2, §6.4.2, RFC 3691; RFC 7162 for CONDSTORE)."""

from __future__ import annotations

from typing import NamedTuple

from letterlock.base.errors import Malformed
from letterlock.imap.reader import Args
from letterlock.imap.selected import Selected
from letterlock.imap.session import Done, ImapSession
from letterlock.store.api import MAX_KEYWORDS, SYSTEM_FLAGS

_SYSTEM = b" ".join(name for _, name in SYSTEM_FLAGS)


class SelectArgs(NamedTuple):
    """Folder, and the CONDSTORE parameter."""

    folder: str
    condstore: bool


def parse_select(args: Args) -> SelectArgs:
    """ "SELECT" SP mailbox [SP "(" select-param ")"] (RFC 4466 §2.1)."""
    args.space()
    folder = args.mailbox()
    condstore = False
    if args.take(b" ("):
        if args.keyword() != b"CONDSTORE":
            raise Malformed("CONDSTORE is the only parameter here")
        args.expect(b")")
        condstore = True
    return SelectArgs(folder, condstore)


async def select(s: ImapSession, args: SelectArgs, _uid: bool) -> Done:
    """RFC 3501 §6.3.1."""
    return await _select(s, args, read_only=False)


async def examine(s: ImapSession, args: SelectArgs, _uid: bool) -> Done:
    """RFC 3501 §6.3.2."""
    return await _select(s, args, read_only=True)


async def _select(s: ImapSession, args: SelectArgs, read_only: bool) -> Done:
    if s.selected:
        s.close_folder()  # also when the new one cannot be opened
        s.out.append(b"* OK [CLOSED] The folder is closed.\r\n")
    folder = await s.store.folder(args.folder)
    if args.condstore:
        s.enabled.add(b"CONDSTORE")
    view = await s.store.view(folder)
    recent = view.recent if read_only else await s.store.claim_recent(folder)
    s.selected = opened = Selected(s.store, view, read_only, recent)
    keywords = b"".join(b" " + k for k in view.keywords)
    flags = _SYSTEM + keywords
    unseen = await _first_unseen(s, opened)
    more = b" \\*" if len(view.keywords) < MAX_KEYWORDS else b""
    permanent = b"" if read_only else flags + more
    s.out.append(
        b"* FLAGS (%b)\r\n* %d EXISTS\r\n* %d RECENT\r\n" % (flags, opened.count, opened.recent_count())
        + (b"* OK [UNSEEN %d] First unseen message.\r\n" % unseen if unseen else b"")
        + b"* OK [PERMANENTFLAGS (%b)] Flags that are kept.\r\n" % permanent
        + b"* OK [UIDNEXT %d] Next UID.\r\n" % view.uidnext
        + b"* OK [UIDVALIDITY %d] UIDs are valid.\r\n" % folder.uidvalidity
        + b"* OK [HIGHESTMODSEQ %d] Highest modification.\r\n" % view.highestmodseq
    )
    return Done(b"READ-ONLY" if read_only else b"READ-WRITE")


async def _first_unseen(s: ImapSession, opened: Selected) -> int:
    """The number of the first message without \\Seen, 0 when there is none; from memory."""
    unseen = {i for i, text in enumerate(opened.view.flagsets) if b"\\Seen" not in text.split(b" ")}
    if not unseen:
        return 0
    return next((n for n, f in enumerate(opened.view.flags, 1) if f in unseen), 0)


async def close(s: ImapSession, _args: None, _uid: bool) -> Done:
    """RFC 3501 §6.4.2: removes the \\Deleted messages silently."""
    opened = s.open
    s.close_folder()
    if not opened.read_only:
        await s.store.expunge(opened.folder, None)
    return Done()


async def unselect(s: ImapSession, _args: None, _uid: bool) -> Done:
    """RFC 3691: closes and removes nothing."""
    s.close_folder()
    return Done()
