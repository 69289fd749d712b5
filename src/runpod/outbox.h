// Outbox: what the worker has to tell the platform about its jobs, in each job's order, until the
// platform has taken it. A result stays here while the platform refuses it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "runpod/control_plane.h"

namespace limner::runpod {

struct OutboxOptions {
  std::chrono::milliseconds first_delay{1'000};  // doubled after every try
  std::chrono::milliseconds max_delay{60'000};
  int refusals = 3;       // of one text, then the client is told that its result was refused
  int partial_tries = 3;  // the result holds the pictures too
  std::size_t most_partial = 1'000'000;  // bytes; the platform's limit for one
};

// Any thread may call; nothing waits for the network. One thread of its own sends, so a job's
// progress never overtakes its result.
class Outbox {
 public:
  // `plane` and `log` must outlive this.
  Outbox(ControlPlane& plane, OutboxOptions options, Log& log);
  ~Outbox();  // what is not sent is lost: wait_until_empty() first

  void progress(const std::string& job, nlohmann::json progress);  // the latest one counts
  void partial(const std::string& job, const nlohmann::json& output);
  // The last thing about a job: its progress goes no more.
  void result(const std::string& job, const nlohmann::json& body, bool streamed);

  bool wait_until_empty(std::chrono::milliseconds at_most);
  std::vector<std::string> undelivered() const;  // jobs whose result is here

 private:
  enum class Kind { kPartial, kResult };
  struct Letter {
    Kind kind = Kind::kResult;
    std::string body{};
    bool streamed = false;
    int tries = 0, refusals = 0;
    bool replaced = false;  // it says that another text was refused
  };
  struct Post {
    std::deque<Letter> letters{};
    std::optional<nlohmann::json> progress{};
    std::chrono::steady_clock::time_point due{};
  };

  void send_all(std::stop_token stop);
  void send_progress(std::unique_lock<std::mutex>& lock, const std::string& job,
                     std::stop_token stop);
  void send_letter(std::unique_lock<std::mutex>& lock, const std::string& job,
                   std::stop_token stop);
  void settle(const std::string& job, Letter& letter, Delivery delivery);
  static void replace_refused(Letter& letter);
  void drop_first(const std::string& job);
  std::map<std::string, Post>::iterator next_due();

  ControlPlane& plane_;
  const OutboxOptions options_;
  Log& log_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::string, Post> posts_;  // by mutex_
  std::jthread sender_;                // last: it uses all of the above
};

}  // namespace limner::runpod
