"""Pictures in, pixels out, and maps back onto the picture: the one path every image takes.

In: a file, encoded bytes, a PIL image, an array or a tensor. ``load_image`` turns each into the same thing,
uint8 RGB of shape (h, w, 3), or raises an ``InputError``: what was expected, what came, what to do.
``prepare`` resizes that to the model's input, float32 (3, H, W) in 0..1; normalising with a mean and a spread
is a fact of each model and happens there. ``restore_map`` takes patch maps back to the original size.
``expand_paths`` turns folders and globs into a list of files. NumPy and Pillow only.

Values: uint8 is 0-255, uint16 is 0-65535 (12-bit data in a 16-bit file stay dark: multiply by 16 first), bool
is black and white, float is 0..1. Other integers are refused, never guessed. Each page of a TIFF is a picture
with a name of its own (``pages``); of an animation (GIF, WebP) the first frame is used. Pillow reads RGB with
16 bits a channel by the high byte, at most one grey level of 255 away from rounding.
"""

from __future__ import annotations

import glob
import math
import os
import re
import stat
import threading
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from dapo.errors import ConfigError, InputError
from dapo.pages import page_name, page_numbers, pages_of, split_page

__all__ = [
    "EXTENSIONS",
    "MAX_PIXELS",
    "MIN_SIDE",
    "expand_paths",
    "image_size",
    "load_image",
    "prepare",
    "restore_map",
]

RGB: TypeAlias = npt.NDArray[np.uint8]  # (h, w, 3)
Array: TypeAlias = npt.NDArray[Any]
PathLike: TypeAlias = "str | os.PathLike[str]"
Found = TypeVar("Found")  # what is read of a file: its pixels or its size

MIN_SIDE = 8  # pixels; below that there is nothing to look at
MAX_PIXELS = 200_000_000  # pixels, 600 MB as RGB: 12,000 lines of a 16k line camera fit
MAX_ASPECT = 4.0  # long side : short side that ``prepare`` keeps; beyond it the picture is squashed
FLOAT_SLACK = 1e-3  # a quarter of a grey level: what resizing and float16 leave outside 0..1

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm")
UNNAMED = "image data"  # what messages call bytes without a file name
FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM")  # Pillow's names; no other is ever decoded

# A file's first bytes: it was an image once, so a header that cannot be read is damage.
_SIGNATURES = {b"\x89PN": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF": "GIF", b"RIF": "WebP"}
_TIFF = (b"II*", b"MM\0")  # but a TIFF may also be of a kind that Pillow does not read
_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
_ORIENTATION = 0x0112  # EXIF tag: how the camera was held
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)  # orientations that swap width and height


def load_image(source: object, *, max_pixels: int = MAX_PIXELS) -> RGB:
    """Any picture as uint8 RGB (h, w, 3): a fresh, writable array, upright, transparency laid over white.

    ``source``: a path, or ``FILE#page=2`` for a page of a TIFF; the bytes of an image file; a PIL image (its
    current frame, turned by its EXIF orientation); an array (h, w), (h, w, 1), (h, w, 3) RGB or (h, w, 4)
    RGBA; a torch tensor of those shapes or with channels first. Raises ``InputError`` with its ``kind``, also
    for a TIFF of several pages of which none is named. A picture of more than ``max_pixels`` is
    refused by its header, before anything is decoded.
    """
    if isinstance(source, (str, os.PathLike)):
        return _from_file(source, max_pixels, _from_pillow)
    if isinstance(source, bytes):
        return _from_stream(BytesIO(source), UNNAMED, len(source), None, max_pixels, _from_pillow)
    if isinstance(source, Image.Image):
        return _from_pillow(source, f"PIL image of mode {source.mode}", max_pixels)
    if hasattr(source, "detach") and hasattr(source, "cpu"):
        return _from_array(_array_of_tensor(source), "tensor", max_pixels)
    if isinstance(source, np.ndarray):
        return _from_array(source, "array", max_pixels)
    wanted = "a path, bytes, a PIL image, a NumPy array or a torch tensor"
    raise _refusal("dtype", "image", wanted, type(source).__name__, "pass one of those")


