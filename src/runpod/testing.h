// A platform for tests: answers by a script, and remembers what it was sent.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "delivery/crypto.h"
#include "runpod/control_plane.h"

namespace limner::runpod::testing {

using std::chrono::milliseconds;

// An Exchange over an in-memory control plane: the twin of the network.
class ScriptedPlatform final : public platform::http::Exchange {
 public:
  struct Call {
    std::string method, target, body;
    std::vector<std::string> headers;
  };
  struct Answer {
    int status = 204;
    std::string body{};
    std::string type = "application/json";
    // The answer comes when this holds, or when who asks wants none any more (and crosses that).
    std::function<bool()> once{};
  };

  // Answers for calls whose target holds `part`, in order; the last one stays.
  void answer(const std::string& part, std::vector<Answer> answers) {
    const std::lock_guard lock(mutex_);
    scripts_[part] = {answers.begin(), answers.end()};
  }
  std::vector<Call> calls(const std::string& part) const {
    const std::lock_guard lock(mutex_);
    std::vector<Call> found;
    for (const Call& call : calls_) {
      if (call.target.find(part) != std::string::npos) found.push_back(call);
    }
    return found;
  }
  // Final results of a job that were answered with 2xx.
  std::vector<nlohmann::json> results(const std::string& job) const {
    const std::lock_guard lock(mutex_);
    const auto found = results_.find(job);
    return found == results_.end() ? std::vector<nlohmann::json>() : found->second;
  }
  template <typename Fits>
  bool soon(Fits fits, milliseconds at_most = milliseconds(20'000)) const {
    const auto until = std::chrono::steady_clock::now() + at_most;
    while (!fits()) {
      std::unique_lock lock(mutex_);
      if (std::chrono::steady_clock::now() > until) return false;
      changed_.wait_for(lock, milliseconds(20));
    }
    return true;
  }

  Result<platform::http::Reply> send(const platform::http::Request& request) override {
    const Call call{request.method, request.url.target,
                    std::string(request.body.begin(), request.body.end()), request.headers};
    const Answer given = note(call);
    if (given.status == 0) return Error{ErrorCode::kUnavailable, "no connection", true};
    while (given.once && !given.once() && !request.stop.stop_requested()) wait(request.stop);
    if (given.status == 204 && call.method == "GET") wait(request.stop);
    platform::http::Reply reply;
    reply.status = given.status;
    reply.body.assign(given.body.begin(), given.body.end());
    reply.headers["content-type"] = given.type;
    return reply;
  }

 private:
  Answer note(const Call& call) {
    const std::lock_guard lock(mutex_);
    calls_.push_back(call);
    Answer given{call.method == "POST" ? 200 : 204};
    for (auto& [part, answers] : scripts_) {
      if (call.target.find(part) == std::string::npos) continue;
      given = answers.front();
      if (answers.size() > 1) answers.pop_front();
      break;
    }
    if (call.method == "POST" && call.target.find("/job-done/") != std::string::npos &&
        given.status == 200) {
      const auto body = nlohmann::json::parse(call.body);
      const auto query = call.target.find('?');
      const auto slash = call.target.rfind('/', query);
      if (!body.contains("status")) {
        results_[call.target.substr(slash + 1, query - slash - 1)].push_back(body);
      }
    }
    changed_.notify_all();
    return given;
  }
  // As a long poll that brings nothing.
  void wait(std::stop_token stop) {
    std::unique_lock lock(waiting_);
    never_.wait_for(lock, stop, milliseconds(20), [] { return false; });
  }

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::mutex waiting_;
  std::condition_variable_any never_;
  std::vector<Call> calls_;  // by mutex_, like all below
  std::map<std::string, std::deque<Answer>> scripts_;
  std::map<std::string, std::vector<nlohmann::json>> results_;
};

inline Environment environment() {
  const std::string place = "https://api.example.com/v2/ep";
  return {{"RUNPOD_WEBHOOK_GET_JOB", place + "/job-take/$ID?gpu=A"},
          {"RUNPOD_WEBHOOK_POST_OUTPUT", place + "/job-done/$RUNPOD_POD_ID/$ID?gpu=A"},
          {"RUNPOD_WEBHOOK_POST_STREAM", place + "/job-stream/$RUNPOD_POD_ID/$ID?gpu=A"},
          {"RUNPOD_WEBHOOK_PING", place + "/ping/$RUNPOD_POD_ID"},
          {"RUNPOD_AI_API_KEY", "secret"},
          {"RUNPOD_POD_ID", "pod-1"}};
}

inline Waits short_waits() {
  return {milliseconds(1'000), milliseconds(20), milliseconds(10), milliseconds(1'000)};
}

}  // namespace limner::runpod::testing
