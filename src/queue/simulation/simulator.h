// The simulator: workers, accounts and a policy on a made-up clock.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "queue/policy.h"
#include "queue/tier_shares.h"

namespace limner::queue {

// Accounts that behave alike.
struct Source {
  contract::Tier tier = contract::Tier::kRelax;
  std::size_t accounts = 1;
  // Each account either keeps `backlog` jobs waiting, or sends `jobs_per_hour` at random (Poisson).
  std::size_t backlog = 0;
  double jobs_per_hour = 0.0;
  double burst_seconds = 0.0;  // > 0: double the rate for so long, then nothing for so long
  double job_seconds = 4.0;    // on average; from half to one and a half of it
  bool compared = false;       // counts for the fairness index
};

struct Scenario {
  std::string name{};
  std::string question{};
  std::vector<Source> sources{};
  std::size_t workers = 8;
  double hours = 2.0;
  std::uint32_t models = 1;
  double load_seconds = 0.0;  // what a change of model costs a worker
};

struct TierReport {
  double share = 0.0;    // of the seconds that the workers drew
  double offered = 0.0;  // seconds of work that arrived, of the workers' time
  std::size_t started = 0;
  double mean_wait = 0.0;     // seconds, of the jobs that were started
  double longest_wait = 0.0;  // of those and of the ones still waiting
};

struct Report {
  PerTier<TierReport> tiers{};
  // Absent where no accounts are compared.
  std::optional<double> jain{};  // (sum x)^2 / (n sum x^2) over the compared accounts' seconds
  double busy = 0.0;             // of the workers' time, loading included
  std::size_t loads = 0;         // of models
};

// Runs the scenario from one seed. Jobs take 0.8 to 1.2 of the cost the policy was told.
Report simulate(const Scenario& scenario, Policy& policy, std::uint64_t seed);

// Jain, Chiu and Hawe 1984; 1 where all are equal, 1/n where one has all.
double jain_index(const std::vector<double>& amounts);

// The questions that `limner bench queue` puts.
std::vector<Scenario> scenarios();

}  // namespace limner::queue
