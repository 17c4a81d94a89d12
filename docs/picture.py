"""Draws docs/img/demo.jpg, the picture of the README: every sample of the demo whose photograph is CC0.

Run: python docs/picture.py (or make docs). Nothing is chosen by how well the model does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from dapo.cli.demo import sample_notes, verdict_on
from dapo.demo import DEFECTS, SHOTS, Tally, judge, make_sample
from dapo.inspector import Inspector
from dapo.writers.sheet import ContactSheet

CC0 = {"brick", "gravel", "grass", "coffee", "cell"}
TARGET = Path(__file__).parent / "img" / "demo.jpg"
WIDTH = 1400  # px


def main() -> None:
    inspector = Inspector.from_pretrained()
    TARGET.parent.mkdir(exist_ok=True)
    whole = TARGET.with_suffix(".png")
    tally = Tally()
    samples = [make_sample(shot) for shot in SHOTS if shot.photograph in CC0]
    with tempfile.TemporaryDirectory() as folder:
        sheet = ContactSheet(whole, "", "dashed: the truth · outlined: the answer", columns=4, root=folder)
        sheet.open()
        for sample in samples:
            path = Path(folder) / f"{sample.name}.png"
            Image.fromarray(sample.image).save(path)
            result = inspector.inspect(path, defects=list(DEFECTS))
            judgement = judge(sample, result)
            tally.add(sample, judgement)
            sheet.write(result, sample.masks, sample_notes(sample, judgement))
        sheet.title = verdict_on(tally)
        sheet.close()
    with Image.open(whole) as picture:
        height = round(picture.height * WIDTH / picture.width)
        picture.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS).save(TARGET, quality=85)
    whole.unlink()
    print(verdict_on(tally))


if __name__ == "__main__":
    main()
