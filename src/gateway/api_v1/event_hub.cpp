#include "gateway/api_v1/event_hub.h"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace limner::gateway::api_v1 {
namespace {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;

}  // namespace

Subscription::Subscription(EventHub& hub, std::string job_id, const asio::any_io_executor& executor)
    : hub_(hub), job_id_(std::move(job_id)), timer_(executor) {
  hub_.add(*this);
}

Subscription::~Subscription() {
  hub_.remove(*this);
}

asio::awaitable<void> Subscription::wait(Clock::time_point until) {
  // A timer is not safe for two threads at once, and publishers cancel this one: it is armed under
  // the mutex that they hold too.
  const auto arm = [this, until](auto handler) {
    const std::lock_guard lock(mutex_);
    const bool ready = !pending_.empty() || woken_ || closed_;
    timer_.expires_at(ready ? Clock::time_point::min() : until);
    timer_.async_wait(std::move(handler));
  };
  const auto token = asio::as_tuple(asio::use_awaitable);
  co_await asio::async_initiate<decltype(token), void(boost::system::error_code)>(arm, token);
  const std::lock_guard lock(mutex_);
  woken_ = false;
}

std::vector<Subscription::Event> Subscription::take() {
  std::vector<Event> taken;
  {
    const std::lock_guard lock(mutex_);
    taken.swap(pending_);
  }
  // Two threads may have told of two events in either order.
  std::sort(taken.begin(), taken.end(),
            [](const Event& one, const Event& other) { return one->id < other->id; });
  return taken;
}

void Subscription::wake() {
  const std::lock_guard lock(mutex_);
  woken_ = true;
  timer_.cancel();
}

bool Subscription::closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

void Subscription::push(const Event& event) {
  const std::lock_guard lock(mutex_);
  if (event->type == "progress" || event->type == "preview") {
    std::erase_if(pending_, [&](const Event& old) { return old->type == event->type; });
  }
  pending_.push_back(event);
  timer_.cancel();
}

void Subscription::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  timer_.cancel();
}

void EventHub::publish(const contract::JobEvent& event) {
  const std::lock_guard lock(mutex_);
  const auto readers = by_job_.find(event.job_id);
  if (readers == by_job_.end()) return;
  const auto shared = std::make_shared<const contract::JobEvent>(event);
  for (Subscription* reader : readers->second) reader->push(shared);
}

std::unique_ptr<Subscription> EventHub::subscribe(const std::string& job_id,
                                                  const asio::any_io_executor& executor) {
  return std::make_unique<Subscription>(*this, job_id, executor);
}

void EventHub::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  for (auto& [job, readers] : by_job_) {
    for (Subscription* reader : readers) reader->close();
  }
}

std::size_t EventHub::subscriptions() const {
  const std::lock_guard lock(mutex_);
  return count_;
}

void EventHub::add(Subscription& subscription) {
  const std::lock_guard lock(mutex_);
  by_job_[subscription.job_id_].push_back(&subscription);
  ++count_;
  if (closed_) subscription.close();
}

void EventHub::remove(Subscription& subscription) {
  const std::lock_guard lock(mutex_);
  const auto readers = by_job_.find(subscription.job_id_);
  std::erase(readers->second, &subscription);
  if (readers->second.empty()) by_job_.erase(readers);
  --count_;
}

}  // namespace limner::gateway::api_v1
