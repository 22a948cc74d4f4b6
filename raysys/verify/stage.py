"""`raysys verify`: find the shards, check them in parallel, print a table or JSON, and repair on request."""

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
from raysys.terminal import print_line, printable
from raysys.verify import find, repair
from raysys.verify.find import ShardSource
from raysys.verify.health import Finding, FindingKind, ShardHealth, first_of_each_kind
from raysys.verify.repair import RepairSummary
from raysys.verify.shard_checks import VerifyResult, verify

_MAX_LOCAL_SHARDS = 4  # up to here, checking local shards one by one is faster than starting a cluster
_MAX_EXAMPLES = {"table": 3, "json": 100}  # findings printed of each kind
_TABLE_WIDTH = 160


def run(
    arguments: Sequence[str], settings: Sequence[str], repair_uri: str | None, as_json: bool, out: TextIO
) -> None:
    """Check the shards that the arguments name, print the result, and write a clean copy to `repair_uri`.

    Raises: InputError for wrong arguments; DamagedData if there is damage and no `repair_uri`.
    """
    config, sources, uri = _parse_arguments(arguments, settings)
    out_uri = storage.absolute(repair_uri) if repair_uri else None
    if out_uri:
        repair.require_empty(out_uri)  # fail now, not after hours of reading
    parallel = _parallel(config, sources)
    max_pixels = int(config.pack.max_megapixels * 1e6)
    result = verify(sources, parallel, max_pixels=max_pixels)
    summary = (
        repair.repair(sources, out_uri, result.repeats, parallel, max_pixels=max_pixels) if out_uri else None
    )
    if as_json:
        print(json.dumps(_to_json(uri, result, out_uri, summary)), file=out)
    else:
        _print_table(result, summary, out)
        print_line(out_uri or uri, out)
    if not out_uri:
        _raise_if_damaged(uri, sources, result)


def _parse_arguments(
    arguments: Sequence[str], settings: Sequence[str]
) -> tuple[Config, list[ShardSource], str]:
    """The configuration, the sources and the URI of all of them; arguments may include settings."""
    is_setting = {
        argument: bool(re.match(r"[a-z][\w.]*=", argument)) and not storage.exists(argument)
        for argument in arguments
    }
    settings = [*settings, *(argument for argument in arguments if is_setting[argument])]
    paths = [argument for argument in arguments if not is_setting[argument]]
    config_files = [path for path in paths if path.endswith((".yaml", ".yml"))]
    if config_files and len(paths) > 1:
        raise InputError(
            f"verify: {config_files[0]} is a configuration and cannot be combined with paths; "
            "give one configuration, or paths of shards"
        )
    if not paths:
        raise InputError("verify: no shards named; give a configuration, or paths of shards")
    config = load_config(config_files[0] if config_files else None, settings)
    storage.configure(config.storage)
    if not config_files:
        sources = find.find_sources(paths)
        return config, sources, storage.absolute(paths[0]) if len(paths) == 1 else _common_folder(sources)
    layout = specs.layout_of(config)
    sources = [find.open_shard_set(layout.shards(split)) for split in SPLITS]
    return config, sources, _common_folder(sources)


def _common_folder(sources: Sequence[ShardSource]) -> str:
    """The folder that contains all sources, or the first source if there is no such folder."""
    parts = find.common_parts([source.uri for source in sources])
    return "/".join(parts) if any(parts[1:]) else sources[0].uri


def _parallel(config: Config, sources: Sequence[ShardSource]) -> Parallel:
    uris = [shard.uri for source in sources for shard in source.shards]
    if len(uris) <= _MAX_LOCAL_SHARDS and all(storage.is_local(uri) for uri in uris):
        return map

    from raysys.cluster.task_map import connected_map

    return connected_map(config.ray)


def _raise_if_damaged(uri: str, sources: Sequence[ShardSource], result: VerifyResult) -> None:
    healths = [*result.shards, *result.folders]
    damaged = [health.uri for health in healths if health.num_damage_findings]
    if damaged:
        num_findings = sum(health.num_damage_findings for health in healths)
        remedy = "`raysys verify .. --repair OUT` writes a clean copy"
        if any(shard.is_indexed for source in sources for shard in source.shards):
            remedy = "training and embedding skip them; after a change of the tars, run `raysys pack` again"
        raise DamagedData(
            f"{uri}: {num_findings} findings of damage in {len(damaged)} of {len(healths)} shards and "
            f"folders (first {damaged[0]}); {remedy}"
        )


def _to_json(
    uri: str, result: VerifyResult, out_uri: str | None, summary: RepairSummary | None
) -> dict[str, Any]:
    healths = [*result.shards, *result.folders]
    return {
        "uri": uri,
        "is_healthy": not any(health.num_damage_findings for health in healths),
        "num_shards": len(result.shards),
        "num_items": sum(health.num_items for health in result.shards),
        "num_bytes": sum(health.num_bytes for health in result.shards),
        "counts": _total_counts(healths),
        "shards": [
            {
                "uri": health.uri,
                "num_items": health.num_items,
                "num_bytes": health.num_bytes,
                "is_healthy": not health.num_damage_findings,
                "counts": health.counts,
            }
            for health in result.shards
        ],
        "findings": [dataclasses.asdict(finding) for finding in _examples(healths, _MAX_EXAMPLES["json"])],
        "repaired": {"uri": out_uri, **dataclasses.asdict(summary)} if summary else None,
    }


def _print_table(result: VerifyResult, summary: RepairSummary | None, out: TextIO) -> None:
    width = None if out.isatty() else _TABLE_WIDTH
    console = rich.console.Console(file=out, width=width, markup=False, highlight=False, emoji=False)
    table = rich.table.Table("shard", box=rich.box.SIMPLE)
    for column in ("items", "bytes"):
        table.add_column(column, justify="right")
    table.add_column("findings")
    for health in result.shards:
        counts = _format_counts(health.counts)
        table.add_row(printable(health.uri), f"{health.num_items:,}", f"{health.num_bytes:,}", counts)
    for health in result.folders:
        if health.counts:
            table.add_row(printable(health.uri), "", "", _format_counts(health.counts))
    console.print(table)
    for finding in _examples([*result.shards, *result.folders], _MAX_EXAMPLES["table"]):
        console.print(printable(_format_finding(finding)), soft_wrap=True)
    if summary:
        console.print(
            f"kept {summary.num_kept:,} samples, lost {summary.num_lost:,} samples and "
            f"{summary.num_parts:,} unidentified parts; {LEDGER} lists the losses",
            soft_wrap=True,
        )


def _format_finding(finding: Finding) -> str:
    kind = finding.kind if finding.is_damage else f"{finding.kind} (a remark)"
    key = f" '{finding.key}'" if finding.key else ""
    return f"{kind}: {finding.uri}#{finding.offset}{key}: {finding.detail}"


def _format_counts(counts: dict[FindingKind, int]) -> str:
    return ", ".join(f"{number:,} {kind}" for kind, number in counts.items()) or "healthy"


def _examples(healths: Sequence[ShardHealth], max_examples: int) -> list[Finding]:
    """The first findings of each kind; kinds in order of first appearance."""
    findings = first_of_each_kind(
        (finding for health in healths for finding in health.findings), max_examples
    )
    kinds = list(dict.fromkeys(finding.kind for finding in findings))
    return sorted(findings, key=lambda finding: kinds.index(finding.kind))


def _total_counts(healths: Sequence[ShardHealth]) -> dict[FindingKind, int]:
    total: collections.Counter[FindingKind] = collections.Counter()
    for health in healths:
        total.update(health.counts)
    return dict(total)
