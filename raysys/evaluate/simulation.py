"""A log drawn on the items of an evaluation, from all that their catalogue knows of them."""

from __future__ import annotations

import pyarrow as pa

from raysys.config.schema import SimulatedLog
from raysys.evaluate.items import EvaluationItems, read_latent
from raysys.evaluate.logs import simulate_log


def simulated_log(items: EvaluationItems, latent_uri: str | None, section: SimulatedLog) -> pa.Table:
    """`simulate_log` on these items; `latent_uri` is where a drawn catalogue keeps what its photos show.

    Raises: InputError as `simulate_log` does.
    """
    known = dict(items.attributes)
    groups = items.groups
    if latent_uri:
        known |= read_latent(latent_uri, items.item_ids)
        origins = known["relisted_from"]
        groups = [str(origin or item_id) for origin, item_id in zip(origins, items.item_ids, strict=True)]
    attributes = {name: list(values) for name, values in known.items()}
    return simulate_log(items.item_ids, attributes, section, groups)
