"""What the name of a member means: the key of its sample and its suffix, by WebDataset's rule."""

from __future__ import annotations

from collections.abc import Iterable

# Of a photo, the preferred one first.
PHOTO_SUFFIXES = (
    *("jpg", "jpeg", "jpe", "jfif", "jfi", "jif", "pjpeg", "pjp"),
    *("png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "image"),
)
TEXT_SUFFIXES = ("json", "txt")


def split_name(name: str) -> tuple[str, str]:
    """Key and suffix of a member's name: `a/b.c.JPG` -> (`a/b`, `c.jpg`)."""
    folder, slash, base = name.rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def is_ignored(name: str) -> bool:
    """Whether a member belongs to no sample: hidden files, metadata (`__x`), names without a suffix."""
    *folders, base = name.split("/")
    return base.startswith((".", "__")) or not base.partition(".")[2] or "__MACOSX" in folders


def dotted_keys(names: Iterable[str]) -> dict[str, str]:
    """Names without their last suffix -> keys, where a dot inside of names joins different samples.

    `22.05.jpg`, `22.05.txt` and `22.06.jpg` have the key `22` by WebDataset's rule. They are taken as samples
    `22_05` and `22_06` if no member of `22` is its photo and a photo and a text have the same longer name.
    """
    suffixes_by_key: dict[str, set[str]] = {}
    stems_by_key: dict[str, dict[str, set[str]]] = {}
    for name in names:
        key, suffix = split_name(name)
        suffixes_by_key.setdefault(key, set()).add(suffix)
        if "." in suffix:
            stem, _, last = name.rpartition(".")
            stems_by_key.setdefault(key, {}).setdefault(stem, set()).add(last.lower())
    keys: dict[str, str] = {}
    taken = set(suffixes_by_key)
    for key, stems in stems_by_key.items():
        if has_photo(suffixes_by_key[key]) or not any(map(is_sample, stems.values())):
            continue
        for stem in stems:
            folder, slash, base = stem.rpartition("/")
            new = f"{folder}{slash}{base.replace('.', '_')}"
            while new in taken:
                new += "_"
            taken.add(new)
            keys[stem] = new
    return keys


def has_photo(suffixes: Iterable[str]) -> bool:
    """Whether one of the suffixes is that of a photo."""
    return not set(PHOTO_SUFFIXES).isdisjoint(suffixes)


def is_sample(suffixes: Iterable[str]) -> bool:
    """Whether there are a photo and a text among the suffixes."""
    found = set(suffixes)
    return has_photo(found) and not found.isdisjoint(TEXT_SUFFIXES)
