"""Checks before the first step, so that aspects that don't fit fail early and not during a run."""

from typing import Any

import torch
import torch.distributed as dist

from ssl_modules.batch import last_batch_size
from ssl_modules.losses import Loss
from ssl_modules.objective import chance_level, objective
from ssl_modules.utils.distributed import world_size


def rehearse(module: Any) -> None:
    """Run extraction, similarity and loss once on random maps, without changing any state.

    The check is skipped if the shapes of the encoder's maps are unknown (see :class:`~ssl_modules.encoders.Encoder`),
    on the meta device, in inference mode, and in a process group, because other processes may build no module.

    Args:
        module: a :class:`~ssl_modules.ContrastiveModule` whose aspects are built.

    Raises:
        ValueError: if the aspects don't fit together, or the loss doesn't depend on the scores.
    """
    extraction, encoder, loss = module.extraction, module.encoder, module.loss
    like = next(extraction.parameters(), torch.empty(0))
    grouped = dist.is_available() and dist.is_initialized()
    if encoder.map_shapes is None or like.is_meta or torch.is_inference_mode_enabled() or grouped:
        return
    images, plan = loss.min_images, module.plan
    generator = torch.Generator(like.device).manual_seed(0)

    def maps() -> tuple[torch.Tensor, ...]:
        shapes = [(images, c, *shape) for c, shape in zip(encoder.out_channels, encoder.map_shapes, strict=True)]
        return tuple(torch.randn(s, generator=generator, device=like.device, dtype=like.dtype) for s in shapes)

    ids = torch.zeros(images, extraction.levels, dtype=torch.int64, device=like.device)  # all of class 0
    ids[:, 0] = torch.arange(images)
    modes = {m: m.training for m in (*extraction.modules(), *(module.teacher or extraction).modules())}
    try:
        extraction.eval()  # keeps batch statistics and queue unchanged
        student = [extraction.heads(maps()) for _ in plan.student]
        teacher = None
        if module.teacher is not None:
            heads = module.teacher.heads.eval()
            teacher = [heads(maps()).detach() for _ in plan.teacher]
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


def check_last_batch(trainer: Any, loss: Loss) -> None:
    """Raise if the last batch of an epoch has fewer images than the loss needs.

    Args:
        trainer: a Trainer whose training loader is set up.
        loss: the module's loss.

    Raises:
        ValueError: if the batch is too small; the message names both numbers.
    """
    size = last_batch_size(trainer.train_dataloader, trainer.num_training_batches)
    # Extractions that compare the images of a batch raise for a single image themselves; others accept it.
    if size is not None and Loss.min_images < loss.min_images > size * world_size():
        raise ValueError(
            f"batch: the last one of an epoch has {size * world_size()} images, but {type(loss).__name__} compares "
            f"{loss.min_images} or more; pass drop_last=True to the training loader"
        )
