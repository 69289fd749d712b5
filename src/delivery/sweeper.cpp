#include "delivery/sweeper.h"

#include <array>

namespace limner::delivery {
namespace {

constexpr std::array<Retention, 3> kClasses = {Retention::kHot, Retention::kWarm, Retention::kCold};

// Removes what `request` lists, page by page.
Result<void> remove_listed(ArtifactStore& store, ListRequest request, SweepReport& report,
                           const std::stop_token& stop) {
  do {
    const auto page = store.list(request);
    if (!page) return page.error();
    for (const StoredObject& object : page->objects) {
      if (stop.stop_requested()) return {};
      // It may have been stored again since it was listed.
      const auto removed = store.remove(object.key, request.stored_before);
      if (!removed) return removed.error();
      if (!*removed) continue;
      ++report.objects;
      report.bytes += object.bytes;
    }
    request.after = page->next;
  } while (!request.after.empty() && !stop.stop_requested());
  return {};
}

}  // namespace

std::optional<std::chrono::seconds> Lifetimes::of(Retention retention) const {
  switch (retention) {
    case Retention::kHot:
      return hot;
    case Retention::kWarm:
      return warm;
    case Retention::kCold:
      return cold;
  }
  return std::nullopt;
}

Result<SweepReport> sweep(ArtifactStore& store, const Lifetimes& lifetimes, Time now,
                          std::stop_token stop) {
  SweepReport report;
  for (const Retention retention : kClasses) {
    const auto lifetime = lifetimes.of(retention);
    if (!lifetime) continue;
    const auto done = remove_listed(
        store, {.retention = retention, .stored_before = now - *lifetime}, report, stop);
    if (!done) return done.error();
  }
  if (stop.stop_requested()) return report;
  const auto leftovers = store.remove_leftovers(now - lifetimes.leftovers);
  if (!leftovers) return leftovers.error();
  report.leftovers = *leftovers;
  return report;
}

Result<std::uint64_t> remove_account(ArtifactStore& store, const std::string& account,
                                     Time stored_before) {
  if (const auto checked = check_account(account); !checked) return checked.error();
  SweepReport report;
  for (const Retention retention : kClasses) {
    const auto done = remove_listed(
        store, {.retention = retention, .account = account, .stored_before = stored_before}, report,
        {});
    if (!done) return done.error();
  }
  return report.objects;
}

}  // namespace limner::delivery
