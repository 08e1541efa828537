"""CLIP: an image tower, a text tower, one space.

law     parameter names, shapes and initial values are those of OpenAI's release
shapes  B pairs, R resolution in px, L tokens, D width of the text tower, E embedding
source  CLIP sections 2.3 to 2.5, figure 3
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ClipConfig, VitConfig
from model.transformer import Block, LayerNorm, Transformer
from model.vision import ModifiedResNet, VisionTransformer

INITIAL_TEMPERATURE = 0.07


class CLIP(nn.Module):
    """The two towers. `logit_scale` is the logarithm of the factor of the cosines."""

    def __init__(self, config: ClipConfig):
        super().__init__()
        text = config.text
        if isinstance(config.vision, VitConfig):
            self.visual = VisionTransformer(config.vision, config.embed_dim, config.quick_gelu)
        else:
            self.visual = ModifiedResNet(config.vision, config.embed_dim)
        self.transformer = Transformer(text.width, text.layers, text.heads, causal=True, quick_gelu=config.quick_gelu)
        self.token_embedding = nn.Embedding(text.vocab_size, text.width)
        self.positional_embedding = nn.Parameter(torch.empty(text.context_length, text.width))
        self.ln_final = LayerNorm(text.width)
        self.text_projection = nn.Parameter(torch.empty(text.width, config.embed_dim))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / INITIAL_TEMPERATURE)))
        self._initialise()

    def _initialise(self) -> None:
        """Normal draws with these deviations (W width, N layers of the text tower); the image tower sees to itself.

        token embedding 0.02; positions 0.01; attention in W^-0.5; attention out and MLP out (2 N W)^-0.5;
        MLP in (2 W)^-0.5; projection W^-0.5. Biases of the MLP keep PyTorch's uniform draw.
        """
        width, layers = self.transformer.width, self.transformer.layers
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=width**-0.5)
        for block in self.transformer.resblocks:
            assert isinstance(block, Block)
            nn.init.normal_(block.attn.in_proj_weight, std=width**-0.5)
            nn.init.normal_(block.attn.out_proj.weight, std=(2 * layers * width) ** -0.5)
            nn.init.normal_(block.mlp.c_fc.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.c_proj.weight, std=(2 * layers * width) ** -0.5)

    def encode_image(self, images: Tensor) -> Tensor:
        """Features of pictures, not normalised.  [B, 3, R, R] float, normalised by mean and deviation -> [B, E]"""
        return self.visual(images)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Features of texts, not normalised.  [B, L] integers, L at most the context length -> [B, E]

        The feature stands at EOT, which is the largest id of its row; what comes after it has no effect.
        """
        x_BLD = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        x_BLD = self.transformer(x_BLD)
        end_BD = x_BLD[torch.arange(x_BLD.shape[0], device=x_BLD.device), tokens.argmax(-1)]
        return self.ln_final(end_BD) @ self.text_projection

    def encode_text_by_length(self, tokens: Tensor, groups: int) -> Tensor:
        """The same features, worked out for `groups` groups of texts of like length, each cut at its longest.

        [B, L] -> [B, E]. Saves a CPU the padding; a GPU would rather have one large batch.
        """
        ends_B = tokens.argmax(-1)
        order_B = ends_B.argsort()
        features = [self.encode_text(tokens[rows, : int(ends_B[rows].max()) + 1]) for rows in order_B.chunk(groups)]
        return torch.cat(features)[order_B.argsort()]

    def forward(self, images: Tensor, tokens: Tensor, text_groups: int = 1) -> tuple[Tensor, Tensor, Tensor]:
        """Unit features of both and the factor of the cosines.  [B, 3, R, R], [B, L] -> [B, E], [B, E], []"""
        image_features = F.normalize(self.encode_image(images), dim=-1)
        text = self.encode_text(tokens) if text_groups == 1 else self.encode_text_by_length(tokens, text_groups)
        text_features = F.normalize(text, dim=-1)
        return image_features, text_features, self.logit_scale.exp()
