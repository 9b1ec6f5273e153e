"""What a mailbox remembers, as an interface. Every engine keeps these promises and passes the same tests.

1. `append`, `copy`, `move`, `expunge` and folder changes return after the change is *durable* (synced to disk).
   `change_flags` and `subscribe` are *quick*: they survive `kill -9`, a power failure may lose the last moment.
2. UIDs only grow in a folder, and never change their meaning under one UIDVALIDITY (RFC 3501 §2.3.1.1).
3. Every change raises the folder's highest modseq (RFC 7162 §3.1); an expunged UID is remembered with its modseq.
4. COPY shares the body. What was stored comes back byte for byte.
5. A method sees one consistent state; all are bulk by nature.
6. Failures for people are raised as `Refused` with a response code: NONEXISTENT, ALREADYEXISTS, CANNOT, OVERQUOTA
   (disk full), INUSE, SERVERBUG; text says what to do.

Folder names are `str` (Unicode, hierarchy separator "/"; INBOX in capitals always exists and cannot be deleted);
modified UTF-7 is the business of the IMAP session.

UID ranges: a sequence of (first, last) pairs, inclusive, ascending, not overlapping. The store acts on the
messages that exist in them. A session makes them from its own view; as UIDs only grow, every UID the store has
between two neighbours of that view is itself in the view, so a run of the view is one pair.

Large because it is the whole contract in one place; it holds hardly any code.
"""

from __future__ import annotations

import datetime
import enum
from array import array
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

UidRanges = Sequence[tuple[int, int]]

# System flags (RFC 3501 §2.3.2) as bits, in the order in which they are rendered.
ANSWERED: Final = 1
FLAGGED: Final = 2
DELETED: Final = 4
SEEN: Final = 8
DRAFT: Final = 16
SYSTEM_FLAGS: Final = (
    (ANSWERED, b"\\Answered"),
    (FLAGGED, b"\\Flagged"),
    (DELETED, b"\\Deleted"),
    (SEEN, b"\\Seen"),
    (DRAFT, b"\\Draft"),
)
MAX_KEYWORDS: Final = 100  # a folder; beyond it PERMANENTFLAGS loses \* and new ones are refused


class Flags(NamedTuple):
    """System flags as bits, and keywords in their first spelling, sorted; compared without case."""

    system: int = 0
    keywords: tuple[bytes, ...] = ()


def render_flags(flags: Flags) -> bytes:
    r"""`\Seen $Forwarded`: without parentheses, in canonical order."""
    names = [name for bit, name in SYSTEM_FLAGS if flags.system & bit]
    return b" ".join((*names, *flags.keywords))


class Folder(NamedTuple):
    """A folder as LIST and SELECT need it."""

    id: int
    name: str
    uidvalidity: int
    selectable: bool = True  # False: \NonExistent or \Noselect parent that remains (RFC 3501 §6.3.4)
    subscribed: bool = False
    special_use: bytes = b""  # b"\\Sent" … (RFC 6154), b"" for none
    hidden: bool = False  # listed only when ShowHiddenFoldersEnabled


class View(NamedTuple):
    """All messages of a folder at one moment, in UID order; immutable, shared by the sessions of a process.

    `flags[i]` indexes `flagsets`; flagsets[k] is the rendered bytes (`render_flags`). Nobody may change the arrays.
    """

    folder: Folder
    uids: array[int]  # typecode I
    flags: array[int]  # typecode I
    modseqs: array[int]  # typecode Q
    flagsets: list[bytes]
    uidnext: int
    highestmodseq: int
    keywords: tuple[bytes, ...]  # known in this folder
    recent: int  # messages with this UID or a greater one are \Recent for the next session that selects


class Change(NamedTuple):
    """A new message or new flags."""

    uid: int
    flags: bytes  # rendered
    modseq: int


class Changes(NamedTuple):
    """What happened after a modseq: new and changed messages in UID order, and UIDs that are gone, ascending."""

    changed: list[Change]
    vanished: list[int]
    highestmodseq: int
    uidnext: int


class Status(NamedTuple):
    """RFC 3501 §6.3.10, RFC 7162 §3.1.7, RFC 8438 (SIZE), RFC 9051 (DELETED)."""

    messages: int
    recent: int
    uidnext: int
    uidvalidity: int
    unseen: int
    highestmodseq: int
    deleted: int
    size: int


class Column(enum.Enum):
    """What `fetch` can answer besides the UID; each is ready to be sent."""

    FLAGS = "flags"  # bytes, rendered without parentheses
    MODSEQ = "modseq"  # int
    INTERNALDATE = "internaldate"  # bytes: "17-Jul-1996 02:44:25 -0700" with the quotes
    SIZE = "size"  # int, octets as stored
    CRLF_SIZE = "crlf_size"  # int, octets if every line, the last one too, ended in CRLF (POP3)
    ENVELOPE = "envelope"  # bytes
    BODY = "body"  # bytes, non-extensible BODY
    BODYSTRUCTURE = "bodystructure"  # bytes
    HEADER = "header"  # bytes: the header block with its empty line
    TEXT = "text"  # bytes: all after it; HEADER + TEXT is the message
    PREVIEW = "preview"  # str


