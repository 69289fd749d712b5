#include "engine/lora/modules.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "base/check.h"

namespace limner::engine::lora {
namespace {

using nn::Branch;
using nn::Delta;
using nn::Factor;

at::ScalarType scalar_type(weights::DType dtype) {
  switch (dtype) {
    case weights::DType::kF16:
      return at::kHalf;
    case weights::DType::kBF16:
      return at::kBFloat16;
    case weights::DType::kF64:
      return at::kDouble;
    default:
      return at::kFloat;
  }
}

std::string text(at::IntArrayRef shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

[[noreturn]] void mismatch(const Module& module, const std::string& part, const std::string& want,
                           at::IntArrayRef got) {
  throw Failure(ErrorCode::kInvalidModel, fmt::format("{} does not fit the layer: want {}, got {}",
                                                      module.key_of(part), want, text(got)));
}

// One layer, its shape and a module for it.
class Reader {
 public:
  Reader(const Module& module, at::IntArrayRef shape) : module_(module), shape_(shape.vec()) {}

  int64_t out() const { return shape_[0]; }
  int64_t in() const { return shape_[1]; }
  int64_t positions() const { return shape_.size() == 4 ? shape_[2] * shape_[3] : 1; }
  bool is_convolution() const { return shape_.size() == 4; }
  const std::vector<int64_t>& shape() const { return shape_; }
  const Module& module() const { return module_; }

  // As stored.
  at::Tensor raw(const char* part) const { return tensor_of(module_.part(part)); }
  // A matrix of `rows` x `columns` (-1: any), convolutions flattened; `as` names the sizes.
  at::Tensor matrix(const char* part, int64_t rows, int64_t columns) const {
    const at::Tensor stored = raw(part);
    const at::Tensor flat = stored.dim() >= 2 ? stored.flatten(1) : stored;
    const auto fits = [](int64_t size, int64_t want) { return want < 0 || size == want; };
    if (flat.dim() != 2 || !fits(flat.size(0), rows) || !fits(flat.size(1), columns)) {
      const auto size = [](int64_t want) { return want < 0 ? "any" : std::to_string(want); };
      mismatch(module_, part, fmt::format("[{}, {}]", size(rows), size(columns)), stored.sizes());
    }
    return flat;
  }
  at::Tensor floats(const char* part, int64_t rows, int64_t columns) const {
    return matrix(part, rows, columns).to(at::kFloat);
  }
  // `count` numbers of any shape.
  at::Tensor numbers(const char* part, int64_t count) const {
    const at::Tensor stored = raw(part);
    if (stored.numel() != count) {
      mismatch(module_, part, fmt::format("{} numbers", count), stored.sizes());
    }
    return stored.to(at::kFloat).reshape({count});
  }

 private:
  const Module& module_;
  std::vector<int64_t> shape_;
};

// --- low rank ---

// The middle of a convolution in three steps, [r, r, kh, kw].
at::Tensor middle(const Reader& reader, const char* part, int64_t rows, int64_t columns) {
  const at::Tensor stored = reader.raw(part).to(at::kFloat);
  const auto& shape = reader.shape();
  if (!reader.is_convolution() || stored.dim() != 4 || stored.size(0) != rows ||
      stored.size(1) != columns || stored.size(2) != shape[2] || stored.size(3) != shape[3]) {
    mismatch(reader.module(), part,
             reader.is_convolution() ? text({rows, columns, shape[2], shape[3]})
                                     : std::string("none for a linear layer"),
             stored.sizes());
  }
  return stored;
}

// [r, in * positions]; a middle is folded in.
at::Tensor down_of(const Reader& reader) {
  if (!reader.module().has("mid")) {
    return reader.matrix("down", -1, reader.in() * reader.positions());
  }
  const at::Tensor down = reader.floats("down", -1, reader.in());
  const at::Tensor up = reader.matrix("up", reader.out(), -1);
  const at::Tensor mid = middle(reader, "mid", up.size(1), down.size(0));
  return at::einsum("abhw,bi->aihw", {mid, down}).flatten(1);
}

std::pair<at::Tensor, at::Tensor> low_rank(const Reader& reader) {
  const at::Tensor down = down_of(reader);
  return {down, reader.matrix("up", reader.out(), down.size(0))};
}

// --- LoHa and LoKr ---

// einsum over a core [ra, rb, kh, kw] with a [ra, out] and b [rb, in].
at::Tensor tucker(const Reader& reader, const char* core, const at::Tensor& a,
                  const at::Tensor& b) {
  return at::einsum("ijhw,ip,jr->prhw", {middle(reader, core, a.size(0), b.size(0)), a, b});
}

Delta loha(const Reader& reader) {
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

Delta lokr(const Reader& reader) {
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

GloraParts glora(const Reader& reader) {
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

bool on_input(const Module& module) {
  return scalar_of(module.part("on_input"), module.key_of("on_input")) != 0.0;
}

// (I + Q)(I - Q)^-1 for the skew-symmetric Q of `blocks` [..., m, m], whose norm is held under
// alpha * out where alpha is positive.
at::Tensor cayley(const Reader& reader, const at::Tensor& blocks) {
  at::Tensor q = blocks - blocks.transpose(-1, -2);
  const double limit = reader.module().alpha.value_or(0.0) * static_cast<double>(reader.out());
  if (limit > 0.0) {
    const double norm = q.norm().item<double>() + 1e-8;
    if (norm > limit) q = q * (limit / norm);
  }
  const at::Tensor eye = at::eye(blocks.size(-1));
  return at::matmul(eye + q, at::linalg_inv(eye - q));
}

// R of a BOFT module as one matrix [out, out]: its butterfly stages applied to the identity.
at::Tensor butterfly(const Reader& reader, const at::Tensor& blocks) {
  const int64_t stages = blocks.size(0), size = blocks.size(2);
  if (blocks.size(3) != size || size % 2 != 0 || blocks.size(1) * size != reader.out()) {
    mismatch(reader.module(), "blocks", fmt::format("[any, n, m, m] with n * m = {}", reader.out()),
             blocks.sizes());
  }
  const at::Tensor rotations = cayley(reader, blocks);
  at::Tensor matrix = at::eye(reader.out());
  for (int64_t stage = 0; stage < stages; ++stage) {
    const int64_t reach = (int64_t{1} << std::min<int64_t>(stage, 40)) * (size / 2);
    if (reader.out() % (2 * reach) != 0) {
      mismatch(reader.module(), "blocks", fmt::format("fewer than {} stages", stage + 1),
               blocks.sizes());
    }
    matrix = matrix.unflatten(0, {-1, 2, reach}).transpose(1, 2).flatten(0, 2);
    matrix = at::bmm(rotations[stage], matrix.unflatten(0, {-1, size})).flatten(0, 1);
    matrix = matrix.unflatten(0, {-1, reach, 2}).transpose(1, 2).flatten(0, 2);
  }
  return matrix;
}

// What an OFT or BOFT module multiplies W with from the left, minus the identity: [n, m, m].
at::Tensor rotation(const Reader& reader) {
  const Module& module = reader.module();
  const at::Tensor blocks = reader.raw("blocks").to(at::kFloat);
  at::Tensor result;
  if (module.kind == Kind::kBoft) {
    result = butterfly(reader, blocks).unsqueeze(0);
  } else {
    if (blocks.dim() != 3 || blocks.size(1) != blocks.size(2) ||
        blocks.size(0) * blocks.size(1) != reader.out()) {
      mismatch(module, "blocks", fmt::format("[n, m, m] with n * m = {}", reader.out()),
               blocks.sizes());
    }
    result = cayley(reader, blocks).transpose(-1, -2);
  }
  if (module.has("rescale")) {
    const at::Tensor rescale = reader.numbers("rescale", reader.out());
    result = result * rescale.view({result.size(0), result.size(1), 1});
  }
  return result - at::eye(result.size(-1));
}

// [n, m, m] blocks times the rows of W.
at::Tensor mixed_outputs(const at::Tensor& blocks, const at::Tensor& weight) {
  const at::Tensor rows = weight.reshape({blocks.size(0), blocks.size(1), -1});
  return at::bmm(blocks, rows).reshape(weight.sizes());
}

// --- all kinds ---

// The difference before DoRA.
at::Tensor plain_difference(const Reader& reader, const at::Tensor& weight) {
  const Module& module = reader.module();
  const double scale = module.scale();
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
      const bool input = on_input(module);
      std::vector<int64_t> shape(static_cast<std::size_t>(weight.dim()), 1);
      shape[input ? 1 : 0] = -1;
      return weight * reader.numbers("weight", input ? reader.in() : reader.out()).view(shape);
    }
    case Kind::kOft:
    case Kind::kBoft:
      return mixed_outputs(rotation(reader), weight);
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

Magnitude magnitude(const Reader& reader, const at::Tensor& changed) {
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

nn::LowRank low_rank_branch(const Reader& reader, const at::Tensor& down, const at::Tensor& up,
                            const nn::Placement& placement) {
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
std::vector<Branch> dora_branches(const Reader& reader, const at::Tensor& weight,
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

std::vector<Branch> glora_branches(const Reader& reader, const at::Tensor& weight,
                                   const nn::Placement& placement) {
  if (reader.is_convolution()) return {full_branch(plain_difference(reader, weight), placement)};
  const GloraParts parts = glora(reader);
  nn::LowRank branch = low_rank_branch(reader, at::cat({parts.a2, parts.b2}),
                                       at::cat({weight.matmul(parts.a1), parts.b1}, 1), placement);
  branch.scale = reader.module().scale();
  return {branch};
}

std::vector<Branch> weight_branches(const Reader& reader, const Layer& layer,
                                    const nn::Placement& placement) {
  const Module& module = reader.module();
  const auto weight = [&] { return tensor_of(layer.weight).to(at::kFloat); };
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
      if (on_input(module)) {
        return {nn::InputScale{placed(reader.numbers("weight", reader.in()), placement)}};
      }
      const at::Tensor factors = reader.numbers("weight", reader.out());
      return {nn::OutputMix{placed(factors, placement).view({-1, 1, 1})}};
    }
    case Kind::kOft:
    case Kind::kBoft:
      return {nn::OutputMix{placed(rotation(reader), placement)}};
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

at::Tensor tensor_of(const weights::TensorView& view) {
  at::Tensor copy = at::empty(view.shape, scalar_type(view.dtype));
  if (!view.bytes.empty()) {
    std::memcpy(copy.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  }
  return copy;
}

at::Tensor weight_difference(const Module& module, const at::Tensor& weight) {
  const Reader reader(module, weight.sizes());
  at::Tensor difference = plain_difference(reader, weight);
  if (!module.is_dora() || !difference.defined()) return difference;
  const at::Tensor changed = weight + difference;
  return changed * magnitude(reader, changed).over(changed) - weight;
}

at::Tensor bias_difference(const Module& module, int64_t out) {
  if (!module.has("diff_b")) return {};
  return Reader(module, {out, 1}).numbers("diff_b", out);
}

std::vector<nn::Branch> branches_of(const Module& module, const Layer& layer,
                                    const nn::Placement& placement) {
  std::vector<Branch> branches =
      weight_branches(Reader(module, layer.weight.shape), layer, placement);
  const at::Tensor bias = bias_difference(module, layer.weight.shape[0]);
  if (bias.defined()) branches.emplace_back(nn::BiasShift{placed(bias, placement)});
  return branches;
}

}  // namespace limner::engine::lora
