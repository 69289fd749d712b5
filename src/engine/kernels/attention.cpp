#include "engine/kernels/attention.h"

#include <ATen/ATen.h>

#include <cmath>

#include "engine/kernels/attention_avx512.h"
#include "engine/kernels/cpu_features.h"
#include "engine/kernels/parallel.h"

namespace limner::engine::kernels {
namespace {

double scale_of(const at::Tensor& q, const AttentionOptions& options) {
  return options.scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(2) / options.heads)));
}

at::Tensor split_heads(const at::Tensor& x, int64_t heads) {
  return x.unflatten(-1, {heads, x.size(2) / heads}).transpose(1, 2);  // [B, H, L, D]
}

at::Tensor join_heads(const at::Tensor& x) {
  return x.transpose(1, 2).flatten(2).contiguous();
}

at::Tensor attention_torch(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const AttentionOptions& options) {
  return join_heads(at::scaled_dot_product_attention(
      split_heads(q, options.heads), split_heads(k, options.heads), split_heads(v, options.heads),
      std::nullopt, 0.0, options.causal, options.scale));
}

// Scores of a block of query rows at a time. On processors with fast bfloat16 products but without
// our kernel this is quicker than torch's own fused operator for that type.
at::Tensor attention_in_blocks(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const AttentionOptions& options) {
  constexpr int64_t kRows = 512;
  const at::Tensor queries = split_heads(q, options.heads), values = split_heads(v, options.heads);
  const at::Tensor keys = split_heads(k, options.heads).transpose(2, 3);  // [B, H, D, Lk]
  std::vector<at::Tensor> blocks;
  for (int64_t row = 0; row < q.size(1); row += kRows) {
    const int64_t count = std::min(kRows, q.size(1) - row);
    at::Tensor score = at::matmul(queries.narrow(2, row, count), keys);  // [B, H, rows, Lk]
    score.mul_(scale_of(q, options));
    blocks.push_back(at::matmul(at::softmax(score, -1), values));
  }
  return join_heads(at::cat(blocks, 2));
}

avx512::AttentionOperand operand(const at::Tensor& x) {
  return {x.const_data_ptr(), x.stride(0), x.stride(1)};
}

at::Tensor dense_rows(const at::Tensor& x) {
  return x.stride(2) == 1 ? x : x.contiguous();
}

// Heads are packed a few at a time, so that what is packed stays small and warm.
at::Tensor attention_avx512(const avx512::AttentionKernel& kernel, const at::Tensor& q_any,
                            const at::Tensor& k_any, const at::Tensor& v_any,
                            const AttentionOptions& options) {
  constexpr int64_t kPackedBytes = int64_t{8} << 20;
  const at::Tensor q = dense_rows(q_any), k = dense_rows(k_any), v = dense_rows(v_any);
  at::Tensor out = at::empty(q.sizes(), q.options().memory_format(at::MemoryFormat::Contiguous));
  avx512::Attention work;
  work.heads = options.heads;
  work.queries = q.size(1);
  work.keys = k.size(1);
  work.width = q.size(2) / options.heads;
  work.q = operand(q);
  work.k = operand(k);
  work.v = operand(v);
  work.out = out.mutable_data_ptr();
  work.scale = static_cast<float>(scale_of(q, options));
  work.causal = options.causal;

  const int64_t heads = q.size(0) * options.heads;
  const int64_t head_bytes = (kernel.packed_bytes(work) + 63) / 64 * 64;
  const int64_t group = std::clamp<int64_t>(kPackedBytes / head_bytes, 1, heads);
  const int64_t blocks = (work.queries + avx512::kQueryBlock - 1) / avx512::kQueryBlock;
  // Fresh pages for every call would cost a tenth of the small shapes; a very long head is not
  // worth keeping room for.
  at::Tensor large;  // torch aligns to 64 bytes
  if (group * head_bytes > kPackedBytes) large = at::empty({group * head_bytes}, at::kByte);
  auto* const memory =
      static_cast<char*>(large.defined() ? large.mutable_data_ptr()
                                         : thread_scratch(Scratch::kPacked, group * head_bytes));
  for (int64_t first = 0; first < heads; first += group) {
    const int64_t count = std::min(group, heads - first);
    parallel_tasks(count,
                   [&](int64_t i) { kernel.pack_head(work, first + i, memory + i * head_bytes); });
    parallel_tasks(count * blocks, [&](int64_t task) {
      kernel.attend(work, first + task / blocks, task % blocks * avx512::kQueryBlock,
                    memory + task / blocks * head_bytes,
                    thread_scratch(Scratch::kTask, kernel.scratch_bytes()));
    });
  }
  return out;
}

// For float32 heads wider than this torch's operator, which hands whole blocks to a matrix library,
// is 8 % quicker.
constexpr int64_t kMaxFloatHeadWidth = 256;

bool fits_avx512(const at::Tensor& q, const at::Tensor& k, const AttentionOptions& options,
                 int64_t widest) {
  return q.size(2) / options.heads <= widest && scale_of(q, options) > 0.0 && q.numel() > 0 &&
         k.numel() > 0;
}

}  // namespace

at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const AttentionOptions& options) {
  TORCH_CHECK(q.dim() == 3 && k.dim() == 3 && k.sizes() == v.sizes() && q.size(0) == k.size(0) &&
                  q.size(2) == k.size(2) && options.heads > 0 && q.size(2) % options.heads == 0,
              "[attention] want q, k and v of one batch and width divisible by ", options.heads,
              " heads, got ", q.sizes(), ", ", k.sizes(), " and ", v.sizes());
  if (!q.device().is_cpu() || q.scalar_type() == at::kDouble) {
    return attention_torch(q, k, v, options);
  }
  const bool bfloat16 = q.scalar_type() == at::kBFloat16;
  if (!cpu_features().avx512) {
    return bfloat16 && !options.causal ? attention_in_blocks(q, k, v, options)
                                       : attention_torch(q, k, v, options);
  }
  if (bfloat16 && cpu_features().avx512_bf16 && fits_avx512(q, k, options, avx512::kMaxHeadWidth)) {
    return attention_avx512(avx512::attention_bfloat16(), q, k, v, options);
  }
  if (q.scalar_type() != at::kFloat) {  // no products of this type here: exact in float32
    return attention(q.to(at::kFloat), k.to(at::kFloat), v.to(at::kFloat), options)
        .to(q.scalar_type());
  }
  if (fits_avx512(q, k, options, kMaxFloatHeadWidth)) {
    return attention_avx512(avx512::attention_float32(), q, k, v, options);
  }
  return attention_torch(q, k, v, options);
}

}  // namespace limner::engine::kernels
