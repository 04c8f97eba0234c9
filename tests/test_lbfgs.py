"""L-BFGS: the direction is the textbook's, and the search ends where it should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from luce import _native
from luce.regression import lbfgs
from luce.regression.lbfgs import Memory, Metric, Point, minimize

Float64 = NDArray[np.float64]
Objective = Callable[[Float64, NDArray[np.bool_]], tuple[Float64, Float64]]
Pair = tuple[Float64, Float64]
SCALES = np.array([[1.0, 1e2, 1e4], [1.0, 1.0, 1.0]])


def plain(grad: Float64) -> Float64:
    return grad


def two_loops(pairs: list[Pair], grad: Float64, metric: Metric, most: int) -> Float64:
    """The step of one problem (P,), by Nocedal & Wright's algorithm 7.4."""
    told = [(s, y) for s, y in pairs[-most:] if s @ y > 0]
    q, alphas = grad.copy(), []
    for s, y in reversed(told):
        alphas.append(s @ q / (s @ y))
        q = q - alphas[-1] * y
    latest = [(s, y) for s, y in pairs if s @ y > 0][-1:]
    scale: Any = 1.0
    for s, y in latest:
        scale = s @ y / (y @ metric(y))
    r = scale * metric(q)
    for (s, y), alpha in zip(told, reversed(alphas), strict=True):
        r = r + s * (alpha - y @ r / (s @ y))
    return np.asarray(-r)


def random_pairs(rng: np.random.Generator, count: int, b: int, p: int, curved: float) -> list[Pair]:
    """Steps (B, P) and changes (B, P); some of them have no curvature in some of the problems."""
    root = rng.normal(size=(b, p, p))
    bend = root @ root.transpose(0, 2, 1) / p + np.eye(p)
    pairs = []
    for _ in range(count):
        s = rng.normal(size=(b, p))
        y = np.matmul(bend, s[:, :, None])[:, :, 0]
        y *= np.where(rng.random(b) < curved, 1, -1)[:, None]
        s *= (rng.random(b) < 0.9)[:, None]  # a finished problem does not move
        pairs.append((s, y * (s != 0)))
    return pairs


@given(st.integers(0, 10_000), st.integers(0, 60), st.integers(1, 3), st.sampled_from([1.0, 0.7]))
@settings(max_examples=60, deadline=None)
def test_the_direction_is_that_of_the_two_loops(seed: int, count: int, b: int, curved: float) -> None:
    rng = np.random.default_rng(seed)
    p = 7
    diagonal = rng.uniform(0.5, 2, p)

    def metric(grad: Float64) -> Float64:
        return grad * diagonal

    pairs = random_pairs(rng, count, b, p, curved)
    memory = Memory(b, p, plain)
    after = np.zeros((b, p))
    for i, (s, y) in enumerate(pairs):
        if i == count // 2:
            memory.set_metric(metric)
        before, after = after, after + y
        memory.add(s, before, before + y, np.ones(len(s), bool))
    if count == 0:
        memory.set_metric(metric)
    grad = rng.normal(size=(b, p))
    found = memory.direction(grad)
    for j in range(b):
        own = [(s[j], y[j]) for s, y in pairs]
        last = max((i for i, (s, y) in enumerate(own) if s @ y > 0), default=-1)
        used = metric if last >= count // 2 else plain
        if last >= 0 and used is plain and count:
            continue  # the scale stems from the metric before, which the textbook does not know
        expected = two_loops(own, grad[j], metric, 50)
        np.testing.assert_allclose(found[j], expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


def test_a_memory_of_another_size_gives_another_direction() -> None:
    rng = np.random.default_rng(0)
    pairs = random_pairs(rng, 60, 1, 7, 1.0)
    own = [(s[0], y[0]) for s, y in pairs]
    grad = rng.normal(size=7)
    assert not np.allclose(two_loops(own, grad, plain, 50), two_loops(own, grad, plain, 3), rtol=1e-4)


def filled(pairs: list[Pair], metric: Metric, n_threads: int = 1) -> Memory:
    """A memory of pairs, the gradients of which begin anywhere."""
    b, p = pairs[0][0].shape
    memory = Memory(b, p, metric, n_threads)
    for s, y in pairs:
        before = np.ones_like(y)
        memory.add(s, before, before + y, np.ones(len(s), bool))
    return memory


def assert_two_loops(memory: Memory, pairs: list[Pair], grad: Float64, metric: Metric, most: int) -> None:
    found = memory.direction(grad)
    for j, own in enumerate(grad):
        expected = two_loops([(s[j], y[j]) for s, y in pairs], own, metric, most)
        np.testing.assert_allclose(found[j], expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("p", [1, 2, 7, 8, 9, 31, 100])
def test_every_length_on_every_instruction_set(isa: str, p: int) -> None:
    rng = np.random.default_rng(p)
    diagonal = rng.uniform(0.5, 2, p)
    pairs = random_pairs(rng, 59, 2, p, 0.9)
    for count in (1, 2, 8, 9, 26, 49, 50, 51, 59):
        memory = filled(pairs[:count], lambda grad: grad * diagonal)
        assert_two_loops(memory, pairs[:count], rng.normal(size=(2, p)), lambda grad: grad * diagonal, 50)


@pytest.mark.parametrize("b", [1, 3])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 8])
def test_a_new_metric_turns_every_pair_wherever_it_stands(monkeypatch: pytest.MonkeyPatch, b: int, count: int) -> None:
    monkeypatch.setattr(lbfgs, "_MOST_PAIRS", 3)
    rng = np.random.default_rng(count)
    diagonal, bend = rng.uniform(0.5, 2, (2, 9))
    pairs = [(s, bend * s) for s in rng.normal(size=(count, b, 9))]
    memory = filled(pairs[:-1], plain)
    memory.set_metric(lambda grad: grad * diagonal)
    s, y = pairs[-1]  # one more, since the scale is still that of the metric before
    memory.add(s, np.zeros_like(y), y, np.ones(len(s), bool))
    assert_two_loops(memory, pairs, rng.normal(size=(b, 9)), lambda grad: grad * diagonal, 3)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
