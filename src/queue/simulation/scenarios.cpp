#include "queue/simulation/simulator.h"

namespace limner::queue {
namespace {

using contract::Tier;

Source backlog(Tier tier, std::size_t accounts, std::size_t jobs, double job_seconds = 4.0,
               bool compared = false) {
  Source source;
  source.tier = tier;
  source.accounts = accounts;
  source.backlog = jobs;
  source.job_seconds = job_seconds;
  source.compared = compared;
  return source;
}

// A share of eight workers' time, in jobs of four seconds, from ten accounts.
Source stream(Tier tier, double share, double burst_seconds = 0.0) {
  Source source;
  source.tier = tier;
  source.accounts = 10;
  source.jobs_per_hour = share * 8.0 * 3600.0 / 4.0 / 10.0;
  source.burst_seconds = burst_seconds;
  return source;
}

Scenario scenario(std::string name, std::string question, std::vector<Source> sources) {
  Scenario made;
  made.name = std::move(name);
  made.question = std::move(question);
  made.sources = std::move(sources);
  return made;
}

}  // namespace

std::vector<Scenario> scenarios() {
  std::vector<Scenario> all;
  all.push_back(scenario("saturated", "All tiers have more than they can get: shares 10:5:1?",
                         {backlog(Tier::kTurbo, 10, 30), backlog(Tier::kFast, 10, 30),
                          backlog(Tier::kRelax, 10, 30)}));
  all.push_back(scenario(
      "flood", "Turbo floods: do the others get their 8 %, and soon?",
      {backlog(Tier::kTurbo, 50, 50), stream(Tier::kFast, 0.08), stream(Tier::kRelax, 0.08)}));
  all.push_back(scenario("two-floods", "Turbo and relax flood: does relax keep 10 %?",
                         {backlog(Tier::kTurbo, 50, 50), backlog(Tier::kRelax, 50, 50)}));
  all.push_back(scenario(
      "busy-day", "Load 95 %, turbo in bursts: relax within 5 minutes?",
      {stream(Tier::kTurbo, 0.45, 300.0), stream(Tier::kFast, 0.35), stream(Tier::kRelax, 0.15)}));
  all.push_back(
      scenario("accounts", "One account asks 100 times as much, another's jobs are long",
               {backlog(Tier::kFast, 18, 5, 4.0, true), backlog(Tier::kFast, 1, 500, 4.0, true),
                backlog(Tier::kFast, 1, 5, 16.0, true)}));
  Scenario models =
      scenario("models", "Four models, 10 s to change: how often, and who waits?",
               {stream(Tier::kTurbo, 0.20), stream(Tier::kFast, 0.20), stream(Tier::kRelax, 0.10)});
  models.models = 4;
  models.load_seconds = 10.0;
  all.push_back(std::move(models));
  return all;
}

}  // namespace limner::queue
