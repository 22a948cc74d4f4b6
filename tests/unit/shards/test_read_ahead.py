"""A stream that reads ahead gives the bytes of the other one, in few reads."""

from __future__ import annotations

import io
import random
from typing import IO, cast

from raysys.shards.read_ahead import ReadAhead

DATA = random.Random(1).randbytes(100_000)


def test_reads_at_any_place_equal_those_of_the_stream() -> None:
    rng = random.Random(2)
    ahead, plain = ReadAhead(io.BytesIO(DATA)), io.BytesIO(DATA)
    for _ in range(2000):
        offset, num_bytes = rng.randrange(110_000), rng.choice([0, 1, 512, 9000])
        ahead.seek(offset)
        plain.seek(offset)
        assert ahead.read(num_bytes) == plain.read(num_bytes)
    ahead.seek(-5, io.SEEK_END)
    assert (ahead.read(), ahead.tell()) == (DATA[-5:], len(DATA))


def test_neighbours_need_no_second_read() -> None:
    ahead = ReadAhead(cast(IO[bytes], io.BytesIO(DATA)))
    for offset in (50_000, 50_512, 51_000, 50_000):
        ahead.seek(offset)
        ahead.read(512)
    assert ahead.num_read == 8192
