"""CPU time of a process and all its descendants by what they do; it does not grow while a machine is busy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import psutil

OTHERS = "others"


def cpu_seconds(roles: Mapping[str, str]) -> dict[str, float]:
    """CPU seconds so far of this process and its descendants that live, by role.

    `roles` has a part of a command line for each role; Ray names its workers by what they run. The processes
    without one count as OTHERS.
    """
    seconds: dict[str, float] = defaultdict(float)
    this = psutil.Process()
    for process in [this, *this.children(recursive=True)]:
        try:
            times, command = process.cpu_times(), " ".join(process.cmdline())
        except psutil.Error:
            continue  # it has ended in the meantime
        role = next((role for role, part in roles.items() if part in command), OTHERS)
        seconds[role] += times.user + times.system
    return dict(seconds)
