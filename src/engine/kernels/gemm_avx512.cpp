#include "engine/kernels/gemm_avx512.h"

#include <cstring>

#include "engine/kernels/vector_avx512.h"

namespace limner::engine::kernels::avx512 {
namespace {

// A tile of 14 rows by 2 vectors fills 28 of the 32 registers. The packed weights of a block take
// two thirds of a second-level cache of one MiB.
constexpr int64_t kTileRows = 14;
constexpr int64_t kPanel = 32;
constexpr int64_t kBlockK = 320;
constexpr int64_t kRowStride = kBlockK + 16;  // rows 4 KiB apart would share cache sets
constexpr int64_t kBlockN = 16 * kPanel;
constexpr int64_t kChunkM = 144 * kTileRows;

struct Tile {
  const float* a;  // [rows][kRowStride]
  const float* b;  // [k][16 * vectors]
  int64_t k;
  float* out;
  int64_t out_stride;
  const float* bias;  // read when `first`
  bool first;         // start from the bias instead of from what `out` holds
  __mmask16 last;     // lanes of the last vector that exist
};

template <int kRows, int kVectors>
void multiply_tile(const Tile& tile) {
  __m512 sum[kRows][kVectors];
  const auto mask_of = [&](int v) {
    return v == kVectors - 1 ? tile.last : static_cast<__mmask16>(0xffff);
  };
#pragma GCC unroll 2
  for (int v = 0; v < kVectors; ++v) {
    const __m512 start = tile.first && tile.bias
                             ? _mm512_maskz_loadu_ps(mask_of(v), tile.bias + 16 * v)
                             : _mm512_setzero_ps();
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) sum[r][v] = start;
  }
  const float* a = tile.a;
  const float* b = tile.b;
  for (int64_t k = 0; k < tile.k; ++k, ++a, b += 16 * kVectors) {
    __m512 w[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) w[v] = _mm512_load_ps(b + 16 * v);
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
      const __m512 x = _mm512_set1_ps(a[r * kRowStride]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[r][v] = _mm512_fmadd_ps(x, w[v], sum[r][v]);
    }
  }
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
    float* out = tile.out + r * tile.out_stride;
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      __m512 y = sum[r][v];
      if (!tile.first) y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(mask_of(v), out + 16 * v));
      _mm512_mask_storeu_ps(out + 16 * v, mask_of(v), y);
    }
  }
}

using TileFunction = void (*)(const Tile&);
#define LIMNER_TILE_ROW(vectors) \
  {nullptr,                      \
   multiply_tile<1, vectors>,    \
   multiply_tile<2, vectors>,    \
   multiply_tile<3, vectors>,    \
   multiply_tile<4, vectors>,    \
   multiply_tile<5, vectors>,    \
   multiply_tile<6, vectors>,    \
   multiply_tile<7, vectors>,    \
   multiply_tile<8, vectors>,    \
   multiply_tile<9, vectors>,    \
   multiply_tile<10, vectors>,   \
   multiply_tile<11, vectors>,   \
   multiply_tile<12, vectors>,   \
   multiply_tile<13, vectors>,   \
   multiply_tile<14, vectors>}
constexpr TileFunction kTiles[2][kTileRows + 1] = {LIMNER_TILE_ROW(1), LIMNER_TILE_ROW(2)};
#undef LIMNER_TILE_ROW

// weight[n .. n+16][k .. k+count] -> packed[count][stride], widened; rows that do not exist become
// zeros.
template <typename Load>
void pack_strip(const typename Load::Element* weight, int64_t weight_stride, int64_t rows,
                int64_t count, float* packed, int64_t stride) {
  for (int64_t k = 0; k < count; k += 16) {
    const __mmask16 mask = tail_mask(count - k);
    __m512 r[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      r[i] = i < rows ? Load::load(weight + i * weight_stride + k, mask) : _mm512_setzero_ps();
    }
    transpose16(r);
    if (count - k >= 16) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) _mm512_store_ps(packed + (k + i) * stride, r[i]);
    } else {
      for (int i = 0; i < count - k; ++i) _mm512_store_ps(packed + (k + i) * stride, r[i]);
    }
  }
}

// Panels of 32 output columns, the last one 16 wide when that is enough.
template <typename Load>
void pack_weight(const Gemm& gemm, int64_t n_begin, int64_t n_end, int64_t k_begin, int64_t count,
                 float* packed) {
  const auto* weight = static_cast<const typename Load::Element*>(gemm.weight) + k_begin;
  for (int64_t n = n_begin; n < n_end; n += kPanel) {
    const int64_t width = n_end - n <= 16 ? 16 : kPanel;
    for (int64_t half = 0; half < width; half += 16) {
      pack_strip<Load>(weight + (n + half) * gemm.weight_stride, gemm.weight_stride,
                       n_end - n - half, count, packed + half, width);
    }
    packed += width * count;
  }
}

