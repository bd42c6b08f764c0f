"""Tiny encoders of many architectures, random weights, dropout 0.

ConvBERT is not among them: its convolutions read the padding, so its own output depends on the batch a row stands in.
"""

from __future__ import annotations

from typing import Any

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
OFF = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
VOCABULARY = 99


def configs() -> dict[str, Any]:
    """Name → configuration."""
    import transformers as t

    common = {"vocab_size": VOCABULARY, "pad_token_id": 0, "max_position_embeddings": 64}
    return {
        "bert": t.BertConfig(**SMALL, **OFF, **common),
        "distilbert": t.DistilBertConfig(
            dim=32,
            n_layers=2,
            n_heads=2,
            hidden_dim=48,
            dropout=0.0,
            attention_dropout=0.0,
            seq_classif_dropout=0.0,
            **common,
        ),
        "roberta": t.RobertaConfig(**SMALL, **OFF, **common),
        "xlm-roberta": t.XLMRobertaConfig(**SMALL, **OFF, **common),
        "camembert": t.CamembertConfig(**SMALL, **OFF, **common),
        "electra": t.ElectraConfig(**SMALL, **OFF, **common, embedding_size=32, summary_last_dropout=0.0),
        "albert": t.AlbertConfig(**SMALL, **OFF, **common, embedding_size=16, classifier_dropout_prob=0.0),
        "mpnet": t.MPNetConfig(**SMALL, **OFF, **common),
        "deberta-v2": t.DebertaV2Config(
            **SMALL,
            **OFF,
            **common,
            pooler_dropout=0.0,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            type_vocab_size=0,
        ),
        "modernbert": t.ModernBertConfig(
            **SMALL,
            **common,
            bos_token_id=1,
            eos_token_id=2,
            cls_token_id=1,
            sep_token_id=2,
            global_attn_every_n_layers=2,
            local_attention=16,
        ),
        "ernie": t.ErnieConfig(**SMALL, **OFF, **common),
    }


def more_configs() -> dict[str, Any]:
    """Further ones that checkpoints and exports are tried on."""
    import transformers as t

    common = {"vocab_size": VOCABULARY, "pad_token_id": 0, "max_position_embeddings": 64}
    return configs() | {
        # DeBERTa-v3 is the second version with other settings.
        "deberta-v3": t.DebertaV2Config(
            **SMALL,
            **OFF,
            **common,
            pooler_dropout=0.0,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            position_buckets=16,
            share_att_key=True,
            norm_rel_ebd="layer_norm",
            position_biased_input=False,
            type_vocab_size=0,
        ),
        "eurobert": t.EuroBertConfig(
            **SMALL, **common, num_key_value_heads=2, head_dim=16, bos_token_id=1, eos_token_id=2, mask_token_id=4
        ),
    }
