// The loops of attention_avx512.h over a Dot policy, which says what one 32-bit lane holds: a
// float32, or a pair of bfloat16. Include only from sources compiled with AVX-512 flags; everything
// here has internal linkage.
#pragma once

#include "engine/kernels/attention_avx512.h"
#include "engine/kernels/vector_avx512.h"

namespace limner::engine::kernels::avx512 {
namespace {

constexpr int64_t kKeyBlock = 256;
constexpr int64_t kPanelKeys = 32;
constexpr int kScoreRows = 14;
// Row strides are constants, so that a tile addresses its rows from one register, and no multiple
// of 4 KiB.
constexpr int64_t kQueryStride = kMaxHeadWidth + 16;
constexpr int64_t kScoreStride = kKeyBlock + 16;
constexpr int64_t kSumStride = kMaxHeadWidth + 16;

inline int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

// c[r][16v..] (+)= sum over lanes of a[r][lane] . b[lane][16v..], the rows of `a` broadcast lane by
// lane.
template <typename Dot, int kRows, int kVectors, int64_t kAStride, int64_t kCStride>
void multiply(const float* a, const float* b, int64_t lanes, float* c, bool from_zero) {
  __m512 sum[kRows][kVectors];
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] = from_zero ? _mm512_setzero_ps() : _mm512_load_ps(c + r * kCStride + 16 * v);
    }
  }
  for (int64_t lane = 0; lane < lanes; ++lane, ++a, b += 16 * kVectors) {
    __m512 y[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) y[v] = _mm512_load_ps(b + 16 * v);
#pragma GCC unroll 14
    for (int r = 0; r < kRows; ++r) {
      const __m512 x = _mm512_set1_ps(a[r * kAStride]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[r][v] = Dot::dot(sum[r][v], x, y[v]);
    }
  }
#pragma GCC unroll 14
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) _mm512_store_ps(c + r * kCStride + 16 * v, sum[r][v]);
  }
}

using Multiply = void (*)(const float*, const float*, int64_t, float*, bool);

template <typename Dot, int kVectors, int kTile, int64_t kAStride, int64_t kCStride>
struct Multipliers {
  template <int kRows>
  static constexpr Multiply of =
      multiply<Dot, (kRows < kTile ? kRows : kTile), kVectors, kAStride, kCStride>;
  static constexpr Multiply by_rows[15] = {nullptr, of<1>,  of<2>,  of<3>,  of<4>,
                                           of<5>,   of<6>,  of<7>,  of<8>,  of<9>,
                                           of<10>,  of<11>, of<12>, of<13>, of<14>};
};

// The same for any number of rows, in tiles of at most kTile.
template <typename Dot, int kVectors, int kTile, int64_t kAStride, int64_t kCStride>
void multiply_rows(const float* a, const float* b, int64_t lanes, float* c, int64_t rows,
                   bool from_zero) {
  using Table = Multipliers<Dot, kVectors, kTile, kAStride, kCStride>;
  for (; rows > 0; rows -= kTile, a += kTile * kAStride, c += kTile * kCStride) {
    Table::by_rows[least(rows, kTile)](a, b, lanes, c, from_zero);
  }
}

template <typename Dot>
class AttentionLoops {
 public:
  static int64_t packed_bytes(const Attention& x) { return 4 * (key_floats(x) + value_floats(x)); }
  static int64_t scratch_bytes() { return static_cast<int64_t>(sizeof(Scratch)); }

  static void pack_head(const Attention& x, int64_t head, void* packed) {
    auto* floats = static_cast<float*>(packed);
    pack_keys(x, head_of(x, x.k, head), floats);
    pack_values(x, head_of(x, x.v, head), floats + key_floats(x));
  }

