"""The failures a peer, a user or an administrator can meet, and what each is told.

Everything that is neither `Malformed` nor `Refused` is our own fault: the peer gets one fixed sentence and the
log the traceback.
"""

from __future__ import annotations


class LetterlockError(Exception):
    """Base of the two failures that carry a sentence for somebody outside the program."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Malformed(LetterlockError):
    """The peer's programmer must act: IMAP `BAD`, POP3 `-ERR`; a wrong parameter in management (exit status 2)."""


class Refused(LetterlockError):
    """The peer's user or the administrator must act: IMAP `NO [CODE]`, POP3 `-ERR [CODE]`; exit status 1.

    `code` is the response code without brackets, from RFC 5530, RFC 3501 §7.1, RFC 2449 §8 or RFC 3206
    (b"AUTHENTICATIONFAILED", b"TRYCREATE", …); b"" where the protocol has none. POP3 maps it to its own codes.
    """

    def __init__(self, text: str, code: bytes = b"") -> None:
        super().__init__(text)
        self.code = code
