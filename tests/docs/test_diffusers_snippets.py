"""What diffusers' pages on AnimateDiff and IP-Adapters show, run with the one word replaced.

The calls are those of docs/source/en/api/pipelines/animatediff.md and of AnimateDiff's part of
using-diffusers/ip_adapter.md. What differs, and why: hub ids are folders of the same names with tiny random models; two
steps, and the model's size; float32 on the CPU, so `enable_model_cpu_offload`, which needs an accelerator, is left out;
depth estimators, which the pages take from elsewhere, are left out: the clip itself steers; the published motion module
is a safetensors file, for pickles need `allow_pickle=True` here, and as it is tiny, its heads and groups are said.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    MotionAdapter,
    SparseControlNetModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    CLIPImageProcessor,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from animagic.weights.motion_module import motion_name

FRAMES = 16
SMALL = {"layers_per_block": 1, "cross_attention_dim": 16, "attention_head_dim": 2, "norm_num_groups": 4}
MOTION = {"motion_layers_per_block": 1, "motion_norm_num_groups": 4, "motion_num_attention_heads": 2}

BEGIN = """
import torch
from diffusers import AnimateDiffPipeline, DDIMScheduler, MotionAdapter
from diffusers.utils import export_to_gif

adapter = MotionAdapter.from_pretrained("guoyww/animatediff-motion-adapter-v1-5-2")
model_id = "SG161222/Realistic_Vision_V5.1_noVAE"
pipe = AnimateDiffPipeline.from_pretrained(model_id, motion_adapter=adapter)
"""
SCHEDULER = """
scheduler = DDIMScheduler.from_pretrained(
    model_id, subfolder="scheduler", clip_sample=False, timestep_spacing="linspace", beta_schedule="linear",
    steps_offset=1,
)
pipe.scheduler = scheduler
pipe.enable_vae_slicing()
"""
CALL = """
output = pipe(
    prompt="a red ball", negative_prompt="bad quality, worse quality", num_frames=16, guidance_scale=7.5,
    num_inference_steps=2, generator=torch.Generator("cpu").manual_seed(42),
)
frames = output.frames[0]
export_to_gif(frames, "animation.gif")
"""
LCM = """
import torch
from diffusers import AnimateDiffPipeline, LCMScheduler, MotionAdapter
from diffusers.utils import export_to_gif

adapter = MotionAdapter.from_pretrained("wangfuyun/AnimateLCM")
pipe = AnimateDiffPipeline.from_pretrained("SG161222/Realistic_Vision_V5.1_noVAE", motion_adapter=adapter)
pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config, beta_schedule="linear")
pipe.load_lora_weights("wangfuyun/AnimateLCM", weight_name="sd15_lora_beta.safetensors", adapter_name="lcm-lora")
"""
SPARSE = """
import torch
from diffusers import AnimateDiffSparseControlNetPipeline
from diffusers.models import AutoencoderKL, MotionAdapter, SparseControlNetModel
from diffusers.schedulers import DPMSolverMultistepScheduler
from diffusers.utils import export_to_gif, load_image

model_id = "SG161222/Realistic_Vision_V5.1_noVAE"
motion_adapter = MotionAdapter.from_pretrained("guoyww/animatediff-motion-adapter-v1-5-2").to("cpu")
controlnet = SparseControlNetModel.from_pretrained("guoyww/animatediff-sparsectrl-KIND").to("cpu")
vae = AutoencoderKL.from_pretrained("stabilityai/sd-vae-ft-mse").to("cpu")
scheduler = DPMSolverMultistepScheduler.from_pretrained(
    model_id, subfolder="scheduler", beta_schedule="linear", algorithm_type="dpmsolver++", use_karras_sigmas=True,
)
pipe = AnimateDiffSparseControlNetPipeline.from_pretrained(
    model_id, motion_adapter=motion_adapter, controlnet=controlnet, vae=vae, scheduler=scheduler,
).to("cpu")
pipe.load_lora_weights("guoyww/animatediff-motion-lora-v1-5-3", adapter_name="motion_lora")
pipe.fuse_lora(lora_scale=1.0)
frames = pipe(
    prompt="a red ball", negative_prompt="low quality", num_inference_steps=2,
    conditioning_frames=[load_image(f"picture-{i}.png") for i in INDEXES], controlnet_frame_indices=INDEXES,
    controlnet_conditioning_scale=1.0, generator=torch.Generator().manual_seed(1337),
).frames[0]
export_to_gif(frames, "animation.gif")
"""
CLIP = 'from diffusers.utils import load_image\nvideo = [load_image(f"picture-{i}.png") for i in range(16)]\n'
CONTROL = """
import torch
from diffusers import NAME, AutoencoderKL, ControlNetModel, LCMScheduler, MotionAdapter
from diffusers.utils import export_to_gif

