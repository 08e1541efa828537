"""Zero-shot classification by a model that predicts texts: the class whose prompts are likeliest for the picture.

in      a caption or bag-of-words model, the prompts of each class
out     a score for each picture and class
law     score of a class: the logarithm of the mean over its prompts of exp(score of the prompt), that is of drawing one of
        its prompts at random and then that text
law     score of a prompt, by `likelihood`:
        sum        its log-likelihood: the words and the EOT of a caption model, the different words of a bag
        per_token  the same divided by the number of what was predicted: long names are not punished for their length
        lift       less its log-likelihood for a plain grey picture: frequent words are not preferred for being frequent
cost    captions: pictures * prompts sequences through the language model; bags: one product of matrices
silent  section 2.3 of CLIP does not tell how figure 2 scores its language model and its bag of words. `sum` is the literal
        reading; `per_token` and `lift` (the content-free input of Zhao et al. 2021, "Calibrate before use") show how much of
        the result is the rule's
letters B pictures, C classes, T prompts of a class, E embedding
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from model.evaluate.config import Likelihood
from model.objectives import Predictor

if TYPE_CHECKING:
    from model.evaluate.encoders import Encoder
    from model.evaluate.zero_shot import Scorer


@torch.inference_mode()
def grey_logs(model: Predictor, tokens: Tensor, resolution: int) -> Tensor:
    """The log-likelihood of each prompt for a picture of the mean colour.  [C * T, L] -> [C * T]"""
    grey = torch.zeros(1, 3, resolution, resolution, device=tokens.device)
    return model.log_likelihood(model.encode_image(grey), tokens)[0][0]


def prompt_scores(logs: Tensor, counts: Tensor, grey: Tensor, rule: Likelihood) -> Tensor:
    """The scores of prompts by a rule.  Log-likelihoods [B, C * T], lengths [C * T], grey_logs [C * T] -> [B, C * T]"""
    if rule == "lift":
        return logs - grey
    return logs / counts.clamp(min=1) if rule == "per_token" else logs


def class_scores(scores: Tensor, num_classes: int) -> Tensor:
    """The logarithm of the mean over the prompts of each class.  [B, C * T] -> [B, C]"""
    scores_BCT = scores.unflatten(1, (num_classes, -1))
    return scores_BCT.logsumexp(-1) - math.log(scores_BCT.shape[-1])


def scorer(encoder: "Encoder", prompts: list[str], num_classes: int, rule: Likelihood) -> "Scorer":
    """What scores features of pictures [B, E] by the likelihoods of the prompts, those of one class after another."""
    model = encoder.model
    assert isinstance(model, Predictor)
    tokens = encoder.tokenizer(prompts).to(encoder.device)
    grey = grey_logs(model, tokens, encoder.resolution)

    @torch.inference_mode()
    def score(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logs, counts = model.log_likelihood(torch.tensor(features, device=encoder.device), tokens)
        scores_BC = class_scores(prompt_scores(logs, counts, grey, rule), num_classes)
        return scores_BC.cpu().numpy(), scores_BC.softmax(dim=1).cpu().numpy()

    return score
