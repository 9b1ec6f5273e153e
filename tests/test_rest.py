"""The REST interface of a live server: log-on, roles, problems, and that all faces answer alike."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from letterlock.faces import openapi
from letterlock.manage import CMDLETS
from tests.clients.server import Server
from tests.rest_server import ADMIN, VIEWER, RestServer, bearer


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestServer]:
    """One server for all tests that do not fail to log on."""
    server = RestServer(tmp_path_factory.mktemp("rest"))
    server.start()
    try:
        yield server
        assert "Traceback" not in (server.data / "serve.stderr").read_text()
    finally:
        server.kill()


def test_stopped_and_manual_after_init_and_listed_last(tmp_path: Path) -> None:
    server = Server(tmp_path)
    rows = json.loads(server.run("get-service", "--output", "json").stdout)
    assert rows[-1]["Name"] == "LetterlockAdmin"
    assert (rows[-1]["Status"], rows[-1]["StartType"]) == ("Stopped", "Manual")
    settings = json.loads(server.run("get-adminsettings", "--output", "json").stdout)[0]
    assert settings["SSLBindings"] == ["127.0.0.1:443"]


def test_a_cmdlet_by_post_and_an_object_by_get(rest: RestServer) -> None:
    answer = rest.cmdlet("Get-ImapSettings")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["Objects"][0]["LoginType"] == "SecureLogin"
    assert rest.ask("GET", "objects/ImapSettings").json == answer.json
    mailbox = rest.ask("GET", "objects/Mailbox/alice@demo.test").json["Objects"]
    assert [m["PrimarySmtpAddress"] for m in mailbox] == ["alice@demo.test"]
    services = rest.ask("GET", "objects/Service?Name=LetterlockImap4*").json["Objects"]
    assert [s["Name"] for s in services] == ["LetterlockImap4", "LetterlockImap4BE"]


def test_changes_warnings_what_if_and_lists(rest: RestServer) -> None:
    what_if = rest.cmdlet("Set-ImapSettings", MaxConnections=77, WhatIf=True).json
    assert what_if["Messages"] == ["What if: set MaxConnections from 2147483647 to 77"]
    done = rest.cmdlet("Set-ImapSettings", MaxConnectionsPerUser=17).json
    assert done["Objects"] == [] and "Restart-Service" in done["Warnings"][-1]
    added = {"Add": ["mail.contoso.com:993:SSL"]}
    assert rest.cmdlet("Set-ImapSettings", ExternalConnectionSettings=added).status == 200
    settings = rest.cmdlet("Get-ImapSettings").json["Objects"][0]
    assert settings["ExternalConnectionSettings"] == ["mail.contoso.com:993:SSL"]
    assert (settings["MaxConnections"], settings["MaxConnectionsPerUser"]) == (2147483647, 17)
    removed = {"Remove": ["mail.contoso.com:993:SSL"]}
    assert rest.cmdlet("Set-ImapSettings", ExternalConnectionSettings=removed).status == 200


def test_the_audit_trail_says_who(rest: RestServer) -> None:
    from letterlock.directory.config import Config

    rest.cmdlet("Set-PopSettings", MaxConnectionsPerUser=18)
    config = Config.open(rest.data)
    who, new = config.db.execute("SELECT who, new FROM audit ORDER BY id DESC LIMIT 1").fetchone()
    config.close()
    assert who == "chief via REST from 127.0.0.1" and json.loads(new) == {"MaxConnectionsPerUser": 18}


@pytest.mark.parametrize(
    ("name", "parameters", "status", "parameter"),
    [
        ("Set-ImapSettings", {"LoginType": "Open"}, 400, "LoginType"),
        ("Set-ImapSettings", {"MaxConnections": 0}, 400, "MaxConnections"),
        ("Set-ImapSettings", {"MaxConnections": "5"}, 400, "MaxConnections"),
        ("Set-ImapSettings", {"MaxConnections": None}, 400, "MaxConnections"),
        ("Set-ImapSettings", {"Banner": ["a", "b"]}, 400, "Banner"),
        ("Set-ImapSettings", {"Banner": {"Add": ["x"]}}, 400, "Banner"),
        ("Set-ImapSettings", {"Banana": 1}, 400, "Banana"),
        ("Set-ImapSettings", {"Banner": "a\x00b"}, 400, None),
        ("New-Mailbox", {"Name": "x@demo.test"}, 400, "Password"),
        ("Get-Service", {"Name": {"Add": ["x"]}}, 400, "Name"),
        ("Get-Nothing", {}, 404, None),
        ("Get-Mailbox", {"Identity": "nobody@demo.test"}, 404, None),
        ("Get-Service", {"ComputerName": "OTHER"}, 404, None),
        ("New-Mailbox", {"Name": "alice@demo.test", "Password": "x"}, 409, None),
        ("New-Administrator", {"Name": ADMIN[0], "Password": "long enough"}, 409, None),
        ("New-Administrator", {"Name": "short", "Password": "x"}, 400, "Password"),
        ("New-AdministratorToken", {"Identity": ADMIN[0], "ExpiresOn": "2020-01-01"}, 400, "ExpiresOn"),
        ("Enable-ExchangeCertificate", {"Thumbprint": "0" * 40, "Services": ["IMAP"]}, 404, None),
        ("Enable-ExchangeCertificate", {"Thumbprint": "00", "Services": ["IMAP"]}, 400, "Thumbprint"),
    ],
)
def test_problems(
    rest: RestServer, name: str, parameters: dict[str, object], status: int, parameter: str | None
) -> None:
    answer = rest.ask("POST", f"cmdlets/{name}", parameters)
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json["status"] == status and answer.json["detail"] and answer.json["type"] == "about:blank"
    assert answer.json.get("parameter") == parameter


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b"\xff", {}, 400),
        (b'{"a": NaN}', {}, 400),
        (b'{"Banner": "a", "Banner": "b"}', {}, 400),
        (b'{"Banner": "\\ud800"}', {}, 400),
        (b'{"a":' * 50 + b"1" + b"}" * 50, {}, 400),
        (b"[" * 400_000, {}, 400),
        (b'{"Banner": "' + b"x" * 1_100_000 + b'"}', {}, 413),
        (b'{"Banner": "x"}', {"Content-Type": "text/plain"}, 415),
        (b"Banner=x", {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        (b'{"Banner": "x"}', {"Content-Encoding": "gzip"}, 415),
        (b'{"Banner": "x"}', {"Host": "attacker.example.com"}, 421),
        (b'{"Banner": "x"}', {"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_bad_requests(rest: RestServer, body: bytes, headers: dict[str, str], status: int) -> None:
    answer = rest.ask("POST", "cmdlets/Set-ImapSettings", body, headers=headers)
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/problem+json"
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_other_methods_and_places(rest: RestServer) -> None:
    assert rest.ask("GET", "cmdlets/Get-Service").status == 405
    assert rest.ask("DELETE", "login").status == 405
    assert rest.ask("OPTIONS", "cmdlets/Get-Service", headers={"Origin": "https://attacker.example.com"}).status == 405
    assert rest.ask("GET", "nowhere").status == 404
    assert rest.ask("GET", "objects/Nothing").status == 404
    assert rest.ask("GET", "objects/Service?Name=%00").status == 400
    assert rest.ask("GET", "objects/Mailbox?Identity=a&Identity=b").status == 400


def _said(rest: RestServer, request: bytes) -> bytes:
    with rest.raw() as sock:
        sock.sendall(request)
        data = b""
        while part := sock.recv(65536):
            data += part
        return data


def test_ambiguous_framing_is_refused(rest: RestServer) -> None:
    head = b"POST /api/v1/login HTTP/1.1\r\nHost: localhost\r\n"
    both = head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert _said(rest, both).startswith(b"HTTP/1.1 400")
    twice = head + b"Host: localhost\r\nContent-Length: 0\r\n\r\n"
    assert _said(rest, twice).startswith(b"HTTP/1.1 400")
    lengths = head + b"Content-Length: 0\r\nContent-Length: 5\r\n\r\n"
    assert _said(rest, lengths).startswith(b"HTTP/1.1 400")
    assert _said(rest, b"a1 LOGIN alice secret\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert _said(rest, b"GET / HTTP/1.1\r\nX: " + b"x" * 40000 + b"\r\n\r\n").startswith(b"HTTP/1.1 4")


def test_tls_floor_and_certificate(rest: RestServer) -> None:
    with rest.raw() as sock:
        assert sock.version() in ("TLSv1.2", "TLSv1.3")
    context = rest.context()
    context.set_alpn_protocols(["http/1.1"])
    import socket

    with (
        socket.create_connection(("127.0.0.1", rest.port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        assert sock.selected_alpn_protocol() == "http/1.1"


def test_the_viewer_sees_and_changes_nothing(rest: RestServer) -> None:
    for name in ("Get-ImapSettings", "Get-Mailbox", "Get-Administrator", "Get-AdministratorToken", "Get-Service"):
        assert rest.cmdlet(name, VIEWER).status == 200, name
    for cmdlet in {c.name: c for c in CMDLETS.values()}.values():
        if cmdlet.changes or not cmdlet.name.startswith("Get-"):
            answer = rest.cmdlet(cmdlet.name, VIEWER)
            assert answer.status == 403, cmdlet.name
            assert "ViewOnly" in answer.json["detail"]
    listed = rest.ask("GET", "cmdlets", who=VIEWER).json["Cmdlets"]
    allowed = {c["Name"]: c["Allowed"] for c in listed}
    assert allowed["Get-Mailbox"] and not allowed["Set-Mailbox"]


def test_sessions_tokens_and_their_end(rest: RestServer) -> None:
    answer = rest.ask("POST", "login", {"UserName": ADMIN[0], "Password": ADMIN[1]}, who=None)
    assert answer.status == 200 and answer.json["Role"] == "Administrator"
    session = bearer(answer.json["Token"])
    assert rest.ask("GET", "objects/Service", who=None, headers=session).status == 200
    assert rest.ask("POST", "logout", {}, who=None, headers=session).status == 200
    assert rest.ask("GET", "objects/Service", who=None, headers=session).status == 401

    made = rest.cmdlet("New-AdministratorToken", Identity=ADMIN[0], Description="backup job").json["Objects"][0]
    token = bearer(made["Token"])
    assert made["Token"] not in rest.cmdlet("Get-AdministratorToken").body.decode()
    assert made["Token"].encode() not in (rest.data / "letterlock.db").read_bytes()
    assert rest.ask("GET", "objects/Service", who=None, headers=token).status == 200
    shown = next(t for t in rest.cmdlet("Get-AdministratorToken").json["Objects"] if t["Identity"] == made["Identity"])
    assert shown["LastUsed"] and shown["LastAddress"] == "127.0.0.1" and shown["Expired"] is False
    body = {"Name": "second", "Password": "long enough"}
    refused = rest.ask("POST", "cmdlets/New-Administrator", body, who=None, headers=token)
    assert refused.status == 403 and "by password" in refused.json["detail"]
    assert rest.cmdlet("Remove-AdministratorToken", Identity=made["Identity"]).status == 200
    assert rest.ask("GET", "objects/Service", who=None, headers=token).status == 401


def test_a_changed_or_disabled_administrator_is_out_at_once(rest: RestServer) -> None:
    third = ("third", "a long password 3")
    assert rest.cmdlet("New-Administrator", Name=third[0], Password=third[1]).status == 200
    login = rest.ask("POST", "login", {"UserName": third[0], "Password": third[1]}, who=None)
    session = bearer(login.json["Token"])
    assert rest.ask("GET", "objects/Service", who=None, headers=session).status == 200
    assert rest.cmdlet("Set-Administrator", Identity=third[0], Role="ViewOnly").status == 200
    stop = rest.ask("POST", "cmdlets/Stop-Service", {"Name": ["x"]}, who=None, headers=session)
    assert stop.status == 403
    assert rest.cmdlet("Set-Administrator", Identity=third[0], Enabled=False).status == 200
    assert rest.ask("GET", "objects/Service", who=None, headers=session).status == 401
    assert rest.cmdlet("Remove-Administrator", Identity=third[0]).status == 200


def test_wrong_log_ons_look_alike_and_cost_time(tmp_path: Path) -> None:
    server = RestServer(tmp_path, "Set-AdminSettings -RequestTimeout 5")
    server.start()
    try:
        answers = [
            server.ask("GET", "objects/Service", who=(ADMIN[0], "wrong")),
            server.ask("GET", "objects/Service", who=("nobody", "wrong")),
        ]
        assert [a.status for a in answers] == [401, 401]
        assert answers[0].body == answers[1].body
        assert answers[0].headers.get_all("www-authenticate") == answers[1].headers.get_all("www-authenticate")
        server.ask("GET", "objects/Service", who=(ADMIN[0], "wrong"))
        began = time.monotonic()
        server.ask("GET", "objects/Service", who=(ADMIN[0], "wrong"))
        assert time.monotonic() - began > 0.4, "the fourth failure waits"
        slow, quick = server.raw(), server.raw()
        with slow, quick:
            request = b"GET /api/v1/cmdlets HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer llt_x\r\n\r\n"
            slow.sendall(request)
            time.sleep(0.3)
            quick.sendall(request)
            answer = quick.recv(65536)
            assert answer.startswith(b"HTTP/1.1 429") and b"retry-after: " in answer.lower()
        began = time.monotonic()
        with server.raw() as sock:
            sock.sendall(b"GET /api/v1/cmdlets HTTP/1.1\r\nHost: loc")
            assert sock.recv(10) == b"", "a header that never ends is not waited for"
        assert 3 < time.monotonic() - began < 10
    finally:
        server.kill()


def test_stopping_itself_answers_first(tmp_path: Path) -> None:
    server = RestServer(tmp_path)
    server.start()
    try:
        assert server.cmdlet("Restart-Service", Name=["LetterlockAdmin"]).status == 200
        assert server.cmdlet("Get-Service").status == 200
        assert server.cmdlet("Stop-Service", Name=["LetterlockAdmin"]).status == 200
        with pytest.raises(ConnectionRefusedError):
            server.raw()
        assert server.stop() == 0
        assert "Traceback" not in (server.data / "serve.stderr").read_text()
    finally:
        server.kill()


# --- all faces alike


def _objects(text: str) -> list[object]:
    return list(json.loads(text))


@pytest.mark.parametrize(
    "line",
    [
        "Get-Service",
        "Get-Service MSExchangePOP*",
        "Get-ImapSettings",
        "Get-PopSettings",
        "Get-AdminSettings",
        "Get-Mailbox",
        "Get-Mailbox bob@demo.test",
        "Get-CASMailbox",
        "Get-ExchangeCertificate",
        "Get-Administrator",
    ],
)
def test_command_line_rest_and_remote_answer_alike(rest: RestServer, line: str) -> None:
    name, *positional = line.split()
    local = _objects(rest.run(name.lower(), *positional, "--output", "json").stdout)
    assert local
    remote = rest.remote(name.lower(), *positional, "--output", "json")
    assert remote.returncode == 0, remote.stderr
    assert _objects(remote.stdout) == local
    first = next((p.name for p in CMDLETS[name.lower()].parameters if p.position == 0), "")
    body = {first: positional[0]} if positional else {}
    assert rest.ask("POST", f"cmdlets/{name}", body).json["Objects"] == local
    place = f"objects/{name.removeprefix('Get-')}" + (f"/{positional[0]}" if positional else "")
    assert rest.ask("GET", place).json["Objects"] == local


def test_shell_text_is_the_same_here_and_there(rest: RestServer) -> None:
    text = "Get-ImapSettings | Format-List *Bindings,X509CertificateName; Get-Service; Get-CASMailbox | Select Name"
    there = rest.remote("shell", "-c", text)
    assert there.returncode == 0, there.stderr
    assert there.stdout == rest.shell(text)


def test_piping_and_lists_go_over_the_wire(rest: RestServer) -> None:
    text = """Get-CASMailbox bob@demo.test | Set-CASMailbox -PopEnabled $false
    Set-ImapSettings -ExternalConnectionSettings @{Add="a.example.com:993:SSL"}"""
    done = rest.remote("shell", "-c", text)
    assert done.returncode == 0, done.stderr
    assert "WARNING: changes take effect" in done.stderr
    assert rest.cmdlet("Get-CASMailbox", Identity="bob@demo.test").json["Objects"][0]["PopEnabled"] is False
    settings = rest.cmdlet("Get-ImapSettings").json["Objects"][0]
    assert settings["ExternalConnectionSettings"] == ["a.example.com:993:SSL"]
    assert rest.remote("shell", "-c", "Set-ImapSettings -ExternalConnectionSettings $null").returncode == 0


def test_a_credential_goes_over_the_wire(rest: RestServer) -> None:
    done = rest.remote(
        "shell", "-c", "Test-ImapConnectivity -MailboxCredential (Get-Credential nobody@demo.test) | fl *"
    )
    assert done.returncode == 0, done.stderr
    assert "UserName" in done.stdout
    assert "nobody@demo.test" in done.stdout


def test_remote_errors_are_one_clear_line(rest: RestServer, tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    other = Server(tmp_path).ca
    cases = [
        (rest.remote("get-mailbox", "nobody"), 1, "there is no mailbox 'nobody'"),
        (rest.remote("set-imapsettings", "--max-connections", "0"), 2, "MaxConnections: value 0 is out of range"),
        (rest.remote("get-service", ca=other), 1, "the certificate cannot be trusted"),
        (rest.remote("get-service", ca=empty), 2, "--cacert"),
        (rest.remote("get-service", url=f"https://127.0.0.1:{rest.port}"), 1, "the certificate cannot be trusted"),
        (rest.remote("get-service", url="https://localhost:1"), 1, "cannot be reached"),
        (rest.remote("get-service", url=f"https://localhost:{rest.imap}"), 1, "TLS failed"),
        (rest.remote("get-service", url="http://localhost"), 2, "expected https://HOST:PORT"),
        (rest.remote("init", "--hostname", "localhost"), 2, "run on the machine itself"),
        (rest.remote("get-service", token="llt_wrong"), 1, "not valid any more"),
        (rest.remote("set-mailbox", "bob@demo.test", who=VIEWER), 1, "may not run Set-Mailbox"),
    ]
    for done, status, text in cases:
        assert done.returncode == status, done.stderr
        assert text in done.stderr
        assert done.stderr.startswith("letterlock: error: ") and len(done.stderr.splitlines()) == 1
        assert ADMIN[1] not in done.stderr


def test_a_token_serves_the_command_line(rest: RestServer) -> None:
    token = rest.cmdlet("New-AdministratorToken", Identity=VIEWER[0]).json["Objects"][0]["Token"]
    done = rest.remote("get-mailbox", "--output", "json", token=token)
    assert done.returncode == 0, done.stderr
    assert len(_objects(done.stdout)) == 2


# --- the description


def test_the_document_is_the_command_table(rest: RestServer) -> None:
    document = rest.ask("GET", "openapi.json").json
    assert document["openapi"] == "3.1.0"
    names = {c.name for c in CMDLETS.values()}
    assert {p.removeprefix("/api/v1/cmdlets/") for p in document["paths"] if "/cmdlets/" in p} == names
    body = document["paths"]["/api/v1/cmdlets/Set-ImapSettings"]["post"]["requestBody"]
    known = body["content"]["application/json"]["schema"]["properties"]
    assert known["LoginType"]["enum"] == ["PlainTextLogin", "PlainTextAuthentication", "SecureLogin"]
    assert (known["MaxCommandSize"]["minimum"], known["MaxCommandSize"]["maximum"]) == (1024, 16384)
    assert known["ProtocolLogEnabled"]["type"] == "boolean"


def test_every_parameter_has_a_shape() -> None:
    for cmdlet in CMDLETS.values():
        for parameter in cmdlet.all_parameters:
            schema = openapi.shape(parameter)
            assert "type" in schema or "anyOf" in schema
            assert openapi.mismatch(schema, None) or "null" in str(schema)
