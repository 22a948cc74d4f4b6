"""The stages in the order of the data. A stage is a function of the configuration alone.

It asks `targets` what is wanted, returns at once if that is there, and otherwise connects to Ray and
makes it. Nothing passes from stage to stage but artifacts. What only the making needs is imported there:
torch alone takes seconds, and a stage that is up to date should take none.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raysys import artifacts, storage, targets
from raysys.artifacts import EncoderBundleManifest, Manifest, Target
from raysys.cluster import session
from raysys.config import Config
from raysys.config.schema import ColumnSplit, DrawnCatalog, FolderCatalog, SimulatedLog, TableCatalog
from raysys.errors import InputError, MissingError, did_you_mean
from raysys.records import Piece, Result
from raysys.shard_sets import require_attributes
from raysys.shards import catalog, draw
from raysys.shards.fingerprint import fingerprint
from raysys.shards.splits import SPLITS
from raysys.stream.shard import ShardRef, read_shard, shards_of

if TYPE_CHECKING:
    from raysys.evaluate.guard import Guard
    from raysys.evaluate.validation import Validation
    from raysys.train.launch import Epochs
    from raysys.train.worker.job import TrainJob


@dataclass(frozen=True)
class Outcome:
    """What a stage came to; `uri` is what the next stage opens."""

    stage: str
    uri: str
    num_items: int
    seconds: float
    is_skipped: bool


def pack(config: Config) -> Outcome:
    """Catalogue -> one ShardSet a split."""
    started = time.monotonic()
    table, split = _catalog_table(config), config.pack.split
    files = catalog.sources(table)
    counted = fingerprint(table, files, split.column if isinstance(split, ColumnSplit) else None)
    wanted = {name: targets.shard_set(config, name, table.columns, counted.entry) for name in SPLITS}
    found = {name: artifacts.find_up_to_date(target) for name, target in wanted.items()}
    made: Mapping[str, Manifest | None] = found
    if not (is_skipped := all(found.values())):
        from raysys.shards import job
        from raysys.shards import pack as packing

        session.connect(config.ray)
        source = packing.Catalog(table, files, counted.num_rows)
        made = packing.pack(source, config.pack, wanted, job.RayFlow())
    num_items = sum(manifest.num_items for manifest in made.values() if manifest)
    return Outcome("pack", wanted["train"].uri, num_items, time.monotonic() - started, is_skipped)


def train(config: Config) -> Outcome:
    """ShardSet -> the bundle it starts from, the fine-tuned one, and the one that is delivered."""
    from raysys.encoder.bundle import publish_bundle
    from raysys.encoder.start import fill_start, text_preprocessing

    shards = shards_of(targets.places_of(config).shards("train"))
    measured = functools.cache(lambda: _measured(config))

    def make_start(target: Target) -> Manifest:
        measured()  # what cannot be is told before anything is made
        titles = (stored.item.title for shard in shards for stored in read_shard(shard))
        return publish_bundle(
            target, fill_start(config.encoder, lambda: titles), text=text_preprocessing(config.encoder)
        )

    def make_tuned(target: Target) -> Manifest:
        validation, _ = measured()
        return _fine_tune(config, target, shards, validation)

    def make_delivered(target: Target) -> Manifest:
        from raysys.evaluate import sweep

        places = targets.places_of(config)
        validation, guard = measured()
        assert guard is not None
        line = sweep.Sweep(places.start_encoder, places.tuned_encoder, validation, guard)
        parallel = _parallel(config, config.train.validation.num_gpus)
        return sweep.deliver(target, line, config.train.robust, parallel)

    steps: list[Step] = [(targets.start_encoder, make_start), (targets.tuned_encoder, make_tuned)]
    if targets.is_interpolated(config):
        steps += [(targets.encoder, make_delivered)]
    return _run_steps("train", config, steps)


def embed(config: Config) -> Outcome:
    """ShardSets and the delivered bundle -> EmbeddingSet; then projection and projected EmbeddingSet."""
    places = targets.places_of(config)

    def make_embeddings(target: Target) -> Manifest:
        from raysys.embed import job
        from raysys.encoder.bundle import preprocessing_of

        session.connect(config.ray)
        shards = [shard for split in config.embed.splits for shard in shards_of(places.shards(split))]
        image, _ = preprocessing_of(places.encoder)
        return job.embed(target, places.encoder, shards, image, config.embed, config.stream)

    steps: list[Step] = [(targets.embeddings, make_embeddings)]
    if config.projection.dimensions:
        steps += [
            (targets.projected_encoder, _make_projection(config)),
            (targets.projected_embeddings, _project(config)),
        ]
    return _run_steps("embed", config, steps)


def index(config: Config) -> Outcome:
    """EmbeddingSet -> IndexBundle with its measured recall."""

    def make(target: Target) -> Manifest:
        from raysys.index import job

        return job.index(target, targets.served_embeddings(config), config.index)

    return _run_steps("index", config, [(targets.index, make)])


def evaluate(config: Config) -> Outcome:
    """Everything above -> Report."""
    places = targets.places_of(config)

    def make(target: Target) -> Manifest:
        from raysys.encoder.interpolation import read_interpolation
        from raysys.evaluate import offline
        from raysys.evaluate.rungs import Ladder
        from raysys.train.figures.metrics import read_metrics

        run_uri = targets.training_run(config).uri
        is_interpolated = targets.is_interpolated(config)
        evidence = offline.Evidence(
            name=config.name,
            shard_uris={split: places.shards(split) for split in SPLITS},
            latent_uri=_latent_uri(config),
            ladder=Ladder(
                start_uri=places.start_encoder,
                tuned_uri=places.tuned_encoder if is_interpolated else None,
                recipe=config.train.recipe,
                embeddings_uri=places.embeddings,
                projected_uri=places.projected_embeddings if config.projection.dimensions else None,
                index_uri=places.index,
                mobilenet=config.evaluate.mobilenet,
            ),
            loss_curve=read_metrics(run_uri),
            interpolation=read_interpolation(places.encoder) if is_interpolated else None,
        )
        manifest, data = offline.evaluate(target, evidence, config.evaluate)
        offline.track(data, run_uri, config.tracking, config.model_dump(mode="json"))
        return manifest

    return _run_steps("evaluate", config, [(targets.report, make)])


STAGES: dict[str, Callable[[Config], Outcome]] = {
    "pack": pack,
    "train": train,
    "embed": embed,
    "index": index,
    "evaluate": evaluate,
}


def require_known_attributes(config: Config, names: Sequence[str]) -> None:
    """What the last of the stages needs of the catalogue is asked for before the first begins.

    Raises: InputError for an attribute that the catalogue does not have.
    """
    if isinstance(config.catalog, DrawnCatalog):
        return
    known = config.catalog.columns.attributes
    wanted = {"train.caption_weights": list(config.train.caption_weights)} if "train" in names else {}
    if "evaluate" in names:
        log, shelf = config.evaluate.log, config.evaluate.shelf
        if isinstance(log, SimulatedLog):
            wanted["evaluate.log.weights"] = list(log.weights)
        if shelf is not None:
            wanted["evaluate.shelf"] = [*shelf.where, *shelf.exclude_same, *shelf.match]
    for key, attributes in wanted.items():
        for name in attributes:
            if name not in known:
                hint = did_you_mean(name, known) or "; name one of them, or add it to them"
                raise InputError(
                    f"{key}: unknown attribute '{name}' "
                    f"(catalog.columns.attributes: {', '.join(known) or 'none'}){hint}"
                )


Step = tuple[Callable[[Config], Target], Callable[[Target], Manifest]]


def plan(config: Config, names: Sequence[str]) -> Iterator[str]:
    """A line for each stage: what it would make, and why."""
    delivered = (targets.encoder,) if targets.is_interpolated(config) else ()
    wanted = {
        "train": (targets.start_encoder, targets.tuned_encoder, *delivered),
        "embed": (targets.embeddings,),
        "index": (targets.index,),
        "evaluate": (targets.report,),
    }
    for name in names:
        if name == "pack":
            yield f"{name:>9}  -> {targets.places_of(config).shards('<split>')}"
        for target_of in wanted.get(name, ()):
            yield f"{name:>9}  {_plan_line(config, target_of)}"


def _plan_line(config: Config, target_of: Callable[[Config], Target]) -> str:
    try:
        target = target_of(config)
    except MissingError as error:
        return f"waits for an earlier stage ({str(error).split(';')[0]})"
    state = "up to date" if artifacts.find_up_to_date(target) else "to be made"
    return f"-> {target.uri}  {state}, from {', '.join(target.inputs) or 'nothing'}"


def _run_steps(stage: str, config: Config, steps: Sequence[Step]) -> Outcome:
    """Make what is not up to date; the outcome is the last step's."""
    started, made_any = time.monotonic(), False
    for target_of, make in steps:
        target = target_of(config)
        manifest = artifacts.find_up_to_date(target)
        if manifest is None:
            manifest, made_any = make(target), True
        num_items = manifest.num_items
    return Outcome(stage, target.uri, num_items, time.monotonic() - started, not made_any)


