import time

import pytest
import torch
from safetensors import SafetensorError

from hopfield_cl.records.workspace import Workspace


def test_a_part_is_computed_once_and_read_afterwards(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        time.sleep(0.01)
        return {"value": torch.arange(3.0)}

    for _ in range(2):
        space = Workspace(tmp_path, "settings", version=1)
        assert torch.equal(space.part("seed0/thing", compute)["value"], torch.arange(3.0))
    assert calls == [1]
    assert space.seconds > 0.009


def test_other_settings_have_another_folder(tmp_path):
    assert Workspace(tmp_path, "a", version=1).folder != Workspace(tmp_path, "b", version=1).folder


def test_a_run_that_raises_its_version_reads_nothing_of_before(tmp_path):
    first = Workspace(tmp_path, "a", version=1).folder
    assert Workspace(tmp_path, "a", version=1).folder == first
    assert Workspace(tmp_path, "a", version=2).folder != first


def test_a_part_that_fails_leaves_nothing_behind(tmp_path):
    space = Workspace(tmp_path, "settings", version=1)

    def fail():
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        space.part("thing", fail)
    assert not list(space.folder.glob("*.safetensors"))


def test_a_truncated_part_is_refused(tmp_path):
    space = Workspace(tmp_path, "settings", version=1)
    space.part("thing", lambda: {"value": torch.arange(100.0)})
    path = space.path("thing")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SafetensorError):
        space.part("thing", dict)
