"""Inspector: images and defect types in, inspections out. The public face of the package.

An image goes load -> prepare, whole or in tiles -> detector -> answer. Streams are read ahead by two threads,
scored in batches of equal shape, and given back in order; only a bounded number of images is held.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import torch

from dapo.answering import Raw, Rule, Window, answer
from dapo.calibration import FILE, Calibration
from dapo.errors import ConfigError, InputError
from dapo.images import load_image, prepare
from dapo.inspection import Failure, Inspection
from dapo.model.artifact import REFERENCES, ModelInfo, load
from dapo.model.crowd import LARGEST, Crowd, gather
from dapo.model.detector import Detector
from dapo.model.memory import Memory, load_memory
from dapo.model.precision import Precision
from dapo.roi import Roi, bounds
from dapo.tiles import Canvas, Tile, combine, parse_tiling, plan, smallest_defect, tile_size, within
from dapo.vocabulary import Defect, Vocabulary, builtin

READERS = 2  # threads that decode and resize ahead
AHEAD = 2  # images decoded beyond the batch in work
BATCH_PIXELS = (
    32_000_000  # original pixels held in one batch, about 100 MB: larger photographs make smaller batches
)
TILE_BATCH = 8  # tiles scored together
TILE_POWER = 1.5  # see `combine`: tails of good parts' logits fall as exp(-x / b), b 0.6 to 0.9 (generated)
PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class _Ready:
    """One image, decoded; and prepared, if it is looked at whole."""

    name: str
    rgb: npt.NDArray[np.uint8]  # (h, w, 3)
    window: Window
    tiles: tuple[Tile, ...]  # of the window; none = whole
    pixels: npt.NDArray[np.float32] | None  # (3, H, W) in [0, 1]
    seconds: float


@dataclass(frozen=True)
class _Words:
    """Names in order, their features (t, d), and those of types beyond them (r, d)."""

    names: tuple[str, ...]
    states: torch.Tensor
    background: torch.Tensor | None


class Inspector:
    """Finds and names flaws. Make one with `from_pretrained`; it may be shared by threads."""

    def __init__(
        self,
        detector: Detector,
        info: ModelInfo,
        *,
        threshold: float | None = None,
        calibration: Calibration | None = None,
        memory: Memory | Crowd | None = None,
        false_alarm: float | None = None,
        tile: int | str | None = None,
        roi: Roi | str | None = None,
    ) -> None:
        """threshold: score from which a part is defective; None = the calibration's, else the model's.
        calibration: of good parts; memory: of good parts, to compare with. false_alarm: the rate to hold,
        instead of the one the calibration was made for. tile: "off", "auto" or the side of tiles in pixels;
        None = as calibrated, else "off". roi: the region of interest, or what `Roi.parse` reads.

        Raises ConfigError for values out of range, a rate that the calibration cannot promise, or a
        calibration made with another model or other tiles.
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise ConfigError(f"threshold is a score between 0 and 1, got {threshold}")
        if false_alarm is not None and calibration is None:
            raise ConfigError(
                "a false-alarm rate needs a calibration on good parts; make one: dapo calibrate --good DIR"
            )
        self.detector = detector.eval()
        self.info = info
        setup = {} if calibration is None else dict(calibration.setup)
        self.tiling = parse_tiling(setup.get("tile", "off") if tile is None else tile)
        wanted = setup.get("roi") if roi is None else roi
        self.roi = Roi.parse(wanted) if isinstance(wanted, str) else wanted
        self.calibration = calibration
        self.memory = None if memory is None else memory.to(self.device)
        self._check_calibration(setup)
        self.rule = Rule(info.config, calibration, threshold, false_alarm)
        if calibration is not None:
            calibration.promise(false_alarm)

    def _check_calibration(self, setup: Mapping[str, Any]) -> None:
        """Raises ConfigError when the calibration does not speak of this model looking in this way."""
        if self.calibration is None:
            return
        made, mine = self.calibration.model.get("sha256"), self.info.sha256
        if made != mine:
            raise ConfigError(
                f"the calibration was made with the model {self.calibration.model.get('name')} "
                f"({str(made)[:12]}), this one is {self.info.name} ({mine[:12]}). Calibrate again, or name "
                "that model."
            )
        if str(setup.get("tile", "off")) != str(self.tiling):
            raise ConfigError(
                f"the calibration was made with --tile {setup.get('tile', 'off')}, asked for is "
                f"{self.tiling}. Calibrate again with it, or leave --tile out."
            )
        looked, looks = setup.get("roi"), None if self.roi is None else self.roi.text
        if looked != looks:
            raise ConfigError(
                f"the calibration was made with {f'--roi {looked}' if looked else 'no --roi'}, asked for is "
                f"{looks or 'the whole picture'}. Calibrate again with it, or leave --roi out."
            )
        if self.calibration.references is not None and self.memory is None:
            raise ConfigError(
                "the calibration was made with references, which are not there. Keep "
                f"{REFERENCES} beside {FILE}, or calibrate again."
            )

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        device: str | torch.device | None = None,
        precision: Precision = "auto",
        threshold: float | None = None,
        calibration: str | Path | Calibration | Literal[False] | None = None,
        false_alarm: float | None = None,
        tile: int | str | None = None,
        roi: Roi | str | None = None,
        allow_download: bool = False,
    ) -> Inspector:
        """Load the embedded model, a model folder, or a hub id that is in the local cache.

        A folder that holds only a Hugging Face CLIP works with handwritten prompts. The network is used only
        with `allow_download` and a hub id. device: None takes a GPU if there is one. precision: "auto" is
        bf16 where the device computes it natively. calibration: a file, or the folder that holds it; None
        takes the one in the model folder, if there is one, False none. The others: see the constructor.

        Raises ModelError for a model folder that is not whole, ConfigError for a device, precision, threshold
        or calibration that does not exist or does not fit.
        """
        if precision not in PRECISIONS:
            raise ConfigError(f"precision is one of {', '.join(PRECISIONS)}; got {precision!r}")
        place = device_of(device)
        detector, info = load(model, local_only=not allow_download)
        detector.precision = precision
        found, memory = _calibrated(calibration, info)
        return cls(
            detector.to(place),
            info,
            threshold=threshold,
            calibration=found,
            memory=memory,
            false_alarm=false_alarm,
            tile=tile,
            roi=roi,
        )

    def changed(
        self,
        *,
        threshold: float | None = None,
        calibration: Calibration | None = None,
        memory: Memory | Crowd | None = None,
    ) -> Inspector:
        """The same model that looks in the same way, and judges by these; by nothing but itself without."""
        return Inspector(
            self.detector,
            self.info,
            threshold=threshold,
            calibration=calibration,
            memory=memory,
            tile=self.tiling,
            roi=self.roi,
        )

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.detector.clip.logit_scale.device

    @property
    def threshold(self) -> float:
        """Score from which a part is defective."""
        return self.rule.limit

    def vocabulary(self, defects: Any = None) -> Vocabulary:
        """What `defects` names (see `Vocabulary.of`); None: the calibration's words, the model's own list, or
        the built-in one.

        Raises ConfigError for other words than the calibration was made with: its promise is about those.
        """
        calibrated = None if self.calibration is None else self.calibration.words
        if defects is not None:
            found = Vocabulary.of(defects)
            if calibrated is not None and dict(calibrated) != words_of(found):
                raise ConfigError(
                    f"the calibration was made for the words {', '.join(calibrated)}; asked for are "
                    f"{', '.join(found.names)}. Calibrate again with these, or leave them out to use those."
                )
            return found
        if calibrated is not None:
            known = {entry.name: entry for entry in builtin()}
            return Vocabulary(
                tuple(
                    replace(known[name], phrases=phrases) if name in known else Defect(name, phrases)
                    for name, phrases in calibrated.items()
                )
            )
        own = self.info.config.defects
        return builtin() if own is None else Vocabulary.of(list(own))

    def smallest_defect(self, height: int, width: int) -> float:
        """Side in pixels of the smallest flaw worth expecting to find in a picture of this size."""
        detector = self.detector
        size = tile_size(self.tiling, height, width, side=detector.side)
        return smallest_defect(
            height,
            width,
            size,
            side=detector.input_side,
            patch=detector.clip.config.patch,
            fit=detector.settings.fit,
        )

    @overload
    def inspect(self, image: list[Any] | tuple[Any, ...], defects: Any = None) -> list[Inspection]: ...
    @overload
    def inspect(self, image: Any, defects: Any = None) -> Inspection: ...
    def inspect(self, image: Any, defects: Any = None) -> Inspection | list[Inspection]:
        """Inspect one image (path, PIL.Image, array, tensor) or a list of them.

        Raises InputError for an image that cannot be inspected (for many files rather use `stream`) and
        VocabularyError for defect types that cannot.
        """
        words = self._words(self.vocabulary(defects))
        if not isinstance(image, (list, tuple)):
            return next(self._answers([self._read(image)], words))
        found: list[Inspection] = []
        sources = iter(image)
        while chunk := list(islice(sources, 8)):
            found += self._answers([self._read(one) for one in chunk], words)
        return found

    def stream(
        self, paths: Iterable[Any], defects: Any = None, batch_size: int = 8
    ) -> Iterator[Inspection | Failure]:
        """Inspect many images lazily, in order; an image that cannot be inspected gives a `Failure`."""
        if batch_size < 1:
            raise ConfigError(f"batch_size is at least 1, got {batch_size}")
        return self._stream(iter(paths), self.vocabulary(defects), batch_size)

    def stream_mutual(
        self, paths: Sequence[Any], defects: Any = None, batch_size: int = 8
    ) -> Iterator[Inspection | Failure]:
        """As `stream`, each picture also compared with the others, which need no label (mutual scoring).

        For pictures of similar parts, most of them good. Raises ConfigError with a calibration, whose promise
        does not hold then, or with tiles; InputError for fewer than five pictures that can be read.
        """
        if self.calibration is not None or self.tiling != "off":
            raise ConfigError(
                "mutual scoring takes the other pictures as they are: it goes with no calibration and no "
                "tiles. Leave these out, or leave out mutual."
            )
        pictures = list(paths)
        step = max(1, len(pictures) / LARGEST)
        chosen = [pictures[int(i * step)] for i in range(min(len(pictures), LARGEST))]
        crowd = gather(self.detector, self._readable(chosen))
        judge = self.changed(threshold=self.rule.threshold, memory=crowd)
        return judge.stream(pictures, defects, batch_size)

    def _readable(self, sources: Iterable[Any]) -> Iterator[torch.Tensor]:
        """The prepared pictures of those that can be read; the stream will name the others."""
        for source in sources:
            with contextlib.suppress(InputError):
                yield torch.from_numpy(self.views(source)[0])

    def _stream(
        self, sources: Iterator[Any], vocabulary: Vocabulary, batch_size: int
    ) -> Iterator[Inspection | Failure]:
        pending: deque[tuple[Any, Future[_Ready]]] = deque()
        words = self._words(vocabulary)
        with ThreadPoolExecutor(READERS, thread_name_prefix="dapo-read") as readers:
            try:
                while True:
                    for source in islice(sources, batch_size + AHEAD - len(pending)):
                        pending.append((source, readers.submit(self._read, source)))
                    if not pending:
                        return
                    yield from self._batch(pending, words, batch_size)
            finally:
                for _, future in pending:
                    future.cancel()

    def _batch(
        self, pending: deque[tuple[Any, Future[_Ready]]], words: _Words, batch_size: int
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
        answers = self._answers([one for one in taken if isinstance(one, _Ready)], words)
        for one in taken:
            yield one if isinstance(one, Failure) else next(answers)

    def _read(self, source: Any) -> _Ready:
        started = time.perf_counter()
        rgb = load_image(source)
        window = self._window(rgb)
        size = tile_size(self.tiling, window.height, window.width, side=self.detector.side)
        pixels = None
        tiles: tuple[Tile, ...] = ()
        if size is None:
            pixels = self._prepared(rgb[window.box])
        else:
            tiles = plan(window.height, window.width, size=size)
            tiles = tiles if window.mask is None else within(tiles, window.mask)
        return _Ready(_name(source), rgb, window, tiles, pixels, time.perf_counter() - started)

    def _window(self, rgb: npt.NDArray[np.uint8]) -> Window:
        """What is looked at: all, or the box around the region of interest."""
        if self.roi is None:
            return Window.whole(rgb)
        mask = self.roi.mask(*rgb.shape[:2])
        top, left, height, width = bounds(mask)
        return Window(top, left, height, width, mask[top : top + height, left : left + width])

    def views(self, source: Any) -> list[npt.NDArray[np.float32]]:
        """What the detector is shown of an image: it whole, or its tiles, each (3, H, W) in [0, 1]."""
        image = self._read(source)
        if image.pixels is not None:
            return [image.pixels]
        return [self._prepared(tile.cut(image.rgb[image.window.box])) for tile in image.tiles]

    def _prepared(self, rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        detector = self.detector
        return prepare(rgb, detector.input_side, detector.clip.config.patch, detector.settings.fit)

    def _answers(self, images: Sequence[_Ready], words: _Words) -> Iterator[Inspection]:
        """Score images in groups of equal shape, then give the inspections one by one, in order."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(images):
            if image.pixels is not None:
                groups.setdefault(image.pixels.shape, []).append(i)
        scored: dict[int, Raw] = {}
        for members in groups.values():
            pictures = [images[i].pixels for i in members]
            for i, raw in zip(members, self._score(pictures, words), strict=True):
                scored[i] = raw
        for i, image in enumerate(images):
            raw = scored.pop(i) if i in scored else self._score_tiles(image, words)
            raw = replace(raw, seconds=image.seconds + raw.seconds)
            yield answer(
                image.name, image.rgb, image.window, raw, words.names, self.rule, self.info.to_dict()
            )

    def _words(self, vocabulary: Vocabulary) -> _Words:
        """The features of the words, and of common types beyond them where the model tells unknown ones."""
        with torch.inference_mode():
            states, background = self.detector.text_features(vocabulary), None
            if self.info.config.unknown_above is not None:
                background = self.detector.background(states, Vocabulary.of(list(builtin().names)))
        return _Words(vocabulary.names, states, background)

    def _score(self, pictures: Sequence[Any], words: _Words) -> Iterator[Raw]:
        """What the detector says of pictures of one shape."""
        started = time.perf_counter()
        pixels = torch.from_numpy(np.stack(pictures)).to(self.device)
        with torch.inference_mode():
            scores = self.detector(pixels, words.states, self.memory, words.background)
            fields = (scores.image, scores.binary, scores.types, scores.type_image)
            image_scores, binary, types, type_scores = (x.float().cpu().numpy() for x in fields)
            unknown = None if scores.unknown is None else scores.unknown.float().cpu().numpy()
        share = (time.perf_counter() - started) / len(pictures)
        for place in range(len(pictures)):
            yield Raw(
                float(image_scores[place]),
                binary[place],
                types[place],
                type_scores[place],
                share,
                None if unknown is None else unknown[place],
            )

    def _score_tiles(self, image: _Ready, words: _Words) -> Raw:
        """What the detector says of an image's tiles, blended; only a batch of them is held."""
        started = time.perf_counter()
        rgb, canvas = image.rgb[image.window.box], None
        looks: list[float] = []
        types: list[npt.NDArray[np.float32]] = []
        tiles = iter(image.tiles)
        while part := list(islice(tiles, TILE_BATCH)):
            for tile, raw in zip(
                part, self._score([self._prepared(tile.cut(rgb)) for tile in part], words), strict=True
            ):
                unsure = [] if raw.unknown is None else [raw.unknown[None]]
                maps = np.concatenate([raw.binary[None], raw.types, *unsure])
                if canvas is None:
                    height, width = image.window.height, image.window.width
                    canvas = Canvas(height, width, states=len(maps), tile=tile, grid=raw.binary.shape)
                canvas.add(tile, maps)
                looks.append(raw.image)
                types.append(raw.type_image)
        assert canvas is not None  # a region of interest marks something, so some tile shows it
        maps = canvas.maps()
        return Raw(
            float(combine(looks, power=TILE_POWER)),
            maps[0],
            maps[1 : 1 + len(types[0])],
            combine(np.stack(types), power=TILE_POWER).astype(np.float32),
            time.perf_counter() - started,
            maps[1 + len(types[0])] if words.background is not None else None,
            looked=image.tiles[0].height * image.tiles[0].width,
        )


def words_of(vocabulary: Vocabulary) -> dict[str, tuple[str, ...]]:
    """{name: phrases}: what of a vocabulary decides."""
    return {defect.name: tuple(defect.phrases) for defect in vocabulary.defects}


def _calibrated(
    wanted: str | Path | Calibration | Literal[False] | None, info: ModelInfo
) -> tuple[Calibration | None, Memory | None]:
    """The calibration asked for, or that of the model folder, and its references."""
    if isinstance(wanted, Calibration):
        return wanted, None
    if wanted is False:
        return None, None
    if wanted is None:
        if not (info.folder / FILE).is_file():
            return None, None
        wanted = info.folder
    place = Path(wanted)
    found = Calibration.load(place)
    if found.references is None or found.model.get("sha256") != info.sha256:  # the constructor says so
        return found, None
    folder = place if place.is_dir() else place.parent
    return found, load_memory(folder / REFERENCES, info.sha256)


def _name(source: Any) -> str:
    """What a result calls its image."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    filename = getattr(source, "filename", None)  # of a PIL image that was opened from a file
    return str(filename) if filename else type(source).__name__


def device_of(device: str | torch.device | None) -> torch.device:
    """The device of this name; None = a GPU if there is one. ConfigError for one that cannot be used."""
    try:
        wanted = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:  # a CPU build of torch asserts
        reason = str(error).splitlines()[0]
        raise ConfigError(f"the device {device!r} is not usable here ({reason}); try 'cpu'") from error
    return wanted
