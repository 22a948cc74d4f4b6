"""Measure the frontier of an EmbeddingSet and publish it: JSON for programs, a table, a plot."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, FrontierManifest
from raysys.config import Config
from raysys.evaluate.evaluation import interval_warnings
from raysys.evaluate.frontier.judgement import read_judgement
from raysys.evaluate.frontier.measure import measure, sizes_to_compare
from raysys.evaluate.frontier.plot import frontier_plot
from raysys.evaluate.frontier.table import Frontier, frontier_json, frontier_lines, frontier_markdown
from raysys.evaluate.frontier.vectors import read_stored_vectors
from raysys.evaluate.provenance import command_line, provenance
from raysys.tracking.logs import log

FRONTIER_JSON, FRONTIER_MARKDOWN, FRONTIER_PLOT = "frontier.json", "frontier.md", "frontier.png"


def publish_frontier(
    spec: ArtifactSpec,
    config: Config,
    embeddings_uri: str,
    shard_uris: Mapping[str, str],
    latent_uri: str | None,
) -> FrontierManifest:
    """Measure every size and encoding of the EmbeddingSet's vectors; an earlier Frontier stays until then.

    `shard_uris` are the ShardSets by split; `latent_uri` has the latent attributes of a drawn catalogue.
    Raises: InputError for more dimensions than the vectors have, or a recorded log that is not usable.
    """
    started, seed = time.monotonic(), config.evaluate.seed
    embeddings = artifacts.open_artifact(embeddings_uri, EmbeddingSetManifest)
    sizes = sizes_to_compare(config.frontier.dimensions, embeddings.dimensions)
    judgement = read_judgement(shard_uris, latent_uri, config.evaluate)
    stored = read_stored_vectors(
        embeddings_uri,
        set(judgement.items.item_ids),
        max_items=config.frontier.max_items,
        num_queries=config.index.recall_queries,
        seed=seed,
    )
    judgement = judgement.restrict_to(stored.item_ids)
    rows, left_out = measure(
        stored,
        judgement,
        sizes,
        k=config.index.recall_k,
        whiten=config.projection.whiten,
        samples=config.evaluate.bootstrap_samples,
        seed=seed,
    )
    frontier = Frontier(
        name=config.name,
        rows=rows,
        left_out=left_out,
        absent=judgement.absent,
        simulated=judgement.log is not None and judgement.log.simulated,
        num_items=stored.num_items,
        num_searched=len(stored.base),
        num_queries=len(stored.query_rows),
        provenance={**provenance(), "seed": str(seed)},
        warnings=interval_warnings(judgement.log) if judgement.log else [],
    )
    artifacts.begin(spec)
    content = json.dumps(frontier_json(frontier), indent=2)
    storage.write_bytes(storage.join(spec.uri, FRONTIER_JSON), content.encode())
    storage.write_bytes(storage.join(spec.uri, FRONTIER_PLOT), frontier_plot(frontier))
    text = frontier_markdown(frontier, FRONTIER_PLOT)
    storage.write_bytes(storage.join(spec.uri, FRONTIER_MARKDOWN), text.encode())
    for line in frontier_lines(frontier):
        log.info(line)
    seconds = time.monotonic() - started
    fields = artifacts.common_fields(spec, artifacts.describe_files(spec.uri), len(stored.base), seconds)
    return artifacts.publish(spec.uri, FrontierManifest(**fields, seed=seed, command=command_line()))
