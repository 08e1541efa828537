"""The state of a training run: how it starts, what its checkpoints hold, how it comes back from one.

in      settings, and the files of a checkpoint where there is one
out     State: model, optimiser, steps done, counters; the tokenizer that goes with it
law     what resuming needs is in State, or is a function of it and of the settings; a state that came back is the one that was
        saved, bit for bit
"""

import json
from collections import Counter
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from model import checkpoint, compute, data, files, objectives, optimizer, ranks, resize, runs, sharding
from model.config import ClipConfig, TrainConfig
from model.events import say
from model.guards import Guards
from model.ranks import Ranks
from model.saving import Contents
from model.shards import Shard, iterate_texts
from model.tokenizer import Tokenizer


@dataclass
class State:
    """All that a checkpoint holds beside the tokenizer: what resuming needs is here or is a function of `step`."""

    model: objectives.Model
    optimizer: torch.optim.Optimizer
    step: int = 0  # steps that are done
    batch: int = 0  # the next batch in the order of the data: `step`, and those that were passed over
    guards: Guards = field(default_factory=Guards)
    bad: Counter[str] = field(default_factory=Counter)  # pairs that were replaced, by reason, on all ranks


class Statistics:
    """BatchNorm's running statistics as they were before a step: a batch that is passed over leaves no trace in them."""

    def __init__(self, model: nn.Module):
        layers = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        self._buffers = [buffer for layer in layers for buffer in layer.buffers()]
        self._kept = [buffer.clone() for buffer in self._buffers]

    def keep(self) -> None:
        """Remember them as they are now."""
        self._copy(self._kept, self._buffers)

    def put_back(self) -> None:
        """Make them what they were."""
        self._copy(self._buffers, self._kept)

    @staticmethod
    def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
        with torch.no_grad():
            for target, source in zip(targets, sources, strict=True):
                target.copy_(source)


def snapshot(run: str, state: State, tokenizer: Tokenizer, me: Ranks) -> Contents:
    """The files of a checkpoint; the tensors are the state's own.

    Called on every rank, because running statistics are averaged and counters are brought together.
    """
    ranks.average_buffers(state.model, me)
    bad = ranks.total([state.bad[reason] for reason in data.REASONS], me)
    state.bad = Counter(dict(zip(data.REASONS, bad, strict=True)) if me.rank == 0 else {})
    facts = {"run": run, "step": state.step, "batch": state.batch, "bad": dict(state.bad), "guards": state.guards.to_json()}
    return {
        "model.safetensors": sharding.whole(state.model.state_dict()),
        "optimizer.safetensors": sharding.whole(optimizer.state_tensors(state.optimizer, state.model)),
        "tokenizer.json": tokenizer.to_bytes(),
        "state.json": json.dumps(facts).encode(),
    }


def resume(config: TrainConfig, run: str, me: Ranks) -> dict[str, bytes] | None:
    """The files of the newest good checkpoint, the same one on every rank; None where the run starts."""
    folder = runs.checkpoints_folder(config, run)
    found = None
    if me.rank == 0:
        found = checkpoint.load_newest(folder, say)
    step = int(ranks.broadcast_bytes(str(found[1] if found else -1).encode(), me))
    if step < 0:
        return None
    return found[0] if found else checkpoint.load_folder(checkpoint.step_folder(folder, step))[0]


def start(config: TrainConfig, model_config: ClipConfig, found: dict[str, bytes] | None, me: Ranks) -> State:
    """The state to train from: drawn from the seed, or as the checkpoint left it."""
    torch.manual_seed(config.seed)
    model = objectives.build(model_config)
    compute.use(model, config.compute)
    model.to(me.device).train()
    if found is None and config.start_from:
        resize.start_from(model, model_config, config.start_from)
    optimizer.store_weights(model, config.optimizer)
    if config.shard_weights:
        sharding.shard(model, me)
    state = State(model, optimizer.make(model, config.optimizer, config.seed))
    if found is not None:
        restore(state, found, me)
    return state


def restore(state: State, found: dict[str, bytes], me: Ranks) -> None:
    """Make the state that of a checkpoint, in its own memory."""
    facts = json.loads(found["state.json"])
    own = state.model.state_dict()
    weights = checkpoint.unpack(found["model.safetensors"], "model.safetensors")
    checkpoint.load_weights(state.model, sharding.cut(weights, own), "checkpoint")
    moments = checkpoint.unpack(found["optimizer.safetensors"], "optimizer.safetensors")
    like = {name: own[name.rpartition("/")[0]] for name in moments}
    optimizer.load_state_tensors(state.optimizer, state.model, sharding.cut(moments, like))
    state.step, state.batch = facts["step"], facts["batch"]
    state.guards = Guards.from_json(facts["guards"])
    state.bad = Counter(facts["bad"] if me.rank == 0 else {})


def tokenizer_of(config: TrainConfig, shards: tuple[Shard, ...], found: dict[str, bytes] | None, me: Ranks) -> Tokenizer:
    """The checkpoint's tokenizer, the one that the settings name, or one learnt from the dataset's texts."""
    data_bytes = found["tokenizer.json"] if found else b""
    if found is None and config.start_from:
        data_bytes = checkpoint.load_any(config.start_from)[1].to_bytes()
    elif found is None and me.rank == 0:
        text = config.model.text
        if config.data.vocabulary:
            data_bytes = Tokenizer.from_vocabulary(files.read(config.data.vocabulary), text.context_length).to_bytes()
        else:
            texts = iterate_texts(runs.shards_folder(config), shards, config.data.tokenizer_texts)
            data_bytes = Tokenizer.train(texts, text.vocab_size, text.context_length).to_bytes()
    return Tokenizer.from_bytes(ranks.broadcast_bytes(data_bytes, me))
