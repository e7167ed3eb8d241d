import hashlib
import io
import os
import shutil
import tarfile

import numpy as np
import pooch
import pytest
import torch

from hopfield_cl.data import cifar, load, split_tasks

RECORDS = 10
NAMES = [f"data_batch_{number}.bin" for number in range(1, 6)]


def content(number):
    """File number: ten images, one of each class; every pixel of an image differs by channel."""
    rng = np.random.default_rng(number)
    records = rng.integers(0, 256, (RECORDS, 3073), dtype=np.uint8)
    records[:, 0] = rng.permutation(10)
    return records.tobytes()


def files():
    """What the published archive holds, with ten images a file."""
    found = {f"cifar-10-batches-bin/{name}": content(i) for i, name in enumerate(NAMES)}
    found["cifar-10-batches-bin/test_batch.bin"] = content(9)
    found["cifar-10-batches-bin/batches.meta.txt"] = b"airplane\n"
    found["cifar-10-batches-bin/readme.html"] = b"<html></html>"
    return found


def put(folder, monkeypatch, contents, *odd):
    """Write an archive that the reader expects the hash of, with odd members at its end."""
    path = folder / cifar.ARCHIVE
    with tarfile.open(path, "w:gz") as tar:
        directory = tarfile.TarInfo("cifar-10-batches-bin")
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in odd:
            tar.addfile(member)
    trust(path, monkeypatch)
    return path


def trust(path, monkeypatch):
    monkeypatch.setattr(cifar, "_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.fixture(autouse=True)
def ten_images_a_file(monkeypatch):
    monkeypatch.setattr(cifar, "_RECORDS", RECORDS)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a test asked the network")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", refuse)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    return put(tmp_path, monkeypatch, files())


def refused(folder, error, match):
    with pytest.raises(error, match=match) as caught:
        cifar.read_training(folder)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence


def expected():
    table = np.concatenate(
        [np.frombuffer(content(i), np.uint8).reshape(-1, 3073) for i in range(5)]
    )
    return table[:, 1:].reshape(-1, 3, 32, 32), table[:, 0]


def test_the_archive_is_read_in_the_order_of_its_files_whatever_that_of_its_members(
    tmp_path, monkeypatch
):
    put(tmp_path, monkeypatch, dict(reversed(files().items())))
    pixels, labels = cifar.read_training(tmp_path)
    assert np.array_equal(pixels, expected()[0])
    assert np.array_equal(labels, expected()[1])


def test_reading_the_archive_writes_nothing(archive):
    before = sorted(archive.parent.rglob("*"))
    cifar.read_training(archive.parent)
    assert sorted(archive.parent.rglob("*")) == before


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-bin"], ids=["flat", "folder"])
def test_the_unpacked_files_give_the_same_images(tmp_path, inside):
    (tmp_path / inside).mkdir(exist_ok=True)
    for number, name in enumerate(NAMES):
        (tmp_path / inside / name).write_bytes(content(number))
    pixels, labels = cifar.read_training(str(tmp_path))
    assert np.array_equal(pixels, expected()[0])
    assert np.array_equal(labels, expected()[1])


def test_images_are_float32_from_minus_one_to_one_with_channels_first(archive):
    dataset = load("cifar10", root=archive.parent)
    assert dataset.name == "cifar10"
    assert dataset.images.shape == (50, 3, 32, 32)
    assert dataset.images.dtype == torch.float32
    assert dataset.labels.dtype == torch.int64
    pixels = torch.from_numpy(expected()[0]).double()
    torch.testing.assert_close(dataset.images.double(), pixels / 127.5 - 1, rtol=0, atol=2e-7)


def test_it_splits_into_two_tasks_of_five_classes(archive):
    tasks = split_tasks(load("cifar10", root=archive.parent), 5)
    assert [sorted(set(task.labels.tolist())) for task in tasks] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
    ]
    assert [len(task) for task in tasks] == [25, 25]


# What is not the data set


def test_altered_bytes_are_refused_by_the_hash(archive):
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    refused(archive.parent, ValueError, "must have the published SHA-256 hash .* altered")