def image_size(path: PathLike, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) that ``load_image`` would give, from the file's header; ``InputError`` as there."""
    return _from_file(path, max_pixels, _size_of_pillow)


def prepare(
    image: RGB, side: int, patch: int, fit: Literal["squash", "aspect"] = "squash"
) -> npt.NDArray[np.float32]:
    """The model's input from uint8 RGB (h, w, 3): float32 (3, H, W) in 0..1, bicubic and antialiased.

    ``squash``: H = W = ``side``. ``aspect``: about ``side`` x ``side`` pixels in all, H and W multiples of
    ``patch``, the aspect kept up to 4:1 and squashed to 4:1 beyond.
    Raises ``ConfigError`` when ``side`` is no positive multiple of ``patch`` or ``fit`` is unknown.
    """
    if patch < 1 or side < patch or side % patch:
        raise ConfigError(f"side: expected a positive multiple of the patch ({patch}), came {side}; round it")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        came = f"{image.dtype} {image.shape}"
        raise _refusal("shape", "array", "uint8 RGB of shape (h, w, 3)", came, "call load_image first")
    if fit == "squash":
        height = width = side
    elif fit == "aspect":
        rows, columns = _patch_grid(image.shape[0], image.shape[1], side // patch)
        height, width = rows * patch, columns * patch
    else:
        raise ConfigError(f"fit: expected 'squash' or 'aspect', came {fit!r}; choose one")
    resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    pixels: npt.NDArray[np.float32] = resized.transpose(2, 0, 1).astype(np.float32, order="C")
    pixels /= np.float32(255)
    return pixels


def restore_map(patch_map: Array, height: int, width: int) -> npt.NDArray[np.float32]:
    """Maps (gh, gw) or (k, gh, gw) on the patch grid as float32 at (height, width): bilinear.

    Corners are not aligned: a cell covers its patch. Where the grid is finer than the picture it is averaged.
    A constant map stays exactly constant and no value leaves the range of its map.
    Raises ``ValueError`` for another number of axes or a grid without cells.
    """
    if patch_map.ndim not in (2, 3) or 0 in patch_map.shape[-2:]:
        raise ValueError(f"expected maps (gh, gw) or (k, gh, gw), came shape {patch_map.shape}")
    single = patch_map.ndim == 2
    stack = np.asarray(patch_map[None] if single else patch_map, dtype=np.float32, order="C")
    restored = np.empty((len(stack), height, width), dtype=np.float32)
    for grid, full in zip(stack, restored, strict=True):
        full[:] = np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BILINEAR))
    return restored[0] if single else restored


