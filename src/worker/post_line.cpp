#include "worker/post_line.h"

#include <fmt/format.h>

#include <algorithm>

#include "delivery/accept.h"
#include "delivery/crypto.h"

namespace limner::worker {
namespace {

using contract::JobStatus;

constexpr int kPreviewQuality = 75;

double ms_since(std::chrono::steady_clock::time_point began) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began)
      .count();
}

// JPEG where this build has it: a preview is looked at for half a second.
Result<std::string> preview_event(const image::Bitmap& bitmap) {
  image::EncodeOptions options;
  options.format = image::Format::kJpeg;
  options.quality = kPreviewQuality;
  auto bytes = image::encode(bitmap, options);
  if (!bytes.ok() && bytes.error().code == ErrorCode::kUnsupported) {
    options.format = image::Format::kPng;
    bytes = image::encode(bitmap, options);
  }
  if (!bytes.ok()) return bytes.error();
  return fmt::format(R"({{"content_type":"{}","data_base64":"{}"}})",
                     delivery::content_type(options.format), delivery::base64(*bytes));
}

// What may pass when the job is tried again.
bool may_pass(const Error& error) {
  return error.retryable || error.code == ErrorCode::kIo || error.code == ErrorCode::kUnavailable ||
         error.code == ErrorCode::kDeadlineExceeded;
}

std::string extension_of(image::Format format) {
  return std::string(image::extension(format).substr(1));
}

// The name that requests and answers know: "jpeg", not "jpg".
std::string name_of(image::Format format) {
  return format == image::Format::kJpeg ? "jpeg" : extension_of(format);
}

}  // namespace

PostLine::PostLine(PostOptions options, const WorkerServices& services,
                   std::function<void()> completed)
    : options_(options),
      services_(services),
      completed_(std::move(completed)),
      thread_([this](std::stop_token stop) { run(std::move(stop)); }) {}

PostLine::~PostLine() {
  stop();
}

void PostLine::add(const Job& job) {
  services_.metrics.jobs_inflight(1);
  const std::lock_guard lock(mutex_);
  leases_.emplace(job->lease.job.sequence, job);
}

void PostLine::picture(Job job, DrawnPicture picture) {
  put({std::move(job), std::move(picture)});
}
void PostLine::preview(Job job, image::Bitmap bitmap) {
  put({std::move(job), std::move(bitmap)});
}
void PostLine::complete(Job job, DrawingReport report) {
  put({std::move(job), Completed{std::move(report)}});
}
void PostLine::fail(Job job, Error error) {
  put({std::move(job), std::move(error)});
}
void PostLine::cancel(Job job) {
  put({std::move(job), Canceled{}});
}
void PostLine::release(Job job) {
  put({std::move(job), Released{}});
}

void PostLine::put(Item item) {
  const std::lock_guard lock(mutex_);
  if (std::holds_alternative<Completed>(item.what)) ++jobs_drawn_;
  items_.push_back(std::move(item));
  changed_.notify_all();
}

void PostLine::forget(const Job& job) {
  job->over = true;
  end(job, "lost");
}

bool PostLine::has_room() const {
  const std::lock_guard lock(mutex_);
  return jobs_drawn_ < options_.most_jobs;
}

bool PostLine::empty() const {
  const std::lock_guard lock(mutex_);
  return leases_.empty();
}

void PostLine::wait_until_empty(platform::Millis at_most) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, at_most, [&] { return leases_.empty(); });
}

void PostLine::beat() {
  std::vector<Job> jobs;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [sequence, job] : leases_) jobs.push_back(job);
  }
  for (const Job& job : jobs) {
    // A lost lease asks its job to stop by itself; it ends where it is worked on.
    const auto alive = services_.queue.heartbeat(job->lease);
    if (alive.ok() || job->over) continue;
    job->stop.request_stop();
    services_.log.warning("a lease was lost", {{"request_id", job->lease.job.id},
                                               {"worker", job->lease.job.worker},
                                               {"error", alive.error().message}});
  }
}

void PostLine::stop() {
  std::vector<Job> left;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stopped_.request_stop();
  thread_.request_stop();
  if (thread_.joinable()) thread_.join();
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [sequence, job] : leases_) left.push_back(job);
    items_.clear();
  }
  for (const Job& job : left) {
    job->over = true;
    const auto released = services_.queue.release(job->lease);
    if (!released.ok()) {
      services_.log.warning(
          "a job could not be handed back; it runs again when its lease ends",
          {{"request_id", job->lease.job.id}, {"error", released.error().message}});
    }
    end(job, "released");
  }
}

