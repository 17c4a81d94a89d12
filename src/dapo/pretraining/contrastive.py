"""What a learner of the image stage is taught: settings, the words' side, what it saw, and the losses.

In: a batch of generated scenes, and the features of a locked text tower for the phrases that name what they
show. Out: the losses, all in the joint space at temperature tau:

- dense: patch softmax over {flawless, one phrase a family}, at the last layer and, weighted less, at
  earlier taps;
- naming: on flawed patches, softmax over the families alone;
- global: CLS against {flawless, mean of the flaws}, and over {flawless, one phrase a family};
- instance: the mean of the most abnormal patches decides whether the image is flawed;
- caption: image-text contrast (CLIP, arXiv 2103.00020) with the locked text features of captions (LiT,
  arXiv 2111.07991).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dapo.errors import ConfigError
from dapo.model.clip import Clip
from dapo.pretraining.batches import Batch
from dapo.pretraining.lexicon import Lexicon

TEMPLATES = ("{}", "{} anomaly object", "a photo of an object with {}", "a surface with {}")
NORMAL_TEMPLATES = ("{}", "{} object", "a photo of a {} object", "a {} surface")


@dataclass(frozen=True)
class ImageStage:
    """Settings of the image stage; `samples` pictures in all, the last `large_share` of them at
    `large_side` pixels. `learner`: what learns.
    """

    learner: Literal["vision tower", "side network"] = "vision tower"

    samples: int = 300_000
    batch: int = 64
    side: int = 112  # px
    large_side: int = 160  # px
    large_share: float = 0.1
    lr_matrix: float = 0.012  # Muon, hidden matrices
    lr_rest: float = 1.2e-3  # AdamW, everything else
    weight_decay: float = 0.02
    warmup: float = 0.02  # share of the steps
    decay_from: float = 0.35  # share of the steps after which the rate falls linearly to zero
    tau: float = 0.07
    masked_until: float = (
        0.72  # share of the steps that see only a part of each image's patches (FLIP, arXiv 2212.00794)
    )
    visible: float = 0.5  # that part
    taps: tuple[int, ...] = (4,)  # earlier layers supervised through the same projection
    tap_weight: float = 0.25
    flawed_weight: float = 3.0  # weight of a flawed patch in the dense loss
    ema: float = 0.999
    seed: int = 0
    save_every: int = 250  # steps

    @property
    def file(self) -> str:
        """Name, without ending, of its state and of its log."""
        return "image-stage" if self.learner == "vision tower" else "side-stage"

    def gentle(self) -> ImageStage:
        """Half the rates: for a tower that has learned already."""
        return replace(self, lr_matrix=self.lr_matrix / 2, lr_rest=self.lr_rest / 2)


# From nothing, whole pictures: convolutions take no less time for half of a picture.
SIDE_STAGE = ImageStage(
    learner="side network", samples=172_800, lr_matrix=0.02, lr_rest=2e-3, masked_until=0.0, taps=()
)


class PhraseTable:
    """Locked text features of every taught phrase in every template, by family; row 0 of a draw is the
    flawless state.
    """

    def __init__(self, clip: Clip, lexicon: Lexicon, families: tuple[str, ...]) -> None:
        self.normal = self._features(
            clip, [t.format(p) for p in lexicon.train_phrases("normal") for t in NORMAL_TEMPLATES]
        )
        self.families = []
        for family in families:
            types = lexicon.by_visual(family)
            if not types:
                raise ConfigError(
                    f"the lexicon has no type drawn as {family!r}; give one type `visual: {family}`"
                )
            phrases = [p for kind in types for p in lexicon.train_phrases(kind.id)]
            self.families.append(self._features(clip, [t.format(p) for p in phrases for t in TEMPLATES]))

    @staticmethod
    @torch.no_grad()
    def _features(clip: Clip, texts: list[str]) -> Tensor:
        return F.normalize(clip.encode_phrases(texts, truncate=True).float(), dim=-1)

    def draw(self, rng: np.random.Generator) -> Float[Tensor, "t d"]:
        """One phrase a family, and the mean of four flawless ones in front."""
        normal = F.normalize(
            self.normal[torch.from_numpy(rng.integers(len(self.normal), size=4))].mean(0), dim=-1
        )
        return torch.stack([normal, *(rows[int(rng.integers(len(rows)))] for rows in self.families)])

    def to(self, device: torch.device) -> PhraseTable:
        """Move the features to `device`."""
        self.normal = self.normal.to(device)
        self.families = [rows.to(device) for rows in self.families]
        return self


@dataclass(frozen=True)
class Seen:
    """What a learner saw of a batch, in the joint space, not of unit length; `earlier`: of its taps."""

    cls: Float[Tensor, "b d"]
    patches: Float[Tensor, "b n d"]
    earlier: list[Float[Tensor, "b n d"]] = field(default_factory=list)


def look(
    clip: Clip,
    batch: Batch,
    stage: ImageStage,
    *,
    offset: tuple[int, int] | None = None,
    visible: Int[Tensor, "b kept"] | None = None,
) -> Seen:
    """What the stage's learner sees. offset, visible: of a vision tower, see its `forward`."""
    pixels = clip.normalise(batch.pixels.float() / 255)
    if stage.learner == "side network":
        assert clip.side_network is not None
        out = clip.side_network(pixels)
        return Seen(out.cls, out.patches)
    seen = clip.vision(pixels, taps=stage.taps, offset=offset, visible=visible)
    return Seen(seen.cls, seen.patches, [clip.vision.project(tokens) for tokens in seen.taps])


