"""Training: what is learned, what stays frozen, and runs that go on to the same bits, even after kill -9."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from labelled import labelled_tree
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save
from tiny import tiny_clip, tiny_clip_folder, tiny_detector, tiny_model_folder, tiny_settings

import dapo
from dapo.config import DetectorSettings, GeneratedSettings, PromptSettings, TrainingSettings
from dapo.data import Sample, read_folder
from dapo.errors import ConfigError, DataError, ModelError
from dapo.learning import Progress, train
from dapo.learning.examples import Batch, Generated, Labelled, batches, class_map
from dapo.learning.losses import IGNORE
from dapo.learning.state import LOG, STATE
from dapo.learning.trainer import closeness, gather_gradients, handwritten_on, open_source, rate_at
from dapo.model.artifact import load
from dapo.model.clip import load_clip, save_clip
from dapo.model.detector import Detector
from dapo.pretraining.lexicon import Lexicon
from dapo.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_tree(tmp_path_factory.mktemp("data") / "parts")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip_folder(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def spelling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backbone with room for words its tokenizer has to spell."""
    folder = tmp_path_factory.mktemp("clip") / "spelling"
    save_clip(tiny_clip(max_position_embeddings=160), folder)
    return folder


def small(**changes: Any) -> TrainingSettings:
    """Quick and exact: one process, single precision, a tiny detector."""
    return TrainingSettings(
        **{
            "detector": tiny_settings(),
            "batch": 4,
            "workers": 0,
            "precision": "fp32",
            "log_every": 1,
            **changes,
        }
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: Path, two: Path) -> bool:
    """Bit for bit."""
    first, second = weights(one), weights(two)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / LOG).read_text(encoding="utf-8").splitlines()]


def test_it_learns(tmp_path: Path, tree: Path, backbone: Path) -> None:
    """On flaws that a colour gives away, the map of the trained model stands out where they are."""
    losses: list[float] = []
    folder = train(
        tmp_path,
        data=tree,
        model=backbone,
        settings=small(epochs=25, lr=1e-2),
        on_step=lambda progress: losses.append(progress.losses["loss"]),
    )
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    inspector = dapo.Inspector.from_pretrained(folder, precision="fp32")
    for sample in read_folder(tree, splits=("test",)):
        if sample.defective:
            result = inspector.inspect(sample.image)
            mask = sample.load_mask(result.height, result.width)
            assert mask is not None
            assert result.anomaly_map[mask].mean() > result.anomaly_map[~mask].mean() + 0.1


def test_the_published_method_is_the_default() -> None:
    settings = TrainingSettings()
    assert (settings.lr, settings.betas, settings.batch, settings.epochs, settings.seed) == (
        1e-3,
        (0.5, 0.999),
        8,
        5,
        42,
    )
    assert (settings.local_weight, settings.global_weight, settings.weight_decay) == (4, 1, 0)
    assert settings.schedule == "constant"
    assert not (settings.keep_close or settings.ema or settings.clip_grad or settings.warmup)


def test_the_backbone_stays_as_it_was(tmp_path: Path, tree: Path, backbone: Path) -> None:
    folder = train(tmp_path, data=tree, model=backbone, settings=small(epochs=2))
    before, after = (
        load_file(backbone / "model.safetensors"),
        load_file(folder / "backbone/model.safetensors"),
    )
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    detector = Detector(tiny_clip(), tiny_settings())
    assert set(weights(folder)) == set(detector.learned_state())


def test_frozen_parts_carry_no_gradient_and_are_not_saved(
    tmp_path: Path, tree: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dapo.learning import trainer

    seen: list[Detector] = []

    def watched(detector: Detector, *arguments: Any, **named: Any) -> Path:
        seen.append(detector)
        return saved(detector, *arguments, **named)

    saved = trainer.save
    monkeypatch.setattr(trainer, "save", watched)
    settings = small(epochs=2, accumulate=2, ema=0.9, keep_close=1.0)
    train(tmp_path, data=tree, model=backbone, settings=settings)
    before = load_clip(backbone).state_dict()
    after = seen[0].clip.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None and not p.requires_grad for p in seen[0].clip.parameters())
    learned = set(seen[0].learned_state())
    stored = load_file(tmp_path / STATE)
    assert {name.partition(".")[2] for name in stored if not name.startswith("adam.")} == learned
    assert len({name.split(".")[1] for name in stored if name.startswith("adam.")}) == len(learned)


