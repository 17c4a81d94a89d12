"""Writers: what lies on disk after a run, and what can be read from the pictures."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from results import TYPES, inspected

from dapo.inspection import Failure, Inspection
from dapo.vocabulary import Vocabulary
from dapo.writers import HeatmapWriter, HtmlReport, JsonlWriter, OverlayWriter, compare, draw_overlay
from dapo.writers import html as html_module
from dapo.writers.frame import MIN_WIDTH, TWO_JUDGEMENTS, draw_legend, legend_entries, two_scores
from dapo.writers.heatmap import draw_heatmap, heat_colours
from dapo.writers.labels import place_labels
from dapo.writers.lettering import fit, lettering, width_of
from dapo.writers.names import OutputNames
from dapo.writers.palette import DEFECTIVE, OK, OKABE_ITO, UNKNOWN_COLOUR, Palette, hex_code, is_light

FAILURE = Failure("broken.png", "truncated", "the file ends before the picture does")
HOSTILE = "<script>alert(1)</script>\"'&{{ 7*11111 }}</tr>.png"


def share(picture: Image.Image, colour: tuple[int, int, int], near: int = 12) -> float:
    """Share of pixels within ``near`` of a colour."""
    return float((np.abs(np.asarray(picture).astype(int) - colour).max(axis=2) <= near).mean())


# JSON Lines


def test_jsonl_holds_one_record_a_line_in_order(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    with JsonlWriter(path) as writer:
        writer.write(inspected("äß.png"))
        assert path.read_text("utf-8").count("\n") == 1  # flushed at once
        writer.write(FAILURE)
    lines = path.read_text("utf-8").splitlines()
    assert [json.loads(line)["image"] for line in lines] == ["äß.png", "broken.png"]
    assert json.loads(lines[0]) == json.loads(json.dumps(inspected("äß.png").to_dict()))


def test_jsonl_goes_on_after_a_broken_line(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(b'{"image":"a"}\n{"ima' + b"x" * 100_000)
    with JsonlWriter(path, append=True) as writer:
        writer.write(FAILURE)
    assert [json.loads(line)["image"] for line in path.read_text().splitlines()] == ["a", "broken.png"]


def test_jsonl_writes_any_file_name_and_reads_it_back(tmp_path: Path) -> None:
    name = "caf\udce9\n.png"  # a Latin-1 name on a UTF-8 system
    with JsonlWriter(tmp_path / "r.jsonl") as writer:
        writer.write(Failure(name, "missing", "no such file"))
    (line,) = (tmp_path / "r.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["image"] == name


def test_jsonl_to_an_open_stream_is_ascii_and_leaves_it_open() -> None:
    stream = io.StringIO()
    with JsonlWriter(stream, shape="rle") as writer:
        writer.write(inspected("ä.png"))
    assert stream.getvalue().isascii()
    assert json.loads(stream.getvalue())["regions"][0]["rle"]["size"] == [120, 160]


# names


def test_names_mirror_folders_and_never_meet(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    names = OutputNames(tmp_path / "out", ".jpg", root)
    images = [str(root / "a" / "1.png"), str(root / "b" / "1.png"), str(root / "a" / "1.jpg"), "/else/1.png"]
    paths = [names.path_for(image) for image in images]
    assert paths[:2] == [tmp_path / "out/a/1.jpg", tmp_path / "out/b/1.jpg"]
    assert len(set(paths)) == 4
    assert [names.path_for(image) for image in images] == paths


@given(st.lists(st.text(max_size=30), unique=True, max_size=8))
@settings(max_examples=100)
def test_no_name_leaves_the_folder_or_hides_another(
    tmp_path_factory: pytest.TempPathFactory, images: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("out")
    names = OutputNames(folder, ".png", "/data")
    paths = [names.path_for(image) for image in images]
    assert len({str(path).lower() for path in paths}) == len(images)
    for path in paths:
        assert path.resolve().is_relative_to(folder.resolve())
        path.write_bytes(b"")  # the system takes the name


@pytest.mark.parametrize(
    "image", ["../../etc/passwd", "..", "/data/../../x.png", "con.png", "a:b?.png", "C:\\x\\y.png", "x" * 400]
)
def test_dangerous_names_become_harmless(tmp_path: Path, image: str) -> None:
    path = OutputNames(tmp_path, ".png", "/data").path_for(image)
    assert path.parent == tmp_path
    assert not re.search(r'[:?"<>|*\\]', path.name) and not path.name.lower().startswith("con.")
    assert len(path.name) < 160


# colours and letters


def test_a_type_keeps_its_colour_whatever_is_found() -> None:
    assert Palette(TYPES)["pin hole"] == Palette([*TYPES, "dent"])["pin hole"] == OKABE_ITO[1]
    assert Palette(TYPES)["unknown"] == Palette([])["stain"] == UNKNOWN_COLOUR
    many = Palette(f"type {i}" for i in range(21))
    assert len(set(many.values())) == 21


def luminance(colour: tuple[int, int, int]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_letters_on_colours_can_be_read() -> None:
    for colour in [*Palette(map(str, range(21))).values(), UNKNOWN_COLOUR]:
        ground = luminance(colour)
        contrast = (ground + 0.05) / 0.054 if is_light(colour) else 1.05 / (ground + 0.05)
        assert contrast >= 4.5, colour
    for colour in (DEFECTIVE, OK):
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def simulated(colour: tuple[int, int, int], kind: str) -> np.ndarray:
    """How a colour-blind reader sees it, in CIELAB (Machado, Oliveira and Fernandes 2009, severity 1)."""
    from skimage.color import rgb2lab

    matrices = {
        "protan": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deutan": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
    }
    srgb = np.array(colour) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(matrices[kind]) @ linear, 0, 1)
    encoded = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    return rgb2lab(encoded[None, None])[0, 0]


@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_colour_blind_readers_tell_the_first_types_apart(kind: str) -> None:
    seen = [simulated(colour, kind) for colour in OKABE_ITO]
    gaps = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i]]
    assert min(gaps) > 10  # about four just noticeable differences
    assert np.linalg.norm(simulated(DEFECTIVE, kind) - simulated(OK, kind)) > 20


@given(st.text(max_size=40))
def test_any_text_can_be_drawn_on_one_line(text: str) -> None:
    drawn, font = lettering(text, 14)
    assert "\n" not in drawn and drawn.isprintable()
    assert font.getlength(drawn) >= 0


def test_letters_are_drawn_or_spelled_out() -> None:
    assert lettering("scratch 0.91", 14)[0] == "scratch 0.91"
    assert lettering("Kratzer für Ø", 14)[0] in ("Kratzer für Ø", "Kratzer fur O")
    assert lettering("a\u202e\nb", 14)[0] == "a??b"


def test_long_texts_are_shortened_in_the_middle() -> None:
    text = fit("a_very_long_file_name_of_a_part_0001.png", 14, 150)
    assert width_of(text, 14) <= 150
    assert text.startswith("a_very") and text.endswith(".png") and "…" in text
    assert fit("short.png", 14, 150) == "short.png"


# labels


@given(st.integers(0, 10_000), st.integers(1, 25))
@settings(max_examples=80, deadline=None)
def test_labels_never_overlap_and_stay_in_the_picture(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    picture = (400, 300)
    rings = [rng.uniform(-10, 290, (1, 2)) + rng.uniform(0, 90, (6, 2)) for _ in range(count)]
    sizes = [(int(rng.integers(40, 140)), 21) for _ in range(count)]
    corners = place_labels(sizes, rings, picture, gap=2)
    taken = np.zeros(picture[::-1], dtype=int)
    for corner, (width, height) in zip(corners, sizes, strict=True):
        if corner is not None:
            x, y = corner
            assert x >= 0 and y >= 0 and x + width <= picture[0] and y + height <= picture[1]
            taken[y : y + height, x : x + width] += 1
    assert taken.max() == 1


def test_a_label_sits_beside_its_outline_and_off_the_others() -> None:
    square = np.array([[0, 0], [40, 0], [40, 40], [0, 40]], dtype=float)
    (corner,) = place_labels([(60, 20)], [square + 100], (400, 300), gap=2)
    assert corner == (100, 78)
    _, second = place_labels([(60, 20)] * 2, [square + 100, square + np.array([100, 58])], (400, 300), gap=2)
    assert second is not None and (second[1] + 20 <= 58 or second[0] >= 140)
    assert place_labels([(500, 20)], [square], (400, 300), gap=2) == [None]


# overlays


@pytest.mark.parametrize(
    ("size", "least", "most"),
    [
        ((100, 80), 512, 800),
        ((512, 512), 512, 700),
        ((6000, 4000), 1900, 2048),
        ((300, 6000), 1900, 2048),
        ((4000, 90), 1700, 2048),
        ((8, 8), 512, 700),
    ],
)
def test_overlays_are_large_enough_to_see_and_small_enough_to_send(
    size: tuple[int, int], least: int, most: int
) -> None:
    picture = draw_overlay(inspected(size=size))
    assert least <= max(picture.size) <= most
    assert picture.mode == "RGB"


def test_a_tiny_photo_is_enlarged_without_blur() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    result = inspected(pixels=pixels, spots=())
    picture = np.asarray(draw_overlay(result))
    header = (picture.shape[0] - 512) // 2
    corner = next(y for y in range(header, 0, -1) if (picture[y, 0] == picture[y, 1]).all())
    found = [y for y in range(corner, corner + 40) if np.array_equal(picture[y : y + 512 : 8, ::8], pixels)]
    assert found, "every 8 x 8 block is one pixel of the photo"


def test_the_verdict_can_be_seen_from_its_colour() -> None:
    bad, good = draw_overlay(inspected()), draw_overlay(inspected(spots=()))
    header = (0, 0, 400, 56)
    assert share(bad.crop(header), DEFECTIVE) > 0.1 > share(bad.crop(header), OK)
    assert share(good.crop(header), OK) > 0.05 > share(good.crop(header), DEFECTIVE)


@pytest.mark.parametrize("grey", [0, 128, 255])
@pytest.mark.parametrize("name", ["type 0", "type 2", "type 6"])  # vermilion, yellow, blue
def test_outlines_stand_out_on_any_ground(grey: int, name: str) -> None:
    types = [f"type {i}" for i in range(7)]
    spot = (name, 0.5, 0.6, 0.2, 0.9)
    pixels = np.full((600, 600, 3), grey, np.uint8)
    result = inspected(spots=[spot], types=types, pixels=pixels)
    photo = np.asarray(draw_overlay(result)).astype(int)[58 : 58 + 600]
    line = photo[360, 400:440]  # across the right edge of the disc, whose radius is 120
    line = np.concatenate([line, photo[360, 160:200]])
    colour = Palette(types)[name]
    assert (np.abs(line - colour).max(axis=1) < 25).sum() >= 2, "the line has its type's colour"
    lightness = np.array([luminance(tuple(p)) for p in line])
    assert lightness.max() - lightness.min() > 0.12, "line, halo or ground differ in lightness"


def test_the_photo_is_untouched_away_from_the_flaws() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    result = inspected(pixels=pixels, spots=[("stain", 0.25, 0.25, 0.1, 0.9)])
    picture = np.asarray(draw_overlay(result))
    assert np.array_equal(picture[58 + 256 : 58 + 512], pixels[256:])


def test_the_legend_lists_what_was_found_first() -> None:
    result = inspected(
        spots=[("stain", 0.3, 0.3, 0.1, 0.8), ("odd", 0.7, 0.7, 0.1, 0.9), ("stain", 0.7, 0.2, 0.1, 0.7)]
    )
    entries = legend_entries(result, Palette(result.types))
    assert [(entry.name, entry.regions) for entry in entries] == [("odd", 1), ("stain", 2)]
    assert [entry.colour for entry in entries] == [UNKNOWN_COLOUR, OKABE_ITO[2]]
    faint = replace(inspected(spots=()), types={"dent": 0.3, "crack": 0.01, "stain": 0.4})
    assert [entry.name for entry in legend_entries(faint, Palette(faint.types))] == ["stain", "dent"]


def test_the_legend_says_what_its_scores_are_where_regions_have_others() -> None:
    flawed, good = inspected(size=(200, 600)), inspected(spots=(), size=(200, 600))

    def legend(result: Inspection) -> Image.Image:
        return draw_legend(result, legend_entries(result, Palette(result.types)), 600, 1.0)

    whole, bare = legend(flawed), legend(replace(flawed, types={}))
    assert whole.height == bare.height + 18, "a line more; none without the scores it is about"
    assert legend(good).height < whole.height, "nor without regions"
    line = np.asarray(whole.crop((0, whole.height - 42, 600, whole.height - 24)))
    assert (line > 120).any(axis=(0, 2))[14:300].mean() > 0.4, "letters, from the left edge on"
    assert width_of(TWO_JUDGEMENTS, 12) <= MIN_WIDTH - 28, "and all of them on the narrowest overlay"


def test_close_scores_are_told_apart() -> None:
    assert two_scores(0.91, 0.5) == ("0.91", "0.50")
    assert two_scores(0.4996, 0.5) == ("0.4996", "0.5000")
    assert two_scores(0.5, 0.5) == ("0.50", "0.50")


def test_comparing_shows_three_panels_with_the_truth_in_its_colour() -> None:
    result = inspected(size=(400, 400))
    truth = np.zeros((400, 400), bool)
    truth[250:350, 250:350] = True
    with_truth = compare(None, {"stain": truth}, result)
    without = compare(result.photo(), {}, result)
    assert with_truth.width >= 3 * 400
    left, middle, right = (with_truth.crop((x, 60, x + 400, 500)) for x in (0, 408, 816))
    yellow, vermilion = OKABE_ITO[2], OKABE_ITO[0]
    assert share(left, yellow) == share(left, vermilion) == 0
    assert share(middle, yellow) > 0.005 and share(middle, vermilion) == 0
    assert share(right, vermilion) > 0.005 and share(right, yellow) == 0
    assert share(without.crop((408, 100, 808, 480)), (128, 128, 128)) == 1


def test_wide_photos_are_compared_below_each_other() -> None:
    picture = compare(None, {}, inspected(size=(200, 1000)))
    assert picture.width == 1000 and picture.height > 600


def test_picture_writers_write_one_file_an_image(tmp_path: Path) -> None:
    for kind in (OverlayWriter, HeatmapWriter):
        folder = tmp_path / kind.__name__
        with kind(folder, tmp_path / "in") as writer:
            for name in ("a/x.png", "b/x.png"):
                writer.write(inspected(str(tmp_path / "in" / name)))
            assert writer.write(FAILURE) is None
        assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == [
            "a/x.jpg",
            "b/x.jpg",
        ]
        for path in folder.rglob("*.jpg"):
            with Image.open(path) as picture:
                assert picture.format == "JPEG"


# heat maps


def test_good_parts_look_blank_and_the_scale_is_fixed() -> None:
    low = heat_colours(np.full((2, 2), 0.12, np.float32))
    assert (low[..., 3] == 0).all()
    part = inspected(spots=[("stain", 0.3, 0.3, 0.1, 0.6)])
    worse = inspected(spots=[("stain", 0.3, 0.3, 0.1, 0.6), ("stain", 0.7, 0.7, 0.1, 1.0)])
    one, two = np.asarray(draw_heatmap(part)), np.asarray(draw_heatmap(worse))
    assert np.array_equal(one[:240], two[:240]), "a worse flaw elsewhere changes nothing here"
    assert not np.array_equal(one, two)
    values = heat_colours(np.linspace(0.2, 1, 60, dtype=np.float32)[None])[0].astype(int)
    over_white = 255 - (255 - values[:, :3]) * values[:, 3:] / 255
    assert (np.diff(over_white @ [0.2126, 0.7152, 0.0722]) < 1e-9).all(), "more heat is darker"


# HTML (its behaviour in a browser: test_report_browser.py)


class Page(HTMLParser):
    """What a page holds: tags with attributes, and text by the innermost tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(a["data-row"] or "") for _, a in self.tags if "data-row" in a]


