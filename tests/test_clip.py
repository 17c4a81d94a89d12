"""The towers equal Hugging Face's own forward pass, and deep tokens do what the method says."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_clip, tiny_clip_folder, tiny_config, tiny_tokenizer
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPConfig, CLIPModel

from dapo.errors import ModelError, VocabularyError
from dapo.model import towers
from dapo.model.clip import Clip, ClipConfig, Tokenizer, TowerConfig, build_clip, load_clip, save_clip
from dapo.model.towers import Stack
from dapo.model.weights import read_json, write_json

CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def twin(clip: Clip, folder: Path) -> CLIPModel:
    """The same weights in Hugging Face's implementation."""
    save_clip(clip, folder)
    model, info = CLIPModel.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_vision_equals_hugging_face(tmp_path: Path, attention: str) -> None:
    clip = tiny_clip().attention(attention)
    pixels = torch.randn(3, 3, 32, 32)
    theirs = twin(clip, tmp_path).vision_model(pixels, output_hidden_states=True)
    hidden, taps, inserted = clip.vision.hidden(pixels, taps=[1, 2, 3, 4])
    assert inserted == 0
    torch.testing.assert_close(hidden, theirs.last_hidden_state, **CLOSE)
    for ours, layer in zip(taps, theirs.hidden_states[1:], strict=True):
        torch.testing.assert_close(ours, layer[:, 1:], **CLOSE)
    seen = clip.vision(pixels)
    torch.testing.assert_close(seen.cls, clip.vision.projection(theirs.pooler_output), **CLOSE)
    torch.testing.assert_close(seen.patches, clip.vision.project(theirs.last_hidden_state)[:, 1:], **CLOSE)


@pytest.mark.parametrize("legacy", [False, True])
@torch.no_grad()
def test_text_equals_hugging_face_with_padding(tmp_path: Path, legacy: bool) -> None:
    clip = tiny_clip(**({"eos_token_id": 2} if legacy else {}))
    theirs = twin(clip, tmp_path)
    ids, mask = clip.tokenizer.encode(["scratch", "a long fine scratch on the part", "hole"], 77)
    assert mask.sum(1).tolist() == [3, 9, 3]
    out = theirs.text_model(ids, attention_mask=mask)
    hidden, _ = clip.text.hidden(clip.text.embed(ids), keep=mask.bool())
    torch.testing.assert_close(hidden, out.last_hidden_state, **CLOSE)
    torch.testing.assert_close(
        clip.text.encode_ids(ids, mask), theirs.text_projection(out.pooler_output), **CLOSE
    )
    if legacy:  # the highest id of the row, wherever it stands, not the EOS
        assert clip.text.eos_places(ids).tolist() == ids.argmax(1).tolist() != (mask.sum(1) - 1).tolist()
    else:
        assert clip.text.eos_places(ids).tolist() == (mask.sum(1) - 1).tolist()
        torch.testing.assert_close(
            clip.encode_phrases(["scratch", "a long fine scratch on the part", "hole"]),
            clip.text.encode_ids(ids, mask),
            **CLOSE,
        )


