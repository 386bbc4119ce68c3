"""Aspect 3, extraction: the base class."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ssl_modules.contrast import Contrast
from ssl_modules.encoders.views import ViewStatistics, over_views
from ssl_modules.utils.checks import check_choice, check_number
from ssl_modules.utils.configurable import Configurable, described

Maps = tuple[Tensor, ...]
MomentumSchedule = Literal["constant", "cosine", "cosine-endpoint"]
TeacherUpdate = Literal["after", "before"]


class Extraction(Configurable, nn.Module, ABC):
    """Base class of extractions, which make contrasts from the maps of all views.

    A contrast contains anchors, candidates and the relation between them. ``heads`` computes embeddings from an
    encoder's maps. Student and teacher each have their own heads. Networks that only the student has, such as a
    predictor or a context network, are used in ``forward``.

    Attributes:
        heads: None until :meth:`build`.
        momentum: momentum of the teacher's moving average, in [0, 1]; None = no teacher.
        momentum_schedule: "constant", or a cosine from ``momentum`` to 1. "cosine" would reach 1 one update after the
            end of the run (BYOL). "cosine-endpoint" reaches 1 at the last update (SCE).
        teacher_update: "after" moves the teacher towards the student's weights after the optimiser's step. "before"
            moves it towards the weights before the step (RINCE).
        view_statistics: "joint" or "each", set by the module; see :class:`~ssl_modules.ContrastiveModule`.
        view_sizes: side of each view, in pixels, set by the module. None = the view keeps the size of the images.
        recurring_ids: whether a sample has the same id in each epoch, set by the module. It is True for encoders of
            clips, where an id is the row of a video.
        replicated_buffers: names of buffers that are equal in all processes. DDP must not broadcast them.
    """

    momentum: float | None = None
    momentum_schedule: MomentumSchedule = "constant"
    teacher_update: TeacherUpdate = "after"
    view_statistics: ViewStatistics = "joint"
    view_sizes: Sequence[int | None] = ()
    recurring_ids: bool = False
    replicated_buffers: Sequence[str] = ()
    __repr__ = described  # its networks belong to the module that built it

    def __init__(self) -> None:
        super().__init__()
        self.heads: Any = None

    @abstractmethod
    def build(self, out_channels: Sequence[int], sizes: Sequence[int | None] = (), normalised: bool = False) -> None:
        """Create ``heads`` for an encoder's maps; the module calls it once.

        Args:
            out_channels: channels of each map, shallow to deep.
            sizes: side of each view, in pixels; None for a view that keeps the images' size.
            normalised: whether the encoder normalises its deepest map itself, as AMDIM's does.
        """

    def student_views(self, views: int) -> Sequence[int]:
        """Indices of the student's views: all. Raises a ValueError if the extraction can't use this number of views."""
        return range(views)

    def teacher_views(self, views: int) -> Sequence[int]:
        """Indices of the teacher's views: none."""
        return ()

    @abstractmethod
    def forward(
        self,
        student: Sequence[Tensor],
        teacher: Sequence[Tensor] | None,
        ids: Tensor,
        generator: torch.Generator | None,
    ) -> list[Contrast]:
        """The contrasts of one batch.

        Args:
            student: outputs of the student's heads for each of its views.
            teacher: outputs of the teacher's heads for each of its views, without gradient; or None.
            ids: ``[N, levels]``, the identity of each image, finest level first; -1 is unknown and matches nothing.
            generator: source of randomness, for extractions that sample.
        """

    @property
    def levels(self) -> int:
        """Number of columns of ids that it reads: the image's id, then its labels, finer to coarser."""
        return 1

    def over_views(self, network: Callable[[Tensor], Any], student: Sequence[Tensor]) -> list[Any]:
        """Return the outputs of a network that only the student has, for each of the student's views.

        The module's ``view_statistics`` sets whether batch norms normalise views together or each view alone.

        Args:
            network: takes embeddings ``[B, D]`` and returns a tensor, or a collection of tensors.
            student: embeddings of the student's views, each ``[N, D]``.
        """
        sizes = [self.view_sizes[i] for i in self.student_views(len(self.view_sizes))] if self.view_sizes else None
        return over_views(network, student, self.view_statistics, sizes)

    def on_fit_start(self, images: int | None, steps: int | float, steps_per_epoch: int | float) -> None:
        """Prepare for a fit. The module calls this method at the start of a fit, after a checkpoint was loaded.

        Args:
            images: number of training images; None if unknown.
            steps: number of optimiser steps in the run; -1 or infinite if unknown.
            steps_per_epoch: number of optimiser steps in an epoch; infinite if unknown.
        """

    def before_step(self, step: int) -> None:
        """Prepare for a training step. The module calls this method before the training step of each batch.

        An extraction that depends on the step should store it in a persistent buffer, so that checkpoints contain it.

        Args:
            step: number of optimiser steps so far. It is the same for batches whose gradients are accumulated.
        """

    def after_backward(self) -> None:
        """Called once per batch after the backward pass; a queue stores its keys here."""


def at_least_two(views: int) -> range:
    """The indices of all views; raises a ValueError if there are fewer than two."""
    if views < 2:
        raise ValueError(
            f'views: expected at least 2 per image, got {views}; take an augmentation that makes them, such as "simclr"'
        )
    return range(views)


def check_momentum(momentum: float, schedule: MomentumSchedule) -> None:
    """Raises unless ``momentum`` and ``schedule`` are valid for a teacher.

    Example:
        >>> check_momentum(1.5, "constant")
        Traceback (most recent call last):
        ...
        ValueError: momentum: expected a number in [0, 1], got 1.5
    """
    check_number("momentum", momentum, least=0, most=1)
    check_choice("momentum_schedule", schedule, get_args(MomentumSchedule))
