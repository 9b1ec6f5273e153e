"""What every store engine promises (letterlock/store/api.py)."""

from __future__ import annotations

import datetime

import pytest

from letterlock.base.errors import Refused
from letterlock.store.api import (
    DELETED,
    FLAGGED,
    MAX_KEYWORDS,
    SEEN,
    All,
    And,
    Arrived,
    ArrivedWithin,
    Column,
    Compare,
    FlagAction,
    Flags,
    Folder,
    HasFlag,
    HasKeyword,
    Header,
    Larger,
    MailStore,
    ModifiedSince,
    Not,
    Or,
    SearchNode,
    Sent,
    Smaller,
    Text,
    Uids,
)
from tests.store.support import BOX, PLAIN, Engine, incoming, put, raw_of, rows

EVERYTHING = [(1, 0xFFFFFFFF)]


async def refused(awaitable: object, code: bytes) -> None:
    with pytest.raises(Refused) as caught:
        await awaitable  # type: ignore[misc]
    assert caught.value.code == code
    assert caught.value.text


def message(body: bytes, header: bytes = b"Subject: x\r\n") -> bytes:
    return header + b"\r\n" + body


# --- folders ---------------------------------------------------------------------------------------------------


async def test_a_new_mailbox_has_its_folders_subscribed(engine: Engine) -> None:
    mail = await engine.mailbox()
    folders = await mail.folders()
    assert [f.name for f in folders] == ["INBOX", "Archive", "Drafts", "Junk", "Sent", "Trash"]
    assert {f.special_use for f in folders} == {b"", b"\\Archive", b"\\Drafts", b"\\Junk", b"\\Sent", b"\\Trash"}
    assert all(f.subscribed and f.selectable for f in folders)
    assert len({f.uidvalidity for f in folders}) == 6
    assert await mail.subscriptions() == sorted(f.name for f in folders)


async def test_inbox_is_one_name_in_any_case(engine: Engine) -> None:
    mail = await engine.mailbox()
    assert (await mail.folder("inBOX")).name == "INBOX"
    assert (await mail.create("inbox/Lists")).name == "INBOX/Lists"
    assert (await mail.folder("Inbox/Lists")).name == "INBOX/Lists"
    await refused(mail.create("Inbox"), b"ALREADYEXISTS")
    await refused(mail.delete("iNBOX"), b"CANNOT")
    await refused(mail.folder("SENT"), b"NONEXISTENT")


async def test_create_makes_superiors(engine: Engine) -> None:
    mail = await engine.mailbox()
    await mail.create("a/b/c")
    assert {"a", "a/b", "a/b/c"} <= {f.name for f in await mail.folders()}
    assert (await mail.create("mine/", b"\\Flagged")).special_use == b"\\Flagged"
    await refused(mail.create("other", b"\\Flagged"), b"USEATTR")


@pytest.mark.parametrize(
    "name",
    ["", "/", "/a", "a//b", "a\0b", "a\nb", "a\x7fb", "a\x85b", "x" * 256, "ü" * 128, "/".join("a" * 33), "\ud800"],
)
async def test_impossible_names_are_refused(engine: Engine, name: str) -> None:
    mail = await engine.mailbox()
    await refused(mail.create(name), b"CANNOT")
    await mail.create("good")
    await refused(mail.rename("good", name), b"CANNOT")
    await refused(mail.folder(name), b"NONEXISTENT")
    await refused(mail.delete(name), b"NONEXISTENT")


@pytest.mark.parametrize("name", ["../../etc/passwd", "%", "_", "*", "'; DROP TABLE folder; --", "日本語", "&", "é"])
async def test_names_are_data(engine: Engine, name: str) -> None:
    mail = await engine.mailbox()
    assert (await mail.create(name)).name == name
    assert (await mail.folder(name)).name == name
    await mail.delete(name)
    assert len(await mail.folders()) == 6 + name.count("/")


async def test_a_recreated_folder_has_a_new_uidvalidity(engine: Engine) -> None:
    mail = await engine.mailbox()
    seen = set()
    for _ in range(5):
        folder = await mail.create("again")
        assert folder.uidvalidity not in seen
        seen.add(folder.uidvalidity)
        await put(mail, folder, PLAIN)
        await mail.delete("again")
    await mail.create("other")
    await mail.rename("other", "again")
    assert (await mail.folder("again")).uidvalidity not in seen


