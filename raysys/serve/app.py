"""The Serve application: checks that encoder and index belong together, then binds the deployments.

`build` is what KubeRay's RayService and `raysys serve` both start. Sizes come from the configuration.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

from ray import serve
from ray.serve import Application

from raysys.artifacts import (
    EncoderBundleManifest,
    IndexBundleManifest,
    open_artifact,
    require_same_space,
    specs,
)
from raysys.cluster import session
from raysys.config import Config, load_config
from raysys.errors import ClusterError
from raysys.serve.encoder_deployment import Encoder
from raysys.serve.gateway import Gateway
from raysys.serve.search_deployment import Searcher

APP_NAME = "raysys"


def build(args: dict[str, Any]) -> Application:
    """The application of `{"config": path, "overrides": [key=value, ..]}`."""
    return bind(load_config(args["config"], list(args.get("overrides", []))))


def bind(config: Config) -> Application:
    """The application of a configuration.

    Raises: MissingError without encoder or index, SpaceMismatch if they are of different spaces.
    """
    encoder_uri, index_uri = specs.served_encoder(config), specs.layout_of(config).index
    encoder = open_artifact(encoder_uri, EncoderBundleManifest)
    index = open_artifact(index_uri, IndexBundleManifest)
    require_same_space(encoder_uri, encoder.space_id, index_uri, index.space_id)
    section = config.serve
    waiting = section.max_batch_size * 4
    encoders = (
        _deployment(Encoder)
        .options(
            num_replicas=section.encoder_replicas,
            max_ongoing_requests=waiting,
            ray_actor_options={"num_cpus": 1, "num_gpus": 1 if section.use_gpu else 0},
        )
        .bind(
            encoder_uri,
            "cuda" if section.use_gpu else "cpu",
            section.max_batch_size,
            section.batch_wait_ms / 1000,
        )
    )
    searchers = (
        _deployment(Searcher)
        .options(
            num_replicas=section.search_replicas,
            max_ongoing_requests=64,
            user_config={"index_uri": index_uri},
        )
        .bind()
    )
    gateway: Application = (
        _deployment(Gateway)
        .options(num_replicas=section.gateway_replicas, max_ongoing_requests=100)
        .bind(section.model_dump(mode="json"), encoders, searchers)
    )
    return gateway


def _deployment(decorated: object) -> serve.Deployment:
    """What `@serve.deployment` makes of a class, whose type it leaves as it was."""
    assert isinstance(decorated, serve.Deployment)
    return decorated


@contextlib.contextmanager
def served(config: Config) -> Iterator[str]:
    """The application up and ready on this Ray session; yields its address, and takes it down at the end.

    Raises: ClusterError if the port is taken or the deployments do not come up.
    """
    section = config.serve
    application = bind(config)
    _require_free_port(section.host, section.port)
    session.connect(config.ray)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(http_options={"host": section.host, "port": section.port})
    try:
        serve.run(application, name=APP_NAME, route_prefix="/")
        yield f"http://{section.host}:{section.port}/"
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[-1][:200]
        raise ClusterError(f"serve: the application did not come up ({reason})") from error
    finally:
        serve.shutdown()


def wait_for_stop() -> None:
    """Return at Ctrl-C or SIGTERM: both are how a service ends."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    while not stopped.wait(1.0):
        pass


def _require_free_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ClusterError(
                f"serve.port {port} on {host}: {error.strerror}; give another with serve.port=.."
            ) from error