@pytest.mark.parametrize("lost", [False, True])
def test_pairs_are_bent_to_an_objective_with_another_penalty(
    monkeypatch: pytest.MonkeyPatch, count: int, lost: bool
) -> None:
    monkeypatch.setattr(lbfgs, "_MOST_PAIRS", 4)
    rng = np.random.default_rng(count)
    diagonal, bend = rng.uniform(0.5, 2, (2, 9))
    pairs = [(s, bend * s) for s in rng.normal(size=(count, 2, 9))]
    more = np.array([3.0, -0.4])
    if lost and count > 2:  # a pair that has no curvature left, in the second problem
        s, y = pairs[1]
        pairs[1] = s, np.stack([y[0], 0.3 * s[1]])
    memory = Memory(2, 9, plain)
    for s, y in pairs:
        memory.add(s, np.zeros_like(y), y, np.ones(len(s), bool))
    untouched = memory._pairs[:2, :, : min(count, 4)].copy()
    memory, before = memory.bent(more, 7, lambda grad: grad * diagonal), memory
    np.testing.assert_array_equal(before._pairs[:2, :, : min(count, 4)], untouched)
    penalised = np.arange(9) < 7
    bent = [(s, y + more[:, None] * s * penalised) for s, y in pairs]
    assert_two_loops(memory, bent, rng.normal(size=(2, 9)), lambda grad: grad * diagonal, 4)
    assert (lost and count > 2) == any((np.vecdot(s, y) <= 0).any() for s, y in bent)


def test_a_problem_that_does_not_move_keeps_its_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lbfgs, "_MOST_PAIRS", 4)
    rng = np.random.default_rng(3)
    bend, diagonal = rng.uniform(0.5, 2, (2, 9))
    memory, own = Memory(3, 9, plain), [list[tuple[Float64, Float64]]() for _ in range(3)]
    for _ in range(7):
        s, moved = rng.normal(size=(3, 9)), rng.random(3) < [1.0, 0.5, 0.0]
        memory.add(s, np.zeros_like(s), bend * s, moved)
        for b in range(3):
            own[b] += [(s[b], bend * s[b])] * bool(moved[b])
    assert len(own[0]) == 7
    assert 0 < len(own[1]) < 7
    grad = rng.normal(size=(3, 9))
    for each, scaled in ((memory, 0.0), (memory.bent(np.full(3, 0.3), 9, plain), 0.3)):
        each.set_metric(lambda grad: grad * diagonal)
        found = each.direction(grad)
        for b, pairs in enumerate(own):
            bent = [(s, y + scaled * s) for s, y in pairs]
            np.testing.assert_allclose(found[b], two_loops(bent, grad[b], lambda g: g * diagonal, 4), rtol=1e-9)


