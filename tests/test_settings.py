"""Declared settings: parsing, refusing with a sentence, storing."""

from __future__ import annotations

import ast
import enum
import re
from pathlib import Path

import pytest

import letterlock
from letterlock.base import declare
from letterlock.base.errors import Malformed
from letterlock.base.settings import AdminSettings, ImapSettings, PopSettings, defaults
from letterlock.base.settings_acme import AcmeSettings
from letterlock.base.switches import Switches
from letterlock.base.values import Binding, ByteSize, ConnectionSetting, ListChange, LoginType, TimeSpan
from letterlock.manage import CMDLETS
from letterlock.manage.registry import described


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("MaxCommandSize", "20", "MaxCommandSize: value 20 is out of range; it must be between 1024 and 16384"),
        ("LoginType", "Secure", "PlainTextLogin (1), PlainTextAuthentication (2), SecureLogin (3)"),
        ("SSLBindings", "x", "expected <IPv4 or IPv6 address>:<port>"),
        ("SSLBindings", "[::]:70000", "expected <IPv4 or IPv6 address>:<port>"),
        ("ExternalConnectionSettings", "a:b:c:d", "expected <host>:<port>[:TLS or :SSL]"),
        ("LogPerFileSizeQuota", "2 XB", "use a number with B, KB, MB, GB or TB"),
        ("X509CertificateName", "*.contoso.com", "must be a host name, not '*.contoso.com'"),
        ("LogFileLocation", "relative", "absolute path"),
        ("AuthenticatedConnectionTimeout", "00:00:10", "between 00:00:30 and 1.00:00:00"),
        ("Banner", "a\r\nb", "control characters"),
        ("ProtocolLogEnabled", "maybe", "$true or $false"),
    ],
)
def test_bad_values_are_refused_with_what_is_allowed(name: str, text: str, said: str) -> None:
    with pytest.raises(Malformed, match=re.escape(said)):
        declare.read(ImapSettings, name, text)


def test_values_print_as_exchange_prints_them() -> None:
    assert str(ByteSize.parse("2MB")) == "2 MB (2,097,152 bytes)"
    assert str(ByteSize(0)) == "0 B (0 bytes)"
    assert ByteSize.parse(str(ByteSize.parse("2MB"))) == ByteSize(2 * 1024**2)
    assert str(TimeSpan.parse("1:00:00")) == "01:00:00"
    assert str(TimeSpan.parse("1.00:00:00")) == "1.00:00:00"
    assert str(Binding.parse("[::]:993")) == "[::]:993"
    assert str(ConnectionSetting.parse("Mail.Contoso.com:993:ssl")) == "mail.contoso.com:993:SSL"


def test_lists_change_by_add_and_remove() -> None:
    old = declare.read(ImapSettings, "SSLBindings", "0.0.0.0:993,[::]:993")
    change = ListChange(None, add=("127.0.0.1:1993",), remove=("0.0.0.0:993",))
    assert list(map(str, declare.read(ImapSettings, "SSLBindings", change, old))) == ["[::]:993", "127.0.0.1:1993"]
    assert declare.read(ImapSettings, "SSLBindings", None, old) == ()


@pytest.mark.parametrize("kind", [ImapSettings, PopSettings])
def test_stored_and_restored(kind: type[ImapSettings]) -> None:
    made = defaults(kind, "mail.example.com", 10000)
    assert declare.restored(kind, declare.stored(made)) == made
    assert made.LoginType is LoginType.SecureLogin
    assert str(made.SSLBindings[0]).endswith(("10993", "10995"))


def test_the_whole_object_is_checked() -> None:
    with pytest.raises(Malformed, match="OwaServerUrl is required"):
        declare.restored(ImapSettings, {"CalendarItemRetrievalOption": "Custom"}).check()


PACKAGE = Path(letterlock.__file__).parent
DECLARED = (ImapSettings, PopSettings, AdminSettings, AcmeSettings, Switches)