async def test_a_session_on_a_deleted_folder_is_told(engine: Engine) -> None:
    mail = await engine.mailbox()
    old = await mail.create("gone")
    await put(mail, old, PLAIN)
    await mail.view(old)
    await mail.delete("gone")
    await mail.create("gone")
    await refused(mail.view(old), b"NONEXISTENT")
    await refused(mail.changes_since(old, 1), b"NONEXISTENT")
    await refused(mail.change_flags(old, EVERYTHING, FlagAction.ADD, Flags(SEEN)), b"NONEXISTENT")
    await refused(mail.expunge(old, None), b"NONEXISTENT")
    await refused(mail.search(old, None, All()), b"NONEXISTENT")
    await refused(mail.append(old, [incoming(mail, PLAIN)]), b"TRYCREATE")
    await refused(mail.copy(await mail.folder("INBOX"), EVERYTHING, old), b"TRYCREATE")
    assert await rows(mail, old, EVERYTHING, Column.SIZE) == []


async def test_deleting_a_folder_with_inferiors_leaves_a_name(engine: Engine) -> None:
    mail = await engine.mailbox()
    await mail.create("a/b")
    await put(mail, await mail.folder("a"), PLAIN)
    before = (await mail.folder("a")).uidvalidity
    await mail.delete("a")
    assert [(f.name, f.selectable) for f in await mail.folders() if f.name[0] == "a"] == [("a", False), ("a/b", True)]
    await refused(mail.folder("a"), b"NONEXISTENT")
    await refused(mail.delete("a"), b"CANNOT")
    again = await mail.create("a")
    assert again.selectable
    assert again.uidvalidity != before
    assert len((await mail.view(again)).uids) == 0


async def test_rename_takes_inferiors_along_and_keeps_messages(engine: Engine) -> None:
    mail = await engine.mailbox()
    await mail.create("a/b/c")
    await mail.create("ab")
    await mail.create("a%")
    folder = await mail.folder("a/b")
    await put(mail, folder, PLAIN)
    await mail.rename("a", "x/y")
    names = {f.name for f in await mail.folders()}
    assert {"x", "x/y", "x/y/b", "x/y/b/c", "ab", "a%"} <= names
    assert not names & {"a", "a/b", "a/b/c"}
    moved = await mail.folder("x/y/b")
    assert moved.uidvalidity == folder.uidvalidity
    assert await raw_of(mail, moved, 1) == PLAIN
    assert (await mail.view(folder)).folder.name == "x/y/b"
    await refused(mail.rename("x", "x/y/b/z"), b"CANNOT")
    await refused(mail.rename("x", "ab"), b"ALREADYEXISTS")
    await refused(mail.rename("none", "new"), b"NONEXISTENT")
    assert {f.name for f in await mail.folders()} == names


async def test_rename_too_deep_changes_nothing(engine: Engine) -> None:
    mail = await engine.mailbox()
    await mail.create("a/" + "/".join("b" * 30))
    names = [f.name for f in await mail.folders()]
    await refused(mail.rename("a", "x/y/z/a"), b"CANNOT")
    assert [f.name for f in await mail.folders()] == names


async def test_renaming_inbox_moves_its_messages(engine: Engine) -> None:
    mail = await engine.mailbox()
    inbox = await mail.folder("INBOX")
    await put(mail, inbox, PLAIN, PLAIN + b"2", flags=Flags(SEEN, (b"$Kw",)))
    await mail.create("INBOX/sub")
    await mail.rename("INBOX", "old/mail")
    old = await mail.folder("old/mail")
    assert await raw_of(mail, old, 2) == PLAIN + b"2"
    assert (await mail.view(old)).flagsets == [b"\\Seen $Kw"]
    assert len((await mail.view(inbox)).uids) == 0
    assert await put(mail, inbox, PLAIN) == [3]
    assert (await mail.folder("INBOX/sub")).name == "INBOX/sub"


async def test_subscriptions_need_no_folder(engine: Engine) -> None:
    mail = await engine.mailbox()
    await mail.subscribe("nowhere/yet", True)
    await mail.subscribe("Sent", False)
    assert "nowhere/yet" in await mail.subscriptions()
    assert "Sent" not in await engine.again().subscriptions()
    assert not (await mail.folder("Sent")).subscribed
    await mail.delete("Trash")
    assert "Trash" in await mail.subscriptions()
    await mail.subscribe("never", False)


