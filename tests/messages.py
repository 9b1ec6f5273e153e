"""Messages for tests: well-formed ones that use what standards allow, malformed ones of every kind, and the e-mail
corpus of CPython. Each is a name and raw octets with CRLF, unless its kind is to have none."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def crlf(text: bytes) -> bytes:
    """Every line end as CRLF."""
    return text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _message(head: str, body: str = "x\n") -> bytes:
    return crlf(f"{head}\n\n{body}".encode())


def cpython() -> dict[str, bytes]:
    """The corpus of the running interpreter's own tests; empty where the distribution leaves it out."""
    spec = importlib.util.find_spec("test.test_email")
    if spec is None or spec.origin is None:
        return {}
    directory = Path(spec.origin).parent / "data"
    return {path.stem: path.read_bytes() for path in sorted(directory.glob("*.txt"))}


PARTS = """Hello
--outer
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

Grüße
--outer
Content-Type: multipart/related; boundary="outer-inner"; type="text/html"

--outer-inner
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: quoted-printable
Content-ID: <part1@example.com>

<p>Gr=C3=BC=C3=9Fe</p>
--outer-inner
Content-Type: image/png; name="a b.png"
Content-Transfer-Encoding: base64
Content-Disposition: inline; filename="a b.png"; size=8
Content-Description: a picture
Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==
Content-Location: http://example.com/a.png
Content-Language: en, de

iVBORw0KGgo=
--outer-inner--

--outer--
epilogue
"""

FORWARDED = """see below
--f
Content-Type: text/plain

as promised
--f
Content-Type: message/rfc822
Content-Disposition: attachment; filename=old.eml

From: "O'Hara, Pat" <pat@example.com>
To: alice@demo.test
Subject: inner
Date: Tue, 1 Sep 2026 01:02:03 +0200
Message-ID: <inner@example.com>
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary=g

--g

plain
--g
Content-Type: text/html

<b>html</b>
--g--
--f--
"""

DIGEST = """preamble
--d

From: one@example.com
Subject: first

one
--d

From: two@example.com
Subject: second
Content-Type: text/plain; charset=iso-8859-1

two
two
--d
Content-Type: text/plain

no message
--d--
"""

