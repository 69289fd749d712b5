// Handing independent tasks to torch's threads.
#pragma once

#include <cstdint>
#include <functional>

namespace limner::engine::kernels {

// Calls work(task) once for every task in [0, tasks) from torch's intra-op threads, each taking the
// next task when it is free, so that a thread the machine takes away does not hold up the rest.
// Serial inside another parallel region.
void parallel_tasks(int64_t tasks, const std::function<void(int64_t)>& work);

// What a thread keeps its scratch memory for: two uses at once need two names.
enum class Scratch { kTask, kPacked };

// 64-byte aligned memory of at least `bytes`, kept by the calling thread until it ends; a later
// call on the same thread for the same use may move it.
void* thread_scratch(Scratch use, int64_t bytes);

}  // namespace limner::engine::kernels