# --- messages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        PLAIN,
        b"",
        b"\r\n",
        b"\n",
        b"no header at all",
        b"Subject: only",
        b"A: b\n\nbare\nlines\n",
        b"A: b\r\n\r\nnul \0 and \xff\xfe bytes",
        b"X: " + b"y" * 100_000 + b"\r\n\r\nlong header",
        bytes(range(256)) * 2000,
        b"A: b\r\n\r\n" + b"x" * 3_000_000,
        b"X: " + b"y" * 1_000_000 + b"\r\n\r\n" + b"both large" * 50_000,
    ],
    ids=range(12),
)
async def test_comes_back_byte_for_byte(engine: Engine, raw: bytes) -> None:
    mail = await engine.mailbox()
    inbox = await mail.folder("INBOX")
    [uid] = await put(mail, inbox, raw)
    assert await raw_of(mail, inbox, uid) == raw
    again = engine.again()
    assert await raw_of(again, inbox, uid) == raw
    [row] = await rows(again, inbox, EVERYTHING, Column.TEXT, Column.SIZE, Column.HEADER, Column.FLAGS)
    assert (row[3] + row[1], row[2], row[4]) == (raw, len(raw), b"")  # type: ignore[operator]


async def test_append_gives_dates_and_flags_in_wire_form(engine: Engine) -> None:
    mail = await engine.mailbox()
    inbox = await mail.folder("INBOX")
    zone = datetime.timezone(-datetime.timedelta(hours=3, minutes=30))
    when = datetime.datetime(2024, 2, 3, 4, 5, 6, tzinfo=zone)
    flags = Flags(SEEN | FLAGGED, (b"b", b"$A"))
    done = await mail.append(inbox, [incoming(mail, PLAIN, flags, internaldate=when)])
    assert done == (inbox.uidvalidity, [1])
    columns = (Column.INTERNALDATE, Column.FLAGS, Column.MODSEQ, Column.CRLF_SIZE)
    [row] = await rows(mail, inbox, EVERYTHING, *columns)
    view = await mail.view(inbox)
    assert row == (1, b'" 3-Feb-2024 04:05:06 -0330"', b"\\Flagged \\Seen $A b", view.highestmodseq, len(PLAIN))
    assert view.keywords == (b"b", b"$A")


async def test_append_of_several_is_all_or_none(engine: Engine) -> None:
    mail = await engine.mailbox()
    inbox = await mail.folder("INBOX")
    assert await put(mail, inbox, PLAIN, PLAIN + b"2", PLAIN + b"3") == [1, 2, 3]
    many = tuple(b"k%d" % n for n in range(MAX_KEYWORDS + 1))
    await refused(mail.append(inbox, [incoming(mail, PLAIN), incoming(mail, PLAIN, Flags(0, many))]), b"LIMIT")
    assert list((await mail.view(inbox)).uids) == [1, 2, 3]
    assert (await mail.view(inbox)).keywords == ()


async def test_view_is_the_same_object_until_something_changes(engine: Engine) -> None:
    mail, other = await engine.mailbox(), engine.again()
    inbox = await mail.folder("INBOX")
    await put(mail, inbox, PLAIN, PLAIN)
    view = await mail.view(inbox)
    assert await mail.view(inbox) is view
    await other.change_flags(inbox, [(2, 2)], FlagAction.ADD, Flags(SEEN))
    await put(other, inbox, PLAIN)
    fresh = await mail.view(inbox)
    assert list(view.uids) == [1, 2]
    assert list(view.flags) == [0, 0]
    assert list(fresh.uids) == [1, 2, 3]
    assert [fresh.flagsets[k] for k in fresh.flags] == [b"", b"\\Seen", b""]
    assert fresh.uidnext == 4
    assert fresh.highestmodseq == max(fresh.modseqs)
    await other.expunge(inbox, [(1, 1)], deleted_only=False)
    assert list((await mail.view(inbox)).uids) == [2, 3]


async def test_views_renewed_equal_views_loaded(engine: Engine) -> None:
    mail, other = await engine.mailbox(), engine.again()
    inbox = await mail.folder("INBOX")
    await put(mail, inbox, *[message(b"%d" % n) for n in range(300)])
    await mail.view(inbox)
    steps = [
        lambda: other.change_flags(inbox, [(5, 200)], FlagAction.ADD, Flags(DELETED, (b"$x",))),
        lambda: other.change_flags(inbox, [(3, 9), (50, 60)], FlagAction.SET, Flags(SEEN)),
        lambda: other.expunge(inbox, [(10, 20)]),
        lambda: other.expunge(inbox, None),
        lambda: put(other, inbox, PLAIN, PLAIN),
        lambda: other.move(inbox, [(301, 301)], inbox),
        lambda: other.copy(inbox, [(1, 5)], inbox),
        lambda: other.claim_recent(inbox),
    ]
    for step in steps:
        await step()
        got, loaded = await mail.view(inbox), await engine.again().view(inbox)
        assert got.uids == loaded.uids
        assert got.modseqs == loaded.modseqs
        assert [got.flagsets[k] for k in got.flags] == [loaded.flagsets[k] for k in loaded.flags]
        assert (got.uidnext, got.highestmodseq, got.recent) == (loaded.uidnext, loaded.highestmodseq, loaded.recent)
        assert got.keywords == loaded.keywords


