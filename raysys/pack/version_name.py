"""The name of the folder with the files of a pack: a hash of what the files will contain.

Equal names mean equal bytes, unless photos changed between scan and writing. So a pack does not overwrite
the files of a published ShardSet with other bytes, and a ShardSet that is packed again without a change keeps
the URIs that embeddings and later packs refer to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import pyarrow as pa

from raysys.artifacts import InputEntry, canonical_json
from raysys.artifacts.manifest import FORMAT
from raysys.pack.plan import Plan

_REFERRED = ("parent/", "tars")


def version_name(plan: Plan, refusals: Iterable[pa.Table], inputs: Mapping[str, InputEntry]) -> str:
    """The folder for the tars of a plan, the ledger of its refused rows, and its table of items.

    Of `inputs` count those whose tars the ShardSet refers to.
    """
    referred = {name: entry.fingerprint for name, entry in inputs.items() if name.startswith(_REFERRED)}
    digest = hashlib.sha256(canonical_json([FORMAT, plan.digest, referred]).encode())
    for table in refusals:
        for row in table.to_pylist():
            digest.update(canonical_json(row).encode())
    return f"version-{digest.hexdigest()[:12]}"
