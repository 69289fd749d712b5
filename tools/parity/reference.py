"""Run a Diffusers model folder with diffusers and keep every tensor that `limner generate --dump-tensors` names."""

import functools
import inspect
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import diffusers
import torch
import transformers

from samplers import SAMPLERS, SCHEDULES

diffusers.utils.logging.set_verbosity_error()
diffusers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

def load(model, dtype="float32"):
    """The pipeline of the folder `model`, quiet, on the CPU."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(model, dtype=DTYPES[dtype], local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make_scheduler(config, sampler, schedule):
    """The scheduler that diffusers users would swap in: from_config of the checkpoint's own settings."""
    name, extra, _ = SAMPLERS[sampler] if sampler else (config["_class_name"], {}, "")
    return getattr(diffusers, name).from_config(config, **extra, **SCHEDULES[schedule][1])


def capture(pipeline, case):
    """The tensors of one run, by the names of `--dump-tensors`: float32 arrays.

    `case` holds prompt, negative_prompt, steps, sampler, schedule, guidance_scale, guidance_rescale, eta, width,
    height, num_images and seed; the pipeline's own scheduler is put back afterwards.
    """
    tensors = {}
    own_scheduler = pipeline.scheduler
    scheduler = make_scheduler(dict(own_scheduler.config, _class_name=type(own_scheduler).__name__),
                               case["sampler"], case["schedule"])
    pipeline.scheduler = scheduler
    wrapped = []

    def keep(name, tensor):
        if tensor is not None:
            tensors[name] = tensor.detach().to("cpu", torch.float32, copy=True).contiguous().numpy()

    def wrap(owner, method, after):
        original = getattr(owner, method)

        @functools.wraps(original)  # pipelines read the signature to know what to pass
        def call(*args, **kwargs):
            answer = original(*args, **kwargs)
            return after(answer, inspect.signature(original).bind(*args, **kwargs).arguments) or answer

        setattr(owner, method, call)
        wrapped.append((owner, method))

    def after_encode(answer, _):
        names = ["prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"]
        for name, tensor in zip(names, answer):
            keep(name, tensor)

    def after_step(answer, arguments):
        index = sum(name.startswith("noise_pred.") for name in tensors)
        if index == 0:
            keep("latents.initial", arguments["sample"])
            keep("timesteps", scheduler.timesteps)
            if hasattr(scheduler, "sigmas"):
                keep("sigmas", scheduler.sigmas)
        keep(f"noise_pred.{index:03d}", arguments["model_output"])
        keep(f"latents.{index:03d}", answer[0])
        keep("latents.final", answer[0])

    def after_decode(answer, _):
        keep("image", answer[0])

    wrap(pipeline, "encode_prompt", after_encode)
    wrap(scheduler, "step", after_step)
    wrap(pipeline.vae, "decode", after_decode)
    generators = [torch.Generator("cpu").manual_seed(case["seed"] + i) for i in range(case["num_images"])]
    try:
        with torch.inference_mode():
            pipeline(case["prompt"], negative_prompt=case["negative_prompt"] or None,
                     num_inference_steps=case["steps"],
                     guidance_scale=case["guidance_scale"], guidance_rescale=case["guidance_rescale"],
                     eta=case["eta"], width=case["width"], height=case["height"], num_images_per_prompt=case["num_images"],
                     generator=generators, output_type="np")
    finally:
        pipeline.scheduler = own_scheduler
        for owner, method in wrapped:
            delattr(owner, method)
    return tensors
