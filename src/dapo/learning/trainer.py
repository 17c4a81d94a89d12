"""Training: prompts, deep tokens and adapters are learned on a frozen CLIP; one straight loop.

Goes in: labelled samples or generated scenes, a backbone, `TrainingSettings`; comes out: a model folder. What
a run needs to go on stands in OUT, and each file there is replaced in one step, so that a run killed at any
moment goes on from its last saved step, on the CPU in fp32 to the same bits:

    OUT/model/                 the model folder, when the run has ended
    OUT/training.safetensors   what is learned so far, the optimiser's state, the step (no pickle)
    OUT/log.jsonl              losses and speed

Source: DAPO (arXiv 2512.09446), section 5 of the method; without `keep_close`, `ema` and schedules.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from dapo.config import DetectorSettings, ModelConfig, TrainingSettings, parse
from dapo.data import Sample, read_folder
from dapo.errors import ConfigError, DataError, ModelError
from dapo.learning.examples import Batch, Generated, Labelled, Source, batches
from dapo.learning.losses import global_loss, local_loss
from dapo.model.artifact import BACKBONE, ModelInfo, load, save
from dapo.model.clip import Clip
from dapo.model.detector import Detector
from dapo.vocabulary import Vocabulary

STATE, LOG, MODEL = "training.safetensors", "log.jsonl", "model"

# A run may go on with other values of these.
FREE = {"workers", "save_every", "log_every", "backbone", "stored", "bad_images", "name", "description"}
FREE |= {"licence", "data_licence", "detector", "start"}  # detector: the one that came of it is compared


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step. losses: "loss", the sum, and its parts "local", "global", "close"."""

    step: int
    steps: int
    images: int  # seen in this call
    losses: Mapping[str, float]
    lr: float
    per_second: float  # images
    skipped: Mapping[str, str]  # {path: why} of all images left out so far


def train(
    out: str | Path,
    *,
    data: str | Path | Sequence[Sample] | None = None,
    model: str | Path | None = None,
    settings: TrainingSettings | Mapping[str, Any] | None = None,
    resume: bool = False,
    until: int | None = None,
    device: str | torch.device = "cpu",
    on_step: Callable[[Progress], None] | None = None,
) -> Path:
    """Learn prompts, deep tokens and adapters; returns the model folder `out`/model.

    data: the folder of a dataset in the MVTec layout, whose test split holds the labelled defects; or samples
    of any reader; or None for generated scenes. model: the backbone, as a model folder, a CLIP folder or a
    hub id in the local cache; None = the embedded one. settings: TrainingSettings, or its values by name.
    resume: go on with the run in `out`; a run that has not saved yet begins again. until: stop after this
    many steps in all; the model folder is written all the same. on_step is called after each step.

    Raises ConfigError for settings that do not fit each other, the backbone or the run to go on with, or a
    loss that is no longer finite; DataError for a dataset that cannot be used, or an unreadable image when
    `bad_images` is "stop"; ModelError for the backbone, or when the disk is full.
    """
    if not isinstance(settings, TrainingSettings):
        settings = parse(TrainingSettings, settings or {}, "training settings")
    out, place = Path(out), torch.device(device)
    with torch.random.fork_rng(devices=[]):
        start, info = load(model)
        torch.manual_seed(settings.seed)
        detector = build_detector(start, settings)
    detector.precision = settings.precision
    detector.to(place).train()
    source = open_source(data, settings, detector)
    learned = {name: p for name, p in detector.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        learned.values(), lr=settings.lr, betas=settings.betas, weight_decay=settings.weight_decay
    )
    mean = {name: p.detach().clone() for name, p in learned.items()} if settings.ema else {}
    facts = facts_of(settings, source, detector)
    anchors = handwritten_on(detector.clip) if settings.keep_close else None

    out.mkdir(parents=True, exist_ok=True)
    done, skipped = restore(out, learned, optimizer, mean, facts, resume=resume)
    steps = source.steps(settings.epochs)
    end = steps if until is None else min(steps, until)
    began, images, row = time.perf_counter(), 0, dict[str, float]()
    for step, batch in enumerate(batches(source, range(done, end), settings.workers), start=done):
        note_failures(batch, skipped, settings)
        rate = settings.lr * rate_at(step / steps, settings)
        if len(batch.pixels):
            for group in optimizer.param_groups:
                group["lr"] = rate
            losses = step_losses(detector, batch.to(place), settings, anchors)
            row = {name: float(value.detach()) for name, value in losses.items()}
            if not math.isfinite(row["loss"]):
                raise ConfigError(
                    f"the loss became {row['loss']} at step {step + 1}; lower lr, or set clip_grad to 1"
                )
            losses["loss"].backward()
            if settings.clip_grad is not None:
                nn.utils.clip_grad_norm_(learned.values(), settings.clip_grad)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            follow(mean, learned, settings.ema, step)
            images += len(batch.pixels)
        pace = images / (time.perf_counter() - began)
        progress = Progress(step + 1, steps, images, row, rate, pace, dict(skipped))
        if (step + 1) % settings.log_every == 0 or step + 1 == end:
            write_log(out / LOG, progress)
        if (step + 1) % settings.save_every == 0 or step + 1 == end:
            keep(out / STATE, learned, optimizer, mean, facts, step + 1, skipped)
        if on_step is not None:
            on_step(progress)
    with torch.no_grad():
        for name, value in mean.items():
            learned[name].copy_(value)
    card = describe(settings, source, info, detector, out, max(done, end))
    return save(detector.eval(), out / MODEL, card, dtype=settings.stored)


