#include "contract/job.h"

namespace limner::contract {
namespace {

constexpr std::array<std::string_view, kTierCount> kTierNames = {"turbo", "fast", "relax"};
constexpr std::array<std::string_view, 7> kStatusNames = {
    "queued", "running", "completed", "blocked", "failed", "canceled", "expired"};

template <typename Value, std::size_t kCount>
std::optional<Value> value_named(const std::array<std::string_view, kCount>& names,
                                 std::string_view wanted) {
  for (std::size_t index = 0; index < kCount; ++index) {
    if (names[index] == wanted) return static_cast<Value>(index);
  }
  return std::nullopt;
}

}  // namespace

std::string_view name(Tier tier) {
  return kTierNames[static_cast<std::size_t>(tier)];
}
std::string_view name(JobStatus status) {
  return kStatusNames[static_cast<std::size_t>(status)];
}

std::optional<Tier> tier_named(std::string_view wanted) {
  return value_named<Tier>(kTierNames, wanted);
}

std::optional<JobStatus> status_named(std::string_view wanted) {
  return value_named<JobStatus>(kStatusNames, wanted);
}

}  // namespace limner::contract
