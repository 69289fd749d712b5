#include "platform/metrics/metrics.h"

#include <gtest/gtest.h>

#include <ctime>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <sstream>
#include <thread>
#include <vector>

namespace limner::platform {
namespace {

// A strict reader of the text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).
struct Exposition {
  std::map<std::string, std::string> types;  // family -> counter, gauge, histogram
  std::map<std::string, std::string> helps;  // family -> sentence
  std::map<std::string, double> samples;     // `name{label="value",...}` as written -> value
  std::vector<std::string> names;            // of samples, in order

  explicit Exposition(const std::string& text) {
    EXPECT_TRUE(text.ends_with('\n'));
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      if (line.starts_with("# HELP ") || line.starts_with("# TYPE ")) {
        std::string hash, kind, family, rest;
        words >> hash >> kind >> family;
        std::getline(words >> std::ws, rest);
        auto& table = kind == "HELP" ? helps : types;
        EXPECT_TRUE(table.emplace(family, rest).second) << "twice: " << line;
        continue;
      }
      const auto space = line.rfind(' ');
      if (space == std::string::npos) {
        ADD_FAILURE() << line;
        continue;
      }
      const std::string series = line.substr(0, space);
      EXPECT_TRUE(samples.emplace(series, std::stod(line.substr(space + 1))).second)
          << "twice: " << line;
      names.push_back(series.substr(0, series.find('{')));
    }
  }

  double at(const std::string& series) const {
    const auto place = samples.find(series);
    if (place != samples.end()) return place->second;
    ADD_FAILURE() << "no series " << series;
    return -1.0;
  }
};

void touch_everything(Metrics& metrics) {
  metrics.request("/v1/generations/{id}", 200, 0.003);
  metrics.queue_depth("turbo", 3);
  metrics.queue_wait("turbo", 0.2);
  metrics.workers_needed(2.5);
  metrics.jobs_inflight(1);
  metrics.job("miniature", "completed", 4.0);
  metrics.denoise_step("miniature", 0.04);
  metrics.batch_size(4);
  metrics.model_load("miniature", 0.7);
  metrics.memory("cpu", "weights", 1e9);
  metrics.adapter_cache(5, 2);
  metrics.cancel_latency(0.05);
  metrics.webhook_attempt("delivered");
  metrics.dropped("spans", 1);
}

// The list is that of the public names, each with its labels.
TEST(Metrics, HaveThePublicNamesAndLabels) {
  Metrics metrics;
  touch_everything(metrics);
  const Exposition seen(metrics.text());
  const std::map<std::string, std::string> wanted = {
      {"limner_requests_total", "counter"},
      {"limner_queue_depth", "gauge"},
      {"limner_queue_wait_seconds", "histogram"},
      {"limner_jobs_inflight", "gauge"},
      {"limner_job_duration_seconds", "histogram"},
      {"limner_denoise_step_seconds", "histogram"},
      {"limner_batch_size", "histogram"},
      {"limner_model_load_seconds", "histogram"},
      {"limner_memory_bytes", "gauge"},
      {"limner_adapter_cache_hits_total", "counter"},
      {"limner_adapter_cache_misses_total", "counter"},
      {"limner_cancel_latency_seconds", "histogram"},
      {"limner_webhook_attempts_total", "counter"},
      {"limner_workers_needed", "gauge"},
  };
  for (const auto& [name, type] : wanted) {
    ASSERT_TRUE(seen.types.count(name)) << name;
    EXPECT_EQ(seen.types.at(name), type) << name;
    EXPECT_FALSE(seen.helps.at(name).empty()) << name;
  }
  for (const char* series : {
           R"(limner_requests_total{code="200",route="/v1/generations/{id}"})",
           R"(limner_queue_depth{tier="turbo"})",
           R"(limner_queue_wait_seconds_count{tier="turbo"})",
           R"(limner_job_duration_seconds_count{model="miniature",outcome="completed"})",
           R"(limner_denoise_step_seconds_count{model="miniature"})",
           "limner_batch_size_count",
           R"(limner_model_load_seconds_count{model="miniature"})",
           R"(limner_memory_bytes{device="cpu",kind="weights"})",
           R"(limner_webhook_attempts_total{outcome="delivered"})",
       }) {
    EXPECT_GT(seen.at(series), 0.0) << series;
  }
  EXPECT_EQ(seen.at("limner_workers_needed"), 2.5);
  EXPECT_EQ(seen.at("limner_adapter_cache_hits_total"), 5.0);
  EXPECT_EQ(seen.at(R"(limner_build_info{version=")" LIMNER_VERSION R"("})"), 1.0);
}

TEST(Metrics, FamiliesStandTogether) {
  Metrics metrics;
  touch_everything(metrics);
  metrics.request("/livez", 200, 0.001);
  metrics.queue_depth("relax", 0);
  const Exposition seen(metrics.text());
  std::set<std::string> done;
  std::string family;
  for (std::string name : seen.names) {
    for (const char* ending : {"_bucket", "_sum", "_count"}) {
      if (name.ends_with(ending) && seen.types.count(name) == 0) {
        name.resize(name.size() - std::string_view(ending).size());
        break;
      }
    }
    EXPECT_TRUE(seen.types.count(name)) << name;
    if (name == family) continue;
    EXPECT_TRUE(done.insert(name).second) << name << " in two places";
    family = name;
  }
}

TEST(Metrics, BucketsCountEverythingUpToTheirBound) {
  Metrics metrics;
  for (const double seconds : {0.004, 0.2, 29.9, 30.0, 30.1, 5000.0}) {
    metrics.queue_wait("relax", seconds);
  }
  const Exposition seen(metrics.text());
  const auto up_to = [&](const std::string& bound) {
    return seen.at(R"(limner_queue_wait_seconds_bucket{tier="relax",le=")" + bound + "\"}");
  };
  EXPECT_EQ(up_to("0.005"), 1.0);
  EXPECT_EQ(up_to("0.25"), 2.0);
  EXPECT_EQ(up_to("30"), 4.0);
  EXPECT_EQ(up_to("1800"), 5.0);
  EXPECT_EQ(up_to("+Inf"), 6.0);
  EXPECT_EQ(seen.at(R"(limner_queue_wait_seconds_count{tier="relax"})"), 6.0);
  EXPECT_DOUBLE_EQ(seen.at(R"(limner_queue_wait_seconds_sum{tier="relax"})"), 5090.204);
}

