"""Training: prompts, deep tokens and adapters are learned on a frozen CLIP; one straight loop.

Goes in: labelled samples or generated scenes, a backbone, `TrainingSettings`; comes out: a model folder,
OUT/model, when the run has ended. What a run needs to go on stands beside it (`state`), so that a run killed
at any moment goes on from its last saved step, on the CPU in fp32 to the same bits. Several processes share
the batches of a step (`processes`); trackers may be told of it (`trackers`).

Source: DAPO (arXiv 2512.09446), section 5 of the method; without `keep_close`, `ema` and schedules.
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dapo.config import DetectorSettings, ModelConfig, PromptSettings, TowerTuning, TrainingSettings, parse
from dapo.data import Sample, read_folder
from dapo.errors import ConfigError, DataError, ModelError
from dapo.learning.examples import Batch, Generated, Labelled, Source, batches
from dapo.learning.losses import global_loss, local_loss
from dapo.learning.processes import join, precision_of
from dapo.learning.state import LOG, STATE, keep, restore, saving, trim_log, write_log
from dapo.learning.trackers import TRACKERS, Audience, Tracker
from dapo.model.artifact import BACKBONE, ModelInfo, backbone_facts, load, save
from dapo.model.clip import Clip
from dapo.model.detector import Detector
from dapo.vocabulary import Vocabulary

MODEL = "model"

# A run may go on with other values of these.
FREE = {"workers", "save_every", "log_every", "backbone", "stored", "bad_images", "name", "description"}
FREE |= {"licence", "data_licence", "detector", "start"}  # detector: the one that came of it is compared
FREE |= {"accumulate", "checkpointing", "track"}  # accumulate: times the processes is compared


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step. losses: "loss", the sum, and its parts "local", "global", "close"."""

    step: int
    steps: int
    images: int  # seen in this call, by all processes
    losses: Mapping[str, float]
    lr: float
    per_second: float  # images
    skipped: Mapping[str, str]  # {path: why} of all images left out so far

    def row(self) -> dict[str, Any]:
        """A line of the log."""
        losses = {name: round(value, 5) for name, value in self.losses.items()}
        row = {"step": self.step, "steps": self.steps, **losses, "lr": round(self.lr, 8)}
        return {**row, "per_second": round(self.per_second, 1), "skipped": len(self.skipped)}

    def values(self) -> dict[str, float]:
        """What trackers are told."""
        more = {"lr": self.lr, "images_per_second": self.per_second, "skipped": float(len(self.skipped))}
        return {**self.losses, **more}


