"""Settings of a detector and of a model folder: frozen, checked field by field, unknown keys refused.

The defaults of `DetectorSettings` are the published method (arXiv 2512.09446); a model folder's `config.json`
(`ModelConfig`) may choose others. Read with `parse`, which makes one ConfigError of what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from dapo.errors import ConfigError

FORMAT = 1  # version of the model folder

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Text = Annotated[str, Field(min_length=1)]


class Settings(BaseModel):
    """Frozen; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


SomeSettings = TypeVar("SomeSettings", bound=Settings)


class TowerTuning(Settings):
    """Deep tokens of one tower (progressive tuning).

    depth: how many layers, from the first, receive learned tokens; None = all, 0 = no deep tokens.
    alpha: weight of what the previous layer made of its tokens; 0 replaces them, 1 is shallow prompting.
    carry: after the last such layer the tokens stay in the sequence ("keep") or are removed ("drop").
    """

    depth: int | None = Field(default=None, ge=0)
    tokens: int = Field(default=4, ge=1)
    alpha: Fraction = 0.01
    carry: Literal["keep", "drop"] = "keep"


class PromptSettings(Settings):
    """What is said to the text tower.

    kind: "hybrid" puts learned context before the words; "handwritten" puts the words into photo templates.
    normal_phrases: how a good part is described; None = "flawless" (hybrid) or a short list (handwritten).
    abnormal_phrases: how a handwritten prompt puts a type into words, each with one {}; None = as it is.
    binary_phrase: the one abnormal state, whatever the user's types are called; None = one state a type.
        Types cannot be told apart then, and each is given an equal share of the abnormal probability.
    groups, context: E groups of l learned tokens.
    normal_template, abnormal_template: the words after the context.
    templates: photo templates around a handwritten phrase, with one {}; None = a short list.
    context_init: "gaussian" draws from the statistics of the token table; "words" starts at `context_words`.
    text_mask, text_pool: who sees whom in the text tower, where its feature is read (`TextTower.forward`).
    """

    kind: Literal["hybrid", "handwritten"] = "hybrid"
    normal_phrases: tuple[Text, ...] | None = Field(default=None, min_length=1)
    abnormal_phrases: tuple[Text, ...] | None = Field(default=None, min_length=1)
    binary_phrase: Text | None = None
    groups: int = Field(default=10, ge=1)
    context: int = Field(default=5, ge=1)
    normal_template: Text = "{} object"
    abnormal_template: Text = "{} anomaly object"
    templates: tuple[Text, ...] | None = Field(default=None, min_length=1)
    context_init: Literal["gaussian", "words"] = "gaussian"
    context_words: Text = "a close photo of a"
    text_mask: Literal["causal", "full"] = "causal"
    text_pool: Literal["eos", "unshifted"] = "eos"

    @model_validator(mode="after")
    def _templates_have_one_gap(self) -> PromptSettings:
        filled = (*(self.templates or ()), *(self.abnormal_phrases or ()))
        for template in (self.normal_template, self.abnormal_template, *filled):
            if template.count("{}") != 1:
                raise ValueError(f"the template {template!r} needs one {{}} where the phrase goes")
        return self


class Fusion(Settings):
    """Image score: sigmoid(g * global logit + m * logit of the top of the anomaly map + bias)."""

    global_weight: float = 1.0
    map_weight: float = 1.0
    bias: float = 0.0


class References(Settings):
    """How the distance to good parts joins the words, in log-odds for each standard deviation of it.

    The anomaly map's log-odds gain map_weight * z + map_bias, the image's image_weight * z + image_bias, with
    z the distance against that among the good parts themselves (`dapo.model.memory`). The weights are the
    smallest that are nearly best on generated product lines (`dapo.pretraining.references`).
    layers: 1-based vision layers whose patches are remembered; None = at half and two thirds of the depth.
    patches: how many are kept for each scale.
    """

    map_weight: float = 0.7
    map_bias: float = 0.0
    image_weight: float = 1.0
    image_bias: float = 0.0
    layers: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(default=None, min_length=1)
    patches: int = Field(default=1250, ge=1)


class Concepts(Settings):
    """Words read as mixtures of what the model was taught (`dapo.model.concepts`).

    names: the types taught, one for each row of the learned tensor `concepts`.
    """

    names: tuple[Text, ...] = Field(min_length=1)