def test_threads_change_no_bit() -> None:
    rng = np.random.default_rng(0)
    b, p = 5, 3000
    bend = rng.uniform(0.5, 5, (b, p))
    steps = rng.normal(size=(12, b, p))
    grad = rng.normal(size=(b, p))
    found = [filled([(s, bend * s) for s in steps], plain, n).direction(grad).tobytes() for n in (1, 2, 3, 8)]
    assert len(set(found)) == 1


class Arguments:
    """Of the native functions: two problems of seven variables, three places of which two are taken."""

    def __init__(self, **changes: Any) -> None:
        rng = np.random.default_rng(0)
        self.shared: dict[str, Any] = {
            "pairs": np.zeros((3, 2, 3, 7)),
            "products": np.zeros((2, 2, 3, 3)),
            "scale": np.ones(2),
            "count": np.array([2, 2]),
            "newest": np.array([1, 1]),
            "n_threads": 1,
        }
        self.vectors: dict[str, Any] = {
            name: rng.normal(size=(2, 7)) for name in ("step", "before", "after", "turned_before", "turned_after")
        }
        self.vectors["after"] = self.vectors["before"] + self.vectors["step"]
        self.moved = np.ones(2, bool)
        self.ends: dict[str, Any] = {
            "grad": rng.normal(size=(2, 7)),
            "turned_grad": rng.normal(size=(2, 7)),
            "out": np.empty((2, 7)),
        }
        for part in (self.shared, self.vectors, self.ends):
            part.update({name: value for name, value in changes.items() if name in part})

    def add(self) -> None:
        _native.lbfgs_add(**self.shared, **self.vectors, moved=self.moved)

    def direction(self) -> None:
        _native.lbfgs_direction(**self.shared, **self.ends)


def test_nothing_is_read_or_written_beyond_the_ends(isa: str) -> None:
    def fenced(shape: tuple[int, ...], name: str) -> Float64:
        size = int(np.prod(shape))
        fences[name] = np.full(size + 32, np.nan)
        inner = fences[name][16:-16].reshape(shape)
        inner[:] = np.asarray(getattr(plainly, "shared" if name in plainly.shared else "ends")[name])
        return inner

    fences: dict[str, Float64] = {}
    plainly = Arguments()
    shapes = {name: plainly.shared[name].shape for name in ("pairs", "products", "scale")}
    shapes |= {name: (2, 7) for name in plainly.ends}
    careful = Arguments(**{name: fenced(shape, name) for name, shape in shapes.items()})
    for each in (plainly, careful):
        for place in (0, 1):
            each.shared |= {"count": np.full(2, place + 1), "newest": np.full(2, place)}
            each.add()
        each.direction()
    assert np.isfinite(careful.ends["out"]).all()
    assert careful.ends["out"].tobytes() == plainly.ends["out"].tobytes()
    assert all(np.isnan(f[:16]).all() and np.isnan(f[-16:]).all() for f in fences.values())
    assert (careful.shared["pairs"][:, :, 2] == 0).all()  # the place that is free


@pytest.mark.parametrize(
    "changes",
    [
        {"pairs": np.zeros((2, 2, 3, 7))},
        {"pairs": np.zeros((3, 1, 3, 7))},
        {"pairs": np.zeros((3, 2, 4, 7))},
        {"pairs": np.zeros((3, 2, 3, 6))},
        {"products": np.zeros((1, 2, 3, 3))},
        {"products": np.zeros((2, 1, 3, 3))},
        {"products": np.zeros((2, 2, 2, 3))},
        {"products": np.zeros((2, 2, 3, 2))},
        {"scale": np.ones(1)},
        {"count": np.array([2, 4])},
        {"count": np.array([-1, 2])},
        {"count": np.array([2])},
        {"newest": np.array([1, 2])},
        {"newest": np.array([0, 1])},
        {"newest": np.array([1, -1])},
        {"newest": np.array([1, 1, 1])},
        {"newest": np.array([3, 3]), "count": np.array([3, 3])},
    ],
)
def test_memories_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    for call in (Arguments(**changes).add, Arguments(**changes).direction):
        with pytest.raises(ValueError, match="must"):
            call()


@pytest.mark.parametrize("shape", [(2, 6), (1, 7), (3, 7)])
def test_vectors_that_do_not_fit_are_refused(shape: tuple[int, int]) -> None:
    for name in Arguments().vectors:
        with pytest.raises(ValueError, match="vectors must have shape"):
            Arguments(**{name: np.zeros(shape)}).add()
    for name in Arguments().ends:
        with pytest.raises(ValueError, match="vectors must have shape"):
            Arguments(**{name: np.zeros(shape)}).direction()
    with pytest.raises(TypeError, match="incompatible"):
        Arguments(step=np.zeros((2, 7), np.float32)).add()
    with pytest.raises(TypeError, match="incompatible"):
        Arguments(grad=np.zeros((7, 2)).T).direction()


