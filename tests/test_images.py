"""Every kind of picture in, one kind of array out; every kind of bad input named in one sentence."""

from __future__ import annotations

import os
import sys
import threading
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dapo import images
from dapo.errors import ConfigError, InputError
from dapo.images import expand_paths, load_image, prepare, restore_map

H, W = 12, 17


@pytest.fixture
def gradient() -> np.ndarray:
    """(12, 17, 3) uint8, every pixel and channel different enough to notice a swap, a flip or a turn."""
    y, x = np.mgrid[:H, :W]
    return np.stack([x * 15, y * 20, 255 - x * 7 - y * 5], axis=2).astype(np.uint8)


def refuse(source: object, kind: str, **options: int) -> str:
    """The message with which ``source`` is refused, after checking its kind and form."""
    with pytest.raises(InputError) as caught:
        load_image(source, **options)
    message = str(caught.value)
    assert caught.value.kind == kind, message
    assert "expected" in message and "came" in message and ";" in message, message
    assert "\n" not in message
    return message


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


# Files


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".TIFF", ".PNG", ".ppm", ".webp"])
def test_lossless_files_come_back_exactly(tmp_path: Path, gradient: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"Prüfteil 零件 1{suffix}"
    Image.fromarray(gradient).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    pixels = load_image(path)
    assert pixels.dtype == np.uint8 and pixels.flags["C_CONTIGUOUS"] and pixels.flags["WRITEABLE"]
    np.testing.assert_array_equal(pixels, gradient)
    np.testing.assert_array_equal(load_image(str(path)), gradient)
    np.testing.assert_array_equal(load_image(path.read_bytes()), gradient)


def test_the_content_counts_not_the_extension(tmp_path: Path, gradient: np.ndarray) -> None:
    path = tmp_path / "export.dat"
    path.write_bytes(encoded(Image.fromarray(gradient), "PNG"))
    np.testing.assert_array_equal(load_image(path), gradient)


@pytest.mark.parametrize("suffix", [".jpg", ".gif"])
def test_lossy_files_come_back_nearly(tmp_path: Path, suffix: str) -> None:
    grey = np.full((40, 40, 3), 90, np.uint8)
    Image.fromarray(grey).save(tmp_path / f"a{suffix}")
    assert np.abs(load_image(tmp_path / f"a{suffix}").astype(int) - 90).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_orientation_is_applied(gradient: np.ndarray, kind: str, orientation: int) -> None:
    upright = np.kron(gradient, np.ones((8, 8, 1), np.uint8))  # blocks survive JPEG
    stored_as = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),  # the viewer turns it clockwise
        7: np.rot90(upright.swapaxes(0, 1), 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 98, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    data = encoded(Image.fromarray(np.ascontiguousarray(stored_as)), kind, exif=exif, **options)
    pixels = load_image(data)
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).max() <= (6 if kind == "JPEG" else 0)


def test_damaged_exif_counts_as_upright(gradient: np.ndarray) -> None:
    data = encoded(Image.fromarray(gradient), "PNG", exif=b"Exif\0\0MM\0\x2a\0\0\0\xffgarbage")
    np.testing.assert_array_equal(load_image(data), gradient)


def test_of_an_animation_the_first_frame(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    for name in ("frames.gif", "frames.webp"):
        options = {"lossless": True} if name.endswith("webp") else {}
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:], **options)
        assert load_image(tmp_path / name)[5, 5].tolist() == [255, 0, 0], name


def test_16_bit_grey_files_are_full_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, H * W).reshape(H, W).astype(np.uint16)
    expected = np.rint(ramp / 257).astype(np.uint8)
    for name in ("a.png", "a.tif", "a.pgm"):
        Image.fromarray(ramp).save(tmp_path / name)
        pixels = load_image(tmp_path / name)
        np.testing.assert_array_equal(pixels, np.repeat(expected[:, :, None], 3, axis=2), err_msg=name)