def train(
    out: str | Path,
    *,
    data: str | Path | Sequence[Sample] | None = None,
    data_name: str | None = None,
    model: str | Path | None = None,
    settings: TrainingSettings | Mapping[str, Any] | None = None,
    resume: bool = False,
    until: int | None = None,
    device: str | torch.device = "cpu",
    on_step: Callable[[Progress], None] | None = None,
    trackers: Sequence[Tracker] = (),
) -> Path:
    """Learn prompts, deep tokens and adapters; returns the model folder `out`/model.

    data: the folder of a dataset in the MVTec layout, whose test split holds the labelled defects; or samples
    of any reader; or None for generated scenes. data_name: of the dataset, for the model's card. model: the
    backbone, as a model folder, a CLIP folder or a hub id in the local cache; None = the embedded one.
    settings: TrainingSettings, or its values by name. resume: go on with the run in `out`; a run that has not
    saved yet begins again. until: stop after this many steps in all; the model folder is written all the
    same. on_step is called after each step. trackers: more than those of `settings.track`.

    Under `torchrun` or `accelerate launch`, W processes share each step: batch n is learned from by process
    n mod W, the effective batch is W * batch * accumulate, and only the first process writes to `out` (which
    all must see), logs and calls back.

    Raises ConfigError for settings that do not fit each other, the backbone or the run to go on with, or a
    loss that is no longer finite; DataError for a dataset that cannot be used, or an unreadable image when
    `bad_images` is "stop"; ModelError for the backbone, or when the disk is full; DependencyError for a
    tracker that is not installed.
    """
    if not isinstance(settings, TrainingSettings):
        settings = parse(TrainingSettings, settings or {}, "training settings")
    settings = settings.model_copy(update={"precision": precision_of(settings.precision)})
    team, place = join(device)
    out, share = Path(out), settings.accumulate * team.size
    with torch.random.fork_rng(devices=[]):
        start, info = load(model)
        torch.manual_seed(settings.seed)
        detector = build_detector(start, settings)
    detector.precision = settings.precision
    for tower in (detector.clip.text, detector.clip.vision):
        tower.stack.checkpointing = settings.checkpointing
    detector.to(place).train()
    source = open_source(data, settings, detector, data_name)
    learned = {name: p for name, p in detector.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        learned.values(), lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
    )
    mean = {name: p.detach().clone() for name, p in learned.items()} if settings.ema else {}
    facts = facts_of(settings, source, detector, share)
    anchors = handwritten_on(detector.clip) if settings.keep_close else None

    out.mkdir(parents=True, exist_ok=True)
    done, skipped = restore(out, learned, optimizer, mean, facts, resume=resume)
    steps = source.steps(settings.epochs, share)
    end = steps if until is None else min(steps, until)
    card = describe(settings, source, info, detector, out.resolve().name, max(done, end), share)
    own = [team.own(source.numbers(step, share)) for step in range(done, end)]
    audience = Audience([*(TRACKERS[name]() for name in settings.track), *trackers] if team.leads else [])
    run = {"name": card.name, "out": out, "done": done, "settings": settings.model_dump(mode="json")}
    stream = batches(source, [number for numbers in own for number in numbers], settings.workers)
    if team.leads:
        trim_log(out / LOG, done)
    with contextlib.closing(stream), audience.following(run):
        began, images, row = time.perf_counter(), 0, dict[str, float]()
        for step, numbers in enumerate(own, start=done):
            rate = settings.lr * rate_at(step / steps, settings)
            tally = gather_gradients(detector, islice(stream, len(numbers)), settings, anchors)
            counts = [tally.batches, tally.images, len(tally.failures), *tally.losses.values()]
            learnable, seen, failed, *sums = team.add_up(list(learned.values()), counts)
            if failed:
                note_failures(team.collect(tally.failures), skipped, settings)
            if learnable:
                row = {name: total / learnable for name, total in zip(tally.losses, sums, strict=True)}
                if not math.isfinite(row["loss"]):
                    raise ConfigError(
                        f"the loss became {row['loss']} at step {step + 1}; lower lr, or set clip_grad to 1"
                    )
                advance(optimizer, learned, learnable, rate, settings.clip_grad)
                follow(mean, learned, settings.ema, step)
                images += int(seen)
            if not team.leads:
                continue
            pace = images / (time.perf_counter() - began)
            progress = Progress(step + 1, steps, images, row, rate, pace, dict(skipped))
            if (step + 1) % settings.log_every == 0 or step + 1 == end:
                write_log(out / LOG, progress.row())
                audience.log(step + 1, progress.values())
            if (step + 1) % settings.save_every == 0 or step + 1 == end:
                keep(out / STATE, learned, optimizer, mean, facts, step + 1, skipped)
            if on_step is not None:
                on_step(progress)
    with torch.no_grad():
        for name, value in mean.items():
            learned[name].copy_(value)
    if team.leads:
        with saving("the model", out / MODEL):
            save(detector.eval(), out / MODEL, card, dtype=settings.stored)
    team.wait()
    return out / MODEL


@dataclass
class Tally:
    """Of some batches: how many could be learned from, their images, their losses added up, failures."""

    losses: dict[str, float]
    batches: int = 0
    images: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def gather_gradients(
    detector: Detector, parts: Iterable[Batch], settings: TrainingSettings, anchors: Detector | None
) -> Tally:
    """Add up the gradients of batches in the detector's tensors."""
    place = detector.clip.logit_scale.device
    tally = Tally(dict.fromkeys(("loss", "local", "global", *(["close"] if anchors else [])), 0.0))
    for batch in parts:
        tally.failures.update(batch.failures)
        if not len(batch.pixels):
            continue
        losses = step_losses(detector, batch.to(place), settings, anchors)
        losses["loss"].backward()
        for name, value in losses.items():
            tally.losses[name] += float(value.detach())
        tally.batches += 1
        tally.images += len(batch.pixels)
    return tally