def test_a_pair_needs_a_place() -> None:
    with pytest.raises(ValueError, match="no place"):
        Arguments(count=np.array([2, 0]), newest=np.array([1, 0])).add()


def quadratic(scales: Float64 = SCALES) -> Objective:
    return lambda x, _: (1 + 0.5 * np.vecdot(scales * x, x), scales * x)


def search(
    objective: Objective, start: Float64, *, tol: float = 1e-14, max_iter: int = 200, noise: float = 1e-14
) -> tuple[Point, NDArray[np.bool_]]:
    value, grad = objective(start, np.ones(len(start), bool))

    def stop(at: Point) -> NDArray[np.bool_]:
        assert at.decrease is not None
        return np.asarray(at.decrease <= tol * np.abs(at.value))

    memory = Memory(len(start), start.shape[1], plain)
    return minimize(
        objective, Point(start, value, grad), memory, stop, refresh=lambda at: None, max_iter=max_iter, noise=noise
    )


def test_rosenbrock_like_valleys_converge() -> None:
    at, done = search(quadratic(), np.ones((2, 3)))
    assert done.all()
    np.testing.assert_allclose(at.x, 0, atol=1e-6)
    assert at.n_iter <= 30


def test_problems_searched_together_equal_problems_searched_alone() -> None:
    together, _ = search(quadratic(), np.ones((2, 3)))
    for b in range(2):
        alone, done = search(quadratic(SCALES[b : b + 1]), np.ones((1, 3)))
        assert done.all()
        np.testing.assert_allclose(together.x[b], alone.x[0], atol=1e-6)


def test_a_problem_that_is_done_does_not_move() -> None:
    places: list[Float64] = []
    bowl = quadratic()

    def watched(x: Float64, matter: NDArray[np.bool_]) -> tuple[Float64, Float64]:
        places.append(x.copy())
        return bowl(x, matter)

    search(watched, np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]))
    assert len(places) > 5
    assert all((x[1] == 0).all() for x in places)


def test_a_problem_that_does_not_move_need_not_be_evaluated() -> None:
    bowl, asked = quadratic(), list[tuple[bool, ...]]()

    def partly(x: Float64, matter: NDArray[np.bool_]) -> tuple[Float64, Float64]:
        value, grad = bowl(x, matter)
        asked.append(tuple(matter.tolist()))
        value[~matter], grad[~matter] = -1, np.nan
        return value, grad

    at, done = search(partly, np.array([[1.0, 1.0, 1.0], [0.1, 0.1, 0.1]]))
    assert done.all()
    np.testing.assert_allclose(at.x, 0, atol=1e-6)
    np.testing.assert_allclose(at.value, 1)
    assert {(True, True), (True, False)} <= set(asked)


def test_a_problem_whose_step_fails_holds_up_no_other() -> None:
    bowl, values = quadratic(np.ones((2, 3))), list[Float64]()

    def steep(x: Float64, matter: NDArray[np.bool_]) -> tuple[Float64, Float64]:
        value, grad = bowl(x, matter)
        with np.errstate(over="ignore"):  # its first step is far too long
            value[1], grad[1] = np.cosh(x[1]).sum() - 2, np.sinh(x[1])
        values.append(value)
        return value, grad

    at, done = search(steep, np.array([[1.0, 1.0, 1.0], [8.0, 8.0, 8.0]]))
    assert done.all()
    np.testing.assert_allclose(at.x, 0, atol=1e-5)
    assert values[1][0] == 1  # the first problem is there in one step
    assert not values[1][1] < values[0][1]  # which the second had to take back
    assert len(values) < 40


