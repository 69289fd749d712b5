#include "platform/metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <mutex>
#include <sstream>

#include "base/utf8.h"
#include "platform/metrics/process_figures.h"

namespace limner::platform {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using Buckets = Histogram::BucketBoundaries;

// Upper bounds in seconds. Each list has the figures that promises and alerts are made of: 15 ms to
// accept a request, the tiers' longest waits of 30, 120 and 300 s.
const Buckets kRequestSeconds = {0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1,
                                 0.25,  0.5,    1,     2.5,  5,     10,    30,   60};
const Buckets kQueueSeconds = {0.005, 0.025, 0.1, 0.25, 0.5, 1,   2.5, 5,
                               10,    30,    60,  120,  300, 600, 1800};
const Buckets kJobSeconds = {0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800};
const Buckets kStepSeconds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                              0.25,  0.5,    1,     2.5,  5,     10,   30};
const Buckets kLoadSeconds = {0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300};
const Buckets kCancelSeconds = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30};
const Buckets kBatchRows = {1, 2, 3, 4, 6, 8, 12, 16, 24, 32};

// The names of model files are anybody's; the exposition is UTF-8, or no scrape is taken at all.
std::string label(std::string_view value) {
  std::string text(value);
  if (decode_utf8(text).ok()) return text;
  for (char& byte : text) {
    if (static_cast<unsigned char>(byte) >= 0x80) byte = '?';
  }
  return text;
}

// Metrics never stop what they measure.
template <typename Act>
void quietly(Act&& act) noexcept {
  try {
    act();
  } catch (const std::exception&) {
  }
}

// Counts up to totals that somebody else keeps. A smaller total means that they start again.
class Follower {
 public:
  void follow(Counter& counter, double total) {
    if (total < seen_) seen_ = 0.0;
    counter.Increment(total - seen_);
    seen_ = total;
  }

 private:
  double seen_ = 0.0;
};

}  // namespace

struct Metrics::Registry {
  prometheus::Registry all{};

  Family<Counter>& counter(const std::string& name, const std::string& help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(all);
  }
  Family<Gauge>& gauge(const std::string& name, const std::string& help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(all);
  }
  Family<Histogram>& histogram(const std::string& name, const std::string& help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(all);
  }

  Family<Counter>& requests =
      counter("limner_requests_total", "Answers to HTTP requests, by route pattern and status.");
  Family<Histogram>& request_seconds =
      histogram("limner_request_duration_seconds",
                "From a request's last header to the end of its answer's headers.");
  Family<Gauge>& queue_depth = gauge("limner_queue_depth", "Jobs that wait.");
  Family<Histogram>& queue_wait =
      histogram("limner_queue_wait_seconds", "From acceptance to the start of a job.");
  Gauge& workers_needed =
      gauge("limner_workers_needed", "Workers that would clear the queue in time.").Add({});
  Gauge& jobs_inflight = gauge("limner_jobs_inflight", "Jobs that workers hold.").Add({});
  Family<Histogram>& jobs =
      histogram("limner_job_duration_seconds", "From a job's start to its end.");
  Family<Histogram>& steps =
      histogram("limner_denoise_step_seconds", "One denoising step of a batch.");
  Histogram& batch_size =
      histogram("limner_batch_size", "Pictures drawn in one step.").Add({}, kBatchRows);
  Family<Histogram>& model_load =
      histogram("limner_model_load_seconds", "Loading a model until it can draw.");
  Family<Gauge>& memory = gauge("limner_memory_bytes", "Memory, by device and what it is for.");
  Counter& cache_hits =
      counter("limner_adapter_cache_hits_total", "Adapters that were in memory already.").Add({});
  Counter& cache_misses =
      counter("limner_adapter_cache_misses_total", "Adapters that had to be read.").Add({});
  Histogram& cancel_latency =
      histogram("limner_cancel_latency_seconds", "From the wish to cancel to the job's last step.")
          .Add({}, kCancelSeconds);
  Family<Counter>& webhooks =
      counter("limner_webhook_attempts_total", "Attempts to deliver a webhook.");
  Family<Counter>& dropped = counter("limner_telemetry_dropped_total",
                                     "Log lines and spans that could not be written in time.");

