"""Draws the pictures of the documentation. Run: python docs/picture.py (or make docs).

- img/demo.jpg, of the README: every sample of the demo whose photograph is CC0;
- img/gallery.jpg, of embedded-model.md: the first scenes of a generated world that no stage of training drew
  from, among them flaws that are hardly to be seen.

Nothing is chosen by how well the model does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from PIL import Image

from dapo.cli.demo import sample_notes, verdict_on
from dapo.demo import DEFECTS, SHOTS, Sample, Tally, judge, make_sample
from dapo.inspector import Inspector
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.scenes import World
from dapo.writers.sheet import ContactSheet

CC0 = {"grass", "coffee", "cell"}
FOLDER = Path(__file__).parent / "img"
WIDTH = 1400  # px
GALLERY_WORLD, SCENES, SIDE = 90_000, 24, 224  # seed, how many, px


def demo_samples() -> Iterator[Sample]:
    return (make_sample(shot) for shot in SHOTS if shot.photograph in CC0)


def families(names: Sequence[str]) -> dict[str, str]:
    """{what the generator draws: the name to ask for}, for the names that it draws."""
    lexicon = Lexicon.builtin()
    kinds = {phrase: kind for kind in lexicon.types for phrase in (kind.id, kind.name, *kind.phrases)}
    drawn = {kinds[name].visual: name for name in reversed(names) if name in kinds}
    return {str(family): name for family, name in drawn.items() if family}


def gallery_samples(names: Sequence[str]) -> Iterator[Sample]:
    asked = families(names)
    world = World(seed=GALLERY_WORLD, families=tuple(sorted(asked)))
    for i in range(SCENES):
        scene = world.scene(i, SIDE, SIDE)
        yield Sample(f"scene-{i}", scene.image, {asked[family]: mask for family, mask in scene.masks.items()})


def draw(
    name: str, samples: Iterable[Sample], names: Sequence[str], columns: int, inspector: Inspector
) -> None:
    whole = FOLDER / f"{name}.png"
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        sheet = ContactSheet(
            whole, "", "dashed: the truth · outlined: the answer", columns=columns, root=folder
        )
        sheet.open()
        for sample in samples:
            path = Path(folder) / f"{sample.name}.png"
            Image.fromarray(sample.image).save(path)
            result = inspector.inspect(path, defects=list(names))
            judgement = judge(sample, result)
            tally.add(sample, judgement)
            sheet.write(result, sample.masks, sample_notes(sample, judgement))
        sheet.title = verdict_on(tally)
        sheet.close()
    with Image.open(whole) as picture:
        height = round(picture.height * WIDTH / picture.width)
        small = picture.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS)
        small.save(FOLDER / f"{name}.jpg", quality=85)
    whole.unlink()
    print(f"{name}: {verdict_on(tally)}")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    inspector = Inspector.from_pretrained()
    own = inspector.info.config.defects
    draw("demo", demo_samples(), DEFECTS, 4, inspector)
    draw("gallery", gallery_samples(own), own, 6, inspector)


if __name__ == "__main__":
    main()