def test_16_bit_rgb_png() -> None:
    ramp = np.linspace(0, 65535, H * W * 3).reshape(H, W, 3).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in ramp)  # filter 0 before each row

    def chunk(tag: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + tag + body + zlib.crc32(tag + body).to_bytes(4, "big")

    header = W.to_bytes(4, "big") + H.to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    data += chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    assert np.abs(load_image(data).astype(float) - ramp / 257).max() <= 1.0


def test_float_tiff_is_zero_to_one(tmp_path: Path) -> None:
    ramp = np.linspace(0, 1, H * W, dtype=np.float32).reshape(H, W)
    Image.fromarray(ramp).save(tmp_path / "unit.tif")
    np.testing.assert_array_equal(load_image(tmp_path / "unit.tif")[:, :, 1], np.rint(ramp * 255))
    Image.fromarray(ramp * 255).save(tmp_path / "wide.tif")
    message = refuse(tmp_path / "wide.tif", "range")
    assert "0 to 255" in message and "wide.tif" in message


def test_32_bit_integers_are_taken_as_16_bit_or_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((H, W), 65535, np.int32)).save(tmp_path / "white.tif")
    assert load_image(tmp_path / "white.tif").min() == 255
    Image.fromarray(np.full((H, W), 70000, np.int32)).save(tmp_path / "deep.tif")
    assert "70000" in refuse(tmp_path / "deep.tif", "range")
    Image.fromarray(np.full((H, W), -1, np.int32)).save(tmp_path / "below.tif")
    refuse(tmp_path / "below.tif", "range")


# Modes


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("1", 0, (0, 0, 0)),
        ("L", 90, (90, 90, 90)),
        ("P", 5, None),
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("RGBX", (10, 20, 30, 0), (10, 20, 30)),
        ("RGBA", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (0, 100, 200, 51), (204, 224, 244)),  # a fifth of the colour on white
        ("RGBa", (0, 0, 0, 0), (255, 255, 255)),
        ("LA", (0, 51), (204, 204, 204)),
        ("La", (0, 51), (204, 204, 204)),
        ("PA", (0, 255), None),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("YCbCr", (120, 128, 128), (120, 120, 120)),
        ("HSV", (0, 255, 255), (255, 0, 0)),
        ("I", 257 * 7, (7, 7, 7)),
        ("I;16", 257 * 7, (7, 7, 7)),
        ("I;16B", 257 * 7, (7, 7, 7)),
        ("I;16L", 257 * 7, (7, 7, 7)),
        ("F", 0.2, (51, 51, 51)),
    ],
)
def test_every_mode_of_a_pil_image(mode: str, colour: object, expected: tuple[int, ...] | None) -> None:
    image = Image.new(mode, (W, H), colour)
    pixels = load_image(image)
    assert pixels.shape == (H, W, 3) and pixels.dtype == np.uint8
    if expected is not None:
        assert pixels[3, 4].tolist() == list(expected)
    assert image.mode == mode, "the caller's image stays as it is"


def test_cmyk_and_grey_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(tmp_path / "cmyk.jpg", quality=95)
    red = load_image(tmp_path / "cmyk.jpg")[10, 10].astype(int)
    assert red[0] > 245 and red[1] < 10 and red[2] < 10
    Image.new("L", (20, 20), 77).save(tmp_path / "grey.jpg")
    assert set(load_image(tmp_path / "grey.jpg").ravel()) <= {76, 77, 78}


