"""Make the golden file of CLIP's hidden states: `python tests/golden/make_text.py`.

Needs what make.py needs. The same small weights as CLIP-L (`quick`) and, with the exact gelu, as CLIP-H and CLIP-G.
"""

from __future__ import annotations

import numpy as np
import torch
from make import load, save
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

import weights as g

PROJECTION = {"text_projection.weight": (192, g.CLIP_HIDDEN)}
ROWS = np.array([0, 1, 8, 9, 10, 40, 76])


def main() -> None:
    torch.set_grad_enabled(False)
    end = g.CLIP_VOCABULARY - 1
    ids = np.zeros((2, 77), np.int32)  # CLIP-G and CLIP-H are padded with 0
    ids[:, 0], ids[0, 9], ids[1, 76] = end - 1, end, end
    ids[0, 1:9] = np.random.RandomState(12).randint(1, end - 1, 8)
    ids[1, 1:76] = np.random.RandomState(13).randint(1, end - 1, 75)
    arrays = {"ids": ids, "eos": np.array([9, 76], np.int32), "rows": ROWS}
    for name, activation in (("quick", "quick_gelu"), ("exact", "gelu")):
        arrays |= {f"{name}_{key}": value for key, value in encoded(activation, ids).items()}
    save("clip_states", **arrays)


def encoded(activation: str, ids: np.ndarray) -> dict[str, np.ndarray]:
    """States at clip skip 1 and 2, as they are and normalised, and the pooled vector, as it is and projected."""
    end = g.CLIP_VOCABULARY - 1
    model = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=g.CLIP_VOCABULARY,
            hidden_size=g.CLIP_HIDDEN,
            intermediate_size=g.CLIP_MLP,
            num_hidden_layers=g.CLIP_LAYERS,
            num_attention_heads=g.CLIP_HIDDEN // 64,
            projection_dim=PROJECTION["text_projection.weight"][0],
            hidden_act=activation,
            bos_token_id=end - 1,
            eos_token_id=end,
            pad_token_id=0,
        )
    )
    load(model, g.random_weights(g.clip_shapes() | PROJECTION))
    out = model(torch.from_numpy(ids).long(), output_hidden_states=True)
    norm = model.text_model.final_layer_norm
    states = {f"skip{skip}": out.hidden_states[-skip] for skip in (1, 2)}
    assert torch.allclose(norm(states["skip1"]), out.last_hidden_state, atol=1e-5)
    states |= {f"{name}_norm": norm(state) for name, state in states.items()}
    pooled = model.text_model(torch.from_numpy(ids).long()).pooler_output
    kept = {name: state.numpy()[:, ROWS] for name, state in states.items()}
    return kept | {"pooled": pooled.numpy(), "projected": out.text_embeds.numpy()}


if __name__ == "__main__":
    main()
