"""Bodies from one markup to another: HTML, plain text (also format=flowed, RFC 3676) and text/enriched (RFC 1896).

HTML comes from strangers, so the way from it is bounded before it is begun: a tokenizer of one possessive expression
drops scripts, styles, comments and every attribute that the text does not need (the HTML parser needs quadratic time
for attributes, a style can indent by a million columns), and a document that is still large is refused with `TooHard`.
Tables are laid out only where they hold small data; tables for page layout, which could be padded to any size, are
read from top to bottom.
"""

from __future__ import annotations

import html
import re
from typing import Any, Final

MAX_SOURCE: Final = 8 << 20  # characters of HTML, data: images included
MAX_VISIBLE: Final = 3 << 20  # characters of HTML without attributes
MAX_TAGS: Final = 150_000
MAX_COPIED: Final = 2_000_000_000  # characters: each inline element makes inscriptis copy its paragraph so far
MAX_URL: Final = 2_000
MAX_CELL: Final = 120  # characters of a cell in a table that is laid out as one
MAX_TABLE: Final = 100_000  # characters that such a table may take, padding included

_TOKEN: Final = re.compile(
    r"<!--.*?(?:-->|\Z)"
    r"|<(script|style|title|template|noscript|svg|object)\b.*?(?:</\1|\Z)(?:[^>]*+>)?"
    r"|<(/?[A-Za-z][A-Za-z0-9]*+)((?:[^>\"']++|\"[^\"]*+(?:\"|\Z)|'[^']*+(?:'|\Z))*+)(?:>|\Z)"
    r"|<[!?/][^>]*+(?:>|\Z)",
    re.DOTALL | re.IGNORECASE,
)
_VALUE: Final = r"[\s\"'/]%s\s{0,8}=\s{0,8}(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'>]++))"
_HREF: Final = re.compile(_VALUE % "href", re.IGNORECASE)
_ALT: Final = re.compile(_VALUE % "alt", re.IGNORECASE)
_HIDDEN: Final = re.compile(r"display\s{0,8}:\s{0,8}none|mso-hide\s{0,8}:\s{0,8}all|[\s\"']hidden(?=[\s>]|\Z)", re.I)
_KEPT_URL: Final = ("http://", "https://", "ftp://", "mailto:")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\u2028\u2029]")
_BLANK_LINES: Final = re.compile(r"\n{3,}+")
_URL: Final = re.compile(r"https?://[^\s<>\"'()]{3,2000}+", re.IGNORECASE)
_ENRICHED: Final = re.compile(
    r"<<|<param>.*?(?:</param>|\Z)|<(/?[A-Za-z0-9-]{1,60}+)>|\n++|[^<\n]++|<", re.DOTALL | re.I
)


_TABLE_TAGS: Final = frozenset(("table", "thead", "tbody", "tfoot", "tr", "td", "th", "caption"))
# What begins a new line there, so that the paragraph so far is not copied any more.
_BLOCKS: Final = _TABLE_TAGS | {
    *("address", "article", "aside", "blockquote", "br", "div", "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header"),
    *("li", "main", "nav", "ol", "p", "pre", "ul"),
}


class TooHard(ValueError):
    """A document that would take too much time or memory."""


def lines(text: str) -> str:
    """Text with LF line ends and without characters that no mail has."""
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n"))


# --- HTML to text


def text_of_html(source: str) -> str:
    """What a person reads of an HTML document; `TooHard` where the bounds are passed."""
    if len(source) > MAX_SOURCE:
        raise TooHard("HTML of this size is not converted")
    clean = _clean(lines(source))
    if len(clean) > MAX_VISIBLE:
        raise TooHard("HTML of this size is not converted")
    return _render(clean) if clean and not clean.isspace() else ""


def _clean(source: str) -> str:
    """HTML without what is not shown and without attributes that do not matter."""
    tags = length = copied = at = 0

    def plain_tag(match: re.Match[str]) -> str:
        nonlocal tags, length, copied, at
        length += match.start() - at
        at = match.end()
        name = match[2]
        if name is None:
            return " "
        name = name.lower()
        tags += 1
        copied += length
        if name.lstrip("/") in _BLOCKS:
            length = 0
        if tags > MAX_TAGS or copied > MAX_COPIED:
            raise TooHard("HTML of this size is not converted")
        return _tag(name, match[3])

    return _TOKEN.sub(plain_tag, source)


def _tag(name: str, attributes: str) -> str:
    """A tag with what the text needs of it."""
    kept = ""
    if name == "a" and (url := _attribute(_HREF, attributes)):
        kept = f' href="{html.escape(url)}"'
    elif name == "img" and (alt := _attribute(_ALT, attributes)):
        kept = f' alt="{html.escape(alt)}"'
    if attributes and _HIDDEN.search(attributes):
        kept += ' style="display:none"'
    return f"<{name}{kept}>"


def _attribute(expression: re.Pattern[str], attributes: str) -> str:
    match = expression.search(attributes)
    value = html.unescape(match[1] or match[2] or match[3] or "").strip() if match else ""
    return value if len(value) <= MAX_URL else ""


