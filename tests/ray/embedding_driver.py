"""A driver that embeds, to be killed: `python -m tests.ray.embedding_driver ADDRESS JOB.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import ray

from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest
from raysys.config.schema import EmbedConfig, StreamConfig
from raysys.embed import job
from raysys.embed.delta import find_earlier
from raysys.encoder.image_encoder import describe_image_encoder
from raysys.shards.reader import ShardRef
from raysys.tracking import logs


def main(address: str, job_file: str) -> None:
    """Embed the shards that the file lists; vectors of the published set are carried over."""
    logs.log_to_stderr()
    content = json.loads(Path(job_file).read_text())
    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    spec = ArtifactSpec(content["uri"], EmbeddingSetManifest, {"precision": "fp32", "new": True}, {})
    encoder = describe_image_encoder(content["encoder"])
    job.embed(
        spec,
        encoder,
        [ShardRef(**shard) for shard in content["shards"]],
        EmbedConfig(),
        StreamConfig(decode_concurrency=1),
        earlier=find_earlier(spec, encoder.space_id, EmbedConfig()),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