void copy_row(float* to, const float* from, int64_t count) {
  int64_t i = 0;
  for (; i + 16 <= count; i += 16) _mm512_store_ps(to + i, _mm512_loadu_ps(from + i));
  if (i < count) _mm512_store_ps(to + i, _mm512_maskz_loadu_ps(tail_mask(count - i), from + i));
}

// Part [k_begin, k_begin + count) of the patch under output pixel m; k runs over (tap row, tap
// column, channel).
void copy_patch(const Gemm& gemm, int64_t m, int64_t k_begin, int64_t count, float* to) {
  const Patches& p = *gemm.patches;
  const int64_t column = m % p.out_width, row = m / p.out_width % p.out_height;
  const int64_t top = row * p.stride - p.padding, left = column * p.stride - p.padding;
  const float* picture =
      gemm.x + m / (p.out_width * p.out_height) * p.height * p.width * p.channels;
  int64_t tap = k_begin / p.channels, channel = k_begin % p.channels;
  while (count > 0) {
    const int64_t part = p.channels - channel < count ? p.channels - channel : count;
    const int64_t y = top + tap / p.kernel_width, x = left + tap % p.kernel_width;
    if (y < 0 || y >= p.height || x < 0 || x >= p.width) {
      std::memset(to, 0, static_cast<size_t>(part) * sizeof(float));
    } else {
      std::memcpy(to, picture + (y * p.width + x) * p.channels + channel,
                  static_cast<size_t>(part) * sizeof(float));
    }
    to += part;
    count -= part;
    channel = 0;
    ++tap;
  }
}

void pack_rows(const Gemm& gemm, int64_t m_begin, int64_t m_end, int64_t k_begin, int64_t count,
               float* packed) {
  for (int64_t m = m_begin; m < m_end; ++m, packed += kRowStride) {
    if (gemm.patches) {
      copy_patch(gemm, m, k_begin, count, packed);
    } else {
      copy_row(packed, gemm.x + m * gemm.x_stride + k_begin, count);
    }
  }
}

int64_t round_up(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

// The fewest equal parts, each at most `limit`; each part a multiple of `step` but for the last.
int64_t part_size(int64_t total, int64_t parts, int64_t limit, int64_t step) {
  const int64_t least = (total + limit - 1) / limit;
  if (parts < least) parts = least;
  return round_up((total + parts - 1) / parts, step);
}

struct Block {
  int64_t n, n_end, k, count;
};

// One tile's rows, which stay in the first-level cache, against all packed weights of a block.
void multiply_rows(const Gemm& gemm, const Block& block, int64_t m, int64_t count,
                   const float* rows, const float* weight) {
  for (int64_t n = block.n; n < block.n_end; n += kPanel) {
    const int64_t width = block.n_end - n;
    const int vectors = width <= 16 ? 1 : 2;
    Tile tile{};
    tile.a = rows;
    tile.b = weight + (n - block.n) * block.count;
    tile.k = block.count;
    tile.out = gemm.out + m * gemm.out_stride + n;
    tile.out_stride = gemm.out_stride;
    tile.bias = gemm.bias ? gemm.bias + n : nullptr;
    tile.first = block.k == 0;
    tile.last = tail_mask(width - 16 * (vectors - 1));
    kTiles[vectors - 1][count](tile);
  }
}

template <typename Load>
void run_task(const Gemm& gemm, const GemmPlan& plan, int64_t task, float* scratch) {
  const auto least = [](int64_t a, int64_t b) { return a < b ? a : b; };
  Block block{};
  block.n = task % plan.n_tasks * plan.n_step;
  block.n_end = least(block.n + plan.n_step, gemm.n);
  const int64_t m_begin = task / plan.n_tasks * plan.m_step;
  const int64_t m_end = least(m_begin + plan.m_step, gemm.m);
  float* weight = scratch;
  float* rows = scratch + kBlockN * kBlockK;
  const int64_t k_step = part_size(gemm.k, 1, kBlockK, 16);
  for (block.k = 0; block.k < gemm.k; block.k += k_step) {
    block.count = least(k_step, gemm.k - block.k);
    pack_weight<Load>(gemm, block.n, block.n_end, block.k, block.count, weight);
    for (int64_t m = m_begin; m < m_end; m += kTileRows) {
      const int64_t count = least(kTileRows, m_end - m);
      pack_rows(gemm, m, m + count, block.k, block.count, rows);
      multiply_rows(gemm, block, m, count, rows, weight);
    }
  }
}

// kColumns weight rows against kRows rows of x: every weight is loaded once.
template <typename Load, int kRows, int kColumns>
void dot_columns(const Gemm& gemm, int64_t n) {
  const auto* weight = static_cast<const typename Load::Element*>(gemm.weight);
  __m512 sum[kRows][kColumns];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) sum[r][c] = _mm512_setzero_ps();
  }
  for (int64_t k = 0; k < gemm.k; k += 16) {
    const __mmask16 mask = tail_mask(gemm.k - k);
    __m512 w[kColumns];
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      w[c] = Load::load(weight + (n + c) * gemm.weight_stride + k, mask);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const __m512 x = _mm512_maskz_loadu_ps(mask, gemm.x + r * gemm.x_stride + k);
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) sum[r][c] = _mm512_fmadd_ps(x, w[c], sum[r][c]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kColumns; ++c) {
      gemm.out[r * gemm.out_stride + n + c] =
          _mm512_reduce_add_ps(sum[r][c]) + (gemm.bias ? gemm.bias[n + c] : 0.0f);
    }
  }
}

