import copy
import json
import re
import shutil
from itertools import chain
from pathlib import Path

import pytest
import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file
from tiny_pipeline import TINY, same, weights

from hopfield_cl.data.scenes import FACTORS, scenes
from hopfield_cl.records import repository
from hopfield_cl.stable import pipelines
from hopfield_cl.stable.pipelines import (
    PipelineConfig,
    PipelineError,
    check_pipeline,
    ddim,
    image_size,
    latent_shape,
    load_pipeline,
    new_pipeline,
    new_tokenizer,
    save_pipeline,
    verify_pipeline,
)


@pytest.fixture(scope="module")
def pipeline():
    return new_pipeline(TINY, seed=0)


@pytest.fixture
def folder(pipeline, tmp_path):
    save_pipeline(tmp_path / "saved", pipeline, training={"steps": 3})
    return tmp_path / "saved"


# Building


def test_the_seed_determines_the_weights_and_leaves_the_default_generator_alone(pipeline):
    before = torch.get_rng_state()
    assert same(pipeline, new_pipeline(TINY, seed=0))
    assert not same(pipeline, new_pipeline(TINY, seed=1))
    assert torch.equal(before, torch.get_rng_state())


def test_the_small_pipeline_is_below_fifteen_mebibytes():
    small = new_pipeline(PipelineConfig(), seed=0)
    numbers = sum(value.numel() for value in weights(small).values())
    assert 4 * numbers < 14.5 * 2**20
    assert latent_shape(small) == (4, 16, 16) == PipelineConfig().latent_shape


def test_each_word_of_a_caption_is_one_token_and_no_word_is_unknown():
    tokenizer = new_tokenizer(24)
    for word in [*" ".join(chain(*FACTORS.values())).split(), "a", "an", "on", "background", ","]:
        assert tokenizer.tokenize(word) == [f"{word}</w>"]
    assert tokenizer.decode(tokenizer("zebrás!", add_special_tokens=False).input_ids) == "zebrás !"
    longest = max(len(tokenizer(caption).input_ids) for caption in scenes(300, seed=0).captions)
    assert longest <= 24


def test_the_tokenizer_is_the_same_each_time():
    assert new_tokenizer(24).get_vocab() == new_tokenizer(24).get_vocab()


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"image_size": 20}, ValueError, "image_size must be a multiple of 16"),
        ({"image_size": 0}, ValueError, "image_size must be at least 1"),
        ({"unet_widths": (64, 100)}, ValueError, "unet_widths must be multiples of groups, 8"),
        ({"unet_widths": [64, 112]}, TypeError, "unet_widths must be a tuple"),
        ({"unet_widths": (64,)}, ValueError, "at least two widths"),
        ({"heads": 3}, ValueError, "heads must divide"),
        ({"text_layers": 1.5}, TypeError, "text_layers must be an integer"),
    ],
)
def test_a_configuration_that_cannot_be_built_is_refused(change, error, said):
    with pytest.raises(error, match=said):
        PipelineConfig(**change)


def test_a_vocabulary_smaller_than_the_tokenizer_is_refused():
    with pytest.raises(ValueError, match="vocabulary must be at least"):
        new_pipeline(PipelineConfig(vocabulary=10), seed=0)


# Saving and reading


def test_anyone_can_read_what_is_saved(pipeline, folder):
    read = StableDiffusionPipeline.from_pretrained(folder)
    assert same(read, pipeline)
    caption = "a small red star on a striped grey background, top left"
    assert read.tokenizer(caption).input_ids == pipeline.tokenizer(caption).input_ids
    assert read.tokenizer.model_max_length == TINY.text_length
    assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".ckpt")]


def test_the_package_reads_what_it_saved_and_says_how_it_was_trained(pipeline, folder):
    assert same(load_pipeline(folder), pipeline)
    assert verify_pipeline(folder) == {"steps": 3}


def test_a_saved_pipeline_is_replaced_but_no_other_folder_is(pipeline, folder, tmp_path):
    save_pipeline(folder, pipeline, training={"steps": 4})
    assert verify_pipeline(folder) == {"steps": 4}
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"hopfield_cl\.json is missing"):
        save_pipeline(tmp_path, pipeline, training={})


def test_weights_can_be_read_in_half_precision(folder):
    assert load_pipeline(folder, dtype=torch.bfloat16).unet.dtype == torch.bfloat16


def test_a_pipeline_of_others_is_read_and_sampled_by_ddim(pipeline, tmp_path):
    others = StableDiffusionPipeline(
        **{
            **pipeline.components,
            "scheduler": PNDMScheduler.from_config(pipeline.scheduler.config),
        },
        requires_safety_checker=False,
    )
    others.save_pretrained(tmp_path / "others")
    read = load_pipeline(tmp_path / "others")
    assert same(read, pipeline)
    assert type(read.scheduler).__name__ == "DDIMScheduler"
    assert torch.equal(read.scheduler.alphas_cumprod, pipeline.scheduler.alphas_cumprod)


def test_latents_are_clipped_by_no_schedule_that_does_not_speak_of_it(pipeline):
    silent = copy.copy(pipeline)
    silent.scheduler = PNDMScheduler(beta_schedule="scaled_linear")
    assert "clip_sample" not in silent.scheduler.config
    assert not ddim(silent).config.clip_sample
    assert not ddim(silent).config.thresholding


def test_the_network_says_how_large_images_are_whatever_the_autoencoder_was_made_for(pipeline):
    other = copy.deepcopy(pipeline)
    other.vae.register_to_config(sample_size=256)
    assert image_size(other) == image_size(pipeline) == TINY.image_size


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.safetensors", "vae/config.json"])
def test_an_altered_or_missing_file_is_refused(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="is altered or cut short"):
        load_pipeline(folder)
    path.unlink()
    with pytest.raises(ValueError, match=f"{re.escape(name)} is missing"):
        load_pipeline(folder)


