#include "queue/simulation/simulator.h"

#include <algorithm>
#include <cmath>
#include <queue>
#include <random>
#include <unordered_map>

namespace limner::queue {
namespace {

constexpr std::uint32_t kNoModel = UINT32_MAX;

class Simulation {
 public:
  Simulation(const Scenario& scenario, Policy& policy, std::uint64_t seed)
      : scenario_(scenario), policy_(policy), random_(seed), end_(scenario.hours * 3600.0) {
    for (const Source& source : scenario.sources) {
      for (std::size_t account = 0; account < source.accounts; ++account) {
        accounts_.push_back({&source, 0.0});
      }
    }
  }

  Report run() {
    for (std::uint32_t account = 0; account < accounts_.size(); ++account) {
      const Source& source = *accounts_[account].source;
      for (std::size_t job = 0; job < source.backlog; ++job) submit(account);
      if (source.jobs_per_hour > 0.0) arrivals_.push({next_arrival(source, 0.0), account});
    }
    for (std::size_t worker = 0; worker < scenario_.workers; ++worker) {
      workers_.push_back({});
      idle_.push_back(worker);
    }
    while (step()) {
    }
    return report();
  }

 private:
  struct Account {
    const Source* source;
    double served;  // seconds
  };
  struct Worker {
    std::uint32_t model = kNoModel;
    Waiting job{};
    double seconds = 0.0;
    double loading = 0.0;  // before it
  };
  using Event = std::pair<double, std::size_t>;  // when, and which account or worker
  using Events = std::priority_queue<Event, std::vector<Event>, std::greater<>>;

  Millis now() const { return Millis{static_cast<std::int64_t>(time_ * 1e3)}; }

  double uniform(double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random_);
  }

  double next_arrival(const Source& source, double after) {
    double rate = source.jobs_per_hour / 3600.0;
    const double burst = source.burst_seconds;
    if (burst <= 0.0) return after + std::exponential_distribution<double>(rate)(random_);
    // Double the rate on a clock that stands still while the source is silent.
    const double periods = std::floor(after / (2.0 * burst));
    const double active = periods * burst + std::min(after - periods * 2.0 * burst, burst);
    const double next = active + std::exponential_distribution<double>(2.0 * rate)(random_);
    return std::floor(next / burst) * 2.0 * burst + std::fmod(next, burst);
  }

  void submit(std::uint32_t account) {
    const Source& source = *accounts_[account].source;
    Waiting job;
    job.sequence = next_sequence_++;
    job.account = account;
    job.model = std::uniform_int_distribution<std::uint32_t>(0, scenario_.models - 1)(random_);
    job.tier = source.tier;
    job.cost = source.job_seconds * uniform(0.5, 1.5);
    job.since = now();
    offered_[static_cast<std::size_t>(source.tier)] += job.cost;
    waiting_.emplace(job.sequence, job);
    policy_.add(job, now());
  }

  // Handles the next event; false at the end.
  bool step() {
    give_out();
    const double arrival = arrivals_.empty() ? end_ : arrivals_.top().first;
    const double completion = busy_.empty() ? end_ : busy_.top().first;
    time_ = std::min(arrival, completion);
    if (time_ >= end_) return false;
    if (arrival <= completion) {
      const auto account = static_cast<std::uint32_t>(arrivals_.top().second);
      arrivals_.pop();
      submit(account);
      arrivals_.push({next_arrival(*accounts_[account].source, time_), account});
    } else {
      const std::size_t worker = busy_.top().second;
      busy_.pop();
      policy_.settle(workers_[worker].job, workers_[worker].seconds + workers_[worker].loading);
      idle_.push_back(worker);
    }
    return true;
  }

  void give_out() {
    while (!idle_.empty() && policy_.size() > 0) {
      Worker& worker = workers_[idle_.back()];
      const bool steer = scenario_.models > 1 && worker.model != kNoModel;
      const Offer offer{steer ? std::span(&worker.model, 1) : std::span<const std::uint32_t>{},
                        scenario_.workers};
      const std::optional<Waiting> job = policy_.next(offer, now());
      start(idle_.back(), *job);
      idle_.pop_back();
    }
  }

  void start(std::size_t index, const Waiting& job) {
    Worker& worker = workers_[index];
    worker.loading = 0.0;
    if (worker.model != job.model) {
      worker.model = job.model;
      worker.loading = scenario_.load_seconds;
      ++report_.loads;
    }
    worker.job = job;
    worker.seconds = job.cost * uniform(0.8, 1.2);
    waiting_.erase(job.sequence);
    const double counted = std::min(worker.seconds, std::max(0.0, end_ - time_ - worker.loading));
    TierReport& tier = report_.tiers[static_cast<std::size_t>(job.tier)];
    tier.share += counted;
    tier.started += 1;
    wait(tier, job);
    accounts_[job.account].served += counted;
    report_.busy += std::min(worker.seconds + worker.loading, end_ - time_);
    busy_.push({time_ + worker.loading + worker.seconds, index});
    if (accounts_[job.account].source->backlog > 0) submit(job.account);
  }

  void wait(TierReport& tier, const Waiting& job) {
    const double waited = static_cast<double>((now() - job.since).count()) / 1e3;
    tier.mean_wait += waited;
    tier.longest_wait = std::max(tier.longest_wait, waited);
  }

  Report report() {
    time_ = end_;
    const double capacity = static_cast<double>(scenario_.workers) * end_;
    double drawn = 0.0;
    for (const TierReport& tier : report_.tiers) drawn += tier.share;
    for (std::size_t index = 0; index < report_.tiers.size(); ++index) {
      TierReport& tier = report_.tiers[index];
      if (drawn > 0.0) tier.share /= drawn;
      if (tier.started > 0) tier.mean_wait /= static_cast<double>(tier.started);
      tier.offered = offered_[index] / capacity;
    }
    for (const auto& [sequence, job] : waiting_) {
      TierReport& tier = report_.tiers[static_cast<std::size_t>(job.tier)];
      tier.longest_wait =
          std::max(tier.longest_wait, static_cast<double>((now() - job.since).count()) / 1e3);
    }
    report_.busy /= capacity;
    std::vector<double> compared;
    for (const Account& account : accounts_) {
      if (account.source->compared) compared.push_back(account.served);
    }
    if (!compared.empty()) report_.jain = jain_index(compared);
    return report_;
  }

  const Scenario& scenario_;
  Policy& policy_;
  std::mt19937_64 random_;
  double end_;
  double time_ = 0.0;  // seconds
  std::int64_t next_sequence_ = 1;
  std::vector<Account> accounts_;
  std::vector<Worker> workers_;
  std::vector<std::size_t> idle_;
  Events arrivals_, busy_;
  std::unordered_map<std::int64_t, Waiting> waiting_;
  PerTier<double> offered_{};
  Report report_;
};

}  // namespace

Report simulate(const Scenario& scenario, Policy& policy, std::uint64_t seed) {
  return Simulation(scenario, policy, seed).run();
}

double jain_index(const std::vector<double>& amounts) {
  double sum = 0.0, squares = 0.0;
  for (const double amount : amounts) {
    sum += amount;
    squares += amount * amount;
  }
  return squares == 0.0 ? 1.0 : sum * sum / (static_cast<double>(amounts.size()) * squares);
}

}  // namespace limner::queue