template <typename Load, int kRows>
void dot_rows(const Gemm& gemm, int64_t n, int64_t n_end) {
  constexpr int kColumns = kRows <= 4 ? 4 : 2;
  for (; n + kColumns <= n_end; n += kColumns) dot_columns<Load, kRows, kColumns>(gemm, n);
  for (; n < n_end; ++n) dot_columns<Load, kRows, 1>(gemm, n);
}

template <typename Load>
void dot_few(const Gemm& gemm, int64_t n, int64_t n_end) {
  switch (gemm.m) {
    case 1:
      return dot_rows<Load, 1>(gemm, n, n_end);
    case 2:
      return dot_rows<Load, 2>(gemm, n, n_end);
    case 3:
      return dot_rows<Load, 3>(gemm, n, n_end);
    case 4:
      return dot_rows<Load, 4>(gemm, n, n_end);
    case 5:
      return dot_rows<Load, 5>(gemm, n, n_end);
    case 6:
      return dot_rows<Load, 6>(gemm, n, n_end);
    case 7:
      return dot_rows<Load, 7>(gemm, n, n_end);
    default:
      return dot_rows<Load, 8>(gemm, n, n_end);
  }
}

}  // namespace

GemmPlan gemm_plan(const Gemm& gemm, int64_t threads) {
  GemmPlan plan;
  // Cut the rows first: it keeps the packed weights of a task few. Cut the columns when rows alone
  // are too few tasks.
  plan.m_step =
      part_size(gemm.m, gemm.m >= threads * kChunkM / 2 ? threads : 1, kChunkM, kTileRows);
  plan.m_tasks = (gemm.m + plan.m_step - 1) / plan.m_step;
  int64_t n_parts = (gemm.n + kBlockN - 1) / kBlockN;
  if (plan.m_tasks % threads != 0) n_parts = round_up(n_parts, threads);
  plan.n_step = part_size(gemm.n, n_parts, kBlockN, kPanel);
  plan.n_tasks = (gemm.n + plan.n_step - 1) / plan.n_step;
  return plan;
}

int64_t gemm_scratch_bytes() {
  return (kBlockN * kBlockK + kTileRows * kRowStride) * static_cast<int64_t>(sizeof(float));
}

void gemm_task(const Gemm& gemm, const GemmPlan& plan, int64_t task, void* scratch) {
  auto* floats = static_cast<float*>(scratch);
  switch (gemm.storage) {
    case Storage::kFloat32:
      return run_task<LoadFloat32>(gemm, plan, task, floats);
    case Storage::kBfloat16:
      return run_task<LoadBfloat16>(gemm, plan, task, floats);
    case Storage::kFloat16:
      return run_task<LoadFloat16>(gemm, plan, task, floats);
  }
}

void gemm_few_rows(const Gemm& gemm, int64_t n_begin, int64_t n_end) {
  switch (gemm.storage) {
    case Storage::kFloat32:
      return dot_few<LoadFloat32>(gemm, n_begin, n_end);
    case Storage::kBfloat16:
      return dot_few<LoadBfloat16>(gemm, n_begin, n_end);
    case Storage::kFloat16:
      return dot_few<LoadFloat16>(gemm, n_begin, n_end);
  }
}

}  // namespace limner::engine::kernels::avx512
