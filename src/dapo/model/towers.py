"""Transformer towers of CLIP, with deep tokens and layer taps as arguments.

Goes in: normalised pixels, or token embeddings; comes out: un-normalised features in the joint space. Prompts
act inside the towers without hooks, and the towers know nothing of learning.

Sources: CLIP (Radford et al. 2021, arXiv 2103.00020) for the architecture; VPT (Jia et al. 2022, arXiv
2203.12119) for deep tokens; DAPO (Nazer et al. 2025, arXiv 2512.09446) for their progressive carry-over;
CLIP Surgery (Li et al. 2023, arXiv 2304.05653) and AnomalyCLIP (arXiv 2310.18961) for value-value attention.

Axis names: b images or phrases, n patches, v vision width, e text width, w either width, d joint width, l
layers that receive deep tokens, p deep tokens a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from dapo.errors import ModelError
from dapo.model.clip_config import LEGACY_EOS_ID, ClipConfig, TowerConfig

AttentionKind = Literal["auto", "eager", "sdpa"]
CarryKind = Literal["keep", "drop"]
PatchAttention = Literal["query-key", "value-value"]
MaskKind = Literal["causal", "full"]
PoolKind = Literal["eos", "unshifted"]

EAGER_LIMIT = 2**26  # attention scores, 128 MiB in bf16: above, the fused kernel saves memory
EAGER_AT_ONCE = 2**21  # of them, 4 MiB in bf16: no more at a time stay in a CPU's cache


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x): the activation of OpenAI's CLIP."""
    return x * torch.sigmoid(1.702 * x)


def _gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": F.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
}