  Counter& cpu = counter("process_cpu_seconds_total", "User and system time.").Add({});
  Gauge& resident = gauge("process_resident_memory_bytes", "Resident memory.").Add({});
  Gauge& open_files = gauge("process_open_fds", "Open file descriptors.").Add({});
  Gauge& most_open_files = gauge("process_max_fds", "Limit of open file descriptors.").Add({});
  Gauge& started_at =
      gauge("process_start_time_seconds", "When the process started, since 1970.").Add({});

  std::mutex mutex{};
  Follower hits{}, misses{}, cpu_seconds{};              // by mutex
  std::map<std::string, Follower, std::less<>> drops{};  // by mutex

  void read_process() {
    const ProcessFigures figures = process_figures();
    const std::scoped_lock lock(mutex);
    cpu_seconds.follow(cpu, figures.cpu_seconds);
    resident.Set(static_cast<double>(figures.resident_bytes));
    open_files.Set(static_cast<double>(figures.open_files));
    most_open_files.Set(static_cast<double>(figures.most_open_files));
    started_at.Set(figures.started_at);
  }
};

Metrics::Metrics() : registry_(std::make_unique<Registry>()) {
  registry_->gauge("limner_build_info", "1, with what is running.")
      .Add({{"version", LIMNER_VERSION}}, 1.0);
}

Metrics::~Metrics() = default;

void Metrics::request(std::string_view route, int code, double seconds) {
  quietly([&] {
    const std::string pattern = label(route);
    registry_->requests.Add({{"route", pattern}, {"code", std::to_string(code)}}).Increment();
    registry_->request_seconds.Add({{"route", pattern}}, kRequestSeconds).Observe(seconds);
  });
}

void Metrics::queue_depth(std::string_view tier, std::size_t waiting) {
  quietly([&] {
    registry_->queue_depth.Add({{"tier", label(tier)}}).Set(static_cast<double>(waiting));
  });
}

void Metrics::queue_wait(std::string_view tier, double seconds) {
  quietly(
      [&] { registry_->queue_wait.Add({{"tier", label(tier)}}, kQueueSeconds).Observe(seconds); });
}

void Metrics::workers_needed(double workers) {
  registry_->workers_needed.Set(workers);
}

void Metrics::jobs_inflight(int change) {
  registry_->jobs_inflight.Increment(change);
}

void Metrics::job(std::string_view model, std::string_view outcome, double seconds) {
  quietly([&] {
    registry_->jobs.Add({{"model", label(model)}, {"outcome", label(outcome)}}, kJobSeconds)
        .Observe(seconds);
  });
}

void Metrics::denoise_step(std::string_view model, double seconds) {
  quietly([&] { registry_->steps.Add({{"model", label(model)}}, kStepSeconds).Observe(seconds); });
}

void Metrics::batch_size(std::size_t rows) {
  quietly([&] { registry_->batch_size.Observe(static_cast<double>(rows)); });
}

void Metrics::model_load(std::string_view model, double seconds) {
  quietly(
      [&] { registry_->model_load.Add({{"model", label(model)}}, kLoadSeconds).Observe(seconds); });
}

void Metrics::memory(std::string_view device, std::string_view kind, double bytes) {
  quietly([&] {
    registry_->memory.Add({{"device", label(device)}, {"kind", label(kind)}}).Set(bytes);
  });
}

void Metrics::adapter_cache(std::uint64_t hits, std::uint64_t misses) {
  const std::scoped_lock lock(registry_->mutex);
  registry_->hits.follow(registry_->cache_hits, static_cast<double>(hits));
  registry_->misses.follow(registry_->cache_misses, static_cast<double>(misses));
}

void Metrics::cancel_latency(double seconds) {
  quietly([&] { registry_->cancel_latency.Observe(seconds); });
}

void Metrics::webhook_attempt(std::string_view outcome) {
  quietly([&] { registry_->webhooks.Add({{"outcome", label(outcome)}}).Increment(); });
}

void Metrics::dropped(std::string_view what, std::uint64_t total) {
  quietly([&] {
    const std::scoped_lock lock(registry_->mutex);
    registry_->drops[std::string(what)].follow(registry_->dropped.Add({{"what", label(what)}}),
                                               static_cast<double>(total));
  });
}

std::string Metrics::text() const {
  std::string body;
  quietly([&] {
    registry_->read_process();
    std::ostringstream out;
    prometheus::TextSerializer().Serialize(out, registry_->all.Collect());
    body = std::move(out).str();
  });
  return body;
}

}  // namespace limner::platform
