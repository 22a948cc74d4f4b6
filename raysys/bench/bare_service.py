"""The baseline of `raysys bench serve`: FastAPI, uvicorn and FAISS in one process, as a script has them.

It answers two routes of raysys, with the same JSON, from the files of the same bundles. It has no filters,
no limits, no error format and no second replica.
"""

from __future__ import annotations

import sys
import uuid
from typing import Annotated, Any

import faiss
import numpy as np
import pyarrow as pa
import uvicorn
from fastapi import FastAPI, File
from numpy import ndarray

from raysys import artifacts
from raysys.artifacts import IndexBundleManifest
from raysys.artifacts.intact import intact_file
from raysys.columns import ATTRIBUTES, ITEM_ID, TITLE
from raysys.encoder.bundle import open_bundle
from raysys.encoder.preprocess import photo_pixels
from raysys.index.items import items_file
from raysys.index.kinds import search_parameters
from raysys.index.shards import index_file, read_shard

K = 10


def create_app(encoder_uri: str, index_uri: str, device: str, precision: str) -> FastAPI:
    """The application over an EncoderBundle on a device and an IndexBundle of one file."""
    encoder = open_bundle(encoder_uri, device=device, precision=precision)
    manifest = artifacts.open_artifact(index_uri, IndexBundleManifest)
    with intact_file(index_uri, index_file(0), manifest) as path:
        index = read_shard(path)
    with intact_file(index_uri, items_file(0), manifest) as path:
        columns = pa.ipc.open_file(path).read_all().to_pydict()
    parameters = search_parameters(index, manifest.search)
    rows = {item_id: row for row, item_id in enumerate(columns[ITEM_ID])}
    app = FastAPI()

    def item(row: int) -> dict[str, Any]:
        item_id = columns[ITEM_ID][row]
        return {
            "item_id": item_id,
            "title": columns[TITLE][row],
            "attributes": columns[ATTRIBUTES][row],
            "image_url": f"/v1/items/{item_id}/photo",
        }

    def search(vector: ndarray, k: int) -> dict[str, Any]:
        scores, found = index.search(vector[None], k, params=parameters)
        return {
            "exposure_id": uuid.uuid4().hex,
            "arm": "default",
            "space_id": encoder.space_id,
            "index_version": manifest.fingerprint[:12],
            "items": [
                {**item(int(row)), "score": float(score)}
                for score, row in zip(scores[0], found[0], strict=True)
            ],
        }

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        return {"status": "ready"}

    @app.get("/v1/items/{item_id}/similar")
    def similar(item_id: str, k: int = K) -> dict[str, Any]:
        row = rows[item_id]
        result = search(index.reconstruct(row), k + 1)
        others = [neighbour for neighbour in result["items"] if neighbour["item_id"] != item_id]
        return {**result, "query": item(row), "items": others[:k]}

    @app.post("/v1/search")
    def photo(image: Annotated[bytes, File()]) -> dict[str, Any]:
        pixels = photo_pixels(image, encoder.image)
        return search(encoder.embed_pixels(np.stack([pixels]))[0], K)

    return app


def main(encoder_uri: str, index_uri: str, device: str, precision: str, port: str) -> None:
    """Serve on 127.0.0.1 until a signal arrives."""
    faiss.omp_set_num_threads(1)  # as many requests as cores are searched at the same time
    uvicorn.run(
        create_app(encoder_uri, index_uri, device, precision),
        host="127.0.0.1",
        port=int(port),
        log_level="warning",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
