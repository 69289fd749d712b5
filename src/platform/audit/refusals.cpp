#include "platform/audit/refusals.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

namespace limner::platform {
namespace {

std::string actor_of(const Refusal& refusal) {
  if (!refusal.key_id.empty()) return refusal.key_id;
  return refusal.peer.empty() ? "various" : fmt::format("address {}", refusal.peer);
}

AuditAct act_of(const Refusal& refusal, std::int64_t times) {
  std::string detail =
      fmt::format("{} {}, {} time{}", refusal.status, refusal.code, times, times == 1 ? "" : "s");
  if (!refusal.account.empty()) detail += fmt::format(", account {}", refusal.account);
  if (!refusal.key_id.empty() && !refusal.peer.empty()) {
    detail += fmt::format(", address {}", refusal.peer);
  }
  return {actor_of(refusal), std::string(audit_action::kRefused), refusal.route, detail};
}

}  // namespace

void Refusals::add(Refusal refusal, std::int64_t times) {
  if (counts_.size() >= most_ && !counts_.contains(refusal)) {
    refusal = Refusal{.status = refusal.status, .code = std::move(refusal.code)};
  }
  counts_[std::move(refusal)] += times;
}

void Refusals::count(Refusal refusal) {
  const std::lock_guard lock(mutex_);
  add(std::move(refusal), 1);
}

Result<void> Refusals::flush() {
  std::map<Refusal, std::int64_t> counts;
  {
    const std::lock_guard lock(mutex_);
    counts.swap(counts_);
  }
  if (counts.empty()) return {};
  std::vector<AuditAct> acts;
  acts.reserve(counts.size());
  for (const auto& [refusal, times] : counts) acts.push_back(act_of(refusal, times));
  auto written = log_.append(acts);
  if (!written.ok()) {
    const std::lock_guard lock(mutex_);
    for (const auto& [refusal, times] : counts) add(refusal, times);
  }
  return written;
}

}  // namespace limner::platform