WELL_FORMED: dict[str, bytes] = {
    "plain": _message("Date: Mon, 23 Nov 2026 10:00:00 +0100\nFrom: Alice <alice@demo.test>\nSubject: hello"),
    "folded": _message(
        "Subject: one\n two\n\tthree\nFrom: Alice\n Demo <alice@demo.test>\nTo: a@example.com,\n\tb@example.com\n"
        "In-Reply-To: <a@example.com>\n <b@example.com>\nMessage-ID:\n <c@example.com>"
    ),
    "groups": _message(
        "From: alice@demo.test\nTo: Team: bob@demo.test, Carol <carol@demo.test>;, dave@demo.test\n"
        'Cc: undisclosed-recipients:;\nBcc: A:x@example.com;,B:;\nReply-To: "Q, R" <q@example.com>\n'
        "Sender: Sec (of Alice) <sec@demo.test>"
    ),
    "names": _message(
        'From: "A \\"q\\" \\\\ B" <a@example.com>\nTo: J. R. "Bob" Dobbs <bob@example.com>,\n'
        ' c@example.com (Carol (nested) C), <d@example.com>, "two words"@example.com, E@[192.0.2.1], =?utf-8?q?J=C3=B6rg?= <j@example.com>\n'
        "Cc: Old <@relay1.example.com,@relay2.example.com:route@example.com>"
    ),
    "comments": _message(
        "From: (a (b (c) d) e) pete(left)@(mid)silly.example.com (right)\nDate: Thu, 13 Feb 1969 23:32 -0330 (Nfld)\n"
        "Content-Type: text/(x)plain (c (d)); charset (e) = (f) us-ascii (g)\n"
        "Content-Transfer-Encoding: (h) quoted-printable (i)"
    ),
    "repeated": _message(
        "Date: Mon, 1 Jan 2024 00:00:00 +0000\nFrom: a@example.com\nFrom: b@example.com\nTo: c@example.com\n"
        "Cc: d@example.com\nTo: e@example.com"
    ),
    "parts": _message('Subject: parts\nMIME-Version: 1.0\nContent-Type: MULTIPART/Mixed; Boundary="outer"', PARTS),
    "forwarded": _message("Subject: fwd\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=f", FORWARDED),
    "digest": _message("Subject: dig\nMIME-Version: 1.0\nContent-Type: multipart/digest; boundary=d", DIGEST),
    "message": _message(
        "Content-Type: message/rfc822", "Subject: in\nContent-Type: message/rfc822\n\nSubject: innermost\n\ntext\n"
    ),
    "partial": _message(
        'Content-Type: message/partial; id="a@example.com"; number=1; total=2', "Subject: half\n\nof a message\n"
    ),
    "continuations": _message(
        "Content-Type: application/x-stuff; title*0*=us-ascii'en'This%20is%20even%20more%20; title*1*=%2A%2A%2Afun;\n"
        ' title*2="isn\'t it!"\nContent-Disposition: attachment; filename*0="long "; filename*1=name.txt'
    ),
    "extended": _message(
        "Content-Type: text/plain; charset=utf-8\nContent-Disposition: attachment; filename*=utf-8''na%C3%AFve.txt"
    ),
    "quoted-parameters": _message(
        'Content-Type: text/plain; charset="utf-8"; name="a\\"b\\\\c;d.txt"; format=flowed; delsp="yes"'
    ),
    "unquoted-equals": _message("Content-Type: multipart/mixed; boundary==_b=1", "--=_b=1\n\none\n--=_b=1--\n"),
    "empty-body": _message("Subject: nothing", ""),
    "empty-parts": _message(
        "Content-Type: multipart/mixed; boundary=e", "--e\n\n--e\nContent-Type: image/gif\n\n--e--\n"
    ),
    "prefix-boundaries": _message(
        "Content-Type: multipart/mixed; boundary=a",
        "--a\nContent-Type: multipart/mixed; boundary=aa\n\n--aa\n\none\n--aa\n\ntwo\n--aa--\n--a\n\nthree\n--a--\n",
    ),
    "white-space-after-boundary": _message(
        "Content-Type: multipart/mixed; boundary=w", "--w \t \n\none\n--w\t\n\ntwo\n--w-- \n"
    ),
    "eight-bit": "Subject: Grüße\nFrom: Jörg <j@example.com>\n\nGrüße\n".replace("\n", "\r\n").encode(),
    "latin-1": "Subject: Grüße\r\nFrom: Jörg <j@example.com>\r\n\r\nGrüße\r\n".encode("latin-1"),
    "language": _message("Content-Language: de, en-GB (British)\nContent-Location:\n http://example.com/\n a"),
    "long-names": _message(f"From: {'Very ' * 60}Long <a@example.com>\nSubject: {'word ' * 300}end"),
}


def nested(depth: int) -> bytes:
    """Multiparts within multiparts."""
    opening = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d.\r\n\r\n--b%d.\r\n" % (level, level) for level in range(depth)
    )
    closing = b"".join(b"\r\n--b%d.--\r\n" % level for level in reversed(range(depth)))
    return b"Subject: nested\r\n" + opening + b"\r\nin the middle\r\n" + closing


def nested_messages(depth: int) -> bytes:
    """Messages within messages."""
    return b"Subject: deep\r\nContent-Type: message/rfc822\r\n\r\n" * depth + b"Subject: last\r\n\r\ntext\r\n"


