#include "worker/drawing.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "worker/testing.h"

namespace limner::worker {
namespace {

class DrawingTest : public ::testing::Test {
 protected:
  DrawingTest() {
    order_.place.name = "micro-sd1";
    order_.place.composition.model = testing::micro_model("micro-sd1");
    order_.place.composition.precision = engine::Precision::kFloat32;
    order_.place.weight_bytes = engine::describe(order_.place.composition).value().weight_bytes;
    order_.catalog = std::make_shared<contract::Catalog>();
    order_.request.picture.prompt = "a red circle";
    order_.request.picture.width = order_.request.picture.height = 64;
    order_.request.picture.steps = 3;
    order_.request.picture.sampler = "euler";
    order_.request.picture.seed = 1;
    order_.request.picture.num_images = 4;
    hooks_.enter = [this](WorkerState state, const std::string&) {
      if (states_.empty() || states_.back() != state) states_.push_back(state);
    };
    hooks_.stopped = [this] { return stopped_; };
    hooks_.loaded = [](double) {};
    hooks_.stepped = [this](std::int64_t step, std::int64_t steps, double, std::size_t pictures) {
      batches_.push_back(pictures);
      last_step_ = step;
      steps_ = steps;
    };
    hooks_.wants_preview = [] { return false; };
    hooks_.timed = [this](std::string_view stage, double milliseconds) {
      EXPECT_GE(milliseconds, 0.0);
      stages_.emplace_back(stage);
    };
    hooks_.drawn = [this](DrawnPicture picture) { drawn_.push_back(std::move(picture)); };
  }
  Result<DrawingReport> run(std::optional<std::uint64_t> budget = {}) {
    ModelCacheOptions options;
    options.memory_budget = budget;
    return draw(order_, ModelCache::open(options, "cpu").value(), pulse_, hooks_, {});
  }

  DrawingOrder order_;
  DrawingHooks hooks_;
  Pulse pulse_;
  bool stopped_ = false;
  std::vector<WorkerState> states_;
  std::vector<std::size_t> batches_;
  std::int64_t last_step_ = 0, steps_ = 0;
  std::vector<DrawnPicture> drawn_;
  std::vector<std::string> stages_;
};

TEST_F(DrawingTest, TheImagesOfAJobShareModelCalls) {
  const auto report = run();
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_EQ(batches_, std::vector<std::size_t>(3, 4));
  EXPECT_EQ(last_step_, 12);
  EXPECT_EQ(steps_, 12);
  ASSERT_EQ(drawn_.size(), 4u);
  EXPECT_EQ(drawn_[3].drawn_with.seed, 4u);
  EXPECT_EQ(report->images, 4);
  EXPECT_EQ(report->calls, steps_) << "what events counted";
  EXPECT_EQ(stages_, (std::vector<std::string>{"encode", "denoise", "decode"}));
  EXPECT_EQ(report->pixels, 4 * 64 * 64);
  EXPECT_EQ(states_,
            (std::vector<WorkerState>{WorkerState::kLoadingModel, WorkerState::kProcessingRequest,
                                      WorkerState::kGenerating, WorkerState::kPostProcessing}));
  EXPECT_EQ(pulse_.read().limit.count(), 0);
}

TEST_F(DrawingTest, LittleMemoryMakesSmallerBatchesOfTheSamePictures) {
  ASSERT_TRUE(run().ok());
  const std::vector<DrawnPicture> roomy = std::move(drawn_);
  drawn_.clear();
  batches_.clear();
  const auto engine = engine::Engine::load(order_.place.composition, {}).value();
  const engine::MemoryNeed one = engine.memory(64, 64, 2), two = engine.memory(64, 64, 4);
  const std::uint64_t drawing =
      std::max({two.denoise, one.tiled_decode, std::min(one.decode, two.denoise)});
  const auto report = run(one.weights + drawing);
  ASSERT_TRUE(report.ok()) << report.error().message;
  EXPECT_LT(*std::ranges::max_element(batches_), 4u);
  EXPECT_EQ(last_step_, 12);
  ASSERT_EQ(drawn_.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i)
    EXPECT_EQ(drawn_[i].drawn_with.seed, roomy[i].drawn_with.seed);
}

TEST_F(DrawingTest, AStoppedOneEndsBeforeTheNextCallOfTheEngine) {
  const auto stepped = hooks_.stepped;
  hooks_.stepped = [&](std::int64_t step, std::int64_t steps, double seconds,
                       std::size_t pictures) {
    stepped(step, steps, seconds, pictures);
    stopped_ = true;
  };
  EXPECT_EQ(run().error().code, ErrorCode::kCancelled);
  EXPECT_EQ(batches_.size(), 1u);
  EXPECT_TRUE(drawn_.empty());
}

TEST_F(DrawingTest, AnExceptionIsAnErrorOfTheJob) {
  hooks_.at = [](std::string_view point) {
    if (point == "step") throw std::runtime_error("boom");
  };
  const auto report = run();
  EXPECT_EQ(report.error().code, ErrorCode::kInternal);
  EXPECT_NE(report.error().message.find("boom"), std::string::npos);
  EXPECT_EQ(pulse_.read().limit.count(), 0);
}

}  // namespace
}  // namespace limner::worker
