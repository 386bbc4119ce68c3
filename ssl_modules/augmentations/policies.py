"""The augmentations of the papers, each a class with its paper's numbers as defaults."""

from collections.abc import Sequence
from typing import Literal

from ssl_modules.augmentations.blur import GaussianBlur
from ssl_modules.augmentations.color import RandomGrayscale, RandomSolarize
from ssl_modules.augmentations.geometry import RandomHorizontalFlip, RandomResizedCrop, RandomShift
from ssl_modules.augmentations.jitter import ColorJitter
from ssl_modules.augmentations.operation import Operation
from ssl_modules.augmentations.patches import PatchGrid
from ssl_modules.augmentations.views import Augmentation, JointViews, Views

JitterMode = Literal["exact", "linear"]
SCEKind = Literal["weak", "strong", "strong-alpha", "strong-beta", "strong-gamma"]

WHOLE_GAUSSIAN = 13  # pixels: three standard deviations of 2 to either side


class SimCLRViews(Views):
    """The views of SimCLR: crop, flip, colour jitter, grayscale, blur (Chen et al. 2020, arXiv 2002.05709, appendix A).

    Args:
        size: Side of a view, in pixels.
        views: How many views to make, at least 1.
        strength: Of the colour jitter, s >= 0: brightness, contrast and saturation 0.8 s, hue 0.2 s.
        blur: Whether views are blurred with probability 0.5; the paper does not for 32 px.
        min_scale: Smallest area of a crop, as a share of the image's.
        max_scale: Largest area of a crop.
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> SimCLRViews(32, strength=0.5, blur=False).sizes
        (32, 32)
    """

    def __init__(
        self,
        size: int,
        views: int = 2,
        strength: float = 1.0,
        blur: bool = True,
        min_scale: float = 0.08,
        *,
        max_scale: float = 1.0,
        jitter: JitterMode = "exact",
    ) -> None:
        if not 0 <= strength <= 2.5:
            raise ValueError(f"strength: expected 0 to 2.5 (hue 0.5), but got {strength}")
        crop = RandomResizedCrop(size, scale=(min_scale, max_scale))
        strengths = (0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
        colors = _colors(strengths, jitter, blur=0.5 if blur else 0.0)
        super().__init__([crop, RandomHorizontalFlip(p=0.5), *colors], views)


class MoCoViews(Views):
    """The views of MoCo v2: crop, colour jitter, grayscale, blur, flip (Chen et al. 2020, arXiv 2003.04297).

    Without blur they are the views of RINCE (Hoffmann et al. 2022, arXiv 2201.11736), which flips after the crop: a
    flip commutes with all that comes between. The paper of MoCo v2 trains at 224 px alone; at other sizes, and without
    blur at 32 px, the same numbers are inferred.

    Args:
        size: Side of a view, in pixels.
        views: How many views to make, at least 1.
        blur: Whether views are blurred with probability 0.5.
        min_scale: Smallest area of a crop, as a share of the image's.
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> [type(operation).__name__ for operation in MoCoViews(32, blur=False).transforms]
        ['RandomResizedCrop', 'ColorJitter', 'RandomGrayscale', 'RandomHorizontalFlip']
    """

    def __init__(
        self, size: int, views: int = 2, blur: bool = True, min_scale: float = 0.2, *, jitter: JitterMode = "exact"
    ) -> None:
        crop = RandomResizedCrop(size, scale=(min_scale, 1.0))
        colors = _colors((0.4, 0.4, 0.4, 0.1), jitter, blur=0.5 if blur else 0.0)
        super().__init__([crop, *colors, RandomHorizontalFlip(p=0.5)], views)


class BYOLViews(JointViews):
    """The two views of BYOL: crop, flip, jitter, grayscale, blur, solarise (Grill et al. 2020, arXiv 2006.07733).

    They are unlike: the first is blurred always and never solarised; the second is blurred with probability 0.1 and
    solarised with probability 0.2.

    Args:
        size: Side of a view, in pixels.
        blur: Whether views are blurred; for 32 px, which the paper does not train at, solo-learn leaves it out.
        min_scale: Smallest area of a crop, as a share of the image's.
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> first, second = BYOLViews(32, blur=False).parts
        >>> [type(operation).__name__ for operation in second.transforms[3:]]
        ['RandomGrayscale', 'RandomSolarize']
    """

    def __init__(self, size: int, blur: bool = True, min_scale: float = 0.08, *, jitter: JitterMode = "exact") -> None:
        parts: list[Augmentation] = []
        for blurred, solarized in ((1.0, 0.0), (0.1, 0.2)):
            crop = RandomResizedCrop(size, scale=(min_scale, 1.0))
            colors = _colors((0.4, 0.4, 0.2, 0.1), jitter, blurred if blur else 0.0, solarized)
            parts.append(Views([crop, RandomHorizontalFlip(p=0.5), *colors], views=1))
        super().__init__(parts)


class SCEViews(JointViews):
    """Views of SCE, each of a kind of its own (Denize et al. 2023, arXiv 2111.14585).

    | kind         | jitter (brightness, contrast, saturation, hue) | grayscale | blur | solarise |
    |--------------|------------------------------------------------|-----------|------|----------|
    | weak         | none                                           | 0         | 0    | 0        |
    | strong       | 0.4, 0.4, 0.4, 0.1                             | 0.2       | 0.5  | 0        |
    | strong-alpha | 0.4, 0.4, 0.2, 0.1                             | 0.2       | 1    | 0        |
    | strong-beta  | 0.4, 0.4, 0.2, 0.1                             | 0.2       | 0.1  | 0.2      |
    | strong-gamma | 0.4, 0.4, 0.2, 0.1                             | 0.2       | 0.5  | 0.2      |

    All begin with a crop and end with a flip; 0.8 of the images are jittered. The numbers are those of the official
    configurations: weak (for the teacher) and strong (for the student) at 32 px, alpha and beta at 224 px. Which
    configuration the paper calls alpha, beta and gamma is inferred from them, as is weak and strong at 96 px.

    Args:
        size: Side of a view, in pixels, at least 7 where a kind is blurred.
        kinds: The kind of each view, in order.
        scale: Smallest and largest area of a crop, as a share of the image's.
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.

    Raises:
        ValueError: if there is no kind, an unknown one, or an argument is out of its range.

    Example:
        >>> SCEViews(32).arguments["kinds"]
        ('weak', 'strong')

        Multi-crop, at a size of one's own:

        >>> large = SCEViews(32, ["strong-alpha", "strong-beta"])
        >>> small = SCEViews(16, ["strong-gamma"] * 3, scale=(0.1, 0.5))
        >>> JointViews([large, small]).sizes
        (32, 32, 16, 16, 16)
    """

    def __init__(
        self,
        size: int,
        kinds: Sequence[SCEKind] = ("weak", "strong"),
        scale: tuple[float, float] = (0.2, 1.0),
        *,
        jitter: JitterMode = "exact",
    ) -> None:
        # Saturation, and the probabilities of blur and of solarisation.
        strong = {
            "strong": (0.4, 0.5, 0.0),
            "strong-alpha": (0.2, 1.0, 0.0),
            "strong-beta": (0.2, 0.1, 0.2),
            "strong-gamma": (0.2, 0.5, 0.2),
        }
        if not kinds or not {*kinds} <= {"weak", *strong}:
            raise ValueError(f"kinds: expected a list of weak, {', '.join(strong)}, but got {kinds!r}")
        parts: list[Augmentation] = []
        for kind in kinds:
            transforms: list[Operation] = [RandomResizedCrop(size, scale=scale)]
            if kind != "weak":
                saturation, blur, solarize = strong[kind]
                # The official blurs, Pillow's and one of 23 pixels, cut next to nothing off the Gaussian at any size.
                transforms += _colors((0.4, 0.4, saturation, 0.1), jitter, blur, solarize, WHOLE_GAUSSIAN)
            parts.append(Views([*transforms, RandomHorizontalFlip(p=0.5)], views=1))
        super().__init__(parts)


class AMDIMViews(JointViews):
    """The views of AMDIM: one flip for all of an image, then for each shift or crop, jitter, grayscale.

    The numbers are those of the authors' code (Bachman et al. 2019, arXiv 1906.00910): at 32 px shifts by up to 4 px,
    at 64 and 128 px crops, at 128 px half the hue.

    Args:
        size: Side of a view, in pixels.
        views: How many views to make, at least 1.
        shift: Pixels that images, which must be of this size, are shifted by at most, with probability 0.8; None =
            views are random crops.
        hue: Of the colour jitter, in [0, 0.5].
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.

    Raises:
        ValueError: if an argument is out of its range, or images that are shifted are of another size.

    Example:
        >>> augmentation = AMDIMViews(32, shift=4)
        >>> [type(operation).__name__ for operation in [*augmentation.shared, *augmentation.parts[0].transforms]]
        ['RandomHorizontalFlip', 'RandomShift', 'ColorJitter', 'RandomGrayscale']
    """

    def __init__(
        self, size: int, views: int = 2, shift: int | None = None, hue: float = 0.2, *, jitter: JitterMode = "exact"
    ) -> None:
        view = [_shift_or_crop(size, shift), *_amdim_colors(hue, jitter)]
        super().__init__([Views(view, views)], shared=[RandomHorizontalFlip(p=0.5)])


class CPCViews(Views):
    """The view of CPC: flip, shift or crop, jitter, grayscale, then a grid of overlapping patches.

    The numbers are those of lightning-bolts: AMDIM's, and patches of a quarter of the side that overlap by half. The
    paper (Hénaff et al. 2020, arXiv 1905.09272) changes the colours of each patch on its own, as ``per_patch`` does;
    for its colour dropping build the view from :class:`~ssl_modules.augmentations.PatchGrid`.

    Args:
        size: Side of the view, in pixels, before it is cut.
        patches: Side and overlap of the patches, in pixels.
        shift: Pixels that images, which must be of this size, are shifted by at most, with probability 0.8; None =
            views are random crops.
        hue: Of the colour jitter, in [0, 0.5].
        per_patch: Whether jitter and grayscale are drawn for each patch on its own, otherwise once for all of an image.
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.

    Raises:
        ValueError: if an argument is out of its range, or images that are shifted are of another size.

    Example:
        >>> import torch
        >>> [view] = CPCViews(32, patches=(8, 4), shift=4)(torch.rand(4, 3, 32, 32))
        >>> view.shape  # [N, rows, cols, ch, h, w]
        torch.Size([4, 7, 7, 3, 8, 8])
    """

    def __init__(
        self,
        size: int,
        patches: tuple[int, int],
        shift: int | None = None,
        hue: float = 0.2,
        per_patch: bool = False,
        *,
        jitter: JitterMode = "exact",
    ) -> None:
        view: list[Operation] = [RandomHorizontalFlip(p=0.5), _shift_or_crop(size, shift)]
        colors = _amdim_colors(hue, jitter)
        grid = [PatchGrid(*patches, transforms=colors)] if per_patch else [*colors, PatchGrid(*patches)]
        super().__init__([*view, *grid], views=1)


class YADIMViews(JointViews):
    """The views of YADIM, the union of AMDIM's and CPC's (Falcon and Cho 2020, arXiv 2009.00104): a reconstruction.

    They are AMDIM's, which ``patches`` cuts into a grid. The paper has no public code, and whether it cuts is not
    settled.

    Args:
        size: Side of a view, in pixels.
        views: How many views to make, at least 1.
        shift: Pixels that images, which must be of this size, are shifted by at most, with probability 0.8; None =
            views are random crops.
        hue: Of the colour jitter, in [0, 0.5].
        patches: Side and overlap, in pixels, of the patches that views are cut into; None = they stay whole.
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.

    Raises:
        ValueError: if an argument is out of its range, or images that are shifted are of another size.

    Example:
        >>> import torch
        >>> [view.shape for view in YADIMViews(64, patches=(16, 8))(torch.rand(2, 3, 70, 80))]
        [torch.Size([2, 7, 7, 3, 16, 16]), torch.Size([2, 7, 7, 3, 16, 16])]
    """

    def __init__(
        self,
        size: int,
        views: int = 2,
        shift: int | None = None,
        hue: float = 0.2,
        patches: tuple[int, int] | None = None,
        *,
        jitter: JitterMode = "exact",
    ) -> None:
        grid = [] if patches is None else [PatchGrid(*patches)]
        view = [_shift_or_crop(size, shift), *_amdim_colors(hue, jitter), *grid]
        super().__init__([Views(view, views)], shared=[RandomHorizontalFlip(p=0.5)])


class GroCoViews(JointViews):
    """The views of GroCo: crop, flip, jitter, grayscale, blur, solarise (Shvetsova et al. 2023, arXiv 2301.02009).

    | views            | crop, share of the area | blur | solarise |
    |------------------|-------------------------|------|----------|
    | full, 1st, 3rd   | 0.14 to 1               | 1    | 0        |
    | full, 2nd, 4th   | 0.14 to 1               | 0.1  | 0.2      |
    | small            | 0.05 to 0.14            | 0.5  | 0        |

    The numbers are those of the authors' code for ImageNet: two to four full views at 224 px, or two and six small ones
    at 96 px. Other sizes, and views without blur at 32 px, are inferred.

    Args:
        size: Side of a full view, in pixels, at least 7 where it is blurred.
        views: How many full views to make, at least 1.
        small_views: How many small ones to make after them.
        small_size: Side of a small view, in pixels.
        blur: Whether views are blurred.
        min_scale: Smallest area of a full view's crop, as a share of the image's.
        jitter: "exact" or "linear", which is faster; see :class:`~ssl_modules.augmentations.ColorJitter`.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> GroCoViews(224, small_views=6).sizes
        (224, 224, 96, 96, 96, 96, 96, 96)
    """

    def __init__(
        self,
        size: int,
        views: int = 2,
        small_views: int = 0,
        small_size: int = 96,
        *,
        blur: bool = True,
        min_scale: float = 0.14,
        jitter: JitterMode = "exact",
    ) -> None:
        if views < 1:
            raise ValueError(f"views: expected at least 1, but got {views}")
        if small_views < 0:
            raise ValueError(f"small_views: expected 0 or more, but got {small_views}")

        def view(size: int, scale: tuple[float, float], blurred: float, solarized: float) -> list[Operation]:
            crop = RandomResizedCrop(size, scale, interpolation="bicubic")
            # Pillow's blur cuts next to nothing off the Gaussian.
            colors = _colors((0.4, 0.4, 0.2, 0.1), jitter, blurred if blur else 0.0, solarized, WHOLE_GAUSSIAN)
            return [crop, RandomHorizontalFlip(p=0.5), *colors]

        kinds = [(1.0, 0.0), (0.1, 0.2)]  # probabilities of blur and solarisation
        parts: list[Augmentation] = [Views(view(size, (min_scale, 1.0), *kinds[i % 2]), views=1) for i in range(views)]
        if small_views:
            parts.append(Views(view(small_size, (0.05, 0.14), 0.5, 0.0), small_views))
        super().__init__(parts)


def _shift_or_crop(size: int, shift: int | None) -> Operation:
    if shift is None:
        return RandomResizedCrop(size, scale=(0.3, 1.0), ratio=(0.7, 1.4), interpolation="bicubic")
    return RandomShift(shift, p=0.8, size=size)


def _amdim_colors(hue: float, mode: JitterMode) -> list[Operation]:
    return [ColorJitter(0.4, 0.4, 0.4, hue, p=0.8, mode=mode), RandomGrayscale(p=0.25)]


def _colors(
    strengths: tuple[float, float, float, float],
    mode: JitterMode,
    blur: float = 0.0,
    solarize: float = 0.0,
    kernel_size: int | None = None,
) -> list[Operation]:
    """Jitter and grayscale at the rates of all the papers, then blur and solarisation, where there are any."""
    operations: list[Operation] = [ColorJitter(*strengths, p=0.8, mode=mode), RandomGrayscale(p=0.2)]
    if blur > 0:
        operations.append(GaussianBlur(kernel_size, p=blur))
    if solarize > 0:
        operations.append(RandomSolarize(p=solarize))
    return operations
