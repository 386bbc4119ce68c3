"""Work on several threads of a processor.

PyTorch splits each operation over its threads, and waits after each for the slowest. If another process takes one of
the cores, every operation waits for it. Many small operations are then far slower on several threads than on one.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

SMALL = 2**25  # multiplications in a product of matrices, below which threads mostly wait for each other


@contextmanager
def one_thread(use: bool = True) -> Iterator[None]:
    """Run the calling thread's operations on one thread inside a ``with`` block.

    Args:
        use: False changes nothing.

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

    Each thread does whole items, with operations that run on it alone, and takes the next item when it is done. A slow
    core does fewer items, and no operation waits for it. The threads end before the function returns.

    Args:
        work: called once for each item, in the current grad and inference mode, from several threads at once.
        items: taken in this order.

    Raises:
        BaseException: the first that ``work`` raises. Items that were not yet begun are left out.

    Example:
        >>> squares = {}
        >>> share_out(lambda number: squares.update({number: number**2}), range(3))
        >>> sorted(squares.items())
        [(0, 0), (1, 1), (2, 4)]
    """
    left = iter(items)
    lock = threading.Lock()
    errors: list[BaseException] = []
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()  # each thread has its own

    def take() -> None:
        try:
            with one_thread(), torch.inference_mode(inference), torch.set_grad_enabled(grad):
                while not errors:
                    with lock:
                        item = next(left, left)
                    if item is left:
                        return
                    work(item)
        except BaseException as error:  # raised below, in the calling thread
            errors.append(error)

    # Threads of this call only: after a fork, the child of a process would lack those of a pool.
    helpers = [threading.Thread(target=take) for _ in range(min(torch.get_num_threads(), len(items)) - 1)]
    with one_thread():  # a thread that sets its own number of threads sets that of new threads, too; restored here
        for helper in helpers:
            helper.start()
        take()
        for helper in helpers:
            helper.join()
    if errors:
        raise errors[0]
