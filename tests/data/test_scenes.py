import itertools
import math

import matplotlib.colors
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from hopfield_cl.data.scenes import (
    FACTORS,
    JITTER,
    Judge,
    captions,
    decode,
    drawing,
    log_probability,
    parse,
    probabilities,
    render,
    scenes,
    split,
    stream,
    train_judge,
)

SIZES = [len(values) for values in FACTORS.values()]
COLUMN = {factor: column for column, factor in enumerate(FACTORS)}


def combinations():
    """Every combination of factors, a row each."""
    return torch.cartesian_prod(*(torch.arange(size) for size in SIZES))


@pytest.fixture(scope="module")
def many():
    """Scenes at the smallest size, to count."""
    return scenes(20_000, seed=11, size=8)


@pytest.fixture(scope="module")
def judge():
    return train_judge(seed=0, steps=80)


# The density


def test_the_probabilities_of_all_combinations_sum_to_one():
    table = probabilities()
    assert table.shape == tuple(SIZES)
    assert table.min() > 0
    assert table.sum().item() == pytest.approx(1, abs=1e-13)
    total = log_probability(combinations()).exp().sum().item()
    assert total == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("usual", "seldom", "ratio"),
    [
        ("a small red circle on a plain grey background, top", "green circle", 10),
        ("a small red circle on a plain grey background, top", "cyan circle", 10),
        ("a small red circle on a plain grey background, top", "small blue circle", 1),
        ("a small red square on a striped white background, top", "dotted white", 10),
        ("a small red square on a plain grey background, top", "striped grey", 2),
        ("a small red square on a plain white background, top", "plain brown", 40),
        ("a small red circle on a plain white background, top", "green circle dotted white", 200),
        ("a small red circle on a plain white background, centre", "top", 2),
    ],
)
def test_a_combination_is_as_much_rarer_as_the_density_says(usual, seldom, ratio):
    changed = parse([usual])
    for word in seldom.replace("centre", "").split():
        factor = next(factor for factor, values in FACTORS.items() if word in values)
        changed[0, COLUMN[factor]] = FACTORS[factor].index(word)
    found = log_probability(parse([usual])) - log_probability(changed)
    assert found.exp().item() == pytest.approx(ratio, rel=1e-12)


def test_every_shape_is_equally_likely():
    assert torch.allclose(probabilities().sum((1, 2, 3, 4, 5)), torch.full((6,), 1 / 6).double())


def test_factors_come_as_often_as_the_density_says(many):
    table = probabilities()
    pairs = list(itertools.combinations(range(len(SIZES)), 2))
    for first, second in pairs:
        others = [axis for axis in range(len(SIZES)) if axis not in (first, second)]
        expected = len(many) * table.sum(others).flatten()
        cell = many.factors[:, first] * SIZES[second] + many.factors[:, second]
        counted = torch.bincount(cell, minlength=len(expected))
        assert expected.min() > 20
        assert chisquare(counted, expected).pvalue > 0.01 / len(pairs)


def test_scenes_of_each_density_come_as_often_as_it_says(many):
    # Densities that differ by rounding alone are one level; the rarest are counted together.
    densities = probabilities().log().flatten()
    levels, level = densities.mul(1e9).round().unique(return_inverse=True)
    expected = len(many) * torch.bincount(level, weights=probabilities().flatten())
    found = torch.searchsorted(levels, many.log_density.mul(1e9).round())
    counted = torch.bincount(found, minlength=len(levels))
    rare = int((expected.cumsum(0) < 20).sum()) + 1
    assert len(levels) - rare >= 8
    expected = torch.cat([expected[:rare].sum(0, keepdim=True), expected[rare:]])
    counted = torch.cat([counted[:rare].sum(0, keepdim=True), counted[rare:]])
    assert chisquare(counted, expected).pvalue > 0.01


def test_the_log_density_is_that_of_the_factors(many):
    assert torch.equal(many.log_density, log_probability(many.factors))
    assert many.log_density.dtype == torch.float64


def test_the_jitter_is_uniform_and_independent_of_factors_and_of_itself(many):
    jitter = many.jitter.double()
    for column in range(len(JITTER)):
        assert kstest(jitter[:, column].numpy(), "uniform").pvalue > 0.001
    together = torch.corrcoef(torch.cat([jitter, many.factors.double()], dim=1).T)
    apart = together[: len(JITTER)] - torch.eye(len(JITTER), together.shape[1])
    assert apart.abs().max() < 4 / math.sqrt(len(many))


