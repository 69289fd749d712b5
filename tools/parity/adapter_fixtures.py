"""Write tests/parity/fixtures/adapters: what LyCORIS, PEFT and diffusers make of adapters of every kind.

    adapters/<case>.safetensors            a layer's weight, an adapter's tensors as LyCORIS writes them, and the weight's
                                           difference as LyCORIS computes it
    adapters/peft_<case>.safetensors       the same for PEFT, with its configuration in the header, the merged weight and
                                           bias, and what the merged layer makes of `x`
    adapters/<model>.adapter.safetensors   an adapter for the tiny model of that name, as PEFT and diffusers write it
    adapters/<model>.latents.safetensors   what diffusers and PEFT draw with it

Needs the packages lycoris-lora, einops and peft beside those of requirements.txt.
"""

import json
import math
import shutil

import torch
from safetensors.torch import save_file

import reference
from compare import ROOT
from pipeline_fixtures import SMALL

FOLDER = ROOT / "tests" / "parity" / "fixtures" / "adapters"
PIPELINES = ROOT / "tests" / "parity" / "fixtures" / "pipelines"


def linear(generator, bias=False):
    layer = torch.nn.Linear(8, 12, bias=bias)
    return filled(layer, generator)


def wide(generator):
    return filled(torch.nn.Linear(3, 16, bias=False), generator)


def convolution(generator):
    return filled(torch.nn.Conv2d(4, 8, 3, padding=1, bias=False), generator)


def filled(module, generator):
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    return module


def lycoris_cases():
    """Name -> (layer's maker, module class, its options)."""
    from lycoris.modules.boft import ButterflyOFTModule
    from lycoris.modules.diag_oft import DiagOFTModule
    from lycoris.modules.full import FullModule
    from lycoris.modules.glora import GLoRAModule
    from lycoris.modules.ia3 import IA3Module
    from lycoris.modules.locon import LoConModule
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule

    low = dict(lora_dim=2, alpha=1.5)
    return {
        "lora": (linear, LoConModule, low),
        "lora_conv": (convolution, LoConModule, low),
        "lora_mid": (convolution, LoConModule, dict(low, use_tucker=True)),
        "dora_out": (linear, LoConModule, dict(low, weight_decompose=True, wd_on_out=True)),
        "dora_in": (linear, LoConModule, dict(low, weight_decompose=True, wd_on_out=False)),
        "dora_conv_in": (convolution, LoConModule, dict(low, weight_decompose=True, wd_on_out=False)),
        "loha": (linear, LohaModule, low),
        "loha_conv": (convolution, LohaModule, low),
        "loha_tucker": (convolution, LohaModule, dict(low, use_tucker=True)),
        "dora_loha": (linear, LohaModule, dict(low, weight_decompose=True, wd_on_out=True)),
        "lokr": (linear, LokrModule, dict(low, factor=2)),
        "lokr_both": (linear, LokrModule, dict(lora_dim=1, alpha=0.5, factor=4, decompose_both=True)),
        "lokr_whole": (linear, LokrModule, dict(lora_dim=100, alpha=3.0, factor=2)),
        "lokr_conv": (convolution, LokrModule, dict(lora_dim=1, alpha=0.5, factor=2)),
        "lokr_tucker": (convolution, LokrModule, dict(lora_dim=1, alpha=0.5, factor=2, use_tucker=True)),
        "glora": (linear, GLoRAModule, low),
        "glora_conv": (convolution, GLoRAModule, low),
        "ia3_out": (linear, IA3Module, dict(train_on_input=False)),
        "ia3_in": (linear, IA3Module, dict(train_on_input=True)),
        "ia3_conv": (convolution, IA3Module, dict(train_on_input=False)),
        "oft": (linear, DiagOFTModule, dict(lora_dim=4)),
        "oft_conv_rescaled": (convolution, DiagOFTModule, dict(lora_dim=4, constraint=0.05, rescaled=True)),
        "boft": (wide, ButterflyOFTModule, dict(lora_dim=4)),
        "boft_rescaled": (convolution, ButterflyOFTModule, dict(lora_dim=4, constraint=0.05, rescaled=True)),
        "full": (linear, FullModule, {}),
    }


def effective_weight(layer):
    """The weight that the layer acts as, read off its answers to unit inputs (a merge of LoHa or LoKr by LyCORIS
    itself has alpha / rank twice)."""
    units = torch.eye(layer.weight[0].numel())
    with torch.no_grad():
        if layer.weight.dim() == 2:
            return layer(units).T
        answer = layer(units.view(-1, *layer.weight.shape[1:]))[:, :, 1, 1]  # a 3x3 window under each weight
    return answer.T.reshape(layer.weight.shape)


