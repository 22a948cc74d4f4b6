"""Structured initialisation: each head attends to its neighbour."""

from typing import Any

import pytest
import torch
import transformers

from raysys.encoder.structured_init import init_local_attention

SIDE, HEAD_DIM = 6, 32
NEIGHBOURS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]


def make_model(head_dim: int, num_heads: int) -> Any:
    tower = {"hidden_size": head_dim * num_heads, "num_attention_heads": num_heads, "intermediate_size": 8}
    config = transformers.SiglipConfig(
        text_config={**tower, "num_hidden_layers": 1, "vocab_size": 8, "max_position_embeddings": 4},
        vision_config={**tower, "num_hidden_layers": 1, "image_size": 8 * SIDE, "patch_size": 8},
    )
    torch.manual_seed(0)
    return transformers.SiglipModel(config).eval()


@torch.no_grad()
def first_layer_attention(model: Any) -> torch.Tensor:
    """Attention weights (head, from, to) of the first layer for a photo without content."""
    tower = model.vision_model
    positions = tower.embeddings.position_embedding.weight[None]
    layer = tower.encoder.layers[0]
    inputs = layer.layer_norm1(positions)
    queries, keys = (
        projection(inputs).view(SIDE * SIDE, -1, HEAD_DIM).transpose(0, 1)
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj)
    )
    return torch.softmax(queries @ keys.transpose(1, 2) / HEAD_DIM**0.5, dim=-1)


def test_each_head_attends_most_to_its_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(HEAD_DIM, len(NEIGHBOURS))
    neighbours = iter(NEIGHBOURS)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randint", lambda *_: torch.tensor(next(neighbours)))
        init_local_attention(model)
    attended = first_layer_attention(model).argmax(dim=-1)
    inside = [y * SIDE + x for y in range(1, SIDE - 1) for x in range(1, SIDE - 1)]
    for head, (down, right) in enumerate(NEIGHBOURS):
        expected = [position + down * SIDE + right for position in inside]
        assert attended[head, inside].tolist() == expected, (down, right)


def test_head_size_must_be_a_multiple_of_four() -> None:
    with pytest.raises(ValueError, match="a head size of 6 channels is not a multiple of 4"):
        init_local_attention(make_model(6, 2))
