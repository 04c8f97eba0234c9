"""Preparation: its own checks, the four roads from a picture to the network's input, and that they agree."""

from __future__ import annotations

import dataclasses
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from luce.images import Picture, Preparation, decode, load, prepare


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def photo(height: int, width: int) -> NDArray[np.uint8]:
    """Smooth waves in three colours: what a lossy compression keeps."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 9), np.cos(y / 11), np.sin((x + y) / 17)]
    return np.round(127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


def jpeg(pixels: NDArray[np.uint8], orientation: int = 1) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).save(file, "JPEG", quality=95, subsampling=0, exif=exif)
    return file.getvalue()


def box_mean(pixels: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float64]:
    """The mean of each block, for sizes that divide: what the box filter is defined as."""
    h, w = pixels.shape[:2]
    result: NDArray[np.float64] = pixels.reshape(height, h // height, width, w // width, 3).mean((1, 3))
    return result


def cubic(x: float) -> float:
    """Keys' kernel with a = -0.5."""
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def cubic_matrix(size: int, start: float, stop: float, out: int) -> NDArray[np.float64]:
    """Weights (out, size) of a bicubic reduction of start … stop: the kernel is widened with the reduction."""
    scale = (stop - start) / out
    width = max(scale, 1.0)
    centres = start + (np.arange(out) + 0.5) * scale
    weights = np.array([[cubic((j + 0.5 - centre) / width) for j in range(size)] for centre in centres])
    result: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return result


def bicubic(
    pixels: NDArray[np.uint8], box: tuple[float, float, float, float], height: int, width: int
) -> NDArray[np.float64]:
    """Columns of the result first, rounded to 8 bits, then its rows."""
    columns = cubic_matrix(pixels.shape[1], box[0], box[2], width)
    rows = cubic_matrix(pixels.shape[0], box[1], box[3], height)
    between = np.clip(np.rint(columns @ pixels.astype(float)), 0, 255)
    result: NDArray[np.float64] = np.clip(np.einsum("ih,hwc->iwc", rows, between, optimize=True), 0, 255)
    return result


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 0}, r"width must be a whole number in 1 … 8192, got 0"),
        ({"width": 8193}, r"width must be a whole number in 1 … 8192, got 8193"),
        ({"height": 2.0}, r"height must be a whole number in 1 … 8192, got 2\.0"),
        ({"height": True}, r"height must be a whole number in 1 … 8192, got True"),
        ({"height": "8"}, r"height must be a whole number in 1 … 8192, got '8'"),
        ({"fit": "stretch"}, r"fit must be one of \('crop', 'squash', 'pad'\), got 'stretch'"),
        ({"filter": "cubic"}, r"filter must be one of .*'bicubic'.*, got 'cubic'"),
        ({"mode": "gray"}, r"mode must be one of \('rgb', 'grey'\), got 'gray'"),
        ({"mode": ["rgb"]}, r"mode must be one of .*, got \['rgb'\]"),
        ({"crop": 0.0}, r"crop must lie in \(0, 1\], got 0\.0"),
        ({"crop": 1.1}, r"crop must lie in \(0, 1\], got 1\.1"),
        ({"crop": float("nan")}, r"crop must lie in \(0, 1\], got nan"),
        ({"crop": "1"}, r"crop must lie in \(0, 1\], got '1'"),
        ({"crop": True}, r"crop must lie in \(0, 1\], got True"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^Preparation: {message}$"):
        Preparation(**{"width": 4, "height": 4, **values})


def test_the_limits_themselves_are_allowed() -> None:
    assert Preparation(1, 8192, crop=1).crop == 1


def test_a_preparation_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Preparation(4, 4).width = 5  # type: ignore[misc]


def test_it_goes_through_json_and_back() -> None:
    spec = Preparation(31, 17, "crop", 0.875, "lanczos", "grey")
    values = spec.to_dict()
    assert values == {
        "version": 1, "width": 31, "height": 17, "fit": "crop", "crop": 0.875, "filter": "lanczos", "mode": "grey",
    }  # fmt: skip
    assert Preparation.from_dict(json.loads(json.dumps(values))) == spec
    assert values["version"] == 1  # reading leaves the mapping as it was


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2 is unknown, this Luce knows 1"),
        ({"version": None}, "version None is unknown, this Luce knows 1"),
        ({"colour": 1}, "keys are missing or unknown: colour"),
        ({"mode": None, "fit": None, "zoom": 3}, "keys are missing or unknown: fit, mode, zoom"),
        ({"width": -1}, "width must be a whole number in 1 … 8192, got -1"),
    ],
)
def test_reading_names_what_is_wrong(change: dict[str, Any], message: str) -> None:
    values = {**Preparation(4, 4).to_dict(), **change}
    values = {key: value for key, value in values.items() if value is not None}
    with pytest.raises(ValueError, match=f"^Preparation: {message}$"):
        Preparation.from_dict(values)


