"""A language model that predicts a picture's text: the slowest arm of the paper's figure 2.

law     a token is predicted from the picture and the tokens before it, never from itself or what comes after
law     the likelihood of a text covers its words and its EOT; padding has no effect
law     the image tower and the language model have the values that CLIP's two towers have from the same seed
shapes  B pairs, R resolution in px, L tokens, D width of the text tower, E embedding, V vocabulary, T texts, S places
source  CLIP section 2.3: like VirTex (Desai and Johnson 2020), an image CNN and a transformer of 63 million parameters,
        trained from scratch together to predict the caption
silent  the paper does not tell how the picture enters, nor the score. It enters as the first element of the sequence, in
        the place of SOT: 63 million is just the text tower of RN50 without its projection (63,165,952), which leaves room
        neither for cross-attention (12.6 million more) nor for an output matrix that is not the token embedding's (25
        million more). It is the pooled feature that the other objectives see too, so that all have one image tower.
        Loss: the mean over the predicted tokens of the global batch. Score: see evaluate/likelihood.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.clip import CLIP
from model.config import ClipConfig

TOKENS_AT_ONCE = 8192  # whose logits over the vocabulary are in memory together


class Captioner(nn.Module):
    """CLIP's image tower, and CLIP's text tower as a language model behind the picture."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        towers = CLIP(config)
        self.visual = towers.visual
        self.transformer = towers.transformer
        self.token_embedding = towers.token_embedding  # also the output matrix
        self.positional_embedding = towers.positional_embedding
        self.ln_final = towers.ln_final
        self.image_projection = nn.Linear(config.embed_dim, config.text.width)
        nn.init.normal_(self.image_projection.weight, std=config.embed_dim**-0.5)
        nn.init.zeros_(self.image_projection.bias)

    def encode_image(self, images: Tensor) -> Tensor:
        """Features of pictures.  [B, 3, R, R] float, normalised by mean and deviation -> [B, E]"""
        return self.visual(images)

    def states(self, image_features: Tensor, tokens: Tensor) -> Tensor:
        """What the model knows before each token but the first.  [B, E], [B, L] -> [B, L - 1, D]"""
        words_BSD = self.token_embedding(tokens[:, 1:-1])
        image_B1D = self.image_projection(image_features).unsqueeze(1).to(words_BSD.dtype)
        x_BSD = torch.cat([image_B1D, words_BSD], 1) + self.positional_embedding[: tokens.shape[1] - 1]
        return self.ln_final(self.transformer(x_BSD))

    def caption_log_likelihood(self, image_features: Tensor, tokens: Tensor) -> Tensor:
        """Of each picture's own text, at least float32.  [B, E], [B, L] -> [B]"""
        states_BSD = self.states(image_features, tokens)
        predicted_BS = torch.arange(states_BSD.shape[1], device=tokens.device) < tokens.argmax(-1, keepdim=True)
        states_ND, targets_N = states_BSD[predicted_BS], tokens[:, 1:][predicted_BS]
        logs_N = self._token_log_likelihood(states_ND, targets_N)
        rows_N = predicted_BS.nonzero()[:, 0]
        return logs_N.new_zeros(len(tokens)).index_add(0, rows_N, logs_N)

    def _token_log_likelihood(self, states: Tensor, targets: Tensor) -> Tensor:
        """[N, D], [N] -> [N]; the logits of some tokens at once, made again for the gradient; float32 from here on."""

        def some(states: Tensor, targets: Tensor) -> Tensor:
            logits_NV = F.linear(states, self.token_embedding.weight)
            precise_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
            return -F.cross_entropy(precise_NV, targets, reduction="none")

        chunks = list(zip(states.split(TOKENS_AT_ONCE), targets.split(TOKENS_AT_ONCE), strict=True))
        if len(chunks) == 1:
            return some(states, targets)
        parts = [checkpoint(some, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
        return torch.cat([part for part in parts if isinstance(part, Tensor)])

    def log_likelihood(self, image_features: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Of each text for each picture, and the number of its predicted tokens.  [B, E], [T, L] -> [B, T], [T]

        B * T sequences, some at once, each with others of its length, so that nothing is worked out for padding.
        """
        ends_T = tokens.argmax(-1)
        order_T = ends_T.argsort()
        logs = []
        for same_length in order_T.split(ends_T.bincount()[ends_T.unique()].tolist()):
            length = int(ends_T[same_length[0]]) + 1
            for rows in same_length.split(max(1, TOKENS_AT_ONCE // (len(image_features) * length))):
                texts, images = tokens[rows, :length], image_features.repeat_interleave(len(rows), 0)
                found = self.caption_log_likelihood(images, texts.repeat(len(image_features), 1))
                logs.append(found.view(len(image_features), len(rows)))
        return torch.cat(logs, 1)[:, order_T.argsort()], ends_T

    def forward(self, images: Tensor, tokens: Tensor, text_groups: int = 1) -> tuple[Tensor]:
        """The log-likelihood of each picture's own text.

        [B, 3, R, R], [B, L] -> [B]; texts are worked on in `text_groups` groups of like length, cut at their longest.
        """
        image_BE = self.encode_image(images)
        ends_B = tokens.argmax(-1)
        order_B = ends_B.argsort()
        logs = [
            self.caption_log_likelihood(image_BE[rows], tokens[rows, : int(ends_B[rows].max()) + 1])
            for rows in order_B.chunk(text_groups)
        ]
        return (torch.cat(logs)[order_B.argsort()],)
