"""Trackers: what each package is told, by stand-ins of all three, and by the real ones where they are."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from labelled import labelled_tree
from tiny import tiny_clip_folder, tiny_settings

from dapo.cli.options import TRACKERS as NAMES
from dapo.config import TrainingSettings
from dapo.errors import ConfigError, DependencyError
from dapo.learning import train
from dapo.learning.state import LOG
from dapo.learning.trackers import TRACKERS, flat

VALUES = {"loss", "local", "global", "lr", "images_per_second", "skipped"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_tree(tmp_path_factory.mktemp("data") / "parts")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip_folder(tmp_path_factory.mktemp("clip") / "tiny")


def settings(*track: str, **changes: Any) -> TrainingSettings:
    return TrainingSettings(
        **{
            "detector": tiny_settings(),
            "batch": 4,
            "workers": 0,
            "precision": "fp32",
            "log_every": 1,
            "epochs": 1,
            "track": track,
            **changes,
        }
    )


class Notes:
    """A tracker of one's own."""

    def __init__(self, breaks_at: int = 99) -> None:
        self.breaks_at = breaks_at
        self.told: list[Any] = []

    def start(self, run: Mapping[str, Any]) -> None:
        self.told.append(dict(run))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if step == self.breaks_at:
            raise TimeoutError("no answer\nfrom the server")
        self.told.append((step, set(values)))

    def finish(self, *, failed: bool) -> None:
        self.told.append("failed" if failed else "finished")


def test_a_tracker_of_ones_own(tmp_path: Path, tree: Path, backbone: Path) -> None:
    notes = Notes()
    train(tmp_path, data=tree, model=backbone, settings=settings(log_every=2), trackers=[notes])
    start, *rows, end = notes.told
    assert start["out"] == tmp_path and start["done"] == 0
    assert start["settings"]["lr"] == 1e-3
    assert rows == [(2, VALUES), (4, VALUES), (5, VALUES)]  # every second, and the last
    assert end == "finished"
    assert len((tmp_path / LOG).read_text(encoding="utf-8").splitlines()) == 3, "the log is always kept"


def test_a_tracker_that_breaks_is_named_and_the_others_are_told(
    tmp_path: Path, tree: Path, backbone: Path
) -> None:
    broken, other = Notes(breaks_at=3), Notes()
    with pytest.raises(ConfigError, match=r"tracker Notes failed \(TimeoutError: no answer from the server"):
        train(tmp_path, data=tree, model=backbone, settings=settings(save_every=1), trackers=[other, broken])
    assert other.told[-1] == broken.told[-1] == "failed"
    again = Notes()
    train(tmp_path, data=tree, model=backbone, settings=settings(), trackers=[again], resume=True)
    assert again.told[0]["done"] == 2, "nothing learned is lost"


def test_a_run_that_breaks_off_is_told(tmp_path: Path, tree: Path, backbone: Path) -> None:
    notes = Notes()
    with pytest.raises(ConfigError, match="lower lr"):
        train(tmp_path, data=tree, model=backbone, settings=settings(lr=1e30), trackers=[notes])
    assert notes.told[-1] == "failed"


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboard"), ("mlflow", "mlflow-skinny"), ("wandb", "wandb")]
)
def test_a_missing_package_prints_its_pip_line(
    tmp_path: Path,
    tree: Path,
    backbone: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    package: str,
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DependencyError, match=rf"{package}, .*pip install 'dapo\[track\]'"):
        train(tmp_path, data=tree, model=backbone, settings=settings(name))


