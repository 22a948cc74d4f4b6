"""The steps of a stage: what each makes, whether that is up to date, and how it is built.

A `Step` is the one description that building, the up-to-date check and `--dry-run` share.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

from raysys import storage
from raysys.artifacts.directory import find_up_to_date
from raysys.artifacts.manifest import ArtifactSpec, Manifest
from raysys.errors import MissingArtifact


@dataclass(frozen=True)
class Outcome:
    """The result of a stage; `uri` is the artifact that the next stage opens."""

    stage: str
    uri: str
    num_items: int
    seconds: float
    is_skipped: bool


@dataclass(frozen=True)
class Step:
    """Artifacts that are built together, at `uris`.

    `specs` is called once the steps before it are done, because a spec holds the fingerprints of its inputs.
    It raises MissingArtifact while an input does not exist. `build` receives the specs and returns their
    manifests in the same order. Both may import what takes seconds to import; a stage module does not.
    """

    uris: Sequence[str]
    specs: Callable[[], Sequence[ArtifactSpec]]
    build: Callable[[Sequence[ArtifactSpec]], Sequence[Manifest]]

    @classmethod
    def single(
        cls, uri: str, spec: Callable[[], ArtifactSpec], build: Callable[[ArtifactSpec], Manifest]
    ) -> Step:
        """A step that makes one artifact."""
        return cls([uri], lambda: [spec()], lambda specs: [build(specs[0])])


def run_steps(stage: str, steps: Sequence[Step]) -> Outcome:
    """Build what is not up to date, in order. The outcome describes the last step: its first artifact's URI
    and the items of all its artifacts.

    Raises: ValueError without a step.
    """
    if not steps:
        raise ValueError(f"stage {stage} has no steps")
    started, is_skipped = time.monotonic(), True
    for step in steps:
        specs = step.specs()
        assert [spec.uri for spec in specs] == [*step.uris], "a step makes what its plan lists"
        found = [find_up_to_date(spec) for spec in specs]
        manifests = [manifest for manifest in found if manifest is not None]
        if len(manifests) < len(specs):
            storage.require_writable(specs[0].uri)
            manifests, is_skipped = list(step.build(specs)), False
    num_items = sum(manifest.num_items for manifest in manifests)
    return Outcome(stage, specs[0].uri, num_items, time.monotonic() - started, is_skipped)


def plan_steps(stage: str, steps: Sequence[Step], planned: set[str]) -> Iterator[str]:
    """One line per artifact: its URI, its state and its inputs; one line for a step whose input is missing.

    `planned` holds the URIs that earlier steps and stages will make; this stage's are added to it.
    """
    for step in steps:
        try:
            specs = step.specs()
        except MissingArtifact as error:
            planned |= {*step.uris}
            reason = str(error).split(";")[0]
            yield from (
                f"{stage:>9}  -> {uri}  to be made, after an earlier step ({reason})" for uri in step.uris
            )
            continue
        for spec in specs:
            state = _state(spec, planned)
            if state != "up to date":
                planned.add(spec.uri)
            yield f"{stage:>9}  -> {spec.uri}  {state}, from {', '.join(spec.inputs) or 'nothing'}"


def _state(spec: ArtifactSpec, planned: Collection[str]) -> str:
    if find_up_to_date(spec) is None:
        return "to be made"
    remade = [name for name, entry in spec.inputs.items() if entry.uri in planned]
    return f"to be made again if {' or '.join(remade)} changes" if remade else "up to date"
