"""How a client of the controller's REST side shows that it may read: a token, known to the controller and its users.

`Authorization: Bearer <token>` is the usual way. An API server that proxies a request keeps that header for itself, so
the token may come in a header of its own as well.
"""

from __future__ import annotations

TOKEN_HEADER = "X-Metisfl-Token"
TOKEN_FILE = "token"
"""Key of the token in its Secret, and its file name where it is mounted."""


def token_headers(token: str | None) -> dict[str, str]:
    """What to send along; nothing where no token is asked for."""
    return {TOKEN_HEADER: token} if token else {}
