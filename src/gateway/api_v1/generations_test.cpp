#include <fmt/format.h>

#include "gateway/api_v1/api_for_test.h"
#include "gateway/deleted_pictures.h"

namespace limner::gateway::api_v1 {
namespace {

using namespace std::chrono_literals;
using contract::JobStatus;
using nlohmann::json;

const json kBody = {{"prompt", "a red circle"}, {"steps", 4}, {"metadata", {{"order", 17}}}};

class Generations : public ApiTest {};

TEST_F(Generations, AreAcceptedWithAPlaceAndLinks) {
  const Answer answer = post("/v1/generations", kBody);
  ASSERT_EQ(answer.status, 202) << answer.body;
  const json object = answer.json();
  const std::string id = object.at("request_id");
  const std::string self = kPublicUrl + ("/v1/generations/" + id);
  EXPECT_EQ(object,
            json({{"request_id", id},
                  {"status", "queued"},
                  {"tier", "fast"},
                  {"position", 1},
                  {"eta_seconds", nullptr},
                  {"urls",
                   {{"self", self}, {"events", self + "/events"}, {"cancel", self + "/cancel"}}}}));
  EXPECT_EQ(answer.headers.at("Location"), self);
  const auto job = **queue_->find(id);
  EXPECT_EQ(job.account, "ada");
  EXPECT_EQ(job.key_id, "key-ada");
  EXPECT_EQ(job.model, "miniature");
  EXPECT_EQ(job.job_class, "miniature/16384");
  EXPECT_EQ(job.work, 128.0 * 128 * 4 * 2);
  EXPECT_TRUE(contract::job_request_from_text(job.request)->picture.seed);
}

TEST_F(Generations, AreShownFromQueuedToCompleted) {
  const std::string id = submit(kBody);
  const std::string self = "/v1/generations/" + id;
  json object = get(self).json();
  EXPECT_EQ(object["status"], "queued");
  EXPECT_EQ(object["position"], 1);
  EXPECT_EQ(object["progress"], json({{"step", 0}, {"steps", 4}, {"value", 0.0}}));
  EXPECT_EQ(object["metadata"], json({{"order", 17}}));
  EXPECT_EQ(object["created_at"], "2023-11-14T22:13:20.000Z");

  const auto leased = lease();
  ASSERT_TRUE(queue_->tell(leased, "progress", R"({"step":3,"steps":4,"value":0.75})").ok());
  object = get(self).json();
  EXPECT_EQ(object["status"], "running");
  EXPECT_FALSE(object.contains("position"));
  EXPECT_EQ(object["progress"]["step"], 3);

  complete(leased, "the picture");
  object = get(self).json();
  EXPECT_EQ(object["status"], "completed");
  EXPECT_EQ(object["progress"]["value"], 1.0);
  EXPECT_EQ(object["model"]["hash"], std::string(64, 'c'));
  EXPECT_EQ(object["timings"]["denoise_ms"], 250.0);
  EXPECT_EQ(object["usage"]["steps"], 4);
  EXPECT_EQ(object["usage"]["pixels"], 128 * 128);
  const json& image = object["images"][0];
  EXPECT_EQ(image["seed"], 42);
  EXPECT_EQ(image["url_expires_at"], "2023-11-14T23:13:20.000Z");
  const std::string url = image["url"];
  ASSERT_TRUE(url.starts_with(kPublicUrl)) << url;
  const Answer picture = ask({.target = url.substr(std::string(kPublicUrl).size()), .account = ""});
  EXPECT_EQ(picture.status, 200);
  EXPECT_EQ(picture.body, "the picture");
}

TEST_F(Generations, CountTheStepsOfAllTheirPicturesAsTheEventsDo) {
  const std::string self =
      "/v1/generations/" + submit({{"prompt", "a"}, {"steps", 4}, {"num_images", 2}});
  EXPECT_EQ(get(self).json()["progress"], json({{"step", 0}, {"steps", 8}, {"value", 0.0}}));
  const auto leased = lease();
  ASSERT_TRUE(queue_->tell(leased, "progress", R"({"step":8,"steps":8,"value":1.0})").ok());
  EXPECT_EQ(get(self).json()["progress"], json({{"step", 8}, {"steps", 8}, {"value", 1.0}}));
  complete(leased);
  EXPECT_EQ(get(self).json()["progress"], json({{"step", 8}, {"steps", 8}, {"value", 1.0}}));
}

TEST_F(Generations, TellWhyTheyFailed) {
  const std::string id = submit(kBody);
  ASSERT_TRUE(queue_->fail(lease(), {ErrorCode::kOutOfMemory, "512 x 512 would fit"}).ok());
  const json object = get("/v1/generations/" + id).json();
  EXPECT_EQ(object["status"], "failed");
  EXPECT_EQ(
      object["error"],
      json({{"code", "out_of_memory"}, {"message", "512 x 512 would fit"}, {"retryable", false}}));
}

TEST_F(Generations, OfOthersAreNotThere) {
  const std::string self = "/v1/generations/" + submit();
  for (const auto& [method, suffix] :
       std::map<std::string, std::string>{{"GET", ""}, {"DELETE", ""}, {"POST", "/cancel"}}) {
    EXPECT_EQ(ask({.method = method, .target = self + suffix, .account = "bob"}).status, 404);
  }
  EXPECT_EQ(ask({.method = "POST", .target = self + "/retry", .account = "bob"}).status, 404);
  EXPECT_EQ(ask({.target = self + "/events", .account = "bob"}).status, 404);
  EXPECT_EQ(ask({.target = self, .account = "bob", .admin = true}).status, 200);
  EXPECT_EQ(ask({.target = self, .account = ""}).status, 401);
  EXPECT_EQ(get("/v1/generations/none").json()["code"], "not_found");
}

TEST_F(Generations, HaveAnEtagThatLastsAsLongAsTheirState) {
  const std::string self = "/v1/generations/" + submit();
  const std::string queued = get(self).headers.at("ETag");
  EXPECT_EQ(get(self).headers.at("ETag"), queued);
  const Answer same = ask({.target = self, .headers = {{"If-None-Match", "\"x\", " + queued}}});
  EXPECT_EQ(same.status, 304);
  EXPECT_EQ(same.body, "");
  EXPECT_EQ(same.headers.at("ETag"), queued);
  const auto leased = lease();
  const std::string running = get(self).headers.at("ETag");
  EXPECT_NE(running, queued);
  ASSERT_TRUE(queue_->tell(leased, "progress", R"({"step":1,"steps":4,"value":0.25})").ok());
  EXPECT_NE(get(self).headers.at("ETag"), running);
  complete(leased);
  const std::string done = get(self).headers.at("ETag");
  clock_.advance(10min);
  EXPECT_NE(get(self).headers.at("ETag"), done) << "the URLs of the old answer are dying";
}

TEST_F(Generations, AKeyMakesOneAndGetsTheSameAnswerAgain) {
  const std::map<std::string, std::string> key = {{"Idempotency-Key", "order-17"}};
  const Answer first = post("/v1/generations", kBody, key);
  ASSERT_EQ(first.status, 202);
  EXPECT_FALSE(first.headers.contains("Idempotency-Replayed"));
  complete(lease());
  const Answer again = post("/v1/generations", kBody, key);
  EXPECT_EQ(again.status, 202);
  EXPECT_EQ(again.body, first.body);
  EXPECT_EQ(again.headers.at("Idempotency-Replayed"), "true");
  EXPECT_EQ(queue_->list({.account = "ada"})->size(), 1u);

  const Answer other = post("/v1/generations", {{"prompt", "else"}}, key);
  EXPECT_EQ(other.status, 422);
  EXPECT_EQ(other.json()["code"], "idempotency_key_reused");
  const Answer bobs = ask({.method = "POST",
                           .target = "/v1/generations",
                           .body = kBody.dump(),
                           .headers = key,
                           .account = "bob"});
  EXPECT_NE(bobs.json()["request_id"], first.json()["request_id"]);
  EXPECT_EQ(post("/v1/generations", kBody, {{"Idempotency-Key", std::string(256, 'k')}}).status,
            400);
}

TEST_F(Generations, ATwinThatIsStillBeingAnsweredIsAConflict) {
  Asked asked{.method = "POST",
              .target = "/v1/generations",
              .body = kBody.dump(),
              .headers = {{"Idempotency-Key", "k"}, {"Prefer", "wait=20"}}};
  auto first = begin(asked);
  while (queue_->waiting(contract::Tier::kFast) == 0) std::this_thread::sleep_for(1ms);
  const Answer twin = ask(asked);
  EXPECT_EQ(twin.status, 409);
  EXPECT_EQ(twin.json()["code"], "idempotency_key_in_use");
  EXPECT_EQ(twin.headers.at("Retry-After"), "1");
  complete(lease());
  EXPECT_EQ(first.get().status, 200);
  EXPECT_EQ(ask(asked).json()["status"], "completed");
}

TEST_F(Generations, AManyTimesRepeatedRequestIsOneJob) {
  const Asked asked{.method = "POST",
                    .target = "/v1/generations",
                    .body = kBody.dump(),
                    .headers = {{"Idempotency-Key", "storm"}}};
  std::vector<std::future<Answer>> storm;
  for (int i = 0; i < 100; ++i) storm.push_back(begin(asked));
  std::set<std::string> ids;
  for (auto& one : storm) {
    const Answer answer = one.get();
    EXPECT_TRUE(answer.status == 202 || answer.status == 409) << answer.body;
    if (answer.status == 202) ids.insert(answer.json()["request_id"]);
  }
  EXPECT_EQ(ids.size(), 1u);
  EXPECT_EQ(queue_->waiting(contract::Tier::kFast), 1u);
}

TEST_F(Generations, AClientThatPrefersToWaitGetsTheResult) {
  Asked asked{.method = "POST",
              .target = "/v1/generations",
              .body = kBody.dump(),
              .headers = {{"Prefer", "respond-async, wait=20"}}};
  auto waiting = begin(asked);
  while (queue_->waiting(contract::Tier::kFast) == 0) std::this_thread::sleep_for(1ms);
  complete(lease());
  const Answer answer = waiting.get();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.json()["status"], "completed");
  EXPECT_EQ(answer.headers.at("Preference-Applied"), "wait=20");

