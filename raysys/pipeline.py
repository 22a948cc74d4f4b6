"""The stages in the order of the data: run them, or print what they would make."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence

from raysys.artifacts.build import Outcome, Step, plan_steps, run_steps
from raysys.artifacts.vectors import require_vectors
from raysys.config import Config
from raysys.config.schema import DrawnCatalog, SimulatedLog
from raysys.errors import InputError, did_you_mean
from raysys.tracking import logs

STAGES = {
    "pack": "ShardSets from a catalogue",
    "train": "a fine-tuned EncoderBundle from a ShardSet",
    "embed": "an EmbeddingSet from ShardSets and an EncoderBundle",
    "index": "an IndexBundle from an EmbeddingSet",
    "evaluate": "a Report on all of them",
}
FRONTIER = "frontier"  # `raysys index --frontier`: judged by the protocols of `raysys evaluate`


def run_stages(config: Config, names: Sequence[str]) -> Iterator[Outcome]:
    """Run the named stages in order and log one line each.

    Raises: InputError before the first stage if the last one needs an attribute that the catalogue lacks, or
    vectors that do not exist, or if other vectors than the trained encoder's are set for these stages.
    """
    require_own_vectors(config, names)
    require_known_attributes(config, names)
    require_baselines(config, names)
    for name in names:
        outcome = run_stage(name, config)
        if outcome.is_skipped:
            line = logs.skipped_line(name, outcome.num_items, outcome.uri)
        else:
            line = logs.stage_line(name, outcome.num_items, outcome.seconds, outcome.uri)
        logs.log.info(line)
        if outcome.num_refused:
            logs.log.info(
                logs.refused_line(name, outcome.num_items, outcome.refused_by_reason, outcome.ledgers)
            )
        yield outcome


def plan_stages(config: Config, names: Sequence[str]) -> Iterator[str]:
    """The lines of `--dry-run`: each artifact of the named stages and whether it would be made.

    A step whose inputs do not exist yet has one line, without its artifacts.
    """
    require_own_vectors(config, names)
    require_known_attributes(config, names)
    require_baselines(config, names)
    planned: set[str] = set()
    for name in names:
        yield from plan_steps(name, stage_steps(name, config), planned)


def run_stage(name: str, config: Config) -> Outcome:
    """Run one stage; nothing is done if its artifacts are up to date."""
    return run_steps(name, stage_steps(name, config))


def stage_steps(name: str, config: Config) -> list[Step]:
    """The steps of one stage: `raysys.<name>.stage.steps(config)`."""
    folder = "evaluate.frontier" if name == FRONTIER else name
    module = importlib.import_module(f"raysys.{folder}.stage")
    steps: list[Step] = module.steps(config)
    return steps


def require_own_vectors(config: Config, names: Sequence[str]) -> None:
    """Check that stages that need the vectors of the trained encoder do not run with others.

    Raises: InputError for `embed.encoder` or `embed.vectors` in another command than `raysys embed`, and for
    `index.embeddings` before `evaluate`.
    """
    for key, value in (("encoder", config.embed.encoder), ("vectors", config.embed.vectors)):
        if value is not None and [*names] != ["embed"]:
            raise InputError(
                f"embed.{key}: {value} is for `raysys embed` alone, not for {', '.join(names)}; "
                f"remove embed.{key} and embed.to from the configuration"
            )
    if config.index.embeddings is not None and {"index", "evaluate"} <= {*names}:
        raise InputError(
            f"index.embeddings: {config.index.embeddings} is for `raysys index` and `raysys serve`, not for "
            f"{', '.join(names)}: the report is on the index of the trained encoder; set it to null"
        )


def require_baselines(config: Config, names: Sequence[str]) -> None:
    """Check that the vectors of `evaluate.baselines` exist and have the columns, before the first stage.

    Raises: InputError.
    """
    if "evaluate" in names:
        for baseline in config.evaluate.baselines:
            require_vectors(baseline.embeddings)


def require_known_attributes(config: Config, names: Sequence[str]) -> None:
    """Check the attributes that later stages need before the first stage starts.

    Raises: InputError for an attribute that the catalogue does not have.
    """
    if isinstance(config.catalog, DrawnCatalog):
        return
    known = config.catalog.columns.attributes
    needed = {"train.caption_weights": list(config.train.caption_weights)} if "train" in names else {}
    if "evaluate" in names:
        log, protocol = config.evaluate.log, config.evaluate.attribute_precision
        if isinstance(log, SimulatedLog):
            needed["evaluate.log.weights"] = list(log.weights)
        if protocol is not None:
            needed["evaluate.attribute_precision"] = [
                *protocol.where,
                *protocol.exclude_same,
                *protocol.match,
            ]
    for key, attributes in needed.items():
        for name in attributes:
            if name not in known:
                hint = did_you_mean(name, known) or "; name one of them, or add it to them"
                raise InputError(
                    f"{key}: unknown attribute '{name}' "
                    f"(catalog.columns.attributes: {', '.join(known) or 'none'}){hint}"
                )
