#include "contract/job_cost.h"

#include <fmt/format.h>

#include <bit>

namespace limner::contract {

std::string job_class(std::string_view model, const ValidRequest& request) {
  const auto pixels =
      static_cast<std::uint64_t>(request.width()) * static_cast<std::uint64_t>(request.height());
  return fmt::format("{}/{}", model, std::bit_ceil(pixels));
}

double job_work(const ValidRequest& request) {
  const double rows = request.guidance_scale() > 1.0 ? 2.0 : 1.0;
  return static_cast<double>(request.width()) * static_cast<double>(request.height()) *
         static_cast<double>(request.steps()) * static_cast<double>(request.num_images()) * rows;
}

}  // namespace limner::contract
