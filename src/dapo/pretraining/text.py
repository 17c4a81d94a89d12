"""The text-only stage: a small CLIP text tower learns general language and the trade's words before images.

In: the built-in lexicon and a teacher, a sentence encoder under Apache-2.0 (all-MiniLM-L6-v2). Out: a folder
that `CLIPTextModelWithProjection` and `AutoTokenizer` of transformers load, with ``figures.json`` beside.

Two lessons at once. General language: the projected feature z, through a linear head, agrees with the
teacher's sentence embedding on some hundred thousand phrases made of its vocabulary's whole words. Trade
language: the phrases of one defect type, in many sentences, gather at that type's anchor in the joint space.
The anchors are fixed vectors whose cosines are `Lexicon.affinity`: overlapping looks stand near one another,
the flawless state opposite all.

Axis names: n phrases, t teacher width, d joint width, k types (the flawless state last).
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from dapo.errors import DataError, ModelError
from dapo.model.clip import Clip, ClipConfig, TowerConfig, build_clip
from dapo.model.weights import fill_weights, read_json, read_tensors, write_json, write_tensors
from dapo.pretraining.corpus import Corpus
from dapo.pretraining.lexicon import NORMAL, Lexicon
from dapo.pretraining.reading import measure
from dapo.pretraining.sentences import general_phrases, lexicon_words, trade_sentences
from dapo.pretraining.states import forget_states, keep_state, kept_state
from dapo.pretraining.teacher import (
    END,
    PAD,
    SPECIAL,
    START,
    Log,
    Teacher,
    build_tokenizer,
    cached_embeddings,
    load_teacher,
    prune_pieces,
)

__all__ = [
    "Teacher",
    "TextStage",
    "build_tokenizer",
    "load_teacher",
    "load_text_tower",
    "train_text_tower",
]

Optimizers = Sequence[torch.optim.Optimizer]
STATE = "text-stage"  # name of what a run keeps to go on from


@dataclass(frozen=True)
class TextStage:
    """Settings of the text-only stage. Batches count phrases; `phrases` is the general corpus's size."""

    seed: int = 0
    width: int = 256
    layers: int = 4
    heads: int = 4
    joint: int = 256
    max_length: int = 32  # tokens with start and end
    pieces: int = 16384  # rows of the token table
    phrases: int = 300_000
    trade_phrases: int = 40_000  # lexicon sentences the teacher embeds too
    steps: int = 1000
    general_batch: int = 512
    trade_batch: int = 160
    rate: float = 2e-3
    decay: float = 0.05
    warmup: int = 60
    temperature: float = 0.1
    trade_weight: float = 0.5
    checkpoint_every: int = 300


