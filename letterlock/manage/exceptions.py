"""Login exceptions, exposed credentials, and what report-only rules would have refused."""

from __future__ import annotations

import datetime
import time
from typing import Any, Final

from letterlock.base.errors import Malformed
from letterlock.base.settings import TLS_VERSIONS
from letterlock.base.values import Protocol
from letterlock.directory import sightings
from letterlock.directory.exceptions import LoginExceptions
from letterlock.directory.sightings import Sightings
from letterlock.manage.context import Context
from letterlock.manage.registry import Cmdlet, Parameter, Row, boolean, show, words
from letterlock.policy.exceptions import UNUSED_S, WARN_S, LoginException, parse_range
from letterlock.policy.login import LOGIN, LOGIN_COMMAND, PLAIN, USER_PASS

_PROTOCOLS: Final = {"imap": Protocol.IMAP4, "imap4": Protocol.IMAP4, "pop": Protocol.POP3, "pop3": Protocol.POP3}
_MECHANISMS: Final = tuple(m.name.decode() for m in (LOGIN_COMMAND, USER_PASS, PLAIN, LOGIN))


def _protocol(value: Any) -> Protocol:
    found = _PROTOCOLS.get(str(value).strip().lower())
    if found is None:
        raise Malformed(f"'{value}' is not Imap or Pop; this server has no other logins")
    return found


def _shown(protocol: str) -> str:
    return {"IMAP4": "Imap", "POP3": "Pop"}.get(protocol, protocol)


def _ranges(value: Any) -> list[Any]:
    return [parse_range(text) for text in words(value)]


def _mechanisms(value: Any) -> list[str]:
    known = {name.lower(): name for name in _MECHANISMS}
    found = []
    for text in words(value):
        if text.lower() not in known:
            raise Malformed(f"'{text}' is not a mechanism; allowed are {', '.join(_MECHANISMS)}")
        found.append(known[text.lower()])
    return found


def _floor(value: Any) -> str:
    text = str(value).strip().lower().removeprefix("tlsv").removeprefix("tls")
    if text not in TLS_VERSIONS[:-1]:
        raise Malformed(f"'{value}' is not a TLS version to fall back to; allowed are {', '.join(TLS_VERSIONS[:-1])}")
    return text


def when(value: Any) -> float:
    """A date, or date and time, of ISO 8601 or as M/D/YYYY, in seconds since 1970; UTC where no zone is given."""
    text = str(value).strip()
    try:
        parsed = datetime.datetime.fromisoformat(text)
    except ValueError:
        try:
            parsed = datetime.datetime.strptime(text, "%m/%d/%Y")
        except ValueError:
            raise Malformed(f"'{text}' is not a date such as 2027-01-31") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)).timestamp()


def _date(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="seconds")


def _status(e: LoginException, last: str, now: float) -> str:
    if not e.active(now):
        return "Expired"
    if e.expires - now < WARN_S:
        return "Expiring"
    used = datetime.datetime.fromisoformat(last).timestamp() if last else e.created
    return "Unused" if now - used > UNUSED_S else "Active"


def rows(c: Context) -> list[Row]:
    """Every exception with its use."""
    uses: dict[str, list[sightings.Sighting]] = {}
    for seen in Sightings(c.config).all(sightings.EXCEPTION):
        uses.setdefault(seen.detail, []).append(seen)
    found = []
    for e in LoginExceptions(c.config).all():
        used = uses.get(e.identity, [])
        last = max((u.last for u in used), default="")
        properties = {
            "Identity": e.identity,
            "Protocol": "Imap" if e.protocol is Protocol.IMAP4 else "Pop",
            "RemoteIPRanges": [str(r) for r in e.ranges],
            "Mailbox": e.mailbox,
            "LoginNames": sorted({e.mailbox, *e.names}) if e.mailbox else [],
            "Mechanisms": list(e.mechanisms),
            "AllowClearText": e.clear_text,
            "TlsMinimum": e.tls_minimum,
            "Owner": e.owner,
            "Reason": e.reason,
            "Created": _date(e.created),
            "ExpiresOn": _date(e.expires),
            "Status": _status(e, last, time.time()),
            "Uses": sum(u.times for u in used),
            "LastUsed": last,
        }
        found.append(
            Row(properties, ("Identity", "Protocol", "RemoteIPRanges", "Mailbox", "ExpiresOn", "Status", "Uses"))
        )
    return found


