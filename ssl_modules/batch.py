"""Batches as loaders return them: images or ready-made views, with or without targets and an index."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ssl_modules.utils.distributed import rank, world_size
from ssl_modules.utils.pixels import check_channels_first, fix_of_missing_axes

_IMAGE_NDIM = 4
_ROWS = 2**20  # ids reserve this many images per batch and process
_OF_INDEX = 2**60  # ids made from the index begin here, above all ids made from the step
KEYS = {
    "images": ("image", "images", "img", "pixel_values", "views", "clip", "clips"),
    "targets": ("label", "labels", "target", "targets"),
    "index": ("index",),
    "times": ("times",),
}


@dataclass(frozen=True)
class Batch:
    """A batch in a form that does not depend on the loader.

    Args:
        images: ``[N, ch, ...]``, or None if the loader gives views.
        views: ready-made views, each ``[N, ...]``, or None.
        targets: ``[N]``, ``[N, levels]`` or ``[N, classes]``, or None.
        index: the third element of the batch, such as the indices or names of the samples, or None.
        times: the fourth element of the batch, such as the start times of clips in seconds, ``[N, k]``, or None.
    """

    images: Tensor | None
    views: list[Tensor] | None
    targets: Tensor | None
    index: Any
    times: Any = None

    @property
    def given(self) -> list[Tensor]:
        """The views; if there are none, a list of the images alone."""
        if self.views is not None:
            return self.views
        assert self.images is not None
        return [self.images]

    def __len__(self) -> int:
        return len(self.given[0])

    @property
    def device(self) -> torch.device:
        return self.given[0].device

    def ids(self, step: int, levels: int, by_index: bool = False) -> Tensor:
        """Return ids ``[N, levels]``. The first column identifies the image, the others are its labels.

        The id of an image is unique over all steps and processes.

        Args:
            step: number of the batch in the run.
            levels: number of columns that the extraction reads. All columns after the first are labels.
            by_index: whether the id depends on the image's index instead of the step, if the batch has an index. An
                image then has the same id in each epoch.
        """
        first = (step * world_size() + rank()) * _ROWS
        own = first + torch.arange(len(self), device=self.device)[:, None]
        if by_index and isinstance(self.index, Tensor) and self.index.dtype == torch.int64:
            own = _OF_INDEX + self.index.to(self.device)[:, None]
        return torch.cat([own, self.labels(levels - 1)], dim=1) if levels > 1 else own

    def labels(self, levels: int) -> Tensor:
        """Return the targets as labels ``[N, levels]``, finer to coarser. Targets ``[N]`` have one level.

        Raises:
            ValueError: if there are no targets, or they are not integers ``[N, levels]``.
        """
        targets = self.targets
        if targets is None:
            raise ValueError(
                "targets: got none, but the extraction reads labels; give a loader of (images, targets), or an "
                "extraction without labels, such as AllViews() or Queue(ranks=NeighbourRanks())"
            )
        labels = targets[:, None] if targets.ndim == 1 else targets
        if labels.shape != (len(self), levels) or labels.is_floating_point():
            raise ValueError(
                f"targets: expected {levels} level(s) of labels for the extraction, integers {[len(self), levels]}, "
                f"finer to coarser, got {_describe(targets)}; choose an extraction for your labels, such as "
                "AllViews(label_levels=1) or Queue(ranks=LabelRanks(1)) for one level, or AllViews() or "
                "Queue(ranks=NeighbourRanks()) for none"
            )
        return labels.to(self.device)


def fields(batch: Any, name: str = "batch") -> tuple[Any, Any, Any]:
    """Return images, targets and index of a batch or of one sample; each is None if it is missing.

    A tuple or list holds them in this order, and may hold more items. In a mapping, such as a row of a Hugging Face
    data set, the images have the key ``image``, ``images``, ``img``, ``pixel_values``, ``views``, ``clip`` or
    ``clips``. The targets have the key ``label``, ``labels``, ``target`` or ``targets``, and the index has the key
    ``index``. Any other object counts as images.

    Args:
        batch: a batch of a loader, or a sample of a data set.
        name: name of the batch or sample in error messages.

    Raises:
        ValueError: if a mapping has none of the keys for images, or two keys for the same field.

    Example:
        >>> fields(("pixels", 3)), fields({"img": "pixels", "label": 3, "path": "a.png"})
        (('pixels', 3, None), ('pixels', 3, None))
    """
    if isinstance(batch, Mapping):
        images, targets, index = (_by_key(batch, field, name) for field in ("images", "targets", "index"))
        return images, targets, index
    if isinstance(batch, list | tuple):
        images, targets, index = [*batch, None, None, None][:3]
        return images, targets, index
    return batch, None, None


def _by_key(batch: Mapping[str, Any], field: str, name: str) -> Any:
    found = [key for key in KEYS[field] if key in batch]
    if len(found) > 1 or (not found and field == "images"):
        expected = "a key for images, one of" if not found else f"one key for {field} out of"
        of_loader = "give batches (images, targets), for example by the loader's collate_fn"
        of_data_set = "let the data set give (image, target), or rename its keys"
        raise ValueError(
            f"{name}: expected {expected} {', '.join(KEYS[field])}, got the keys {', '.join(map(str, batch))}; "
            + (of_loader if name == "batch" else of_data_set)
        )
    return batch[found[0]] if found else None


def read_batch(batch: Any, in_channels: int | None = None) -> Batch:
    """Read a batch of a loader.

    The batch has the form ``x``, ``(x,)``, ``(x, targets)``, ``(x, targets, index)`` or ``(x, targets, index, times)``.
    ``x`` is a tensor of images or clips, or a list of views. Views are a list or tuple of image tensors inside the
    batch, such as ``([view1, view2], targets)`` or ``([view1, view2],)``. A flat pair such as ``(image, mask)`` or
    ``[x1, x2]`` is always images and targets, whatever the shapes are. A mapping is read by its keys, as :func:`fields`
    describes.

    Args:
        batch: a batch of a loader.
        in_channels: number of channels, used to detect images ``[N, H, W, ch]``. None = any number.

    Raises:
        TypeError: if the batch has another form. The message describes the form.
        ValueError: if the keys of a mapping are unknown, if the views differ in their number of images, or if the
            channels are on the last axis.

    Example:
        >>> x, y = torch.zeros(4, 1, 8, 8), torch.arange(4)
        >>> read_batch([x, y]).targets.tolist()
        [0, 1, 2, 3]
        >>> len(read_batch(([x, x], y)).views)
        2
        >>> read_batch({"image": x, "label": y}).targets.tolist()
        [0, 1, 2, 3]
    """
    first, targets, index = fields(batch)
    if isinstance(first, list | tuple) and first and all(_is_image(x) for x in first):
        images, views = None, _views(first)
    elif isinstance(first, Tensor):
        images, views = _images(first), None
    else:
        raise TypeError(
            "batch: expected images, or (images or a list of views, targets, ...), got "
            f"{_describe(batch)}; torch's default collate_fn stacks arrays and lists of the same "
            "size into a tensor"
        )
    times = _by_key(batch, "times", "batch") if isinstance(batch, Mapping) else _fourth(batch)
    read = Batch(images, views, targets if isinstance(targets, Tensor) else None, index, times)
    if in_channels is not None:
        for given in read.given:
            check_channels_first(given, in_channels)
    return read


def _fourth(batch: Any) -> Any:
    return batch[3] if isinstance(batch, list | tuple) and len(batch) > 3 else None


def _is_image(x: Any) -> bool:
    return isinstance(x, Tensor) and x.ndim >= _IMAGE_NDIM


def _views(views: Sequence[Tensor]) -> list[Tensor]:
    if len({len(view) for view in views}) > 1:
        raise ValueError(
            f"batch: expected the same number of images in each view, got {[len(view) for view in views]}; the loader "
            "has to give view 1 of all images, then view 2 of all images"
        )
    return list(views)


def _images(x: Tensor) -> Tensor:
    if not _is_image(x):
        raise TypeError(
            f"batch: expected images [N, ch, height, width], got {_describe(x)}; {fix_of_missing_axes(x.ndim)}"
        )
    return x


def _describe(x: Any) -> str:
    if isinstance(x, Tensor):
        return f"a tensor {list(x.shape)} of {x.dtype}"
    if isinstance(x, Mapping):
        return f"a dict of {', '.join(f'{key}: {_describe(value)}' for key, value in x.items())}"
    if isinstance(x, list | tuple):
        same = len(x) > 1 and len({_describe(value) for value in x}) == 1
        items = f"{len(x)} times {_describe(x[0])}" if same else ", ".join(map(_describe, x))
        return f"a {type(x).__name__} of {items or 'nothing'}"
    return f"a {type(x).__name__}"
