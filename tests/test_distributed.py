"""Several processes: two on the CPU, started by torchrun, learn what one learns from two batches a step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from labelled import labelled_tree
from safetensors.torch import load_file
from tiny import tiny_clip_folder, tiny_settings

from dapo.config import TrainingSettings
from dapo.errors import ConfigError, DependencyError
from dapo.learning import Progress, train
from dapo.learning.processes import Team, join, launched, precision_of
from dapo.learning.state import LOG

WORKER = """
import json, os, sys
import torch
from torch import distributed, nn
from tiny import tiny_settings
from dapo.config import TrainingSettings
from dapo.learning import train, trainer
from dapo.learning.processes import join, part

def settings(**changes):
    values = dict(detector=tiny_settings(), batch=4, workers=0, precision="fp32", log_every=1, **changes)
    return TrainingSettings(**values)

def report(name, value):
    with open(f"{out}/{name}-{rank}.json", "w") as file:
        json.dump(value, file)

what, out, tree, broken, model = sys.argv[1:]
rank = int(os.environ["RANK"])
if what == "learn":
    steps = []
    before = torch.get_rng_state()
    note = lambda progress: steps.append(progress.step)
    train(f"{out}/plain", data=tree, model=model, settings=settings(epochs=2), on_step=note)
    report("steps", steps)
    report("generator", bool(torch.equal(before, torch.get_rng_state())))
    both = settings(epochs=1, accumulate=2, clip_grad=1.0, ema=0.9)
    train(f"{out}/half", data=tree, model=model, settings=both, until=1)
    train(f"{out}/half", data=tree, model=model, settings=both, resume=True)
    skips = []
    note = lambda progress: skips.append(dict(progress.skipped))
    train(f"{out}/skips", data=broken, model=model, settings=settings(epochs=1), on_step=note)
    report("skips", skips and skips[-1])
    team, _ = join("cpu")
    a, b, c = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    a.grad = torch.full((2,), 1.0 + rank)
    if rank == 1:
        b.grad = torch.ones(2)
    counts = team.add_up([a, b, c], [rank, 5])
    names, own = team.collect({rank: "x"}), team.own(range(5))
    report("sums", [a.grad.tolist(), b.grad.tolist(), c.grad, counts, names, own])
    part()
    tasks = [f"/proc/self/task/{task}/comm" for task in os.listdir("/proc/self/task")]
    report("threads", [name for name in (open(task).read() for task in tasks) if "gloo" in name])
elif what == "break":
    gather = trainer.gather_gradients
    def breaks(*arguments):
        if rank == 1:
            raise ValueError("process 1 has a bug")
        return gather(*arguments)
    trainer.gather_gradients = breaks
    train(f"{out}/broken", data=tree, model=model, settings=settings())
