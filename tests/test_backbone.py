"""EfficientNet-Lite0: our graph against an independent, slow network, and the reader of its weights."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from luce.backbones import efficientnet_lite, open_session, run
from luce.backbones.torch_file import read_tensors
from luce.errors import ModelError

Array = NDArray[np.float64]

# kernel, stride, repeats as in the paper's table for the Lite variant; expansion is 6 but for the first stage
STAGES = [(3, 1, 1), (3, 2, 2), (5, 2, 2), (3, 2, 3), (5, 1, 3), (5, 2, 4), (3, 1, 1)]


def convolve(x: Array, weight: Array, stride: int) -> Array:
    """Direct convolution, padding SAME as in TensorFlow. x (H, W, C); weight (out, in, k, k) or (C, 1, k, k)."""
    k = weight.shape[2]
    size = x.shape[0]
    out = -(-size // stride)
    total = max((out - 1) * stride + k - size, 0)
    padded = np.pad(x, ((total // 2, total - total // 2),) * 2 + ((0, 0),))
    result = np.zeros((out, out, weight.shape[0]))
    for i in range(k):
        for j in range(k):
            window = padded[i : i + (out - 1) * stride + 1 : stride, j : j + (out - 1) * stride + 1 : stride]
            if weight.shape[1] == 1 and weight.shape[0] == x.shape[2]:
                result += window * weight[:, 0, i, j]
            else:
                result += window @ weight[:, :, i, j].T
    return result


def reference_features(pixels: NDArray[np.uint8], weights: dict[str, NDArray[np.generic]]) -> Array:
    """The network as its definition reads, batch normalisation unfolded, in float64."""

    def tensor(name: str) -> Array:
        return weights[name].astype(np.float64)

    def normalise(x: Array, name: str) -> Array:
        centred = (x - tensor(f"{name}.running_mean")) / np.sqrt(tensor(f"{name}.running_var") + 1e-3)
        return centred * tensor(f"{name}.weight") + tensor(f"{name}.bias")

    def relu6(x: Array) -> Array:
        return np.minimum(np.maximum(x, 0), 6)

    x = (pixels.astype(np.float64) - 127) / 128
    x = relu6(normalise(convolve(x, tensor("_conv_stem.weight"), 2), "_bn0"))
    block, averages = 0, []
    for stage, (_, stride, repeats) in enumerate(STAGES):
        for repeat in range(repeats):
            name, before = f"_blocks.{block}", x
            if stage > 0:
                x = relu6(normalise(convolve(x, tensor(f"{name}._expand_conv.weight"), 1), f"{name}._bn0"))
            depthwise = tensor(f"{name}._depthwise_conv.weight")
            x = relu6(normalise(convolve(x, depthwise, stride if repeat == 0 else 1), f"{name}._bn1"))
            x = normalise(convolve(x, tensor(f"{name}._project_conv.weight"), 1), f"{name}._bn2")
            x = x + before if repeat else x
            block += 1
        averages.append(x.mean(axis=(0, 1)))
    x = relu6(normalise(convolve(x, tensor("_conv_head.weight"), 1), "_bn1"))
    return np.concatenate([*averages, x.mean(axis=(0, 1))])


@pytest.fixture(scope="module")
def pictures() -> NDArray[np.uint8]:
    """A smooth picture, noise, and black."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:224, 0:224]
    smooth = np.stack([x * 255 // 223, y * 255 // 223, (x + y) * 255 // 446], axis=-1)
    noise = rng.integers(0, 256, (224, 224, 3))
    return np.stack([smooth, noise, np.zeros_like(noise)]).astype(np.uint8)


def test_features_agree_with_the_definition_of_the_network(pictures: NDArray[np.uint8]) -> None:
    session = open_session(efficientnet_lite.build().SerializeToString())
    features = run(session, pictures)[0]
    assert features.shape == (3, 2064)
    assert features.dtype == np.float32
    weights = efficientnet_lite.read_weights()
    for picture, ours in zip(pictures, features, strict=True):
        assert np.abs(reference_features(picture, weights) - ours).max() < 1e-3


def test_features_do_not_depend_on_the_batch(pictures: NDArray[np.uint8]) -> None:
    session = open_session(efficientnet_lite.build().SerializeToString())
    together = run(session, pictures)[0]
    for i in range(len(pictures)):
        assert np.array_equal(run(session, pictures[i : i + 1])[0][0], together[i])


def test_building_is_deterministic() -> None:
    assert efficientnet_lite.build().SerializeToString() == efficientnet_lite.build().SerializeToString()


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = bytearray(efficientnet_lite.weights_path().read_bytes())
    changed[1_000_000] ^= 1
    path = tmp_path / "weights.pth"
    path.write_bytes(changed)
    monkeypatch.setattr(efficientnet_lite, "weights_path", lambda: path)
    with pytest.raises(ModelError, match="not the expected weights"):
        efficientnet_lite.read_weights()


# -- hostile weight files


class Evil:
    """Unpickled by an ordinary unpickler, this makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.trace),)


def sequential(state: object) -> bytes:
    """A file in the sequential format around a state."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    parts: tuple[object, ...] = (0x1950A86A20F9469CFC6C, 1001, system, state, [])
    return b"".join(pickle.dumps(part, protocol=2) for part in parts)


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4])
def test_a_file_that_asks_to_run_code_is_refused_and_runs_nothing(tmp_path: Path, place: int) -> None:
    trace = tmp_path / "trace"
    parts: list[object] = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}, []]
    parts[place] = Evil(trace)
    path = tmp_path / "evil.pth"
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))
    with pytest.raises(ModelError, match=r"asks to run posix\.mkdir"):
        read_tensors(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Evil(trace)))  # the attack is real: an ordinary unpickler falls for it
    assert trace.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x02.",
        b"PK\x03\x04" + bytes(100),
        b"not a pickle at all",
        sequential({"a": 1}),
        sequential([1, 2]),
        sequential({1: "a"}),
        pickle.dumps(1),
    ],
    ids=["empty", "stop", "zip", "text", "number", "list", "odd key", "wrong magic"],
)
def test_what_is_no_weights_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"x\.pth: refused as a weights file"):
        read_tensors(path)


