"""Which views student and teacher see: fixed when a module is built, and checked against each batch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ssl_modules.extractions import Extraction


class Embedded(NamedTuple):
    """The outputs of encoder and heads for the views of a batch.

    Args:
        features: ``[N, D]``, the representation of the student's first view, with gradient.
        student: embeddings of the student's views, as returned by the extraction's heads, with gradient.
        teacher: embeddings of the teacher's views, without gradient; None without a teacher.
    """

    features: Tensor
    student: list[Any]
    teacher: list[Any] | None


class ViewPlan:
    """The views that student and teacher see.

    Args:
        sizes: side of each view in pixels, as declared by the augmentation; None = any.
        extraction: chooses the views of student and teacher.
        spatial_dims: number of spatial axes of the encoder's images.
        patches: whether the augmentation cuts the views into grids of patches.

    Attributes:
        sizes: side of each view.
        student: indices of the student's views.
        teacher: indices of the teacher's views; empty without a teacher.

    Raises:
        ValueError: if the extraction can't use this number of views.

    Example:
        >>> from ssl_modules.extractions import AllViews
        >>> plan = ViewPlan((32, 32), AllViews())
        >>> plan.student, plan.teacher
        ((0, 1), ())
    """

    def __init__(
        self, sizes: Sequence[int | None], extraction: Extraction, spatial_dims: int = 2, patches: bool = False
    ) -> None:
        self.sizes = tuple(sizes)
        self.student = tuple(extraction.student_views(len(sizes)))
        self.teacher = tuple(extraction.teacher_views(len(sizes)))
        self._spatial_dims = spatial_dims
        self._patches = patches

    def check(self, views: Sequence[Tensor]) -> None:
        """Raise if the views of a batch are not those that the module was built for.

        Raises:
            ValueError: if the number, the axes or the size of the views are not as expected.
        """
        sides = [tuple(view.shape[-2:]) for view in views]
        if len(views) == 1 < len(self.sizes):
            raise ValueError(
                f"views: expected {len(self.sizes)} per image, as the augmentation declares, got 1; give the images "
                "without the list, (images, ...), so that the augmentation makes the views"
            )
        if len(views) != len(self.sizes):
            raise ValueError(
                f"views: expected {len(self.sizes)} per image, as the augmentation declares, got {len(views)}; where "
                f"the loader makes them, build the module with augmentation=ReadyViews({[side[0] for side in sides]})"
            )
        for i, (view, size, side) in enumerate(zip(views, self.sizes, sides, strict=True)):
            if view.ndim != 2 + self._spatial_dims + 2 * self._patches:
                grid = "rows, cols, " if self._patches else ""
                raise ValueError(
                    f"views: expected view {i} to be [N, {grid}ch] with {self._spatial_dims} spatial axes, got "
                    f"{list(view.shape)}; clips [N, ch, T, h, w] need an encoder of clips, and patches [N, rows, cols, "
                    "ch, h, w] an augmentation that declares its patches=(size, overlap)"
                )
            is_whole = self._spatial_dims == 2 and not self._patches  # patches have another size than the view
            if size is not None and is_whole and side != (size, size):
                raise ValueError(
                    f"views: expected view {i} to have {size} x {size} pixels, which the augmentation declares in its "
                    f"sizes, got {side[0]} x {side[1]}; declare the actual sizes; if the loader makes the views, "
                    f"build the module with augmentation=ReadyViews({[side[0] for side in sides]}) and "
                    f"image_size={side[0]}"
                )
