"""The decoding front: every source and format to upright RGB pixels, and everything else refused with a reason."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from luce.errors import ImageError
from luce.images import Picture, decode, read_source
from luce.images.source import MAX_FILE_BYTES

Pixels = NDArray[np.uint8]


def drawing(height: int = 24, width: int = 31) -> Pixels:
    """A picture that no turn or mirror leaves as it was."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y * 255 // height, x * 255 // width, (x * y) % 256], axis=-1).astype(np.uint8)


def noise(height: int, width: int, channels: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image: Image.Image | Pixels, format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def raw_png(size: tuple[int, int], depth: int, colour: int, rows: list[bytes], *extra: bytes) -> bytes:
    """A PNG written by hand, each row unfiltered."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + data + chunk(b"IEND", b"")


def exif(orientation: int, order: str = "<") -> bytes:
    """EXIF with nothing but an orientation."""
    magic = {"<": b"Exif\0\0II*\0", ">": b"Exif\0\0MM\0*"}[order]
    return magic + struct.pack(order + "IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def with_exif(image: Pixels, format: str, data: bytes) -> bytes:
    return encoded(image, format, exif=data, **({"lossless": True} if format == "WEBP" else {}))


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        decode(source, **options)
    return caught.value.reason


def small_files() -> dict[str, bytes]:
    """A valid file of each kind."""
    rgb, grey = drawing(), np.round(drawing()[..., 0] / 255, 2).astype(np.float32)
    image = Image.fromarray(rgb)
    frames = [image.rotate(90), image.rotate(180)]
    return {
        "jpeg": encoded(image, "JPEG", exif=exif(6)),
        "jpeg-progressive": encoded(image, "JPEG", progressive=True),
        "jpeg-grey": encoded(image.convert("L"), "JPEG"),
        "jpeg-cmyk": encoded(image.convert("CMYK"), "JPEG"),
        "png": encoded(image, "PNG", exif=exif(6)),
        "png-palette": encoded(image.convert("P"), "PNG", transparency=3),
        "png-16": encoded(Image.fromarray(rgb[..., 0].astype(np.uint16) * 200), "PNG"),
        "png-animated": encoded(image, "PNG", save_all=True, append_images=frames),
        "webp": encoded(image, "WEBP", exif=exif(6)),
        "webp-lossless": encoded(image, "WEBP", lossless=True),
        "gif": encoded(image, "GIF"),
        "gif-animated": encoded(image, "GIF", save_all=True, append_images=frames),
        "tiff": encoded(image, "TIFF"),
        "tiff-float": encoded(Image.fromarray(grey), "TIFF"),
        "tiff-lzw": encoded(image, "TIFF", compression="tiff_lzw"),
        "tiff-deflate": encoded(image, "TIFF", compression="tiff_adobe_deflate"),
        "tiff-jpeg": encoded(image, "TIFF", compression="jpeg"),
        "tiff-packbits": encoded(image, "TIFF", compression="packbits"),
        "tiff-fax": encoded(image.convert("1"), "TIFF", compression="group4"),
        "tiff-pages": encoded(image, "TIFF", save_all=True, append_images=[image.resize((2, 2))]),
        "bmp": encoded(image, "BMP"),
        "bmp-palette": encoded(image.convert("P"), "BMP"),
        "ppm": encoded(image, "PPM"),
        "pgm": encoded(image.convert("L"), "PPM"),
        "pbm": encoded(image.convert("1"), "PPM"),
    }


FILES = small_files()


# ---- sources


def test_every_source_gives_the_same_pixels(tmp_path: Path) -> None:
    pixels = drawing()
    data = encoded(pixels, "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with open(path, "rb") as file:
        sources: list[Any] = [path, str(path), data, bytearray(data), memoryview(data), file, io.BytesIO(data)]
        sources += [pixels, Image.fromarray(pixels)]
        for source in sources:
            picture = decode(source)
            np.testing.assert_array_equal(picture.pixels, pixels)
            assert picture.size == (31, 24)
            assert picture.pixels.flags.c_contiguous
    assert [decode(s).format for s in (data, pixels, Image.fromarray(pixels))] == ["PNG", "array", "PIL"]


def test_the_content_of_a_source_is_bytes_or_pixels(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"anything")
    assert read_source(tmp_path / "x") == b"anything"
    assert read_source(memoryview(b"abc")[1:]) == b"bc"
    assert read_source(io.BytesIO(b"abc")) == b"abc"
    for source in (drawing(), Image.fromarray(drawing())):
        np.testing.assert_array_equal(read_source(source), drawing())


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("jpeg", "JPEG"),
        ("png", "PNG"),
        ("webp", "WEBP"),
        ("gif", "GIF"),
        ("tiff", "TIFF"),
        ("bmp", "BMP"),
        ("ppm", "PPM"),
    ],
)
def test_the_name_of_a_file_says_nothing(tmp_path: Path, name: str, format: str) -> None:
    for suffix in (".jpg", ".png", ".txt", ""):
        path = tmp_path / f"picture{suffix}"
        path.write_bytes(FILES[name])
        assert decode(path).format == format


def test_arrays_of_every_allowed_kind() -> None:
    grey = drawing()[..., 0]
    stacked = np.repeat(grey[:, :, None], 3, axis=2)
    np.testing.assert_array_equal(decode(grey).pixels, stacked)
    np.testing.assert_array_equal(decode(grey[:, :, None]).pixels, stacked)
    np.testing.assert_array_equal(decode(grey > 100).pixels, (stacked > 100) * np.uint8(255))
    np.testing.assert_array_equal(decode(drawing()[::-1, ::2]).pixels, drawing()[::-1, ::2])
    for channels in ((), (1,), (3,)):
        values = np.random.default_rng(0).integers(0, 65536, (50, 60, *channels), dtype=np.uint16)
        exact = np.floor(values / 65535 * 255 + 0.5).astype(np.uint8).reshape(50, 60, -1)
        np.testing.assert_array_equal(decode(values).pixels, np.broadcast_to(exact, (50, 60, 3)))


def test_every_value_of_16_bits_is_rounded_not_cut() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    exact = np.floor(values / 257 + 0.5)
    for source in (values, encoded(Image.fromarray(values), "PNG"), encoded(Image.fromarray(values), "TIFF")):
        np.testing.assert_array_equal(decode(source).pixels[..., 0], exact)
    assert decode(encoded(Image.fromarray(values), "PNG")).notes == ("16 bits scaled to 8",)


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.zeros((4, 4), np.float32), TypeError, r"uint8, uint16 or bool, got float32; convert it first, for example"),
        (np.zeros((4, 4, 3), np.int64), TypeError, "got int64"),
        (np.zeros((4,), np.uint8), ValueError, r"must have shape .* got \(4,\)$"),
        (np.zeros((5, 4, 2), np.uint8), ValueError, r"got \(5, 4, 2\)$"),
        (np.zeros((3, 8, 8), np.uint8), ValueError, r"got \(3, 8, 8\); move the channels last"),
        (np.zeros((2, 4, 4, 3), np.uint8), ValueError, r"got \(2, 4, 4, 3\)$"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"got \(0, 4, 3\)"),
        (np.zeros((4, 0), np.uint16), ValueError, r"got \(4, 0\)"),
    ],
)
def test_a_wrong_array_is_named(array: NDArray[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        decode(array)


@pytest.mark.parametrize("source", [None, 3, 2.5, ["a.jpg"], object(), io.StringIO("text")])
def test_what_is_no_source_is_a_type_error(source: Any) -> None:
    with pytest.raises(TypeError, match=r"a picture must be a path, bytes, .* got \w+\.\w+"):
        decode(source)


# ---- what cannot be read


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for path, reason in (
        (tmp_path / "none.jpg", "no such file"),
        (tmp_path, "it is a folder, not a picture"),
        (tmp_path / "fifo", "it is no regular file, not a picture"),
        (Path("/dev/zero"), "it is no regular file, not a picture"),
        (tmp_path / "loop", r"the file cannot be read (Too many levels of symbolic links)"),
        (tmp_path / ("n" * 300), "the file cannot be read (File name too long)"),
        (str(tmp_path / "a\0b"), "this is no path (embedded null byte)"),
        (tmp_path / "loop" / "x", "the file cannot be read (Too many levels of symbolic links)"),
    ):
        with pytest.raises(ImageError) as caught:
            decode(path)
        assert (caught.value.path, caught.value.reason) == (str(path), reason)
        assert str(caught.value) == f"{path}: {reason}"


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(FILES["png"])

    def no_open(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", no_open)
    with pytest.raises(ImageError, match=r"the file cannot be read \(Permission denied\)") as caught:
        decode(path)
    assert caught.value.path == str(path)


def test_a_file_too_large_to_be_a_picture_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    assert refusal(tmp_path / "huge") == "the file has 1,073,741,825 bytes; the limit is 1,073,741,824"


def test_an_error_has_the_path_as_given_or_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"")
    for source, expected in ((path, str(path)), (b"", None), (io.BytesIO(), None)):
        with pytest.raises(ImageError) as caught:
            decode(source)
        assert caught.value.path == expected
        assert caught.value.reason == "the file is empty"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html><html>", "an HTML page.*fetch the picture again"),
        (b"\xef\xbb\xbf  \r\n<HTML lang=de>", "an HTML page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing: convert it to PNG"),
        (b"<?xml version='1.0'?><svg/>", "an XML or SVG file: convert it to PNG"),
        (b"PK\x03\x04rest", "a zip archive: unpack it"),
        (b"PK\x05\x06" + bytes(18), "an empty zip archive"),
        (b"%PDF-1.7", "a PDF document: convert its page to PNG"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git-lfs pointer: run `git lfs pull`"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC and AVIF pictures are not read: convert it to JPEG"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "HEIC and AVIF pictures are not read: convert it to JPEG"),
        (b"\0\0\0\x20ftypisom\0\0\0\0", "not a picture of a known format"),
        (b"RIFF\0\0\0\0WAVEfmt ", r"not a picture of a known format \(JPEG, PNG, WebP, GIF, TIFF, BMP and PPM\)"),
        (b"\0", "not a picture of a known format"),
        (b"Not Found", "not a picture of a known format"),
    ],
)
def test_what_is_no_picture_is_told_what_it_is(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        decode(data)


# ---- orientation

# What a viewer must do to the stored picture, written with rotations (counter-clockwise) and mirrors, not axes.
TURNS: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.flipud(np.rot90(a, 1)),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.fliplr(np.rot90(a, 1)[::-1, ::-1])[::-1, ::-1],
    8: lambda a: np.rot90(a, 1),
}


def test_the_turns_are_the_eight_different_ones() -> None:
    stored = drawing()
    assert len({TURNS[i](stored).tobytes() for i in range(1, 9)}) == 8
    for i in (5, 7):  # over the main and the other diagonal
        turned = TURNS[i](stored)
        corner = stored[0, 0] if i == 5 else stored[-1, -1]
        assert (turned[0, 0] == corner).all()
    assert (TURNS[5](stored) == stored.transpose(1, 0, 2)).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "JPEG CMYK", "PNG", "TIFF", "WEBP", "PIL", "PIL TIFF"])
def test_orientation_is_applied(format: str, orientation: int) -> None:
    stored, name = drawing(), format.split()[0]
    data = exif(orientation, "<>"[orientation % 2])
    source: Any
    if format == "JPEG CMYK":
        source = encoded(Image.fromarray(stored).convert("CMYK"), "JPEG", exif=data, quality=95)
    elif name == "PIL":
        source = Image.open(io.BytesIO(with_exif(stored, "TIFF" if format == "PIL TIFF" else "PNG", data)))
    elif name == "TIFF":
        source = encoded(stored, "TIFF", tiffinfo={274: orientation})
    else:
        source = with_exif(stored, name, data)
    picture = decode(source)
    right = TURNS[orientation](stored)
    assert (picture.format, picture.notes) == (name, ())
    assert picture.size == right.shape[1::-1]
    assert picture.pixels.shape == right.shape
    assert picture.pixels.flags.c_contiguous
    assert np.abs(picture.pixels.astype(int) - right).mean() < (12 if "JPEG" in format else 0.01)


def test_the_size_is_the_upright_one_of_the_whole_picture() -> None:
    data = encoded(drawing(160, 240), "JPEG", exif=exif(6))
    picture = decode(data, min_side=20)
    assert picture.size == (160, 240)
    assert picture.pixels.shape == (30, 20, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("data", "note"),
    [
        (exif(0), "EXIF orientation out of range ignored"),
        (exif(9), "EXIF orientation out of range ignored"),
        (b"Exif\0\0II*\0" + struct.pack("<I", 9999), "broken EXIF ignored"),
        (exif(6)[:18], "broken EXIF ignored"),
        (b"Exif\0\0garbage, not EXIF", "broken EXIF ignored"),
        (b"Exif\0\0II*\0" + struct.pack("<IHHHIII", 8, 1, 274, 5, 1, 4000, 0), "EXIF orientation out of range ignored"),
    ],
)
def test_broken_exif_is_noted_and_the_picture_stays(format: str, data: bytes, note: str) -> None:
    whole = encoded(drawing(), format, **({"lossless": True} if format == "WEBP" else {}))
    if format == "JPEG":
        broken = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data + whole[2:]
    elif format == "PNG":
        broken = whole[:33] + chunk(b"eXIf", data) + whole[33:]
    else:
        broken = encoded(drawing(), "WEBP", lossless=True, exif=data)
    picture = decode(broken)
    np.testing.assert_array_equal(picture.pixels, decode(whole).pixels)
    assert picture.notes == (note,)


def test_broken_exif_of_a_cmyk_jpeg_stops_nothing() -> None:
    whole = FILES["jpeg-cmyk"]
    data = exif(6)[:-8]
    broken = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data + whole[2:]
    picture = decode(broken)
    np.testing.assert_array_equal(picture.pixels, decode(whole).pixels)
    assert picture.notes == ("broken EXIF ignored",)


def test_exif_behind_other_segments_and_behind_the_pixels_counts() -> None:
    jpeg = encoded(drawing(), "JPEG", exif=exif(6))
    profile = b"".join(b"\xff\xe2" + struct.pack(">H", 60002) + bytes(60000) for _ in range(4))
    assert decode(jpeg[:2] + profile + jpeg[2:]).size == (24, 31)
    png = encoded(drawing(), "PNG")
    assert decode(png[:-12] + chunk(b"eXIf", exif(6).removeprefix(b"Exif\0\0")) + png[-12:]).size == (24, 31)


def test_exif_in_the_text_that_older_programs_wrote_counts() -> None:
    data = exif(6)
    text = f"\nexif\n{len(data):8}\n{data.hex()}\n".encode()
    png = encoded(drawing(), "PNG")
    assert decode(png[:33] + chunk(b"tEXt", b"Raw profile type exif\0" + text) + png[33:]).size == (24, 31)


# ---- colour


def over_white(rgba: NDArray[Any]) -> Pixels:
    """Exactly rounded, in whole numbers: 255 - (255 - colour) · alpha / 255."""
    return np.array(
        [
            [[(2 * (c * int(p[-1]) + 255 * (255 - int(p[-1]))) + 255) // 510 for c in map(int, p[:-1])] for p in row]
            for row in rgba
        ],
        dtype=np.uint8,
    )


def test_alpha_is_laid_over_white_with_exact_rounding() -> None:
    rgba = np.empty((256, 256, 4), np.uint8)
    rgba[..., :3] = np.arange(256)[:, None, None]
    rgba[..., 3] = np.arange(256)
    right = over_white(rgba)
    sources = (rgba, Image.fromarray(rgba), encoded(rgba, "PNG"), encoded(rgba, "TIFF"))
    for source in sources:
        np.testing.assert_array_equal(decode(source).pixels, right)
    assert decode(sources[2]).notes == ("transparent pixels laid over white",)


def test_an_alpha_that_hides_nothing_is_not_noted() -> None:
    picture = decode(encoded(Image.fromarray(drawing()).convert("RGBA"), "PNG"))
    np.testing.assert_array_equal(picture.pixels, drawing())
    assert picture.notes == ()


def test_alpha_of_a_webp_and_of_grey() -> None:
    rgba = noise(9, 8, 4)
    np.testing.assert_array_equal(decode(encoded(rgba, "WEBP", lossless=True, exact=True)).pixels, over_white(rgba))
    grey = noise(9, 8, 2)
    right = np.repeat(over_white(grey), 3, axis=2)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(grey, "LA"), "PNG")).pixels, right)


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_palette_is_resolved(format: str) -> None:
    palette, indices = noise(1, 256, 3)[0], noise(20, 30, 1)[..., 0]
    image = Image.fromarray(indices, "P")
    image.putpalette(palette.tobytes())
    np.testing.assert_array_equal(decode(encoded(image, format)).pixels, palette[indices])
    np.testing.assert_array_equal(decode(image).pixels, palette[indices])


def test_a_palette_with_transparency_lies_over_white() -> None:
    palette, indices, alpha = noise(1, 256, 3)[0], noise(20, 30, 1)[..., 0], noise(1, 256, 1, 7)[0]
    image = Image.fromarray(indices, "P")
    image.putpalette(palette.tobytes())
    partly = encoded(image, "PNG", transparency=alpha.tobytes())
    right = over_white(np.concatenate([palette, alpha], axis=1)[indices])
    np.testing.assert_array_equal(decode(partly).pixels, right)
    np.testing.assert_array_equal(decode(Image.open(io.BytesIO(partly))).pixels, right)
    one = palette.copy()
    one[17] = 255
    for format in ("PNG", "GIF"):
        np.testing.assert_array_equal(decode(encoded(image, format, transparency=17)).pixels, one[indices])


def test_one_transparent_grey_of_every_depth() -> None:
    for depth in (1, 2, 4, 8, 16):
        top = 2**depth - 1
        values = np.unique(np.linspace(0, top, 16).astype(int))
        bits = "".join(f"{v:0{depth}b}" for v in values)
        row = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
        for key in (0, int(values[1]), top):
            data = raw_png((len(values), 1), depth, 0, [row], chunk(b"tRNS", struct.pack(">H", key)))
            right = np.where(values == key, 255, np.floor(values * 255 / top + 0.5))
            picture = decode(data)
            np.testing.assert_array_equal(picture.pixels[0, :, 1], right, err_msg=f"{depth} bits, {key}")
            assert "transparent pixels laid over white" in picture.notes


def test_one_transparent_colour() -> None:
    row = bytes([1, 2, 3, 200, 100, 50])
    data = raw_png((2, 1), 8, 2, [row], chunk(b"tRNS", struct.pack(">3H", 200, 100, 50)))
    assert decode(data).pixels.tolist() == [[[1, 2, 3], [255, 255, 255]]]
    wide = np.array([0x1234, 0x5678, 0x9ABC, 0x2234, 0x5678, 0x9ABC], ">u2").tobytes()
    data = raw_png((2, 1), 16, 2, [wide], chunk(b"tRNS", struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)))
    assert decode(data).pixels.tolist() == [[[255, 255, 255], [0x22, 0x56, 0x9A]]]


def test_grey_and_one_bit_are_three_equal_channels() -> None:
    grey = drawing()[..., 0]
    for format in ("PNG", "BMP", "TIFF", "PPM", "GIF"):
        np.testing.assert_array_equal(decode(encoded(grey, format)).pixels, np.repeat(grey[..., None], 3, axis=2))
    bits = Image.fromarray((grey > 100) * np.uint8(255)).convert("1")
    for format in ("PNG", "BMP", "TIFF", "PPM"):
        np.testing.assert_array_equal(decode(encoded(bits, format)).pixels[..., 2], (grey > 100) * 255)
    np.testing.assert_array_equal(decode(bits).pixels[..., 2], (grey > 100) * 255)
    jpeg = decode(encoded(grey, "JPEG", quality=100)).pixels
    assert np.abs(jpeg.astype(int) - grey[..., None]).max() <= 2


def test_floating_tiff_lies_in_one_of_two_ranges() -> None:
    values = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    right = np.rint(values.astype(float) * 255)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(values), "TIFF")).pixels[..., 0], right)
    larger = np.linspace(0, 255, 64, dtype=np.float32).reshape(8, 8)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(larger), "TIFF")).pixels[..., 0], np.rint(larger))
    for wrong in (-0.5, 255.5, np.nan, np.inf):
        values[3, 3] = wrong
        assert "do not lie in 0 … 1 or 0 … 255" in refusal(encoded(Image.fromarray(values), "TIFF"))


def test_whole_numbers_of_32_bits_are_refused_beyond_16() -> None:
    values = np.full((4, 4), 65535, np.int32)
    assert (decode(encoded(Image.fromarray(values), "TIFF")).pixels == 255).all()
    values[0, 0] = 65536
    assert "32-bit integers; save it with 8 or 16 bits" in refusal(encoded(Image.fromarray(values), "TIFF"))


def test_cmyk_is_converted() -> None:
    cmyk = np.zeros((16, 64, 4), np.uint8)
    for i in range(4):
        cmyk[:, 16 * i : 16 * i + 16, i] = 255
    colours = [(0, 255, 255), (255, 0, 255), (255, 255, 0), (0, 0, 0)]
    image = Image.fromarray(cmyk, "CMYK")
    for source in (image, encoded(image, "TIFF"), encoded(image, "JPEG", quality=100)):
        middles = decode(source).pixels[8, 8::16]
        assert np.abs(middles.astype(int) - colours).max() <= 4


def test_of_an_animation_the_first_frame_counts() -> None:
    for name in ("gif", "png", "tiff"):
        still = decode(encoded(drawing(), name.upper()))
        moving = decode(FILES["tiff-pages" if name == "tiff" else f"{name}-animated"])
        np.testing.assert_array_equal(moving.pixels, still.pixels)
        assert moving.notes == ("the first frame of several",)
        assert still.notes == ()
    frames = [Image.fromarray(drawing()[::-1].copy())]
    webp = decode(encoded(drawing(), "WEBP", save_all=True, append_images=frames, lossless=True))
    np.testing.assert_array_equal(webp.pixels, drawing())
    assert webp.notes == ("the first frame of several",)


def big_tiff(order: str) -> bytes:
    """A BigTIFF written by hand: one strip, behind its directory."""
    pixels = drawing()
    magic = {"<": b"II+\0", ">": b"MM\0+"}[order] + struct.pack(order + "HHQ", 8, 0, 16)
    tags = {256: (31,), 257: (24,), 258: (8, 8, 8), 259: (1,), 262: (2,), 273: (400,), 277: (3,), 278: (24,)}
    entries = b"".join(
        struct.pack(order + "HHQ", tag, 3, len(v)) + struct.pack(f"{order}{len(v)}H", *v).ljust(8, b"\0")
        for tag, v in {**tags, 279: (pixels.size,)}.items()
    )
    return (magic + struct.pack(order + "Q", 9) + entries + bytes(8)).ljust(400, b"\0") + pixels.tobytes()


def test_big_tiff_is_read_in_the_byte_order_that_pillow_reads() -> None:
    np.testing.assert_array_equal(decode(big_tiff("<")).pixels, drawing())
    assert refusal(big_tiff(">")) == "a BigTIFF of big-endian byte order is not read: convert it to PNG"


# ---- sizes


def test_min_side_decodes_a_jpeg_at_a_fraction_never_below_and_never_above() -> None:
    data = encoded(drawing(200, 300), "JPEG")
    for min_side in (1, 24, 25, 26, 50, 99, 100, 101, 199, 200, 201, 1000, None):
        picture = decode(data, min_side=min_side)
        height, width = picture.pixels.shape[:2]
        assert picture.size == (300, 200)
        assert min(height, width) >= min(min_side or 200, 200)
        assert height <= 200
        assert width <= 300
    assert decode(data, min_side=25).pixels.shape == (25, 38, 3)
    assert decode(data, min_side=201).pixels.shape == (200, 300, 3)
    assert decode(FILES["png"], min_side=2).pixels.shape == (31, 24, 3)


def test_the_limit_is_the_last_allowed_number_of_pixels() -> None:
    sources: list[Any] = [*FILES.values(), drawing(), Image.fromarray(drawing())]
    for source in sources:
        assert decode(source, max_pixels=24 * 31).pixels.size == 3 * 24 * 31
        assert refusal(source, max_pixels=24 * 31 - 1).endswith("the limit of 743 (max_pixels raises it)")


def patched(data: bytes, layout: str, old: tuple[int, ...], new: tuple[int, ...]) -> bytes:
    assert struct.pack(layout, *old) in data
    return data.replace(struct.pack(layout, *old), struct.pack(layout, *new), 1)


def bombs() -> dict[str, bytes]:
    """Small files that say they are 12000 x 12000."""
    side = 12000
    rows = zlib.compress(bytes(side * 1501), 9)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    short, long = "<HH", "<II"
    return {
        "png": b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b""),
        "jpeg": patched(FILES["jpeg-progressive"], ">HH", (24, 31), (side, side)),
        "cmyk": patched(FILES["jpeg-cmyk"], ">HH", (24, 31), (side, side)),
        "gif": patched(FILES["gif"], short, (31, 24), (side, side)),
        "bmp": patched(FILES["bmp"], long, (31, 24), (side, side)),
        "ppm": b"P6 12000 12000 255\n" + bytes(99),
        "webp": patched(encoded(drawing(), "WEBP"), short, (31, 24), (side, side)),
        "webp-lossless": patched(FILES["webp-lossless"], "<I", (30 | 23 << 14,), (11999 | 11999 << 14,)),
        "webp-extended": patched(FILES["webp"], "<IH", (30 | 23 << 24, 0), (11999 | (11999 & 255) << 24, 11999 >> 8)),
        "tiff": patched(
            patched(FILES["tiff-deflate"], "<HHIH", (256, 3, 1, 31), (256, 3, 1, side)),
            "<HHIH", (257, 3, 1, 24), (257, 3, 1, side),
        ),
    }  # fmt: skip


def test_a_bomb_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    for name, data in bombs().items():
        (tmp_path / name).write_bytes(data)
    code = (
        "import sys, pathlib, resource\n"
        "from luce.errors import ImageError\n"
        "from luce.images import decode\n"
        "pages = int(pathlib.Path('/proc/self/statm').read_text().split()[0])\n"
        "limit = pages * resource.getpagesize() + 60_000_000\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        decode(path)\n"
        "        print(path, 'was decoded')\n"
        "    except ImageError as error:\n"
        "        print(error.reason)\n"
    )
    paths = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    reason = "the picture is 12,000 x 12,000 pixels, more than the limit of 100,000,000 (max_pixels raises it)"
    assert dict(zip(paths, done.stdout.splitlines(), strict=True)) == dict.fromkeys(paths, reason)
    assert done.stderr == ""


def test_a_pil_image_too_large_is_not_loaded() -> None:
    for act in (decode, read_source):
        image = Image.open(io.BytesIO(FILES["bmp"]))
        image._size = (12000, 12000)
        with pytest.raises(ImageError, match="more than the limit of 100,000,000"):
            act(image)


def test_the_limit_of_pillow_itself_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    for name in ("png", "jpeg-cmyk", "gif", "bmp", "ppm", "webp"):
        assert decode(FILES[name]).pixels.size == 3 * 24 * 31
    assert "PIL.Image.MAX_IMAGE_PIXELS" in refusal(FILES["tiff"])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    assert "larger than Pillow reads" in refusal(FILES["webp"])


# ---- damage


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_is_refused_or_whole(name: str) -> None:
    data = FILES[name]
    whole = decode(data)
    accepted = 0
    for end in range(len(data)):
        try:
            picture = decode(data[:end])
        except ImageError:
            continue
        np.testing.assert_array_equal(picture.pixels, whole.pixels, err_msg=f"cut at {end}")
        accepted += 1
    assert accepted <= {"gif-animated": 2967, "tiff-pages": len(data), "gif": 2, "bmp": 3, "bmp-palette": 1}.get(
        name, 0
    )


def test_a_png_whose_data_hold_too_few_rows_is_refused() -> None:
    rows = [bytes([i + 1] * 40) for i in range(9)]
    decode(raw_png((40, 9), 8, 0, rows))
    for n in (0, 1, 8):
        assert "damaged or cut off" in refusal(raw_png((40, 9), 8, 0, rows[:n]))
    black = raw_png((40, 9), 8, 0, [bytes(40)] * 9)
    assert not decode(black).pixels.any()


def test_an_interlaced_png_that_holds_too_few_rows_is_refused() -> None:
    # 5 x 3 pixels of 8 bits: width and number of the rows of each pass but the third, which has none.
    passes = [(1, 1), (1, 1), (1, 1), (3, 1), (2, 2), (5, 1)]
    raw = b"".join(b"\0" + bytes([9] * width) for width, rows in passes for _ in range(rows))
    for cut, whole in ((0, True), (1, False), (6, False)):
        data = raw[: len(raw) - cut]
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 3, 8, 0, 0, 0, 1))
        file = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
        if whole:
            assert (decode(file).pixels == 9).all()
        else:
            assert "damaged or cut off" in refusal(file)


def test_a_wrong_checksum_in_a_png_is_refused() -> None:
    data = bytearray(FILES["png-palette"])
    place = data.index(b"IDAT") + 4
    length = struct.unpack_from(">I", data, place - 8)[0]
    data[place + length] ^= 1
    assert refusal(bytes(data)) == "the PNG data are damaged or cut off (the chunk IDAT has a wrong checksum)"


def test_stray_bytes_between_the_segments_of_a_jpeg_are_skipped_and_noted() -> None:
    whole = FILES["jpeg-progressive"]
    place = whole.index(b"\xff\xda", whole.index(b"\xff\xda") + 2)
    picture = decode(whole[:place] + b"\1\2\3\4" + whole[place:])
    assert np.abs(picture.pixels.astype(int) - decode(whole).pixels).mean() < 2
    assert picture.notes == ("stray bytes in the JPEG data skipped",)


def test_a_pil_image_of_a_file_cut_off_is_refused() -> None:
    image = Image.open(io.BytesIO(FILES["png"][:200]))
    assert "damaged or cut off" in refusal(image)


def test_damaged_tags_of_a_tiff_print_and_warn_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    def tiff(**tags: Any) -> bytes:
        return encoded(drawing(), "TIFF", **tags)

    whole = tiff(description="a description", compression="tiff_adobe_deflate")
    place = whole.index(struct.pack("<HH", 270, 2))
    lost = bytearray(whole)
    struct.pack_into("<I", lost, place + 8, 1 << 30)  # the description lies beyond the end
    np.testing.assert_array_equal(decode(bytes(lost)).pixels, drawing())
    twice = bytearray(whole)
    struct.pack_into("<I", twice, whole.index(struct.pack("<HH", 256, 3)) + 4, 2)
    assert "tag 256 has 2 values" in refusal(bytes(twice))
    many = bytearray(whole)
    struct.pack_into("<H", many, whole.index(struct.pack("<HH", 277, 3)) + 8, 500)
    assert "500 samples per pixel" in refusal(bytes(many))
    broken = bytearray(whole)
    broken[12:40] = bytes(28)
    assert "damaged or cut off" in refusal(bytes(broken))
    assert capfd.readouterr() == ("", "")


def checked(data: bytes) -> Picture | None:
    """The picture of hostile data, with the right form whatever it shows, or None where it is refused."""
    try:
        picture = decode(data, max_pixels=1_000_000)
    except ImageError:
        return None
    width, height = picture.size
    assert picture.pixels.shape == (height, width, 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous
    return picture


MAGIC = (
    b"",
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"II*\0",
    b"MM\0+",
    b"BM",
    b"P3 ",
    b"RIFF\0\0\0\0WEBPVP8L",
)


@settings(max_examples=200, deadline=None)
@given(magic=st.sampled_from(MAGIC), rest=st.binary(max_size=200))
def test_random_bytes_are_refused(magic: bytes, rest: bytes) -> None:
    checked(magic + rest)


@settings(max_examples=600, deadline=None)
@given(
    name=st.sampled_from(sorted(FILES)),
    changes=st.lists(
        st.tuples(st.one_of(st.integers(0, 120), st.integers(0, 1 << 16)), st.integers(0, 255)), min_size=1, max_size=4
    ),
)
def test_changed_bytes_make_a_picture_or_a_refusal(name: str, changes: list[tuple[int, int]]) -> None:
    data = bytearray(FILES[name])
    for place, value in changes:
        data[place % len(data)] = value
    checked(bytes(data))


def test_nothing_is_printed_or_warned_whatever_the_bytes(capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for data in FILES.values():
        for _ in range(60):
            changed = bytearray(data)
            for place in rng.integers(0, len(data), rng.integers(1, 4)):
                changed[place] = rng.integers(256)
            refused += checked(bytes(changed)) is None
    assert 300 < refused < 60 * len(FILES) - 300
    assert capfd.readouterr() == ("", "")


def test_threads_give_what_one_gives() -> None:
    files = list(FILES.values()) * 2
    alone = [decode(data) for data in files]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for one, other in zip(alone, pool.map(decode, files), strict=True):
                np.testing.assert_array_equal(one.pixels, other.pixels)
                assert (one.size, one.format, one.notes) == (other.size, other.format, other.notes)