  static void attend(const Attention& x, int64_t head, int64_t query, const void* packed,
                     void* scratch) {
    auto& s = *static_cast<Scratch*>(scratch);
    const int64_t rows = least(kQueryBlock, x.queries - query);
    const Element* q = head_of(x, x.q, head) + query * x.q.row_stride;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t d = 0; d < x.width; d += 16 * Dot::kPair) {
        _mm512_store_ps(s.query + r * kQueryStride + d / Dot::kPair,
                        Dot::load(q + r * x.q.row_stride + d, x.width - d));
      }
      s.top[r] = -__builtin_inff();
      _mm512_store_ps(s.total + 16 * r, _mm512_setzero_ps());
    }
    const auto* keys = static_cast<const float*>(packed);
    const float* values = keys + key_floats(x);
    const int64_t seen = x.causal ? least(x.keys, query + rows) : x.keys;
    for (int64_t key = 0; key < seen; key += kKeyBlock) {
      const int64_t count = least(kKeyBlock, x.keys - key);
      score(x, s, rows, keys + key * lanes_of(x), count);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t visible = x.causal ? least(count, query + r + 1 - key) : count;
        weigh(x, s, r, visible, count, key == 0);
      }
      add_values(x, s, rows, values, key, count);
    }
    write(x, s, head, query, rows);
  }

 private:
  using Element = typename Dot::Element;

  struct Scratch {
    alignas(64) float query[kQueryBlock * kQueryStride];
    alignas(64) float score[kQueryBlock * kScoreStride];  // then the weights, in Dot's lanes
    alignas(64) float sum[kQueryBlock * kSumStride];      // weighted values so far
    alignas(64) float total[kQueryBlock * 16];            // weights so far, sixteen partial sums
    alignas(64) float top[kQueryBlock];                   // largest scaled score so far
  };

  static int64_t lanes_of(const Attention& x) { return (x.width + Dot::kPair - 1) / Dot::kPair; }
  static int64_t vectors_of(const Attention& x) { return (x.width + 15) / 16; }
  static int64_t key_floats(const Attention& x) { return (x.keys + 31) / 32 * 32 * lanes_of(x); }
  static int64_t value_floats(const Attention& x) {
    return (x.keys + Dot::kPair - 1) / Dot::kPair * vectors_of(x) * 16;
  }
  // Values are summed in column groups of 1 to 4 vectors, as even as possible.
  static int64_t groups_of(const Attention& x) { return (vectors_of(x) + 3) / 4; }
  static int64_t group_begin(const Attention& x, int64_t group) {
    return group * vectors_of(x) / groups_of(x);
  }

  static const Element* head_of(const Attention& x, const AttentionOperand& operand, int64_t head) {
    return static_cast<const Element*>(operand.data) + head / x.heads * operand.batch_stride +
           head % x.heads * x.width;
  }

  // Panels [lane][32 keys]; the last panel is 16 keys wide when that is enough.
  static void pack_keys(const Attention& x, const Element* k, float* packed) {
    const int64_t lanes = lanes_of(x);
    for (int64_t key = 0; key < x.keys; key += kPanelKeys) {
      const int64_t width = x.keys - key <= 16 ? 16 : kPanelKeys;
      for (int64_t half = 0; half < width; half += 16) {
        const Element* rows = k + (key + half) * x.k.row_stride;
        for (int64_t lane = 0; lane < lanes; lane += 16) {
          __m512 r[16];
          for (int i = 0; i < 16; ++i) {
            r[i] = key + half + i < x.keys
                       ? Dot::load(rows + i * x.k.row_stride + lane * Dot::kPair,
                                   x.width - lane * Dot::kPair)
                       : _mm512_setzero_ps();
          }
          transpose16(r);
          const int64_t count = least(16, lanes - lane);
          for (int64_t i = 0; i < count; ++i) {
            _mm512_store_ps(packed + (lane + i) * width + half, r[i]);
          }
        }
      }
      packed += width * lanes;
    }
  }

  // Group by group [key lane][16 * vectors of the group]; a lane holds kPair keys of one column.
  static void pack_values(const Attention& x, const Element* v, float* packed) {
    for (int64_t group = 0; group < groups_of(x); ++group) {
      const int64_t begin = 16 * group_begin(x, group), end = 16 * group_begin(x, group + 1);
      for (int64_t key = 0; key < x.keys; key += Dot::kPair) {
        const Element* row = v + key * x.v.row_stride;
        const Element* next = key + 1 < x.keys ? row + x.v.row_stride : nullptr;
        for (int64_t d = begin; d < end; d += 16, packed += 16) {
          _mm512_store_ps(packed, Dot::pair(row + d, next ? next + d : nullptr, x.width - d));
        }
      }
    }
  }

  // Tile by tile of queries, so that a tile stays in the first-level cache while the panels of keys
  // stream past.
  static void score(const Attention& x, Scratch& s, int64_t rows, const float* panels,
                    int64_t count) {
    const int64_t lanes = lanes_of(x);
    for (int64_t r = 0; r < rows; r += kScoreRows) {
      const int64_t tile = least(kScoreRows, rows - r);
      const float* panel = panels;
      for (int64_t key = 0; key < count; key += kPanelKeys, panel += kPanelKeys * lanes) {
        const float* query = s.query + r * kQueryStride;
        float* to = s.score + r * kScoreStride + key;
        if (count - key <= 16) {
          multiply_rows<Dot, 1, kScoreRows, kQueryStride, kScoreStride>(query, panel, lanes, to,
                                                                        tile, true);
        } else {
          multiply_rows<Dot, 2, kScoreRows, kQueryStride, kScoreStride>(query, panel, lanes, to,
                                                                        tile, true);
        }
      }
    }
  }

  // Turns one row of scores into softmax weights against the largest score so far, and scales what
  // was summed before. Keys from `visible` to `count` get weight zero.
  static void weigh(const Attention& x, Scratch& s, int64_t r, int64_t visible, int64_t count,
                    bool first) {
    float* score = s.score + r * kScoreStride;
    const __m512 log2_scale = _mm512_set1_ps(x.scale * 1.44269504088896341f);
    __m512 most = _mm512_set1_ps(-__builtin_inff());
    int64_t j = 0;
    for (; j + 16 <= visible; j += 16) most = _mm512_max_ps(most, _mm512_load_ps(score + j));
    if (j < visible) {
      const __mmask16 mask = tail_mask(visible - j);
      most = _mm512_mask_max_ps(most, mask, most, _mm512_load_ps(score + j));
    }
    const float old_top = s.top[r];
    const float block_top = _mm512_reduce_max_ps(most) * _mm512_cvtss_f32(log2_scale);
    const float new_top = block_top > old_top ? block_top : old_top;
    const __m512 top = _mm512_set1_ps(new_top);
    if (!first && new_top != old_top) rescale(x, s, r, old_top - new_top);
    s.top[r] = new_top;
    __m512 total = _mm512_load_ps(s.total + 16 * r);
    for (j = 0; j < count; j += 16) {
      const __m512 power = _mm512_fmsub_ps(_mm512_load_ps(score + j), log2_scale, top);
      const __m512 weight = _mm512_maskz_mov_ps(tail_mask(visible - j), exp2_nonpositive(power));
      total = _mm512_add_ps(total, weight);
      Dot::store_weights(score, j, weight);
    }
    _mm512_store_ps(s.total + 16 * r, total);
  }

  static void rescale(const Attention& x, Scratch& s, int64_t r, float power) {
    const __m512 factor = exp2_nonpositive(_mm512_set1_ps(power));
    _mm512_store_ps(s.total + 16 * r, _mm512_mul_ps(_mm512_load_ps(s.total + 16 * r), factor));
    float* sum = s.sum + r * kSumStride;
    for (int64_t d = 0; d < x.width; d += 16) {
      _mm512_store_ps(sum + d, _mm512_mul_ps(_mm512_load_ps(sum + d), factor));
    }
  }

  static void add_values(const Attention& x, Scratch& s, int64_t rows, const float* values,
                         int64_t key, int64_t count) {
    const int64_t lanes = (count + Dot::kPair - 1) / Dot::kPair;
    const int64_t all = (x.keys + Dot::kPair - 1) / Dot::kPair;
    const bool first = key == 0;
    for (int64_t group = 0; group < groups_of(x); ++group) {
      const int64_t begin = group_begin(x, group);
      const int64_t vectors = group_begin(x, group + 1) - begin;
      const float* b = values + 16 * (begin * all + vectors * (key / Dot::kPair));
      float* c = s.sum + 16 * begin;
      const float* a = s.score;
      switch (vectors) {
        case 1:
          multiply_rows<Dot, 1, 14, kScoreStride, kSumStride>(a, b, lanes, c, rows, first);
          break;
        case 2:
          multiply_rows<Dot, 2, 14, kScoreStride, kSumStride>(a, b, lanes, c, rows, first);
          break;
        case 3:
          multiply_rows<Dot, 3, 8, kScoreStride, kSumStride>(a, b, lanes, c, rows, first);
          break;
        default:
          multiply_rows<Dot, 4, 7, kScoreStride, kSumStride>(a, b, lanes, c, rows, first);
          break;
      }
    }
  }

  static void write(const Attention& x, const Scratch& s, int64_t head, int64_t query,
                    int64_t rows) {
    auto* out = static_cast<Element*>(x.out) +
                ((head / x.heads * x.queries + query) * x.heads + head % x.heads) * x.width;
    for (int64_t r = 0; r < rows; ++r, out += x.heads * x.width) {
      const float total = _mm512_reduce_add_ps(_mm512_load_ps(s.total + 16 * r));
      const __m512 factor = _mm512_set1_ps(1.0f / total);
      for (int64_t d = 0; d < x.width; d += 16) {
        const __m512 y = _mm512_mul_ps(_mm512_load_ps(s.sum + r * kSumStride + d), factor);
        Dot::store_output(out + d, x.width - d, y);
      }
    }
  }
};

template <typename Dot>
constexpr AttentionKernel kKernel{AttentionLoops<Dot>::packed_bytes,
                                  AttentionLoops<Dot>::scratch_bytes,
                                  AttentionLoops<Dot>::pack_head, AttentionLoops<Dot>::attend};

// What both kinds of bfloat16 policy share.
struct Bfloat16Lanes {
  using Element = uint16_t;
  static constexpr int64_t kPair = 2;

  static __m512 load(const uint16_t* p, int64_t count) {
    const __mmask32 mask = count >= 32 ? 0xffffffffu : (1u << count) - 1u;
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask, p));
  }
  static __m512 pair(const uint16_t* first, const uint16_t* second, int64_t count) {
    const __mmask16 mask = tail_mask(count);
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, first));
    if (second == nullptr) return _mm512_castsi512_ps(low);
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, second));
    return _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
};

}  // namespace
}  // namespace limner::engine::kernels::avx512
