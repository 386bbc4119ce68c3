"""Checks before the first step, so that aspects that don't fit fail early and not during a run."""

from typing import Any

import torch
import torch.distributed as dist

from ssl_modules.objective import chance_level, objective


def rehearse(module: Any) -> None:
    """Run extraction, similarity and loss once on random maps, without changing any state.

    The encoder also runs once for each size of views other than its ``image_size``. Extraction, similarity and loss do
    not run if the shapes of the encoder's maps are unknown (see :class:`~ssl_modules.encoders.Encoder`), on the meta
    device, or in inference mode. They do not run in a process group, because other processes may build no module.

    Args:
        module: a :class:`~ssl_modules.ContrastiveModule` whose aspects are built.

    Raises:
        ValueError: if the encoder can't take a view, the aspects don't fit together, or the loss doesn't depend on the
            scores.
    """
    extraction, encoder, loss = module.extraction, module.encoder, module.loss
    like = next(extraction.parameters(), torch.empty(0))
    grouped = dist.is_available() and dist.is_initialized()
    sizes = [size or encoder.image_size for size in module.plan.sizes]
    of_size = {size: encoder.shapes_of(size) for size in sizes}
    if encoder.map_shapes is None or like.is_meta or torch.is_inference_mode_enabled() or grouped:
        return
    images, plan = loss.min_images, module.plan
    generator = torch.Generator(like.device).manual_seed(0)

    def maps(view: int) -> tuple[torch.Tensor, ...]:
        channels, shapes = encoder.out_channels, of_size[sizes[view]]
        full = [(images, c, *shape) for c, shape in zip(channels, shapes, strict=True)]
        return tuple(torch.randn(s, generator=generator, device=like.device, dtype=like.dtype) for s in full)

    ids = _ids(images, extraction.levels, like.device)
    modes = {m: m.training for m in (*extraction.modules(), *(module.teacher or extraction).modules())}
    try:
        extraction.eval()  # keeps batch statistics and queue unchanged
        student = [extraction.heads(maps(view)) for view in plan.student]
        teacher = None
        if module.teacher is not None:
            heads = module.teacher.heads.eval()
            teacher = [heads(maps(view)).detach() for view in plan.teacher]
        contrasts = extraction(student, teacher, ids, generator)
        value = objective(contrasts, module.similarity, loss, module.anchor_block)
        constant = bool(value == 0) and bool(chance_level(contrasts, loss) == 0)
    except RuntimeError as error:
        raise ValueError(
            f"extraction: {type(extraction).__name__} doesn't fit the maps of {encoder.name}, channels "
            f"{list(encoder.out_channels)} and shapes {[list(s) for s in encoder.map_shapes]}: {error}"
        ) from error
    finally:
        for part, mode in modes.items():
            part.training = mode
    if constant:
        raise ValueError(
            f"loss: {type(loss).__name__} is 0 whatever the scores are, as {type(extraction).__name__} gives no "
            "negatives to compare with; take a loss without negatives, Alignment(), or an extraction with negatives, "
            "such as AllViews()"
        )


def rehearse_step(module: Any, images: int) -> None:
    """Run encoder, heads, extraction, similarity and loss on random images, as a training step does.

    An encoder without two spatial axes does not run; random maps replace its output.

    Args:
        module: a :class:`~ssl_modules.ContrastiveModule` on its device, in training mode.
        images: number of images.
    """
    encoder, extraction, device = module.encoder, module.extraction, module.device
    generator = torch.Generator(device).manual_seed(0)
    if encoder.map_shapes is not None:
        views = []
        for size in module.plan.sizes:
            shape = (images, encoder.in_channels, *[size or encoder.image_size] * 2)
            view = torch.randint(256, shape, generator=generator, dtype=torch.uint8, device=device)
            views.append(view if encoder.patches is None else encoder.patches.transform(view))
        embedded = module.embed(views)
        student, teacher = embedded.student, embedded.teacher
    else:
        shapes = [(images, channels, *[1] * encoder.spatial_dims) for channels in encoder.out_channels]
        maps = tuple(torch.randn(s, generator=generator, device=device, dtype=module.dtype) for s in shapes)
        student = [extraction.heads(maps) for _ in module.plan.student]
        teacher = None if module.teacher is None else [module.teacher.heads(maps) for _ in module.plan.teacher]
    contrasts = extraction(student, teacher, _ids(images, extraction.levels, device), generator)
    objective(contrasts, module.similarity, module.loss, module.anchor_block)


def _ids(images: int, levels: int, device: torch.device) -> torch.Tensor:
    """Return ids of different images, with unknown labels."""
    ids = torch.full((images, levels), -1, device=device)
    ids[:, 0] = torch.arange(images)
    return ids
