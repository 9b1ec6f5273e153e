"""Schema, migrations and every statement of the SQLite engine; nothing else.

One file is one mailbox. Tables, from narrow to wide, so that a listing reads only what it sends:

- `mailbox`     one row: the last modseq, the greatest UIDVALIDITY ever given, how far the text index reaches.
- `folder`      ids are never used again, so that a session on a deleted folder cannot meet its successor.
- `message`     a message in a folder: UID, flags, modseq and which content it shows. COPY adds a row here only.
- `content`     what is sent in listings, finished; never changed after it was made. Ids are never used again.
- `heading`     decoded and folded header texts for search, and the preview.
- `raw`         the message itself, split after the header; or the name of the file that holds it.
- `expunged`    (folder, modseq, uid) of every message that went, for QRESYNC (RFC 7162 §3.2).
- `flagset`     keywords of messages as finished bytes; `message.flags` is flagset << 5 | system flags.
- `keyword`     the first spelling of a keyword in this mailbox; `folder_keyword` says which folders know it.
- `receipt`     what imports have brought here, so that none brings it twice.
- `texts`       decoded and folded header and body text, which text searches scan; filled by searches, from the lowest
  content id up to `mailbox.indexed`. NULL: too large to be kept twice, the message itself is read.

Content lives as long as a message names it: the statements that remove messages remove content without one.
Migrations are a numbered list: entry n brings a file from version n to n+1 (`PRAGMA user_version`).
"""

from __future__ import annotations

from typing import Final

from letterlock.store.api import Column

PREPARE_FILE: Final = "PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;"
# temp_store: sorting must never touch the disk, which may be full. cache_size is in KiB when negative.
SETTINGS: Final = (
    "PRAGMA foreign_keys = OFF; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -1024; "
    "PRAGMA trusted_schema = OFF; PRAGMA recursive_triggers = OFF;"
)
SYNC_FULL: Final = "PRAGMA synchronous = FULL"
SYNC_NORMAL: Final = "PRAGMA synchronous = NORMAL"
SYNC_OFF: Final = "PRAGMA synchronous = OFF"
READ_VERSION: Final = "PRAGMA user_version"
READ_PAGES: Final = "SELECT page_count, freelist_count FROM pragma_page_count, pragma_freelist_count"
FREE_PAGES: Final = "PRAGMA incremental_vacuum(2000)"

MIGRATIONS: Final = (
    """
    CREATE TABLE mailbox (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        modseq INTEGER NOT NULL,
        uidvalidity INTEGER NOT NULL,
        indexed INTEGER NOT NULL
    );
    CREATE TABLE folder (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        uidvalidity INTEGER NOT NULL,
        uidnext INTEGER NOT NULL,
        highestmodseq INTEGER NOT NULL,
        recent INTEGER NOT NULL,
        selectable INTEGER NOT NULL,
        special_use BLOB NOT NULL,
        hidden INTEGER NOT NULL
    );
    CREATE TABLE subscription (name TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TABLE keyword (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        folded BLOB NOT NULL UNIQUE,
        name BLOB NOT NULL
    );
    CREATE TABLE folder_keyword (
        folder INTEGER NOT NULL,
        keyword INTEGER NOT NULL,
        PRIMARY KEY (folder, keyword)
    ) WITHOUT ROWID;
    CREATE TABLE flagset (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        names BLOB NOT NULL UNIQUE
    );
    CREATE TABLE message (
        folder INTEGER NOT NULL,
        uid INTEGER NOT NULL,
        flags INTEGER NOT NULL,
        modseq INTEGER NOT NULL,
        content INTEGER NOT NULL,
        size INTEGER NOT NULL,
        day INTEGER NOT NULL,
        arrived INTEGER NOT NULL,
        PRIMARY KEY (folder, uid)
    ) WITHOUT ROWID;
    CREATE INDEX message_modseq ON message (folder, modseq);
    CREATE INDEX message_content ON message (content);
    CREATE TABLE content (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        version INTEGER NOT NULL,
        header_size INTEGER NOT NULL,
        crlf_size INTEGER NOT NULL,
        sent INTEGER NOT NULL,
        internaldate BLOB NOT NULL,
        envelope BLOB NOT NULL,
        bodystructure BLOB NOT NULL,
        body BLOB NOT NULL
    );
    CREATE TABLE heading (
        content INTEGER PRIMARY KEY,
        subject TEXT NOT NULL,
        sender TEXT NOT NULL,
        recipient TEXT NOT NULL,
        cc TEXT NOT NULL,
        bcc TEXT NOT NULL,
        message_id TEXT NOT NULL,
        preview TEXT NOT NULL
    );
    CREATE TABLE raw (
        content INTEGER PRIMARY KEY,
        file TEXT NOT NULL,
        header BLOB NOT NULL,
        text BLOB NOT NULL
    );
    CREATE TABLE expunged (
        folder INTEGER NOT NULL,
        modseq INTEGER NOT NULL,
        uid INTEGER NOT NULL,
        PRIMARY KEY (folder, modseq, uid)
    ) WITHOUT ROWID;
    CREATE TABLE texts (
        content INTEGER PRIMARY KEY,
        header BLOB,
        body BLOB
    );
    """,
    """
    CREATE TABLE receipt (
        source TEXT NOT NULL,
        item TEXT NOT NULL,
        state TEXT NOT NULL,
        PRIMARY KEY (source, item)
    ) WITHOUT ROWID;
    """,
)
SCHEMA_VERSION: Final = len(MIGRATIONS)
WRITE_VERSION: Final = f"PRAGMA user_version = {SCHEMA_VERSION}"
MAKE_MAILBOX: Final = "INSERT INTO mailbox (id, modseq, uidvalidity, indexed) VALUES (1, 1, ?, 0)"