def write_lycoris(name, seed, make_layer, module_class, options):
    generator = torch.Generator().manual_seed(seed)
    layer = make_layer(generator)
    weight = layer.weight.data.clone()
    module = module_class("layer", layer, 1.0, **options)
    for parameter_name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        around = 1.0 if "rescale" in parameter_name or "dora" in parameter_name else 0.0
        parameter.data = around * parameter.data + noise * (0.1 if around else 0.4)
    if name == "full":
        module.weight.data = weight + torch.randn(weight.shape, generator=generator) * 0.1
        difference = module.weight.data - weight
        tensors = {"diff": difference}
    else:
        module.eval()
        module.apply_to()
        difference = effective_weight(layer) - weight
        tensors = dict(module.custom_state_dict() or {}) if hasattr(module, "custom_state_dict") else {}
        tensors = tensors or module.state_dict()
    wanted = set(module_class.weight_list)
    out = {f"adapter.{key}": value.detach().clone().contiguous() for key, value in tensors.items() if key in wanted}
    out["weight"] = weight.contiguous()
    out["difference"] = difference.contiguous()
    save_file(out, FOLDER / f"{name}.safetensors")


# --- whole pictures ---


def component_of(pipeline, name):
    return getattr(pipeline, name, None)


def chosen_layers(pipeline):
    """(component, layer, module): attention, feed-forward, convolutions and text encoders."""
    ends = ("attn2.to_q", "attn1.to_v", "attn1.to_out.0", "proj_in", "conv1", "time_emb_proj", "q_proj", "fc2",
            "downsamplers.0.conv")
    for component in ("unet", "text_encoder", "text_encoder_2"):
        network = component_of(pipeline, component)
        if network is None:
            continue
        for name, module in network.named_modules():
            if name.endswith(ends) and isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
                yield component, name, module


def random_adapter(pipeline, seed):
    """(component, layer) -> (down, up); convolutions in four dimensions."""
    generator = torch.Generator().manual_seed(seed)
    adapter = {}
    for component, name, module in chosen_layers(pipeline):
        rank = 1 if component != "unet" or name.endswith("to_v") else 2
        down_shape = (rank, *module.weight.shape[1:])
        up_shape = (module.weight.shape[0], rank, *(1,) * (module.weight.dim() - 2))
        down = torch.randn(down_shape, generator=generator) / math.sqrt(math.prod(down_shape[1:]))
        up = torch.randn(up_shape, generator=generator) * 0.4
        adapter[component, name] = (down.half(), up.half())
    return adapter


ALPHA = 1.5


def with_text_model(component, name):
    return name if component == "unet" or name.startswith(("text_model.", "text_projection")) else f"text_model.{name}"


def peft(adapter):
    out = {}
    metadata = {}
    for (component, name), (down, up) in adapter.items():
        key = f"{component}.{with_text_model(component, name)}"
        out |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
        metadata |= {f"{component}.lora_alpha": ALPHA, f"{component}.use_rslora": False}
    return out, {"format": "pt", "lora_adapter_metadata": json.dumps(metadata)}


def write_pictures(model, seed):
    pipeline = reference.load(PIPELINES / model / "model")
    adapter = random_adapter(pipeline, seed)
    tensors, metadata = peft(adapter)
    save_file(tensors, FOLDER / f"{model}.adapter.safetensors", metadata)
    # The reference: PEFT's own layers inside diffusers, put there without a loader that renames.
    add_peft_layers(pipeline, adapter)
    run = dict(SMALL, steps=3, seed=11)
    tensors = reference.capture(pipeline, run)
    kept = {key: torch.from_numpy(tensors[key]) for key in ("latents.final", "prompt_embeds")}
    save_file(kept, FOLDER / f"{model}.latents.safetensors")


def add_peft_layers(pipeline, adapter):
    from peft import LoraConfig, inject_adapter_in_model

    for component in ("unet", "text_encoder", "text_encoder_2"):
        layers = {name: pair for (owner, name), pair in adapter.items() if owner == component}
        if not layers:
            continue
        network = getattr(pipeline, component)
        ranks = {name: pair[0].shape[0] for name, pair in layers.items()}
        config = LoraConfig(r=1, lora_alpha=ALPHA, target_modules=list(layers), rank_pattern=ranks,
                            init_lora_weights=False)
        inject_adapter_in_model(config, network)
        for name, (down, up) in layers.items():
            module = network.get_submodule(name)
            module.lora_A["default"].weight.data = down.float()
            module.lora_B["default"].weight.data = up.float()
            assert math.isclose(module.scaling["default"], ALPHA / down.shape[0])
        network.eval()


