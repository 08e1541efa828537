"""What the ranks of a run say to each other. In one process every function is the identity.

law     all ranks call the same functions in the same order
"""

import os
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import TCPStore  # what torch.distributed.TCPStore is, where type checkers find it


class Ranks(NamedTuple):
    """Which rank this is, of how many, and on what it computes."""

    rank: int
    world_size: int
    device: torch.device


def here(device: torch.device) -> Ranks:
    """This process's rank in the process group that its launcher made, or the only one."""
    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size(), device)
    return Ranks(0, 1, device)


def usable(world_size: int, num_lanes: int) -> int:
    """The most ranks up to `world_size` that share the lanes evenly."""
    return next(size for size in range(world_size, 0, -1) if num_lanes % size == 0)


def keep_first(size: int, ranks: Ranks) -> bool:
    """Make the process group anew, of the first `size` ranks only. -> whether this rank is one of them

    Needs MASTER_ADDR, the host of rank 0, which every launcher sets.
    """
    host, backend = os.environ["MASTER_ADDR"], dist.get_backend()
    store = TCPStore(host, 0, size, is_master=True, wait_for_workers=False) if ranks.rank == 0 else None
    port = int(broadcast_bytes(str(store.port if store else 0).encode(), ranks))
    dist.destroy_process_group()
    if ranks.rank >= size:
        return False
    store = store or TCPStore(host, port, size, is_master=False)
    dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=size)
    return True


def broadcast_bytes(data: bytes, ranks: Ranks) -> bytes:
    """Rank 0's bytes, on every rank."""
    if ranks.world_size == 1:
        return data
    size = torch.tensor([len(data)], device=ranks.device)
    dist.broadcast(size, 0)
    buffer = torch.zeros(int(size), dtype=torch.uint8, device=ranks.device)
    if ranks.rank == 0 and data:
        buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    dist.broadcast(buffer, 0)
    return buffer.cpu().numpy().tobytes()


def mean(values: Tensor, ranks: Ranks) -> Tensor:
    """The mean over the ranks, in place."""
    if ranks.world_size > 1:
        dist.all_reduce(values)
        values /= ranks.world_size
    return values


def total(counts: list[int], ranks: Ranks) -> list[int]:
    """The sum of each count over the ranks."""
    values = torch.tensor(counts, dtype=torch.int64, device=ranks.device)
    if ranks.world_size > 1:
        dist.all_reduce(values)
    return values.tolist()


def gather_numbers(numbers: list[float], ranks: Ranks) -> list[list[float]]:
    """Each rank's numbers, by rank, on every rank."""
    table = torch.zeros(ranks.world_size, len(numbers), dtype=torch.float64, device=ranks.device)
    table[ranks.rank] = torch.tensor(numbers, dtype=torch.float64)
    if ranks.world_size > 1:
        dist.all_reduce(table)
    return table.tolist()


def average_buffers(model: nn.Module, ranks: Ranks) -> None:
    """Make each rank's running statistics of BatchNorm the mean of all."""
    for buffer in model.buffers():
        if buffer.is_floating_point():
            mean(buffer, ranks)
