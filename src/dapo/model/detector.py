"""Detector: a frozen CLIP, prompts, deep tokens and adapters that score images and patches.

Goes in: pixels (b, 3, H, W) in [0, 1] and a vocabulary; comes out: `Scores`, probabilities on the patch grid.
The text features of a vocabulary do not depend on the images: they are encoded once and kept.

Source: DAPO (arXiv 2512.09446); dense scoring with tapped layers and linear adapters APRIL-GAN (2305.17382).
Axis names: b images, n patches, m taps, t states (0 = normal), k defect types, gh gw patch grid, d joint
width.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dapo.config import DetectorSettings, TowerTuning
from dapo.errors import ConfigError
from dapo.model.background import ahead, rivals
from dapo.model.clip import Clip
from dapo.model.concepts import drawn
from dapo.model.contrast import contrasted
from dapo.model.features import Features
from dapo.model.grid import resized, top_mean
from dapo.model.precision import Precision, has_bf16
from dapo.model.prompts import PromptBatch, average_states, build_prompts, gaussian_like_tokens
from dapo.model.weights import fill_weights
from dapo.vocabulary import Vocabulary

if TYPE_CHECKING:
    from dapo.model.crowd import Crowd
    from dapo.model.memory import Memory

TEXT_CHUNK = 64  # sequences encoded at once when no gradient is needed
KEPT_VOCABULARIES = 32  # whose text features are remembered
ANCHOR_SHARE = 0.03  # of the patches, the top that the image score hears: finishes are large
CERTAIN = 1e-6  # probabilities are kept this far from 0 and 1 before their logit is taken


@dataclass(frozen=True)
class Scores:
    """Probabilities in [0, 1]; maps are on the patch grid."""

    image: Float[Tensor, " b"]
    binary: Float[Tensor, "b gh gw"]
    types: Float[Tensor, "b k gh gw"]
    type_image: Float[Tensor, "b k"]
    unknown: Float[Tensor, "b gh gw"] | None = None  # that none of the names fits, if a background was given


class Detector(nn.Module):
    """Scores images against any list of defect types. Only what is not `clip` is learned."""

    concepts: Tensor | None  # (c, d) float32, unit-length: types taught, if `settings.concepts` names them

    def __init__(self, clip: Clip, settings: DetectorSettings | None = None) -> None:
        """Freezes `clip`. Raises ConfigError where settings and towers do not fit."""
        super().__init__()
        settings = settings or DetectorSettings()
        facts = clip.config
        self.settings = settings
        self.clip = clip.freeze()
        self.precision: Precision = "auto"
        self.taps = settings.taps or default_taps(facts.vision.layers, settings.adapter)
        self.side = settings.side or facts.side
        _check_fit(settings, clip, self.taps, self.side)

        device = clip.logit_scale.device
        self.prompts = build_prompts(clip, settings.prompts)
        self.text_deep = self.vision_deep = None
        if shape := _deep_shape(settings.text_deep, facts.text.layers, facts.text.width):
            table = clip.text.token_embedding.weight.detach()
            self.text_deep = nn.Parameter(gaussian_like_tokens(table, shape))
        if shape := _deep_shape(settings.vision_deep, facts.vision.layers, facts.vision.width):
            bound = math.sqrt(6 / (3 * facts.patch**2 + facts.vision.width))
            self.vision_deep = nn.Parameter(torch.empty(shape, device=device).uniform_(-bound, bound))
        count = 0 if settings.adapter == "none" else len(self.taps)
        self.adapters = nn.ModuleList(
            nn.Linear(facts.vision.width, facts.dim, device=device) for _ in range(count)
        )
        if settings.adapter == "residual":
            for parameter in self.adapters.parameters():
                nn.init.zeros_(parameter)
        known = settings.concepts
        self.register_buffer(
            "concepts", None if known is None else torch.zeros(len(known.names), facts.dim, device=device)
        )
        self._kept: OrderedDict[Any, Tensor] = OrderedDict()

    @property
    def input_side(self) -> int:
        """Pixels per side at which images should be prepared: that of the largest scale."""
        return (
            max(1, round(self.side * self.settings.largest_scale / self.clip.config.patch))
            * self.clip.config.patch
        )

    def forward(
        self,
        pixels: Float[Tensor, "b 3 hh ww"],
        text: Vocabulary | Tensor,
        memory: Memory | Crowd | None = None,
        background: Float[Tensor, "r d"] | None = None,
    ) -> Scores:
        """Score pixels in [0, 1], prepared at `input_side`, against a vocabulary or its features (t, d).

        memory: of good parts, or a crowd; the anomaly map and the image score then also tell how far a patch
        is from all of them. What type it is stays with the words (the `contrast` reads off that map which
        patches are good).
        background: features of types beyond the names (`background`); `Scores.unknown` then tells where one
        of them fits better than every name.
        """
        states = text if isinstance(text, Tensor) else self.text_features(text)
        seen = self.looks(pixels, () if memory is None else memory.layers)
        return self.judge(seen, states, memory, background)

    def judge(
        self,
        seen: Sequence[Features],
        states: Float[Tensor, "t d"],
        memory: Memory | Crowd | None = None,
        background: Float[Tensor, "r d"] | None = None,
    ) -> Scores:
        """Scores of what was seen at each scale (`looks`): the same pictures for several lists of names.

        Whether and where something is wrong all looks tell alike; which type it is, the vision tower's, if it
        looked at all: it knows more names. The `contrast` is of all looks.
        """
        rows, columns = max(f.rows for f in seen), max(f.columns for f in seen)
        named_by_side = all(f.side for f in seen)
        naming = [f for f in seen if f.side == named_by_side]
        distinct, anomaly, named = self._distinct(states), [], []
        for f in seen:
            patches = torch.stack(f.taps).unflatten(2, (f.rows, f.columns))
            logits = self.logits(patches, distinct)
            anomaly.append(resized(self._binary_map(logits)[:, None], rows, columns)[:, 0])
            if f.side == named_by_side:
                named.append(resized(self._type_maps(logits, len(states) - 1), rows, columns))
        binary, types = torch.stack(anomaly).mean(0), torch.stack(named).mean(0)
        whole = torch.stack([self.logits(f.cls, distinct) for f in naming]).mean(0).softmax(-1)
        overall = self._by_type(whole, types.shape[1])
        abnormal = torch.stack([self._abnormal_logit(f, states) for f in seen]).mean(0)
        if memory is not None:
            distance = memory.distance(seen)
            binary, abnormal = self._referred(binary, abnormal, memory, distance)
        if self.settings.type_contrast and self.settings.prompts.binary_phrase is None:
            types, overall = contrasted(seen, states, binary, types, overall, self.settings.type_contrast)
        return Scores(
            image=self._image_score(abnormal, binary),
            binary=binary,
            types=types,
            type_image=self._type_scores(overall, types),
            unknown=None if background is None else self._unknown(naming, states, background, rows, columns),
        )

    def background(self, text: Vocabulary | Tensor, common: Vocabulary) -> Float[Tensor, "r d"]:
        """Features of the common types that are none of the names of `text` in other words."""
        states = text if isinstance(text, Tensor) else self.text_features(text)
        return rivals(states, self.text_features(common)[1:])

    def _unknown(
        self,
        seen: Sequence[Features],
        states: Float[Tensor, "t d"],
        background: Float[Tensor, "r d"],
        rows: int,
        columns: int,
    ) -> Float[Tensor, "b gh gw"]:
        """Mean over these looks, on a grid (rows, columns), of how far the background is ahead."""
        maps = [
            ahead(f.taps, states, background, self._sharpness()).view(-1, 1, f.rows, f.columns) for f in seen
        ]
        return torch.stack([resized(one, rows, columns)[:, 0] for one in maps]).mean(0)

    def looks(self, pixels: Float[Tensor, "b 3 hh ww"], layers: Sequence[int] = ()) -> list[Features]:
        """Features of the pixels at each scale: the vision tower's, then the side network's."""
        settings = self.settings
        views = {scale: self._view(pixels, scale) for scale in {*settings.scales, *settings.side_scales}}
        return [
            *(self.features(views[scale], layers) for scale in settings.scales),
            *(self.side_features(views[scale], bool(layers)) for scale in settings.side_scales),
        ]

    def _referred(
        self,
        binary: Float[Tensor, "b gh gw"],
        abnormal: Float[Tensor, " b"],
        memory: Memory | Crowd,
        distance: Float[Tensor, "b gh gw"],
    ) -> tuple[Float[Tensor, "b gh gw"], Float[Tensor, " b"]]:
        """Anomaly map and log-odds of the image with the distance to the memory, both as log-odds added."""
        weights = self.settings.references
        far, farthest = memory.unusual(distance)
        logit = binary.logit(CERTAIN) + weights.map_weight * far + weights.map_bias
        return logit.sigmoid(), abnormal + weights.image_weight * farthest + weights.image_bias

    def features(self, pixels: Float[Tensor, "b 3 hh ww"], layers: Sequence[int] = ()) -> Features:
        """Global and tapped patch features of pixels in [0, 1], through deep tokens and adapters.

        layers: 1-based vision layers whose patches are given too, as the tower has them.
        """
        tuning, vision = self.settings.vision_deep, self.clip.vision
        with self.autocast(pixels.device):
            seen = vision(
                self.clip.normalise(pixels),
                deep=self.vision_deep,
                alpha=tuning.alpha,
                taps=(*self.taps, *layers),
                carry=tuning.carry,
                patch_attention=self.settings.patch_attention,
            )
            dense = [self._adapt(m, tap) for m, tap in enumerate(seen.taps[: len(self.taps)])]
        patch = self.clip.config.patch
        return Features(
            cls=F.normalize(seen.cls.float(), dim=-1),
            taps=[F.normalize(z.float(), dim=-1) for z in dense],
            rows=pixels.shape[2] // patch,
            columns=pixels.shape[3] // patch,
            layers=[F.normalize(x.float(), dim=-1) for x in seen.taps[len(self.taps) :]],
        )

    def side_features(self, pixels: Float[Tensor, "b 3 hh ww"], layers: bool = False) -> Features:
        """Those of the backbone's side network, one tap; with `layers`, also what a memory describes."""
        assert self.clip.side_network is not None
        with self.autocast(pixels.device):
            seen = self.clip.side_network(self.clip.normalise(pixels))
        return Features(
            cls=F.normalize(seen.cls.float(), dim=-1),
            taps=[F.normalize(seen.patches.float(), dim=-1)],
            rows=seen.rows,
            columns=seen.columns,
            layers=[F.normalize(x.float(), dim=-1) for x in seen.layers] if layers else [],
            side=True,
        )

    def _adapt(self, m: int, tap: Tensor) -> Tensor:
        if self.settings.adapter == "linear":
            return self.adapters[m](tap)
        projected = self.clip.vision.project(tap)
        return projected + self.adapters[m](tap) if self.settings.adapter == "residual" else projected

    def text_features(self, vocabulary: Vocabulary) -> Float[Tensor, "t d"]:
        """T: one unit-length float32 feature for normal (row 0) and each defect type.

        With binary prompts all types have the same. Remembered by value of the names and phrases, unless the
        text side learns and gradients are on or the detector is training.
        """
        if self.text_learns and (torch.is_grad_enabled() or self.training):
            return self._encode_states(vocabulary)
        key = tuple((defect.name, tuple(defect.phrases)) for defect in vocabulary.defects)
        if key not in self._kept:
            with torch.inference_mode(False), torch.no_grad():  # so that a later training step may use it
                self._kept[key] = self._encode_states(vocabulary)
            if len(self._kept) > KEPT_VOCABULARIES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    @property
    def text_learns(self) -> bool:
        """Whether contexts or deep text tokens exist; else text features never change."""
        return self.text_deep is not None or any(True for _ in self.prompts.parameters())

    def _encode_states(self, vocabulary: Vocabulary) -> Float[Tensor, "t d"]:
        batch: PromptBatch = self.prompts(self.clip, vocabulary)
        with self.autocast(batch.embeddings.device):
            if torch.is_grad_enabled():
                features = self._encode(batch, torch.arange(len(batch.eos)))
            else:  # in pieces of similar length, so that memory is bounded and little of it is padding
                order = batch.eos.argsort(stable=True)
                pieces = [self._encode(batch, piece) for piece in order.split(TEXT_CHUNK)]
                features = torch.cat(pieces)[order.argsort()]
        states = average_states(features.float(), batch, normalise_each=self.prompts.normalise_each)
        if self.settings.prompts.binary_phrase is not None:
            return torch.cat([states[:1], states[1:].expand(len(vocabulary.defects), -1)])
        if self.concepts is None:
            return states
        return torch.cat([states[:1], drawn(states[1:], self.concepts, self._sharpness())])

    def _encode(self, batch: PromptBatch, part: Int[Tensor, " s"]) -> Float[Tensor, "s d"]:
        tuning, prompts = self.settings.text_deep, self.settings.prompts
        eos = batch.eos[part]
        longest = int(eos.max()) + 1
        encoded: Tensor = self.clip.text(
            batch.embeddings[part, :longest],
            eos,
            deep=self.text_deep,
            alpha=tuning.alpha,
            mask=prompts.text_mask,
            pool=prompts.text_pool,
            lengths=eos + 1,
            carry=tuning.carry,
        )
        return encoded

    def logits(
        self, features: Float[Tensor, "*some d"], states: Float[Tensor, "t d"]
    ) -> Float[Tensor, "*some t"]:
        """Cosines of unit-length features with the states, over the temperature."""
        with torch.autocast(features.device.type, enabled=False):
            return features @ states.T * self._sharpness()

    def _sharpness(self) -> float | Tensor:
        """Inverse temperature."""
        return self.clip.logit_scale.exp() if self.settings.tau is None else 1 / self.settings.tau

    def global_logits(self, features: Features, states: Float[Tensor, "t d"]) -> Float[Tensor, "b 2"]:
        """Image logits against [t_0, t_a], t_a the normalised mean of the defect features."""
        abnormal = F.normalize(states[1:].mean(0), dim=-1)
        return self.logits(features.cls, torch.stack([states[0], abnormal]))

    def _abnormal_logit(self, features: Features, states: Float[Tensor, "t d"]) -> Float[Tensor, " b"]:
        """Log-odds that it is abnormal: of the global feature and of the anchors' most abnormal patches."""
        settings = self.settings
        anchors = None
        if settings.anchors:
            anchors = self.text_features(Vocabulary.of(settings.anchors)).to(states.device)
            states = torch.cat([states, anchors[1:]])
        if settings.image_abnormal == "max":
            abnormal = _margin(self.logits(features.cls, states))
        else:
            normal, defective = self.global_logits(features, states).unbind(1)
            abnormal = defective - normal
        if anchors is None or not settings.anchor_top:
            return abnormal
        local = _margin(self.logits(torch.stack(features.taps), anchors)).mean(0)
        return abnormal + settings.anchor_top * top_mean(local[:, None], ANCHOR_SHARE)

    def _binary_map(self, logits: Float[Tensor, "m b gh gw t"]) -> Float[Tensor, "b gh gw"]:
        """Anomaly map of one view, averaged over the taps."""
        if self.settings.binary == "max":
            abnormal = _margin(logits).sigmoid()
        else:
            abnormal = logits.softmax(-1)[..., 1:].sum(-1)
        return abnormal.mean(0).clamp(0, 1)

    def _type_maps(self, logits: Float[Tensor, "m b gh gw t"], k: int) -> Float[Tensor, "b k gh gw"]:
        """Maps of the k types of one view, averaged over the taps."""
        return self._by_type(logits.softmax(-1), k).mean(0).movedim(-1, 1).clamp(0, 1)

    def _image_score(
        self, abnormal: Float[Tensor, " b"], binary: Float[Tensor, "b gh gw"]
    ) -> Float[Tensor, " b"]:
        if self.settings.image_score == "global":
            return abnormal.sigmoid()
        fusion, top = self.settings.fusion, top_mean(binary, self.settings.top)
        return (
            fusion.global_weight * abnormal + fusion.map_weight * top.logit(CERTAIN) + fusion.bias
        ).sigmoid()

    def _type_scores(
        self, overall: Float[Tensor, "b k"], types: Float[Tensor, "b k gh gw"]
    ) -> Float[Tensor, "b k"]:
        local = top_mean(types, self.settings.top)
        if self.settings.type_score == "both":
            return (overall + local) / 2
        if self.settings.type_score == "geometric":
            return (overall * local).sqrt()
        return overall if self.settings.type_score == "global" else local

    def _distinct(self, states: Float[Tensor, "t d"]) -> Float[Tensor, "some d"]:
        """The states that differ: normal and one other where prompts are binary."""
        return states if self.settings.prompts.binary_phrase is None else states[:2]

    def _by_type(self, probabilities: Float[Tensor, "*some states"], k: int) -> Float[Tensor, "*some k"]:
        """Probabilities of the types: of each its own, or equal shares where prompts are binary."""
        abnormal = probabilities[..., 1:]
        if self.settings.prompts.binary_phrase is None:
            return abnormal
        return abnormal.expand(*abnormal.shape[:-1], k) / k

    def _view(self, pixels: Float[Tensor, "b 3 hh ww"], scale: float) -> Float[Tensor, "b 3 h2 w2"]:
        """The pixels at one scale, in multiples of the patch; at the largest, as they are."""
        patch, share = self.clip.config.patch, scale / self.settings.largest_scale
        size = [max(1, round(length * share / patch)) * patch for length in pixels.shape[2:]]
        if size == list(pixels.shape[2:]):
            return pixels
        small = F.interpolate(pixels, size, mode="bicubic", align_corners=False, antialias=True)
        return small.clamp(0, 1)

    def autocast(self, device: torch.device) -> torch.autocast:
        """Where towers run: in bf16 if `precision` says so or, on "auto", where it is native."""
        wanted = self.precision == "bf16" or (self.precision == "auto" and has_bf16(device))
        return torch.autocast(device.type, torch.bfloat16, enabled=wanted)

    def changed(self, **settings: Any) -> Detector:
        """The same CLIP and learned tensors under other settings, such as `image_score="fused"`.

        With `concepts=None` they are left behind.
        """
        other = Detector(self.clip, self.settings.model_copy(update=settings))
        learned = self.learned_state()
        if other.concepts is None:
            learned.pop("concepts", None)
        other.load_learned(learned)
        other.precision = self.precision
        return other.train(self.training)

    def learned_state(self) -> dict[str, Tensor]:
        """Everything learned, by name: contexts, deep tokens, adapters."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("clip.")}

    def load_learned(self, state: Mapping[str, Tensor], where: str = "the learned weights") -> None:
        """Put learned tensors in. Raises ModelError unless names and shapes are exactly this detector's."""
        fill_weights(self, {name: name for name in self.learned_state()}, state, where)
        self._kept.clear()

    def train(self, mode: bool = True) -> Detector:
        """As in torch; forgets text features, since learned tensors may have changed."""
        self._kept.clear()
        super().train(mode)
        self.clip.eval()
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> Detector:
        self._kept.clear()  # the detector moves to another device or type
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def default_taps(layers: int, adapter: str) -> tuple[int, ...]:
    """Layers to tap: the four quarter depths (6, 12, 18, 24 of 24), or the last without an adapter."""
    if adapter == "none":
        return (layers,)
    return tuple(dict.fromkeys(max(1, (layers * quarter + 2) // 4) for quarter in (1, 2, 3, 4)))


def _margin(logits: Float[Tensor, "*some t"]) -> Float[Tensor, "*some"]:
    """How far the best type is ahead of normal."""
    return logits[..., 1:].amax(-1) - logits[..., 0]


def _deep_shape(tuning: TowerTuning, layers: int, width: int) -> tuple[int, int, int] | None:
    depth = layers if tuning.depth is None else tuning.depth
    return (depth, tuning.tokens, width) if depth else None


def _check_fit(settings: DetectorSettings, clip: Clip, taps: tuple[int, ...], side: int) -> None:
    facts = clip.config
    towers = (
        ("text_deep", settings.text_deep, facts.text),
        ("vision_deep", settings.vision_deep, facts.vision),
    )
    for name, tuning, tower in towers:
        if (tuning.depth or 0) > tower.layers:
            raise ConfigError(
                f"{name}.depth is {tuning.depth}, but the tower has {tower.layers} layers; lower it"
            )
    if settings.side_scales and clip.side_network is None:
        raise ConfigError(
            "side_scales asks for a side network, but the backbone has none; set it to [] or take a backbone "
            "with side_network.safetensors"
        )
    if max(taps) > facts.vision.layers:
        raise ConfigError(
            f"taps names layer {max(taps)}, but the vision tower has {facts.vision.layers} layers"
        )
    if side % facts.patch:
        near = max(1, round(side / facts.patch)) * facts.patch
        raise ConfigError(
            f"side is {side} px, expected a multiple of the patch, {facts.patch} px; {near} is the nearest"
        )
