"""Access to Hugging Face checkpoints, by hub id or folder, with errors of one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import transformers

from raysys.errors import InputError, MissingError

_TIMEOUT_S = 5.0


def load_tokenizer(source: str | Path, revision: str | None = None) -> Any:
    """The tokenizer of a checkpoint.

    Raises: InputError if it cannot be loaded.
    """
    silence_transformers()
    try:
        return transformers.AutoTokenizer.from_pretrained(str(source), revision=revision)
    except (OSError, ValueError) as error:
        raise checkpoint_error(source, error) from error


def require_reachable(source: str, revision: str | None = None) -> None:
    """Check that `source` is a folder, is in the local cache, or is on a hub that responds.

    Without this check transformers retries each file of an unreachable checkpoint for half a minute.
    Raises: MissingError.
    """
    if Path(source).is_dir() or source.startswith((".", "/")):
        return
    try:
        if isinstance(huggingface_hub.try_to_load_from_cache(source, "config.json", revision=revision), str):
            return
        huggingface_hub.HfApi().model_info(source, revision=revision, timeout=_TIMEOUT_S)
    except Exception as error:  # the client raises errors of the HTTP library that it uses
        reason = str(error).strip().split("\n")[0][:120]
        raise MissingError(f"{source}: weights not reachable here ({reason}); give a local path") from error


def checkpoint_error(source: str | Path, error: Exception) -> InputError:
    """The error to raise when transformers cannot load a part of a checkpoint."""
    reason = str(error).strip().split("\n")[0][:160]
    return InputError(f"{source}: cannot load a checkpoint ({reason}); give a hub id, a folder or `tiny`")


def silence_transformers() -> None:
    """Stop transformers from writing warnings and progress bars to the log."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
