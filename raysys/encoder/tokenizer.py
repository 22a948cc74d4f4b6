"""A checkpoint's tokenizer; apart from the model, for whoever needs no model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers

from raysys.errors import InputError


def load_tokenizer(source: str | Path, revision: str | None = None) -> Any:
    """The tokenizer of a checkpoint in a folder or at a hub id.

    Raises: InputError if none loads from there.
    """
    quiet_transformers()
    try:
        return transformers.AutoTokenizer.from_pretrained(str(source), revision=revision)
    except (OSError, ValueError) as error:
        raise nothing_loads(source, error) from error


def quiet_transformers() -> None:
    """Keep transformers from printing its configuration and progress bars into our logs."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def nothing_loads(source: str | Path, error: Exception) -> InputError:
    """What to say when transformers cannot load a part of a checkpoint."""
    reason = str(error).strip().split("\n")[0][:160]
    return InputError(
        f"{source}: no checkpoint loads from here ({reason}); give a hub id, a folder or `tiny`"
    )
