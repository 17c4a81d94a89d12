"""Archives: what the user fetched from the owner's page, unpacked into the folder of a data set.

In: zip or tar files (also gz, bz2, xz) and the folder to fill. Out: a frozen Unpacked for each archive.
Nothing is fetched, and nothing in an archive is trusted: a member with an absolute path, a drive, "..", a
name that Windows reserves, a link out of the archive or a device refuses the whole archive (the attacks known
as zip slip and symlink escape), and so does one that is longer than its header says. A link to a file of the
archive becomes a copy.

Everything is unpacked into a new folder beside the target and moved at the end, so that after an error the
target is as it was. Entries at the top of the archives are moved as a whole: one that the target already has
is refused, or replaced with `force`. What an unpacked archive needs is compared with the room on the disk
before anything is written; of a compressed tar, whose sizes stand between the data, before each member.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import lzma
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, TypeAlias

from dapo.data.folder import ARCHIVER, inner_folders
from dapo.data.recognise import layout_names
from dapo.errors import DataError

__all__ = ["STAGING", "Unpacked", "add_archives", "sha256"]

Progress: TypeAlias = Callable[[int, int], None]  # bytes of the archives read, bytes in all

STAGING = ".dapo-add-"  # start of the name of the folder that is being filled
BLOCK = 1 << 20  # bytes
SPARE = 64 << 20  # bytes that stay free on the disk
MAX_PADDING = 64 << 20  # bytes behind the end of a tar
MAX_LINKS = 16  # links in a row
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    gzip.BadGzipFile,
    RuntimeError,  # an encrypted zip
    NotImplementedError,  # a compression that Python does not know
    UnicodeDecodeError,
    ValueError,
)
SKIPPED = re.compile(rf"(^|/)({ARCHIVER}(/|$)|\.DS_Store$|\._[^/]*$)")  # what macOS adds
RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?", re.IGNORECASE)
FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f]')  # in a name on Windows; the colon also writes alternate streams


@dataclass(frozen=True)
class Unpacked:
    """One archive. size: bytes on disk; entries: what stands at its top."""

    archive: Path
    sha256: str
    files: int
    size: int
    entries: tuple[str, ...]


@dataclass
class Staging:
    """The folder that is being filled, and what is in it so far."""

    folder: Path
    files: dict[str, Path] = field(default_factory=dict)  # {name in small letters: file}
    links: dict[str, str] = field(default_factory=dict)  # {name: name of what it points to}
    size: int = 0

    def place(self, name: str, archive: Path) -> Path:
        """Where the member goes; DataError when its name is taken, also in other letters (Windows, macOS)."""
        if name.lower() in self.files:
            raise refused(archive, name, "names that differ", "a second one of this name")
        target = self.folder.joinpath(*name.split("/"))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise refused(archive, name, "a folder above it", "a file of that name") from error
        self.files[name.lower()] = target
        return target


def add_archives(
    archives: Sequence[str | Path],
    target: str | Path,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> tuple[Unpacked, ...]:
    """Unpacks the archives into the folder `target`, all or none.

    A single folder around a data set is taken off. force: replace entries that the target has. Raises
    DataError for an archive that is missing, damaged, unsafe or too large for the disk, and for entries that
    the target has.
    """
    target, paths = Path(target), [Path(archive) for archive in archives]
    for path in paths:
        if not path.is_file():
            came = "is a folder" if path.is_dir() else "does not exist"
            raise DataError(f"expected a zip or tar file; {path} {came}. Check the path.", path=path)
    if target.exists() and not target.is_dir():
        raise DataError(f"expected a folder to unpack into; {target} is a file. Name another.", path=target)
    target.parent.mkdir(parents=True, exist_ok=True)
    total = 2 * sum(path.stat().st_size for path in paths)  # read for the checksum, and to unpack
    watch = Watch(progress, total)
    with tempfile.TemporaryDirectory(prefix=STAGING, dir=target.parent, ignore_cleanup_errors=True) as folder:
        staging = Staging(Path(folder) / "new")
        staging.folder.mkdir()
        done = [unpack(path, staging, watch) for path in paths]
        top = without_wrapper(staging.folder)
        move_entries(top, target, Path(folder) / "old", force)
    return tuple(done)


class Watch:
    """Counts the bytes of the archives that have been read."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress, self.total, self.before, self.now = progress, total, 0, 0

    def at(self, position: int) -> None:
        """The archive that is being read is at this byte."""
        self.now = position
        if self.progress is not None:
            self.progress(min(self.before + position, self.total), self.total)

    def past(self, size: int) -> None:
        """An archive of this size has been read."""
        self.before += size
        self.at(0)


