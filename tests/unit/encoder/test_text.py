"""Title preprocessing: normalisation, tokens and caption keys."""

from pathlib import Path

import numpy as np

from raysys.config.schema import ScratchConfig
from raysys.encoder.hub import load_tokenizer
from raysys.encoder.scratch import build_scratch
from raysys.encoder.text import TextPreprocessing, caption_keys, normalise_title, to_tokens


def test_title_is_normalised_and_lower_cased() -> None:
    title = "  ＲＥＤ\u3000Shoes \t\nﾊﾞｯｸﾞ "  # full-width letters and space, half-width kana
    assert normalise_title(title, TextPreprocessing(max_length=8)) == "red shoes バッグ"
    assert normalise_title(title, TextPreprocessing(8, lower_case=False)) == "RED Shoes バッグ"


def test_tokens_are_padded_and_truncated_to_max_length(tmp_path: Path) -> None:
    titles = ["red shoes", "blue bag", "green hat with a ribbon", "old wooden chair"]
    build_scratch(tmp_path, titles, ScratchConfig(max_length=6, num_layers=1, text_num_layers=1), seed=0)
    tokenizer = load_tokenizer(tmp_path)
    tokens = to_tokens(tokenizer, ["", "green hat with a ribbon"], TextPreprocessing(max_length=6))
    assert tokens.shape == (2, 6)
    assert tokens.dtype == np.int64
    assert tokens[0].tolist() == [tokenizer.eos_token_id] * 6  # SigLIP pads with its end-of-text piece
    assert tokens[1, -1] == tokenizer.eos_token_id
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert (tokens[1, :-1] != tokenizer.pad_token_id).all()


def test_captions_have_equal_keys_if_they_are_equal_after_preprocessing() -> None:
    keys = caption_keys(["Red  Shoes", "red shoes", "blue bag", "", "  "], TextPreprocessing(max_length=8))
    assert keys.dtype == np.int64
    assert keys[0] == keys[1] != keys[2]
    assert keys[3:].tolist() == [0, 0]