# The draw


def test_a_scene_depends_on_its_number_and_the_seed_alone():
    whole, tail = scenes(15, seed=3, size=16), scenes(10, seed=3, size=16, start=5)
    for name in ("images", "factors", "jitter", "log_density"):
        assert torch.equal(getattr(whole, name)[5:], getattr(tail, name))
    assert whole.captions[5:] == tail.captions


@pytest.mark.parametrize("batch_size", [1, 4, 7, 100])
def test_a_stream_is_the_set_in_portions(batch_size):
    whole = scenes(10, seed=3, size=16, start=2)
    batches = list(stream(10, batch_size, seed=3, size=16, start=2))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert torch.equal(torch.cat([batch.images for batch in batches]), whole.images)
    assert sum((batch.captions for batch in batches), ()) == whole.captions


def test_the_same_call_gives_the_same_bits_and_another_seed_other_scenes():
    assert torch.equal(scenes(4, seed=0).images, scenes(4, seed=0).images)
    assert not torch.equal(scenes(40, seed=0, size=8).factors, scenes(40, seed=1, size=8).factors)
    assert len(scenes(2, seed=2**64 - 1, size=8, start=10**15)) == 2


def test_the_scenes_of_a_seed_never_change():
    # Recorded: whoever trained on these scenes must find them again.
    first = scenes(3, seed=0, size=8)
    assert first.captions == (
        "a small red circle on a striped grey background, bottom",
        "a small green square on a plain grey background, centre",
        "a large blue square on a checked brown background, bottom",
    )


def test_drawing_leaves_the_generators_of_others_as_they_were():
    torch.manual_seed(0)
    np.random.seed(0)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(0)
    np.random.seed(0)
    scenes(3, seed=0, size=8)
    train_judge(seed=0, steps=1, batch_size=2)
    assert (torch.rand(1), np.random.rand()) == expected


# The picture


def test_images_have_their_shape_and_range():
    drawn = scenes(200, seed=0, size=40)
    assert drawn.images.shape == (200, 3, 40, 40)
    assert drawn.images.dtype == torch.float32
    assert -1 <= drawn.images.min() < -0.9
    assert 0.9 < drawn.images.max() <= 1
    assert torch.equal(render(drawn.factors, jitter=drawn.jitter, size=40), drawn.images)


def test_drawing_in_blocks_changes_nothing(monkeypatch):
    expected = scenes(9, seed=4, size=16).images
    monkeypatch.setattr(drawing, "_PIXELS_PER_BLOCK", 2 * 16**2)
    assert torch.equal(scenes(9, seed=4, size=16).images, expected)


def test_a_small_image_is_the_large_one_seen_from_afar():
    large, small = (scenes(60, seed=5, size=size).images for size in (320, 64))
    apart = (torch.nn.functional.avg_pool2d(large, 5) - small).abs()
    assert apart.mean() < 0.002
    # Not at the tips of stars and triangles: they are sharp, not averaged.
    assert apart.flatten()[::3].quantile(0.999) < 0.15


AREAS = {
    "circle": math.pi * 0.92**2,
    "square": 1.64**2,
    "triangle": 0.75 * math.sqrt(3) * 1.2**2,
    "star": 5 * 1.22 * 0.52 * math.sin(math.pi / 5),
    "cross": 2 * 2.08 * 0.72 - 0.72**2,
    "ring": math.pi * (1.02**2 - 0.58**2),
}


def cover(texts, *, jitter=None, size=64):
    """Share of each pixel that a red shape on a plain black background covers."""
    red = (render(parse(texts), jitter=jitter, size=size)[:, 0] + 1) / 2
    ground = red[:, :1, :1]
    return (red - ground) / (0.88 - ground)


@pytest.mark.parametrize("shape", FACTORS["shape"])
def test_edges_are_antialiased_so_that_a_shape_has_its_area(shape):
    assert set(AREAS) == set(FACTORS["shape"])
    jitter = torch.rand(20, len(JITTER), generator=torch.Generator().manual_seed(0))
    texts = [f"a large red {shape} on a plain black background, centre"] * 20
    covered = cover(texts, jitter=jitter)
    radius = 0.18 + 0.015 * jitter[:, 2]
    assert torch.allclose(covered.mean((1, 2)), AREAS[shape] * radius**2, rtol=0.01)
    partly = (covered > 0.01) & (covered < 0.99)
    assert partly.sum((1, 2)).min() > 20