def test_only_the_tracker_asked_for_is_imported(
    tmp_path: Path, tree: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mlflow", "tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it would fail
    told = pretend_wandb(monkeypatch)
    train(tmp_path, data=tree, model=backbone, settings=settings("wandb"))
    assert told[-1] == ("finish", 0)


def pretend_wandb(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    told: list[Any] = []
    module = ModuleType("wandb")

    def init(**facts: Any) -> SimpleNamespace:
        told.append(("init", facts))
        return SimpleNamespace(
            id=facts["id"] or "abc123",
            log=lambda values, step: told.append((step, values)),
            finish=lambda exit_code: told.append(("finish", exit_code)),
        )

    module.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return told


def test_weights_and_biases(
    tmp_path: Path, tree: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = pretend_wandb(monkeypatch)
    asked = settings("wandb", name="mine")
    train(tmp_path, data=tree, model=backbone, settings=asked, until=2)
    facts = told[0][1]
    assert (facts["project"], facts["name"], facts["id"]) == ("dapo", "mine", None)
    assert facts["config"]["batch"] == 4
    assert [step for step, _ in told[1:-1]] == [1, 2] and set(told[1][1]) == VALUES
    train(tmp_path, data=tree, model=backbone, settings=asked, resume=True)
    assert [told[i][1]["id"] for i in (0, 4)] == [None, "abc123"], "the same run goes on"
    assert [row[0] for row in told[5:]] == [3, 4, 5, "finish"]


def pretend_tensorboard(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    told: list[Any] = []

    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int | None) -> None:
            told.append((folder, purge_step))

        def add_text(self, name: str, text: str, step: int) -> None:
            told.append(text)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, step))

        def flush(self) -> None:
            told.append("flushed")

        def close(self) -> None:
            told.append("closed")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorboard", ModuleType("tensorboard"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return told


def test_tensorboard(tmp_path: Path, tree: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = pretend_tensorboard(monkeypatch)
    train(tmp_path, data=tree, model=backbone, settings=settings("tensorboard"), until=1)
    assert told[0] == (str(tmp_path / "tensorboard"), None)
    assert "|detector.prompts.groups|2|" in told[1]
    assert {name for name, _ in told[2:-2]} == VALUES
    assert told[-2:] == ["flushed", "closed"]
    del told[:]
    train(tmp_path, data=tree, model=backbone, settings=settings("tensorboard"), resume=True)
    assert told[0][1] == 2, "what was told of steps that are done again is taken back"


def pretend_mlflow(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    told: list[Any] = []

    class MlflowClient:
        def __init__(self, where: str) -> None:
            told.append(("client", where))

        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str) -> str:
            return "7"

        def create_run(self, experiment: str, run_name: str) -> SimpleNamespace:
            told.append(("run", experiment, run_name))
            return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

        def update_run(self, run: str, status: str) -> None:
            told.append((run, status))

        def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
            told.append((run, {key: value for key, value, *_ in (*metrics, *params)}))

        def set_terminated(self, run: str, status: str) -> None:
            told.append((run, status))

    def row(*values: Any) -> tuple[Any, ...]:
        return values

    parts: dict[str, dict[str, Any]] = {
        "mlflow": {},
        "mlflow.tracking": {"MlflowClient": MlflowClient},
        "mlflow.entities": {"Metric": row, "Param": row},
    }
    for name, attributes in parts.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    return told


def test_mlflow(tmp_path: Path, tree: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = pretend_mlflow(monkeypatch)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    asked = settings("mlflow", name="mine")
    train(tmp_path, data=tree, model=backbone, settings=asked, until=1)
    assert told[:2] == [("client", (tmp_path / "mlflow").resolve().as_uri()), ("run", "7", "mine")]
    assert told[2][1]["detector.prompts.groups"] == "2"
    assert set(told[3][1]) == VALUES
    assert told[-1] == ("r1", "FINISHED")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example")
    train(tmp_path, data=tree, model=backbone, settings=asked, resume=True)
    assert told[5:7] == [("client", "http://tracking.example"), ("r1", "RUNNING")], "the same run goes on"


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed")
@pytest.mark.filterwarnings("ignore")
def test_the_real_tensorboard(tmp_path: Path, tree: Path, backbone: Path) -> None:
    train(tmp_path, data=tree, model=backbone, settings=settings("tensorboard"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == VALUES
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text(encoding="utf-8").splitlines()]
    assert [event.step for event in events.Scalars("loss")] == [row["step"] for row in rows]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(
        [row["loss"] for row in rows], 1e-4
    )


@pytest.mark.skipif(importlib.util.find_spec("mlflow") is None, reason="mlflow is not installed")
@pytest.mark.filterwarnings("ignore")
def test_the_real_mlflow(tmp_path: Path, tree: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train(tmp_path, data=tree, model=backbone, settings=settings("mlflow"), until=2)
    train(tmp_path, data=tree, model=backbone, settings=settings("mlflow"), resume=True)
    from mlflow.tracking import MlflowClient

    client = MlflowClient((tmp_path / "mlflow").resolve().as_uri())
    run = (tmp_path / "mlflow.run").read_text(encoding="utf-8")
    assert [metric.step for metric in client.get_metric_history(run, "loss")] == [1, 2, 3, 4, 5]
    assert client.get_run(run).info.status == "FINISHED"
    assert client.get_run(run).data.params["batch"] == "4"


def test_names_on_the_command_line_are_the_trackers() -> None:
    assert tuple(TRACKERS) == NAMES
    assert flat({"a": {"b": {"c": 1}}, "d": [2]}) == {"a.b.c": 1, "d": [2]}
