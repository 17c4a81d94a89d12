"""Inspector: images and defect types in, inspections out. The public face of the package.

An image goes load -> prepare -> detector -> maps at its own size -> regions -> `Inspection`. Streams are read
ahead by two threads, scored in batches of equal shape, and given back in order; only a bounded number of
images is held.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch

from dapo.config import ModelConfig
from dapo.errors import ConfigError, InputError
from dapo.images import load_image, prepare, restore_map
from dapo.inspection import Failure, Inspection, Region
from dapo.model.artifact import ModelInfo, load
from dapo.model.detector import Detector, Precision
from dapo.regions import find_regions
from dapo.vocabulary import Vocabulary, builtin

READERS = 2  # threads that decode and resize ahead
AHEAD = 2  # images decoded beyond the batch in work
BATCH_PIXELS = (
    32_000_000  # original pixels held in one batch, about 100 MB: larger photographs make smaller batches
)
CANVAS_VALUES = 24_000_000  # map values among which regions are looked for, 100 MB: 25 types of a megapixel
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class _Ready:
    """One image, decoded and prepared."""

    name: str
    rgb: npt.NDArray[np.uint8]  # (h, w, 3)
    pixels: npt.NDArray[np.float32]  # (3, H, W) in [0, 1]
    seconds: float


class Inspector:
    """Finds and names flaws. Make one with `from_pretrained`; it may be shared by threads."""

    def __init__(self, detector: Detector, info: ModelInfo, *, threshold: float | None = None) -> None:
        """threshold: image score from which a part is defective; None = the model's."""
        if threshold is not None and not 0 <= threshold <= 1:
            raise ConfigError(f"threshold is a score between 0 and 1, got {threshold}")
        self.detector = detector.eval()
        self.info = info
        self.threshold = info.config.threshold if threshold is None else threshold

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        device: str | torch.device | None = None,
        precision: Precision = "auto",
        threshold: float | None = None,
        allow_download: bool = False,
    ) -> Inspector:
        """Load the embedded model, a model folder, or a hub id that is in the local cache.

        A folder that holds only a Hugging Face CLIP works with handwritten prompts. The network is used only
        with `allow_download` and a hub id. device: None takes a GPU if there is one. precision: "auto" is
        bf16 where the device computes it natively. Raises ModelError for a model folder that is not whole,
        ConfigError for a device, precision or threshold that does not exist.
        """
        if precision not in PRECISIONS:
            raise ConfigError(f"precision is one of {', '.join(PRECISIONS)}; got {precision!r}")
        place = _device(device)
        detector, info = load(model, local_only=not allow_download)
        detector.precision = precision
        return cls(detector.to(place), info, threshold=threshold)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.detector.clip.logit_scale.device

    def vocabulary(self, defects: Any = None) -> Vocabulary:
        """What `defects` names (see `Vocabulary.of`); None: the model's own list or the built-in one."""
        if defects is not None:
            return Vocabulary.of(defects)
        own = self.info.config.defects
        return builtin() if own is None else Vocabulary.of(list(own))

    @overload
    def inspect(self, image: list[Any] | tuple[Any, ...], defects: Any = None) -> list[Inspection]: ...
    @overload
    def inspect(self, image: Any, defects: Any = None) -> Inspection: ...
    def inspect(self, image: Any, defects: Any = None) -> Inspection | list[Inspection]:
        """Inspect one image (path, PIL.Image, array, tensor) or a list of them.

        Raises InputError for an image that cannot be inspected (for many files rather use `stream`) and
        VocabularyError for defect types that cannot.
        """
        vocabulary = self.vocabulary(defects)
        if not isinstance(image, (list, tuple)):
            return next(self._answers([self._read(image)], vocabulary))
        found: list[Inspection] = []
        sources = iter(image)
        while chunk := list(islice(sources, 8)):
            found += self._answers([self._read(one) for one in chunk], vocabulary)
        return found

    def stream(
        self, paths: Iterable[Any], defects: Any = None, batch_size: int = 8
    ) -> Iterator[Inspection | Failure]:
        """Inspect many images lazily, in order; an image that cannot be inspected gives a `Failure`."""
        if batch_size < 1:
            raise ConfigError(f"batch_size is at least 1, got {batch_size}")
        return self._stream(iter(paths), self.vocabulary(defects), batch_size)

    def _stream(
        self, sources: Iterator[Any], vocabulary: Vocabulary, batch_size: int
    ) -> Iterator[Inspection | Failure]:
        pending: deque[tuple[Any, Future[_Ready]]] = deque()
        with ThreadPoolExecutor(READERS, thread_name_prefix="dapo-read") as readers:
            try:
                while True:
                    for source in islice(sources, batch_size + AHEAD - len(pending)):
                        pending.append((source, readers.submit(self._read, source)))
                    if not pending:
                        return
                    yield from self._batch(pending, vocabulary, batch_size)
            finally:
                for _, future in pending:
                    future.cancel()

    def _batch(
        self, pending: deque[tuple[Any, Future[_Ready]]], vocabulary: Vocabulary, batch_size: int
    ) -> Iterator[Inspection | Failure]:
        """Results of the next images of `pending`: a batch, or as many as memory should hold."""
        taken: list[_Ready | Failure] = []
        held = 0
        while pending and len(taken) < batch_size and held < BATCH_PIXELS:
            source, future = pending.popleft()
            try:
                ready = future.result()
                held += ready.rgb.shape[0] * ready.rgb.shape[1]
                taken.append(ready)
            except InputError as error:
                taken.append(Failure(_name(source), error.kind, str(error)))
            except Exception as error:  # one image never stops the rest, whatever its decoder does
                taken.append(Failure(_name(source), "unreadable", f"{type(error).__name__}: {error}"))
        answers = self._answers([one for one in taken if isinstance(one, _Ready)], vocabulary)
        for one in taken:
            yield one if isinstance(one, Failure) else next(answers)

    def _read(self, source: Any) -> _Ready:
        started = time.perf_counter()
        rgb = load_image(source)
        detector = self.detector
        pixels = prepare(rgb, detector.input_side, detector.clip.config.patch, detector.settings.fit)
        return _Ready(_name(source), rgb, pixels, time.perf_counter() - started)

    def _answers(self, images: Sequence[_Ready], vocabulary: Vocabulary) -> Iterator[Inspection]:
        """Score images in groups of equal shape, then give the inspections one by one, in order."""
        with torch.inference_mode():
            states = self.detector.text_features(vocabulary)
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(images):
            groups.setdefault(image.pixels.shape, []).append(i)
        scored: dict[int, _Raw] = {}
        for members in groups.values():
            started = time.perf_counter()
            pixels = torch.from_numpy(np.stack([images[i].pixels for i in members])).to(self.device)
            with torch.inference_mode():
                scores = self.detector(pixels, states)
                fields = (scores.image, scores.binary, scores.types, scores.type_image)
                image_scores, binary, types, type_scores = (x.float().cpu().numpy() for x in fields)
            share = (time.perf_counter() - started) / len(members)
            for place, i in enumerate(members):
                scored[i] = _Raw(image_scores[place], binary[place], types[place], type_scores[place], share)
        for i, image in enumerate(images):
            yield self._inspection(image, scored.pop(i), vocabulary)

    def _inspection(self, image: _Ready, raw: _Raw, vocabulary: Vocabulary) -> Inspection:
        started = time.perf_counter()
        config = self.info.config
        height, width = image.rgb.shape[:2]
        names = [defect.name for defect in vocabulary.defects]
        score = float(raw.image)
        result = Inspection(
            image=image.name,
            width=width,
            height=height,
            score=score,
            raw_score=score,
            threshold=self.threshold,
            verdict="defective" if score >= self.threshold else "ok",
            types=dict(zip(names, raw.type_image.tolist(), strict=True)),
            regions=_regions(raw, names, height, width, config),
            anomaly_map=restore_map(raw.binary, height, width),
            model=self.info.to_dict(),
            timing_ms=1000 * (image.seconds + raw.seconds + time.perf_counter() - started),
            pixels=image.rgb,
        )
        # After the constructor, which looks at every map and so would restore all of them.
        object.__setattr__(result, "type_maps", TypeMaps(names, raw.types, height, width))
        return result