def peft_cases():
    """Name -> (layer's maker, PEFT's configuration)."""
    from peft import BOFTConfig, IA3Config, LoHaConfig, LoKrConfig, LoraConfig, OFTConfig

    layer = dict(target_modules=["layer"])
    low = dict(layer, r=2, lora_alpha=3)
    return {
        "lora_bias": (biased, LoraConfig(**low, lora_bias=True, bias="none")),
        "dora": (biased, LoraConfig(**low, use_dora=True)),
        "dora_conv": (biased_convolution, LoraConfig(**low, use_dora=True)),
        "ia3_out": (biased, IA3Config(**layer, feedforward_modules=[])),
        "ia3_in": (biased, IA3Config(**layer, feedforward_modules=["layer"])),
        "ia3_conv": (biased_convolution, IA3Config(**layer, feedforward_modules=[])),
        "oft": (biased, OFTConfig(**layer, oft_block_size=4)),
        "oft_shared": (biased, OFTConfig(**layer, oft_block_size=4, block_share=True)),
        "oft_exact": (biased, OFTConfig(**layer, oft_block_size=2, use_cayley_neumann=False)),
        "oft_conv": (biased_convolution, OFTConfig(**layer, oft_block_size=6)),
        "boft": (biased, BOFTConfig(**layer, boft_block_size=4)),
        "boft_butterfly": (biased, BOFTConfig(**layer, boft_block_size=2, boft_n_butterfly_factor=3)),
        "loha": (biased, LoHaConfig(**layer, r=2, alpha=3)),
        "lokr": (biased, LoKrConfig(**layer, r=1, alpha=3)),
    }


def biased(generator):
    return linear(generator, bias=True)


def biased_convolution(generator):
    return filled(torch.nn.Conv2d(4, 8, 3, padding=1), generator)


def allow_butterflies():
    """PEFT computes more than one stage only where it can compile for CUDA; its formula needs none."""
    from peft.tuners.boft import layer

    class BlockDiagonals:
        @staticmethod
        def apply(blocks):
            return torch.stack([torch.block_diag(*stage) for stage in blocks])

    layer.get_fbd_cuda = lambda: True
    layer.FastBlockDiag = BlockDiagonals


def write_peft(name, seed, make_layer, config):
    from peft import get_peft_model, get_peft_model_state_dict

    generator = torch.Generator().manual_seed(seed)
    model = torch.nn.Module()
    model.layer = make_layer(generator)
    model.forward = lambda x: model.layer(x)
    weight, bias = (tensor.data.clone() for tensor in (model.layer.weight, model.layer.bias))
    shape = (2, weight.shape[1], 5, 5) if weight.dim() == 4 else (2, 5, weight.shape[1])
    x = torch.randn(shape, generator=generator)
    adapted = get_peft_model(model, config).eval()
    for parameter_name, parameter in adapted.named_parameters():
        if not parameter.requires_grad and ".base_layer." in parameter_name:
            continue
        around = 1.0 if any(part in parameter_name for part in ("magnitude", "ia3_l", "boft_s")) else 0.0
        parameter.data = around * parameter.data + torch.randn(parameter.shape, generator=generator) * 0.3
    tensors = get_peft_model_state_dict(adapted)
    y = adapted(x)
    merged = adapted.merge_and_unload().layer
    if name != "oft_conv":  # PEFT's layer adds up overlapping patches there, and differs from what it merges
        torch.testing.assert_close(merged(x), y, rtol=1e-4, atol=1e-4)
    out = {f"adapter.{key.split('.layer.')[1]}": tensor for key, tensor in tensors.items()}
    out |= dict(weight=weight, bias=bias, merged_weight=merged.weight.data, merged_bias=merged.bias.data)
    out |= dict(x=x, y=merged(x))
    header = {"adapter_config": json.dumps(config.to_dict(), default=lambda value: sorted(value), sort_keys=True)}
    save_file({key: value.detach().clone().contiguous() for key, value in out.items()},
              FOLDER / f"peft_{name}.safetensors", metadata=header)


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for seed, (name, case) in enumerate(lycoris_cases().items()):
        write_lycoris(name, seed, *case)
    allow_butterflies()
    for seed, (name, case) in enumerate(peft_cases().items()):
        write_peft(name, 200 + seed, *case)
    for seed, model in enumerate(("micro-sd1", "micro-sdxl")):
        write_pictures(model, 100 + seed)
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    print(f"{FOLDER}: {len(list(FOLDER.iterdir()))} files, {size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
