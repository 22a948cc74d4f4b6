"""Replace an artifact that readers use: the new files lie in a folder of their own beside the old ones.

Writing `manifest.json` above these folders switches from the old artifact to the new one. A reader sees one
of them completely, on an object store as on a local disk, whenever the writer is killed. A reader that opened
the old one finds its files until they are deleted. It never finds other bytes under the same name, because
the name of a folder stands for its content.
"""

from __future__ import annotations

from collections.abc import Collection

from raysys import storage
from raysys.artifacts.directory import MANIFEST, intact_files, publish, read_manifest
from raysys.artifacts.manifest import AnyManifest, ArtifactSpec, Manifest
from raysys.artifacts.served import version_of, versions_in_use
from raysys.errors import DamagedData, InputError


def begin_version(spec: ArtifactSpec) -> str:
    """The folder below `spec.uri` in which the artifact is made while the published one stays.

    Files of an interrupted attempt at the same spec are kept, and so are the intact files of a damaged
    artifact that is made again; files of other attempts are deleted.
    """
    folder = f"version-{spec.spec_hash[:12]}"
    published = _read(spec.uri, spec.manifest)
    if published is not None and published.folder == folder:
        for name in published.files.keys() - intact_files(spec.uri, published):
            storage.delete(storage.join(spec.uri, folder, name))
        storage.delete(storage.join(spec.uri, MANIFEST))
    delete_other_versions(spec.uri, spec.manifest, keep={folder})
    return folder


def publish_version(uri: str, folder: str, manifest: AnyManifest) -> AnyManifest:
    """Make the artifact that is published in `folder`, below `uri`, the artifact at `uri`."""
    return publish(uri, manifest.model_copy(update={"folder": folder}))


def versions_to_keep(uri: str, kind: type[Manifest]) -> set[str]:
    """The folders below `uri` that outlive the next publication: the version that is published, and those
    that services have (`raysys/artifacts/served.py`)."""
    published = _read(uri, kind)
    return versions_in_use(uri) | ({published.folder or version_of(published)} if published else set())


def delete_other_versions(uri: str, kind: type[Manifest], *, keep: Collection[str] = ()) -> None:
    """Delete all files below `uri` except those of the published artifact and of the folders `keep`."""
    published = _published(uri, kind)
    names = storage.list_files(uri, hidden=True)
    unused = [name for name in names if name not in published and name.split("/")[0] not in keep]
    used_folders = {name.rpartition("/")[0].split("/")[0] for name in published}.union(keep)
    is_deleted: set[str] = set()
    for name in unused:
        top, _, rest = name.partition("/")
        path = top if rest and top not in used_folders else name  # a folder of its own: in one call
        if path not in is_deleted:
            storage.delete(storage.join(uri, path))
            is_deleted.add(path)


def _published(uri: str, kind: type[Manifest]) -> Collection[str]:
    """The files of the published artifact, relative to `uri`; none if there is none that can be read."""
    manifest = _read(uri, kind)
    if manifest is None:
        return ()
    if not manifest.folder:
        return {MANIFEST, *manifest.files}
    return {MANIFEST, *(storage.join(manifest.folder, name) for name in (MANIFEST, *manifest.files))}


def _read(uri: str, kind: type[Manifest]) -> Manifest | None:
    """The manifest at `uri`; None if there is none that can be read."""
    try:
        return read_manifest(uri, kind)
    except (DamagedData, InputError):
        return None
