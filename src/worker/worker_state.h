// WorkerState: what a worker is doing, why, and since when.
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <string_view>

#include "platform/clock.h"

namespace limner::worker {

enum class WorkerState : std::uint8_t {
  kInitializing,
  kLoadingModel,
  kIdle,
  kProcessingRequest,
  kLoadingAdapters,
  kGenerating,
  kPostProcessing,
  kUnloadingModel,
  kError,
  kRecovering,
  kUnhealthy,
};
inline constexpr std::size_t kWorkerStateCount = 11;

std::string_view name(WorkerState state);      // "loading_model"
std::string_view sentence(WorkerState state);  // what it means, for people

struct Transition {
  WorkerState from, to;
  std::string_view when;
};
// All there are. docs/worker-states.md is written from this table.
std::span<const Transition> transitions();
bool is_legal(WorkerState from, WorkerState to);
// The document: a sentence per state and the table as a Mermaid diagram.
std::string state_document();

struct StateReport {
  WorkerState state = WorkerState::kInitializing;
  std::string reason{};         // why it was entered: "model miniature"
  std::int64_t entered_at = 0;  // milliseconds since 1970
};

// Any thread may call.
class StateMachine {
 public:
  // `clock` must outlive the machine.
  explicit StateMachine(const platform::Clock& clock);

  // A transition that is not in the table is our own mistake, and ends the process. Entering the
  // state it is in changes the reason alone.
  void enter(WorkerState state, std::string reason);
  StateReport report() const;
  WorkerState state() const { return report().state; }

 private:
  const platform::Clock& clock_;
  mutable std::mutex mutex_;
  StateReport report_;  // by mutex_
};

}  // namespace limner::worker
