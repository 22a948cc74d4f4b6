"""The steps of a stage: what is built, what is skipped, and what a plan prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, CatalogManifest, Manifest
from raysys.artifacts.build import Step, plan_steps, run_steps


class Chain:
    """Two steps: `first`, and `second` made from it. `built` records what was built."""

    def __init__(self, root: Path, content: str = "a") -> None:
        self.root, self.content = root, content
        self.built: list[str] = []

    @property
    def steps(self) -> list[Step]:
        return [
            Step.single(f"{self.root}/first", self.first, self.build),
            Step.single(f"{self.root}/second", self.second, self.build),
        ]

    def first(self) -> ArtifactSpec:
        return ArtifactSpec(f"{self.root}/first", CatalogManifest, {"content": self.content}, {})

    def second(self) -> ArtifactSpec:
        inputs = {"first": artifacts.as_input(f"{self.root}/first", CatalogManifest)}
        return ArtifactSpec(f"{self.root}/second", CatalogManifest, {}, inputs)

    def build(self, spec: ArtifactSpec) -> Manifest:
        self.built.append(Path(spec.uri).name)
        artifacts.begin(spec)
        Path(spec.uri, "data").write_text(str(spec.config))
        files = artifacts.describe_files(spec.uri)
        return artifacts.publish(spec.uri, CatalogManifest(**artifacts.common_fields(spec, files, 3, 0.0)))


def test_steps_are_built_in_order_and_then_skipped(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    outcome = run_steps("pack", chain.steps)
    assert chain.built == ["first", "second"]
    assert (outcome.uri, outcome.num_items, outcome.is_skipped) == (f"{tmp_path}/second", 3, False)
    assert run_steps("pack", chain.steps).is_skipped
    assert chain.built == ["first", "second"]


def test_changed_input_rebuilds_its_children(tmp_path: Path) -> None:
    run_steps("pack", Chain(tmp_path).steps)
    changed = Chain(tmp_path, "b")
    assert not run_steps("pack", changed.steps).is_skipped
    assert changed.built == ["first", "second"]


def test_stage_without_steps_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pack"):
        run_steps("pack", [])


def test_plan_before_the_first_run_waits_for_inputs(tmp_path: Path) -> None:
    first, second = plan_steps("pack", Chain(tmp_path).steps, set())
    assert first == f"     pack  -> {tmp_path}/first  to be made, from nothing"
    assert second == (
        f"     pack  -> {tmp_path}/second  to be made, after an earlier step "
        f"({tmp_path}/first: no Catalog here (no manifest.json))"
    )


def test_plan_of_an_up_to_date_chain_makes_nothing(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    run_steps("pack", chain.steps)
    assert [line.split("  ")[-1] for line in plan_steps("pack", chain.steps, set())] == [
        "up to date, from nothing",
        "up to date, from first",
    ]


def test_plan_names_what_is_made_again_if_its_input_changes(tmp_path: Path) -> None:
    run_steps("pack", Chain(tmp_path).steps)
    assert [line.split("  ")[-1] for line in plan_steps("pack", Chain(tmp_path, "b").steps, set())] == [
        "to be made, from nothing",
        "to be made again if first changes, from first",
    ]