  asked.headers["Prefer"] = "wait=0";
  EXPECT_EQ(ask(asked).status, 202);
  asked.headers["Prefer"] = "wait=1";
  const Answer late = ask(asked);
  EXPECT_EQ(late.status, 202);
  EXPECT_EQ(late.json()["status"], "queued");
}

TEST_F(Generations, AClientThatAcceptsPicturesGetsTheBytes) {
  Asked asked{.method = "POST",
              .target = "/v1/generations",
              .body = kBody.dump(),
              .headers = {{"Accept", "image/webp"}}};
  auto waiting = begin(asked);
  while (queue_->waiting(contract::Tier::kFast) == 0) std::this_thread::sleep_for(1ms);
  const auto leased = lease();
  EXPECT_EQ(contract::job_request_from_text(leased.job.request)->output.format, "webp");
  complete(leased, "picture bytes");
  const Answer answer = waiting.get();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, "picture bytes");
  EXPECT_EQ(answer.headers.at("X-Seed"), "42");

  waiting = begin(asked);
  while (queue_->waiting(contract::Tier::kFast) == 0) std::this_thread::sleep_for(1ms);
  ASSERT_TRUE(queue_->fail(lease(), {ErrorCode::kOutOfMemory, "too large"}).ok());
  const Answer failed = waiting.get();
  EXPECT_GE(failed.status, 400);
  EXPECT_EQ(failed.headers.at("Content-Type"), "application/problem+json");