def advance(
    optimizer: torch.optim.Optimizer,
    learned: Mapping[str, nn.Parameter],
    count: float,
    rate: float,
    clip_grad: float | None,
) -> None:
    """One step along the mean of the gradients of `count` batches."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    if count > 1:
        for p in learned.values():
            if p.grad is not None:
                p.grad /= count
    if clip_grad is not None:
        nn.utils.clip_grad_norm_(learned.values(), clip_grad)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def build_detector(start: Detector, settings: TrainingSettings) -> Detector:
    """The detector to train, on the backbone of a loaded one; see `TrainingSettings.detector` and `start`.

    Without its concepts, which would hold every word where it is.
    """
    if start.concepts is not None:
        start = start.changed(concepts=None)
    clip, wanted = start.clip, settings.detector
    if wanted is None:
        wanted = start.settings if start.learned_state() else learnable(start)
    detector = Detector(clip, wanted)
    if settings.start == "model":
        if not start.learned_state():
            raise ModelError(
                "start: the model has learned no prompts to go on from, people wrote its words; leave start "
                "out, or give a model folder that dapo train made"
            )
        detector.load_learned(start.learned_state(), "start: what the model folder has learned")
    if not any(p.requires_grad for p in detector.parameters()):
        raise ConfigError(
            "nothing is left to learn: handwritten prompts, no deep tokens and no learned adapter; set "
            "detector.prompts.kind to hybrid, or detector.adapter to linear or residual"
        )
    return detector


def learnable(start: Detector) -> DetectorSettings:
    """What to learn where nothing was: the published method on a plain CLIP; on a model with settings of its
    own, these, with context before the words and deep text tokens.
    """
    if start.settings == DetectorSettings.training_free():
        return published_for(start.clip)
    deep = TowerTuning(depth=min(2, start.clip.config.text.layers))
    prompts = PromptSettings(context_init="words")
    return start.settings.model_copy(update={"prompts": prompts, "text_deep": deep})


def published_for(clip: Clip) -> DetectorSettings:
    """The published method, at the backbone's native side where its patch does not divide 518 px."""
    published = DetectorSettings()
    fits = published.side is None or published.side % clip.config.patch == 0
    return published if fits else published.model_copy(update={"side": None})


def open_source(
    data: str | Path | Sequence[Sample] | None,
    settings: TrainingSettings,
    detector: Detector,
    name: str | None = None,
) -> Source:
    """Batches for this detector."""
    size, seed, side = settings.batch, settings.seed, detector.side
    if data is None:
        if settings.held_out:
            raise ConfigError(
                "held_out names types of a dataset, and generated scenes have none; leave it out"
            )
        return Generated(settings.generated, batch=size, seed=seed, side=side)
    if isinstance(data, str | Path):
        name, samples = name or Path(data).resolve().name, read_folder(data, splits=("test",))
    else:
        name, samples = name or "samples", tuple(data)
    patch, fit = detector.clip.config.patch, detector.settings.fit
    return Labelled(
        samples,
        name=name,
        batch=size,
        seed=seed,
        side=side,
        patch=patch,
        fit=fit,
        held_out=settings.held_out,
    )


def handwritten_on(clip: Clip) -> Detector:
    """The same backbone with handwritten prompts: its text features are what `keep_close` keeps close to."""
    return Detector(clip, DetectorSettings.training_free()).eval()