TEST(Metrics, TotalsOfOthersAreFollowedAlsoOverTheirRestart) {
  Metrics metrics;
  metrics.adapter_cache(10, 4);
  metrics.adapter_cache(12, 4);
  metrics.adapter_cache(3, 1);  // a new cache
  const Exposition seen(metrics.text());
  EXPECT_EQ(seen.at("limner_adapter_cache_hits_total"), 15.0);
  EXPECT_EQ(seen.at("limner_adapter_cache_misses_total"), 5.0);
}

TEST(Metrics, AnyLabelLeavesTheTextReadable) {
  Metrics metrics;
  metrics.model_load("a\"b\\c\nd", 1.0);
  metrics.model_load("caf\xe9", 1.0);  // Latin-1
  metrics.model_load("caf\xc3\xa9", 1.0);
  const Exposition seen(metrics.text());
  EXPECT_EQ(seen.at(R"(limner_model_load_seconds_count{model="a\"b\\c\nd"})"), 1.0);
  EXPECT_EQ(seen.at(R"(limner_model_load_seconds_count{model="caf?"})"), 1.0);
  EXPECT_EQ(seen.at("limner_model_load_seconds_count{model=\"caf\xc3\xa9\"}"), 1.0);
}

TEST(Metrics, LoseNothingBetweenThreads) {
  Metrics metrics;
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        metrics.request("/livez", 200, 0.001);
        metrics.jobs_inflight(i % 2 == 0 ? 1 : -1);
        if (i % 100 == 0) (void)metrics.text();
      }
    });
  }
  threads.clear();
  const Exposition seen(metrics.text());
  EXPECT_EQ(seen.at(R"(limner_requests_total{code="200",route="/livez"})"), 2000.0);
  EXPECT_EQ(seen.at("limner_jobs_inflight"), 0.0);
}

TEST(Metrics, TellOfTheProcess) {
  const Metrics metrics;
  const Exposition seen(metrics.text());
  EXPECT_GT(seen.at("process_resident_memory_bytes"), 1e6);
  EXPECT_GT(seen.at("process_open_fds"), 2.0);
  EXPECT_GE(seen.at("process_cpu_seconds_total"), 0.0);
  const double started = seen.at("process_start_time_seconds");
  const double now = static_cast<double>(time(nullptr));
  EXPECT_GT(started, now - 3600.0);
  EXPECT_LE(started, now + 1.0);
}

std::string read_file(const std::string& path) {
  std::ifstream file(std::string(LIMNER_SOURCE_DIR) + path, std::ios::binary);
  EXPECT_TRUE(file) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

// Every "expr" of a dashboard.
void collect_expressions(const nlohmann::json& value, std::string& all) {
  for (const auto& [key, item] : value.items()) {
    if (key == "expr") {
      all += item.get<std::string>() + "\n";
    } else if (item.is_structured()) {
      collect_expressions(item, all);
    }
  }
}

// The metrics' names in `text`, without the endings of histograms' series.
std::set<std::string> names_in(const std::string& text, const Exposition& known) {
  static const std::regex name("\\b(limner|process)_[a-z_]+");
  std::set<std::string> names;
  for (std::sregex_iterator found(text.begin(), text.end(), name), end; found != end; ++found) {
    const std::string whole = found->str();
    const std::string family = std::regex_replace(whole, std::regex("_(bucket|sum|count)$"), "");
    const bool histogram = known.types.count(family) && known.types.at(family) == "histogram";
    names.insert(histogram && family != whole ? family : whole);
  }
  return names;
}

TEST(Deployed, DashboardAndAlertsNameMetricsThatExist) {
  Metrics metrics;
  touch_everything(metrics);
  const Exposition known(metrics.text());
  std::string expressions;
  collect_expressions(nlohmann::json::parse(read_file("/deploy/grafana/limner.json")), expressions);
  const auto shown = names_in(expressions, known);
  const auto watched = names_in(read_file("/deploy/prometheus/alerts.yml"), known);
  EXPECT_GT(watched.size(), 10u);
  for (const auto& names : {shown, watched}) {
    for (const std::string& name : names) EXPECT_TRUE(known.types.count(name)) << name;
  }
  for (const auto& [name, type] : known.types) {
    const bool constant = name == "limner_build_info" || name == "process_start_time_seconds";
    EXPECT_TRUE(shown.count(name) || constant) << name << " is not on the dashboard";
    EXPECT_TRUE(type != "counter" || name.ends_with("_total")) << name;
  }
}

}  // namespace
}  // namespace limner::platform
