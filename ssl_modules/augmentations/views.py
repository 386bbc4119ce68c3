"""Aspect 1: augmentations, which turn a batch of images into V batches of views."""

import threading
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_modules.augmentations.operation import (
    Operation,
    Rows,
    check_images,
    check_operations,
    compact,
    first_frames,
    over_frames,
    rows_of,
    to_float,
)
from ssl_modules.augmentations.patches import PatchGrid
from ssl_modules.utils.checks import check_instances, check_number
from ssl_modules.utils.configurable import Configurable
from ssl_modules.utils.pixels import check_range
from ssl_modules.utils.threads import one_thread, share_out

PORTION = 3 * 2**17  # numbers in the images that are transformed together: 1.5 MiB


class Augmentation(Configurable, nn.Module):
    """Base class of augmentations. It checks the images, then calls :meth:`make_views`, which a subclass implements.

    Images [N, ch, H, W] give views [N, ch, h, w]. Clips [N, ch, T, H, W] give views [N, ch, T, h, w]. Parameters are
    sampled once for each clip, so all of its frames change in the same way. :class:`ClipViews` makes views from several
    clips of a video.

    Attributes:
        sizes: Side of each view in pixels, before it is cut into patches. None = the view keeps the input's size.
        patches: Side and overlap, in pixels, of the patches that views are cut into. None = whole views. The encoder
            cuts whole images into the same patches.
        takes_uint8: Whether :meth:`make_views` accepts uint8 images. Otherwise it gets float32 images.
    """

    sizes: tuple[int | None, ...]
    patches: tuple[int, int] | None = None
    takes_uint8 = False

    def make_views(self, images: Tensor, generator: torch.Generator | None) -> list[Tensor]:
        """Makes the views of images [N, ch, H, W], or of clips [N, ch, T, H, W], float32 in [0, 1]."""
        raise NotImplementedError

    def check_channels(self, in_channels: int) -> None:
        """Raises unless all operations and augmentations inside it support this number of channels.

        Args:
            in_channels: Number of image channels.

        Raises:
            ValueError: if one doesn't; the message names it, and the operations that do.

        Example:
            >>> from ssl_modules.augmentations import GaussianBlur
            >>> Views([GaussianBlur()]).check_channels(13)
        """
        for module in self.modules():
            if module is not self and isinstance(module, Operation | Augmentation):
                module.check_channels(in_channels)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> list[Tensor]:
        """Makes the views.

        Args:
            images: Images [N, ch, H, W], clips [N, ch, T, H, W] or videos [N, k, ch, T, H, W], uint8, or float in
                [0, 1]. Only :class:`ClipViews` takes videos of more than one clip (k > 1).
            generator: Source of all randomness, on the device of the images. None = PyTorch's global generator.

        Returns:
            V views, float32 in [0, 1]. A view has one of these shapes:

            - [N, ch, size, size] for images,
            - [N, rows, cols, ch, h, w] for images cut into patches,
            - [N, ch, T, size, size] for clips.

        Raises:
            TypeError: if the images are not a tensor, or neither uint8 nor float.
            ValueError: if the images have the wrong number of axes, are empty or exceed [0, 1], or if the generator is
                on another device.
        """
        if isinstance(images, Tensor) and images.ndim == 6:
            images = _only_clip(self, images)
        check_images(images)
        if generator is not None and generator.device.type != images.device.type:
            raise ValueError(
                f"generator: it is on {generator.device}, but the images are on {images.device}; "
                f"use torch.Generator({images.device.type!r})"
            )
        if images.is_floating_point():
            check_range(images, self)
            images = images.float().clamp(0, 1)
        elif not self.takes_uint8:
            images = to_float(images)
        with torch.autocast(images.device.type, enabled=False):
            return self.make_views(images, generator)

    def extra_repr(self) -> str:
        """The arguments, for ``repr``, which shows them before the operations."""
        return compact(self.arguments)


def _only_clip(augmentation: Augmentation, videos: Tensor) -> Tensor:
    """Return the only clip [N, ch, T, H, W] of each video [N, 1, ch, T, H, W]."""
    if videos.shape[1] != 1:
        raise ValueError(
            f"augmentation: {type(augmentation).__name__} makes views of one clip, got videos of {videos.shape[1]} "
            f"clips, {list(videos.shape)}; choose the clip of each view, with ClipViews([...], clips=(0, 1))"
        )
    return videos[:, 0]


class Views(Augmentation):
    """Views drawn independently from one distribution: one list of operations, applied once per view.

    Args:
        transforms: Operations, applied in this order.
        views: Number of views, at least 1.

    Raises:
        ValueError: if there are no operations or no views.

    Example:
        >>> from ssl_modules.augmentations import RandomHorizontalFlip, RandomResizedCrop
        >>> augmentation = Views([RandomResizedCrop(32), RandomHorizontalFlip()], views=2)
        >>> images = torch.randint(256, (4, 3, 40, 40), dtype=torch.uint8)
        >>> [view.shape for view in augmentation(images, torch.Generator().manual_seed(0))]
        [torch.Size([4, 3, 32, 32]), torch.Size([4, 3, 32, 32])]
        >>> augmentation.sizes
        (32, 32)
    """

    takes_uint8 = True

    def __init__(self, transforms: list[Operation], views: int = 2) -> None:
        super().__init__()
        check_operations("transforms", transforms)
        if not transforms:
            raise ValueError("transforms: expected at least one operation, got none")
        check_number("views", views, least=1)
        self.transforms: Any = nn.ModuleList(transforms)
        self.views = views
        self.sizes = (_last_size(transforms),) * views
        last = transforms[-1]
        self.patches = (last.size, last.overlap) if isinstance(last, PatchGrid) else None

    def make_views(self, images: Tensor, generator: torch.Generator | None) -> list[Tensor]:
        """Draws and applies all operations separately for each view."""
        return [_run(self.transforms, images, generator) for _ in range(self.views)]