"""

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def small(**changes: Any) -> TrainingSettings:
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


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_tree(tmp_path_factory.mktemp("data") / "parts")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """No cup can be read: whole batches, so that one process has nothing to learn from in a step."""
    tree = labelled_tree(tmp_path_factory.mktemp("data") / "parts")
    for path in (tree / "cup").rglob("test/*/*.png"):
        path.write_bytes(b"")
    return tree


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip_folder(tmp_path_factory.mktemp("clip") / "tiny")


def two_processes(*command: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    line = [*TORCHRUN, *(str(part) for part in command)]
    return subprocess.run(line, capture_output=True, text=True, env=environment, timeout=240, check=False)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, tree: Path, broken: Path, backbone: Path) -> Path:
    """What two processes wrote."""
    pytest.importorskip("accelerate")
    out = tmp_path_factory.mktemp("together")
    script = out / "worker.py"
    script.write_text(WORKER, encoding="utf-8")
    done = two_processes(script, "learn", out, tree, broken, backbone)
    assert done.returncode == 0, done.stderr[-4000:]
    return out


def assert_close(one: Path, two: Path) -> None:
    first, second = (load_file(folder / "model/model.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=1e-4, atol=1e-5)


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / LOG).read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(
    tmp_path: Path, together: Path, tree: Path, backbone: Path
) -> None:
    train(tmp_path, data=tree, model=backbone, settings=small(epochs=2, accumulate=2))
    assert_close(tmp_path, together / "plain")
    alone, shared = log(tmp_path), log(together / "plain")
    assert [row["step"] for row in shared] == [1, 2, 3, 4, 5, 6], "one process writes the log"
    for one, two in zip(alone, shared, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    recipe = json.loads((together / "plain/model/config.json").read_text(encoding="utf-8"))["recipe"]
    assert (recipe["batches_a_step"], recipe["batch"]) == (2, 4)


@pytest.mark.slow
def test_only_the_first_process_reports(together: Path) -> None:
    assert json.loads((together / "steps-0.json").read_text()) == [1, 2, 3, 4, 5, 6]
    assert json.loads((together / "steps-1.json").read_text()) == []
    assert all(json.loads((together / f"generator-{rank}.json").read_text()) for rank in (0, 1))


@pytest.mark.slow
def test_processes_times_accumulation_go_on_in_one_process(
    tmp_path: Path, together: Path, tree: Path, backbone: Path
) -> None:
    """2 processes x 2 batches, broken off after a step and gone on with, is 1 process x 4 batches."""
    settings = small(epochs=1, accumulate=4, clip_grad=1.0, ema=0.9)
    train(tmp_path, data=tree, model=backbone, settings=settings)
    assert_close(tmp_path, together / "half")
    ended = train(together / "half", data=tree, model=backbone, settings=settings, resume=True)
    assert ended == together / "half/model"
    with pytest.raises(ConfigError, match="batches a step = 4, this run asks for 2"):
        other = settings.model_copy(update={"accumulate": 2})
        train(together / "half", data=tree, model=backbone, settings=other, resume=True)


@pytest.mark.slow
def test_a_process_without_readable_images_waits_for_the_others(
    tmp_path: Path, together: Path, broken: Path, backbone: Path
) -> None:
    steps: list[Progress] = []
    settings = small(epochs=1, accumulate=2)
    train(tmp_path, data=broken, model=backbone, settings=settings, on_step=steps.append)
    assert_close(tmp_path, together / "skips")
    skipped = json.loads((together / "skips-0.json").read_text())
    assert len(skipped) == 6 and skipped == dict(steps[-1].skipped), "both processes' images are named"


@pytest.mark.slow
def test_gradients_are_added_up(together: Path) -> None:
    for rank in (0, 1):
        a, b, c, counts, names, own = json.loads((together / f"sums-{rank}.json").read_text())
        assert (a, b) == ([3.0, 3.0], [1.0, 1.0])
        assert c is None, "what takes part in no process keeps no gradient"
        assert counts == [1.0, 10.0]
        assert names == {"0": "x", "1": "x"}
        assert own == [[0, 2, 4], [1, 3]][rank]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_no_connection_outlives_the_run(together: Path) -> None:
    """One of their threads that the interpreter finds at its end aborts the process, once in 20 runs."""
    assert [json.loads((together / f"threads-{rank}.json").read_text()) for rank in (0, 1)] == [[], []]


@pytest.mark.slow
def test_one_failure_ends_all(tmp_path: Path, together: Path, tree: Path, backbone: Path) -> None:
    done = two_processes(together / "worker.py", "break", tmp_path, tree, tree, backbone)
    assert done.returncode != 0
    assert "process 1 has a bug" in done.stderr
    assert not (tmp_path / "broken/model").exists()


@pytest.mark.slow
def test_the_command_line_in_two_processes(tmp_path: Path, tree: Path, broken: Path, backbone: Path) -> None:
    pytest.importorskip("accelerate")
    facts = {"detector": tiny_settings().model_dump(mode="json"), "workers": 0, "epochs": 1, "batch": 4}
    (tmp_path / "tiny.yaml").write_text(json.dumps(facts), encoding="utf-8")  # JSON is YAML
    line = ["-m", "dapo", "train", "--model", backbone, "--config", tmp_path / "tiny.yaml", "--json"]
    done = two_processes(*line, "--data", tree, "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout)["steps"] == 3, "told once"
    stopped = two_processes(
        *line, "--data", broken, "--out", tmp_path / "b", "--set", "bad_images=stop", "--set", "batch=99"
    )
    assert stopped.returncode != 0
    assert "Training stopped" in stopped.stderr
    assert not (tmp_path / "b/model").exists()


def test_one_process_needs_no_package(
    tmp_path: Path, tree: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert train(tmp_path, data=tree, model=backbone, settings=small(epochs=1)).is_dir()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(DependencyError, match=r"accelerate.*pip install 'dapo\[train\]'"):
        join("cpu")


def test_who_is_who(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    assert launched() == Team() and launched().leads
    assert join("cpu") == (Team(), torch.device("cpu"))
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "2")
    assert launched() == Team(2, 3) and not launched().leads
    assert Team(2, 3).own(range(4, 12)) == [5, 8, 11]


def test_the_launcher_may_choose_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    assert precision_of("auto") == "auto"
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert (precision_of("auto"), precision_of("fp32")) == ("bf16", "fp32")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(ConfigError, match="fp16"):
        precision_of("auto")
