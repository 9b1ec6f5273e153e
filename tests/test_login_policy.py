"""The truth table of LoginType (docs/settings.md, reference of Exchange's behaviour), row by row."""

from __future__ import annotations

import pytest

from letterlock.base.values import LoginType, Protocol, Tls
from letterlock.policy.login import (
    LOGIN,
    LOGIN_COMMAND,
    PLAIN,
    USER_PASS,
    Channel,
    LoginAttempt,
    LoginRules,
    Mechanism,
    Reason,
    decide,
    offered,
)

CLEAR, STARTTLS, IMPLICIT = Channel(Tls.NONE), Channel(Tls.STARTTLS), Channel(Tls.IMPLICIT)
SCRAM = Mechanism(b"SCRAM-SHA-256", clear=False)
ALL = (LOGIN_COMMAND, USER_PASS, PLAIN, LOGIN, SCRAM)


@pytest.mark.parametrize("protocol", [Protocol.IMAP4, Protocol.POP3])
@pytest.mark.parametrize("mechanism", ALL)
@pytest.mark.parametrize("login_type", LoginType)
def test_truth_table(login_type: LoginType, mechanism: Mechanism, protocol: Protocol) -> None:
    rules = LoginRules(login_type, ALL)
    for channel in (STARTTLS, IMPLICIT):
        assert decide(LoginAttempt(protocol, channel, mechanism), rules).allowed
    clear = {
        LoginType.PlainTextLogin: True,
        LoginType.PlainTextAuthentication: mechanism is SCRAM,
        LoginType.SecureLogin: False,
    }[login_type]
    decision = decide(LoginAttempt(protocol, CLEAR, mechanism), rules)
    assert decision.allowed == clear
    assert (mechanism in offered(protocol, CLEAR, rules)) == clear
    if not clear:
        assert decision.reason is Reason.TLS_REQUIRED


def test_what_a_stricter_type_would_refuse() -> None:
    rules = LoginRules(LoginType.PlainTextLogin, ALL)
    plain = decide(LoginAttempt(Protocol.IMAP4, CLEAR, PLAIN), rules)
    scram = decide(LoginAttempt(Protocol.IMAP4, CLEAR, SCRAM), rules)
    assert plain.would_refuse_under is LoginType.PlainTextAuthentication
    assert scram.would_refuse_under is LoginType.SecureLogin
    assert decide(LoginAttempt(Protocol.IMAP4, IMPLICIT, PLAIN), rules).would_refuse_under is None


def test_a_mechanism_that_is_off_is_refused_on_every_channel() -> None:
    rules = LoginRules(LoginType.PlainTextLogin, (PLAIN,))
    for channel in (CLEAR, STARTTLS, IMPLICIT):
        assert decide(LoginAttempt(Protocol.IMAP4, channel, SCRAM), rules).reason is Reason.MECHANISM_OFF


def test_a_proxy_is_believed_only_when_it_is_trusted() -> None:
    rules = LoginRules(LoginType.SecureLogin, ALL)
    lying = CLEAR._replace(client_tls=True)
    assert not decide(LoginAttempt(Protocol.IMAP4, lying, PLAIN), rules).allowed
    honest = IMPLICIT._replace(trusted_hop=True, client_tls=False)
    assert not decide(LoginAttempt(Protocol.IMAP4, honest, PLAIN), rules).allowed
