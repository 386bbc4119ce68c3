import itertools

import pytest
import torch
from pictures import generator
from torchvision.transforms.v2 import functional as tv

from ssl_modules.augmentations import ColorJitter
from ssl_modules.augmentations.jitter import _blends, _hue_step, _jitter_side_by_side

CHANGES = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue)


def torchvision_jitter(images, parameters, hue=True):
    jittered = []
    for image, applied, *values, order in zip(images, *parameters, strict=True):
        for change in order.tolist() if applied else []:
            if change < 3 or hue:
                image = CHANGES[change](image, float(values[change]))  # noqa: PLW2901
        jittered.append(image)
    return torch.stack(jittered)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("hue", [0.0, 0.2])
def test_jitter_equals_torchvision_for_every_order(channels, hue):
    images = torch.rand(48, channels, 32, 32, generator=generator())
    jitter = ColorJitter(0.8, 0.8, 0.8, hue, p=0.8)
    parameters = jitter.draw(images, generator(1))
    orders = torch.tensor(list(itertools.permutations(range(4)))).repeat(2, 1)
    parameters = parameters._replace(order=orders)
    expected = torchvision_jitter(images, parameters, hue=hue > 0)
    torch.testing.assert_close(jitter.transform(images, parameters), expected, rtol=0, atol=1e-5)


def test_all_orders_side_by_side_equal_order_by_order():
    """The first form runs on accelerators, the second on CPUs."""
    images = torch.rand(24, 3, 16, 16, generator=generator())
    jitter = ColorJitter(0.8, 0.8, 0.8, 0.2, p=1.0)
    orders = torch.tensor(list(itertools.permutations(range(4))))
    parameters = jitter.draw(images, generator())._replace(order=orders)
    steps = _blends(parameters, True)
    result = _jitter_side_by_side(steps, parameters.hue, _hue_step(orders), images, slice(None))
    torch.testing.assert_close(result, jitter.transform(images, parameters), rtol=0, atol=1e-6)


def test_images_that_turn_their_hue_at_one_step_are_alike():
    parameters = ColorJitter(0.4, p=0.5).draw(torch.empty(1, 3, 1, 1).expand(100, 3, 1, 1), generator())
    kinds = ColorJitter().group_key(parameters)
    assert kinds.unique().tolist() == [-1, 0, 1, 2, 3]
    for kind, applied, order in zip(kinds, parameters.applied, parameters.order, strict=True):
        assert order[kind] == 3 if applied else kind == -1


def test_hue_is_right_at_grays_ties_and_corners():
    levels = torch.tensor([0.0, 0.5, 1.0])
    colours = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 3, 9)
    images = colours.expand(21, 3, 3, 9)
    jitter = ColorJitter(hue=0.5, p=1.0)
    parameters = jitter.draw(images, generator())._replace(hue=torch.linspace(-0.5, 0.5, 21))
    expected = torchvision_jitter(images, parameters)
    torch.testing.assert_close(jitter.transform(images, parameters), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["exact", "linear"])
@pytest.mark.parametrize("channels", [2, 4, 13])
def test_contrast_of_other_channels_is_about_the_mean_of_all_of_them(channels, mode):
    images = 0.4 + 0.2 * torch.rand(8, channels, 8, 8, generator=generator())
    jitter = ColorJitter(contrast=0.5, p=1.0, mode=mode)
    parameters = jitter.draw(images, generator())
    factor = parameters.contrast.view(-1, 1, 1, 1)
    expected = factor * images + (1 - factor) * images.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(jitter.transform(images, parameters), expected, rtol=0, atol=1e-6)


def test_all_orders_side_by_side_equal_order_by_order_without_colour():
    images = torch.rand(24, 13, 8, 8, generator=generator())
    jitter = ColorJitter(0.8, 0.8, p=1.0)
    parameters = jitter.draw(images, generator())
    steps = _blends(parameters, False)
    result = _jitter_side_by_side(steps, None, _hue_step(parameters.order), images, slice(None))
    torch.testing.assert_close(result, jitter.transform(images, parameters), rtol=0, atol=1e-6)


def test_images_not_chosen_stay_exactly():
    images = torch.rand(200, 3, 8, 8, generator=generator())
    jitter = ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.5)
    parameters = jitter.draw(images, generator())
    same = (jitter.transform(images, parameters) == images).flatten(1).all(1)
    assert torch.equal(same, ~parameters.applied)


def test_draws_follow_their_distributions():
    n = 24_000
    images = torch.empty(1, 3, 1, 1).expand(n, 3, 1, 1)
    applied, brightness, contrast, saturation, hue, order = ColorJitter(0.4, 1.5, 0.2, 0.1, p=0.8).draw(
        images, generator()
    )
    assert abs(applied.float().mean() - 0.8) < 4 * (0.16 / n) ** 0.5
    for values, low, high in ((brightness, 0.6, 1.4), (contrast, 0, 2.5), (saturation, 0.8, 1.2), (hue, -0.1, 0.1)):
        share = (values - low) / (high - low)
        assert -1e-6 <= share.min() < 0.001
        assert 0.999 < share.max() <= 1 + 1e-6
        assert abs(share.mean() - 0.5) < 4 * (1 / 12 / n) ** 0.5
    orders, counts = order.unique(dim=0, return_counts=True)
    assert orders.tolist() == sorted(map(list, itertools.permutations(range(4))))
    assert (counts - 1000).abs().max() < 4 * 1000**0.5


