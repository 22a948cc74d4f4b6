"""Attribute precision by hand, against a reference implementation, and against the chance level."""

import numpy as np
import pytest

from raysys.config.schema import AttributePrecisionConfig
from raysys.errors import InputError
from raysys.evaluate.attribute_precision import attribute_precision, chance_precision, value_codes
from raysys.evaluate.metrics import precision_at, rank_by

PROTOCOL = AttributePrecisionConfig(where={"source": "clothing"}, match=("kind", "colour"), k=3)


def random_catalogue(
    num_items: int = 120, seed: int = 0
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
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


def precision_by_double_loop(
    vectors: np.ndarray,
    attributes: dict[str, np.ndarray],
    splits: np.ndarray,
    protocol: AttributePrecisionConfig,
) -> dict[str, list[float]]:
    def is_in(item: int, allowed_splits: tuple[str, ...]) -> bool:
        return splits[item] in allowed_splits and all(
            attributes[name][item] == value for name, value in protocol.where.items()
        )

    def is_equal(name: str, first: int, second: int) -> bool:
        return bool(attributes[name][first] == attributes[name][second] != "")

    precision: dict[str, list[float]] = {name: [] for name in ("all", *protocol.match)}
    for query in range(len(splits)):
        if not is_in(query, (protocol.query_split,)):
            continue
        gallery = [
            item
            for item in range(len(splits))
            if item != query
            and is_in(item, protocol.gallery_splits)
            and not any(is_equal(name, query, item) for name in protocol.exclude_same)
        ]
        nearest = sorted(gallery, key=lambda item: -float(vectors[query] @ vectors[item]))[: protocol.k]
        equal = [[is_equal(name, query, item) for name in protocol.match] for item in nearest]
        precision["all"].append(sum(all(row) for row in equal) / protocol.k)
        for column, name in enumerate(protocol.match):
            precision[name].append(sum(row[column] for row in equal) / protocol.k)
    return precision


def test_precision_and_chance_level_of_a_small_gallery() -> None:
    angles = np.radians([0, 5, 10, 20, 90])  # the query, then with decreasing similarity
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    attributes = {
        "kind": np.array(["bag", "bag", "bag", "hat", "bag"]),
        "colour": np.array(["red", "red", "blue", "red", "red"]),
        "seller": np.array(["a", "a", "b", "c", "d"]),
    }
    splits = np.array(["test", "val", "val", "val", "val"])
    protocol = AttributePrecisionConfig(match=("kind", "colour"), k=2)
    # Item 1 has the query's seller; the nearest two others are 2 (bag, blue) and 3 (hat, red).
    expected = {"all": [0.0], "kind": [0.5], "colour": [0.5]}
    scores = attribute_precision(vectors, attributes, splits, protocol)
    assert {name: values.tolist() for name, values in scores.items()} == expected
    # Of the three allowed items only item 4 has both attributes: 1/3.
    assert chance_precision(attributes, splits, protocol) == pytest.approx(1 / 3)


@pytest.mark.parametrize("scores_at_once", [1, 200, 1 << 22])
def test_chunked_search_agrees_with_the_reference_implementation(
    monkeypatch: pytest.MonkeyPatch, scores_at_once: int
) -> None:
    monkeypatch.setattr("raysys.evaluate.attribute_precision._MAX_SCORES_AT_ONCE", scores_at_once)
    vectors, attributes, splits = random_catalogue()
    expected = precision_by_double_loop(vectors, attributes, splits, PROTOCOL)
    scores = attribute_precision(vectors, attributes, splits, PROTOCOL)
    assert {name: values.tolist() for name, values in scores.items()} == {
        name: pytest.approx(values) for name, values in expected.items()
    }
    assert sum(expected["all"]) > 0


def test_chance_level_equals_the_mean_precision_of_random_vectors() -> None:
    _, attributes, splits = random_catalogue()
    scores = [
        attribute_precision(random_catalogue(seed=seed)[0], attributes, splits, PROTOCOL)["all"].mean()
        for seed in range(200)
    ]
    standard_error = np.std(scores) / np.sqrt(len(scores))
    assert np.mean(scores) == pytest.approx(
        chance_precision(attributes, splits, PROTOCOL), abs=4 * standard_error
    )


def test_missing_neighbours_of_a_small_gallery_are_misses() -> None:
    attributes = {"kind": np.array(["bag", "bag", "hat"]), "seller": np.array(["", "", ""])}
    splits = np.array(["test", "val", "val"])
    protocol = AttributePrecisionConfig(match=("kind",), k=4)
    # Both other items are always among the first four and one is correct: 1/4, for any vectors.
    assert chance_precision(attributes, splits, protocol) == pytest.approx(0.25)
    assert attribute_precision(np.eye(3), attributes, splits, protocol)["all"].tolist() == [0.25]


def test_missing_values_have_code_minus_one() -> None:
    assert value_codes(["red", "", None, float("nan"), "blue", "red"]).tolist() == [0, -1, -1, -1, 1, 0]


def test_unknown_attribute_is_an_error_with_a_suggestion() -> None:
    vectors, attributes, splits = random_catalogue(20)
    with pytest.raises(InputError) as caught:
        attribute_precision(vectors, attributes, splits, AttributePrecisionConfig(match=("color",)))
    assert str(caught.value) == (
        "evaluate.attribute_precision.match: unknown attribute 'color' (the items have: colour, kind, seller, source); "
        "did you mean 'colour'?"
    )


def test_no_query_item_is_an_error_with_the_filter() -> None:
    vectors, attributes, splits = random_catalogue(20)
    protocol = AttributePrecisionConfig(where={"source": "toys"}, match=("kind",))
    with pytest.raises(InputError) as caught:
        attribute_precision(vectors, attributes, splits, protocol)
    assert str(caught.value) == (
        "evaluate.attribute_precision: no query item remains of 20 (split: test, where: {'source': 'toys'}); "
        "widen where, or choose another split"
    )


def test_vectors_that_encode_the_attribute_have_precision_one() -> None:
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


def test_precision_agrees_with_ranking_the_complete_gallery() -> None:
    vectors, attributes, _ = random_catalogue(30)
    splits = np.array(["test"] + ["val"] * 29)
    protocol = AttributePrecisionConfig(exclude_same=(), match=("kind",), k=5)
    scores = (vectors[:1] @ vectors[1:].T).astype(np.float64)
    gains = (attributes["kind"][1:] == attributes["kind"][0])[None, :]
    expected = precision_at(5, rank_by(scores, gains, np.ones_like(gains), seed=0))
    assert attribute_precision(vectors, attributes, splits, protocol)["all"] == pytest.approx(expected)


def test_items_of_the_querys_group_are_left_out() -> None:
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.8, 0.6]])
    attributes, splits = {"kind": np.array(["cup"] * 3, dtype=object)}, np.array(["test"] * 3)
    protocol = AttributePrecisionConfig(exclude_same=(), match=("kind",), k=1)
    groups = ["a", "a", "b"]
    assert attribute_precision(vectors, attributes, splits, protocol, groups)["all"].tolist() == [
        1.0,
        1.0,
        1.0,
    ]
    one_group = ["a", "a", "a"]  # the gallery is empty for every query
    assert attribute_precision(vectors, attributes, splits, protocol, one_group)["all"].tolist() == [
        0.0,
        0.0,
        0.0,
    ]
    assert chance_precision(attributes, splits, protocol, groups) == 1.0
