"""One JSON line per request on stderr of the gateway replica; no query, no body, no token.

Ray writes the stderr of a replica to a file of its node; the README of this folder says where.
"""

from __future__ import annotations

import json
import logging
import time

from raysys.terminal import printable

_MAX_ID_LENGTH = 64
_log = logging.getLogger("raysys.access")


def start_access_log() -> None:
    """Write the lines to stderr, without the format of Ray Serve's own logs."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    _log.handlers[:] = [handler]
    _log.setLevel(logging.INFO)
    _log.propagate = False


def log_request(
    *, method: str, route: str, status: int, duration_ms: float, request_id: str, token: str | None
) -> None:
    """Log a completed request. `route` is the template, `status` 0 without a response."""
    line = {
        "time": time.time(),
        "method": method,
        "route": route,
        "status": status,
        "ms": round(duration_ms, 2),
        "request_id": printable(request_id, _MAX_ID_LENGTH),  # as the client chose it
        "token": token,
    }
    _log.info("%s", json.dumps(line, ensure_ascii=False))