def travelled(properties: dict[str, Any]) -> LoginException:
    """An exception again, from its properties as Get-LoginException answers them."""
    return LoginException(
        properties["Identity"],
        _protocol(properties["Protocol"]),
        tuple(_ranges(properties["RemoteIPRanges"])),
        properties["Mailbox"],
        tuple(properties["Mechanisms"]),
        properties["AllowClearText"],
        properties["TlsMinimum"],
        when(properties["ExpiresOn"]),
        properties["Owner"],
        properties["Reason"],
        when(properties["Created"]),
        tuple(name.lower() for name in properties["LoginNames"]),
    )


def _applied(c: Context, p: dict[str, Any], old: LoginException) -> LoginException:
    new = old
    if "Protocol" in p:
        new = new._replace(protocol=p["Protocol"])
    if "RemoteIPRanges" in p:
        new = new._replace(ranges=tuple(p["RemoteIPRanges"]))
    if "Mailbox" in p:
        new = new._replace(mailbox=c.accounts.one(p["Mailbox"]).address if p["Mailbox"] else "")
    if "Mechanisms" in p:
        new = new._replace(mechanisms=tuple(p["Mechanisms"]))
    if "TlsMinimum" in p:
        new = new._replace(tls_minimum=p["TlsMinimum"])
    if "AllowClearText" in p:
        new = new._replace(clear_text=p["AllowClearText"])
    for parameter, name in (("Owner", "owner"), ("Reason", "reason"), ("ExpiresOn", "expires")):
        if parameter in p:
            new = new._replace(**{name: p[parameter]})
    return new


def _warn(c: Context, e: LoginException) -> None:
    if e.clear_text:
        c.warn(f"passwords of these clients cross the network in clear text until {_date(e.expires)}")
    if not e.mailbox:
        c.warn("the exception is for any mailbox; -Mailbox makes it narrower")


async def new_exception(c: Context, p: dict[str, Any]) -> list[Row]:
    """In force for the next connection."""
    empty = LoginException("", p["Protocol"], (), "", (), "TlsMinimum" not in p, "", 0.0)
    wanted = _applied(c, p, empty)
    said = "; ".join(f"{name} {text}" for name, text in _facts(wanted).items() if text)
    if not c.should(f"make a login exception: {said}"):
        return []
    made = LoginExceptions(c.config).create(wanted, c.who)
    _warn(c, made)
    return [r for r in rows(c) if r.properties["Identity"] == made.identity]


async def get_exception(c: Context, p: dict[str, Any]) -> list[Row]:
    """All, or one."""
    wanted = p.get("Identity")
    if wanted is None:
        found = rows(c)
        _reminders(c, found)
        return found
    identity = LoginExceptions(c.config).one(wanted).identity
    return [r for r in rows(c) if r.properties["Identity"] == identity]


def _reminders(c: Context, found: list[Row]) -> None:
    """What has to be done about exceptions, and who came to their listener without one."""
    for row in found:
        p = row.properties
        name = f"{p['Identity']} ({p['Owner']}: {p['Reason']})"
        if p["Status"] == "Expiring":
            c.warn(f"{name} ends on {p['ExpiresOn'][:10]}; its devices are refused then")
        elif p["Status"] == "Expired":
            c.warn(f"{name} has ended: its devices are refused; Remove-LoginException {p['Identity']}")
        elif p["Status"] == "Unused":
            c.warn(f"{name} was not used for {UNUSED_S / 86400:.0f} days: is it needed?")
    strangers = Sightings(c.config).all(sightings.STRANGER)
    if strangers:
        count = len({s.address for s in strangers})
        clients = "1 client" if count == 1 else f"{count} clients"
        c.warn(
            f"{clients} without an exception came to the exceptions-only listener, the last one from "
            f"{strangers[0].address} at {strangers[0].last}: Get-ReportedLogin -Kind Stranger"
        )