# Every setting, and the test that shows what it does to a running service (or to the part that obeys it).
_CLIENT_ACCESS = {
    "MaxCommandSize": "clients/test_settings_effect.py::test_max_command_size",
    "UnencryptedOrTLSBindings": "test_workers.py::test_bindings_come_and_go_with_a_restart",
    "SSLBindings": "test_workers.py::test_a_restart_that_cannot_be_leaves_the_old_service_running",
    "InternalConnectionSettings": "clients/test_retrieval.py::test_calendar_item_retrieval_option",
    "ExternalConnectionSettings": "clients/test_retrieval.py::test_calendar_item_retrieval_option",
    "X509CertificateName": "clients/test_settings_effect.py::test_the_certificate_is_chosen_by_its_name",
    "Banner": "clients/test_retrieval.py::test_banner_and_sort_order",
    "LoginType": "test_workers.py::test_a_restart_ends_what_the_new_settings_would_not_allow",
    "AuthenticatedConnectionTimeout": "clients/test_settings_effect.py::test_both_time_outs_of_both_protocols",
    "PreAuthenticatedConnectionTimeout": "clients/test_settings_effect.py::test_both_time_outs_of_both_protocols",
    "MaxConnections": "clients/test_settings_effect.py::test_connection_limits_of_each_protocol",
    "MaxConnectionFromSingleIP": "clients/test_settings_effect.py::test_connection_limits_of_each_protocol",
    "MaxConnectionsPerUser": "clients/test_settings_effect.py::test_connection_limits_of_each_protocol",
    "MessageRetrievalMimeFormat": "clients/test_retrieval.py::test_message_retrieval_mime_format",
    "ProxyTargetPort": "test_servers.py::test_enforce_certificate_errors_and_proxy_target_port",
    "CalendarItemRetrievalOption": "clients/test_retrieval.py::test_calendar_item_retrieval_option",
    "OwaServerUrl": "clients/test_retrieval.py::test_calendar_item_retrieval_option",
    "EnableExactRFC822Size": "clients/test_retrieval.py::test_enable_exact_rfc822_size",
    "SuppressReadReceipt": "clients/test_retrieval.py::test_suppress_read_receipt",
    "ProtocolLogEnabled": "clients/test_settings_effect.py::test_protocol_log_and_its_place",
    "EnforceCertificateErrors": "test_servers.py::test_enforce_certificate_errors_and_proxy_target_port",
    "LogFileLocation": "clients/test_settings_effect.py::test_protocol_log_and_its_place",
    "LogFileRollOverSettings": "test_protocol_log.py::test_each_period_begins_a_new_file",
    "LogPerFileSizeQuota": "test_protocol_log.py::test_unlimited_is_one_file_for_ever",
    "LogRetentionAge": "test_protocol_log.py::test_retention_removes_old_files_and_only_ours",
    "LogDirectoryQuota": "test_protocol_log.py::test_retention_removes_old_files_and_only_ours",
    "ExtendedProtectionPolicy": "clients/test_retrieval.py::test_settings_of_what_is_not_offered_say_so",
    "EnableGSSAPIAndNTLMAuth": "clients/test_retrieval.py::test_settings_of_what_is_not_offered_say_so",
    "LoginTypeMode": "test_exceptions.py::test_report_only_enforcement_on_a_live_server",
    "TlsMinimum": "test_exceptions.py::test_report_only_enforcement_on_a_live_server",
    "TlsMinimumMode": "test_exceptions.py::test_report_only_enforcement_on_a_live_server",
    "ExceptionsOnlyBindings": "test_exceptions.py::test_the_quarantine_listener_serves_devices_with_an_exception_only",
}
EFFECTS = {
    ImapSettings: _CLIENT_ACCESS | {"ShowHiddenFoldersEnabled": "clients/test_retrieval.py::test_hidden_folders"},
    PopSettings: _CLIENT_ACCESS
    | {"MessageRetrievalSortOrder": "clients/test_retrieval.py::test_banner_and_sort_order"},
    AdminSettings: {
        "SSLBindings": "clients/test_settings_effect.py::test_administration_hosts_and_sizes",
        "X509CertificateName": "clients/test_settings_effect.py::test_administration_hosts_and_sizes",
        "AllowedHosts": "clients/test_settings_effect.py::test_administration_hosts_and_sizes",
        "MaxConnections": "clients/test_settings_effect.py::test_administration_connections_and_sessions",
        "MaxRequestSize": "clients/test_settings_effect.py::test_administration_hosts_and_sizes",
        "RequestTimeout": "test_rest.py::test_wrong_log_ons_look_alike_and_cost_time",
        "SessionTimeout": "clients/test_settings_effect.py::test_administration_connections_and_sessions",
    },
    AcmeSettings: {
        "DirectoryUrl": "test_acme.py::test_failures_are_one_line_and_leave_everything",
        "CaFile": "test_acme.py::test_failures_are_one_line_and_leave_everything",
        "Contact": "test_acme.py::test_order_by_http_serve_renew_and_revoke",
        "TermsOfServiceAgreed": "test_acme.py::test_order_by_http_serve_renew_and_revoke",
        "ChallengeType": "test_acme.py::test_wildcards_by_dns_through_the_hook",
        "HttpBindings": "test_acme.py::test_failures_are_one_line_and_leave_everything",
        "WebRoot": "test_acme.py::test_a_web_server_answers_from_the_web_root",
        "DnsHook": "test_acme.py::test_wildcards_by_dns_through_the_hook",
        "DnsWait": "test_acme.py::test_the_record_is_given_time",
        "RenewalEnabled": "test_acme.py::test_the_server_renews_by_itself",
    },
    Switches: {
        "PopEnabled": "clients/test_settings_effect.py::test_pop_can_be_off_for_a_mailbox",
        "ImapEnabled": "test_sessions.py::test_a_protocol_that_is_off_for_a_mailbox",
    }
    | {
        f"{protocol}{name}": f"clients/test_retrieval.py::{test}"
        for protocol in ("Pop", "Imap")
        for name, test in (
            ("UseProtocolDefaults", "test_overrides_of_a_mailbox"),
            ("MessagesRetrievalMimeFormat", "test_overrides_of_a_mailbox"),
            ("SuppressReadReceipt", "test_overrides_of_a_mailbox"),
            ("EnableExactRFC822Size", "test_exact_size_of_a_mailbox"),
            ("ForceICalForCalendarRetrievalOption", "test_overrides_of_a_mailbox"),
        )
    },
}


