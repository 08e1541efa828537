"""Train a CLIP on the dataset's shards with Ray Train.

    python jobs/train.py mini --root out/mini                                              # two workers, minutes
    ray job submit --working-dir . -- python jobs/train.py vit_b_32 --root s3://bucket/wit --num-workers 256
    torchrun --nproc-per-node 8 jobs/train.py vit_b_32 --root out/wit                      # one machine, without Ray

Reads root/6_shards; writes root/model, root/train/events.jsonl and root/train/checkpoints. A worker that dies is replaced;
a job that dies continues from its last checkpoint when the same command is run again. Another dataset or other settings
are another run; a run that is finished is not run again.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from jobs._cli import entry
from model import runs
from model.config import RECIPES, TrainConfig
from model.events import readable
from pipeline.errors import InputError

MAX_FAILURES = 3  # restarts of the workers; Ray's own default is none


@contextmanager
def told(kind: type[ValueError]) -> Iterator[None]:
    """What model/ refuses is the user's to mend; it knows no InputError."""
    try:
        yield
    except kind as error:
        raise InputError(str(error)) from error


def worker(config: TrainConfig) -> None:
    """What each rank does, in a process group that its launcher made."""
    import torch

    from model.train import train

    device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if config.use_gpu else "cpu")
    train(config, lambda event: print(readable(event), flush=True), device)


def by_ray(config: TrainConfig, run: str) -> None:
    """Let Ray Train place the workers, and replace them when one dies."""
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer

    TorchTrainer(
        worker,
        train_loop_config=config,
        torch_config=TorchConfig(backend="nccl" if config.use_gpu else "gloo"),
        scaling_config=train.ScalingConfig(
            num_workers=config.num_workers, use_gpu=config.use_gpu, resources_per_worker={"CPU": config.cpus_per_worker}
        ),
        run_config=train.RunConfig(
            name=f"{run}-{time.time_ns()}",  # a name that Ray knows would be taken for one of its own resumptions
            storage_path=runs.ray_folder(config),
            failure_config=train.FailureConfig(max_failures=MAX_FAILURES),
        ),
    ).fit()


def by_torchrun(config: TrainConfig) -> None:
    """This process is one rank of torchrun's."""
    import torch.distributed as dist

    dist.init_process_group("nccl" if config.use_gpu else "gloo")
    worker(config)
    dist.destroy_process_group()


def main(config: TrainConfig) -> None:
    """Train unless the run is finished."""
    with told(ValueError):
        run = runs.run_name(config)
    facts = runs.finished(config, run)
    if facts is not None:
        print(f"train            already done: {run}, {facts['step']:,} steps, {facts['samples_seen']:,} samples seen", flush=True)
    elif "TORCHELASTIC_RUN_ID" in os.environ:
        by_torchrun(config)
    else:
        by_ray(config, run)


if __name__ == "__main__":
    entry(main, RECIPES, __doc__)
