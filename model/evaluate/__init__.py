"""What a finished model is worth: evaluation sets, zero-shot classification, metrics.

config.py     settings and recipes
datasets.py   evaluation sets in CLIP_benchmark's webdataset layout; preprocessing
metrics.py    top-k and accuracy, NumPy only
zero_shot.py  prompts and pictures -> scores (torch)
likelihood.py the same by a model that predicts texts
results.py    what is written and printed, and whether it is there already
"""