async def set_exception(c: Context, p: dict[str, Any]) -> list[Row]:
    """In force for the next connection."""
    known = LoginExceptions(c.config)
    old = known.one(p["Identity"])
    new = _applied(c, p, old)
    before, after = _facts(old), _facts(new)
    differing = [name for name in after if before[name] != after[name]]
    for name in differing:
        c.should(f"set {name} of login exception {old.identity} from {before[name]} to {after[name]}")
    if not differing:
        c.warn("nothing was changed: the login exception is as wanted already")
    elif not c.what_if:
        known.change(new, c.who)
        _warn(c, new)
    return []


def _facts(e: LoginException) -> dict[str, str]:
    """For -WhatIf: everything that may be set, by its parameter's name."""
    return {
        "Protocol": show(e.protocol),
        "RemoteIPRanges": ",".join(map(str, e.ranges)),
        "Mailbox": e.mailbox,
        "Mechanisms": ",".join(map(show, e.mechanisms)),
        "AllowClearText": show(e.clear_text),
        "TlsMinimum": show(e.tls_minimum),
        "Owner": e.owner,
        "Reason": e.reason,
        "ExpiresOn": _date(e.expires),
    }


async def remove_exception(c: Context, p: dict[str, Any]) -> list[Row]:
    """The next connection is refused like everybody's."""
    known = LoginExceptions(c.config)
    identity = known.one(p["Identity"]).identity
    if c.should(f"remove login exception {identity}"):
        known.remove(identity, c.who)
        Sightings(c.config).forget(sightings.EXCEPTION, detail=identity)
    return []


async def get_exposed(c: Context, p: dict[str, Any]) -> list[Row]:
    """Mailboxes whose password crossed the network in clear text, or whose old one is still tried."""
    accounts = c.accounts.find(p.get("Identity"))
    retired: dict[str, list[sightings.Sighting]] = {}
    for seen in Sightings(c.config).all(sightings.RETIRED):
        retired.setdefault(seen.user.lower(), []).append(seen)
    found = []
    for account in accounts:
        marks = c.accounts.exposed(account)
        if marks:
            found.append(
                _exposed_row(
                    account.address,
                    "Exposed",
                    len(marks),
                    marks[0][0],
                    marks[-1][0],
                    sorted({m[2] for m in marks}),
                    sorted({m[1] for m in marks}),
                )
            )
        old = retired.get(account.address.lower(), [])
        if old:
            found.append(
                _exposed_row(
                    account.address,
                    "RetiredPasswordTried",
                    sum(s.times for s in old),
                    min(s.first for s in old),
                    max(s.last for s in old),
                    sorted({s.address for s in old}),
                    sorted({s.protocol for s in old}),
                )
            )
    return found


def _exposed_row(
    mailbox: str, kind: str, count: int, first: str, last: str, addresses: list[str], protocols: list[str]
) -> Row:
    properties = {
        "Mailbox": mailbox,
        "Kind": kind,
        "Count": count,
        "FirstSeen": first,
        "LastSeen": last,
        "IPAddresses": addresses,
        "Protocols": [_shown(p) for p in protocols],
    }
    return Row(properties, ("Mailbox", "Kind", "Count", "LastSeen", "IPAddresses"))


async def clear_exposed(c: Context, p: dict[str, Any]) -> list[Row]:
    """Marks are taken away; the password stays as it is, and is as readable as it was."""
    account = c.accounts.one(p["Identity"])
    if c.should(f"forget the exposure of {account.address}"):
        c.accounts.clear_exposed(account, c.who)
        Sightings(c.config).forget(sightings.RETIRED, user=account.address)
        c.warn("the password itself is not changed: Set-MailboxPassword does that")
    return []