# --- transactions ----------------------------------------------------------------------------------------------

BEGIN: Final = "BEGIN IMMEDIATE"
BEGIN_READ: Final = "BEGIN"
COMMIT: Final = "COMMIT"
ROLLBACK: Final = "ROLLBACK"
SAVEPOINT: Final = "SAVEPOINT job"
RELEASE: Final = "RELEASE job"
BACK_TO_SAVEPOINT: Final = "ROLLBACK TO job"
NEXT_MODSEQ: Final = "UPDATE mailbox SET modseq = modseq + 1 RETURNING modseq"
NEXT_UIDVALIDITY: Final = "UPDATE mailbox SET uidvalidity = max(uidvalidity + 1, ?) RETURNING uidvalidity"

# --- folders ---------------------------------------------------------------------------------------------------

FOLDER_COLUMNS: Final = (
    "id, name, uidvalidity, selectable, EXISTS (SELECT 1 FROM subscription s WHERE s.name = folder.name), "
    "special_use, hidden"
)
FOLDERS: Final = f"SELECT {FOLDER_COLUMNS} FROM folder ORDER BY name <> 'INBOX', name"  # noqa: S608
FOLDER_BY_NAME: Final = f"SELECT {FOLDER_COLUMNS} FROM folder WHERE name = ?"  # noqa: S608
FOLDER_BY_ID: Final = f"SELECT {FOLDER_COLUMNS} FROM folder WHERE id = ?"  # noqa: S608
FOLDER_STATE: Final = "SELECT highestmodseq, uidnext, recent, name FROM folder WHERE id = ? AND selectable"
FOLDER_INSERT: Final = (
    "INSERT INTO folder (name, uidvalidity, uidnext, highestmodseq, recent, selectable, special_use, hidden) "
    "VALUES (?, ?, 1, ?, 1, ?, ?, 0) RETURNING id"
)
FOLDER_DELETE: Final = "DELETE FROM folder WHERE id = ?"
FOLDER_DELETE_ALL: Final = "DELETE FROM folder"
FOLDER_RENAME: Final = "UPDATE folder SET name = ? WHERE id = ?"
FOLDER_HIDE: Final = "UPDATE folder SET hidden = ? WHERE id = ?"
FOLDER_USE_TAKEN: Final = "SELECT 1 FROM folder WHERE special_use = ?"
# A range on the index instead of LIKE: "0" is the character after "/", so nothing in a name acts as a wildcard.
FOLDER_INFERIORS: Final = "SELECT id, name FROM folder WHERE name >= ?1 || '/' AND name < ?1 || '0' ORDER BY name"
FOLDER_TAKE_UIDS: Final = (
    "UPDATE folder SET uidnext = uidnext + ?2, highestmodseq = ?3 WHERE id = ?1 AND selectable "
    "RETURNING uidnext, uidvalidity"
)
FOLDER_TOUCH: Final = "UPDATE folder SET highestmodseq = ?2 WHERE id = ?1"
FOLDER_CLAIM_RECENT: Final = "UPDATE folder SET recent = uidnext WHERE id = ?"
SUBSCRIPTIONS: Final = "SELECT name FROM subscription ORDER BY name"
FOLDER_COUNT: Final = "SELECT count(*) FROM folder"
SUBSCRIPTION_COUNT: Final = "SELECT count(*) FROM subscription"
SUBSCRIBE: Final = "INSERT OR IGNORE INTO subscription (name) VALUES (?)"
UNSUBSCRIBE: Final = "DELETE FROM subscription WHERE name = ?"
STATUS: Final = (
    "SELECT count(*), coalesce(sum(flags & 8 = 0), 0), coalesce(sum(flags & 4 <> 0), 0), coalesce(sum(size), 0) "
    "FROM message WHERE folder = ?"
)
COUNT_FROM: Final = "SELECT count(*) FROM message WHERE folder = ? AND uid >= ?"
EXPUNGED_FORGET: Final = "DELETE FROM expunged WHERE folder = ?"
FOLDER_KEYWORDS_FORGET: Final = "DELETE FROM folder_keyword WHERE folder = ?"

