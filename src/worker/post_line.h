// PostLine: what happens to a job behind the device: pictures are encoded and stored, and its lease
// is ended.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <stop_token>
#include <thread>
#include <variant>

#include "delivery/rendition.h"
#include "worker/assignment.h"
#include "worker/drawing.h"
#include "worker/services.h"

namespace limner::worker {

struct PostOptions {
  std::size_t most_jobs = 2;  // drawn and not yet stored, until the device waits
  // How long a store that does not take pictures is tried, before the job is to be tried again.
  platform::Millis store_patience{std::chrono::seconds(60)};
  platform::Millis first_delay{std::chrono::milliseconds(100)};  // doubled each time
  platform::Millis longest_delay{std::chrono::seconds(5)};
};

// One thread of its own. Holds the leases of the worker's jobs from add() to their end. Any thread
// may call.
class PostLine {
 public:
  using Job = std::shared_ptr<Assignment>;

  // `completed` is called on the line's thread after a job has ended well.
  PostLine(PostOptions options, const WorkerServices& services, std::function<void()> completed);
  ~PostLine();  // as stop()

  void add(const Job& job);  // its lease is kept alive from here
  // What follows is done in this order; the last of a job's is one of the five below.
  void picture(Job job, DrawnPicture picture);
  void preview(Job job, image::Bitmap bitmap);
  void complete(Job job, DrawingReport report);
  void fail(Job job, Error error);
  void cancel(Job job);         // finished as canceled, where the lease was not lost
  void release(Job job);        // handed back
  void forget(const Job& job);  // nothing is written: the lease runs out

  bool has_room() const;
  bool empty() const;  // no leases
  void wait_until_empty(platform::Millis at_most);
  void beat();  // a heartbeat for every lease
  // Hands back what has not ended; what cannot be written now is left to the lease's end.
  void stop();

 private:
  struct Completed {
    DrawingReport report;
  };
  struct Canceled {};
  struct Released {};
  struct Item {
    Job job;
    std::variant<DrawnPicture, image::Bitmap, Completed, Error, Canceled, Released> what;
  };

  void put(Item item);
  void run(std::stop_token stop);
  void handle(Item& item);
  void on(const Job& job, DrawnPicture& picture);
  void on(const Job& job, image::Bitmap& preview);
  void on(const Job& job, Completed& completed);
  void on(const Job& job, Error& error);
  void on(const Job& job, Canceled&);
  void on(const Job& job, Released&);

  platform::Span span_of(const Job& job, std::string_view stage) const;
  contract::StoredImage store(const Job& job, const delivery::Rendition& rendition);
  // Repeats a write of the queue until it is known what became of it. False: stopped before that.
  bool write(const Job& job, const std::function<Result<void>()>& write);
  bool wait(platform::Millis delay, const std::stop_token& job_stop);  // false: stopped
  void end(const Job& job, std::string_view outcome);

  const PostOptions options_;
  const WorkerServices& services_;
  const std::function<void()> completed_;
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;
  std::deque<Item> items_;              // by mutex_, like all below
  std::map<std::int64_t, Job> leases_;  // by sequence
  std::size_t jobs_drawn_ = 0;          // whose end is in items_ or at work
  bool stopping_ = false;
  std::stop_source stopped_;
  std::jthread thread_;  // last: it uses all of the above
};

}  // namespace limner::worker