def test_a_list_of_files_that_leads_out_of_the_folder_is_refused(folder):
    manifest = json.loads((folder / "hopfield_cl.json").read_text())
    manifest["files"]["../outside"] = "0" * 64
    (folder / "hopfield_cl.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="outside is missing"):
        load_pipeline(folder)


def test_a_file_that_was_not_saved_is_refused(folder):
    (folder / "unet" / "more.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"unet/more\.pt is not part of it"):
        load_pipeline(folder)


@pytest.mark.parametrize("ending", ["bin", "ckpt", "pt"])
def test_weights_in_pickle_are_refused_unread(folder, ending):
    (folder / "hopfield_cl.json").unlink()
    weights_file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights_file), weights_file.with_suffix(f".{ending}"))
    load_pipeline(folder)  # beside safetensors a pickle is not read
    weights_file.unlink()
    with pytest.raises(ValueError, match=rf"as diffusion_pytorch_model\.{ending} only, a pickle"):
        load_pipeline(folder)


def test_weights_in_half_precision_only_are_refused_with_what_to_do(folder):
    (folder / "hopfield_cl.json").unlink()
    whole = folder / "unet" / "diffusion_pytorch_model.safetensors"
    whole.rename(whole.with_name("diffusion_pytorch_model.fp16.safetensors"))
    with pytest.raises(PipelineError) as refused:
        load_pipeline(folder)
    said = str(refused.value)
    assert f"{folder / 'unet'} holds them as diffusion_pytorch_model.fp16.safetensors only" in said
    assert 'variant="fp16"' in said


def test_what_is_refused_with_half_precision_can_be_mended_as_it_says(folder, tmp_path):
    pipeline = load_pipeline(folder)
    pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    with pytest.raises(PipelineError, match="fp16"):
        load_pipeline(tmp_path / "half")
    read = StableDiffusionPipeline.from_pretrained(
        tmp_path / "half", variant="fp16", safety_checker=None
    )
    read.save_pretrained(tmp_path / "whole")
    assert same(load_pipeline(tmp_path / "whole"), pipeline)


@pytest.mark.parametrize("steps", [1, 3, 25, 999, 1000])
def test_no_denoising_step_leads_beyond_the_noise_levels(pipeline, steps):
    times = ddim(pipeline, steps=steps).timesteps
    assert len(times) == steps
    assert times.min() >= 0
    assert times.max() < pipeline.scheduler.config.num_train_timesteps
    if steps < 1000:  # where there is room, the schedule stays as diffusers makes it
        plain = ddim(pipeline)
        plain.set_timesteps(steps)
        assert torch.equal(times, plain.timesteps)


@pytest.mark.parametrize(
    ("steps", "kind", "said"),
    [
        (0, ValueError, "steps must be at least 1, but is 0"),
        (1001, ValueError, "steps must be at most 1000, the noise levels, but is 1001"),
        (2.5, TypeError, "steps must be an integer"),
    ],
)
def test_denoising_steps_that_are_none_are_refused(pipeline, steps, kind, said):
    with pytest.raises(kind, match=said):
        ddim(pipeline, steps=steps)


def test_the_small_pipeline_of_the_book_is_found_by_its_name_but_after_a_folder_of_that_name(
    folder, tmp_path, monkeypatch
):
    assert pipelines.check_source(pipelines.SMALL_SD) == repository.checkpoints("small_sd")
    shutil.copytree(folder, tmp_path / "here" / pipelines.SMALL_SD)
    monkeypatch.chdir(tmp_path / "here")
    assert pipelines.check_source(pipelines.SMALL_SD) == Path(pipelines.SMALL_SD)


def test_what_is_no_pipeline_is_refused(folder, tmp_path):
    (folder / "hopfield_cl.json").unlink()
    shutil.rmtree(folder / "vae")
    with pytest.raises(PipelineError, match="must hold weights of vae"):
        load_pipeline(folder)
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "OtherPipeline"))
    with pytest.raises(ValueError, match="names 'OtherPipeline'"):
        load_pipeline(folder)
    index.write_text("{")
    with pytest.raises(ValueError, match="must name a kind of pipeline"):
        load_pipeline(folder)
    with pytest.raises(ValueError, match=r"model_index\.json is missing"):
        load_pipeline(tmp_path)
    with pytest.raises(ValueError, match="there is no"):
        load_pipeline(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="name_or_path must be a name or a path"):
        load_pipeline(5)


def test_without_the_hub_one_sentence_says_what_to_download_and_where_to_put_it(
    monkeypatch, tmp_path
):
    def unreachable(*_, local_files_only, **__):
        if local_files_only:
            raise LocalEntryNotFoundError("not in the cache")
        raise OSError("no connection")

    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", unreachable)
    with pytest.raises(ConnectionError) as caught:
        load_pipeline("stable-diffusion-v1-5/stable-diffusion-v1-5")
    said = str(caught.value)
    assert "https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5" in said
    assert "safetensors" in said
    assert "give its path instead" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("part", "name", "value", "said"),
    [
        ("unet", "in_channels", 9, "takes 9"),
        ("scheduler", "prediction_type", "v_prediction", "predicts 'v_prediction'"),
    ],
)
def test_a_pipeline_that_is_no_stable_diffusion_1_is_refused(part, name, value, said):
    other = new_pipeline(TINY, seed=0)
    getattr(other, part).register_to_config(**{name: value})
    with pytest.raises(ValueError, match=said):
        check_pipeline(other)
