"""CLIP from a Hugging Face folder: two towers, a temperature and a tokenizer, any sizes.

Goes in: a folder as `transformers.CLIPModel` writes it; comes out: `Clip`. Weights are read straight from
safetensors and renamed to our towers (`towers.py`), which take deep tokens and taps as arguments. A file of
our own in the folder may add a side network (`side_network.py`); transformers does not read it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dapo.errors import ModelError
from dapo.model.clip_config import IMAGE_MEAN, IMAGE_STD, LEGACY_EOS_ID, ClipConfig, TowerConfig
from dapo.model.side_network import SideNetwork, load_side_network, save_side_network
from dapo.model.tokenizer import Tokenizer
from dapo.model.towers import AttentionKind, TextTower, VisionOutput, VisionTower
from dapo.model.weights import (
    fill_weights,
    read_json,
    read_tensors,
    resolve_folder,
    write_json,
    write_tensors,
)

__all__ = [
    "Clip",
    "ClipConfig",
    "TextTower",
    "Tokenizer",
    "TowerConfig",
    "VisionOutput",
    "VisionTower",
    "build_clip",
    "fill_weights",
    "load_clip",
    "read_tensors",
    "save_clip",
]


class Clip(nn.Module):
    """A CLIP: two towers, a temperature, a tokenizer, maybe a side network. Trainable until `freeze()`."""

    def __init__(self, config: ClipConfig, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.text = TextTower(config)
        self.vision = VisionTower(config)
        self.side_network: SideNetwork | None = None
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale))  # log of the inverse temperature

    def freeze(self) -> Clip:
        """Switch gradients off for every weight, and to evaluation mode."""
        return self.requires_grad_(False).eval()

    def attention(self, kind: AttentionKind) -> Clip:
        """Choose the attention kernel of both towers; "auto" is eager in bf16 on CPUs, else fused."""
        self.text.stack.attention = self.vision.stack.attention = kind
        return self

    def normalise(self, pixels: Float[Tensor, "b 3 hh ww"]) -> Float[Tensor, "b 3 hh ww"]:
        """RGB in [0, 1] to the model's zero mean and unit variance."""
        mean, std = (pixels.new_tensor(x).view(3, 1, 1) for x in (self.config.mean, self.config.std))
        return (pixels - mean) / std

    def encode_phrases(self, phrases: Sequence[str], *, truncate: bool = False) -> Float[Tensor, "b d"]:
        """Un-normalised features of plain phrases, [SOS] phrase [EOS], causal mask, EOS pooling."""
        ids, mask = self.tokenizer.encode(phrases, self.config.max_length, truncate=truncate)
        device = self.logit_scale.device
        ids, mask = ids.to(device), mask.to(device)
        lengths = mask.sum(1)
        features: Tensor = self.text(self.text.embed(ids), lengths - 1, lengths=lengths)
        return features

    def hf_state(self) -> dict[str, Tensor]:
        """The weights of towers and temperature under the names of a Hugging Face CLIPModel."""
        own = self.state_dict().items()
        return {_hf_name(name): tensor for name, tensor in own if not name.startswith("side_network.")}


_HF_TOWER = {
    "token_embedding": "embeddings.token_embedding",
    "position_embedding": "embeddings.position_embedding",
    "class_embedding": "embeddings.class_embedding",
    "patch_embedding": "embeddings.patch_embedding",
    "pre_norm": "pre_layrnorm",  # spelled so in every published checkpoint
    "post_norm": "post_layernorm",
    "final_norm": "final_layer_norm",
}
_HF_BLOCK = {
    "norm1": "layer_norm1",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "out": "self_attn.out_proj",
    "norm2": "layer_norm2",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}


def _hf_name(name: str) -> str:
    """Our name of a weight -> its name in a Hugging Face CLIPModel."""
    tower, _, rest = name.partition(".")
    if not rest:
        return name  # logit_scale
    head, _, tail = rest.partition(".")
    if head == "projection":
        return f"{'visual' if tower == 'vision' else 'text'}_projection.{tail}"
    if head == "stack":
        _, index, part, leaf = tail.split(".")
        return f"{tower}_model.encoder.layers.{index}.{_HF_BLOCK[part]}.{leaf}"
    return ".".join(filter(None, (f"{tower}_model", _HF_TOWER[head], tail)))


def build_clip(config: Any, tokenizer: Any) -> Clip:
    """A CLIP with random weights (torch's global generator).

    config: ClipConfig, a Hugging Face CLIPConfig, or its dict ({"text_config": {...}, "vision_config": {...},
    "projection_dim": d}). tokenizer: anything `Tokenizer.wrap` takes.
    """
    if not isinstance(config, ClipConfig):
        config = ClipConfig.from_dict(config if isinstance(config, Mapping) else config.to_dict())
    clip = Clip(config, Tokenizer.wrap(tokenizer))
    _check_tokens(clip, "the given tokenizer")
    _initialise(clip)
    return clip