def test_a_truncated_archive_is_refused_by_the_hash_and_without_it(archive, monkeypatch):
    whole = archive.read_bytes()
    for length in (0, 10, len(whole) // 3, len(whole) - 9):
        archive.write_bytes(whole[:length])
        refused(archive.parent, ValueError, "must have the published SHA-256 hash")
    for length in (0, 10, len(whole) // 3, len(whole) // 2):
        archive.write_bytes(whole[:length])
        trust(archive, monkeypatch)
        refused(archive.parent, ValueError, "must be a whole gzipped tar archive|but does not")


def test_what_is_no_archive_is_refused(archive, monkeypatch):
    for data in (b"<html>not found</html>" * 100, b"\x1f\x8b" + os.urandom(2000)):
        archive.write_bytes(data)
        trust(archive, monkeypatch)
        refused(archive.parent, ValueError, "must be a whole gzipped tar archive")


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/tmp/evil",
        "evil",
        "data_batch_1.bin",
        "cifar-10-batches-bin/../../data_batch_1.bin",
        "cifar-10-batches-bin/deeper/data_batch_1.bin",
        "cifar-10-batches-bin/data_batch_6.bin",
        "../cifar-10-batches-bin/data_batch_1.bin",
    ],
)
def test_a_member_that_does_not_belong_is_refused_and_nothing_is_written(
    tmp_path, monkeypatch, name
):
    inner = tmp_path / "inner"
    inner.mkdir()
    put(inner, monkeypatch, files(), tarfile.TarInfo(name))
    refused(inner, ValueError, "must hold nothing but the files of CIFAR-10")
    assert [path.name for path in tmp_path.rglob("*")] == ["inner", cifar.ARCHIVE]


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
)
def test_a_link_a_pipe_a_device_or_a_folder_in_place_of_a_file_is_refused(
    tmp_path, monkeypatch, kind
):
    contents = files()
    del contents["cifar-10-batches-bin/data_batch_3.bin"]
    member = tarfile.TarInfo("cifar-10-batches-bin/data_batch_3.bin")
    member.type, member.linkname = kind, "/etc/hostname"
    put(tmp_path, monkeypatch, contents, member)
    refused(tmp_path, ValueError, "data_batch_3.bin once and as a regular file")


def test_a_member_that_occurs_twice_is_refused(tmp_path, monkeypatch):
    put(tmp_path, monkeypatch, files(), tarfile.TarInfo("cifar-10-batches-bin/readme.html"))
    refused(tmp_path, ValueError, "readme.html once and as a regular file")


@pytest.mark.parametrize("name", ["data_batch_2.bin", "test_batch.bin"])
@pytest.mark.parametrize("change", [-1, 1])
def test_a_file_of_a_wrong_length_is_refused(tmp_path, monkeypatch, name, change):
    whole = content(1) + b"\0"
    contents = files() | {f"cifar-10-batches-bin/{name}": whole[: 30730 + change]}
    put(tmp_path, monkeypatch, contents)
    refused(tmp_path, ValueError, f"{name} must be 30,730 bytes long.* is 30,7(29|31)")


def test_an_archive_that_lacks_a_file_is_refused(tmp_path, monkeypatch):
    contents = files()
    del contents["cifar-10-batches-bin/data_batch_4.bin"]
    put(tmp_path, monkeypatch, contents)
    refused(tmp_path, ValueError, "must hold cifar-10-batches-bin/data_batch_4.bin, but does not")


def test_a_label_above_nine_is_refused(tmp_path, monkeypatch):
    bad = bytearray(content(1))
    bad[3 * 3073] = 10
    put(tmp_path, monkeypatch, files() | {"cifar-10-batches-bin/data_batch_2.bin": bytes(bad)})
    refused(tmp_path, ValueError, "data_batch_2.bin must hold labels from 0 to 9, but image 3 has")


def test_unpacked_files_are_checked_too(tmp_path):
    for number, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(content(number))
    (tmp_path / NAMES[3]).write_bytes(content(3)[:-1])
    refused(tmp_path, ValueError, "data_batch_4.bin must be 30,730 bytes long")
    (tmp_path / NAMES[3]).unlink()
    refused(tmp_path, FileNotFoundError, "must hold data_batch_4.bin as well")


def test_a_folder_that_holds_nothing_says_what_to_download(tmp_path):
    sentence = f"holds neither; download {cifar.URL} and put it there"
    refused(tmp_path, FileNotFoundError, sentence)
    refused(tmp_path / "none", FileNotFoundError, sentence)


def test_a_root_that_is_no_path_is_refused():
    refused(5, TypeError, "^root must be a path, but is a int")


# The network


def cached(monkeypatch, folder, give):
    """Let the cache lie in a folder, and the network give what ``give`` writes."""
    monkeypatch.setattr(pooch, "os_cache", lambda name: folder / name)
    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", give)


def test_it_is_fetched_once_and_then_read_from_the_cache(archive, tmp_path, monkeypatch):
    asked = []

    def give(self, url, output_file, pooch, **options):
        asked.append(url)
        shutil.copy(archive, output_file)

    cached(monkeypatch, tmp_path / "cache", give)
    for _ in range(2):
        assert np.array_equal(cifar.read_training()[0], expected()[0])
    assert asked == [cifar.URL]


def test_without_a_network_one_sentence_says_what_to_download_and_where_to_put_it(
    tmp_path, monkeypatch
):
    def give(self, *arguments, **options):
        raise OSError("Name or service not known")

    cached(monkeypatch, tmp_path, give)
    refused(
        None, ConnectionError, "could not be fetched .*: download it .* give that folder as root"
    )
    with pytest.raises(ConnectionError, match=cifar.URL):
        load("cifar10")


def test_another_file_from_the_network_is_refused_and_not_kept(tmp_path, monkeypatch):
    def give(self, url, output_file, pooch, **options):
        with open(output_file, "wb") as file:
            file.write(b"something else")

    cached(monkeypatch, tmp_path, give)
    refused(None, ValueError, "gave a file that has not the published SHA-256 hash")
    assert not list(tmp_path.rglob("*.gz"))


def test_the_published_file_is_fetched_over_https_and_known_by_its_sha256():
    assert cifar.URL == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert len(bytes.fromhex(cifar._SHA256)) == 32
