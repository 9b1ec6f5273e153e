"""Exports in every form become the same facts; what is wrong with a file is said with its line, and reading goes on."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from letterlock.analyze import exports, exports_dovecot
from letterlock.analyze.exports import ExportFile, read, read_text
from letterlock.base.facts import SettingFact
from tests.analyze import exports_samples as samples


def facts(text: str, name: str = "export.txt") -> tuple[dict[tuple[str, str, str], Any], ExportFile]:
    """By kind, identity and property; and what became of the file."""
    file = ExportFile(name)
    found = read_text(text, file)
    return {(f.kind, f.identity, f.name): f.value for f in found}, file


def settings_of(text: str, name: str = "export.txt") -> dict[str, Any]:
    """The only settings object."""
    found, _ = facts(text, name)
    kinds = {(k, i) for k, i, _ in found if k.endswith("Settings")}
    assert len(kinds) == 1, kinds
    return {n: v for (k, _, n), v in found.items() if k.endswith("Settings")}


def test_a_whole_listing() -> None:
    found = settings_of(samples.IMAP_LIST)
    assert found["UnencryptedOrTLSBindings"] == ("[::]:143", "0.0.0.0:143")
    assert found["ExternalConnectionSettings"] == ()
    assert found["OwaServerUrl"] == ""
    assert found["LogFileLocation"].endswith("\\Logging\\Imap4")
    assert len(found) == len(samples.IMAP_LIST.splitlines())


def test_a_forum_post() -> None:
    found, file = facts(samples.FORUM)
    assert found["ImapSettings", "EX01", "LoginType"] == "PlainTextLogin"
    assert found["ImapSettings", "EX01", "UnencryptedOrTLSBindings"] == ("[::]:143", "0.0.0.0:143")
    assert found["ImapSettings", "EX01", "Banner"] == "The Microsoft Exchange IMAP4 service is ready."
    assert found["Service", "MSExchangeIMAP4BE", "Status"] == "Stopped"
    assert "Thanks" not in {n for _, _, n in found} and "Note" not in {n for _, _, n in found}
    assert (file.form, file.objects, file.problems) == ("list", 3, [])
    lines = {f.name: f.origin.line for f in read_text(samples.FORUM, ExportFile("x"))}
    assert samples.FORUM.splitlines()[lines["LoginType"] - 1].endswith("PlainTextLogin")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: "".join(f"        {line}\n" for line in t.splitlines()),
        lambda t: "".join(f"> > {line}\n" for line in t.splitlines()),
        lambda t: "".join(f"{line}\n\n" for line in t.splitlines()),
        lambda t: "```\n" + t + "```\n",
        lambda t: t.replace(" : ", ": ").replace("  ", ""),
        lambda t: t.replace(" ", "\u00a0"),
        lambda t: "".join(f"* {line}\n" for line in t.splitlines()),
        lambda t: t.replace("\n", "\r\n"),
        lambda t: t.replace("{[::]:143, 0.0.0.0:143}", "{[::]:143,\n                                    0.0.0.0:143}"),
        lambda t: t.replace("{[::]:143, 0.0.0.0:143}", "{[::]:143,\n0.0.0.0:143}"),
        lambda t: "Before: after\n" + t + "\nRegards: me\n",
    ],
    ids=["indented", "quoted", "double", "fenced", "squeezed", "nbsp", "bullets", "crlf", "wrap", "flat", "prose"],
)  # fmt: skip
def test_what_forums_do_to_a_listing(change: Any) -> None:
    found = settings_of(change(samples.IMAP_LIST))
    assert found["LoginType"] == "SecureLogin"
    assert found["UnencryptedOrTLSBindings"] == ("[::]:143", "0.0.0.0:143")
    assert found["SSLBindings"] == ("[::]:993", "0.0.0.0:993")
    assert found["Server"] == "EX01"


def test_several_objects_without_anything_between() -> None:
    found, file = facts(samples.POP_LIST + samples.IMAP_LIST + samples.CERTIFICATES + samples.CONNECTORS)
    assert file.objects == 6 and not file.problems
    assert found["PopSettings", "EX01", "MaxCommandSize"] == "512"
    assert found["ImapSettings", "EX01", "MaxCommandSize"] == "10240"
    assert found["ExchangeCertificate", "99AACD34EF56AB12CD34EF56AB12CD34EF56AB12", "Subject"] == "CN=EX01"
    assert found["ReceiveConnector", "EX01\\Client Frontend EX01", "Bindings"] == ("[::]:587", "0.0.0.0:587")


def test_clixml() -> None:
    found = settings_of(samples.CLIXML)
    assert found["LoginType"] == "PlainTextAuthentication"
    assert found["SSLBindings"] == ("[::]:993", "0.0.0.0:993")
    assert found["ProtocolLogEnabled"] is True
    assert found["AuthenticatedConnectionTimeout"] == "1800"
    assert found["OwaServerUrl"] == ""
    assert found["Banner"] == "Ready\r\nnow"


def test_json_as_powershell_writes_it() -> None:
    found = settings_of(samples.JSON)
    assert found["LoginType"] == 3
    assert found["SSLBindings"] == ("0.0.0.0:993", "[::]:993")
    assert found["UnencryptedOrTLSBindings"] == ()
    assert found["AuthenticatedConnectionTimeout"] == "1800"
    assert found["LogPerFileSizeQuota"] == "unlimited"
    assert next(f.origin for f in read_text(samples.JSON, ExportFile("j")) if f.name == "LoginType").line == 4


@pytest.mark.parametrize("wrap", ["[%s]", "%s", '{"value": [%s], "Count": 1}', '{"Get-ImapSettings": [%s]}'])
def test_json_in_its_wrappings(wrap: str) -> None:
    one = json.dumps({"LoginType": "PlainTextLogin", "SSLBindings": ["0.0.0.0:993"], "Server": "EX01", "Name": "1"})
    assert settings_of(wrap % one)["LoginType"] == "PlainTextLogin"


def test_our_own_json_is_read() -> None:
    text = json.dumps([{"ProtocolName": "POP3", "LoginType": "SecureLogin", "TlsMinimum": "1.2", "Server": "MAIL"}])
    assert settings_of(text)["TlsMinimum"] == "1.2"


def test_csv_with_type_line_and_lost_lists() -> None:
    found, file = facts(samples.SERVICES_CSV)
    assert found["Service", "MSExchangeImap4", "StartType"] == "Automatic"
    assert not any(identity == "Spooler" for _, identity, _ in found)
    assert file.form == "csv"
    text = "Server;LoginType;SSLBindings\nEX01;SecureLogin;Microsoft.Exchange.Data.MultiValuedProperty`1[X]\n"
    assert settings_of(text, "imap.csv")["SSLBindings"] is None


def test_tables_of_components_and_mailboxes() -> None:
    text = """[PS] C:\\>Get-ServerComponentState EX01

