#include "worker/worker_state.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <set>

namespace limner::worker {
namespace {

using enum WorkerState;

TEST(WorkerState, TheDocumentIsWhatTheTableSays) {
  std::ifstream file(LIMNER_SOURCE_DIR "/docs/worker-states.md");
  const std::string document{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(document, state_document());
}

TEST(WorkerState, EveryStateIsReachedAndCanBeLeft) {
  std::set<WorkerState> reached = {kInitializing};
  for (std::size_t round = 0; round < kWorkerStateCount; ++round) {
    for (const Transition& one : transitions()) {
      if (reached.contains(one.from)) reached.insert(one.to);
    }
  }
  EXPECT_EQ(reached.size(), kWorkerStateCount);
  std::set<WorkerState> left;
  for (const Transition& one : transitions()) left.insert(one.from);
  EXPECT_EQ(left.size(), kWorkerStateCount);
}

TEST(WorkerState, TheSeedsDiagramIsInTheTable) {
  for (const auto& [from, to] : std::initializer_list<std::pair<WorkerState, WorkerState>>{
           {kInitializing, kLoadingModel},
           {kLoadingModel, kIdle},
           {kIdle, kProcessingRequest},
           {kProcessingRequest, kLoadingAdapters},
           {kLoadingAdapters, kGenerating},
           {kProcessingRequest, kGenerating},
           {kGenerating, kPostProcessing},
           {kPostProcessing, kIdle},
           {kUnloadingModel, kLoadingModel},
           {kGenerating, kError},
           {kLoadingModel, kError},
           {kError, kRecovering}}) {
    EXPECT_TRUE(is_legal(from, to)) << name(from) << " to " << name(to);
  }
}

TEST(StateMachine, KeepsReasonAndTimeOfEntry) {
  platform::ManualClock clock;
  StateMachine machine(clock);
  clock.advance(platform::Millis{5});
  machine.enter(kIdle, "started");
  clock.advance(platform::Millis{7});
  machine.enter(kIdle, "nothing to do");
  EXPECT_EQ(machine.report().reason, "nothing to do");
  EXPECT_EQ(machine.report().entered_at, clock.wall().count() - 7);
}

TEST(StateMachineDeathTest, AnIllegalTransitionEndsTheProcess) {
  platform::ManualClock clock;
  StateMachine machine(clock);
  EXPECT_DEATH(machine.enter(kGenerating, ""), "cannot go from initializing to generating");
}

}  // namespace
}  // namespace limner::worker
