"""The judgement without a log: by hand, against a double loop, and against its own chance."""

import numpy as np
import pytest

from raysys.config.schema import AttributePrecisionConfig
from raysys.errors import InputError
from raysys.evaluate.attribute_precision import attribute_precision, chance_precision, value_codes
from raysys.evaluate.metrics import precision_at, rank_by

PROTOCOL = AttributePrecisionConfig(where={"source": "clothing"}, match=("kind", "colour"), k=3)


def catalogue(num_items: int = 120, seed: int = 0) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(num_items, 8)).astype(np.float32)
    attributes = {
        "kind": rng.choice(["bag", "shoe", "hat"], num_items),
        "colour": rng.choice(["red", "blue", ""], num_items),
        "seller": rng.choice(["s1", "s2", "s3", "s4", ""], num_items),
        "source": rng.choice(["clothing", "grocery"], num_items, p=[0.8, 0.2]),
    }
    splits = rng.choice(["train", "val", "test"], num_items)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), attributes, splits


def judged_by_a_double_loop(
    vectors: np.ndarray,
    attributes: dict[str, np.ndarray],
    splits: np.ndarray,
    protocol: AttributePrecisionConfig,
) -> dict[str, list[float]]:
    def is_in(item: int, wanted: tuple[str, ...]) -> bool:
        return splits[item] in wanted and all(
            attributes[name][item] == v for name, v in protocol.where.items()
        )

    def same(name: str, one: int, other: int) -> bool:
        return bool(attributes[name][one] == attributes[name][other] != "")

    precision: dict[str, list[float]] = {name: [] for name in ("all", *protocol.match)}
    for query in range(len(splits)):
        if not is_in(query, (protocol.query_split,)):
            continue
        gallery = [
            item
            for item in range(len(splits))
            if item != query
            and is_in(item, protocol.gallery_splits)
            and not any(same(name, query, item) for name in protocol.exclude_same)
        ]
        nearest = sorted(gallery, key=lambda item: -float(vectors[query] @ vectors[item]))[: protocol.k]
        equal = [[same(name, query, item) for name in protocol.match] for item in nearest]
        precision["all"].append(sum(all(row) for row in equal) / protocol.k)
        for column, name in enumerate(protocol.match):
            precision[name].append(sum(row[column] for row in equal) / protocol.k)
    return precision


def test_three_neighbours_by_hand() -> None:
    angles = np.radians([0, 5, 10, 20, 90])  # the query, then ever further
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    attributes = {
        "kind": np.array(["bag", "bag", "bag", "hat", "bag"]),
        "colour": np.array(["red", "red", "blue", "red", "red"]),
        "seller": np.array(["a", "a", "b", "c", "d"]),
    }
    splits = np.array(["test", "val", "val", "val", "val"])
    protocol = AttributePrecisionConfig(match=("kind", "colour"), k=2)
    # Item 1 has the query's seller; the nearest two are 2 (bag, blue) and 3 (hat, red): neither has both.
    expected = {"all": [0.0], "kind": [0.5], "colour": [0.5]}
    scores = attribute_precision(vectors, attributes, splits, protocol)
    assert {name: values.tolist() for name, values in scores.items()} == expected
    # Of the three that are allowed only item 4 has both: 1/3.
    assert chance_precision(attributes, splits, protocol) == pytest.approx(1 / 3)


@pytest.mark.parametrize("scores_at_once", [1, 200, 1 << 22])
def test_chunks_agree_with_a_double_loop(monkeypatch: pytest.MonkeyPatch, scores_at_once: int) -> None:
    monkeypatch.setattr("raysys.evaluate.attribute_precision._MAX_SCORES_AT_ONCE", scores_at_once)
    vectors, attributes, splits = catalogue()
    expected = judged_by_a_double_loop(vectors, attributes, splits, PROTOCOL)
    scores = attribute_precision(vectors, attributes, splits, PROTOCOL)
    assert {name: values.tolist() for name, values in scores.items()} == {
        name: pytest.approx(values) for name, values in expected.items()
    }
    assert sum(expected["all"]) > 0


