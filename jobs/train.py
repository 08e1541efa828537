"""Train a CLIP on the dataset's shards with Ray Train.

    python jobs/train.py mini --root out/mini                                              # two workers, minutes
    ray job submit --working-dir . -- python jobs/train.py vit_b_32 --root s3://bucket/wit --num-workers 256 --data.num-lanes 256
    python jobs/train.py mini --root out/mini --model.objective caption                    # or bag_of_words, sigmoid, ...
    torchrun --nproc-per-node 8 jobs/train.py vit_b_32 --root out/wit                      # one machine, without Ray

Reads root/6_shards; writes root/model, root/train/events.jsonl and root/train/checkpoints. A worker that dies is replaced;
a job that dies continues from its last checkpoint when the same command is run again. With --min-workers the run goes on
with fewer ranks while machines are missing, and takes new ones in from its newest checkpoint: the batches stay the same. A
machine that is told to go (a spot instance, a drained node; SIGTERM under torchrun) is answered with a checkpoint. Another
dataset or other settings are another run; a run that is finished is not run again.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

from jobs._cli import entry, told
from model import runs
from model.config import TrainConfig
from model.events import Event, bar, readable
from model.recipes import RECIPES

NOTICE_EVERY_STEPS = 10  # asking Ray Train is a round of messages by way of an actor
MAX_FAILURES = 3  # restarts of the workers; Ray's own default is none


class Preempted:
    """Ray Train's notice that a node of the run is going, told once for each node. Every rank must ask, after every step."""

    def __init__(self, num_lanes: int):
        self._num_lanes, self._asked = num_lanes, 0
        self._known: set[str] = set()

    def __call__(self) -> str | None:
        from ray import train

        from model import ranks
        from model.train import SAVE

        self._asked += 1
        if self._asked % NOTICE_EVERY_STEPS:
            return None
        world_size = train.get_context().get_world_size()
        if ranks.usable(world_size, self._num_lanes) < world_size:
            return None  # ranks that have nothing to do would have to ask too
        info = train.get_preemption_info()
        nodes = set(info.preempted_node_ids if info else ())
        is_new, self._known = bool(nodes - self._known), nodes
        return SAVE if is_new else None


class Terminated:
    """SIGTERM to any rank of torchrun's, whose launcher kills all of them soon after. Every rank must ask."""

    def __init__(self) -> None:
        self._signals = 0
        signal.signal(signal.SIGTERM, self._count)

    def _count(self, *_: object) -> None:
        self._signals += 1

    def __call__(self) -> str | None:
        import torch

        from model import ranks
        from model.train import END

        device = torch.device("cuda" if torch.distributed.get_backend() == "nccl" else "cpu")
        return END if ranks.total([self._signals], ranks.here(device)) != [0] else None


def worker(config: TrainConfig, notice: Callable[[], str | None]) -> None:
    """What each rank does, in a process group that its launcher made."""
    import torch

    from model.train import train

    def report(event: Event) -> None:
        sys.stdout.write(
            bar(event) if sys.stdout.isatty() else readable(event) + "\n"
        )  # not print, which Ray Train makes say everything twice
        sys.stdout.flush()

    train(config, report, torch.device("cuda" if config.use_gpu else "cpu"), notice)


def by_ray(config: TrainConfig, run: str) -> None:
    """Let Ray Train place the workers, and replace them when one dies."""
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer

    least = config.min_workers or config.num_workers
    TorchTrainer(
        lambda: worker(config, Preempted(config.data.num_lanes)),
        torch_config=TorchConfig(backend="nccl" if config.use_gpu else "gloo"),
        scaling_config=train.ScalingConfig(
            num_workers=config.num_workers if least == config.num_workers else (least, config.num_workers),
            use_gpu=config.use_gpu,
            resources_per_worker={"CPU": config.cpus_per_worker},
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
    worker(config, Terminated())
    if dist.is_initialized():  # a rank that had nothing to do has left already
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
