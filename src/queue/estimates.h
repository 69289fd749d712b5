// Estimates: how long jobs take, learnt from those that ended.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>

namespace limner::queue {

// Per class, seconds per unit of work as an exponentially weighted mean (a tenth for the newest)
// with its variance (West 1979). Used by one thread.
class Estimates {
 public:
  void learn(const std::string& job_class, double work, double seconds);
  // Seconds for so much work of the class; absent until one of the class has been measured.
  std::optional<double> seconds(const std::string& job_class, double work) const;
  // The cost a policy reckons with: seconds(), else the mean of all jobs, else 1.
  double cost(const std::string& job_class, double work) const;
  // Standard deviation over mean, of one job; at most 1.
  double spread(const std::string& job_class) const;
  bool measured() const { return jobs_ > 0; }
  double mean_seconds() const { return mean_; }  // of all jobs

 private:
  struct Rate {
    double mean = 0.0;
    double variance = 0.0;
  };
  std::unordered_map<std::string, Rate> rates_;
  double mean_ = 0.0;
  std::size_t jobs_ = 0;
};

}  // namespace limner::queue