# --- flags -----------------------------------------------------------------------------------------------------

FOLDER_KEYWORDS: Final = (
    "SELECT k.name FROM folder_keyword f JOIN keyword k ON k.id = f.keyword WHERE f.folder = ? ORDER BY k.id"
)
KEYWORD_BY_FOLDED: Final = "SELECT id, name FROM keyword WHERE folded = ?"
KEYWORD_INSERT: Final = "INSERT INTO keyword (folded, name) VALUES (?, ?) RETURNING id"
KEYWORD_KNOWN: Final = "SELECT 1 FROM folder_keyword WHERE folder = ? AND keyword = ?"
KEYWORD_COUNT: Final = "SELECT count(*) FROM folder_keyword WHERE folder = ?"
KEYWORD_LEARN: Final = "INSERT INTO folder_keyword (folder, keyword) VALUES (?, ?)"
FLAGSETS: Final = "SELECT id, names FROM flagset"
FLAGSET_NAMES: Final = "SELECT names FROM flagset WHERE id = ?"
FLAGSET_ID: Final = "SELECT id FROM flagset WHERE names = ?"
FLAGSET_INSERT: Final = "INSERT INTO flagset (names) VALUES (?) RETURNING id"
FLAGSETS_SWEEP: Final = "DELETE FROM flagset WHERE id NOT IN (SELECT flags >> 5 FROM message)"

# --- messages --------------------------------------------------------------------------------------------------

