"""Make an EncoderBundle the checkpoint of `encoder.start: tiny`: weights in float16, files with checksums.

python -m raysys.encoder.shipping .raysys/pretrain/encoders/tiny
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from raysys.artifacts.shipped import CHECKSUMS, TINY_FOLDER, checksums
from raysys.config.schema import EncoderConfig
from raysys.encoder.siglip import load_model
from raysys.encoder.start import write_start


def ship(bundle: str, folder: Path = TINY_FOLDER) -> None:
    """Write the files of `bundle` to `folder`. Raises: as `write_start`."""
    write_start(folder, EncoderConfig(start=bundle), [])
    load_model(folder).to(torch.float16).save_pretrained(folder)
    (folder / CHECKSUMS).write_text(json.dumps(checksums(folder), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    ship(sys.argv[1])
