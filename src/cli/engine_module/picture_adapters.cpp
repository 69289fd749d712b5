#include <fmt/format.h>

#include "cli/adapter_paths.h"
#include "cli/engine_module/commands.h"

namespace limner::cli {
namespace {

Result<engine::PictureAdapter> from_url(const std::string& text, const Console& console) {
  const auto url = parse_adapter_url(text);
  if (!url.ok()) return url.error();
  engine::PictureAdapter adapter;
  if (!url->weight.empty()) {
    auto scales = engine::lora::parse_adapter_scales(url->weight);
    if (!scales.ok()) return scales.error();
    adapter.scales = std::move(*scales);
  }
  auto file = fetch_adapter(*url, console);
  if (!file.ok()) return file.error();
  adapter.file = std::move(*file);
  return adapter;
}

}  // namespace

Result<std::vector<engine::PictureAdapter>> picture_adapters(
    const LoraOptions& options, const engine::lora::AdapterFolders& folders,
    const Console& console) {
  std::vector<engine::PictureAdapter> adapters;
  for (const std::string& text : options.use) {
    if (is_url(text)) {
      auto adapter = from_url(text, console);
      if (!adapter.ok()) return adapter.error();
      adapters.push_back(
          {std::move(adapter->file), std::move(adapter->scales), options.allow_partial});
      continue;
    }
    auto use = engine::lora::parse_adapter_use(text);
    if (!use.ok()) return use.error();
    const auto file = folders.find_path_or_name(use->name);
    if (!file.ok()) return file.error();
    adapters.push_back({*file, std::move(use->scales), options.allow_partial});
  }
  return adapters;
}

std::string describe(const engine::lora::AdapterReport& report) {
  std::string parts;
  for (const auto& [component, layers] : report.matched) {
    parts += fmt::format("{}{} {}", parts.empty() ? "" : ", ", component, layers);
  }
  std::string rank;
  if (report.highest_rank > 0) {
    rank = report.lowest_rank == report.highest_rank
               ? fmt::format(" of rank {}", report.highest_rank)
               : fmt::format(" of ranks {} to {}", report.lowest_rank, report.highest_rank);
  }
  std::string text = fmt::format("{}: {}{} for {} layers ({}), {}", report.file, report.kinds, rank,
                                 report.layers(), parts, human_bytes(report.bytes));
  if (!report.unmatched.empty()) {
    text += fmt::format("; {} keys match nothing in this model", report.unmatched.size());
  }
  return text;
}

}  // namespace limner::cli