def anchors(lexicon: Lexicon, joint: int, seed: int) -> Tensor:
    """Unit vectors (k, d) with the lexicon's affinities as cosines as nearly as d allows."""
    ids = (*lexicon.ids, NORMAL)
    gram = torch.tensor([[lexicon.affinity(one, two) for two in ids] for one in ids], dtype=torch.float64)
    values, vectors = torch.linalg.eigh(gram)
    points = (vectors * values.clamp(min=0).sqrt()).flip(1)[:, :joint]  # the largest axes first
    turn = torch.randn(joint, joint, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    turn = torch.linalg.qr(turn).Q[: points.shape[1]]
    return functional.normalize(points @ turn, dim=-1).float()


def text_config(
    stage: TextStage, vocabulary_size: int, vision: TowerConfig | None = None, **facts: Any
) -> ClipConfig:
    """A CLIP's configuration with this stage's text tower; the default vision tower is a tiny placeholder."""
    return ClipConfig(
        text=TowerConfig(stage.width, stage.layers, stage.heads, 4 * stage.width, "gelu"),
        vision=vision or TowerConfig(8, 1, 1, 8),
        dim=stage.joint,
        vocabulary_size=vocabulary_size,
        max_length=stage.max_length,
        bos_id=START,
        eos_id=END,
        pad_id=PAD,
        **({"side": 8, "patch": 8} | facts),
    )


def initialise(clip: Clip, head: nn.Linear, words: npt.NDArray[np.float16]) -> None:
    """Begin near the answer: each token is what the teacher says of its text alone, on its principal axes.

    words: teacher embeddings of the tokens' texts (v, t). The projection begins as the identity, the head as
    the way back from the principal axes, so that a tower which passes on its tokens' mean is nearly right.
    """
    table = words.astype(np.float32)
    mean = table.mean(0)
    _, axes = np.linalg.eigh((table - mean).T @ (table - mean))
    width = min(clip.config.text.width, clip.config.dim, table.shape[1])
    axes = np.ascontiguousarray(axes[:, ::-1][:, :width])
    tokens, projection = clip.text.token_embedding.weight, clip.text.projection.weight
    with torch.no_grad():
        tokens[len(SPECIAL) :, :width] = torch.from_numpy((table - mean) @ axes)
        nn.init.eye_(projection)
        head.weight[:, :width] = torch.from_numpy(axes)
        head.bias.copy_(torch.from_numpy(mean))


def train_text_tower(
    out_dir: str | Path,
    seed: int = 0,
    *,
    stage: TextStage | None = None,
    teacher: Teacher | None = None,
    lexicon: Lexicon | None = None,
    cache: str | Path | None = None,
    log: Log = print,
) -> dict[str, Any]:
    """Teach a text tower and write it to `out_dir`; returns the figures that are also in ``figures.json``.

    Resumes from the state kept in `out_dir` (states.py), which must come from the same settings. `cache`
    keeps the teacher's embeddings (default: `out_dir`/teacher).
    """
    stage = stage or TextStage(seed=seed)
    lexicon = lexicon or Lexicon.builtin()
    teacher = teacher or load_teacher()
    out = Path(out_dir)
    began = time.perf_counter()
    words = [word for word in teacher.pieces if re.fullmatch("[a-z]{2,}", word)]
    pieces = prune_pieces(teacher.pieces, lexicon_words(lexicon), stage.pieces)
    torch.manual_seed(stage.seed)
    clip = build_clip(
        text_config(stage, len(pieces)), build_tokenizer(pieces, out, max_length=stage.max_length)
    )

    general = general_phrases(words, lexicon, stage.phrases, stage.seed)
    trade, _ = trade_sentences(lexicon, stage.trade_phrases, np.random.default_rng([stage.seed, 2]))
    targets = cached_embeddings(teacher, [*general, *trade], Path(cache or out / "teacher"), log)
    training, validation = _split(len(general), len(trade), stage.seed)
    log(f"{len(general)} general and {len(trade)} trade phrases, {len(pieces)} word pieces")

    head = nn.Linear(stage.joint, targets.shape[1])
    tokens = [piece.removeprefix("##") for piece in pieces[len(SPECIAL) :]]
    initialise(clip, head, cached_embeddings(teacher, tokens, Path(cache or out / "teacher"), log))
    corpus = Corpus(clip, [*general, *trade])
    _train(clip, head, corpus, torch.from_numpy(targets), training, lexicon, stage, out, log)

    figures: dict[str, Any] = {"settings": asdict(stage), "teacher": teacher.name, "word_pieces": len(pieces)}
    figures["general_cosine"] = _general_cosine(clip, head, corpus, targets, validation)
    figures |= measure(clip, lexicon, teacher, seed=stage.seed)
    figures["seconds"] = round(time.perf_counter() - began, 1)
    weights = {
        name: t.detach().half().contiguous()
        for name, t in clip.hf_state().items()
        if name.startswith("text_")
    }
    write_tensors(out / "model.safetensors", weights, format="pt")
    kind = {"architectures": ["CLIPTextModelWithProjection"]}
    write_json(out / "config.json", kind | clip.config.to_dict()["text_config"])
    write_json(out / "figures.json", figures)
    return figures


def load_text_tower(clip: Clip, folder: str | Path) -> Clip:
    """Put the text tower trained in `folder` into a CLIP of its sizes; ModelError where they differ."""
    ours = dict(zip(clip.hf_state(), clip.state_dict(), strict=True))
    names = {stored: own.removeprefix("text.") for stored, own in ours.items() if stored.startswith("text_")}
    written, asked = read_json(Path(folder) / "config.json"), clip.config.to_dict()["text_config"]
    for key in ("hidden_act", "num_attention_heads", "eos_token_id"):  # what shapes of weights do not tell
        if written.get(key) != asked[key]:
            raise ModelError(
                f"the text tower of {folder} has {key} {written.get(key)!r}, the given CLIP has "
                f"{asked[key]!r}; build it with `text_config`"
            )
    path = Path(folder) / "model.safetensors"
    fill_weights(clip.text, names, read_tensors(path), str(path))
    return clip


def _split(general: int, trade: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to train on (all trade sentences, 98 % of the general) and the remaining general rows."""
    order = torch.randperm(general, generator=torch.Generator().manual_seed(seed))
    held = max(1, min(6000, general // 50))
    return torch.cat([order[held:], torch.arange(general, general + trade)]), order[:held]


def _train(
    clip: Clip,
    head: nn.Linear,
    corpus: Corpus,
    targets: Tensor,
    training: Tensor,
    lexicon: Lexicon,
    stage: TextStage,
    out: Path,
    log: Log,
) -> None:
    """The loop. A step draws its batches from (seed, step), so a resumed run sees the same as an unbroken."""
    points = anchors(lexicon, stage.joint, stage.seed)
    parameters = [*clip.text.parameters(), *head.parameters()]
    optimizers = optimizers_of(clip, stage.rate, stage.decay, head)
    first = _resume(clip, head, optimizers, stage, out)
    began = time.perf_counter()
    for step in range(first, stage.steps):
        set_rate(optimizers, stage.rate * cosine(step, stage.warmup, stage.steps))
        rng = np.random.default_rng([stage.seed, 3, step])
        rows = training[torch.from_numpy(rng.integers(len(training), size=stage.general_batch))]
        sentences, labels = trade_sentences(lexicon, stage.trade_batch, rng)
        with torch.autocast("cpu", torch.bfloat16):
            z = corpus.features(clip, rows)
            y = Corpus(clip, sentences).features(clip, slice(None))
        taught = functional.cosine_similarity(
            head(functional.normalize(z, dim=-1)), targets[rows].float()
        ).mean()
        trade = trade_loss(
            functional.normalize(y, dim=-1), points, torch.from_numpy(labels), stage.temperature
        )
        loss = (1 - taught) + stage.trade_weight * trade
        clip.zero_grad()
        head.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if (step + 1) % 50 == 0:
            pace = (step + 1 - first) / (time.perf_counter() - began)
            losses = f"teacher cosine {taught:.3f}, trade loss {trade:.3f}"
            log(f"text {step + 1}/{stage.steps}: {losses}, {pace:.1f} steps a second")
        if (step + 1) % stage.checkpoint_every == 0 and step + 1 < stage.steps:
            _checkpoint(clip, head, optimizers, stage, step + 1, out)
    forget_states(out / STATE)


def optimizers_of(clip: Clip, rate: float, decay: float, *heads: nn.Module) -> Optimizers:
    """Muon (Jordan et al. 2024) for the matrices of the text layers; AdamW for the rest."""
    matrices = [p for p in clip.text.stack.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    learned = chain(clip.text.parameters(), *(head.parameters() for head in heads))
    others = [p for p in learned if id(p) not in inside]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return (
        torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98)),
    )


def trade_loss(y: Tensor, points: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Unit features (n, d) against the anchors (k, d): be nearest to one's own, and near it.

    A sentence about two types is drawn to the middle of both.
    """
    classes = functional.one_hot(labels, len(points)).float().mean(1)
    own = functional.normalize(classes @ points, dim=-1)
    nearest = functional.cross_entropy(y @ points.T / temperature, classes)
    return nearest + (1 - (y * own).sum(-1)).mean()


def cosine(step: int, warmup: int, steps: int) -> float:
    """Share of the rate: a linear warm-up, then half a cosine to nothing."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def set_rate(optimizers: Optimizers, rate: float) -> None:
    """The same learning rate for all."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = rate


def _checkpoint(
    clip: Clip, head: nn.Linear, optimizers: Optimizers, stage: TextStage, step: int, out: Path
) -> None:
    state = {
        "stage": asdict(stage),
        "step": step,
        "text": clip.text.state_dict(),
        "head": head.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    keep_state(out / STATE, step, state)


def _resume(clip: Clip, head: nn.Linear, optimizers: Optimizers, stage: TextStage, out: Path) -> int:
    """The step to begin with: that of the checkpoint, whose state is loaded, or 0."""
    state = kept_state(out / STATE)
    if state is None:
        return 0
    if state["stage"] != asdict(stage):
        raise DataError(
            f"{out}/{STATE}-* was written with other settings; delete it, or train in another folder"
        )
    clip.text.load_state_dict(state["text"])
    head.load_state_dict(state["head"])
    for optimizer, stored in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(stored)
    return int(state["step"])


@torch.no_grad()
def _general_cosine(
    clip: Clip, head: nn.Linear, corpus: Corpus, targets: npt.NDArray[np.float16], rows: Tensor
) -> dict[str, float]:
    """Mean cosine to the teacher on general phrases never trained on: all, and single words apart."""
    parts = []
    for chunk in torch.split(rows, 512):
        z = head(functional.normalize(corpus.features(clip, chunk), dim=-1))
        parts.append(functional.cosine_similarity(z, torch.from_numpy(targets[chunk.numpy()]).float()))
    cosine = torch.cat(parts)
    return {"mean": round(cosine.mean().item(), 4), "tenth_percentile": round(cosine.quantile(0.1).item(), 4)}