  asked.headers["Accept"] = "image/gif, text/html";
  EXPECT_EQ(ask(asked).status, 406);
  asked.headers["Accept"] = "image/webp";
  asked.body = R"({"prompt":"a","output":{"format":"png"}})";
  EXPECT_EQ(ask(asked).status, 406);
  asked.headers["Accept"] = "*/*";
  EXPECT_EQ(ask(asked).status, 202);
}

TEST_F(Generations, AClientThatLeavesCancelsItsJobUnlessSomebodyElseMayAsk) {
  for (const bool keyed : {false, true}) {
    std::stop_source left;
    Asked asked{.method = "POST",
                .target = "/v1/generations",
                .body = kBody.dump(),
                .headers = {{"Prefer", "wait=20"}},
                .gone = left.get_token()};
    if (keyed) asked.headers["Idempotency-Key"] = "k";
    auto waiting = begin(asked);
    while (queue_->waiting(contract::Tier::kFast) == 0) std::this_thread::sleep_for(1ms);
    left.request_stop();
    waiting.get();
    EXPECT_EQ(queue_->waiting(contract::Tier::kFast), keyed ? 1u : 0u);
  }
}

TEST_F(Generations, AreRefusedWhenTheAccountMayNotOrTheQueueIsFull) {
  refusal_ = http::Problem{.status = http::beast_http::status::too_many_requests,
                           .code = "daily_images",
                           .detail = "The day's pictures are used up.",
                           .retry_after = 90s};
  const Answer refused = post("/v1/generations", kBody);
  EXPECT_EQ(refused.status, 429);
  EXPECT_EQ(refused.json()["code"], "daily_images");
  EXPECT_EQ(refused.headers.at("Retry-After"), "90");
  refusal_.reset();
  for (std::size_t i = 0; i < kMostQueued; ++i) submit();
  const Answer full = post("/v1/generations", kBody);
  EXPECT_EQ(full.status, 429);
  EXPECT_EQ(full.json()["code"], "too_many_queued");
  EXPECT_TRUE(full.headers.contains("Retry-After"));
}

