// Whether a model is what it was when it was built: for `limner model verify`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"

namespace limner::engine::weights {

struct Verification {
  bool has_manifest = false;  // limner-manifest.json; without it only the tensors are checked
  std::uint64_t tensors = 0;
  std::uint64_t files = 0;            // compared with the manifest
  std::vector<std::string> problems;  // sentences; empty when nothing is wrong
};

// Reads everything: NaN and infinity in any tensor, files missing, added to a component, or changed
// against the manifest. Fails as inspect does when there is no model at all.
Result<Verification> verify(const std::filesystem::path& model);

}  // namespace limner::engine::weights
