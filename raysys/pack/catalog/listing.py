"""The names below a folder of a catalogue, without those that copying programs leave behind."""

from __future__ import annotations

from collections.abc import Iterable

from raysys import storage
from raysys.errors import InputError
from raysys.pack.catalog.raw_rows import is_unicode
from raysys.tracking.logs import log

_PHOTO_EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif"),
)


def visible(uri: str, names: Iterable[str]) -> list[str]:
    """The names without hidden ones: `.DS_Store`, `._x.csv`, `__MACOSX/x.csv`; the log counts them."""
    names = list(names)
    hidden = [name for name in names if not is_visible(name)]
    if hidden:
        log.info(
            "     pack  %s: %d hidden files are ignored (first: %s)", uri, len(hidden), _escaped(hidden[0])
        )
    return [name for name in names if is_visible(name)]


def is_visible(name: str) -> bool:
    """Whether no part of a relative path is hidden."""
    return not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def require_readable(uri: str) -> str:
    """The URI itself. Raises: InputError for a file name that is not UTF-8, which Arrow cannot open."""
    if not is_unicode(uri):
        raise InputError(f"{_escaped(uri)}: the name of the file is not UTF-8; rename it")
    return uri


class UnnamedPhotos:
    """The photos of an image folder that no row of its metadata names."""

    def __init__(self, folder: str) -> None:
        """List the folder; afterwards `remove` the photos of all rows."""
        self._folder = folder
        self._photos = {
            storage.join(storage.absolute(folder), name)
            for name in visible(folder, storage.list_files(folder, hidden=True))
            if name.lower().endswith(_PHOTO_EXTENSIONS)
        }

    def remove(self, photos: Iterable[str | bytes]) -> None:
        """Count the photos of rows as named."""
        for photo in photos:
            if not isinstance(photo, str):
                continue
            if photo not in self._photos and storage.is_local(photo):
                photo = storage.absolute(photo)  # without `./` and `..`
            self._photos.discard(photo)

    def report(self) -> None:
        """Log how many photos remain."""
        if self._photos:
            log.warning(
                "     pack  %s: %d photos are in no metadata row and are not packed (first: %s)",
                self._folder,
                len(self._photos),
                _escaped(min(self._photos)),
            )


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
