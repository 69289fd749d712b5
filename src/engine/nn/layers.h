// The layers every network is made of. All are immutable after construction and safe to call from
// many threads.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "engine/kernels/conv2d.h"
#include "engine/nn/matrix.h"
#include "engine/nn/row_adapters.h"
#include "engine/nn/tensor_source.h"

namespace limner::engine::nn {

// y = x W^T + b. Several layers that read the same x can be fused into one product (to_q, to_k,
// to_v); adapters still find each part by its own name.
class Linear {
 public:
  struct Size {
    int64_t in = 0;
    int64_t out = 0;
    bool bias = true;
  };
  Linear(const TensorSource& source, const Size& size);
  // The products of `parts` (each of `size`) side by side on the last axis.
  static Linear fused(const std::vector<TensorSource>& parts, const Size& size);

  at::Tensor operator()(const at::Tensor& x, const RowAdapters& adapters = no_adapters()) const;

 private:
  Linear(const std::vector<TensorSource>& parts, const Size& size);
  std::vector<std::string> names_;
  int64_t part_width_ = 0;
  Matrix weight_;    // [out * parts, in]
  at::Tensor bias_;  // [out * parts] or undefined
};

class Conv2d {
 public:
  struct Size {
    int64_t in = 0;
    int64_t out = 0;
    int64_t kernel = 3;
    int64_t stride = 1;
    int64_t padding = 1;
  };
  Conv2d(const TensorSource& source, const Size& size);

  at::Tensor operator()(const at::Tensor& x, const RowAdapters& adapters = no_adapters()) const;

 private:
  std::string name_;
  kernels::Conv2dOptions options_;
  Matrix weight_;    // [out, in, k, k], channels last
  at::Tensor bias_;  // [out]
};

// GroupNorm over [B, C, H, W] or [B, C, L].
class GroupNorm {
 public:
  struct Size {
    int64_t channels = 0;
    int64_t groups = 32;
    double eps = 1e-5;
  };
  GroupNorm(const TensorSource& source, const Size& size);
  at::Tensor operator()(const at::Tensor& x, const RowAdapters& adapters = no_adapters()) const;
  // normalise, then x*sigmoid(x), in one pass
  at::Tensor silu(const at::Tensor& x, const RowAdapters& adapters = no_adapters()) const;

 private:
  std::string name_;
  Size size_;
  at::Tensor weight_, bias_;
};

// LayerNorm over the last axis.
class LayerNorm {
 public:
  LayerNorm(const TensorSource& source, int64_t width, double eps = 1e-5);
  at::Tensor operator()(const at::Tensor& x, const RowAdapters& adapters = no_adapters()) const;

 private:
  std::string name_;
  double eps_;
  at::Tensor weight_, bias_;
};

// Rows of a table by index. The table stays in the storage dtype; only the rows asked for are
// widened.
class Embedding {
 public:
  struct Size {
    int64_t rows = 0;
    int64_t width = 0;
  };
  Embedding(const TensorSource& source, const Size& size);
  at::Tensor operator()(const at::Tensor& ids) const;  // int64 [...] -> [..., width], compute dtype
  const at::Tensor& table() const { return table_; }

 private:
  at::Tensor table_;  // [rows, width]
  at::ScalarType compute_;
};

// By its diffusers/transformers name: silu, swish, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu,
// relu, mish. Upper case is accepted, as diffusers does. Throws Failure(kInvalidModel) for a name
// it does not know.
using Activation = at::Tensor (*)(const at::Tensor&);
Activation activation(const std::string& name, const std::string& where);

}  // namespace limner::engine::nn
