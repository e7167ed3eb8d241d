import warnings

import pytest
import torch
from tiny_pipeline import TINY

from hopfield_cl.data.scenes import scenes
from hopfield_cl.stable import prompts
from hopfield_cl.stable.pipelines import new_pipeline
from hopfield_cl.stable.prompts import embed, tokenize

LONG = "a small red star on a striped grey background, top left, " * 2


@pytest.fixture(scope="module")
def pipeline():
    return new_pipeline(TINY, seed=0)


def test_tokens_are_start_words_end_and_padding(pipeline):
    tokens = tokenize(pipeline, ["a red star", ""])
    tokenizer = pipeline.tokenizer
    assert tokens.shape == (2, 24)
    assert tokenizer.decode(tokens[0, 1:4]) == "a red star"
    assert (tokens[:, 0] == tokenizer.bos_token_id).all()
    assert (tokens[0, 4:] == tokenizer.eos_token_id).all()
    assert (tokens[1, 1:] == tokenizer.eos_token_id).all()


def test_an_empty_prompt_and_one_of_blanks_are_the_unconditional_one(pipeline):
    conditions = embed(pipeline, ["", "   \n", "a star"])
    assert torch.equal(conditions[0], conditions[1])
    assert not torch.allclose(conditions[0], conditions[2])


def test_the_batch_does_not_change_a_condition(pipeline):
    captions = scenes(5, seed=3).captions
    together, alone = embed(pipeline, captions), embed(pipeline, captions, batch_size=2)
    torch.testing.assert_close(together, alone)


def test_the_package_conditions_as_the_pipeline_itself_does(pipeline):
    captions = list(scenes(3, seed=4).captions)
    own, _ = pipeline.encode_prompt(captions, "cpu", 1, False)
    torch.testing.assert_close(embed(pipeline, captions), own)


def test_a_prompt_that_is_too_long_is_cut_and_the_warning_says_what_was_lost(pipeline):
    with pytest.warns(UserWarning, match=r"4 more than fit: ', top left ,'") as caught:
        tokens = tokenize(pipeline, ["a star", LONG])
    assert len(caught) == 1
    assert "26 tokens" in str(caught[0].message)
    assert tokens.shape == (2, 24)


def test_no_caption_of_a_scene_is_cut(pipeline):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenize(pipeline, scenes(200, seed=1).captions)
        tokenize(pipeline, ["a red star " * 7 + "on"])  # just fits: 22 tokens


@pytest.mark.parametrize(
    ("prompts", "error", "said"),
    [
        ("a star", TypeError, "put a single prompt in a list"),
        (None, TypeError, "prompts must be a sequence of strings"),
        ([], ValueError, "at least one prompt"),
        (["a star", 3], TypeError, "prompts must hold strings, but holds a int"),
    ],
)
def test_what_is_no_list_of_prompts_is_refused(pipeline, prompts, error, said):
    with pytest.raises(error, match=said):
        tokenize(pipeline, prompts)


def test_only_a_prompt_that_fills_the_room_is_spelt_out(pipeline, monkeypatch):
    spelt = []
    monkeypatch.setattr(prompts, "_warn_if_cut", lambda _, prompt, room: spelt.append(prompt))
    full = "a red star " * 7 + "on"
    tokenize(pipeline, ["a red star", "", full])
    assert spelt == [full]
