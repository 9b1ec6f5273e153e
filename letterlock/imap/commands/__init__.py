"""THE TABLE: every IMAP command and extension. What is not here does not exist, and is not announced."""

from __future__ import annotations

from typing import Final

from letterlock.base.values import Protocol
from letterlock.imap.commands import append, fetch, folders, general, login, messages, quota, search, select
from letterlock.imap.commands.login import no_arguments
from letterlock.imap.session import (
    ANY,
    FRESH,
    LOGGED_IN,
    NO_EXPUNGE,
    NOT_AUTHENTICATED,
    REPORTS,
    SELECTED,
    UID,
    ImapSession,
    Row,
)
from letterlock.policy.login import LOGIN_COMMAND, offered

_BY_NUMBER: Final = FRESH | REPORTS | NO_EXPUNGE

#    name, run, parse, states, flags, specified in
_ROWS: Final = (
    Row(b"CAPABILITY", general.capability, no_arguments, ANY, REPORTS, "RFC 3501 6.1.1"),
    Row(b"NOOP", general.noop, no_arguments, ANY, REPORTS, "RFC 3501 6.1.2"),
    Row(b"LOGOUT", general.logout, no_arguments, ANY, 0, "RFC 3501 6.1.3"),
    Row(b"ID", general.identify, general.parse_id, ANY, 0, "RFC 2971 3.1"),
    Row(b"STARTTLS", login.starttls, no_arguments, NOT_AUTHENTICATED, 0, "RFC 3501 6.2.1"),
    Row(b"AUTHENTICATE", login.authenticate, login.parse_authenticate, NOT_AUTHENTICATED, 0, "RFC 3501 6.2.2"),
    Row(b"LOGIN", login.login, login.parse_login, NOT_AUTHENTICATED, 0, "RFC 3501 6.2.3"),
    Row(b"ENABLE", general.enable, general.parse_enable, LOGGED_IN, 0, "RFC 5161 3.1"),
    Row(b"SELECT", select.select, select.parse_select, LOGGED_IN, 0, "RFC 3501 6.3.1"),
    Row(b"EXAMINE", select.examine, select.parse_select, LOGGED_IN, 0, "RFC 3501 6.3.2"),
    Row(b"CREATE", folders.create, folders.parse_create, LOGGED_IN, REPORTS, "RFC 3501 6.3.3"),
    Row(b"DELETE", folders.delete, folders.parse_folder, LOGGED_IN, REPORTS, "RFC 3501 6.3.4"),
    Row(b"RENAME", folders.rename, folders.parse_rename, LOGGED_IN, REPORTS, "RFC 3501 6.3.5"),
    Row(b"SUBSCRIBE", folders.subscribe, folders.parse_folder, LOGGED_IN, REPORTS, "RFC 3501 6.3.6"),
    Row(b"UNSUBSCRIBE", folders.unsubscribe, folders.parse_folder, LOGGED_IN, REPORTS, "RFC 3501 6.3.7"),
    Row(b"LIST", folders.list_, folders.parse_list, LOGGED_IN, REPORTS, "RFC 5258 6"),
    Row(b"LSUB", folders.lsub, folders.parse_lsub, LOGGED_IN, REPORTS, "RFC 3501 6.3.9"),
    Row(b"NAMESPACE", folders.namespace, no_arguments, LOGGED_IN, REPORTS, "RFC 2342 5"),
    Row(b"STATUS", folders.status, folders.parse_status, LOGGED_IN, REPORTS, "RFC 3501 6.3.10"),
    Row(b"GETQUOTA", quota.get_quota, quota.parse_root, LOGGED_IN, REPORTS, "RFC 9208 4.1.1"),
    Row(b"GETQUOTAROOT", quota.get_quota_root, quota.parse_folder, LOGGED_IN, REPORTS, "RFC 9208 4.1.2"),
    Row(b"APPEND", append.append, append.parse_append, LOGGED_IN, 0, "RFC 3501 6.3.11"),
    Row(b"IDLE", general.idle, no_arguments, LOGGED_IN, 0, "RFC 2177 3"),
    Row(b"CHECK", general.noop, no_arguments, SELECTED, REPORTS, "RFC 3501 6.4.1"),
    Row(b"CLOSE", select.close, no_arguments, SELECTED, 0, "RFC 3501 6.4.2"),
    Row(b"UNSELECT", select.unselect, no_arguments, SELECTED, 0, "RFC 3691 2"),
    Row(b"EXPUNGE", messages.expunge, no_arguments, SELECTED, 0, "RFC 3501 6.4.3"),
    Row(b"UID EXPUNGE", messages.uid_expunge, messages.parse_uid_expunge, SELECTED, UID, "RFC 4315 2.1"),
    Row(b"SEARCH", search.search, search.parse_search, SELECTED, _BY_NUMBER, "RFC 3501 6.4.4"),
    Row(b"UID SEARCH", search.search, search.parse_search, SELECTED, FRESH | REPORTS | UID, "RFC 3501 6.4.8"),
    Row(b"FETCH", fetch.fetch, fetch.parse_fetch, SELECTED, _BY_NUMBER, "RFC 3501 6.4.5"),
    Row(b"UID FETCH", fetch.fetch, fetch.parse_fetch, SELECTED, FRESH | REPORTS | UID, "RFC 3501 6.4.8"),
    Row(b"STORE", messages.store, messages.parse_store, SELECTED, NO_EXPUNGE, "RFC 3501 6.4.6"),
    Row(b"UID STORE", messages.store, messages.parse_store, SELECTED, REPORTS | UID, "RFC 3501 6.4.8"),
    Row(b"COPY", messages.copy, messages.parse_copy, SELECTED, REPORTS, "RFC 3501 6.4.7"),
    Row(b"UID COPY", messages.copy, messages.parse_copy, SELECTED, REPORTS | UID, "RFC 3501 6.4.8"),
    Row(b"MOVE", messages.move, messages.parse_copy, SELECTED, REPORTS, "RFC 6851 3.1"),
    Row(b"UID MOVE", messages.move, messages.parse_copy, SELECTED, REPORTS | UID, "RFC 6851 3.2"),
)
COMMANDS: Final = {row.name: row for row in _ROWS}

ALWAYS: Final = b"IMAP4rev1 SASL-IR LITERAL+ ID ENABLE"
AFTER_LOGIN: Final = (
    b"IDLE NAMESPACE UIDPLUS MOVE UNSELECT CHILDREN SPECIAL-USE CREATE-SPECIAL-USE LIST-EXTENDED LIST-STATUS "
    b"ESEARCH SEARCHRES WITHIN CONDSTORE MULTIAPPEND STATUS=SIZE PREVIEW QUOTA QUOTA=RES-STORAGE"
)


def capabilities(s: ImapSession) -> bytes:
    """What CAPABILITY says now; login mechanisms come from the policy that enforces them (RFC 3501 §7.2.1)."""
    if s.authenticated:
        return ALWAYS + b" " + AFTER_LOGIN
    words = [ALWAYS]
    if s.starttls:
        words.append(b"STARTTLS")
    mechanisms = offered(Protocol.IMAP4, s.channel, s.rules)
    if LOGIN_COMMAND not in mechanisms:
        words.append(b"LOGINDISABLED")
    words += [b"AUTH=" + m.name for m in mechanisms if b" " not in m.name and m.name != b"USER"]
    return b" ".join(words)
