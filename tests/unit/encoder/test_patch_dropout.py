"""Which patches a photo keeps, from its seed."""

from __future__ import annotations

import torch

from raysys.encoder.patch_dropout import kept_patches


def test_first_random_numbers_are_those_of_splitmix64() -> None:
    # splitmix64 from state 0 returns e220a8397b1dcdaf, 6e789e6aa1b965f4, 06c45d188009454f, f88bb8a8724c81ec:
    # as signed numbers the order is 0, 3, 2, 1.
    assert [kept_patches(torch.tensor([0]), 4, dropout).tolist() for dropout in (0.75, 0.5, 0.25)] == [
        [[0]],
        [[0, 3]],
        [[0, 2, 3]],
    ]


def test_kept_patches_are_distinct_and_all_patches_are_kept_equally_often() -> None:
    seeds = torch.arange(4000) - 1  # -1 is padding
    kept = kept_patches(seeds, 64, 0.5)
    assert kept.shape == (4000, 32)
    assert bool((kept.diff(dim=1) > 0).all())
    counts = torch.bincount(kept.flatten(), minlength=64)
    assert len(counts) == 64
    assert 2000 - 160 < int(counts.min()) <= int(counts.max()) < 2000 + 160  # five standard deviations
    assert torch.equal(kept[7], kept_patches(seeds[7:8], 64, 0.5)[0])
    assert len({tuple(row) for row in kept.tolist()}) == 4000


def test_at_least_one_patch_is_kept() -> None:
    assert kept_patches(torch.arange(6), 4, 0.99).shape == (6, 1)