def sha256(path: Path, watch: Watch | None = None) -> str:
    """The checksum of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
            if watch is not None:
                watch.at(stream.tell())
    return digest.hexdigest()


def unpack(path: Path, staging: Staging, watch: Watch) -> Unpacked:
    """Unpacks one archive into the staging folder."""
    size = path.stat().st_size
    digest = sha256(path, watch)
    watch.past(size)
    files, bytes_before = len(staging.files), staging.size
    try:
        names = unpack_zip(path, staging) if is_zip(path) else unpack_tar(path, staging, watch)
    except (*DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk; damaged bz2 data have none
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            "expected a whole zip or tar archive (.zip, .tar, .tar.gz, .tar.xz, .tar.bz2) without password; "
            f"{path} cannot be read to its end ({reason}). Compare its sha256 {digest} with the owner's, and "
            "fetch it again.",
            kind="unreadable",
            path=path,
        ) from error
    watch.past(size)
    if len(staging.files) == files:
        raise DataError(f"expected files in {path}; it holds none. Fetch it again.", kind="empty", path=path)
    entries = tuple(sorted({name.split("/")[0] for name in names}))
    return Unpacked(path, digest, len(staging.files) - files, staging.size - bytes_before, entries)


def is_zip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def unpack_zip(path: Path, staging: Staging) -> list[str]:
    """Unpacks a zip; all names and sizes are judged before anything is written."""
    with zipfile.ZipFile(path) as archive:
        members = [(safe_name(info.filename, path), info) for info in archive.infolist()]
        members = [(name, info) for name, info in members if name and not info.is_dir()]
        for name, info in members:
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                raise refused(path, name, "files and folders", "a link or device")
        refuse_without_room(path, sum(info.file_size for _, info in members), staging.folder)
        for name, info in members:
            with archive.open(info) as source:
                write(source, staging.place(name, path), info.file_size, path, name)
            staging.size += info.file_size
    return [name for name, _ in members]


def unpack_tar(path: Path, staging: Staging, watch: Watch) -> list[str]:
    """Unpacks a tar, however compressed; a compressed one in one pass."""
    names: list[str] = []
    links: dict[str, str] = {}
    if is_plain_tar(path):
        with tarfile.open(path, mode="r:") as archive:
            refuse_without_room(path, sum(max(member.size, 0) for member in archive), staging.folder)
    with path.open("rb") as stream, tarfile.open(fileobj=stream, mode="r:*") as archive:
        for member in archive:
            name = safe_name(member.name, path)
            if not name or member.isdir():
                continue
            names.append(name)
            if member.islnk() or member.issym():
                above = PurePosixPath(name).parent if member.issym() else PurePosixPath()
                links[name] = link_target(member.linkname, above, path, name)
            else:
                unpack_member(archive, member, name, path, staging)
                watch.at(stream.tell())
        read_to_end(archive, path)
    for name in links:
        copy_link(name, links, staging, path)
    return names


def read_to_end(archive: tarfile.TarFile, path: Path) -> None:
    """Reads the padding behind the last member: a compressed stream is compared with its checksum there."""
    padding = 0
    while archive.fileobj is not None and (block := archive.fileobj.read(BLOCK)):
        padding += len(block)
        if padding > MAX_PADDING:
            raise refused(path, "(end)", "an end", f"followed by more than {amount(MAX_PADDING)}")


def unpack_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, path: Path, staging: Staging
) -> None:
    """Unpacks one file of a tar; DataError for anything but a file."""
    source = None if member.issparse() or not member.isreg() else archive.extractfile(member)
    if source is None:
        raise refused(path, name, "files and folders", "a device, pipe or file with gaps")
    refuse_without_room(path, member.size, staging.folder)
    write(source, staging.place(name, path), member.size, path, name)
    staging.size += member.size


def is_plain_tar(path: Path) -> bool:
    """Whether it is not compressed: then all sizes are read first."""
    with path.open("rb") as stream:
        return not stream.read(6).startswith((b"BZh", b"\x1f\x8b", b"\xfd7zXZ\x00"))


def safe_name(name: str, archive: Path) -> str:
    """The member's path with "/" between its parts, "" for what is skipped; DataError for an unsafe one."""
    plain = name.replace("\\", "/")
    if plain.startswith("/") or re.match(r"[A-Za-z]:", plain):
        raise refused(archive, name, "paths below the folder it is unpacked into", "an absolute one")
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise refused(archive, name, "paths below the folder it is unpacked into", 'one with ".."')
    for part in parts:
        if RESERVED.fullmatch(part) or FORBIDDEN.search(part) or part[-1] in ". ":
            raise refused(archive, name, "names that every system can store", f"{part!r}")
    plain = "/".join(parts)
    return "" if SKIPPED.search(plain) else plain