TEST_F(Generations, AreListedNewestFirstByCursorAndStatus) {
  std::vector<std::string> ids;
  for (int i = 0; i < 5; ++i) ids.push_back(submit());
  complete(lease());
  std::vector<std::string> listed;
  std::string target = "/v1/generations?limit=2";
  for (int page = 0; page < 3; ++page) {
    const json answer = get(target).json();
    for (const json& one : answer["data"]) listed.push_back(one["request_id"]);
    if (answer["next_cursor"].is_null()) break;
    target = "/v1/generations?limit=2&cursor=" + answer["next_cursor"].get<std::string>();
  }
  EXPECT_EQ(listed, (std::vector<std::string>(ids.rbegin(), ids.rend())));
  const json done = get("/v1/generations?status=completed").json();
  ASSERT_EQ(done["data"].size(), 1u);
  EXPECT_EQ(done["data"][0]["images"].size(), 1u);
  EXPECT_EQ(done["next_cursor"], nullptr);
  for (const char* wrong :
       {"limit=0", "limit=101", "limit=x", "status=done", "cursor=17", "cursor=%20", "page=2"}) {
    EXPECT_EQ(get(std::string("/v1/generations?") + wrong).status, 400) << wrong;
  }
}

TEST_F(Generations, OfAnotherAccountAreListedForAdministratorsOnly) {
  submit();
  const std::string target = "/v1/generations?account=ada";
  EXPECT_EQ(ask({.target = target, .account = "bob"}).status, 403);
  EXPECT_EQ(ask({.target = target, .account = "bob", .admin = true}).json()["data"].size(), 1u);
  EXPECT_TRUE(ask({.target = "/v1/generations", .account = "bob"}).json()["data"].empty());
}