void PostLine::run(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (!stop.stop_requested()) {
    if (!changed_.wait(lock, stop, [&] { return !items_.empty(); })) continue;
    Item item = std::move(items_.front());
    items_.pop_front();
    lock.unlock();
    handle(item);
    const bool drawn = std::holds_alternative<Completed>(item.what);
    item.job.reset();
    lock.lock();
    if (drawn) --jobs_drawn_;
    changed_.notify_all();
  }
}

void PostLine::handle(Item& item) {
  if (item.job->over) return;
  try {
    std::visit([&](auto& what) { on(item.job, what); }, item.what);
  } catch (const Failure& failure) {
    Error error = failure.error();
    error.retryable = may_pass(error);
    on(item.job, error);
  } catch (const std::exception& exception) {
    Error error{ErrorCode::kInternal, fmt::format("[worker] {}", exception.what()), true};
    on(item.job, error);
  }
}

void PostLine::on(const Job& job, DrawnPicture& picture) {
  if (job->stop.stop_requested()) return;  // its end comes next
  platform::Span posting = span_of(job, "post");
  const auto began = std::chrono::steady_clock::now();
  const contract::OutputChoice& output = job->request.output;
  delivery::RenditionOptions options;
  options.picture.format = image::format_from_name(output.format).value_or_throw();
  options.picture.quality = output.quality;
  picture.drawn_with.lora_hashes = services_.hashes.notes(picture.adapter_files);
  const auto parameters = prompt::picture_parameters(*picture.request, picture.drawn_with);
  options.picture.text = {{"parameters", prompt::write_infotext(parameters).value_or_throw()}};
  options.thumbnails = output.thumbnails;
  const delivery::Renditions made = delivery::render(picture.bitmap, options).value_or_throw();
  job->result.timings.post += ms_since(began);
  posting.end();

  platform::Span delivering = span_of(job, "deliver");
  const auto stored = std::chrono::steady_clock::now();
  contract::Artifact artifact;
  artifact.seed = picture.drawn_with.seed;
  artifact.index = picture.index;
  artifact.image = store(job, made.picture);
  for (const delivery::Rendition& thumbnail : made.thumbnails) {
    artifact.thumbnails.push_back(store(job, thumbnail));
  }
  job->result.timings.deliver += ms_since(stored);
  delivering.end();
  // Who lost the lease hears it at the next step.
  (void)services_.queue.tell(job->lease, "image", contract::to_text(artifact));
  job->result.images.push_back(std::move(artifact));
}

platform::Span PostLine::span_of(const Job& job, std::string_view stage) const {
  if (services_.tracer == nullptr) return {};
  return services_.tracer->start_span({.name = stage, .parent = job->span.traceparent()});
}

contract::StoredImage PostLine::store(const Job& job, const delivery::Rendition& rendition) {
  delivery::Place place;
  place.account = job->lease.job.account;
  place.extension = extension_of(rendition.format);
  place.retention = delivery::retention_from_name(job->request.output.retention).value_or_throw();
  const platform::Millis until = services_.clock.now() + options_.store_patience;
  for (platform::Millis delay = options_.first_delay;;
       delay = std::min(delay * 2, options_.longest_delay)) {
    const auto put = services_.store.put(place, rendition.bytes);
    if (put.ok()) {
      contract::StoredImage image;
      image.key = put->key.text();
      image.format = name_of(rendition.format);
      image.width = rendition.width;
      image.height = rendition.height;
      image.bytes = put->bytes;
      image.sha256 = put->key.sha256;
      return image;
    }
    if (!may_pass(put.error()) || services_.clock.now() + delay > until) throw Failure(put.error());
    services_.log.warning("storing a picture failed and is tried again",
                          {{"request_id", job->lease.job.id}, {"error", put.error().message}});
    if (!wait(delay, job->stop.get_token())) throw Failure(put.error());
  }
}

void PostLine::on(const Job& job, image::Bitmap& preview) {
  if (job->stop.stop_requested()) return;
  const auto event = preview_event(preview);
  if (event.ok()) (void)services_.queue.tell(job->lease, "preview", *event);
}

