#include "worker/worker_state.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"

namespace limner::worker {
namespace {

using enum WorkerState;

struct StateText {
  WorkerState state;
  std::string_view name;     // in logs and answers
  std::string_view diagram;  // in the diagram
  std::string_view sentence;
};

constexpr std::array<StateText, kWorkerStateCount> kStates = {{
    {kInitializing, "initializing", "Initializing", "Its thread starts; nothing is loaded yet."},
    {kLoadingModel, "loading_model", "LoadingModel", "A model's weights are read into memory."},
    {kIdle, "idle", "Idle", "It waits for a job."},
    {kProcessingRequest, "processing_request", "ProcessingRequest",
     "A job's request is read and checked, and the model it needs is found."},
    {kLoadingAdapters, "loading_adapters", "LoadingAdapters",
     "The adapters of the job are read and fitted to the model."},
    {kGenerating, "generating", "Generating", "Pictures are drawn, step by step, and decoded."},
    {kPostProcessing, "post_processing", "PostProcessing",
     "The finished pictures are handed over, to be encoded and stored on another thread."},
    {kUnloadingModel, "unloading_model", "UnloadingModel",
     "Models used least recently leave the memory, to make room."},
    {kError, "error", "Error", "Loading or drawing failed for a reason that is not the job's."},
    {kRecovering, "recovering", "Recovering",
     "What failed is dropped, so that the next job begins with a fresh model."},
    {kUnhealthy, "unhealthy", "Unhealthy",
     "It does not answer; its job goes to another worker and a fresh thread takes over."},
}};

constexpr Transition kTransitions[] = {
    {kInitializing, kIdle, "started"},
    {kInitializing, kLoadingModel, "a model is loaded ahead"},
    {kLoadingModel, kIdle, "loaded ahead, or the job left"},
    {kLoadingModel, kProcessingRequest, "loaded"},
    {kLoadingModel, kUnloadingModel, "more room is needed"},
    {kLoadingModel, kError, "loading failed"},
    {kLoadingModel, kUnhealthy, "no sign of life"},
    {kIdle, kProcessingRequest, "a job is leased"},
    {kProcessingRequest, kUnloadingModel, "room is needed"},
    {kProcessingRequest, kLoadingModel, "the model is not in memory"},
    {kProcessingRequest, kLoadingAdapters, "it has adapters"},
    {kProcessingRequest, kGenerating, "it has none"},
    {kProcessingRequest, kIdle, "refused, canceled or handed back"},
    {kProcessingRequest, kError, "something broke"},
    {kUnloadingModel, kLoadingModel, "there is room"},
    {kUnloadingModel, kProcessingRequest, "another worker loaded it meanwhile"},
    {kUnloadingModel, kGenerating, "there is room to draw"},
    {kUnloadingModel, kIdle, "refused, canceled or handed back"},
    {kUnloadingModel, kError, "something broke"},
    {kLoadingAdapters, kGenerating, "adapters loaded"},
    {kLoadingAdapters, kIdle, "refused, canceled or handed back"},
    {kLoadingAdapters, kError, "something broke"},
    {kLoadingAdapters, kUnhealthy, "no sign of life"},
    {kGenerating, kUnloadingModel, "room is needed"},
    {kGenerating, kPostProcessing, "all pictures drawn"},
    {kGenerating, kIdle, "refused, canceled or handed back"},
    {kGenerating, kError, "drawing failed"},
    {kGenerating, kUnhealthy, "no sign of life"},
    {kPostProcessing, kIdle, "handed over"},
    {kError, kRecovering, "the model is dropped"},
    {kRecovering, kIdle, "recovered"},
    {kUnhealthy, kInitializing, "reinitialize: a fresh thread takes over"},
};

const StateText& text_of(WorkerState state) {
  return kStates[static_cast<std::size_t>(state)];
}

}  // namespace

std::string_view name(WorkerState state) {
  return text_of(state).name;
}

std::string_view sentence(WorkerState state) {
  return text_of(state).sentence;
}

std::span<const Transition> transitions() {
  return kTransitions;
}

bool is_legal(WorkerState from, WorkerState to) {
  return std::ranges::any_of(
      kTransitions, [&](const Transition& one) { return one.from == from && one.to == to; });
}

std::string state_document() {
  std::string text =
      "# States of a worker\n\n"
      "Written from the table in `src/worker/worker_state.cpp` (its test holds it to that). "
      "`/v1/queue` and `/readyz` tell\neach worker's state with the reason and the time it was "
      "entered.\n\n";
  for (const StateText& state : kStates) {
    text += fmt::format("- `{}`: {}\n", state.name, state.sentence);
  }
  text += "\n```mermaid\nstateDiagram-v2\n    [*] --> Initializing\n";
  for (const Transition& one : kTransitions) {
    text += fmt::format("    {} --> {}: {}\n", text_of(one.from).diagram, text_of(one.to).diagram,
                        one.when);
  }
  return text + "    Idle --> [*]: stopped\n```\n";
}

StateMachine::StateMachine(const platform::Clock& clock) : clock_(clock) {
  report_.reason = "started";
  report_.entered_at = clock.wall().count();
}

void StateMachine::enter(WorkerState state, std::string reason) {
  const std::lock_guard lock(mutex_);
  LIMNER_CHECK(state == report_.state || is_legal(report_.state, state),
               fmt::format("a worker cannot go from {} to {} ({})", name(report_.state),
                           name(state), reason));
  if (state != report_.state) report_.entered_at = clock_.wall().count();
  report_.state = state;
  report_.reason = std::move(reason);
}

StateReport StateMachine::report() const {
  const std::lock_guard lock(mutex_);
  return report_;
}

}  // namespace limner::worker
