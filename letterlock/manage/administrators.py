"""Administrators of the REST interface and their tokens.

The first administrator is made over the control socket, by whoever owns the data directory. Roles are Exchange's role
groups "Organization Management" (Administrator) and "View-Only Organization Management" (ViewOnly); either name works.
"""

from __future__ import annotations

import asyncio
import datetime
from typing import Any, Final

from letterlock.base.errors import Malformed
from letterlock.directory.accounts import check_password
from letterlock.directory.administrators import (
    DEFAULT_TOKEN_DAYS,
    MAX_TOKEN_DAYS,
    Administrator,
    Administrators,
    Role,
    Token,
    check_name,
)
from letterlock.directory.verifiers import hash_password
from letterlock.manage.context import Context
from letterlock.manage.registry import Cmdlet, Parameter, Row, boolean, secret

MIN_PASSWORD: Final = 8  # NIST SP 800-63B §5.1.1.2


def _row(a: Administrator) -> Row:
    properties = {
        "Name": a.name,
        "Role": a.role,
        "RoleGroup": a.role.value,
        "Enabled": a.enabled,
        "WhenCreated": a.created,
        "Identity": a.name,
    }
    return Row(properties, ("Name", "Role", "Enabled", "WhenCreated"))


def _token_row(t: Token, secret_text: str = "") -> Row:
    properties: dict[str, Any] = {"Identity": t.id, "Administrator": t.administrator, "Description": t.description}
    if secret_text:
        properties["Token"] = secret_text
    properties |= {
        "WhenCreated": t.created,
        "ExpiresOn": t.expires,
        "Expired": t.expired,
        "LastUsed": t.last_used or None,
        "LastAddress": t.last_address or None,
    }
    columns = () if secret_text else ("Identity", "Administrator", "Description", "ExpiresOn", "LastUsed")
    return Row(properties, columns)


def read_role(value: Any) -> Role:
    """`Administrator` or `ViewOnly`, or the name of Exchange's role group; without case."""
    wanted = str(value).strip().lower()
    for role in Role:
        if wanted in (role.name.lower(), role.value.lower()):
            return role
    raise Malformed(f"'{value}' is not one of the allowed values: {', '.join(r.name for r in Role)}")


def read_moment(value: Any) -> datetime.datetime:
    """A date or a date and time (ISO 8601; UTC where no zone is given)."""
    text = str(value).strip()
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise Malformed(f"'{text}' is not a date; expected YYYY-MM-DD or YYYY-MM-DDThh:mm:ss") from None
    try:
        return moment.astimezone(datetime.UTC) if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    except OverflowError:
        raise Malformed(f"'{text}' is out of range") from None


def _description(value: Any) -> str:
    text = str(value).strip()
    if len(text) > 200 or any(ord(ch) < 32 or ord(ch) == 127 for ch in text):
        raise Malformed("Description: at most 200 characters, no control characters")
    return text


async def _hashed(p: dict[str, Any]) -> str:
    password = check_password(p["Password"].reveal())
    if len(password) < MIN_PASSWORD:
        raise Malformed(f"Password: an administrator's password has at least {MIN_PASSWORD} characters")
    return await asyncio.to_thread(hash_password, password)


async def new(c: Context, p: dict[str, Any]) -> list[Row]:
    """An administrator who can log in at once."""
    name, role = check_name(p["Name"]), p.get("Role", Role.Administrator)
    hashed = await _hashed(p)
    if not c.should(f"make administrator {name} with role {role.name}"):
        return []
    return [_row(Administrators(c.config).create(name, hashed, role, c.who))]


async def get(c: Context, p: dict[str, Any]) -> list[Row]:
    """Administrators."""
    known = Administrators(c.config)
    return [_row(a) for a in ([known.one(p["Identity"])] if "Identity" in p else known.all())]


def _last(known: Administrators, a: Administrator) -> bool:
    able = [x for x in known.all() if x.enabled and x.role is Role.Administrator]
    return [x.id for x in able] == [a.id]


async def change(c: Context, p: dict[str, Any]) -> list[Row]:
    """Role, password, switched on or off; what is being done right now still ends."""
    known = Administrators(c.config)
    a = known.one(p["Identity"])
    role, enabled = p.get("Role", a.role), p.get("Enabled", a.enabled)
    hashed = await _hashed(p) if "Password" in p else a.password_hash
    if _last(known, a) and (role is not Role.Administrator or not enabled):
        c.warn(f"{a.name} is the last one with the role Administrator; another can only be made on the server itself")
    for name, old, new_value in (("Role", a.role.name, role.name), ("Enabled", a.enabled, enabled)):
        if old != new_value:
            c.should(f"set {name} of administrator {a.name} from {old} to {new_value}")
    if "Password" in p:
        c.should(f"set the password of administrator {a.name}")
    if not c.what_if:
        known.change(a, role, enabled, hashed, c.who)
    return []


