"""GETQUOTA and GETQUOTAROOT (RFC 9208): one root, named "", which is the whole mailbox. Storage is counted in KiB.

A mailbox without a limit has no root. Limits are set by the administrator (Set-Mailbox); SETQUOTA does not exist.
"""

from __future__ import annotations

from letterlock.base.errors import Refused
from letterlock.imap import grammar, reply
from letterlock.imap.reader import Args
from letterlock.imap.session import Done, ImapSession

KIB = 1024


def parse_root(args: Args) -> bytes:
    """SP astring: a quota root."""
    args.space()
    return args.astring()


def parse_folder(args: Args) -> str:
    """SP mailbox."""
    args.space()
    return args.mailbox()


async def _quota(s: ImapSession, limit: int) -> bytes:
    octets = (await s.store.usage()).octets
    return b'* QUOTA "" (STORAGE %d %d)\r\n' % (-(-octets // KIB), limit // KIB)


async def get_quota(s: ImapSession, root: bytes, _uid: bool) -> Done:
    """RFC 9208 §4.1.1."""
    limit = s.store.quota.limit
    if root or limit is None:
        raise Refused("there is no such quota root", b"NONEXISTENT")
    s.out.append(await _quota(s, limit))
    return Done()


async def get_quota_root(s: ImapSession, name: str, _uid: bool) -> Done:
    """RFC 9208 §4.1.2."""
    folder = await s.store.folder(name)
    limit = s.store.quota.limit
    root = b"" if limit is None else b' ""'
    s.out.append(b"* QUOTAROOT " + reply.string(grammar.encode_utf7(folder.name)) + root + b"\r\n")
    if limit is not None:
        s.out.append(await _quota(s, limit))
    return Done()
