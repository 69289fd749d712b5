#include "queue/estimates.h"

#include <algorithm>
#include <cmath>

namespace limner::queue {
namespace {

constexpr double kNewest = 0.1;

}  // namespace

void Estimates::learn(const std::string& job_class, double work, double seconds) {
  if (!(work > 0.0) || !(seconds > 0.0)) return;
  const double rate = seconds / work;
  const auto [found, is_new] = rates_.try_emplace(job_class, Rate{rate, 0.0});
  if (!is_new) {
    Rate& known = found->second;
    const double off = rate - known.mean;
    known.mean += kNewest * off;
    known.variance = (1.0 - kNewest) * (known.variance + kNewest * off * off);
  }
  mean_ = jobs_ == 0 ? seconds : mean_ + kNewest * (seconds - mean_);
  ++jobs_;
}

std::optional<double> Estimates::seconds(const std::string& job_class, double work) const {
  const auto found = rates_.find(job_class);
  if (found == rates_.end()) return std::nullopt;
  return found->second.mean * work;
}

double Estimates::cost(const std::string& job_class, double work) const {
  const double fallback = measured() ? mean_ : 1.0;
  return std::max(1e-3, seconds(job_class, work).value_or(fallback));
}

double Estimates::spread(const std::string& job_class) const {
  const auto found = rates_.find(job_class);
  if (found == rates_.end()) return 1.0;
  return std::min(1.0, std::sqrt(found->second.variance) / found->second.mean);
}

}  // namespace limner::queue
