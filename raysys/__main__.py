"""`python -m raysys`: the same as the `raysys` command; jobs on a cluster start this way."""

import sys

from raysys.cli import main

if __name__ == "__main__":
    sys.exit(main())
