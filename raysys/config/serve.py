"""Settings of `raysys serve`: address, replicas, limits, examples, tokens and logs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from raysys.config.section import ChosenPrecision, Precision, Section, UriPath, chosen_precision


class ServeConfig(Section):
    """`raysys serve`: the HTTP service."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on."""
    ingress: Literal["haproxy", "python"] = "haproxy"
    """What receives requests on a cluster that `raysys serve` starts: HAProxy, or Ray Serve's Python proxy. A
    cluster that is already running has its own setting."""
    encoder_replicas: PositiveInt = 1
    """Replicas of the encoder deployment."""
    encoder_threads: PositiveInt | None = None
    """Threads of an encoder replica on a CPU. Null: the CPUs of its node, divided by `encoder_replicas`; one
    for a small model, with which it embeds a photo in 50 ms."""
    search_replicas: PositiveInt | None = None
    """Replicas of each search deployment; those of a node share the pages of the index in memory. Null: every
    gateway searches the complete index itself, in half the time; with `search_on_gpu` or several
    `search_partitions`, one."""
    search_partitions: PositiveInt = 1
    """Search deployments among which the files of the index are divided (`index.shards`, at least as many),
    for an index that is too large for a node. Each query is sent to all of them."""
    gateway_replicas: PositiveInt = 1
    """Replicas of the HTTP gateway."""
    max_encoder_replicas: PositiveInt | None = None
    """Replicas of the encoder while there is much to do: Ray Serve adds one when each has had more than half
    of `max_encoder_requests` for 30 s, and removes it after ten minutes with less. Null: never more."""
    max_search_replicas: PositiveInt | None = None
    """The same for each search deployment, when each replica has more than `search_threads` searches."""
    max_gateway_replicas: PositiveInt | None = None
    """The same for the gateway, when each is at work for more than 0.6 of the time."""
    use_gpu: bool = False
    """Encode queries on a GPU, one per encoder replica."""
    precision: Precision = "auto"
    """Floating-point format in which queries are encoded. `auto`: bf16 on a GPU, fp32 on a CPU."""
    compile: bool = False
    """On a GPU, compile both towers with torch.compile, at each start and for each other encoder. The image
    tower of SigLIP-B/16 took 51 s to compile, and then 8 to 23 % less time for a batch."""
    search_on_gpu: bool = False
    """Search without a filter on a GPU, one per search replica, in an index of kind `exact` or `ivf_sq8`. The
    CPU searches with filters."""
    max_requests: PositiveInt = 64
    """Requests that a gateway replica works on at a time; more are refused at once (503, `overloaded`)."""
    max_item_queries: PositiveInt = 32
    """Of these, queries by item. Each of them waits for all others: more are answered later, and fewer refuse
    short bursts. While a fifth of all requests is refused, a quarter of them is worked on at a time."""
    max_encoder_requests: PositiveInt | None = None
    """Requests with photos or texts that are worked on at a time, for each encoder replica, once their bodies
    have arrived; more are refused at once. Null: 4, with `use_gpu` two batches of `max_batch_size`. More are
    answered later, and fewer refuse short bursts, as with `max_item_queries`. With a large model on a
    CPU, which takes 0.3 s for a photo, 2 instead of 4 shorten the longest wait from 1.3 to 0.8 s."""
    search_threads: PositiveInt = 4
    """Searches that a replica with the index runs at a time; up to `queue_length` wait for a thread. Those of
    at most a millisecond of CPU time, without a filter, need none."""
    queue_length: PositiveInt = 256
    """Inputs for the encoder that may wait in a gateway replica for a free replica, and searches and photos
    that may wait for a thread; more are refused at once. Each input of /v1/embed counts."""
    degraded_search_effort: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of `nprobe` or `ef_search` that a search has if it would wait for a thread. Its response has the
    header X-Degraded. Null: every search has its full effort."""
    max_batch_size: PositiveInt = 16
    """Maximum number of requests that are encoded together."""
    batch_wait_ms: NonNegativeFloat = 0.0
    """Maximum time that a request waits for others to join its batch, in milliseconds. Those that come while
    a batch is encoded are the next one in any case."""
    default_k: PositiveInt = 10
    """Number of results if a request does not set `k`."""
    max_k: PositiveInt = 100
    """Maximum `k` of a request."""
    max_image_megabytes: PositiveFloat = 10.0
    """Maximum size of an uploaded photo, in MB."""
    changes_poll_ms: PositiveFloat = 100.0
    """How often a searcher looks for changes of items, in milliseconds."""
    request_timeout_s: PositiveFloat = 5.0
    """Maximum time for the answer to a query after its body has arrived, in seconds (504,
    `deadline_exceeded`); a request may set less in the header X-Request-Timeout-Ms. Changes of items have
    `store.timeout_s`."""
    decode_threads: PositiveInt = 4
    """Threads of a gateway replica that decode photos."""
    vector_cache_items: NonNegativeInt = 10_000
    """Photos whose vectors a gateway replica keeps, so that an equal photo is not embedded again. 0: none."""
    recall_sample: Annotated[float, Field(ge=0, le=1)] = 0.001
    """Share of the searches that are compared with an exact search in the background, for `raysys_recall`."""
    body_timeout_s: PositiveFloat = 30.0
    """Maximum time in which the head of a request must arrive, and then its body, in seconds."""
    image_url: Annotated[str, Field(pattern=r"\{item_id\}")] | None = None
    """Template of the photos' public addresses, for example `https://img.example.com/{item_id}.jpg`; the
    percent-encoded id replaces `{item_id}`. Null: serve the photos from the shards, and keep those of
    changed items under `root`."""
    example_queries: Annotated[
        tuple[Annotated[str, Field(pattern=r"\S", max_length=60)], ...], Field(max_length=12)
    ] = ()
    """Texts that the page offers as examples: frequent words of your titles, in each of their languages."""
    tokens_file: Annotated[str, UriPath()] | None = None
    """YAML or JSON list of the bearer tokens (name, sha256, scopes); `raysys serve CONFIG --new-token NAME`
    prints an entry. Required unless `host` is a loopback address or `allow_anonymous` is set."""
    allow_anonymous: Literal["read", "write", "admin"] | None = None
    """Scope of requests without a token, for example behind your own gateway. Null: `admin` on a loopback
    address without a `tokens_file`, else none."""
    cors_origins: tuple[Annotated[str, Field(pattern=r"^https?://[^/*\s]+$")], ...] = ()
    """Origins of other sites whose scripts may call the API, for example `https://shop.example.com`."""
    trace_sample: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the requests that are traced with OpenTelemetry; those with a `traceparent` header follow its
    flag. 0: no traces. The collector is that of OTEL_EXPORTER_OTLP_ENDPOINT."""
    access_log: Literal["none", "json"] = "none"
    """`json`: one line per request on stderr of the gateway replicas, without queries, bodies and tokens."""

    @property
    def device(self) -> str:
        """Where queries are encoded, for PyTorch."""
        return "cuda" if self.use_gpu else "cpu"

    @property
    def chosen_precision(self) -> ChosenPrecision:
        """`precision`, or the one of the device."""
        return chosen_precision(self.precision, is_on_gpu=self.use_gpu)

    @property
    def is_compiled(self) -> bool:
        """Whether the encoder is compiled."""
        return self.use_gpu and self.compile

    @model_validator(mode="after")
    def _may_only_grow(self) -> ServeConfig:
        for name in ("encoder", "search", "gateway"):
            least, most = getattr(self, f"{name}_replicas") or 1, getattr(self, f"max_{name}_replicas")
            if most is not None and most < least:
                raise ValueError(f"max_{name}_replicas is {most}, less than {name}_replicas ({least})")
        return self
