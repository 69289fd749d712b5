// The native API over a real queue, a real store and a clock that stands still: for tests.
#pragma once

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>
#include <future>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "delivery/file_system.h"
#include "delivery/local_store.h"
#include "gateway/api_v1/routes.h"
#include "platform/clock.h"
#include "queue/queue.h"

namespace limner::gateway::api_v1 {

struct Answer {
  int status = 0;
  std::map<std::string, std::string> headers;
  std::string body;
  std::shared_ptr<http::BodyStream> stream;
  nlohmann::json json() const;
};

struct Asked {
  std::string method = "GET";
  std::string target{};
  std::string body{};
  std::map<std::string, std::string> headers{};
  std::string account = "ada";  // "": without a key
  bool admin = false;
  std::stop_token gone{};
};

class ApiTest : public ::testing::Test {
 protected:
  static constexpr const char* kPublicUrl = "http://here:8420";

  static constexpr std::size_t kMostQueued = 30;  // of one account

  ApiTest();
  ~ApiTest() override;

  // As the service answers, errors in their shape.
  Answer ask(Asked asked);
  std::future<Answer> begin(Asked asked);
  Answer get(const std::string& target) { return ask({.target = target}); }
  Answer post(const std::string& target, const nlohmann::json& body = nullptr,
              std::map<std::string, std::string> headers = {});
  // The next piece of a stream; "" at its end.
  std::string next(const Answer& answer);

  // A request accepted, and its id.
  std::string submit(const nlohmann::json& body = {{"prompt", "a red circle"}});
  queue::Lease lease();
  // Stores `bytes` as the job's picture and ends it as a worker does.
  void complete(const queue::Lease& lease, const std::string& bytes = "a picture");
  contract::Artifact artifact(const queue::Lease& lease, const std::string& bytes);

  struct FixedCatalog final : contract::CatalogSource {
    std::shared_ptr<const contract::Catalog> catalog() const override { return kept; }
    std::shared_ptr<const contract::Catalog> kept;
  };

  std::filesystem::path folder_;
  platform::ManualClock clock_;
  NoLog log_;
  platform::Metrics metrics_;
  std::unique_ptr<queue::Store> rows_;
  std::unique_ptr<queue::Queue> queue_;
  EventHub hub_;
  FixedCatalog catalog_;
  std::unique_ptr<platform::TemplateStore> templates_;
  delivery::UrlSigner signer_;
  delivery::PosixFileSystem files_;
  std::unique_ptr<delivery::LocalStore> artifacts_;
  http::Blocking blocking_{2};
  http::Router router_;
  std::vector<std::string> not_ready_, acts_;
  std::optional<http::Problem> refusal_;
  boost::asio::io_context context_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::jthread thread_;
};

}  // namespace limner::gateway::api_v1
