"""How and where a measurement was made, for its reader."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time

from raysys import artifacts
from raysys.config.store import without_password


def provenance() -> dict[str, str]:
    """The command, the version of the code, the hardware and the date."""
    return {
        "command": command_line(),
        "code version": artifacts.code_version(),
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def command_line() -> str:
    """The command that runs, as typed in a shell, but without passwords in URLs."""
    return without_password(shlex.join(["raysys", *sys.argv[1:]]))
