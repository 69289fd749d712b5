// Stores at the servers that run.py starts.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "delivery/s3_store.h"
#include "delivery/store_conformance.h"
#include "delivery/supabase_store.h"

namespace limner::delivery {

inline std::string from_environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

inline std::vector<std::uint8_t> some_bytes(std::size_t count, std::uint32_t state = 1) {
  std::vector<std::uint8_t> bytes(count);
  for (auto& byte : bytes) byte = static_cast<std::uint8_t>((state = state * 1664525u + 99u) >> 24);
  return bytes;
}

// Buckets in host names: every name is this machine's.
inline platform::http::NetworkRules network_of_tests() {
  platform::http::NetworkRules rules = platform::http::trusted_network();
  rules.look_up = [](const std::string&) -> Result<std::vector<platform::http::IpAddress>> {
    return std::vector{*platform::http::parse_address("127.0.0.1")};
  };
  return rules;
}

class Web {
 public:
  platform::http::Reply send(const std::string& method, const std::string& url,
                             const std::vector<std::uint8_t>& body = {}) {
    auto reply = exchange.send({.method = method,
                                .url = platform::http::parse_url(url).value_or_throw(),
                                .body = body,
                                .max_reply = 64 << 20});
    EXPECT_TRUE(reply.ok()) << (reply ? "" : reply.error().message);
    return reply ? *reply : platform::http::Reply{};
  }
  platform::http::WebExchange exchange{network_of_tests()};
};

// The fault proxy before a server (fault_proxy.py).
class FaultyServer {
 public:
  explicit FaultyServer(const char* variable) : url_(from_environment(variable)) {}
  const std::string& url() const { return url_; }
  void faults(const std::string& kinds) { web_.send("POST", url_ + "/__faults?" + kinds); }
  void storm(double share, int seed) {
    std::ostringstream wanted;
    wanted << "/__storm?share=" << share << "&seed=" << seed;
    web_.send("POST", url_ + wanted.str());
  }
  int requests() { return counts().first; }
  int connections() { return counts().second; }

 private:
  std::pair<int, int> counts() {
    std::istringstream text(std::string(web_.send("GET", url_ + "/__count").text()));
    std::pair<int, int> found{-1, -1};
    text >> found.first >> found.second;
    return found;
  }
  const std::string url_;
  Web web_;
};

inline S3Options s3_options() {
  S3Options options;
  options.endpoint = from_environment("LIMNER_TEST_S3");
  options.bucket = "limner";
  options.credentials = {"limner", "limnersecret", ""};
  options.retries.first_delay = std::chrono::milliseconds(10);
  return options;
}

// The same server, with the bucket in its host's name.
inline S3Options s3_host_options() {
  S3Options options = s3_options();
  options.addressing = Addressing::kHost;
  return options;
}

inline SupabaseOptions supabase_options() {
  SupabaseOptions options;
  options.url = from_environment("LIMNER_TEST_SUPABASE");
  options.service_key = "service-key";
  options.bucket = "limner";
  options.retries.first_delay = std::chrono::milliseconds(10);
  return options;
}

// Another one for each store, so that it starts empty.
inline std::string next_prefix() {
  static int count = 0;
  return "suite/" + std::to_string(count++) + "/";
}

class BucketUnderTest : public StoreUnderTest {
 public:
  ArtifactStore& store() override { return *store_; }
  std::optional<std::vector<std::uint8_t>> fetch(const std::string& url) override {
    platform::http::Reply reply = web_.send("GET", url);
    if (reply.status != 200) return std::nullopt;
    return std::move(reply.body);
  }

 protected:
  Web web_;
  platform::SystemClock clock_;
  std::unique_ptr<ArtifactStore> store_;
};

class S3UnderTest final : public BucketUnderTest {
 public:
  explicit S3UnderTest(S3Options options)
      : client_(S3Client::make(std::move(options), web_.exchange, clock_).value()) {
    store_ = std::make_unique<S3Store>(*client_, next_prefix());
  }

 private:
  const std::unique_ptr<S3Client> client_;
};

class SupabaseUnderTest final : public BucketUnderTest {
 public:
  explicit SupabaseUnderTest(SupabaseOptions options)
      : client_(SupabaseClient::make(std::move(options), web_.exchange, clock_).value()) {
    store_ = std::make_unique<SupabaseStore>(*client_, next_prefix());
  }

 private:
  const std::unique_ptr<SupabaseClient> client_;
};

}  // namespace limner::delivery
