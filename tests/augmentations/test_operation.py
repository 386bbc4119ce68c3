import pytest
import torch
from needs import needs_gpu
from pictures import generator

from ssl_modules.augmentations import (
    ColorDrop,
    ColorJitter,
    GaussianBlur,
    PatchGrid,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomShift,
    RandomSolarize,
)
from ssl_modules.augmentations.operation import map_parameters
from ssl_modules.utils.configurable import build, storable

OPERATIONS = [
    RandomResizedCrop(16),
    RandomResizedCrop(16, interpolation="bicubic"),
    RandomHorizontalFlip(),
    RandomShift(),
    ColorJitter(0.8, 0.8, 0.8, 0.2),
    RandomGrayscale(),
    GaussianBlur(),
    RandomSolarize(),
    ColorDrop(),
    PatchGrid(8, 4, [ColorJitter(0.8, 0.8, 0.8, 0.2), RandomGrayscale()]),
    PatchGrid(8, 4),
]
RANDOM = OPERATIONS[:-1]
WITH_P = [operation for operation in RANDOM if "p" in operation.arguments]

every = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: type(operation).__name__)
every_random = pytest.mark.parametrize("operation", RANDOM, ids=lambda operation: type(operation).__name__)
every_with_p = pytest.mark.parametrize("operation", WITH_P, ids=lambda operation: type(operation).__name__)


def bytes_(*shape):
    return torch.randint(256, shape, generator=generator(), dtype=torch.uint8)


@every
@pytest.mark.parametrize("channels", [1, 3])
def test_forward_is_transform_of_draw(operation, channels):
    images = bytes_(8, channels, 16, 16).float() / 255
    expected = operation.transform(images, operation.draw(images, generator()))
    assert torch.equal(operation(images, generator()), expected)


OF_ANY_CHANNELS = [
    RandomResizedCrop(16),
    RandomResizedCrop(16, interpolation="bicubic"),
    RandomHorizontalFlip(),
    RandomShift(),
    ColorJitter(0.8, 0.8),
    ColorJitter(0.8, 0.8, mode="linear"),
    GaussianBlur(),
    RandomSolarize(),
    PatchGrid(8, 4, [ColorJitter(0.8, 0.8), RandomHorizontalFlip()]),
]


@pytest.mark.parametrize("operation", OF_ANY_CHANNELS, ids=lambda operation: type(operation).__name__)
@pytest.mark.parametrize("channels", [2, 4, 13])
def test_operations_without_colour_take_any_number_of_channels(operation, channels):
    operation.check_channels(channels)
    images = bytes_(32, channels, 16, 16)
    result = operation(images, generator())
    assert result.shape[-3] == channels
    assert 0 <= result.min() < result.max() <= 1
    # Equal channels stay equal, and change as a single channel does.
    gray = operation(images[:, :1].repeat(1, channels, 1, 1), generator())
    torch.testing.assert_close(gray, operation(images[:, :1], generator()).expand_as(gray), rtol=0, atol=1e-6)


@every
def test_uint8_equals_float_divided_by_255(operation):
    images = bytes_(8, 3, 16, 16)
    assert torch.equal(operation(images, generator()), operation(images.float() / 255, generator()))


@every
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_yield_float32_in_range(operation, dtype):
    result = operation((bytes_(64, 3, 16, 16).float() / 255).to(dtype), generator())
    assert result.dtype == torch.float32
    assert result.min() >= 0
    assert result.max() <= 1


@every
def test_autocast_changes_nothing(operation):
    images = bytes_(4, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = operation(images, generator())
    assert torch.equal(result, operation(images, generator()))


@every
def test_the_default_dtype_changes_nothing(operation):
    images = bytes_(4, 3, 16, 16)
    expected = operation(images, generator())
    torch.set_default_dtype(torch.float64)
    try:
        result = operation(images, generator())
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(result, expected)


@every
def test_the_images_themselves_stay(operation):
    images = bytes_(16, 3, 16, 16).float() / 255
    before = images.clone()
    operation(images, generator())
    assert torch.equal(images, before)


@every_random
def test_images_of_one_batch_get_draws_of_their_own(operation):
    image = bytes_(1, 3, 16, 16)
    results = operation(image.expand(64, -1, -1, -1), generator())
    assert (results != results[:1]).flatten(1).any(1).any()


@every_random
def test_the_generator_is_the_only_source_of_randomness(operation):
    images = bytes_(32, 3, 16, 16)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = operation(images, generator(5))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(operation(images, generator(5)), first)
    assert not torch.equal(operation(images, generator(6)), first)


@every_random
def test_without_a_generator_the_global_one_serves(operation):
    images = bytes_(32, 3, 16, 16)
    torch.manual_seed(1)
    first = operation(images)
    assert not torch.equal(operation(images), first)
    torch.manual_seed(1)
    assert torch.equal(operation(images), first)


@every_with_p
@pytest.mark.parametrize("p", [0.0, 0.25, 1.0])
def test_p_is_the_share_of_images_chosen(operation, p):
    images = torch.empty(1, 3, 1, 1).expand(4000, 3, 16, 16)
    changed = type(operation)(**{**operation.arguments, "p": p})
    share = changed.draw(images, generator()).applied.float().mean().item()
    assert abs(share - p) <= 4 * (p * (1 - p) / 4000) ** 0.5


@every_with_p
def test_p_zero_changes_nothing(operation):
    images = bytes_(16, 3, 16, 16).float() / 255
    assert torch.equal(type(operation)(**{**operation.arguments, "p": 0.0})(images), images)


@every
def test_an_operation_can_be_stored_and_built_again(operation):
    images = bytes_(8, 3, 16, 16)
    again = build("operation", storable({"operation": operation})["operation"])
    assert type(again) is type(operation)
    assert torch.equal(again(images, generator()), operation(images, generator()))


@every
def test_an_operation_is_a_module_like_others(operation):
    seen = []
    operation.apply(seen.append)
    assert seen[-1] is operation
    assert operation.state_dict() == {}


@every
@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.rand(3, 16, 16), ValueError, r"images: .*four axes.* got shape \(3, 16, 16\)"),
        (torch.rand(0, 3, 16, 16), ValueError, r"images: .*at least one image.* got shape \(0, 3, 16, 16\)"),
        (torch.zeros(2, 3, 16, 16, dtype=torch.int64), TypeError, "images: .* got torch.int64"),
        ([[0.0]], TypeError, "images: expected a tensor, got list"),
    ],
)
def test_wrong_images_are_named(operation, images, error, message):
    with pytest.raises(error, match=message):
        operation(images)


@needs_gpu
@every
def test_a_gpu_gives_the_same_images_for_equal_parameters(operation):
    images = bytes_(16, 3, 32, 32).float() / 255
    parameters = operation.draw(images, generator())
    result = operation.transform(images.cuda(), map_parameters(parameters, torch.Tensor.cuda)).cpu()
    torch.testing.assert_close(result, operation.transform(images, parameters), rtol=0, atol=1e-5)
    assert operation(images.cuda(), torch.Generator("cuda").manual_seed(0)).is_cuda
