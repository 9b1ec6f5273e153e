"""Messages in another body format: what is read from them by Python's own email package, and what hostile mail does."""

from __future__ import annotations

import email
import email.policy
import time
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from letterlock.base.values import MimeFormat
from letterlock.mail import markup
from letterlock.mail.presentation import Presentation, present
from letterlock.mail.structure import describe
from tests import messages

CONVERTING = [f for f in MimeFormat if f not in (MimeFormat.BestBodyFormat, MimeFormat.Tnef)]
PNG = b"\x89PNG\r\n\x1a\n\x00"
INVITATION = b"""BEGIN:VCALENDAR\r
METHOD:REQUEST\r
BEGIN:VEVENT\r
UID:040000008200E00074C5B7@contoso.com\r
SUMMARY:Budget\\, second round\r
LOCATION:Room 7\r
ORGANIZER:mailto:carol@contoso.com\r
DTSTART;TZID=Europe/Berlin:20260302T100000\r
DTEND;TZID=Europe/Berlin:20260302T110000\r
END:VEVENT\r
END:VCALENDAR\r
"""


def made(raw: bytes, form: MimeFormat = MimeFormat.BestBodyFormat, **more: object) -> bytes:
    return present(raw, Presentation(form, **more))  # type: ignore[arg-type]


def read(raw: bytes) -> EmailMessage:
    found = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    return found


def kinds(raw: bytes) -> list[str]:
    return [part.get_content_type() for part in read(raw).walk()]


def body(raw: bytes, kind: str) -> str:
    found = [p for p in read(raw).walk() if p.get_content_type() == kind and not p.is_attachment()]
    return str(found[0].get_content()).replace("\r\n", "\n")


def newsletter() -> bytes:
    """Text, HTML with an image inside, and a file, as mail programs write them."""
    message = EmailMessage(policy=email.policy.SMTP)
    message["From"], message["Subject"] = "Carol <carol@contoso.com>", "Größe"
    message["X-Custom"] = "kept  as it is"
    message.set_content("Grüße, 5 < 6\n\n-- \nCarol\n")
    message.add_alternative('<p>Grüße, <b>5 &lt; 6</b></p><img src="cid:one">', subtype="html")
    message.get_payload()[1].add_related(PNG, "image", "png", cid="<one>", filename="one.png")  # type: ignore[index,union-attr]
    message.add_attachment(b"%PDF-1.7\r\n\x00", maintype="application", subtype="pdf", filename="a.pdf")
    message.add_attachment("a,b\n", subtype="csv", filename="a.csv")
    return message.as_bytes()


def html_only(source: str = "<p>Hello <a href='https://contoso.com/x?a=1&amp;b=2'>there</a> &amp; bye</p>") -> bytes:
    return f"Subject: h\r\nContent-Type: text/html; charset=utf-8\r\n\r\n{source}\r\n".encode()


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (MimeFormat.TextOnly, ["multipart/mixed", "multipart/mixed", "text/plain", "image/png"]),
        (MimeFormat.HtmlOnly, ["multipart/mixed", "multipart/related", "text/html", "image/png"]),
        (MimeFormat.TextEnrichedOnly, ["multipart/mixed", "multipart/mixed", "text/enriched", "image/png"]),
        (
            MimeFormat.TextEnrichedAndTextAlternative,
            ["multipart/mixed", "multipart/mixed", "multipart/alternative", "text/plain", "text/enriched", "image/png"],
        ),
    ],
)
def test_the_senders_own_form_is_chosen_and_all_else_stays(form: MimeFormat, expected: list[str]) -> None:
    raw = newsletter()
    given = made(raw, form)
    assert kinds(given) == [*expected, "application/pdf", "text/csv"]
    old, new = read(raw), read(given)
    assert [(n, str(v)) for n, v in old.items() if not n.startswith("Content")] == [
        (n, str(v)) for n, v in new.items() if not n.startswith("Content")
    ]
    for kind in ("image/png", "application/pdf", "text/csv"):
        parts = [[p for p in m.walk() if p.get_content_type() == kind] for m in (old, new)]
        assert parts[0][0].as_bytes() == parts[1][0].as_bytes()
    for kind in {"text/plain", "text/html"} & set(expected):
        assert body(given, kind) == body(raw, kind)


