#include "base/suggest.h"

#include <algorithm>
#include <numeric>

namespace limner {
namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row.back();
}

}  // namespace

std::vector<std::string> nearest(std::string_view wanted, std::span<const std::string> known,
                                 std::size_t most) {
  constexpr std::size_t kLongest = 256;  // names beyond this are compared by their beginning
  wanted = wanted.substr(0, kLongest);
  std::vector<std::pair<std::size_t, std::string>> ranked;
  for (const std::string& candidate : known) {
    const std::size_t distance =
        edit_distance(wanted, std::string_view(candidate).substr(0, kLongest));
    if (distance <= std::max<std::size_t>(2, wanted.size() / 2))
      ranked.emplace_back(distance, candidate);
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> names;
  for (auto& [distance, candidate] : ranked) {
    if (names.size() == most) break;
    names.push_back(std::move(candidate));
  }
  return names;
}

std::string did_you_mean(std::string_view wanted, std::span<const std::string> known) {
  const std::vector<std::string> names = nearest(wanted, known);
  if (names.empty()) return "";
  std::string text = " (did you mean ";
  for (std::size_t i = 0; i < names.size(); ++i) text += (i ? ", " : "") + names[i];
  return text + "?)";
}

}  // namespace limner
