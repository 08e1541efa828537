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

from model import checkpoint, compute, data, files, objectives, optimizer, ranks, resize, runs
from model.config import ClipConfig, TrainConfig
from model.events import say
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
    bad: Counter[str] = field(default_factory=Counter)  # pairs that were replaced, by reason, on all ranks


def snapshot(run: str, state: State, tokenizer: Tokenizer, me: Ranks) -> Contents:
    """The files of a checkpoint; the tensors are the state's own.

    Called on every rank, because running statistics are averaged and counters are brought together.
    """
    ranks.average_buffers(state.model, me)
    bad = ranks.total([state.bad[reason] for reason in data.REASONS], me)
    state.bad = Counter(dict(zip(data.REASONS, bad, strict=True)) if me.rank == 0 else {})
    facts = {"run": run, "step": state.step, "bad": dict(state.bad)}
    return {
        "model.safetensors": state.model.state_dict(),
        "optimizer.safetensors": optimizer.state_tensors(state.optimizer, state.model),
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
    state = State(model, optimizer.make(model, config.optimizer, config.seed))
    if found is not None:
        facts = json.loads(found["state.json"])
        checkpoint.load_weights(model, checkpoint.unpack(found["model.safetensors"], "model.safetensors"), "checkpoint")
        moments = checkpoint.unpack(found["optimizer.safetensors"], "optimizer.safetensors")
        optimizer.load_state_tensors(state.optimizer, model, moments)
        state.step = facts["step"]
        state.bad = Counter(facts["bad"] if me.rank == 0 else {})
    return state


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