MALFORMED: dict[str, bytes] = {
    "nothing": b"",
    "one-octet": b"x",
    "line-end": b"\r\n",
    "body-only": b"\r\nonly a body",
    "no-headers": b"no header at all\r\nfoo\r\n\r\nbar\r\n",
    "no-blank-line": b"Subject: a\r\nTo: b@example.com\r\n",
    "broken-line": b"Subject: a\r\nbroken line\r\nTo: b@example.com\r\n\r\nbody\r\n",
    "leading-space": b" lead: x\r\nSubject : b\r\n\r\nz\r\n",
    "nul": b"Subject: a\0b\r\nFrom: \0 <a\0@example.com>\r\n\r\nbo\0dy\0\r\n",
    "bare-lf": b"Subject: a\nTo: b@example.com\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b--\n",
    "bare-cr": b"Subject: a\rb\r\nTo: c@example.com\r\n\r\nbo\rdy\r\r\n",
    "mixed-line-ends": b"Content-Type: multipart/mixed; boundary=b\n\r\n--b\n\r\none\r\n--b\r\n\ntwo\n--b--\r\n",
    "long-line": b"Subject: " + b"x" * (1 << 20) + b"\r\n\r\nbody\r\n",
    "nested-multiparts": nested(500),
    "nested-messages": nested_messages(500),
    "bad-charset": _message(
        "Subject: =?x-unknown?q?a=E9?= =?utf-8?b?/w==?=\nContent-Type: text/plain; charset=no-such"
    ),
    "no-boundary": _message("Content-Type: multipart/mixed", "--x\n\none\n--x--\n"),
    "empty-boundary": _message('Content-Type: multipart/mixed; boundary=""', "--\n\none\n----\n"),
    "unused-boundary": _message("Content-Type: multipart/mixed; boundary=never"),
    "unclosed": _message(
        "Content-Type: multipart/mixed; boundary=u", "--u\n\none\n--u\nContent-Type: text/html\n\ntwo"
    ),
    "same-boundary": _message(
        "Content-Type: multipart/mixed; boundary=b",
        "--b\nContent-Type: multipart/alternative; boundary=b\n\n--b\n\none\n--b\n\ntwo\n--b--\n--b\n\nthree\n--b--\n",
    ),
    "boundary-in-header": _message(
        "Content-Type: multipart/mixed; boundary=b", "--b\nSubject: a\n--b\nContent-Type: text/html\n--b--\n"
    ),
    "after-closing": _message("Content-Type: multipart/mixed; boundary=b", "--b\n\none\n--b--\n--b\n\ntwo\n--b--\n"),
    "no-subtype": _message("Content-Type: text"),
    "no-type": _message("Content-Type: /"),
    "spaces-in-type": _message("Content-Type: plain text; charset=utf-8"),
    "broken-parameters": _message('Content-Type: foo/bar; a; b=; =c; d=e f; ; g="h'),
    "unquoted-name": _message("Content-Disposition: attachment; filename=my file (1).pdf\nContent-Type: x/y; name=a b"),
    "mixed-continuations": _message(
        "Content-Type: text/plain; name*0*=utf-8''a%20b; name*1=c; title*=us-ascii'en'x; z*0=a; z*1=\"b\"; y*1=c; y*0=d"
    ),
    "repeated-type": _message("Content-Type: text/html\nContent-Type: text/plain; charset=utf-8"),
    "no-host": _message("From: alice\nTo: Bob <bob>, <>, @example.com, a@, ,, c@example.com\nCc: A B C\nBcc: x@y@z"),
    "broken-groups": _message(
        "To: open: a@example.com, b@example.com\nCc: a;b@example.com\nBcc: a: b: c@example.com;;"
    ),
    "broken-quotes": _message('To: "never closed <a@example.com>, b@example.com\nCc: a@example.com (open'),
    "broken-angles": _message(
        "To: A <a@example.com, B <b@example.com>\nCc: a@example.com> c@example.com\nBcc: <<a@b.c>>"
    ),
    "nested-comments": _message(f"From: {'(' * 5000}deep{')' * 5000} a@example.com\nTo: {'(' * 5000}b@example.com"),
    "many-addresses": _message("To: " + ",\n ".join(f"a{n}@example.com" for n in range(2000))),
    "many-fields": _message("\n".join(f"X-Field-{n}: {n}" for n in range(5000))),
    "binary": bytes(range(256)) * 8,
}