LUMA = torch.tensor([0.2989, 0.587, 0.114], dtype=torch.float64)


def linear_jitter(images, parameters):
    """Apply one change after the other in float64, and clamp once at the end."""
    # YIQ from its definition: in-phase and quadrature are the axes of the chroma plane.
    to_yiq = torch.stack([LUMA, torch.tensor([0.596, -0.274, -0.322]), torch.tensor([0.211, -0.523, 0.312])])
    jittered = []
    for image, applied, *values, order in zip(images.double(), *parameters, strict=True):
        for change in order.tolist() if applied else []:
            f = float(values[change])
            luma = torch.einsum("c,chw->hw", LUMA if len(image) == 3 else torch.ones(1, dtype=torch.double), image)
            if change == 0:
                image = f * image  # noqa: PLW2901
            elif change == 1:
                image = f * image + (1 - f) * luma.mean()  # noqa: PLW2901
            elif change == 2:
                image = f * image + (1 - f) * luma  # noqa: PLW2901
            elif len(image) == 3:
                y, i, q = torch.einsum("yc,chw->yhw", to_yiq, image)
                chroma = torch.polar((i * i + q * q).sqrt(), torch.atan2(q, i) - 2 * torch.pi * f)
                yiq = torch.stack([y, chroma.real, chroma.imag])
                image = torch.einsum("cy,yhw->chw", torch.linalg.inv(to_yiq), yiq)  # noqa: PLW2901
        jittered.append(image.clamp(0, 1))
    return torch.stack(jittered).float()


@pytest.mark.parametrize("channels", [1, 3])
def test_linear_jitter_is_its_four_changes_for_every_order(channels):
    images = torch.rand(48, channels, 16, 16, generator=generator())
    jitter = ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8, mode="linear")
    orders = torch.tensor(list(itertools.permutations(range(4)))).repeat(2, 1)
    parameters = jitter.draw(images, generator())._replace(order=orders)
    torch.testing.assert_close(
        jitter.transform(images, parameters), linear_jitter(images, parameters), rtol=0, atol=2e-6
    )


def test_linear_jitter_is_exact_where_nothing_is_clamped_and_no_hue_turns():
    images = 0.4 + 0.2 * torch.rand(50, 3, 16, 16, generator=generator())
    exact, linear = (ColorJitter(0.3, 0.3, 0.3, mode=mode, p=1.0) for mode in ("exact", "linear"))
    parameters = exact.draw(images, generator())
    torch.testing.assert_close(
        linear.transform(images, parameters), exact.transform(images, parameters), rtol=0, atol=1e-6
    )


def test_linear_jitter_stays_a_third_as_near_to_the_exact_one_as_that_goes():
    noise = torch.rand(128, 3, 8, 8, generator=generator())
    images = torch.nn.functional.interpolate(noise, 32, mode="bicubic").clamp(0, 1)
    exact, linear = (ColorJitter(0.4, 0.4, 0.4, 0.1, p=1.0, mode=mode) for mode in ("exact", "linear"))
    parameters = exact.draw(images, generator())
    expected = exact.transform(images, parameters)
    distance = (linear.transform(images, parameters) - expected).abs().mean()
    assert 0.01 < distance < (expected - images).abs().mean() / 3


def test_linear_hue_turns_the_way_of_the_exact_one_and_keeps_grays():
    colours = torch.tensor([[0.8, 0.2, 0.2], [0.2, 0.8, 0.2], [0.2, 0.2, 0.8], [0.5, 0.5, 0.5]]).view(4, 3, 1, 1)
    exact, linear = (ColorJitter(hue=0.5, p=1.0, mode=mode) for mode in ("exact", "linear"))
    parameters = exact.draw(colours, generator())._replace(hue=torch.full((4,), 1 / 3))
    expected = exact.transform(colours, parameters)  # red to green, green to blue, blue to red
    result = linear.transform(colours, parameters)
    assert torch.equal(result[:3].argmax(1), expected[:3].argmax(1))
    torch.testing.assert_close(result[3], colours[3], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mode": "fast"}, "mode: .* got 'fast'"),
        ({"brightness": -1}, "brightness: .* got -1"),
        ({"contrast": -0.5}, "contrast: .* got -0.5"),
        ({"saturation": -2}, "saturation: .* got -2"),
        ({"hue": 0.6}, "hue: .* got 0.6"),
        ({"p": 3}, "p: .* got 3"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ColorJitter(**arguments)
