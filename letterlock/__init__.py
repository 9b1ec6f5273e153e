"""Letterlock: secure POP3 and IMAP4 access to mailboxes."""

__version__ = "0.1.0"
