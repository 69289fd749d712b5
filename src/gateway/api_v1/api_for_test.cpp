#include "gateway/api_v1/api_for_test.h"

#include <fmt/format.h>
#include <unistd.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_future.hpp>
#include <fstream>

#include "delivery/crypto.h"
#include "gateway/http/problem.h"
#include "queue/sql_store.h"

namespace limner::gateway::api_v1 {
namespace {

namespace asio = boost::asio;
namespace fs = std::filesystem;
using http::beast_http::verb;
using nlohmann::json;

constexpr const char* kTemplates = R"({
  "templates": {"portrait": {
    "checkpoint": {"url": "https://x.example/base.safetensors?token=secret",
                   "filename": "base.safetensors", "diffusers_dir": "miniature"},
    "defaults": {"steps": 7, "prompt_prefix": "a portrait"}}}})";

fs::path fresh_folder() {
  std::string name = (fs::temp_directory_path() / "limner-api-XXXXXX").string();
  return mkdtemp(name.data());
}

std::shared_ptr<const contract::Catalog> make_catalog() {
  auto catalog = std::make_shared<contract::Catalog>();
  contract::ModelCard card;
  card.name = "miniature";
  card.family = "sd1";
  card.pipeline = "StableDiffusionPipeline";
  card.hash = std::string(64, 'c');
  card.bytes = 13'000'000;
  card.limits.largest_side = 512;
  card.limits.most_steps = 100;
  card.limits.default_width = card.limits.default_height = 128;
  card.limits.default_steps = 12;
  card.limits.samplers = {"ddim", "euler"};
  card.limits.schedules = {"default", "karras"};
  catalog->models = {card};
  catalog->adapters = {{.name = "moon", .kind = "LoRA", .family = "sd1", .bytes = 1000}};
  catalog->default_model = "miniature";
  return catalog;
}

asio::awaitable<http::Response> respond(const http::Router& router, http::Request& request) {
  std::exception_ptr thrown;
  try {
    const auto found = router.find(request);
    http::Response response = co_await found.handler(request);
    co_return response;
  } catch (...) {
    thrown = std::current_exception();
  }
  co_return http::problem_response(http::problem_of(thrown), request.id);
}

asio::awaitable<Answer> answer(const http::Router& router, std::shared_ptr<http::Request> request) {
  http::Response response = co_await respond(router, *request);
  Answer made;
  made.status = static_cast<int>(response.status);
  for (const auto& field : response.headers) {
    made.headers[std::string(field.name_string())] = std::string(field.value());
  }
  made.body = std::move(response.body);
  made.stream = std::move(response.stream);
  co_return made;
}

}  // namespace

json Answer::json() const {
  const auto parsed = nlohmann::json::parse(body, nullptr, false);
  EXPECT_FALSE(parsed.is_discarded()) << body;
  return parsed;
}

ApiTest::ApiTest()
    : folder_(fresh_folder()),
      signer_(delivery::UrlSigner::make({"k1", std::vector<std::uint8_t>(32, 7)}).value()),
      work_(context_.get_executor()),
      thread_([this] { context_.run(); }) {
  rows_ = queue::open_sqlite_store(folder_ / "limner.db").value();
  queue::QueueOptions options;
  options.limits.most_per_account = kMostQueued;
  queue_ =
      queue::Queue::open(*rows_, queue::make_policy("fair", 1).value(), clock_, options).value();
  queue_->on_event([this](const contract::JobEvent& event) { hub_.publish(event); });
  catalog_.kept = make_catalog();
  std::ofstream(folder_ / "templates.json") << kTemplates;
  templates_ = platform::TemplateStore::open(folder_ / "templates.json").value();
  artifacts_ =
      delivery::LocalStore::open(folder_ / "artifacts", kPublicUrl, signer_, files_, clock_)
          .value();
  add_routes(router_, {.queue = *queue_,
                       .store = *rows_,
                       .hub = hub_,
                       .catalog = catalog_,
                       .templates = templates_.get(),
                       .artifacts = *artifacts_,
                       .signer = signer_,
                       .blocking = blocking_,
                       .clock = clock_,
                       .metrics = metrics_,
                       .log = log_,
                       .public_url = kPublicUrl,
                       .not_ready = [this] { return not_ready_; },
                       .refuse = [this](const http::Caller&, std::int64_t) { return refusal_; },
                       .audit =
                           [this](const platform::AuditAct& act) {
                             acts_.push_back(act.actor + " " + act.action);
                           }});
}

ApiTest::~ApiTest() {
  hub_.close();
  work_.reset();
  thread_.join();
  fs::remove_all(folder_);
}

std::future<Answer> ApiTest::begin(Asked asked) {
  auto request = std::make_shared<http::Request>();
  request->method = http::beast_http::string_to_verb(asked.method);
  request->target = asked.target;
  request->body = std::move(asked.body);
  request->id = "test";
  request->gone = asked.gone;
  for (const auto& [name, value] : asked.headers) request->headers.set(name, value);
  if (!asked.account.empty()) {
    request->caller = http::Caller{.account = asked.account,
                                   .key_id = "key-" + asked.account,
                                   .tier = contract::Tier::kFast,
                                   .may_generate = true,
                                   .may_read = true,
                                   .may_administer = asked.admin};
  }
  return asio::co_spawn(context_, answer(router_, request), asio::use_future);
}

Answer ApiTest::ask(Asked asked) {
  auto answer = begin(std::move(asked));
  if (answer.wait_for(std::chrono::seconds(20)) != std::future_status::ready) {
    throw std::runtime_error("no answer within 20 s");
  }
  return answer.get();
}

Answer ApiTest::post(const std::string& target, const json& body,
                     std::map<std::string, std::string> headers) {
  return ask({.method = "POST",
              .target = target,
              .body = body.is_null() ? "" : body.dump(),
              .headers = std::move(headers)});
}

std::string ApiTest::next(const Answer& answer) {
  auto piece = asio::co_spawn(context_, answer.stream->next(), asio::use_future);
  if (piece.wait_for(std::chrono::seconds(30)) != std::future_status::ready) {
    throw std::runtime_error("nothing was sent within 30 s");
  }
  return piece.get();
}

std::string ApiTest::submit(const json& body) {
  const Answer answer = post("/v1/generations", body);
  EXPECT_EQ(answer.status, 202) << answer.body;
  return answer.json().value("request_id", "");
}

queue::Lease ApiTest::lease() {
  auto leased = queue_->lease("w1");
  EXPECT_TRUE(leased.ok() && *leased);
  return std::move(**leased);
}

contract::Artifact ApiTest::artifact(const queue::Lease& lease, const std::string& bytes) {
  const auto stored =
      artifacts_->put({.account = lease.job.account}, delivery::bytes_of(bytes)).value();
  contract::Artifact made;
  made.image = {.key = stored.key.text(),
                .format = "png",
                .width = 128,
                .height = 128,
                .bytes = stored.bytes,
                .sha256 = stored.key.sha256};
  made.seed = 42;
  return made;
}

void ApiTest::complete(const queue::Lease& lease, const std::string& bytes) {
  contract::JobResult result;
  result.images = {artifact(lease, bytes)};
  result.model_name = "miniature";
  result.model_hash = std::string(64, 'c');
  result.timings = {.queue = 3.0, .denoise = 250.0};
  const queue::Completion completion{.result = contract::to_text(result),
                                     .usage = {1, 12, 16384, 0.3}};
  ASSERT_TRUE(queue_->finish(lease, completion).ok());
}

}  // namespace limner::gateway::api_v1
