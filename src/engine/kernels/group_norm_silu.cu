#include "engine/kernels/group_norm_silu.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace limner::engine::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__device__ float widen(float x) {
  return x;
}
__device__ float widen(__half x) {
  return __half2float(x);
}
__device__ float widen(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
__device__ void narrow(float x, float& to) {
  to = x;
}
__device__ void narrow(float x, __half& to) {
  to = __float2half_rn(x);
}
__device__ void narrow(float x, __nv_bfloat16& to) {
  to = __float2bfloat16_rn(x);
}

// Some neighbouring elements read or written in one access.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Pack {
  T at[kWidth];
};

struct Shape {
  int64_t pixels, channels, groups, chunk, chunks;
};

// One block per (chunk of pixels, picture). Writes the sum and the sum of squares of each group's
// numbers less the group's first number: with a number of the group as the origin the squares stay
// exact far from zero.
template <typename T, int kWidth>
__global__ void chunk_moments(Shape shape, const T* x, float2* moments) {
  extern __shared__ float2 partial[];  // [rows][columns]
  const int64_t columns = shape.channels / kWidth, width = shape.channels / shape.groups;
  const T* picture = x + blockIdx.y * shape.pixels * shape.channels;
  const int64_t begin = blockIdx.x * shape.chunk;
  const int64_t end = min(begin + shape.chunk, shape.pixels);
  for (int64_t column = threadIdx.x; column < columns; column += blockDim.x) {
    const float origin = widen(picture[column * kWidth / width * width]);
    float sum = 0.0f, squares = 0.0f;
    for (int64_t pixel = begin + threadIdx.y; pixel < end; pixel += blockDim.y) {
      const auto pack = *reinterpret_cast<const Pack<T, kWidth>*>(picture + pixel * shape.channels +
                                                                  column * kWidth);
      for (int i = 0; i < kWidth; ++i) {
        const float d = widen(pack.at[i]) - origin;
        sum += d;
        squares += d * d;
      }
    }
    partial[threadIdx.y * columns + column] = make_float2(sum, squares);
  }
  __syncthreads();
  for (int64_t group = threadIdx.y * blockDim.x + threadIdx.x; group < shape.groups;
       group += blockDim.x * blockDim.y) {
    float2 total = make_float2(0.0f, 0.0f);
    for (int64_t row = 0; row < blockDim.y; ++row) {
      for (int64_t column = group * width / kWidth; column < (group + 1) * width / kWidth;
           ++column) {
        const float2 part = partial[row * columns + column];
        total.x += part.x;
        total.y += part.y;
      }
    }
    moments[(blockIdx.y * shape.chunks + blockIdx.x) * shape.groups + group] = total;
  }
}

// One thread per (group, picture): y = x * gain + shift for each channel of the group.
template <typename T>
__global__ void group_affine(Shape shape, const T* x, const float2* moments, const float* weight,
                             const float* bias, double eps, float2* affine) {
  const int64_t group = blockIdx.x * blockDim.x + threadIdx.x;
  if (group >= shape.groups) return;
  const int64_t width = shape.channels / shape.groups, picture = blockIdx.y;
  double sum = 0.0, squares = 0.0;
  for (int64_t chunk = 0; chunk < shape.chunks; ++chunk) {
    const float2 part = moments[(picture * shape.chunks + chunk) * shape.groups + group];
    sum += part.x;
    squares += part.y;
  }
  const double count = static_cast<double>(shape.pixels * width);
  const double offset = sum / count;
  const double origin = widen(x[picture * shape.pixels * shape.channels + group * width]);
  const double inverse = rsqrt(fmax(0.0, squares / count - offset * offset) + eps);
  for (int64_t c = group * width; c < (group + 1) * width; ++c) {
    affine[picture * shape.channels + c] =
        make_float2(static_cast<float>(weight[c] * inverse),
                    static_cast<float>(bias[c] - (origin + offset) * inverse * weight[c]));
  }
}

// One thread per pack of one picture (blockIdx.y).
template <typename T, int kWidth>
__global__ void apply_affine(Shape shape, const T* x, const float2* affine, bool silu, T* out) {
  const int64_t packs = shape.pixels * shape.channels / kWidth;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= packs) return;
  const int64_t at = blockIdx.y * packs + i;
  const auto pack = reinterpret_cast<const Pack<T, kWidth>*>(x)[at];
  const float2* map = affine + blockIdx.y * shape.channels + i * kWidth % shape.channels;
  Pack<T, kWidth> result;
  for (int j = 0; j < kWidth; ++j) {
    float y = widen(pack.at[j]) * map[j].x + map[j].y;
    if (silu) y = y / (1.0f + expf(-y));
    narrow(y, result.at[j]);
  }
  reinterpret_cast<Pack<T, kWidth>*>(out)[at] = result;
}

