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
  add(job, {.kind = Kind::kPartial, .text = keep(std::move(body))});
}

void Outbox::result(const std::string& job, const json& body, bool streamed) {
  add(job, {.text = keep(body.dump(-1, ' ', false, json::error_handler_t::replace)),
            .streamed = streamed,
            .stops_pod = body.contains("stopPod")});
}

// Writes to the disk without the lock.
KeptText Outbox::keep(std::string text) {
  {
    const std::lock_guard lock(mutex_);
    if (options_.folder.empty() || in_memory_ + text.size() <= options_.most_in_memory) {
      return KeptText(std::move(text));
    }
  }
  auto on_disk = KeptText::on_disk(text, options_.folder);
  if (on_disk.ok()) return std::move(*on_disk);
  log_.error("a result waits in memory", {{"error", on_disk.error().message}});
  return KeptText(std::move(text));
}

void Outbox::add(const std::string& job, Letter letter) {
  const std::lock_guard lock(mutex_);
  Post& post = posts_[job];
  if (letter.kind == Kind::kResult) post.progress.reset();
  in_memory_ += letter.text.bytes_in_memory();
  post.letters.push_back(std::move(letter));
  changed_.notify_all();
}

void Outbox::withdraw(const std::string& job) {
  const std::lock_guard lock(mutex_);
  const auto found = posts_.find(job);
  if (found == posts_.end()) return;
  Post& post = found->second;
  post.progress.reset();
  post.withdrawn = at_work_ == job;
  while (post.letters.size() > (post.withdrawn ? 1 : 0)) {
    in_memory_ -= post.letters.back().text.bytes_in_memory();
    post.letters.pop_back();
  }
  if (post.letters.empty()) posts_.erase(found);
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
  at_work_ = job;
  lock.unlock();
  const Delivery delivery = deliver(job, letter, std::move(stop));
  std::optional<std::string> instead;
  if (delivery == Delivery::kRefused && letter.kind == Kind::kResult && !letter.replaced &&
      letter.refusals + 1 >= options_.refusals) {
    instead = stand_in(job, letter);
  }
  lock.lock();
  at_work_.clear();
  if (instead) {
    in_memory_ -= letter.text.bytes_in_memory();
    letter.text = KeptText(std::move(*instead));
    in_memory_ += letter.text.bytes_in_memory();
    letter.replaced = true;
    letter.refusals = letter.tries = 0;
  }
  settle(job, letter, delivery);
}

Delivery Outbox::deliver(const std::string& job, const Letter& letter, std::stop_token stop) {
  const auto body = letter.text.read();
  if (!body.ok()) {
    log_.error("a result is not sent", {{"request_id", job}, {"error", body.error().message}});
    return Delivery::kLater;
  }
  return letter.kind == Kind::kPartial
             ? plane_.send_partial(job, *body, std::move(stop))
             : plane_.send_result(job, *body, letter.streamed, std::move(stop));
}

// For a text that the platform will not take: where it can be fetched, or an error that says so. It
// must not look like a job without a result.
std::string Outbox::stand_in(const std::string& job, const Letter& letter) {
  std::string why;
  json body = json::object();
  if (options_.store) {
    const auto text = letter.text.read();
    const auto url = text.ok() ? options_.store(job, *text) : Result<std::string>(text.error());
    if (url.ok()) body["output"] = {{"result_url", *url}, {"bytes", letter.text.size()}};
    if (!url.ok()) why = fmt::format(", and it cannot be stored: {}", url.error().message);
  }
  if (!body.contains("output")) {
    const std::string message =
        fmt::format("the platform refused the result of {} bytes {} times{}", letter.text.size(),
                    letter.refusals + 1, why);
    const json error = {{"error_type", "runtime"},
                        {"code", "result_refused"},
                        {"message", message},
                        {"error_message", message},
                        {"retryable", false}};
    body["error"] = error.dump(-1, ' ', false, json::error_handler_t::replace);
  }
  if (letter.stops_pod) body["stopPod"] = true;
  return body.dump();
}

void Outbox::drop_first(const std::string& job) {
  Post& post = posts_[job];
  in_memory_ -= post.letters.front().text.bytes_in_memory();
  post.letters.pop_front();
  post.due = {};
  if (post.letters.empty() && !post.progress) posts_.erase(job);
}

void Outbox::settle(const std::string& job, Letter& letter, Delivery delivery) {
  if (delivery == Delivery::kDelivered || posts_[job].withdrawn) return drop_first(job);
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
    // The refusal that brought a stand-in is its first.
    if (delivery == Delivery::kRefused && ++letter.refusals > options_.refusals) {
      log_.error("the platform takes no result of a job", {{"request_id", job}});
      return drop_first(job);
    }
  }
  const int doublings = std::clamp(letter.tries - 1, 0, 16);
  posts_[job].due =
      steady_clock::now() + std::min(options_.first_delay * (1 << doublings), options_.max_delay);
}

}  // namespace limner::runpod
