"""The random start: equal arguments give equal bytes, and plain transformers loads the result."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from raysys.encoder.bundle import space_id_of
from raysys.encoder.hub import load_tokenizer
from raysys.encoder.scratch import build_scratch
from raysys.encoder.text import TextPreprocessing, to_tokens
from raysys.errors import InputError
from tests.factories import TINY

TITLES = ["red shoes", "blue bag", "green hat with a ribbon", "OLD wooden chair", "RED dress"]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_arguments_give_the_same_bytes_and_space(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    build_scratch(one, TITLES, TINY, seed=7)
    torch.rand(3)  # the state of the global generator has no influence
    build_scratch(other, TITLES, TINY, seed=7)
    assert files_of(one) == files_of(other)
    text = TextPreprocessing(max_length=6)
    assert space_id_of(one, text) == space_id_of(other, text)


def test_seed_changes_only_the_weights(tmp_path: Path) -> None:
    build_scratch(tmp_path / "one", TITLES, TINY, seed=7)
    build_scratch(tmp_path / "other", TITLES, TINY, seed=8)
    one, other = files_of(tmp_path / "one"), files_of(tmp_path / "other")
    assert [name for name in one if one[name] != other[name]] == ["model.safetensors"]


def test_state_of_the_global_generator_is_unchanged(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    build_scratch(tmp_path, TITLES, TINY, seed=7)
    assert (torch.get_rng_state() == before).all()


def test_plain_transformers_loads_the_configured_model(tmp_path: Path) -> None:
    build_scratch(tmp_path, TITLES, TINY, seed=7)
    model: Any = transformers.AutoModel.from_pretrained(tmp_path)
    assert type(model).__name__ == "SiglipModel"
    vision, text = model.config.vision_config, model.config.text_config
    assert (vision.image_size, vision.patch_size, vision.hidden_size) == (16, 8, 16)
    assert (text.max_position_embeddings, text.num_hidden_layers) == (6, 1)
    assert model.logit_scale.item() == pytest.approx(2.302585)  # ln 10
    assert model.logit_bias.item() == TINY.logit_bias


def test_vocabulary_has_at_most_the_configured_size(tmp_path: Path) -> None:
    titles = [f"{colour} {kind}" for colour in TITLES for kind in TITLES]
    build_scratch(tmp_path, titles, TINY.model_copy(update={"vocab_size": 32}), seed=7)
    assert len(load_tokenizer(tmp_path)) <= 32


def test_tokens_depend_on_case_without_lower_case(tmp_path: Path) -> None:
    build_scratch(tmp_path, TITLES, TINY, seed=7)
    preprocessing = TextPreprocessing(max_length=6, lower_case=False)
    upper, lower = to_tokens(load_tokenizer(tmp_path), ["RED", "red"], preprocessing)
    assert upper.tolist() != lower.tolist()


def test_tokenizer_cannot_be_trained_without_titles(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        build_scratch(tmp_path, [], TINY, seed=7)
    assert str(caught.value).startswith("encoder.start: scratch: cannot train a tokenizer on these titles (")
    assert str(caught.value).endswith("); pack more items")
