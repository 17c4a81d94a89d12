"""Tiny random models for tests: a CLIP of a few thousand weights with a real word-piece tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, processors
from torch import nn

from dapo.config import DetectorSettings, ModelConfig, PromptSettings, TowerTuning
from dapo.model.artifact import save
from dapo.model.clip import Clip, build_clip, save_clip
from dapo.model.detector import Detector
from dapo.pretraining.batches import Batch, stream
from dapo.pretraining.contrastive import ImageStage, PhraseTable, look, stage_loss
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.scenes import World

SPECIAL = ("[PAD]", "[UNK]", "[SOS]", "[EOS]")
WORDS = [
    "a",
    "an",
    "of",
    "the",
    "photo",
    "object",
    "part",
    "surface",
    "normal",
    "flawless",
    "perfect",
    "good",
    "without",
    "any",
    "defect",
    "flaw",
    "anomaly",
    "with",
    "broken",
    "scratch",
    "crack",
    "hole",
    "pin",
    "stain",
    "dent",
    "bent",
    "rust",
    "blob",
    "missing",
    "thread",
    "long",
    "fine",
    "on",
    "in",
    "close",
    "up",
    "picture",
    "inspected",
]
PIECES = tuple("abcdefghijklmnopqrstuvwxyz") + tuple(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")


def tiny_tokenizer() -> Backend:
    """A word-piece tokenizer whose post-processor adds [SOS] and [EOS]; every Latin word can be spelled."""
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys((*SPECIAL, *WORDS, *PIECES)))}
    backend = Backend(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[SOS]", vocabulary["[SOS]"]), ("[EOS]", vocabulary["[EOS]"])]
    backend.post_processor = processors.TemplateProcessing(single="[SOS] $A [EOS]", special_tokens=ends)
    return backend


def tiny_config(**text: Any) -> dict[str, Any]:
    """A Hugging Face configuration: vision width 24, 4 layers, patch 8, 32 px; text 16 wide, 3 layers."""
    tokenizer = tiny_tokenizer()
    return {
        "projection_dim": 12,
        "vision_config": {
            "hidden_size": 24,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "intermediate_size": 48,
            "image_size": 32,
            "patch_size": 8,
        },
        "text_config": {
            "hidden_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 77,
            "vocab_size": tokenizer.get_vocab_size(),
            "bos_token_id": tokenizer.token_to_id("[SOS]"),
            "eos_token_id": tokenizer.token_to_id("[EOS]"),
            "pad_token_id": tokenizer.token_to_id("[PAD]"),
            **text,
        },
    }


def tiny_clip(seed: int = 0, **text: Any) -> Clip:
    """A CLIP with random weights, scaled up so that its outputs differ clearly from image to image."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        clip = build_clip(tiny_config(**text), tiny_tokenizer())
        with torch.no_grad():
            for name, parameter in clip.named_parameters():
                if name.endswith("bias"):
                    parameter.normal_(std=0.05)
                elif "embedding" in name:
                    parameter.normal_(std=0.5)
    return clip.freeze()


def tiny_clip_folder(folder: Path, seed: int = 0) -> Path:
    """A folder that holds only a Hugging Face CLIP."""
    save_clip(tiny_clip(seed), folder)
    return folder


def tiny_settings(**changes: Any) -> DetectorSettings:
    """The published method in miniature: 2 groups of 3 context tokens, deep tokens, 4 taps, 32 px."""
    prompts = PromptSettings(groups=2, context=3)
    deep = TowerTuning(tokens=2)
    return DetectorSettings(
        **{"prompts": prompts, "text_deep": deep, "vision_deep": deep, "side": 32, **changes}
    )


def tiny_detector(seed: int = 0, **changes: Any) -> Detector:
    """A detector in single precision whose learned tensors are random and not small."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        detector = Detector(tiny_clip(seed), tiny_settings(**changes))
        with torch.no_grad():
            for parameter in (p for p in detector.parameters() if p.requires_grad):
                parameter.add_(0.3 * torch.randn_like(parameter))
    detector.precision = "fp32"
    return detector.eval()


def tiny_model_folder(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A whole model folder: backbone, learned weights, card; `changes` go into the settings."""
    config = ModelConfig(name="tiny", defects=("scratch", "hole", "stain"), licence="Apache-2.0", seed=seed)
    return save(tiny_detector(seed, **changes), folder, config)


def tiny_world() -> World:
    """Three families of flaws."""
    return World(seed=5, families=("scratch", "hole", "stain"), normal=0.3)


def one_batch(side: int = 32) -> tuple[World, Batch]:
    """Eight generated scenes."""
    world = tiny_world()
    batches = stream(
        world,
        Lexicon.builtin(),
        families=world.families,
        numbers=range(1),
        size=8,
        side=side,
        patch=8,
        workers=0,
    )
    return world, next(batches)


def losses_on_one_batch(clip: Clip, learner: nn.Module, stage: ImageStage, steps: int) -> list[float]:
    """The image stage's loss while `learner` of `clip` learns one batch again and again."""
    learner.requires_grad_(True)
    world, batch = one_batch()
    states = PhraseTable(clip, Lexicon.builtin(), world.families).draw(np.random.default_rng(0))
    with torch.no_grad():
        texts = clip.encode_phrases(batch.captions, truncate=True)
    optimizer = torch.optim.Adam(learner.parameters(), 3e-3)
    losses = []
    for _ in range(steps):
        loss = stage_loss(look(clip, batch, stage), batch, states, texts, stage)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