def report(tmp_path: Path, results: list[Any], **options: Any) -> tuple[str, Page]:
    path = tmp_path / "report.html"
    with HtmlReport(path, **options) as writer:
        for result in results:
            writer.write(result)
    text = path.read_text("utf-8")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html"]
    return text, Page(text)


def test_the_report_counts_and_states_the_model(tmp_path: Path) -> None:
    text, page = report(
        tmp_path, [inspected(), inspected("g.png", ()), inspected("h.png", ()), FAILURE], title="Line 3"
    )
    counts = re.findall(r"<dt>(\w+)</dt><dd>(\d+)</dd>", text)
    assert counts == [("Images", "4"), ("Defective", "1"), ("OK", "2"), ("Failed", "1")]
    assert "<title>Line 3</title>" in text
    assert "dapo 0.1.0 (sha256 abababababab)" in text
    assert re.search(r"<b>Uncalibrated:</b> threshold from generated good parts\.", text)
    assert "the file ends before the picture does" in text
    assert [row["verdict"] for row in page.rows()] == ["defective", "ok", "ok"]
    calibrated, _ = report(tmp_path, [inspected(calibration={"good_parts": 24, "false_alarm": "0.5%"})])
    assert "<b>Calibrated:</b> good parts 24, false alarm 0.5%." in calibrated
    assert "Uncalibrated" not in calibrated
    told, _ = report(tmp_path, [inspected(calibration={"statement": "calibrated on 24 good parts"})])
    assert "<b>Calibrated</b> on 24 good parts." in told


