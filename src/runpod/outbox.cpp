#include "runpod/outbox.h"

#include <fmt/format.h>

#include <algorithm>

namespace limner::runpod {

using nlohmann::json;
using std::chrono::steady_clock;

Outbox::Outbox(ControlPlane& plane, OutboxOptions options, Log& log)
    : plane_(plane),
      options_(options),
      log_(log),
      sender_([this](std::stop_token stop) { send_all(std::move(stop)); }) {}

Outbox::~Outbox() {
  for (const std::string& job : undelivered()) {
    log_.error("a result was not taken by the platform and is lost", {{"request_id", job}});
  }
}

void Outbox::progress(const std::string& job, json progress) {
  const std::lock_guard lock(mutex_);
  posts_[job].progress = std::move(progress);
  changed_.notify_all();
}

void Outbox::partial(const std::string& job, const json& output) {
  std::string body = json{{"output", output}}.dump();
  if (body.size() > options_.most_partial) {
    json note = output;
    note.erase("image");
    note["left_out"] = fmt::format("the picture is over {} bytes; it comes with the result",
                                   options_.most_partial);
    body = json{{"output", note}}.dump();
  }
  const std::lock_guard lock(mutex_);
  posts_[job].letters.push_back({.kind = Kind::kPartial, .body = std::move(body)});
  changed_.notify_all();
}

void Outbox::result(const std::string& job, const json& body, bool streamed) {
  std::string text = body.dump(-1, ' ', false, json::error_handler_t::replace);
  const std::lock_guard lock(mutex_);
  Post& post = posts_[job];
  post.progress.reset();
  post.letters.push_back({.kind = Kind::kResult, .body = std::move(text), .streamed = streamed});
  changed_.notify_all();
}

bool Outbox::wait_until_empty(std::chrono::milliseconds at_most) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, at_most, [&] { return posts_.empty(); });
}

std::vector<std::string> Outbox::undelivered() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> jobs;
  for (const auto& [job, post] : posts_) {
    const bool has = std::ranges::any_of(
        post.letters, [](const Letter& letter) { return letter.kind == Kind::kResult; });
    if (has) jobs.push_back(job);
  }
  return jobs;
}

// ---- the thread that sends

std::map<std::string, Outbox::Post>::iterator Outbox::next_due() {
  return std::ranges::min_element(posts_, [](const auto& left, const auto& right) {
    return left.second.due < right.second.due;
  });
}

void Outbox::send_all(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    const auto next = next_due();
    if (next == posts_.end()) {
      changed_.wait(lock, stop, [&] { return !posts_.empty(); });
      continue;
    }
    if (next->second.due > steady_clock::now()) {
      const auto due = next->second.due;
      changed_.wait_until(lock, stop, due, [&] {
        const auto first = next_due();
        return first == posts_.end() || first->second.due < due;
      });
      continue;
    }
    const std::string job = next->first;
    next->second.letters.empty() ? send_progress(lock, job, stop) : send_letter(lock, job, stop);
    changed_.notify_all();
  }
}

void Outbox::send_progress(std::unique_lock<std::mutex>& lock, const std::string& job,
                           std::stop_token stop) {
  const json progress = std::move(posts_[job].progress).value_or(json());
  posts_[job].progress.reset();
  lock.unlock();
  // One that is not heard is followed by the next.
  (void)plane_.send_progress(job, progress, std::move(stop));
  lock.lock();
  const Post& post = posts_[job];
  if (post.letters.empty() && !post.progress) posts_.erase(job);
}

void Outbox::send_letter(std::unique_lock<std::mutex>& lock, const std::string& job,
                         std::stop_token stop) {
  // Others only add behind it, so the first letter of a deque stays where it is.
  Letter& letter = posts_[job].letters.front();
  lock.unlock();
  const Delivery delivery = letter.kind == Kind::kPartial
                                ? plane_.send_partial(job, letter.body, stop)
                                : plane_.send_result(job, letter.body, letter.streamed, stop);
  lock.lock();
  settle(job, letter, delivery);
}

void Outbox::drop_first(const std::string& job) {
  Post& post = posts_[job];
  post.letters.pop_front();
  post.due = {};
  if (post.letters.empty() && !post.progress) posts_.erase(job);
}

void Outbox::settle(const std::string& job, Letter& letter, Delivery delivery) {
  if (delivery == Delivery::kDelivered) return drop_first(job);
  if (delivery == Delivery::kGone) {
    log_.warning("the platform knows a job no more", {{"request_id", job}});
    return drop_first(job);
  }
  ++letter.tries;
  if (letter.kind == Kind::kPartial) {
    if (letter.tries >= options_.partial_tries) return drop_first(job);
  } else {
    log_.warning("a result was not taken and is kept",
                 {{"request_id", job},
                  {"tries", std::int64_t{letter.tries}},
                  {"refused", delivery == Delivery::kRefused}});
    if (delivery == Delivery::kRefused && ++letter.refusals >= options_.refusals) {
      if (letter.replaced) {
        log_.error("the platform takes no result of a job", {{"request_id", job}});
        return drop_first(job);
      }
      replace_refused(letter);
    }
  }
  const int doublings = std::clamp(letter.tries - 1, 0, 16);
  posts_[job].due =
      steady_clock::now() + std::min(options_.first_delay * (1 << doublings), options_.max_delay);
}

// What the platform will not take must not look like a job without a result: an error says so.
void Outbox::replace_refused(Letter& letter) {
  const json error = {
      {"error_type", "result_refused"},
      {"error_message", fmt::format("the platform refused the result of {} bytes {} times",
                                    letter.body.size(), letter.refusals)},
      {"retryable", false}};
  letter.body = json{{"error", error.dump()}}.dump();
  letter.replaced = true;
  letter.refusals = letter.tries = 0;
}

}  // namespace limner::runpod