def test_a_large_memory_hands_its_pairs_over(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    bend, grad = rng.uniform(0.5, 2, 9), rng.normal(size=(2, 9))
    pairs = [(s, bend * s) for s in rng.normal(size=(13, 2, 9))]
    copied = filled(pairs, plain).bent(np.ones(2), 9, plain).direction(grad)
    monkeypatch.setattr(lbfgs, "_MOST_BYTES", 100)
    memory = filled(pairs, plain)
    array = memory._pairs
    later = memory.bent(np.ones(2), 9, plain)
    assert later._pairs is array
    np.testing.assert_array_equal(later.direction(grad), copied)
    empty = memory.bent(np.ones(2), 9, plain)  # it goes on as a new one, and leaves the other alone
    np.testing.assert_array_equal(empty.direction(grad), -grad)
    del memory
    np.testing.assert_array_equal(later.bent(np.zeros(2), 9, plain).direction(grad), copied)


def test_memories_that_succeed_each_other_share_their_arrays() -> None:
    rng = np.random.default_rng(0)
    bend = rng.uniform(0.5, 2, 9)
    memory = filled([(s, bend * s) for s in rng.normal(size=(3, 2, 9))], plain)
    first = id(memory._pairs)
    memory = memory.bent(np.ones(2), 9, plain)
    assert id(memory._pairs) != first
    later = memory.bent(np.ones(2), 9, plain)
    assert id(later._pairs) == first
    pairs = [(s, bend * s) for s in rng.normal(size=(2, 2, 9))]
    alone = filled(pairs, plain).bent(np.ones(2), 9, plain)
    fresh = filled(pairs, plain)
    fresh._spare.append(np.full_like(fresh._pairs, 7.0))
    grad = rng.normal(size=(2, 9))
    np.testing.assert_array_equal(fresh.bent(np.ones(2), 9, plain).direction(grad), alone.direction(grad))


def test_the_steps_are_counted_and_limited() -> None:
    calls = 0
    bowl = quadratic()

    def counted(x: Float64, matter: NDArray[np.bool_]) -> tuple[Float64, Float64]:
        nonlocal calls
        calls += 1
        return bowl(x, matter)

    at, done = search(counted, np.ones((2, 3)), max_iter=2)
    assert (at.n_iter, at.n_passes) == (2, calls - 1)
    assert not done[0]


def test_values_beyond_the_dtype_are_backed_away_from() -> None:
    def steep(x: Float64, matter: NDArray[np.bool_]) -> tuple[Float64, Float64]:
        with np.errstate(over="ignore"):
            return np.cosh(x).sum(axis=1), np.sinh(x)

    at, done = search(steep, np.full((1, 2), 8.0))  # the full step overflows
    assert done.all()
    np.testing.assert_allclose(at.x, 0, atol=1e-6)


def test_a_value_that_is_no_number_is_not_accepted() -> None:
    def walled(x: Float64, matter: NDArray[np.bool_]) -> tuple[Float64, Float64]:
        value = 1 + 0.5 * np.vecdot(x - 1, x - 1)
        return np.where(x[:, 0] < 0, np.nan, value), x - 1

    at, done = search(walled, np.array([[5.0, -30.0]]))
    assert done.all()
    np.testing.assert_allclose(at.x, 1, atol=1e-6)


@pytest.mark.parametrize("noise", [1e-7, 1e-14])
def test_where_rounding_lets_nothing_go_lower_the_search_ends(noise: float) -> None:
    rng = np.random.default_rng(0)

    def rounded(x: Float64, matter: NDArray[np.bool_]) -> tuple[Float64, Float64]:
        value, grad = quadratic()(x, matter)
        return value + rng.uniform(0, 1e-5, 2), grad + rng.normal(0, 1e-2, grad.shape)

    at, done = search(rounded, np.ones((2, 3)), tol=1e-30, max_iter=5000, noise=noise)
    assert at.n_iter < 5000
    assert not done.any()
    assert (at.value < 1.01).all()


def test_steps_whose_gain_is_below_the_noise_end() -> None:
    calls = 0

    def slow(x: Float64, matter: NDArray[np.bool_]) -> tuple[Float64, Float64]:
        nonlocal calls
        calls += 1
        return np.array([1 - 1e-9 * calls]), np.full((1, 1), 1e-5)

    at, done = search(slow, np.zeros((1, 1)), tol=1e-30, max_iter=1000, noise=1e-6)
    assert not done.any()
    assert at.n_iter < 200


def test_an_uphill_direction_is_not_followed() -> None:
    def uphill(grad: Float64) -> Float64:
        return -grad

    value, grad = quadratic()(np.ones((2, 3)), np.ones(2, bool))
    at, _ = minimize(
        quadratic(),
        Point(np.ones((2, 3)), value, grad),
        Memory(2, 3, uphill),
        lambda at: np.zeros(2, bool),
        refresh=lambda at: None,
        max_iter=10,
        noise=0.0,
    )
    np.testing.assert_array_equal(at.x, 1)
