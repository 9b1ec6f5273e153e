"""The command table as HTTP: an ASGI application for the service LetterlockAdmin (docs/rest.md, faces/openapi.py).

1. Who asks is settled before a body is read; the body is bounded in octets, time and depth.
2. A parameter must have the JSON type of its declaration; everything else is the cmdlet's own reader's business.
3. Failures are RFC 9457 problems. What is our fault says nothing but that, and goes to the server's error output.
4. Browsers are given nothing: no CORS, only application/json is taken, and requests from another site are refused.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from letterlock.base.errors import Malformed, Refused
from letterlock.base.settings import AdminSettings
from letterlock.base.values import ListChange
from letterlock.faces import openapi
from letterlock.faces.guard import Guard, Problem, json_response, parse_json
from letterlock.manage.admission import SESSION_PREFIX, Caller, Gate, NotAdmitted, may_run
from letterlock.manage.context import Context
from letterlock.manage.registry import Cmdlet, invoke
from letterlock.manage.wire import rich

MAX_LOGIN: Final = 4096
_STATUS: Final = {b"NONEXISTENT": 404, b"ALREADYEXISTS": 409, b"INUSE": 409}


class _Rest:
    def __init__(
        self,
        commands: Mapping[str, Cmdlet],
        context: Callable[[str], Context],
        gate: Gate,
        settings: AdminSettings,
        incident: Callable[[BaseException], None],
    ) -> None:
        self.commands, self.context, self.gate, self.settings = commands, context, gate, settings
        self.incident = incident

    # --- who asks

    async def caller(self, request: Request) -> tuple[Caller, str]:
        """The caller, and the name for the audit trail; raises `Problem` 401 or 429."""
        kind, _, rest = request.headers.get("authorization", "").partition(" ")
        address = request.client.host if request.client else ""
        try:
            if kind.lower() == "basic":
                try:
                    name, colon, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
                except (binascii.Error, ValueError):
                    raise NotAdmitted from None
                found = await self.gate.password(name if colon else "", password, address)
            elif kind.lower() == "bearer":
                found = await self.gate.token(rest.strip(), address)
            else:
                raise NotAdmitted
        except NotAdmitted as refusal:
            raise _unknown(refusal) from None
        return found, f"{found.name} via REST from {address}" + (" by token" if found.lasting else "")

    # --- bodies

    async def body(self, request: Request, limit: int) -> Any:
        """The parsed body, {} where there is none."""
        kind = request.headers.get("content-type", "")
        data = await self._octets(request, limit)
        if not data:
            return {}
        media, _, parameters = kind.partition(";")
        charset = parameters.strip().lower().replace('"', "")
        if media.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
            raise Problem(415, "the body must be application/json in UTF-8")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Problem(415, "the body must not be compressed")
        return parse_json(data)

    async def _octets(self, request: Request, limit: int) -> bytes:
        data = bytearray()
        too_long = Problem(413, f"the body is longer than {limit} bytes")
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or len(length) > 18 or int(length) > 4 * limit:
            raise too_long
        try:
            async with asyncio.timeout(self.settings.RequestTimeout.seconds):
                async for part in request.stream():
                    data += part
                    if len(data) > 4 * limit:  # a little more is read, so that the peer sees the answer
                        raise too_long
        except TimeoutError:
            raise Problem(400, "the body did not arrive in time") from None
        if len(data) > limit:
            raise too_long
        return bytes(data)

    # --- endpoints

    async def login(self, request: Request) -> Response:
        """POST /api/v1/login."""
        body = await self.body(request, MAX_LOGIN)
        if not isinstance(body, dict) or set(body) != {"UserName", "Password"}:
            raise Problem(400, "expected an object with UserName and Password")
        if not all(isinstance(v, str) for v in body.values()):
            raise Problem(400, "UserName and Password must be texts")
        address = request.client.host if request.client else ""
        try:
            found = await self.gate.password(body["UserName"], body["Password"], address)
        except NotAdmitted as refusal:
            raise _unknown(refusal) from None
        token, ends = self.gate.open_session(found, self.settings.SessionTimeout.seconds)
        return json_response({"Token": token, "ExpiresOn": ends, "UserName": found.name, "Role": found.role.name})

    async def logout(self, request: Request) -> Response:
        """POST /api/v1/logout."""
        await self.caller(request)
        text = request.headers.get("authorization", "").partition(" ")[2].strip()
        if not text.startswith(SESSION_PREFIX) or not self.gate.close_session(text):
            raise Problem(422, "this request carries no session; a long-lived token is taken back by its cmdlet")
        return json_response({"Objects": [], "Warnings": [], "Messages": []})

    async def cmdlets(self, request: Request) -> Response:
        """GET /api/v1/cmdlets."""
        caller, _ = await self.caller(request)
        known = sorted({c.name: c for c in self.commands.values()}.values(), key=lambda c: c.name)
        rows = [
            {"Name": c.name, "Help": c.help, "Changes": c.changes, "Allowed": not may_run(caller, c, ())} for c in known
        ]
        return json_response({"Cmdlets": rows})

    async def described(self, request: Request) -> Response:
        """GET /api/v1/openapi.json."""
        await self.caller(request)
        return json_response(openapi.document(self.commands))

    async def run(self, request: Request) -> Response:
        """POST /api/v1/cmdlets/{name}."""
        caller, who = await self.caller(request)
        cmdlet = self._cmdlet(request.path_params["name"])
        body = await self.body(request, self.settings.MaxRequestSize.octets)
        if not isinstance(body, dict):
            raise Problem(400, "expected an object with the cmdlet's parameters")
        named = _typed(cmdlet, body)
        return await self._answered(caller, who, cmdlet, named, [], None, False)

    async def read(self, request: Request) -> Response:
        """GET /api/v1/objects/{noun} and …/{identity}."""
        caller, who = await self.caller(request)
        cmdlet = self._cmdlet(f"Get-{request.path_params['noun']}")
        if not openapi.readable(cmdlet):
            raise Problem(404, f"{cmdlet.name} is not read by GET; use POST /api/v1/cmdlets/{cmdlet.name}")
        named: dict[str, Any] = {}
        for text, value in request.query_params.multi_items():
            name = _spelt(cmdlet, text)
            if "\x00" in value:
                raise Problem(400, f"{name}: NUL characters are not allowed", name)
            named[name] = [*named[name], value] if name in named else [value]
        for name, values in named.items():
            many = cmdlet.parameter(name).type_name.endswith("[]")
            if len(values) > 1 and not many:
                raise Problem(400, f"{name}: one value is expected, not a list", name)
            named[name] = values if many else values[0]
        identity = request.path_params.get("identity")
        if identity is not None and "\x00" in identity:
            raise Problem(400, "NUL characters are not allowed")
        return await self._answered(caller, who, cmdlet, named, [] if identity is None else [identity], None, False)

    async def invoke(self, request: Request) -> Response:
        """POST /api/v1/invoke: what `letterlock --url` sends."""
        caller, who = await self.caller(request)
        body = await self.body(request, self.settings.MaxRequestSize.octets)
        if not isinstance(body, dict) or set(body) - {"name", "named", "positional", "piped"}:
            raise Problem(400, "expected an object with name, named, positional and piped")
        name, named = body.get("name"), body.get("named", {})
        positional, piped = body.get("positional", []), body.get("piped")
        fits = isinstance(name, str) and isinstance(named, dict) and isinstance(positional, list)
        if not fits or not (piped is None or isinstance(piped, dict)):
            raise Problem(400, "name must be a text, named and piped objects, positional a list")
        cmdlet = self._cmdlet(str(name))
        try:
            values = {str(k): _flat(rich(v)) for k, v in named.items()}
            places = [_flat(rich(v)) for v in positional]
        except Malformed as error:
            raise Problem(400, error.text) from None
        return await self._answered(caller, who, cmdlet, values, places, piped, True)

    # --- running

    def _cmdlet(self, name: str) -> Cmdlet:
        found = self.commands.get(name.lower())
        if found is None:
            raise Problem(404, f"there is no cmdlet '{name}'; GET /api/v1/cmdlets lists all")
        return found

    async def _answered(
        self,
        caller: Caller,
        who: str,
        cmdlet: Cmdlet,
        named: dict[str, Any],
        positional: list[Any],
        piped: dict[str, Any] | None,
        whole: bool,
    ) -> Response:
        context = self.context(who)
        try:
            refusal = may_run(caller, cmdlet, named)
            if refusal:
                raise Problem(403, refusal)
            rows = await invoke(self.commands, context, cmdlet.name, named, positional, piped)
        except Malformed as error:
            raise Problem(400, error.text, _blamed(cmdlet, error.text)) from None
        except Refused as error:
            raise Problem(_STATUS.get(error.code, 422), error.text) from None
        if whole:
            return json_response({"objects": [row.wire() for row in rows], "messages": context.messages})
        warnings = [m.removeprefix("WARNING: ") for m in context.messages if m.startswith("WARNING: ")]
        messages = [m for m in context.messages if not m.startswith("WARNING: ")]
        return json_response(
            {"Objects": [r.wire()["properties"] for r in rows], "Warnings": warnings, "Messages": messages}
        )


def _unknown(refusal: NotAdmitted) -> Problem:
    if refusal.wait_s:
        text = f"too many failed log-ons; try again in {refusal.wait_s} seconds"
        return Problem(429, text, headers=[("Retry-After", str(refusal.wait_s))])
    ways = [("WWW-Authenticate", 'Basic realm="Letterlock", charset="UTF-8"'), ("WWW-Authenticate", "Bearer")]
    return Problem(401, "log on with name and password, or with a token", headers=ways)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _flat(value: Any) -> Any:
    """Texts, numbers, yes or no, nothing, lists of these, a credential, or a ListChange."""
    if value is None or isinstance(value, str | int | float | bool | ListChange):
        return value
    if isinstance(value, list) and all(v is None or isinstance(v, str | int | float | bool) for v in value):
        return value
    if isinstance(value, dict) and set(value) == {"UserName", "Password"} and all(map(_is_text, value.values())):
        return value
    raise Malformed("a parameter's value is a text, a number, true or false, a list of these, or a ListChange")


def _spelt(cmdlet: Cmdlet, text: str) -> str:
    try:
        return cmdlet.parameter(text).name
    except Malformed as error:
        raise Problem(400, error.text, text) from None


def _typed(cmdlet: Cmdlet, body: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters by their full names, each of its declared JSON type."""
    named: dict[str, Any] = {}
    for text, value in body.items():
        name = _spelt(cmdlet, text)
        if name in named:
            raise Problem(400, f"{name} is given twice", name)
        wanted = openapi.mismatch(openapi.shape(cmdlet.parameter(name)), value)
        if wanted:
            raise Problem(400, f"{cmdlet.name}: {name}: expected {wanted}", name)
        if isinstance(value, dict):
            if not cmdlet.name.startswith("Set-"):
                raise Problem(400, f"{cmdlet.name}: {name}: expected a text or a list", name)
            value = ListChange(None, tuple(value.get("Add", ())), tuple(value.get("Remove", ())))
        named[name] = value
    return named


