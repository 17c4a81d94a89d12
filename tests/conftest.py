"""What every test starts from and leaves behind; and model folders to test with."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # no test reaches a network
os.environ["TOKENIZERS_PARALLELISM"] = "false"

SEED = 20250101


@pytest.fixture(autouse=True)
def leave_no_trace() -> Iterator[None]:
    """Seeds before, and afterwards puts back: generators, dtype, threads, environment, working folder."""
    environment, folder = dict(os.environ), Path.cwd()
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002  # what libraries draw from
    random.seed(SEED)
    np.random.seed(SEED)  # noqa: NPY002
    torch = sys.modules.get("torch")
    if torch is not None:
        generator, dtype, threads = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
        deterministic, grad = torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled()
        torch.manual_seed(SEED)
    yield
    random.setstate(python)
    np.random.set_state(numbers)  # noqa: NPY002
    if torch is not None:
        torch.set_rng_state(generator)
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.set_grad_enabled(grad)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of a few thousand random weights: a CLIP alone, so used with hand-written prompts."""
    from tiny import tiny_clip

    from dapo.model.clip import save_clip

    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_clip(tiny_clip(max_position_embeddings=160), folder)  # its tokenizer spells
    return folder


@pytest.fixture(scope="session")
def some_model(tiny_model: Path) -> Path:
    """The embedded model where it exists, else the tiny one: for tests that only need an answer."""
    from dapo.model.artifact import EMBEDDED

    return EMBEDDED if (EMBEDDED / "config.json").is_file() else tiny_model