@pytest.mark.parametrize("place", FACTORS["place"])
def test_a_shape_stands_where_its_caption_says(place):
    jitter = torch.rand(30, len(JITTER), generator=torch.Generator().manual_seed(1))
    texts = [f"a small red circle on a plain black background, {place}"] * 30
    covered = cover(texts, jitter=jitter)
    centres = (torch.arange(64) + 0.5) / 64
    mass = covered.sum((1, 2))
    across, down = ((covered.sum(axis) * centres).sum(1) / mass for axis in (1, 2))
    words = place.split()
    expected_across = 0.28 if "left" in words else 0.72 if "right" in words else 0.5
    expected_down = 0.28 if "top" in words else 0.72 if "bottom" in words else 0.5
    assert (across - expected_across).abs().max() < 0.021
    assert (down - expected_down).abs().max() < 0.021
    # It moves with its jitter, to the right and downwards.
    assert torch.corrcoef(torch.stack([across, jitter[:, 0]]))[0, 1] > 0.99
    assert torch.corrcoef(torch.stack([down, jitter[:, 1]]))[0, 1] > 0.99


def test_no_shape_is_cut_off_by_the_frame():
    texts = [
        f"a large red {shape} on a plain black background, {place}"
        for shape in FACTORS["shape"]
        for place in ("top left", "top right", "bottom left", "bottom right")
    ]
    for extreme in itertools.product([0.0, 1.0], repeat=3):
        jitter = torch.full((len(texts), len(JITTER)), 1.0)
        jitter[:, [0, 1, 3]] = torch.tensor(extreme)
        covered = cover(texts, jitter=jitter, size=128)
        assert covered[:, [0, -1]].max() < 0.001
        assert covered[:, :, [0, -1]].max() < 0.001


def test_every_large_shape_is_larger_than_every_small_one():
    areas = {}
    for size in FACTORS["size"]:
        texts = [f"a {size} red {shape} on a plain black background, top" for shape in AREAS]
        jitter = torch.full((6, len(JITTER)), 1.0 if size == "small" else 0.0)
        areas[size] = cover(texts, jitter=jitter).sum((1, 2))
    assert (areas["large"] > 1.8 * areas["small"]).all()


def lab(colour):
    """CIE Lab coordinates of colours in sRGB, 0 to 1, under D65."""
    rgb = np.asarray(colour, dtype=float)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = linear @ np.array(to_xyz).T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    )


def pixel(text, row, column):
    """Colour of a pixel of a caption's image, from 0 to 1."""
    return (render(parse([text]))[0, :, row, column].numpy() + 1) / 2


@pytest.mark.parametrize("factor", ["colour", "background"])
def test_colours_bear_the_name_that_most_people_give_them(factor):
    # xkcd's survey of colour names; of its names only those that captions use.
    names = [*FACTORS["colour"], *FACTORS["background"]]
    surveyed = lab([matplotlib.colors.to_rgb(f"xkcd:{name}") for name in names])
    for value in FACTORS[factor]:
        if factor == "colour":
            shown = pixel(f"a large {value} circle on a plain grey background, centre", 32, 32)
        else:
            shown = pixel(f"a small red circle on a plain {value} background, centre", 2, 2)
        nearest = np.linalg.norm(surveyed - lab(shown), axis=1).argmin()
        assert names[nearest] == value


def test_every_shape_stands_out_from_every_background_and_its_texture():
    shown = lab(
        [
            pixel(f"a large {colour} circle on a plain grey background, centre", 32, 32)
            for colour in FACTORS["colour"]
        ]
    )
    texts = [f"a small red circle on a checked {b} background, top" for b in FACTORS["background"]]
    for tone in (0.0, 0.5, 1.0):
        jitter = torch.full((len(texts), len(JITTER)), 0.5)
        jitter[:, JITTER.index("tone")] = tone
        grounds = (render(parse(texts), jitter=jitter)[:, :, 48:].flatten(2) + 1) / 2
        apart = np.linalg.norm(lab(grounds.movedim(1, -1))[:, :, None] - shown, axis=-1)
        assert apart.min() > 25


