"""Which arithmetic a computation runs in: bfloat16 where the processor has it, else float32.

Where it has not, torch emulates bfloat16, 4 to 90 times slower than float32. Models and encoders carry the name of
their arithmetic (``precision``) and compute in it wherever they are called from.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

import torch

FLAGS = ('amx_bf16', 'avx512_bf16')
"""Processor flags that stand for products in bfloat16."""
LIMIT = 'ONEDNN_MAX_CPU_ISA'
"""Environment variable that keeps oneDNN, torch's library of products, from using what the processor has."""
UNLIMITED = ('', 'ALL', 'DEFAULT', 'AVX512_CORE_BF16', 'AVX512_CORE_FP16', 'AVX512_CORE_AMX', 'AVX10')
"""Beginnings of the variable's values that leave bfloat16 to it."""


class Precision(NamedTuple):
    """A choice and why it was made."""

    name: str  # bf16 or fp32
    reason: str


def choose(setting: str, device: str | torch.device = 'cpu') -> Precision:
    """What a setting means on a device. Nothing is timed: flags decide, so that a machine always chooses alike.

    Args:
        setting: 'bf16' or 'fp32', which are obeyed, or 'auto': bfloat16 on GPUs from Ampere on and on CPUs with AMX or
            AVX512-BF16, float32 elsewhere.
        device: where it is computed.

    Raises:
        ValueError: for another setting.
    """
    if setting in ('bf16', 'fp32'):
        return Precision(setting, 'as set')
    if setting != 'auto':
        raise ValueError(f"precision must be 'auto', 'bf16' or 'fp32', got {setting!r}")
    kind = _known(device)
    if kind == 'cuda':
        major, minor = torch.cuda.get_device_capability(device)
        fast = major >= 8
        return Precision('bf16' if fast else 'fp32', f'compute capability {major}.{minor}')
    flags = [flag for flag in FLAGS if _capabilities().get(flag)]
    limit = os.environ.get(LIMIT, '').upper()
    if flags and not any(limit == value or (value and limit.startswith(value)) for value in UNLIMITED):
        return Precision('fp32', f'{LIMIT}={limit}')
    if flags:
        return Precision('bf16', f'the processor has {" and ".join(flags)}')
    return Precision('fp32', 'the processor would emulate bfloat16')


def autocast(name: str, device: str | torch.device) -> torch.autocast:
    """The context to compute in: bfloat16 autocast for 'bf16', none for 'fp32'; ValueError on other devices."""
    return torch.autocast(_known(device), torch.bfloat16, enabled=name == 'bf16')


def state(device: torch.device) -> contextlib.AbstractContextManager:
    """The context of a recurrent cell: on a GPU autocast would keep its state in bfloat16, on a CPU it does not."""
    return torch.autocast('cuda', enabled=False) if device.type == 'cuda' else contextlib.nullcontext()


def _known(device: str | torch.device) -> str:
    kind = torch.device(device).type
    if kind not in ('cpu', 'cuda'):
        raise ValueError(f'device {kind} is not supported: models are trained and run on cpu and on cuda')
    return kind


def settle(threads: int = 0) -> None:
    """How torch computes from now on: on so many CPU threads (0: as many as it likes), and without TF32.

    Products that may be rounded are in bfloat16, and the others, such as sums of slots, are meant as they stand. All
    versions of torch have this interface and can read it back; mixed with the one of 2.9, reading raises.
    """
    if threads:
        torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def uses_tf32() -> bool:
    """Whether float32 products on a GPU are rounded to TF32 after all, since others set it so."""
    matmul = torch.backends.cuda.matmul
    return matmul.fp32_precision == 'tf32' if hasattr(matmul, 'fp32_precision') else matmul.allow_tf32


def ceiling(computed_in: str, device: str | torch.device = 'cpu', largest: int = 2048, repeats: int = 16) -> float:
    """Best speed of a square matrix product in this precision, TFLOP/s: what no model can exceed.

    Larger products reach more: sides from 256 are doubled up to ``largest``, as long as one takes less than 50 ms.
    """
    kind = torch.bfloat16 if computed_in == 'bf16' else torch.float32
    size, top = 256, 0.0
    while size <= largest:
        a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
        best = float('inf')
        for _ in range(repeats):
            began = now(device)
            _ = a @ b
            best = min(best, now(device) - began)
            if best > 0.05:
                break
        top = max(top, 2 * size**3 / best / 1e12)
        if best > 0.05 / 8:
            break
        size *= 2
    return top


def now(device: str | torch.device) -> float:
    """The time, s, when all that was asked of the device is done."""
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter()


def processor() -> str:
    """Kind of the CPU, as far as it decides numbers and speed: name, architecture and widest arithmetic."""
    found = _capabilities()
    widest = next((flag for flag in (*FLAGS, 'avx512_f', 'avx2') if found.get(flag)), 'no AVX2')
    name, machine = str(found.get('cpu_name', 'CPU')).strip(), str(found.get('architecture', '?'))
    return f'{name}, {machine}, {widest}'


def peak_memory() -> float:
    """Largest memory of this process so far, GB: of the GPU's allocator if there is one, else resident."""
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else peak_rss()


def peak_rss() -> float:
    """Largest resident memory of this process so far, GB; NaN where the system does not tell."""
    status = Path('/proc/self/status')
    if status.is_file():  # what getrusage says on Linux begins with the parent process's peak
        (line,) = (line for line in status.read_text().splitlines() if line.startswith('VmHWM'))
        return int(line.split()[1]) * 1024 / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return float('nan')
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # bytes on macOS


def _capabilities() -> dict[str, object]:
    """Flags of the processor as torch knows them."""
    if hasattr(torch.cpu, 'get_capabilities'):
        return torch.cpu.get_capabilities()
    names = {'amx_bf16': '_is_amx_tile_supported', 'avx512_bf16': '_is_avx512_bf16_supported'}
    names |= {'avx512_f': '_is_avx512_supported', 'avx2': '_is_avx2_supported'}
    return {flag: getattr(torch.cpu, name, bool)() for flag, name in names.items()}
