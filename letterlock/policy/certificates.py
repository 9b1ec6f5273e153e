"""When a certificate is in force, and when somebody must be warned: for the server, cmdlets and the analyzer alike.

A certificate that renews itself does so when a third of its life remains (RFC 8555 leaves it open; it is the advice of
public authorities). Whatever then has a quarter left, or less than 30 days of a long life, has not been renewed, and
somebody must look.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

DAY_S: Final = 86400.0
LONGEST_WARNING_S: Final = 30 * DAY_S
RENEW_AT: Final = 1 / 3  # of its life remaining
WARN_AT: Final = 1 / 4


class Dates(enum.Enum):
    """Where today is in a certificate's life."""

    NOT_YET = "NotYetValid"
    GOOD = "Valid"
    ENDING = "Ending"
    EXPIRED = "Expired"


class Validity(NamedTuple):
    """What today means for a certificate. `warning` is a sentence's end, empty where all is well."""

    dates: Dates
    days_left: int  # whole days until it ends; negative after that
    warning: str

    @property
    def in_force(self) -> bool:
        """Valid now."""
        return self.dates in (Dates.GOOD, Dates.ENDING)


def _days(seconds: float) -> str:
    days = int(seconds // DAY_S)
    return f"{days} days" if days > 1 else f"{max(1, int(seconds // 3600))} hours"


def validity(not_before: float, not_after: float, at: float) -> Validity:
    """Judge the dates of a certificate at `at`; all are seconds since 1970."""
    left = not_after - at
    days = int(left // DAY_S)
    if left < 0:
        return Validity(Dates.EXPIRED, days, f"expired {_days(-left)} ago")
    if at < not_before:
        return Validity(Dates.NOT_YET, days, f"is not valid for another {_days(not_before - at)}")
    if left < min(LONGEST_WARNING_S, (not_after - not_before) * WARN_AT):
        return Validity(Dates.ENDING, days, f"expires in {_days(left)}")
    return Validity(Dates.GOOD, days, "")


def renewal_time(not_before: float, not_after: float) -> float:
    """From when on a certificate is to be renewed, in seconds since 1970."""
    return not_after - (not_after - not_before) * RENEW_AT
