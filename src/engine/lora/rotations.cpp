#include "engine/lora/rotations.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace limner::engine::lora {
namespace {

// --- LyCORIS ---

// (I + Q)(I - Q)^-1 for the skew-symmetric Q of `blocks` [..., m, m], whose norm is held under
// alpha * out where alpha is positive.
at::Tensor cayley(const ModuleReader& reader, const at::Tensor& blocks) {
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
at::Tensor butterfly(const ModuleReader& reader, const at::Tensor& blocks) {
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
Rotation lycoris_rotation(const ModuleReader& reader) {
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
  return {.blocks = result - at::eye(result.size(-1)), .on_input = false, .factors = {}};
}

// --- PEFT ---

// I + 2 (Q + Q^2 + ...), cut off as PEFT does: the last of `terms` summands counts once.
at::Tensor neumann_series(const at::Tensor& q, int terms) {
  at::Tensor sum = at::eye(q.size(-1)).expand(q.sizes()).clone();
  if (terms < 2) return sum;
  sum.add_(q, 2.0);
  if (terms == 2) return sum;
  at::Tensor power = at::bmm(q, q);
  sum.add_(power, 2.0);
  for (int term = 3; term < terms - 1; ++term) {
    power = at::bmm(power, q);
    sum.add_(power, 2.0);
  }
  return sum.add_(at::bmm(power, q));
}

// (I - S)(I + S)^-1
at::Tensor cayley_of_skew(const at::Tensor& skew) {
  const at::Tensor eye = at::eye(skew.size(-1));
  return at::matmul(eye - skew, at::linalg_inv(eye + skew));
}

// oft_R: the upper triangles [n or 1, m (m - 1) / 2] of skew matrices, one for all blocks or one
// for each; they mix the inputs, a convolution's at every position.
Rotation peft_rotation(const ModuleReader& reader) {
  const Module& module = reader.module();
  const int64_t width = reader.in() * reader.positions();
  const at::Tensor stored = reader.floats("skew", -1, -1);
  const auto elements = static_cast<double>(stored.size(1));
  const auto size = static_cast<int64_t>(std::llround((1.0 + std::sqrt(1.0 + 8.0 * elements)) / 2));
  const bool shared = stored.size(0) == 1;
  if (size * (size - 1) / 2 != stored.size(1) || width % size != 0 ||
      (!shared && stored.size(0) * size != width)) {
    mismatch(module, "skew", fmt::format("[n, m (m - 1) / 2] with n * m = {} (or n = 1)", width),
             stored.sizes());
  }
  const at::Tensor places = at::triu_indices(size, size, 1);
  at::Tensor skew = at::zeros({stored.size(0), size, size});
  skew.index_put_({at::arange(stored.size(0)).unsqueeze(1), places[0], places[1]}, stored);
  skew = skew - skew.transpose(1, 2);
  at::Tensor blocks =
      module.neumann_terms ? neumann_series(skew, *module.neumann_terms) : cayley_of_skew(skew);
  if (shared) blocks = blocks.expand({width / size, size, size}).contiguous();
  return {.blocks = blocks - at::eye(size), .on_input = true, .factors = {}};
}

// oft_r of PEFT before 0.15: [r or 1, m, m], m = out / r rounded up; they mix the outputs.
Rotation old_peft_rotation(const ModuleReader& reader) {
  const at::Tensor stored = reader.raw("old_blocks").to(at::kFloat);
  if (stored.dim() != 3 || stored.size(1) != stored.size(2) || stored.size(1) == 0 ||
      reader.out() % stored.size(1) != 0 ||
      (stored.size(0) != 1 && stored.size(0) * stored.size(1) != reader.out())) {
    mismatch(reader.module(), "old_blocks",
             fmt::format("[n, m, m] with n * m = {} (or n = 1)", reader.out()), stored.sizes());
  }
  at::Tensor blocks = cayley_of_skew((stored - stored.transpose(1, 2)) * 0.5).transpose(1, 2);
  const int64_t size = stored.size(1);
  blocks = blocks.expand({reader.out() / size, size, size}).contiguous();
  return {.blocks = blocks - at::eye(size), .on_input = false, .factors = {}};
}

// The order in which stage `stage` of PEFT's butterfly takes the inputs: in runs of `size` *
// 2^stage of them, even halves of blocks before odd ones.
at::Tensor butterfly_order(int64_t width, int64_t size, int64_t stage) {
  const int64_t half = size / 2, halves = 2 * (int64_t{1} << stage);
  return at::arange(width).view({-1, halves / 2, 2, half}).transpose(1, 2).reshape({width});
}

// boft_R: [stages, n, m, m]; boft_s: a factor per output.
Rotation peft_butterfly(const ModuleReader& reader) {
  const int64_t width = reader.in() * reader.positions();
  const at::Tensor stored = reader.raw("butterfly").to(at::kFloat);
  const bool square = stored.dim() == 4 && stored.size(2) == stored.size(3);
  const int64_t stages = square ? stored.size(0) : 0, size = square ? stored.size(3) : 0;
  const bool fits = stages > 0 && stages < 40 && size > 0 && stored.size(1) * size == width &&
                    (stages == 1 || (size % 2 == 0 && width % (size << (stages - 1)) == 0));
  if (!fits) {
    mismatch(reader.module(), "butterfly", fmt::format("[any, n, m, m] with n * m = {}", width),
             stored.sizes());
  }
  const at::Tensor rotations =
      cayley_of_skew(((stored - stored.transpose(2, 3)) * 0.5).flatten(0, 1)).view(stored.sizes());
  const at::Tensor factors = reader.numbers("factors", reader.out());
  if (stages == 1) {
    return {.blocks = rotations[0] - at::eye(size), .on_input = true, .factors = factors};
  }
  at::Tensor matrix = at::eye(width);
  for (int64_t stage = 0; stage < stages; ++stage) {
    const at::Tensor order = butterfly_order(width, size, stage);
    const at::Tensor inverse = at::empty_like(order).index_put_({order}, at::arange(width));
    // P blocks P^T times what was before, P picking `order`.
    const at::Tensor sorted = matrix.index_select(0, inverse).view({-1, size, width});
    matrix = at::bmm(rotations[stage], sorted).view({width, width}).index_select(0, order);
  }
  return {.blocks = (matrix - at::eye(width)).unsqueeze(0), .on_input = true, .factors = factors};
}

}  // namespace

Rotation rotation_of(const ModuleReader& reader) {
  const Module& module = reader.module();
  if (module.has("skew")) return peft_rotation(reader);
  if (module.has("old_blocks")) return old_peft_rotation(reader);
  if (module.has("butterfly")) return peft_butterfly(reader);
  return lycoris_rotation(reader);
}

}  // namespace limner::engine::lora
