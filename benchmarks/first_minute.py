"""How long and how large the first commands are: help, one cold picture, a folder, the demo.

Run: python benchmarks/first_minute.py [--runs 3]. Each command is a fresh process; the figures are the
operating system's: wall seconds (median, range) and the largest resident memory. One line names the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

PROMISES = {  # seconds, MiB
    "dapo --help": (0.3, None),
    "dapo inspect one.png": (6.0, 1024),
    "dapo demo": (30.0, 1024),
}


def measured(command: list[str], runs: int) -> tuple[list[float], float]:
    """Wall seconds of each run and the largest resident set in MiB."""
    seconds, peak = [], 0.0
    for _ in range(runs):
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        complaint = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds.append(time.perf_counter() - began)
        peak = max(peak, usage.ru_maxrss / 1024)
        if process.returncode:
            raise SystemExit(
                f"{' '.join(command)} ended with {process.returncode}: {complaint.decode()[-500:]}"
            )
    return seconds, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    dapo = str(Path(sys.executable).with_name("dapo"))
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for i in range(16):
            noise = rng.integers(90, 160, (480, 640, 3), dtype=np.uint8)
            Image.fromarray(noise).save(Path(folder) / f"part-{i:02d}.png")
        out = ["--out", str(Path(folder) / "out")]
        commands = {
            "dapo --help": [dapo, "--help"],
            "dapo inspect one.png": [dapo, "inspect", str(Path(folder) / "part-00.png"), *out],
            "dapo inspect 16 pictures": [dapo, "inspect", folder, *out],
            "dapo demo": [dapo, "demo", *out],
        }
        machine = platform.processor() or platform.machine()
        print(f"{machine}, {os.cpu_count()} cores, Python {platform.python_version()}")
        print(f"{'command':28}{'median s':>10}{'range s':>16}{'peak MiB':>10}   promise")
        for name, command in commands.items():
            seconds, peak = measured(command, runs)
            limit = PROMISES.get(name, (None, None))
            promise = ", ".join(f"{x:g} {unit}" for x, unit in zip(limit, ("s", "MiB"), strict=True) if x)
            span = f"{min(seconds):.2f}-{max(seconds):.2f}"
            print(f"{name:28}{statistics.median(seconds):10.2f}{span:>16}{peak:10.0f}   {promise}")


if __name__ == "__main__":
    main()