def expand_paths(paths: PathLike | Iterable[PathLike], recursive: bool = True) -> list[Path]:
    """The image files that files, folders and globs name, each once: as given, naturally sorted within each.

    A folder gives its files with one of ``EXTENSIONS`` (in any case), those below it too if ``recursive``;
    hidden files and folders are skipped, links to folders not followed. A file named outright is kept
    whatever its extension. A TIFF of several pages gives each of them (``pages.pages_of``). ``*``, ``?``,
    ``[...]`` and ``**`` are expanded here too (Windows shells do not do it), unless a file of that very name
    exists. Raises ``InputError``: kind "missing" for no such file and for a folder or glob without images,
    "unreadable" for a folder that may not be listed.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    found: dict[str, Path] = {}
    for entry in paths:
        try:
            files = _expand(os.fspath(entry), recursive)
        except OSError as error:  # a name longer than the system allows, a drive that is gone
            came = str(error.strerror)
            raise _refusal(
                "missing", f"'{entry}'", "a file, folder or glob", came, "check the path"
            ) from error
        for path in (page for file in files for page in pages_of(file)):
            found.setdefault(os.path.normcase(path.absolute()), path)
    return list(found.values())


def _refusal(kind: str, name: str, expected: str, came: str, advice: str) -> InputError:
    return InputError(f"{name}: expected {expected}, came {came}; {advice}", kind)


# Files and PIL images


def _from_file(source: PathLike, max_pixels: int, read: Callable[[Image.Image, str, int], Found]) -> Found:
    file, page = split_page(source)
    path, name = Path(file), f"'{Path(source)}'"
    try:
        status = path.stat()
    except PermissionError as error:
        raise _refusal(
            "unreadable", name, "a file to read", "no permission", "change its permissions"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise _refusal("missing", name, "an image file", "none (no such file)", "check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise _refusal("unreadable", name, "one image file", "a folder", "name the images in it")
    if not stat.S_ISREG(status.st_mode):
        raise _refusal("unreadable", name, "an image file", "a device or pipe", "save the image to a file")
    try:
        with path.open("rb") as stream:
            return _from_stream(stream, name, status.st_size, page, max_pixels, read)
    except OSError as error:
        advice = "check its permissions and the drive"
        raise _refusal("unreadable", name, "a file to read", str(error.strerror), advice) from error


def _from_stream(
    stream: IO[bytes],
    name: str,
    n_bytes: int,
    page: int | None,
    max_pixels: int,
    read: Callable[[Image.Image, str, int], Found],
) -> Found:
    if n_bytes == 0:
        raise _refusal("empty", name, "an image", "0 bytes", "copy or record it again")
    start = stream.read(3)
    known = _SIGNATURES.get(start)
    stream.seek(0)
    with _OWN_PIXEL_LIMIT:
        try:
            image = Image.open(stream, formats=FORMATS)
        except Exception as error:  # decoders raise whatever a damaged header leads them into
            if known:
                came = f"a {known} file whose header is damaged, cut off or tells 0 pixels"
                raise _refusal("truncated", name, "a whole image", came, "copy or record it again") from error
            wanted, came = f"an image ({', '.join(FORMATS)})", f"{n_bytes} bytes of something else"
            if start in _TIFF:
                came = "a TIFF that is damaged or of a rare kind (such as floats in colour)"
            raise _refusal("unreadable", name, wanted, came, "export the picture as PNG") from error
        with image:
            _turn_to(image, page, name)
            return read(image, name, max_pixels)


def _turn_to(image: Image.Image, page: int | None, name: str) -> None:
    """Opens the page asked for; without one, the only one there is."""
    numbers = page_numbers(image)
    if page is None and len(numbers) > 1:
        first = page_name(name.strip("'"), numbers[0])
        advice = f"name one, such as '{first}', or list them with dapo.images.expand_paths"
        if name == UNNAMED:
            advice = "send each page as a picture of its own"
        raise _refusal("shape", name, "one picture", f"a TIFF of {len(numbers)} pages", advice)
    if page is not None and page not in numbers:
        few = len(numbers) < 10
        wanted = f"page {', '.join(map(str, numbers)) if few else f'{numbers[0]} to {numbers[-1]}'}"
        raise _refusal("missing", name, wanted, f"page {page}", "name a page that the file has")
    try:
        if (number := page or numbers[0]) > 1:
            image.seek(number - 1)
    except Exception as error:  # as above
        came = "a file that ends before this page or is damaged there"
        raise _refusal("truncated", name, "a whole page", came, "copy or record it again") from error


class _OwnPixelLimit:
    """Lifts Pillow's process-wide limit (a warning, then an error): ours stands, checked on the header.

    Threads decode side by side; the last one out puts Pillow's limit back.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.saved: int | None = None

    def __enter__(self) -> None:
        with self.lock:
            if self.users == 0:
                self.saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self.users += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                Image.MAX_IMAGE_PIXELS = self.saved


_OWN_PIXEL_LIMIT = _OwnPixelLimit()


