"""What a model is trained for: five objectives, each a module and a loss.

contrastive               which text of the batch belongs to an image, and the reverse: softmax. CLIP section 2.3, figure 3
sigmoid                   whether an image and a text belong together, each pair for itself: Zhai et al. 2023
contrastive_bag_of_words  contrastive, with a text tower that knows no order: the paper's figure 2, "bag of words contrastive"
bag_of_words              the words of the text, predicted from the image: figure 2, "bag of words prediction"
caption                   the text, predicted token by token from the image: figure 2, "transformer language model"

law     `encode` gives tensors with a row for each pair, each row a function of its own pair (but for BatchNorm); `loss` is a
        function of these rows, and its mean over the ranks is the loss of the global batch
law     two-tower models are CLIPs: encode_image, encode_text and logit_scale mean the same in each; predictive models have
        encode_image and log_likelihood
silent  figure 2's arms in the paper have one image tower, batch and data; so have these
"""

import math

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.bag_of_words import BagOfWords, BagOfWordsClip
from model.caption import Captioner
from model.clip import CLIP
from model.config import MAX_LOGIT_SCALE, ClipConfig, Objective
from model.loss import contrastive_loss, sigmoid_loss
from model.tiled import tiled_loss

Predictor = BagOfWords | Captioner
Model = CLIP | Predictor
SIGMOID_SCALE, SIGMOID_BIAS = 10.0, -10.0  # at the start; Zhai et al. 2023, section 3.2


class SigmoidClip(CLIP):
    """CLIP with a bias beside the factor of the cosines, which starts so that every pair is a likely no."""

    def __init__(self, config: ClipConfig):
        super().__init__(config)
        nn.init.constant_(self.logit_scale, math.log(SIGMOID_SCALE))
        self.logit_bias = nn.Parameter(torch.tensor(SIGMOID_BIAS))


def bag_of_words_loss(log_probability: Tensor) -> Tensor:
    """Mean cross entropy of the words' equal shares.  [B], mean log-probability of each text's words -> []"""
    return -log_probability.mean()


def caption_loss(log_likelihood: Tensor, num_tokens: Tensor) -> Tensor:
    """Mean cross entropy of a predicted token of the global batch; a text has as many as EOT's place.  [B], [B] -> []

    Ranks hold different numbers of tokens: each divides its sum by the mean number of a rank.
    """
    tokens_a_rank = num_tokens.sum().to(log_likelihood.dtype)
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(tokens_a_rank)
        tokens_a_rank /= dist.get_world_size()
    return -log_likelihood.sum() / tokens_a_rank


MODELS: dict[Objective, type[Model]] = {
    "contrastive": CLIP,
    "sigmoid": SigmoidClip,
    "contrastive_bag_of_words": BagOfWordsClip,
    "bag_of_words": BagOfWords,
    "caption": Captioner,
}
SOFTMAX = {"softmax": contrastive_loss, "tiled": tiled_loss}  # ways to work out one loss


def build(config: ClipConfig) -> Model:
    """The module of the objective, with initial values drawn from torch's generator."""
    return MODELS[config.objective](config)


def encode(model: Model, images: Tensor, tokens: Tensor, text_groups: int = 1) -> tuple[Tensor, ...]:
    """What the loss needs of each pair: unit features of both towers, or the log-likelihood of the text.

    [B, 3, R, R], [B, L] -> [B, E], [B, E], or [B]
    """
    return model(images, tokens, text_groups)[:2]


def loss(model: Model, encoded: tuple[Tensor, ...], tokens: Tensor, softmax: str = "softmax") -> Tensor:
    """The loss of a rank's pairs, from what `encode` gave for them; `softmax` is how a contrastive one is worked out.  -> []"""
    if isinstance(model, SigmoidClip):
        return sigmoid_loss(encoded[0], encoded[1], model.logit_scale.exp(), model.logit_bias)
    if isinstance(model, CLIP):
        return SOFTMAX[softmax](encoded[0], encoded[1], model.logit_scale.exp())
    if isinstance(model, Captioner):
        return caption_loss(encoded[0], tokens.argmax(-1))
    return bag_of_words_loss(encoded[0])


def after_step(model: Model) -> None:
    """Keep the factor of the cosines at most 100 (CLIP section 2.5); a sigmoid's is free, as in its paper."""
    if isinstance(model, CLIP) and not isinstance(model, SigmoidClip):
        with torch.no_grad():
            model.logit_scale.clamp_(max=MAX_LOGIT_SCALE)


def scalars(model: Model) -> dict[str, float]:
    """What a model has learnt about its logits, for the log: the factor of the cosines, a sigmoid's bias; else nothing."""
    values = {"logit_scale": float(model.logit_scale.detach().exp())} if isinstance(model, CLIP) else {}
    if isinstance(model, SigmoidClip):
        values["logit_bias"] = float(model.logit_bias.detach())
    return values