def _catalog_table(config: Config) -> TableCatalog | FolderCatalog:
    table: DrawnCatalog | TableCatalog | FolderCatalog = config.catalog
    if isinstance(table, DrawnCatalog):
        target = targets.drawn_catalog(config)
        if artifacts.find_up_to_date(target) is None:
            draw.draw_catalog(target, table, _parallel(config))
        table = draw.as_table(target.uri)
    return table


def _measured(config: Config) -> tuple[Validation, Guard | None]:
    """What is measured of checkpoints, and of the points between the start and the best of them."""
    from raysys.evaluate.guard import make_guard
    from raysys.evaluate.validation import make_validation

    places = targets.places_of(config)
    is_interpolated = targets.is_interpolated(config)
    guard = make_guard(places.start_encoder, config.train.robust) if is_interpolated else None
    validation = make_validation(
        places.start_encoder,
        shards_of(places.shards("val")),
        config.train.validation,
        config.evaluate,
        _latent_uri(config),
    )
    return validation, guard


def _latent_uri(config: Config) -> str | None:
    """Where a drawn catalogue says what its photos show."""
    is_drawn = isinstance(config.catalog, DrawnCatalog)
    return storage.join(targets.places_of(config).catalog, draw.LATENT) if is_drawn else None


def _fine_tune(config: Config, target: Target, shards: list[ShardRef], validation: Validation) -> Manifest:
    from raysys.encoder.bundle import preprocessing_of
    from raysys.evaluate.sheet import NeighbourSheet
    from raysys.train import launch
    from raysys.train.figures.telling import tell_end
    from raysys.train.run.begin import begin
    from raysys.train.run.export import export
    from raysys.train.run.lock import locked
    from raysys.train.run.registry import newest_step

    started = time.monotonic()
    places, run = targets.places_of(config), targets.training_run(config)
    length = launch.count_steps(sum(shard.num_items for shard in shards), config.train)
    require_attributes(places.shards("train"), config.train.caption_weights, "train.caption_weights")
    with locked(run.home):
        begin(run, config.train, num_steps=length.num_steps, start_uri=places.start_encoder)
        session.connect(config.ray)
        job = _train_job(config, target, run, shards, validation, length)
        sheet = NeighbourSheet(shards_of(places.shards("val")), job.image)
        checkpoint_uri = launch.fit(job, config.stream, validation.measure, sheet.draw)
        manifest = export(
            target,
            checkpoint_uri,
            places.start_encoder,
            text=preprocessing_of(places.start_encoder)[1],
            num_items=newest_step(job.run_uri) * config.train.batch_size,
            seconds=time.monotonic() - started,
        )
        tell_end(job.tracked, job.num_steps, target.uri)
    return manifest


