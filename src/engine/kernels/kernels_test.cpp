#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <mutex>
#include <set>
#include <thread>

#include "engine/kernels/attention.h"
#include "engine/kernels/attention_avx512.h"
#include "engine/kernels/conv2d.h"
#include "engine/kernels/cpu_features.h"
#include "engine/kernels/linear.h"
#include "engine/kernels/normalization.h"
#include "engine/kernels/parallel.h"

namespace limner::engine::kernels {
namespace {

double relative_error(const at::Tensor& got, const at::Tensor& want) {
  EXPECT_EQ(got.sizes(), want.sizes());
  const double scale = want.abs().max().item<double>();
  return (got.to(at::kDouble) - want).abs().max().item<double>() / std::max(scale, 1e-30);
}

TEST(ParallelTasks, UseSeveralThreadsAndRunEachTaskOnce) {
  const int threads = at::get_num_threads();
  at::set_num_threads(2);
  std::mutex mutex;
  std::set<std::thread::id> workers;
  std::multiset<int64_t> done;
  parallel_tasks(8, [&](int64_t task) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const std::lock_guard lock(mutex);
    workers.insert(std::this_thread::get_id());
    done.insert(task);
  });
  EXPECT_EQ(workers.size(), 2u);
  EXPECT_EQ(done, (std::multiset<int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  at::set_num_threads(threads);
}

struct LinearCase {
  int64_t m, k, n;
};

class LinearTest : public testing::TestWithParam<LinearCase> {};

TEST_P(LinearTest, EqualsDoublePrecisionForEveryStorage) {
  const auto [m, k, n] = GetParam();
  at::manual_seed(7);
  const at::Tensor x = at::randn({m, k});
  const at::Tensor bias = at::randn({n});
  for (const at::ScalarType storage : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor weight = at::randn({n, k}).to(storage);
    const at::Tensor want =
        at::linear(x.to(at::kDouble), weight.to(at::kDouble), bias.to(at::kDouble));
    EXPECT_LE(relative_error(linear(x, weight, bias), want), 2e-6) << storage;
    const at::Tensor plain = at::linear(x.to(at::kDouble), weight.to(at::kDouble));
    EXPECT_LE(relative_error(linear(x, weight, at::Tensor()), plain), 2e-6) << storage;
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, LinearTest,
                         testing::Values(LinearCase{1, 1, 1}, LinearCase{2, 320, 1280},
                                         LinearCase{3, 37, 5}, LinearCase{8, 100, 33},
                                         LinearCase{9, 17, 15}, LinearCase{15, 16, 16},
                                         LinearCase{77, 768, 100}, LinearCase{600, 321, 400},
                                         LinearCase{2100, 50, 47}, LinearCase{131, 1300, 33}));

struct ConvCase {
  int64_t batch, in, out, height, width, kernel, stride, padding;
};

class Conv2dTest : public testing::TestWithParam<ConvCase> {};

TEST_P(Conv2dTest, EqualsDoublePrecisionForEveryStorageAndLayout) {
  const ConvCase c = GetParam();
  at::manual_seed(7);
  const at::Tensor x = at::randn({c.batch, c.in, c.height, c.width});
  const at::Tensor bias = at::randn({c.out});
  for (const at::ScalarType storage : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const at::Tensor weight = at::randn({c.out, c.in, c.kernel, c.kernel}).to(storage);
    const at::Tensor want =
        at::conv2d(x.to(at::kDouble), weight.to(at::kDouble), bias.to(at::kDouble),
                   {c.stride, c.stride}, {c.padding, c.padding});
    const Conv2dOptions options{c.stride, c.padding};
    const auto last = at::MemoryFormat::ChannelsLast;
    const at::Tensor got = conv2d(x.contiguous(last), weight.contiguous(last), bias, options);
    EXPECT_LE(relative_error(got, want), 2e-6) << storage;
    EXPECT_TRUE(got.is_contiguous(last));
    const at::Tensor plain = conv2d(x, weight, bias, options);
    EXPECT_LE(relative_error(plain, want), 2e-6) << storage;
    EXPECT_EQ(plain.suggest_memory_format(), x.suggest_memory_format());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Sizes, Conv2dTest,
    testing::Values(ConvCase{1, 1, 1, 1, 1, 1, 1, 0}, ConvCase{2, 4, 33, 9, 7, 3, 1, 1},
                    ConvCase{1, 37, 4, 13, 11, 3, 2, 1}, ConvCase{1, 37, 20, 13, 11, 3, 2, 1},
                    ConvCase{2, 320, 32, 8, 8, 3, 1, 1}, ConvCase{1, 130, 40, 12, 12, 1, 1, 0},
                    ConvCase{1, 16, 16, 10, 9, 3, 2, 0}, ConvCase{2, 24, 17, 30, 31, 3, 1, 1}));

struct AttentionCase {
  int64_t batch, heads, queries, keys, width;
  bool causal = false;
};

at::Tensor reference_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const AttentionOptions& options) {
  const auto split = [&](const at::Tensor& x) {
    return x.to(at::kDouble)
        .unflatten(-1, {options.heads, x.size(2) / options.heads})
        .transpose(1, 2);
  };
  at::Tensor score = at::matmul(split(q), split(k).transpose(2, 3));
  score = score * options.scale.value_or(1.0 / std::sqrt(double(q.size(2) / options.heads)));
  if (options.causal) {
    const at::Tensor seen = at::ones({q.size(1), k.size(1)}, at::kBool).tril();
    score = score.masked_fill(seen.logical_not(), -INFINITY);
  }
  return at::matmul(at::softmax(score, -1), split(v)).transpose(1, 2).flatten(2);
}

class AttentionTest : public testing::TestWithParam<AttentionCase> {
 protected:
  void SetUp() override {
    const AttentionCase c = GetParam();
    at::manual_seed(3);
    q_ = at::randn({c.batch, c.queries, c.heads * c.width}) * 2;
    k_ = at::randn({c.batch, c.keys, c.heads * c.width}) * 2;
    v_ = at::randn({c.batch, c.keys, c.heads * c.width});
    options_.heads = c.heads;
    options_.causal = c.causal;
  }
  at::Tensor q_, k_, v_;
  AttentionOptions options_;
};

TEST_P(AttentionTest, EqualsDoublePrecision) {
  const at::Tensor want = reference_attention(q_, k_, v_, options_);
  EXPECT_LE(relative_error(attention(q_, k_, v_, options_), want), 5e-6);
  options_.scale = 0.3 / std::sqrt(double(GetParam().width));
  const at::Tensor scaled = reference_attention(q_, k_, v_, options_);
  EXPECT_LE(relative_error(attention(q_, k_, v_, options_), scaled), 5e-6);
}

TEST_P(AttentionTest, ReadsSlicesOfOneFusedTensor) {
  if (q_.size(1) != k_.size(1)) return;  // only self attention is fused
  const std::vector<at::Tensor> parts = at::cat({q_, k_, v_}, -1).chunk(3, -1);
  const at::Tensor got = attention(parts[0], parts[1], parts[2], options_);
  EXPECT_TRUE(at::equal(got, attention(q_, k_, v_, options_)));
}

TEST_P(AttentionTest, DoesNotDependOnTheNumberOfThreads) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = attention(q_, k_, v_, options_);
  at::set_num_threads(3);
  EXPECT_TRUE(at::equal(attention(q_, k_, v_, options_), one));
  at::set_num_threads(threads);
}

TEST_P(AttentionTest, SmallTypesStayWithinTheirRounding) {
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
    const at::Tensor q = q_.to(type), k = k_.to(type), v = v_.to(type);
    const at::Tensor got = attention(q, k, v, options_);
    EXPECT_EQ(got.scalar_type(), type);
    EXPECT_LE(relative_error(got, reference_attention(q, k, v, options_)), 2e-2) << type;
  }
}

// The bfloat16 kernel's packing and loops, with the pair product written out.
TEST_P(AttentionTest, Bfloat16PairsGoThroughTheSameLoops) {
  if (!cpu_features().avx512) GTEST_SKIP() << "needs AVX-512";
  const AttentionCase c = GetParam();
  if (c.width > avx512::kMaxHeadWidth) GTEST_SKIP() << "wider than the kernel takes";
  const at::Tensor q = q_.to(at::kBFloat16), k = k_.to(at::kBFloat16), v = v_.to(at::kBFloat16);
  at::Tensor got = at::full_like(q, NAN);
  avx512::Attention work;
  work.heads = c.heads;
  work.queries = c.queries;
  work.keys = c.keys;
  work.width = c.width;
  work.q = {q.const_data_ptr(), q.stride(0), q.stride(1)};
  work.k = {k.const_data_ptr(), k.stride(0), k.stride(1)};
  work.v = {v.const_data_ptr(), v.stride(0), v.stride(1)};
  work.out = got.mutable_data_ptr();
  work.scale = 1.0f / std::sqrt(static_cast<float>(c.width));
  work.causal = c.causal;
  std::vector<avx512::AttentionKernel> kernels{avx512::attention_bfloat16_emulated()};
  if (cpu_features().avx512_bf16) kernels.push_back(avx512::attention_bfloat16());
  for (const avx512::AttentionKernel& kernel : kernels) {
    const at::Tensor packed = at::empty({kernel.packed_bytes(work)}, at::kByte);
    const at::Tensor scratch = at::empty({kernel.scratch_bytes()}, at::kByte);
    for (int64_t head = 0; head < c.batch * c.heads; ++head) {
      kernel.pack_head(work, head, packed.mutable_data_ptr());
      for (int64_t query = 0; query < c.queries; query += avx512::kQueryBlock) {
        kernel.attend(work, head, query, packed.const_data_ptr(), scratch.mutable_data_ptr());
      }
    }
    EXPECT_LE(relative_error(got, reference_attention(q, k, v, options_)), 1e-2);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Sizes, AttentionTest,
    testing::Values(AttentionCase{1, 1, 1, 1, 1}, AttentionCase{2, 3, 5, 7, 17},
                    AttentionCase{2, 8, 256, 256, 40}, AttentionCase{1, 2, 300, 77, 40},
                    AttentionCase{2, 2, 113, 259, 64}, AttentionCase{1, 2, 64, 64, 160},
                    AttentionCase{1, 1, 130, 515, 80}, AttentionCase{1, 1, 40, 300, 96},
                    AttentionCase{1, 1, 30, 33, 128}, AttentionCase{1, 1, 200, 280, 512},
                    AttentionCase{1, 1, 150, 90, 200}, AttentionCase{1, 1, 20, 30, 520},
                    AttentionCase{2, 12, 77, 77, 64, true}, AttentionCase{1, 2, 600, 600, 33, true},
                    AttentionCase{1, 1, 4, 20, 8, true}));

TEST(Attention, LargeScoresNeitherOverflowNorTurnIntoNan) {
  const at::Tensor q = at::full({1, 20, 16}, 1e4), k = at::randn({1, 40, 16}) * 1e3;
  const at::Tensor v = at::randn({1, 40, 16});
  const AttentionOptions options;
  EXPECT_LE(relative_error(attention(q, k, v, options), reference_attention(q, k, v, options)),
            1e-5);
}

struct NormCase {
  int64_t batch, channels, height, width, groups;
};

class GroupNormTest : public testing::TestWithParam<NormCase> {};

TEST_P(GroupNormTest, EqualsDoublePrecisionInEveryLayout) {
  const NormCase c = GetParam();
  at::manual_seed(5);
  const at::Tensor x = at::randn({c.batch, c.channels, c.height, c.width}) * 3 + 1;
  const at::Tensor weight = at::randn({c.channels}), bias = at::randn({c.channels});
  for (const bool silu : {false, true}) {
    at::Tensor want = at::group_norm(x.to(at::kDouble), c.groups, weight.to(at::kDouble),
                                     bias.to(at::kDouble), 1e-5);
    if (silu) at::silu_(want);
    const GroupNormOptions options{c.groups, 1e-5, silu};
    const at::Tensor last = x.contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor got = group_norm(last, weight, bias, options);
    EXPECT_LE(relative_error(got, want), 2e-6);
    EXPECT_TRUE(got.is_contiguous(at::MemoryFormat::ChannelsLast));
    EXPECT_LE(relative_error(group_norm(x, weight, bias, options), want), 2e-6);
    const at::Tensor rows = last.permute({0, 2, 3, 1}).flatten(1, 2).transpose(1, 2);  // [B, C, L]
    EXPECT_LE(relative_error(group_norm(rows, weight, bias, options), want.flatten(2)), 2e-6);
    const at::Tensor small = group_norm(last.to(at::kBFloat16), weight, bias, options);
    EXPECT_EQ(small.scalar_type(), at::kBFloat16);
    EXPECT_LE(relative_error(small, want), 2e-2);
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, GroupNormTest,
                         testing::Values(NormCase{1, 2, 1, 2, 1}, NormCase{2, 6, 3, 5, 3},
                                         NormCase{2, 320, 16, 16, 32}, NormCase{1, 960, 8, 9, 32},
                                         NormCase{3, 70, 20, 13, 7}, NormCase{1, 128, 40, 30, 32}));

TEST(GroupNorm, KeepsItsPrecisionFarFromZero) {
  at::manual_seed(5);
  const at::Tensor x =
      (at::randn({1, 64, 32, 32}) + 1000).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor weight = at::ones({64}), bias = at::zeros({64});
  const at::Tensor want =
      at::group_norm(x.to(at::kDouble), 8, weight.to(at::kDouble), bias.to(at::kDouble), 1e-5);
  // One number near 1000 is itself rounded by 6e-5.
  EXPECT_LE(relative_error(group_norm(x, weight, bias, {8, 1e-5, false}), want), 5e-5);
}

TEST(GroupNorm, DoesNotDependOnTheNumberOfThreads) {
  at::manual_seed(5);
  const at::Tensor x = at::randn({2, 64, 40, 40}).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor weight = at::randn({64}), bias = at::randn({64});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = group_norm(x, weight, bias, {32, 1e-5, true});
  at::set_num_threads(3);
  EXPECT_TRUE(at::equal(group_norm(x, weight, bias, {32, 1e-5, true}), one));
  at::set_num_threads(threads);
}

TEST(GroupNorm, SiluOfLargeNumbersStaysFinite) {
  const at::Tensor x = at::randn({1, 32, 4, 4}).contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor weight = at::full({32}, 1e6), bias = at::zeros({32});
  const at::Tensor got = group_norm(x, weight, bias, {32, 1e-5, true});
  EXPECT_TRUE(at::isfinite(got).all().item<bool>());
  EXPECT_GE(got.min().item<float>(), -1e-6f);
}

TEST(Geglu, EqualsDoublePrecision) {
  at::manual_seed(5);
  for (const auto& shape : {std::vector<int64_t>{1, 2}, {3, 5, 34}, {2, 77, 2560}, {700, 130}}) {
    const at::Tensor x = at::randn(shape) * 3;
    const auto halves = x.to(at::kDouble).chunk(2, -1);
    const at::Tensor want = halves[0] * at::gelu(halves[1]);
    // The gate's absolute error is below 2e-7 of itself or of one, whichever is more.
    const at::Tensor bound = 5e-7 * halves[0].abs() * (1 + halves[1].abs());
    EXPECT_TRUE(((geglu(x) - want).abs() <= bound + 1e-6 * want.abs()).all().item<bool>());
    EXPECT_LE(relative_error(geglu(x.to(at::kBFloat16)), want), 2e-2);
  }
}

TEST(Geglu, GateEqualsGeluEverywhere) {
  const at::Tensor gate = at::linspace(-12, 12, 4001);
  const at::Tensor x = at::stack({at::ones_like(gate), gate}, -1);
  const at::Tensor want = at::gelu(gate.to(at::kDouble));
  EXPECT_LE((geglu(x).squeeze(-1) - want).abs().max().item<double>(), 1e-6);
}

TEST(Cuda, NormalisationAndGateEqualDoublePrecision) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no CUDA device";
  at::manual_seed(5);
  const std::vector<std::pair<at::ScalarType, double>> bounds{
      {at::kFloat, 3e-6}, {at::kHalf, 2e-3}, {at::kBFloat16, 1.5e-2}};
  for (const auto& [type, bound] : bounds) {
    for (const NormCase& c : {NormCase{2, 320, 16, 16, 32}, NormCase{1, 2560, 8, 8, 32},
                              NormCase{2, 21, 5, 7, 3}, NormCase{1, 128, 100, 90, 32}}) {
      const at::Tensor x = (at::randn({c.batch, c.channels, c.height, c.width}) * 3 + 1).to(type);
      const at::Tensor weight = at::randn({c.channels}), bias = at::randn({c.channels});
      const at::Tensor want = at::silu(at::group_norm(
          x.to(at::kDouble), c.groups, weight.to(at::kDouble), bias.to(at::kDouble), 1e-5));
      const at::Tensor there = x.to(at::kCUDA).contiguous(at::MemoryFormat::ChannelsLast);
      const at::Tensor got =
          group_norm(there, weight.to(at::kCUDA), bias.to(at::kCUDA), {c.groups, 1e-5, true});
      EXPECT_LE(relative_error(got.cpu(), want), bound) << type;
    }
    for (const int64_t width : {1, 37, 1280}) {
      const at::Tensor x = at::randn({9, 2 * width}).to(type);
      const auto halves = x.to(at::kDouble).chunk(2, -1);
      const at::Tensor want = halves[0] * at::gelu(halves[1]);
      EXPECT_LE(relative_error(geglu(x.to(at::kCUDA)).cpu(), want), bound) << type;
    }
  }
}

}  // namespace
}  // namespace limner::engine::kernels
