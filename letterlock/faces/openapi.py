"""The REST interface described: JSON shapes of parameters, and the OpenAPI 3.1 document, from the command table.

`shape` is both what the document says of a parameter and what `rest.py` holds a request against; the parameter's own
reader decides the rest (ranges, syntax) with the sentence that shell and command line give as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from letterlock import __version__
from letterlock.manage.registry import Cmdlet, Parameter

Schema = dict[str, Any]

# JSON types of a parameter's type name; what is not here is a text.
_TYPES: Final[Mapping[str, list[str]]] = {
    "Boolean": ["boolean"],
    "Switch": ["boolean"],
    "Int32": ["integer"],
    "ByteSize": ["string", "integer"],
    "TimeSpan": ["string"],
    "ResultSize": ["string", "integer"],
}
_EXAMPLES: Final = {
    "ByteSize": "2MB",
    "TimeSpan": "00:30:00",
    "Binding": "127.0.0.1:993",
    "ConnectionSetting": "mail.contoso.com:993:SSL",
    "DateTime": "2027-01-31",
    "ResultSize": "Unlimited",
}
_PROBLEMS: Final = {
    "400": "The request or a parameter is malformed; `parameter` names it.",
    "401": "Not logged on, or name, password or token are wrong.",
    "403": "The role, or a token, may not do this.",
    "404": "There is no such cmdlet or object.",
    "405": "The method is not allowed here.",
    "409": "There is such an object already.",
    "413": "The request is too long.",
    "415": "The body must be application/json, not compressed.",
    "421": "The Host header names another server.",
    "422": "What was asked for cannot be done now; `detail` says why.",
    "429": "Too many failed log-ons; Retry-After says when to try again.",
    "500": "A fault of the server; its error output has the details.",
}


def shape(parameter: Parameter) -> Schema:
    """JSON Schema of a parameter's value."""
    name, many = parameter.type_name.removesuffix("[]"), parameter.type_name.endswith("[]")
    if " | " in name:
        one: Schema = {"type": "string", "enum": name.split(" | ")}
    else:
        kinds = _TYPES.get(name, ["string"])
        one = {"type": kinds[0] if len(kinds) == 1 else kinds}
        if name in _EXAMPLES:
            one["examples"] = [_EXAMPLES[name]]
        if name == "SecureString":
            one["format"] = "password"
        if parameter.allowed is not None and name == "Int32":
            one |= {"minimum": parameter.allowed[0], "maximum": parameter.allowed[1]}
    if not many:
        return one
    texts = {"type": "array", "items": {"type": "string"}}
    change = {"type": "object", "properties": {"Add": texts, "Remove": texts}, "additionalProperties": False}
    return {"anyOf": [{"type": "array", "items": one}, one, change]}


_PYTHON: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "array": (list,),
    "object": (dict,),
}

_WORDS: Final = {
    "string": "a text",
    "boolean": "true or false",
    "integer": "a whole number",
    "array": "a list",
    "object": "an object",
}


def mismatch(schema: Schema, value: Any) -> str:
    """Empty when the value has the schema's JSON type, else what is expected; enumerations are the reader's work."""
    if "anyOf" in schema:
        return "" if any(not mismatch(s, value) for s in schema["anyOf"]) else "a text, a list, or {Add, Remove}"
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    fits = any(
        isinstance(value, _PYTHON[kind]) and (kind == "boolean" or not isinstance(value, bool)) for kind in kinds
    )
    if not fits:
        return " or ".join(_WORDS[kind] for kind in kinds)
    if isinstance(value, list):
        return next((f"a list, each item {m}" for m in (mismatch(schema["items"], v) for v in value) if m), "")
    if isinstance(value, dict):
        known = schema["properties"]
        return "" if all(k in known and not mismatch(known[k], v) for k, v in value.items()) else "{Add, Remove}"
    return ""


def _described(parameter: Parameter) -> Schema:
    default = f" Default: {parameter.default}." if parameter.default else ""
    return {**shape(parameter), "description": (parameter.help + default).strip() or parameter.name}


def _answers(good: Schema) -> Schema:
    problems = {status: {"$ref": f"#/components/responses/{status}"} for status in _PROBLEMS}
    return {"200": {"description": "Done.", "content": {"application/json": {"schema": good}}}, **problems}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _body(schema: Schema, required: bool) -> Schema:
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _post(cmdlet: Cmdlet) -> Schema:
    needed = [p.name for p in cmdlet.parameters if p.mandatory]
    schema: Schema = {
        "type": "object",
        "properties": {p.name: _described(p) for p in cmdlet.all_parameters},
        "additionalProperties": False,
    }
    if needed:
        schema["required"] = needed
    return {
        "operationId": cmdlet.name,
        "summary": cmdlet.help,
        "tags": [cmdlet.name.partition("-")[2]],
        "requestBody": _body(schema, bool(needed)),
        "responses": _answers(_ref("Answer")),
    }


def _query(parameter: Parameter) -> Schema:
    schema = shape(parameter)
    if "anyOf" in schema:
        schema = schema["anyOf"][0]
    text = _described(parameter)["description"]
    return {"name": parameter.name, "in": "query", "required": False, "description": text, "schema": schema}


