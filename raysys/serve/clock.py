"""Steps of the system clock, which the controller of Ray Serve does not survive by itself.

The controller of Ray Serve (2.60) takes its times from the system clock. After a step backwards, it looks for
dead replicas and proxies only when the clock shows again what it showed before: after a step of an hour, an
hour later. A controller that starts looks at once.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import ray
from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

from raysys.tracking.logs import log

_STEP_S = 5.0  # a shorter step delays the controller by less


class ClockWatch:
    """Notices by the monotonic clock when the system clock was set back."""

    def __init__(
        self, system: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._system, self._monotonic = system, monotonic
        self._ahead_s = system() - monotonic()

    def has_stepped_back(self) -> bool:
        """Whether the clock has stepped back since the last call."""
        before, self._ahead_s = self._ahead_s, self._system() - self._monotonic()
        return self._ahead_s < before - _STEP_S


def restart_controller() -> None:
    """Let Ray start the controller again. Requests go on: they do not pass through it."""
    log.warning("serve: the system clock was set back; Ray Serve's controller starts again")
    with contextlib.suppress(ValueError):  # there is none
        controller = ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)
        ray.kill(controller, no_restart=False)
