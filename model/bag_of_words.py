"""Bags of words in the place of the text tower: the two simpler arms of the paper's figure 2.

BagOfWords      predicts the words of a picture's text, all at once
BagOfWordsClip  the contrastive objective with a text tower that knows no order

law     a text's words are its different tokens without SOT, EOT and padding: their order and number change nothing
law     both have CLIP's image tower, with the same values from the same seed
shapes  B pairs, R resolution in px, L tokens, E embedding, V vocabulary, T texts
source  CLIP section 2.3 and figure 2: predicting "a bag-of-words encoding of the same text" learns 3 times as fast as a
        language model, the same encoding with a contrastive objective 4 times as fast again
silent  the paper does not tell the words, the loss and the score. Words: the tokenizer's, so that any class name has some.
        Loss: softmax over the vocabulary against an equal share for each word of the text, which Joulin et al. 2016
        (whose work the paper continues) found better than a sigmoid for each word. The likelihood of a text: the sum of the
        logarithms of its words' probabilities, as if they were drawn one by one.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.clip import CLIP
from model.config import ClipConfig

TEXTS_AT_ONCE = 1024  # whose bags are in memory together, while pictures are scored


def word_mask(tokens: Tensor) -> Tensor:
    """Where the words of texts stand: after SOT and before EOT, which is the largest id of its row.  [B, L] -> [B, L] bool"""
    places_L = torch.arange(tokens.shape[1], device=tokens.device)
    return (places_L > 0) & (places_L < tokens.argmax(-1, keepdim=True))


def bags(tokens: Tensor, vocab_size: int) -> Tensor:
    """1 for each word that is in a text, however often.  [B, L] -> [B, V] float32"""
    bag_BV = torch.zeros(len(tokens), vocab_size, device=tokens.device)
    return bag_BV.scatter_reduce_(1, tokens, word_mask(tokens).float(), "amax")


def without_text_layers(config: ClipConfig) -> ClipConfig:
    """The same image tower beside a text tower without blocks."""
    return replace(config, text=replace(config.text, layers=0))


class BagOfWords(nn.Module):
    """An image tower and a linear layer to the vocabulary."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        self.visual = CLIP(without_text_layers(config)).visual
        self.words = nn.Linear(config.embed_dim, config.text.vocab_size)
        nn.init.normal_(self.words.weight, std=config.embed_dim**-0.5)
        nn.init.zeros_(self.words.bias)

    def encode_image(self, images: Tensor) -> Tensor:
        """Features of pictures.  [B, 3, R, R] float, normalised by mean and deviation -> [B, E]"""
        return self.visual(images)

    def word_log_probabilities(self, image_features: Tensor) -> Tensor:
        """Of drawing each word for a picture, at least float32.  [B, E] -> [B, V]"""
        logits_BV = self.words(image_features)
        return logits_BV.to(torch.promote_types(logits_BV.dtype, torch.float32)).log_softmax(-1)

    def log_likelihood(self, image_features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Of each text for each picture, and the number of its words.  [B, E], [T, L] -> [B, T], [T]"""
        logs_BV = self.word_log_probabilities(image_features)
        found = []
        for some in tokens.split(TEXTS_AT_ONCE):
            bag_TV = bags(some, logs_BV.shape[1]).to(logs_BV.dtype)
            found.append((logs_BV @ bag_TV.T, bag_TV.sum(-1)))
        return torch.cat([logs for logs, _ in found], 1), torch.cat([counts for _, counts in found])

    def forward(self, images: Tensor, tokens: Tensor, text_groups: int = 1) -> tuple[Tensor]:
        """The mean log-probability of the words of each picture's own text; 0 for a text without any.

        [B, 3, R, R], [B, L] -> [B]; `text_groups` has nothing to save here.
        """
        logs_BV = self.word_log_probabilities(self.encode_image(images))
        bag_BV = bags(tokens, logs_BV.shape[1])
        return ((logs_BV * bag_BV).sum(-1) / bag_BV.sum(-1).clamp(min=1),)


class BagOfWordsClip(CLIP):
    """CLIP whose text feature is made of the mean of the embeddings of the text's different words."""

    def __init__(self, config: ClipConfig):
        super().__init__(without_text_layers(config))
        del self.positional_embedding  # a bag has no places

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Features of texts, not normalised.  [B, L] -> [B, E]; a text without words is the mean of nothing, zero."""
        ordered_BL, mask_BL = self._different(tokens)
        mask_BL1 = mask_BL.unsqueeze(-1)
        sum_BD = (self.token_embedding(ordered_BL) * mask_BL1).sum(1)
        return self.ln_final(sum_BD / mask_BL1.sum(1).clamp(min=1)) @ self.text_projection

    @staticmethod
    def _different(tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The words of each text in ascending order, and where each stands for the first time.  [B, L] -> 2 x [B, L]"""
        ordered_BL, _ = tokens.where(word_mask(tokens), -1).sort(-1)
        first_BL = F.pad(ordered_BL.diff(dim=-1) != 0, (1, 0), value=True)
        return ordered_BL.clamp(min=0), first_BL & (ordered_BL >= 0)
