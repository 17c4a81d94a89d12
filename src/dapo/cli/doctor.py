"""``dapo doctor``: what is installed and what is wrong, one sentence each, with the fix."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from dapo.cli.main import FAILED_INPUT, debug_option

Status = Literal["ok", "note", "wrong"]
COLOURS: dict[Status, str] = {"ok": "green", "note": "yellow", "wrong": "red"}
MIN_PYTHON = (3, 10)
MIN_TORCH = (2, 6)


@dataclass(frozen=True)
class Finding:
    """One sentence about one thing; ``wrong`` means DAPO will not work as it should."""

    topic: str
    status: Status
    sentence: str


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON.")
@debug_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Say what is installed and what is wrong, in one sentence each. Exits 1 if something is wrong."""
    findings = []
    for check in CHECKS:
        for finding in _run(check):
            findings.append(finding)
            if not as_json:
                mark = click.style(f"{finding.status:<5}", fg=COLOURS[finding.status])
                click.echo(f"{mark}  {finding.topic:<13}  {finding.sentence}")
    if as_json:
        click.echo(json.dumps([vars(finding) for finding in findings], indent=2))
    context.exit(FAILED_INPUT if any(finding.status == "wrong" for finding in findings) else 0)


def _run(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of one check; a check that breaks is itself a finding."""
    try:
        yield from check()
    except Exception as error:
        topic = check.__name__.removeprefix("check_")
        yield Finding(topic, "wrong", f"this check broke off: {type(error).__name__}, {_first_line(error)}.")


def check_python() -> Iterator[Finding]:
    version = platform.python_version()
    machine = f"{platform.system()} on {platform.machine()}"
    if sys.version_info < MIN_PYTHON:
        yield Finding("python", "wrong", f"Python {version} is too old: install 3.10 or newer.")
    else:
        yield Finding("python", "ok", f"Python {version}, {machine}.")


def check_torch() -> Iterator[Finding]:
    """The version, the accelerator, and whether bf16 is computed natively."""
    try:
        import torch
    except Exception as error:  # a broken build raises anything, OSError on Windows
        fix = "pip install --force-reinstall torch"
        yield Finding("torch", "wrong", f"torch does not import ({_first_line(error)}): {fix}.")
        return
    if _version(torch.__version__) < MIN_TORCH:
        yield Finding("torch", "wrong", f"torch {torch.__version__} is too old: pip install 'torch>=2.6'.")
        return
    yield Finding("torch", "ok", f"torch {torch.__version__}, {torch.get_num_threads()} threads.")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            memory = f"{facts.total_memory / 2**30:.0f} GiB"
            native = torch.cuda.is_bf16_supported(including_emulation=False)
            bf16 = "bf16" if native else "no bf16: fp32 is used"
            yield Finding("gpu", "ok", f"cuda:{index} is a {facts.name} with {memory}, {bf16}.")
    elif torch.backends.mps.is_available():
        yield Finding("gpu", "ok", "the Apple GPU is usable as mps.")
    elif shutil.which("nvidia-smi"):
        cpu_build = torch.version.cuda is None
        build = "this torch is a CPU build" if cpu_build else "the driver does not fit this torch"
        yield Finding("gpu", "note", f"there is an NVIDIA GPU but {build}: see docs/install.md, GPU builds.")
    else:
        yield Finding("gpu", "ok", "no GPU; the CPU is used.")
    from dapo.model.precision import cpu_has_bf16

    bf16 = "computes bf16 natively" if cpu_has_bf16() else "has no bf16: fp32 is used"
    yield Finding("cpu", "ok", f"the CPU {bf16}.")


def check_packages() -> Iterator[Finding]:
    """The packages DAPO asks for, at the versions it asks for."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in importlib.metadata.requires("dapo") or []]
    except importlib.metadata.PackageNotFoundError:
        yield Finding(
            "packages", "wrong", "dapo itself is not installed: pip install dapo (in a clone: -e .)."
        )
        return
    wrong = []
    for requirement in wanted:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, not {requirement.specifier}")
    if wrong:
        yield Finding("packages", "wrong", f"{'; '.join(wrong)}: pip install --upgrade dapo.")
    else:
        transformers = importlib.metadata.version("transformers")
        yield Finding("packages", "ok", f"transformers {transformers} and all others fit.")


def check_torchvision() -> Iterator[Finding]:
    """DAPO does without torchvision, but transformers imports it where it is installed."""
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        yield Finding(
            "torchvision",
            "wrong",
            f"torchvision is not needed and broken ({_first_line(error)}): pip uninstall torchvision.",
        )
    else:
        yield Finding("torchvision", "ok", "torchvision is installed; DAPO does not use it.")


def check_model() -> Iterator[Finding]:
    """The embedded model loads and gives an answer."""
    import numpy as np

    from dapo.errors import ModelError
    from dapo.inspector import Inspector

    started = time.perf_counter()
    try:
        inspector = Inspector.from_pretrained()
    except ModelError as error:
        fix = "pip install --force-reinstall dapo"
        yield Finding("model", "wrong", f"the embedded model does not load ({error}): {fix}.")
        return
    loaded = time.perf_counter()
    result = inspector.inspect(np.full((256, 256, 3), 128, np.uint8))
    done = time.perf_counter()
    name = " ".join(str(result.model[key]) for key in ("name", "version") if result.model.get(key))
    load, answer = f"{loaded - started:.1f} s", f"{done - loaded:.1f} s"
    yield Finding("model", "ok", f"{name} loads in {load} and answers in {answer}.")


def check_writing() -> Iterator[Finding]:
    """Results go below the current folder unless --out says otherwise."""
    here = Path.cwd()
    try:
        with tempfile.TemporaryDirectory(prefix=".dapo-", dir=here):
            pass
    except OSError as error:
        fix = "give --out a folder that can"
        yield Finding("writing", "wrong", f"{here} cannot be written to ({error.strerror}): {fix}.")
        return
    free = shutil.disk_usage(here).free / 2**30
    status: Status = "ok" if free >= 1 else "note"
    yield Finding("writing", status, f"results can be written to {here} ({free:.0f} GiB free).")


CHECKS = (check_python, check_torch, check_packages, check_torchvision, check_model, check_writing)


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
