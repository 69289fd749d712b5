// Times the engine's kernels at the shapes of SD 1.5 and SDXL beside torch's own operators, in
// turns, in one run.
//
//   kernels_bench [linear|conv2d|attention|normalization|all] [threads]
//
// Prints the least seconds of each over some rounds, the rate, and ours over torch's (below 1 is
// faster).
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "engine/kernels/attention.h"
#include "engine/kernels/conv2d.h"
#include "engine/kernels/linear.h"
#include "engine/kernels/normalization.h"

namespace {

namespace kernels = limner::engine::kernels;
using Work = std::function<void()>;

// With one thread its own processor time, which a busy machine disturbs least; else the time on the
// clock.
double now() {
  timespec time{};
  clock_gettime(at::get_num_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double seconds(const Work& work) {
  const double begin = now();
  work();
  return now() - begin;
}

struct Comparison {
  std::string name;
  double work = 0;  // floating point operations, or bytes
  const char* unit = "GFLOP/s";
};

// Runs both in turns, so that a busy machine disturbs both alike.
void compare(const Comparison& what, const Work& ours, const Work& torch) {
  constexpr int kRounds = 9;
  constexpr double kEnough = 1.5;  // seconds
  ours();
  torch();
  double best_ours = 1e9, best_torch = 1e9;
  const double begin = now();
  for (int i = 0; i < 3 || (i < kRounds && now() - begin < kEnough); ++i) {
    best_ours = std::min(best_ours, seconds(ours));
    best_torch = std::min(best_torch, seconds(torch));
  }
  std::printf("%-44s %9.2f ms %7.0f %s   torch %9.2f ms %7.0f   ratio %.2f\n", what.name.c_str(),
              best_ours * 1e3, what.work / best_ours * 1e-9, what.unit, best_torch * 1e3,
              what.work / best_torch * 1e-9, best_ours / best_torch);
  std::fflush(stdout);
}

template <typename... Numbers>
std::string label(const char* format, Numbers... numbers) {
  char text[96];
  std::snprintf(text, sizeof text, format, numbers...);
  return text;
}

// Ours multiplies by weights stored in bfloat16; torch by a float32 copy of them.
void bench_linear() {
  struct Shape {
    int m, k, n;
  };
  for (const auto [m, k, n] :
       {Shape{8192, 320, 320}, Shape{8192, 320, 960}, Shape{8192, 320, 2560},
        Shape{8192, 1280, 320}, Shape{2048, 640, 640}, Shape{2048, 640, 5120},
        Shape{2048, 2560, 640}, Shape{512, 1280, 1280}, Shape{512, 1280, 10240},
        Shape{512, 5120, 1280}, Shape{128, 1280, 1280}, Shape{154, 768, 320},
        Shape{154, 2048, 1280}, Shape{77, 768, 3072}, Shape{2, 320, 1280}, Shape{2, 1280, 1280}}) {
    const at::Tensor x = at::randn({m, k}), w = at::randn({n, k}), b = at::randn({n});
    const at::Tensor stored = w.to(at::kBFloat16);
    compare(
        {label("linear %d x %d -> %d", m, k, n), 2.0 * m * k * n},
        [&] { kernels::linear(x, stored, b); }, [&] { at::linear(x, w, b); });
  }
}

void bench_conv2d() {
  struct Shape {
    int batch, in, out, side, kernel, stride;
  };
  for (const auto s :
       {Shape{2, 4, 320, 64, 3, 1}, Shape{2, 320, 320, 64, 3, 1}, Shape{2, 640, 320, 64, 3, 1},
        Shape{2, 320, 320, 64, 3, 2}, Shape{2, 640, 320, 64, 1, 1}, Shape{2, 640, 640, 32, 3, 1},
        Shape{2, 1280, 1280, 16, 3, 1}, Shape{2, 2560, 1280, 16, 3, 1},
        Shape{2, 1280, 1280, 8, 3, 1}, Shape{2, 2560, 1280, 8, 3, 1}, Shape{2, 320, 4, 64, 3, 1},
        Shape{1, 512, 512, 128, 3, 1}, Shape{1, 256, 256, 256, 3, 1}, Shape{1, 128, 128, 512, 3, 1},
        Shape{1, 128, 3, 512, 3, 1}}) {
    const auto last = at::MemoryFormat::ChannelsLast;
    const at::Tensor x = at::randn({s.batch, s.in, s.side, s.side}).contiguous(last);
    const at::Tensor w = at::randn({s.out, s.in, s.kernel, s.kernel}).contiguous(last);
    const at::Tensor stored = w.to(at::kBFloat16), b = at::randn({s.out});
    const int64_t stride = s.stride, padding = s.kernel / 2, side = s.side / s.stride;
    compare(
        {label("conv2d %d x %d -> %d, %dx%d, k%d s%d", s.batch, s.in, s.out, s.side, s.side,
               s.kernel, s.stride),
         2.0 * s.batch * side * side * s.in * s.out * s.kernel * s.kernel},
        [&] { kernels::conv2d(x, stored, b, {stride, padding}); },
        [&] { at::conv2d(x, w, b, {stride, stride}, {padding, padding}); });
  }
}

void bench_attention() {
  struct Shape {
    int batch, heads, queries, keys, width;
  };
  for (const auto s :
       {Shape{2, 8, 4096, 4096, 40}, Shape{2, 8, 1024, 1024, 80}, Shape{2, 8, 256, 256, 160},
        Shape{2, 8, 64, 64, 160}, Shape{2, 8, 4096, 77, 40}, Shape{2, 8, 1024, 77, 80},
        Shape{2, 8, 256, 77, 160}, Shape{2, 10, 4096, 4096, 64}, Shape{2, 10, 1024, 1024, 64},
        Shape{2, 20, 1024, 1024, 64}, Shape{2, 20, 256, 256, 64}, Shape{2, 20, 1024, 77, 64},
        Shape{1, 1, 4096, 4096, 512}, Shape{1, 1, 16384, 16384, 512}, Shape{2, 12, 77, 77, 64}}) {
    const int64_t width = s.heads * s.width;
    const at::Tensor q = at::randn({s.batch, s.queries, width});
    const at::Tensor k = at::randn({s.batch, s.keys, width});
    const at::Tensor v = at::randn({s.batch, s.keys, width});
    const auto split = [&](const at::Tensor& x) {
      return x.view({s.batch, x.size(1), s.heads, s.width}).transpose(1, 2);
    };
    compare(
        {label("attention %d x %d heads of %d, %d on %d", s.batch, s.heads, s.width, s.queries,
               s.keys),
         4.0 * s.batch * s.heads * s.queries * s.keys * s.width},
        [&] { kernels::attention(q, k, v, {.heads = s.heads}); },
        [&] {
          at::scaled_dot_product_attention(split(q), split(k), split(v))
              .transpose(1, 2)
              .reshape({s.batch, s.queries, width});
        });
  }
}

void bench_normalization() {
  struct Shape {
    int batch, channels, side;
  };
  for (const auto s : {Shape{2, 320, 64}, Shape{2, 960, 64}, Shape{2, 640, 32}, Shape{2, 1280, 16},
                       Shape{2, 2560, 8}, Shape{1, 512, 128}, Shape{1, 128, 512}}) {
    const at::Tensor x =
        at::randn({s.batch, s.channels, s.side, s.side}).contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor w = at::randn({s.channels}), b = at::randn({s.channels});
    compare(
        {label("group_norm+silu %d x %d, %dx%d", s.batch, s.channels, s.side, s.side),
         2.0 * static_cast<double>(x.nbytes()), "GB/s   "},
        [&] { kernels::group_norm(x, w, b, {.silu = true}); },
        [&] {
          at::Tensor y = at::group_norm(x, 32, w, b);
          at::silu_(y);
        });
  }
  struct Gate {
    int rows, width;
  };
  for (const auto [rows, width] : {Gate{8192, 1280}, Gate{2048, 2560}, Gate{512, 5120}}) {
    const at::Tensor x = at::randn({rows, 2 * width});
    compare(
        {label("geglu %d x %d", rows, width), 1.5 * static_cast<double>(x.nbytes()), "GB/s   "},
        [&] { kernels::geglu(x); },
        [&] {
          const auto halves = x.chunk(2, -1);
          const at::Tensor y = halves[0] * at::gelu(halves[1]);
        });
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "all";
  at::set_num_threads(argc > 2 ? std::atoi(argv[2]) : 2);
  const at::NoGradGuard no_grad;
  at::manual_seed(1);
  if (what == "linear" || what == "all") bench_linear();
  if (what == "conv2d" || what == "all") bench_conv2d();
  if (what == "attention" || what == "all") bench_attention();
  if (what == "normalization" || what == "all") bench_normalization();
  return 0;
}
