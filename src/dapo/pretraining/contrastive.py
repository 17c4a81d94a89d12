"""The image stage: a vision tower, or a side network beside one, learns on generated scenes to speak the
language of a locked text tower.

Goes in: a Clip whose text tower is trained (text.py), a `World`. Comes out: the same Clip with a vision
tower or a side network whose patches and CLS lie beside the features of the phrases that name what they show.
Losses, all in the joint space at temperature tau:

- dense: patch softmax over {flawless, one phrase a family}, at the last layer and, weighted less, at
  earlier taps;
- naming: on flawed patches, softmax over the families alone;
- global: CLS against {flawless, mean of the flaws}, and over {flawless, one phrase a family};
- instance: the mean of the most abnormal patches decides whether the image is flawed;
- caption: image-text contrast (CLIP, arXiv 2103.00020) with the locked text features of captions (LiT,
  arXiv 2111.07991).

Resumable: the state after a step is one file, written atomically; a resumed run continues with the same
batches.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dapo.errors import ConfigError, DependencyError
from dapo.model.clip import Clip
from dapo.model.side_network import SideConfig, SideNetwork
from dapo.pretraining.batches import Batch, stream
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.scenes import World

TEMPLATES = ("{}", "{} anomaly object", "a photo of an object with {}", "a surface with {}")
NORMAL_TEMPLATES = ("{}", "{} object", "a photo of a {} object", "a {} surface")
HIDDEN = ("stack", "stages", "compare", "coarse", "middle", "fine", "mix")  # of a tower, of a side network


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
Log = Callable[[dict[str, float]], None]


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


def require_muon() -> None:
    """Raises DependencyError if torch is too old for the optimiser of the towers."""
    if not hasattr(torch.optim, "Muon"):
        raise DependencyError(
            "`dapo pretrain` needs torch 2.9 or newer (its Muon optimiser), "
            f"found {torch.__version__}; upgrade torch"
        )


def split_parameters(learner: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Hidden matrices and convolutions of the layers (for Muon), and everything else (for AdamW); a
    convolution of the picture itself is not hidden.
    """
    named = list(learner.named_parameters())
    hidden = [p for name, p in named if p.ndim >= 2 and p.shape[1] > 3 and name.split(".")[0] in HIDDEN]
    chosen = {id(p) for p in hidden}
    return hidden, [p for _, p in named if id(p) not in chosen]


def learner_of(clip: Clip, stage: ImageStage) -> nn.Module:
    """What the stage teaches. A side network is made, in the order of torch's seed, if there is none."""
    if stage.learner == "vision tower":
        return clip.vision
    if clip.side_network is None:
        clip.side_network = SideNetwork(SideConfig(dim=clip.config.dim), normalised=True)
        clip.side_network.to(clip.logit_scale.device)
    return clip.side_network