class DetectorSettings(Settings):
    """How a CLIP becomes a detector. Defaults: the published method.

    taps: 1-based vision layers; None = the four quarter depths, or the last layer without an adapter.
    adapter: tapped features into the joint space by "linear" (learned), "residual" (CLIP's own projection
        plus a learned linear that starts at zero) or "none" (CLIP's own projection).
    patch_attention: tapped features from CLIP's own layers ("query-key"), or from a second stream in which
        each patch attends to those of similar values ("value-value", `VisionTower.value_stream`).
    tau: temperature of the text-image softmax; None = the CLIP's own.
    side: model side in pixels, a multiple of the patch; None = the CLIP's native side.
    fit: "squash" to a square, or keep the "aspect" at about the same number of pixels.
    scales: side multipliers at which the vision tower looks; maps and scores are averaged.
    side_scales: those at which the backbone's side network looks too (`dapo.model.side_network`); () = it
        does not. Whether and where something is wrong all looks tell alike, which type it is the tower's. One
        of the two has to look.
    binary: anomaly map from all types' probabilities added ("sum"), or from the best type against normal
        ("max"), which an additional name does not raise by itself.
    image_abnormal: abnormal side of the image score: the "mean" of the defect features, or the best ("max").
    anchors: defect types that stand beside the user's in the image score, and nowhere else, so that a short
        list or one more name hardly moves it.
    anchor_top: log-odds that the image score gains for each of the anchors' own map, in its most abnormal
        3 % of the patches; 0 = the global feature alone.
    image_score: the "global" feature alone, or "fused" with the top of the anomaly map by `fusion`.
    type_score: a type's image-level score: top of its "map", "global" feature, or of both their arithmetic
        ("both") or "geometric" mean.
    type_contrast: log-odds between the types for the `contrast` of a patch with the good ones of its picture
        (`dapo.model.contrast`), a cosine, in all looks; between their global scores half of it. 0 = none.
    top: share of the patches that make the top of a map (at least one patch).
    references: how good parts are remembered, where some are given.
    concepts: the types a small model was taught, to which the user's words are drawn; None = as they are.
    """

    prompts: PromptSettings = PromptSettings()
    text_deep: TowerTuning = TowerTuning()
    vision_deep: TowerTuning = TowerTuning()
    taps: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(default=None, min_length=1)
    adapter: Literal["linear", "residual", "none"] = "linear"
    patch_attention: Literal["query-key", "value-value"] = "query-key"
    tau: Annotated[float, Field(gt=0)] | None = 0.07
    side: Annotated[int, Field(ge=1)] | None = 518
    fit: Literal["squash", "aspect"] = "squash"
    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = (1.0,)
    side_scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = ()
    binary: Literal["sum", "max"] = "sum"
    image_abnormal: Literal["mean", "max"] = "mean"
    anchors: tuple[Text, ...] = ()
    anchor_top: Annotated[float, Field(ge=0)] = 0.0
    image_score: Literal["global", "fused"] = "global"
    fusion: Fusion = Fusion()
    type_score: Literal["map", "global", "both", "geometric"] = "both"
    type_contrast: Annotated[float, Field(ge=0)] = 0.0
    top: Annotated[float, Field(gt=0, le=1)] = 0.01
    references: References = References()
    concepts: Concepts | None = None

    @model_validator(mode="after")
    def _something_looks(self) -> DetectorSettings:
        if not self.scales and not self.side_scales:
            raise ValueError("scales and side_scales are both empty; one of them has to look")
        return self

    @property
    def largest_scale(self) -> float:
        """Side multiplier of the largest look."""
        return max((*self.scales, *self.side_scales))

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn: context, deep tokens or adapters."""
        deep = self.text_deep.depth != 0 or self.vision_deep.depth != 0
        return self.prompts.kind == "hybrid" or self.adapter != "none" or deep

    @classmethod
    def training_free(cls) -> DetectorSettings:
        """A plain CLIP with handwritten prompts: nothing learned, its own size and temperature."""
        none = TowerTuning(depth=0)
        return cls(
            prompts=PromptSettings(kind="handwritten"),
            text_deep=none,
            vision_deep=none,
            adapter="none",
            tau=None,
            side=None,
            binary="max",
            image_abnormal="max",
        )


class TrainingData(Settings):
    """One data set a model was trained on, for its card."""

    name: Text
    licence: Text
    note: str = ""


class ModelConfig(Settings):
    """`config.json` of a model folder.

    backbone: "backbone" for the subfolder of that name, else a folder or hub id.
    defects: names inspected when the user gives none; None = the built-in vocabulary.
    threshold: image score from which a part is defective. map_threshold: anomaly value that starts a region.
    map_low: anomaly value down to which a region grows; None = map_threshold.
    min_area: smallest region, as a share of the image's pixels.
    unknown_above: lead of the background (`Scores.unknown`, mean over a region) from which a region's type is
        "unknown"; None = each region has one of the names.
    recipe: anything that helps to make the model again (command, steps, time, machine).
    metrics: measured figures.
    learned_on: facts of the backbone it was learned on; loading refuses another one.
    """

    format: Literal[1] = 1
    name: Text
    version: Text = "1"
    description: str = ""
    licence: str = ""
    backbone: Text = "backbone"
    detector: DetectorSettings = DetectorSettings()
    defects: tuple[Text, ...] | None = Field(default=None, min_length=1)
    threshold: Fraction = 0.5
    map_threshold: Fraction = 0.5
    map_low: Fraction | None = None
    min_area: Fraction = 0.0002
    unknown_above: Fraction | None = None
    training_data: tuple[TrainingData, ...] = ()
    seed: int | None = None
    recipe: dict[str, Any] = Field(default_factory=dict)
    metrics: dict[str, Any] = Field(default_factory=dict)
    learned_on: dict[str, int | str] | None = None

    @model_validator(mode="after")
    def _grows_downwards(self) -> ModelConfig:
        if self.map_low is not None and self.map_low > self.map_threshold:
            raise ValueError(f"map_low {self.map_low} is above map_threshold {self.map_threshold}")
        return self


class GeneratedSettings(Settings):
    """Generated scenes to learn from.

    samples: scenes in all, each seen once. textures: folder of real textures for their surfaces, or None.
    names: least and most defect types a batch speaks of; its scenes show some of these and no others.
    """

    samples: int = Field(default=40_000, ge=1)
    textures: Text | None = None
    names: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (8, 24)

    @model_validator(mode="after")
    def _least_first(self) -> GeneratedSettings:
        if self.names[0] > self.names[1]:
            raise ValueError(f"names gives the least {self.names[0]} above the most {self.names[1]}")
        return self


class TrainingSettings(Settings):
    """How prompts, deep tokens and adapters are learned. Defaults: the published method.

    method: name of the method these settings came from, for the record (`dapo.learning.methods`).
    detector: None = that of the model folder, with context to learn where people wrote all of its words; on
        a plain CLIP the published method (at the native side where the patch does not divide 518 px).
    start: learn from "fresh" prompts, or go on from what the "model" folder has learned.
    epochs: passes over a labelled dataset; generated scenes are new every time and have none.
    batch: images that are learned from together, all of one product or one list of names. accumulate: batches
        a step, and in each of the processes, if there are several; a step is at most one epoch.
    lr, betas, weight_decay: of Adam(W).
    schedule: of the rate after `warmup` (a share of the steps): "constant", "linear" or "cosine" (down to 0).
    local_weight, global_weight: of the losses of patches and images. dice_weight, names_weight: of the Dice
        terms, and of the type of a defective pixel whatever normal says, against the focal loss.
    loss_stride: judge every n-th pixel.
    keep_close: weight of 1 - cosine between each state's feature and that of the handwritten prompts.
    clip_grad: largest norm of the gradient. ema: save a running mean of what is learned, with this decay.
    checkpointing: compute the towers' layers twice instead of keeping their insides: less memory, slower.
    held_out: names of defect types; images that show any of them are left out (to ask later for novel types).
    bad_images: "skip" what cannot be read, named and counted, or "stop".
    track: also tell these of the run, besides its log.jsonl.
    workers: processes that prepare batches; 0 = none. save_every, log_every: steps.
    backbone: "copy" it into the model folder, or "reference" it. stored: type of the saved weights.
    name, description, licence, data_licence (of a dataset, or of the textures): for the model's card.
    """

    method: Text | None = None
    detector: DetectorSettings | None = None
    start: Literal["fresh", "model"] = "fresh"
    generated: GeneratedSettings = GeneratedSettings()
    seed: Annotated[int, Field(ge=0)] = 42
    epochs: Annotated[int, Field(ge=1)] = 5
    batch: Annotated[int, Field(ge=1)] = 8
    accumulate: Annotated[int, Field(ge=1)] = 1
    lr: Annotated[float, Field(gt=0)] = 1e-3
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.5, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: Fraction = 0.0
    local_weight: Annotated[float, Field(ge=0)] = 4.0
    global_weight: Annotated[float, Field(ge=0)] = 1.0
    dice_weight: Annotated[float, Field(ge=0)] = 1.0
    names_weight: Annotated[float, Field(ge=0)] = 0.0
    loss_stride: Annotated[int, Field(ge=1)] = 1
    keep_close: Annotated[float, Field(ge=0)] = 0.0
    clip_grad: Annotated[float, Field(gt=0)] | None = None
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    checkpointing: bool = False
    held_out: tuple[Text, ...] = ()
    bad_images: Literal["skip", "stop"] = "skip"
    track: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ()
    workers: Annotated[int, Field(ge=0)] = 1
    save_every: Annotated[int, Field(ge=1)] = 100
    log_every: Annotated[int, Field(ge=1)] = 10
    backbone: Literal["copy", "reference"] = "copy"
    stored: Literal["float32", "float16"] = "float32"
    name: Text | None = None
    description: str = ""
    licence: str = ""
    data_licence: Text = "not stated"


def parse(kind: type[SomeSettings], raw: Mapping[str, Any], where: str = "settings") -> SomeSettings:
    """Build settings from plain values. Raises ConfigError naming the first field that is wrong."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = (
                ", ".join(sorted(kind.model_fields)) if len(first["loc"]) == 1 else "see the documentation"
            )
            raise ConfigError(f"{where}: unknown key {field!r}; known here: {known}") from error
        came = "" if first["type"] in ("missing", "value_error") else f", got {first['input']!r}"
        raise ConfigError(f"{where}: {field or 'value'}: {first['msg']}{came}") from error
