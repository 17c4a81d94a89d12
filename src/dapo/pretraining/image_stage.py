"""The image stage: a vision tower, or a side network beside one, learns on generated scenes to speak the
language of a locked text tower.

Goes in: a Clip whose text tower is trained (text.py), a `World`. Comes out: the same Clip with a vision
tower or a side network whose patches and CLS lie beside the features of the phrases that name what they show;
what it is taught is in contrastive.py.

Resumable: a run that goes on from a kept state (states.py) continues with the same batches.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dapo.errors import ConfigError, DependencyError
from dapo.model.clip import Clip
from dapo.model.side_network import SideConfig, SideNetwork
from dapo.pretraining.batches import Batch, stream
from dapo.pretraining.contrastive import ImageStage, PhraseTable, look, stage_loss
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.scenes import World
from dapo.pretraining.states import keep_state, kept_state

HIDDEN = ("stack", "stages", "compare", "coarse", "middle", "fine", "mix")  # of a tower, of a side network
Log = Callable[[dict[str, float]], None]


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
    keep_state(folder / stage.file, step, state)


def _resume(
    folder: Path,
    learner: nn.Module,
    mean: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    stage: ImageStage,
    world: World,
) -> int:
    state = kept_state(folder / stage.file)
    if state is None:
        return 0
    facts = _facts(stage, world)
    for name, value in facts.items():
        if state["facts"].get(name) != value:
            raise ConfigError(
                f"the {stage.learner} in {folder} was made with {name} = {state['facts'].get(name)!r}, "
                f"this run asks for {value!r}; use the same settings to resume, or another --out folder"
            )
    learner.load_state_dict(state["learner"])
    mean.load_state_dict(state["average"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"])