async def test_recent_is_claimed_once(engine: Engine) -> None:
    mail, other = await engine.mailbox(), engine.again()
    inbox = await mail.folder("INBOX")
    await put(mail, inbox, PLAIN, PLAIN)
    assert (await mail.status([inbox]))[0].recent == 2
    assert await mail.claim_recent(inbox) == 1
    assert await other.claim_recent(inbox) == 3
    await put(other, inbox, PLAIN)
    assert (await mail.status([inbox]))[0].recent == 1
    assert (await mail.view(inbox)).recent == 3
    assert await mail.claim_recent(inbox) == 3


async def test_status_counts(engine: Engine) -> None:
    mail = await engine.mailbox()
    inbox, sent = await mail.folder("INBOX"), await mail.folder("Sent")
    await put(mail, inbox, PLAIN, PLAIN)
    await put(mail, inbox, PLAIN, flags=Flags(SEEN | DELETED))
    got, empty = await mail.status([inbox, sent])
    assert (got.messages, got.unseen, got.deleted, got.size) == (3, 2, 1, 3 * len(PLAIN))
    assert (got.uidnext, got.uidvalidity) == (4, inbox.uidvalidity)
    assert (empty.messages, empty.size, empty.recent, empty.uidnext) == (0, 0, 0, 1)
    await mail.change_flags(inbox, [(1, 1)], FlagAction.ADD, Flags(SEEN))
    assert (await mail.status([inbox]))[0].unseen == 1


async def test_changes_since_tells_all_and_only_what_happened(engine: Engine) -> None:
    mail = await engine.mailbox()
    inbox = await mail.folder("INBOX")
    await put(mail, inbox, PLAIN, PLAIN, PLAIN)
    start = (await mail.view(inbox)).highestmodseq
    assert (await mail.changes_since(inbox, start)).changed == []
    await mail.change_flags(inbox, [(2, 2)], FlagAction.ADD, Flags(SEEN))
    await mail.expunge(inbox, [(1, 1)], deleted_only=False)
    await put(mail, inbox, PLAIN)
    changes = await mail.changes_since(inbox, start)
    assert [(c.uid, c.flags) for c in changes.changed] == [(2, b"\\Seen"), (4, b"")]
    assert changes.vanished == [1]
    assert changes.uidnext == 5
    assert start < changes.changed[0].modseq < changes.changed[1].modseq <= changes.highestmodseq
    assert (await mail.changes_since(inbox, changes.highestmodseq)).changed == []


async def test_fetch_reads_ranges_in_batches(engine: Engine) -> None:
    mail = await engine.mailbox()
    inbox = await mail.folder("INBOX")
    await put(mail, inbox, *[message(b"%d" % n) for n in range(1200)])
    await mail.expunge(inbox, [(100, 199)], deleted_only=False)
    batches = [batch async for batch in mail.fetch(inbox, EVERYTHING, (Column.SIZE,))]
    assert max(map(len, batches)) <= 500
    assert [row[0] for batch in batches for row in batch] == [*range(1, 100), *range(200, 1201)]
    some = [(1, 1), (2, 2), (98, 201), (700, 700), (1200, 4000)]
    assert [row[0] for row in await rows(mail, inbox, some, Column.FLAGS)] == [1, 2, 98, 99, 200, 201, 700, 1200]
    assert await rows(mail, inbox, [], Column.SIZE) == []
    assert len(await rows(mail, inbox, EVERYTHING)) == 1100


