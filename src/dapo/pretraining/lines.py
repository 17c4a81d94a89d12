"""Product lines: many pictures of one product, as a camera over a conveyor takes them, good and flawed.

In: a `World` and a line's number. Out: a `Line` whose scenes show one and the same part, each a little turned
and shifted (or, of a bare surface, another piece of it), in nearly the same light. What `dapo calibrate` and
references are chosen and tested on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dapo.pretraining.fields import Field, Rgb, Rng, blur, noise, smooth
from dapo.pretraining.parts import Part, draw_part
from dapo.pretraining.scenes import LUMA, Scene, World

MARGIN = 1.3  # side of what is drawn once, against that of a picture
TURN = 4.0  # degrees, standard deviation is half of it
SHIFT = 0.04  # of the side


@dataclass(frozen=True)
class Line:
    """One product of a world, in pictures of (h, w) pixels."""

    world: World
    number: int
    h: int = 224
    w: int = 224

    def scene(self, index: int, *, good: bool) -> Scene:
        """Picture number `index` of the good, or of the flawed parts; always the same one.

        A flaw that does not fit the part is drawn again; after some attempts the part stays good.
        """
        rng = self._rng(1 + int(good), index)
        part = self._placed(rng)
        image = part.image
        masks: dict[str, NDArray[np.bool_]] = {}
        for _ in range(0 if good else 8):
            image, masks = self.world._flawed(rng, part)
            if masks:
                break
        return Scene(self._taken(rng, image), masks, part.name, part.surface, self._gray)

    def _rng(self, *what: int) -> Rng:
        return np.random.default_rng([self.world.seed, int(self.world.other), 77, self.number, *what])

    @cached_property
    def _part(self) -> Part:
        h, w = round(MARGIN * self.h), round(MARGIN * self.w)
        return draw_part(self._rng(0), h, w, self.world.textures, other=self.world.other)

    @cached_property
    def _light(self) -> Field:
        """Gain of the line's lamp, (h, w)."""
        rng = self._rng(3)
        return 1 + np.float32(rng.uniform(0, 0.3)) * smooth(rng, self.h, self.w, 2)

    @cached_property
    def _gray(self) -> bool:
        return bool(self._rng(4).random() < 0.4)

    @cached_property
    def _camera(self) -> tuple[float, float]:
        """Blur in pixels and grain of the line's camera."""
        rng = self._rng(5)
        return float(rng.uniform(0, 0.8)), float(rng.uniform(0.003, 0.02))

    def _placed(self, rng: Rng) -> Part:
        """The part under the camera: cut out of the surface anywhere, or laid down a little askew."""
        part = self._part
        spare_v, spare_u = part.support.shape[0] - self.h, part.support.shape[1] - self.w
        if part.name == "surface":
            v, u = int(rng.integers(0, spare_v + 1)), int(rng.integers(0, spare_u + 1))
            window = np.s_[v : v + self.h, u : u + self.w]
            return Part(
                part.image[window], part.support[window], part.background[window], part.name, part.surface,
                part.upright,
            )  # fmt: skip
        angle = np.deg2rad(TURN / 2 * rng.normal())
        v, u = np.array([spare_v, spare_u]) / 2 + SHIFT * min(self.h, self.w) * rng.normal(size=2) / 2

        def moved(plane: Field) -> Field:
            return placed(plane, angle, v, u, self.h, self.w)

        image = np.stack([moved(part.image[..., c]) for c in range(3)], axis=-1)
        background = np.stack([moved(part.background[..., c]) for c in range(3)], axis=-1)
        return Part(image, moved(part.support), background, part.name, part.surface, part.upright)

    def _taken(self, rng: Rng, image: Rgb) -> NDArray[np.uint8]:
        """The picture: the line's light and camera, with the little that changes from one to the next."""
        soft, grain = self._camera
        image = image * (self._light * np.float32(np.exp(rng.normal(0, 0.03))))[..., None]
        if self._gray:
            image = np.repeat((image @ LUMA)[..., None], 3, 2)
        if soft > 0.2:
            image = blur(image, soft * min(self.h, self.w) / 224)
        image = image + np.float32(grain) * noise(rng, self.h, self.w, 0.3)[..., None]
        return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def placed(plane: Field, angle: float, top: float, left: float, h: int, w: int) -> Field:
    """The (h, w) window at (top, left) of the plane, turned by `angle` about its middle; edges mirrored."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = np.array([h - 1, w - 1]) / 2
    offset = middle + np.array([top, left]) - turn @ middle
    return ndimage.affine_transform(
        plane, turn, offset=offset, output_shape=(h, w), order=1, mode="mirror", output=np.float32
    )