controlnet = ControlNetModel.from_pretrained("lllyasviel/control_v11f1p_sd15_depth")
motion_adapter = MotionAdapter.from_pretrained("wangfuyun/AnimateLCM")
vae = AutoencoderKL.from_pretrained("stabilityai/sd-vae-ft-mse")
pipe = NAME.from_pretrained(
    "SG161222/Realistic_Vision_V5.1_noVAE", motion_adapter=motion_adapter, controlnet=controlnet, vae=vae,
).to(device="cpu", dtype=torch.float32)
pipe.scheduler = LCMScheduler.from_pretrained(
    "SG161222/Realistic_Vision_V5.1_noVAE", subfolder="scheduler", beta_schedule="linear"
)
pipe.load_lora_weights("wangfuyun/AnimateLCM", weight_name="sd15_lora_beta.safetensors", adapter_name="lcm-lora")
pipe.set_adapters(["lcm-lora"], [0.8])
conditioning_frames = []
with pipe.progress_bar(total=len(video)) as pbar:
    for frame in video:
        conditioning_frames.append(frame)
        pbar.update()
frames = pipe(
    prompt="a panda", negative_prompt="low quality", conditioning_frames=conditioning_frames, num_inference_steps=2,
    guidance_scale=2.0, generator=torch.Generator("cpu").manual_seed(42), MORE
).frames[0]
export_to_gif(frames, "animation.gif")
"""

SNIPPETS = {
    "text": BEGIN + SCHEDULER + CALL,
    "controlnet": CLIP
    + CONTROL.replace("NAME", "AnimateDiffControlNetPipeline").replace("MORE", "num_frames=len(video)"),
    "sparse scribble": SPARSE.replace("KIND", "scribble").replace("INDEXES", "[0, 8, 15]"),
    "sparse rgb": SPARSE.replace("KIND", "rgb").replace("INDEXES", "[0]"),
    "sdxl": """
import torch
from diffusers.models import MotionAdapter
from diffusers import AnimateDiffSDXLPipeline, DDIMScheduler
from diffusers.utils import export_to_gif

adapter = MotionAdapter.from_pretrained("a-r-r-o-w/animatediff-motion-adapter-sdxl-beta")
model_id = "stabilityai/stable-diffusion-xl-base-1.0"
scheduler = DDIMScheduler.from_pretrained(
    model_id, subfolder="scheduler", clip_sample=False, timestep_spacing="linspace", beta_schedule="linear",
    steps_offset=1,
)
pipe = AnimateDiffSDXLPipeline.from_pretrained(model_id, motion_adapter=adapter, scheduler=scheduler).to("cpu")
pipe.enable_vae_slicing()
pipe.enable_vae_tiling()
output = pipe(
    prompt="a panda surfing in the ocean", negative_prompt="low quality, worst quality", num_inference_steps=2,
    guidance_scale=8, width=32, height=32, num_frames=16,
)
frames = output.frames[0]
export_to_gif(frames, "animation.gif")
""",
    "video to video": (BEGIN + SCHEDULER).replace("AnimateDiffPipeline", "AnimateDiffVideoToVideoPipeline") + CLIP + """
output = pipe(
    video = video, prompt="panda playing a guitar", negative_prompt="bad quality, worse quality", guidance_scale=7.5,
    num_inference_steps=4, strength=0.5, generator=torch.Generator("cpu").manual_seed(42),
)
frames = output.frames[0]
export_to_gif(frames, "animation.gif")
""",
    "video to video controlnet": CLIP
    + CONTROL.replace("NAME", "AnimateDiffVideoToVideoControlNetPipeline").replace(
        "MORE", "video=video, strength=0.8, controlnet_conditioning_scale=0.75"
    ),
    "motion lora": BEGIN
    + 'pipe.load_lora_weights("guoyww/animatediff-motion-lora-zoom-out", adapter_name="zoom-out")\n' + SCHEDULER + CALL,
    "two motion loras": BEGIN + """
pipe.load_lora_weights("diffusers/animatediff-motion-lora-zoom-out", adapter_name="zoom-out")
pipe.load_lora_weights("diffusers/animatediff-motion-lora-pan-left", adapter_name="pan-left")
pipe.set_adapters(["zoom-out", "pan-left"], adapter_weights=[1.0, 1.0])
""" + SCHEDULER + CALL,
    "free init": BEGIN + SCHEDULER + """
pipe.enable_vae_tiling()
pipe.enable_free_init(method="butterworth", use_fast_sampling=True)
""" + CALL + "pipe.disable_free_init()\n",
    "lcm": LCM + "pipe.enable_vae_slicing()\n" + CALL.replace("7.5", "1.5"),
    "lcm and motion lora": LCM + """
