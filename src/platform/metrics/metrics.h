// The service's metrics under the names of /metrics (Prometheus text format 0.0.4). Each function
// is one event or one new value; nothing outside this file knows a metric's name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace limner::platform {

// Safe to call from many threads; never throws, never blocks for long. Label values outside the
// closed sets (route, code, tier, outcome, kind, device) are the caller's to bound: a route is the
// pattern, never the path; a model is a name of the catalog. Times are seconds, sizes bytes. A
// series is there from its first event on; who wants it from the start says a 0.
class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // Gateway.
  void request(std::string_view route, int code, double seconds);
  // Queue.
  void queue_depth(std::string_view tier, std::size_t waiting);
  void queue_wait(std::string_view tier, double seconds);
  void workers_needed(double workers);
  // Worker.
  void jobs_inflight(int change);  // +1 at the start, -1 at the end
  void job(std::string_view model, std::string_view outcome, double seconds);
  void denoise_step(std::string_view model, double seconds);
  void batch_size(std::size_t rows);
  void model_load(std::string_view model, double seconds);
  void memory(std::string_view device, std::string_view kind, double bytes);
  void adapter_cache(std::uint64_t hits, std::uint64_t misses);  // totals since the start
  void cancel_latency(double seconds);  // from the wish to the end of the last step
  // Delivery.
  void webhook_attempt(std::string_view outcome);  // delivered, retried, failed
  // What this process had to drop of its own telemetry since it started: log_lines, spans.
  void dropped(std::string_view what, std::uint64_t total);

  // The body of GET /metrics, with the process's own figures as Prometheus names them
  // (process_resident_memory_bytes, ...).
  std::string text() const;

 private:
  struct Registry;
  std::unique_ptr<Registry> registry_;
};

}  // namespace limner::platform