def train_images(
    clip: Clip,
    world: World,
    lexicon: Lexicon,
    folder: str | Path,
    stage: ImageStage,
    *,
    workers: int = 2,
    log: Log = lambda row: None,
    until: int | None = None,
) -> Clip:
    """Train the stage's learner of `clip` in place (text locked); returns a copy with averaged weights, a
    side network folded. Resumes from `folder` if it holds a state.

    `until`: stop (with a state saved) after this many steps. Raises DependencyError without torch's Muon.
    """
    require_muon()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    device = next(clip.parameters()).device
    clip.requires_grad_(False)
    learner = learner_of(clip, stage).requires_grad_(True).train()
    table = PhraseTable(clip, lexicon, world.families).to(device)
    average = copy.deepcopy(clip).requires_grad_(False)
    mean = learner_of(average, stage)
    hidden, rest = split_parameters(learner)
    matrices = [nn.Parameter(p.detach().flatten(1)) for p in hidden]  # the same numbers, as Muon takes them
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=stage.lr_matrix, weight_decay=stage.weight_decay),
        torch.optim.AdamW(rest, lr=stage.lr_rest, weight_decay=0.0, betas=(0.9, 0.98)),
    ]
    steps = stage.samples // stage.batch
    first_large = round(steps * (1 - stage.large_share))
    done = _resume(folder, learner, mean, optimizers, stage, world)
    end = min(steps, until) if until is not None else steps
    began, seen = time.perf_counter(), 0
    batches = _phases(world, lexicon, stage, clip.config.patch, done, end, first_large, workers)
    for step, batch in zip(range(done, end), batches, strict=True):
        rate = _rate(step / steps, stage)
        for optimizer, base in zip(optimizers, (stage.lr_matrix, stage.lr_rest), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = base * rate
        rng = np.random.default_rng([stage.seed, 5, step])
        states = table.draw(rng)
        rows, spare = (
            batch.pixels.shape[-1] // clip.config.patch,
            clip.config.grid - batch.pixels.shape[-1] // clip.config.patch,
        )
        offset = (
            (int(rng.integers(spare + 1)), int(rng.integers(spare + 1)))
            if spare >= 0 and rows and rng.random() < 0.5
            else None
        )
        visible = None
        if step < round(steps * stage.masked_until):
            order = rng.random(batch.cover.shape).argsort(1)
            visible = torch.from_numpy(order[:, : round(order.shape[1] * stage.visible)]).to(device)
        moved = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            with torch.no_grad():
                texts = clip.encode_phrases(batch.captions, truncate=True)
            out = look(clip, moved, stage, offset=offset, visible=visible)
            losses = stage_loss(out, moved, states, texts, stage, visible=visible)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        for matrix, parameter in zip(matrices, hidden, strict=True):
            matrix.grad = None if parameter.grad is None else parameter.grad.flatten(1)
        for optimizer in optimizers:
            optimizer.step()
        learner.zero_grad(set_to_none=True)
        _follow(mean, learner, min(stage.ema, (1 + step) / (10 + step)))
        seen += len(batch.pixels)
        if (step + 1) % 25 == 0:
            row = {name: round(float(value.detach()), 4) for name, value in losses.items()}
            pace = seen / (time.perf_counter() - began)
            log(
                {
                    "step": step + 1,
                    "steps": steps,
                    "samples": (step + 1) * stage.batch,
                    **row,
                    "per_second": round(pace, 1),
                }
            )
        if (step + 1) % stage.save_every == 0 or step + 1 == end:
            _save(folder, learner, mean, optimizers, step + 1, stage, world)
    if average.side_network is not None:
        average.side_network = average.side_network.folded()
    return average.eval()


@torch.no_grad()
def _follow(mean: nn.Module, learner: nn.Module, decay: float) -> None:
    """Move the running mean of weights and of what a normalisation has counted."""
    for slow, fast in zip(mean.state_dict().values(), learner.state_dict().values(), strict=True):
        if slow.is_floating_point():
            slow.lerp_(fast, 1 - decay)
        else:
            slow.copy_(fast)


def _rate(progress: float, stage: ImageStage) -> float:
    if progress < stage.warmup:
        return (progress + 1e-4) / stage.warmup
    return min(1.0, (1 - progress) / (1 - stage.decay_from))


def _phases(
    world: World,
    lexicon: Lexicon,
    stage: ImageStage,
    patch: int,
    done: int,
    end: int,
    first_large: int,
    workers: int,
) -> Iterator[Batch]:
    """Small pictures, then large ones; batch numbers run through both, so no scene is seen twice."""
    for lo, hi, side in ((0, first_large, stage.side), (first_large, end, stage.large_side)):
        numbers = range(max(lo, done), min(hi, end))
        if len(numbers):
            yield from stream(
                world,
                lexicon,
                families=world.families,
                numbers=numbers,
                size=stage.batch,
                side=side,
                patch=patch,
                workers=workers,
            )


def _facts(stage: ImageStage, world: World) -> dict[str, Any]:
    facts = {
        **asdict(stage),
        "world_seed": world.seed,
        "twins": world.twins,
        "families": list(world.families),
    }
    return dict(json.loads(json.dumps({k: v for k, v in facts.items() if k != "save_every"})))


def _save(
    folder: Path,
    learner: nn.Module,
    mean: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    step: int,
    stage: ImageStage,
    world: World,
) -> None:
    state = {
        "step": step,
        "facts": _facts(stage, world),
        "learner": learner.state_dict(),
        "average": mean.state_dict(),
        "optimizers": [o.state_dict() for o in optimizers],
    }
    partial = folder / f"{stage.file}.part"
    torch.save(state, partial)
    os.replace(partial, folder / f"{stage.file}.pt")


def _resume(
    folder: Path,
    learner: nn.Module,
    mean: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    stage: ImageStage,
    world: World,
) -> int:
    path = folder / f"{stage.file}.pt"
    if not path.is_file():
        return 0
    state = torch.load(path, map_location=next(learner.parameters()).device, weights_only=True)
    facts = _facts(stage, world)
    for name, value in facts.items():
        if state["facts"].get(name) != value:
            raise ConfigError(
                f"{path} was made with {name} = {state['facts'].get(name)!r}, this run asks for {value!r}; "
                "use the same settings to resume, or another --out folder"
            )
    learner.load_state_dict(state["learner"])
    mean.load_state_dict(state["average"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])