def test_both_forms_there_is_the_message_itself() -> None:
    raw = newsletter()
    assert made(raw, MimeFormat.HtmlAndTextAlternative) is raw
    for form in (MimeFormat.BestBodyFormat, MimeFormat.Tnef):
        assert made(raw, form) is raw


def test_html_becomes_text_with_links_and_entities() -> None:
    given = made(html_only(), MimeFormat.TextOnly)
    assert kinds(given) == ["text/plain"]
    assert body(given, "text/plain") == "Hello there <https://contoso.com/x?a=1&b=2> & bye\n"
    table = "<table><tr><th>Item<th>Price<tr><td>Pen<td>2 &euro;</table><ul><li>one<li>two</ul>"
    text = body(made(html_only(table), MimeFormat.TextOnly), "text/plain")
    assert "Item  Price\nPen   2 €" in text and "* one\n" in text
    shown = "a<style>b{c:d}</style><script>e<f></script><!-- g --><p style='display:none'>h</p><p>&amp;lt; i"
    assert body(made(html_only(shown), MimeFormat.TextOnly), "text/plain") == "a\n\n&lt; i\n"


def test_text_becomes_html_that_shows_the_same() -> None:
    text = 'a < b & c\n  <script>alert(1)</script>\nsee https://contoso.com/?x="1".\n'
    raw = messages.crlf(f"Subject: t\n\n{text}".encode())
    given = made(raw, MimeFormat.HtmlOnly)
    assert kinds(given) == ["text/html"]
    source = body(given, "text/html")
    assert "<script" not in source and "&lt;script&gt;" in source and 'href="https://contoso.com/?x="' in source
    again = body(made(given, MimeFormat.TextOnly), "text/plain")
    assert again.rstrip("\n") == text.rstrip("\n")
    both = made(raw, MimeFormat.HtmlAndTextAlternative)
    assert kinds(both) == ["multipart/alternative", "text/plain", "text/html"]
    assert body(both, "text/plain") == text


def test_flowed_text_is_unfolded_for_html() -> None:
    raw = messages.crlf(
        b"Content-Type: text/plain; format=flowed; delsp=no\n\none \nline\n> quoted \n> line\n-- \nme\n"
    )
    source = body(made(raw, MimeFormat.HtmlOnly), "text/html")
    assert "\none line\n&gt; quoted line\n-- \nme\n" in source


@pytest.mark.parametrize(
    ("declared", "octets"),
    [
        ("; charset=iso-8859-15", "5 €".encode("iso-8859-15")),
        ("; charset=windows-1251", "Привет".encode("windows-1251")),
        ("; charset=iso-2022-jp", "会議".encode("iso-2022-jp")),
        ("", '<meta charset="koi8-r">Привет'.encode("koi8-r")),
        ("", '<meta charset="utf-16">Grüße'.encode()),
        ("; charset=no-such-set", "Grüße".encode()),
    ],
)
def test_character_sets(declared: str, octets: bytes) -> None:
    raw = f"Content-Type: text/html{declared}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n".encode() + octets
    text = body(made(raw, MimeFormat.TextOnly), "text/plain")
    assert text.strip() in ("5 €", "Привет", "会議", "Grüße")


def test_apple_mail_s_html_in_pieces_keeps_its_files() -> None:
    message = EmailMessage(policy=email.policy.SMTP)
    message.set_content("before\nafter\n")
    message.add_alternative("<p>before</p>", subtype="html")
    pieces = EmailMessage(policy=email.policy.SMTP)
    pieces.make_mixed()
    for source in ("<p>before</p>", "<p>after</p>"):
        part = EmailMessage(policy=email.policy.SMTP)
        part.set_content(source, subtype="html")
        pieces.attach(part)
    pieces.add_attachment(b"%PDF", maintype="application", subtype="pdf", filename="x.pdf")
    message.get_payload()[1] = pieces  # type: ignore[index]
    raw = message.as_bytes()
    assert kinds(made(raw, MimeFormat.TextOnly)) == ["multipart/mixed", "text/plain", "application/pdf"]
    html = made(raw, MimeFormat.HtmlOnly)
    assert kinds(html) == ["multipart/mixed", "text/html", "text/html", "application/pdf"]