Server                                Component                     State
------                                ---------                     -----
EX01.contoso.test                     ServerWideOffline             Active
EX01.contoso.test                     ImapProxy                     Inactive

Name           ActiveSyncEnabled OWAEnabled PopEnabled ImapEnabled MapiEnabled
----           ----------------- ---------- ---------- ----------- -----------
Alice Anders   True              True       False      True        True
"""
    found, _ = facts(text)
    assert found["ServerComponentState", "ImapProxy", "State"] == "Inactive"
    assert found["CASMailbox", "Alice Anders", "PopEnabled"] == "False"
    assert found["CASMailbox", "Alice Anders", "ImapEnabled"] == "True"


def test_pop_or_imap_is_told_by_what_there_is() -> None:
    assert facts("LoginType : SecureLogin\nSSLBindings : {0.0.0.0:995}\n")[0]
    _, file = facts("LoginType : SecureLogin\n")
    assert "nothing tells which" in file.problems[0][1]
    assert ("ImapSettings", "", "LoginType") in facts("LoginType : SecureLogin\n", "imapsettings.txt")[0]
    assert ("PopSettings", "", "LoginType") in facts("PS> Get-PopSettings | select LoginType\n\nLoginType : X\n")[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("pack", [lambda d: d, gzip.compress, lambda d: zstandard.ZstdCompressor().compress(d)])
def test_encodings_and_compressions(tmp_path: Path, encoding: str, pack: Any) -> None:
    text = samples.IMAP_LIST.replace("service is ready", "service für alle")
    (tmp_path / "imap.txt").write_bytes(pack(text.encode(encoding)))
    reading = read([str(tmp_path)])
    assert [f.value for f in reading.facts if f.name == "Banner"] == ["The Microsoft Exchange IMAP4 service für alle."]
    assert not reading.files[0].problems


def test_dovecot_blocks_and_secrets() -> None:
    found, file = facts(samples.DOVECOT_23)
    assert file.form == "doveconf" and not file.problems
    host = "mail.contoso.test"
    assert found["Dovecot", host, "service imap-login/inet_listener imaps/port"] == "993"
    assert found["Dovecot", host, "version"] == "2.3.19.1"
    assert found["Dovecot", host, "passdb/args"] == "***" and found["Dovecot", host, "ssl_key"] == "***"
    assert "secret-users" not in repr(found)
    quoted = "".join(f"> {line}\n" for line in samples.DOVECOT_23.splitlines())
    assert facts(quoted)[0].keys() == found.keys()


# --- hostile input


def test_an_entity_bomb_is_refused_with_its_line() -> None:
    bomb = (
        '<?xml version="1.0"?>\n<!DOCTYPE lolz [\n<!ENTITY a "aaaa">\n<!ENTITY b "&a;&a;">\n]>\n<Objs><S>&b;</S></Objs>'
    )
    found, file = facts(bomb)
    assert not found
    assert file.problems[0][0] > 0 and "document type or entities" in file.problems[0][1]


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ('[\n{"LoginType": }\n]', 2, "not valid JSON"),
        ("[" * 100_000, 1, "nested too deeply"),
        ("[" + "9" * 5000 + "]", 1, "number that is too long"),
        ("<Objs>" + "<Obj><Props>" * 40 + "</Objs>", 1, "nested too deeply"),
        ('<Objs>\n<Obj RefId="0">\n<Props>', 3, "not valid XML"),
        ("Name,Status\nMSExchangePop3,Running,1\n", 2, "has 3 fields"),
    ],
)
def test_broken_files_are_named_with_their_line(text: str, line: int, why: str) -> None:
    found, file = facts(text)
    assert not found
    assert file.problems[0][0] == line and why in file.problems[0][1]


def test_files_beside_a_bad_one_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 64)
    (tmp_path / "b.txt").write_text(samples.IMAP_LIST)
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(samples.JSON.encode())[:-20])
    (tmp_path / "d.txt").write_text("")
    (tmp_path / "e.txt").write_text(samples.POP_LIST + "x" * 1_000_000 + "\n")
    (tmp_path / "f.txt").write_text("a letter to somebody\n")
    reading = read([str(tmp_path)])
    why = {Path(f.name).name: [w for _, w in f.problems] for f in reading.files}
    assert "binary" in why["a.bin"][0] and "compression" in why["c.json.gz"][0] and "empty" in why["d.txt"][0]
    assert why["b.txt"] == [] and "1000000 characters" in why["e.txt"][0] and "recognised" in why["f.txt"][0]
    assert {f.kind for f in reading.facts} == {"ImapSettings", "PopSettings"}


def test_a_compressed_bomb_ends_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "MAX_FILE", 1 << 20)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"\0" * (64 << 20)))
    assert "larger than 1 MiB" in read([str(tmp_path / "bomb.gz")]).files[0].problems[0][1]


def test_time_grows_with_the_text_only() -> None:
    """Deep quotes, endless dashes and colons: no pattern goes back over what it has read."""
    for hostile in (
        "> " * 30_000,
        "- " * 30_000,
        "-" * 60_000,
        "a:" * 30_000,
        " " * 60_000 + ":",
        "{" * 60_000,
        "::" * 30_000,
    ):
        facts(f"LoginType : {hostile}\n{hostile}\n" * 3)


_PIECES = st.sampled_from(
    [
        *samples.IMAP_LIST.splitlines(),
        *samples.FORUM.splitlines(),
        *samples.CONNECTORS.splitlines(),
        *samples.DOVECOT_23.splitlines(),
        *samples.CLIXML.splitlines(),
        *("{", "}", "[", "<Objs>", "<!DOCTYPE x>", '"a","b"', "#TYPE x", "\x1b[31m", "---- ----", "=cmd|' /C calc'!A0"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(_PIECES, st.text(max_size=40)), max_size=40), st.sampled_from(["\n", "\r\n", "\n\n", " "]))
def test_no_text_breaks_a_reader(pieces: list[str], joint: str) -> None:
    file = ExportFile("fuzz.txt")
    found = read_text(joint.join(pieces), file)
    assert all(isinstance(f, SettingFact) and f.origin.source == "fuzz.txt" for f in found)
    assert file.form


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_no_octets_break_decoding(data: bytes) -> None:
    text = exports.decoded(data)
    if text is not None:
        read_text(text, ExportFile("fuzz"))


@settings(max_examples=150, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda c: st.lists(c, max_size=3)
       | st.dictionaries(st.sampled_from(["LoginType", "Server", "Port", "Address", "Status", "Name", "value"]), c,
       max_size=4),
       max_leaves=20))  # fmt: skip
def test_no_json_breaks_its_reader(data: Any) -> None:
    read_text(json.dumps([data]), ExportFile("fuzz.json"))


def test_looks_like_dovecot_only_when_it_is() -> None:
    assert exports_dovecot.looks_like(samples.DOVECOT_24)
    assert not exports_dovecot.looks_like(samples.IMAP_LIST)
    assert not exports_dovecot.looks_like(samples.FORUM)
