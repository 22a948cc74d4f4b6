"""Links in a tar: the file whose content a hard link or a symbolic link stands for."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

LinkProblem: TypeAlias = Literal["link", "broken_link", "not_a_file"]


@dataclass(frozen=True)
class Entry:
    """A header of a tar: a file, a link, or something else, such as a device."""

    name: str
    header: int  # offset of the header
    offset: int  # of the content
    num_bytes: int
    link: str | None = None  # the name of the target, as the header states it
    is_symbolic: bool = False
    is_file: bool = True


@dataclass(frozen=True)
class Resolved:
    """Every name with the entry that has its content, and the entries that are not plain files."""

    files: list[tuple[str, Entry]]
    problems: list[tuple[LinkProblem, Entry, str]]


def resolve_links(entries: Sequence[Entry]) -> Resolved:
    """Replace links by the files of the same tar that they name."""
    resolved = Resolved([], [])
    by_path: dict[str, list[Entry]] = {}
    if any(entry.link is not None for entry in entries):
        for entry in entries:
            by_path.setdefault(_normal(entry.name), []).append(entry)
    for entry in entries:
        target = _target(entry, by_path)
        if target is not None:
            resolved.files.append((entry.name, target))
        if entry.link is not None and target is not None:
            detail = f"'{entry.name}' is a link to '{entry.link}': other readers skip it"
            resolved.problems.append(("link", entry, detail))
        elif entry.link is not None:
            detail = f"'{entry.name}' is a link to '{entry.link}', which is not in the tar"
            resolved.problems.append(("broken_link", entry, detail))
        elif target is None:
            detail = f"'{entry.name}' is a device, a pipe or a sparse file"
            resolved.problems.append(("not_a_file", entry, detail))
    return resolved


def _target(entry: Entry, by_path: Mapping[str, Iterable[Entry]]) -> Entry | None:
    """The file at the end of a chain of links: of several with a name the last one before the link."""
    seen: set[int] = set()
    while entry.link is not None:
        seen.add(entry.header)
        folder = posixpath.dirname(entry.name) if entry.is_symbolic else ""
        others = [
            other
            for other in by_path.get(_normal(posixpath.join(folder, entry.link)), ())
            if other.header not in seen
        ]
        if not others:
            return None
        before = [other for other in others if other.header < entry.header]
        entry = before[-1] if before else others[0]
    return entry if entry.is_file else None


def _normal(name: str) -> str:
    return posixpath.normpath(name).lstrip("/")