def _blamed(cmdlet: Cmdlet, text: str) -> str:
    """The parameter that a sentence of the house begins with, after the cmdlet's name."""
    found = re.match(r"-?(\w+)\b", text.removeprefix(f"{cmdlet.name}: "))
    names = [p.name for p in cmdlet.all_parameters]
    return found[1] if found and found[1] in names else ""


def application(
    commands: Mapping[str, Cmdlet],
    context: Callable[[str], Context],
    gate: Gate,
    settings: AdminSettings,
    hosts: frozenset[str],
    incident: Callable[[BaseException], None],
) -> ASGIApp:
    """The application for one start of the service. `hosts`: names a request may be addressed to, in lower case."""
    rest = _Rest(commands, context, gate, settings, incident)

    async def problem(_request: Request, error: Exception) -> Response:
        if isinstance(error, Problem):
            return error.response()
        if not isinstance(error, HTTPException):  # Guard reports it
            return Problem(500, "internal error; the server's error output has the details").response()
        allow = [(k, v) for k, v in (error.headers or {}).items() if k.lower() == "allow"]
        text = {404: "there is nothing here; see /api/v1/openapi.json", 405: "this method is not allowed here"}
        return Problem(error.status_code, text.get(error.status_code, error.detail), headers=allow).response()

    def route(path: str, endpoint: Callable[[Request], Awaitable[Response]], method: str) -> Route:
        return Route(path, endpoint, methods=[method])

    app = Starlette(
        routes=[
            route("/api/v1/login", rest.login, "POST"),
            route("/api/v1/logout", rest.logout, "POST"),
            route("/api/v1/openapi.json", rest.described, "GET"),
            route("/api/v1/cmdlets", rest.cmdlets, "GET"),
            route("/api/v1/cmdlets/{name}", rest.run, "POST"),
            route("/api/v1/objects/{noun}", rest.read, "GET"),
            route("/api/v1/objects/{noun}/{identity:path}", rest.read, "GET"),
            route("/api/v1/invoke", rest.invoke, "POST"),
        ],
        exception_handlers={Problem: problem, HTTPException: problem, Exception: problem},
    )
    app.router.redirect_slashes = False
    return Guard(app, hosts | {"localhost"}, incident)
