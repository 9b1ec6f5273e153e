"""THE TABLE: every cmdlet."""

from __future__ import annotations

from typing import Final

from letterlock.manage import (
    administrators,
    certificates,
    connectivity,
    exceptions,
    logins,
    mailboxes,
    servers,
    services,
    settings,
)
from letterlock.manage.registry import table

CMDLETS: Final = table(
    *services.CMDLETS,
    *settings.CMDLETS,
    *mailboxes.CMDLETS,
    *certificates.CMDLETS,
    *connectivity.CMDLETS,
    *logins.CMDLETS,
    *exceptions.CMDLETS,
    *servers.CMDLETS,
    *administrators.CMDLETS,
)
