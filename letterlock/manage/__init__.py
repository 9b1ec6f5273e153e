"""THE TABLE: every cmdlet."""

from __future__ import annotations

from typing import Final

from letterlock.manage import (
    acme,
    administrators,
    audit,
    cas,
    certificates,
    checks,
    connectivity,
    exceptions,
    folders,
    logins,
    mailboxes,
    servers,
    services,
    sessions,
    settings,
    statistics,
    transfers,
)
from letterlock.manage.registry import table

CMDLETS: Final = table(
    *services.CMDLETS,
    *settings.CMDLETS,
    *mailboxes.CMDLETS,
    *cas.CMDLETS,
    *folders.CMDLETS,
    *statistics.CMDLETS,
    *transfers.CMDLETS,
    *sessions.CMDLETS,
    *certificates.CMDLETS,
    *acme.CMDLETS,
    *connectivity.CMDLETS,
    *logins.CMDLETS,
    *exceptions.CMDLETS,
    *servers.CMDLETS,
    *administrators.CMDLETS,
    *audit.CMDLETS,
    *checks.CMDLETS,
)