def test_round_trip_and_tokenizer_of_transformers(tmp_path: Path) -> None:
    clip = tiny_clip()
    save_clip(clip, tmp_path)
    again = load_clip(tmp_path)
    for (name, ours), (_, theirs) in zip(clip.state_dict().items(), again.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name
    texts = ["Scratch on the part", "zzz"]
    theirs = AutoTokenizer.from_pretrained(tmp_path)(texts, padding=True, return_tensors="pt")
    ids, mask = again.tokenizer.encode(texts, 77)
    assert torch.equal(ids, theirs.input_ids)
    assert torch.equal(mask, theirs.attention_mask)
    save_clip(again, tmp_path / "second", dtype=torch.float16)
    assert (tmp_path / "second/model.safetensors").stat().st_size < 0.6 * (
        tmp_path / "model.safetensors"
    ).stat().st_size
    assert load_clip(tmp_path / "second").vision.projection.weight.dtype == torch.float32


# Sizes other than the native one


@torch.no_grad()
def test_positions_are_resized_antialiased_or_cut_out() -> None:
    tower = tiny_clip().vision
    native = tower.position_embedding.weight[1:].view(4, 4, -1)
    assert torch.equal(tower.positions(2, 3, offset=(1, 0)), native[1:3, :3].flatten(0, 1))
    image = native.permute(2, 0, 1)[None]
    smaller = torch.nn.functional.interpolate(image, (2, 6), mode="bicubic", antialias=True)[0]
    torch.testing.assert_close(tower.positions(2, 6), smaller.flatten(1).T)
    with pytest.raises(ValueError, match="leaves the 4 x 4 grid"):
        tower.positions(2, 3, offset=(3, 0))


@torch.no_grad()
def test_any_rectangle_of_patches_and_nothing_else() -> None:
    tower = tiny_clip().vision
    out = tower(torch.randn(2, 3, 16, 48), taps=[4, 2])
    assert out.patches.shape == (2, 12, 12)
    assert [tap.shape for tap in out.taps] == [(2, 12, 24)] * 2
    torch.testing.assert_close(tower.project(out.taps[0]), out.patches, **CLOSE)
    with pytest.raises(ValueError, match="multiples of 8 px, got 16 x 47"):
        tower(torch.randn(1, 3, 16, 47))
    with pytest.raises(ValueError, match="from 1 to 4"):
        tower(torch.randn(1, 3, 16, 16), taps=[5])


# Deep tokens


class Recorder(nn.Module):
    """Stands in for a layer: remembers what came, adds a constant to every place."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.step, self.came = step, torch.empty(0)

    def forward(self, x: Tensor, mask: Tensor | None, attention: str) -> Tensor:
        self.came = x
        return x + self.step


def test_carry_over_by_hand() -> None:
    """Layers that add 10: what the token of layer 1 becomes is 0.25 * (1 + 10) + 0.75 * 2 = 4.25."""
    stack = Stack(TowerConfig(width=1, layers=4, heads=1, mlp=1))
    stack.layers = nn.ModuleList(Recorder(10.0) for _ in range(4))
    x = torch.tensor([[[100.0], [200.0]]])
    deep = torch.tensor([[[1.0]], [[2.0]]])
    kept, taps, inserted = stack(x, deep=deep, alpha=0.25, carry="keep", taps=[1, 4])
    came = [layer.came[0, :, 0].tolist() for layer in stack.layers]
    assert came == [[100, 1, 200], [110, 4.25, 210], [120, 14.25, 220], [130, 24.25, 230]]
    assert kept[0, :, 0].tolist() == [140, 34.25, 240]
    assert inserted == 1
    assert [tap[0, :, 0].tolist() for tap in taps] == [[210], [240]]  # patches only

    dropped, _, inserted = stack(x, deep=deep, alpha=0.25, carry="drop")
    assert [layer.came.shape[1] for layer in stack.layers] == [3, 3, 2, 2]
    assert dropped[0, :, 0].tolist() == [140, 240]
    assert inserted == 0

    stack(x, deep=deep, alpha=0.0, carry="keep")  # VPT-deep: replaced
    assert stack.layers[1].came[0, 1, 0] == 2
    stack(x, deep=deep, alpha=1.0, carry="keep")  # shallow: what flows on
    assert stack.layers[1].came[0, 1, 0] == 11
    with pytest.raises(ValueError, match="deep tokens for 5 layers"):
        stack(x, deep=torch.zeros(5, 1, 1), alpha=0.0, carry="keep")


@torch.no_grad()
def test_deep_tokens_take_no_position_and_stand_after_the_first() -> None:
    """They go in after the positions were added, and the words keep theirs."""
    clip = tiny_clip()
    seen: list[Tensor] = []
    clip.text.stack.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    words = clip.text.embed(torch.tensor([[2, 9, 10, 3]]))
    deep = torch.randn(1, 2, 16)
    clip.text(words, torch.tensor([3]), deep=deep)
    positions = clip.text.position_embedding.weight
    torch.testing.assert_close(seen[0][0, 0], words[0, 0] + positions[0])
    torch.testing.assert_close(seen[0][0, 1:3], deep[0])
    torch.testing.assert_close(seen[0][0, 3:], words[0, 1:] + positions[1:4])


@torch.no_grad()
def test_pooling_and_mask_settings() -> None:
    clip = tiny_clip()
    text, eos = clip.text, torch.tensor([4])
    words, deep = text.embed(torch.tensor([[2, 9, 10, 11, 3]])), torch.randn(3, 2, 16)
    hidden, inserted = text.hidden(words, deep=deep)
    assert hidden.shape == (1, 7, 16)
    assert inserted == 2
    torch.testing.assert_close(text(words, eos, deep=deep), text.project(hidden[:, 6]))
    torch.testing.assert_close(text(words, eos, deep=deep, pool="unshifted"), text.project(hidden[:, 4]))
    changed = words.clone()
    changed[0, 3] = words[0, 1]
    other, _ = text.hidden(changed, deep=deep)
    torch.testing.assert_close(other[:, :5], hidden[:, :5])  # causal: nothing before the change sees it
    full, _ = text.hidden(words, deep=deep, mask="full")
    full_changed, _ = text.hidden(changed, deep=deep, mask="full")
    assert ((full - full_changed).abs().amax(-1) > 1e-4).all()  # full: every place sees it
    drop, _ = text.hidden(words, deep=deep[:1], carry="drop")
    assert drop.shape == (1, 5, 16)


@pytest.mark.parametrize("mask", ["causal", "full"])
@torch.no_grad()
def test_padding_changes_nothing(mask: str) -> None:
    clip = tiny_clip()
    deep, eos = torch.randn(2, 2, 16), torch.tensor([3])
    words = clip.text.embed(torch.tensor([[2, 9, 10, 3]]))
    padded = torch.cat([words, torch.randn(1, 3, 16)], dim=1)
    short = clip.text(words, eos, deep=deep, mask=mask, lengths=eos + 1)
    torch.testing.assert_close(clip.text(padded, eos, deep=deep, mask=mask, lengths=eos + 1), short, **CLOSE)


# Value-value attention


@torch.no_grad()
def value_stream_by_hand(clip: Clip, pixels: Tensor, first: int) -> dict[int, Tensor]:
    """Head by head, patch by patch: y_i = y_(i-1) + out(softmax(v v^T / sqrt(width a head)) v)."""
    tower, heads = clip.vision, clip.config.vision.heads
    _, outputs, _ = tower.hidden(pixels, taps=[*range(1, clip.config.vision.layers + 1)])
    entering = {1: tower.embed(pixels)[:, 1:], **{i + 2: out for i, out in enumerate(outputs)}}
    stream, found = entering[first], {}
    for i in range(first, clip.config.vision.layers + 1):
        layer = tower.stack.layers[i - 1]
        values = layer.v(layer.norm1(entering[i]))
        mixed = torch.zeros_like(values)
        size = values.shape[-1] // heads
        for image, head in itertools.product(range(len(values)), range(heads)):
            v = values[image, :, head * size : (head + 1) * size]
            for patch in range(len(v)):
                alike = torch.exp((v @ v[patch]) / size**0.5)
                mixed[image, patch, head * size : (head + 1) * size] = (alike / alike.sum()) @ v
        stream = found[i] = stream + mixed @ layer.out.weight.T + layer.out.bias
    return found


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("taps", [(3, 1, 4), (2, 4), (4,), ()])
@torch.no_grad()
def test_value_value_attention_by_hand(taps: tuple[int, ...], attention: str) -> None:
    clip = tiny_clip().attention(attention)
    pixels = torch.randn(2, 3, 16, 32)
    expected = value_stream_by_hand(clip, pixels, min(taps, default=4))
    seen = clip.vision(pixels, taps=taps, patch_attention="value-value")
    plain = clip.vision(pixels, taps=taps)
    for tap, ours, theirs in zip(taps, seen.taps, plain.taps, strict=True):
        torch.testing.assert_close(ours, expected[tap], **CLOSE)
        assert not torch.allclose(ours, theirs, atol=1e-2)
    torch.testing.assert_close(seen.patches, clip.vision.project(expected[4]), **CLOSE)
    assert torch.equal(seen.cls, plain.cls), "the global feature stays CLIP's"


@torch.no_grad()
def test_value_value_attention_beside_deep_tokens() -> None:
    """The tokens act on CLIP's own stream, from which the values come, and are no keys of the second one."""
    clip = tiny_clip()
    pixels, deep = torch.randn(1, 3, 32, 32), torch.randn(2, 3, 24)
    plain = clip.vision(pixels, deep=deep, taps=[2, 4])
    seen = clip.vision(pixels, deep=deep, taps=[2, 4], patch_attention="value-value")
    assert torch.equal(seen.cls, plain.cls)
    assert [tap.shape for tap in seen.taps] == [(1, 16, 24)] * 2
    without = clip.vision(pixels, taps=[2, 4], patch_attention="value-value")
    assert not torch.allclose(seen.taps[0], without.taps[0], atol=1e-3)
    with pytest.raises(ValueError, match="from 1 to 4"):
        clip.vision(pixels, taps=[5], patch_attention="value-value")


def test_gradients_until_frozen() -> None:
    clip = tiny_clip().requires_grad_(True)
    out = clip.vision(torch.randn(1, 3, 32, 32), taps=[2])
    (
        out.cls.sum() + out.patches.sum() + out.taps[0].sum() + clip.encode_phrases(["scratch"]).sum()
    ).backward()
    without = [name for name, p in clip.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert without == ["logit_scale"]
    assert not any(p.requires_grad for p in clip.freeze().parameters())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_bf16_agrees(attention: str) -> None:
    clip = tiny_clip().attention(attention)
    pixels = torch.randn(2, 3, 32, 32)
    exact = clip.vision(pixels).patches
    with torch.autocast("cpu", torch.bfloat16):
        rough = clip.vision(pixels).patches.float()
    assert torch.nn.functional.cosine_similarity(exact, rough, dim=-1).min() > 0.999


# Tokenizers


def test_a_phrase_that_does_not_fit_is_refused_or_cut_keeping_eos() -> None:
    tokenizer = Tokenizer.wrap(tiny_tokenizer())
    with pytest.raises(
        VocabularyError, match=r"'a long fine scratch' takes 4 tokens, this model reads at most 3"
    ):
        tokenizer.encode(["a long fine scratch"], 5)
    ids, mask = tokenizer.encode(["a long fine scratch", "hole"], 5, truncate=True)
    assert ids[0].tolist() == [tokenizer.bos, *tokenizer.words("a long fine"), tokenizer.eos]
    assert ids[1].tolist() == [
        tokenizer.bos,
        *tokenizer.words("hole"),
        tokenizer.eos,
        tokenizer.pad,
        tokenizer.pad,
    ]
    assert mask.tolist() == [[1] * 5, [1, 1, 1, 0, 0]]


def test_byte_pair_tokenizer_of_two_files(tmp_path: Path) -> None:
    """vocab.json and merges.txt, as OpenAI's folders have them."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(f"{x}</w>" for x in letters), "ho", "hole</w>", "le</w>"]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    write_json(tmp_path / "vocab.json", {token: i for i, token in enumerate(tokens)})
    (tmp_path / "merges.txt").write_text("#version: 0.2\nh o\nl e</w>\nho le</w>\n")
    tokenizer = Tokenizer.load(tmp_path)
    ids, _ = tokenizer.encode(["Hole ab"], 77)
    assert [tokenizer.backend.id_to_token(i) for i in ids[0].tolist()] == [
        "<|startoftext|>", "hole</w>", "a", "b</w>", "<|endoftext|>"
    ]  # fmt: skip


# Folders


def test_half_of_old_configurations() -> None:
    """What transformers reads from a configuration that has the older spelling too."""
    raw = {
        "projection_dim": 768,
        "text_config": {"eos_token_id": 2},
        "text_config_dict": {"hidden_size": 768},
    }
    theirs = CLIPConfig(
        **{key: dict(value) if isinstance(value, dict) else value for key, value in raw.items()}
    )
    ours = ClipConfig.from_dict(raw)
    assert (ours.text.width, ours.eos_id, ours.dim) == (768, 49407, 768)
    assert (theirs.text_config.hidden_size, theirs.text_config.eos_token_id) == (768, 49407)
    assert ClipConfig.from_dict(ours.to_dict()) == ours
    assert ClipConfig.from_dict(CLIPConfig(**ours.to_dict()).to_dict()) == ours


def break_folder(folder: Path, what: str) -> None:
    """Damage a CLIP folder in one way."""
    config = folder / "config.json"
    weights = folder / "model.safetensors"
    raw = read_json(config)
    state = load_file(weights)
    if what == "no config":
        config.unlink()
    elif what == "no weights":
        weights.unlink()
    elif what == "pickle":
        weights.rename(folder / "pytorch_model.bin")
    elif what == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif what == "broken tokenizer":
        (folder / "tokenizer.json").write_text("{}")
    elif what == "not json":
        config.write_text("{")
    elif what == "other model":
        write_json(config, {**raw, "model_type": "siglip"})
    elif what == "other width":
        write_json(config, {**raw, "vision_config": {**raw["vision_config"], "hidden_size": 48}})
    elif what == "other eos":
        write_json(config, {**raw, "text_config": {**raw["text_config"], "eos_token_id": 7}})
    elif what == "garbage weights":
        weights.write_bytes(b"not tensors")
    elif what == "missing weight":
        state.pop("visual_projection.weight")
        save_file(state, weights)
    elif what == "foreign weight":
        save_file({**state, "classifier.weight": torch.zeros(1)}, weights)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("no config", r"expected the file .*config.json, which does not exist"),
        ("no weights", r"expected the weights file .*model.safetensors, which does not exist"),
        ("pickle", r"as a pickle \(pytorch_model.bin\).*dapo pull"),
        ("no tokenizer", r"has no tokenizer"),
        ("broken tokenizer", r"tokenizer.json is not a tokenizer"),
        ("not json", r"config.json is not readable JSON"),
        ("other model", r"model_type 'clip'\), got 'siglip'"),
        ("other width", r"has shape \(24,\), its configuration asks for \(48,\)"),
        ("other eos", r"ends a text with token 3 but the text tower expects 7"),
        ("garbage weights", r"is not a readable safetensors file"),
        ("missing weight", r"lacks weight 'visual_projection.weight'"),
        ("foreign weight", r"has a foreign weight 'classifier.weight'"),
    ],
)
def test_a_damaged_folder_is_named_in_one_sentence(tmp_path: Path, what: str, message: str) -> None:
    folder = tiny_clip_folder(tmp_path)
    break_folder(folder, what)
    with pytest.raises(ModelError, match=message) as caught:
        load_clip(folder)
    assert "\n" not in str(caught.value)


def test_sharded_weights_and_position_counters(tmp_path: Path) -> None:
    folder = tiny_clip_folder(tmp_path)
    state = load_file(folder / "model.safetensors")
    state["text_model.embeddings.position_ids"] = torch.arange(77)  # older files hold these
    names = sorted(state)
    shards = {"a.safetensors": names[:9], "b.safetensors": names[9:]}
    for shard, part in shards.items():
        save_file({name: state[name] for name in part}, folder / shard)
    places = {name: shard for shard, part in shards.items() for name in part}
    write_json(folder / "model.safetensors.index.json", {"weight_map": places})
    (folder / "model.safetensors").unlink()
    assert torch.equal(load_clip(folder).vision.class_embedding, tiny_clip().vision.class_embedding)


def test_no_such_folder_or_hub_id(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model folder"):
        load_clip(tmp_path / "nowhere")
    with pytest.raises(
        ModelError, match=r"neither a folder nor in the local cache.*dapo pull some-owner/some-clip"
    ):
        load_clip("some-owner/some-clip")


def test_tokenizer_of_another_model_is_refused() -> None:
    config = tiny_config(vocab_size=20)
    with pytest.raises(ModelError, match="belong to different models"):
        build_clip(config, tiny_tokenizer())


@pytest.mark.parametrize("masked", ["no", "one for all", "one an image"])
def test_attention_a_few_images_at_a_time_is_attention(masked: str) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 5, 2, 7, 4)
    causal = torch.ones(7, 7, dtype=torch.bool).tril()
    keys = torch.arange(7) < torch.tensor([7, 3, 5, 1, 6])[:, None]
    mask = {"no": None, "one for all": causal, "one an image": keys[:, None, None, :] & causal}[masked]
    whole = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert torch.allclose(towers._attended(q, k, v, mask), whole, atol=1e-6)
    for few in (1, 2, 4):
        assert torch.allclose(towers._attended_by(few, q, k, v, mask), whole, atol=1e-6)
