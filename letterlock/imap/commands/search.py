"""SEARCH and UID SEARCH (RFC 3501 §6.4.4), ESEARCH (RFC 4731), SEARCHRES (RFC 5182), WITHIN (RFC 5032), MODSEQ.

The criteria become the store's search tree; sequence numbers and \\Recent are turned into UIDs here.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Final, NamedTuple

import letterlock.store.api as api
from letterlock.base.errors import Malformed, Refused
from letterlock.imap import grammar, reply
from letterlock.imap.reader import Args
from letterlock.imap.selected import Selected
from letterlock.imap.session import Done, ImapSession

MAX_DEPTH: Final = 50
MAX_KEYS: Final = 1000
_CHARSETS: Final = ("us-ascii", "utf-8", "iso-8859-1", "iso-8859-15", "windows-1252")
_RETURN: Final = (b"MIN", b"MAX", b"ALL", b"COUNT", b"SAVE")
_FLAG_KEYS: Final = {
    b"ANSWERED": api.ANSWERED,
    b"DELETED": api.DELETED,
    b"DRAFT": api.DRAFT,
    b"FLAGGED": api.FLAGGED,
    b"SEEN": api.SEEN,
}
_DATE_KEYS: Final = {b"BEFORE": api.Compare.BEFORE, b"ON": api.Compare.ON, b"SINCE": api.Compare.SINCE}
_HEADER_KEYS: Final = (b"BCC", b"CC", b"FROM", b"SUBJECT", b"TO")


class _Numbers(NamedTuple):
    """A message set, before it is known what the folder holds."""

    numbers: grammar.NumberSet
    uid: bool


class _Recent(NamedTuple):
    """\\Recent here."""


class _Age(NamedTuple):
    """WITHIN: seconds before now."""

    younger: bool
    seconds: int


Key = object  # a node of api.SearchNode, or one of the three above, or _Group


class _Group(NamedTuple):
    """AND, OR, NOT over keys that are not resolved yet."""

    kind: str
    keys: tuple[Key, ...]


class SearchArgs(NamedTuple):
    """RETURN options (None: plain SEARCH), and the criteria."""

    returns: frozenset[bytes] | None
    key: Key
    modseq: bool
    refusal: Refused | None = None  # a charset that is not known: what follows cannot be read


class _Parser:
    def __init__(self, args: Args, charset: str) -> None:
        self.args = args
        self.charset = charset
        self.keys = 0
        self.modseq = False

    def text(self) -> str:
        try:
            return self.args.astring().decode(self.charset)
        except UnicodeDecodeError:
            raise Malformed(f"SEARCH: the text is not {self.charset}") from None

    def all(self, depth: int) -> Key:
        """search-key *(SP search-key)."""
        keys = [self.key(depth)]
        while self.args.take(b" "):
            keys.append(self.key(depth))
        return keys[0] if len(keys) == 1 else _Group("and", tuple(keys))

    def key(self, depth: int) -> Key:
        """One search-key."""
        self.keys += 1
        if self.keys > MAX_KEYS or depth > MAX_DEPTH:
            raise Malformed(f"SEARCH: more than {MAX_KEYS} keys, or nested deeper than {MAX_DEPTH}")
        if self.args.take(b"("):
            inner = self.all(depth + 1)
            self.args.expect(b")")
            return inner
        if self.args.peek() in b"0123456789*$":
            return _Numbers(self.args.number_set(), False)
        word = self.args.keyword()
        if word in _SIMPLE:
            return _SIMPLE[word]
        return self._with_argument(word, depth)

    def _with_argument(self, word: bytes, depth: int) -> Key:
        args = self.args
        args.space()
        if word == b"NOT":
            return _Group("not", (self.key(depth + 1),))
        if word == b"OR":
            left = self.key(depth + 1)
            args.space()
            return _Group("or", (left, self.key(depth + 1)))
        if word == b"HEADER":
            name = args.astring().decode("ascii", "replace").lower()
            args.space()
            return api.Header(name, self.text())
        parse = _ARGUMENT.get(word)
        if parse is None:
            raise Malformed(f"SEARCH: unknown key {word[:40].decode()}")
        return parse(self, word)

    def date(self, word: bytes) -> Key:
        """BEFORE, ON, SINCE and the SENT ones."""
        day = self.args.date()
        if word.startswith(b"SENT"):
            return api.Sent(_DATE_KEYS[word[4:]], day)
        return api.Arrived(_DATE_KEYS[word], day)

    def header(self, word: bytes) -> Key:
        """FROM, TO …"""
        return api.Header(word.decode().lower(), self.text())

    def body(self, word: bytes) -> Key:
        """BODY, TEXT."""
        return api.Text(self.text(), word == b"TEXT")

    def keyword(self, word: bytes) -> Key:
        """KEYWORD, UNKEYWORD."""
        found = api.HasKeyword(self.args.atom())
        return api.Not(found) if word == b"UNKEYWORD" else found

    def size(self, word: bytes) -> Key:
        """LARGER, SMALLER."""
        octets = self.args.number()
        return api.Larger(octets) if word == b"LARGER" else api.Smaller(octets)

    def age(self, word: bytes) -> Key:
        """YOUNGER, OLDER."""
        return _Age(word == b"YOUNGER", self.args.number())

    def uid(self, _word: bytes) -> Key:
        """UID."""
        return _Numbers(self.args.number_set(), True)

    def mod(self, _word: bytes) -> Key:
        """MODSEQ [entry SP type SP] n (RFC 7162 §3.1.5): entries are all one here."""
        self.modseq = True
        if self.args.peek() == b'"':
            self.args.string()
            self.args.space()
            self.args.keyword()
            self.args.space()
        return api.ModifiedSince(self.args.number())


_SIMPLE: Final[dict[bytes, Key]] = {
    b"ALL": api.All(),
    b"RECENT": _Recent(),
    b"OLD": _Group("not", (_Recent(),)),
    b"NEW": _Group("and", (_Recent(), api.Not(api.HasFlag(api.SEEN)))),
    **{name: api.HasFlag(bit) for name, bit in _FLAG_KEYS.items()},
    **{b"UN" + name: api.Not(api.HasFlag(bit)) for name, bit in _FLAG_KEYS.items()},
}
_ARGUMENT: Final[dict[bytes, Callable[[_Parser, bytes], Key]]] = {
    **dict.fromkeys((*_DATE_KEYS, *(b"SENT" + k for k in _DATE_KEYS)), _Parser.date),
    **dict.fromkeys(_HEADER_KEYS, _Parser.header),
    **dict.fromkeys((b"BODY", b"TEXT"), _Parser.body),
    **dict.fromkeys((b"KEYWORD", b"UNKEYWORD"), _Parser.keyword),
    **dict.fromkeys((b"LARGER", b"SMALLER"), _Parser.size),
    **dict.fromkeys((b"YOUNGER", b"OLDER"), _Parser.age),
    b"UID": _Parser.uid,
    b"MODSEQ": _Parser.mod,
}


def parse_search(args: Args) -> SearchArgs:
    """ "SEARCH" [SP "RETURN (" … ")"] [SP "CHARSET" SP charset] 1*(SP search-key)."""
    args.space()
    returns: frozenset[bytes] | None = None
    if args.data[args.at : args.at + 8].upper() == b"RETURN (":
        args.at += 8
        names: list[bytes] = []
        while not args.take(b")"):
            if names:
                args.space()
            names.append(args.keyword())
        if unknown := [n for n in names if n not in _RETURN]:
            raise Malformed(f"SEARCH: RETURN has no {unknown[0].decode()}")
        returns = frozenset(names or [b"ALL"])
        args.space()
    charset = "utf-8"
    if args.data[args.at : args.at + 8].upper() == b"CHARSET ":
        args.at += 8
        charset = args.astring().decode("ascii", "replace").lower()
        if charset not in _CHARSETS:
            known = b" ".join(c.upper().encode() for c in _CHARSETS)
            args.rest()
            refusal = Refused("that charset is not known here", b"BADCHARSET (" + known + b")")
            return SearchArgs(returns, api.All(), False, refusal)
        args.space()
    parser = _Parser(args, charset)
    key = parser.all(0)
    return SearchArgs(returns, key, parser.modseq)


def resolve(key: Key, opened: Selected, now: float) -> api.SearchNode:
    """The store's tree: numbers and \\Recent become UIDs of this session's view, ages become moments."""
    if isinstance(key, _Numbers):
        return api.Uids(tuple(opened.uid_ranges(opened.runs(key.numbers, key.uid))))
    if isinstance(key, _Recent):
        return api.Uids(((opened.recent, grammar.MAX_NUMBER),))
    if isinstance(key, _Age):
        return api.ArrivedWithin(key.younger, now - key.seconds)
    if isinstance(key, _Group):
        nodes = tuple(resolve(k, opened, now) for k in key.keys)
        if key.kind == "not":
            return api.Not(nodes[0])
        return api.Or(nodes[0], nodes[1]) if key.kind == "or" else api.And(nodes)
    return key  # type: ignore[return-value]


async def search(s: ImapSession, args: SearchArgs, uid: bool) -> Done:
    """Answer one SEARCH."""
    opened = s.open
    if args.refusal is not None:
        if args.returns and b"SAVE" in args.returns:
            opened.saved = array("I")  # RFC 5182 §2.1: a SEARCH that is refused saves nothing
        raise args.refusal
    if args.modseq:
        s.enabled.add(b"CONDSTORE")
    tree = resolve(args.key, opened, s.host.wall())
    uids = opened.view.uids
    ranges = [(uids[0], uids[-1])] if uids else []
    found = await s.store.search(opened.folder, ranges, tree) if ranges else array("I")
    indexes = [k for i, j in opened.runs_of(found) for k in range(i, j)]
    known = array("I", [uids[k] for k in indexes])
    shown = list(known) if uid else [k + 1 for k in indexes]
    highest = _highest(args.returns, [opened.view.modseqs[k] for k in indexes]) if args.modseq else 0
    if args.returns is None:
        modseq = b" (MODSEQ %d)" % highest if highest else b""
        s.out.append(b"* SEARCH" + b"".join(b" %d" % n for n in shown) + modseq + b"\r\n")
        return Done()
    if b"SAVE" in args.returns:
        opened.saved = _saved(args.returns, known)
    if args.returns != {b"SAVE"}:
        s.out.append(_esearch(s.tag, args.returns, shown, uid, highest))
    return Done()


def _highest(returns: frozenset[bytes] | None, modseqs: list[int]) -> int:
    """MODSEQ of the answer (RFC 7162 §3.1.5); of what MIN and MAX tell, when nothing else is asked (RFC 4731 §3.2)."""
    if returns and not returns & {b"ALL", b"COUNT", b"SAVE"} and modseqs:
        modseqs = [modseqs[0]] * (b"MIN" in returns) + [modseqs[-1]] * (b"MAX" in returns)
    return max(modseqs, default=0)


def _saved(returns: frozenset[bytes], known: array[int]) -> array[int]:
    """RFC 5182 §2.4: MIN and MAX alone save only those."""
    if returns & {b"ALL", b"COUNT"} or not returns & {b"MIN", b"MAX"} or not known:
        return known
    ends = [known[0]] * (b"MIN" in returns) + [known[-1]] * (b"MAX" in returns)
    return array("I", sorted(set(ends)))


def _esearch(tag: bytes, returns: frozenset[bytes], shown: list[int], uid: bool, highest: int) -> bytes:
    """RFC 4731 §3.1."""
    parts = [b"* ESEARCH (TAG " + reply.string(tag) + b")" + (b" UID" if uid else b"")]
    if shown:
        if b"MIN" in returns:
            parts.append(b"MIN %d" % shown[0])
        if b"MAX" in returns:
            parts.append(b"MAX %d" % shown[-1])
    if b"COUNT" in returns:
        parts.append(b"COUNT %d" % len(shown))
    if b"ALL" in returns and shown:
        parts.append(b"ALL " + reply.number_set(shown))
    if highest:
        parts.append(b"MODSEQ %d" % highest)
    return b" ".join(parts) + b"\r\n"
