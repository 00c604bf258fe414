"""What a command needs beyond the base installation."""

from __future__ import annotations

from importlib.util import find_spec

import click


def require(extra: str, *modules: str) -> None:
    """Raise a ClickException naming the extra to install when a module it brings is missing."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise click.ClickException(
            f"this command needs {', '.join(missing)}, not installed here; install metisfl-operator[{extra}]:\n"
            f"  pip install 'metisfl-operator[{extra}]'"
        )