async def test_fetch_of_bodies_is_bounded_and_survives_expunge_between_batches(engine: Engine) -> None:
    mail = await engine.mailbox()
    inbox = await mail.folder("INBOX")
    raws = [message(bytes([65 + n]) * size) for n, size in enumerate([200_000] * 12 + [700_000, 10, 900_000, 20])]
    await put(mail, inbox, *raws)
    got = []
    async for batch in mail.fetch(inbox, EVERYTHING, (Column.FLAGS, Column.HEADER, Column.TEXT)):
        assert sum(len(row[3]) for row in batch[:-1]) <= 1 << 20  # type: ignore[arg-type]
        if not got:
            await mail.expunge(inbox, [(15, 15)], deleted_only=False)
        got += [(row[0], row[2] + row[3]) for row in batch]  # type: ignore[operator]
    assert got == [(n + 1, raw) for n, raw in enumerate(raws) if n != 14]


async def test_flags_are_set_added_and_removed(engine: Engine) -> None:
    mail = await engine.mailbox()
    inbox = await mail.folder("INBOX")
    await put(mail, inbox, PLAIN, PLAIN, PLAIN)

    async def change(action: FlagAction, flags: Flags) -> list[tuple[int, bytes]]:
        done = await mail.change_flags(inbox, [(1, 2)], action, flags)
        for c in done.changed:
            assert c.modseq == (await mail.view(inbox)).highestmodseq
        return [(c.uid, c.flags) for c in done.changed]

    assert await change(FlagAction.ADD, Flags(SEEN, (b"$Todo",))) == [(1, b"\\Seen $Todo"), (2, b"\\Seen $Todo")]
    assert await change(FlagAction.ADD, Flags(SEEN, (b"$TODO",))) == []  # first spelling wins, nothing new
    assert await change(FlagAction.ADD, Flags(0, (b"alpha", b"$todo"))) == [(n, b"\\Seen $Todo alpha") for n in (1, 2)]
    assert await change(FlagAction.REMOVE, Flags(FLAGGED, (b"$tODO", b"unknown"))) == [
        (n, b"\\Seen alpha") for n in (1, 2)
    ]
    assert await change(FlagAction.SET, Flags(FLAGGED)) == [(1, b"\\Flagged"), (2, b"\\Flagged")]
    assert await change(FlagAction.SET, Flags()) == [(1, b""), (2, b"")]
    assert (await mail.view(inbox)).keywords == (b"$Todo", b"alpha")
    assert (await mail.change_flags(inbox, [(9, 10)], FlagAction.ADD, Flags(SEEN))).changed == []


async def test_bulk_change_of_mixed_flags(engine: Engine) -> None:
    mail = await engine.mailbox()
    inbox = await mail.folder("INBOX")
    await put(mail, inbox, *[PLAIN] * 200)
    for n in range(1, 201):
        if n % 3:
            await mail.change_flags(inbox, [(n, n)], FlagAction.ADD, Flags(n % 32, (b"k%d" % (n % 5),)))
    before = {row[0]: row[1] for row in await rows(mail, inbox, EVERYTHING, Column.FLAGS)}
    done = await mail.change_flags(inbox, EVERYTHING, FlagAction.ADD, Flags(SEEN, (b"k0",)))
    after = {row[0]: row[1] for row in await rows(mail, inbox, EVERYTHING, Column.FLAGS)}
    assert {c.uid: c.flags for c in done.changed} == {u: after[u] for u in after if after[u] != before[u]}
    for uid, flags in after.items():
        old = set(before[uid].split())  # type: ignore[attr-defined]
        assert set(flags.split()) == old | {b"\\Seen", b"k0"}  # type: ignore[attr-defined]


async def test_unchanged_since_protects_newer_changes(engine: Engine) -> None:
    mail = await engine.mailbox()
    inbox = await mail.folder("INBOX")
    await put(mail, inbox, PLAIN, PLAIN, PLAIN)
    known = (await mail.view(inbox)).highestmodseq
    await mail.change_flags(inbox, [(2, 2)], FlagAction.ADD, Flags(FLAGGED))
    done = await mail.change_flags(inbox, [(1, 3)], FlagAction.ADD, Flags(SEEN), unchanged_since=known)
    assert [c.uid for c in done.changed] == [1, 3]
    assert done.modified == [2]
    assert (await rows(mail, inbox, [(2, 2)], Column.FLAGS)) == [(2, b"\\Flagged")]
    again = await mail.change_flags(inbox, [(1, 3)], FlagAction.ADD, Flags(SEEN), unchanged_since=0)
    assert again == ([], [1, 2, 3])


