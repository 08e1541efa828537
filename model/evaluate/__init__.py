"""What a model is worth: evaluation sets, embeddings that are made once and kept, tasks that score them.

config.py     settings and recipes
datasets.py   what a set is; decoding and preprocessing
layouts.py    which files are which set: tars.py (CLIP_benchmark's), arrays.py (digits)
encoders.py   a checkpoint of any origin as something that encodes
embed.py embeddings.py workspace.py   a unit of a set to vectors; where they are kept; made once, asked for by tasks
tasks.py kinds.py      what a task is; all of them
metrics.py    the paper's metrics, NumPy only
zero_shot.py  prompts and pictures -> scores
probe_task.py probe.py logistic.py few_shot.py effective.py   linear probes, few-shot ones, figure 7
likelihood.py the same by a model that predicts texts
results.py    what is written and printed, and whether it is there already
"""
