"""The declarations of a mailbox's protocol switches: what Set-CASMailbox sets. They count from the next login on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from letterlock.base.declare import setting
from letterlock.base.values import MimeFormat

_OWN: Final = " Counts where {0}UseProtocolDefaults is false."
_DEFAULTS: Final = (
    "True: what Set-{}Settings says counts for this mailbox. False: the mailbox's own MessagesRetrievalMimeFormat, "
    "SuppressReadReceipt, EnableExactRFC822Size and ForceICalForCalendarRetrievalOption count."
)
_FORMAT: Final = "As MessageRetrievalMimeFormat of Set-{0}Settings."
_RECEIPT: Final = "As SuppressReadReceipt of Set-{0}Settings."
_SIZE: Final = "As EnableExactRFC822Size of Set-{0}Settings."
_ICAL: Final = "True: meetings are iCalendar, as sent. False: as CalendarItemRetrievalOption of Set-{0}Settings says."


def _tnef(value: MimeFormat) -> str:
    return "messages are given as with BestBodyFormat" if value is MimeFormat.Tnef else ""


def _receipts(value: bool) -> str:
    return "senders who ask for a read receipt get none any more" if value else ""


def _always_exact(_value: bool) -> str:
    return "RFC822.SIZE is always exact here; nothing changes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """Get-CASMailbox, Set-CASMailbox."""

    PopEnabled: bool = setting(True, "Whether the mailbox can be used by POP3.")
    ImapEnabled: bool = setting(True, "Whether the mailbox can be used by IMAP4.")
    PopUseProtocolDefaults: bool = setting(True, _DEFAULTS.format("Pop"))
    ImapUseProtocolDefaults: bool = setting(True, _DEFAULTS.format("Imap"))
    PopMessagesRetrievalMimeFormat: MimeFormat = setting(
        MimeFormat.BestBodyFormat, (_FORMAT + _OWN).format("Pop"), here=_tnef
    )
    ImapMessagesRetrievalMimeFormat: MimeFormat = setting(
        MimeFormat.BestBodyFormat, (_FORMAT + _OWN).format("Imap"), here=_tnef
    )
    PopSuppressReadReceipt: bool = setting(False, (_RECEIPT + _OWN).format("Pop"), here=_receipts)
    ImapSuppressReadReceipt: bool = setting(False, (_RECEIPT + _OWN).format("Imap"), here=_receipts)
    PopEnableExactRFC822Size: bool = setting(False, (_SIZE + _OWN).format("Pop"))
    ImapEnableExactRFC822Size: bool = setting(False, (_SIZE + _OWN).format("Imap"), here=_always_exact)
    PopForceICalForCalendarRetrievalOption: bool = setting(False, (_ICAL + _OWN).format("Pop"))
    ImapForceICalForCalendarRetrievalOption: bool = setting(False, (_ICAL + _OWN).format("Imap"))
