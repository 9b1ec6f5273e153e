"""mbox and Maildir: what goes out comes back, octet by octet; files of other programs are read as they meant them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import io
import mailbox
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from letterlock.base.errors import LetterlockError, Malformed
from letterlock.store.api import ANSWERED, DELETED, FLAGGED, SEEN, Column, Flags, Incoming
from letterlock.store.sqlite import SqliteStore
from letterlock.transfer import files, maildir, mbox
from letterlock.transfer.items import Found
from tests import messages
from tests.management import Management, Services

DATE = b"17-Jul-1996 02:44:25 -0700"
MOMENT = datetime.datetime(1996, 7, 17, 9, 44, 25, tzinfo=datetime.UTC)


class Memory:
    """A spool (store.api.Spool)."""

    def __init__(self) -> None:
        self.data = bytearray()

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, data: bytes) -> None:
        self.data += data

    def close(self) -> None:
        self.data.clear()


def octets(found: Found) -> bytes:
    assert isinstance(found.spool, Memory)
    return bytes(found.spool.data)


def read(data: bytes, **named: Any) -> list[Found]:
    return list(mbox.Reader(io.BytesIO(data), "INBOX", Memory, **named))


PIECES = [
    b"From ",
    b">From ",
    b">>From x",
    b"\r\n",
    b"\n",
    b"\r",
    b"a",
    b"\r\n\r\n",
    b"\n\n",
    b"Status: RO",
    b":",
    b"\x00",
]
PIECES += [
    b"X-Letterlock-Export: ",
    b"From a Fri Jul  8 12:08:34 2011",
    b"X-Status: D",
    b"\xff",
    b" b",
    b"X-Keywords: x",
]
RAW = st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join)


@given(st.lists(RAW, min_size=1, max_size=4))
@example([b""])
@example([b"\r\nFrom x\r\n", b"no end", b"x\r\r\n"])
@example([b'X-Letterlock-Export: 1 flags="" date="17-Jul-1996 02:44:25 -0700" exact=1\r\n\r\nabc'])
@settings(max_examples=300, deadline=None)
def test_mbox_gives_back_what_it_took(raws: list[bytes]) -> None:
    file = io.BytesIO()
    for raw in raws:
        mbox.write_message(file, raw, b"\\Seen \\Deleted $Forwarded", DATE)
    found = read(file.getvalue())
    assert [octets(f) for f in found] == raws
    assert {(f.flags, f.date) for f in found} == {(Flags(SEEN | DELETED, (b"$Forwarded",)), MOMENT)}
    assert found[-1].read == len(file.getvalue())


@given(st.lists(RAW, min_size=1, max_size=4))
@settings(max_examples=100, deadline=None)
def test_maildir_gives_back_what_it_took(raws: list[bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "m"
        writer = maildir.Writer(path)
        writer.folder("A.b/Ü&.")
        for uid, raw in enumerate(raws):
            writer.write("A.b/Ü&.", uid, raw, b"\\Answered zwei eins", DATE)
        (name, where) = maildir.folders(path)[1]
        assert name == "A.b/Ü&."
        found = list(maildir.messages(name, where, Memory))
        assert sorted(octets(f) for f in found) == sorted(raws)
        assert {(f.flags, f.date) for f in found} == {(Flags(ANSWERED, (b"eins", b"zwei")), MOMENT)}


def test_a_line_longer_than_what_is_read_at_a_time() -> None:
    raw = b"Subject: x\r\n\r\n" + b"From " * 100_000 + b"\r\n\r\nFrom " + b"y" * 200_000 + b"\r\n"
    file = io.BytesIO()
    mbox.write_message(file, raw, b"", DATE)
    mbox.write_message(file, b"second\r\n", b"", DATE)
    assert [octets(f) for f in read(file.getvalue())] == [raw, b"second\r\n"]


FOREIGN = b"""From alice@example.com Fri Jul  8 12:08:34 2011 +0200
Subject: one
Status: RO
X-Status: AF
X-Keywords: $Forwarded  Work
X-UID: 17
 continued
To: x

From here on it is text
>From quoted once
>>From quoted twice

