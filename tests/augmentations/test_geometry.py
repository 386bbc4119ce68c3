import pytest
import torch
from pictures import generator
from scipy.stats import ks_2samp
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as tv

from ssl_modules.augmentations import RandomHorizontalFlip, RandomResizedCrop, RandomShift
from ssl_modules.augmentations.geometry import CropParameters, ShiftParameters
from ssl_modules.augmentations.operation import ChoiceParameters


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=generator(seed))


@pytest.fixture(params=[1, 1000], ids=["one by one", "together"])
def form(request, monkeypatch):
    """Test both ways of resizing: one for small images, one for large images."""
    monkeypatch.setattr("ssl_modules.augmentations.geometry.LARGE", request.param)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "size"), [((32, 32), 32), ((40, 48), 32), ((12, 10), 32), ((48, 40), 9)])
def test_crop_equals_torchvision(side, size, channels, interpolation):
    images = noise(24, channels, *side)
    crop = RandomResizedCrop(size, interpolation=interpolation)
    boxes = crop.draw(images, generator())
    expected = [
        tv.resized_crop(image, *map(int, box), [size, size], InterpolationMode(interpolation), antialias=True)
        for image, *box in zip(images, *boxes, strict=True)
    ]
    torch.testing.assert_close(crop.transform(images, boxes), torch.stack(expected).clamp(0, 1), rtol=0, atol=1e-5)


def test_crop_of_the_whole_image_leaves_it():
    images = noise(2, 3, 32, 32)
    zero, all_of_it = torch.zeros(2, dtype=torch.long), torch.full((2,), 32)
    box = CropParameters(zero, zero, all_of_it, all_of_it)
    torch.testing.assert_close(RandomResizedCrop(32).transform(images, box), images, rtol=0, atol=0)


@pytest.mark.parametrize("side", [(32, 32), (24, 40)])
def test_boxes_are_distributed_as_torchvisions(side):
    ours = RandomResizedCrop(32).draw(torch.empty(1, 1, 1, 1).expand(40_000, 1, *side), generator())
    theirs = v2.RandomResizedCrop(32)
    torch.manual_seed(0)
    boxes = [theirs.make_params([torch.empty(1, *side)]) for _ in range(6000)]
    expected = [torch.tensor([box[key] for box in boxes]) for key in ("top", "left", "height", "width")]

    def features(top, left, height, width):
        return top, left, height, width, height * width, height / width, top + height, left + width

    pairs = list(zip(features(*ours), features(*expected), strict=True))
    for mine, reference in pairs:
        pvalue = ks_2samp(mine.numpy(), reference.numpy(), method="asymp").pvalue
        assert pvalue > 0.01 / len(pairs)  # Bonferroni: 1 % false alarms over all comparisons


@pytest.mark.parametrize("side", [(8, 100), (100, 8), (20, 20)])
def test_central_box_where_no_candidate_fits_equals_torchvisions(side):
    scale, ratio = (2.0, 3.0), (0.75, 4 / 3)  # these boxes are larger than any image
    crop = RandomResizedCrop(32, ratio=ratio)
    crop.scale = scale  # the constructor refuses this scale
    boxes = crop.draw(torch.empty(3, 1, *side), generator())
    expected = v2.RandomResizedCrop(32, scale, ratio).make_params([torch.empty(1, *side)])
    for name, values in boxes._asdict().items():
        assert values.tolist() == [expected[name]] * 3


def test_boxes_lie_inside_the_image_and_keep_to_their_range():
    images = torch.empty(1, 1, 1, 1).expand(5000, 1, 50, 70)
    top, left, height, width = RandomResizedCrop(8, scale=(0.3, 0.5), ratio=(0.7, 1.4)).draw(images, generator())
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height).max() == 50
    assert (left + width).max() == 70
    area = height * width / (50 * 70)
    assert 0.28 < area.min() < 0.31  # sides are rounded to pixels
    assert 0.49 < area.max() < 0.52


def test_flip_mirrors_the_chosen_images_only():
    images = noise(3, 3, 5, 7)
    flipped = RandomHorizontalFlip().transform(images, ChoiceParameters(torch.tensor([True, False, True])))
    for image, result, applied in zip(images, flipped, [True, False, True], strict=True):
        assert torch.equal(result, tv.horizontal_flip(image) if applied else image)


def test_shift_equals_reflect_padding_then_crop():
    images = noise(40, 3, 9, 12)
    shift = RandomShift(pixels=4, p=0.8)
    parameters = shift.draw(images, generator())
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4), mode="reflect")
    shifted = shift.transform(images, parameters)
    for i, (applied, down, right) in enumerate(zip(*parameters, strict=True)):
        down, right = int(down * applied), int(right * applied)  # noqa: PLW2901
        assert torch.equal(shifted[i], padded[i, :, 4 - down : 13 - down, 4 - right : 16 - right])


def test_shift_moves_down_and_right():
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 2] = 1
    move = ShiftParameters(torch.tensor([True]), down=torch.tensor([1]), right=torch.tensor([-1]))
    assert RandomShift().transform(image, move)[0, 0].nonzero().tolist() == [[3, 1]]


def test_shifts_are_uniform_over_all_integers():
    images = torch.empty(1, 1, 1, 1).expand(18_000, 1, 32, 32)
    applied, down, right = RandomShift(pixels=4, p=0.8).draw(images, generator())
    assert abs(applied.float().mean() - 0.8) < 0.015
    for move in (down, right):
        values, counts = move.unique(return_counts=True)
        assert values.tolist() == list(range(-4, 5))
        assert (counts - 2000).abs().max() < 4 * 2000**0.5
    assert abs(torch.corrcoef(torch.stack([down, right]).float())[0, 1]) < 0.03


def test_shift_of_small_images_raises():
    with pytest.raises(ValueError, match=r"pixels: images of 4 x 8 can't be reflected by 4 pixels"):
        RandomShift(pixels=4)(torch.rand(1, 1, 4, 8))


def test_a_shift_of_one_size_refuses_others():
    shift = RandomShift(pixels=4, size=8)
    assert shift.image_size == 8
    assert torch.equal(shift(noise(5, 3, 8, 8), generator()), RandomShift(pixels=4)(noise(5, 3, 8, 8), generator()))
    with pytest.raises(ValueError, match="size: a shift makes no 8 x 8 pixels of images of 8 x 9; give the size"):
        shift(noise(1, 3, 8, 9))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomResizedCrop(0), "size: .* got 0"),
        (lambda: RandomResizedCrop(8, scale=(0.5, 0.1)), r"scale: .* got \(0.5, 0.1\)"),
        (lambda: RandomResizedCrop(8, scale=(0.0, 1.0)), r"scale: .* got \(0.0, 1.0\)"),
        (lambda: RandomResizedCrop(8, ratio=(2.0, 1.0)), r"ratio: .* got \(2.0, 1.0\)"),
        (
            lambda: RandomResizedCrop(8, interpolation="nearest"),
            "interpolation: .*'bilinear' or 'bicubic'.* got 'nearest'",
        ),
        (lambda: RandomHorizontalFlip(p=1.5), "p: .* got 1.5"),
        (lambda: RandomShift(pixels=-1), "pixels: .* got -1"),
        (
            lambda: RandomShift(pixels=4, size=4),
            "size: expected a number above 4, got 4; images have to be larger than the move",
        ),
    ],
)
def test_wrong_arguments_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
