"""Folders: CREATE DELETE RENAME SUBSCRIBE UNSUBSCRIBE LIST LSUB NAMESPACE STATUS.

RFC 3501 §6.3, LIST-EXTENDED (RFC 5258), SPECIAL-USE (RFC 6154), LIST-STATUS (RFC 5819), NAMESPACE (RFC 2342).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from letterlock.base.errors import Malformed, Refused
from letterlock.imap import grammar, reply
from letterlock.imap.reader import Args
from letterlock.imap.session import Done, ImapSession
from letterlock.store.api import Folder, Status

MAX_PATTERNS: Final = 20
_USES: Final = {u.lower(): u for u in (b"\\Archive", b"\\Drafts", b"\\Flagged", b"\\Junk", b"\\Sent", b"\\Trash")}


def parse_folder(args: Args) -> str:
    """SP mailbox."""
    args.space()
    return args.mailbox()


class CreateArgs(NamedTuple):
    """Name, and the special use asked for."""

    name: str
    use: bytes


def parse_create(args: Args) -> CreateArgs:
    """ "CREATE" SP mailbox [SP "(USE (" use-attr "))"] (RFC 6154 §3)."""
    name = parse_folder(args)
    use = b""
    if args.take(b" ("):
        if args.keyword() != b"USE":
            raise Malformed("USE is the only parameter here")
        args.expect(b" (")
        use = args.match(grammar.FLAG, "a special use")
        args.expect(b"))")
        if use.lower() not in _USES:
            raise Refused("that special use is not known", b"USEATTR")
    return CreateArgs(name, _USES.get(use.lower(), b""))


def _name(name: str) -> str:
    """A trailing separator only says that inferiors will follow (RFC 3501 §6.3.3)."""
    return name[:-1] if name.endswith("/") and len(name) > 1 else name


async def create(s: ImapSession, args: CreateArgs, _uid: bool) -> Done:
    """RFC 3501 §6.3.3."""
    await s.store.create(_name(args.name), args.use)
    return Done()


async def delete(s: ImapSession, name: str, _uid: bool) -> Done:
    """RFC 3501 §6.3.4."""
    await s.store.delete(name)
    if s.selected:  # was it this one? It may have been renamed meanwhile
        try:
            await s.store.view(s.selected.folder)
        except Refused:
            s.close_folder()
    return Done()


class RenameArgs(NamedTuple):
    """From, to."""

    old: str
    new: str


def parse_rename(args: Args) -> RenameArgs:
    """SP mailbox SP mailbox."""
    old = parse_folder(args)
    return RenameArgs(old, parse_folder(args))


async def rename(s: ImapSession, args: RenameArgs, _uid: bool) -> Done:
    """RFC 3501 §6.3.5."""
    await s.store.rename(args.old, _name(args.new))
    return Done()


async def subscribe(s: ImapSession, name: str, _uid: bool) -> Done:
    """RFC 3501 §6.3.6."""
    await s.store.subscribe(name, True)
    return Done()


async def unsubscribe(s: ImapSession, name: str, _uid: bool) -> Done:
    """RFC 3501 §6.3.7."""
    await s.store.subscribe(name, False)
    return Done()


async def namespace(s: ImapSession, _args: None, _uid: bool) -> Done:
    """RFC 2342: one personal namespace."""
    s.out.append(b'* NAMESPACE (("" "/")) NIL NIL\r\n')
    return Done()


# --- STATUS

_STATUS: Final = {
    b"MESSAGES": lambda st: st.messages,
    b"RECENT": lambda st: st.recent,
    b"UIDNEXT": lambda st: st.uidnext,
    b"UIDVALIDITY": lambda st: st.uidvalidity,
    b"UNSEEN": lambda st: st.unseen,
    b"HIGHESTMODSEQ": lambda st: st.highestmodseq,
    b"SIZE": lambda st: st.size,
    b"DELETED": lambda st: st.deleted,
}


class StatusArgs(NamedTuple):
    """Folder and items."""

    folder: str
    items: tuple[bytes, ...]


def _status_items(args: Args) -> tuple[bytes, ...]:
    args.expect(b"(")
    items = [args.keyword()]
    while args.take(b" "):
        items.append(args.keyword())
    args.expect(b")")
    unknown = [i for i in items if i not in _STATUS]
    if unknown:
        raise Malformed(f"STATUS has no item {unknown[0].decode()}")
    return tuple(dict.fromkeys(items))


def parse_status(args: Args) -> StatusArgs:
    """ "STATUS" SP mailbox SP "(" status-att *(SP status-att) ")"."""
    folder = parse_folder(args)
    args.space()
    return StatusArgs(folder, _status_items(args))


def _status_line(folder: Folder, status: Status, items: tuple[bytes, ...]) -> bytes:
    values = b" ".join(b"%b %d" % (i, _STATUS[i](status)) for i in items)
    return b"* STATUS %b (%b)\r\n" % (_wire(folder.name), values)


async def status(s: ImapSession, args: StatusArgs, _uid: bool) -> Done:
    """RFC 3501 §6.3.10."""
    if b"HIGHESTMODSEQ" in args.items:
        s.enabled.add(b"CONDSTORE")  # RFC 7162 §3.1.8
    folder = await s.store.folder(args.folder)
    found = await s.store.status([folder], b"SIZE" in args.items)
    s.out.append(_status_line(folder, found[0], args.items))
    return Done()


def _wire(name: str) -> bytes:
    return reply.string(grammar.encode_utf7(name))


# --- LIST


class ListArgs(NamedTuple):
    """LIST with its extensions."""

    select: frozenset[bytes]
    reference: str
    patterns: tuple[str, ...]
    returns: frozenset[bytes]
    status: tuple[bytes, ...]
    extended: bool


_SELECT: Final = frozenset((b"SUBSCRIBED", b"REMOTE", b"RECURSIVEMATCH", b"SPECIAL-USE"))
_RETURN: Final = frozenset((b"SUBSCRIBED", b"CHILDREN", b"SPECIAL-USE"))


def _options(args: Args) -> frozenset[bytes]:
    names: list[bytes] = []
    while not args.take(b")"):
        if names:
            args.space()
        names.append(args.keyword())
    return frozenset(names)


def _pattern(args: Args) -> str:
    return grammar.decode_utf7(args.list_mailbox())


def parse_list(args: Args) -> ListArgs:
    """RFC 3501 §6.3.8, RFC 5258 §6."""
    args.space()
    select: frozenset[bytes] = frozenset()
    extended = False
    if args.take(b"("):
        extended = True
        select = _options(args)
        args.space()
    if select - _SELECT or (select >= {b"RECURSIVEMATCH"} and not select & {b"SUBSCRIBED", b"SPECIAL-USE"}):
        raise Malformed("LIST: unknown selection option, or RECURSIVEMATCH without another one")
    reference = grammar.decode_utf7(args.astring())
    args.space()
    patterns = []
    if args.take(b"("):
        extended = True
        patterns.append(_pattern(args))
        while args.take(b" "):
            patterns.append(_pattern(args))
        args.expect(b")")
    else:
        patterns.append(_pattern(args))
    if len(patterns) > MAX_PATTERNS or any(len(p) > 1000 for p in (*patterns, reference)):
        raise Malformed("LIST: too many patterns, or one that is too long")
    returns, items = _returns(args)
    return ListArgs(select, reference, tuple(patterns), returns, items, extended or bool(returns or items))


def _returns(args: Args) -> tuple[frozenset[bytes], tuple[bytes, ...]]:
    """ " RETURN (" … ")" with STATUS items (RFC 5819)."""
    if args.at_end():
        return frozenset(), ()
    args.space()
    if args.keyword() != b"RETURN":
        raise Malformed("LIST: expected RETURN")
    args.expect(b" (")
    returns: set[bytes] = set()
    items: tuple[bytes, ...] = ()
    first = True
    while not args.take(b")"):
        if not first:
            args.space()
        first = False
        word = args.keyword()
        if word == b"STATUS":
            args.space()
            items = _status_items(args)
        elif word in _RETURN:
            returns.add(word)
        else:
            raise Malformed(f"LIST: unknown return option {word.decode()}")
    return frozenset(returns), items


class _Entry(NamedTuple):
    folder: Folder
    exists: bool


async def _entries(s: ImapSession) -> list[_Entry]:
    """Folders that may be shown, and subscribed names that do not exist."""
    folders = await s.store.folders()
    hidden = () if s.settings.ShowHiddenFoldersEnabled else tuple(f.name + "/" for f in folders if f.hidden)
    known = {f.name for f in folders}
    entries = [_Entry(f, True) for f in folders if not (f.name + "/").startswith(hidden)]
    for name in await s.store.subscriptions():
        if name not in known and not name.startswith(hidden):
            entries.append(_Entry(Folder(0, name, 0, selectable=False, subscribed=True), False))
    return sorted(entries, key=lambda e: (e.folder.name != "INBOX", e.folder.name))


def _matches(args: ListArgs, name: str) -> bool:
    return any(grammar.list_match(args.reference + p, name) for p in args.patterns)


async def list_(s: ImapSession, args: ListArgs, _uid: bool) -> Done:
    """LIST."""
    if args.patterns == ("",) and not args.extended:
        s.out.append(b'* LIST (\\Noselect) "/" ""\r\n')
        return Done()
    entries = await _entries(s)
    parents = _parents(e.folder.name for e in entries if e.exists)
    wanted = [e for e in entries if _selected(args, e)]
    chosen = [e for e in wanted if _matches(args, e.folder.name)]
    info: set[str] = set()
    if b"RECURSIVEMATCH" in args.select:
        info, more = _ancestors(args, entries, wanted, {e.folder.name for e in chosen})
        chosen = sorted(chosen + more, key=lambda e: (e.folder.name != "INBOX", e.folder.name))
    statuses = {}
    if args.status:
        if b"HIGHESTMODSEQ" in args.status:
            s.enabled.add(b"CONDSTORE")  # RFC 7162 §3.1.8
        existing = [e.folder for e in chosen if e.exists and e.folder.selectable]
        found = await s.store.status(existing, b"SIZE" in args.status)
        statuses = {f.name: _status_line(f, st, args.status) for f, st in zip(existing, found, strict=True)}
    met = b" ".join(b'"%b"' % option for option in sorted(args.select & {b"SUBSCRIBED", b"SPECIAL-USE"}))
    for e in chosen:
        attributes = _attributes(args, e, e.folder.name in parents)
        extra = b' ("CHILDINFO" (%b))' % met if e.folder.name in info else b""
        s.out.append(b'* LIST (%b) "/" %b%b\r\n' % (attributes, _wire(e.folder.name), extra))
        if e.folder.name in statuses:
            s.out.append(statuses[e.folder.name])
    return Done()


def _parents(names: object) -> set[str]:
    """Every name that has an inferior."""
    found: set[str] = set()
    for name in names:  # type: ignore[attr-defined]
        while "/" in name:
            name = name.rpartition("/")[0]
            found.add(name)
    return found


def _selected(args: ListArgs, e: _Entry) -> bool:
    if b"SUBSCRIBED" in args.select and not e.folder.subscribed:
        return False
    if b"SPECIAL-USE" in args.select and not e.folder.special_use:
        return False
    return e.exists or b"SUBSCRIBED" in args.select


def _ancestors(
    args: ListArgs, entries: list[_Entry], wanted: list[_Entry], chosen: set[str]
) -> tuple[set[str], list[_Entry]]:
    """RECURSIVEMATCH: names whose inferiors are wanted but do not match the pattern (RFC 5258 §3.5)."""
    by_name = {e.folder.name: e for e in entries}
    info: set[str] = set()
    more: list[_Entry] = []
    for e in wanted:
        if e.folder.name in chosen:
            continue
        for parent in sorted(_parents([e.folder.name])):
            if _matches(args, parent) and parent not in info:
                info.add(parent)
                if parent not in chosen:
                    more.append(by_name.get(parent, _Entry(Folder(0, parent, 0, selectable=False), False)))
    return info, more


def _attributes(args: ListArgs, e: _Entry, has_children: bool) -> bytes:
    names = []
    if not e.exists:
        names.append(b"\\NonExistent")
    elif not e.folder.selectable:
        names.append(b"\\Noselect")
    names.append(b"\\HasChildren" if has_children else b"\\HasNoChildren")
    if e.folder.subscribed and (b"SUBSCRIBED" in args.returns or b"SUBSCRIBED" in args.select):
        names.append(b"\\Subscribed")
    if e.folder.special_use:
        names.append(e.folder.special_use)
    return b" ".join(names)


def parse_lsub(args: Args) -> ListArgs:
    """SP mailbox SP list-mailbox."""
    args.space()
    reference = grammar.decode_utf7(args.astring())
    args.space()
    return ListArgs(frozenset(), reference, (_pattern(args),), frozenset(), (), False)


async def lsub(s: ImapSession, args: ListArgs, _uid: bool) -> Done:
    """RFC 3501 §6.3.9; with a trailing `%`, a name whose subscribed inferiors do not match is shown \\Noselect."""
    entries = [e for e in await _entries(s) if e.folder.subscribed]
    names = {e.folder.name: not e.folder.selectable for e in entries if _matches(args, e.folder.name)}
    if any(p.endswith("%") for p in args.patterns):
        for parent in _parents(e.folder.name for e in entries if e.folder.name not in names):
            if _matches(args, parent):
                names.setdefault(parent, True)
    for name in sorted(names, key=lambda n: (n != "INBOX", n)):
        s.out.append(b'* LSUB (%b) "/" %b\r\n' % (b"\\Noselect" if names[name] else b"", _wire(name)))
    return Done()