def _get(cmdlet: Cmdlet, by_identity: bool) -> Schema:
    first = next((p for p in cmdlet.parameters if p.position == 0), None)
    parameters = [_query(p) for p in cmdlet.parameters if not (by_identity and p is first)]
    if by_identity and first is not None:
        schema = {"type": "string", "minLength": 1}
        parameters.insert(
            0, {"name": first.name, "in": "path", "required": True, "description": first.help, "schema": schema}
        )
    return {
        "operationId": f"{cmdlet.name}-{'one' if by_identity else 'all'}",
        "summary": cmdlet.help,
        "tags": [cmdlet.name.partition("-")[2]],
        "parameters": parameters,
        "responses": _answers(_ref("Answer")),
    }


def readable(cmdlet: Cmdlet) -> bool:
    """Whether it has a resource that GET reads: Get-… whose needed parameter, if any, can be in the path."""
    needed = [p for p in cmdlet.parameters if p.mandatory]
    return cmdlet.name.startswith("Get-") and not cmdlet.changes and all(p.position == 0 for p in needed)


def _schemas() -> Schema:
    text: Schema = {"type": "string"}
    texts = {"type": "array", "items": text}
    objects = {"type": "array", "items": {"type": "object"}}
    return {
        "Answer": {
            "type": "object",
            "required": ["Objects", "Warnings", "Messages"],
            "properties": {"Objects": objects, "Warnings": texts, "Messages": texts},
        },
        "Invocation": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": text,
                "named": {"type": "object"},
                "positional": {"type": "array", "items": {"type": ["string", "number", "boolean"]}},
                "piped": {"type": ["object", "null"]},
            },
            "additionalProperties": False,
        },
        "Invoked": {
            "type": "object",
            "required": ["objects", "messages"],
            "properties": {"objects": objects, "messages": texts},
        },
        "Cmdlets": {"type": "object", "required": ["Cmdlets"], "properties": {"Cmdlets": objects}},
        "LogOn": {
            "type": "object",
            "required": ["UserName", "Password"],
            "properties": {"UserName": text, "Password": {"type": "string", "format": "password"}},
            "additionalProperties": False,
        },
        "Session": {
            "type": "object",
            "required": ["Token", "ExpiresOn", "UserName", "Role"],
            "properties": {"Token": text, "ExpiresOn": text, "UserName": text, "Role": text},
        },
        "Problem": {
            "type": "object",
            "required": ["type", "title", "status", "detail"],
            "properties": {
                "type": text,
                "title": text,
                "status": {"type": "integer"},
                "detail": text,
                "parameter": text,
            },
        },
    }


def _fixed() -> Schema:
    """Paths that are no cmdlet."""
    return {
        "/api/v1/login": {
            "post": {
                "operationId": "login",
                "summary": "Log on by password; the answer's Token is a bearer token.",
                "security": [],
                "requestBody": _body(_ref("LogOn"), True),
                "responses": _answers(_ref("Session")),
            }
        },
        "/api/v1/logout": {
            "post": {
                "operationId": "logout",
                "summary": "End the session whose token the request carries.",
                "responses": _answers(_ref("Answer")),
            }
        },
        "/api/v1/cmdlets": {
            "get": {
                "operationId": "cmdlets",
                "summary": "Every cmdlet, and whether the caller may run it.",
                "responses": _answers(_ref("Cmdlets")),
            }
        },
        "/api/v1/invoke": {
            "post": {
                "operationId": "invoke",
                "summary": "A cmdlet as the command line sends it: positional values, a piped object, shown forms.",
                "requestBody": _body(_ref("Invocation"), True),
                "responses": _answers(_ref("Invoked")),
            }
        },
        "/api/v1/openapi.json": {
            "get": {
                "operationId": "openapi",
                "summary": "This document.",
                "responses": _answers({"type": "object"}),
            }
        },
    }


def document(commands: Mapping[str, Cmdlet]) -> Schema:
    """OpenAPI 3.1 of every cmdlet."""
    paths = _fixed()
    for cmdlet in sorted({c.name: c for c in commands.values()}.values(), key=lambda c: c.name):
        paths[f"/api/v1/cmdlets/{cmdlet.name}"] = {"post": _post(cmdlet)}
        if readable(cmdlet):
            noun = f"/api/v1/objects/{cmdlet.name.removeprefix('Get-')}"
            first = next((p for p in cmdlet.parameters if p.position == 0), None)
            if first is None or not first.mandatory:
                paths[noun] = {"get": _get(cmdlet, False)}
            if first is not None:
                paths[f"{noun}/{{{first.name}}}"] = {"get": _get(cmdlet, True)}
    problem = {"application/problem+json": {"schema": _ref("Problem")}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Letterlock management", "version": __version__},
        "paths": paths,
        "security": [{"password": []}, {"token": []}],
        "components": {
            "schemas": _schemas(),
            "responses": {s: {"description": text, "content": problem} for s, text in _PROBLEMS.items()},
            "securitySchemes": {
                "password": {"type": "http", "scheme": "basic"},
                "token": {"type": "http", "scheme": "bearer"},
            },
        },
    }
