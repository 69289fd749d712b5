// Assignment: a leased job on its way through a worker.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <vector>

#include "contract/job_request.h"
#include "platform/trace/tracer.h"
#include "queue/queue.h"
#include "worker/model_cache.h"

namespace limner::worker {

struct Assignment {
  // `hand_back` asks for the job to be given back at its next step.
  Assignment(queue::Lease leased, std::stop_token hand_back, const platform::Clock& clock)
      : lease(std::move(leased)),
        leased_at(clock.now()),
        on_lease_stop(lease.stop,
                      [this, &clock] {
                        stop_asked_at.store(clock.now().count());
                        stop.request_stop();
                      }),
        on_hand_back(std::move(hand_back), [this] { stop.request_stop(); }) {}

  // Canceled, or the lease is lost; else, where `stop` was asked, to be handed back.
  bool given_up() const { return lease.stop.stop_requested(); }

  const queue::Lease lease;
  const platform::Millis leased_at;
  std::stop_source stop{};                     // ends everything that is done for the job
  std::atomic<std::int64_t> stop_asked_at{0};  // by the monotonic clock
  std::atomic<bool> over{false};               // its lease has ended: what comes is thrown away

  // Set before the drawing begins, not changed after.
  contract::JobRequest request{};
  ModelPlace place{};
  std::shared_ptr<const contract::Catalog> catalog{};
  std::vector<engine::PictureAdapter> adapters{};
  std::optional<Error> problem{};  // why it cannot be drawn at all

  // The thread's alone that stores pictures; the span's traceparent() is everybody's.
  contract::JobResult result{};
  platform::Span span{};

  std::stop_callback<std::function<void()>> on_lease_stop;
  std::stop_callback<std::function<void()>> on_hand_back;
};

}  // namespace limner::worker
