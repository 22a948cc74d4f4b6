"""Reports of made-up results: one of a simulated log, an empty one, and one with a baseline of the user."""

from dataclasses import replace

from raysys.encoder.interpolation import Point, choose_alpha
from raysys.evaluate.index_comparison import IndexComparison
from raysys.evaluate.report import NeighbourPhoto, QueryNeighbours, ReportData
from raysys.evaluate.reranking import SystemResult
from raysys.evaluate.significance import Interval

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff\xe0"
EMPTY = ReportData(
    name="empty",
    simulated=False,
    systems=[],
    attribute_precision=None,
    loss_curve=[],
    neighbours=[],
    interpolation=None,
    provenance={},
)

INTERPOLATION = choose_alpha(
    [
        Point(alpha=0.0, metrics={"r@5": 0.3, "score": 0.36}, retention=0.5),
        Point(alpha=0.5, metrics={"r@5": 0.4, "score": 0.44}, retention=0.48),
        Point(alpha=1.0, metrics={"r@5": 0.5, "score": 0.43}, retention=0.41),
    ],
    score="ndcg@5",
    max_retention_drop=0.05,
)


def interval(value: float) -> Interval:
    """An interval around a value."""
    return Interval(value, value - 0.01, value + 0.02)


def system(name: str, ndcg: float, lift: Interval | None = None) -> SystemResult:
    """A system with results."""
    metrics = {"ndcg@5": interval(ndcg), "hit@1": interval(0.3), "hit@3": interval(0.6)}
    return SystemResult(name, available=True, reason=None, metrics=metrics, lift=lift)


def unavailable(name: str, reason: str) -> SystemResult:
    """A system without results."""
    return SystemResult(name, available=False, reason=reason, metrics={}, lift=None)


def report() -> ReportData:
    """A report of a simulated log."""
    return ReportData(
        name="demo",
        simulated=True,
        systems=[
            system("random", 0.35),
            unavailable("mobilenet_v2", "no <network>"),
            system("zero_shot", 0.5),
            system("fine_tuned", 0.6, Interval(0.2, 0.15, 0.25)),
            unavailable("wise_ft", "train.method is full"),
        ],
        attribute_precision={
            "zero_shot": {"p@5": interval(0.2)},
            "fine_tuned": {"p@5": interval(0.3)},
            "chance": 0.05,
        },
        attribute_precision_lifts={"fine_tuned": {"p@5": Interval(0.5, 0.4, 0.6)}},
        index=IndexComparison(
            kind="hnsw",
            settings={"ef_search": 64},
            num_items=5000,
            num_queries=200,
            num_unknown=3,
            recall={"recall@1": Interval(0.99, 0.98, 1.0), "recall@10": Interval(0.95, 0.94, 0.96)},
            precision_name="p@5",
            precision={"exact": interval(0.33), "index": interval(0.32)},
            precision_lift=Interval(-0.03, -0.04, -0.02),
        ),
        loss_curve=[{"step": 0, "loss": 4.0}, {"step": 10, "loss": 2.0, "val_r@1": 0.25, "val_r@10": 0.5}],
        neighbours=[
            QueryNeighbours(
                title="<b>red bag</b>",
                photo=PNG,
                start=[NeighbourPhoto(JPEG, "blue bag", 0.5)],
                delivered=[NeighbourPhoto(JPEG, "red bag", 0.9)],
            )
        ],
        interpolation=INTERPOLATION,
        provenance={"inputs": "encoders/demo", "seed": "13", "command": "raysys evaluate demo.yaml"},
    )


def against_production() -> ReportData:
    """A report with a baseline of the user, to which the others are compared."""
    production = system("production", 0.55)
    zero_shot, fine_tuned = (
        system("zero_shot", 0.5, Interval(-0.09, -0.1, -0.08)),
        system("fine_tuned", 0.6, Interval(0.09, 0.05, 0.13)),
    )
    return replace(
        report(),
        systems=[production, zero_shot, fine_tuned],
        compare_to="production",
        attribute_precision={"production": {"p@5": interval(0.25)}, "fine_tuned": {"p@5": interval(0.3)}},
        attribute_precision_lifts={"fine_tuned": {"p@5": Interval(0.2, 0.1, 0.3)}},
    )