TEST_F(Generations, AreCanceledAndTriedAgain) {
  const std::string self = "/v1/generations/" + submit();
  EXPECT_EQ(post(self + "/retry").status, 409);
  EXPECT_EQ(post(self + "/cancel").json()["status"], "canceled");
  EXPECT_EQ(post(self + "/cancel").json()["status"], "canceled");
  const Answer again = post(self + "/retry");
  EXPECT_EQ(again.status, 202);
  EXPECT_EQ(again.json()["position"], 1);
  const auto leased = lease();
  const json running = post(self + "/cancel").json();
  EXPECT_EQ(running["status"], "running");
  EXPECT_EQ(running["cancel_requested"], true);
  EXPECT_TRUE(leased.stop.stop_requested());
}

TEST_F(Generations, AreDeletedWithTheirPictures) {
  const std::string self = "/v1/generations/" + submit();
  const auto remove = [&](const std::string& target) {
    return ask({.method = "DELETE", .target = target}).status;
  };
  EXPECT_EQ(remove(self), 409);
  complete(lease(), "same bytes");
  const std::string twin = "/v1/generations/" + submit();
  complete(lease(), "same bytes");
  const std::string url = get(self).json()["images"][0]["url"];
  const std::string picture = url.substr(std::string(kPublicUrl).size());
  EXPECT_EQ(remove(self), 204);
  EXPECT_EQ(get(self).status, 404);
  EXPECT_EQ(get(picture).status, 200) << "another generation shows the same picture";
  EXPECT_EQ(remove(twin), 204);
  EXPECT_EQ(get(picture).status, 404);
}

class Deletions : public ApiTest {
 protected:
  int remove(const std::string& id) {
    return ask({.method = "DELETE", .target = "/v1/generations/" + id}).status;
  }
  bool is_stored(const contract::Artifact& picture) {
    return artifacts_->head(delivery::parse_object_key(picture.image.key).value()).ok();
  }
  // As the service does every now and then; how many pictures wait.
  std::size_t sweep() { return remove_deleted_pictures(*rows_, *artifacts_).value_or_throw(); }
};

TEST_F(Deletions, APictureThatARunningTwinHasStoredWaitsForTheTwinsEnd) {
  for (const bool twin_completes : {true, false}) {
    const std::string first = submit(), twin = submit();
    const auto leased = lease(), twins = lease();
    clock_.advance(10ms);
    const contract::Artifact picture = artifact(twins, "the same bytes");
    clock_.advance(10ms);
    complete(leased, "the same bytes");
    EXPECT_EQ(remove(first), 204);
    EXPECT_TRUE(is_stored(picture)) << "the twin is about to show it";
    EXPECT_EQ(sweep(), 1u);
    if (twin_completes) {
      clock_.advance(10ms);
      complete(twins, "the same bytes");
      EXPECT_EQ(sweep(), 0u);
      EXPECT_TRUE(is_stored(picture));
      EXPECT_EQ(remove(twin), 204);
    } else {
      ASSERT_TRUE(queue_->fail(twins, Error{ErrorCode::kInternal, "broke", false}).ok());
      EXPECT_EQ(sweep(), 0u);
    }
    EXPECT_FALSE(is_stored(picture));
  }
}

TEST_F(Deletions, WaitForNoJobThatBeganLaterOrIsAnotherAccounts) {
  const std::string first = submit();
  ASSERT_EQ(ask({.method = "POST",
                 .target = "/v1/generations",
                 .body = R"({"prompt": "a"})",
                 .account = "bob"})
                .status,
            202);
  auto leased = lease();
  auto other = lease();
  if (leased.job.id != first) std::swap(leased, other);
  const contract::Artifact picture = artifact(leased, "bytes");
  complete(leased, "bytes");
  submit();
  clock_.advance(2s);
  lease();
  EXPECT_EQ(remove(first), 204);
  EXPECT_FALSE(is_stored(picture));
}