template <typename T, int kWidth>
__global__ void gate(int64_t packs, int64_t row_packs, const T* x, T* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= packs) return;
  const auto* in = reinterpret_cast<const Pack<T, kWidth>*>(x);
  const int64_t left = i / row_packs * 2 * row_packs + i % row_packs;
  const auto value = in[left], gated = in[left + row_packs];
  Pack<T, kWidth> result;
  for (int j = 0; j < kWidth; ++j) {
    const float g = widen(gated.at[j]);
    narrow(widen(value.at[j]) * 0.5f * g * (1.0f + erff(g * 0.70710678f)), result.at[j]);
  }
  reinterpret_cast<Pack<T, kWidth>*>(out)[i] = result;
}

unsigned blocks_for(int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

// Enough chunks to fill a device, each of at least 16 pixels.
Shape shape_of(const GroupNorm& norm) {
  Shape shape{norm.pixels, norm.channels, norm.groups, 0, 0};
  shape.chunk = norm.pixels / 256 > 16 ? norm.pixels / 256 : 16;
  shape.chunks = (norm.pixels + shape.chunk - 1) / shape.chunk;
  return shape;
}

const char* last_error() {
  const cudaError_t error = cudaGetLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

bool is_aligned(const void* p, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(bytes) == 0;
}

template <typename T, int kWidth>
void start_moments(const GroupNorm& norm, const Shape& shape, float2* moments, Stream stream) {
  const int64_t columns = norm.channels / kWidth;
  const int64_t across = columns < kThreads ? columns : kThreads;
  const dim3 block(static_cast<unsigned>(across), static_cast<unsigned>(kThreads / across));
  const dim3 grid(static_cast<unsigned>(shape.chunks), static_cast<unsigned>(norm.batch));
  const std::size_t shared = block.y * static_cast<std::size_t>(columns) * sizeof(float2);
  chunk_moments<T, kWidth>
      <<<grid, block, shared, stream>>>(shape, static_cast<const T*>(norm.x), moments);
}

template <typename T, int kWidth>
void start_apply(const GroupNorm& norm, const Shape& shape, const float2* affine, Stream stream) {
  const dim3 grid(blocks_for(norm.pixels * norm.channels / kWidth),
                  static_cast<unsigned>(norm.batch));
  apply_affine<T, kWidth><<<grid, kThreads, 0, stream>>>(
      shape, static_cast<const T*>(norm.x), affine, norm.silu, static_cast<T*>(norm.out));
}

template <typename T>
const char* run_group_norm(const GroupNorm& norm, float* workspace, Stream stream) {
  constexpr int kWide = 16 / sizeof(T);
  const Shape shape = shape_of(norm);
  auto* affine = reinterpret_cast<float2*>(workspace);
  float2* moments = affine + norm.batch * norm.channels;
  const bool aligned = is_aligned(norm.x, 16) && is_aligned(norm.out, 16);
  if (aligned && norm.channels / norm.groups % 2 == 0) {
    start_moments<T, 2>(norm, shape, moments, stream);
  } else {
    start_moments<T, 1>(norm, shape, moments, stream);
  }
  const dim3 grid(blocks_for(norm.groups), static_cast<unsigned>(norm.batch));
  group_affine<T><<<grid, kThreads, 0, stream>>>(shape, static_cast<const T*>(norm.x), moments,
                                                 norm.weight, norm.bias, norm.eps, affine);
  if (aligned && norm.channels % kWide == 0) {
    start_apply<T, kWide>(norm, shape, affine, stream);
  } else {
    start_apply<T, 1>(norm, shape, affine, stream);
  }
  return last_error();
}

template <typename T>
const char* run_geglu(const Geglu& work, Stream stream) {
  constexpr int kWide = 16 / sizeof(T);
  const auto* x = static_cast<const T*>(work.x);
  auto* out = static_cast<T*>(work.out);
  const int64_t count = work.rows * work.width;
  if (is_aligned(x, 16) && is_aligned(out, 16) && work.width % kWide == 0) {
    gate<T, kWide><<<blocks_for(count / kWide), kThreads, 0, stream>>>(count / kWide,
                                                                       work.width / kWide, x, out);
  } else {
    gate<T, 1><<<blocks_for(count), kThreads, 0, stream>>>(count, work.width, x, out);
  }
  return last_error();
}

}  // namespace

int64_t group_norm_workspace(const GroupNorm& norm) {
  return 2 * norm.batch * (norm.channels + shape_of(norm).chunks * norm.groups);
}

const char* group_norm(const GroupNorm& norm, float* workspace, Stream stream) {
  switch (norm.element) {
    case Element::kFloat32:
      return run_group_norm<float>(norm, workspace, stream);
    case Element::kFloat16:
      return run_group_norm<__half>(norm, workspace, stream);
    case Element::kBfloat16:
      return run_group_norm<__nv_bfloat16>(norm, workspace, stream);
  }
  return "unknown element type";
}

const char* geglu(const Geglu& work, Stream stream) {
  switch (work.element) {
    case Element::kFloat32:
      return run_geglu<float>(work, stream);
    case Element::kFloat16:
      return run_geglu<__half>(work, stream);
    case Element::kBfloat16:
      return run_geglu<__nv_bfloat16>(work, stream);
  }
  return "unknown element type";
}

}  // namespace limner::engine::kernels::cuda
