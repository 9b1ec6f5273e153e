"""Bad input: every setting refuses what it cannot be, names itself, the value and what is allowed; nothing changes.

Derived from the declarations: a setting that is added is held to the same.
"""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from letterlock.base import declare, values
from letterlock.base.errors import LetterlockError, Malformed
from letterlock.base.settings import AdminSettings, ImapSettings, PopSettings
from letterlock.manage import CMDLETS
from tests.management import Management

KINDS: dict[str, type[Any]] = {"Imap": ImapSettings, "Pop": PopSettings, "Admin": AdminSettings}
WRONG: dict[type[Any], tuple[str, ...]] = {
    bool: ("maybe", "2", ""),
    int: ("many", "1.5", "", "9" * 5000),
    values.TimeSpan: ("soon", "1:2:3:4", "00:61:00", "25:00:00", "-1"),
    values.ByteSize: ("5 XB", "-5", "MB", "1..5KB"),
    values.Binding: (
        "1.2.3.4",
        "[::]",
        "mail.contoso.com:993",
        "1.2.3.4:0",
        "1.2.3.4:70000",
        "::1:993",
        "[1.2.3.4]:993",
    ),
    values.ConnectionSetting: ("mail.contoso.com", "a b:993", "mail.contoso.com:993:XSL", ":993", "mail:0:TLS"),
}
ALLOWED = ("allowed", "between", "expected", "must be", "use ", "is not", "needs", "at most", "at least", "has ")


def cases() -> Iterator[tuple[str, str, Any, str]]:
    """cmdlet, setting, bad value as it is given, and the part of it that is wrong."""
    for noun, kind in KINDS.items():
        for name, declared in declare.fields(kind).items():
            if declared.setting.read_only:
                continue
            wrong = WRONG.get(declared.type, ())
            if isinstance(declared.type, type) and issubclass(declared.type, enum.Enum):
                wrong = ("Nonsense", "99", "")
            if declared.setting.range is not None and declared.type is int:
                low, high = declared.setting.range
                wrong += (str(low - 1), str(high + 1))
            if declared.setting.range is not None and declared.type is values.TimeSpan:
                wrong += (str(values.TimeSpan(declared.setting.range[1].seconds + 1)),)
            for text in wrong:
                yield f"Set-{noun}Settings", name, text, text
                if declared.many and text:
                    good = [str(v) for v in declared.default or ()][:1]
                    yield f"Set-{noun}Settings", name, [*good, text], text
                    yield f"Set-{noun}Settings", name, values.ListChange(None, (text,), ()), text


@pytest.fixture(scope="module")
def management(tmp_path_factory: pytest.TempPathFactory) -> Management:
    m = Management(tmp_path_factory.mktemp("bad") / "data")
    m.mailbox()
    return m


def stored(m: Management) -> list[Any]:
    """Everything that is set, and the audit trail."""
    return [*(m.config.settings(kind) for kind in KINDS.values()), len(m.audit())]


def test_every_kind_of_setting_is_tried() -> None:
    tried = {(cmdlet, name) for cmdlet, name, _, _ in cases()}
    texts = {(f"Set-{n}Settings", f) for n, k in KINDS.items() for f, d in declare.fields(k).items() if d.type is str}
    every = {(f"Set-{n}Settings", f) for n, k in KINDS.items() for f, d in declare.fields(k).items()}
    read_only = {
        (f"Set-{n}Settings", f) for n, k in KINDS.items() for f, d in declare.fields(k).items() if d.setting.read_only
    }
    assert len(tried) > 60
    assert every - tried - texts - read_only == set()


def test_bad_values_name_setting_value_and_what_is_allowed(management: Management) -> None:
    before = stored(management)
    faults = []
    for cmdlet, name, value, wrong in cases():
        other = {"MaxConnections": 77} if name != "MaxConnections" else {"SessionTimeout": "00:10:00"}
        other = other if next(iter(other)) in declare.fields(KINDS[cmdlet[4:-8]]) else {}
        try:
            management.run(cmdlet, **{name: value}, **other)
        except Malformed as error:
            named = name in error.text and (wrong in error.text or len(wrong) > 100 or not wrong)
            if not (error.text.startswith(cmdlet) and named and any(w in error.text for w in ALLOWED)):
                faults.append(f"{cmdlet} -{name} {value!r}: {error.text[:200]}")
            if len(error.text) > 1000:
                faults.append(f"{cmdlet} -{name} {wrong[:20]}: {len(error.text)} characters of error")
        else:
            if wrong or declared_many(cmdlet, name) is False:
                faults.append(f"{cmdlet} -{name} {value!r}: taken")
    assert not faults, "\n".join(faults)
    assert stored(management) == before


def declared_many(cmdlet: str, name: str) -> bool:
    return declare.fields(KINDS[cmdlet[4:-8]])[name].many


@pytest.mark.parametrize(
    ("cmdlet", "named", "said"),
    [
        ("Enable-ExchangeCertificate", {"Thumbprint": "XYZ", "Services": "IMAP"}, "XYZ"),
        ("Get-ExchangeCertificate", {"Thumbprint": "12 34"}, "12"),
        ("Enable-ExchangeCertificate", {"Thumbprint": "AB" * 20, "Services": "IMAP"}, "AB" * 20),
        ("Set-Service", {"Name": "LetterlockImap4", "StartupType": "Sometimes"}, "Sometimes"),
        ("Get-Service", {"Name": "Nothing"}, "Nothing"),
        ("New-Mailbox", {"Name": "no address", "Password": "correct horse 7"}, "no address"),
        ("Set-CASMailbox", {"Identity": "alice@example.com", "PopEnabled": "maybe"}, "maybe"),
    ],
)
def test_other_values(management: Management, cmdlet: str, named: dict[str, Any], said: str) -> None:
    before = stored(management)
    with pytest.raises(LetterlockError) as caught:
        management.run(cmdlet, **named)
    assert said in caught.value.text
    assert stored(management) == before


SETTERS = [(f"Set-{noun}Settings", name) for noun, kind in KINDS.items() for name in declare.fields(kind)]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SETTERS),
    st.one_of(
        st.none(),
        st.text(max_size=40),
        st.integers(),
        st.lists(st.text(max_size=20), max_size=3),
        st.builds(values.ListChange, st.none(), st.tuples(st.text(max_size=20)), st.tuples(st.text(max_size=9))),
    ),
)
def test_random_values_are_read_or_refused(management: Management, setter: tuple[str, str], value: Any) -> None:
    cmdlet, name = setter
    with contextlib.suppress(LetterlockError):
        bound = CMDLETS[cmdlet.lower()].bind({name: value, "WhatIf": True}, [], None)
        management.config.validate(KINDS[cmdlet[4:-8]], {name: bound[name]})
