#include "engine/lora/inspect.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/lora/adapter_hash.h"
#include "engine/weights/json.h"
#include "engine/weights/weights.h"

namespace limner::engine::lora {
namespace {

constexpr std::size_t kMostTags = 200;
constexpr std::size_t kLongestValue = 400;

std::string component_of(const std::string& layer) {
  const auto begins = [&](std::string_view prefix) { return layer.starts_with(prefix); };
  if (begins("lora_te2") || begins("text_encoder_2.")) return "text_encoder_2";
  if (begins("lora_te") || begins("text_encoder.") || begins("text_model.")) return "text_encoder";
  return "unet";
}

// Channels that the module's layer reads, where its tensors tell.
std::optional<std::int64_t> input_width(const Module& module) {
  const auto size = [&](const char* part, std::size_t axis) -> std::optional<std::int64_t> {
    const auto found = module.parts.find(part);
    if (found == module.parts.end() || found->second.shape.size() <= axis) return std::nullopt;
    return found->second.shape[axis];
  };
  switch (module.kind) {
    case Kind::kLora:
      return size("down", 1);
    case Kind::kLoha:
      return size("w1_b", 1);
    case Kind::kLokr: {
      const auto first = module.has("w1") ? size("w1", 1) : size("w1_b", 1);
      const auto second = module.has("w2") ? size("w2", 1) : size("w2_b", 1);
      if (!first || !second) return std::nullopt;
      return *first * *second;
    }
    case Kind::kGlora:
      return size("a2", 1);
    case Kind::kFull:
      return size("diff", 1);
    default:
      return std::nullopt;
  }
}

bool ends_like(const std::string& layer, std::string dotted) {
  if (layer.ends_with(dotted)) return true;
  std::ranges::replace(dotted, '.', '_');
  return layer.ends_with(dotted);
}

// kohya's ss_tag_frequency: {"folder": {"tag": count}} as text.
void add_tags(const std::string& text, AdapterInspection& result) {
  std::map<std::string, std::uint64_t> counts;
  try {
    const nlohmann::json tree = weights::parse_json(text, "ss_tag_frequency");
    for (const auto& folder : tree) {
      if (!folder.is_object()) continue;
      for (const auto& [tag, count] : folder.items()) {
        if (count.is_number_unsigned()) counts[tag] += count.get<std::uint64_t>();
      }
    }
  } catch (const Failure&) {
    return;  // a trainer's note that cannot be read takes nothing away from the adapter
  }
  result.tags.assign(counts.begin(), counts.end());
  std::ranges::stable_sort(result.tags, std::ranges::greater(),
                           &std::pair<std::string, std::uint64_t>::second);
  if (result.tags.size() > kMostTags) result.tags.resize(kMostTags);
}

void add_metadata(const AdapterFile& file, AdapterInspection& result) {
  for (const auto& [key, value] : file.metadata()) {
    result.metadata[key] =
        value.size() <= kLongestValue ? value : value.substr(0, kLongestValue) + "...";
    if (key == "ss_tag_frequency") add_tags(value, result);
    if (key == "modelspec.trigger_phrase" || (key == "trigger" && result.trigger.empty())) {
      result.trigger = value;
    }
  }
}

}  // namespace

// The width of the text states tells the families apart; a second text encoder is SDXL's alone.
std::string family_of(const AdapterFile& file) {
  std::string by_text;
  for (const Module& module : file.modules()) {
    const std::string component = component_of(module.name);
    if (component == "text_encoder_2") return "sdxl";
    const auto width = input_width(module);
    if (!width) continue;
    if (component == "unet" &&
        (ends_like(module.name, "attn2.to_k") || ends_like(module.name, "attn2.to_v"))) {
      return *width == 768 ? "sd1" : *width == 1024 ? "sd2" : *width == 2048 ? "sdxl" : "";
    }
    if (component == "text_encoder" && ends_like(module.name, "q_proj")) {
      by_text = *width == 1024 ? "sd2" : *width == 768 ? "sd1" : "";
    }
  }
  return by_text;
}

Result<AdapterInspection> inspect_adapter(const std::filesystem::path& path, bool hash) {
  const auto file =
      AdapterFile::read(path, hash ? AdapterFile::Depth::kWhole : AdapterFile::Depth::kHeader);
  if (!file.ok()) return file.error();
  AdapterInspection result;
  result.path = path;
  result.bytes = (*file)->bytes();
  result.unknown_keys = (*file)->unknown_keys();
  result.family = family_of(**file);
  std::set<std::string> dtypes;
  for (const Module& module : (*file)->modules()) {
    ++result.kinds[(module.is_dora() ? "DoRA of " : "") + name(module.kind)];
    ++result.components[component_of(module.name)];
    if (const auto rank = module.rank()) {
      ++result.ranks[*rank];
      if (!module.alpha) ++result.without_alpha;
    }
    if (module.alpha) ++result.alphas[*module.alpha];
    for (const auto& [part, view] : module.parts) dtypes.emplace(weights::name(view.dtype));
  }
  result.dtypes.assign(dtypes.begin(), dtypes.end());
  add_metadata(**file, result);
  if (!hash) return result;
  const auto opened = weights::Weights::open_file(path);
  if (opened.ok()) result.sha256 = (*opened)->sha256();
  if (const auto short_one = short_hash(path); short_one.ok()) result.short_hash = *short_one;
  return result;
}

}  // namespace limner::engine::lora
