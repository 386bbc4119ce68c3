"""Augmentations from other libraries' transforms and from plain functions."""

import functools
import inspect
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ssl_modules.augmentations.operation import Operation, to_float
from ssl_modules.augmentations.views import Augmentation
from ssl_modules.utils.checks import check_number
from ssl_modules.utils.pixels import fix_of_range, fix_of_type
from ssl_modules.utils.threads import one_thread

Per = Literal["image", "batch"]
Form = Literal["float", "tensor", "numpy", "pil"]  # input format of a transform

BEYOND = 0.5  # tolerance around [0, 1]: cubic resizing and noise exceed [0, 1] by less, normalised images by more
FROM_PIL = {("torchvision.transforms.transforms", name) for name in ("ToTensor", "PILToTensor")}
PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


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
            _check_transform(each, per)
        if views is None:
            views = len(transforms) if several else 2
        check_number("views", views, least=1)
        if several and views != len(transforms):
            raise ValueError(f"views: expected one for each of {len(transforms)} transforms, got {views}; leave it out")
        self.sizes = _sizes(size, views)
        self.transforms = transforms if several else transforms * views
        self.forms = [_form(each) for each in self.transforms]
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
        self.check_channels(images.shape[1])
        seeds = torch.randint(2**63 - 1, (len(self.sizes),), generator=generator, device=images.device).tolist()
        views = []
        # One image is too small to be worth splitting an operation over threads, which would wait for each other.
        alone = self.per == "image" and images.device.type == "cpu"
        with _global_states_kept(images.device), one_thread(alone):
            for transform, form, size, seed in zip(self.transforms, self.forms, self.sizes, seeds, strict=True):
                _seed(transform, seed, images.device)
                if self.per == "batch":
                    views.append(_whole_view(transform, images, size))
                else:
                    made = [_one_image(transform, form, image, size) for image in images]
                    views.append(torch.stack(made).to(images.device))
                _check_values(transform, views[-1])
        return [view.clamp(0, 1) for view in views]


def not_an_augmentation(value: Any, image_size: int) -> TypeError:
    """The error for a value that is not an augmentation; the message says how to make one of it.

    Args:
        value: The value passed as an augmentation.
        image_size: Side of a view, in pixels.

    Example:
        >>> from torchvision.transforms import v2
        >>> not_an_augmentation(v2.RandomResizedCrop(32), image_size=32)
        TypeError('augmentation: got a torchvision RandomResizedCrop; wrap it: Foreign(transform, size=32)')
    """
    several = isinstance(value, list | tuple) and len(value) > 0
    first = value[0] if several else value
    if isinstance(value, type):
        fix = f"; give an instance, {value.__name__}(...)" if issubclass(value, nn.Module) else ""
        return TypeError(f"augmentation: expected an object, got the class {value.__name__}{fix}")
    if isinstance(first, Operation):
        name = type(value).__name__
        what = "a list of operations; wrap it: Views(operations)"
        return TypeError(
            f"augmentation: got {what if several else f'the operation {name}; wrap it: Views([{name}(...)])'}"
        )
    if isinstance(first, Augmentation):
        return TypeError("augmentation: got a list of augmentations; join their views: JointViews(augmentations)")
    if callable(first):
        what = f"a list of {len(value)} callables" if several else describe(value)
        fix = f"wrap it: Foreign({'transforms' if several else 'transform'}, size={image_size})"
        if _takes_generator(first):
            fix = "do the same in a subclass of Augmentation, in make_views(self, images, generator)"
        return TypeError(f"augmentation: got {what}; {fix}")
    if isinstance(value, str):
        fix = f"; give an object, such as SimCLRViews({image_size}, views=1) for one view"
        return TypeError(f"augmentation: expected an Augmentation, got {value!r}{fix}")
    return TypeError(f"augmentation: expected an Augmentation or the name of a policy, got {value!r}")


