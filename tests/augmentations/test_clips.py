"""Augmentations draw parameters once per clip, and change each frame as they change an image."""

import pytest
import torch

from ssl_modules.augmentations import (
    BYOLViews,
    ClipViews,
    ColorDrop,
    ColorJitter,
    Foreign,
    GaussianBlur,
    JointViews,
    MoCoViews,
    PatchGrid,
    RandomGrayscale,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomShift,
    RandomSolarize,
    SCEViews,
    SimCLRViews,
    Views,
    policy,
)

SIZE = 20
OPERATIONS = [
    RandomResizedCrop(12),
    RandomResizedCrop(12, interpolation="bicubic"),
    RandomShift(3, p=0.8, size=SIZE),
    RandomHorizontalFlip(),
    ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
    ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8, mode="linear"),
    RandomGrayscale(p=0.5),
    RandomSolarize(p=0.5),
    ColorDrop(p=0.5),
    GaussianBlur(p=0.5),
    GaussianBlur(5, p=0.5),
]
each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=repr)


def seeded(seed=3):
    return torch.Generator().manual_seed(seed)


def images(count=6, *frames, dtype=torch.uint8):
    pixels = torch.randint(256, (count, 3, *frames, SIZE, SIZE), generator=seeded(0), dtype=torch.uint8)
    return pixels if dtype == torch.uint8 else pixels / 255


def still(pixels, frames=4):
    return pixels[:, :, None].expand(-1, -1, frames, -1, -1)


@each_operation
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_frames_of_a_still_clip_equal_the_augmented_image_bit_for_bit(operation, dtype):
    pixels = images(dtype=dtype)
    assert torch.equal(operation(still(pixels), seeded()), still(operation(pixels, seeded())))
    [of_clips], [of_images] = (Views([operation], views=1)(x, seeded()) for x in (still(pixels), pixels))
    assert torch.equal(of_clips, still(of_images))


@each_operation
def test_each_frame_changes_as_the_first_one_does(operation):
    clips = images(6, 4)
    for make in (operation, lambda x, generator: Views([operation], views=1)(x, generator)[0]):
        made = make(clips, seeded())
        for frame in range(4):
            assert torch.equal(made[:, :, frame], make(clips[:, :, frame], seeded()))


@pytest.mark.parametrize(
    "augmentation",
    [
        SimCLRViews(12, blur=False),
        MoCoViews(12, blur=False),
        BYOLViews(12, blur=False),
        SCEViews(12),
        JointViews([SimCLRViews(12, blur=False), MoCoViews(8, blur=False)], shared=[RandomHorizontalFlip()]),
    ],
    ids=lambda augmentation: type(augmentation).__name__,
)
@pytest.mark.parametrize("count", [5, 300])  # 300 images do not fit into one portion
def test_every_augmentation_treats_the_frames_of_a_clip_alike(augmentation, count):
    clips = images(count, 3)
    views = augmentation(clips, seeded())
    for frame in range(3):
        for view, of_frame in zip(views, augmentation(clips[:, :, frame], seeded()), strict=True):
            assert torch.equal(view[:, :, frame], of_frame)


def test_clips_of_a_batch_get_different_draws():
    clips = still(images(1)).expand(8, -1, -1, -1, -1)
    view, other = SimCLRViews(12, blur=False)(clips, seeded())
    assert len({*map(tuple, view.flatten(1).tolist())}) == 8
    assert not torch.equal(view, other)


def test_each_view_is_made_from_the_given_clip():
    marks = torch.arange(5)[None, :, None, None, None, None]  # the pixels of a clip hold its number
    videos = (marks * 10).expand(4, 5, 3, 2, SIZE, SIZE).to(torch.uint8)
    crop = Views([RandomResizedCrop(8)], views=2)
    views = ClipViews([crop, crop, crop], clips=(4, 0, 2))(videos, seeded())
    assert [round(view.mean().item() * 25.5) for view in views] == [4, 4, 0, 0, 2, 2]
    assert all(view.shape == (4, 3, 2, 8, 8) for view in views)


def test_one_clip_per_video_may_lack_the_axis_of_clips():
    clips, parts = images(4, 3), [MoCoViews(8, views=1, blur=False)] * 2
    for augmentation in (ClipViews(parts, clips=(0, 0)), MoCoViews(8, blur=False)):
        for view, same in zip(augmentation(clips, seeded()), augmentation(clips[:, None], seeded()), strict=True):
            assert torch.equal(view, same)


@pytest.mark.parametrize("name", ["sce-video", "rince-video"])
def test_the_policies_make_views_of_videos(name):
    augmentation = policy(name, 16)
    assert [*augmentation.clips] == ([0, 1] if name == "sce-video" else [0, 1, 2])
    videos = torch.rand(3, 3, 3, 2, SIZE, SIZE, generator=seeded(0))
    views = augmentation(videos, seeded())
    assert [view.shape for view in views] == [(3, 3, 2, 16, 16)] * len(augmentation.sizes)


def test_gradients_pass_through_clips():
    clips = images(2, 3, dtype=torch.float32).requires_grad_()
    Views([RandomResizedCrop(12), RandomHorizontalFlip()])(clips, seeded())[0].sum().backward()
    assert clips.grad.abs().sum((0, 1, 3, 4)).min() > 0


@pytest.mark.parametrize(
    ("augmentation", "shape", "message"),
    [
        (
            SimCLRViews(8),
            (2, 3, 3, 4, SIZE, SIZE),
            "SimCLRViews makes views of one clip, got videos of 3 clips, .*ClipViews",
        ),
        (ClipViews([SCEViews(8)], (2,)), (2, 2, 3, 4, SIZE, SIZE), r"numbers below 2, .*got \(2,\).*clips=3"),
        (ClipViews([SCEViews(8)], (1,)), (2, 3, 4, SIZE, SIZE), r"numbers below 1, .*got \(1,\)"),
        (Views([PatchGrid(4)]), (2, 3, 4, SIZE, SIZE), "patches are cut from images, got clips"),
        (
            Foreign(torch.relu, size=SIZE, per="batch"),
            (2, 3, 4, SIZE, SIZE),
            "Foreign takes images, got clips .*Views",
        ),
        (SimCLRViews(8), (2, 3, 2, 3, 4, SIZE, SIZE), "four axes"),
    ],
)
def test_clips_that_do_not_fit_raise_an_error(augmentation, shape, message):
    with pytest.raises(ValueError, match=message):
        augmentation(torch.rand(shape))


def test_each_part_needs_a_clip():
    with pytest.raises(ValueError, match=r"clips: expected 2 .*got \[0\]; give one for each part"):
        ClipViews([SCEViews(8), SCEViews(8)], [0])
