"""Access to Hugging Face checkpoints, by hub id or folder, with errors of one line.

Every wait for the hub has a limit (`hub.contact_timeout_s`, `hub.download_timeout_s`), is logged, and ends at
Ctrl-C.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
import huggingface_hub.constants
import transformers

from raysys.encoder import hub_limits
from raysys.errors import InputError, MissingError
from raysys.parallel import TimeLimitExceeded, call_within

Loaded = TypeVar("Loaded")
_CLIENT_TIMEOUTS = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")


def load_tokenizer(source: str | Path, revision: str | None = None) -> Any:
    """The tokenizer of a checkpoint.

    Raises: InputError if it cannot be loaded; as `load`.
    """
    silence_transformers()
    try:
        return load(
            source, lambda: transformers.AutoTokenizer.from_pretrained(str(source), revision=revision)
        )
    except (OSError, ValueError) as error:
        raise checkpoint_error(source, error) from error


def require_reachable(source: str, revision: str | None = None) -> None:
    """Check that `source` is a folder, is in the local cache, or is on a hub that responds.

    Without this check transformers retries each file of an unreachable checkpoint for half a minute.
    Raises: MissingError.
    """
    if _is_folder(source):
        return
    _require_hub_id(source)
    timeout_s = hub_limits.current().contact_timeout_s
    hub = huggingface_hub.HfApi()
    try:
        if isinstance(huggingface_hub.try_to_load_from_cache(source, "config.json", revision=revision), str):
            return
        call_within(
            timeout_s,
            lambda: hub.model_info(source, revision=revision, timeout=timeout_s),
            f"{source} at {hub.endpoint}",
        )
    except TimeLimitExceeded as error:
        raise MissingError(
            f"{source}: weights not reachable here ({hub.endpoint} gave {error}); give a local path, or "
            "raise hub.contact_timeout_s"
        ) from error
    except Exception as error:  # the client raises errors of the HTTP library that it uses
        raise MissingError(
            f"{source}: weights not reachable here ({_reason(error)}); give a local path"
        ) from error


def _require_hub_id(source: str) -> None:
    try:
        huggingface_hub.utils.validate_repo_id(source)
    except huggingface_hub.utils.HFValidationError as error:
        raise MissingError(
            f"{source}: neither a folder here nor an id of the Hugging Face hub (owner/model); check the path"
        ) from error


def load(source: str | Path, from_pretrained: Callable[[], Loaded]) -> Loaded:
    """`from_pretrained()`, which downloads from the hub what is not in the local cache.

    Raises: MissingError if the hub stops answering or `hub.download_timeout_s` is over, and the errors of
    transformers for a checkpoint that it cannot load: OSError, ValueError, KeyError.
    """
    if _is_folder(source):
        return from_pretrained()
    limits = hub_limits.current()
    _set_client_timeouts(limits.contact_timeout_s)
    try:
        return call_within(limits.download_timeout_s, from_pretrained, f"{source} from the hub")
    except TimeLimitExceeded as error:
        raise MissingError(
            f"{source}: not downloaded within {limits.download_timeout_s:g} s; the same command continues, "
            "or raise hub.download_timeout_s"
        ) from error
    except Exception as error:
        if (cause := _network_error(error)) is None:
            raise
        raise MissingError(
            f"{source}: the download from the hub stopped ({_reason(cause)}); the same command continues, or "
            "give a local path"
        ) from error


def checkpoint_error(source: str | Path, error: Exception) -> InputError:
    """The error to raise when transformers cannot load a part of a checkpoint."""
    reason = str(error).strip().split("\n")[0][:160]
    return InputError(
        f"{source}: cannot load a checkpoint ({reason}); give a hub id, a folder, `tiny` or `scratch`"
    )


def silence_transformers() -> None:
    """Stop transformers and the hub's client from writing warnings and progress bars to the log."""
    huggingface_hub.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def _is_folder(source: str | Path) -> bool:
    return Path(source).is_dir()


def _set_client_timeouts(timeout_s: float) -> None:
    """Make the hub's client use our limit between two packets, unless the user's environment has its own."""
    for name in _CLIENT_TIMEOUTS:
        if not os.environ.get(name):
            setattr(huggingface_hub.constants, name, math.ceil(timeout_s))


def _network_error(error: BaseException) -> BaseException | None:
    """The error of the HTTP library (httpx) behind one of transformers, which does not mention it."""
    link: BaseException | None = error
    while link is not None and not type(link).__module__.startswith("httpx"):
        link = link.__cause__ or link.__context__
    return link


def _reason(error: BaseException) -> str:
    return str(error).strip().split("\n")[0][:120] or type(error).__name__
