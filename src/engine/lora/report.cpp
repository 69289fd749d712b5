#include "engine/lora/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "engine/lora/inspect.h"
#include "engine/weights/message_text.h"

namespace limner::engine::lora {
namespace {

constexpr std::size_t kShown = 5;

std::vector<UnmatchedKey> unmatched_of(const std::vector<std::string>& layers,
                                       const std::vector<std::string>& unknown_keys,
                                       const ModelLayers& model) {
  std::vector<UnmatchedKey> list;
  for (const std::string& name : layers) {
    // Searching a thousand names costs milliseconds; whoever reads the first few knows enough.
    list.push_back({name, list.size() < kShown ? model.near(name) : ""});
  }
  for (const std::string& key : unknown_keys) {
    list.push_back({key, key.starts_with("bundle_emb.")
                             ? " (a textual inversion inside the adapter; limner takes it as a "
                               "file of its own in an embeddings folder)"
                             : ""});
  }
  return list;
}

std::string summary(const AdapterReport& report) {
  std::string text;
  for (std::size_t i = 0; i < std::min(kShown, report.unmatched.size()); ++i) {
    const UnmatchedKey& key = report.unmatched[i];
    text += fmt::format("{}{}{}", i == 0 ? "" : ", ", weights::quote(key.name), key.nearest);
  }
  return report.unmatched.size() > kShown ? text + ", ..." : text;
}

void note_kind(const Module& module, std::set<std::string>& kinds, AdapterReport& report) {
  kinds.insert((module.is_dora() ? "DoRA of " : "") + name(module.kind));
  const auto rank = module.rank();
  if (!rank) return;
  report.lowest_rank = report.lowest_rank == 0 ? *rank : std::min(report.lowest_rank, *rank);
  report.highest_rank = std::max(report.highest_rank, *rank);
}

// What explains most files that do not match.
std::string other_family(const AdapterReport& report) {
  if (report.family.empty() || report.model_family.empty() ||
      report.family == report.model_family) {
    return "";
  }
  return fmt::format(" (the adapter is for {}, the model is {})", report.family,
                     report.model_family);
}

}  // namespace

AdapterReport match(const AdapterFile& file, const ModelLayers& model) {
  AdapterReport report;
  report.file = file.path().filename().string();
  report.path = file.path();
  report.bytes = file.bytes();
  std::set<std::string> kinds;
  std::vector<std::string> lost;
  for (const Module& module : file.modules()) {
    note_kind(module, kinds, report);
    if (const Layer* layer = model.find(module.name)) {
      ++report.matched[layer->component];
    } else {
      lost.push_back(module.name);
    }
  }
  report.family = family_of(file);
  report.model_family = model.family();
  report.kinds = fmt::format("{}", fmt::join(kinds, ", "));
  report.unmatched = unmatched_of(lost, file.unknown_keys(), model);
  return report;
}

void check_matches(const AdapterReport& report, bool allow_partial) {
  if (report.layers() == 0) {
    throw Failure(ErrorCode::kInvalidModel,
                  fmt::format("{}: none of its layers is one of this model's{}: {}", report.file,
                              other_family(report), summary(report)));
  }
  if (allow_partial || report.unmatched.empty()) return;
  throw Failure(
      ErrorCode::kInvalidModel,
      fmt::format("{}: {} of {} keys match nothing in this model{}: {}; --lora-allow-partial takes "
                  "the rest",
                  report.file, report.unmatched.size(), report.unmatched.size() + report.layers(),
                  other_family(report), summary(report)));
}

}  // namespace limner::engine::lora