def test_textures_differ_and_move_with_their_phase():
    texts = [f"a small red circle on a {t} grey background, top" for t in FACTORS["texture"]]
    still = render(parse(texts))
    spread = still[:, :, 32:].flatten(1).std(1)
    assert spread[0] < 1e-6
    assert spread[1:].min() > 0.05
    for column in ("phase across", "phase down"):
        jitter = torch.full((4, len(JITTER)), 0.5)
        jitter[:, JITTER.index(column)] = 0.8
        moved = (render(parse(texts), jitter=jitter) - still).abs().flatten(1).amax(1)
        assert moved[0] == 0
        assert moved[2:].min() > 0.1
    # Half a period exchanges the tones of stripes.
    jitter = torch.full((4, len(JITTER)), 0.5)
    jitter[:, JITTER.index("phase across")] = 0.0
    both = render(parse(texts), jitter=jitter)[1, 0, 40:] + still[1, 0, 40:]
    assert (both - both.mean()).abs().max() < 1e-4


# Captions


def test_every_full_caption_is_read_back():
    factors = combinations()
    texts = captions(factors)
    assert len(set(texts)) == len(texts) == 13_824
    assert torch.equal(parse(texts), factors)


@given(st.tuples(*(st.integers(-1, size - 1) for size in SIZES)))
def test_a_caption_that_leaves_out_factors_is_read_back(row):
    factors = torch.tensor([row])
    assert torch.equal(parse(captions(factors)), factors)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a small red star", {"size": "small", "colour": "red", "shape": "star"}),
        ("an orange ring, top left", {"colour": "orange", "shape": "ring", "place": "top left"}),
        ("a shape, top", {"place": "top"}),
        ("a cross on a dotted background", {"shape": "cross", "texture": "dotted"}),
        ("a blue shape on a black background", {"colour": "blue", "background": "black"}),
    ],
)
def test_captions_read_like_english(text, said):
    found = parse([text])
    assert captions(found) == (text,)
    words = {
        factor: values[index]
        for (factor, values), index in zip(FACTORS.items(), found[0].tolist(), strict=True)
        if index >= 0
    }
    assert words == said


# Tasks


def test_a_split_by_shape_parts_the_scenes_and_keeps_what_is_known_of_them():
    drawn = scenes(60, seed=0, size=8)
    first, second = split(drawn, "shape", ("circle", "square", "triangle"))
    assert len(first) + len(second) == 60
    assert set(first.factors[:, 0].tolist()) <= {0, 1, 2}
    assert set(second.factors[:, 0].tolist()) <= {3, 4, 5}
    for part in (first, second):
        assert torch.equal(parse(part.captions), part.factors)
        assert torch.equal(log_probability(part.factors), part.log_density)
        assert torch.equal(render(part.factors, jitter=part.jitter, size=8), part.images)


def test_a_split_by_colour_can_leave_a_task_empty():
    drawn = scenes(10, seed=0, size=8)
    none, everything = split(drawn, "colour", ())
    assert len(none) == 0
    assert none.images.shape == (0, 3, 8, 8)
    assert torch.equal(everything.images, drawn.images)


# The judge


def uniform(count, *, seed, size=64):
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(size, (count,), generator=generator) for size in SIZES]
    factors = torch.stack(columns, dim=1)
    return factors, render(
        factors, jitter=torch.rand(count, len(JITTER), generator=generator), size=size
    )


@pytest.mark.parametrize("size", [32, 64])
def test_a_judge_finds_the_factors_of_new_scenes_of_any_size(judge, size):
    drawn = scenes(500, seed=1, size=size)
    right = (decode(judge, drawn.images) == drawn.factors).double().mean(0)
    assert right.min() > 0.95


def test_a_judge_finds_the_factors_of_rare_and_of_degraded_scenes(judge):
    factors, images = uniform(500, seed=2)
    assert (decode(judge, images) == factors).double().mean(0).min() > 0.95
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(3))
    blurred = torch.nn.functional.interpolate(
        torch.nn.functional.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear"
    )
    seen = decode(judge, blurred + 0.1 * noise)
    assert (seen == factors).double().mean(0).min() > 0.95


def test_a_judge_does_not_agree_with_what_an_image_does_not_show(judge):
    factors, images = uniform(500, seed=4)
    agreed = (decode(judge, images) == factors.flip(0)).double().mean(0)
    assert (agreed - 1 / torch.tensor(SIZES)).abs().max() < 0.09


