"""The whole way to the embedded model: text, images, prompts, thresholds.

In: an output folder, a seed, perhaps a folder of textures. Out: `OUT/backbone`, a CLIP that
`transformers.CLIPModel` loads, and `OUT/model`, a DAPO model folder with prompts learned on the second
generated world and thresholds read off a third. Each stage resumes from what it left in OUT; a finished one
is not done again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from dapo.config import (
    DetectorSettings,
    GeneratedSettings,
    ModelConfig,
    PromptSettings,
    TowerTuning,
    TrainingData,
    TrainingSettings,
)
from dapo.learning.trainer import train
from dapo.model.artifact import backbone_facts, load, save
from dapo.model.clip import Clip, build_clip, load_clip, save_clip
from dapo.model.clip_config import TowerConfig
from dapo.model.detector import Detector
from dapo.model.tokenizer import Tokenizer
from dapo.pretraining.concepts import with_concepts
from dapo.pretraining.contrastive import SIDE_STAGE, ImageStage
from dapo.pretraining.corners import corner_pictures, mend_corners
from dapo.pretraining.defaults import DEFECTS, choose_defaults
from dapo.pretraining.image_stage import require_muon, train_images
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.phrases import PhraseStage, teach_phrases
from dapo.pretraining.scenes import World
from dapo.pretraining.surfaces import Textures
from dapo.pretraining.text import TextStage, load_text_tower, text_config, train_text_tower
from dapo.pretraining.transfer import held_out_words
from dapo.pretraining.unknown import choose_unknown

VISION = TowerConfig(width=192, layers=6, heads=3, mlp=768, activation="gelu")
SIDE = 224  # px, native side of the position grid
PATCH = 8  # px


TAPS = (4, 6)  # vision layers that are supervised, so that no adapter has to be learned for them
# Prompts near the handwritten ones: here adapters and visual deep tokens cost AUPRO (see the model's card).
PROMPTS = TrainingSettings(
    detector=DetectorSettings(
        prompts=PromptSettings(groups=4, context_init="words"),
        text_deep=TowerTuning(depth=2),
        vision_deep=TowerTuning(depth=0),
        adapter="none",
        taps=TAPS,
        side=112,
    ),
    batch=64,
    lr=3e-4,
    schedule="linear",
    dice_weight=0.2,
    names_weight=1.0,
    keep_close=5.0,
    loss_stride=4,
    save_every=50,
    data_licence="CC0-1.0",
)
ANSWER = {
    "taps": TAPS,
    "side": SIDE,
    "fit": "aspect",
    "scales": (0.72, 0.5),  # 160 and 112 px: large flaws fill only when seen small
    "side_scales": (1.0, 0.72, 0.5),  # convolutions are cheaper
    "binary": "max",
    "image_abnormal": "mean",
    "anchors": DEFECTS,
    "anchor_top": 0.5,
    "type_score": "geometric",
    "type_contrast": 8.0,
}
# Seeds of the worlds that the vision tower, the side network, its corners and the thresholds see.
FIRST_WORLD, SIDE_WORLD, CORNERS_WORLD, DEFAULTS_WORLD = 1000, 3000, 4000, 8000
TRAINING_DATA = (
    TrainingData(
        name="generated scenes of parts and flaws", licence="Apache-2.0", note="drawn by this package"
    ),
    TrainingData(
        name="ambientCG material textures",
        licence="CC0-1.0",
        note="thumbnails of 128 px as normal surfaces; worn materials left out",
    ),
    TrainingData(
        name="all-MiniLM-L6-v2", licence="Apache-2.0", note="teacher of the text tower, and its word pieces"
    ),
)

Log = Callable[[str], None]


@dataclass(frozen=True)
class Recipe:
    """What shapes the embedded model; `answer`: the `DetectorSettings` it answers with.

    `start`: a folder with a CLIP whose towers are taken over; instead of the text stage its text tower is
    taught the lexicon's phrases as they are now (`phrases`; not with `keep_words`), and the images are
    learned at half the rates. The side network learns last, from nothing, beside what the towers are then;
    without samples of its own it is the start's, if that has one. Its corners are mended. Without
    `prompt_samples` no prompts are learned.
    `kept` of the start's vision weights stays in the result: where the two differ much, what lies between
    holds better on pictures unlike those of either (WiSE-FT, arXiv 2109.01903).
    """

    seed: int = 0
    start: str | None = None
    keep_words: bool = False
    kept: float = 0.0
    vision: TowerConfig = VISION
    side: int = SIDE
    patch: int = PATCH
    text: TextStage = field(default_factory=TextStage)
    phrases: PhraseStage = field(default_factory=PhraseStage)
    image: ImageStage = field(default_factory=ImageStage)
    side_network: ImageStage = SIDE_STAGE
    prompts: TrainingSettings = PROMPTS
    prompt_samples: int = 16_000
    threshold_scenes: int = 600
    word_scenes: int = 400
    answer: Mapping[str, Any] = field(default_factory=lambda: dict(ANSWER))
    min_area: float = 0.002  # of the picture; one patch of 8 px at 224 px is 0.0013
    version: str = "0.7"

    @property
    def stage(self) -> ImageStage:
        """The image stage as it is run."""
        return self.image if self.start is None else self.image.gentle()

    @property
    def command(self) -> str:
        """What makes this model, with the options that differ from their defaults."""
        usual = Recipe()
        said = ["dapo pretrain", f"--seed {self.seed}", "--textures DIR"]
        said += [] if self.start is None else ["--start BACKBONE"]
        said += ["--keep-words"] if self.keep_words else []
        for option, own, default in (
            ("samples", self.image.samples, usual.image.samples),
            ("side-samples", self.side_network.samples, usual.side_network.samples),
            ("prompt-samples", self.prompt_samples, usual.prompt_samples),
        ):
            said += [] if own == default else [f"--{option} {own}"]
        return " ".join(said)

    def seeded(self, seed: int) -> Recipe:
        """The same recipe with another seed in every stage."""
        return replace(
            self,
            seed=seed,
            text=replace(self.text, seed=seed),
            phrases=replace(self.phrases, seed=seed),
            image=replace(self.image, seed=seed),
            side_network=replace(self.side_network, seed=seed),
        )


def pretrain(
    out: str | Path,
    *,
    textures: str | Path | None = None,
    recipe: Recipe | None = None,
    workers: int = 1,
    device: str = "cpu",
    log: Log = print,
) -> Path:
    """All stages into `out`; returns `out`/model. An interrupted run goes on where it stopped."""
    recipe = recipe or Recipe()
    out = Path(out)
    backbone = train_backbone(out, textures=textures, recipe=recipe, workers=workers, device=device, log=log)
    learned = out / "prompts" / "model"
    if not recipe.prompt_samples:
        return finish(backbone, out / "model", recipe=recipe, textures=textures, log=log)
    if not (learned / "config.json").is_file():
        generated = GeneratedSettings(
            samples=recipe.prompt_samples, textures=None if textures is None else str(textures)
        )
        settings = recipe.prompts.model_copy(update={"generated": generated, "seed": recipe.seed})
        log(f"prompts: {recipe.prompt_samples:,} scenes of the second world")
        train(out / "prompts", model=backbone, settings=settings, resume=True, device=device)
    return finish(learned, out / "model", recipe=recipe, textures=textures, log=log)


def train_backbone(
    out: Path, *, textures: str | Path | None, recipe: Recipe, workers: int, device: str, log: Log
) -> Path:
    """Text and image stages; returns the CLIP folder `out`/backbone."""
    text_folder, backbone = out / "text", out / "backbone"
    if (backbone / "config.json").is_file():
        log(f"{backbone} is finished; remove it to train again")
        return backbone
    require_muon()
    if recipe.start is not None:
        start = recipe.start if recipe.keep_words else retaught(recipe, out, log)
        clip = load_clip(start).float().train().to(device)
    else:
        if not (text_folder / "figures.json").is_file():
            train_text_tower(text_folder, recipe.seed, stage=recipe.text, log=log)
        clip = untrained_vision(text_folder, recipe).to(device)
    photographs = Textures(textures)

    def learn(clip: Clip, stage: ImageStage, world_seed: int) -> Clip:
        world = World(seed=world_seed + recipe.seed, twins=True, textures=photographs)
        report = reporter(out / f"{stage.file}.jsonl", stage, log)
        return train_images(clip, world, Lexicon.builtin(), out, stage, workers=workers, log=report)

    clip = learn(clip, recipe.stage, FIRST_WORLD)
    if recipe.start is not None:
        blend(clip, load_clip(recipe.start), recipe.kept)
    if recipe.side_network.samples:
        clip.side_network = None
        torch.manual_seed(recipe.seed)
        clip = learn(clip, recipe.side_network, SIDE_WORLD)
    if clip.side_network is not None:
        world = World(seed=CORNERS_WORLD + recipe.seed, textures=photographs)
        mend_corners(clip.side_network, corner_pictures(clip, world))
    return _keep(clip.to("cpu"), backbone)


def reporter(history: Path, stage: ImageStage, log: Log) -> Callable[[dict[str, float]], None]:
    """Appends rows of an image stage to a file, and tells `log` of them."""

    def report(row: dict[str, float]) -> None:
        with history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        minutes = (row["steps"] * stage.batch - row["samples"]) / max(row["per_second"], 1e-6) / 60
        log(
            f"{stage.learner} {row['samples']:,.0f}: loss {row['loss']:.3f}, dense {row['dense']:.3f}, "
            f"names {row['names']:.3f}, image {row['image']:.3f}; "
            f"{row['per_second']:.0f} a second, about {minutes:.0f} min left"
        )

    return report


def retaught(recipe: Recipe, out: Path, log: Log) -> Path:
    """The CLIP folder `out`/start: the recipe's start, knowing the lexicon's phrases as they are now."""
    folder = out / "start"
    if not (folder / "config.json").is_file():
        clip = load_clip(str(recipe.start)).float()
        _keep(teach_phrases(clip, Lexicon.builtin(), recipe.phrases, log), folder)
    return folder


def _keep(clip: Clip, folder: Path) -> Path:
    """Written in half precision, whole or not at all."""
    partial = folder.with_name(folder.name + ".part")
    save_clip(clip, partial, dtype=torch.float16)
    os.replace(partial, folder)
    return folder


@torch.no_grad()
def blend(clip: Clip, other: Clip, share: float) -> None:
    """Move the vision weights of `clip` towards those of `other` by this share, in place."""
    for mine, theirs in zip(clip.vision.parameters(), other.vision.parameters(), strict=True):
        mine.lerp_(theirs.to(mine), share)


def finish(
    source: str | Path,
    target: str | Path,
    *,
    recipe: Recipe,
    textures: str | Path | None = None,
    log: Log = print,
) -> Path:
    """Give the model in `source` its concepts, fused score and thresholds; write it in half precision to
    `target`.

    It keeps its learned prompts only if they locate flaws of unseen scenes better (AUPRO) than words people
    wrote; a CLIP folder has learned none.
    """
    learned, info = load(source)
    world = World(seed=DEFAULTS_WORLD + recipe.seed, textures=Textures(textures))
    candidates = {"handwritten": handwritten(learned, recipe)}
    if not info.training_free:
        candidates["learned"] = learned.changed(**answer_on(learned.clip, recipe))
    ready = {name: with_concepts(one, Lexicon.builtin()) for name, one in candidates.items()}
    read_off = {
        name: choose_defaults(one, world, count=recipe.threshold_scenes, side=recipe.side)
        for name, one in ready.items()
    }
    figures = {name: found.figures for name, found in read_off.items()}
    log(f"prompts and thresholds: {figures}")
    prompts = max(figures, key=lambda name: float(figures[name]["aupro"]))
    chosen = read_off[prompts]
    detector = ready[prompts].changed(image_score="fused", fusion=chosen.fusion)
    unknown_above, unknown = choose_unknown(
        detector,
        world,
        map_threshold=chosen.map_threshold,
        min_area=recipe.min_area,
        count=recipe.threshold_scenes,
        side=recipe.side,
    )
    log(f"regions that no name fits: {unknown}")
    words = held_out_words(
        detector.eval(),
        replace(world, seed=world.seed + 1),
        Lexicon.builtin(),
        count=recipe.word_scenes,
        side=recipe.side,
    )
    log(f"words never taught: {words}")
    taught = {"text": asdict(recipe.text)} if recipe.start is None else {"phrases": asdict(recipe.phrases)}
    config = ModelConfig(
        name="dapo-embedded",
        version=recipe.version,
        description="A small CLIP and its words, trained on generated images of parts and flaws only.",
        licence="Apache-2.0",
        defects=DEFECTS,
        threshold=chosen.threshold,
        map_threshold=chosen.map_threshold,
        unknown_above=unknown_above,
        min_area=recipe.min_area,
        training_data=(*TRAINING_DATA, *info.config.training_data),
        learned_on=info.config.learned_on or backbone_facts(detector.clip),
        seed=recipe.seed,
        recipe={
            "command": recipe.command,
            **({} if recipe.keep_words else taught),
            "images": asdict(recipe.stage) | ({} if recipe.start is None else {"kept": recipe.kept}),
            "side network": asdict(recipe.side_network),
            "prompts": info.config.recipe,
        },
        metrics={"prompts": prompts, "generated": figures, "unknown": unknown, "words": words},
    )
    return save(detector, target, config, dtype="float16")


def handwritten(detector: Detector, recipe: Recipe) -> Detector:
    """The same backbone with words people wrote, nothing learned, at the settings the recipe answers with."""
    none = TowerTuning(depth=0)
    settings = DetectorSettings(
        prompts=PromptSettings(kind="handwritten"), text_deep=none, vision_deep=none, adapter="none"
    )
    return Detector(detector.clip, settings.model_copy(update=answer_on(detector.clip, recipe))).eval()


def answer_on(clip: Clip, recipe: Recipe) -> dict[str, Any]:
    """The settings to answer with on this backbone, which may have no side network."""
    found = dict(recipe.answer)
    return found if clip.side_network is not None else {**found, "side_scales": ()}


def untrained_vision(text_folder: str | Path, recipe: Recipe) -> Clip:
    """A CLIP with the trained text tower of `text_folder` and a fresh vision tower."""
    tokenizer = Tokenizer.load(text_folder)
    config = text_config(recipe.text, len(tokenizer), recipe.vision, side=recipe.side, patch=recipe.patch)
    torch.manual_seed(recipe.seed)
    return load_text_tower(build_clip(config, tokenizer), text_folder).train()