def stage_loss(
    out: Seen,
    batch: Batch,
    states: Float[Tensor, "t d"],
    texts: Float[Tensor, "b d"],
    stage: ImageStage,
    *,
    visible: Int[Tensor, "b kept"] | None = None,
) -> dict[str, Tensor]:
    """The losses of one batch; `states` has the flawless state first, then one row a family; `texts`
    caption features. What is not `visible` is not judged.
    """
    cover, kind = batch.cover, batch.kind
    if visible is not None:
        cover, kind = cover.gather(1, visible), kind.gather(1, visible)
    abnormal = (cover * 3).clamp(max=1)
    flawed = kind >= 0
    weight = 1 + (stage.flawed_weight - 1) * abnormal
    kind = kind.clamp(min=0)

    def dense(patches: Tensor) -> tuple[Tensor, Tensor]:
        logits = (F.normalize(patches.float(), dim=-1) @ states.T) / stage.tau
        logp = logits.log_softmax(-1)
        target = -(1 - abnormal) * logp[..., 0] - abnormal * logp.gather(-1, kind[..., None] + 1)[..., 0]
        return (target * weight).sum() / weight.sum(), logits

    last, logits = dense(out.patches)
    earlier = sum((dense(patches)[0] for patches in out.earlier), start=last * 0)
    names = F.cross_entropy(logits[..., 1:][flawed], kind[flawed]) if bool(flawed.any()) else last * 0

    g = F.normalize(out.cls.float(), dim=-1)
    is_flawed = (abnormal.amax(1) > 0.1).float()
    t_a = F.normalize(states[1:].mean(0), dim=-1)
    margin = (g @ (t_a - states[0])) / stage.tau
    image = F.binary_cross_entropy_with_logits(margin, is_flawed)
    present = batch.present / batch.present.sum(1, keepdim=True).clamp(min=1)
    wanted = torch.cat([1 - is_flawed[:, None], present * is_flawed[:, None]], 1)
    types = -((g @ states.T / stage.tau).log_softmax(-1) * wanted).sum(-1).mean()
    contrast = (g @ F.normalize(texts.float(), dim=-1).T) / stage.tau
    labels = torch.arange(len(g), device=g.device)
    caption = (F.cross_entropy(contrast, labels) + F.cross_entropy(contrast.T, labels)) / 2

    abnormality = logits[..., 1:].logsumexp(-1) - np.log(logits.shape[-1] - 1) - logits[..., 0]
    top = abnormality.topk(max(3, abnormality.shape[1] // 60), dim=1).values.mean(1)
    instance = F.binary_cross_entropy_with_logits(top, is_flawed)
    total = (
        last
        + stage.tap_weight * earlier
        + 0.25 * names
        + 0.4 * image
        + 0.25 * types
        + 0.1 * caption
        + 0.15 * instance
    )
    return {
        "loss": total,
        "dense": last,
        "names": names,
        "image": image,
        "types": types,
        "caption": caption,
        "instance": instance,
    }
