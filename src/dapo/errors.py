"""Every error DAPO raises on purpose, in one tree. Catch ``DapoError`` to catch them all.

::

    DapoError
    ├── InputError        one image or file cannot be inspected (``kind`` says why); the others still can
    ├── VocabularyError   the defect types: no names, two of one name, a file that is not a vocabulary
    ├── ConfigError       a setting: unknown key, value out of range, options that contradict each other
    ├── ModelError        a model folder: missing or foreign file, wrong format version, unknown key
    ├── DataError         a dataset: folders, masks, labels (``kind`` and ``path`` say what and where)
    └── DependencyError   an optional package is not installed; the message holds the pip line

A message says what was expected, what came, and what to do next, in one sentence where it can.
"""

from __future__ import annotations

import os

__all__ = [
    "DATA_KINDS",
    "INPUT_KINDS",
    "ConfigError",
    "DapoError",
    "DataError",
    "DependencyError",
    "InputError",
    "ModelError",
    "VocabularyError",
]

INPUT_KINDS = (
    "missing",  # no such file
    "unreadable",  # not an image, or no permission
    "truncated",  # the file ends before the picture does
    "empty",  # zero bytes, or an array without pixels
    "too_small",
    "too_large",
    "shape",  # an array that is not (h, w), (h, w, c) or (c, h, w)
    "dtype",
    "range",  # floats outside 0..1
    "not_finite",  # NaN or infinity
)

DATA_KINDS = (
    "layout",  # a folder, file or line that is not in the form the layout asks for
    "orphan_image",  # an image without its mask or its entry
    "orphan_mask",  # a mask, label file or entry without its image
    "unreadable",  # an image or mask that cannot be decoded
    "mask_size",  # a mask of another size than its image
    "mask_values",  # a mask file of other values than 0 and 255
    "mask_empty",  # a defective image whose mask marks nothing
    "unknown_type",  # a folder or label that the taxonomy does not know
    "empty",  # a product or folder without images
    "twice",  # one image listed twice
)


class DapoError(Exception):
    """Root of the tree."""


class InputError(DapoError):
    """One image or file cannot be inspected; ``kind`` is one of ``INPUT_KINDS``."""

    def __init__(self, message: str, kind: str = "unreadable") -> None:
        if kind not in INPUT_KINDS:
            raise ValueError(f"kind must be one of {', '.join(INPUT_KINDS)}; got {kind!r}")
        super().__init__(message)
        self.kind = kind

    @property
    def message(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str]]:
        return type(self), (self.message, self.kind)  # so that worker processes can send it back


class VocabularyError(DapoError):
    """The defect types cannot be used as given."""


class ConfigError(DapoError):
    """A setting is unknown, out of range, or contradicts another."""


class ModelError(DapoError):
    """A model folder cannot be loaded as it is."""


class DataError(DapoError):
    """A dataset folder cannot be used as it is; ``kind`` is one of ``DATA_KINDS``, ``path`` is to blame."""

    def __init__(self, message: str, *, kind: str = "layout", path: os.PathLike[str] | None = None) -> None:
        if kind not in DATA_KINDS:
            raise ValueError(f"kind must be one of {', '.join(DATA_KINDS)}; got {kind!r}")
        super().__init__(message)
        self.kind, self.path = kind, path


class DependencyError(DapoError):
    """An optional package is needed and not installed."""

    @classmethod
    def for_extra(cls, extra: str, package: str) -> DependencyError:
        """The error for a package that comes with the optional dependencies ``extra``."""
        return cls(f"this needs the package {package}, which is not installed: pip install 'dapo[{extra}]'")
