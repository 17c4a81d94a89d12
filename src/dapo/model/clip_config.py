"""Facts of a CLIP: sizes, token ids and image normalisation, read from a Hugging Face `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dapo.errors import ModelError

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)  # OpenAI CLIP, RGB in [0, 1]
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
LEGACY_EOS_ID = 2  # in early configurations by mistake; then the highest id of a row is its EOS


@dataclass(frozen=True)
class TowerConfig:
    """Sizes of one transformer: width and MLP width in features, layers, heads."""

    width: int
    layers: int
    heads: int
    mlp: int
    activation: str = "quick_gelu"
    eps: float = 1e-5


@dataclass(frozen=True)
class ClipConfig:
    """Facts of one CLIP: sizes, token ids and image normalisation, read from a Hugging Face configuration."""

    text: TowerConfig
    vision: TowerConfig
    dim: int  # joint width d
    vocabulary_size: int
    max_length: int  # text positions, SOS and EOS included
    bos_id: int | None
    eos_id: int
    pad_id: int | None
    side: int  # native image side in pixels
    patch: int  # patch side in pixels
    mean: tuple[float, float, float] = IMAGE_MEAN
    std: tuple[float, float, float] = IMAGE_STD
    logit_scale: float = 2.6592  # log of the initial inverse temperature; log(1 / 0.07)

    @property
    def grid(self) -> int:
        """Patches per side at the native image size."""
        return self.side // self.patch

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> ClipConfig:
        """Read the `config.json` of a CLIPModel; absent keys mean what transformers means by them."""
        if raw.get("model_type", "clip") != "clip":
            raise ModelError(
                f"expected a CLIP configuration (model_type 'clip'), got {raw.get('model_type')!r}"
            )
        # transformers lets the older `*_config_dict` spelling win where a file has both.
        text = dict(raw.get("text_config_dict") or raw.get("text_config") or {})
        vision = dict(raw.get("vision_config_dict") or raw.get("vision_config") or {})
        eos = text.get("eos_token_id", 49407)
        try:
            config = cls(
                text=_tower_config(text, width=512, heads=8, mlp=2048),
                vision=_tower_config(vision, width=768, heads=12, mlp=3072),
                dim=int(raw.get("projection_dim") or 512),
                vocabulary_size=int(text.get("vocab_size", 49408)),
                max_length=int(text.get("max_position_embeddings", 77)),
                bos_id=text.get("bos_token_id", 49406),
                eos_id=int(eos[0] if isinstance(eos, list) else eos),
                pad_id=text.get("pad_token_id", 1),
                side=int(vision.get("image_size", 224)),
                patch=int(vision.get("patch_size", 32)),
                logit_scale=float(raw.get("logit_scale_init_value", 2.6592)),
            )
        except (TypeError, ValueError, IndexError) as error:
            raise ModelError(f"the CLIP configuration holds a value that is not a size: {error}") from error
        if vision.get("num_channels", 3) != 3:
            raise ModelError(f"expected a CLIP with 3 colour channels, got {vision['num_channels']}")
        if config.side < config.patch:
            raise ModelError(
                f"the CLIP configuration has image_size {config.side} below patch_size {config.patch}"
            )
        return config

    def to_dict(self) -> dict[str, Any]:
        """The Hugging Face form of this configuration, complete."""
        text = {
            "model_type": "clip_text_model",
            **_tower_dict(self.text),
            "projection_dim": self.dim,
            "vocab_size": self.vocabulary_size,
            "max_position_embeddings": self.max_length,
            "bos_token_id": self.bos_id,
            "eos_token_id": self.eos_id,
            "pad_token_id": self.pad_id,
        }
        vision = {
            "model_type": "clip_vision_model",
            **_tower_dict(self.vision),
            "projection_dim": self.dim,
            "num_channels": 3,
            "image_size": self.side,
            "patch_size": self.patch,
        }
        return {
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            "projection_dim": self.dim,
            "logit_scale_init_value": self.logit_scale,
            "text_config": text,
            "vision_config": vision,
        }


def _tower_config(raw: Mapping[str, Any], *, width: int, heads: int, mlp: int) -> TowerConfig:
    tower = TowerConfig(
        width=int(raw.get("hidden_size", width)),
        layers=int(raw.get("num_hidden_layers", 12)),
        heads=int(raw.get("num_attention_heads", heads)),
        mlp=int(raw.get("intermediate_size", mlp)),
        activation=str(raw.get("hidden_act", "quick_gelu")),
        eps=float(raw.get("layer_norm_eps", 1e-5)),
    )
    if tower.width % tower.heads:
        raise ModelError(
            f"the CLIP configuration has width {tower.width}, not a multiple of its {tower.heads} heads"
        )
    return tower


def _tower_dict(tower: TowerConfig) -> dict[str, Any]:
    return {
        "hidden_size": tower.width,
        "num_hidden_layers": tower.layers,
        "num_attention_heads": tower.heads,
        "intermediate_size": tower.mlp,
        "hidden_act": tower.activation,
        "layer_norm_eps": tower.eps,
    }
