// EventHub: brings what happens to a job from the threads where it happens to the coroutines that
// wait for it.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "contract/job.h"

namespace limner::gateway::api_v1 {

class EventHub;

// One reader of one job's events. Made by EventHub::subscribe, used by one coroutine, and no longer
// than the hub. What waits for a reader that is slow is bounded: of "progress" and "preview" only
// the newest is kept, of the others there are few in a job's life.
class Subscription {
 public:
  using Event = std::shared_ptr<const contract::JobEvent>;

  Subscription(EventHub& hub, std::string job_id, const boost::asio::any_io_executor& executor);
  ~Subscription();
  Subscription(const Subscription&) = delete;
  Subscription& operator=(const Subscription&) = delete;

  // Returns when there is an event to take, at `until`, or when woken or closed.
  boost::asio::awaitable<void> wait(std::chrono::steady_clock::time_point until);
  // All that came since the last call, by id.
  std::vector<Event> take();
  // Ends the present or the next wait. Any thread.
  void wake();
  // The service stops: nothing more will come.
  bool closed() const;

 private:
  friend class EventHub;
  void push(const Event& event);
  void close();

  EventHub& hub_;
  const std::string job_id_;
  mutable std::mutex mutex_;
  boost::asio::steady_timer timer_;  // by mutex_, like all below
  std::vector<Event> pending_;
  bool woken_ = false;
  bool closed_ = false;
};

// Safe to call from many threads.
class EventHub {
 public:
  // To be called by Queue::on_event's listener.
  void publish(const contract::JobEvent& event);
  // Events published from now on. `executor` runs the coroutine that waits.
  std::unique_ptr<Subscription> subscribe(const std::string& job_id,
                                          const boost::asio::any_io_executor& executor);
  // Ends all waits, now and later: the service stops.
  void close();
  std::size_t subscriptions() const;

 private:
  friend class Subscription;
  void add(Subscription& subscription);
  void remove(Subscription& subscription);

  mutable std::mutex mutex_;
  std::unordered_map<std::string, std::vector<Subscription*>> by_job_;  // by mutex_
  std::size_t count_ = 0;                                               // by mutex_
  bool closed_ = false;                                                 // by mutex_
};

}  // namespace limner::gateway::api_v1
