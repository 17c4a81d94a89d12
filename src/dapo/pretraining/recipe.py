"""The whole way to the embedded backbone: text stage, image stage, a Hugging Face CLIP folder.

In: an output folder, a seed, perhaps a folder of textures. Out: `OUT/backbone`, loadable by
`transformers.CLIPModel`. Each stage resumes from what it left in OUT; a finished stage is not done again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from dapo.model.clip import Clip, build_clip, save_clip
from dapo.model.clip_config import TowerConfig
from dapo.model.tokenizer import Tokenizer
from dapo.pretraining.contrastive import ImageStage, train_images
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.scenes import World
from dapo.pretraining.surfaces import Textures
from dapo.pretraining.text import TextStage, load_text_tower, text_config, train_text_tower

VISION = TowerConfig(width=192, layers=6, heads=3, mlp=768, activation="gelu")
SIDE = 224  # px, native side of the position grid
PATCH = 8  # px


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes the embedded backbone."""

    seed: int = 0
    vision: TowerConfig = VISION
    side: int = SIDE
    patch: int = PATCH
    text: TextStage = field(default_factory=TextStage)
    image: ImageStage = field(default_factory=ImageStage)

    def seeded(self, seed: int) -> Recipe:
        """The same recipe with another seed in every stage."""
        return replace(
            self, seed=seed, text=replace(self.text, seed=seed), image=replace(self.image, seed=seed)
        )


def pretrain(
    out: str | Path,
    *,
    textures: str | Path | None = None,
    recipe: Recipe | None = None,
    workers: int = 1,
    device: str = "cpu",
    log: Callable[[str], None] = print,
) -> Path:
    """Train text tower and vision tower into `out`; returns the backbone's folder. Interrupted runs go on
    where they stopped.
    """
    recipe = recipe or Recipe()
    out = Path(out)
    text_folder, backbone = out / "text", out / "backbone"
    if (backbone / "config.json").is_file():
        log(f"{backbone} is finished; remove it to train again")
        return backbone
    if not (text_folder / "figures.json").is_file():
        train_text_tower(text_folder, recipe.seed, stage=recipe.text, log=log)
    clip = untrained_vision(text_folder, recipe).to(device)
    world = training_world(recipe.seed, textures)
    history = out / "image-stage.jsonl"

    def report(row: dict[str, float]) -> None:
        with history.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        minutes = (row["steps"] * recipe.image.batch - row["samples"]) / max(row["per_second"], 1e-6) / 60
        log(
            f"images {row['samples']:,.0f}: loss {row['loss']:.3f}, dense {row['dense']:.3f}, "
            f"names {row['names']:.3f}, image {row['image']:.3f}; "
            f"{row['per_second']:.0f} a second, about {minutes:.0f} min left"
        )

    trained = train_images(clip, world, Lexicon.builtin(), out, recipe.image, workers=workers, log=report)
    partial = out / "backbone.part"
    save_clip(trained.to("cpu"), partial, dtype=torch.float16)
    os.replace(partial, backbone)
    return backbone


def untrained_vision(text_folder: str | Path, recipe: Recipe) -> Clip:
    """A CLIP with the trained text tower of `text_folder` and a fresh vision tower."""
    tokenizer = Tokenizer.load(text_folder)
    config = text_config(recipe.text, len(tokenizer), recipe.vision, side=recipe.side, patch=recipe.patch)
    torch.manual_seed(recipe.seed)
    return load_text_tower(build_clip(config, tokenizer), text_folder).train()


def training_world(seed: int, textures: str | Path | None) -> World:
    """The first generated world: what the backbone sees."""
    return World(seed=1000 + seed, textures=Textures(textures))
