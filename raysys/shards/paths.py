"""The paths of shards as users write them: ranges in braces, wildcards, names of tars."""

from __future__ import annotations

import math
import re

import braceexpand

from raysys import storage
from raysys.errors import InputError

# The end of the name of a shard, which may be compressed.
TAR_NAME = re.compile(r"\.(tar(\.(gz|bz2|xz|zst))?|t(gz|bz2?|xz|zst))$", re.IGNORECASE)
WILDCARD = re.compile(r"[*?\[]")
_BRACE_RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)")
_MAX_PATHS = 1_000_000


def expand_braces(path: str) -> list[str]:
    """The paths that braces stand for; the path itself if it exists as it is written.

    Raises: InputError for unbalanced braces, and for more than a million paths.
    """
    if "{" not in path or storage.exists(path):
        return [path]
    ranges = [[int(number) for number in match] for match in _BRACE_RANGE.findall(path)]
    num_paths = math.prod(abs(stop - start) + 1 for start, stop in ranges)  # braceexpand holds them in memory
    if num_paths > _MAX_PATHS:
        raise InputError(f"{path}: its braces stand for {num_paths:,} paths; name at most {_MAX_PATHS:,}")
    try:
        return list(braceexpand.braceexpand(path))
    except ValueError as error:
        raise InputError(f"{path}: no such file, and its braces are unbalanced; close them") from error