def test_every_learned_tensor_moves_and_the_backbone_has_no_gradient(tree: Path) -> None:
    from dapo.learning.trainer import step_losses

    detector = Detector(tiny_clip(), tiny_settings()).train()
    settings = small()
    batch = open_source(tree, settings, detector).batch(0)
    step_losses(detector, batch, settings)["loss"].backward()
    for name, parameter in detector.named_parameters():
        if name.startswith("clip."):
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("accumulate", [1, 2])  # 5 batches an epoch: no step goes over its end
def test_two_epochs_and_two_are_four(tmp_path: Path, tree: Path, backbone: Path, accumulate: int) -> None:
    two, four = (small(epochs=epochs, ema=0.9, accumulate=accumulate) for epochs in (2, 4))
    straight = train(tmp_path / "a", data=tree, model=backbone, settings=four)
    train(tmp_path / "b", data=tree, model=backbone, settings=two)
    resumed = train(tmp_path / "b", data=tree, model=backbone, settings=four, resume=True)
    assert same(straight, resumed)
    recipe = load(resumed)[1].config.recipe
    assert (recipe["steps"], recipe["batches_a_step"]) == ({1: 20, 2: 12}[accumulate], accumulate)
    numbers = [row["step"] for row in rows(tmp_path / "b")]
    assert numbers == list(range(1, len(numbers) + 1))
    losses = [[row["loss"] for row in rows(tmp_path / name)] for name in "ab"]
    assert losses[0] == losses[1]


def gradients(detector: Detector, parts: list[Batch], **changes: Any) -> dict[str, torch.Tensor]:
    detector.zero_grad()
    gather_gradients(detector, parts, small(**changes), None)
    return {name: p.grad.clone() for name, p in detector.named_parameters() if p.grad is not None}


