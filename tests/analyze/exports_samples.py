"""Exports as people have them: one server, in every form."""

from __future__ import annotations

IMAP_LIST = """\
ProtocolName                      : IMAP4
MaxCommandSize                    : 10240
ShowHiddenFoldersEnabled          : False
UnencryptedOrTLSBindings          : {[::]:143, 0.0.0.0:143}
SSLBindings                       : {[::]:993, 0.0.0.0:993}
InternalConnectionSettings        : {ex01.contoso.test:993:SSL, ex01.contoso.test:143:TLS}
ExternalConnectionSettings        : {}
X509CertificateName               : ex01.contoso.test
Banner                            : The Microsoft Exchange IMAP4 service is ready.
LoginType                         : SecureLogin
AuthenticatedConnectionTimeout    : 00:30:00
PreAuthenticatedConnectionTimeout : 00:01:00
MaxConnections                    : 2147483647
MaxConnectionFromSingleIP         : 2147483647
MaxConnectionsPerUser             : 16
MessageRetrievalMimeFormat        : BestBodyFormat
ProxyTargetPort                   : 1993
CalendarItemRetrievalOption       : iCalendar
OwaServerUrl                      :
EnableExactRFC822Size             : False
SuppressReadReceipt               : False
ProtocolLogEnabled                : False
EnforceCertificateErrors          : False
LogFileLocation                   : C:\\Program Files\\Microsoft\\Exchange Server\\V15\\Logging\\Imap4
LogFileRollOverSettings           : Hourly
LogPerFileSizeQuota               : 0 B (0 bytes)
ExtendedProtectionPolicy          : None
EnableGSSAPIAndNTLMAuth           : True
Server                            : EX01
"""
POP_LIST = (
    IMAP_LIST.replace("IMAP4", "POP3")
    .replace("Imap4", "Pop3")
    .replace("ShowHiddenFoldersEnabled          : False", "MessageRetrievalSortOrder         : Ascending")
    .replace("993", "995")
    .replace("143", "110")
    .replace("10240", "512")
)

FORUM = """\
Hi all,

our scanners stopped logging in after the update. Note: this is Exchange 2016 CU23, and I am not an expert.
This is what I get (sorry for the formatting):

> [PS] C:\\Windows\\system32>Get-ImapSettings -Server EX01 | fl
>
>     UnencryptedOrTLSBindings          : {[::]:143,
>                                         0.0.0.0:143}
>     SSLBindings                       : {[::]:993, 0.0.0.0:993}
>     LoginType                         : PlainTextLogin
>     X509CertificateName               : ex01.contoso.test
>     Banner                            : The Microsoft Exchange IMAP4
>                                         service is ready.

And the services:

Status   Name               DisplayName
------   ----               -----------
Running  MSExchangeIMAP4    Microsoft Exchange IMAP4
Stopped  MSExchangeIMAP4BE  Microsoft Exchange IMAP4 Backend

Any idea? Thanks: Bob
"""

CERTIFICATES = """\
AccessRules        : {System.Security.AccessControl.CryptoKeyAccessRule}
CertificateDomains : {mail.contoso.test, ex01.contoso.test}
HasPrivateKey      : True
IsSelfSigned       : False
Issuer             : CN=Contoso Issuing CA, O=Contoso
NotAfter           : 3/2/2027 11:59:59 PM
NotBefore          : 3/2/2026 12:00:00 AM
PublicKeySize      : 2048
RootCAType         : ThirdParty
SerialNumber       : 0A1B
Services           : IMAP, POP, IIS, SMTP
Status             : Valid
Subject            : CN=mail.contoso.test, O=Contoso
Thumbprint         : AB12CD34EF56AB12CD34EF56AB12CD34EF56AB12

AccessRules        : {System.Security.AccessControl.CryptoKeyAccessRule}
CertificateDomains : {EX01, ex01.contoso.test}
HasPrivateKey      : True
IsSelfSigned       : True
Issuer             : CN=EX01
NotAfter           : 1/15/2029 8:00:00 AM
NotBefore          : 1/15/2024 8:00:00 AM
PublicKeySize      : 2048
RootCAType         : Registry
Services           : SMTP
Status             : Valid
Subject            : CN=EX01
Thumbprint         : 99AACD34EF56AB12CD34EF56AB12CD34EF56AB12
"""

SERVICES_CSV = """\
#TYPE Selected.System.ServiceProcess.ServiceController
"Name","Status","StartType"
"MSExchangeImap4","Running","Automatic"
"MSExchangeIMAP4BE","Running","Automatic"
"MSExchangePop3","Stopped","Manual"
"MSExchangePOP3BE","Stopped","Manual"
"Spooler","Running","Automatic"
"""