class JointViews(Augmentation):
    """Joins the views of several augmentations, for asymmetric views, multi-crop or operations shared by all views.

    Args:
        parts: Augmentations; their views are joined in this order.
        shared: Operations drawn and applied once before the parts, so that all views share them; None for none.

    Raises:
        ValueError: if there are no parts, or they cut different patches.

    Example:
        >>> from ssl_modules.augmentations import RandomHorizontalFlip, RandomResizedCrop
        >>> large, small = Views([RandomResizedCrop(32)]), Views([RandomResizedCrop(16, scale=(0.05, 0.2))], views=3)
        >>> augmentation = JointViews([large, small], shared=[RandomHorizontalFlip()])
        >>> augmentation.sizes
        (32, 32, 16, 16, 16)
        >>> len(augmentation(torch.rand(4, 3, 40, 40)))
        5
    """

    takes_uint8 = True

    def __init__(self, parts: list[Augmentation], shared: list[Operation] | None = None) -> None:
        super().__init__()
        check_instances("parts", parts, Augmentation, "wrap operations: Views([...])")
        if not parts:
            raise ValueError("parts: expected at least one augmentation, got none")
        if shared is not None:
            check_operations("shared", shared)
        self.parts: Any = nn.ModuleList(parts)
        self.shared: Any = nn.ModuleList(shared) if shared else ()
        before = _last_size(shared or [])
        self.sizes = tuple(before if size is None else size for part in parts for size in part.sizes)
        self.patches = parts[0].patches
        for part in parts:
            if part.patches != self.patches:
                raise ValueError(
                    f"parts: expected patches of one (size, overlap), got {self.patches} and {part.patches}"
                )

    def make_views(self, images: Tensor, generator: torch.Generator | None) -> list[Tensor]:
        """Applies the shared operations, then joins the views of all parts."""
        if self.shared:
            images = _run(self.shared, images, generator)
        # The images are checked already; parts that don't take uint8 are called, to convert them to float.
        made = (part.make_views if part.takes_uint8 else part for part in self.parts)
        return [view for make in made for view in make(images, generator)]


def _run(transforms: Collection[Operation], images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Draw parameters for all images, then apply all operations to portions of images that fit into a core's cache.

    On a CPU, several threads work on different portions. The views don't depend on the number of threads. All frames
    of a clip have the same parameters.
    """
    like = first_frames(images)  # draw reads only shape and device
    parameters: list[Any] = []
    with one_thread(_uses_threads(images)):
        for transform in transforms:
            parameters.append(transform.draw(like, generator))
            if transform.image_size is not None:
                like = like[:, :, :1, :1].expand(-1, -1, transform.image_size, transform.image_size)

    def apply(some: Tensor, of_each: tuple[Any, ...]) -> Tensor:
        return _apply(some, [*zip(transforms, of_each, strict=True)])

    return over_frames(apply, images, tuple(parameters))


def _apply(images: Tensor, drawn: list[tuple[Operation, Any]]) -> Tensor:
    """Apply operations with their parameters to images [N, ch, H, W], in portions."""
    threads = _uses_threads(images)
    with one_thread(threads):
        portions = _portions(images, drawn)

    views: list[Tensor] = []
    first = threading.Lock()

    def make(rows: Rows) -> None:
        some = to_float(rows_of(images, rows))
        if isinstance(rows, slice) and images.is_floating_point():  # cloned, as all views are made from this batch
            some = some.clone()
        for transform, parameters in drawn:
            some = transform.transform(some, rows_of(parameters, rows))
        if isinstance(rows, slice):
            views.append(some)
            return
        with first:
            if not views:
                views.append(some.new_empty(len(images), *some.shape[1:]))
        views[0].index_copy_(0, rows, some)

    if threads and not _differentiable(images, drawn):
        share_out(make, portions)
    else:
        for rows in portions:
            make(rows)
    return views[0]


def _uses_threads(images: Tensor) -> bool:
    return images.device.type == "cpu" and not torch.compiler.is_compiling()


def _differentiable(images: Tensor, drawn: list[tuple[Operation, Any]]) -> bool:
    """Return whether gradients are recorded; threads would then add them up in an order that is not reproducible."""
    learned = (parameter for transform, _ in drawn for parameter in transform.parameters())
    return torch.is_grad_enabled() and (images.requires_grad or any(p.requires_grad for p in learned))


def _portions(images: Tensor, drawn: list[tuple[Operation, Any]]) -> Sequence[Rows]:
    """Rows of images that fit into the CPU's cache, grouped by ``group_key``; on an accelerator, all images at once."""
    sides = [transform.image_size or 0 for transform, _ in drawn]
    size = max(1, PORTION // max(images[0].numel(), images.shape[1] * max(sides) ** 2))
    if images.device.type != "cpu" or len(images) <= size:
        return [slice(None)]
    kinds = (transform.group_key(parameters) for transform, parameters in drawn)
    order = next((kind.argsort() for kind in kinds if kind is not None), torch.arange(len(images)))
    return order.split(size)


def _last_size(transforms: list[Operation]) -> int | None:
    sizes = [transform.image_size for transform in transforms if transform.image_size is not None]
    return sizes[-1] if sizes else None