def test_batches_accumulate_to_the_gradient_of_one_large_batch(tree: Path) -> None:
    detector = tiny_detector().train()
    whole = open_source(tree / "cup", small(batch=6), detector).batch(0)
    parts = [
        replace(whole, pixels=whole.pixels[i], labels=whole.labels[i], defective=whole.defective[i])
        for i in (slice(0, 2), slice(2, 4), slice(4, 6))
    ]
    one, three = gradients(detector, [whole]), gradients(detector, parts)
    for name, gradient in one.items():
        torch.testing.assert_close(three[name] / 3, gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("share", [1, 2, 3, 5, 9])
def test_steps_cover_every_batch_once_an_epoch(tree: Path, share: int) -> None:
    source = labelled(read_folder(tree, splits=("test",)))
    numbers = [list(source.numbers(step, share)) for step in range(source.steps(3, share))]
    assert [n for step in numbers for n in step] == list(range(15))
    assert all(len({n // 5 for n in step}) == 1 for step in numbers), "no step goes over the end of an epoch"


def test_checkpointing_gives_the_same_gradients(tree: Path) -> None:
    """And it does compute each layer twice, which is how it saves memory."""
    detector = tiny_detector().train()
    batch = open_source(tree, small(), detector).batch(0)
    stacks = (detector.clip.text.stack, detector.clip.vision.stack)
    runs = list[int]()
    for stack in stacks:
        stack.layers[0].norm1.register_forward_hook(lambda *_: runs.append(1))
    kept = gradients(detector, [batch])
    assert len(runs) == 2
    for stack in stacks:
        stack.checkpointing = True
    again = gradients(detector, [batch])
    assert len(runs) == 6
    assert kept.keys() == again.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(again[name], gradient, rtol=0, atol=1e-6)
    with torch.no_grad():
        detector(batch.pixels, batch.vocabulary)
    assert len(runs) == 8, "not where nothing is learned"


def test_checkpointing_is_a_setting(tmp_path: Path, tree: Path, backbone: Path) -> None:
    kept = train(tmp_path / "a", data=tree, model=backbone, settings=small(epochs=1))
    again = train(tmp_path / "b", data=tree, model=backbone, settings=small(epochs=1, checkpointing=True))
    first, second = weights(kept), weights(again)
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-5, atol=1e-6)


def test_generated_scenes_go_on_to_the_same_bits(tmp_path: Path, spelling: Path) -> None:
    settings = small(
        generated=GeneratedSettings(samples=24, names=(2, 4)),
        schedule="cosine",
        keep_close=1.0,
        clip_grad=1.0,
    )
    straight = train(tmp_path / "a", model=spelling, settings=settings)
    train(tmp_path / "b", model=spelling, settings=settings, until=3)
    resumed = train(tmp_path / "b", model=spelling, settings=settings, resume=True)
    assert same(straight, resumed)
    assert [row["step"] for row in rows(tmp_path / "b")] == [1, 2, 3, 4, 5, 6]
    assert all(row["close"] >= 0 for row in rows(tmp_path / "b"))
    again = train(tmp_path / "b", model=spelling, settings=settings, resume=True)  # it had ended
    assert same(straight, again)


KILLED = """
import sys
from tiny import tiny_settings
from dapo.config import TrainingSettings
from dapo.learning import train
out, tree, model, accumulate = sys.argv[1:]
settings = TrainingSettings(
    detector=tiny_settings(), batch=4, workers=0, precision="fp32", epochs=400, save_every=2, log_every=1,
    accumulate=int(accumulate),
)
train(out, data=tree, model=model, settings=settings, on_step=lambda p: print(p.step, flush=True))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
@pytest.mark.parametrize(("moment", "accumulate"), [(5, 1), (4, 3)])
def test_kill_9_loses_no_more_than_save_every(
    tmp_path: Path, tree: Path, backbone: Path, moment: int, accumulate: int
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "b"), str(tree), str(backbone)]
    command.append(str(accumulate))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= moment:
                process.kill()
                break
        reached = max([moment, *(int(line) for line in process.stdout.read().split())])
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "b" / "model").exists()  # nothing half-written to load

    per_epoch = -(-5 // accumulate)  # plate: 9 images in 3 batches, cup: 6 in 2
    until = per_epoch * (reached // per_epoch + 2)
    steps: list[Progress] = []
    settings = small(epochs=until // per_epoch, accumulate=accumulate)
    resumed = train(
        tmp_path / "b", data=tree, model=backbone, settings=settings, resume=True, on_step=steps.append
    )
    assert reached - 2 <= steps[0].step - 1 <= reached + 2  # what may be saved after the last line was read
    assert same(train(tmp_path / "a", data=tree, model=backbone, settings=settings), resumed)
    assert [row["step"] for row in rows(tmp_path / "b")] == list(range(1, until + 1))


def test_a_state_cut_short_while_writing_is_not_read(tmp_path: Path, tree: Path, backbone: Path) -> None:
    settings = small(epochs=2)
    straight = train(tmp_path / "a", data=tree, model=backbone, settings=settings)
    train(tmp_path / "b", data=tree, model=backbone, settings=settings, until=4)
    whole = (tmp_path / "b" / STATE).read_bytes()
    (tmp_path / "b" / f"{STATE}.part").write_bytes(whole[: len(whole) // 2])
    with (tmp_path / "b" / LOG).open("a") as log:
        log.write('{"step": 5, "lo')
    assert same(straight, train(tmp_path / "b", data=tree, model=backbone, settings=settings, resume=True))
    (tmp_path / "b" / STATE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="begin again"):
        train(tmp_path / "b", data=tree, model=backbone, settings=settings, resume=True)


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def half(_: Any, path: Path, **__: Any) -> None:
    path.write_bytes(b"half")
    full()


def no_new_state(source: Path, target: Path) -> None:
    if target.name == STATE:
        full()
    shutil.move(source, target)


@pytest.mark.parametrize(
    ("place", "failure"),
    [
        ("dapo.model.weights.save_file", half),
        ("dapo.whole.os.replace", no_new_state),
        ("dapo.whole.os.replace", full),
        ("dapo.model.artifact.write_tensors", full),
        ("dapo.model.artifact.save_clip", full),
        ("dapo.model.artifact.write_json", full),
    ],
)
def test_a_full_disk_loses_nothing(
    tmp_path: Path, tree: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch, place: str, failure: Any
) -> None:
    """The older state stays, no model folder appears, and the run goes on to the same bits."""
    settings = small(epochs=1)
    out = tmp_path / "out"
    train(out, data=tree, model=backbone, settings=settings, until=2)
    before = (out / STATE).read_bytes()
    shutil.rmtree(out / "model")
    with monkeypatch.context() as patch:
        patch.setattr(place, failure)
        with pytest.raises(ModelError, match=r"No space left.*--resume"):
            train(out, data=tree, model=backbone, settings=settings, resume=True)
    assert place.startswith("dapo.model") or (out / STATE).read_bytes() == before
    assert {path.name for path in out.iterdir()} == {STATE, LOG}, "nothing half-written lies about"
    with pytest.raises(ModelError):
        load(out / "model")
    resumed = train(out, data=tree, model=backbone, settings=settings, resume=True)
    assert same(resumed, train(tmp_path / "a", data=tree, model=backbone, settings=settings))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_log_that_cannot_be_written_stops_the_run(tmp_path: Path, tree: Path, backbone: Path) -> None:
    (tmp_path / LOG).symlink_to("/dev/full")
    with pytest.raises(ModelError, match=r"the log of step 1 .*No space left"):
        train(tmp_path, data=tree, model=backbone, settings=small())


def test_a_model_replaced_by_halves_cannot_be_loaded(
    tmp_path: Path, tree: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(tmp_path, data=tree, model=backbone, settings=small(epochs=1))
    replace, done = os.replace, list[Path]()

    def fails_at_the_third(source: Path, target: Path) -> None:
        if Path(target).is_relative_to(folder):
            done.append(target)
            if len(done) == 3:
                full()
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails_at_the_third)
    with pytest.raises(ModelError, match="No space left"):
        train(tmp_path, data=tree, model=backbone, settings=small(epochs=2), resume=True)
    with pytest.raises(ModelError, match="incomplete"):
        load(folder)
    monkeypatch.undo()
    load(train(tmp_path, data=tree, model=backbone, settings=small(epochs=2), resume=True))


def test_a_corrupt_state_is_named(tmp_path: Path, tree: Path, backbone: Path) -> None:
    train(tmp_path, data=tree, model=backbone, settings=small(epochs=1), until=2)
    path = tmp_path / STATE
    whole, tensors = path.read_bytes(), load_file(path)
    with safe_open(path, framework="pt") as file:
        words = file.metadata()
    name = "learned.vision_deep"
    lacking = save({key: value for key, value in tensors.items() if key != name}, words)
    misshapen = save({**tensors, name: tensors[name][:1].contiguous()}, words)
    cases = {
        b"": "begin again",
        whole[:-5]: "begin again",
        b"x" * 500: "begin again",
        save(tensors): "begin again",  # some other safetensors file
        lacking: "vision_deep",
        misshapen: "vision_deep",
    }
    for content, word in cases.items():
        path.write_bytes(content)
        with pytest.raises(ModelError, match=word):
            train(tmp_path, data=tree, model=backbone, settings=small(epochs=1), resume=True)


def test_a_truncated_model_folder_is_named(tmp_path: Path, tree: Path, backbone: Path) -> None:
    folder = train(tmp_path / "run", data=tree, model=backbone, settings=small(epochs=1), until=1)
    needed = ("config.json", "model.safetensors", "backbone/config.json", "backbone/model.safetensors")
    for number, name in enumerate(needed):
        for cut in (None, 0, 60):
            copy = tmp_path / f"{number}-{cut}"
            shutil.copytree(folder, copy)
            if cut is None:
                (copy / name).unlink()
            else:
                (copy / name).write_bytes((folder / name).read_bytes()[:cut])
            with pytest.raises(ModelError, match=Path(name).name):
                train(tmp_path / "b", data=tree, model=copy, settings=small())


def test_another_backbone_is_refused_by_the_first_field_that_differs(tmp_path: Path, tree: Path) -> None:
    clip = tiny_clip_folder(tmp_path / "clip")
    settings = small(backbone="reference", stored="float16")
    folder = train(tmp_path / "run", data=tree, model=clip, settings=settings, until=1)
    load(folder)
    save_clip(load_clip(clip), clip, dtype=torch.float16)  # the same weights, stored shorter
    load(folder)
    tiny_clip_folder(clip, seed=1)
    with pytest.raises(ModelError, match=r"backbone with weights = \w+, but its backbone .* has \w+"):
        load(folder)
    save_clip(tiny_clip(max_position_embeddings=160), clip)
    with pytest.raises(ModelError, match=r"max_length = 77, .* has 160"):
        load(folder)
    tampered = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tampered["learned_on"]["vision.width"] = 1024
    (folder / "config.json").write_text(json.dumps(tampered), encoding="utf-8")
    tiny_clip_folder(clip)
    with pytest.raises(ModelError, match=r"vision\.width = 1024, .* has 24"):
        load(folder)


def test_a_run_is_not_mixed_with_another(tmp_path: Path, tree: Path, backbone: Path) -> None:
    train(tmp_path, data=tree, model=backbone, settings=small(epochs=1))
    with pytest.raises(ConfigError, match="--resume"):
        train(tmp_path, data=tree, model=backbone, settings=small(epochs=1))
    for changed in (small(lr=0.5), small(seed=7), small(detector=tiny_settings(tau=0.5))):
        with pytest.raises(ConfigError, match=r"(lr|seed|detector) = "):
            train(tmp_path, data=tree, model=backbone, settings=changed, resume=True)
    other = tiny_clip_folder(tmp_path / "other", seed=1)
    with pytest.raises(ConfigError, match="backbone"):
        train(tmp_path, data=tree, model=other, settings=small(epochs=2), resume=True)
    (tree / "cup/test/good/extra.png").write_bytes((tree / "cup/test/good/0.png").read_bytes())
    try:
        with pytest.raises(ConfigError, match="data"):
            train(tmp_path, data=tree, model=backbone, settings=small(epochs=2), resume=True)
    finally:
        (tree / "cup/test/good/extra.png").unlink()


def test_a_seed_is_a_run(tmp_path: Path, tree: Path, backbone: Path) -> None:
    generator = torch.get_rng_state()
    one = train(tmp_path / "a", data=tree, model=backbone, settings=small(epochs=1))
    assert torch.equal(generator, torch.get_rng_state()), "the caller's generator is left alone"
    torch.rand(3)
    assert same(one, train(tmp_path / "b", data=tree, model=backbone, settings=small(epochs=1)))
    assert not same(one, train(tmp_path / "c", data=tree, model=backbone, settings=small(epochs=1, seed=1)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_worker_processes_change_nothing(tmp_path: Path, tree: Path, backbone: Path) -> None:
    here = train(tmp_path / "a", data=tree, model=backbone, settings=small(epochs=1))
    assert same(here, train(tmp_path / "b", data=tree, model=backbone, settings=small(epochs=1, workers=2)))


def test_a_corrupt_image_is_named_counted_and_skipped(tmp_path: Path, backbone: Path) -> None:
    tree = labelled_tree(tmp_path / "data")
    broken = tree / "plate/test/scratch/1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    steps: list[Progress] = []
    folder = train(tmp_path / "a", data=tree, model=backbone, settings=small(epochs=2), on_step=steps.append)
    assert list(steps[-1].skipped) == [str(broken)]
    assert rows(tmp_path / "a")[-1]["skipped"] == 1
    assert weights(folder)
    with pytest.raises(DataError, match=r"scratch/1\.png"):
        train(tmp_path / "b", data=tree, model=backbone, settings=small(bad_images="stop"))
    for path in (tree / "cup").rglob("test/*/*.png"):  # batches without any image left
        path.write_bytes(b"")
    train(tmp_path / "c", data=tree, model=backbone, settings=small(epochs=1), on_step=steps.append)
    assert len(steps[-1].skipped) == 7


def test_a_lost_run_says_so(tmp_path: Path, tree: Path, backbone: Path) -> None:
    with pytest.raises(ConfigError, match="lower lr"):
        train(tmp_path, data=tree, model=backbone, settings=small(lr=1e30))


def test_nothing_to_learn_from_or_with(tmp_path: Path, tree: Path, backbone: Path) -> None:
    good = [sample for sample in read_folder(tree, splits=("test",)) if not sample.defective]
    with pytest.raises(DataError, match="all 6 are good"):
        train(tmp_path, data=good, model=backbone, settings=small())
    with pytest.raises(ConfigError, match="nothing is left to learn"):
        train(tmp_path, data=tree, model=backbone, settings=small(detector=DetectorSettings.training_free()))
    with pytest.raises(ConfigError, match="holds none"):
        generated = GeneratedSettings(textures=str(tree))
        train(tmp_path, model=backbone, settings=small(generated=generated))
    with pytest.raises(ConfigError, match="lrr"):
        train(tmp_path, data=tree, model=backbone, settings={"lrr": 1})


def test_what_is_learned_by_default(tmp_path: Path, tree: Path, backbone: Path) -> None:
    """The published method on a plain CLIP; a model folder's own settings, and its weights on request."""
    folder = tiny_model_folder(tmp_path / "m", tau=0.2)
    before = weights(folder)
    settings = small(detector=None, start="model")
    detector, info = load(train(tmp_path / "a", data=tree, model=folder, settings=settings, until=0))
    assert detector.settings.tau == 0.2
    assert all(torch.equal(tensor, before[name]) for name, tensor in detector.learned_state().items())
    assert info.config.defects == ("pin hole", "scratch", "stain")

    plain = small(detector=None)
    detector, info = load(train(tmp_path / "b", data=tree, model=backbone, settings=plain, until=0))
    assert detector.settings == DetectorSettings(side=None)  # 518 px are no multiple of this patch
    assert info.config.seed == 42
    assert info.config.training_data[0].name == "parts"
    with pytest.raises(ModelError, match="start"):
        train(tmp_path / "c", data=tree, model=backbone, settings=small(start="model"))


def test_the_saved_model(tmp_path: Path, tree: Path, backbone: Path) -> None:
    settings = small(stored="float16", backbone="reference", name="mine", data_licence="CC0")
    folder = train(tmp_path, data=tree, model=backbone, settings=settings, until=1)
    assert not (folder / "backbone").exists()
    assert all(tensor.dtype == torch.float16 for tensor in weights(folder).values())
    detector, info = load(folder)
    assert info.config.backbone == str(backbone)
    assert "mine" in (folder / "README.md").read_text(encoding="utf-8")
    assert "CC0" in (folder / "README.md").read_text(encoding="utf-8")
    assert detector.text_features(Vocabulary.of("a name nobody taught, hole")).shape == (3, 12)


def test_keep_close_keeps_close(tmp_path: Path, tree: Path, backbone: Path) -> None:
    prompts = PromptSettings(groups=2, context=3, context_init="words", context_words="a photo of")
    detector = tiny_settings(prompts=prompts)
    words, distances = Vocabulary.of(["scratch", "pin hole", "stain"]), []
    for weight in (0.0, 30.0):
        settings = small(epochs=20, lr=1e-2, detector=detector, keep_close=weight)
        trained, _ = load(train(tmp_path / str(weight), data=tree, model=backbone, settings=settings))
        with torch.no_grad():
            states = trained.text_features(words)
            distances.append(float(closeness(states, handwritten_on(trained.clip), words)))
    assert distances[1] < 0.7 * distances[0]


def test_rates() -> None:
    constant, linear = small(), small(schedule="linear", warmup=0.2)
    cosine = small(schedule="cosine")
    assert [rate_at(x, constant) for x in (0, 0.5, 0.99)] == [1, 1, 1]
    assert rate_at(0, linear) < 0.01 and rate_at(0.2, linear) == 1
    assert rate_at(0.6, linear) == pytest.approx(0.5)
    assert rate_at(0, cosine) == 1 and rate_at(0.5, cosine) == pytest.approx(0.5)
    assert rate_at(1, cosine) == pytest.approx(0)


def labelled(samples: Any, **changes: Any) -> Labelled:
    return Labelled(samples, **{"name": "parts", "batch": 4, "seed": 3, "side": 32, "patch": 8, **changes})


def test_an_epoch_shows_every_image_once_and_one_product_a_batch(tree: Path) -> None:
    samples = read_folder(tree, splits=("test",))
    source = labelled(samples)
    for epoch in (0, 1):
        plan = source._plan(epoch)
        assert sorted(s.image for batch in plan for s in batch) == sorted(s.image for s in samples)
        assert all(len({s.product for s in batch}) == 1 and len(batch) <= 4 for batch in plan)
        assert len(plan) == source.steps(1, 1)
    assert source._plan(0) != source._plan(1) != labelled(samples, seed=4)._plan(1)


def test_batches_come_by_number(tree: Path) -> None:
    samples = read_folder(tree, splits=("test",))
    in_order = list(batches(labelled(samples), range(10), workers=0))
    for number in (9, 0, 5):
        alone = labelled(samples).batch(number)
        assert torch.equal(alone.pixels, in_order[number].pixels)
        assert torch.equal(alone.labels, in_order[number].labels)
        assert alone.vocabulary == in_order[number].vocabulary
    for batch in in_order:
        assert batch.vocabulary.names in (("pin_hole", "scratch"), ("stain",))
        assert all("_" not in defect.phrases[0] for defect in batch.vocabulary)
        assert torch.equal((batch.labels > 0).flatten(1).any(1), batch.defective)


def test_labels_of_images_without_masks_are_unknown(tree: Path) -> None:
    sample = read_folder(tree / "cup", splits=("test",))[-1]
    bare = Sample(sample.image, sample.product, sample.types, None, "test")
    batch = labelled([bare]).batch(0)
    assert bool((batch.labels == IGNORE).all()) and bool(batch.defective[0])


def test_types_that_were_not_drawn_apart_are_unknown_inside_their_mask(tree: Path) -> None:
    sample = read_folder(tree / "cup", splits=("test",))[-1]
    mask = sample.masks["stain"] if sample.masks else None
    joint = replace(sample, types=("stain", "scratch"), masks=None, joint=mask)
    labels, apart = labelled([joint]).batch(0).labels, labelled([sample]).batch(0).labels
    assert torch.equal(labels == IGNORE, apart == 1)
    assert torch.equal(labels == 0, apart == 0)


def test_held_out_types_are_not_learned_from(tmp_path: Path, tree: Path, backbone: Path) -> None:
    samples = read_folder(tree, splits=("test",))
    settings = small(epochs=1, held_out=("pin hole", "stain"))
    folder = train(tmp_path / "a", data=tree, model=backbone, settings=settings)
    config = load(folder)[1].config
    assert config.defects == ("scratch",)
    assert config.recipe["held_out"] == ["pin hole", "stain"]
    assert config.training_data[0].note.startswith("9 images")  # 3 scratches, 3 + 3 good ones
    both = replace(samples[-1], types=("scratch", "stain"))
    kept = [s for own in labelled([*samples, both], held_out=["pin_hole"]).products.values() for s in own]
    assert both in kept and not any("pin_hole" in s.types for s in kept)
    with pytest.raises(DataError, match=r"held_out .*pin hole, scratch, stain.*dent"):
        labelled(samples, held_out=["stain", "dent"])
    with pytest.raises(DataError, match="Hold out fewer"):
        labelled(samples, held_out=["pin hole", "scratch", "stain"])
    with pytest.raises(ConfigError, match="generated"):
        train(tmp_path / "b", model=backbone, settings=small(held_out=("stain",)))


@pytest.mark.parametrize(
    ("licence", "said"), [("CC BY-NC-SA 4.0", True), ("non-commercial", True), ("CC BY 4.0", False)]
)
def test_the_card_says_what_may_not_be_sold(
    tmp_path: Path, tree: Path, backbone: Path, licence: str, said: bool
) -> None:
    settings = small(data_licence=licence)
    folder = train(tmp_path, data=tree, data_name="Parts", model=backbone, settings=settings, until=0)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"Parts: {licence} (15 images, 2 products" in card
    assert ("not for commercial use" in card) == said


def test_images_of_other_shapes_share_a_batch(tmp_path: Path) -> None:
    tree = labelled_tree(tmp_path / "a", size=(40, 80))
    wide = read_folder(tree, products=["cup"], splits=("test",))
    square = read_folder(labelled_tree(tmp_path / "b"), products=["cup"], splits=("test",))
    batch = labelled([*wide, *square], batch=12, fit="aspect").batch(0)
    assert batch.pixels.shape[0] == 12 and batch.pixels.shape[2:] == batch.labels.shape[1:]
    assert torch.equal((batch.labels > 0).flatten(1).any(1), batch.defective)


def test_a_class_map_gives_a_pixel_to_what_covers_most_of_it() -> None:
    thin, block = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    thin[:, 3] = True  # half of the second of four columns
    block[4:, 4:] = True
    block[4:, 2:4] = True
    labels = class_map({1: thin, 2: block}, 4, 4)
    assert labels.tolist() == [[0, 1, 0, 0], [0, 1, 0, 0], [0, 2, 2, 2], [0, 2, 2, 2]]
    assert not class_map({1: np.eye(40, dtype=bool)}, 4, 4).any()  # a tenth of each pixel


def test_generated_batches_speak_of_what_they_show() -> None:
    lexicon = Lexicon.builtin()
    taught = {phrase for type_id in lexicon.ids for phrase in lexicon.train_phrases(type_id)}
    source = Generated(GeneratedSettings(names=(3, 6)), batch=16, seed=1, side=32)
    seen: set[str] = set()
    for number in range(4):
        batch = source.batch(number)
        assert 3 <= len(batch.vocabulary) <= 6
        assert set(batch.vocabulary.names) <= taught
        assert int(batch.labels.max()) <= len(batch.vocabulary)
        assert torch.equal((batch.labels > 0).flatten(1).any(1), batch.defective)
        assert float(batch.pixels.min()) >= 0 and float(batch.pixels.max()) <= 1
        seen |= set(batch.vocabulary.names)
    assert len(seen) > 6
    again = Generated(GeneratedSettings(names=(3, 6)), batch=16, seed=1, side=32).batch(3)
    assert torch.equal(again.pixels, batch.pixels) and again.vocabulary == batch.vocabulary
    other = Generated(GeneratedSettings(names=(3, 6)), batch=16, seed=2, side=32).batch(3)
    assert not torch.equal(other.pixels, batch.pixels)


def test_textures_are_used_and_named(tmp_path: Path, spelling: Path) -> None:
    (tmp_path / "textures/slate").mkdir(parents=True)
    Image.effect_noise((96, 96), 40).convert("RGB").save(tmp_path / "textures/slate/1.jpg")
    generated = GeneratedSettings(samples=8, names=(2, 3), textures=str(tmp_path / "textures"))
    folder = train(tmp_path / "a", model=spelling, settings=small(generated=generated))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["training_data"][0]["note"] == "1 real textures as surfaces: not stated"
    assert str(tmp_path) not in json.dumps(config), "a model does not tell where it was made"
    assert config["defects"] is None