def link_target(linkname: str, above: PurePosixPath, archive: Path, name: str) -> str:
    """The member a link points to; DataError when it lies outside the archive."""
    if linkname.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", linkname):
        raise refused(archive, name, "links inside the archive", f"one to {linkname}")
    parts: list[str] = []
    for part in [*above.parts, *linkname.replace("\\", "/").split("/")]:
        if part == ".." and not parts:
            raise refused(archive, name, "links inside the archive", f"one to {linkname}")
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def copy_link(name: str, links: dict[str, str], staging: Staging, archive: Path) -> None:
    """Writes the file that a link points to, through other links, in its place."""
    target = links[name]
    for _ in range(MAX_LINKS):
        target = links.get(target, target)
    source = staging.files.get(target.lower())
    if source is None or target in links:
        raise refused(archive, name, "links to files of the archive", f"one to {links[name]}")
    size = source.stat().st_size
    refuse_without_room(archive, size, staging.folder)
    shutil.copyfile(source, staging.place(name, archive))
    staging.size += size


def write(source: IO[bytes], target: Path, size: int, archive: Path, name: str) -> None:
    """Copies exactly `size` bytes; DataError when there are more or fewer."""
    left = size
    with target.open("xb") as sink:
        while left and (block := source.read(min(BLOCK, left))):
            sink.write(block)
            left -= len(block)
    if left or source.read(1):
        raise refused(archive, name, f"{size:,} bytes, as its header says", "fewer" if left else "more")


def refuse_without_room(archive: Path, size: int, folder: Path) -> None:
    """DataError when `size` bytes do not fit on the disk of the folder."""
    free = shutil.disk_usage(folder).free
    if size + SPARE > free:
        raise DataError(
            f"expected room for the {amount(size)} that {archive} unpacks to; the disk of "
            f"{folder.parent.parent} has {amount(max(free - SPARE, 0))}. Make room or unpack to another.",
            path=archive,
        )


def amount(size: int) -> str:
    """Bytes for people: 1.2 GB."""
    number = float(size)
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def refused(archive: Path, name: str, expected: str, came: str) -> DataError:
    return DataError(
        f"expected {expected} in {archive}; its member {name!r:.120} is {came}. "
        "Nothing was unpacked. Fetch the archive from its owner again.",
        path=archive,
    )


def without_wrapper(folder: Path) -> Path:
    """The folder whose entries go into the target: the only one inside, if a data set starts there."""
    entries, inner = list(folder.iterdir()), inner_folders(folder)
    if len(entries) == len(inner) == 1 and not layout_names(folder) and layout_names(inner[0]):
        return inner[0]
    return folder


def move_entries(source: Path, target: Path, old: Path, force: bool) -> None:
    """Moves what is in source into target, all or nothing."""
    names = sorted(entry.name for entry in source.iterdir())
    taken = [name for name in names if (target / name).exists() or (target / name).is_symlink()]
    if taken and not force:
        shown = ", ".join(taken[:5]) + (", ..." if len(taken) > 5 else "")
        raise DataError(
            f"expected none of the archive's entries in {target}; it has {shown}. Nothing was changed. "
            "Name another folder, or replace them with --force.",
            path=target,
        )
    made = not target.exists()
    old.mkdir()
    target.mkdir(exist_ok=True)
    with contextlib.ExitStack() as undo:
        if made:
            undo.callback(target.rmdir)
        for name in names:
            if name in taken:
                moved(target / name, old / name, undo)
            moved(source / name, target / name, undo)
        undo.pop_all()


def moved(source: Path, target: Path, undo: contextlib.ExitStack) -> None:
    """Renames, and remembers how to take it back."""
    os.replace(source, target)
    undo.callback(os.replace, target, source)