Row = tuple[object, ...]  # (uid, *columns in the order asked for)


class FlagAction(enum.Enum):
    """STORE FLAGS, +FLAGS, -FLAGS (RFC 3501 §6.4.6)."""

    SET = "set"
    ADD = "add"
    REMOVE = "remove"


class Stored(NamedTuple):
    """Result of `change_flags`: what changed, and the UIDs that failed UNCHANGEDSINCE (RFC 7162 §3.1.3)."""

    changed: list[Change]
    modified: list[int]


class Copied(NamedTuple):
    """COPYUID (RFC 4315 §3): source and target in the same order."""

    uidvalidity: int
    source: list[int]
    target: list[int]


# --- search tree -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class All:
    """Every message."""


@dataclass(frozen=True, slots=True)
class Not:
    """RFC 3501 §6.4.4 NOT."""

    node: SearchNode


@dataclass(frozen=True, slots=True)
class And:
    """All of them; an empty one is All."""

    nodes: tuple[SearchNode, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Either."""

    left: SearchNode
    right: SearchNode


@dataclass(frozen=True, slots=True)
class Uids:
    """UID set; sequence numbers are turned into this by the session."""

    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class HasFlag:
    """A system flag is set."""

    bit: int


@dataclass(frozen=True, slots=True)
class HasKeyword:
    """A keyword is set (without case)."""

    name: bytes


class Compare(enum.Enum):
    """How a value is compared."""

    BEFORE = "<"
    ON = "="
    SINCE = ">="


@dataclass(frozen=True, slots=True)
class Arrived:
    """INTERNALDATE, disregarding time and time zone (RFC 3501 §6.4.4 BEFORE, ON, SINCE)."""

    how: Compare
    day: datetime.date


@dataclass(frozen=True, slots=True)
class Sent:
    """Date: header, disregarding time and time zone (SENTBEFORE, SENTON, SENTSINCE)."""

    how: Compare
    day: datetime.date


@dataclass(frozen=True, slots=True)
class ArrivedWithin:
    """RFC 5032: YOUNGER (True) or OLDER (False) than a moment, in seconds since 1970."""

    younger: bool
    moment: float


@dataclass(frozen=True, slots=True)
class Larger:
    """RFC822.SIZE greater than."""

    octets: int


@dataclass(frozen=True, slots=True)
class Smaller:
    """RFC822.SIZE less than."""

    octets: int


@dataclass(frozen=True, slots=True)
class Header:
    """Substring of a decoded header field, without case; empty text: the field exists. `name` in lower case."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Text:
    """Substring of the decoded body, without case; with `header` of the header as well (TEXT)."""

    text: str
    header: bool


@dataclass(frozen=True, slots=True)
class ModifiedSince:
    """MODSEQ at least this (RFC 7162 §3.1.5)."""

    modseq: int


SearchNode = (
    All
    | Not
    | And
    | Or
    | Uids
    | HasFlag
    | HasKeyword
    | Arrived
    | Sent
    | ArrivedWithin
    | Larger
    | Smaller
    | Header
    | Text
    | ModifiedSince
)

# --- writing messages ------------------------------------------------------------------------------------------


class Spool(Protocol):
    """A message on its way in; small ones stay in memory, larger ones go to a file on the store's disk."""

    @property
    def size(self) -> int:
        """Octets so far."""

    def write(self, data: bytes) -> None:
        """Add octets; raises `Refused` (OVERQUOTA) when the disk is full."""

    def close(self) -> None:
        """Throw it away; harmless after a successful append."""


class Incoming(NamedTuple):
    """One message for `append`."""

    spool: Spool
    flags: Flags = Flags()
    internaldate: datetime.datetime | None = None  # aware; None is now


class Appended(NamedTuple):
    """APPENDUID (RFC 4315 §3)."""

    uidvalidity: int
    uids: list[int]


class Quota(NamedTuple):
    """Octets that a mailbox may hold, and from how many on its owner is warned; None: no limit."""

    limit: int | None = None
    warning: int | None = None


NO_QUOTA: Final = Quota()


class Usage(NamedTuple):
    """What a mailbox holds: a message counts in every folder that has it."""

    octets: int
    messages: int


class Receipt(NamedTuple):
    """What an import remembers in the mailbox, in the transaction of the messages that came with it.

    `source` says where from (a file, a folder of another server), `item` which message or folder, `state` how far.
    """

    source: str
    item: str
    state: str = ""


class MailStore(Protocol):
    """One mailbox, opened for one session; cheap to hold while idle (no database handle is kept for it)."""

    @property
    def id(self) -> str:
        """The mailbox's id, for change hints."""

    @property
    def quota(self) -> Quota:
        """What it may hold; `spool`, `append` and `copy` refuse what would go beyond (OVERQUOTA)."""

    async def usage(self) -> Usage:
        """What it holds now."""

    # folders
    async def folders(self) -> list[Folder]:
        """All folders, sorted by name, INBOX first."""

    async def folder(self, name: str) -> Folder:
        """One selectable folder by name (INBOX without case); `Refused` NONEXISTENT otherwise."""

    async def create(self, name: str, special_use: bytes = b"") -> Folder:
        """Durable. Makes missing superiors; ALREADYEXISTS; CANNOT for names that are not possible."""

    async def delete(self, name: str) -> None:
        """Durable. A folder with inferiors stays as not selectable (RFC 3501 §6.3.4). Its UIDVALIDITY never returns."""

    async def rename(self, old: str, new: str) -> None:
        """Durable. Inferiors move along; INBOX's messages move and INBOX stays (RFC 3501 §6.3.5)."""

    async def hide(self, name: str, hidden: bool) -> Folder:
        """Durable. Whether a folder, and all below it, is left out of lists; CANNOT for INBOX."""

    async def subscribe(self, name: str, on: bool) -> None:
        """Quick. A name may be subscribed without existing (RFC 3501 §6.3.6)."""

    async def subscriptions(self) -> list[str]:
        """Subscribed names, existing or not, sorted."""

    async def status(self, folders: Sequence[Folder], sizes: bool = True) -> list[Status]:
        """Status of each; bulk, for LIST-STATUS (RFC 5819). Without `sizes` nobody looks at the size."""

    # reading
    async def view(self, folder: Folder) -> View:
        """The folder now; the same object as last time when nothing has changed (a check of about 2 µs)."""

    async def claim_recent(self, folder: Folder) -> int:
        r"""The UID from which messages are \Recent for this session; they are not for any later one. Quick."""

    async def changes_since(self, folder: Folder, modseq: int) -> Changes:
        """What happened after `modseq`; `Refused` NONEXISTENT when the folder is gone."""

    def fetch(self, folder: Folder, ranges: UidRanges, columns: Sequence[Column]) -> AsyncIterator[list[Row]]:
        """Rows in UID order, in batches of bounded size (rows and octets); nothing is held between batches."""

    async def search(self, folder: Folder, ranges: UidRanges | None, tree: SearchNode) -> array[int]:
        """UIDs, ascending, within `ranges` (None: whole folder). Long work leaves the event loop."""

    # writing
    def spool(self, size: int) -> Spool:
        """A place for a message of `size` octets; `Refused` (OVERQUOTA, TOOBIG) when it cannot be taken."""

    async def append(self, folder: Folder, messages: Sequence[Incoming], receipts: Sequence[Receipt] = ()) -> Appended:
        """Durable; all or none (RFC 3502), `receipts` along with the messages."""

    async def receipts(self, source: str) -> dict[str, str]:
        """What imports from `source` have remembered: state by item."""

    async def forget_receipts(self, source: str) -> None:
        """Durable: the next import from `source` begins anew."""

    async def change_flags(
        self,
        folder: Folder,
        ranges: UidRanges,
        action: FlagAction,
        flags: Flags,
        unchanged_since: int | None = None,
    ) -> Stored:
        """Quick. `changed` lists messages whose flags are now different (and their new state)."""

    async def copy(self, folder: Folder, ranges: UidRanges, target: Folder) -> Copied:
        """Durable; all or none; flags and internal date are kept (RFC 3501 §6.4.7)."""

    async def move(self, folder: Folder, ranges: UidRanges, target: Folder) -> Copied:
        """Durable; in one transaction (RFC 6851)."""

    async def expunge(self, folder: Folder, ranges: UidRanges | None, deleted_only: bool = True) -> list[int]:
        r"""Durable. Removes the \Deleted messages in `ranges`; returns their UIDs.

        POP3 passes deleted_only=False.
        """


class Store(Protocol):
    """An engine: all mailboxes of one server."""

    def mailbox(self, mailbox_id: str, quota: Quota = NO_QUOTA) -> MailStore:
        """An object for one session on that mailbox."""

    async def create_mailbox(self, mailbox_id: str) -> None:
        """Durable. With INBOX, Sent, Drafts, Trash, Junk and Archive (RFC 6154), subscribed."""

    async def delete_mailbox(self, mailbox_id: str) -> None:
        """Durable. Everything of it, files included."""

    async def close(self) -> None:
        """Finish what runs, close every handle."""