async def remove(c: Context, p: dict[str, Any]) -> list[Row]:
    """With all tokens."""
    known = Administrators(c.config)
    a = known.one(p["Identity"])
    if _last(known, a):
        c.warn(f"{a.name} is the last one with the role Administrator; another can only be made on the server itself")
    if c.should(f"remove administrator {a.name} and all tokens of it"):
        known.remove(a, c.who)
    return []


async def new_token(c: Context, p: dict[str, Any]) -> list[Row]:
    """The only time that the token is shown."""
    known = Administrators(c.config)
    a = known.one(p["Identity"])
    today = datetime.datetime.now(datetime.UTC)
    expires = p.get("ExpiresOn", today + datetime.timedelta(days=DEFAULT_TOKEN_DAYS))
    if not today < expires <= today + datetime.timedelta(days=MAX_TOKEN_DAYS):
        raise Malformed(f"ExpiresOn: must be in the future, and at most {MAX_TOKEN_DAYS} days away")
    if not c.should(f"make a token of administrator {a.name} that expires on {expires:%Y-%m-%d}"):
        return []
    token, text = known.create_token(a, p.get("Description", ""), expires, c.who)
    c.warn("the token is shown only now; keep it like a password")
    return [_token_row(token, text)]


async def get_token(c: Context, p: dict[str, Any]) -> list[Row]:
    """Tokens, never their text."""
    known = Administrators(c.config)
    owner = known.one(p["Identity"]) if "Identity" in p else None
    return [_token_row(t) for t in known.tokens(owner)]


async def remove_token(c: Context, p: dict[str, Any]) -> list[Row]:
    """Refused from the next request on."""
    known = Administrators(c.config)
    token = known.token(p["Identity"])
    if c.should(f"remove token {token.id} of administrator {token.administrator}"):
        known.remove_token(token, c.who)
    return []


def _password(mandatory: bool) -> Parameter:
    text = f"The password, at least {MIN_PASSWORD} characters."
    return Parameter("Password", text, secret, mandatory=mandatory, type_name="SecureString")


_ONE: Final = Parameter("Identity", "The administrator's name.", str, 0, True, True)
_MAYBE: Final = Parameter("Identity", "The administrator's name.", str, 0, pipeline=True)
_ROLE: Final = Parameter(
    "Role", "What they may do.", read_role, type_name="Administrator | ViewOnly", default="Administrator"
)
_ENABLED: Final = Parameter("Enabled", "Whether they may log in.", boolean, type_name="Boolean")
_EXPIRES: Final = Parameter(
    "ExpiresOn",
    f"When it ends; at most {MAX_TOKEN_DAYS} days away, {DEFAULT_TOKEN_DAYS} where nothing is said.",
    read_moment,
    type_name="DateTime",
)

CMDLETS: Final = (
    Cmdlet(
        "New-Administrator",
        "Makes an administrator for the REST interface.",
        new,
        (Parameter("Name", "User name.", str, 0, True), _password(True), _ROLE),
        True,
    ),
    Cmdlet("Get-Administrator", "Shows administrators of the REST interface.", get, (_MAYBE,)),
    Cmdlet(
        "Set-Administrator",
        "Changes an administrator's role or password, or switches it off.",
        change,
        (_ONE, _ROLE, _ENABLED, _password(False)),
        True,
    ),
    Cmdlet("Remove-Administrator", "Removes an administrator and its tokens.", remove, (_ONE,), True),
    Cmdlet(
        "New-AdministratorToken",
        "Makes a long-lived token for programs; it is shown once.",
        new_token,
        (_ONE, Parameter("Description", "What it is for.", _description), _EXPIRES),
        True,
    ),
    Cmdlet("Get-AdministratorToken", "Shows tokens, their expiry and last use.", get_token, (_MAYBE,)),
    Cmdlet(
        "Remove-AdministratorToken",
        "Takes a token back.",
        remove_token,
        (Parameter("Identity", "The token's Identity.", str, 0, True, True),),
        True,
    ),
)
