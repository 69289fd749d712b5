#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>
#include <fstream>
#include <nlohmann/json.hpp>

#include "engine/engine.h"
#include "worker/testing.h"

namespace limner::worker {
namespace {

using contract::JobStatus;
using testing::Gate;
using testing::milliseconds;
using WorkerTest = testing::Service;

// What the engine draws of it alone, as `limner generate` does.
image::Bitmap drawn_alone(const contract::JobRequest& asked, const engine::Composition& model,
                          std::int64_t index = 0) {
  engine::Engine engine = engine::Engine::load(model, {}).value();
  const auto request = *contract::validate(asked.picture, engine.limits(), 0).request;
  engine::Picture picture = engine.begin(request, index).value();
  engine::Picture* one[] = {&picture};
  while (!picture.done()) engine.step(one).value_or_throw();
  return engine.finish(picture).value();
}

TEST_F(WorkerTest, AStoredPictureIsTheOneThatTheEngineDrawsAlone) {
  start();
  const contract::Job job = ended(submit(request()));
  const contract::JobResult made = result(job);
  ASSERT_EQ(made.images.size(), 1u);
  const contract::Artifact& artifact = made.images.front();
  EXPECT_EQ(artifact.seed, 7u);
  EXPECT_EQ(artifact.image.format, "png");
  EXPECT_EQ(artifact.image.width, 64);

  const std::vector<std::uint8_t> png = stored(artifact.image);
  const auto text = image::read_png_text(png).value();
  EXPECT_NE(text.at("parameters").find("a red circle\nSteps: 4, Sampler: "), std::string::npos);
  image::EncodeOptions options;
  options.text = text;
  EXPECT_EQ(
      image::encode(drawn_alone(request(), catalog_->place("micro-sd1")->composition), options)
          .value(),
      png);
}

TEST_F(WorkerTest, ProgressPicturesTimesAndUsageAreTold) {
  pool_options_.worker.progress_every = milliseconds(0);
  pool_options_.worker.preview_every = milliseconds(0);
  catalog_options_.hashes = folder_.path() / "hashes";
  start();
  catalog_->wait_for_hashes();
  contract::JobRequest asked = request();
  asked.picture.num_images = 3;
  asked.output.thumbnails = {32};
  const std::string id = submit(asked);
  const contract::JobResult made = result(ended(id));

  ASSERT_EQ(made.images.size(), 3u);
  const std::vector<std::string> images = told(id, "image");
  ASSERT_EQ(images.size(), 3u);
  for (std::size_t index = 0; index < 3; ++index) {
    const contract::Artifact& artifact = made.images[index];
    EXPECT_EQ(artifact.index, static_cast<std::int64_t>(index));
    EXPECT_EQ(artifact.seed, 7 + index);
    ASSERT_EQ(artifact.thumbnails.size(), 1u);
    EXPECT_EQ(artifact.thumbnails[0].width, 32);
    EXPECT_EQ(stored(artifact.thumbnails[0]).size(), artifact.thumbnails[0].bytes);
    EXPECT_EQ(contract::to_text(artifact), images[index]);
  }
  const std::vector<std::string> progress = told(id, "progress");
  EXPECT_EQ(progress.front(), R"({"step":3,"steps":12,"value":0.2500})");
  EXPECT_EQ(progress.back(), R"({"step":12,"steps":12,"value":1.0000})");
  const auto preview = nlohmann::json::parse(told(id, "preview").front());
  const std::string begins = preview.at("data_base64").get<std::string>().substr(0, 4);
  EXPECT_EQ(begins, preview.at("content_type") == "image/jpeg" ? "/9j/" : "iVBO");

  EXPECT_EQ(made.model_name, "micro-sd1");
  EXPECT_EQ(made.model_hash.size(), 64u);
  EXPECT_GT(made.timings.denoise, 0.0);
  EXPECT_GT(made.timings.decode, 0.0);
  EXPECT_GT(made.timings.post, 0.0);
  const auto usage = table_->usage(0, 10).value();
  ASSERT_EQ(usage.size(), 1u);
  EXPECT_EQ(usage[0].usage.images, 3);
  EXPECT_EQ(usage[0].usage.steps, 12);
  EXPECT_EQ(usage[0].usage.pixels, 3 * 64 * 48);
}

TEST_F(WorkerTest, ACancelEndsAJobWithinOneStep) {
  Gate gate;
  std::atomic<int> steps = 0;
  pool_options_.worker.at = [&](std::string_view point) {
    if (point == "step" && ++steps == 2) gate.pass();
  };
  gate.close();
  start();
  const std::string id = submit(request());
  ASSERT_TRUE(gate.somebody_waits());
  EXPECT_EQ(queue_->cancel(id).value(), JobStatus::kRunning);
  gate.open();
  EXPECT_EQ(ended(id).status, JobStatus::kCanceled);
  EXPECT_EQ(steps, 2);  // the one that was under way, and no other
  EXPECT_EQ(result(ended(submit(request()))).images.size(), 1u);
}

TEST_F(WorkerTest, AJobWhoseLeaseIsLostStopsAndItsLateEndIsNotWritten) {
  Gate gate;
  std::atomic<int> steps = 0;
  queue_options_.lease = milliseconds(1'000);
  pool_options_.heartbeat_every = std::chrono::hours(1);  // a worker that forgot about it
  pool_options_.worker.at = [&](std::string_view point) {
    if (point == "step" && ++steps == 1) gate.pass();
  };
  gate.close();
  start();
  const std::string id = submit(request());
  ASSERT_TRUE(gate.somebody_waits());
  ASSERT_TRUE(soon([&] { return found(id).crashes == 1; }));
  gate.open();
  const contract::Job job = ended(id);
  EXPECT_EQ(job.status, JobStatus::kCompleted);
  EXPECT_EQ(job.attempt, 2);
  EXPECT_EQ(told(id, "completed").size(), 1u);
  EXPECT_EQ(steps, 5);  // one of the first attempt, four of the second
}

TEST_F(WorkerTest, HeartbeatsKeepAJobThatTakesLongerThanALease) {
  Gate gate;
  std::atomic<int> steps = 0;
  queue_options_.lease = milliseconds(300);
  pool_options_.heartbeat_every = milliseconds(20);
  pool_options_.worker.at = [&](std::string_view point) {
    if (point == "step" && ++steps == 1) gate.pass();
  };
  gate.close();
  start();
  const std::string id = submit(request());
  ASSERT_TRUE(gate.somebody_waits());
  std::this_thread::sleep_for(milliseconds(700));
  gate.open();
  EXPECT_EQ(ended(id).attempt, 1);
}

TEST_F(WorkerTest, DrainingFinishesWhatRunsAndLeavesTheRestInTheQueue) {
  Gate gate;
  pool_options_.worker.at = [&](std::string_view point) {
    if (point == "step") gate.pass();
  };
  gate.close();
  start();
  const std::string runs = submit(request()), waits = submit(request("a blue square"));
  ASSERT_TRUE(gate.somebody_waits());
  bool all = false;
  std::thread drain([&] { all = pool_->drain(milliseconds(20'000)); });
  gate.open();
  drain.join();
  EXPECT_TRUE(all);
  EXPECT_EQ(found(runs).status, JobStatus::kCompleted);
  EXPECT_EQ(found(waits).status, JobStatus::kQueued);
  EXPECT_EQ(found(waits).attempt, 0);
}

TEST_F(WorkerTest, WhatRunsLongerThanADrainMayIsHandedBackUnharmed) {
  Gate gate;
  pool_options_.worker.at = [&](std::string_view point) {
    if (point == "step") gate.pass();
  };
  gate.close();
  start();
  const std::string id = submit(request());
  ASSERT_TRUE(gate.somebody_waits());
  std::thread opens([&] {
    std::this_thread::sleep_for(milliseconds(200));
    gate.open();
  });
  EXPECT_FALSE(pool_->drain(milliseconds(20)));
  opens.join();
  const contract::Job job = found(id);
  EXPECT_EQ(job.status, JobStatus::kQueued);
  EXPECT_EQ(job.failures + job.crashes, 0);
}

TEST_F(WorkerTest, AHungThreadIsGivenUpAndItsJobRunsOnAFreshOne) {
  // Outlives the service: the thread that hangs is left behind.
  static Gate gate;
  static std::atomic<int> steps = 0;
  queue_options_.lease = milliseconds(1'000);
  pool_options_.heartbeat_every = milliseconds(20);
  pool_options_.worker.patience.call = milliseconds(1'500);
  pool_options_.worker.at = [](std::string_view point) {
    if (point == "step" && ++steps == 2) gate.pass();
  };
  gate.close();
  start();
  const std::string id = submit(request());
  ASSERT_TRUE(gate.somebody_waits());
  const contract::Job job = ended(id);
  EXPECT_EQ(job.status, JobStatus::kCompleted);
  EXPECT_EQ(job.attempt, 2);
  EXPECT_EQ(job.crashes, 1);
  EXPECT_EQ(pool_->report().front().hangs, 1u);
  EXPECT_TRUE(pool_->ready());
  EXPECT_TRUE(pool_->left_behind());
  pool_->stop();
  gate.open();
  ASSERT_TRUE(gate.nobody_waits());
  EXPECT_EQ(told(id, "completed").size(), 1u);
  // It sees that it is cut off, and ends.
  std::this_thread::sleep_for(milliseconds(100));
  EXPECT_EQ(steps, 6);
}

// Of the compressed pixels of a PNG: whatever its text says.
std::string pixels_of(const std::vector<std::uint8_t>& png) {
  const std::string bytes(png.begin(), png.end());
  return bytes.substr(bytes.find("IDAT"));
}

TEST_F(WorkerTest, AdaptersLeaveNothingBehind) {
  add_model("miniature", testing::source() / "models/miniature");
  testing::fs::create_symlink(testing::source() / "loras/hollow.safetensors",
                              folder_.path() / "loras/hollow.safetensors");
  start();
  contract::JobRequest plain = request();
  plain.model = "miniature";
  plain.picture.width = plain.picture.height = 64;
  plain.picture.steps = 2;
  contract::JobRequest adapted = plain;
  adapted.adapters.push_back({.name = "hollow", .weight = 0.8});
  const auto drawn = [&](const contract::JobRequest& asked) {
    return pixels_of(stored(result(ended(submit(asked))).images.front().image));
  };
  const std::string before = drawn(plain), with = drawn(adapted), after = drawn(plain);
  EXPECT_EQ(before, after);
  EXPECT_NE(before, with);
}

TEST_F(WorkerTest, AnAdapterFromAUrlIsFetchedBesideTheDevice) {
  add_model("miniature", testing::source() / "models/miniature");
  pool_options_.adapters.downloads.download =
      [](const platform::http::DownloadRequest& wanted) -> Result<platform::http::Downloaded> {
    if (wanted.url.ends_with("absent"))
      return Error{ErrorCode::kNotFound, "the server has no such file"};
    testing::fs::copy_file(testing::source() / "loras/moon.safetensors", wanted.file);
    return platform::http::Downloaded{wanted.file, testing::fs::file_size(wanted.file), "", ""};
  };
  start();
  contract::JobRequest asked = request();
  asked.model = "miniature";
  asked.picture.width = asked.picture.height = 64;
  asked.picture.steps = 2;
  asked.adapters.push_back({.url = "https://models.example/moon?key=secret"});
  const contract::JobResult made = result(ended(submit(asked)));
  const auto text = image::read_png_text(stored(made.images.front().image)).value();
  EXPECT_NE(text.at("parameters").find("https://models.example/moon:1"), std::string::npos);
  EXPECT_NE(text.at("parameters").find("Lora hashes"), std::string::npos);
  EXPECT_EQ(text.at("parameters").find("secret"), std::string::npos);

  asked.adapters.front().url = "https://models.example/absent";
  const contract::Job refused = ended(submit(asked));
  EXPECT_EQ(refused.status, JobStatus::kFailed);
  EXPECT_EQ(refused.error->message, "loras[0]: the server has no such file");
  EXPECT_EQ(refused.failures, 1);
}

TEST_F(WorkerTest, WhatCannotBeDrawnIsRefusedOnceWithOneSentence) {
  start();
  const auto refused = [&](const contract::Job& job) {
    EXPECT_EQ(job.status, JobStatus::kFailed);
    EXPECT_EQ(job.attempt, 1);
    return job.error->message;
  };
  contract::JobRequest unknown = request();
  unknown.model = "gone";
  EXPECT_EQ(refused(ended(submit(unknown))), "there is no model 'gone' any more");
  contract::JobRequest odd = request();
  odd.picture.width = 63;
  EXPECT_NE(refused(ended(submit(odd))).find("width"), std::string::npos);
  contract::JobRequest nameless = request();
  nameless.adapters.push_back({.name = "nothing"});
  EXPECT_TRUE(refused(ended(submit(nameless))).starts_with("loras[0]: "));
  ended(submit_text("no request"));
  EXPECT_EQ(result(ended(submit(request()))).images.size(), 1u);
}

TEST_F(WorkerTest, APictureThatDoesNotFitIsRefusedWithWhatWould) {
  cache_options_.memory_budget = std::uint64_t{24} << 20;
  start();
  contract::JobRequest large = request();
  large.picture.width = large.picture.height = 4096;
  const contract::Job job = ended(submit(large));
  EXPECT_EQ(job.status, JobStatus::kFailed);
  EXPECT_EQ(job.error->code, ErrorCode::kOutOfMemory);
  EXPECT_NE(job.error->message.find("would fit"), std::string::npos) << job.error->message;
  EXPECT_EQ(job.attempt, 1);
}

TEST_F(WorkerTest, AFullDiskIsWaitedForWithoutHoldingTheDevice) {
  start();
  ended(submit(request()));
  files_.fail(0, ENOSPC, /*ever_after=*/true);
  const std::string waits = submit(request("a blue square"));
  ASSERT_TRUE(soon([&] { return files_.failed(); }));
  EXPECT_EQ(found(waits).status, JobStatus::kRunning);
  ASSERT_TRUE(soon([&] { return pool_->report().front().job.empty(); }));
  files_.fail(-1, 0);
  EXPECT_EQ(ended(waits).attempt, 1);
}

TEST_F(WorkerTest, AStoreThatStaysFullSendsTheJobBackToBeTriedAgain) {
  pool_options_.worker.post.store_patience = milliseconds(30);
  queue_options_.most_failures = 2;
  start();
  files_.fail(0, ENOSPC, /*ever_after=*/true);
  const contract::Job job = ended(submit(request()));
  EXPECT_EQ(job.status, JobStatus::kFailed);
  EXPECT_EQ(job.attempt, 2);
  EXPECT_TRUE(job.error->retryable);
  files_.fail(-1, 0);
  EXPECT_EQ(result(ended(submit(request()))).images.size(), 1u);
}

TEST_F(WorkerTest, AModelThatKeepsFailingIsLeftAloneForAWhile) {
  testing::fs::copy(testing::micro_model("micro-sd1"), models_ / "broken",
                    testing::fs::copy_options::recursive);
  for (const auto& entry : testing::fs::directory_iterator(models_ / "broken/unet")) {
    if (entry.path().extension() != ".safetensors") continue;
    // Behind the header: every weight is a NaN.
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-4096, std::ios::end);
    file << std::string(4096, '\xff');
  }
  pool_options_.breaker = {.failures = 2, .pause = std::chrono::hours(1)};
  queue_options_.most_failures = 1;
  start();
  contract::JobRequest asked = request();
  asked.model = "broken";
  EXPECT_EQ(ended(submit(asked)).error->code, ErrorCode::kInvalidModel);
  EXPECT_EQ(ended(submit(asked)).error->code, ErrorCode::kInvalidModel);
  const contract::Job third = ended(submit(asked));
  EXPECT_EQ(third.error->code, ErrorCode::kUnavailable);
  EXPECT_TRUE(third.error->retryable);
  EXPECT_NE(third.error->message.find("model broken"), std::string::npos);
  EXPECT_EQ(result(ended(submit(request()))).images.size(), 1u);
  EXPECT_EQ(pool_->report().front().state.state, WorkerState::kIdle);
}

TEST_F(WorkerTest, TwoWorkersShareOneCopyOfAModelsWeights) {
  Gate gate;
  pool_options_.workers = 2;
  pool_options_.worker.at = [&](std::string_view point) {
    if (point == "step") gate.pass();
  };
  gate.close();
  start();
  const std::string first = submit(request()), second = submit(request("a blue square"));
  ASSERT_TRUE(soon([&] {
    return found(first).status == JobStatus::kRunning &&
           found(second).status == JobStatus::kRunning;
  }));
  gate.open();
  ended(first);
  ended(second);
  EXPECT_EQ(cache_->stats().loads, 1u);
  EXPECT_EQ(cache_->stats().hits, 1u);
}

TEST_F(WorkerTest, AModelLoadedAheadIsWarmBeforeTheFirstJob) {
  pool_options_.preload = {"micro-sd1", "absent"};
  start();
  ASSERT_TRUE(soon([&] { return pool_->ready(); }));
  EXPECT_EQ(cache_->loaded(), std::vector<std::string>{"micro-sd1"});
  ended(submit(request()));
  EXPECT_EQ(cache_->stats().loads, 1u);
}

}  // namespace
}  // namespace limner::worker
