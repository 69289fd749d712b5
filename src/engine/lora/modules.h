// What a module does to a layer's weight W, by kind (s = alpha / rank, or 1):
//
//   LoRA    s up down; with a middle: s up mid down, a convolution of [r, r, kh, kw]
//   LoHa    s (w1_a w1_b) * (w2_a w2_b), element by element; Hyeon-Woo et al. 2021, LyCORIS
//   LoKr    s w1 (x) w2, the Kronecker product, each whole or a product of two; LyCORIS
//   GLoRA   s (W a1 a2 + b1 b2); Chavan et al. 2023, LyCORIS
//   (IA)3   W with each output (or input) channel multiplied by its factor; Liu et al. 2022
//   OFT     (R - I) W, R block-diagonal and orthogonal by Cayley's map; Qiu et al. 2023. PEFT: W
//   R^T - W BOFT    the same with R a product of butterfly factors; Liu et al. 2023 full    diff;
//   the only one for norms DoRA    m (W + D) / |W + D| - W for any D above, norms per output (or
//   input) channel; Liu et
//           al. 2024
//
// An adapter's weight multiplies the whole difference, also for DoRA, OFT and BOFT, as in ComfyUI:
// the same adapter at 0.5 is half way to the trained layer.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "engine/lora/adapter_file.h"
#include "engine/lora/model_layers.h"
#include "engine/nn/row_adapters.h"
#include "engine/nn/tensor_source.h"

namespace limner::engine::lora {

// The difference to W that the module makes, [out, in] or [out, in, kh, kw] float32; undefined
// where it changes only the bias. `weight`: W in float32. Throws Failure(kInvalidModel) naming the
// layer, what was wanted and what came.
at::Tensor weight_difference(const Module& module, const at::Tensor& weight);
// [out] float32, or undefined. `shape`: W's; `bias`: the layer's own in float32, undefined where it
// has none.
at::Tensor bias_difference(const Module& module, at::IntArrayRef shape, const at::Tensor& bias);
// Whether it adds to the bias also of a layer without one.
bool brings_bias(const Module& module);

// The same as branches for run time, in dtypes that layers of `placement` compute with. Only DoRA
// and GLoRA read W, which `layer` has.
std::vector<nn::Branch> branches_of(const Module& module, const Layer& layer,
                                    const nn::Placement& placement);

}  // namespace limner::engine::lora