async def test_keywords_are_limited(engine: Engine) -> None:
    mail = await engine.mailbox()
    inbox, sent = await mail.folder("INBOX"), await mail.folder("Sent")
    await put(mail, inbox, PLAIN)
    names = tuple(b"k%03d" % n for n in range(MAX_KEYWORDS))
    await mail.change_flags(inbox, [(1, 1)], FlagAction.ADD, Flags(0, names))
    await refused(mail.change_flags(inbox, [(1, 1)], FlagAction.ADD, Flags(0, (b"one-more",))), b"LIMIT")
    assert (await mail.view(inbox)).keywords == names
    await mail.change_flags(inbox, [(1, 1)], FlagAction.REMOVE, Flags(0, (b"one-more",)))
    await put(mail, sent, PLAIN, flags=Flags(SEEN, (b"extra", b"K001")))
    await mail.copy(sent, [(1, 1)], inbox)  # the message matters more than its keywords
    assert (await rows(mail, inbox, [(2, 2)], Column.FLAGS)) == [(2, b"\\Seen k001")]


async def test_copy_shares_and_keeps_flags_and_date(engine: Engine) -> None:
    mail = await engine.mailbox()
    inbox, sent = await mail.folder("INBOX"), await mail.folder("Sent")
    when = datetime.datetime(2020, 12, 24, 18, 0, tzinfo=datetime.UTC)
    big = message(b"z" * 400_000)
    await mail.append(inbox, [incoming(mail, big, Flags(SEEN, (b"$Kw",)), internaldate=when)])
    await put(mail, inbox, PLAIN)
    await put(mail, sent, PLAIN)
    assert await mail.copy(inbox, [(1, 2)], sent) == (sent.uidvalidity, [1, 2], [2, 3])
    [row] = await rows(mail, sent, [(2, 2)], Column.FLAGS, Column.INTERNALDATE)
    assert row == (2, b"\\Seen $Kw", b'"24-Dec-2020 18:00:00 +0000"')
    await mail.expunge(inbox, None, deleted_only=False)
    assert await raw_of(mail, sent, 2) == big
    assert await raw_of(mail, sent, 3) == PLAIN
    assert await mail.copy(inbox, EVERYTHING, sent) == (sent.uidvalidity, [], [])
    assert await mail.copy(sent, [(1, 1), (3, 9)], sent) == (sent.uidvalidity, [1, 3], [4, 5])


async def test_move_is_copy_and_expunge_in_one(engine: Engine) -> None:
    mail = await engine.mailbox()
    inbox, sent = await mail.folder("INBOX"), await mail.folder("Sent")
    await put(mail, inbox, PLAIN, PLAIN + b"2", PLAIN + b"3")
    start = (await mail.view(inbox)).highestmodseq
    assert await mail.move(inbox, [(1, 1), (3, 3)], sent) == (sent.uidvalidity, [1, 3], [1, 2])
    assert list((await mail.view(inbox)).uids) == [2]
    assert (await mail.changes_since(inbox, start)).vanished == [1, 3]
    assert await raw_of(mail, sent, 2) == PLAIN + b"3"
    assert await mail.move(inbox, [(2, 2)], inbox) == (inbox.uidvalidity, [2], [4])
    assert await raw_of(mail, inbox, 4) == PLAIN + b"2"


async def test_expunge_takes_deleted_ones_in_ranges(engine: Engine) -> None:
    mail = await engine.mailbox()
    inbox = await mail.folder("INBOX")
    await put(mail, inbox, PLAIN, PLAIN, PLAIN, PLAIN, flags=Flags(DELETED))
    await put(mail, inbox, PLAIN)
    assert await mail.expunge(inbox, [(2, 3), (5, 5)]) == [2, 3]
    assert await mail.expunge(inbox, None) == [1, 4]
    assert await mail.expunge(inbox, None) == []
    assert await mail.expunge(inbox, [(5, 5)], deleted_only=False) == [5]
    assert await put(mail, inbox, PLAIN) == [6]
    assert (await mail.changes_since(inbox, 0)).vanished == [1, 2, 3, 4, 5]


async def test_hints_follow_commits(engine: Engine) -> None:
    mail = await engine.mailbox()
    inbox = await mail.folder("INBOX")
    engine.hints.clear()
    await put(mail, inbox, PLAIN)
    await mail.change_flags(inbox, [(1, 1)], FlagAction.ADD, Flags(SEEN))
    await mail.change_flags(inbox, [(1, 1)], FlagAction.ADD, Flags(SEEN))  # changes nothing: no hint
    first, second = engine.hints
    assert first[0] == second[0] == BOX
    assert first[1] < second[1] == (await mail.view(inbox)).highestmodseq


