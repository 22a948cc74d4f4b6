"""From a checkpoint to a bundle that plain `transformers` loads."""

from __future__ import annotations

from pathlib import Path

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EncoderBundleManifest
from raysys.encoder import bundle, siglip
from raysys.encoder.text import TextPreprocessing
from raysys.train.checkpoint.format import load_weights


def export(
    spec: ArtifactSpec,
    checkpoint_uri: str,
    start_uri: str,
    *,
    text: TextPreprocessing,
    num_items: int,
    seconds: float,
) -> EncoderBundleManifest:
    """Publish the EncoderBundle of a checkpoint: the start's files with the trained weights."""
    start = artifacts.open_artifact(start_uri, EncoderBundleManifest)

    def fill(folder: Path) -> None:
        with (
            storage.readable_folder(start_uri) as base,
            storage.readable_folder(checkpoint_uri) as checkpoint,
        ):
            bundle.copy_checkpoint(base, folder)
            model = siglip.load_model(base)
            load_weights(model, checkpoint)
            model.save_pretrained(folder)

    return bundle.publish_bundle(
        spec,
        fill,
        text=text,
        parent_space_id=start.space_id,
        training_run=checkpoint_uri,
        num_items=num_items,
        seconds=seconds,
    )