pipe.load_lora_weights("guoyww/animatediff-motion-lora-tilt-up", adapter_name="tilt-up")
pipe.set_adapters(["lcm-lora", "tilt-up"], [1.0, 0.8])
""" + CALL.replace("7.5", "1.5"),
    "free noise": LCM + """
pipe.set_adapters(["lcm-lora"], [0.8])
pipe.enable_vae_slicing()
pipe.enable_vae_tiling()
pipe.enable_free_noise(context_length=8, context_stride=4)
prompt = {0: "a red ball", 5: "a blue ball", 10: "a green ball"}
output = pipe(
    prompt, negative_prompt="bad quality", num_frames=16, width=32, height=32, num_inference_steps=2,
    guidance_scale=2.0, generator=torch.Generator("cpu").manual_seed(0),
)
frames = output.frames[0]
export_to_gif(frames, "animation.gif")
""",
    "single file": """
import torch
from diffusers import AnimateDiffPipeline, MotionAdapter
from diffusers.utils import export_to_gif

adapter = MotionAdapter.from_single_file(
    "Lightricks/LongAnimateDiff/v3_mm.safetensors", torch_dtype=torch.float32, CONFIG
)
pipe = AnimateDiffPipeline.from_pretrained("SG161222/Realistic_Vision_V5.1_noVAE", motion_adapter=adapter)
""".replace("CONFIG", "motion_norm_num_groups=4, motion_num_attention_heads=2") + CALL,
    "ip-adapter": BEGIN + SCHEDULER + """
pipeline = pipe
from diffusers.utils import load_image
pipeline.load_ip_adapter("h94/IP-Adapter", subfolder="models", weight_name="ip-adapter_sd15.safetensors")
ip_adapter_image = load_image("picture-0.png")
output = pipeline(
    prompt="A cute gummy bear waving", negative_prompt="bad quality", ip_adapter_image=ip_adapter_image,
    num_frames=16, guidance_scale=7.5, num_inference_steps=2, generator=torch.Generator(device="cpu").manual_seed(0),
)
frames = output.frames[0]
export_to_gif(frames, "animation.gif")
""",
    "lightning": """
import torch
from diffusers import AnimateDiffPipeline, MotionAdapter, EulerDiscreteScheduler
from diffusers.utils import export_to_gif
from safetensors.torch import load_file

