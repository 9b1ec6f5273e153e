"""Rules as small declared objects, what they say, and findings.

A rule is its identity, what it is about, why that matters, a pure function from what is judged to what is to be said,
and for each product the commands that help. Identities never change their meaning; a rule that is wrong is replaced by
another one. A rule that cannot find out what it needs (`Unknown`) says so with verdict Error: never with silence.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, NamedTuple, TypeVar

from letterlock.analyze.inventory import PRODUCTS
from letterlock.base.facts import Origin
from letterlock.base.values import Protocol

T = TypeVar("T")
SMTP: Final = "SMTP"  # among products in remedies: for SMTP endpoints, whatever serves them
_WORD: Final = re.compile(r"\{([a-z_]+)\}")


class Verdict(enum.Enum):
    """What a rule says, the gravest last."""

    PASS = "Pass"  # noqa: S105 - no password
    INFO = "Info"
    WARNING = "Warning"
    ERROR = "Error"  # could not be determined
    FAIL = "Fail"


GRAVITY: Final = {v: n for n, v in enumerate(Verdict)}


class Said(NamedTuple):
    """One thing that a rule says of its target."""

    verdict: Verdict
    detail: str
    part: str = ""  # which part of the target: a certificate, a connector
    origin: Origin | None = None
    words: Mapping[str, str] = {}  # further words for the remedy


@dataclass(frozen=True, slots=True)
class Rule(Generic[T]):
    """One row of the table."""

    id: str
    category: str
    title: str
    why: str
    check: Callable[[T], Iterable[Said]]
    remedy: Mapping[str, str] = field(default_factory=dict)  # by product; "" for all others
    link: str = ""
    products: frozenset[str] = PRODUCTS
    needs: tuple[str, ...] = ()  # kinds of objects without which nothing is judged
    protocol: Protocol | None = None  # only this one


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, for people and programs."""

    id: str
    check: str
    category: str
    target: str
    verdict: Verdict
    detail: str
    remedy: str = ""
    why: str = ""
    link: str = ""
    origin: Origin = Origin("")
    product: str = ""
    accepted: str = ""  # the reason by which a baseline accepts it; the verdict is Info then
    accepted_verdict: Verdict | None = None  # what it was before


def both(text: str) -> dict[str, str]:
    """The same commands for Exchange and for Letterlock."""
    return {"Exchange": text, "Letterlock": text}


def remedy(rule: Rule[T], product: str, words: Mapping[str, str], verdict: Verdict) -> str:
    """The commands for a product, with the target's words in them; nothing for what is well."""
    if verdict is Verdict.PASS:
        return ""
    text = rule.remedy.get(product, rule.remedy.get("", ""))
    # in one pass: a server that is named "{restart}" stays that; what is not known is a word to be filled in
    return _WORD.sub(lambda m: words.get(m[1], m[1].upper()), text)
