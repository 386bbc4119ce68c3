"""Restores a validation that was pending when a checkpoint was saved.

Lightning may save a checkpoint after a batch but before the validation that is due, or in the middle of a validation.
When such a run resumes, Lightning skips that validation and continues with the next batch.
"""

from typing import Any

_NOTHING_DONE = {"ready": 1, "started": 1, "processed": 0, "completed": 0}  # Lightning restarts such a validation


def rewind(fit_loop: dict[str, Any]) -> bool:
    """Change the progress in a checkpoint so that the Trainer runs a pending validation from its first batch.

    Args:
        fit_loop: ``checkpoint["loops"]["fit_loop"]``, changed in place.

    Returns:
        Whether a validation may be pending after the last batch that was trained.
    """
    batch = fit_loop["epoch_loop.batch_progress"]
    validation = fit_loop["epoch_loop.val_loop.batch_progress"]
    current = batch["current"]
    saved_after_batch = current["ready"] == current["processed"] == current["completed"] + 1
    if saved_after_batch:
        for counts in (batch["total"], current):
            counts["completed"] += 1
    done = validation["current"]
    saved_in_validation = done["ready"] > 0 and not (validation["is_last_batch"] and done["completed"] == done["ready"])
    if not (saved_after_batch or saved_in_validation):
        return False
    validation |= {"total": dict(_NOTHING_DONE), "current": dict(_NOTHING_DONE), "is_last_batch": False}
    return True