async def test_spools_are_limited_and_can_be_thrown_away(engine: Engine) -> None:
    store = engine.open(largest_message=1000)
    await store.create_mailbox(BOX)
    mail = store.mailbox(BOX)
    with pytest.raises(Refused) as caught:
        mail.spool(1001)
    assert caught.value.code == b"TOOBIG"
    spool = mail.spool(10)
    spool.write(b"x" * 1000)
    assert spool.size == 1000
    with pytest.raises(Refused):
        spool.write(b"y")
    spool.close()
    spool.close()


async def test_mailboxes_are_apart_and_can_be_deleted(engine: Engine) -> None:
    mail = await engine.mailbox()
    other_id = "f" * 32
    store = engine.opened[0]
    await store.create_mailbox(other_id)
    await store.create_mailbox(other_id)  # harmless
    other = store.mailbox(other_id)
    await put(mail, await mail.folder("INBOX"), PLAIN)
    assert len((await other.view(await other.folder("INBOX"))).uids) == 0
    await store.delete_mailbox(other_id)
    await refused(other.folders(), b"UNAVAILABLE")
    await refused(store.delete_mailbox(other_id), b"NONEXISTENT")
    assert len((await mail.view(await mail.folder("INBOX"))).uids) == 1
    for wrong in ("", "../" + BOX, BOX.upper(), BOX + "0", BOX[:-1] + "/", BOX + "\n"):
        with pytest.raises(Refused):
            store.mailbox(wrong)


# --- search ----------------------------------------------------------------------------------------------------

MESSAGES = (
    PLAIN,
    (
        "From: Jörg <joerg@demo.test>\r\nTo: alice@demo.test\r\nCc: carol@demo.test\r\nSubject: Straße\r\n"
        "Date: Fri, 2 Feb 2024 00:10:00 +0900\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße aus KÖLN\r\n"
    ).encode(),
    (
        b"From: =?utf-8?q?J=C3=B6rg?= <joerg@demo.test>\r\nSubject: =?utf-8?b?w4RyZ2Vy?=\r\n"
        b"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        b"4nRyZSBjb25maWRlbnRpYWw=\r\n"  # "âtre confidential"
    ),
    b'X-Empty:\r\nSubject: quoted "AND" 100_5\r\n\r\nbody* OR NEAR( ^"x" - \xe4\xb8\xad\xe6\x96\x87\r\n',
)


async def searched(mail: MailStore, folder: Folder, tree: SearchNode) -> list[int]:
    return list(await mail.search(folder, None, tree))


async def filled(engine: Engine) -> tuple[MailStore, Folder]:
    mail = await engine.mailbox()
    inbox = await mail.folder("INBOX")
    zone = datetime.timezone(datetime.timedelta(hours=14))
    for n, raw in enumerate(MESSAGES):
        when = datetime.datetime(2024, 2, n + 1, 0, 30, tzinfo=zone)
        await mail.append(inbox, [incoming(mail, raw, Flags(1 << n, (b"$K%d" % n,)), internaldate=when)])
    return mail, inbox


DAY = datetime.date(2024, 2, 2)


