"""Export of a checkpoint as an EncoderBundle, which plain `transformers` loads."""

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
    """Publish the EncoderBundle of a checkpoint: the files of the start with the trained weights."""
    start = artifacts.open_artifact(start_uri, EncoderBundleManifest)

    def fill(folder: Path) -> None:
        with (
            storage.readable_folder(start_uri) as start_folder,
            storage.readable_folder(checkpoint_uri) as checkpoint_folder,
        ):
            bundle.copy_checkpoint(start_folder, folder)
            model = siglip.load_model(start_folder)
            load_weights(model, checkpoint_folder)
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