@dataclass(frozen=True)
class _Raw:
    """Scores of one image on the patch grid."""

    image: npt.NDArray[np.float32]  # ()
    binary: npt.NDArray[np.float32]  # (gh, gw)
    types: npt.NDArray[np.float32]  # (k, gh, gw)
    type_image: npt.NDArray[np.float32]  # (k,)
    seconds: float


class TypeMaps(Mapping[str, npt.NDArray[np.float32]]):
    """Maps of all types at the image's size, each restored when it is asked for.

    A hundred full maps of a 12-megapixel photograph would take 5 GB; what is kept is the patch grid.
    """

    def __init__(self, names: Sequence[str], grids: npt.NDArray[np.float32], height: int, width: int) -> None:
        self._grids = dict(zip(names, grids, strict=True))
        self._size = (height, width)

    def __getitem__(self, name: str) -> npt.NDArray[np.float32]:
        return restore_map(self._grids[name], *self._size)

    def __iter__(self) -> Iterator[str]:
        return iter(self._grids)

    def __len__(self) -> int:
        return len(self._grids)


def _regions(
    raw: _Raw, names: Sequence[str], height: int, width: int, config: ModelConfig
) -> tuple[Region, ...]:
    """Typed regions, found at the image's size, or for a large image on a smaller canvas and enlarged."""
    if raw.binary.max() <= config.map_threshold:  # restoring never exceeds the grid
        return ()
    scale = min(1.0, math.sqrt(CANVAS_VALUES / ((len(names) + 1) * height * width)))
    rows, columns = max(1, round(scale * height)), max(1, round(scale * width))
    found = find_regions(
        restore_map(raw.binary, rows, columns),
        dict(zip(names, restore_map(raw.types, rows, columns), strict=True)),
        threshold=config.map_threshold,
        low=config.map_low,
        min_area_px=max(1, round(config.min_area * rows * columns)),
    )
    return found if scale == 1 else tuple(_enlarged(region, height, width) for region in found)


