#include "engine/lora/modules.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <utility>

#include "base/check.h"
#include "engine/lora/module_reader.h"
#include "engine/lora/rotations.h"
#include "engine/weights/message_text.h"

namespace limner::engine::lora {
namespace {

using nn::Branch;
using nn::Delta;
using nn::Factor;

// --- low rank ---

// The middle of a convolution in three steps, [r, r, kh, kw].
at::Tensor middle(const ModuleReader& reader, const char* part, int64_t rows, int64_t columns) {
  const at::Tensor stored = reader.raw(part).to(at::kFloat);
  const auto& shape = reader.shape();
  if (!reader.is_convolution() || stored.dim() != 4 || stored.size(0) != rows ||
      stored.size(1) != columns || stored.size(2) != shape[2] || stored.size(3) != shape[3]) {
    mismatch(reader.module(), part,
             reader.is_convolution() ? shape_text({rows, columns, shape[2], shape[3]})
                                     : std::string("none for a linear layer"),
             stored.sizes());
  }
  return stored;
}

// [r, in * positions]; a middle is folded in.
at::Tensor down_of(const ModuleReader& reader) {
  if (!reader.module().has("mid")) {
    return reader.matrix("down", -1, reader.in() * reader.positions());
  }
  const at::Tensor down = reader.floats("down", -1, reader.in());
  const at::Tensor up = reader.matrix("up", reader.out(), -1);
  const at::Tensor mid = middle(reader, "mid", up.size(1), down.size(0));
  return at::einsum("abhw,bi->aihw", {mid, down}).flatten(1);
}

std::pair<at::Tensor, at::Tensor> low_rank(const ModuleReader& reader) {
  const at::Tensor down = down_of(reader);
  return {down, reader.matrix("up", reader.out(), down.size(0))};
}

// --- LoHa and LoKr ---

// einsum over a core [ra, rb, kh, kw] with a [ra, out] and b [rb, in].
at::Tensor tucker(const ModuleReader& reader, const char* core, const at::Tensor& a,
                  const at::Tensor& b) {
  return at::einsum("ijhw,ip,jr->prhw", {middle(reader, core, a.size(0), b.size(0)), a, b});
}

Delta loha(const ModuleReader& reader) {
  Delta delta{.join = Delta::Join::kHadamard, .shape = reader.shape()};
  if (reader.module().has("t1")) {
    const auto product = [&](const char* core, const char* a, const char* b) {
      return tucker(reader, core, reader.floats(a, -1, reader.out()),
                    reader.floats(b, -1, reader.in()));
    };
    delta.join = Delta::Join::kFirst;
    delta.first.left = product("t1", "w1_a", "w1_b") * product("t2", "w2_a", "w2_b");
    return delta;
  }
  const int64_t columns = reader.in() * reader.positions();
  const auto factor = [&](const char* a, const char* b) {
    const at::Tensor left = reader.floats(a, reader.out(), -1);
    return Factor{left, reader.floats(b, left.size(1), columns)};
  };
  delta.first = factor("w1_a", "w1_b");
  delta.second = factor("w2_a", "w2_b");
  return delta;
}

Delta lokr(const ModuleReader& reader) {
  const Module& module = reader.module();
  Delta delta{.join = Delta::Join::kKronecker, .shape = reader.shape()};
  if (module.has("w1")) {
    delta.first.left = reader.floats("w1", -1, -1);
  } else {
    delta.first.left = reader.floats("w1_a", -1, -1);
    delta.first.right = reader.floats("w1_b", delta.first.left.size(1), -1);
  }
  const at::Tensor& last = delta.first.right.defined() ? delta.first.right : delta.first.left;
  const int64_t rows = delta.first.left.size(0), columns = last.size(1);
  if (rows == 0 || columns == 0 || reader.out() % rows != 0 || reader.in() % columns != 0) {
    mismatch(module, "w1", fmt::format("divisors of [{}, {}]", reader.out(), reader.in()),
             {rows, columns});
  }
  const int64_t out = reader.out() / rows, in = reader.in() / columns;
  std::vector<int64_t> block = reader.shape();
  block[0] = out;
  block[1] = in;
  if (module.has("w2")) {
    delta.second.left = reader.floats("w2", out, in * reader.positions()).reshape(block);
  } else if (module.has("t2")) {
    delta.second.left =
        tucker(reader, "t2", reader.floats("w2_a", -1, out), reader.floats("w2_b", -1, in));
  } else {
    const at::Tensor left = reader.floats("w2_a", out, -1);
    const at::Tensor right = reader.floats("w2_b", left.size(1), in * reader.positions());
    if (reader.is_convolution()) {
      delta.second.left = left.matmul(right).reshape(block);
    } else {
      delta.second = {left, right};
    }
  }
  return delta;
}

// --- GLoRA ---

struct GloraParts {
  at::Tensor a1, a2;  // [in, r], [r, in]
  at::Tensor b1, b2;  // [out, r], [r, in * positions]
};

GloraParts glora(const ModuleReader& reader) {
  const Module& module = reader.module();
  GloraParts parts;
  parts.a1 = reader.floats("a1", reader.in(), -1);
  parts.a2 = reader.floats("a2", parts.a1.size(1), reader.in());
  parts.b1 = reader.floats("b1", reader.out(), -1);
  if (module.has("bm")) {
    const at::Tensor down = reader.floats("b2", -1, reader.in());
    const at::Tensor mid = middle(reader, "bm", parts.b1.size(1), down.size(0));
    parts.b2 = at::einsum("abhw,bi->aihw", {mid, down}).flatten(1);
  } else {
    parts.b2 = reader.floats("b2", parts.b1.size(1), reader.in() * reader.positions());
  }
  return parts;
}

// W with its input channels mixed by `matrix` [in, r].
at::Tensor over_inputs(const at::Tensor& weight, const at::Tensor& matrix) {
  return at::tensordot(weight, matrix, {1}, {0}).movedim(-1, 1);
}

// --- channel factors and rotations ---

// What (IA)3 multiplies W's channels with.
struct ChannelFactors {
  at::Tensor factors;  // [in] or [out]
  bool on_input = false;
};

// PEFT stores 1 + the factor, and on which side by the shape alone: [1, in], [out, 1], or [1, any,
// 1, 1] of a convolution.
bool peft_on_input(const ModuleReader& reader) {
  const auto& stored = reader.module().part("l").shape;
  const std::int64_t count = stored.size() > 1 ? stored[1] : 0;
  const bool output = stored.size() == 2 && stored[0] == reader.out() && count == 1;
  if (output) return false;
  if (stored.size() == 4 && reader.in() == reader.out()) {
    mismatch(reader.module(), "l",
             "a convolution with different numbers of inputs and outputs: the file does not say "
             "which of them it scales",
             stored);
  }
  if (count == reader.in()) return true;
  if (stored.size() != 4 || count != reader.out()) {
    mismatch(reader.module(), "l", fmt::format("[1, {}] or [{}, 1]", reader.in(), reader.out()),
             stored);
  }
  return false;
}

ChannelFactors ia3_of(const ModuleReader& reader) {
  const Module& module = reader.module();
  const bool peft = module.has("l");
  const bool input = peft ? peft_on_input(reader)
                          : scalar_of(module.part("on_input"), module.key_of("on_input")) != 0.0;
  const at::Tensor stored =
      reader.numbers(peft ? "l" : "weight", input ? reader.in() : reader.out());
  return {peft ? stored - 1.0 : stored, input};
}

// [n, m, m] blocks times the rows of W.
at::Tensor mixed_outputs(const at::Tensor& blocks, const at::Tensor& weight) {
  const at::Tensor rows = weight.reshape({blocks.size(0), blocks.size(1), -1});
  return at::bmm(blocks, rows).reshape(weight.sizes());
}

at::Tensor rotated_difference(const Rotation& rotation, const at::Tensor& weight) {
  const at::Tensor& blocks = rotation.blocks;
  if (!rotation.on_input) return mixed_outputs(blocks, weight);
  const at::Tensor rows = weight.reshape({weight.size(0), blocks.size(0), blocks.size(1)});
  const at::Tensor mixed = at::einsum("onm,nkm->onk", {rows, blocks}).reshape(weight.sizes());
  if (!rotation.factors.defined()) return mixed;
  std::vector<int64_t> shape(static_cast<std::size_t>(weight.dim()), 1);
  shape[0] = -1;
  return (weight + mixed) * rotation.factors.view(shape) - weight;
}

// --- all kinds ---

void check_norm(const ModuleReader& reader) {
  const Module& module = reader.module();
  if (module.kind == Kind::kFull && !module.is_dora()) return;
  throw Failure(ErrorCode::kInvalidModel,
                fmt::format("{} is a norm, which a {} module does not change; want a difference "
                            "(w_norm and b_norm, or diff and diff_b)",
                            weights::quote(module.name), name(module.kind)));
}

// The difference before DoRA.
at::Tensor plain_difference(const ModuleReader& reader, const at::Tensor& weight) {
  const Module& module = reader.module();
  const double scale = module.scale();
  if (weight.dim() == 1) check_norm(reader);
  switch (module.kind) {
    case Kind::kLora: {
      const auto [down, up] = low_rank(reader);
      return up.to(at::kFloat).matmul(down.to(at::kFloat)).reshape(weight.sizes()) * scale;
    }
    case Kind::kLoha:
      return loha(reader).dense() * scale;
    case Kind::kLokr:
      return lokr(reader).dense() * scale;
    case Kind::kGlora: {
      const GloraParts parts = glora(reader);
      const at::Tensor own = parts.b1.matmul(parts.b2).reshape(weight.sizes());
      return (over_inputs(over_inputs(weight, parts.a1), parts.a2) + own) * scale;
    }
    case Kind::kIa3: {
      const ChannelFactors ia3 = ia3_of(reader);
      std::vector<int64_t> shape(static_cast<std::size_t>(weight.dim()), 1);
      shape[ia3.on_input ? 1 : 0] = -1;
      return weight * ia3.factors.view(shape);
    }
    case Kind::kOft:
    case Kind::kBoft:
      return rotated_difference(rotation_of(reader), weight);
    case Kind::kFull:
      if (!module.has("diff")) return {};
      return reader.numbers("diff", weight.numel()).view(weight.sizes());
  }
  LIMNER_CHECK(false, "every kind is listed");
  return {};
}

// What DoRA multiplies W + D with.
struct Magnitude {
  at::Tensor factors;  // [out] or [in]
  bool per_output = true;
  at::Tensor over(const at::Tensor& weight) const {
    std::vector<int64_t> shape(static_cast<std::size_t>(weight.dim()), 1);
    shape[per_output ? 0 : 1] = -1;
    return factors.view(shape);
  }
};

Magnitude magnitude(const ModuleReader& reader, const at::Tensor& changed) {
  const Module& module = reader.module();
  const char* part = module.has("magnitude") ? "magnitude" : "dora";
  const auto& stored = module.part(part).shape;
  Magnitude result;
  // PEFT's vector is per output whatever its shape; LyCORIS says by the axis that is not 1.
  result.per_output =
      module.has("magnitude") || stored.size() < 2 || (stored[0] == reader.out() && stored[1] == 1);
  const at::Tensor wanted = reader.numbers(part, result.per_output ? reader.out() : reader.in());
  const at::Tensor channels = result.per_output ? changed : changed.transpose(0, 1);
  const at::Tensor norm = channels.flatten(1).norm(2, at::IntArrayRef{1});
  result.factors = wanted / (norm + 1.1920929e-7);
  return result;
}

at::Tensor placed(const at::Tensor& tensor, const nn::Placement& placement) {
  return tensor.to(placement.device, placement.compute);
}

// As stored where the kernels widen it on the way, which saves copying the adapter.
at::Tensor placed_matrix(const at::Tensor& tensor, const nn::Placement& placement) {
  const bool widened =
      placement.compute == at::kFloat && placement.device.is_cpu() && tensor.element_size() == 2;
  return tensor.to(placement.device, widened ? tensor.scalar_type() : placement.compute);
}

nn::LowRank low_rank_branch(const ModuleReader& reader, const at::Tensor& down,
                            const at::Tensor& up, const nn::Placement& placement) {
  const auto& shape = reader.shape();
  nn::LowRank branch{.down = placed_matrix(down, placement), .up = placed_matrix(up, placement)};
  if (reader.is_convolution()) {
    branch.down = branch.down.reshape({-1, shape[1], shape[2], shape[3]})
                      .contiguous(at::MemoryFormat::ChannelsLast);
    branch.up = branch.up.reshape({shape[0], -1, 1, 1});
  }
  return branch;
}

Branch delta_branch(Delta delta, const nn::Placement& placement) {
  for (Factor* factor : {&delta.first, &delta.second}) {
    if (factor->left.defined()) factor->left = placed(factor->left, placement);
    if (factor->right.defined()) factor->right = placed(factor->right, placement);
  }
  return delta;
}

Branch full_branch(const at::Tensor& difference, const nn::Placement& placement) {
  return delta_branch({.first = {difference, {}}, .shape = difference.sizes().vec()}, placement);
}

// m (W + D) / |W + D| - W = (f - 1) W + f D, with one factor f per channel.
std::vector<Branch> dora_branches(const ModuleReader& reader, const at::Tensor& weight,
                                  const nn::Placement& placement) {
  const Module& module = reader.module();
  const at::Tensor difference = plain_difference(reader, weight);
  const Magnitude m = magnitude(reader, weight + difference);
  std::vector<Branch> branches;
  const at::Tensor rest = placed(m.factors - 1.0, placement);
  if (m.per_output) {
    branches.emplace_back(nn::OutputMix{rest.view({-1, 1, 1})});
  } else {
    branches.emplace_back(nn::InputScale{rest});
  }
  if (module.kind != Kind::kLora) {
    branches.push_back(full_branch(difference * m.over(difference), placement));
    return branches;
  }
  auto [down, up] = low_rank(reader);
  down = down.to(at::kFloat);
  up = up.to(at::kFloat);
  if (m.per_output) {
    up = up * m.factors.unsqueeze(1);
  } else {
    down = (down.view({down.size(0), reader.in(), -1}) * m.factors.view({1, -1, 1})).flatten(1);
  }
  nn::LowRank branch = low_rank_branch(reader, down, up, placement);
  branch.scale = module.scale();
  branches.emplace_back(branch);
  return branches;
}

std::vector<Branch> glora_branches(const ModuleReader& reader, const at::Tensor& weight,
                                   const nn::Placement& placement) {
  if (reader.is_convolution()) return {full_branch(plain_difference(reader, weight), placement)};
  const GloraParts parts = glora(reader);
  nn::LowRank branch = low_rank_branch(reader, at::cat({parts.a2, parts.b2}),
                                       at::cat({weight.matmul(parts.a1), parts.b1}, 1), placement);
  branch.scale = reader.module().scale();
  return {branch};
}

template <typename Weight>
std::vector<Branch> rotation_branches(const ModuleReader& reader, const Weight& weight,
                                      const nn::Placement& placement) {
  const Rotation rotation = rotation_of(reader);
  if (!rotation.on_input) return {nn::OutputMix{placed(rotation.blocks, placement)}};
  if (reader.positions() > 1) {
    return {full_branch(rotated_difference(rotation, weight()), placement)};
  }
  nn::InputMix mix{.blocks = placed(rotation.blocks.transpose(1, 2).contiguous(), placement),
                   .factors = {}};
  if (!rotation.factors.defined()) return {mix};
  mix.factors = placed(rotation.factors, placement);
  return {mix, nn::OutputMix{(mix.factors - 1.0).view({-1, 1, 1})}};
}

// A norm's, which only differences change.
std::vector<Branch> norm_branches(const ModuleReader& reader, const nn::Placement& placement) {
  check_norm(reader);
  const Module& module = reader.module();
  if (!module.has("diff")) return {};
  return {nn::WeightShift{placed(reader.numbers("diff", reader.out()), placement)}};
}

std::vector<Branch> weight_branches(const ModuleReader& reader, const Layer& layer,
                                    const nn::Placement& placement) {
  const Module& module = reader.module();
  const auto weight = [&] { return tensor_of(layer.weight, nullptr).to(at::kFloat); };
  if (layer.is_norm()) return norm_branches(reader, placement);
  if (module.is_dora()) return dora_branches(reader, weight(), placement);
  switch (module.kind) {
    case Kind::kLora: {
      const auto [down, up] = low_rank(reader);
      nn::LowRank branch = low_rank_branch(reader, down, up, placement);
      branch.scale = module.scale();
      return {branch};
    }
    case Kind::kLoha:
    case Kind::kLokr: {
      Delta delta = module.kind == Kind::kLoha ? loha(reader) : lokr(reader);
      delta.scale = module.scale();
      return {delta_branch(std::move(delta), placement)};
    }
    case Kind::kGlora:
      return glora_branches(reader, weight(), placement);
    case Kind::kIa3: {
      const ChannelFactors ia3 = ia3_of(reader);
      const at::Tensor factors = placed(ia3.factors, placement);
      if (ia3.on_input) return {nn::InputScale{factors}};
      return {nn::OutputMix{factors.view({-1, 1, 1})}};
    }
    case Kind::kOft:
    case Kind::kBoft:
      return rotation_branches(reader, weight, placement);
    case Kind::kFull:
      if (!module.has("diff")) return {};
      return {full_branch(reader.numbers("diff", reader.out() * reader.in() * reader.positions())
                              .view(reader.shape()),
                          placement)};
  }
  LIMNER_CHECK(false, "every kind is listed");
  return {};
}

}  // namespace

at::Tensor weight_difference(const Module& module, const at::Tensor& weight) {
  const ModuleReader reader(module, weight.sizes());
  at::Tensor difference = plain_difference(reader, weight);
  if (!module.is_dora() || !difference.defined()) return difference;
  const at::Tensor changed = weight + difference;
  return changed * magnitude(reader, changed).over(changed) - weight;
}

bool brings_bias(const Module& module) {
  return module.has("diff_b") || module.has("up_b");
}

at::Tensor bias_difference(const Module& module, at::IntArrayRef shape, const at::Tensor& bias) {
  const ModuleReader reader(module, shape);
  at::Tensor difference;
  const auto add = [&](const at::Tensor& more) {
    difference = difference.defined() ? difference + more : more;
  };
  if (module.has("diff_b")) add(reader.numbers("diff_b", reader.out()));
  if (module.has("up_b")) add(reader.numbers("up_b", reader.out()) * module.scale());
  if (module.has("l") && bias.defined()) {
    // PEFT's (IA)3 scales what the layer puts out, its bias too.
    const ChannelFactors ia3 = ia3_of(reader);
    if (!ia3.on_input) add(bias * ia3.factors);
  }
  return difference;
}

std::vector<nn::Branch> branches_of(const Module& module, const Layer& layer,
                                    const nn::Placement& placement) {
  std::vector<Branch> branches =
      weight_branches(ModuleReader(module, layer.weight.shape), layer, placement);
  const at::Tensor own =
      layer.bias == nullptr ? at::Tensor() : tensor_of(*layer.bias, nullptr).to(at::kFloat);
  const at::Tensor bias = bias_difference(module, layer.weight.shape, own);
  if (bias.defined()) branches.emplace_back(nn::BiasShift{placed(bias, placement)});
  return branches;
}

}  // namespace limner::engine::lora