def _render(clean: str) -> str:
    # Needed on few servers, so loaded on those only: both are large.
    from inscriptis.css_profiles import CSS_PROFILES
    from inscriptis.html_engine import Inscriptis
    from inscriptis.model.config import ParserConfig
    from lxml import etree
    from lxml.html import HTMLParser, document_fromstring

    parser = HTMLParser(encoding="utf-8")
    try:
        tree = document_fromstring(clean.encode("utf-8", "replace"), parser=parser)
    except etree.ParserError:  # nothing in it
        return ""
    if any("depth" in entry.message for entry in parser.error_log):  # below 256 elements the text would be lost
        raise TooHard("HTML nested this deep is not converted")
    for element in tree.iter():
        if element.tag == "a":
            _show_target(element)
    for element in tree.iter():
        # Inscriptis resolves character references once more.
        element.text = element.text and element.text.replace("&", "&amp;")
        element.tail = element.tail and element.tail.replace("&", "&amp;")
    _unfold_tables(tree, etree.iterwalk(tree, events=("start", "end")))
    config = ParserConfig(css=CSS_PROFILES["strict"], display_images=True)
    text = str(Inscriptis(tree, config).get_text()).replace("\xa0", " ")
    trimmed = "\n".join([line.rstrip() for line in text.split("\n")])
    return _BLANK_LINES.sub("\n\n", trimmed).strip("\n") + "\n"


def _show_target(link: Any) -> None:
    """Write where a link goes behind it, unless it says so itself."""
    url = link.get("href", "")
    if not url.lower().startswith(_KEPT_URL):
        return
    shown = ""
    for text in link.itertext():
        shown += text
        if len(shown) > MAX_URL:
            break
    shown = shown.strip()
    if shown and shown not in (url, url.removeprefix("mailto:"), url.rstrip("/"), url.partition("://")[2].rstrip("/")):
        link.tail = f" <{url}>{link.tail or ''}"
    elif not shown and not len(link):
        link.text = url


def _is_data(table: Any) -> bool:
    """Whether a table is one: more than one column, small cells, and not too large when padded."""
    if next(table.iterdescendants("table"), None) is not None:
        return False
    widths: list[int] = []
    height = 0
    for row in table.iter("tr"):
        cells = [len("".join(cell.itertext())) for cell in row if cell.tag in ("td", "th")]
        if any(size > MAX_CELL for size in cells):
            return False
        widths += [0] * (len(cells) - len(widths))
        for column, size in enumerate(cells):
            widths[column] = max(widths[column], size)
        height += sum(1 for _ in row.iterdescendants())
    return len(widths) > 1 and (sum(widths) + 2 * len(widths)) * (height + 1) <= MAX_TABLE


def _unfold_tables(tree: Any, walk: Any) -> None:
    """Make blocks of the tables that hold no data, and of what they consist of."""
    data = {table for table in tree.iter("table") if _is_data(table)}
    within: list[bool] = []  # of the tables that are open: whether each holds data
    folded = []
    for event, element in walk:
        if event == "end":
            if element.tag == "table":
                within.pop()
            continue
        if element.tag == "table":
            within.append(element in data)
        if element.tag in _TABLE_TAGS and not (within and within[-1]):
            folded.append(element)
    for element in folded:
        element.tag = "div"


# --- text to HTML


def html_of_text(text: str) -> str:
    """A document that shows the text as it is, with links that can be followed."""
    pieces: list[str] = []
    at = 0
    text = lines(text)
    for match in _URL.finditer(text):
        url = match[0].rstrip(".,;:!?")
        pieces.append(html.escape(text[at : match.start()], quote=False))
        pieces.append(f'<a href="{html.escape(url)}">{html.escape(url, quote=False)}</a>')
        at = match.start() + len(url)
    pieces.append(html.escape(text[at:], quote=False))
    style = "white-space: pre-wrap; overflow-wrap: break-word; font-family: inherit"
    return f'<html><body>\n<pre style="{style}">\n{"".join(pieces)}</pre>\n</body></html>\n'


def unflowed(text: str, delsp: bool) -> str:
    """format=flowed text with its paragraphs on one line (RFC 3676 §4)."""
    done: list[str] = []
    open_depth = -1  # of the paragraph that goes on; -1: none does
    for line in lines(text).split("\n"):
        content = line.lstrip(">")
        depth = len(line) - len(content)
        content = content.removeprefix(" ")
        flows = content.endswith(" ") and content != "-- "
        if flows and delsp:
            content = content[:-1]
        if open_depth == depth and content != "-- ":
            done[-1] += content
        else:
            done.append(">" * depth + (" " if depth else "") + content)
        open_depth = depth if flows else -1
    return "\n".join(done)


# --- text/enriched


def enriched_of_text(text: str) -> str:
    """text/enriched that shows these lines (RFC 1896): `<` is doubled, n line ends are written as n+1."""
    return re.sub(r"\n++", lambda match: match[0] + "\n", lines(text).replace("<", "<<"))


def text_of_enriched(source: str) -> str:
    """The text of text/enriched, without its commands."""
    pieces: list[str] = []
    unfilled = 0
    for match in _ENRICHED.finditer(lines(source)):
        word = match[0]
        if word == "<<":
            pieces.append("<")
        elif word[0] == "\n":
            pieces.append(word if unfilled else " " if len(word) == 1 else word[1:])
        elif match[1] is not None:
            command = match[1].lower()
            unfilled = max(0, unfilled + {"nofill": 1, "/nofill": -1}.get(command, 0))
        elif word[:7].lower() != "<param>":
            pieces.append(word)
    return "".join(pieces)
