// Notifier: tells the world what happens to jobs. It reads the queue's outbox, writes a message for
// each event that somebody asked for, and sends what is due; drawing never waits for it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "base/log.h"
#include "contract/job_request.h"
#include "delivery/webhook_sender.h"
#include "delivery/webhook_store.h"
#include "platform/clock.h"
#include "platform/http/exchange.h"
#include "platform/metrics/metrics.h"
#include "platform/trace/tracer.h"
#include "queue/store.h"

namespace limner::gateway::webhooks {

// All must outlive the notifier. `exchange` is over delivery::webhook_network.
struct NotifierServices {
  queue::Store& jobs;
  delivery::WebhookStore& messages;
  platform::http::Exchange& exchange;
  const platform::Clock& clock;
  platform::Metrics& metrics;
  Log& log;
  platform::Tracer* tracer = nullptr;  // nullptr: nothing is traced
};

struct NotifierOptions {
  std::size_t senders = 8;                                       // messages under way at once
  std::chrono::milliseconds timeout = std::chrono::seconds(20);  // of one attempt
  platform::Millis progress_every{2'000};  // between two progress messages of one job
  // Events that follow each other closely become one write.
  std::chrono::milliseconds gather{50};
  // Rows that were told are deleted so often; those deleted late make no second message.
  platform::Millis forget_every{1'000};
};

// The object that GET /v1/generations/{id} shows; `progress` is the newest such event of a running
// job. What it throws with kInternal loses the message, any other Failure delays it.
using ShowJob = std::function<nlohmann::json(const contract::Job& job,
                                             const std::optional<contract::JobEvent>& progress)>;

class Notifier {
 public:
  Notifier(NotifierServices services, ShowJob show, NotifierOptions options = {});
  ~Notifier();  // stops

  void start();
  // Breaks off what is under way; it is sent again after the next start. Nothing is lost.
  void stop();

  // To be called by Queue::on_event's listener; returns at once. Any thread.
  void on_event(const contract::JobEvent& event);
  // A message has become due at once (resent by hand). Any thread.
  void wake_senders();

  // One round of the thread that start() begins: a message for each event in the outbox that is
  // wanted. How many were made. Errors: the stores'; what was not told stays in the outbox.
  Result<std::size_t> tell_outbox();
  // The newest progress of each job that wants it told and was not told of lately.
  Result<std::size_t> tell_progress();
  // Sends one message that is due, if there is one. How many were sent.
  Result<std::size_t> send_one(std::stop_token stop = {});

 private:
  struct Progress {
    std::optional<contract::JobEvent> newest{};
    std::optional<bool> wanted{};  // once it has been looked up
    std::optional<platform::Millis> told_at{};
  };
  struct Target {
    std::string url, secret;
    std::vector<std::string> events;
    std::string traceparent;  // of the job
  };

  std::optional<Target> target(const contract::Job& job);  // throws
  // Throws where trying later may help.
  std::optional<delivery::NewDelivery> message(const queue::OutboxRow& row);
  std::optional<delivery::NewDelivery> progress_message(const contract::JobEvent& event);
  std::vector<contract::JobEvent> progress_due();
  std::size_t add(const std::vector<delivery::NewDelivery>& messages);
  void forget_told(bool at_once);
  void run_teller(const std::stop_token& stop);
  void run_sender(const std::stop_token& stop);

  const NotifierServices services_;
  const ShowJob show_;
  const NotifierOptions options_;
  delivery::WebhookSender sender_;

  // Of the one thread that tells.
  std::int64_t told_ = 0;     // the last outbox row that was
  std::int64_t deleted_ = 0;  // the last one that was deleted
  platform::Millis deleted_at_{0};

  std::mutex mutex_;
  std::condition_variable_any outbox_grew_, messages_due_;
  bool grew_ = true;                                    // by mutex_, like all below
  std::uint64_t due_ = 0;                               // counts the calls of wake_senders()
  std::unordered_map<std::string, Progress> progress_;  // of running jobs
  std::vector<std::jthread> threads_;                   // of start() and stop()
};

}  // namespace limner::gateway::webhooks
