"""States of pretraining: pieces small enough to carry, complete or not there, whatever happens meanwhile."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dapo.errors import DataError
from dapo.model.side_network import SideConfig, SideNetwork
from dapo.pretraining import states
from dapo.pretraining.image_stage import split_parameters

FOREVER = """
import sys, torch
from pathlib import Path
from dapo.pretraining import states
states.PIECE = 1000
for step in range(1, 10**6):
    states.keep_state(Path(sys.argv[1]), step, {"step": step, "weights": torch.full((2000,), float(step))})
    if step == 3:
        print("three", flush=True)
"""


def test_a_state_comes_back_and_the_one_before_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "side-stage"
    assert states.kept_state(path) is None
    for step in (250, 1_000_000):
        states.keep_state(
            path, step, {"step": step, "weights": torch.full((3,), float(step)), "facts": {"a": [1, "b"]}}
        )
    (found,) = tmp_path.iterdir()
    assert found.name == "side-stage-01000000"
    state = states.kept_state(path)
    assert state is not None and state["step"] == 1_000_000 and state["facts"] == {"a": [1, "b"]}
    assert torch.equal(state["weights"], torch.full((3,), 1e6))
    states.forget_states(path)
    assert not list(tmp_path.iterdir())


def test_two_stages_in_one_folder_do_not_meet(tmp_path: Path) -> None:
    for name in ("image-stage", "side-stage"):
        states.keep_state(tmp_path / name, 5, {"name": name})
    (tmp_path / "side-stage.jsonl").write_text("{}")
    states.forget_states(tmp_path / "image-stage")
    assert states.kept_state(tmp_path / "image-stage") is None
    assert states.kept_state(tmp_path / "side-stage") == {"name": "side-stage"}


def test_the_shipped_side_networks_state_is_in_pieces_of_16_mib_at_most(tmp_path: Path) -> None:
    network = SideNetwork(SideConfig(dim=256), normalised=True)
    hidden, rest = split_parameters(network)
    moments = [torch.zeros_like(p) for p in (*hidden, *rest, *rest)]
    state = {"learner": network.state_dict(), "average": network.state_dict(), "moments": moments}
    states.keep_state(tmp_path / "side-stage", 1, state)
    sizes = [piece.stat().st_size for piece in (tmp_path / "side-stage-00000001").iterdir()]
    assert len(sizes) > 3 and max(sizes) <= 16 * 2**20
    again = states.kept_state(tmp_path / "side-stage")
    assert again is not None and all(
        torch.equal(again["learner"][k], v) for k, v in network.state_dict().items()
    )


def test_missing_and_broken_pieces_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "PIECE", 1000)
    path = tmp_path / "side-stage"
    states.keep_state(path, 7, {"weights": torch.zeros(1000)})
    folder = tmp_path / "side-stage-00000007"
    carried = tmp_path / "elsewhere" / folder.name
    shutil.copytree(folder, carried)
    assert states.kept_state(carried.with_name("side-stage")) is not None
    second = next(carried.glob("2-of-*.piece"))
    content = second.read_bytes()
    second.unlink()
    with pytest.raises(DataError, match=rf"lacks {second.name}.*copy the rest"):
        states.kept_state(carried.with_name("side-stage"))
    second.write_bytes(content[:-10])
    with pytest.raises(DataError, match="copy it again"):
        states.kept_state(carried.with_name("side-stage"))
    for piece in carried.iterdir():
        piece.unlink()
    with pytest.raises(DataError, match=r"lacks 1-of-1\.piece"):
        states.kept_state(carried.with_name("side-stage"))


@pytest.mark.skipif(sys.platform == "win32", reason="no kill -9")
def test_a_kill_at_any_moment_leaves_a_whole_state(tmp_path: Path) -> None:
    path, last = tmp_path / "stage", 0
    for pause in (0.0, 0.003, 0.007, 0.011):
        shutil.rmtree(tmp_path, ignore_errors=True)
        tmp_path.mkdir()
        run = subprocess.Popen([sys.executable, "-c", FOREVER, str(path)], stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None and run.stdout.readline() == "three\n"
        time.sleep(pause)
        run.send_signal(signal.SIGKILL)
        run.wait()
        run.stdout.close()
        state = states.kept_state(path)
        assert state is not None and state["step"] >= 3
        assert torch.equal(state["weights"], torch.full((2000,), float(state["step"])))
        last = max(last, state["step"])
        states.keep_state(path, 10**7, state)
        assert [left.name for left in tmp_path.iterdir()] == ["stage-10000000"], "nothing unfinished stays"
    assert last > 3, "no kill came while states were written"
