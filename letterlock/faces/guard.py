"""Around the REST application: framing, Host, other sites, security headers, strict JSON, and RFC 9457 problems.

Nothing here knows a cmdlet. A failure that is our own fault is answered with one sentence and goes to the server's
error output.
"""

from __future__ import annotations

import http
import ipaddress
import json
import re
from collections.abc import Callable
from typing import Any, Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_DEPTH: Final = 16
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


class Problem(Exception):
    """An answer of RFC 9457."""

    def __init__(self, status: int, detail: str, parameter: str = "", headers: list[tuple[str, str]] | None = None):
        super().__init__(detail)
        self.status, self.detail, self.parameter = status, detail, parameter
        self.headers = headers or []

    def response(self) -> Response:
        """The connection ends with it: a body that was not read is not waited for."""
        body = {
            "type": "about:blank",
            "title": http.HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.parameter:
            body["parameter"] = self.parameter
        answer = json_response(body, self.status, "application/problem+json")
        for name, value in self.headers:
            answer.headers.append(name, value)
        answer.headers["Connection"] = "close"
        return answer


def json_response(body: object, status: int = 200, kind: str = "application/json") -> Response:
    """An answer."""
    # ASCII: foreign names that are no UTF-8 (lone surrogates) still make valid JSON
    return Response(json.dumps(body), status, media_type=kind)


class _Twice(ValueError):
    pass


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Twice
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def parse_json(data: bytes) -> Any:
    """Strict: UTF-8, no member twice, no NaN, no NUL or lone surrogate, at most MAX_DEPTH deep; raises `Problem`."""
    try:
        text = data.decode("utf-8")
        depth = deepest = 0
        for ch in _STRING.sub("", text):
            depth += (ch in "[{") - (ch in "]}")
            deepest = max(deepest, depth)
        if deepest > MAX_DEPTH:
            raise Problem(400, f"the body is nested more than {MAX_DEPTH} deep")
        value = json.loads(text, object_pairs_hook=_members, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except _Twice:
        raise Problem(400, "the body has a member twice") from None
    except (ValueError, RecursionError):
        raise Problem(400, "the body is not valid JSON in UTF-8") from None
    if b"\\u0000" in data and _has_nul(value):
        raise Problem(400, "NUL characters are not allowed")
    return value


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any("\x00" in k or _has_nul(v) for k, v in value.items())
    return isinstance(value, list) and any(map(_has_nul, value))


def _host(value: str) -> str:
    """The host of a Host header, without port and brackets; empty when it is malformed."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?", value)
    return (found[1] or found[2]).lower().rstrip(".") if found else ""


class Guard:
    """Around everything: Host, framing, other sites, security headers, and the last resort for our own faults."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str], incident: Callable[[BaseException], None]) -> None:
        self.app, self.hosts, self.incident = app, hosts, incident

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        started = False

        async def guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        try:
            problem = self._refusal(scope)
            if problem is not None:
                await problem.response()(scope, receive, guarded)
                return
            await self.app(scope, receive, guarded)
        except Exception as error:
            self.incident(error)
            if not started:
                answer = Problem(500, "internal error; the server's error output has the details").response()
                await answer(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        count = [sum(1 for n, _ in headers if n == wanted) for wanted in (b"host", b"content-length", b"authorization")]
        names = {n for n, _ in headers}
        if count[0] != 1 or count[1] > 1 or count[2] > 1 or {b"content-length", b"transfer-encoding"} <= names:
            return Problem(400, "the request's header is ambiguous")  # RFC 9112 §3.2, §6.1: smuggling
        host = _host(next(v for n, v in headers if n == b"host").decode("latin-1"))
        local = str((scope.get("server") or ("",))[0]).lower()
        if host not in self.hosts and host != local and not _loopback(host):
            return Problem(421, f"this server is not '{host}'; Set-AdminSettings -AllowedHosts adds names")
        if any(n == b"sec-fetch-site" and v not in (b"none", b"same-origin") for n, v in headers):
            return Problem(403, "requests from another site are refused")
        return None


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
