"""Odd and broken pictures: every row of their manifest does as it says, but for the differences named here."""

from __future__ import annotations

import csv
import tarfile
from pathlib import Path

import numpy as np
import pytest

from luce.errors import ImageError
from luce.images import decode

pytestmark = pytest.mark.data

ROWS = 276
BOMBS = (
    "generated/bomb_12000x12000_rgb_valid.png",
    "generated/bomb_20000x20000_1bit_valid.png",
    "generated/bomb_gif_screen_65535.gif",
    "generated/bomb_header_2147483647_square.png",
    "generated/bomb_header_60000x60000_tiny_idat.png",
    "generated/bomb_sof_65500x65500.jpg",
)
# Pillow loads them; Luce does not, and why.
REFUSED = {
    "generated/bad_crc.png": "the chunk IDAT has a wrong checksum",
    "pngsuite/xcsn0g01.png": "the chunk IDAT has a wrong checksum",  # the suite means it to be refused
    "generated/bomb_12000x12000_rgb_valid.png": "more than the limit of 100,000,000",  # Pillow only warns
}
# What the refusal of some others says.
REASONS = {
    **dict.fromkeys(BOMBS, "more than the limit of 100,000,000"),
    "generated/empty.jpg": "the file is empty",
    "generated/empty.png": "the file is empty",
    "generated/git_lfs_pointer.jpg": "git lfs pull",
    "generated/html_error_page.jpg": "an HTML page",
    "generated/zip_named.jpg": "zip archive",
    "generated/text_renamed.jpg": "not a picture of a known format",
    "generated/random_bytes.jpg": "not a picture of a known format",
    "generated/truncated_50pct.jpg": "damaged or cut off",
    "generated/truncated_minus2.jpg": "damaged or cut off",
    "generated/truncated_99pct.png": "damaged or cut off",
    "generated/truncated_50pct.webp": "damaged or cut off",
    "libjpeg-turbo/monkey12.jpg": "precision 12",
}


@pytest.fixture(scope="session")
def folder(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("odd")
    with tarfile.open(data_dir / "odd-images" / "odd-images-dev.tar.xz") as archive:
        archive.extractall(target, filter="data")
    return next(target.rglob("pngsuite")).parent


@pytest.fixture(scope="session")
def manifest(data_dir: Path) -> list[dict[str, str]]:
    with open(data_dir / "odd-images" / "MANIFEST.csv", newline="") as file:
        return list(csv.DictReader(file))


def is_accepted(row: dict[str, str]) -> bool:
    return row["open"] == "ok" and row["load"] == "ok" and row["path"] not in REFUSED


def upright_size(row: dict[str, str]) -> tuple[int, int]:
    """Of the manifest's size, which is that of the file."""
    size = int(row["width"]), int(row["height"])
    return size[::-1] if row["exif_orientation"] in ("5", "6", "7", "8") else size


def test_the_manifest_is_whole_and_every_exception_is_in_it(folder: Path, manifest: list[dict[str, str]]) -> None:
    paths = {row["path"] for row in manifest}
    assert len(paths) == len(manifest) == ROWS
    assert all((folder / path).is_file() for path in paths)
    assert paths >= {*REFUSED, *REASONS}
    assert sum(map(is_accepted, manifest)) == 229


def test_what_is_a_picture_is_decoded(folder: Path, manifest: list[dict[str, str]]) -> None:
    wrong = []
    for row in filter(is_accepted, manifest):
        try:
            picture = decode(folder / row["path"])
        except ImageError as error:
            wrong.append(str(error))
            continue
        width, height = upright_size(row)
        found = (picture.format, picture.size, picture.pixels.shape, str(picture.pixels.dtype))
        if found != (row["format"], (width, height), (height, width, 3), "uint8"):
            wrong.append(f"{row['path']}: {found}")
    assert wrong == []


def test_what_is_no_picture_is_refused_with_its_path_and_a_reason(folder: Path, manifest: list[dict[str, str]]) -> None:
    wrong = []
    for row in manifest:
        if is_accepted(row):
            continue
        try:
            wrong.append(f"{row['path']}: decoded, {decode(folder / row['path']).size}")
        except ImageError as error:
            expected = REASONS.get(row["path"], REFUSED.get(row["path"], "damaged|not a picture"))
            said = any(words in error.reason for words in expected.split("|"))
            if error.path != str(folder / row["path"]) or not said:
                wrong.append(str(error))
    assert wrong == []


@pytest.mark.parametrize("name", ["Landscape", "Portrait"])
def test_nine_orientations_of_one_photo_are_one_picture(folder: Path, name: str) -> None:
    # Each was turned before it was compressed, and has its number drawn into it; a wrong turn differs by more than 40.
    first = decode(folder / "exif-orientation" / f"{name}_0.jpg").pixels.astype(float)
    for i in range(1, 9):
        turned = decode(folder / "exif-orientation" / f"{name}_{i}.jpg").pixels.astype(float)
        assert turned.shape == first.shape
        assert np.abs(turned - first).mean() < 6, i


def test_a_photo_turned_eight_ways_is_one_picture(folder: Path) -> None:
    generated = folder / "generated"
    first = decode(generated / "photo_exif_orientation_1.jpg").pixels.astype(float)
    for i in range(2, 9):
        turned = decode(generated / f"photo_exif_orientation_{i}.jpg").pixels.astype(float)
        assert turned.shape == first.shape
        assert np.abs(turned - first).mean() < 1, i


def test_the_same_photo_in_other_wrappings_is_the_same(folder: Path) -> None:
    generated = folder / "generated"
    jpeg = decode(generated / "photo_baseline.jpg").pixels
    for name in ("no_extension", "jpeg_named.png", "upper_case.JPG", "trailing_garbage.jpg"):
        np.testing.assert_array_equal(decode(generated / name).pixels, jpeg, err_msg=name)
    png = decode(generated / "photo.png").pixels
    for name in ("png_named.jpg", "photo.bmp", "photo.tif"):
        np.testing.assert_array_equal(decode(generated / name).pixels, png, err_msg=name)


def test_grey_of_16_bits_is_the_8_bit_grey_of_the_same_photo(folder: Path) -> None:
    generated = folder / "generated"
    png = decode(generated / "photo.png").pixels @ np.array([0.299, 0.587, 0.114])
    for name in ("photo_gray16.png", "photo_gray16.tif", "photo_float.tif"):
        grey = decode(generated / name).pixels
        assert np.abs(grey[..., 0] - png).max() < 2, name
