"""Trackers: who is told of a run besides its own log. TensorBoard, MLflow, Weights & Biases, or your own.

Goes in: the settings of the run, then a few numbers now and then; comes out: whatever the tracker writes.
Each package is imported when its tracker starts, and no other. Without further settings nothing leaves the
machine but to W&B, which follows `WANDB_MODE` as always.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from dapo.errors import ConfigError, DapoError, DependencyError


class Tracker(Protocol):
    """Whom a run can tell how it goes."""

    def start(self, run: Mapping[str, Any]) -> None:
        """Before the first step. run: "name", "out" (folder), "done" (steps before this call), "settings"."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """After a step: losses, "lr", "images_per_second", "skipped"."""

    def finish(self, *, failed: bool) -> None:
        """After the last step, or when the run broke off."""


class TensorBoard:
    """Event files in OUT/tensorboard; steps that are done again replace the older ones."""

    def start(self, run: Mapping[str, Any]) -> None:
        needed("tensorboard")
        writer = import_module("torch.utils.tensorboard").SummaryWriter
        folder = str(Path(run["out"]) / "tensorboard")
        self.writer = writer(folder, purge_step=run["done"] + 1 if run["done"] else None)
        rows = [f"|{key}|{value}|" for key, value in flat(run["settings"]).items()]
        self.writer.add_text("settings", "\n".join(["|setting|value|", "|-|-|", *rows]), run["done"])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def finish(self, *, failed: bool) -> None:
        self.writer.close()


class MLflow:
    """A run of the experiment "dapo" at `MLFLOW_TRACKING_URI`, or in OUT/mlflow; its id is OUT/mlflow.run."""

    def start(self, run: Mapping[str, Any]) -> None:
        needed("mlflow", package="mlflow-skinny")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        where, note = os.environ.get("MLFLOW_TRACKING_URI"), Path(run["out"]) / "mlflow.run"
        if not where:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions ask for it
            where = (Path(run["out"]) / "mlflow").resolve().as_uri()
        self.entities = import_module("mlflow.entities")
        self.client = import_module("mlflow.tracking").MlflowClient(where)
        if run["done"] and note.is_file():
            self.id = note.read_text(encoding="utf-8")
            self.client.update_run(self.id, status="RUNNING")
            return
        known = self.client.get_experiment_by_name("dapo")
        experiment = known.experiment_id if known else self.client.create_experiment("dapo")
        self.id = self.client.create_run(experiment, run_name=run["name"]).info.run_id
        params = [self.entities.Param(key, str(value)) for key, value in flat(run["settings"]).items()]
        for first in range(0, len(params), 100):  # no more in one call
            self.client.log_batch(self.id, params=params[first : first + 100])
        note.write_text(self.id, encoding="utf-8")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)  # ms
        metrics = [self.entities.Metric(name, value, now, step) for name, value in values.items()]
        self.client.log_batch(self.id, metrics=metrics)

    def finish(self, *, failed: bool) -> None:
        self.client.set_terminated(self.id, "FAILED" if failed else "FINISHED")


class WandB:
    """A run of the project "dapo", or of `WANDB_PROJECT`; its id is OUT/wandb.run."""

    def start(self, run: Mapping[str, Any]) -> None:
        wandb, note = needed("wandb"), Path(run["out"]) / "wandb.run"
        before = note.read_text(encoding="utf-8") if run["done"] and note.is_file() else None
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "dapo"),
            name=run["name"],
            dir=str(run["out"]),
            config=dict(run["settings"]),
            id=before,
            resume="allow",
        )
        note.write_text(self.run.id, encoding="utf-8")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def finish(self, *, failed: bool) -> None:
        self.run.finish(exit_code=int(failed))


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


class Audience:
    """Several trackers, told alike; what goes wrong in one is a ConfigError that names it."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self.trackers = tuple(trackers)

    @contextlib.contextmanager
    def following(self, run: Mapping[str, Any]) -> Iterator[Audience]:
        """From the start to the end of a run, however it ends."""
        started: list[Tracker] = []
        failed = True
        try:
            for tracker in self.trackers:
                with blamed(tracker):
                    tracker.start(run)
                started.append(tracker)
            yield self
            failed = False
        finally:
            for tracker in started:
                with blamed(tracker) if not failed else contextlib.suppress(Exception):
                    tracker.finish(failed=failed)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Tell all of them."""
        for tracker in self.trackers:
            with blamed(tracker):
                tracker.log(step, values)


@contextlib.contextmanager
def blamed(tracker: Tracker) -> Iterator[None]:
    """Around a call of a tracker: its error says whose it is and how to go on without it."""
    try:
        yield
    except DapoError:
        raise
    except Exception as error:  # of a package, a server or a disk
        why = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"the tracker {type(tracker).__name__} failed ({type(error).__name__}: {why}); repair it, or "
            "leave it out of --track, and go on with --resume"
        ) from error


def needed(module: str, package: str | None = None) -> ModuleType:
    """The module, or the pip line that brings it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise DependencyError.for_extra("track", package or module) from error


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found