def build_detector(start: Detector, settings: TrainingSettings) -> Detector:
    """The detector to train, on the backbone of a loaded one; see `TrainingSettings.detector` and `start`."""
    clip, wanted = start.clip, settings.detector
    if wanted is None:
        wanted = start.settings if start.learned_state() else published_for(clip)
    detector = Detector(clip, wanted)
    if settings.start == "model":
        detector.load_learned(start.learned_state(), "start: what the model folder has learned")
    if not any(p.requires_grad for p in detector.parameters()):
        raise ConfigError(
            "nothing is left to learn: handwritten prompts, no deep tokens and no learned adapter; set "
            "detector.prompts.kind to hybrid, or detector.adapter to linear or residual"
        )
    return detector


def published_for(clip: Clip) -> DetectorSettings:
    """The published method, at the backbone's native side where its patch does not divide 518 px."""
    published = DetectorSettings()
    fits = published.side is None or published.side % clip.config.patch == 0
    return published if fits else published.model_copy(update={"side": None})


def open_source(
    data: str | Path | Sequence[Sample] | None, settings: TrainingSettings, detector: Detector
) -> Source:
    """Batches for this detector."""
    size, seed, side = settings.batch, settings.seed, detector.side
    if data is None:
        return Generated(settings.generated, batch=size, seed=seed, side=side)
    if isinstance(data, str | Path):
        name, samples = Path(data).resolve().name, read_folder(data, splits=("test",))
    else:
        name, samples = "samples", tuple(data)
    patch, fit = detector.clip.config.patch, detector.settings.fit
    return Labelled(samples, name=name, batch=size, seed=seed, side=side, patch=patch, fit=fit)


def handwritten_on(clip: Clip) -> Detector:
    """The same backbone with handwritten prompts: its text features are what `keep_close` keeps close to."""
    return Detector(clip, DetectorSettings.training_free()).eval()


def step_losses(
    detector: Detector, batch: Batch, settings: TrainingSettings, anchors: Detector | None = None
) -> dict[str, Tensor]:
    """{"loss", "local", "global"} of a batch, and "close" with `anchors`."""
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


def note_failures(batch: Batch, skipped: dict[str, str], settings: TrainingSettings) -> None:
    """Remember what could not be read. Raises DataError instead if the settings say stop."""
    if batch.failures and settings.bad_images == "stop":
        path, why = next(iter(batch.failures.items()))
        raise DataError(
            f"{path}: {why} Training stopped; go on with --resume after repairing it, "
            "or set bad_images to skip."
        )
    skipped.update(batch.failures)


def facts_of(settings: TrainingSettings, source: Source, detector: Detector) -> dict[str, Any]:
    """What must be the same for a run to go on, in plain JSON values."""
    values = settings.model_dump(mode="json", exclude=FREE)
    values["generated"].pop("textures")  # the folder may move; how many there are is in the source's facts
    if settings.schedule == "constant" and not settings.warmup:
        del values["epochs"], values["generated"]["samples"]  # a longer run begins in the same way
    prints = hashlib.sha256()
    for name, tensor in detector.clip.state_dict().items():
        prints.update(name.encode() + tensor.flatten()[:256].cpu().numpy().tobytes())
    values |= {"detector": detector.settings.model_dump(mode="json"), "backbone": prints.hexdigest()[:16]}
    plain: dict[str, Any] = json.loads(json.dumps(values | {"data": source.facts()}))
    return plain


