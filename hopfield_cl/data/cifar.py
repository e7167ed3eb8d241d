"""CIFAR-10 in its binary version: fetched once, checked, and read without being unpacked.

An archive from elsewhere is not trusted. Its hash is compared with the published one; no member is
written to the disk; and a member with another name, of another kind or of another length than the
data set's is refused.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pooch
from jaxtyping import Int64, UInt8

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
ARCHIVE = "cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
# As in TensorFlow Datasets, url_checksums/cifar10.txt.
_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
_TRAINING = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_OTHERS = ("test_batch.bin", "batches.meta.txt", "readme.html")
_RECORDS = 10_000  # images in a file
_SHAPE = (3, 32, 32)
_RECORD_BYTES = 1 + 3 * 32 * 32  # the label, then the red, the green and the blue pixels
_CLASSES = 10


def read_training(
    root: str | Path | None = None,
) -> tuple[UInt8[np.ndarray, "N 3 32 32"], Int64[np.ndarray, " N"]]:
    """Read the 50,000 training images.

    Parameters
    ----------
    root : path, optional
        Folder that holds the archive cifar-10-binary.tar.gz, whose hash is checked, or the files
        data_batch_1.bin to data_batch_5.bin that came out of it, in it or in its folder
        cifar-10-batches-bin, whose lengths and labels are checked. If not given, the archive is
        fetched on first use and kept in the user's cache.

    Returns
    -------
    pixels : array of uint8, shape (N, 3, 32, 32)
        Red, green and blue, from 0 to 255.
    labels : array of int64, shape (N,)
        Classes from 0 to 9.

    Raises
    ------
    TypeError
        If ``root`` is no path.
    FileNotFoundError
        If ``root`` holds neither.
    ConnectionError
        If the archive cannot be fetched.
    ValueError
        If what is there is not the data set: another hash, a member that does not belong to it, a
        wrong length, a label above 9.

    References
    ----------
    Krizhevsky (2009), *Learning Multiple Layers of Features from Tiny Images*.
    """
    if root is None:
        files = _from_archive(_fetched())
    elif not isinstance(root, str | os.PathLike):
        raise TypeError(f"root must be a path, but is a {type(root).__name__}.")
    elif (Path(root) / ARCHIVE).is_file():
        files = _from_archive(Path(root) / ARCHIVE)
    else:
        files = _from_folder(Path(root))
    parts = [_records(name, content) for name, content in files]
    pixels, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    return pixels, labels


def _fetched() -> Path:
    """The archive in the user's cache, where it is put on first use."""
    try:
        # pooch checks the hash, of what it finds in the cache as well.
        found = pooch.retrieve(
            URL,
            known_hash=f"sha256:{_SHA256}",
            fname=ARCHIVE,
            path=pooch.os_cache("hopfield_cl"),
            progressbar=True,
        )
    except OSError as problem:  # no network, no such page, no answer in time, no space
        raise ConnectionError(
            f"{URL} could not be fetched ({type(problem).__name__}): download it by other means, "
            "put it into a folder as it is, and give that folder as root."
        ) from problem
    except ValueError as problem:
        raise ValueError(
            f"{URL} gave a file that has not the published SHA-256 hash {_SHA256}; it was deleted."
        ) from problem
    return Path(found)


def _from_archive(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each training file, in their order."""
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _SHA256:
        raise ValueError(
            f"{archive} must have the published SHA-256 hash {_SHA256}, but has {found}: it is "
            f"altered or incomplete; download it again from {URL}."
        )
    try:
        contents = _members(archive)
    except (tarfile.TarError, EOFError, OSError, zlib.error) as problem:
        raise ValueError(
            f"{archive} must be a whole gzipped tar archive, but cannot be read to its end "
            f"({problem})."
        ) from problem
    for name in _TRAINING:
        if name not in contents:
            raise ValueError(f"{archive} must hold {FOLDER}/{name}, but does not.")
        yield name, contents[name]


def _members(archive: Path) -> dict[str, bytes]:
    """Content of the training files by name; every other member is looked at as well."""
    contents: dict[str, bytes] = {}
    seen: set[str] = set()
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if path == PurePosixPath(FOLDER) and member.isdir():
                continue
            name = path.name
            if path != PurePosixPath(FOLDER, name) or name not in (*_TRAINING, *_OTHERS):
                raise ValueError(
                    f"{archive} must hold nothing but the files of CIFAR-10 in the folder "
                    f"{FOLDER}, but holds {member.name!r}."
                )
            if not member.isreg() or member.issparse() or name in seen:
                raise ValueError(
                    f"{archive} must hold {member.name} once and as a regular file, but does not."
                )
            seen.add(name)
            if name.endswith(".bin"):
                _check_length(member.name, member.size)
            if name in _TRAINING:
                contents[name] = tar.extractfile(member).read()
    return contents


def _from_folder(root: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each training file, in their order."""
    folder = next((f for f in (root, root / FOLDER) if (f / _TRAINING[0]).is_file()), None)
    if folder is None:
        raise FileNotFoundError(
            f"root must be a folder that holds {ARCHIVE} or {_TRAINING[0]} to {_TRAINING[-1]}, but "
            f"{root} holds neither; download {URL} and put it there."
        )
    for name in _TRAINING:
        file = folder / name
        if not file.is_file():
            raise FileNotFoundError(f"{folder} must hold {name} as well, but does not.")
        _check_length(str(file), file.stat().st_size)
        yield str(file), file.read_bytes()


def _check_length(name: str, size: int) -> None:
    expected = _RECORDS * _RECORD_BYTES
    if size != expected:
        raise ValueError(
            f"{name} must be {expected:,} bytes long, {_RECORDS:,} images of {_RECORD_BYTES:,}, "
            f"but is {size:,}."
        )


def _records(name: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of one file."""
    table = np.frombuffer(content, np.uint8).reshape(_RECORDS, _RECORD_BYTES)
    labels = table[:, 0].astype(np.int64)
    if labels.max() >= _CLASSES:
        first = int((labels >= _CLASSES).argmax())
        raise ValueError(
            f"{name} must hold labels from 0 to {_CLASSES - 1}, but image {first} has "
            f"{labels[first]}."
        )
    return table[:, 1:].reshape(_RECORDS, *_SHAPE), labels
