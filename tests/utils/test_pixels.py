"""All entry points check images in the same way, the advice in each message works, and no check waits for a GPU."""

from types import SimpleNamespace

import pytest
import torch
from modules import build
from needs import needs_gpu
from torch import nn

from ssl_modules import FineTuning
from ssl_modules.augmentations import ReadyViews
from ssl_modules.encoders import Representation
from ssl_modules.evaluation.features import features_and_targets
from ssl_modules.utils import pixels
from ssl_modules.utils.pixels import check_channels_first, check_form, check_range, read_bounds

IMAGES = torch.linspace(0, 1, 8 * 3 * 8 * 8).view(8, 3, 8, 8)
LABELS = torch.arange(8)


def doors():
    module, ready = build(), build(augmentation=ReadyViews([8, 8]))
    tuned = FineTuning(module.encoder, 8, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
    representation = Representation(module.encoder)
    return {
        "module(images)": module,
        "training": lambda x: module.training_step((x, LABELS), 0),
        "validation": lambda x: module.validation_step((x, LABELS), 0),
        "ready-made views": lambda x: ready.training_step(([x, x], LABELS), 0),
        "prediction": lambda x: module.predict_step((x, LABELS), 0),
        "augmentation": module.augmentation,
        "encoder": module.encoder,
        "representation": representation,
        "probe": lambda x: features_and_targets(module, (x, LABELS)),
        "fine-tuning": tuned,
        "fine-tuning, training": lambda x: tuned.training_step((x, LABELS), 0),
    }


WRONG = {
    "255": (lambda x: x * 255, r"from 0 to 255; divide by 255", lambda x: x / 255),
    "4095": (lambda x: x * 4095, r"from 0 to 4095; divide by the level that means white, 4095", lambda x: x / 4095),
    "-1 to 1": (lambda x: x * 2 - 1, r"from -1 to 1; give \(images \+ 1\) / 2", lambda x: (x + 1) / 2),
    "normalised": (lambda x: x * 4 - 2, "from -2 to 2; give raw pixels, .* leave normalisation to the encoder", None),
    "NaN": (
        lambda x: torch.where(x > 0.5, x, torch.nan),
        "hold NaN or infinity; .*images.nan_to_num",
        lambda x: x.nan_to_num(0, posinf=1, neginf=0),
    ),
    "infinity": (
        lambda x: torch.where(x > 0.5, x, torch.inf),
        "hold NaN or infinity; .*images.nan_to_num",
        lambda x: x.nan_to_num(0, posinf=1, neginf=0),
    ),
    "[N, H, W, ch]": (
        lambda x: x.permute(0, 2, 3, 1),
        r"3 channels on axis 1, got shape \(8, 8, 8, 3\); give images.permute\(0, 3, 1, 2\)",
        lambda x: x.permute(0, 3, 1, 2),
    ),
    "bytes [N, H, W, ch]": (
        lambda x: (x * 255).round().byte().permute(0, 2, 3, 1),
        r"3 channels on axis 1, got shape \(8, 8, 8, 3\); give images.permute\(0, 3, 1, 2\)",
        lambda x: x.permute(0, 3, 1, 2),
    ),
    "uint16": (
        lambda x: (x * 65535).round().to(torch.uint16),
        "expected uint8, .* got torch.uint16; .* images.float\\(\\) / 65535",
        lambda x: x.float() / 65535,
    ),
    "int64": (
        lambda x: (x * 255).round().long(),
        r"expected uint8, .* got torch.int64; use images.to\(torch.uint8\)",
        lambda x: x.to(torch.uint8),
    ),
    "bool": (lambda x: x > 0.5, r"got torch.bool; use images.float\(\)", lambda x: x.float()),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_every_door_refuses_every_batch_and_the_advice_works(wrong):
    spoil, message, mend = WRONG[wrong]
    for name, door in doors().items():
        if name == "augmentation" and "ch]" in wrong:
            continue  # an augmentation does not know the number of channels to expect
        for _ in range(2):
            door(IMAGES)  # an earlier valid batch makes no difference
            with pytest.raises((ValueError, TypeError), match=f"images: .*{message}"):
                door(spoil(IMAGES))
        if mend is not None:
            door(mend(spoil(IMAGES)))


def test_arrays_are_named_and_the_advice_works():
    array = IMAGES.permute(0, 2, 3, 1).numpy()
    with pytest.raises(
        TypeError, match=r"got ndarray; torch.from_numpy\(images\), and from \[N, H, W, ch\] also .perm"
    ):
        build()(array)
    build()(torch.from_numpy(array).permute(0, 3, 1, 2))
    with pytest.raises(TypeError, match=r"got list; .*torch.stack\(images\)"):
        check_form(list(IMAGES))


def test_clips_are_no_images():
    for axes in (5, 6):
        clips = torch.rand(2, *[3] * (axes - 3), 8, 8)  # 3 frames must not count as channels
        for call in (build(), lambda x: build().training_step(x, 0)):
            with pytest.raises(ValueError, match=r"clips .* need an encoder of clips|makes views of one clip"):
                call(clips)
        with pytest.raises(ValueError, match=r"views: expected view 0 to be \[N, ch\] with 2 spatial axes, got \[2, 3"):
            build(augmentation=ReadyViews([8, 8])).training_step(([clips, clips], LABELS[:2]), 0)
    check_form(torch.rand(2, 3, 3, 8, 8), spatial_dims=3)
    with pytest.raises(ValueError, match=r"axes \[N, channels\] and 3 spatial ones"):
        check_form(IMAGES, spatial_dims=3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_rounding_is_allowed_for_all_floats(dtype):
    check_range(torch.tensor([-5e-4, 1 + 5e-4], dtype=dtype), object)
    with pytest.raises(ValueError, match="float images have to lie"):
        check_range(torch.tensor([0, 1.02], dtype=dtype), object)


def test_there_may_be_nothing_to_check():
    check_range(torch.zeros(0, 3, 8, 8), object)
    check_range(torch.zeros(1, 3, 8, 8, device="meta"), object)
    check_range(torch.full((1, 3, 8, 8), 255, dtype=torch.uint8), object)
    check_channels_first(torch.rand(2, 3, 8, 8), 3)


class OnDevice(torch.Tensor):
    """A CPU tensor with ``is_cuda`` True."""

    is_cuda = True


def test_a_gpu_is_read_at_its_first_batch_and_later_one_batch_late(monkeypatch):
    waited = []
    event = SimpleNamespace(synchronize=lambda: waited.append(True))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(record_event=lambda: event))
    reader, other = nn.Identity(), nn.Identity()
    right, wrong = (torch.tensor(values).as_subclass(OnDevice) for values in ([0.0, 1.0], [0.0, 255.0]))
    with pytest.raises(ValueError, match="0 to 255"):
        check_range(wrong, other)
    assert read_bounds(right, reader) == (0, 1)
    assert waited == []
    assert read_bounds(right, reader) is None  # no earlier bounds exist yet
    assert read_bounds(wrong, reader) == (0, 1)
    assert read_bounds(right, reader) == (0, 255)
    assert len(waited) == 2
    del reader, other
    assert not pixels._copied


# Only a GPU works in parallel to Python, so only a GPU can show that no check waits. Tests above check the rule itself.
@needs_gpu
def test_a_gpu_does_not_wait():
    reader, images = nn.Identity(), IMAGES.cuda()
    check_range(images, reader)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            check_range(images, reader)
        check_range(images * 255, reader)
        with pytest.raises(ValueError, match="0 to 255"):
            check_range(images, reader)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_fine_tuning_checks_the_targets_of_every_batch():
    tuned = doors()["fine-tuning"]
    tuned.training_step((IMAGES, LABELS), 0)
    with pytest.raises(ValueError, match="targets: go from -100 to 7, but num_classes=8"):
        tuned.training_step((IMAGES, torch.where(LABELS == 3, -100, LABELS)), 0)
