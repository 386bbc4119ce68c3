"""Distributes work over threads, or keeps it on one thread.

PyTorch splits each operation over its threads, and waits for the slowest thread after each operation. If another
process uses one of the cores, every operation waits for that core. Many small operations are then far slower on several
threads than on one.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

SMALL = 2**25  # matrix products with fewer multiplications run on one thread: several would mostly wait for each other


@contextmanager
def one_thread(use: bool = True) -> Iterator[None]:
    """Run the calling thread's operations on one thread inside a ``with`` block.

    Args:
        use: whether to do so; False leaves the number of threads as it is.

    Example:
        >>> with one_thread():
        ...     torch.get_num_threads()
        1
    """
    if not use:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def share_out(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    """Call a function for each item, on as many threads as PyTorch is set to use.

    Each thread processes whole items, runs their operations alone, and takes the next item when it is done. A slow core
    therefore processes fewer items, and no operation waits for it. The threads end before the function returns.

    Args:
        work: function that is called once for each item, from several threads at once. It runs in the caller's grad
            and inference mode.
        items: the items, which are started in this order.

    Raises:
        BaseException: the first exception that ``work`` raises. No further items are then started.

    Example:
        >>> squares = {}
        >>> share_out(lambda number: squares.update({number: number**2}), range(3))
        >>> sorted(squares.items())
        [(0, 0), (1, 1), (2, 4)]
    """
    left = iter(items)
    lock = threading.Lock()
    errors: list[BaseException] = []
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()  # a new thread doesn't inherit them

    def take() -> None:
        try:
            with one_thread(), torch.inference_mode(inference), torch.set_grad_enabled(grad):
                while not errors:
                    with lock:
                        item = next(left, left)
                    if item is left:
                        return
                    work(item)
        except BaseException as error:  # share_out raises it in the calling thread
            errors.append(error)

    # Each call starts its own threads. A pool's threads would be missing in a forked child process.
    helpers = [threading.Thread(target=take) for _ in range(min(torch.get_num_threads(), len(items)) - 1)]
    # Setting the number of threads in a helper also sets the default for new threads; leaving this block restores it.
    with one_thread():
        for helper in helpers:
            helper.start()
        take()
        for helper in helpers:
            helper.join()
    if errors:
        raise errors[0]