def test_nothing_in_the_report_comes_from_elsewhere(tmp_path: Path) -> None:
    text, page = report(tmp_path, [inspected()])
    addresses = [v for _, a in page.tags for k, v in a.items() if k in ("src", "href", "data-src", "action")]
    assert addresses and all(address and address.startswith("data:image/") for address in addresses)
    assert not re.search(r"https?://|@import|url\(", text)


def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    spots = [(HOSTILE, 0.3, 0.3, 0.1, 0.9)]
    results = [
        inspected(
            HOSTILE, spots, types=[HOSTILE], calibration=HOSTILE, model={"name": HOSTILE, "version": HOSTILE}
        ),
        Failure(HOSTILE, "unreadable", HOSTILE),
    ]
    vocabulary = Vocabulary.of([HOSTILE])
    text, page = report(tmp_path, results, title=HOSTILE, vocabulary=vocabulary)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert page.rows()[0]["image"] == HOSTILE and page.rows()[0]["regions"][0]["type"] == HOSTILE
    assert "alert(1)" not in re.sub(r"&lt;script&gt;alert\(1\)&lt;/script&gt;|data-row=\"[^\"]*\"", "", text)
    assert "77777" not in "".join(page.text), "template code in a name is never run"


def test_a_file_name_that_is_not_unicode_is_shown(tmp_path: Path) -> None:
    text, _ = report(
        tmp_path, [inspected("caf\udce9.png"), Failure("x\udcff.png", "missing", "no such file")]
    )
    assert "caf\\udce9.png" in text and "x\\udcff.png" in text


