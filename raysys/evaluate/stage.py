"""`raysys evaluate`: publish a Report on the artifacts of the earlier stages."""

from __future__ import annotations

from raysys.artifacts import ArtifactSpec, Manifest, specs
from raysys.artifacts.build import Step
from raysys.config import Config
from raysys.config.schema import SPLITS


def steps(config: Config) -> list[Step]:
    """One step: publish the Report and add it to the training run in W&B."""
    uri = specs.layout_of(config).report
    return [Step.single(uri, lambda: specs.report(config), lambda spec: _evaluate(config, spec))]


def _evaluate(config: Config, spec: ArtifactSpec) -> Manifest:
    from raysys.encoder.interpolation import read_interpolation
    from raysys.evaluate.evaluation import evaluate, log_report_to_wandb
    from raysys.evaluate.systems import EvaluationInputs
    from raysys.index.device import device_of
    from raysys.tracking.metrics_log import read_metrics

    layout, run_uri = specs.layout_of(config), specs.training_run(config).uri
    is_interpolated = specs.is_interpolated(config)
    inputs = EvaluationInputs(
        name=config.name,
        shard_uris={split: layout.shards(split) for split in SPLITS},
        latent_uri=specs.latent_uri(config),
        start_uri=layout.start_encoder,
        fine_tuned_uri=layout.fine_tuned_encoder if is_interpolated else None,
        method=config.train.method,
        embeddings_uri=layout.embeddings,
        projected_uri=layout.projected_embeddings if config.projection.dimensions else None,
        index_uri=layout.index,
        mobilenet=config.evaluate.mobilenet,
        loss_curve=read_metrics(run_uri),
        interpolation=read_interpolation(layout.encoder) if is_interpolated else None,
        device=device_of("cpu" if config.index.device == "cpu" else "auto"),  # not the machine of the build
    )
    manifest, data = evaluate(spec, inputs, config.evaluate)
    log_report_to_wandb(data, run_uri, config.tracking, config.model_dump(mode="json"))
    return manifest