@pytest.mark.parametrize(
    ("tree", "found"),
    [
        (All(), [1, 2, 3, 4]),
        (And(()), [1, 2, 3, 4]),
        (Not(All()), []),
        (HasFlag(FLAGGED), [2]),
        (Not(HasFlag(FLAGGED)), [1, 3, 4]),
        (HasKeyword(b"$k2"), [3]),
        (HasKeyword(b"$k"), []),
        (Or(HasFlag(SEEN), HasKeyword(b"$K0")), [1, 4]),
        (Uids(((2, 3), (9, 9))), [2, 3]),
        (Uids(()), []),
        (Arrived(Compare.ON, DAY), [2]),  # in its own zone, whatever ours is
        (Arrived(Compare.BEFORE, DAY), [1]),
        (Arrived(Compare.SINCE, DAY), [2, 3, 4]),
        (Sent(Compare.ON, datetime.date(2024, 2, 1)), [1]),
        (Sent(Compare.SINCE, DAY), [2]),
        (Sent(Compare.BEFORE, DAY), [1]),
        (ArrivedWithin(True, datetime.datetime(2024, 2, 2, tzinfo=datetime.UTC).timestamp()), [3, 4]),
        (ArrivedWithin(False, datetime.datetime(2024, 2, 2, tzinfo=datetime.UTC).timestamp()), [1, 2]),
        (Larger(len(MESSAGES[0]) - 1), [1, 2] if len(MESSAGES[1]) >= len(MESSAGES[0]) else [1]),
        (Smaller(len(MESSAGES[3]) + 1), [4]),
        (Larger(1 << 80), []),
        (Header("from", "jörg"), [2, 3]),
        (Header("from", "JÖRG"), [2, 3]),
        (Header("subject", "STRASSE"), [2]),
        (Header("subject", "ärger"), [3]),
        (Header("subject", "0_5"), [4]),
        (Header("subject", "%"), []),
        (Header("to", "bob@"), [1]),
        (Header("cc", ""), [2]),
        (Header("cc", "carol"), [2]),
        (Header("bcc", ""), []),
        (Header("x-mood", "SUN"), [1]),
        (Header("x-mood", "rain"), []),
        (Header("x-empty", ""), [4]),
        (Header("x-empty", "a"), []),
        (Header("message-id", "<ONE@"), [1]),
        (Text("QUICK brown", False), [1]),
        (Text("kick", False), []),
        (Text("100%", False), [1]),
        (Text("%", False), [1]),
        (Text("_", False), [1]),
        (Text("grüße AUS köln", False), [2]),
        (Text("GRÜSSE", False), [2]),
        (Text("ÂTRE conf", False), [3]),
        (Text("Y29uZ", False), []),  # not the encoded form
        (Text("中文", False), [4]),
        (Text("中", False), [4]),
        (Text('body* OR NEAR( ^"x" -', False), [4]),
        (Text('"', False), [4]),
        (Text("report", False), []),
        (Text("report", True), [1]),
        (Text("joerg@demo", True), [2, 3]),
        (Text("", False), [1, 2, 3, 4]),
        (Not(Text("fox", False)), [2, 3, 4]),
        (Or(Text("fox", False), Header("from", "jörg")), [1, 2, 3]),
        (And((Text("o", False), Not(HasFlag(FLAGGED)), Header("subject", "r"))), [1, 3]),
        (And((HasFlag(FLAGGED), Text("fox", False))), []),
        (Not(And((Text("fox", False), HasFlag(FLAGGED)))), [1, 2, 3, 4]),
    ],
    ids=str,
)
async def test_search(engine: Engine, tree: SearchNode, found: list[int]) -> None:
    mail, inbox = await filled(engine)
    assert await searched(mail, inbox, tree) == found
    assert await searched(mail, inbox, tree) == found  # from what the first one left
    among = [uid for uid in found if uid in (1, 3)]
    assert list(await mail.search(inbox, [(1, 1), (3, 3)], tree)) == among


async def test_search_sees_new_messages_and_forgets_old_ones(engine: Engine) -> None:
    mail, inbox = await filled(engine)
    sent = await mail.folder("Sent")
    assert await searched(mail, inbox, Text("fox", False)) == [1]
    await put(mail, inbox, message(b"another FOX"), message(b"x" * 5_000_000 + b" a large fox"))
    assert await searched(mail, inbox, Text("fox", False)) == [1, 5, 6]
    assert await searched(mail, inbox, Text("fox", True)) == [1, 5, 6]
    await mail.copy(inbox, [(5, 5)], sent)
    await mail.expunge(inbox, [(1, 5)], deleted_only=False)
    assert await searched(mail, inbox, Text("fox", False)) == [6]
    assert await searched(engine.again(), sent, Text("fox", False)) == [1]


async def test_search_by_modseq(engine: Engine) -> None:
    mail, inbox = await filled(engine)
    done = await mail.change_flags(inbox, [(2, 2)], FlagAction.ADD, Flags(SEEN))
    assert await searched(mail, inbox, ModifiedSince(done.changed[0].modseq)) == [2]
    assert await searched(mail, inbox, ModifiedSince(done.changed[0].modseq + 1)) == []
    assert await searched(mail, inbox, ModifiedSince(1 << 70)) == []


async def test_hostile_trees(engine: Engine) -> None:
    mail, inbox = await filled(engine)
    deep: SearchNode = All()
    for _ in range(5000):
        deep = Not(deep)
    await refused(mail.search(inbox, None, deep), b"LIMIT")
    wide = And(tuple(Not(HasFlag(FLAGGED)) for _ in range(3000)))
    assert await searched(mail, inbox, wide) == [1, 3, 4]
    scattered = Uids(tuple((n, n) for n in range(1, 20_000, 2)))
    assert await searched(mail, inbox, scattered) == [1, 3]
    assert await searched(mail, inbox, Text("no such " * 2000, True)) == []
    assert await searched(mail, inbox, Header("x-\udcff.*", "")) == []
