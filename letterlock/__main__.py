"""Starts the command line."""

from __future__ import annotations

import sys


def main() -> int:
    """The program `letterlock`."""
    from letterlock import app
    from letterlock.faces import cli

    return cli.main(sys.argv[1:], app.Letterlock())


if __name__ == "__main__":
    sys.exit(main())
