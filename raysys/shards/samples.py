"""Group the members of a tar into samples, as WebDataset does, and report every fault of the grouping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from raysys.shards.names import PHOTO_SUFFIXES, dotted_keys, is_ignored, is_sample, split_name
from raysys.shards.tar import Fault, Member


@dataclass(frozen=True)
class Sample:
    """The members of one key: suffix (lower case, without the dot) -> member.

    If members are repeated, `others` are alternatives to `members`, which may be intact where those are not.
    """

    key: str
    members: Mapping[str, Member]
    others: tuple[Mapping[str, Member], ...] = ()

    def photo(self) -> Member | None:
        """The member with the photo, in any format; None if there is none."""
        return next((self.members[suffix] for suffix in PHOTO_SUFFIXES if suffix in self.members), None)

    def variants(self) -> list[Sample]:
        """The sample and its alternatives, the preferred one first."""
        return [Sample(self.key, members) for members in (self.members, *self.others)]


def group_samples(members: Iterable[Member]) -> tuple[list[Sample], list[Fault]]:
    """Members grouped into samples by key, and the faults of the grouping.

    A key that appears again after another key, a repeated suffix and keys out of order are faults. Members
    that belong to no sample (`is_ignored`) are reported, too.
    """
    members = list(members)
    dotted = dotted_keys(member.name for member in members if not is_ignored(member.name))
    runs_by_key: dict[str, list[dict[str, Member]]] = {}  # adjacent members without a repeated suffix
    faults: list[Fault] = []
    previous = ""
    for member in members:
        if is_ignored(member.name):
            faults.append(Fault("ignored_member", member.offset, f"'{member.name}' belongs to no sample"))
            continue
        key, suffix = split_name(member.name)
        stem, _, last = member.name.rpartition(".")
        if stem in dotted:
            if dotted[stem] not in runs_by_key:
                detail = f"'{stem}' has a dot, other readers use the key '{key}'; here it is '{dotted[stem]}'"
                faults.append(Fault("dotted_name", member.offset, detail, dotted[stem]))
            key, suffix = dotted[stem], last.lower()
        runs = runs_by_key.setdefault(key, [])
        if runs and key != previous:
            detail = f"'{member.name}' is separated from the other members of its sample"
            faults.append(Fault("scattered_key", member.offset, detail, key))
        elif key < previous:
            faults.append(Fault("unsorted", member.offset, f"'{key}' comes after '{previous}'", key))
        if any(suffix in run for run in runs):
            faults.append(Fault("repeated_member", member.offset, f"'{member.name}' is repeated", key))
        if not runs or key != previous or suffix in runs[-1]:
            runs.append({})
        runs[-1][suffix] = member
        previous = key
    return [_sample(key, runs) for key, runs in runs_by_key.items()], faults


def _sample(key: str, runs: list[dict[str, Member]]) -> Sample:
    """The runs of a key joined; of a repeated suffix, the members of a run with photo and text are preferred.

    So the photo of one sample is not joined with the text of another one that has the same key.
    """
    if len(runs) == 1:
        return Sample(key, runs[0])
    joined: dict[str, Member] = {}
    for run in runs:
        for suffix, member in run.items():
            joined.setdefault(suffix, member)
    choices: list[Mapping[str, Member]] = [*(joined | run for run in runs if is_sample(run)), joined]
    distinct = [choice for number, choice in enumerate(choices) if choice not in choices[:number]]
    return Sample(key, distinct[0], tuple(distinct[1:]))