def test_palette_and_plain_files_with_a_transparent_colour(tmp_path: Path) -> None:
    palette = Image.new("P", (W, H), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((3, 4), 0)
    palette.save(tmp_path / "palette.png", transparency=1)
    pixels = load_image(tmp_path / "palette.png")
    assert pixels[4, 3].tolist() == [255, 0, 0]
    assert pixels[0, 0].tolist() == [255, 255, 255]
    palette.save(tmp_path / "bytes.png", transparency=bytes([51, 255]))  # an alpha value for each colour
    assert load_image(tmp_path / "bytes.png")[4, 3].tolist() == [255, 204, 204]
    rgb = Image.new("RGB", (W, H), (1, 2, 3))
    rgb.save(tmp_path / "rgb.png", transparency=(1, 2, 3))
    assert load_image(tmp_path / "rgb.png").min() == 255
    Image.new("L", (W, H), 9).save(tmp_path / "grey.png", transparency=9)
    assert load_image(tmp_path / "grey.png").min() == 255
    Image.new("1", (W, H), 0).save(tmp_path / "bits.png", transparency=0)
    assert load_image(tmp_path / "bits.png").min() == 255


def test_a_lazy_pil_image_and_the_path_agree(tmp_path: Path, gradient: np.ndarray) -> None:
    Image.fromarray(gradient).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(load_image(image), load_image(tmp_path / "a.png"))


# Arrays and tensors


def test_shapes_of_arrays(gradient: np.ndarray) -> None:
    grey = gradient[:, :, 0]
    np.testing.assert_array_equal(load_image(gradient), gradient)
    for array in (grey, grey[:, :, None]):
        np.testing.assert_array_equal(load_image(array), np.stack([grey] * 3, axis=2))
    opaque = np.dstack([gradient, np.full((H, W), 255, np.uint8)])
    np.testing.assert_array_equal(load_image(opaque), gradient)
    assert load_image(np.dstack([gradient, np.zeros((H, W), np.uint8)])).min() == 255
    np.testing.assert_array_equal(load_image(gradient[::-1, ::2]), gradient[::-1, ::2])


def test_the_result_is_a_copy(gradient: np.ndarray) -> None:
    before = gradient.copy()
    load_image(gradient)[:] = 0
    np.testing.assert_array_equal(gradient, before)
    gradient.flags.writeable = False
    load_image(gradient)[:] = 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_round_to_the_level_they_came_from(gradient: np.ndarray, dtype: object) -> None:
    unit = (gradient / 255).astype(dtype)
    np.testing.assert_array_equal(load_image(unit), gradient)
    np.testing.assert_array_equal(load_image(torch.from_numpy(unit.astype(np.float32))), gradient)


def test_bool_and_uint16_of_either_byte_order(gradient: np.ndarray) -> None:
    assert set(load_image(gradient[:, :, 0] > 99).ravel()) == {0, 255}
    for dtype in ("<u2", ">u2"):
        np.testing.assert_array_equal(load_image(gradient.astype(dtype) * 257), gradient)


def test_overshoot_of_resizing_is_clipped_not_refused() -> None:
    pixels = load_image(np.array([[-5e-4, 1 + 5e-4] * 8] * 8))
    assert set(pixels.ravel()) == {0, 255}


def test_tensors_with_channels_first_or_last(gradient: np.ndarray) -> None:
    last = torch.from_numpy(gradient)
    first = last.permute(2, 0, 1)
    np.testing.assert_array_equal(load_image(first), gradient)
    np.testing.assert_array_equal(load_image(last), gradient)
    np.testing.assert_array_equal(load_image(first[:1])[:, :, 1], gradient[:, :, 0])
    np.testing.assert_array_equal(load_image(last[:, :, 0])[:, :, 1], gradient[:, :, 0])
    unit = (first / 255).requires_grad_()
    np.testing.assert_array_equal(load_image(unit), gradient)
    assert np.abs(load_image(unit.bfloat16()).astype(int) - gradient).max() <= 1


@given(
    values=st.integers(0, 2**32 - 1),
    height=st.integers(8, 20),
    width=st.integers(8, 20),
    channels=st.sampled_from([0, 1, 3, 4]),
    dtype=st.sampled_from(["uint8", "uint16", "bool", "float32"]),
)
@settings(max_examples=60, deadline=None)
def test_any_sound_array_gives_rgb(values: int, height: int, width: int, channels: int, dtype: str) -> None:
    shape = (height, width, channels) if channels else (height, width)
    unit = np.random.default_rng(values).random(shape)
    scale = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    pixels = load_image(
        (unit * scale).round().astype(dtype) if dtype == "bool" else (unit * scale).astype(dtype)
    )
    assert pixels.shape == (height, width, 3) and pixels.dtype == np.uint8
    if channels in (0, 1):
        assert (pixels == pixels[:, :, :1]).all()


# Refusals


def test_no_such_file_folder_empty_file_and_text(tmp_path: Path) -> None:
    assert "nothing.png" in refuse(tmp_path / "nothing.png", "missing")
    refuse(str(tmp_path / "a\0b.png"), "missing")
    refuse(tmp_path / ("x" * 5000), "missing")
    assert "folder" in refuse(tmp_path, "unreadable")
    (tmp_path / "zero.jpg").touch()
    assert "0 bytes" in refuse(tmp_path / "zero.jpg", "empty")
    refuse(b"", "empty")
    (tmp_path / "notes.png").write_text("not a picture at all")
    assert "notes.png" in refuse(tmp_path / "notes.png", "unreadable")
    (tmp_path / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    assert "PNG" in refuse(tmp_path / "drawing.svg", "unreadable")


def test_a_format_that_is_not_ours_is_never_decoded() -> None:
    refuse(encoded(Image.new("RGB", (20, 20)), "ICO"), "unreadable")
    refuse(encoded(Image.new("RGB", (20, 20)), "PDF"), "unreadable")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    refuse(tmp_path / "pipe.png", "unreadable")


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.png").write_bytes(b"x")
    monkeypatch.setattr(Path, "open", refused)  # not chmod: root may read everything
    assert "Permission denied" in refuse(tmp_path / "a.png", "unreadable")
    monkeypatch.setattr(Path, "stat", refused)
    assert "permission" in refuse(tmp_path / "a.png", "unreadable")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "PPM"])
