"""What the HTML reports have in common, and what makes hostile content harmless in them.

Every value is escaped (autoescape), a name that a template does not know is an error, and the page's content policy
names the one style sheet by its digest, so that nothing else is loaded or run.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


def style(name: str) -> tuple[str, str]:
    """A style sheet of `templates/`, and its digest as a content policy names it (CSP 3 §6.7.3.3)."""
    text = files("letterlock.analyze").joinpath(f"templates/{name}").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return text, f"sha256-{digest}"


def environment() -> Environment:
    """Where the templates come from, and how they are filled in."""
    import jinja2  # only for a report: every command would pay for it

    return jinja2.Environment(
        loader=jinja2.PackageLoader("letterlock.analyze"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