class Block(nn.Module):
    """One pre-norm transformer layer, (b, len, w) -> (b, len, w)."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(config.width, eps=config.eps)
        self.q = nn.Linear(config.width, config.width)
        self.k = nn.Linear(config.width, config.width)
        self.v = nn.Linear(config.width, config.width)
        self.out = nn.Linear(config.width, config.width)
        self.norm2 = nn.LayerNorm(config.width, eps=config.eps)
        self.fc1 = nn.Linear(config.width, config.mlp)
        self.fc2 = nn.Linear(config.mlp, config.width)
        if config.activation not in ACTIVATIONS:
            known = ", ".join(sorted(ACTIVATIONS))
            raise ModelError(f"expected hidden_act to be one of {known}; got {config.activation!r}")
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor, mask: Tensor | None = None, attention: AttentionKind = "auto") -> Tensor:
        """`mask` is boolean, broadcast over (b, heads, len, len); True where a query may look at a key."""
        x = x + self.out(self._attend(self.norm1(x), mask, attention))
        hidden: Tensor = self.fc2(self.activation(self.fc1(self.norm2(x))))
        return x + hidden

    def among_values(
        self, x: Float[Tensor, "b n v"], attention: AttentionKind = "auto"
    ) -> Float[Tensor, "b n v"]:
        """What this layer's attention would add to x if queries and keys were its values: no mask, no MLP."""
        v = self._heads(self.norm1(x), self.v)
        added: Tensor = self.out(self._mixed(v, v, v, None, attention))
        return added

    def _attend(self, x: Tensor, mask: Tensor | None, attention: AttentionKind) -> Tensor:
        q, k, v = (self._heads(x, layer) for layer in (self.q, self.k, self.v))
        return self._mixed(q, k, v, mask, attention)

    def _heads(self, x: Tensor, layer: nn.Linear) -> Tensor:
        """(b, heads, len, w / heads)"""
        b, length, width = x.shape
        split: Tensor = layer(x).view(b, length, self.heads, width // self.heads).transpose(1, 2)
        return split

    def _mixed(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, attention: AttentionKind
    ) -> Tensor:
        """softmax(q k^T / sqrt(w / heads)) v of all heads, joined: (b, len, w)."""
        b, _, length, size = q.shape
        if attention == "auto":  # on CPUs in bf16, plain products are up to twice as fast as the fused kernel
            small = q.shape[0] * self.heads * length**2 <= EAGER_LIMIT
            attention = "eager" if q.device.type == "cpu" and q.dtype == torch.bfloat16 and small else "sdpa"
        if attention == "eager":
            few = b if torch.is_grad_enabled() else max(1, EAGER_AT_ONCE // (self.heads * length**2))
            mixed = _attended(q, k, v, mask) if few >= b else _attended_by(few, q, k, v, mask)
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        joined: Tensor = mixed.transpose(1, 2).reshape(b, length, self.heads * size)
        return joined


def _attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T / sqrt(size)) v of (b, heads, len, size), product by product."""
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1) @ v


def _attended_by(few: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """`_attended`, so many images at a time."""
    own = mask is not None and mask.ndim == 4 and len(mask) > 1  # a mask for each image
    masks = mask.split(few) if mask is not None and own else [mask] * math.ceil(len(q) / few)
    parts = zip(q.split(few), k.split(few), v.split(few), masks, strict=True)
    return torch.cat([_attended(*part) for part in parts])


class Stack(nn.Module):
    """The layers of a tower, with deep tokens at places 1..p and progressive carry-over.

    checkpointing: where gradients are on, compute each layer again on the way back instead of keeping its
    insides (Chen et al. 2016, arXiv 1604.06174).
    """

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.attention: AttentionKind = "auto"
        self.checkpointing = False

    def forward(
        self,
        x: Tensor,
        *,
        deep: Float[Tensor, "l p w"] | None,
        alpha: float,
        carry: CarryKind,
        taps: Sequence[int] = (),
        mask: Callable[[int], Tensor | None] = lambda inserted: None,
    ) -> tuple[Tensor, list[Tensor], int]:
        """Run all layers; `mask(inserted)` is the attention mask of a sequence with that many deep tokens.

        Returns the last hidden states, the outputs of the 1-based layers in `taps` without the first and the
        deep tokens, and how many deep tokens are still in the sequence (0 if dropped after their depth).
        """
        depth = 0 if deep is None else deep.shape[0]
        if depth > len(self.layers):
            raise ValueError(f"deep tokens for {depth} layers were given to a tower of {len(self.layers)}")
        if any(not 1 <= tap <= len(self.layers) for tap in taps):
            raise ValueError(f"taps are layer numbers from 1 to {len(self.layers)}, got {tuple(taps)}")
        if self.training and torch.is_autocast_enabled(
            x.device.type
        ):  # a half-precision stream: half the traffic
            x = x.to(torch.get_autocast_dtype(x.device.type))
        tapped: dict[int, Tensor] = {}
        inserted = 0
        for i, layer in enumerate(self.layers):
            if deep is not None and i < depth:
                tokens = deep[i].expand(len(x), -1, -1)
                if i > 0:  # progressive: what the previous layer made of its tokens flows on
                    tokens = alpha * x[:, 1 : 1 + inserted] + (1 - alpha) * tokens
                x = torch.cat([x[:, :1], tokens.to(x.dtype), x[:, 1 + inserted :]], dim=1)
                inserted = tokens.shape[1]
            elif inserted and carry == "drop":
                x = torch.cat([x[:, :1], x[:, 1 + inserted :]], dim=1)
                inserted = 0
            x = self._through(layer, x, mask(inserted))
            if i + 1 in taps:
                tapped[i + 1] = x[:, 1 + inserted :]
        return x, [tapped[tap] for tap in taps], inserted

    def _through(self, layer: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
        if not (self.checkpointing and torch.is_grad_enabled()):
            return layer(x, mask, self.attention)
        again: Tensor = checkpoint(
            layer, x, mask, self.attention, use_reentrant=False, preserve_rng_state=False
        )
        return again


@dataclass(frozen=True)
class VisionOutput:
    """What the vision tower saw: nothing here is normalised to unit length."""

    cls: Float[Tensor, "b d"]  # global feature, projected
    taps: list[Float[Tensor, "b n v"]]  # raw outputs of the tapped layers, patches only
    patches: Float[Tensor, "b n d"]  # the last layer's patches through post-layer-norm and projection


class VisionTower(nn.Module):
    """Vision transformer of CLIP for any height and width that are multiples of the patch."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        width = config.vision.width
        self.patch = config.patch
        self.grid = config.grid
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.patch_embedding = nn.Conv2d(3, width, config.patch, stride=config.patch, bias=False)
        self.position_embedding = _table(config.grid**2 + 1, width)
        self.pre_norm = nn.LayerNorm(width, eps=config.vision.eps)
        self.stack = Stack(config.vision)
        self.post_norm = nn.LayerNorm(width, eps=config.vision.eps)
        self.projection = nn.Linear(width, config.dim, bias=False)

    def forward(
        self,
        pixels: Float[Tensor, "b 3 hh ww"],
        *,
        deep: Float[Tensor, "l p v"] | None = None,
        alpha: float = 0.01,
        taps: Sequence[int] = (),
        carry: CarryKind = "keep",
        offset: tuple[int, int] | None = None,
        visible: Int[Tensor, "b kept"] | None = None,
        patch_attention: PatchAttention = "query-key",
    ) -> VisionOutput:
        """Encode pixels that are already normalised with the model's mean and standard deviation.

        deep: tokens put after CLS, one set for each of the first l layers; from then on they are carried on
        unchanged (`carry="keep"`) or removed ("drop"). taps: 1-based layer numbers whose outputs to return.
        offset: take the positions of the native grid from this (row, column) on, instead of resizing the grid
        (for training on crops). visible: encode these patches of each image only, in this order (masked
        training, arXiv 2212.00794); taps and patches then have that many entries. patch_attention: where taps
        and patches come from, see `value_stream`; `cls` is the same either way.
        """
        if patch_attention == "value-value":
            x = self.embed(pixels, offset, visible)
            return self.value_stream(x, deep=deep, alpha=alpha, taps=taps, carry=carry)
        hidden, tapped, inserted = self.hidden(
            pixels, deep=deep, alpha=alpha, taps=taps, carry=carry, offset=offset, visible=visible
        )
        projected = self.project(torch.cat([hidden[:, :1], hidden[:, 1 + inserted :]], dim=1))
        return VisionOutput(cls=projected[:, 0], taps=tapped, patches=projected[:, 1:])

    def hidden(
        self,
        pixels: Float[Tensor, "b 3 hh ww"],
        *,
        deep: Float[Tensor, "l p v"] | None = None,
        alpha: float = 0.01,
        taps: Sequence[int] = (),
        carry: CarryKind = "keep",
        offset: tuple[int, int] | None = None,
        visible: Int[Tensor, "b kept"] | None = None,
    ) -> tuple[Tensor, list[Tensor], int]:
        """Last hidden states with CLS and deep tokens in front, taps, and the number of deep tokens."""
        found: tuple[Tensor, list[Tensor], int] = self.stack(
            self.embed(pixels, offset, visible), deep=deep, alpha=alpha, carry=carry, taps=taps
        )
        return found

    def value_stream(
        self,
        x: Float[Tensor, "b len v"],
        *,
        deep: Float[Tensor, "l p v"] | None,
        alpha: float,
        taps: Sequence[int],
        carry: CarryKind,
    ) -> VisionOutput:
        """Taps and patches from a second stream of value-value attention beside CLIP's own layers.

        x: what enters layer 1. With x_i the patches that layer i puts out in CLIP's own stream, and s the
        first tapped layer (without taps the last layer), for i = s..L

            y_(s-1) = x_(s-1);    y_i = y_(i-1) + out_i(softmax(v_i v_i^T / sqrt(w / heads)) v_i),
            v_i = value_i(norm1_i(x_(i-1)))

        over the patches alone: no CLS, no deep tokens, no MLP. Each patch so looks at those that say the same
        as it does. The taps are y_i, `patches` is y_L projected, and `cls` is that of CLIP's own stream.
        """
        last = len(self.stack.layers)
        first = min(taps, default=last)
        before = range(max(1, first - 1), last)  # layers whose outputs enter layers `first` to `last`
        hidden, seen, _ = self.stack(x, deep=deep, alpha=alpha, carry=carry, taps=(*taps, *before))
        inputs = [x[:, 1:]] if first == 1 else []
        inputs += seen[len(taps) :]
        layers = cast("list[Block]", list(self.stack.layers)[first - 1 :])
        stream, outputs = inputs[0], {}
        for i, (layer, patches) in enumerate(zip(layers, inputs, strict=True), start=first):
            stream = stream + layer.among_values(patches, self.stack.attention)
            outputs[i] = stream
        projected = self.project(torch.cat([hidden[:, :1], stream], dim=1))
        return VisionOutput(projected[:, 0], [outputs[tap] for tap in taps], projected[:, 1:])

    def embed(
        self,
        pixels: Float[Tensor, "b 3 hh ww"],
        offset: tuple[int, int] | None = None,
        visible: Int[Tensor, "b kept"] | None = None,
    ) -> Float[Tensor, "b len v"]:
        """What enters the first layer: CLS and patches with their positions, normed."""
        b, _, height, width = pixels.shape
        rows, columns = height // self.patch, width // self.patch
        if (rows * self.patch, columns * self.patch) != (height, width) or not rows * columns:
            raise ValueError(
                f"expected height and width in multiples of {self.patch} px, got {height} x {width}"
            )
        # A convolution whose stride is its kernel, as one matrix product: faster, and backward too, on CPUs.
        cells = pixels.reshape(b, 3, rows, self.patch, columns, self.patch).permute(0, 2, 4, 1, 3, 5)
        patches = F.linear(cells.reshape(b, rows * columns, -1), self.patch_embedding.weight.flatten(1))
        patches = patches + self.positions(rows, columns, offset)
        if visible is not None:
            patches = patches.gather(1, visible[..., None].expand(-1, -1, patches.shape[-1]))
        first = (self.class_embedding + self.position_embedding.weight[0]).expand(b, 1, -1)
        normed: Tensor = self.pre_norm(torch.cat([first.to(patches.dtype), patches], dim=1))
        return normed

    def positions(
        self, rows: int, columns: int, offset: tuple[int, int] | None = None
    ) -> Float[Tensor, "n v"]:
        """Positions of a grid of patches: native, cut out at `offset`, or resized (bicubic, antialiased)."""
        table = self.position_embedding.weight[1:]
        if (rows, columns) == (self.grid, self.grid):
            return table
        native = table.view(self.grid, self.grid, -1)
        if offset is not None:
            top, left = offset
            if not (0 <= top <= self.grid - rows and 0 <= left <= self.grid - columns):
                raise ValueError(
                    f"a {rows} x {columns} crop at {offset} leaves the {self.grid} x {self.grid} grid"
                )
            return native[top : top + rows, left : left + columns].flatten(0, 1)
        image = native.permute(2, 0, 1)[None].float()
        resized = F.interpolate(image, (rows, columns), mode="bicubic", align_corners=False, antialias=True)
        return resized[0].flatten(1).T.to(table.dtype)

    def project(self, tokens: Float[Tensor, "b n v"]) -> Float[Tensor, "b n d"]:
        """Hidden states of any layer into the joint space: post-layer-norm, then CLIP's visual projection."""
        projected: Tensor = self.projection(self.post_norm(tokens))
        return projected


class TextTower(nn.Module):
    """Text transformer of CLIP, fed with token embeddings so that learned context can stand between words."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        width = config.text.width
        self.max_length = config.max_length
        self.eos_id = config.eos_id
        self.token_embedding = _table(config.vocabulary_size, width)
        self.position_embedding = _table(config.max_length, width)
        self.stack = Stack(config.text)
        self.final_norm = nn.LayerNorm(width, eps=config.text.eps)
        self.projection = nn.Linear(width, config.dim, bias=False)

    def forward(
        self,
        embeddings: Float[Tensor, "b len e"],
        eos: Int[Tensor, " b"],
        *,
        deep: Float[Tensor, "l p e"] | None = None,
        alpha: float = 0.01,
        mask: MaskKind = "causal",
        pool: PoolKind = "eos",
        lengths: Int[Tensor, " b"] | None = None,
        carry: CarryKind = "keep",
    ) -> Float[Tensor, "b d"]:
        """Encode sequences of token embeddings (positions are added here) into un-normalised joint features.

        eos: index of each sequence's EOS before deep tokens are inserted. pool: read the state at the EOS
        where it stands after insertion ("eos"), or at its index from before insertion ("unshifted"). lengths:
        true lengths including EOS; what lies beyond is padding that nothing looks at. mask: who sees whom,
        deep tokens included.
        """
        keep = None
        if lengths is not None:
            keep = torch.arange(embeddings.shape[1], device=embeddings.device) < lengths[:, None]
        hidden, inserted = self.hidden(embeddings, deep=deep, alpha=alpha, mask=mask, keep=keep, carry=carry)
        at = eos + inserted if pool == "eos" else eos
        return self.project(hidden[torch.arange(len(hidden), device=hidden.device), at])

    def hidden(
        self,
        embeddings: Float[Tensor, "b len e"],
        *,
        deep: Float[Tensor, "l p e"] | None = None,
        alpha: float = 0.01,
        mask: MaskKind = "causal",
        keep: Bool[Tensor, "b len"] | None = None,
        carry: CarryKind = "keep",
    ) -> tuple[Float[Tensor, "b len2 e"], int]:
        """Last hidden states after the final norm, and how many deep tokens stand after SOS in them."""
        b, length, _ = embeddings.shape
        if length > self.max_length:
            raise ValueError(f"a text of {length} tokens was given to a tower of {self.max_length} positions")

        def visible(inserted: int) -> Tensor | None:
            total = length + inserted
            seen: Tensor | None = None
            if mask == "causal":
                seen = torch.ones(total, total, dtype=torch.bool, device=embeddings.device).tril()
            if keep is not None:
                deep_keep = keep.new_ones(b, inserted)
                keys = torch.cat([keep[:, :1], deep_keep, keep[:, 1:]], dim=1)[:, None, None, :]
                seen = keys if seen is None else seen & keys
            return seen

        x = embeddings + self.position_embedding.weight[:length]
        x, _, inserted = self.stack(x, deep=deep, alpha=alpha, carry=carry, mask=visible)
        return self.final_norm(x), inserted

    def project(self, pooled: Float[Tensor, "b e"]) -> Float[Tensor, "b d"]:
        """Pooled states (already final-normed) into the joint space."""
        projected: Tensor = self.projection(pooled)
        return projected

    def embed(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape e"]:
        """Rows of the token-embedding table, without positions."""
        rows: Tensor = self.token_embedding(ids)
        return rows

    def eos_places(self, ids: Int[Tensor, "b len"]) -> Int[Tensor, " b"]:
        """Where each row's EOS stands, by the rule of its configuration.

        Early CLIP configurations carry EOS id 2 by mistake: there the highest id of the row is taken (right
        for OpenAI's vocabulary only). Otherwise the first place that equals the EOS id.
        """
        if self.eos_id == LEGACY_EOS_ID:
            return ids.argmax(dim=-1)
        return (ids == self.eos_id).int().argmax(dim=-1)

    def encode_ids(
        self, ids: Int[Tensor, "b len"], attention_mask: Tensor | None = None
    ) -> Float[Tensor, "b d"]:
        """Plain CLIP text features (un-normalised) of token ids, as Hugging Face computes them."""
        keep = None if attention_mask is None else attention_mask.bool()
        hidden, _ = self.hidden(self.embed(ids), keep=keep)
        return self.project(hidden[torch.arange(len(ids), device=ids.device), self.eos_places(ids)])


def _table(rows: int, width: int) -> nn.Embedding:
    """An embedding as torch makes it, but empty on the meta device, where drawing values costs a second."""
    weight = torch.empty(rows, width)
    return nn.Embedding.from_pretrained(weight if weight.is_meta else nn.init.normal_(weight), freeze=False)