def step_losses(
    detector: Detector, batch: Batch, settings: TrainingSettings, anchors: Detector | None = None
) -> dict[str, Tensor]:
    """{"loss", "local", "global"} of a batch, and "close" with `anchors`; binary prompts learn one type."""
    if phrase := detector.settings.prompts.binary_phrase:
        batch = batch.binary(phrase)
    states = detector.text_features(batch.vocabulary)
    features = detector.features(batch.pixels)
    stride = settings.loss_stride
    logits = [detector.logits(tap, states) for tap in features.taps]
    labels = batch.labels[:, ::stride, ::stride]
    weights = settings.dice_weight, settings.names_weight
    local = local_loss(logits, features.rows, features.columns, labels, *weights)
    overall = global_loss(detector.global_logits(features, states), batch.defective)
    total = settings.local_weight * local + settings.global_weight * overall
    losses = {"local": local, "global": overall}
    if anchors is not None:
        losses["close"] = closeness(states, anchors, batch.vocabulary)
        total = total + settings.keep_close * losses["close"]
    return {"loss": total, **losses}


def closeness(states: Float[Tensor, "t d"], anchors: Detector, vocabulary: Vocabulary) -> Float[Tensor, ""]:
    """Mean of 1 - cosine between the states and the features of the handwritten prompts."""
    with torch.no_grad():
        fixed = anchors.text_features(vocabulary)
    return (1 - (states * fixed).sum(-1)).mean()


def rate_at(progress: float, settings: TrainingSettings) -> float:
    """Share of the learning rate at this share of the steps."""
    if progress < settings.warmup:
        return (progress + 1e-3) / (settings.warmup + 1e-3)
    left = (1 - progress) / (1 - settings.warmup) if settings.warmup < 1 else 1.0
    return {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}[settings.schedule]


@torch.no_grad()
def follow(mean: dict[str, Tensor], learned: Mapping[str, Tensor], decay: float | None, step: int) -> None:
    """Move the running mean towards what is learned; faster at first, so that the start is forgotten."""
    for name, value in mean.items():
        value.lerp_(learned[name], 1 - min(decay or 0.0, (1 + step) / (10 + step)))


def note_failures(failures: Mapping[str, str], skipped: dict[str, str], settings: TrainingSettings) -> None:
    """Remember what could not be read. Raises DataError instead if the settings say stop."""
    if failures and settings.bad_images == "stop":
        path, why = next(iter(failures.items()))
        raise DataError(
            f"{path}: {why} Training stopped; go on with --resume after repairing it, "
            "or set bad_images to skip."
        )
    skipped.update(failures)


def facts_of(
    settings: TrainingSettings, source: Source, detector: Detector, share: int = 1
) -> dict[str, Any]:
    """What must be the same for a run to go on, in plain JSON values. share: batches a step."""
    values = settings.model_dump(mode="json", exclude=FREE)
    values["generated"].pop("textures")  # the folder may move; how many there are is in the source's facts
    if settings.schedule == "constant" and not settings.warmup:
        del values["epochs"], values["generated"]["samples"]  # a longer run begins in the same way
    values |= {"batches a step": share, "detector": detector.settings.model_dump(mode="json")}
    values |= {"backbone": backbone_facts(detector.clip)["weights"], "data": source.facts()}
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def describe(
    settings: TrainingSettings,
    source: Source,
    info: ModelInfo,
    detector: Detector,
    name: str,
    steps: int,
    share: int,
) -> ModelConfig:
    """`config.json` of the model after `steps` of `share` batches; `name` if the settings give none."""
    backbone = BACKBONE
    if settings.backbone == "reference":
        inside = info.folder / info.config.backbone
        backbone = str(inside.resolve()) if inside.is_dir() else info.config.backbone
    about = {"name", "description", "licence", "data_licence", "detector", "seed", "workers", "save_every"}
    about |= {"log_every", "backbone", "bad_images", "track", "checkpointing", "accumulate"}
    recipe = settings.model_dump(mode="json", exclude=about)
    generated = recipe.pop("generated")
    if source.defects is None:  # generated scenes: where the textures lay is nobody's business
        del recipe["epochs"]
        recipe |= {key: value for key, value in generated.items() if key != "textures"}
    return ModelConfig(
        name=settings.name or name,
        description=settings.description,
        licence=settings.licence,
        backbone=backbone,
        detector=detector.settings,
        defects=source.defects or info.config.defects,
        training_data=(*info.config.training_data, source.card(settings.data_licence)),
        seed=settings.seed,
        recipe={"steps": steps, **recipe, "batches_a_step": share},
        learned_on=backbone_facts(detector.clip),
    )
