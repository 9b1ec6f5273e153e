"""CAPABILITY, NOOP, LOGOUT, ID, ENABLE, CHECK (RFC 3501 §6.1, RFC 2971, RFC 5161), and IDLE (RFC 2177)."""

from __future__ import annotations

from letterlock import __version__
from letterlock.base.errors import Malformed
from letterlock.imap.reader import Args
from letterlock.imap.session import Done, ImapSession

MAX_ID_PAIRS = 30  # RFC 2971 §3.3
MAX_CLIENT = 200  # characters of a client's name and version that are kept


async def capability(s: ImapSession, _args: None, _uid: bool) -> Done:
    """RFC 3501 §6.1.1."""
    from letterlock.imap.commands import capabilities

    s.out.append(b"* CAPABILITY " + capabilities(s) + b"\r\n")
    return Done()


async def noop(_s: ImapSession, _args: None, _uid: bool) -> Done:
    """RFC 3501 §6.1.2; the table's flags do the work. CHECK as well (§6.4.1): nothing is ever left to be written."""
    return Done()


async def logout(s: ImapSession, _args: None, _uid: bool) -> Done:
    """RFC 3501 §6.1.3."""
    s.out.append(b"* BYE Signing off.\r\n")
    s.ending = True
    return Done()


def parse_id(args: Args) -> list[tuple[bytes, bytes]]:
    """id-params = "(" *(string SP nstring) ")" / nil (RFC 2971 §4)."""
    args.space()
    if args.take(b"("):
        pairs: list[tuple[bytes, bytes]] = []
        while not args.take(b")"):
            if pairs:
                args.space()
            key = args.string()
            args.space()
            pairs.append((key, b"" if args.take(b"NIL") or args.take(b"nil") else args.string()))
            if len(pairs) > MAX_ID_PAIRS:
                break
        return pairs
    if args.keyword() != b"NIL":
        raise Malformed("ID expects a list of strings or NIL")
    return []


def _described(pairs: list[tuple[bytes, bytes]]) -> str:
    """Name and version of a client, and its system: for people, so without control characters, and not too long."""
    told = {key.lower(): value for key, value in pairs}
    words = [told.get(key, b"") for key in (b"name", b"version", b"os", b"os-version")]
    text = b" ".join(filter(None, words)).decode("utf-8", "replace")
    return "".join(ch for ch in text if ch.isprintable())[:MAX_CLIENT]


async def identify(s: ImapSession, args: list[tuple[bytes, bytes]], _uid: bool) -> Done:
    """RFC 2971. The version is told to those who have logged in only."""
    s.client = _described(args) or s.client
    version = b' "version" "' + __version__.encode() + b'"' if s.authenticated else b""
    s.out.append(b'* ID ("name" "Letterlock"' + version + b")\r\n")
    return Done()


def parse_enable(args: Args) -> list[bytes]:
    """ "ENABLE" 1*(SP capability)."""
    args.space()
    names = [args.keyword()]
    while not args.at_end():
        args.space()
        names.append(args.keyword())
    return names


async def enable(s: ImapSession, names: list[bytes], _uid: bool) -> Done:
    """RFC 5161 §3.1: what is not known is ignored."""
    new = [n for n in dict.fromkeys(names) if n == b"CONDSTORE" and n not in s.enabled]
    s.enabled.update(new)
    s.out.append(b"* ENABLED" + b"".join(b" " + n for n in new) + b"\r\n")
    return Done()


async def idle(s: ImapSession, _args: None, _uid: bool) -> Done | None:
    """RFC 2177. No task waits: the driver calls `advance` after a hint, and `_idling` reports."""
    s.out.append(b"+ idling\r\n")
    await s.report(expunge=True)
    s.idling = True
    s.continuation = _idling
    return None


async def _idling(s: ImapSession) -> bool:
    line = s.reader.line()
    if line is None:
        if s.hint:
            await s.report(expunge=True)
        return False
    s.continuation = None
    s.idling = False
    await s.report(expunge=True)
    if s.ending:
        return True
    if line.upper() == b"DONE":
        s.out.append(s.tag + b" OK IDLE completed.\r\n")
    else:
        s.out.append(s.tag + b" BAD IDLE is ended by DONE.\r\n")
    if s.host.logging:
        s.host.note(b"idle", b"", b"R=OK", 4, 0, s.user)
    return True
