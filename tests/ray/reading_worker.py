"""A process that reads the training stream and logs every global batch; `test_kills.py` kills it."""

from __future__ import annotations

import json
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from raysys.config.schema import StreamConfig
from raysys.shards.reader import ShardRef
from raysys.stream.concurrency import Concurrency
from raysys.stream.read import training_stream

BATCH = 8
_PAUSE_S = 0.01  # between batches, so that kills hit all phases


def decode(block: pa.Table) -> dict[str, np.ndarray]:
    """Position and number of each sample."""
    return {
        "position": block.column("stream_position").to_numpy(),
        "number": np.array([int(item_id[1:]) for item_id in block.column("item_id").to_pylist()]),
    }


def main(address: str, shards_file: str, log: str, ranks: int, stop: int) -> None:
    """Continue after the last batch in the log, with `ranks` consumers, up to the batch `stop`."""
    ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    shards = [ShardRef(**fields) for fields in json.loads(Path(shards_file).read_text())]
    first = len(Path(log).read_text().splitlines())
    stream = training_stream(
        shards,
        decode,
        StreamConfig(shuffle_window_shards=2),
        Concurrency(decoders=2, readers=1),
        seed=7,
        start=first * BATCH,
        stop=stop * BATCH,
        rows_per_block=BATCH // ranks,
    )
    splits: list[Any] = stream.streaming_split(ranks, equal=True)  # Ray's types do not allow batch_size=None
    parts = [split.iter_batches(batch_size=None, batch_format="numpy") for split in splits]
    iterators = [iter(part) for part in parts]
    with ThreadPoolExecutor(ranks) as pool, Path(log).open("a") as out:
        for _ in range(first, stop):
            batch = list(pool.map(next, iterators))
            rows = [pair for part in batch for pair in zip(part["position"].tolist(), part["number"].tolist(), strict=True)]  # fmt: skip
            out.write(json.dumps(sorted(rows)) + "\n")
            out.flush()
            time.sleep(_PAUSE_S)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