def test_a_file_cut_in_the_middle(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(3).integers(0, 255, (80, 80, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    (tmp_path / "cut.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError) as caught:
        load_image(tmp_path / "cut.bin")
    assert (
        kind != "TIFF" or "a TIFF that is damaged" in str(caught.value) or "ends early" in str(caught.value)
    )
    # The directory of a TIFF may lie behind its pixels: then nothing says that it was cut.
    assert caught.value.kind in ({"truncated", "unreadable"} if kind in ("TIFF", "PPM") else {"truncated"})
    assert "cut.bin" in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "PPM"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore")  # Pillow warns about odd TIFF and PNG entries
def test_damage_anywhere_is_an_input_error_or_a_picture(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    noise = Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
    data = bytearray(encoded(noise, kind))
    for position in rng.integers(0, len(data), rng.integers(0, 6)):
        data[position] = rng.integers(0, 256)
    del data[rng.integers(1, len(data) + 1) :]
    try:
        pixels = load_image(bytes(data), max_pixels=1_000_000)
    except InputError:
        return
    assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
@pytest.mark.filterwarnings("ignore")
def test_any_bytes_are_an_input_error_or_a_picture(data: bytes) -> None:
    try:
        assert load_image(data, max_pixels=1_000_000).shape[2] == 3
    except InputError as error:
        assert error.kind in {"unreadable", "truncated", "empty", "too_small", "too_large"}


@pytest.mark.parametrize("size", [(1, 1), (7, 100), (100, 7)])
def test_too_small(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size).save(tmp_path / "dot.png")
    assert f"{size[0]} x {size[1]}" in refuse(tmp_path / "dot.png", "too_small")
    refuse(Image.new("L", size), "too_small")
    refuse(np.zeros((size[1], size[0])), "too_small")
    refuse(torch.zeros(3, size[1], size[0]), "too_small")


def test_a_huge_picture_is_refused_by_its_header() -> None:
    """60,000 x 60,000 pixels: 10 GB if it were decoded; the file holds not one of them."""
    header = (60_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    body = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + len(header).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    data += b"\0\0\0\0IDAT" + zlib.crc32(b"IDAT").to_bytes(4, "big")
    message = refuse(data, "too_large")
    assert "60000 x 60000" in message and "200,000,000" in message and "max_pixels" in message


def test_max_pixels_is_ours_and_pillows_own_limit_is_put_back(
    monkeypatch: pytest.MonkeyPatch, gradient: np.ndarray
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # would be an error above 20 pixels
    data = encoded(Image.fromarray(gradient), "PNG")
    np.testing.assert_array_equal(load_image(data), gradient)
    np.testing.assert_array_equal(load_image(data, max_pixels=H * W), gradient)
    refuse(data, "too_large", max_pixels=H * W - 1)
    refuse(gradient, "too_large", max_pixels=H * W - 1)
    threads = [threading.Thread(target=lambda: [load_image(data) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_not_finite(bad: float, dtype: type) -> None:
    array = np.full((H, W, 3), 0.5, dtype)
    array[3, 4, 1] = bad
    assert f"1 NaN or infinite of {H * W * 3}" in refuse(array, "not_finite")
    refuse(torch.from_numpy(array), "not_finite")
    refuse(Image.fromarray(array[:, :, 1].astype(np.float32)), "not_finite")


def test_floats_outside_zero_to_one() -> None:
    assert "0 to 255" in refuse(np.linspace(0, 255, H * W).reshape(H, W), "range")
    assert "-1 to 1" in refuse(torch.linspace(-1, 1, 3 * H * W).reshape(3, H, W), "range")


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint32", "complex64", "U1", "object"])
def test_dtypes_that_could_mean_anything(dtype: str) -> None:
    message = refuse(np.zeros((H, W), dtype), "dtype")
    assert "uint8" in message and str(np.dtype(dtype)) in message


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((H,), "select"),
        ((), "select"),
        ((H, W, 2), "select"),
        ((H, W, 5), "select"),
        ((3, H, W), "transpose"),
        ((1, H, W, 3), "list"),
    ],
)
def test_shapes_that_are_no_picture(shape: tuple[int, ...], advice: str) -> None:
    message = refuse(np.zeros(shape, np.uint8), "shape")
    assert str(shape) in message and advice in message


def test_arrays_without_a_pixel() -> None:
    refuse(np.zeros((0, 10), np.uint8), "empty")
    refuse(np.zeros((10, 0, 3), np.float32), "empty")


@pytest.mark.parametrize("source", [None, 3, 2.5, [[1, 2], [3, 4]], {"image": 1}, object()])
def test_things_that_are_no_picture(source: object) -> None:
    assert type(source).__name__ in refuse(source, "dtype")


# prepare


def test_squash_gives_the_square_and_keeps_constants() -> None:
    image = np.full((30, 90, 3), (10, 20, 255), np.uint8)
    pixels = prepare(image, side=32, patch=8, fit="squash")
    assert pixels.shape == (3, 32, 32) and pixels.dtype == np.float32 and pixels.flags["C_CONTIGUOUS"]
    for channel, value in zip(pixels, (10, 20, 255), strict=True):
        assert (channel == np.float32(value) / np.float32(255)).all()


def test_squash_at_the_model_side_is_the_picture_itself(gradient: np.ndarray) -> None:
    image = gradient[:12, :12]
    np.testing.assert_array_equal(
        prepare(image, side=12, patch=4), image.transpose(2, 0, 1) / np.float32(255)
    )


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((100, 100), (112, 112)),
        ((100, 400), (56, 224)),  # 4:1 is kept: half as high, twice as wide
        ((400, 100), (224, 56)),
        ((100, 100_0), (56, 224)),  # 10:1 becomes 4:1
        ((1000, 10), (224, 56)),
        ((90, 160), (80, 144)),  # 16:9 in 112 x 112 with patches of 16: 5 x 9 of them
    ],
)
def test_aspect_keeps_the_aspect_up_to_four_to_one(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    patch = 16 if shape == (90, 160) else 14
    assert prepare(image, side=112, patch=patch, fit="aspect").shape == (3, *expected)


@given(
    height=st.integers(8, 400),
    width=st.integers(8, 400),
    patch=st.sampled_from([2, 7, 14, 16]),
    side=st.integers(4, 24),
)
@settings(max_examples=80, deadline=None)
def test_aspect_in_general(height: int, width: int, patch: int, side: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    _, h, w = prepare(image, side=side * patch, patch=patch, fit="aspect").shape
    assert h % patch == 0 and w % patch == 0
    rows, columns = h // patch, w // patch
    wanted = min(max(height / width, 1 / 4), 4)
    # Each count is rounded to whole patches: within half a patch of the exact one.
    assert abs(rows - side * wanted**0.5) <= 0.5 + 1e-9
    assert abs(columns - side / wanted**0.5) <= 0.5 + 1e-9
    assert 0.7 < rows * columns / side**2 < 1.35
    _, turned_h, turned_w = prepare(image.swapaxes(0, 1), side * patch, patch, "aspect").shape
    assert (turned_h, turned_w) == (w, h)


def test_fine_patterns_are_averaged_not_sampled() -> None:
    """A one-pixel checkerboard shrunk 8 times is grey everywhere: antialiased."""
    board = np.indices((256, 256)).sum(axis=0) % 2 * 255
    pixels = prepare(np.repeat(board[:, :, None], 3, axis=2).astype(np.uint8), side=32, patch=8)
    assert np.abs(pixels - 0.5).max() < 0.02


@pytest.mark.parametrize("fit", ["squash", "aspect"])
def test_prepare_is_deterministic_in_range_and_leaves_its_input(fit: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (61, 97, 3), dtype=np.uint8)
    before = image.copy()
    first, second = prepare(image, 56, 14, fit), prepare(image, 56, 14, fit)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(image, before)
    assert first.min() >= 0 and first.max() <= 1
    np.testing.assert_array_equal(prepare(image[::-1], 56, 14, fit), prepare(image[::-1].copy(), 56, 14, fit))


@pytest.mark.parametrize(("side", "patch"), [(100, 14), (0, 14), (-14, 14), (14, 0), (7, 14)])
def test_sides_that_do_not_fit_the_patch(side: int, patch: int) -> None:
    with pytest.raises(ConfigError, match=r"expected .* multiple of the patch"):
        prepare(np.zeros((20, 20, 3), np.uint8), side, patch)


def test_prepare_refuses_what_load_image_has_not_made() -> None:
    with pytest.raises(ConfigError, match="'squash' or 'aspect', came 'crop'"):
        prepare(np.zeros((20, 20, 3), np.uint8), 28, 14, "crop")  # type: ignore[arg-type]
    for array in (np.zeros((20, 20)), np.zeros((20, 20, 3), np.float32), np.zeros((3, 20, 20), np.uint8)):
        with pytest.raises(InputError, match="load_image"):
            prepare(array, 28, 14)


# restore_map


@given(
    value=st.floats(0, 1, width=32),
    grid=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
)
@settings(max_examples=80, deadline=None)
def test_a_constant_map_stays_exactly_constant(
    value: float, grid: tuple[int, int], size: tuple[int, int]
) -> None:
    restored = restore_map(np.full(grid, value, np.float32), *size)
    assert restored.shape == size and restored.dtype == np.float32
    assert (restored == np.float32(value)).all()


@given(seed=st.integers(0, 2**32 - 1), size=st.tuples(st.integers(1, 200), st.integers(1, 200)))
@settings(max_examples=60, deadline=None)
def test_no_value_leaves_the_range_and_layers_are_independent(seed: int, size: tuple[int, int]) -> None:
    maps = np.random.default_rng(seed).random((3, 5, 7)).astype(np.float32)
    restored = restore_map(maps, *size)
    assert restored.shape == (3, *size)
    for layer, full in zip(maps, restored, strict=True):
        assert layer.min() <= full.min() and full.max() <= layer.max()
        np.testing.assert_array_equal(restore_map(layer, *size), full)
    flipped = restore_map(maps[:, ::-1], *size)[:, ::-1]
    np.testing.assert_allclose(flipped, restored, rtol=0, atol=1e-6)


def test_restore_agrees_with_torch() -> None:
    maps = np.random.default_rng(1).random((2, 9, 13)).astype(np.float32)
    reference = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[None], size=(101, 57), mode="bilinear", align_corners=False
    )[0]
    np.testing.assert_allclose(restore_map(maps, 101, 57), reference.numpy(), atol=1e-5)


def test_a_hot_patch_comes_back_where_it_was() -> None:
    grid = np.zeros((7, 7), np.float32)
    grid[2, 5] = 1
    restored = restore_map(grid, 210, 700)
    y, x = np.unravel_index(restored.argmax(), restored.shape)
    assert 2 * 30 <= y < 3 * 30 and 5 * 100 <= x < 6 * 100
    assert restored[:30].max() == 0 and restored[:, :400].max() == 0


def test_restore_takes_no_types_other_dtypes_and_refuses_nonsense() -> None:
    assert restore_map(np.zeros((0, 4, 4), np.float32), 9, 8).shape == (0, 9, 8)
    np.testing.assert_array_equal(restore_map(np.eye(3), 3, 3), np.eye(3, dtype=np.float32))
    for shape in ((4,), (1, 2, 3, 4), (0, 4), (2, 4, 0)):
        with pytest.raises(ValueError, match="expected maps"):
            restore_map(np.zeros(shape), 9, 9)


# expand_paths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = [
        "part10.png",
        "part2.PNG",
        "Part1.jpg",
        "notes.txt",
        ".hidden.png",
        "sub/b.tiff",
        "sub/deep/a.Jpeg",
    ]
    for name in [*names, ".cache/c.png", "Müller [1].png"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "void").mkdir()
    return tmp_path


def relative(paths: list[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


TOP = ["Müller [1].png", "Part1.jpg", "part2.PNG", "part10.png"]
BELOW = ["sub/b.tiff", "sub/deep/a.Jpeg"]


def test_a_folder_naturally_sorted_without_hidden_files(folder: Path) -> None:
    assert relative(expand_paths([folder]), folder) == TOP + BELOW
    assert relative(expand_paths(folder), folder) == TOP + BELOW
    assert relative(expand_paths(str(folder), recursive=False), folder) == TOP


def test_arguments_keep_their_order_and_no_file_comes_twice(folder: Path) -> None:
    given_paths = [folder / "part10.png", folder / "sub", folder, folder / "sub" / ".." / "part2.PNG"]
    found = expand_paths(given_paths)
    assert relative(found[:3], folder) == ["part10.png", "sub/b.tiff", "sub/deep/a.Jpeg"]
    assert len(found) == 7, (
        "a path through .. is another spelling: kept, since links may make it another file"
    )


def test_globs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert relative(expand_paths([f"{folder}/part*"]), folder)[-2:] == ["part2.PNG", "part10.png"]
    assert relative(expand_paths([f"{folder}/part?.PNG"]), folder) == ["part2.PNG"]
    assert set(relative(expand_paths([f"{folder}/**/*"]), folder)) == set(TOP + BELOW)
    assert relative(expand_paths([f"{folder}/s*"]), folder) == BELOW, "a folder that matches is opened"
    assert relative(expand_paths([f"{folder}/s*"], recursive=False), folder) == ["sub/b.tiff"]
    monkeypatch.chdir(folder)
    assert expand_paths("sub/*.tiff") == [Path("sub/b.tiff")]


def test_a_file_named_outright_is_kept(folder: Path) -> None:
    for name in ("Müller [1].png", "notes.txt", ".hidden.png"):
        assert expand_paths([folder / name]) == [folder / name]


@pytest.mark.parametrize("entry", ["nothing.png", "void", "*.webp", "*.txt", "nowhere/*", "x" * 5000, "a\0b"])
def test_nothing_found_is_missing(folder: Path, entry: str) -> None:
    with pytest.raises(InputError, match="expected") as caught:
        expand_paths([folder / "part2.PNG", str(folder / entry)])
    assert caught.value.kind == "missing"
    assert (".tiff" in str(caught.value)) == (entry in ("void", "*.webp", "*.txt", "nowhere/*"))


def test_an_empty_name_is_not_the_current_folder() -> None:
    with pytest.raises(InputError, match="no name"):
        expand_paths([""])
    assert expand_paths([]) == []


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights on Windows")
def test_links_to_folders_are_not_followed_and_broken_links_are_named(folder: Path) -> None:
    (folder / "loop").symlink_to(folder)
    (folder / "gone.png").symlink_to(folder / "never")
    assert relative(expand_paths([folder]), folder) == ["gone.png", *TOP, *BELOW]
    assert expand_paths([folder / "gone.png"]) == [folder / "gone.png"]
    refuse(folder / "gone.png", "missing")


@pytest.mark.parametrize("extension", images.EXTENSIONS)
def test_every_extension_has_a_decoder(tmp_path: Path, extension: str) -> None:
    image = Image.new("L" if extension == ".pgm" else "RGB", (20, 20))
    save: Callable[[Path], None] = image.save
    save(tmp_path / f"a{extension}")
    (path,) = expand_paths(tmp_path)
    assert load_image(path).shape == (20, 20, 3)
