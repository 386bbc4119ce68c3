"""Augmentation that makes views from several clips of a video."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ssl_modules.augmentations.operation import check_images
from ssl_modules.augmentations.views import Augmentation, JointViews
from ssl_modules.utils.checks import check_numbers


class ClipViews(JointViews):
    """Makes each view from one of the clips of a video, for example from two clips, or twice from the same clip.

    Part ``i`` makes its views from clip ``clips[i]``. Parameters are sampled once for each video and view, so all
    frames of a clip change in the same way.

    Args:
        parts: Augmentations. Their views are joined in this order.
        clips: Index of the clip that each part gets, counted from 0.

    Raises:
        ValueError: if ``clips`` doesn't have one entry for each part. When called, if the videos have too few clips.

    Shape:
        [N, k, ch, T, H, W] to V views [N, ch, T, size, size]. The axis k may be missing if there is one clip.

    Example:
        Two views of clip 0, and one of clip 1:

        >>> from ssl_modules.augmentations import MoCoViews
        >>> views = ClipViews([MoCoViews(16, views=2, blur=False), MoCoViews(16, views=1, blur=False)], clips=(0, 1))
        >>> [tuple(view.shape) for view in views(torch.rand(4, 2, 3, 8, 20, 20))]
        [(4, 3, 8, 16, 16), (4, 3, 8, 16, 16), (4, 3, 8, 16, 16)]
    """

    def __init__(self, parts: list[Augmentation], clips: Sequence[int]) -> None:
        super().__init__(parts)
        check_numbers("clips", clips, length=len(parts), least=0, fix="give one for each part, such as clips=(0, 1)")
        self.clips = tuple(clips)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> list[Tensor]:
        """Makes the views.

        Args:
            images: Videos [N, k, ch, T, H, W], or single clips [N, ch, T, H, W], uint8, or float in [0, 1].
            generator: Source of all randomness, on the device of the images. None = PyTorch's global generator.

        Returns:
            V views, float32 in [0, 1], each [N, ch, T, size, size].

        Raises:
            TypeError: if the images are not a tensor, or neither uint8 nor float.
            ValueError: if the images have the wrong number of axes, have too few clips, are empty or exceed [0, 1].
        """
        if not (isinstance(images, Tensor) and images.ndim == 6):
            check_images(images)
            images = images[:, None]
        last, count = max(self.clips), images.shape[1]
        if last >= count:
            raise ValueError(
                f"clips: expected numbers below {count}, because batches hold {count} clip(s) of each video, got "
                f"{self.clips}; give the data module clips={last + 1}, and for validation eval_clips={last + 1} or more"
            )
        made = (part(images[:, clip], generator) for part, clip in zip(self.parts, self.clips, strict=True))
        return [view for views in made for view in views]