def _initialise(clip: Clip) -> None:
    """Initial values as in the CLIP paper: normal, residual outputs shrunk with depth."""
    for tower, config in ((clip.text, clip.config.text), (clip.vision, clip.config.vision)):
        inner = config.width**-0.5
        shrunk = inner * (2 * config.layers) ** -0.5
        for name, parameter in tower.named_parameters():
            part = name.split(".")[-2] if "." in name else name
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif part in ("q", "k", "v", "projection", "class_embedding"):
                nn.init.normal_(parameter, std=inner)
            elif part in ("out", "fc2"):
                nn.init.normal_(parameter, std=shrunk)
            elif part == "fc1":
                nn.init.normal_(parameter, std=(2 * config.width) ** -0.5)
            elif part in ("token_embedding", "position_embedding", "patch_embedding"):
                nn.init.normal_(parameter, std=0.02)


def load_clip(folder_or_id: str | Path, *, local_only: bool = True) -> Clip:
    """Read a Hugging Face CLIPModel folder, or a hub id: from the cache, or the hub if not `local_only`.

    Weights come from safetensors only and are held in single precision. Raises ModelError for a missing file,
    a configuration of another kind, missing or foreign weights.
    """
    folder = resolve_folder(folder_or_id, local_only=local_only)
    config = ClipConfig.from_dict(read_json(folder / "config.json"))
    if (folder / "preprocessor_config.json").is_file():
        raw = read_json(folder / "preprocessor_config.json")
        mean, std = (
            tuple(raw.get(key, default))
            for key, default in (("image_mean", IMAGE_MEAN), ("image_std", IMAGE_STD))
        )
        config = dataclasses.replace(config, mean=mean, std=std)
    tokenizer = Tokenizer.load(folder)
    with torch.device("meta"):
        clip = Clip(config, tokenizer)
    _check_tokens(clip, str(folder))
    fill_weights(
        clip, {_hf_name(name): name for name in clip.state_dict()}, _read_weights(folder), str(folder)
    )
    clip.side_network = load_side_network(folder)
    return clip.eval()


def save_clip(clip: Clip, folder: str | Path, *, dtype: torch.dtype | None = None) -> None:
    """Write a folder that `CLIPModel.from_pretrained` and `load_clip` read, in `dtype` if given.

    A side network is written beside it, for `load_clip` alone.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: t.detach().to("cpu", dtype).contiguous() for name, t in clip.hf_state().items()}
    stored = str(next(iter(state.values())).dtype).removeprefix("torch.")
    write_tensors(folder / "model.safetensors", state, format="pt")
    write_json(folder / "config.json", {**clip.config.to_dict(), "dtype": stored})
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "image_mean": clip.config.mean,
            "image_std": clip.config.std,
            "size": {"shortest_edge": clip.config.side},
            "crop_size": {"height": clip.config.side, "width": clip.config.side},
        },
    )
    clip.tokenizer.save(folder)
    if clip.side_network is not None:
        save_side_network(clip.side_network, folder, dtype=dtype)


def _check_tokens(clip: Clip, where: str) -> None:
    config, tokenizer = clip.config, clip.tokenizer
    if len(tokenizer) > config.vocabulary_size or max(tokenizer.bos, tokenizer.eos) >= config.vocabulary_size:
        raise ModelError(
            f"the tokenizer of {where} knows {len(tokenizer)} tokens but the text tower has "
            f"{config.vocabulary_size}; tokenizer and weights belong to different models"
        )
    if config.eos_id not in (LEGACY_EOS_ID, tokenizer.eos):
        raise ModelError(
            f"the tokenizer of {where} ends a text with token {tokenizer.eos} but the text tower expects "
            f"{config.eos_id}; tokenizer and weights belong to different models"
        )


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """Tensors of a CLIPModel folder, sharded or not, without the position counters older files hold."""
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.is_file():
        names = sorted(set(read_json(index)["weight_map"].values()))
    elif not (folder / names[0]).is_file() and (folder / "pytorch_model.bin").is_file():
        raise ModelError(
            f"{folder} holds its weights as a pickle (pytorch_model.bin), which is not read; `dapo pull` "
            "fetches and converts a model, or save it once with CLIPModel.save_pretrained"
        )
    state: dict[str, Tensor] = {}
    for name in names:
        state |= read_tensors(folder / name)
    return {name: tensor for name, tensor in state.items() if not name.endswith("position_ids")}