def _signed() -> list[tuple[str, bytes]]:
    inner = b"Content-Type: text/html\r\n\r\n<p>signed</p>"
    wrapped = b"Content-Type: multipart/signed; protocol=p; boundary=s\r\n\r\n--s\r\n" + inner + b"\r\n--s\r\n"
    wrapped += b"Content-Type: application/pgp-signature\r\n\r\nxx\r\n--s--\r\n"
    in_list = b"Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\n" + wrapped + b"--m\r\n\r\nfooter\r\n--m--\r\n"
    return [
        ("signed", b"Subject: s\r\n" + wrapped),
        ("signed in a list message", b"Subject: s\r\n" + in_list),
        ("smime", b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\n\r\nMII=\r\n"),
        ("smime by name", b"Content-Type: application/octet-stream; name=smime.p7m\r\n\r\nMII=\r\n"),
        ("inline pgp", b"Content-Type: text/plain\r\n\r\n-----BEGIN PGP SIGNED MESSAGE-----\r\nx\r\n"),
        (
            "inline pgp in base64",
            b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n"
            b"LS0tLS1CRUdJTiBQR1AgTUVTU0FHRS0tLS0tCng=\r\n",
        ),
        (
            "inline pgp beside html",
            b"Content-Type: multipart/alternative; boundary=a\r\n\r\n--a\r\n\r\n-----BEGIN PGP SIGNED MESSAGE-----\r\n"
            b"--a\r\nContent-Type: text/html\r\n\r\n<b>x</b>\r\n--a--\r\n",
        ),
        (
            "encrypted",
            b"Content-Type: multipart/encrypted; boundary=e\r\n\r\n--e\r\nContent-Type: application/pgp-encrypted\r\n"
            b"\r\nVersion: 1\r\n--e\r\n\r\ntext\r\n--e--\r\n",
        ),
    ]


@pytest.mark.parametrize("form", CONVERTING)
@pytest.mark.parametrize(("name", "raw"), _signed(), ids=[n for n, _ in _signed()])
def test_signed_and_encrypted_messages_are_not_touched(name: str, raw: bytes, form: MimeFormat) -> None:
    assert made(raw, form) is raw


def test_forwarded_messages_are_attachments() -> None:
    raw = (
        b"Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\nContent-Type: text/html\r\n\r\n<b>see</b>\r\n--m\r\n"
        b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Type: text/html\r\n\r\n<b>in</b>\r\n--m--\r\n"
    )
    given = made(raw, MimeFormat.TextOnly)
    assert kinds(given) == ["multipart/mixed", "text/plain", "message/rfc822", "text/html"]
    assert given.endswith(raw[raw.index(b"Content-Type: message/rfc822") :])


# --- text/enriched


def test_enriched_as_the_rfc_writes_it() -> None:
    assert markup.enriched_of_text("1 < 2\na\n\nb") == "1 << 2\n\na\n\n\nb"
    source = (
        "<bold>Now</bold> is the time for <italic>all</italic>\ngood men\n\n<fontfamily><param>Times</param>x"
        "</fontfamily> <<y>\n\n\n<nofill>a\nb</nofill>"
    )
    assert markup.text_of_enriched(source) == "Now is the time for all good men\nx <y>\n\na\nb"


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")) | st.just("\n")))
def test_enriched_both_ways(text: str) -> None:
    assert markup.text_of_enriched(markup.enriched_of_text(text)) == text


def test_enriched_mail_is_read() -> None:
    raw = b"Content-Type: text/enriched\r\n\r\n<bold>a</bold>\r\n\r\n<<b\r\n"
    assert body(made(raw, MimeFormat.TextOnly), "text/plain").strip() == "a\n<b"
    assert "a\n&lt;b" in body(made(raw, MimeFormat.HtmlOnly), "text/html")
    assert made(raw, MimeFormat.TextEnrichedOnly) is raw


# --- meetings


def meeting(method: str = "REQUEST") -> bytes:
    message = EmailMessage(policy=email.policy.SMTP)
    message["Subject"] = "Budget"
    message.set_content("You are invited.\n")
    message.add_alternative("<p>You are invited.</p>", subtype="html")
    message.add_alternative(
        INVITATION.decode().replace("REQUEST", method), subtype="calendar", params={"method": method}
    )
    message.add_attachment(INVITATION, maintype="application", subtype="ics", filename="invite.ics")
    return message.as_bytes()


def test_a_meeting_becomes_words_and_a_link() -> None:
    raw = meeting()
    given = made(raw, calendar_link="https://mail.contoso.com/owa/")
    assert kinds(given)[:5] == [
        "multipart/mixed",
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "text/html",
    ]
    assert kinds(given)[5:] == ["text/plain", "application/ics"]
    words = str([p for p in read(given).walk() if p.get_content_type() == "text/plain"][1].get_content())
    assert words.splitlines() == [
        "Meeting request: Budget, second round",
        "When: 2026-03-02 10:00 Europe/Berlin to 2026-03-02 11:00 Europe/Berlin",
        "Where: Room 7",
        "Organizer: carol@contoso.com",
        "",
        "https://mail.contoso.com/owa/?uid=040000008200E00074C5B7%40contoso.com",
    ]
    assert made(raw) is raw


def test_a_meeting_that_is_the_whole_message() -> None:
    raw = b"Subject: m\r\nContent-Type: text/calendar; method=CANCEL\r\n\r\n" + INVITATION.replace(
        b"REQUEST", b"CANCEL"
    )
    given = made(raw, calendar_link="https://x.example.com/cal?view=day")
    assert kinds(given) == ["text/plain"]
    assert "Meeting cancelled: Budget" in body(given, "text/plain")
    assert "https://x.example.com/cal?view=day&uid=0400" in body(given, "text/plain")
    assert "calendar" not in made(raw, MimeFormat.HtmlOnly, calendar_link="https://x.example.com/").decode()


@pytest.mark.parametrize(
    "bad", [b"", b"BEGIN:VCALENDAR", b"\xff\x00", b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n", b"x" * 300_000]
)
def test_calendars_that_cannot_be_read_stay(bad: bytes) -> None:
    raw = b"Content-Type: text/calendar\r\n\r\n" + bad
    assert made(raw, calendar_link="https://x.example.com/") is raw


# --- receipts


def test_receipt_requests_are_left_out_and_nothing_else() -> None:
    head = b"Subject: a\r\n%bX-Other: disposition-notification-to: no\r\n"
    asks = b"Disposition-Notification-To:\r\n carol@contoso.com\r\nRETURN-RECEIPT-TO : c@contoso.com\r\n"
    body_ = b"\r\nDisposition-Notification-To: in the body\r\n"
    assert made(head % asks + body_, no_receipts=True) == head % b"" + body_
    plain = head % b"" + body_
    assert made(plain, no_receipts=True) is plain
    signed = _signed()[0][1]
    assert made(asks + signed, no_receipts=True) == signed


# --- all of it

CORPUS = {
    **messages.WELL_FORMED,
    **messages.MALFORMED,
    **messages.cpython(),
    "newsletter": newsletter(),
    "meeting": meeting(),
}


@pytest.mark.parametrize("form", CONVERTING)
def test_every_message_is_given_soon_and_the_same_each_time(form: MimeFormat) -> None:
    how = Presentation(form, "https://mail.contoso.com/", True)
    for name, raw in CORPUS.items():
        begun = time.process_time()
        given = present(raw, how)
        assert time.process_time() - begun < 5, name
        assert present(raw, how) == given, name
        described = describe(raw)
        header = raw[: described.header_size]
        if given != raw:
            assert how.may_change(described.bodystructure, header), name
        wanted = {"subject", "from", "to", "date", "message-id"}
        fields = [
            [(n.lower(), str(v)) for n, v in email.message_from_bytes(m).items() if n.lower() in wanted]
            for m in (raw, given)
        ]
        assert fields[0] == fields[1], name


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("deep", "<div>" * 100_000 + "x"),
        ("attributes", "<p " + " ".join(f"a{i}='>'" for i in range(100_000)) + ">x"),
        ("data image", "<img src='data:image/png;base64," + "A" * 7_000_000 + "'>after"),
        ("padded table", "<table><tr><td>" + "x" * 100_000 + "<td>y" + "<tr><td>y<td>z" * 5_000),
        ("wide indents", "<p style='margin-left: 99999999em; padding-left: 9999999px'>x" * 1_000),
        ("nested tables", "<table><tr><td>x<td>y" * 5_000),
        ("inline pieces", "<b>hello</b>" * 9_000 + "y" * 400_000),
        ("cells", "<table><tr><td>" * 60 + "<td>x" * 60_000),
        (
            "a long thread",
            "<p class=MsoNormal><span style='font-family:\"Calibri\"'>Hello <o:p></o:p></span></p>" * 15_000,
        ),
        ("paragraph of pieces", "<b>hello</b>" * 60_000),
        ("open quotes", '<a "' * 1_500_000),
        ("open comments", "<!--" * 1_500_000),
        ("styles", "<style>" * 900_000),
        ("references", "&" * 500_000),
        ("hrefs", "<a " + " href" * 1_000_000 + ">x"),
        ("nul", "a\0b<p>\0"),
    ],
)
def test_hostile_html_is_bounded(name: str, source: str) -> None:
    raw = html_only(source)
    begun = time.process_time()
    given = made(raw, MimeFormat.TextOnly)
    assert time.process_time() - begun < 4
    assert len(given) < len(raw) + 2_000_000
    if name == "a long thread":
        assert body(given, "text/plain").startswith("Hello\n\nHello\n")
    if name in ("deep", "inline pieces", "paragraph of pieces"):  # what could not be converted whole is given as it is
        assert given is raw or "hello" in body(given, "text/plain")


