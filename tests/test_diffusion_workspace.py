import time

import pytest
import torch
from safetensors import SafetensorError

from hopfield_cl.diffusion import workspace as room
from hopfield_cl.diffusion.workspace import Workspace


def test_a_part_is_computed_once_and_read_afterwards(tmp_path):
    calls = []

    def compute():
        calls.append(1)
        time.sleep(0.01)
        return {"value": torch.arange(3.0)}

    for _ in range(2):
        space = Workspace(tmp_path, "settings")
        assert torch.equal(space.part("seed0/thing", compute)["value"], torch.arange(3.0))
    assert calls == [1]
    assert space.seconds > 0.009


def test_other_settings_have_another_folder(tmp_path):
    assert Workspace(tmp_path, "a").folder != Workspace(tmp_path, "b").folder


def test_changed_code_has_another_folder_and_a_changed_comment_has_not(tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "diffusion").mkdir(parents=True)
    source = package / "data.py"
    monkeypatch.setattr(room, "_PACKAGE", package)

    def folder(text):
        source.write_text(text, encoding="utf-8")
        return Workspace(tmp_path, "a").folder

    before = folder('def f():\n    """One."""\n    return 1\n')
    assert folder('def f():\n    """Two."""\n    return 1  # why\n') == before
    assert folder('def f():\n    """One."""\n    return 2\n') != before


def test_a_part_that_fails_leaves_nothing_behind(tmp_path):
    space = Workspace(tmp_path, "settings")

    def fail():
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        space.part("thing", fail)
    assert not list(space.folder.glob("*.safetensors"))


def test_a_truncated_part_is_refused(tmp_path):
    space = Workspace(tmp_path, "settings")
    space.part("thing", lambda: {"value": torch.arange(100.0)})
    path = space.path("thing")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(SafetensorError):
        space.part("thing", dict)