def test_causes_and_actions_come_from_the_vocabulary(tmp_path: Path) -> None:
    file = tmp_path / "v.yaml"
    file.write_text(
        "defects:\n  - {name: scratch, severity: critical, causes: [worn guide], actions: [see station 3]}\n"
        "  - {name: stain, severity: minor}\n"
    )
    vocabulary = Vocabulary.from_yaml(file)
    file.unlink()
    spots = [
        ("stain", 0.2, 0.3, 0.1, 0.9),
        ("scratch", 0.7, 0.3, 0.1, 0.8),
        ("unheard-of", 0.5, 0.8, 0.1, 0.7),
    ]
    text, page = report(tmp_path, [inspected(spots=spots), inspected("g.png", ())], vocabulary=vocabulary)
    cards = [a["data-type"] for tag, a in page.tags if tag == "article"]
    assert cards == ["scratch", "stain", "unheard-of"]
    assert "worn guide" in text and "see station 3" in text
    assert "lists no causes or actions" in text
    assert "1 region on 1 part" in text
    built_in, _ = report(tmp_path, [inspected()])
    assert "What to do" in built_in


def test_photos_are_small_even_of_noise(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), dtype=np.uint8)
    text, _ = report(tmp_path, [inspected(pixels=noise)])
    embedded = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", text)
    assert len(embedded) == 1
    assert 10_000 < len(embedded[0]) * 3 / 4 <= 60_002


