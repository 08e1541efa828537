"""Runs a function in several processes that form a gloo group on loopback, and hands back what each returned."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _process(
    rank: int, world_size: int, port: int, folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ.update(GLOO_SOCKET_IFNAME="lo", MASTER_ADDR="127.0.0.1")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)
    torch.save(function(rank, *arguments), folder / f"{rank}.pt")
    if dist.is_initialized():  # a rank that had nothing to do has left
        dist.barrier()  # nobody takes the group away from under another's last step
        dist.destroy_process_group()
    os._exit(0)  # gloo's threads were seen, once, to abort a process that was done and on its way out


def run_ranks(world_size: int, folder: Path, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """`function(rank, *arguments)` on each rank; its results (tensors, numbers, containers of them), in the order of ranks."""
    folder.mkdir(parents=True, exist_ok=True)
    context, port = multiprocessing.get_context("spawn"), free_port()
    processes = [
        context.Process(target=_process, args=(rank, world_size, port, folder, function, arguments)) for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * world_size, "a rank failed; its traceback is on stderr"
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world_size)]
