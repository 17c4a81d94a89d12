"""Tokenizer: text to token ids with SOS and EOS, from any Hugging Face tokenizer folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from dapo.errors import ModelError, VocabularyError
from dapo.model.weights import read_json, write_json

FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt")


class Tokenizer:
    """Text to token ids with SOS and EOS; no particular vocabulary is assumed.

    SOS and EOS are what the tokenizer itself puts around an empty text, or what its configuration names.
    """

    def __init__(
        self, backend: Any, *, bos: int, eos: int, pad: int, files: Mapping[str, bytes] | None = None
    ) -> None:
        self.backend = backend  # tokenizers.Tokenizer, without padding and truncation
        self.bos, self.eos, self.pad = bos, eos, pad
        self._files = dict(files or {})
        unknown = getattr(backend.model, "unk_token", None)
        self._unknown: int | None = None if unknown is None else backend.token_to_id(unknown)

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Read a tokenizer folder. Raises ModelError if there is none."""
        folder = Path(folder)
        files = {name: (folder / name).read_bytes() for name in FILES if (folder / name).is_file()}
        special: dict[str, Any] = {}
        for name in ("special_tokens_map.json", "tokenizer_config.json"):
            if name in files:
                special |= read_json(folder / name)
        if "tokenizer.json" in files:
            from tokenizers import Tokenizer as Backend

            try:
                backend = Backend.from_file(str(folder / "tokenizer.json"))
            except Exception as error:  # the library raises a bare Exception
                raise ModelError(f"{folder / 'tokenizer.json'} is not a tokenizer: {error}") from error
        elif {"vocab.json", "merges.txt"} <= files.keys():
            from transformers import CLIPTokenizer

            backend = CLIPTokenizer.from_pretrained(folder, local_files_only=True).backend_tokenizer
        else:
            raise ModelError(
                f"{folder} has no tokenizer: expected tokenizer.json, or vocab.json with merges.txt, "
                "beside the weights"
            )
        return cls._from_backend(backend, special, files, str(folder))

    @classmethod
    def wrap(cls, tokenizer: Any) -> Tokenizer:
        """Take a Tokenizer, a folder, a `tokenizers.Tokenizer`, or a fast Hugging Face tokenizer."""
        if isinstance(tokenizer, Tokenizer):
            return tokenizer
        if isinstance(tokenizer, (str, Path)):
            return cls.load(tokenizer)
        special = {key: getattr(tokenizer, key, None) for key in ("bos_token", "eos_token", "pad_token")}
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        return cls._from_backend(backend, special, {}, type(tokenizer).__name__)

    @classmethod
    def _from_backend(
        cls, backend: Any, special: Mapping[str, Any], files: Mapping[str, bytes], where: str
    ) -> Tokenizer:
        backend = type(backend).from_str(backend.to_str())  # a copy: the caller's padding stays the caller's
        backend.no_truncation()
        backend.no_padding()

        def named(key: str) -> int | None:
            token = special.get(key)
            token = token.get("content") if isinstance(token, Mapping) else token
            found: int | None = None if token is None else backend.token_to_id(str(token))
            return found

        around = backend.encode("").ids
        bos, eos = around if len(around) == 2 else (named("bos_token"), named("eos_token"))
        if bos is None or eos is None:
            raise ModelError(
                f"the tokenizer of {where} names no begin and end token; expected a post-processor that "
                "adds them, or bos_token and eos_token in tokenizer_config.json"
            )
        pad = named("pad_token")
        return cls(backend, bos=bos, eos=eos, pad=eos if pad is None else pad, files=files)

    def __len__(self) -> int:
        size: int = self.backend.get_vocab_size()
        return size

    def words(self, text: str) -> list[int]:
        """Ids of a text without SOS and EOS."""
        ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        return ids

    def unknown(self, ids: Iterable[int]) -> int:
        """How many of the ids mean "unknown" to this tokenizer."""
        return sum(i == self._unknown for i in ids)

    def pad_rows(self, rows: Sequence[Sequence[int]]) -> tuple[Int[Tensor, "b len"], Int[Tensor, "b len"]]:
        """Stack rows of different lengths: ids padded at the end, and a mask that is 1 on what is real."""
        longest = max(map(len, rows), default=0)
        ids = torch.tensor([[*row, *[self.pad] * (longest - len(row))] for row in rows], dtype=torch.long)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], dtype=torch.long)
        return ids, mask

    def encode(
        self, texts: Sequence[str], max_length: int, *, truncate: bool = False
    ) -> tuple[Int[Tensor, "b len"], Int[Tensor, "b len"]]:
        """Ids and attention mask of [SOS] text [EOS], padded to the longest.

        A text that needs more than `max_length` places is an error, because cutting it would change what the
        model is asked; with `truncate` (training captions) its end is cut and EOS kept.
        """
        rows = []
        for text in texts:
            ids = self.words(text)
            if len(ids) > max_length - 2 and not truncate:
                raise VocabularyError(
                    f"the phrase {text!r} takes {len(ids)} tokens, this model reads at most "
                    f"{max_length - 2}; shorten it"
                )
            rows.append([self.bos, *ids[: max_length - 2], self.eos])
        return self.pad_rows(rows)

    def save(self, folder: Path) -> None:
        """Write files from which `transformers.AutoTokenizer` and `Tokenizer.load` rebuild it."""
        for name, content in self._files.items():
            (folder / name).write_bytes(content)
        if self._files:
            return
        self.backend.save(str(folder / "tokenizer.json"))
        tokens = {
            "bos_token": self.bos,
            "eos_token": self.eos,
            "pad_token": self.pad,
            "unk_token": self._unknown,
        }
        named = {key: self.backend.id_to_token(i) for key, i in tokens.items() if i is not None}
        write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **named})