def _train_job(
    config: Config,
    target: Target,
    run: targets.TrainingRun,
    shards: list[ShardRef],
    validation: Validation,
    length: Epochs,
) -> TrainJob:
    """All that a training worker is told."""
    from raysys.encoder.bundle import preprocessing_of
    from raysys.stream.read import rows_per_block
    from raysys.train.worker.job import TrainJob

    start_uri = targets.places_of(config).start_encoder
    image, text = preprocessing_of(start_uri)
    lineage = {name: entry.model_dump() for name, entry in target.inputs.items()}
    return TrainJob(
        run_name=config.name,
        run_uri=run.uri,
        recipe=run.recipe,
        start_uri=start_uri,
        image=image,
        text=text,
        section=config.train,
        tracking=config.tracking,
        config={**config.model_dump(mode="json"), "lineage": lineage},
        shards=shards,
        is_validated=bool(validation.item_ids),
        score=validation.score,
        max_bad_fraction=config.stream.max_bad_fraction,
        rows_per_block=rows_per_block(
            shards,
            config.stream,
            batch_size=config.train.batch_size,
            workers=config.train.workers,
            is_elastic=config.train.is_elastic,
        ),
        seed=config.encoder.seed,
        num_steps=length.num_steps,
        checkpoint_steps=length.checkpoint_steps,
    )


def _make_projection(config: Config) -> Callable[[Target], Manifest]:
    def make(target: Target) -> Manifest:
        from raysys.embed import job
        from raysys.encoder.bundle import copy_checkpoint, preprocessing_of, publish_bundle
        from raysys.encoder.projection import fit_projection

        places = targets.places_of(config)
        assert config.projection.dimensions is not None
        vectors = job.training_vectors(places.embeddings)
        projection = fit_projection(vectors, config.projection.dimensions, seed=config.encoder.seed)

        def fill(folder: Path) -> None:
            with storage.readable_folder(places.encoder) as base:
                copy_checkpoint(base, folder)
            projection.save(folder)

        delivered = artifacts.open_artifact(places.encoder, EncoderBundleManifest)
        return publish_bundle(
            target,
            fill,
            text=preprocessing_of(places.encoder)[1],
            parent_space_id=delivered.space_id,
            training_run=delivered.training_run,
            num_items=len(vectors),
        )

    return make


def _project(config: Config) -> Callable[[Target], Manifest]:
    def make(target: Target) -> Manifest:
        from raysys.embed import job
        from raysys.encoder.projection import load_projection

        places = targets.places_of(config)
        space = artifacts.open_artifact(places.projected_encoder, EncoderBundleManifest)
        with storage.readable_folder(places.projected_encoder) as folder:
            projection = load_projection(folder)
        assert projection is not None
        return job.project(target, places.embeddings, projection, space)

    return make


def _parallel(
    config: Config, num_gpus: float = 0.0
) -> Callable[[Callable[[Piece], Result], Sequence[Piece]], Iterable[Result]]:
    def run(work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> Iterable[Result]:
        session.connect(config.ray)
        return session.parallel_map(work, pieces, num_gpus)

    return run