def _takes_generator(transform: Any) -> bool:
    """Whether a function has two required arguments, as the images and the generator of an augmentation."""
    if not inspect.isroutine(transform):
        return False
    try:
        inspect.signature(transform).bind(None, None)
        inspect.signature(transform).bind(None)
    except ValueError:
        return False  # a builtin without a signature
    except TypeError as error:
        return "missing a required" in str(error)
    return False


def describe(transform: Any) -> str:
    """A callable's kind, library and name in words, for error messages.

    Example:
        >>> describe(describe)
        'the function describe'
    """
    if inspect.isroutine(transform):
        return f"the function {transform.__name__}"
    kind = type(transform)
    library = kind.__module__.partition(".")[0]
    if library in ("__main__", "builtins"):
        return f"the {kind.__name__}"
    return f"{'an' if library[0] in 'aeiou' else 'a'} {library} {kind.__name__}"


def _check_transform(transform: Any, per: Per) -> None:
    if isinstance(transform, type):
        raise TypeError(f"transform: got the class {transform.__name__}; give an instance, {transform.__name__}(...)")
    if isinstance(transform, Operation):
        name = type(transform).__name__
        raise TypeError(f"transform: got the operation {name} of this package; use Views([{name}(...)])")
    if isinstance(transform, Augmentation):
        raise TypeError(f"transform: {type(transform).__name__} is an augmentation already; give it as it is")
    if not callable(transform):
        raise TypeError(
            f"transform: expected a callable, such as torchvision.transforms.v2.Compose([...]), got {transform!r}"
        )
    for part in _parts(transform):
        libraries = _libraries(part)
        if "Normalize" in (kind.__name__ for kind in type(part).__mro__):
            raise ValueError(
                f"transform: {describe(transform)} normalises; leave Normalize out, as the encoder normalises (mean=, "
                "std=)"
            )
        if per == "batch" and "torchvision" in libraries and not inspect.isroutine(part):
            raise ValueError(
                f"per: {describe(transform)} would draw once for the whole batch; use per='image', or an augmentation "
                "of this package or of kornia"
            )
        if per == "batch" and "albumentations" in libraries:
            raise ValueError(f"per: {describe(transform)} takes one image at a time; use per='image'")


def _parts(transform: Any) -> Iterator[Any]:
    """A transform and all the transforms inside it that can be found."""
    yield transform
    inner: list[Any] = []
    if isinstance(transform, nn.Module):
        inner += transform.children()
    if isinstance(transform, functools.partial):
        inner.append(transform.func)
    # torchvision's Compose is a module, but does not register its transforms as submodules.
    listed = getattr(transform, "transforms", None)
    if isinstance(listed, list | tuple):
        inner += listed
    wrapped = getattr(transform, "transform", None)
    if callable(wrapped) and not inspect.isroutine(wrapped):
        inner.append(wrapped)
    for part in inner:
        yield from _parts(part)


def _libraries(part: Any) -> set[str]:
    """The packages that define a function, or an object's class and its bases."""
    sources = [part] if inspect.isfunction(part) else type(part).__mro__
    return {source.__module__.partition(".")[0] for source in sources}


def _form(transform: Any) -> Form:
    parts = [*_parts(transform)]
    libraries = set().union(*map(_libraries, parts))
    if "albumentations" in libraries:
        return "numpy"
    kinds = {(kind.__module__, kind.__name__) for part in parts for kind in type(part).__mro__}
    if kinds & FROM_PIL:
        return "pil"
    return "tensor" if "torchvision" in libraries else "float"


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
    for part in _parts(transform):
        # One seed for all would make albumentations' operations draw the same numbers.
        if "albumentations" in _libraries(part) and hasattr(part, "set_random_state"):
            part.set_random_state(*shared)
        elif hasattr(part, "set_random_seed"):
            part.set_random_seed(shared[1].randrange(2**32))


