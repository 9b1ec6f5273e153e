"""Rights of the processes: root only for the moment in which a low port is bound.

Started as root on a data directory that belongs to another user, the supervisor works with that user's rights and
takes root's back only while it binds; workers, which talk to the network, give root up for good.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def lower(data: Path) -> bool:
    """Take on the rights of the owner of `data`; False when we are not root or root owns it."""
    owner = data.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return False
    os.setgroups([])
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    return True


def drop(data: Path) -> None:
    """Make the rights of the owner of `data` the only ones, for good, where this process is root's."""
    owner = data.stat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.setgroups([])
        os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
        os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)


@contextmanager
def raised() -> Iterator[None]:
    """Root's rights again where they were lowered, for a few statements that do not wait."""
    user = os.geteuid()
    if user == 0 or os.getuid() != 0:
        yield
        return
    os.seteuid(0)
    try:
        yield
    finally:
        os.seteuid(user)
