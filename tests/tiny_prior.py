"""A complete prior folder with random weights that is built in a second: the layout without the size."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "green", "chair", "table", "tree"]

UNET: dict[str, Any] = {
    "sample_size": 4,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "attention_head_dim": [1, 2],
    "class_embed_type": "projection",
    "projection_class_embeddings_input_dim": 16,
}
SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "version": 3,
    "image_size": 16,
    "views": 2,
    "text_tokens": 6,
    "background": [0.2, 0.4, 0.6],
    "recipe": "mini",
    "licence_weights": "CC0-1.0",
    "licence_data": "none",
}


def write_tiny_prior(folder: Path) -> Path:
    """Fill ``folder`` with a prior of a few thousand parameters; returns it."""
    torch.manual_seed(0)
    for name in ("unet", "codec", "text_encoder", "tokenizer", "scheduler"):
        (folder / name).mkdir(parents=True)
    write_json(folder / "prior.json", SETTINGS)
    unet = UNet2DConditionModel(**UNET)
    for parameter in unet.parameters():  # zero-initialised layers would hide mistakes
        torch.nn.init.normal_(parameter, std=0.2)
    write_json(folder / "unet/config.json", UNET)
    save_file(unet.state_dict(), folder / "unet/diffusion_pytorch_model.safetensors")
    basis, _ = torch.linalg.qr(torch.randn(48, 4))
    save_file(
        {"basis": basis.contiguous(), "mean": torch.zeros(48), "scale": torch.ones(4)},
        folder / "codec/codec.safetensors",
    )
    write_json(folder / "codec/config.json", {"type": "patch_pca", "patch_size": 4, "channels": 4})
    bert = BertConfig(
        vocab_size=len(WORDS), hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    write_json(folder / "text_encoder/config.json", bert.to_dict())
    save_file(BertModel(bert, add_pooling_layer=False).state_dict(), folder / "text_encoder/model.safetensors")
    _tokenizer().save(str(folder / "tokenizer/tokenizer.json"))
    write_json(
        folder / "scheduler/scheduler_config.json",
        {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction"},
    )
    return folder


def write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data))


def edit_json(path: Path, **changes: object) -> None:
    write_json(path, {**json.loads(path.read_text()), **changes})


def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer
