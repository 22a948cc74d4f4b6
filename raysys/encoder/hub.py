"""Whether a model hub id can be had from here, asked once and quickly."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub

from raysys.errors import MissingError

_TIMEOUT_S = 5.0


def require_reachable(source: str, revision: str | None = None) -> None:
    """Nothing if `source` is a folder, in the local cache, or on a hub that answers.

    transformers itself would try each of its files for half a minute.
    Raises: MissingError in one line.
    """
    if Path(source).is_dir() or source.startswith((".", "/")):
        return
    try:
        if isinstance(huggingface_hub.try_to_load_from_cache(source, "config.json", revision=revision), str):
            return
        huggingface_hub.HfApi().model_info(source, revision=revision, timeout=_TIMEOUT_S)
    except Exception as error:  # the hub's client raises errors of whichever HTTP library it uses
        reason = str(error).strip().split("\n")[0][:120]
        raise MissingError(f"{source}: weights not reachable here ({reason}); give a local path") from error
