"""Several processes, one run: who they are, what they share, how work is divided.

Started by torchrun, every process holds the same model and takes its share of every batch. Whatever is random is drawn
for the whole batch, alike in all processes, and then cut, so that the number of processes does not change the result.
Without torchrun there is one process, and nothing here does anything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor


def start() -> None:
    """Join the other processes if torchrun started this one; NCCL with GPUs, else gloo."""
    if int(os.environ.get('WORLD_SIZE', 1)) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ['LOCAL_RANK']))
        dist.init_process_group('nccl' if torch.cuda.is_available() else 'gloo')


def stop() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and shows progress."""
    return rank() == 0


def wait() -> None:
    """Until all processes are here."""
    if world() > 1:
        dist.barrier()


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """The main process alone does what is inside first; the others find its files then."""
    if not is_main():
        wait()
    try:
        yield
    finally:
        if is_main():
            wait()


def share(count: int) -> slice:
    """This process's part of so many things, in order; parts differ by one at most."""
    return slice(rank() * count // world(), (rank() + 1) * count // world())


def rows(draw: Callable[[int], Tensor], batch: int) -> Tensor:
    """Random rows for this process's part of the batch.

    Args:
        draw: number of rows -> tensor with so many rows; called alike in all processes.
        batch: rows of each process.
    """
    return draw(batch * world())[rank() * batch : (rank() + 1) * batch]


def gather(x: Tensor) -> Tensor:
    """Rows of all processes, in their order; without gradient."""
    if world() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def gather_lists(items: list) -> list:
    """Lists of all processes, joined in their order."""
    if world() == 1:
        return items
    parts: list[list] = [[] for _ in range(world())]
    dist.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def from_main(value: object) -> object:
    """What the main process has, in all of them."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def mean(x: Tensor) -> Tensor:
    """Mean over processes of a scalar."""
    if world() == 1:
        return x
    x = x.detach().clone()
    dist.all_reduce(x)
    return x / world()


def same(x: Tensor) -> bool:
    """Whether all processes hold the same tensor, as far as its sum and sum of squares tell."""
    if world() == 1:
        return True
    marks = torch.stack([x.double().sum(), x.double().square().sum()])[None].to(x.device)
    return bool((gather(marks) == marks).all())