def _from_pillow(image: Image.Image, name: str, max_pixels: int) -> RGB:
    _check_size(image.height, image.width, name, max_pixels)
    try:
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        upright = image if turn is None else image.transpose(turn)
    except MemoryError as error:
        came = f"{image.width} x {image.height} pixels, more than memory holds"
        raise _refusal("too_large", name, "a smaller picture", came, "cut it into tiles") from error
    except Exception as error:  # as above
        came = f"one that ends early or is damaged ({error})"
        raise _refusal("truncated", name, "a whole picture", came, "copy or record it again") from error
    return _from_array(_array_of_pillow(upright, name), name, max_pixels)


def _size_of_pillow(image: Image.Image, name: str, max_pixels: int) -> tuple[int, int]:
    """(height, width) once upright. Of a PNG the orientation behind the pixels would cost decoding them."""
    _check_size(image.height, image.width, name, max_pixels)
    lying = (image.format != "PNG" or "exif" in image.info) and _orientation(image) in _LYING
    return (image.width, image.height) if lying else (image.height, image.width)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; damaged EXIF data count as upright."""
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1


def _array_of_pillow(image: Image.Image, name: str) -> Array:
    """What ``_from_array`` takes: uint8 RGB or RGBA, uint16 grey or float grey."""
    if image.mode == "F" or image.mode.startswith("I;16"):
        return np.asarray(image)
    if image.mode == "I":  # 32 bits; Pillow opens 16-bit PGM as this, and 16-bit PNG before version 11
        values = np.asarray(image)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            wanted, came = "integers from 0 to 65535", f"{low} to {high}"
            raise _refusal("range", name, wanted, came, "scale them and save as 16-bit PNG")
        return values.astype(np.uint16)
    try:
        straight = image.convert("LA") if image.mode == "La" else image
        return np.asarray(straight.convert("RGBA" if image.has_transparency_data else "RGB"))
    except ValueError as error:
        advice = "export the picture as PNG"
        raise _refusal("dtype", name, "a mode that converts to RGB", f"mode {image.mode}", advice) from error


# Arrays and tensors


def _array_of_tensor(tensor: Any) -> Array:
    """A tensor's values, channels last; no side is under ``MIN_SIDE``, so it is clear which they are."""
    tensor = tensor.detach().cpu()
    try:
        values = tensor.numpy()
    except TypeError:  # bfloat16 has no counterpart in NumPy
        values = tensor.float().numpy()
    if values.ndim == 3 and values.shape[0] in _CHANNELS and values.shape[2] not in _CHANNELS:
        values = np.moveaxis(values, 0, 2)
    return np.asarray(values)


def _from_array(array: Array, name: str, max_pixels: int) -> RGB:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in _CHANNELS):
        wanted = "shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4)"
        raise _refusal("shape", name, wanted, str(array.shape), _shape_advice(array))
    _check_size(array.shape[0], array.shape[1], name, max_pixels)
    levels = _levels(array, name)
    if levels.ndim == 2:
        levels = levels[:, :, None]
    if levels.shape[2] == 4:
        return _over_white(levels)
    return np.array(np.broadcast_to(levels, (*levels.shape[:2], 3)), order="C")


