#include "engine/kernels/parallel.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>

namespace limner::engine::kernels {

void parallel_tasks(int64_t tasks, const std::function<void(int64_t)>& work) {
  std::atomic<int64_t> next{0};
  const int64_t workers = std::min<int64_t>(tasks, at::get_num_threads());
  at::parallel_for(0, workers, 1, [&](int64_t, int64_t) {
    for (int64_t task = next++; task < tasks; task = next++) work(task);
  });
}

void* thread_scratch(Scratch use, int64_t bytes) {
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  struct Memory {
    std::unique_ptr<void, Free> data;
    int64_t bytes = 0;
  };
  thread_local std::array<Memory, 2> memories;
  Memory& memory = memories[static_cast<std::size_t>(use)];
  if (memory.bytes < bytes) {
    const int64_t size = (bytes + 63) / 64 * 64;
    memory = {};
    memory.data.reset(std::aligned_alloc(64, static_cast<std::size_t>(size)));
    if (!memory.data) throw std::bad_alloc();
    memory.bytes = size;
  }
  return memory.data.get();
}

}  // namespace limner::engine::kernels