def test_the_short_side_needed_follows_from_the_longer_side_and_the_crop() -> None:
    assert Preparation(224, 192).min_side == 224
    assert Preparation(192, 224).min_side == 224
    assert Preparation(224, 224, "crop", 0.875).min_side == 256
    assert Preparation(100, 100, "crop", 0.3).min_side == 334


@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
def test_the_right_size_leaves_every_pixel(fit: Any) -> None:
    pixels = noise(9, 7)
    before = pixels.copy()
    for picture in (pixels, Picture(pixels, (7, 9), "array")):
        np.testing.assert_array_equal(prepare(picture, Preparation(7, 9, fit)), before)


def test_a_crop_below_one_works_on_the_right_size_too() -> None:
    pixels = noise(8, 8)
    got = prepare(pixels, Preparation(8, 8, "crop", 0.5, "nearest"))
    np.testing.assert_array_equal(got, np.repeat(np.repeat(pixels[2:6, 2:6], 2, axis=0), 2, axis=1))
    np.testing.assert_array_equal(prepare(pixels, Preparation(8, 8, "squash", 0.5)), pixels)  # crop is for "crop"


def test_squash_takes_the_whole_picture() -> None:
    pixels = noise(12, 30)
    got = prepare(pixels, Preparation(5, 4, "squash", filter="box"))
    assert np.abs(got - box_mean(pixels, 4, 5)).max() <= 1


def test_crop_takes_the_largest_centred_part_of_the_shape() -> None:
    pixels = noise(12, 30)
    got = prepare(pixels, Preparation(4, 4, "crop", filter="box"))
    assert np.abs(got - box_mean(pixels[:, 9:21], 4, 4)).max() <= 1
    upright = prepare(pixels.transpose(1, 0, 2).copy(), Preparation(2, 6, "crop", filter="box"))
    assert np.abs(upright - box_mean(pixels.transpose(1, 0, 2)[:, 1:11][:30], 6, 2)).max() <= 1


def test_crop_keeps_its_share_of_it() -> None:
    pixels = noise(16, 16)
    got = prepare(pixels, Preparation(4, 4, "crop", 0.75, "box"))
    assert np.abs(got - box_mean(pixels[2:14, 2:14], 4, 4)).max() <= 1


def test_pad_fills_up_with_grey_on_both_sides() -> None:
    wide = noise(4, 8)
    got = prepare(wide, Preparation(8, 8, "pad"))
    np.testing.assert_array_equal(got[2:6], wide)
    assert (got[:2] == 127).all()
    assert (got[6:] == 127).all()
    tall = prepare(wide.transpose(1, 0, 2), Preparation(8, 8, "pad"))
    np.testing.assert_array_equal(tall[:, 2:6], wide.transpose(1, 0, 2))
    assert (tall[:, :2] == 127).all()
    assert (tall[:, 6:] == 127).all()


def test_pad_keeps_a_thread_of_a_picture() -> None:
    got = prepare(np.zeros((1, 2000, 3), np.uint8), Preparation(10, 11, "pad"))
    assert (got[5] == 0).all()
    assert (np.delete(got, 5, axis=0) == 127).all()


@pytest.mark.parametrize(("height", "width"), [(23, 31), (40, 17), (5, 6)])
def test_bicubic_is_the_kernel_of_keys_widened_with_the_reduction(height: int, width: int) -> None:
    pixels = noise(height, width) // 2 + 64  # far from black and white: no pass has to cut, whichever comes first
    squashed = prepare(pixels, Preparation(11, 8))
    assert np.abs(squashed - bicubic(pixels, (0, 0, width, height), 8, 11)).max() < 1.6
    scale = min(width / 11, height / 8) * 0.9
    left, top = (width - 11 * scale) / 2, (height - 8 * scale) / 2
    cropped = prepare(pixels, Preparation(11, 8, "crop", 0.9))
    assert np.abs(cropped - bicubic(pixels, (left, top, width - left, height - top), 8, 11)).max() < 1.6