def tensor_file(offset: int, shape: tuple[int, ...], stride: tuple[int, ...], count: int = 4) -> bytes:
    """A file with one tensor `a` over a storage of 4 numbers, written opcode by opcode."""

    def text(value: str) -> bytes:
        return b"X" + len(value).to_bytes(4, "little") + value.encode()

    def number(value: int) -> bytes:
        return b"J" + value.to_bytes(4, "little", signed=True)

    def numbers(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(count) + b"NtQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(shape) + numbers(stride)
    state = b"\x80\x02}" + text("a") + tensor + b"\x89}tRs."
    system = {"little_endian": True}
    head = b"".join(pickle.dumps(p, protocol=2) for p in (0x1950A86A20F9469CFC6C, 1001, system))
    body = (4).to_bytes(8, "little") + np.arange(4, dtype="<f4").tobytes()
    return head + state + pickle.dumps(["0"], protocol=2) + body


def test_a_transposed_tensor_is_read_in_row_major_order(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(tensor_file(0, (2, 2), (1, 2)))
    assert read_tensors(path)["a"].tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("offset", "shape", "stride", "count"),
    [
        (1, (4,), (1,), 4),
        (0, (5,), (1,), 4),
        (0, (2, 2), (3, 1), 4),
        (-1, (2,), (1,), 4),
        (0, (2,), (-1,), 4),
        (0, (-2,), (1,), 4),
        (0, (2,), (1, 1), 4),
        (0, (1 << 30,), (0,), 4),
        (0, (4,), (1,), 1 << 30),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(
    tmp_path: Path, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], count: int
) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(tensor_file(offset, shape, stride, count))
    with pytest.raises(ModelError):
        read_tensors(path)


def test_a_truncated_weights_file_is_refused(tmp_path: Path) -> None:
    whole = efficientnet_lite.weights_path().read_bytes()
    path = tmp_path / "x.pth"
    for size in (100, 5_000, 60_000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError):
            read_tensors(path)


def test_flipped_bytes_never_do_worse_than_a_refusal(tmp_path: Path) -> None:
    whole = tensor_file(0, (2, 2), (2, 1))
    path = tmp_path / "x.pth"
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 0x55
        path.write_bytes(changed)
        try:
            tensors = read_tensors(path)
        except ModelError:
            continue
        assert all(isinstance(tensor, np.ndarray) for tensor in tensors.values())


def test_reading_does_not_go_through_pickle_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def forbidden(_file: io.IOBase) -> object:
        raise AssertionError("pickle.load was called")

    monkeypatch.setattr(pickle, "load", forbidden)
    path = tmp_path / "x.pth"
    path.write_bytes(tensor_file(0, (4,), (1,)))
    assert read_tensors(path)["a"].tolist() == [0, 1, 2, 3]