def _enlarged(region: Region, height: int, width: int) -> Region:
    """The region on an image of another size: each pixel belongs to it if the nearest canvas pixel does."""
    x, y, w, h = region.bbox
    row = ((np.arange(height) + 0.5) * region.size[0] / height).astype(int) - y
    column = ((np.arange(width) + 0.5) * region.size[1] / width).astype(int) - x
    rows, columns = np.flatnonzero((row >= 0) & (row < h)), np.flatnonzero((column >= 0) & (column < w))
    crop = region.crop[np.ix_(row[rows], column[columns])]
    return replace(
        region,
        bbox=(int(columns[0]), int(rows[0]), len(columns), len(rows)),
        area_px=int(crop.sum()),
        centroid=(region.centroid[0] * width / region.size[1], region.centroid[1] * height / region.size[0]),
        crop=crop,
        size=(height, width),
    )


def _name(source: Any) -> str:
    """What a result calls its image."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    filename = getattr(source, "filename", None)  # of a PIL image that was opened from a file
    return str(filename) if filename else type(source).__name__


def _device(device: str | torch.device | None) -> torch.device:
    try:
        wanted = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:  # a CPU build of torch asserts
        reason = str(error).splitlines()[0]
        raise ConfigError(f"the device {device!r} is not usable here ({reason}); try 'cpu'") from error
    return wanted