CLIXML = """\
<Objs Version="1.1.0.1" xmlns="http://schemas.microsoft.com/powershell/2004/04">
  <Obj RefId="0">
    <TN RefId="0">
      <T>Deserialized.Microsoft.Exchange.Data.Directory.SystemConfiguration.Imap4AdConfiguration</T>
      <T>Deserialized.System.Object</T>
    </TN>
    <ToString>1</ToString>
    <Props>
      <S N="ProtocolName">IMAP4</S>
      <I32 N="MaxCommandSize">10240</I32>
      <B N="ProtocolLogEnabled">true</B>
      <Obj N="SSLBindings" RefId="1">
        <TN RefId="1"><T>Deserialized.Microsoft.Exchange.Data.MultiValuedProperty`1</T></TN>
        <LST><S>[::]:993</S><S>0.0.0.0:993</S></LST>
      </Obj>
      <Obj N="UnencryptedOrTLSBindings" RefId="2"><TNRef RefId="1" /><LST><S>0.0.0.0:143</S></LST></Obj>
      <Obj N="LoginType" RefId="3">
        <TN RefId="2"><T>Microsoft.Exchange.Data.Directory.SystemConfiguration.LoginOptions</T><T>System.Enum</T></TN>
        <ToString>PlainTextAuthentication</ToString>
        <I32>2</I32>
      </Obj>
      <TS N="AuthenticatedConnectionTimeout">PT30M</TS>
      <S N="Banner">Ready_x000D__x000A_now</S>
      <Nil N="OwaServerUrl" />
      <S N="Server">EX01</S>
    </Props>
  </Obj>
</Objs>
"""

JSON = """\
[
  {
    "ProtocolName": "IMAP4",
    "LoginType": 3,
    "SSLBindings": [{"AddressFamily": 2, "Address": "0.0.0.0", "Port": 993}, "[::]:993"],
    "UnencryptedOrTLSBindings": [],
    "AuthenticatedConnectionTimeout": {"Ticks": 18000000000, "TotalSeconds": 1800.0},
    "LogPerFileSizeQuota": {"IsUnlimited": true},
    "ProtocolLogEnabled": false,
    "Server": {"Name": "EX01", "DistinguishedName": "CN=EX01"}
  }
]
"""

CONNECTORS = """\
AuthMechanism      : Tls, Integrated, BasicAuth
Bindings           : {[::]:587, 0.0.0.0:587}
Fqdn               : mail.contoso.test
PermissionGroups   : ExchangeUsers
RequireTLS         : False
TlsCertificateName : <I>CN=Contoso Issuing CA, O=Contoso<S>CN=mail.contoso.test, O=Contoso
TransportRole      : FrontendTransport
Identity           : EX01\\Client Frontend EX01

AuthMechanism      : Tls, Integrated, BasicAuth, BasicAuthRequireTLS, ExchangeServer
Bindings           : {[::]:25, 0.0.0.0:25}
Fqdn               : mail.contoso.test
PermissionGroups   : AnonymousUsers, ExchangeServers, ExchangeLegacyServers
TlsCertificateName :
TransportRole      : FrontendTransport
Identity           : EX01\\Default Frontend EX01
"""

DOVECOT_23 = """\
# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf
# OS: Linux 6.1.0 x86_64 Debian 12.11
# Hostname: mail.contoso.test
auth_mechanisms = plain login
auth_verbose_passwords = plain
disable_plaintext_auth = no
login_trusted_networks = 10.0.0.0/8
mail_location = maildir:~/Maildir
passdb {
  args = /etc/dovecot/secret-users
  driver = passwd-file
}
protocols = " imap pop3"
service imap-login {
  inet_listener imap {
    port = 143
  }
  inet_listener imaps {
    port = 993
    ssl = yes
  }
  process_limit = 500
}
service pop3-login {
  inet_listener pop3 {
    port = 0
  }
}
ssl_cert = </etc/ssl/certs/mail.pem
ssl_cipher_list = ALL:!LOW:!aNULL:RC4
ssl_key = # hidden, use -P to show it
ssl_min_protocol = TLSv1
"""
DOVECOT_24 = """\
# 2.4.1-4 (7d8c0e5759): /etc/dovecot/dovecot.conf
dovecot_config_version = 2.4.1
auth_allow_cleartext = no
protocols {
  imap = yes
}
ssl = required
ssl_server {
  cert_file = /etc/ssl/mail.pem
  key_file = /etc/ssl/mail.key
}
"""
