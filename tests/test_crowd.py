"""Mutual scoring: the other, unlabelled pictures tell what is unusual."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_memory import stripes
from tiny import tiny_detector, tiny_model_folder

from dapo.errors import ConfigError, InputError
from dapo.inspection import Failure
from dapo.inspector import Inspector
from dapo.model.crowd import USUAL, gather


def test_the_odd_one_out_is_far_although_it_is_in_the_crowd() -> None:
    detector = tiny_detector()
    pictures = [stripes(seed, spot=seed == 4) for seed in range(12)]
    crowd = gather(detector, pictures)
    assert crowd.images == 12
    with torch.no_grad():
        _, peak = crowd.unusual(crowd.distance(detector.looks(torch.stack(pictures), crowd.layers)))
    assert int(peak.argmax()) == 4
    others = torch.cat([peak[:4], peak[5:]])
    assert peak[4] > others.max() + 2
    assert (others + USUAL).abs().median() < 2


def test_few_pictures_are_refused() -> None:
    with pytest.raises(InputError, match="at least 5 pictures"):
        gather(tiny_detector(), [stripes(seed) for seed in range(4)])


def test_a_folder_is_compared_with_itself(tmp_path: Path) -> None:
    from test_goodparts import plates

    inspector = Inspector.from_pretrained(
        tiny_model_folder(tmp_path / "tiny"), device="cpu", precision="fp32"
    )
    pictures = [*plates(tmp_path / "a", 10), *plates(tmp_path / "b", 1, spot=True, start=30)]
    broken = tmp_path / "a" / "broken.png"
    broken.write_bytes(b"no picture")
    results = list(inspector.stream_mutual([*pictures, broken], defects="scratch", batch_size=4))
    assert isinstance(results[-1], Failure)
    scores = [result.raw_score for result in results[:-1]]  # type: ignore[union-attr]
    assert int(np.argmax(scores)) == 10
    alone = [result.raw_score for result in inspector.stream(pictures, defects="scratch")]  # type: ignore[union-attr]
    lead = scores[10] - max(scores[:10])
    assert lead > alone[10] - max(alone[:10])
    assert [result.image for result in results] == [str(path) for path in [*pictures, broken]]


def test_mutual_goes_with_no_tiles(tmp_path: Path) -> None:
    inspector = Inspector.from_pretrained(tiny_model_folder(tmp_path / "tiny"), device="cpu", tile=32)
    with pytest.raises(ConfigError, match="no calibration and no"):
        inspector.stream_mutual([])