def test_chance_is_what_random_vectors_score() -> None:
    _, attributes, splits = catalogue()
    scores = [
        attribute_precision(catalogue(seed=s)[0], attributes, splits, PROTOCOL)["all"].mean()
        for s in range(200)
    ]
    standard_error = np.std(scores) / np.sqrt(len(scores))
    assert np.mean(scores) == pytest.approx(
        chance_precision(attributes, splits, PROTOCOL), abs=4 * standard_error
    )


def test_chance_counts_missing_places_of_a_short_gallery_as_misses() -> None:
    attributes = {"kind": np.array(["bag", "bag", "hat"]), "seller": np.array(["", "", ""])}
    splits = np.array(["test", "val", "val"])
    protocol = AttributePrecisionConfig(match=("kind",), k=4)
    # Both others are always among the first four, one is right: 1/4, for any vectors.
    assert chance_precision(attributes, splits, protocol) == pytest.approx(0.25)
    assert attribute_precision(np.eye(3), attributes, splits, protocol)["all"].tolist() == [0.25]


def test_missing_values_equal_nothing() -> None:
    assert value_codes(["red", "", None, float("nan"), "blue", "red"]).tolist() == [0, -1, -1, -1, 1, 0]


def test_an_unknown_attribute_is_named_with_a_guess() -> None:
    vectors, attributes, splits = catalogue(20)
    with pytest.raises(InputError) as caught:
        attribute_precision(vectors, attributes, splits, AttributePrecisionConfig(match=("color",)))
    assert str(caught.value) == (
        "evaluate.attribute_precision.match: unknown attribute 'color' (the items have: colour, kind, seller, source); "
        "did you mean 'colour'?"
    )


def test_no_query_is_an_error_that_says_why() -> None:
    vectors, attributes, splits = catalogue(20)
    protocol = AttributePrecisionConfig(where={"source": "toys"}, match=("kind",))
    with pytest.raises(InputError) as caught:
        attribute_precision(vectors, attributes, splits, protocol)
    assert str(caught.value) == (
        "evaluate.attribute_precision: no query item remains of 20 (split: test, where: {'source': 'toys'}); "
        "widen where, or choose another split"
    )


def test_a_perfect_encoder_finds_every_kind() -> None:
    kinds = np.array(["bag", "shoe"] * 20)
    attributes = {"kind": kinds, "seller": np.arange(40).astype(str)}
    vectors = np.where(kinds[:, None] == "bag", [[1.0, 0.0]], [[0.0, 1.0]])
    splits = np.array(["test", "test", "val", "val"] * 10)
    assert (
        attribute_precision(vectors, attributes, splits, AttributePrecisionConfig(match=("kind",)))[
            "all"
        ].tolist()
        == [1.0] * 20
    )


def test_precision_agrees_with_ranking_the_whole_gallery() -> None:
    vectors, attributes, _ = catalogue(30)
    splits = np.array(["test"] + ["val"] * 29)
    protocol = AttributePrecisionConfig(exclude_same=(), match=("kind",), k=5)
    scores = (vectors[:1] @ vectors[1:].T).astype(np.float64)
    gains = (attributes["kind"][1:] == attributes["kind"][0])[None, :]
    expected = precision_at(5, rank_by(scores, gains, np.ones_like(gains), seed=0))
    assert attribute_precision(vectors, attributes, splits, protocol)["all"] == pytest.approx(expected)


def test_neighbour_that_is_the_same_thing_listed_again_does_not_count() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.8, 0.6]])
    attributes, splits = {"kind": np.array(["cup"] * 3, dtype=object)}, np.array(["test"] * 3)
    protocol = AttributePrecisionConfig(exclude_same=(), match=("kind",), k=1)
    groups = ["a", "a", "b"]
    assert attribute_precision(vectors, attributes, splits, protocol, groups)["all"].tolist() == [
        1.0,
        1.0,
        1.0,
    ]
    alone = ["a", "a", "a"]  # nothing is left to find
    assert attribute_precision(vectors, attributes, splits, protocol, alone)["all"].tolist() == [
        0.0,
        0.0,
        0.0,
    ]
    assert chance_precision(attributes, splits, protocol, groups) == 1.0
