import json
import pickle
import shutil

import pytest
import torch
from diffusers import DDPMPipeline

from hopfield_cl.diffusion.checkpoints import load_model, save_model, verify_model
from hopfield_cl.diffusion.models import ModelConfig, new_model

SMALL = {"image_size": 8, "patch": 2, "widths": (8, 16), "groups": 4}
TRAINING = {"steps": 3, "images": "digits 0-4", "loss": [0.5, 0.25]}
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
FILES = ["model_index.json", "scheduler/scheduler_config.json", "unet/config.json", WEIGHTS]
READERS = pytest.mark.parametrize("read", [load_model, verify_model], ids=["load", "verify"])


@pytest.fixture(scope="module")
def model():
    config = ModelConfig(**SMALL, channels=3, attention=(1,), prediction="v_prediction")
    return new_model(config, seed=3)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(folder, model, training=TRAINING)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy of a saved model, to be spoiled."""
    return shutil.copytree(saved, tmp_path / "model")


def rewrite(folder, **changes):
    path = folder / "hopfield_cl.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def manifest(folder):
    return json.loads((folder / "hopfield_cl.json").read_text())


def test_a_saved_model_comes_back_bit_for_bit_with_its_configuration(model, saved):
    before = torch.get_rng_state()
    loaded = load_model(saved)
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.config == model.config
    assert torch.equal(loaded.scheduler.alphas_cumprod, model.scheduler.alphas_cumprod)
    assert loaded.scheduler.config.prediction_type == "v_prediction"
    assert not loaded.training
    there, back = model.state_dict(), loaded.state_dict()
    assert there.keys() == back.keys()
    assert all(torch.equal(there[name], back[name]) for name in there)


def test_verifying_gives_the_record_of_the_training(saved):
    assert verify_model(saved) == TRAINING


def test_a_folder_holds_no_pickle_and_names_each_of_its_files(saved):
    found = {p.relative_to(saved).as_posix() for p in saved.rglob("*") if p.is_file()}
    assert found == {*FILES, "hopfield_cl.json"}
    assert set(manifest(saved)["files"]) == set(FILES)


def test_diffusers_reads_the_folder_as_a_pipeline_and_draws_with_it(tmp_path):
    model = new_model(ModelConfig(**SMALL | {"patch": 1}), seed=0)
    save_model(tmp_path / "model", model, training={})
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "model")
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(batch_size=2, num_inference_steps=2, output_type="np").images
    assert drawn.shape == (2, 8, 8, 1)
    assert all(
        torch.equal(a, b)
        for a, b in zip(pipeline.unet.parameters(), model.unet.parameters(), strict=True)
    )


def test_a_saved_model_is_replaced_by_the_next_and_its_card_stays(folder, model):
    (folder / "README.md").write_text("A model.")
    other = new_model(model.config, seed=4)
    save_model(folder, other, training={"steps": 9})
    assert verify_model(folder) == {"steps": 9}
    pairs = zip(load_model(folder).parameters(), other.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert (folder / "README.md").read_text() == "A model."


@READERS
@pytest.mark.parametrize("name", FILES)
def test_one_changed_bit_in_any_file_is_refused(folder, read, name):
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} must be the file that was saved"):
        read(folder)


@READERS
@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_or_missing_is_refused(folder, read, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="altered or cut short"):
        read(folder)
    path.unlink()
    with pytest.raises(ValueError, match=f"must hold {name}, but .* is missing"):
        read(folder)


@READERS
@pytest.mark.parametrize(
    "name", ["unet/diffusion_pytorch_model.bin", "weights.pt", "last.ckpt", "unet/model.py"]
)
def test_a_pickle_or_a_program_beside_the_files_is_refused_unread(folder, read, name):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    (folder / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=f"nothing else, but .* holds {name}; remove it"):
        read(folder)


@READERS
@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "unet/../../x", "more"])
def test_a_manifest_that_names_another_file_is_refused(folder, read, name):
    files = manifest(folder)["files"]
    rewrite(folder, files=files | {name: files[WEIGHTS]})
    with pytest.raises(ValueError, match="must list the files"):
        read(folder)


@READERS
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "must be JSON in UTF-8"),
        (b"\xff\xfe{}", "must be JSON in UTF-8"),
        (b"[]", "must have the format"),
        (b'{"format": "hopfield_cl model, version 2"}', "must have the format"),
        (b'{"format": "hopfield_cl model, version 1"}', "must hold an object 'model'"),
    ],
)
def test_a_manifest_that_is_none_is_refused(folder, read, content, sentence):
    (folder / "hopfield_cl.json").write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        read(folder)


@READERS
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"more": 1}, "differs by 'more'"),
        ({"image_size": 9}, "image_size must be a multiple of 4"),
        ({"image_size": "8"}, "must describe a model, but does not: image_size"),
    ],
)
def test_a_manifest_that_describes_no_model_is_refused(folder, read, change, sentence):
    rewrite(folder, model=manifest(folder)["model"] | change)
    with pytest.raises(ValueError, match=sentence):
        read(folder)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"prediction": "epsilon"}, "prediction_type"),
        ({"schedule": "linear"}, "beta_schedule"),
        ({"widths": [16, 32]}, "block_out_channels"),
        ({"image_size": 16}, "sample_size"),
    ],
)
def test_a_manifest_that_describes_another_model_is_refused(folder, change, name):
    rewrite(folder, model=manifest(folder)["model"] | change)
    with pytest.raises(ValueError, match=f"says {name} = "):
        load_model(folder)


@READERS
def test_a_folder_that_is_none_is_refused(tmp_path, read):
    with pytest.raises(ValueError, match="there is no"):
        read(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        read(tmp_path / "file")
    with pytest.raises(TypeError, match="folder must be a path"):
        read(3)


def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path, model):
    target = tmp_path / "model"
    with pytest.raises(TypeError, match="model must be a DiffusionModel"):
        save_model(target, model.unet, training={})
    with pytest.raises(TypeError, match="training must be a mapping"):
        save_model(target, model, training=[])
    for value in (torch.zeros(2), float("nan")):
        with pytest.raises(ValueError, match="training must hold what JSON can hold"):
            save_model(target, model, training={"loss": value})
    assert not target.exists()


def test_a_folder_with_other_things_in_it_is_not_written_to(tmp_path, model):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="holds thesis"):
        save_model(tmp_path, model, training={})
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