def test_grey_is_the_luma_in_three_equal_channels() -> None:
    pixels = noise(6, 5)
    for spec in (Preparation(5, 6, mode="grey"), Preparation(3, 3, mode="grey")):
        got = prepare(pixels, spec)
        colours = prepare(pixels, dataclasses.replace(spec, mode="rgb"))
        assert np.abs(got[..., 0] - colours @ np.array([0.299, 0.587, 0.114])).max() <= 0.51
        np.testing.assert_array_equal(got, np.repeat(got[..., :1], 3, axis=2))


def test_a_crop_whose_rounding_exceeds_the_picture() -> None:
    # 240 · (511 / 240) > 511 in floating point.
    assert 240 * (511 / 240) > 511
    pixels = noise(518, 511) // 2 + 64
    got = prepare(pixels, Preparation(240, 240, "crop"))
    assert np.abs(got - bicubic(pixels, (0, 3.5, 511, 514.5), 240, 240)).max() < 1.6


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    spec=st.builds(
        Preparation,
        width=st.integers(1, 60),
        height=st.integers(1, 60),
        fit=st.sampled_from(["crop", "squash", "pad"]),
        crop=st.floats(1e-300, 1.0),
        filter=st.sampled_from(["bicubic", "bilinear", "lanczos", "nearest", "box"]),
        mode=st.sampled_from(["rgb", "grey"]),
    ),
)
def test_every_picture_fits_every_preparation(height: int, width: int, spec: Preparation) -> None:
    one_colour = np.full((height, width, 3), (10, 100, 200), np.uint8)
    got = prepare(one_colour, spec)
    assert got.shape == (spec.height, spec.width, 3)
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    assert got.flags.writeable
    colour = (84, 84, 84) if spec.mode == "grey" else (10, 100, 200)
    assert {tuple(pixel) for pixel in got.reshape(-1, 3).tolist()} <= {colour, (127, 127, 127)}
    assert spec.fit == "pad" or (got == colour).all()


def test_load_is_decode_and_prepare() -> None:
    data = jpeg(photo(90, 130))
    spec = Preparation(40, 24, "crop", 0.9)
    pixels, picture = load(data, spec)
    assert picture.size == (130, 90)
    assert picture.format == "JPEG"
    np.testing.assert_array_equal(pixels, prepare(decode(data, min_side=spec.min_side), spec))


def test_load_hands_on_the_limit() -> None:
    with pytest.raises(Exception, match="more than the limit of 99"):
        load(noise(10, 10), Preparation(4, 4), max_pixels=99)
    load(noise(10, 10), Preparation(4, 4), max_pixels=100)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["crop", "squash", "pad"])
@pytest.mark.parametrize("shape", [(512, 512), (400, 700), (901, 333)])
def test_a_jpeg_decoded_at_a_fraction_gives_nearly_the_same(fit: Any, shape: tuple[int, int], orientation: int) -> None:
    # 901 and 333 are not divided by the fraction: the last pixel of each row and column is only begun.
    data = jpeg(photo(*shape), orientation)
    spec = Preparation(64, 64, fit)
    pixels, picture = load(data, spec)
    whole = decode(data)
    assert 64 <= min(picture.pixels.shape[:2]) < min(shape)  # it was decoded at a fraction
    assert picture.size == whole.size == (shape[::-1] if orientation < 5 else shape)
    difference = np.abs(pixels.astype(float) - prepare(whole, spec))
    assert difference.mean() < 2
    assert difference.max() < 20


def test_a_last_pixel_only_begun_is_resampled_even_if_the_size_is_right() -> None:
    data = jpeg(photo(333, 333))
    spec = Preparation(84, 84)
    pixels, picture = load(data, spec)
    assert picture.pixels.shape == (84, 84, 3)
    assert picture.part is not None
    assert list(picture.part) == [0, 0, 83.25, 83.25]
    assert np.abs(pixels.astype(float) - prepare(decode(data), spec)).mean() < 2


def test_threads_give_what_one_gives() -> None:
    sources = [jpeg(photo(100 + 7 * i, 160 - 5 * i)) for i in range(12)] + [noise(40 + i, 50, i) for i in range(12)]
    spec = Preparation(32, 48, "crop", 0.8, "lanczos")
    alone = [load(source, spec)[0] for source in sources]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for one, other in zip(alone, pool.map(lambda source: load(source, spec)[0], sources), strict=True):
                np.testing.assert_array_equal(one, other)
