"""Train a model that is far too small, for far too short, to see that everything is in place: a few seconds."""

from animagic import zoo
from animagic.requests.training import train

TRAINING = {"steps": 4, "log_every": 2, "save_every": 4, "workers": 0}
VAE = {"embed_dim": 256, "depth": 1, "encoder_depth": 0, "num_heads": 4, "mlp_ratio": 1, "video_length": 24,
       "video_size": 64, "z_chans": 16, "linear_path": True, "scaling_factor": 1.0}  # fmt: skip
TRANSFORMER = {"num_layers": 1, "hidden_size": 64, "ffn_hidden_size": 128, "num_attention_heads": 2,
               "num_query_groups": 1, "kv_channels": 32, "in_channels": 16, "out_channels": 16,
               "caption_channels": 384, "caption_max_length": 64}  # fmt: skip
DATA = {"batch_size": 2, "clip_chunks": [1], "clip_shares": [1.0]}
recipe = {
    "system": "magi1",
    "text_encoder": zoo.resolve("magi1-tiny"),  # frozen: the embedded model's
    "vae": {"model": VAE, "pca_batches": 2, "objective": {}, "data": DATA, "training": TRAINING},
    "transformer": {"model": TRANSFORMER, "objective": {"drop_text": 0.1}, "data": DATA, "training": TRAINING},
    "sampling": {"runtime_config": {"num_frames": 24, "video_size_h": 64, "video_size_w": 64, "num_steps": 8,
                                    "cfg_t_range": [0.0], "prev_chunk_scales": [1.0], "text_scales": [3.0]}},
}  # fmt: skip
print(train(recipe, "out/train_tiny", on_log=lambda part, line: print(part, line)))
