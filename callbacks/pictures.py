"""Pictures that callbacks make, and where they go."""

from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_SIDE, _GAP, _LINE = 1.1, 0.1, 0.15  # inches: of an image, between two, and of a line of text


def new_figure(width: float, height: float) -> Any:
    """Return a matplotlib figure of a size in inches, without changing the state of pyplot.

    Raises:
        ModuleNotFoundError: if matplotlib isn't installed; says how to install it.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "pictures need matplotlib: pip install 'ssl-modules[viz]', or pip install matplotlib"
        ) from error
    figure: Any = Figure(figsize=(width, height), dpi=120, layout="constrained")
    figure._repr_png_ = partial(_png, figure)  # for notebooks, with and without pyplot
    return figure


def publish(figure: Any, trainer: Any, name: str, folder: str | Path | None) -> None:
    """Pass a picture to all loggers that take images. Write a file if no logger takes them, or if a folder is given.

    Only the first process may call this function. The loggers that take images are those with a method ``log_image``,
    such as that of Weights & Biases, and TensorBoard's logger.

    Args:
        figure: made by :func:`new_figure`.
        trainer: the Trainer of the loggers.
        name: the key for the loggers; the file is ``{name}_epoch{epoch}_step{step}.png``.
        folder: where to write; None for ``pictures`` in the first logger's folder or the Trainer's root, and only if
            no logger takes the picture.
    """
    pixels = _rendered(figure)
    taken = [_log(logger, name, pixels, trainer.global_step) for logger in trainer.loggers]
    if folder is not None or not any(taken):
        # trainer.log_dir would wait for all processes.
        logs = [found for logger in trainer.loggers if (found := getattr(logger, "log_dir", None))]
        where = Path(folder) if folder is not None else Path(*logs[:1] or [trainer.default_root_dir]) / "pictures"
        where.mkdir(parents=True, exist_ok=True)
        file = f"{name.replace('/', '_')}_epoch{trainer.current_epoch}_step{trainer.global_step}.png"
        Image.fromarray(pixels).save(where / file)


def to_pixels(images: Tensor) -> np.ndarray:
    """Convert images to the arrays that matplotlib shows, ``[N, H, W]`` or ``[N, H, W, 3]``, float in [0, 1].

    If images are neither uint8 nor in [0, 1], such as normalised images, each is scaled to [0, 1] separately.

    Args:
        images: ``[N, C, H, W]``. If C is neither 1 nor 3, only the first channel is shown. Clips ``[N, C, T, H, W]``
            are shown by their middle frame, videos ``[N, k, C, T, H, W]`` by the middle frame of their first clip.

    Raises:
        ValueError: for another number of axes.

    Example:
        >>> to_pixels(torch.tensor([-1.0, 3.0]).view(1, 1, 1, 2)).tolist()
        [[[0.0, 1.0]]]
    """
    if images.ndim == 6:
        images = images[:, 0]
    if images.ndim == 5:
        images = images[:, :, images.shape[2] // 2]
    if images.ndim != 4:
        raise ValueError(f"images: expected [N, C, H, W], to be shown, got {list(images.shape)}")
    pixels = images.detach().cpu().float() / (255 if images.dtype == torch.uint8 else 1)
    if pixels.numel() and not 0 <= pixels.min() <= pixels.max() <= 1:
        low, high = (getattr(pixels, bound)(dim=(1, 2, 3), keepdim=True) for bound in ("amin", "amax"))
        pixels = (pixels - low) / (high - low).clamp(min=1e-12)
    return (pixels.movedim(1, 3) if pixels.shape[1] == 3 else pixels[:, 0]).numpy()


def image_grid(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[Sequence[str]], colors: Sequence[Sequence[str]]
) -> Any:
    """Return a figure of rows of images, in which each image has a title with a colour.

    Args:
        rows: rows of images from :func:`to_pixels`. Each row has the same number of images.
        titles: title of each image. An empty text means no title.
        colors: colour of each title, a name that matplotlib knows.
    """
    lines = [max(text.count("\n") + bool(text) for text in texts) for texts in titles]
    width = len(rows[0]) * (_SIDE + _GAP) + _GAP
    height = sum(lines) * _LINE + len(rows) * (_SIDE + _GAP) + _GAP
    figure = new_figure(width, height)
    # One pair of axes, in inches: one for each image would take a second to lay out.
    figure.set_layout_engine("none")
    axis = figure.add_axes((0, 0, 1, 1))
    top = _GAP
    for images, texts, tints, count in zip(rows, titles, colors, lines, strict=True):
        top += count * _LINE
        middle = _GAP + _SIDE / 2
        for image, text, tint in zip(images, texts, tints, strict=True):
            high, wide = (_SIDE * length / max(image.shape[:2]) for length in image.shape[:2])
            extent = (middle - wide / 2, middle + wide / 2, top + high, top)
            axis.imshow(image, extent=extent, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.text(middle, top - 0.03, text, fontsize=8, color=tint, ha="center", va="bottom")
            middle += _SIDE + _GAP
        top += _SIDE + _GAP
    axis.set(xlim=(0, width), ylim=(height, 0), aspect="auto")
    axis.set_axis_off()
    return figure


def shortened(name: str, length: int = 16) -> str:
    """Shorten a name so that it fits above a small image.

    Example:
        >>> shortened("sulphur-crested cockatoo")
        'sulphur-crested…'
    """
    return name if len(name) <= length else f"{name[: length - 1].rstrip()}…"


def names_of_classes(
    labels: Tensor,
    data: Any = None,
    level: int | None = None,
    given: Sequence[str] | Mapping[int, str] | None = None,
) -> dict[int, str]:
    """Map each label to its name.

    Names come from ``given``, or else from a datamodule if it has a name for each label. Otherwise, the name is the
    label itself.

    Args:
        labels: ``[N]``.
        data: a datamodule with ``class_names``. For hierarchical targets, a datamodule with ``levels``, a mapping from
            the name of each level to the names of its classes.
        level: the level of hierarchical targets.
        given: names that take precedence over those of ``data``, as a list in the order of the labels, or a dict from
            label to name.

    Raises:
        ValueError: if ``given`` has no name for a label.

    Example:
        >>> names_of_classes(torch.tensor([10**12, 0]))
        {0: '0', 1000000000000: '1000000000000'}
    """
    found = labels.unique().tolist()
    if given is not None:
        known = given if isinstance(given, Mapping) else range(len(given))
        if unnamed := [label for label in found if label not in known]:
            raise ValueError(
                f"class_names: expected a name for each label, got {len(given)} names and a label {unnamed[-1]}; give "
                "a dict {label: name}, or None to show the labels themselves"
            )
        return {label: given[label] for label in found}
    names = getattr(data, "class_names", None) or []
    if level is not None:
        levels = list(getattr(data, "levels", None) or {})
        names = data.levels[levels[level]] if level < len(levels) else []
    return {label: str(names[label]) if found[-1] < len(names) else str(label) for label in found}


def _rendered(figure: Any) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _png(figure: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(_rendered(figure)).save(file, "png")
    return file.getvalue()


def _log(logger: Any, name: str, pixels: np.ndarray, step: int) -> bool:
    """Pass the picture to a logger; return whether the logger took it."""
    if hasattr(logger, "log_image"):
        logger.log_image(name, [pixels], step=step)
    elif hasattr(getattr(logger, "experiment", None), "add_image"):
        logger.experiment.add_image(name, pixels, step, dataformats="HWC")
    else:
        return False
    return True