def test_deeply_nested_bodies_are_given_as_stored() -> None:
    raw = b"Subject: x\r\n"
    for number in range(90):
        kind = b"related" if number % 2 else b"alternative"
        raw += b"Content-Type: multipart/%b; boundary=b%d\r\n\r\n--b%d\r\n" % (kind, number, number)
    raw += b"Content-Type: text/html\r\n\r\n" + b"<p>x</p>" * 500_000
    begun = time.process_time()
    assert made(raw, MimeFormat.TextOnly) is raw
    assert time.process_time() - begun < 2


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                b"Content-Type: multipart/alternative; boundary=b",
                b"Content-Type: multipart/related; boundary=b; start=<1>",
                b"Content-Type: multipart/mixed; boundary=bb",
                b"Content-Type: text/html; charset=utf-16",
                b"Content-Type: text/plain; format=flowed",
                b"Content-Type: text/enriched",
                b"Content-Type: text/calendar",
                b"Content-Type: message/rfc822",
                b"Content-Transfer-Encoding: base64",
                b"Content-Disposition: attachment; filename=x",
                b"Disposition-Notification-To: x",
                b"Content-ID: <1>",
                b"--b",
                b"--bb",
                b"--b--",
                b"",
                b"<p>text</p>",
                b"\xff\x00=?",
                INVITATION,
            ]
        ),
        max_size=40,
    ),
    st.sampled_from(CONVERTING),
    st.sampled_from([b"\r\n", b"\n"]),
)
def test_no_message_makes_a_fetch_fail(lines: list[bytes], form: MimeFormat, eol: bytes) -> None:
    raw = eol.join(lines)
    how = Presentation(form, "https://mail.contoso.com/", True)
    given = present(raw, how)
    assert present(raw, how) == given
    about = describe(given)
    assert len(given) >= about.header_size
    email.message_from_bytes(given)


@given(st.text(max_size=400))
def test_texts_survive_their_transfer_encoding(text: str) -> None:
    from letterlock.mail.leaf import text_leaf

    piece = text_leaf(b"plain", text, b"\r\n")
    decoded = read(piece.header + b"\r\n" + piece.body).get_payload(decode=True)
    wanted = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    assert isinstance(decoded, bytes)
    assert decoded.decode(errors="replace").replace("\r\n", "\n") == wanted.encode("utf-8", "replace").decode()
    assert max(map(len, piece.body.split(b"\r\n"))) <= 998
