"""The steps of a stage: what each makes, whether that is up to date, and how it is built.

A `Step` is the one description that building, the up-to-date check and `--dry-run` share.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from raysys import storage
from raysys.artifacts.directory import files_uri, find_up_to_date
from raysys.artifacts.embedding_set import LEDGER
from raysys.artifacts.manifest import ArtifactSpec, Manifest, ShardSetManifest
from raysys.errors import DamagedData, MissingArtifact


@dataclass(frozen=True)
class Outcome:
    """The result of a stage; `uri` is the artifact that the next stage opens."""

    stage: str
    uri: str
    num_items: int
    seconds: float
    is_skipped: bool
    num_refused: int = 0
    """Rows of the catalogue that its ShardSets do not hold; `ledgers` list them."""
    refused_by_reason: Mapping[str, int] = field(default_factory=dict)
    ledgers: Sequence[str] = ()


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
    is_final: Callable[[Manifest], bool] = lambda _: True
    """Whether an up-to-date artifact stays; False builds it again from the same request."""

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
        manifests = [manifest for manifest in found if manifest is not None and step.is_final(manifest)]
        if len(manifests) < len(specs):
            storage.require_writable(specs[0].uri)
            manifests, is_skipped = list(step.build(specs)), False
    num_items = sum(manifest.num_items for manifest in manifests)
    seconds = time.monotonic() - started
    return Outcome(stage, specs[0].uri, num_items, seconds, is_skipped, *_refused(specs, manifests))


def _refused(
    specs: Sequence[ArtifactSpec], manifests: Sequence[Manifest]
) -> tuple[int, dict[str, int], list[str]]:
    """The last three fields of an outcome."""
    reasons: collections.Counter[str] = collections.Counter()
    ledgers: list[str] = []
    for spec, manifest in zip(specs, manifests, strict=True):
        if isinstance(manifest, ShardSetManifest) and manifest.num_refused:
            reasons.update(manifest.refused_by_reason)
            ledgers.append(storage.join(files_uri(spec.uri, manifest), LEDGER))
    return reasons.total(), dict(reasons.most_common()), ledgers


def plan_steps(stage: str, steps: Sequence[Step], planned: set[str]) -> Iterator[str]:
    """One line per artifact: its URI, its state and its inputs; one line for a step whose input is missing.

    `planned` holds the URIs that earlier steps and stages will make; this stage's are added to it.
    """
    for step in steps:
        try:
            specs = step.specs()
        except (MissingArtifact, DamagedData) as error:
            if isinstance(error, DamagedData) and not planned:
                raise  # no earlier step makes the damaged input again
            planned |= {*step.uris}
            reason = str(error).split(";")[0]
            yield from (
                f"{stage:>9}  -> {uri}  to be made, after an earlier step ({reason})" for uri in step.uris
            )
            continue
        for spec in specs:
            state = _state(spec, step, planned)
            if state != "up to date":
                planned.add(spec.uri)
            yield f"{stage:>9}  -> {spec.uri}  {state}, from {', '.join(spec.inputs) or 'nothing'}"


def _state(spec: ArtifactSpec, step: Step, planned: Collection[str]) -> str:
    found = find_up_to_date(spec)
    if found is None or not step.is_final(found):
        return "to be made"
    remade = [name for name, entry in spec.inputs.items() if entry.uri in planned]
    return f"to be made again if {' or '.join(remade)} changes" if remade else "up to date"