// The store does not answer, or the process ends between the two.
TEST_F(Deletions, AreKeptUntilThePicturesAreGone) {
  const std::string id = submit();
  const auto leased = lease();
  const contract::Artifact picture = artifact(leased, "bytes");
  complete(leased, "bytes");
  ASSERT_TRUE(queue_->erase(**queue_->find(id), {picture.image.key}).ok());
  EXPECT_TRUE(is_stored(picture));
  EXPECT_EQ(sweep(), 0u);
  EXPECT_FALSE(is_stored(picture));
  EXPECT_TRUE(rows_->removals("", 10)->empty());
}

TEST_F(Deletions, OfAllOfAnAccountTakeItsGenerationsAndPictures) {
  const Asked all{
      .method = "DELETE", .target = "/v1/accounts/ada/data", .account = "root", .admin = true};
  std::vector<contract::Artifact> pictures;
  for (const char* bytes : {"one", "two"}) {
    submit();
    const auto leased = lease();
    pictures.push_back(artifact(leased, bytes));
    complete(leased, bytes);
  }
  const std::string waits = submit();
  ASSERT_EQ(ask({.method = "POST",
                 .target = "/v1/generations",
                 .body = R"({"prompt": "a"})",
                 .account = "bob"})
                .status,
            202);
  clock_.advance(10ms);
  Asked not_admin = all;
  not_admin.admin = false;
  EXPECT_EQ(ask(not_admin).status, 403);
  EXPECT_EQ(ask(all).status, 409) << "one waits";
  EXPECT_TRUE(acts_.empty());
  EXPECT_EQ(post("/v1/generations/" + waits + "/cancel").status, 200);
  EXPECT_EQ(ask(all).json(), json({{"account", "ada"}, {"generations", 3}, {"objects", 2}}));
  EXPECT_EQ(acts_, std::vector<std::string>{"key-root data.delete"});
  EXPECT_TRUE(get("/v1/generations").json()["data"].empty());
  EXPECT_FALSE(is_stored(pictures[0]) || is_stored(pictures[1]));
  EXPECT_EQ(get("/v1/usage").json()["totals"]["jobs"], 2) << "it was drawn all the same";
  EXPECT_EQ(ask({.target = "/v1/generations", .account = "bob"}).json()["data"].size(), 1u);
  Asked odd = all;
  odd.target = "/v1/accounts/a.b/data";
  EXPECT_EQ(ask(odd).status, 400);
}

TEST_F(Generations, WhatAdministratorsDoToThoseOfOthersIsAudited) {
  const auto admins = [&](const std::string& method, const std::string& target) {
    return ask({.method = method, .target = target, .account = "root", .admin = true}).status;
  };
  const std::string self = "/v1/generations/" + submit(), own = "/v1/generations/" + submit();
  EXPECT_EQ(admins("POST", self + "/cancel"), 200);
  EXPECT_EQ(admins("POST", self + "/retry"), 202);
  EXPECT_EQ(admins("POST", self + "/cancel"), 200);
  EXPECT_EQ(admins("DELETE", self), 204);
  EXPECT_EQ(post(own + "/cancel").status, 200);
  EXPECT_EQ(ask({.method = "DELETE", .target = own}).status, 204);
  std::vector<std::string> acts;
  for (const auto& entry :
       platform::list_audit(folder_ / "limner.db", INT64_MAX, 10).value_or_throw()) {
    EXPECT_EQ(entry.act.actor, "key-root");
    EXPECT_EQ(entry.act.subject, "generation " + self.substr(self.rfind('/') + 1));
    EXPECT_EQ(entry.act.detail, "of account ada");
    acts.insert(acts.begin(), entry.act.action);
  }
  EXPECT_EQ(acts, (std::vector<std::string>{"generation.cancel", "generation.retry",
                                            "generation.cancel", "data.delete"}));
}

}  // namespace
}  // namespace limner::gateway::api_v1
