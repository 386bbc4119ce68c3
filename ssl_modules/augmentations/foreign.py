"""Augmentations from other libraries' transforms and from plain functions."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_modules.augmentations.calls import PIL_MODES, call_for_batch, call_for_image, check_values
from ssl_modules.augmentations.operation import is_clips
from ssl_modules.augmentations.transforms import Per, check_transform, describe, form_of, libraries_of, parts_of
from ssl_modules.augmentations.views import Augmentation
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.threads import one_thread


class Foreign(Augmentation):
    """Wraps any callable as an augmentation: of torchvision, kornia or albumentations, or a plain function.

    With ``per="image"`` the transform is called once for each image and view, with input as its library expects it:

    - torchvision: a tensor [ch, H, W], uint8 if the images are, otherwise float32 in [0, 1]
    - torchvision's v1 API with ``ToTensor`` or ``PILToTensor``: a PIL image
    - albumentations: a numpy array [H, W, ch], uint8 if the images are, otherwise float32 in [0, 1]
    - all others: a float32 tensor [ch, H, W] in [0, 1]

    With ``per="batch"`` it is called once for each view, with the whole batch as a float32 tensor [N, ch, H, W] in
    [0, 1]. It must draw random parameters for each image separately, as kornia does.

    The transform returns an image, or a batch, in [0, 1] or uint8: a tensor, or for one image a numpy array [H, W] or
    [H, W, ch], a PIL image or a dict with one of these under "image".

    The generator passed to the call determines all randomness: it seeds the global generators of PyTorch, numpy and
    Python, which are restored afterwards, and albumentations' own generators. Other generators that a transform keeps
    internally are not seeded.

    One call per image is slow. On one CPU thread, SimCLR's operations without blur from torchvision's v2 API took 14
    times as long as :class:`~ssl_modules.augmentations.SimCLRViews` at 32 px, 3 times as long at 96 px, and twice as
    long at 224 px (crops from 256 px).

    Args:
        transform: A callable that makes one view; a list of callables makes one view each.
        size: Side of the views, in pixels; a list has one for each view.
        views: How many views a single callable makes; None is 2, or one for each callable of a list.
        per: "image" or "batch", see above.

    Raises:
        TypeError: if a transform is not callable, is a class, or is an operation or augmentation of this package.
        ValueError: if an argument is outside its range, a transform normalises, or ``per="batch"`` is used with
            torchvision or albumentations; when called, if a view has the wrong size or range.

    Example:
        >>> from torchvision.transforms import v2
        >>> transform = v2.Compose([v2.RandomResizedCrop(32), v2.RandomHorizontalFlip()])
        >>> augmentation = Foreign(transform, size=32)
        >>> images = torch.randint(256, (4, 3, 40, 40), dtype=torch.uint8)
        >>> [view.shape for view in augmentation(images, torch.Generator().manual_seed(0))]
        [torch.Size([4, 3, 32, 32]), torch.Size([4, 3, 32, 32])]

        A custom function that takes the whole batch:

        >>> def darken(images):
        ...     return images * torch.rand(len(images), 1, 1, 1)
        >>> Foreign(darken, size=40, views=3, per="batch").sizes
        (40, 40, 40)
    """

    takes_uint8 = True

    def __init__(
        self,
        transform: Callable[..., Any] | list[Callable[..., Any]],
        size: int | Sequence[int],
        views: int | None = None,
        per: Per = "image",
    ) -> None:
        super().__init__()
        several = isinstance(transform, list | tuple)
        transforms: list[Any] = [*transform] if several else [transform]  # type: ignore[misc]
        if not transforms:
            raise ValueError("transform: expected a callable, or one for each view, got an empty list")
        for each in transforms:
            check_transform(each, per)
        if views is None:
            views = len(transforms) if several else 2
        check_number("views", views, least=1)
        if several and views != len(transforms):
            raise ValueError(f"views: expected one for each of {len(transforms)} transforms, got {views}; leave it out")
        self.sizes = _sizes(size, views)
        self.transforms = transforms if several else transforms * views
        self.forms = [form_of(each) for each in self.transforms]
        self.per = per
        # Registered, so that they move with the augmentation to another device.
        self.modules_inside = nn.ModuleList(each for each in transforms if isinstance(each, nn.Module))

    def check_channels(self, in_channels: int) -> None:
        """Raises if a transform takes PIL images, which don't exist with this number of channels."""
        if "pil" in self.forms and in_channels not in PIL_MODES:
            name = describe(self.transforms[self.forms.index("pil")])
            raise ValueError(
                f"augmentation: {name} takes PIL images, which have 1, 3 or 4 channels, got "
                f"in_channels={in_channels}; leave out its ToTensor, so that it takes tensors"
            )

    @torch.no_grad()
    def make_views(self, images: Tensor, generator: torch.Generator | None) -> list[Tensor]:
        """Seeds all global generators for each view, then calls the transforms."""
        if is_clips(images):
            raise ValueError(
                f"images: Foreign takes images, got clips {list(images.shape)}, whose frames must all change in the "
                "same way; give operations of this package, Views([...])"
            )
        self.check_channels(images.shape[1])
        seeds = torch.randint(2**63 - 1, (len(self.sizes),), generator=generator, device=images.device).tolist()
        views = []
        # An operation on one image is too small for several threads: they would mostly wait for each other.
        alone = self.per == "image" and images.device.type == "cpu"
        with _global_states_kept(images.device), one_thread(alone):
            for transform, form, size, seed in zip(self.transforms, self.forms, self.sizes, seeds, strict=True):
                _seed(transform, seed, images.device)
                if self.per == "batch":
                    views.append(call_for_batch(transform, images, size))
                else:
                    made = [call_for_image(transform, form, image, size) for image in images]
                    views.append(torch.stack(made).to(images.device))
                check_values(transform, views[-1])
        return [view.clamp(0, 1) for view in views]


def _sizes(size: Any, views: int) -> tuple[int, ...]:
    sizes = (size,) * views if isinstance(size, int) else tuple(size) if isinstance(size, Sequence) else ()
    if len(sizes) != views or not all(isinstance(side, int) and side >= 1 for side in sizes):
        raise ValueError(
            f"size: expected the side of the views in pixels, such as 32, or a list of one for each of {views} views, "
            f"got {size!r}"
        )
    return sizes


@contextmanager
def _global_states_kept(device: torch.device) -> Iterator[None]:
    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        random.setstate(of_python)
        np.random.set_state(of_numpy)  # noqa: NPY002


def _seed(transform: Any, seed: int, device: torch.device) -> None:
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed other devices as well
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
    shared = np.random.default_rng(seed), random.Random(seed)
    for part in parts_of(transform):
        # One seed for all would make albumentations' operations draw the same numbers.
        if "albumentations" in libraries_of(part) and hasattr(part, "set_random_state"):
            part.set_random_state(*shared)
        elif hasattr(part, "set_random_seed"):
            part.set_random_seed(shared[1].randrange(2**32))