_KINDS: Final = {"refused": sightings.REFUSED, "reported": sightings.REPORTED, "stranger": sightings.STRANGER}


def _kind(value: Any) -> str:
    found = _KINDS.get(str(value).strip().lower())
    if found is None:
        raise Malformed(f"'{value}' is not Reported, Refused or Stranger")
    return found


async def get_reported(c: Context, p: dict[str, Any]) -> list[Row]:
    """Live counts, latest first."""
    found = []
    for s in Sightings(c.config).all(p.get("Kind", sightings.REPORTED)):
        properties = {
            "IPAddress": s.address,
            "User": s.user,
            "Protocol": _shown(s.protocol),
            "Logins": s.times,
            "FirstSeen": s.first,
            "LastSeen": s.last,
            "Detail": s.detail,
        }
        found.append(Row(properties, ("IPAddress", "User", "Protocol", "Logins", "LastSeen", "Detail")))
    return found


_IDENTITY: Final = Parameter("Identity", "Identity of the exception.", str, 0, True, True)
_IDENTITY_OPTIONAL: Final = Parameter("Identity", "Identity of the exception.", str, 0, pipeline=True)
_MAILBOX: Final = Parameter("Identity", "Mailbox; * matches.", str, 0, pipeline=True)


def _fields(new: bool) -> tuple[Parameter, ...]:
    return (
        Parameter("Protocol", "Protocol of the logins.", _protocol, mandatory=new, type_name="Imap | Pop"),
        Parameter(
            "RemoteIPRanges",
            "Addresses of the clients, at most a /24 or an IPv6 /64 each.",
            _ranges,
            mandatory=new,
            type_name="IPRange[]",
        ),
        Parameter("Mailbox", "The only mailbox that they may open; empty: any."),
        Parameter("Mechanisms", "The only ways to log in.", _mechanisms, type_name=" | ".join(_MECHANISMS)),
        Parameter(
            "AllowClearText", "Log in without TLS; $true unless TlsMinimum is given.", boolean, type_name="Boolean"
        ),
        Parameter("TlsMinimum", "Oldest TLS version for these clients.", _floor, type_name="1.0 | 1.1 | 1.2"),
        Parameter("Owner", "Who answers for it.", mandatory=new),
        Parameter("Reason", "Why there is one.", mandatory=new),
        Parameter("ExpiresOn", "When it ends; within a year.", when, mandatory=new, type_name="DateTime"),
    )


_REPORTED_KIND: Final = Parameter(
    "Kind",
    "Reported: let through, and a report-only rule would have refused it; Refused: refused by policy, with the "
    "sentence that the client was told; Stranger: at the exceptions-only listener.",
    _kind,
    type_name="Reported | Refused | Stranger",
    default="Reported",
)

CMDLETS: Final = (
    Cmdlet(
        "New-LoginException", "Lets certain clients log in insecurely for a while.", new_exception, _fields(True), True
    ),
    Cmdlet("Get-LoginException", "Shows login exceptions and their use.", get_exception, (_IDENTITY_OPTIONAL,)),
    Cmdlet("Set-LoginException", "Changes a login exception.", set_exception, (_IDENTITY, *_fields(False)), True),
    Cmdlet("Remove-LoginException", "Removes a login exception.", remove_exception, (_IDENTITY,), True),
    Cmdlet("Get-ExposedCredential", "Shows mailboxes whose password is or was exposed.", get_exposed, (_MAILBOX,)),
    Cmdlet(
        "Clear-ExposedCredential",
        "Forgets the marks of a mailbox.",
        clear_exposed,
        (Parameter("Identity", "Mailbox.", str, 0, True, True),),
        True,
    ),
    Cmdlet(
        "Get-ReportedLogin", "Shows logins that policy refused or would refuse, live.", get_reported, (_REPORTED_KIND,)
    ),
)
