"""The Serve application: the deployments of a configuration, and running them until a signal arrives.

KubeRay's RayService and `raysys serve` start the same application. Replica counts come from the
configuration.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, BackpressureConfig

from raysys import storage
from raysys.artifacts import IndexBundleManifest, open_artifact, specs
from raysys.artifacts.served import ServedPair
from raysys.cluster import nodes, session
from raysys.cluster.capacity import Demand
from raysys.config import Config, load_config
from raysys.config.schema import ServeConfig
from raysys.errors import ClusterError
from raysys.index.device import device_of
from raysys.index.partition import Partition
from raysys.index.parts import num_files
from raysys.index.search import require_gpu_kind
from raysys.serve import gateway_scaling
from raysys.serve.admission import requests_per_encoder
from raysys.serve.clock import ClockWatch, restart_controller
from raysys.serve.coordinator import Coordinator
from raysys.serve.encoder_deployment import EncoderDeployment
from raysys.serve.error_responses import RETRY_AFTER_S
from raysys.serve.follower import FollowerConfig
from raysys.serve.gateway import Gateway
from raysys.serve.index_service import IndexSettings
from raysys.serve.item_writer import ItemWriterConfig
from raysys.serve.search_deployment import SEARCHER, SearchDeployment
from raysys.serve.tokens import Access, access_of
from raysys.serve.tracing import tracing_options
from raysys.serve.versions import pair_to_start_with, served_uri
from raysys.signals import stop_request
from raysys.store.url import store_url
from raysys.tracking.logs import log

APP_NAME = "raysys"
_STOP_CHECK_S = 0.2
# The gateway refuses requests itself, in the format of the service. So it must receive many more than it
# accepts: what it does not receive, Ray Serve refuses in plain text.
_REFUSED_FACTOR = 16


def build(args: dict[str, Any]) -> Application:
    """The application of `{"config": path, "overrides": [key=value, ..]}`; KubeRay imports this function.

    The manifest, not `serve.host`, decides where Serve listens, so tokens are required as for every address.
    """
    overrides = [*args.get("overrides", []), "serve.host=0.0.0.0"]
    return bind(load_config(args["config"], overrides))


def bind(config: Config) -> Application:
    """The application of a configuration.

    For indexed vectors of no EncoderBundle there is no encoder deployment: queries are items and vectors.
    Raises: MissingError without encoder or index, SpaceMismatch if their embedding spaces differ,
    InputError for `serve.search_on_gpu` with an index that a GPU cannot hold, for more partitions than FAISS
    files, and for an address that others can reach without tokens.
    """
    section, access = config.serve, access_of(config.serve)
    pair, place = pair_to_start_with(config), served_uri(config)
    _log_what_differs(config, access, pair)
    changes = _changes(config)
    index = IndexSettings(
        changes,
        section.search_threads,
        section.queue_length,
        section.search_on_gpu,
        section.recall_sample,
        degraded_effort=section.degraded_search_effort,
    )
    encoder_app = None if pair.encoder_uri is None else _encoder_application(section, pair, place)
    search_apps = _search_applications(config, pair, place, index)
    coordinator_app = (
        _deployment(Coordinator)
        .options(max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0})  # each gateway has one waiting
        .bind(config, pair, encoder_app, search_apps, changes)
    )
    writer = None if changes is None else _writer(config, changes)
    gateway_app: Application = (
        _deployment(Gateway)
        .options(
            **_replicas(
                section.gateway_replicas,
                section.max_gateway_replicas,
                policy=AutoscalingPolicy(policy_function=gateway_scaling.POLICY),
            ),
            max_ongoing_requests=_REFUSED_FACTOR * section.max_requests,
            max_queued_requests=_REFUSED_FACTOR * section.max_requests,
            backpressure_config=BackpressureConfig(retry_after_s=RETRY_AFTER_S),
        )
        .bind(
            section.model_dump(mode="json"),
            access,
            encoder_app,
            search_apps,
            index,
            writer,
            coordinator_app,
            place,
            pair,
        )
    )
    return gateway_app


def _log_what_differs(config: Config, access: Access, pair: ServedPair) -> None:
    """Say who needs no token, and which queries cannot be answered."""
    if config.serve.allow_anonymous is not None:
        log.info(
            "    serve  requests without a token have the scope '%s' (serve.allow_anonymous)",
            access.anonymous,
        )
    if pair.encoder_uri is None:
        log.info(
            "    serve  %s: its vectors are of no EncoderBundle; no queries by photo or text",
            specs.served_index(config),
        )


def _changes(config: Config) -> FollowerConfig | None:
    """Where the changes are; None if there is no place for them."""
    if config.store.url is None and not storage.is_local(config.root):
        log.info("    serve  without changes of items: set store.url to a database to accept them")
        return None
    return FollowerConfig(
        url=store_url(config),
        timeout_s=config.store.timeout_s,
        poll_s=config.serve.changes_poll_ms / 1000,
    )


def _writer(config: Config, changes: FollowerConfig) -> ItemWriterConfig:
    root = config.root if config.serve.image_url is None else None  # the shop serves its own photos
    return ItemWriterConfig(changes["url"], changes["timeout_s"], root)


def _encoder_application(section: ServeConfig, pair: ServedPair, place: str) -> Application:
    application: Application = (
        _deployment(EncoderDeployment)
        .options(
            **_replicas(
                section.encoder_replicas,
                section.max_encoder_replicas,
                target_ongoing_requests=requests_per_encoder(section) / 2,
            ),
            max_ongoing_requests=4 * section.max_batch_size,
            max_queued_requests=section.queue_length,
            ray_actor_options={"num_cpus": 1, "num_gpus": 1 if section.use_gpu else 0},
        )
        .bind(pair, place, section)
    )
    return application


def _replicas(num: int, most: int | None, **scaling: Any) -> dict[str, Any]:
    """A fixed number of replicas, or up to `most` with the fields of an AutoscalingConfig."""
    if most is None:
        return {"num_replicas": num}
    return {"autoscaling_config": AutoscalingConfig(min_replicas=num, max_replicas=most, **scaling)}


def _search_applications(
    config: Config, pair: ServedPair, place: str, index: IndexSettings
) -> list[Application]:
    """A deployment for each partition of the index; none if the gateways open it themselves.

    Raises: InputError for an index that a GPU cannot hold, or with fewer files than partitions.
    """
    section, count = config.serve, config.serve.search_partitions
    is_in_gateways = section.search_replicas is None and section.max_search_replicas is None
    if is_in_gateways and count == 1 and not section.search_on_gpu:
        return []
    name, manifest = specs.served_index(config), open_artifact(pair.index_uri, IndexBundleManifest)
    if section.search_on_gpu:
        require_gpu_kind(name, manifest)
    partitions = [Partition(number, count) for number in range(count)]
    for partition in partitions:
        partition.files(name, num_files(manifest))
    replicas = _replicas(
        section.search_replicas or 1,
        section.max_search_replicas,
        target_ongoing_requests=section.search_threads,
    )
    deployment = _deployment(SearchDeployment).options(
        **replicas,
        max_ongoing_requests=section.search_threads + section.queue_length,
        max_queued_requests=section.queue_length,
        ray_actor_options={"num_cpus": 1, "num_gpus": 1 if section.search_on_gpu else 0},
    )
    return [
        deployment.options(name=SEARCHER if count == 1 else f"{SEARCHER}-{partition.number}").bind(
            pair, place, index._replace(partition=partition)
        )
        for partition in partitions
    ]


@contextlib.contextmanager
def served(config: Config) -> Iterator[str]:
    """Run the application on this Ray session; yields its address once ready, and shuts it down at the end.

    Raises: InputError if the replicas need more GPUs than there are, ClusterError if the port is in use or
    the deployments do not start.
    """
    section = config.serve
    application = bind(config)
    _require_free_port(section.host, section.port)
    may_grow = session.may_grow(config.ray)
    if section.search_on_gpu and not may_grow:
        device_of("gpu", instead="serve.search_on_gpu=false")
    session.connect(config.ray)
    nodes.wait_for_nodes("serve", lambda _: gpu_demands(section), may_grow=may_grow)
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    address = {"host": section.host, "port": section.port}
    serve.start(http_options=address, tracing_config=tracing_options(section))
    try:
        serve.run(application, name=APP_NAME, route_prefix="/")
        yield f"http://{section.host}:{section.port}/"
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[-1][:200]
        raise ClusterError(f"serve: the application did not start ({reason})") from error
    finally:
        serve.shutdown()


def gpu_demands(section: ServeConfig) -> list[Demand]:
    """The replicas that need a GPU, for which Ray Serve would wait without a limit."""
    each = {"CPU": 1.0, "GPU": 1.0}
    demands = []
    if section.use_gpu:
        remedy = ("set serve.use_gpu=false",)
        demands.append(Demand(section.encoder_replicas, "encoder", "serve.encoder_replicas", each, remedy))
    if section.search_on_gpu:
        remedy = ("set serve.search_on_gpu=false",)
        num = section.search_partitions * (section.search_replicas or 1)
        demands.append(Demand(num, "search replica", "serve.search_replicas", each, remedy))
    return demands


def wait_for_stop() -> None:
    """Block until SIGINT (Ctrl-C) or SIGTERM."""
    clock = ClockWatch()
    with stop_request() as request:
        while request.signal_number is None:
            time.sleep(_STOP_CHECK_S)
            if clock.has_stepped_back():
                restart_controller()
    log.info("    serve  stopping")


def _deployment(decorated: object) -> serve.Deployment:
    """The deployment of a decorated class, whose annotation keeps the class, without Serve's access log."""
    assert isinstance(decorated, serve.Deployment)
    # A line for each request takes a fifth of an item query's time; `serve.access_log` has better ones.
    return decorated.options(logging_config={"enable_access_log": False, "log_level": "WARNING"})


def _require_free_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ClusterError(
                f"serve.port {port} on {host}: {error.strerror}; set another serve.port"
            ) from error
