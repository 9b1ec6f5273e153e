"""What the settings of a protocol and the switches of a mailbox come down to for one session (Set-CASMailbox)."""

from __future__ import annotations

from typing import Any

from letterlock.base.settings import ImapSettings
from letterlock.base.switches import Switches
from letterlock.base.values import CalendarItemRetrievalOption
from letterlock.mail.presentation import Presentation


def presentation(settings: Any, switches: Switches) -> Presentation:
    """How messages are given. With UseProtocolDefaults the switches of the mailbox do not count."""
    imap = isinstance(settings, ImapSettings)
    own = switches.ImapUseProtocolDefaults if imap else switches.PopUseProtocolDefaults
    link = calendar_base(settings)
    if own:
        form, silent = settings.MessageRetrievalMimeFormat, settings.SuppressReadReceipt
        exact = settings.EnableExactRFC822Size
    elif imap:
        form, silent = switches.ImapMessagesRetrievalMimeFormat, switches.ImapSuppressReadReceipt
        exact = switches.ImapEnableExactRFC822Size
        link = "" if switches.ImapForceICalForCalendarRetrievalOption else link
    else:
        form, silent = switches.PopMessagesRetrievalMimeFormat, switches.PopSuppressReadReceipt
        exact = switches.PopEnableExactRFC822Size
        link = "" if switches.PopForceICalForCalendarRetrievalOption else link
    # Clients of IMAP fetch as many octets as RFC822.SIZE says: an estimate would cut messages off.
    return Presentation(form, link, silent, exact_size=exact or imap)


def calendar_base(settings: Any) -> str:
    """What links to meetings begin with; "" for iCalendar."""
    option = settings.CalendarItemRetrievalOption
    if option is CalendarItemRetrievalOption.Custom:
        return str(settings.OwaServerUrl)
    if option is CalendarItemRetrievalOption.iCalendar:
        return ""
    inside = option is CalendarItemRetrievalOption.intranetUrl
    told = settings.InternalConnectionSettings if inside else settings.ExternalConnectionSettings
    return f"https://{told[0].host}/owa/" if told else ""
