"""An opened index with changes against exact search over the items that it should have."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from raysys.artifacts import ArtifactSpec, IndexBundleManifest
from raysys.config.schema import IndexConfig
from raysys.errors import DamagedData, InputError, MissingError
from raysys.index.build import publish_index
from raysys.index.exact import exact_search
from raysys.index.search import Searcher
from raysys.store.changes import Change, Delete, LoggedChange, PhotoFile, Upsert
from raysys.types import Attributes
from tests.unit.index.changes import SPACE, Log, upsert
from tests.unit.index.embedding_sets import publish_embeddings, unit_vectors

DIMENSIONS = 16
POOL = unit_vectors(400, DIMENSIONS, seed=7)
Kind = Literal["exact", "hnsw", "ivf_sq8"]
SIZES: dict[Kind, int] = {"exact": 60, "hnsw": 200, "ivf_sq8": 1000}
SECTION = IndexConfig(num_lists=16, nprobe=16, ef_search=1000, recall_queries=20)  # which finds everything


def attributes_of(row: int) -> Attributes:
    return {"category": ["shoes", "bags", "hats"][row % 3], "price": row}


def publish(folder: Path, kind: Kind, num: int, shards: int) -> str:
    texts = [json.dumps(attributes_of(row)) for row in range(num)]
    uri = publish_embeddings(folder / "e", unit_vectors(num, DIMENSIONS), attributes=texts)
    spec = ArtifactSpec(str(folder / "index"), IndexBundleManifest, {}, {})
    publish_index(spec, uri, SECTION.model_copy(update={"kind": kind, "shards": shards}))
    return spec.uri


@pytest.fixture(scope="module", params=SIZES)
def index_uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return publish(tmp_path_factory.mktemp(request.param), request.param, SIZES[request.param], shards=3)


@pytest.fixture
def small(tmp_path: Path) -> Searcher:
    return Searcher(publish(tmp_path, "exact", 6, shards=2))


@dataclass
class Expected:
    """The items that an index should have."""

    vectors: dict[str, np.ndarray]
    attributes: dict[str, Attributes]
    changed: set[str] = field(default_factory=set)
    """The ids of those that come from changes."""
    last: int = 0

    @classmethod
    def of(cls, searcher: Searcher, num: int) -> Expected:
        ids = [f"m{row}" for row in range(num)]
        rows = [searcher.row_of(item_id) for item_id in ids]
        units = np.array([searcher.vector(row) for row in rows])
        found = searcher.nearest(units, num, is_exact=True)
        lengths = found.scores[found.rows == np.array(rows)[:, None]]  # a code is not of length 1
        attributes = [searcher.item(row).attributes for row in rows]
        vectors = units * lengths[:, None]
        return cls(dict(zip(ids, vectors, strict=True)), dict(zip(ids, attributes, strict=True)))

    def apply(self, changes: list[LoggedChange]) -> None:
        for logged in changes:
            if logged.sequence <= self.last:
                continue
            self.last, change = logged.sequence, logged.change
            for values in (self.vectors, self.attributes):
                values.pop(change.item_id, None)
            self.changed.discard(change.item_id)
            if isinstance(change, Upsert) and SPACE in change.vectors:
                self.vectors[change.item_id] = change.vectors[SPACE]
                self.attributes[change.item_id] = change.attributes
                self.changed.add(change.item_id)

    def passing(self, where: Any) -> list[str] | None:
        """The ids of items that pass; None if the filter asks for an order of texts."""
        for name, conditions in where.items():
            values = [self.attributes[item_id].get(name) for item_id in self.changed]
            has_text = any(isinstance(value, str) for value in values)
            if (
                name == "size"
                and "gte" in conditions
                and has_text
                and all(isinstance(value, str) for value in values if value is not None)
            ):
                return None
        return [item_id for item_id, values in self.attributes.items() if meets_all(values, where)]


def unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / np.linalg.norm(vector))


def meets_all(values: Attributes, where: Any) -> bool:
    for name, conditions in where.items():
        value: Any = values.get(name)
        for operator, operand in conditions.items():
            if operator in ("in", "not"):
                is_met = (value in operand) == (operator == "in")
            else:
                is_met = value is not None and not isinstance(value, str) and value >= operand
            if not is_met:
                return False
    return True


def random_change(rng: np.random.Generator, ids: list[str], num_new: int) -> Change:
    """An upsert of a known or a new item, or a delete; few ids, so that items come back."""
    item_id = str(rng.choice(ids)) if ids and rng.random() < 0.6 else f"n{rng.integers(num_new)}"
    if rng.random() < 0.3:
        return Delete(item_id)
    options: dict[str, list[Any]] = {
        "category": ["shoes", "bags", "gloves", None],
        "price": [3, 7.5, -1, 10**6, "cheap", None],
        "size": [1, 2.5, "XL", True],
    }
    names = [name for name in options if rng.random() < 0.7]
    attributes: Attributes = {name: options[name][rng.integers(len(options[name]))] for name in names}
    vector = POOL[rng.integers(len(POOL))]  # some items have one vector
    return upsert(item_id, None if rng.random() < 0.1 else vector, attributes)


FILTERS: list[Any] = [
    None, None, {}, {"category": {"in": ["shoes", "gloves"]}}, {"category": {"not": ["bags", None]}},
    {"price": {"gte": 7}}, {"price": {"in": ["cheap", 3, 5.0]}, "category": {"not": ["hats"]}},
    {"size": {"in": [1, "XL"]}}, {"size": {"not": [None]}}, {"size": {"gte": 2}}, {"price": {"gte": 10**7}},
]  # fmt: skip


def require_equal(
    searcher: Searcher, expected: Expected, where: Any, k: int, rng: np.random.Generator
) -> None:
    queries = np.concatenate([unit_vectors(3, DIMENSIONS, seed=int(rng.integers(1000))), POOL[:1]])
    ids = expected.passing(where or {})
    if ids is None:
        with pytest.raises(InputError, match="different types"):
            searcher.search(queries, k, where=where)
        return
    found = searcher.search(queries, k, where=where, is_exact=bool(rng.random() < 0.3))
    stored = np.array([expected.vectors[item_id] for item_id in ids]).reshape(-1, DIMENSIONS)
    scores, _ = exact_search(queries, stored.astype(np.float32), k)
    for query, exact, neighbours in zip(queries, scores, found, strict=True):
        np.testing.assert_allclose([one.score for one in neighbours], exact, atol=1e-5)
        results = [one.item.item_id for one in neighbours]
        assert len(set(results)) == len(results)
        for one in neighbours:  # copies are equally near, in any order
            assert one.item.item_id in ids
            assert one.score == pytest.approx(float(query @ expected.vectors[one.item.item_id]), abs=1e-5)
            assert {name: value for name, value in one.item.attributes.items() if value is not None} == {
                name: value
                for name, value in expected.attributes[one.item.item_id].items()
                if value is not None
            }


@pytest.mark.parametrize("seed", range(2))
def test_changes_leave_exactly_the_items_that_they_should(index_uri: str, seed: int) -> None:
    searcher, rng, log = Searcher(index_uri), np.random.default_rng(seed), Log()
    expected = Expected.of(searcher, len(searcher))
    base_ids = [*expected.vectors]
    searcher.apply(batch := log.batch(upsert("n0", POOL[0], {"size": 1})))  # makes `size` known
    expected.apply(batch)
    for step in range(12):
        known = [*expected.vectors, *base_ids[:5]]
        changes = [random_change(rng, known, num_new=40) for _ in range(rng.integers(1, 20))]
        batch = log.batch(*changes)
        expected.apply(batch)
        first = int(rng.integers(len(log.changes)))
        searcher.apply(
            log.changes[first:] if rng.random() < 0.3 and first < len(log.changes) - len(batch) else batch
        )
        for _ in range(3):
            where, k = FILTERS[rng.integers(len(FILTERS))], [1, 5, len(expected.vectors) + 3][step % 3]
            require_equal(searcher, expected, where, k, rng)
        assert len(searcher) == len(expected.vectors)
        assert searcher.last_change == len(log.changes)
    ids = [searcher.item(int(row)).item_id for row in searcher.random_rows(len(searcher) + 5, seed=0)]
    assert sorted(ids) == sorted(expected.vectors)
    for item_id in base_ids + [f"n{number}" for number in range(40)]:
        assert (item_id in searcher) == (item_id in expected.vectors)
        if item_id in expected.vectors:
            row = searcher.row_of(item_id)
            assert searcher.item(row).item_id == item_id
            np.testing.assert_allclose(searcher.vector(row), unit(expected.vectors[item_id]), atol=1e-6)


@pytest.mark.parametrize("is_one_batch", [True, False])
def test_everything_replaced_then_deleted_then_back(index_uri: str, is_one_batch: bool) -> None:
    searcher, rng, log = Searcher(index_uri), np.random.default_rng(0), Log()
    expected = Expected.of(searcher, len(searcher))
    ids = [*expected.vectors]
    for changes in (
        [upsert(item_id, POOL[number % 400], {"price": number}) for number, item_id in enumerate(ids)],
        [Delete(item_id) for item_id in ids],
        [upsert("m0", POOL[3])],
    ):
        batch = log.batch(*changes)
        for part in [batch] if is_one_batch else [batch[:7], batch[7:]]:
            searcher.apply(part)
        expected.apply(batch)
        assert len(searcher) == len(expected.vectors)
        for where in (None, {"price": {"gte": 10}}):
            require_equal(searcher, expected, where, 4, rng)
            require_equal(searcher, expected, where, len(ids) + 1, rng)
    assert searcher.search(POOL[:1], 3, exclude_rows=[searcher.row_of("m0")]) == [[]]


def test_index_of_one_item(tmp_path: Path) -> None:
    searcher, log = Searcher(publish(tmp_path, "exact", 1, shards=1)), Log()
    searcher.apply(log.batch(Delete("m0"), Delete("unknown")))
    assert (len(searcher), searcher.search(POOL[:2], 3), searcher.random_rows(9, 0).tolist()) == (
        0,
        [[], []],
        [],
    )
    searcher.apply(log.batch(upsert("m0", POOL[5])))
    assert [one.item.item_id for one in searcher.search(POOL[:1], 3)[0]] == ["m0"]
    assert searcher.row_of("m0") == 1  # row 0 is that of the deleted one


def test_version_and_attributes_follow_the_changes(small: Searcher) -> None:
    log, fingerprint = Log(), small.manifest.fingerprint[:12]
    assert (small.version, small.last_change) == (f"{fingerprint}.0", 0)
    before = small.snapshot()
    batch = log.batch(upsert("n0", POOL[0], {"size": 4}), Delete("m1"))
    small.apply(batch)
    small.apply(batch)
    assert (small.version, small.last_change, len(small)) == (f"{fingerprint}.2", 2, 6)
    assert small.item(small.row_of("m0")).attributes == {"category": "shoes", "price": 0, "size": None}
    assert small.item(small.row_of("n0")).attributes == {"category": None, "price": None, "size": 4}
    assert (before.last_change, "m1" in before, "n0" in before, len(before)) == (0, True, False, 6)
    with pytest.raises(InputError, match="no attribute 'size'"):
        before.search(POOL[:1], 3, where={"size": {"gte": 1}})


def test_text_among_the_numbers_of_the_index_does_not_break_filters(small: Searcher) -> None:
    small.apply(Log().batch(upsert("n0", POOL[0], {"price": "cheap"})))
    (found,) = small.search(POOL[:1], 9, where={"price": {"gte": 4}})
    assert sorted(one.item.item_id for one in found) == ["m4", "m5"]


def test_what_the_next_build_leaves_out_does_not_fit(small: Searcher) -> None:
    small.apply(
        Log().batch(
            upsert("n0", POOL[0], {"price": "cheap", "size": 4}), upsert("n1", POOL[1], {"size": "M"})
        )
    )
    small.require_fitting("n2", {"price": 9.5, "size": 5, "category": None, "new": True})
    refused: Attributes = {"price": "cheap", "size": "M", "category": 1}
    for name, value in refused.items():
        with pytest.raises(InputError, match=f"item 'n2': attribute '{name}' is a .* in the index"):
            small.require_fitting("n2", {name: value})
    small.require_fitting("n0", {"size": "L"})  # only n1 is left, which has a text


def test_item_without_a_vector_of_the_space_is_hidden_and_counted(small: Searcher) -> None:
    log = Log()
    small.apply(log.batch(upsert("m0", None), upsert("n0", None), upsert("n1", None)))
    assert ("m0" in small, "n0" in small, len(small), small.num_without_vector) == (False, False, 5, 3)
    small.apply(log.batch(upsert("m0", POOL[0]), Delete("n1")))
    assert ("m0" in small, len(small), small.num_without_vector) == (True, 6, 1)


def test_row_of_a_replaced_item_is_an_error(small: Searcher) -> None:
    row = small.row_of("m2")
    small.apply(Log().batch(upsert("m2", POOL[0])))
    for read in (small.item, small.vector, small.photo):
        with pytest.raises(
            MissingError, match=f"row {row} has no item in this index, or none since a change"
        ):
            read(row)
    np.testing.assert_array_equal(small.vector(small.row_of("m2")), POOL[0])


@pytest.mark.parametrize(
    ("vector", "fault"),
    [(POOL[0] * 2, "has length 2 instead of 1"), (POOL[0] * np.nan, "has a NaN"), (POOL[0, :3], "has 3 numbers instead of 16")],
)  # fmt: skip
def test_batch_with_an_unusable_vector_changes_nothing(
    small: Searcher, vector: np.ndarray, fault: str
) -> None:
    with pytest.raises(DamagedData) as caught:
        small.apply(Log().batch(Delete("m0"), upsert("n0", POOL[0]), upsert("n1", vector)))
    assert str(caught.value) == (
        f"change of item 'n1': its vector {fault}; the index takes finite vectors of length 1; put the item again"
    )
    assert (small.last_change, len(small), "m0" in small) == (0, 6, True)


def test_photo_of_a_put_item_is_its_file(small: Searcher, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"photo")
    photo = PhotoFile(str(path), 5)
    small.apply(Log().batch(upsert("n0", POOL[0], photo=photo, photo_bytes=b"photo"), upsert("n1", POOL[1])))
    assert small.photo(small.row_of("n0")) == b"photo"
    path.write_bytes(b"other")
    with pytest.raises(DamagedData, match=r"photo.jpg: is not the photo with which item 'n0' was put"):
        small.photo(small.row_of("n0"))
    with pytest.raises(MissingError) as caught:
        small.photo(small.row_of("n1"))
    assert str(caught.value) == "item 'n1' was put without a photo; put it again with one"


def test_search_in_the_middle_of_a_batch_sees_the_state_before_it(small: Searcher) -> None:
    seen: list[list[tuple[str, str]]] = []

    class Vectors(dict[str, np.ndarray]):
        """Searches when the vector is read, which is while the batch is applied."""

        def __getitem__(self, space_id: str) -> np.ndarray:
            (found,) = small.search(POOL[:1], 99)
            seen.append(sorted((one.item.item_id, one.item.title) for one in found))
            return super().__getitem__(space_id)

    log = Log()
    small.apply(log.batch(upsert("n0", POOL[0], title="old")))
    before = [*((f"m{row}", "title") for row in range(6)), ("n0", "old")]
    changes = [upsert(item_id, POOL[1], title="new") for item_id in ("m0", "m1", "n0", "n1")]
    searching = [replace(change, vectors=Vectors(change.vectors)) for change in changes]
    small.apply(log.batch(Delete("m5"), *searching))
    assert seen == [before] * len(seen)
    assert len(seen) >= 4


def test_searches_see_a_batch_whole_or_not_at_all(tmp_path: Path) -> None:
    searcher, log = Searcher(publish(tmp_path, "exact", 60, shards=2)), Log()
    moving = [f"m{row}" for row in range(0, 60, 4)]
    searcher.apply(log.batch(upsert("even", POOL[0]), *(upsert(one, POOL[0], title="0") for one in moving)))
    is_done, faults, counts = threading.Event(), list[str](), [0, 0, 0]

    def search(number: int) -> None:
        while not is_done.is_set():
            where = [None, {"category": {"not": ["none"]}}][counts[number] % 2]
            (found,) = searcher.search(POOL[:1], 100, where=where)
            ids = [one.item.item_id for one in found]
            titles = {one.item.title for one in found if one.item.item_id in moving}
            if len(ids) != 61 or len({*ids}) != 61 or len(titles) != 1 or len({"even", "odd"} & {*ids}) != 1:
                faults.append(f"{len(ids)} items, {len({*ids})} ids, versions {titles}")
            counts[number] += 1

    threads = [threading.Thread(target=search, args=(number,)) for number in range(len(counts))]
    for thread in threads:
        thread.start()
    for step in range(1, 150):
        come, go = ("odd", "even") if step % 2 else ("even", "odd")
        again = [upsert(one, POOL[step], title=str(step)) for one in moving]
        searcher.apply(log.batch(Delete(go), *again, upsert(come, POOL[step])))
    while min(counts) < 5 and all(thread.is_alive() for thread in threads):
        searcher.apply(log.batch(*(upsert(one, POOL[0], title="last") for one in moving)))
    is_done.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert min(counts) >= 5


def test_vector_that_comes_later_than_its_change_puts_the_item(small: Searcher) -> None:
    small.apply(Log().batch(upsert("m0", None), upsert("n0", None, title="new")))
    before = small.snapshot()
    small.apply_late_vectors([upsert("n0", POOL[0], {"brand": "x"}, title="new")])
    assert (small.last_change, small.num_without_vector, len(small)) == (2, 1, 6)
    [[first]] = small.search(POOL[:1], 1, where={"brand": {"in": ["x"]}})
    assert (first.item.item_id, first.item.title) == ("n0", "new")
    assert "n0" not in before


def test_less_effort_examines_fewer_lists_and_finds_changes_all_the_same(tmp_path: Path) -> None:
    searcher = Searcher(publish(tmp_path, "ivf_sq8", SIZES["ivf_sq8"], shards=1))
    log = Log()
    searcher.apply(log.batch(upsert("new", POOL[0])))
    reduced = searcher.with_effort(1 / 16)  # one of 16 lists
    queries = POOL[:50]
    found = reduced.nearest(queries, 1)
    exact = searcher.nearest(queries, 1, is_exact=True)
    assert np.array_equal(searcher.nearest(queries, 1).rows, exact.rows)
    assert not np.array_equal(found.rows, exact.rows)
    assert (found.scores <= exact.scores + 1e-3).all()
    assert reduced.item(int(found.rows[0, 0])).item_id == "new"
    assert reduced.version == searcher.version
