"""Restarts of services under load: nobody is refused, nothing is cut off, and what the new settings forbid is ended."""

from __future__ import annotations

import os
import poplib
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from tests.clients.server import PASSWORD, Server
from tests.test_workers import ADDRESSES, Client

LONG = os.environ.get("LETTERLOCK_LONG") == "1"
USER = "alice@demo.test"
BIG = b"Subject: big\r\n\r\n" + b"0123456789abcdef\r\n" * 600_000  # more than any buffer between us


def connect(server: Server, context: ssl.SSLContext, address: str) -> bytes:
    """One connection from its greeting to its goodbye; the greeting."""
    raw = socket.create_connection(("127.0.0.1", server.imaps), 30, source_address=(address, 0))
    with context.wrap_socket(raw, server_hostname="localhost") as sock, sock.makefile("rwb") as file:
        greeting = file.readline()
        file.write(b"a NOOP\r\nb LOGOUT\r\n")
        file.flush()
        rest = file.read()
        assert rest.endswith(b"b OK LOGOUT completed.\r\n"), rest
        return greeting


def test_hundreds_of_connections_while_services_restart(tmp_path: Path) -> None:
    """New ones all the time, a long FETCH, idling and selected sessions: all live through every restart."""
    server = Server(tmp_path, settings="Set-ImapSettings -MaxConnectionsPerUser 100 -ProtocolLogEnabled $true")
    server.start(workers=2)
    context = server.context()
    stop, failures, made = threading.Event(), list[str](), [0]
    lock = threading.Lock()

    def hammer(number: int) -> None:
        while not stop.is_set():
            try:
                greeting = connect(server, context, ADDRESSES[number % len(ADDRESSES)])
                assert greeting.startswith(b"* OK"), greeting
                with lock:
                    made[0] += 1
            except (OSError, AssertionError) as error:
                failures.append(repr(error))

    try:
        server.fill([BIG, b"Subject: small\r\n\r\n"])
        reader = Client(server, ADDRESSES[0])
        reader.login()
        reader.ask("s SELECT INBOX")
        reader.sock.sendall(b"f FETCH 1 BODY.PEEK[]\r\n")
        assert reader.file.readline() == b"* 1 FETCH (BODY[] {%d}\r\n" % len(BIG)
        idlers = [Client(server, a) for a in ADDRESSES]
        for client in idlers:
            client.login()
            client.ask("s SELECT INBOX")
            client.sock.sendall(b"i IDLE\r\n")
            assert client.file.readline().startswith(b"+ ")
        threads = [threading.Thread(target=hammer, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        received = b""
        for round_ in range(20 if LONG else 4):
            both = "Restart-Service LetterlockImap4; Restart-Service LetterlockImap4BE"
            server.shell(f'Set-ImapSettings -Banner "round {round_}"; {both}')
            received += reader.file.read(len(BIG) // 40)  # slowly, through all restarts
            assert connect(server, context, "127.0.0.77") == f"* OK round {round_}\r\n".encode()
        enough = 400 if LONG else 100
        until = time.monotonic() + 120
        while made[0] < enough and time.monotonic() < until:
            time.sleep(0.1)
        stop.set()
        for thread in threads:
            thread.join(60)
        assert not failures, (len(failures), failures[:3])
        assert made[0] >= enough
        received += reader.file.read(len(BIG) - len(received))
        assert received == BIG and reader.file.readline() == b")\r\n"
        assert reader.file.readline().startswith(b"f OK")
        server.fill([b"Subject: for idlers\r\n\r\n"])
        for client in idlers:
            line = client.file.readline()
            assert line == b"* 3 EXISTS\r\n", line
            client.sock.sendall(b"DONE\r\n")
            while not client.file.readline().startswith(b"i OK"):
                pass
        server.shell("Restart-Service LetterlockImap4 -Force")
        for client in [*idlers, reader]:
            while (line := client.file.readline()) and not line.startswith(b"* BYE"):
                pass
            assert line.startswith(b"* BYE") and client.file.readline() == b""
            client.close()
        assert "Traceback" not in (server.data / "serve.stderr").read_text()
    finally:
        stop.set()
        server.kill()


def test_a_command_under_way_that_the_new_settings_forbid_ends_first(server: Server) -> None:
    """Its session was made in clear; the whole answer comes, then the goodbye."""
    server.shell("Set-ImapSettings -LoginType PlainTextLogin; Restart-Service LetterlockImap4")
    server.fill([BIG])
    client = Client(server, "127.0.0.5", clear=True)
    assert client.login().startswith(b"l OK")
    client.ask("s SELECT INBOX")
    client.sock.sendall(b"f FETCH 1 BODY.PEEK[]\r\n")
    assert client.file.readline() == b"* 1 FETCH (BODY[] {%d}\r\n" % len(BIG)
    secure = Client(server, "127.0.0.6")
    secure.login()
    change = "Set-ImapSettings -LoginType SecureLogin; Restart-Service LetterlockImap4"
    restart = threading.Thread(target=server.shell, args=(change,))
    restart.start()
    received = b""
    while len(received) < len(BIG):  # for longer than a command that stands may take
        received += client.file.read(min(len(BIG) - len(received), len(BIG) // 28))
        time.sleep(0.4)
    restart.join(60)
    assert received == BIG and client.file.readline() == b")\r\n"
    assert client.file.readline().startswith(b"f OK")
    assert client.file.readline().startswith(b"* BYE") and client.file.readline() == b""
    assert secure.ask("n NOOP")[-1].startswith(b"n OK")
    refused = Client(server, "127.0.0.5", clear=True)
    assert refused.login().startswith(b"l NO [PRIVACYREQUIRED]")


def test_pop_sessions_live_through_a_restart(server: Server) -> None:
    server.fill([b"Subject: one\r\n\r\n"])
    pop = server.pop_client()
    server.shell("Set-PopSettings -Banner again; Restart-Service MSExchangePOP3; Restart-Service MSExchangePOP3BE")
    assert pop.stat()[0] == 1
    pop.dele(1)
    pop.quit()  # the deletion is carried out
    fresh = server.pop_client()
    assert fresh.stat()[0] == 0 and b"again" in fresh.welcome
    server.shell("Restart-Service LetterlockPop3 -Force")
    with pytest.raises((OSError, EOFError, poplib.error_proto)):
        fresh.noop()


def test_stopping_says_goodbye_and_starting_serves_again(server: Server) -> None:
    clients = [Client(server, a) for a in ADDRESSES[:6]]
    for client in clients[:3]:
        client.login()
    server.shell("Stop-Service MSExchangeIMAP4")
    for client in clients:
        assert client.file.readline().startswith(b"* BYE") and client.file.readline() == b""
        client.close()
    with pytest.raises(ConnectionRefusedError):
        Client(server, "127.0.0.5")
    server.shell("Start-Service MSExchangeIMAP4")
    client = Client(server, "127.0.0.5")
    assert client.ask(f'l LOGIN {USER} "{PASSWORD}"')[-1].startswith(b"l OK")
    client.close()


def test_wildcards_order_and_layout(server: Server) -> None:
    listed = server.shell("Get-Service | Select -ExpandProperty Name").split()
    wanted = ["LetterlockImap4", "LetterlockImap4BE", "LetterlockPop3", "LetterlockPop3BE"]
    assert listed[:4] == wanted and listed[-1] == "LetterlockAdmin"
    table = server.shell("Get-Service -ComputerName vm -Name MSExchangePOP*").split("\n")
    assert [line.rstrip() for line in table if line.strip()] == [
        "Status   Name               DisplayName",
        "------   ----               -----------",
        "Running  MSExchangePop3     Letterlock POP3",
        "Running  MSExchangePOP3BE   Letterlock POP3 Backend",
    ]
    assert "there is no service 'Nothing'" in server.run("get-service", "Nothing", status=1).stderr
    assert "there is no server 'EX9'" in server.run("stop-service", "*", "--computer-name", "EX9", status=1).stderr
    assert server.run("get-service", "nothing*").stdout.strip() == ""
    server.shell("Set-Service LetterlockPop3 -StartupType Disabled; Stop-Service LetterlockPop3")
    done = server.run("start-service", "LetterlockPop3", status=1)
    assert "LetterlockPop3 is disabled; enable it with: Set-Service LetterlockPop3 -StartupType Manual" in done.stderr
    assert "'Sometimes' is not one of" in server.run("set-service", "*", "--startup-type", "Sometimes", status=2).stderr