VIEW_ROWS: Final = "SELECT uid, flags, modseq FROM message WHERE folder = ? ORDER BY uid"
CHANGED_ROWS: Final = "SELECT uid, flags, modseq FROM message WHERE folder = ? AND modseq > ? ORDER BY uid"
VANISHED_ROWS: Final = "SELECT uid FROM expunged WHERE folder = ? AND modseq > ? ORDER BY uid"
RANGE_FLAGS: Final = "SELECT uid, flags, modseq FROM message WHERE folder = ? AND uid BETWEEN ? AND ? ORDER BY uid"
SET_FLAGS_RANGE: Final = (
    "UPDATE message SET flags = ?1, modseq = ?2 "
    "WHERE folder = ?3 AND uid BETWEEN ?4 AND ?5 AND flags = ?6 AND modseq <= ?7"
)
SET_FLAGS_ONE: Final = "UPDATE message SET flags = ?, modseq = ? WHERE folder = ? AND uid = ?"
CONTENT_INSERT: Final = (
    "INSERT INTO content (version, header_size, crlf_size, sent, internaldate, envelope, bodystructure, body) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id"
)
HEADING_INSERT: Final = (
    "INSERT INTO heading (content, subject, sender, recipient, cc, bcc, message_id, preview) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
RAW_INSERT: Final = "INSERT INTO raw (content, file, header, text) VALUES (?, ?, ?, ?)"
MESSAGE_INSERT: Final = (
    "INSERT INTO message (folder, uid, flags, modseq, content, size, day, arrived) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
RANGE_UIDS: Final = "SELECT uid FROM message WHERE folder = ? AND uid BETWEEN ? AND ? ORDER BY uid"
RANGE_SETS: Final = "SELECT DISTINCT flags >> 5 FROM message WHERE folder = ? AND uid BETWEEN ? AND ?"
COPY_RANGE: Final = (
    "INSERT INTO message (folder, uid, flags, modseq, content, size, day, arrived) "
    "SELECT ?1, ?2 + row_number() OVER (ORDER BY uid) - 1, flags, ?3, content, size, day, arrived "
    "FROM message WHERE folder = ?4 AND uid BETWEEN ?5 AND ?6 ORDER BY uid"
)
REPLACE_SET: Final = (
    "UPDATE message SET flags = (flags & 31) | (?1 << 5) "
    "WHERE folder = ?2 AND uid BETWEEN ?3 AND ?4 AND flags >> 5 = ?5"
)
MOVE_RANGE_HISTORY: Final = (
    "INSERT INTO expunged (folder, modseq, uid) SELECT folder, ?1, uid FROM message "
    "WHERE folder = ?2 AND uid BETWEEN ?3 AND ?4"
)
MOVE_RANGE_DELETE: Final = "DELETE FROM message WHERE folder = ? AND uid BETWEEN ? AND ?"
EXPUNGE_RANGE: Final = "DELETE FROM message WHERE folder = ? AND uid BETWEEN ? AND ? RETURNING uid, content"
EXPUNGE_RANGE_DELETED: Final = (
    "DELETE FROM message WHERE folder = ? AND uid BETWEEN ? AND ? AND flags & 4 RETURNING uid, content"
)
EXPUNGED_INSERT: Final = "INSERT INTO expunged (folder, modseq, uid) VALUES (?, ?, ?)"
# Lists of content ids are bound as one array (carray), so a bulk removal is one statement.
ORPHANS: Final = "SELECT a.value FROM carray(?) a WHERE NOT EXISTS (SELECT 1 FROM message m WHERE m.content = a.value)"
RAW_DELETE: Final = "DELETE FROM raw WHERE content IN (SELECT value FROM carray(?)) RETURNING file"
HEADING_DELETE: Final = "DELETE FROM heading WHERE content IN (SELECT value FROM carray(?))"
CONTENT_DELETE: Final = "DELETE FROM content WHERE id IN (SELECT value FROM carray(?))"
USAGE: Final = "SELECT coalesce(sum(size), 0), count(*) FROM message"
RANGE_SIZE: Final = "SELECT coalesce(sum(size), 0) FROM message WHERE folder = ? AND uid BETWEEN ? AND ?"
RECEIPT: Final = "INSERT OR REPLACE INTO receipt (source, item, state) VALUES (?, ?, ?)"
RECEIPTS: Final = "SELECT item, state FROM receipt WHERE source = ?"
RECEIPTS_FORGET: Final = "DELETE FROM receipt WHERE source = ?"
FILE_KNOWN: Final = "SELECT 1 FROM raw WHERE file = ?"

# --- FETCH: composed from these fragments only -----------------------------------------------------------------

FETCH_COLUMNS: Final[dict[Column, str]] = {
    Column.FLAGS: "m.flags",
    Column.MODSEQ: "m.modseq",
    Column.SIZE: "m.size",
    Column.INTERNALDATE: "c.internaldate",
    Column.CRLF_SIZE: "c.crlf_size",
    Column.ENVELOPE: "c.envelope",
    Column.BODY: "c.body",
    Column.BODYSTRUCTURE: "c.bodystructure",
    Column.HEADER: "r.header",
    Column.TEXT: "r.text",
    Column.PREVIEW: "h.preview",
}
# What tells a reader that header and text are in a file: its name, and where the text begins.
FETCH_FILE: Final = "r.file, h_size.header_size, m.size"
FETCH_SELECT: Final = "SELECT m.uid"
FETCH_FROM: Final = " FROM message m"
FETCH_JOINS: Final = {
    "c": " JOIN content c ON c.id = m.content",
    "r": " JOIN raw r ON r.content = m.content",
    "h": " JOIN heading h ON h.content = m.content",
}
FETCH_FILE_JOIN: Final = " JOIN content h_size ON h_size.id = m.content"
FETCH_WHERE: Final = " WHERE m.folder = ? AND m.uid BETWEEN ? AND ? ORDER BY m.uid"
FETCH_LIMIT: Final = " LIMIT ?"

# --- SEARCH: composed from these fragments only; `?` are bound in order ----------------------------------------

LAST_INTEGER: Final = (1 << 63) - 1
SEARCH_SELECT: Final = "SELECT m.uid FROM message m"
SEARCH_JOINS: Final = FETCH_JOINS
SEARCH_WHERE: Final = " WHERE m.folder = ? AND m.uid BETWEEN ? AND ?"
SEARCH_AND: Final = " AND "
SEARCH_OR: Final = "({} OR {})"
SEARCH_NOT: Final = "NOT ({})"
SEARCH_ALL_OF: Final = "({})"
SEARCH_ORDER: Final = " ORDER BY m.uid"
IS_TRUE: Final = "1"
HAS_FLAG: Final = "(m.flags & ?) <> 0"
IN_SETS: Final = "(m.flags >> 5) IN (SELECT value FROM carray(?))"
UID_BETWEEN: Final = "m.uid BETWEEN ? AND ?"
ARRIVED_DAY: Final = {"<": "m.day < ?", "=": "m.day = ?", ">=": "m.day >= ?"}
SENT_DAY: Final = {
    "<": "(c.sent > 0 AND c.sent < ?)",
    "=": "(c.sent > 0 AND c.sent = ?)",
    ">=": "(c.sent > 0 AND c.sent >= ?)",
}
ARRIVED_AFTER: Final = "m.arrived >= ?"
ARRIVED_UNTIL: Final = "m.arrived <= ?"
LARGER: Final = "m.size > ?"
SMALLER: Final = "m.size < ?"
MODIFIED_SINCE: Final = "m.modseq >= ?"
# instr() on text compares characters exactly: nothing in the user's text acts as a wildcard.
HEADER_CONTAINS: Final = {
    "subject": "instr(h.subject, ?) > 0",
    "from": "instr(h.sender, ?) > 0",
    "to": "instr(h.recipient, ?) > 0",
    "cc": "instr(h.cc, ?) > 0",
    "bcc": "instr(h.bcc, ?) > 0",
    "message-id": "instr(h.message_id, ?) > 0",
}

# --- text search ------------------------------------------------------------------------------------------------

INDEXED: Final = "SELECT indexed FROM mailbox"
TO_INDEX: Final = "SELECT id, crlf_size FROM content WHERE id > ? ORDER BY id LIMIT ?"
RAW_ONE: Final = "SELECT file, header, text FROM raw WHERE content = ?"
HEADER_ONE: Final = (
    "SELECT r.file, r.header, c.header_size FROM raw r JOIN content c ON c.id = r.content WHERE r.content = ?"
)
CONTENT_EXISTS: Final = "SELECT 1 FROM content WHERE id = ?"
TEXT_INSERT: Final = "INSERT INTO texts (content, header, body) VALUES (?, ?, ?)"
TEXT_DELETE: Final = "DELETE FROM texts WHERE content IN (SELECT value FROM carray(?))"
SET_INDEXED: Final = "UPDATE mailbox SET indexed = ?"
# Texts and query are UTF-8 as BLOBs: bytes of one fit in the other exactly where the characters do.
BODY_CONTAINS: Final = (
    "SELECT t.content, t.body IS NULL FROM carray(?) a CROSS JOIN texts t ON t.content = a.value "
    "WHERE instr(t.body, ?) > 0 OR t.body IS NULL"
)
TEXT_CONTAINS: Final = (
    "SELECT t.content, t.body IS NULL FROM carray(?1) a CROSS JOIN texts t ON t.content = a.value "
    "WHERE instr(t.header, ?2) > 0 OR instr(t.body, ?2) > 0 OR t.body IS NULL"
)
UID_CONTENTS: Final = "SELECT uid, content FROM message WHERE folder = ? AND uid BETWEEN ? AND ?"
