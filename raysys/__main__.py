"""`python -m raysys`: the `raysys` command, as jobs on a cluster start it."""

import sys

from raysys.cli import run

if __name__ == "__main__":
    sys.exit(run())