void PostLine::on(const Job& job, Completed& completed) {
  if (job->given_up()) {
    Canceled canceled;
    return on(job, canceled);
  }
  const DrawingReport& report = completed.report;
  const contract::Job& leased = job->lease.job;
  contract::JobResult& result = job->result;
  result.model_name = report.model;
  result.model_hash = report.model_hash;
  result.warnings = report.warnings;
  result.steps = report.calls;
  result.timings.queue = static_cast<double>(leased.started_at - leased.queued_at);
  result.timings.encode = report.encode_ms;
  result.timings.denoise = report.denoise_ms;
  result.timings.decode = report.decode_ms;
  queue::Completion completion;
  completion.result = contract::to_text(result);
  completion.usage = {report.images, report.steps, report.pixels,
                      (report.encode_ms + report.denoise_ms + report.decode_ms) / 1e3};
  if (!write(job, [&] { return services_.queue.finish(job->lease, completion); })) return;
  services_.log.info("a job is completed", {{"request_id", leased.id},
                                            {"worker", leased.worker},
                                            {"model", report.model},
                                            {"images", report.images},
                                            {"queue_ms", result.timings.queue},
                                            {"encode_ms", result.timings.encode},
                                            {"denoise_ms", result.timings.denoise},
                                            {"decode_ms", result.timings.decode},
                                            {"post_ms", result.timings.post},
                                            {"deliver_ms", result.timings.deliver}});
  end(job, "completed");
  completed_();
}

void PostLine::on(const Job& job, Error& error) {
  if (job->given_up()) {
    Canceled canceled;
    return on(job, canceled);
  }
  // One more attempt of this kind would be the same refusal for whoever waits.
  queue::Completion blocked;
  blocked.status = JobStatus::kBlocked;
  blocked.error = error;
  const bool is_blocked = error.code == ErrorCode::kBlocked;
  if (!write(job, [&] {
        return is_blocked ? services_.queue.finish(job->lease, blocked)
                          : services_.queue.fail(job->lease, error);
      })) {
    return;
  }
  services_.log.warning("a job has failed", {{"request_id", job->lease.job.id},
                                             {"worker", job->lease.job.worker},
                                             {"model", job->request.model},
                                             {"error", error.message},
                                             {"retryable", error.retryable}});
  job->span.fail(error.message);
  end(job, is_blocked ? "blocked" : error.retryable ? "retried" : "failed");
}

void PostLine::on(const Job& job, Canceled&) {
  queue::Completion completion;
  completion.status = JobStatus::kCanceled;
  // Where the lease was lost there is nothing to write, and the queue says so.
  if (write(job, [&] { return services_.queue.finish(job->lease, completion); })) {
    end(job, "canceled");
  }
}

void PostLine::on(const Job& job, Released&) {
  if (write(job, [&] { return services_.queue.release(job->lease); })) end(job, "released");
}

bool PostLine::write(const Job& job, const std::function<Result<void>()>& write) {
  for (platform::Millis delay = options_.first_delay;;
       delay = std::min(delay * 2, options_.longest_delay)) {
    const auto written = write();
    if (written.ok()) return true;
    if (written.error().code == ErrorCode::kCancelled) {
      services_.log.warning("a job's end came after its lease",
                            {{"request_id", job->lease.job.id}});
      end(job, "lost");
      return false;
    }
    services_.log.error("the end of a job could not be written and is tried again",
                        {{"request_id", job->lease.job.id}, {"error", written.error().message}});
    if (!wait(delay, {})) return false;
  }
}

bool PostLine::wait(platform::Millis delay, const std::stop_token& job_stop) {
  const std::stop_callback wake(job_stop, [this] {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  });
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, stopped_.get_token(), delay, [&] { return job_stop.stop_requested(); });
  return !stopping_ && !job_stop.stop_requested();
}

void PostLine::end(const Job& job, std::string_view outcome) {
  {
    const std::lock_guard lock(mutex_);
    if (leases_.erase(job->lease.job.sequence) == 0) return;
    changed_.notify_all();
  }
  job->over = true;
  const platform::Millis took = services_.clock.now() - job->leased_at;
  services_.metrics.jobs_inflight(-1);
  services_.metrics.job(job->request.model, outcome, static_cast<double>(took.count()) / 1e3);
  job->span.set({"limner.outcome", outcome});
  job->span.end();
}

}  // namespace limner::worker