def settable(kind: type[object]) -> dict[str, declare.Declared]:
    return {name: d for name, d in declare.fields(kind).items() if not d.setting.read_only}


def test_every_declared_class_is_in_the_table() -> None:
    found = {
        node.name
        for path in (PACKAGE / "base").glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef) and any(_is_setting(item) for item in node.body)
    }
    assert found - {"ClientAccessSettings"} == {kind.__name__ for kind in DECLARED} == {k.__name__ for k in EFFECTS}


def _is_setting(node: ast.stmt) -> bool:
    call = node.value if isinstance(node, ast.AnnAssign) else None
    return isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "setting"


@pytest.mark.parametrize("kind", DECLARED)
def test_every_setting_has_a_test_of_its_effect(kind: type[object]) -> None:
    """A new setting needs a row above; the test it names must exist, and name the setting."""
    assert set(EFFECTS[kind]) == set(settable(kind))
    for name, where in EFFECTS[kind].items():
        file, _, test = where.partition("::")
        text = (Path(__file__).parent / file).read_text()
        found = [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name == test]
        assert found, where
        first = min(n.lineno for n in (found[0], *found[0].decorator_list))
        source = "\n".join(text.splitlines()[first - 1 : found[0].end_lineno])
        short = name.removeprefix("Pop").removeprefix("Imap") if kind is Switches else name
        option = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", short).lower()
        assert short in source or option in source, f"{where} does not mention {name}"


@pytest.mark.parametrize("kind", DECLARED)
def test_every_setting_is_obeyed_or_says_that_it_cannot_be(kind: type[object]) -> None:
    """Read outside of its declaration and of the cmdlets that show and set it, or said to be without meaning here."""
    rooms = [p for p in PACKAGE.rglob("*.py") if p.relative_to(PACKAGE).parts[0] not in ("base", "manage")]
    read = {n.attr for p in rooms for n in ast.walk(ast.parse(p.read_text())) if isinstance(n, ast.Attribute)}
    for name, declared in settable(kind).items():
        values = declared.type if isinstance(declared.type, enum.EnumMeta) else (True, False)
        meaningless = declared.setting.here is not None and all(map(declared.setting.here, values))
        assert name in read or meaningless, name
        assert declared.setting.help, name


def test_help_names_type_default_range_and_whether_a_restart_is_needed() -> None:
    text = described(CMDLETS["set-imapsettings"])
    about = text[text.index("-MaxCommandSize") :].split("\n  -")[0]
    assert "<Int32>" in about and "Default: 10240" in about and "Between 1024 and 16384" in about
    assert "Takes effect at: Restart-Service LetterlockImap4, LetterlockImap4BE." in about
    assert "Takes effect at" not in described(CMDLETS["set-acmesettings"])