def keep(
    path: Path,
    learned: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    mean: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    step: int,
    skipped: Mapping[str, str],
) -> None:
    """Write the state of a run, replacing the older one in one step. Raises ModelError where it cannot."""
    tensors = {f"learned.{name}": p.detach() for name, p in learned.items()}
    tensors |= {f"mean.{name}": value for name, value in mean.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{key}": value for key, value in state.items()}
    plain = {name: tensor.to("cpu").contiguous() for name, tensor in tensors.items()}
    words = {"step": str(step), "facts": json.dumps(facts), "skipped": json.dumps(skipped)}
    partial = path.with_suffix(".part")
    try:
        save_file(plain, partial, metadata=words)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"step {step} could not be saved to {path} ({error}); make room, then go on with --resume"
        ) from error


def restore(
    out: Path,
    learned: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
    mean: Mapping[str, Tensor],
    facts: Mapping[str, Any],
    *,
    resume: bool,
) -> tuple[int, dict[str, str]]:
    """(steps done, images skipped) of the run in `out`, whose state is put in place; (0, {}) without one.

    Raises ConfigError when the state is of a run with other settings or is not to be gone on with, ModelError
    when the file cannot be read.
    """
    path = out / STATE
    if not path.is_file():
        trim_log(out / LOG, 0)
        return 0, {}
    try:
        with safe_open(path, framework="pt") as file:
            words = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        step, skipped = int(words["step"]), dict(json.loads(words["skipped"]))
        was = dict(json.loads(words["facts"]))
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ModelError(f"{path} is not the state of a run ({error}); remove it to begin again") from error
    if not resume:
        raise ConfigError(f"{out} holds a run at step {step}; go on with --resume, or choose another --out")
    if differing := next((name for name in {**was, **facts} if was.get(name) != facts.get(name)), None):
        raise ConfigError(
            f"{path} was made with {differing} = {was.get(differing)}, this run asks for "
            f"{facts.get(differing)}; use the same to go on, or choose another --out"
        )
    with torch.no_grad():
        for name, p in learned.items():
            p.copy_(tensors[f"learned.{name}"])
        for name, value in mean.items():
            value.copy_(tensors[f"mean.{name}"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("adam."):
            _, index, key = name.split(".", 2)
            moments.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    trim_log(out / LOG, step)
    return step, skipped


def write_log(path: Path, progress: Progress) -> None:
    """One line of JSON."""
    losses = {name: round(value, 5) for name, value in progress.losses.items()}
    row = {"step": progress.step, "steps": progress.steps, **losses, "lr": round(progress.lr, 8)}
    row |= {"per_second": round(progress.per_second, 1), "skipped": len(progress.skipped)}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def trim_log(path: Path, step: int) -> None:
    """Take out what the log says of steps that will be done again, and a line cut short."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    partial = path.with_suffix(".part")
    partial.write_text("".join(kept), encoding="utf-8")
    os.replace(partial, path)


def describe(
    settings: TrainingSettings, source: Source, info: ModelInfo, detector: Detector, out: Path, steps: int
) -> ModelConfig:
    """`config.json` of the trained model."""
    backbone = BACKBONE
    if settings.backbone == "reference":
        inside = info.folder / info.config.backbone
        backbone = str(inside.resolve()) if inside.is_dir() else info.config.backbone
    about = {"name", "description", "licence", "data_licence", "detector", "seed", "workers", "save_every"}
    recipe = settings.model_dump(mode="json", exclude=about | {"log_every", "backbone", "bad_images"})
    generated = recipe.pop("generated")
    if source.defects is None:  # generated scenes: where the textures lay is nobody's business
        del recipe["epochs"]
        recipe |= {key: value for key, value in generated.items() if key != "textures"}
    return ModelConfig(
        name=settings.name or out.resolve().name,
        description=settings.description,
        licence=settings.licence,
        backbone=backbone,
        detector=detector.settings,
        defects=source.defects or info.config.defects,
        training_data=(*info.config.training_data, source.card(settings.data_licence)),
        seed=settings.seed,
        recipe={"steps": steps, **recipe},
    )
