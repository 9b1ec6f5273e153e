"""Families of mail programs and devices, how each is recognised, and what to set in it to log in over TLS.

A family is recognised by what its client says of itself (IMAP's ID command, RFC 2971; a user agent), else by the user
name of devices that have a mailbox of their own, and else by nothing: then the general advice is given. Every row has
the page it was taken from; where a maker's own page was not at hand, a copy of the maker's manual is named.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from letterlock.base.values import Protocol


class Family(NamedTuple):
    """One row. `told` matches what the client says of itself; `user` matches user names (both without case)."""

    name: str
    told: str
    advice: str
    source: str
    user: str = ""
    device: bool = False  # has no keyboard to set it at, and may be unable to do better


class Advice(NamedTuple):
    """What to do about a client."""

    family: str  # "" where it was not recognised
    text: str
    source: str = ""
    device: bool = False


GENERAL: Final = {
    Protocol.IMAP4: "Set the account to port 993 with SSL/TLS, or to port 143 with STARTTLS required.",
    Protocol.POP3: "Set the account to port 995 with SSL/TLS, or to port 110 with STARTTLS (STLS) required.",
    Protocol.SMTP: "Set outgoing mail to port 465 with SSL/TLS, or to port 587 with STARTTLS required.",
    Protocol.SIEVE: "Set the Sieve connection to port 4190 with STARTTLS (TLS) required.",
}

FAMILIES: Final = (
    Family(
        "Thunderbird for Android, K-9 Mail",
        r"k-?9|thunderbird.*android",
        "Account settings, Fetching mail, Incoming server: Security SSL/TLS, port 993 (POP3: 995).",
        "https://docs.k9mail.app/en/6.400/accounts/incoming_imap/",
    ),
    Family(
        "Thunderbird",
        r"thunderbird|icedove|betterbird",
        "Account Settings, Server Settings: Connection security SSL/TLS; the port becomes 993 (POP3: 995).",
        "https://archive.flossmanuals.net/basic-internet-security/ch024_security-options.html",
    ),
    Family(
        "Outlook",
        r"outlook|microsoft office|windows ?mail",
        "Account settings, Incoming mail server: encryption SSL/TLS, port 993 (POP3: 995); outgoing: STARTTLS, port"
        " 587.",
        "https://support.microsoft.com/en-us/office/"
        "pop-and-imap-email-settings-for-outlook-8361e398-8af4-4e97-b147-6c6c4ac95353",
    ),
    Family(
        "Apple Mail",
        r"iphone mail|ipad mail|mac os x mail|apple mail|com\.apple",
        "Settings, Accounts, Server Settings: Use TLS/SSL on, port 993 (POP3: 995).",
        "http://support.apple.com/en-us/HT201525",
    ),
    Family(
        "Gmail fetching from this server",
        r"gmail|google",
        "Gmail settings, Accounts, Check mail from other accounts: 'Always use a secure connection (SSL)', port "
        "995. The server's certificate must come from an authority that Mozilla trusts.",
        "https://support.google.com/mail/answer/21291?hl=en",
    ),
    Family(
        "HP multi-function printer or digital sender",
        r"\bhp\b|hewlett|laserjet|officejet",
        "In the printer's Embedded Web Server, outgoing mail server: SSL/TLS on, port 587 or 465. Firmware that has"
        " no such option needs a relay of its own, or an exception.",
        "https://manualmachine.com/hp/cm4730/905485-user-manual",
        r"^(?:hp|laserjet|officejet)[-_.]?\d*",
        device=True,
    ),
    Family(
        "Ricoh multi-function printer",
        r"ricoh|savin|lanier|aficio",
        "Mail server settings: SMTPS (SMTP over SSL), or SMTPS (StartTLS); for fetching, POP3 or IMAP4 with SSL on.",
        "https://manual.na.cloudstream.ricoh.com/en/Content/funct/sys/email.htm",
        r"^(?:ricoh|aficio)",
        device=True,
    ),
    Family(
        "Xerox multi-function printer",
        r"xerox|workcentre|altalink|versalink|docucentre|apeosport",
        "Embedded Web Server, Properties, Connectivity, SMTP: Connection Encryption STARTTLS or SSL/TLS. Older "
        "machines fetch mail by POP3 without encryption only: let them receive by SMTP, or make an exception for "
        "each.",
        "https://manualmachine.com/xerox/altalinkb8045/16364461-administrator-guide",
        r"^(?:xerox|workcentre)",
        device=True,
    ),
    Family(
        "Canon imageRUNNER",
        r"canon|imagerunner",
        "Settings, E-Mail/I-Fax, Authentication/Encryption: Allow SSL (SMTP send) and Allow SSL (POP) on.",
        "https://manualarchiveguide.com/manuals/Canon-DU7-1178-000-Service-Manual-2845610?page=56",
        r"^(?:canon|imagerunner)",
        device=True,
    ),
    Family(
        "Konica Minolta bizhub",
        r"konica|minolta|bizhub",
        "PageScope Web Connection, administrator mode, Network, E-mail settings: use SSL/TLS for sending (SMTP) and"
        " for receiving (POP).",
        "https://www.manualowl.com/m/Konica%20Minolta/bizhub-20/Manual/221497?page=81",
        r"^(?:bizhub|konica)",
        device=True,
    ),
    Family(
        "Kyocera printer",
        r"kyocera|ecosys|taskalfa|utax|triumph",
        "Command Center RX, Function Settings, E-mail: SMTP security and POP3 security SSL/TLS or STARTTLS.",
        "http://www.manualowl.com/m/Kyocera/TASKalfa-4551ci/Manual/370445?page=47",
        r"^(?:kyocera|taskalfa|ecosys)",
        device=True,
    ),
    Family(
        "Brother printer",
        r"brother|\bmfc-",
        "Web Based Management, Network, Protocol, POP3/IMAP4/SMTP: SSL/TLS, with the port that belongs to it.",
        "https://www.manualslib.com/manual/355711/Brother-Mfc-9840cdw.html?page=141",
        r"^(?:brother|mfc-|dcp-)",
        device=True,
    ),
    Family(
        "Epson printer",
        r"epson|workforce",
        "Web Config, Network, Email Server: Secure Connection SSL/TLS or STARTTLS. 'POP before SMTP' is never "
        "encrypted there: choose SMTP AUTH.",
        "https://download4.epson.biz/sec_pubs/wf-c21000_series/useg/tc/GUID-0CF50114-406B-47D8-9B72-C8F1B81FAA53.htm",
        r"^(?:epson|workforce)",
        device=True,
    ),
    Family(
        "Other scanner, printer or fax",
        r"scanner|multifunction|copier",
        "In the device's mail settings: SSL/TLS or STARTTLS. Devices without it need new firmware, a relay, or an "
        "exception for their address.",
        "https://www.easymanua.ls/fuji-xerox/docucentre-iv-c2260/manual/640397?p=583",
        r"^(?:scan|scanner|scan2mail|printer|print|mfp|copier|kopierer|drucker|fax)(?:[-_.\d@]|$)",
        device=True,
    ),
    Family(
        "Jira",
        r"\bjira\b|atlassian",
        "Administration, System, Mail, Incoming: protocol SECURE_IMAP (993) or SECURE_POP (995), the server's "
        "certificate known to Java's trust store.",
        "https://docs.meta-inf.hu/email-this-issue/email-this-issue-for-jira-server-data-center/documentation/"
        "administration/incoming-mail-connections",
        r"^jira\b",
    ),
    Family(
        "Znuny, OTOBO, OTRS",
        r"\bznuny\b|\botobo\b|\botrs\b",
        "Administration, PostMaster Mail Accounts: type IMAPS (993) or POP3S (995), or IMAPTLS or POP3TLS for STARTTLS;"
        " not IMAP and not POP3.",
        "https://raw.githubusercontent.com/znuny/manual/859e79790998a08b441278b7ca7ce2a85249ff73/source/admin/email/"
        "postmaster_mail_account.rst",
        r"^(?:otrs|znuny|otobo)\b",
    ),
    Family(
        "Redmine",
        r"redmine",
        "In the rake task redmine:email:receive_imap: ssl=1 with port=993, or starttls=1 with port=143 (receive_pop3:"
        " ssl=1, port=995).",
        "https://github.com/redmine/redmine/blob/37dfdbf5e9137bea47f5f22b274a2a6ae1728ef4/lib/redmine/imap.rb",
        r"^redmine\b",
    ),
    Family(
        "Roundcube",
        r"roundcube",
        "In config.inc.php: imap_host with ssl:// and port 993, or with tls:// for STARTTLS; before 1.6 the same in"
        " default_host.",
        "https://raw.githubusercontent.com/roundcube/roundcubemail/master/config/defaults.inc.php",
    ),
    Family(
        "SAP",
        r"\bsap\b|netweaver|sapconnect",
        "Mail adapter: Protection IMAPS (993) or POP3S (995), or STARTTLS Mandatory; never STARTTLS Optional.",
        "https://blogs.sap.com/2018/03/19/sender-and-receiver-mail-adapter-in-sap-cloud-platform-integration/",
        r"^sap[-_.@\d]",
    ),
    Family(
        "fetchmail",
        r"fetchmail",
        "In fetchmailrc: the option 'ssl' (ports 993, 995), or 'sslproto tls1.2+', which makes STARTTLS required; "
        "'sslcertck' stays on.",
        "https://gitlab.com/fetchmail/fetchmail/blob/650519f8bc28f9047290327cd9a2e1c01e430255/starttls.c",
        r"^fetchmail\b",
    ),
    Family(
        "getmail",
        r"getmail",
        "In the [retriever] section: type = SimpleIMAPSSLRetriever or SimplePOP3SSLRetriever.",
        "https://getmail6.org/configuration.html",
    ),
    Family(
        "mbsync (isync)",
        r"mbsync|isync",
        "In mbsyncrc: TLSType IMAPS (before 1.5: SSLType IMAPS), or STARTTLS.",
        "https://unix.com/man-page/debian/1/mbsync/",
    ),
    Family(
        "OfflineIMAP",
        r"offlineimap",
        "In the remote repository: ssl = yes, remoteport = 993, sslcacertfile set; or starttls = yes with ssl = no.",
        "https://wiki.archlinux.org/title/OfflineIMAP?ref=mjac.dev",
    ),
    Family(
        "PHP's imap functions (c-client)",
        r"\bphp\b|c-client|imap toolkit",
        "In the mailbox string: {server:993/imap/ssl} or {server:143/imap/tls}; without /notls and /novalidate-cert.",
        "https://php.net/function.imap-open",
    ),
    Family(
        "Jakarta Mail (JavaMail)",
        r"javamail|jakarta|angus",
        "Store protocol imaps or pop3s, or mail.imap.starttls.enable and mail.imap.starttls.required true.",
        "https://download.oracle.com/glassfish/mail-archive/javamail.java.net/commits/2008/11/0014.html",
    ),
    Family(
        "MailKit (.NET)",
        r"mailkit",
        "client.Connect(host, 993, SecureSocketOptions.SslOnConnect), or SecureSocketOptions.StartTls on port 143; "
        "never None and never StartTlsWhenAvailable.",
        "https://github.com/jstedfast/MailKit",
    ),
    Family(
        "Python's imaplib or poplib",
        r"imaplib|poplib|python",
        "imaplib.IMAP4_SSL or poplib.POP3_SSL, or starttls() before login(), with ssl.create_default_context().",
        "https://android.googlesource.com/platform/external/python/cpython3/+/9cdf05bc28c/Doc/library/imaplib.rst",
    ),
    Family(
        "Mutt, NeoMutt",
        r"mutt",
        "Folder URLs imaps:// (pops://), or 'set ssl_force_tls = yes', which makes STARTTLS required.",
        "https://red-bean.com/doc/mutt/html/optionalfeatures.html",
    ),
)

_TOLD: Final = [(re.compile(f.told, re.IGNORECASE), f) for f in FAMILIES]
_USERS: Final = [(re.compile(f.user, re.IGNORECASE), f) for f in FAMILIES if f.user]


def family(client: str, user: str = "") -> Family | None:
    """The family of a client by what it says of itself, else by a device's user name."""
    for pattern, found in _TOLD:
        if client and pattern.search(client):
            return found
    for pattern, found in _USERS:
        if user and not client and pattern.search(user):
            return found
    return None


def advise(client: str, user: str, protocol: Protocol, mechanism: str = "", every_s: float = 0.0) -> Advice:
    """What to set in a client. `every_s`: seconds between its logins, where they are known.

    A client that says nothing of itself and logs in every few minutes, day and night, is taken for a program or a
    device rather than for a person's mail program.
    """
    found = family(client, user)
    general = GENERAL[protocol]
    if found is not None:
        return Advice(found.name, found.advice, found.source, found.device)
    if mechanism == "APOP":
        general += " APOP does not replace TLS."
    if 0 < every_s <= 900:
        text = f"{general} It logs in on its own every {max(1, round(every_s / 60))} min: a device or a script."
        return Advice("", text, device=True)
    return Advice("", general)
