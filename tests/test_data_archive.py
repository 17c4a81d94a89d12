"""Archives: unpacked whole or not at all, and nothing in them is trusted."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest

from dapo.data import open_dataset
from dapo.data.archive import STAGING, add_archives, amount
from dapo.errors import DataError

FORMATS = {"zip": ".zip", "tar": ".tar", "gztar": ".tar.gz", "xztar": ".tar.xz", "bztar": ".tar.bz2"}


def packed(folder: Path, archive: Path, form: str = "zip") -> Path:
    """The content of the folder as an archive."""
    return Path(shutil.make_archive(str(archive), form, folder))


def zip_of(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def zip_named(path: Path, *names: str) -> Path:
    return zip_of(path, **dict.fromkeys(names, b"x"))


def tar_of(path: Path, *members: tarfile.TarInfo, content: bytes = b"content", mode: Any = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for member in members:
            if member.isreg():
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def leftovers(folder: Path) -> list[Path]:
    return list(folder.glob(f"**/{STAGING}*"))


# What is unpacked


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_is_unpacked(tmp_path: Path, form: str) -> None:
    written = layouts.write("folder", tmp_path / "set")
    archive = packed(tmp_path / "set", tmp_path / "fetched", form)
    assert archive.name == "fetched" + FORMATS[form]
    (unpacked,) = add_archives([archive], tmp_path / "new" / "root")
    assert files_below(tmp_path / "new" / "root") == files_below(tmp_path / "set")
    assert len(open_dataset("folder", tmp_path / "new" / "root")) == len(written.pictures)
    assert unpacked.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert unpacked.entries == ("gear", "nut")
    assert unpacked.files == len(files_below(tmp_path / "set"))
    assert unpacked.size == sum(path.stat().st_size for path in (tmp_path / "set").rglob("*.png"))
    assert not leftovers(tmp_path)


def test_a_folder_around_the_set_is_taken_off(tmp_path: Path) -> None:
    layouts.write("folder", tmp_path / "set" / "wrapper")
    add_archives([packed(tmp_path / "set", tmp_path / "fetched")], tmp_path / "root")
    assert sorted(path.name for path in (tmp_path / "root").iterdir()) == ["gear", "nut"]


def test_a_single_product_keeps_its_folder(tmp_path: Path) -> None:
    layouts.write("folder", tmp_path / "set", plan={"nut": {(): 1, ("bent",): 1}})
    add_archives([packed(tmp_path / "set", tmp_path / "fetched")], tmp_path / "root")
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["nut"]


def test_parts_come_together_or_one_after_the_other(tmp_path: Path) -> None:
    layouts.write("folder", tmp_path / "set")
    parts = []
    for product in ("nut", "gear"):
        part = tmp_path / "parts" / product
        shutil.copytree(tmp_path / "set" / product, part / product)
        parts.append(packed(part, tmp_path / product))
    add_archives(parts, tmp_path / "together")
    for part in parts:
        add_archives([part], tmp_path / "after")
    assert (
        files_below(tmp_path / "together") == files_below(tmp_path / "after") == files_below(tmp_path / "set")
    )


def test_what_archivers_leave_is_skipped(tmp_path: Path) -> None:
    names = ["nut/a.png", "__MACOSX/nut/._a.png", "nut/.DS_Store", "nut/._a.png"]
    add_archives([zip_named(tmp_path / "a.zip", *names)], tmp_path / "root")
    assert files_below(tmp_path / "root") == ["nut/a.png"]


def test_links_inside_become_copies(tmp_path: Path) -> None:
    members = [
        member("set/early.png", tarfile.SYMTYPE, "b/real.png"),
        member("set/b/real.png"),
        member("set/b/up.png", tarfile.SYMTYPE, "../early.png"),
        member("set/hard.png", tarfile.LNKTYPE, "set/b/real.png"),
    ]
    add_archives([tar_of(tmp_path / "a.tar", *members)], tmp_path / "root")
    found = [path for path in (tmp_path / "root").rglob("*") if not path.is_dir()]
    assert len(found) == 4
    assert not any(path.is_symlink() for path in found)
    assert {path.read_bytes() for path in found} == {b"content"}


def test_permissions_of_the_archive_are_not_taken_over(tmp_path: Path) -> None:
    hostile = member("a.sh")
    hostile.mode = 0o6777
    add_archives([tar_of(tmp_path / "a.tar", hostile)], tmp_path / "root")
    assert not (tmp_path / "root" / "a.sh").stat().st_mode & 0o6111


def test_progress_reaches_the_end(tmp_path: Path) -> None:
    layouts.write("folder", tmp_path / "set")
    archive = packed(tmp_path / "set", tmp_path / "fetched", "gztar")
    seen: list[tuple[int, int]] = []
    add_archives([archive], tmp_path / "root", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2 * archive.stat().st_size,) * 2
    assert seen == sorted(seen)


# What the target has already


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    root = tmp_path / "root"
    add_archives([zip_of(tmp_path / "a.zip", **{"nut/a.png": b"old", "nut/b.png": b"old"})], root)
    newer = zip_of(tmp_path / "b.zip", **{"gear/a.png": b"new", "nut/a.png": b"new"})
    with pytest.raises(DataError, match=r"it has nut\. Nothing was changed.*--force"):
        add_archives([newer], root)
    assert files_below(root) == ["nut/a.png", "nut/b.png"]
    assert (root / "nut/a.png").read_bytes() == b"old"
    assert not leftovers(tmp_path)
    add_archives([newer], root, force=True)
    assert files_below(root) == ["gear/a.png", "nut/a.png"], "the entry nut is replaced as a whole"
    assert (root / "nut/a.png").read_bytes() == b"new"
    assert not leftovers(tmp_path)


def test_a_move_that_fails_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    add_archives([zip_of(tmp_path / "a.zip", **{"b/1": b"old"})], root)
    replace, calls = os.replace, []

    def failing(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 3:  # a moved, the old b moved away, the new b fails
            raise OSError(5, "the drive is gone")
        replace(source, target)

    monkeypatch.setattr("dapo.data.archive.os.replace", failing)
    with pytest.raises(OSError, match="gone"):
        add_archives([zip_of(tmp_path / "b.zip", **{"a/1": b"new", "b/1": b"new"})], root, force=True)
    assert files_below(root) == ["b/1"]
    assert (root / "b/1").read_bytes() == b"old"


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > total * 3 // 4:
            raise KeyboardInterrupt

    members = [member(f"nut/{number}.png") for number in range(200)]
    archive = tar_of(tmp_path / "a.tar", *members, content=bytes(4000))
    with pytest.raises(KeyboardInterrupt):
        add_archives([archive], tmp_path / "root", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


# What is refused

UNSAFE = [
    "../evil.png",
    "nut/../../evil.png",
    "/evil.png",
    "\\evil.png",
    "nut\\..\\..\\evil.png",
    "C:/evil.png",
    "c:evil.png",
    "nut/CON",
    "nut/aux.png",
    "LPT1.txt/a.png",
    "nut/evil.png:stream",
    "nut/what?.png",
    "nut/trailing./a.png",
    "nut/trailing /a.png",
    "nut/new\nline.png",
]


@pytest.mark.parametrize("name", UNSAFE)
@pytest.mark.parametrize("form", ["zip", "tar"])
def test_unsafe_names_refuse_the_whole_archive(tmp_path: Path, name: str, form: str) -> None:
    if form == "zip":
        archive = zip_named(tmp_path / "a.zip", "nut/a.png", name)
    else:
        archive = tar_of(tmp_path / "a.tar", member("nut/a.png"), member(name))
    with pytest.raises(DataError, match="Nothing was unpacked"):
        add_archives([archive], tmp_path / "in" / "root")
    assert files_below(tmp_path) == [archive.name]


@pytest.mark.parametrize(
    "hostile",
    [
        member("nut/link", tarfile.SYMTYPE, "../../outside"),
        member("nut/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("nut/link", tarfile.SYMTYPE, "C:\\outside"),
        member("nut/link", tarfile.SYMTYPE, "nowhere"),
        member("nut/link", tarfile.SYMTYPE, "link"),
        member("nut/link", tarfile.SYMTYPE, "."),
        member("nut/link", tarfile.LNKTYPE, "../outside"),
        member("nut/device", tarfile.CHRTYPE),
        member("nut/device", tarfile.BLKTYPE),
        member("nut/pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda info: f"{info.type.decode()}-{info.linkname}",
)
def test_links_and_devices_are_refused(tmp_path: Path, hostile: tarfile.TarInfo) -> None:
    (tmp_path / "outside").write_text("secret")
    archive = tar_of(tmp_path / "a.tar", member("nut/a.png"), hostile)
    with pytest.raises(DataError, match=r"its member 'nut/(link|device|pipe)' is "):
        add_archives([archive], tmp_path / "root")
    assert not (tmp_path / "root").exists()
    assert not leftovers(tmp_path)


def test_writing_through_a_link_is_impossible(tmp_path: Path) -> None:
    members = [member("nut", tarfile.SYMTYPE, str(tmp_path / "outside")), member("nut/evil.png")]
    (tmp_path / "outside").mkdir()
    with pytest.raises(DataError):
        add_archives([tar_of(tmp_path / "a.tar", *members)], tmp_path / "root")
    members[0] = member("nut", tarfile.SYMTYPE, "other")
    with pytest.raises(DataError):
        add_archives([tar_of(tmp_path / "b.tar", *members)], tmp_path / "root")
    assert not list((tmp_path / "outside").iterdir())


def test_a_zip_with_a_link_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("nut/link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "../../outside")
    with pytest.raises(DataError, match="a link or device"):
        add_archives([tmp_path / "a.zip"], tmp_path / "root")


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar", member("nut/a.png"), member("nut/A.PNG"))
    with pytest.raises(DataError, match="a second one of this name"):
        add_archives([archive], tmp_path / "root")
    archive = tar_of(tmp_path / "b.tar", member("nut"), member("nut/a.png"))
    with pytest.raises(DataError, match="a file of that name"):
        add_archives([archive], tmp_path / "root")


def test_the_room_on_the_disk_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("usage", (), {"free": 100_000_000})
    monkeypatch.setattr("dapo.data.archive.shutil.disk_usage", lambda _: usage)
    bomb = tmp_path / "a.zip"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("nut/zeros", bytes(40_000_000))
    assert bomb.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"room for the 40 MB .*has 32\.9 MB"):
        add_archives([bomb], tmp_path / "root")
    plain = tar_of(tmp_path / "a.tar", member("nut/zeros"), content=bytes(40_000_000), mode="w:gz")
    with pytest.raises(DataError, match="room for the 40 MB"):
        add_archives([plain], tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_a_member_longer_than_its_header_says_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", **{"nut/a.png": b"0123456789" * 100})
    content = path.read_bytes()
    size = (1000).to_bytes(4, "little")
    assert content.count(size) == 4  # compressed and plain size, in both headers
    last = content.rindex(size)
    path.write_bytes(content[:last] + (10).to_bytes(4, "little") + content[last + 4 :])
    with pytest.raises(DataError):
        add_archives([path], tmp_path / "root")
    assert not (tmp_path / "root").exists()


def truncated(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return (
        content[:middle]
        + bytes(byte ^ 0x5A for byte in content[middle : middle + 40])
        + content[middle + 40 :]
    )


@pytest.mark.parametrize("damage", [truncated, flipped])
@pytest.mark.parametrize("form", ["zip", "gztar", "xztar", "bztar"])
def test_damaged_archives_are_named(tmp_path: Path, form: str, damage: Callable[[bytes], bytes]) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "noise.png").write_bytes(np.random.default_rng(0).bytes(60_000))
    archive = packed(tmp_path / "set", tmp_path / "fetched", form)
    archive.write_bytes(damage(archive.read_bytes()))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    with pytest.raises(DataError, match=f"sha256 {digest}"):
        add_archives([archive], tmp_path / "root")
    assert not (tmp_path / "root").exists()
    assert not leftovers(tmp_path)


def test_a_truncated_tar_is_named(tmp_path: Path) -> None:
    archive = tar_of(tmp_path / "a.tar", member("nut/a.png"), content=bytes(50_000))
    archive.write_bytes(archive.read_bytes()[:20_000])
    with pytest.raises(DataError):
        add_archives([archive], tmp_path / "root")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04", b"\x1f\x8b\x08", b"BZh9"])
def test_what_is_no_archive_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"a whole zip or tar archive|files in .*it holds none"):
        add_archives([tmp_path / "a.zip"], tmp_path / "root")


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_file_that_is_no_tar(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    (tmp_path / "a.tar.x").write_bytes(compress(b"a picture" * 100))
    with pytest.raises(DataError, match="a whole zip or tar archive"):
        add_archives([tmp_path / "a.tar.x"], tmp_path / "root")


def test_a_bomb_behind_the_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dapo.data.archive.MAX_PADDING", 1 << 20)
    plain = tar_of(tmp_path / "a.tar", member("nut/a.png"))
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(plain.read_bytes() + bytes(3 << 20)))
    with pytest.raises(DataError, match="followed by more than 1"):
        add_archives([archive], tmp_path / "root")


def test_an_archive_with_a_password_is_named(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", **{"nut/a.png": b"content"})
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag of encryption, in the local header and in the directory
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="without password"):
        add_archives([path], tmp_path / "root")


def test_paths_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        add_archives([tmp_path / "a.zip"], tmp_path / "root")
    with pytest.raises(DataError, match="is a folder"):
        add_archives([tmp_path], tmp_path / "root")
    archive = zip_named(tmp_path / "b.zip", "a.png")
    with pytest.raises(DataError, match="is a file"):
        add_archives([archive], archive)
    with pytest.raises(DataError, match="it holds none"):
        add_archives([zip_named(tmp_path / "c.zip", "__MACOSX/a")], tmp_path / "root")


def test_one_bad_archive_refuses_the_others(tmp_path: Path) -> None:
    good, bad = zip_named(tmp_path / "a.zip", "nut/a.png"), zip_named(tmp_path / "b.zip", "../evil.png")
    with pytest.raises(DataError):
        add_archives([good, bad], tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_amounts_for_people() -> None:
    assert [amount(size) for size in (7, 1500, 5_260_000, 4_900_000_000)] == [
        "7 bytes",
        "1.5 kB",
        "5.26 MB",
        "4.9 GB",
    ]
