"""`raysys verify`: shards are found, looked at in parallel, told as a table or JSON, repaired if wanted."""

from __future__ import annotations

import collections
import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Any, TextIO

import rich.box
import rich.console
import rich.table

from raysys import storage
from raysys.artifacts import specs
from raysys.config import Config, load_config
from raysys.config.schema import SPLITS
from raysys.errors import DamagedData, InputError
from raysys.parallel import Parallel
from raysys.shards.shard_set import LEDGER
from raysys.verify import find, repair
from raysys.verify.find import ShardSource
from raysys.verify.health import Finding, FindingKind, ShardHealth, first_of_each_kind
from raysys.verify.repair import Repaired
from raysys.verify.shard_checks import Verdict, verify

_FEW_SHARDS = 4  # on this machine's disk: looked at sooner than a cluster starts
_EXAMPLES = {"table": 3, "json": 100}  # of each kind are told
_TABLE_WIDTH = 160


def run(
    words: Sequence[str], settings: Sequence[str], repair_uri: str | None, as_json: bool, out: TextIO
) -> None:
    """Verify what the words mean, print what was found, and write a clean copy if one is wanted.

    Raises: InputError for words that mean nothing; DamagedData if there is damage and no repair is wanted.
    """
    config, sources, uri = _wanted(words, settings)
    out_uri = storage.absolute(repair_uri) if repair_uri else None
    if out_uri:
        repair.require_empty(out_uri)  # before hours of reading
    parallel = _parallel(config, sources)
    max_pixels = int(config.pack.max_megapixels * 1e6)
    verdict = verify(sources, parallel, max_pixels=max_pixels)
    repaired = (
        repair.repair(sources, out_uri, verdict.repeats, parallel, max_pixels=max_pixels) if out_uri else None
    )
    if as_json:
        print(json.dumps(_as_json(uri, verdict, out_uri, repaired)), file=out)
    else:
        _print_table(verdict, repaired, out)
        print(out_uri or uri, file=out)
    if not out_uri:
        _raise_if_damaged(uri, verdict)


def _wanted(words: Sequence[str], settings: Sequence[str]) -> tuple[Config, list[ShardSource], str]:
    """Configuration, sources and the URI for all of them; words may be settings, too."""
    is_setting = {word: bool(re.match(r"[a-z][\w.]*=", word)) and not storage.exists(word) for word in words}
    settings = [*settings, *(word for word in words if is_setting[word])]
    paths = [word for word in words if not is_setting[word]]
    files = [path for path in paths if path.endswith((".yaml", ".yml"))]
    if files and len(paths) > 1:
        raise InputError(
            f"verify: {files[0]} is a configuration and stands alone; give it, or paths of shards"
        )
    if not paths:
        raise InputError("verify: nothing to look at; give a configuration, or paths of shards")
    config = load_config(files[0] if files else None, settings)
    if not files:
        sources = find.find_sources(paths)
        return config, sources, storage.absolute(paths[0]) if len(paths) == 1 else _shared(sources)
    layout = specs.layout_of(config)
    sources = [find.open_shard_set(layout.shards(split)) for split in SPLITS]
    return config, sources, _shared(sources)


def _shared(sources: Sequence[ShardSource]) -> str:
    """The folder that holds all sources; the first, if none does."""
    same = find.shared_parts([source.uri for source in sources])
    return "/".join(same) if any(same[1:]) else sources[0].uri


def _parallel(config: Config, sources: Sequence[ShardSource]) -> Parallel:
    uris = [piece.uri for source in sources for piece in source.pieces]
    if len(uris) <= _FEW_SHARDS and all(storage.is_local(uri) for uri in uris):
        return map

    from raysys.cluster.task_map import connected_map

    return connected_map(config.ray)


def _raise_if_damaged(uri: str, verdict: Verdict) -> None:
    everything = [*verdict.shards, *verdict.folders]
    damaged = [health.uri for health in everything if health.num_damages]
    if damaged:
        num_damages = sum(health.num_damages for health in everything)
        raise DamagedData(
            f"{uri}: {num_damages} damages in {len(damaged)} of {len(everything)} shards and folders "
            f"(first {damaged[0]}); `raysys verify .. --repair OUT` writes a clean copy"
        )


def _as_json(uri: str, verdict: Verdict, out_uri: str | None, repaired: Repaired | None) -> dict[str, Any]:
    everything = [*verdict.shards, *verdict.folders]
    return {
        "uri": uri,
        "is_healthy": not any(health.num_damages for health in everything),
        "num_shards": len(verdict.shards),
        "num_items": sum(health.num_items for health in verdict.shards),
        "num_bytes": sum(health.num_bytes for health in verdict.shards),
        "counts": _total(everything),
        "shards": [
            {
                "uri": health.uri,
                "num_items": health.num_items,
                "num_bytes": health.num_bytes,
                "is_healthy": not health.num_damages,
                "counts": health.counts,
            }
            for health in verdict.shards
        ],
        "findings": [dataclasses.asdict(finding) for finding in _examples(everything, _EXAMPLES["json"])],
        "repaired": {"uri": out_uri, **dataclasses.asdict(repaired)} if repaired else None,
    }


def _print_table(verdict: Verdict, repaired: Repaired | None, out: TextIO) -> None:
    width = None if out.isatty() else _TABLE_WIDTH
    console = rich.console.Console(file=out, width=width, markup=False, highlight=False, emoji=False)
    table = rich.table.Table("shard", box=rich.box.SIMPLE)
    for column in ("items", "bytes"):
        table.add_column(column, justify="right")
    table.add_column("findings")
    for health in verdict.shards:
        table.add_row(health.uri, f"{health.num_items:,}", f"{health.num_bytes:,}", _said(health.counts))
    for health in verdict.folders:
        if health.counts:
            table.add_row(health.uri, "", "", _said(health.counts))
    console.print(table)
    for finding in _examples([*verdict.shards, *verdict.folders], _EXAMPLES["table"]):
        console.print(_line(finding), soft_wrap=True)
    if repaired:
        console.print(
            f"kept {repaired.num_kept:,} samples, lost {repaired.num_lost:,} samples "
            f"and {repaired.num_parts:,} parts that are none: {LEDGER} says which",
            soft_wrap=True,
        )


def _line(finding: Finding) -> str:
    kind = finding.kind if finding.is_damage else f"{finding.kind} (a remark)"
    key = f" '{finding.key}'" if finding.key else ""
    return f"{kind}: {finding.uri}#{finding.offset}{key}: {finding.detail}"


def _said(counts: dict[FindingKind, int]) -> str:
    return ", ".join(f"{number:,} {kind}" for kind, number in counts.items()) or "healthy"


def _examples(everything: Sequence[ShardHealth], examples: int) -> list[Finding]:
    """The first findings of each kind; kinds in the order they were met."""
    found = first_of_each_kind((finding for health in everything for finding in health.findings), examples)
    kinds = list(dict.fromkeys(finding.kind for finding in found))
    return sorted(found, key=lambda finding: kinds.index(finding.kind))


def _total(everything: Sequence[ShardHealth]) -> dict[FindingKind, int]:
    total: collections.Counter[FindingKind] = collections.Counter()
    for health in everything:
        total.update(health.counts)
    return dict(total)
