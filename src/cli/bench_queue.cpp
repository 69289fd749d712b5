// `limner bench queue`: what each queue policy does to tiers and accounts, on a made-up clock.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "queue/simulation/peer_policies.h"
#include "queue/simulation/simulator.h"

namespace limner::cli {
namespace {

struct Options {
  std::vector<std::string> policies = queue::simulated_policy_names();
  std::vector<std::string> scenarios;  // empty: all
  std::uint64_t seed = 1;
};

std::vector<std::string> scenario_names() {
  std::vector<std::string> names;
  for (const queue::Scenario& scenario : queue::scenarios()) names.push_back(scenario.name);
  return names;
}

nlohmann::json to_json(const queue::Report& report) {
  nlohmann::json tiers;
  for (const contract::Tier tier : contract::kTiers) {
    const queue::TierReport& one = report.tiers[static_cast<std::size_t>(tier)];
    tiers[std::string(contract::name(tier))] = {{"share", one.share},
                                                {"offered", one.offered},
                                                {"started", one.started},
                                                {"mean_wait_seconds", one.mean_wait},
                                                {"longest_wait_seconds", one.longest_wait}};
  }
  return {{"tiers", tiers},
          {"jain_index", report.jain ? nlohmann::json(*report.jain) : nlohmann::json()},
          {"busy", report.busy},
          {"model_loads", report.loads}};
}

void print_header(const queue::Scenario& scenario, const Console& console) {
  console.result(fmt::format("\n{}: {}", scenario.name, scenario.question));
  console.result(fmt::format("  {:<12}{:>24}{:>27}{:>27}{:>7}{:>7}{:>7}", "", "share %",
                             "mean wait s", "longest wait s", "Jain", "busy", "loads"));
}

void print_row(const std::string& policy, const queue::Report& report, const Console& console) {
  const auto columns = [&](auto value, int width) {
    std::string text;
    for (const queue::TierReport& tier : report.tiers) {
      text += tier.started == 0 ? fmt::format("{:>{}}", "-", width)
                                : fmt::format("{:>{}.1f}", value(tier), width);
    }
    return text;
  };
  using Tier = queue::TierReport;
  console.result(fmt::format("  {:<12}{}{}{}{:>7}{:>7.3f}{:>7}", policy,
                             columns([](const Tier& tier) { return 100.0 * tier.share; }, 8),
                             columns([](const Tier& tier) { return tier.mean_wait; }, 9),
                             columns([](const Tier& tier) { return tier.longest_wait; }, 9),
                             report.jain ? fmt::format("{:.3f}", *report.jain) : "-", report.busy,
                             report.loads));
}

int bench_queue(const Options& options, const Console& console) {
  nlohmann::json all;
  for (const queue::Scenario& scenario : queue::scenarios()) {
    const auto& wanted = options.scenarios;
    if (!wanted.empty() && std::find(wanted.begin(), wanted.end(), scenario.name) == wanted.end()) {
      continue;
    }
    if (!console.json()) print_header(scenario, console);
    for (const std::string& name : options.policies) {
      auto policy = queue::make_simulated_policy(name, options.seed);
      if (!policy.ok()) return console.fail(policy.error());
      const queue::Report report = queue::simulate(scenario, **policy, options.seed);
      all[scenario.name][name] = to_json(report);
      if (!console.json()) print_row(name, report, console);
    }
  }
  if (console.json()) {
    console.result(nlohmann::json{{"seed", options.seed}, {"scenarios", all}}.dump());
  } else {
    console.result("\nColumns of three: turbo, fast, relax. Shares are of the seconds drawn.");
  }
  return 0;
}

}  // namespace

void add_bench_queue_command(CLI::App& bench, Context& context) {
  CLI::App* command =
      bench.add_subcommand("queue", "Simulate the queue's policies and two other services' rules");
  auto options = std::make_shared<Options>();
  command->add_option("--policy", options->policies, "Policies to run (default: all)")
      ->check(CLI::IsMember(queue::simulated_policy_names()));
  command->add_option("--scenario", options->scenarios, "Scenarios to run (default: all)")
      ->check(CLI::IsMember(scenario_names()));
  command->add_option("--seed", options->seed, "Of arrivals, costs and random choices");
  add_console_options(*command, context);
  command->footer("Example:\n  limner bench queue --scenario saturated --policy fair random");
  command->callback(
      [options, &context] { context.exit_code = bench_queue(*options, context.console()); });
}

}  // namespace limner::cli