def _levels(array: Array, name: str) -> npt.NDArray[np.uint8]:
    """The values on the scale 0-255, rounded."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return (array.astype(np.int16) * 255).astype(np.uint8)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:  # either byte order
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 / 257 = 255, rounded
    if array.dtype.kind != "f":
        wanted = "uint8 (0-255), uint16 (0-65535), bool or float (0 to 1)"
        raise _refusal(
            "dtype", name, wanted, str(array.dtype), "convert it with .astype() to the one you mean"
        )
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        came = f"{array.size - np.isfinite(array).sum()} NaN or infinite of {array.size}"
        raise _refusal("not_finite", name, "finite values", came, "replace them first")
    if low < -FLOAT_SLACK or high > 1 + FLOAT_SLACK:
        advice = "scale them, or use uint8 if they mean 0 to 255"
        raise _refusal("range", name, "float values from 0 to 1", f"{low:g} to {high:g}", advice)
    unit: npt.NDArray[np.float32] = array.astype(np.float32).clip(0, 1)
    return np.rint(unit * 255).astype(np.uint8)


def _over_white(rgba: npt.NDArray[np.uint8]) -> RGB:
    """(h, w, 4) laid on white paper, rounded."""
    ink = 255 - rgba[:, :, :3].astype(np.uint16)  # times alpha at most 65025: fits
    opaque: RGB = (255 - (ink * rgba[:, :, 3:] + 127) // 255).astype(np.uint8)
    return opaque


def _check_size(height: int, width: int, name: str, max_pixels: int) -> None:
    came = f"{width} x {height} (width x height)"
    if height == 0 or width == 0:
        raise _refusal("empty", name, "a picture", came, "record it again")
    if min(height, width) < MIN_SIDE:
        raise _refusal("too_small", name, f"at least {MIN_SIDE} pixels a side", came, "use a larger picture")
    if height * width > max_pixels:
        advice = "cut it into smaller pictures, or load it in Python with a larger max_pixels if you trust it"
        raise _refusal("too_large", name, f"at most {max_pixels:,} pixels", came, advice)


def _shape_advice(array: Array) -> str:
    if array.ndim == 3 and array.shape[0] in _CHANNELS:
        return "channels go last: pass image.transpose(1, 2, 0)"
    if array.ndim == 4:
        return "pass several images as a list"
    return "select the axes and channels that make a picture"


# Sizes and paths


def _patch_grid(height: int, width: int, side: int) -> tuple[int, int]:
    """Rows and columns, about ``side`` x ``side`` in all, in the picture's aspect up to ``MAX_ASPECT``."""
    stretch = math.sqrt(min(max(height, width) / min(height, width), MAX_ASPECT))
    long, short = max(1, round(side * stretch)), max(1, round(side / stretch))
    return (long, short) if height >= width else (short, long)


def _expand(entry: str, recursive: bool) -> list[Path]:
    path, name = Path(entry), f"'{entry}'"
    images, advice = f"images ({' '.join(EXTENSIONS)})", "check the path"
    if not entry or "\0" in entry:
        raise _refusal("missing", name, "a file, folder or glob", "no name", advice)
    if path.is_dir():
        files = _files_below(path, recursive)
        came = "a folder without any" + ("" if recursive else "; folders below it are left out")
    elif path.is_symlink() or os.path.exists(split_page(entry)[0]):
        return [path]  # a broken link too: loading it says what is wrong
    elif glob.has_magic(entry):
        files = _files_matching(entry, recursive)
        came = "a pattern that matches none"
    else:
        raise _refusal("missing", name, "a file, folder or glob", "none (no such file)", advice)
    if not files:
        raise _refusal("missing", name, images, came, advice)
    return sorted(files, key=_natural)


def _files_matching(pattern: str, recursive: bool) -> list[Path]:
    files: list[Path] = []
    for hit in map(Path, glob.glob(pattern, recursive=True)):  # Path.glob takes no absolute one
        if not hit.is_dir():
            files += [hit] if hit.suffix.lower() in EXTENSIONS else []
        elif "**" not in pattern:  # which names the folders below by itself
            files += _files_below(hit, recursive)
    return files


def _files_below(folder: Path, recursive: bool) -> list[Path]:
    files: list[Path] = []
    for top, folders, names in os.walk(folder, onerror=_refuse_listing):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        visible = (name for name in names if not name.startswith("."))
        files += [Path(top, name) for name in visible if name.lower().endswith(EXTENSIONS)]
    return files


def _refuse_listing(error: OSError) -> None:
    name, advice = f"'{error.filename}'", "change its permissions"
    raise _refusal("unreadable", name, "a folder to list", str(error.strerror), advice) from error


def _natural(path: Path) -> tuple[list[list[str | int]], str]:
    """Sorting key: part 2 before part 10, capitals beside small letters; the exact name settles ties."""
    split = [re.split(r"([0-9]+)", part.casefold()) for part in path.parts]  # text, number, text, number ...
    return [[int(chunk) if i % 2 else chunk for i, chunk in enumerate(part)] for part in split], str(path)
