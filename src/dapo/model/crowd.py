"""Crowd: the other pictures of a folder as silent references, none of them labelled (mutual scoring).

In: prepared pictures of similar parts, most of them good; out: a `Crowd`, which a detector takes where it
would take a `Memory`. A normal patch has a likeness in most of the other pictures, a flaw in few of them: the
distance is the mean over the third of the pictures in which its nearest patch is nearest. The nearest picture
of all is left out, since it may be the picture itself.

Source: MuSc (Li et al., ICLR 2024, arXiv 2401.16753).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dapo.errors import InputError
from dapo.model.detector import Detector
from dapo.model.features import Features
from dapo.model.memory import Spread, descriptor, joined, layers_of, light, nearest

SHARE = 0.3  # of the other pictures
FEWEST = 5  # pictures
USUAL = 2.5  # standard deviations, see `dapo.pretraining.references`
LARGEST = 40  # pictures that are compared with; more cost time and tell little more


@dataclass(frozen=True)
class Crowd:
    """Patches of each picture: banks[i][s] of picture i at scale s, unit-length, half precision."""

    banks: tuple[tuple[Tensor, ...], ...]
    layers: tuple[int, ...]
    patch: Spread
    peak: Spread

    @property
    def images(self) -> int:
        return len(self.banks)

    def to(self, device: torch.device) -> Crowd:
        """The same on another device."""
        banks = tuple(tuple(bank.to(device) for bank in banks) for banks in self.banks)
        return Crowd(banks, self.layers, self.patch, self.peak)

    def distance(self, looks: Sequence[Features]) -> Float[Tensor, "b gh gw"]:
        """Mutual distance of each patch, averaged over the scales, on the finest grid."""
        return joined(looks, [mutual(look, [own[s] for own in self.banks]) for s, look in enumerate(looks)])

    def unusual(
        self, distance: Float[Tensor, "b gh gw"]
    ) -> tuple[Float[Tensor, "b gh gw"], Float[Tensor, " b"]]:
        """In standard deviations of the crowd: of each patch, and of the image's largest, less what is usual
        there: nobody vouches for the crowd, so only what is beyond USUAL speaks against an image.
        """
        return self.patch.units(distance), self.peak.units(distance.flatten(1).amax(1)) - USUAL


def mutual(look: Features, banks: Sequence[Tensor]) -> Float[Tensor, "b n"]:
    """Mean distance to the nearest patches of the most alike SHARE of pictures, the most alike left out."""
    patches = descriptor(look)
    distances = torch.stack([nearest(patches, bank) for bank in banks]).sort(dim=0).values
    return distances[1 : 1 + max(1, round(SHARE * (len(banks) - 1)))].mean(0)


@torch.inference_mode()
def gather(detector: Detector, pictures: Iterable[Float[Tensor, "3 hh ww"]]) -> Crowd:
    """The crowd of these pictures, prepared for this detector. Raises InputError for fewer than FEWEST."""
    layers, device = layers_of(detector), detector.clip.logit_scale.device
    seen = [
        [light(look) for look in detector.looks(picture[None].to(device), layers)] for picture in pictures
    ]
    if len(seen) < FEWEST:
        raise InputError(
            f"expected at least {FEWEST} pictures of similar parts to compare with one another; got "
            f"{len(seen)}. Inspect them without mutual scoring.",
            kind="empty",
        )
    banks = tuple(tuple(look.layers[0][0] for look in looks) for looks in seen)
    unknown = Crowd(banks, layers, Spread(0.0, 1.0), Spread(0.0, 1.0))
    distances = [unknown.distance(looks) for looks in seen]
    peaks = torch.stack([distance.amax() for distance in distances])
    return Crowd(
        banks, layers, typical(torch.cat([distance.flatten() for distance in distances])), typical(peaks)
    )


def typical(values: Tensor) -> Spread:
    """Median, and deviation from the median's absolute deviation: a few flawed pictures do not move them."""
    middle = values.median()
    spread = 1.4826 * (values - middle).abs().median()  # of a normal distribution
    return Spread(float(middle), max(float(spread), 1e-4))