def test_long_runs_leave_out_photos_of_good_parts_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html_module, "ALL_PHOTOS", 10)
    monkeypatch.setattr(html_module, "GOOD_PHOTOS", 3)
    good, bad = [inspected(f"g{i}.png", ()) for i in range(9)], inspected("bad.png")
    whole, page = report(tmp_path, [*good, bad])
    assert len(page.rows()) == whole.count("data:image/jpeg") == 10
    assert "to keep this file small" not in whole
    long, page = report(tmp_path, [*good, bad, *good, bad])
    assert len(page.rows()) == 20
    assert long.count("data:image/jpeg") == 5  # 3 good, 2 defective
    assert "(5 of 20), to keep this file small" in long
    with_photo = re.findall(r'data-name="(\w+)\.png"[^>]*>\s*<td class="picture"><button', long)
    assert with_photo == ["g0", "g1", "g2", "bad", "bad"]


def test_a_report_without_pixels_or_results_is_still_a_report(tmp_path: Path) -> None:
    text, page = report(tmp_path, [])
    assert "No image was inspected." in text and page.rows() == []
    text, page = report(tmp_path, [replace(inspected(), pixels=None, anomaly_map=None)])
    assert len(page.rows()) == 1 and "data:image" not in text
    assert "0 of 1 images" in text


def test_a_run_cut_short_leaves_a_report_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), HtmlReport(tmp_path / "r.html") as writer:
        writer.write(inspected())
        raise KeyboardInterrupt
    text = (tmp_path / "r.html").read_text("utf-8")
    assert "The run was cut short" in text and len(Page(text).rows()) == 1


def test_the_colours_of_the_report_are_those_of_the_overlay(tmp_path: Path) -> None:
    _, page = report(tmp_path, [inspected(spots=[("stain", 0.3, 0.3, 0.1, 0.9)])])
    assert page.rows()[0]["regions"][0]["colour"] == hex_code(Palette(TYPES)["stain"])
