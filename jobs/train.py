"""Train a CLIP on the dataset's shards with Ray Train.

    python jobs/train.py mini --root out/mini                                              # two workers, minutes
    ray job submit --working-dir . -- python jobs/train.py vit_b_32 --root s3://bucket/wit --num-workers 256 --data.num-lanes 256
    python jobs/train.py mini --root out/mini --model.objective caption                    # or bag_of_words, sigmoid, ...
    torchrun --nproc-per-node 8 jobs/train.py vit_b_32 --root out/wit                      # one machine, without Ray

Reads root/6_shards; writes root/model, root/train/events.jsonl and root/train/checkpoints. A worker that dies is replaced;
a job that dies continues from its last checkpoint when the same command is run again. Another dataset or other settings
are another run; a run that is finished is not run again.
"""

import os
import sys
import time

from jobs._cli import entry, told
from model import runs
from model.config import TrainConfig
from model.events import Event, bar, readable
from model.recipes import RECIPES

MAX_FAILURES = 3  # restarts of the workers; Ray's own default is none


def worker(config: TrainConfig) -> None:
    """What each rank does, in a process group that its launcher made."""
    import torch

    from model.train import train

    def report(event: Event) -> None:
        sys.stdout.write(
            bar(event) if sys.stdout.isatty() else readable(event) + "\n"
        )  # not print, which Ray Train makes say everything twice
        sys.stdout.flush()

    train(config, report, torch.device("cuda" if config.use_gpu else "cpu"))


def by_ray(config: TrainConfig, run: str) -> None:
    """Let Ray Train place the workers, and replace them when one dies."""
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer

    TorchTrainer(
        lambda: worker(config),
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
    import torch
    import torch.distributed as dist

    if config.use_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if config.use_gpu else "gloo")
    worker(config)
    dist.destroy_process_group()


def main(config: TrainConfig) -> None:
    """Train unless the run is finished."""
    with told(ValueError):
        run = runs.run_name(config)
    facts = runs.finished(config, run)
    if facts is not None:
        print(
            f"train            already done: {run}, {facts['step']:,} steps, {facts['samples_seen']:,} samples seen", flush=True
        )
    elif "TORCHELASTIC_RUN_ID" in os.environ:
        by_torchrun(config)
    else:
        by_ray(config, run)


if __name__ == "__main__":
    entry(main, RECIPES, __doc__)
