"""Pages: each picture of a TIFF with several is an image with a name, by every door and in every file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image, TiffImagePlugin

from dapo.cli.main import main
from dapo.data.coco import read_coco
from dapo.data.label_studio import find_image
from dapo.data.yolo import read_yolo
from dapo.errors import InputError
from dapo.images import expand_paths, image_size, load_image
from dapo.inspection import Inspection
from dapo.inspector import Inspector
from dapo.pages import page_name, pages_of, split_page
from dapo.writers.names import OutputNames

RED, LIME, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def picture(colour: tuple[int, int, int], side: int = 20) -> Image.Image:
    noise = np.random.default_rng(sum(colour) + side).integers(0, 9, (side, 40, 3), dtype=np.uint8)
    return Image.fromarray(np.abs(np.array(colour) - noise.astype(int)).astype(np.uint8))


def stack(path: Path, *pages: Image.Image, kinds: tuple[int, ...] = ()) -> Path:
    """A TIFF of ``pages``; ``kinds``: NewSubfileType of each."""
    whole = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(whole) as writer:
        for number, page in enumerate(pages):
            page.save(writer, format="TIFF", tiffinfo={254: kinds[number] if kinds else 0})
            writer.newFrame()
    path.write_bytes(whole.getvalue())
    return path


@pytest.fixture
def three(tmp_path: Path) -> Path:
    return stack(tmp_path / "stack.tif", picture(RED), picture(LIME, 24), picture(BLUE, 28))


def refused(source: object) -> InputError:
    with pytest.raises(InputError) as caught:
        load_image(source)
    return caught.value


# names


def test_a_name_tells_file_and_page(tmp_path: Path) -> None:
    assert split_page(page_name("a/b.tif", 12)) == ("a/b.tif", 12)
    for plain in ("a.tif", "a.tif#page=0", "a.tif#page=", "a.tif#page=-1", "#page=2", "a.tif#page=2x"):
        assert split_page(plain) == (plain, None)
    odd = tmp_path / "a.png#page=2"  # a file that is really called so
    picture(RED).save(odd, "PNG")
    assert split_page(odd) == (str(odd), None)
    assert load_image(odd).shape == (20, 40, 3)


def test_each_page_is_loaded_by_its_name(three: Path) -> None:
    names = expand_paths(three)
    assert [name.name for name in names] == [f"stack.tif#page={number}" for number in (1, 2, 3)]
    assert [image_size(name) for name in names] == [(20, 40), (24, 40), (28, 40)]
    for name, colour, side in zip(names, (RED, LIME, BLUE), (20, 24, 28), strict=True):
        np.testing.assert_array_equal(load_image(name), np.asarray(picture(colour, side)))
        np.testing.assert_array_equal(load_image(str(name)), load_image(name))
    assert expand_paths([names[1], three.parent]) == [names[1], names[0], names[2]], "each once"
    assert pages_of(three.with_suffix(".png")) == [three.with_suffix(".png")]


def test_a_single_page_keeps_its_plain_name(tmp_path: Path) -> None:
    picture(RED).save(tmp_path / "one.tif")
    assert expand_paths(tmp_path) == [tmp_path / "one.tif"]
    assert load_image(f"{tmp_path}/one.tif#page=1").shape == (20, 40, 3)


def test_thumbnails_and_masks_are_no_pictures_of_their_own(tmp_path: Path) -> None:
    small = picture(RED, 10)
    beside = stack(tmp_path / "a.tif", picture(RED), small, picture(BLUE), small, kinds=(0, 1, 0, 4))
    assert [path.name for path in expand_paths(beside)] == ["a.tif#page=1", "a.tif#page=3"]
    before = stack(tmp_path / "b.tif", small, picture(BLUE), kinds=(1, 0))
    assert expand_paths(before) == [before]
    np.testing.assert_array_equal(load_image(before), np.asarray(picture(BLUE)))
    assert image_size(before) == (20, 40)


# refusals


def test_a_stack_is_not_one_picture(three: Path) -> None:
    error = refused(three)
    assert error.kind == "shape" and "a TIFF of 3 pages" in error.message
    assert f"such as '{three}#page=1'" in error.message and "expand_paths" in error.message
    assert "each page as a picture of its own" in refused(three.read_bytes()).message
    with Image.open(three) as opened:
        opened.seek(2)
        np.testing.assert_array_equal(load_image(opened), np.asarray(picture(BLUE, 28)))


def test_a_page_that_is_not_there(three: Path) -> None:
    error = refused(f"{three}#page=4")
    assert error.kind == "missing" and "expected page 1, 2, 3, came page 4" in error.message
    many = stack(three.with_name("many.tif"), *[picture(RED)] * 11)
    assert "expected page 1 to 11, came page 12" in refused(f"{many}#page=12").message
    picture(RED).save(three.with_name("a.png"))
    assert "expected page 1, came page 2" in refused(three.with_name("a.png#page=2")).message
    assert refused(three.with_name("none.tif#page=1")).kind == "missing"
    with pytest.raises(InputError, match="no such file"):
        expand_paths(three.with_name("none.tif#page=1"))


@pytest.mark.filterwarnings("ignore")  # Pillow's, about the directory that is cut
def test_a_cut_stack_says_so_once_and_gives_what_is_whole(three: Path) -> None:
    whole = three.read_bytes()
    for kept in range(300, len(whole), 400):
        three.write_bytes(whole[:kept])
        names = expand_paths(three)
        errors = []
        for number, name in enumerate(names):
            try:
                colour, side = ((RED, 20), (LIME, 24), (BLUE, 28))[number]
                np.testing.assert_array_equal(load_image(name), np.asarray(picture(colour, side)))
            except InputError as error:
                errors.append(error.kind)
        assert 1 <= len(errors) <= 2 and set(errors) <= {"truncated", "unreadable"}, kept


# the command


Run = Callable[..., Result]


@pytest.fixture
def inspect(three: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> Run:
    monkeypatch.chdir(three.parent)
    picture(RED).save("single.png")

    def run(*words: object, out: str = "out") -> Result:
        usual = ["--model", tiny_model, "--out", out, "--defects", "scratch, dent", "--threshold", 0]
        return CliRunner().invoke(main, ["inspect", *(str(word) for word in (*words, *usual))])

    return run


def images(out: str = "out") -> list[str]:
    lines = Path(out, "results.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["image"] for line in lines]


PAGES = [f"stack.tif#page={number}" for number in (1, 2, 3)]
STEMS = [f"stack-page-{number}" for number in (1, 2, 3)]
ALL = ("--format", "jsonl,csv,coco,yolo,label-studio,html", "--save", "overlay,heatmap,mask,tiff,crops")


def test_a_row_and_a_picture_for_each_page_in_every_format(inspect: Run) -> None:
    found = inspect("stack.tif", "single.png", *ALL)
    assert found.exit_code == 0, found.output
    assert images() == [*PAGES, "single.png"]
    with open("out/results.csv", encoding="utf-8-sig", newline="") as stream:
        assert [row["image"] for row in csv.DictReader(stream)] == [*PAGES, "single.png"]
    for kind in ("overlay", "heatmap", "mask", "anomaly_maps"):
        drawn = [path.stem for path in Path("out", kind).iterdir() if path.suffix != ".json"]
        assert sorted(drawn) == ["single", *STEMS], kind
    report = Path("out/report.html").read_text("utf-8")
    assert all(f'data-name="{name}"' in report for name in PAGES)


def test_other_tools_get_a_file_for_each_page(inspect: Run) -> None:
    inspect("stack.tif", "single.png", *ALL)
    truth = [np.asarray(picture(*page)) for page in ((RED, 20), (LIME, 24), (BLUE, 28), (RED, 20))]
    coco = sorted(json.loads(Path("out/coco/coco.json").read_text("utf-8"))["images"], key=lambda i: i["id"])
    assert [image["file_name"] for image in coco] == [*(f"images/{stem}.png" for stem in STEMS), "single.png"]
    assert [(image["height"], image["width"]) for image in coco] == [page.shape[:2] for page in truth]
    for read, folder in ((read_coco, "coco"), (read_yolo, "yolo")):
        samples = {sample.image.stem: sample.image for sample in read(Path("out", folder))}
        for name, pixels in zip([*STEMS, "single"], truth, strict=True):
            np.testing.assert_array_equal(load_image(samples[name]), pixels)
    tasks = Path("out/label-studio/label-studio.json")
    for task, pixels in zip(json.loads(tasks.read_text("utf-8")), truth, strict=True):
        file = find_image(task["data"], "task", tasks, tasks.parent)
        np.testing.assert_array_equal(load_image(file), pixels)


def test_pages_are_resumed_and_shared_out_like_images(inspect: Run) -> None:
    inspect("stack.tif", out="whole")
    assert inspect(PAGES[1], "--format", "jsonl", *ALL[2:]).exit_code == 0
    assert images() == [PAGES[1]]
    found = inspect("stack.tif", "--resume", *ALL)
    assert "2 inspected and 1 kept" in found.stdout, found.output
    assert images() == PAGES == images("whole")
    assert Path("out/coco/images/stack-page-2.png").is_file(), "of the kept one too"
    assert Path("out/yolo/images/stack-page-2.png").is_file()
    parts = [inspect("stack.tif", "--shard", f"{part}/2", out="parts") for part in (1, 2)]
    assert [part.exit_code for part in parts] == [0, 0]
    shards = [images(f"parts/shard-{part}-of-2") for part in (1, 2)]
    assert shards == [PAGES[:1], PAGES[1:]]
    assert "0 inspected and 3 kept" in inspect("stack.tif", "--resume", out="parts").stdout
    assert sorted(path.stem for path in Path("parts/overlay").iterdir()) == STEMS


def test_a_broken_page_is_one_row(inspect: Run) -> None:
    whole = Path("stack.tif").read_bytes()
    Path("stack.tif").write_bytes(whole[:-200])  # the pixels of the last page lie at the end
    found = inspect("stack.tif", "single.png")
    assert found.exit_code == 1 and "3 inspected" in found.stdout and "1 failed" in found.stdout
    failed = [line for line in found.stderr.splitlines() if line]
    assert len(failed) == 1 and "'stack.tif#page=3'" in failed[0], "nothing of Pillow's own"
    assert images() == [*PAGES, "single.png"]


def test_python_takes_pages_by_name(three: Path, tiny_model: Path) -> None:
    inspector = Inspector.from_pretrained(tiny_model)
    results = inspector.inspect(list(expand_paths(three)), ["scratch"])
    assert [Path(result.image).name for result in results] == PAGES
    assert [result.height for result in results] == [20, 24, 28]
    (failure,) = inspector.stream([three], ["scratch"])
    assert not isinstance(failure, Inspection) and "a TIFF of 3 pages" in failure.message


def test_no_page_hides_a_file(tmp_path: Path) -> None:
    names = OutputNames(tmp_path, ".png", "parts")
    taken = [names.path_for(f"parts/{name}") for name in ("a.tif#page=2", "a-page-2.jpg", "b/a.tif#page=2")]
    assert len(set(taken)) == 3
    assert taken[0] == tmp_path / "a-page-2.png" and taken[2] == tmp_path / "b/a-page-2.png"