def _whole_view(transform: Any, images: Tensor, size: int | None) -> Tensor:
    floats = to_float(images)
    view = transform(floats.clone() if floats is images else floats)  # cloned, as the transform may work in place
    if not isinstance(view, Tensor):
        raise TypeError(
            f"transform: {describe(transform)} has to return a tensor {list(images.shape[:2])} + [{size}, "
            f"{size}] for a batch, but returned {_kind(view)}; use per='image'"
        )
    if view.ndim != 4 or len(view) != len(images):
        raise ValueError(
            f"transform: {describe(transform)} has to return {len(images)} images [N, ch, {size}, {size}], but "
            f"returned {list(view.shape)}; use per='image' if it takes one image"
        )
    _check_side(transform, view, size)
    return _floats(transform, view)


def _one_image(transform: Any, form: Form, image: Tensor, size: int | None) -> Tensor:
    made = _as_tensor(transform, _call(transform, form, image))
    if made.ndim == 4 and len(made) == 1:  # kornia adds a batch axis
        made = made[0]
    if made.ndim != 3:
        fix = "use per='batch' if it takes batches" if made.ndim > 3 else "add the axis of channels, image[None]"
        raise ValueError(
            f"transform: {describe(transform)} has to return one image [ch, {size}, {size}], but returned "
            f"{list(made.shape)}; {fix}"
        )
    _check_side(transform, made, size)
    return _floats(transform, made)


def _call(transform: Any, form: Form, image: Tensor) -> Any:
    """Apply the transform to an image [ch, H, W], converted to the transform's input format."""
    if form == "tensor":
        return transform(image.clone())
    if form == "float":
        return transform(to_float(image[None])[0].clone())
    if form == "numpy":
        return transform(image=_array(image))
    array = _array((image * 255).round().byte() if image.is_floating_point() else image)
    return transform(Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array, PIL_MODES[array.shape[2]]))


def _array(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).clone(memory_format=torch.contiguous_format).cpu().numpy()  # [H, W, ch]


def _as_tensor(transform: Any, made: Any) -> Tensor:
    if isinstance(made, Mapping) and "image" in made:
        made = made["image"]
    if isinstance(made, Image.Image):
        made = np.asarray(made)
    if isinstance(made, np.ndarray) and made.ndim in (2, 3) and made.dtype.kind in "uif":
        made = torch.from_numpy(np.array(made, order="C"))
        return made[None] if made.ndim == 2 else made.permute(2, 0, 1)
    if not isinstance(made, Tensor):
        several = isinstance(made, list | tuple)
        hint = ""
        if several:
            hint = (
                "; give the transform of one view, which is called for each view, or one for each, Foreign([transform, "
                "...], ...)"
            )
        raise TypeError(
            f"transform: {describe(transform)} has to return one image, as a tensor, a numpy array or a PIL image, but "
            f"returned {_kind(made)}{hint}"
        )
    return made


def _kind(made: Any) -> str:
    if isinstance(made, np.ndarray):
        return f"a numpy array {list(made.shape)} of {made.dtype}"
    return f"a {type(made).__name__}" + (f" of {len(made)}" if isinstance(made, list | tuple) else "")


def _check_side(transform: Any, made: Tensor, size: int | None) -> None:
    if made.shape[-2:] != (size, size):
        raise ValueError(
            f"size: expected views of {size} x {size} pixels, but {describe(transform)} made {list(made.shape)}; give "
            "the size that it makes, or let it resize"
        )


def _floats(transform: Any, made: Tensor) -> Tensor:
    made = made.as_subclass(Tensor)  # torchvision returns a subclass
    if made.dtype == torch.uint8:
        return made.float().div_(255)
    if not made.is_floating_point():
        raise TypeError(
            f"transform: {describe(transform)} has to return uint8, or float in [0, 1], but returned {made.dtype}; "
            f"{fix_of_type(made)}"
        )
    return made.float()


def _check_values(transform: Any, view: Tensor) -> None:
    low, high = (bound.item() for bound in view.aminmax())
    if math.isnan(low):
        raise ValueError(f"transform: {describe(transform)} made pixels that are NaN, of images without; mend it")
    if low < -BEYOND or high > 1 + BEYOND:
        raise ValueError(
            f"transform: {describe(transform)} made pixels from {low:g} to {high:g}, which have to lie in [0, 1]; "
            f"{fix_of_range(low, high)}"
        )
