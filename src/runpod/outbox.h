// Outbox: what the worker has to tell the platform about its jobs, in each job's order, until the
// platform has taken it. A result stays here while the platform refuses it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/log.h"
#include "runpod/control_plane.h"
#include "runpod/kept_text.h"

namespace limner::runpod {

struct OutboxOptions {
  std::chrono::milliseconds first_delay{1'000};  // doubled after every try
  std::chrono::milliseconds max_delay{60'000};
  // Of one text. Then it goes to storage and its URL is the result; where there is no storage, the
  // client is told that its result was refused.
  int refusals = 3;
  int partial_tries = 3;                 // the result holds the pictures too
  std::size_t most_partial = 1'000'000;  // bytes; the platform's limit for one
  // Bytes of all that waits; what goes over it waits in nameless files of `folder` ("": in memory).
  std::size_t most_in_memory = std::size_t{64} << 20;
  std::filesystem::path folder{};
  // Puts a result where its client can fetch it, and gives the URL; absent: there is no such place.
  std::function<Result<std::string>(const std::string& job, const std::string& result)> store{};
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
  // Its client wants no answer any more. What is being sent just now may still arrive.
  void withdraw(const std::string& job);

  bool wait_until_empty(std::chrono::milliseconds at_most);
  std::vector<std::string> undelivered() const;  // jobs whose result is here

 private:
  enum class Kind { kPartial, kResult };
  struct Letter {
    Kind kind = Kind::kResult;
    KeptText text;
    bool streamed = false;
    bool stops_pod = false;
    int tries = 0, refusals = 0;
    bool replaced = false;  // it stands for a text that was refused
  };
  struct Post {
    std::deque<Letter> letters{};
    std::optional<nlohmann::json> progress{};
    std::chrono::steady_clock::time_point due{};
    bool withdrawn = false;  // its first letter is on its way; it is not sent again
  };

  void add(const std::string& job, Letter letter);
  KeptText keep(std::string text);
  void send_all(std::stop_token stop);
  void send_progress(std::unique_lock<std::mutex>& lock, const std::string& job,
                     std::stop_token stop);
  void send_letter(std::unique_lock<std::mutex>& lock, const std::string& job,
                   std::stop_token stop);
  Delivery deliver(const std::string& job, const Letter& letter, std::stop_token stop);
  std::string stand_in(const std::string& job, const Letter& letter);
  void settle(const std::string& job, Letter& letter, Delivery delivery);
  void drop_first(const std::string& job);
  std::map<std::string, Post>::iterator next_due();

  ControlPlane& plane_;
  const OutboxOptions options_;
  Log& log_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::map<std::string, Post> posts_;  // by mutex_, like all below
  std::size_t in_memory_ = 0;          // bytes of their letters
  std::string at_work_{};              // the job whose first letter is being sent
  std::jthread sender_;                // last: it uses all of the above
};

}  // namespace limner::runpod