adapter = MotionAdapter(SIZES).to("cpu", torch.float32)
adapter.load_state_dict(load_file("ByteDance/AnimateDiff-Lightning/animatediff_lightning_2step_diffusers.safetensors"))
pipe = AnimateDiffPipeline.from_pretrained("SG161222/Realistic_Vision_V5.1_noVAE", motion_adapter=adapter).to("cpu")
pipe.scheduler = EulerDiscreteScheduler.from_config(
    pipe.scheduler.config, timestep_spacing="trailing", beta_schedule="linear"
)
output = pipe(prompt="a red ball", guidance_scale=1.0, num_inference_steps=2)
frames = output.frames[0]
export_to_gif(frames, "animation.gif")
""".replace("SIZES", "(32, 32), use_motion_mid_block=False, " + ", ".join(f"{k}={v}" for k, v in MOTION.items())),
}  # fmt: skip


@pytest.fixture(scope="module")
def hub(tiny_picture_model, tmp_path_factory) -> Path:
    """A folder whose subfolders are called like models on the hub, with tiny random ones."""
    root = tmp_path_factory.mktemp("hub")
    torch.manual_seed(5)
    (root / "SG161222").mkdir()
    (root / "SG161222" / "Realistic_Vision_V5.1_noVAE").symlink_to(tiny_picture_model)

    def keep(network, *names: str):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        for name in names:
            network.save_pretrained(root / name)

    adapter = MotionAdapter(block_out_channels=(32, 32), use_motion_mid_block=False, **MOTION)
    keep(adapter, "guoyww/animatediff-motion-adapter-v1-5-2", "wangfuyun/AnimateLCM")
    keep(MotionAdapter(block_out_channels=(32, 32), use_motion_mid_block=False, **MOTION),
         "a-r-r-o-w/animatediff-motion-adapter-sdxl-beta")  # fmt: skip
    keep(AutoencoderKL.from_pretrained(tiny_picture_model, subfolder="vae"), "stabilityai/sd-vae-ft-mse")
    down = {"block_out_channels": (32, 32), "conditioning_embedding_out_channels": (4, 8, 8)}
    flat = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}
    moving = {"down_block_types": ("DownBlockMotion", "CrossAttnDownBlockMotion"), "motion_num_attention_heads": 2}
    keep(ControlNetModel(**SMALL, **down, **flat), "lllyasviel/control_v11f1p_sd15_depth")
    for kind, how in (("rgb", (4, True)), ("scribble", (3, False))):
        own = dict(zip(("conditioning_channels", "use_simplified_condition_embedding"), how, strict=True))
        keep(SparseControlNetModel(**SMALL, **down, **moving, **own), f"guoyww/animatediff-sparsectrl-{kind}")

    def lora(layer: str, name: str) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pair = {"A": torch.randn(4, 32), "B": 0.1 * torch.randn(32, 4)}
        save_file({f"unet.{layer}.lora_{part}.weight": tensor for part, tensor in pair.items()}, root / name)

    motion = "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q"
    for name in ("guoyww/animatediff-motion-lora-zoom-out", "guoyww/animatediff-motion-lora-tilt-up",
                 "guoyww/animatediff-motion-lora-v1-5-3", "diffusers/animatediff-motion-lora-zoom-out",
                 "diffusers/animatediff-motion-lora-pan-left"):  # fmt: skip
        lora(motion, f"{name}/pytorch_lora_weights.safetensors")
    lora(
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q", "wangfuyun/AnimateLCM/sd15_lora_beta.safetensors"
    )

    tensors = {name: tensor.contiguous() for name, tensor in adapter.state_dict().items()}
    for folder, name in (("Lightricks/LongAnimateDiff", "v3_mm"),
                         ("ByteDance/AnimateDiff-Lightning", "animatediff_lightning_2step_diffusers")):  # fmt: skip
        (root / folder).mkdir(parents=True)
        published = {motion_name(n): t for n, t in tensors.items() if not n.endswith("pos_embed.pe")}
        save_file(published if name == "v3_mm" else tensors, root / folder / f"{name}.safetensors")

    models = root / "h94" / "IP-Adapter" / "models"
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    seeing = CLIPVisionModelWithProjection(CLIPVisionConfig(**size, projection_dim=8, image_size=32, patch_size=16))
    seeing.save_pretrained(models / "image_encoder")
    CLIPImageProcessor(size={"shortest_edge": 32}).save_pretrained(models / "image_encoder")
    project = {"proj.weight": torch.randn(64, 8), "proj.bias": torch.zeros(64), "norm.weight": torch.ones(16)}
    project["norm.bias"] = torch.zeros(16)
    looks = {f"image_proj.{name}": tensor for name, tensor in project.items()}
    looks |= {f"ip_adapter.{i}.to_{part}_ip.weight": torch.randn(32, 16) for i in (1, 3, 5, 7) for part in "kv"}
    save_file(looks, models / "ip-adapter_sd15.safetensors")

    text = CLIPTextModel.from_pretrained(tiny_picture_model, subfolder="text_encoder")
    text.config.projection_dim = 16
    kinds = {"down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D")}
    kinds |= {"up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"), "block_out_channels": (32, 32)}
    added = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
    added |= {"projection_class_embeddings_input_dim": 6 * 8 + 16}
    tokenizer = CLIPTokenizer.from_pretrained(tiny_picture_model, subfolder="tokenizer")
    StableDiffusionXLPipeline(
        vae=AutoencoderKL.from_pretrained(tiny_picture_model, subfolder="vae"), text_encoder=text,
        text_encoder_2=CLIPTextModelWithProjection(text.config), tokenizer=tokenizer, tokenizer_2=tokenizer,
        unet=UNet2DConditionModel(sample_size=8, **SMALL | {"cross_attention_dim": 32}, **kinds, **added),
        scheduler=DDIMScheduler(beta_schedule="linear", beta_start=0.00085, beta_end=0.012),
    ).save_pretrained(root / "stabilityai" / "stable-diffusion-xl-base-1.0")  # fmt: skip
    rng = np.random.default_rng(0)
    for i in range(FRAMES):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(root / f"picture-{i}.png")
    return root


@pytest.mark.parametrize("name", SNIPPETS)
def test_with_one_word_replaced(name, hub, monkeypatch):
    monkeypatch.chdir(hub)
    code = SNIPPETS[name]
    for line in ("from diffusers", "import diffusers"):
        code = code.replace(line, line.replace("diffusers", "animagic"))
    seen: dict = {}
    exec(compile(code, name, "exec"), seen)
    frames = np.stack(seen["frames"])
    assert frames.shape == (FRAMES, 32, 32, 3)
    assert frames.std() > 5
    assert Path("animation.gif").stat().st_size > 1000
    Path("animation.gif").unlink()
    assert type(seen["pipe"]).__module__.startswith("animagic")
