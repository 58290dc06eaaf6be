"""Several processes, one run: who they are, what they share, how work is divided.

Started by torchrun, every process holds the same model and takes its share of every batch. Whatever is random is drawn
for the whole batch, alike in all processes, and then cut, so that the number of processes does not change the result.
Without torchrun there is one process, and nothing here does anything.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = datetime.timedelta(days=7)
"""How long processes wait for one that stores tokens, say: NCCL gives up after ten minutes, gloo after thirty. One that
dies is not waited for, since torchrun then ends all."""

_hosts: list[dist.ProcessGroup | None] = [None]  # the processes, to talk over their CPUs, with patience


def start() -> None:
    """Join the other processes if torchrun started this one; NCCL with GPUs, else gloo.

    Raises:
        ValueError: if there are several processes, and not all was said that they need to find each other.
    """
    tasks = os.environ.get('SLURM_STEP_NUM_TASKS', '1')
    if 'WORLD_SIZE' not in os.environ and tasks not in ('', '1'):
        raise ValueError(
            f'srun started {tasks} tasks that know nothing of each other: use srun torchrun with one task a node, '
            'or one task alone'
        )
    if int(os.environ.get('WORLD_SIZE', 1)) < 2 or dist.is_initialized():
        return
    missing = [n for n in ('RANK', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT') if n not in os.environ]
    if missing:
        raise ValueError(
            f'WORLD_SIZE={os.environ["WORLD_SIZE"]} asks for several processes, but {", ".join(missing)} is not set: '
            'start them by torchrun, or unset WORLD_SIZE for one'
        )
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']))
    dist.init_process_group('nccl' if gpu else 'gloo')
    _hosts[0] = dist.new_group(backend='gloo', timeout=PATIENCE)


def stop() -> None:
    """Leave the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()
        _hosts[0] = None


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and shows progress."""
    return rank() == 0


def highest(value: int) -> int:
    """The highest value of all processes; asked over the CPUs, so that no GPU is waited for."""
    if world() == 1:
        return value
    box = torch.tensor(value)
    dist.all_reduce(box, dist.ReduceOp.MAX, group=_hosts[0])
    return int(box)


def speaks() -> bool:
    """Whether this process is the one that says why all end: the first to ask."""
    if not dist.is_initialized():
        return os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0'
    name = f'topdown/speaker/{os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)}'
    try:
        store = dist.TCPStore(os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']), is_master=False)
        return store.compare_set(name, '', str(rank())) == str(rank()).encode()
    except RuntimeError:  # the store went with the process that kept it
        return True


def wait() -> None:
    """Until all processes are here."""
    if world() > 1:
        dist.barrier(group=_hosts[0])


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
    dist.all_gather_object(parts, items, group=_hosts[0])
    return [item for part in parts for item in part]


def from_main(value: object) -> object:
    """What the main process has, in all of them."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, group=_hosts[0])
    return box[0]


def mean(x: Tensor) -> Tensor:
    """Mean over processes of a scalar."""
    if world() == 1:
        return x
    x = x.detach().clone()
    dist.all_reduce(x)
    return x / world()


def same(x: Tensor) -> bool:
    """Whether all processes hold the same tensor, bit for bit."""
    return len(set(gather_lists([hashlib.sha256(x.cpu().numpy().tobytes()).hexdigest()]))) == 1