def test_the_same_seed_trains_the_same_judge_and_another_seed_another():
    one, same, other = (train_judge(seed=seed, steps=2, batch_size=4) for seed in (5, 5, 6))
    pairs = list(zip(one.parameters(), same.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert not all(torch.equal(a, c) for a, _, c in pairs)


def test_judging_in_batches_changes_nothing_and_leaves_the_mode(judge):
    images = scenes(11, seed=0).images
    judge.train()
    found = decode(judge, images, batch_size=4)
    assert judge.training
    judge.eval()
    assert torch.equal(found, decode(judge, images))


# Bad input

GOOD = torch.zeros(2, 6, dtype=torch.int64)
HALF = torch.full((2, 7), 0.5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: scenes(0, seed=0), ValueError, "count must be at least 1"),
        (lambda: scenes(1.5, seed=0), TypeError, "count must be an integer"),
        (lambda: scenes(1, seed=-1), ValueError, "seed must be at least 0"),
        (lambda: scenes(1, seed=2**64), ValueError, "seed must be at most"),
        (lambda: scenes(1, seed=0, size=7), ValueError, "size must be at least 8"),
        (lambda: scenes(1, seed=0, start=-1), ValueError, "start must be at least 0"),
        (lambda: stream(1, 0, seed=0), ValueError, "batch_size must be at least 1"),
        (lambda: stream(0, 1, seed=0), ValueError, "count must be at least 1"),
        (lambda: render([[0] * 6]), TypeError, "factors must be a torch.Tensor of int64"),
        (lambda: render(GOOD.int()), TypeError, "factors must be .* int64, but is of torch.int32"),
        (lambda: render(GOOD[:, :5]), ValueError, r"factors must have shape \(N, 6\)"),
        (lambda: render(GOOD[:0]), ValueError, "N at least 1"),
        (lambda: render(GOOD - 1), ValueError, "a shape from 0 to 5, but holds -1"),
        (lambda: log_probability(GOOD + 6), ValueError, "a shape from 0 to 5, but holds 6"),
        (lambda: captions(GOOD - 2), ValueError, "a shape from -1 to 5, but holds -2"),
        (lambda: render(GOOD, size=7), ValueError, "size must be at least 8"),
        (lambda: render(GOOD, jitter=HALF.double()), TypeError, "jitter must be .* float32"),
        (lambda: render(GOOD, jitter=HALF[:1]), ValueError, r"jitter must have shape \(2, 7\)"),
        (lambda: render(GOOD, jitter=HALF * 3), ValueError, "between 0 and 1, but holds 1.5"),
        (lambda: render(GOOD, jitter=HALF * math.nan), ValueError, "but holds nan"),
        (lambda: parse("a red star"), TypeError, "captions must be a sequence of strings"),
        (lambda: parse([]), ValueError, "at least one caption"),
        (lambda: parse([3]), TypeError, "captions must hold strings, but holds a int"),
        (lambda: parse(["a red dog"]), ValueError, "but one is 'a red dog'"),
        (lambda: parse([""]), ValueError, "captions must read like"),
        (lambda: split(None, "shape", ()), TypeError, "drawn must be a SceneSet"),
        (
            lambda: split(scenes(1, seed=0, size=8), "taste", ()),
            ValueError,
            "factor must be one of shape, .*, but is 'taste'",
        ),
        (
            lambda: split(scenes(1, seed=0, size=8), "shape", ("star", "red")),
            ValueError,
            "values must be some of circle, .*, but hold 'red'",
        ),
        (
            lambda: split(scenes(1, seed=0, size=8), "shape", "star"),
            TypeError,
            "values must be a sequence of names",
        ),
        (lambda: train_judge(seed=-1), ValueError, "seed must be at least 0"),
        (lambda: train_judge(seed=0, steps=0), ValueError, "steps must be at least 1"),
        (lambda: train_judge(seed=0, batch_size=1), ValueError, "batch_size must be at least 2"),
        (lambda: decode(None, torch.zeros(1, 3, 8, 8)), TypeError, "judge must be a Judge"),
        (lambda: decode(Judge(), torch.zeros(1, 1, 8, 8)), ValueError, r"shape \(N, 3, H, W\)"),
        (lambda: decode(Judge(), torch.zeros(1, 3, 8, 8).double()), TypeError, "the judge"),
        (lambda: decode(Judge(), torch.full((1, 3, 8, 8), math.nan)), ValueError, "finite"),
        (
            lambda: decode(Judge(), torch.zeros(1, 3, 8, 8), batch_size=0),
            ValueError,
            "batch_size must be at least 1",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(call, error, words):
    with pytest.raises(error, match=words):
        call()
