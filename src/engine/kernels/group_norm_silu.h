// CUDA kernels behind plain pointers, so that nvcc reads no torch header: group normalisation with
// SiLU over channels-last rows, and the GEGLU gate. Sums are formed in one fixed order: the same
// input gives the same bits.
#pragma once

#include <cstdint>

struct CUstream_st;

namespace limner::engine::kernels::cuda {

using Stream = CUstream_st*;
enum class Element { kFloat32, kFloat16, kBfloat16 };

// x and out [batch][pixels][channels], dense, on the device, like weight and bias [channels].
struct GroupNorm {
  int64_t batch = 0, pixels = 0, channels = 0, groups = 0;
  double eps = 1e-5;
  bool silu = false;
  Element element = Element::kFloat32;
  const void* x = nullptr;
  void* out = nullptr;
  const float* weight = nullptr;
  const float* bias = nullptr;
};

// Floats of device memory that group_norm needs.
int64_t group_norm_workspace(const GroupNorm& norm);
// Queues the work on the stream. Returns null, or CUDA's words for why it could not.
const char* group_norm(const GroupNorm& norm, float* workspace, Stream stream);

// out[row][i] = x[row][i] * gelu(x[row][width + i]), gelu with the error function.
struct Geglu {
  int64_t rows = 0, width = 0;
  Element element = Element::kFloat32;
  const void* x = nullptr;
  void* out = nullptr;
};
const char* geglu(const Geglu& gate, Stream stream);

}  // namespace limner::engine::kernels::cuda