From - not a separator: it has no date

From MAILER-DAEMON Fri Jul  8 12:08:35 2011
X-Mozilla-Status: 000d
X-Mozilla-Status2: 00000000
Subject: two

body
"""


def test_files_of_other_programs() -> None:
    one, two = read(FOREIGN)
    assert octets(one) == (
        b"Subject: one\r\nTo: x\r\n\r\nFrom here on it is text\r\nFrom quoted once\r\n>From quoted twice\r\n\r\n"
        b"From - not a separator: it has no date\r\n"
    )
    assert one.flags == Flags(SEEN | ANSWERED | FLAGGED, (b"$Forwarded", b"Work"))
    assert one.date == datetime.datetime(2011, 7, 8, 10, 8, 34, tzinfo=datetime.UTC)
    assert octets(two) == b"Subject: two\r\n\r\nbody\r\n"
    assert two.flags.system == SEEN | FLAGGED | DELETED
    kept = read(FOREIGN, keep_quoting=True)
    assert b">From quoted once\r\n>>From quoted twice" in octets(kept[0])
    assert [octets(f) for f in read(FOREIGN.replace(b"\n", b"\r\n"))] == [octets(one), octets(two)]


def test_the_folder_data_of_uw_imap_is_no_message() -> None:
    data = b"From MAILER-DAEMON Fri Jul  8 12:08:34 2011\nX-IMAP: 1310119714 0000000002\nStatus: RO\n\ninternal\n\n"
    assert [octets(f) for f in read(data + FOREIGN)] == [octets(f) for f in read(FOREIGN)]


def test_a_file_whose_from_lines_have_no_date() -> None:
    assert [octets(f) for f in read(b"From a\nX: 1\n\nx\n\nFrom b\nX: 2\n\ny\n")] == [
        b"X: 1\r\n\r\nx\r\n",
        b"X: 2\r\n\r\ny\r\n",
    ]


def test_what_is_no_mbox_is_said() -> None:
    with pytest.raises(Malformed, match="this is no mbox file: it begins with"):
        read(b"SQLite format 3\x00")
    assert read(b"") == [] and read(b"\n\n") == []


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_random_files_are_read_or_refused(data: bytes) -> None:
    for text in (data, b"From x Fri Jul  8 12:08:34 2011\n" + data):
        with contextlib.suppress(LetterlockError):
            read(text)


def test_pythons_mailbox_module_reads_and_writes_the_same(tmp_path: Path) -> None:
    corpus = [messages.crlf(m) for m in messages.cpython().values()] or [b"Subject: x\r\n\r\nFrom y\r\n"]
    path = tmp_path / "ours.mbox"
    with path.open("wb") as file:
        for raw in corpus:
            mbox.write_message(file, raw, b"\\Seen \\Flagged", DATE)
    theirs = mailbox.mbox(path, create=False)
    assert len(theirs) == len(corpus)
    for raw, key in zip(corpus, theirs.keys(), strict=True):
        assert theirs.get_message(key).get_flags() == "ROF"
        text = theirs.get_bytes(key).split(b"\n", 4)[4]
        plain, text = (part.replace(b"\r\n", b"\n").rstrip(b"\n") for part in (raw, text))
        assert text.replace(b">From ", b"From ") == plain.replace(b">From ", b"From ")
    other = mailbox.mbox(tmp_path / "theirs.mbox")
    for raw in corpus:
        other.add(raw.replace(b"\r\n", b"\n"))
    other.close()
    with (tmp_path / "theirs.mbox").open("rb") as file:
        found = [octets(f) for f in mbox.Reader(file, "INBOX", Memory)]
    assert len(found) == len(corpus)
    assert sum(a == (b if b.endswith(b"\r\n") else b + b"\r\n") for a, b in zip(found, corpus, strict=True)) >= (
        len(corpus) - 3  # messages that hold Status fields or >From lines of their own cannot be told from notes
    )
    md = mailbox.Maildir(tmp_path / "theirs.maildir")
    md.add(mailbox.MaildirMessage(b"Subject: x\n\ny\n"))
    assert [octets(f) for f in maildir.messages("INBOX", tmp_path / "theirs.maildir", Memory)] == [
        b"Subject: x\r\n\r\ny\r\n"
    ]


# --- requests


@pytest.fixture
def m(tmp_path: Path) -> Management:
    made = Management(tmp_path / "data", Services())
    made.mailbox()
    return made


ODD = [b"", b"x", b"\r\nFrom \r\n", b"a\nb\r\nc", b"Status: RO\r\n\r\nFrom \r\n\r\n", b"x\r\r\n", b"\x00\r\n" * 3]


def fill(m: Management, address: str = "alice@example.com") -> dict[str, list[tuple[Any, ...]]]:
    """Odd and ordinary messages in several folders."""

    async def run() -> None:
        store = SqliteStore(m.data / "mailboxes")
        mail = store.mailbox(m.accounts.one(address).id)
        raws = [*ODD, *messages.cpython().values(), b"Subject: big\r\n\r\n" + b"0123456789abcde\r\n" * 40_000]
        for name in ("INBOX", "Sent", "Work/2024.q1/Übung & mehr", "Empty", "...", "a%2F:*b"):
            folder = await mail.folder(name) if name in ("INBOX", "Sent") else await mail.create(name)
            for at, raw in enumerate(raws if name != "Empty" else []):
                spool = mail.spool(len(raw))
                spool.write(raw)
                flags = Flags(at % 32, (b"$Forwarded", b"k%d" % (at % 3)))
                zone = datetime.timezone(datetime.timedelta(minutes=30 * (at % 5) - 60))
                when = datetime.datetime(1999 + at % 20, 1 + at % 12, 3, 4, 5, 6, tzinfo=zone)
                await mail.append(folder, [Incoming(spool, flags, when)])
        await store.close()

    asyncio.run(run())
    return content(m, address)


def content(m: Management, address: str, zone: bool = True) -> dict[str, list[tuple[Any, ...]]]:
    """Everything of a mailbox, in a form that compares."""

    async def run() -> dict[str, list[tuple[Any, ...]]]:
        store = SqliteStore(m.data / "mailboxes")
        mail = store.mailbox(m.accounts.one(address).id)
        columns = (Column.FLAGS, Column.INTERNALDATE, Column.HEADER, Column.TEXT)
        found = {}
        for folder in await mail.folders():
            rows = [r async for batch in mail.fetch(folder, ((1, 99999),), columns) for r in batch]
            found[folder.name] = [(r[1], r[2], bytes(r[3]) + bytes(r[4])) for r in rows]  # type: ignore[call-overload]
        await store.close()
        return found

    return asyncio.run(run())


def test_export_and_import_as_mbox_change_nothing(m: Management, tmp_path: Path) -> None:
    before = fill(m)
    m.mailbox("bob@example.com")
    (exported,) = m.run("New-MailboxExportRequest", "alice", str(tmp_path / "out"))
    assert exported["Status"] == "Completed" and exported["Messages"] == sum(map(len, before.values()))
    assert not list(tmp_path.glob("*.partial"))
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    (imported,) = m.run("New-MailboxImportRequest", "bob@example.com", str(tmp_path / "out"))
    assert imported["Messages"] == exported["Messages"] and imported["Skipped"] == 0
    assert content(m, "bob@example.com") == before


def test_export_and_import_as_maildir_change_nothing_but_time_zones(m: Management, tmp_path: Path) -> None:
    before = fill(m)
    m.mailbox("bob@example.com")
    m.run("New-MailboxExportRequest", "alice", str(tmp_path / "out"), Format="Maildir")
    m.run("New-MailboxImportRequest", "bob@example.com", str(tmp_path / "out"))

    def simple(found: dict[str, list[tuple[Any, ...]]]) -> dict[str, Any]:
        def moment(text: Any) -> float:
            return datetime.datetime.strptime(bytes(text)[1:-1].decode().strip(), "%d-%b-%Y %H:%M:%S %z").timestamp()

        return {name: sorted((f, moment(d), raw) for f, d, raw in rows) for name, rows in found.items()}

    assert simple(content(m, "bob@example.com")) == simple(before)


def test_a_second_import_brings_nothing_twice(m: Management, tmp_path: Path) -> None:
    fill(m)
    m.run("New-MailboxExportRequest", "alice", str(tmp_path / "out"))
    m.mailbox("bob@example.com")
    (first,) = m.run("New-MailboxImportRequest", "bob@example.com", str(tmp_path / "out"))
    before = content(m, "bob@example.com")
    (second,) = m.run("New-MailboxImportRequest", "bob@example.com", str(tmp_path / "out"))
    assert (second["Messages"], second["AlreadyPresent"]) == (0, first["Messages"])
    assert content(m, "bob@example.com") == before
    with (tmp_path / "out" / "Sent.mbox").open("ab") as file:
        mbox.write_message(file, b"Subject: new\r\n\r\n", b"", DATE)
        mbox.write_message(file, b"Subject: new\r\n\r\n", b"", DATE)  # twice there, twice here
    (third,) = m.run("New-MailboxImportRequest", "bob@example.com", str(tmp_path / "out"))
    assert third["Messages"] == 2
    (again,) = m.run("New-MailboxImportRequest", "bob@example.com", str(tmp_path / "out"), Again=True)
    assert again["Messages"] == first["Messages"] + 2
    (below,) = m.run("New-MailboxImportRequest", "bob@example.com", str(tmp_path / "out"), TargetRootFolder="Old")
    assert below["Messages"] == again["Messages"]
    folders = content(m, "bob@example.com")
    assert len(folders["Old/Sent"]) == len(folders["Sent"]) // 2 and folders["Old"]


def test_only_some_folders(m: Management, tmp_path: Path) -> None:
    fill(m)
    m.mailbox("bob@example.com")
    m.run("New-MailboxExportRequest", "alice", str(tmp_path / "out"), IncludeFolders="Work/*,Empty")
    names = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.mbox"))
    assert names == ["Empty.mbox", "Work/2024.q1.mbox", "Work/2024.q1/Übung & mehr.mbox"]
    m.run("New-MailboxImportRequest", "bob@example.com", str(tmp_path / "out"), IncludeFolders="Empty")
    assert "Work" not in content(m, "bob@example.com")


def test_folder_names_never_become_paths(tmp_path: Path) -> None:
    for form in ("Mbox", "Maildir"):
        out = files.Export(tmp_path / form, form)
        out.begin()
        for name in ("../../x", "..", ".", "a/../b", "x\\y", "c:d", ".hidden", "sub.sbd/x.mbox", "%2E%2E"):
            out.folder(name)
        out.finish()
        assert {p.name for p in tmp_path.iterdir()} <= {"Mbox", "Maildir"}  # nothing beside it
        source = files.Source(tmp_path / form, [], False)
        assert {"../../x", "..", "a/../b", "x\\y", ".hidden", "sub.sbd/x.mbox", "%2E%2E"} <= set(source.folders)


def test_an_export_that_was_killed_is_done_anew(m: Management, tmp_path: Path) -> None:
    fill(m)
    partial = tmp_path / "out.partial"
    partial.mkdir()
    with pytest.raises(Malformed, match=r"out.partial' is in the way"):
        m.run("New-MailboxExportRequest", "alice", str(tmp_path / "out"))
    (partial / files.EXPORT_MARK).touch()
    (partial / "INBOX.mbox").write_text("half")
    m.run("New-MailboxExportRequest", "alice", str(tmp_path / "out"))
    assert not partial.exists() and (tmp_path / "out" / "INBOX.mbox").read_bytes()[:5] == b"From "


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("relative/x", "must be an absolute path"),
        ("{tmp}/../x", "without .. and"),
        ("{tmp}/a\x1bb", "control characters"),
        ("{tmp}/none/x", "must be a directory that exists"),
        ("{tmp}", "exists; name a directory"),
        ("{tmp}/data/x", "is inside the data directory"),
        ("", "a path has 1 to 4000 bytes"),
        ("{tmp}/" + "x" * 5000, "a path has 1 to 4000 bytes"),
    ],
)
def test_where_nothing_can_be_exported_to(m: Management, tmp_path: Path, path: str, said: str) -> None:
    with pytest.raises(LetterlockError) as caught:
        m.run("New-MailboxExportRequest", "alice", path.replace("{tmp}", str(tmp_path)))
    assert "FilePath" in caught.value.text and said in caught.value.text
    assert m.run("Get-MailboxExportRequest") == []


def test_what_cannot_be_imported_is_said_and_changes_nothing(m: Management, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("Hello")
    for path, said in (("nowhere", "must be an absolute path"), (f"{tmp_path}/none", "that exists")):
        with pytest.raises(Malformed, match=said):
            m.run("New-MailboxImportRequest", "alice", path)
    with pytest.raises(Malformed, match="neither a Maildir nor one with mbox files"):
        m.run("New-MailboxImportRequest", "alice", str(tmp_path / "empty"))
    with pytest.raises(Malformed, match="this is no mbox file"):
        m.run("New-MailboxImportRequest", "alice", str(tmp_path / "text"))
    (failed,) = m.run("Get-MailboxImportRequest")
    assert failed["Status"] == "Failed" and "no mbox file" in failed["Message"]
    with pytest.raises(Malformed, match="either -FilePath, or -RemoteHostName"):
        m.run("New-MailboxImportRequest", "alice")
    with pytest.raises(Malformed, match="RemotePort: belongs to -RemoteHostName"):
        m.run("New-MailboxImportRequest", "alice", str(tmp_path / "text"), RemotePort=993)


def test_a_quota_ends_an_import_and_more_space_lets_it_go_on(m: Management, tmp_path: Path) -> None:
    with (tmp_path / "many.mbox").open("wb") as file:
        for number in range(1000):
            mbox.write_message(file, b"Subject: %d\r\n\r\n" % number + b"x" * 1000 + b"\r\n", b"", DATE)
    m.run("Set-Mailbox", "alice", ProhibitSendReceiveQuota="500KB")
    with pytest.raises(LetterlockError, match="The mailbox is full"):
        m.run("New-MailboxImportRequest", "alice", str(tmp_path / "many.mbox"))
    assert m.messages == ["WARNING: 400 messages were taken before this; the same command goes on from there"]
    m.run("Set-Mailbox", "alice", ProhibitSendReceiveQuota="unlimited")
    (row,) = m.run("New-MailboxImportRequest", "alice", str(tmp_path / "many.mbox"))
    assert (row["Messages"], row["AlreadyPresent"]) == (600, 400)
    assert len(set(content(m, "alice")["INBOX"])) == 1000


def test_requests_are_listed_and_removed(m: Management, tmp_path: Path) -> None:
    (tmp_path / "one.mbox").write_bytes(FOREIGN)
    m.run("New-MailboxImportRequest", "alice", str(tmp_path / "one.mbox"))
    m.run("New-MailboxExportRequest", "alice", str(tmp_path / "out"))
    (row,) = m.run("Get-MailboxImportRequest", Mailbox="ALICE@example.com")
    assert (row["Status"], row["PercentComplete"], row["Messages"], row["Folders"]) == ("Completed", 100, 2, 1)
    assert m.run("Get-MailboxExportRequest")[0]["Size"].octets > 100
    m.run("Remove-MailboxImportRequest", row["Identity"])
    assert m.run("Get-MailboxImportRequest") == []
    with pytest.raises(LetterlockError, match="there is no request 77; Get-MailboxImportRequest lists them"):
        m.run("Remove-MailboxImportRequest", 77)
    m.config.db.execute(
        "INSERT INTO transfer_request (kind, json) VALUES ('Import', ?)",
        ('{"kind": "Import", "mailbox": "a@b.c", "place": "/x", "process": 99999999}',),
    )
    assert m.run("Get-MailboxImportRequest")[0]["Status"] == "Interrupted"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_said(m: Management, tmp_path: Path) -> None:
    (tmp_path / "x.mbox").write_bytes(FOREIGN)
    (tmp_path / "x.mbox").chmod(0)
    with pytest.raises(LetterlockError, match="cannot be read: Permission denied"):
        m.run("New-MailboxImportRequest", "alice", str(tmp_path / "x.mbox"))
