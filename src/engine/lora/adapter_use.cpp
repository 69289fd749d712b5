#include "engine/lora/adapter_use.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <optional>

namespace limner::engine::lora {
namespace {

constexpr double kLargestWeight = 100.0;

std::optional<double> number(std::string_view text) {
  double value = 0;
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

double weight_from(std::string_view text, std::string_view whole) {
  const auto value = number(text);
  if (!value || !(std::abs(*value) <= kLargestWeight)) {
    throw Failure(
        ErrorCode::kInvalidArgument,
        fmt::format("adapter weight '{}': want a number from -{} to {}, got '{}'",
                    whole.substr(0, 200), kLargestWeight, kLargestWeight, text.substr(0, 64)));
  }
  return *value;
}

// The parts of `text` between separators.
std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const auto at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

// "down", "mid", "up", or "down.N", "up.N".
bool is_block(std::string_view name) {
  if (name == "down" || name == "mid" || name == "up") return true;
  for (const std::string_view side : {"down.", "up."}) {
    if (!name.starts_with(side)) continue;
    const std::string_view rest = name.substr(side.size());
    return !rest.empty() && rest.size() <= 2 &&
           rest.find_first_not_of("0123456789") == std::string_view::npos;
  }
  return false;
}

void read_blocks(std::string_view list, std::string_view whole, AdapterScales& scales) {
  for (const std::string_view entry : split(list, '/')) {
    const auto colon = entry.find(':');
    const std::string_view block = entry.substr(0, colon);
    if (colon == std::string_view::npos || !is_block(block)) {
      throw Failure(ErrorCode::kInvalidArgument,
                    fmt::format("adapter weight '{}': want BLOCK:WEIGHT with down, down.N, mid, up "
                                "or up.N, got '{}'",
                                whole.substr(0, 200), entry.substr(0, 64)));
    }
    scales.blocks.emplace_back(block, weight_from(entry.substr(colon + 1), whole));
  }
}

AdapterScales scales_from(std::string_view text) {
  if (text.find('=') == std::string_view::npos) return AdapterScales::all(weight_from(text, text));
  AdapterScales scales;
  bool second_given = false;
  for (const std::string_view entry : split(text, ',')) {
    const auto equals = entry.find('=');
    const std::string_view key = entry.substr(0, equals);
    const std::string_view value = equals == std::string_view::npos ? "" : entry.substr(equals + 1);
    if (key == "unet") {
      scales.unet = weight_from(value, text);
    } else if (key == "te") {
      scales.text_encoder = weight_from(value, text);
      if (!second_given) scales.text_encoder_2 = scales.text_encoder;
    } else if (key == "te2") {
      scales.text_encoder_2 = weight_from(value, text);
      second_given = true;
    } else if (key == "blocks") {
      read_blocks(value, text, scales);
    } else {
      throw Failure(ErrorCode::kInvalidArgument,
                    fmt::format("adapter weight '{}': want unet=, te=, te2= or blocks=, got '{}'",
                                text.substr(0, 200), entry.substr(0, 64)));
    }
  }
  return scales;
}

// "down_blocks.1.attentions..." -> "down.1"; "" outside the blocks.
std::string block_of(std::string_view layer) {
  if (layer.starts_with("mid_block.")) return "mid";
  for (const std::string_view side : {"down", "up"}) {
    const std::string prefix = std::string(side) + "_blocks.";
    if (!layer.starts_with(prefix)) continue;
    const std::string_view rest = layer.substr(prefix.size());
    return std::string(side) + "." + std::string(rest.substr(0, rest.find('.')));
  }
  return "";
}

}  // namespace

double AdapterScales::of(std::string_view component, std::string_view layer) const {
  if (component == "text_encoder") return text_encoder;
  if (component == "text_encoder_2") return text_encoder_2;
  if (blocks.empty()) return unet;
  const std::string block = block_of(layer);
  const std::pair<std::string, double>* best = nullptr;
  for (const auto& entry : blocks) {
    const bool fits = block == entry.first || block.starts_with(entry.first + ".");
    if (fits && (best == nullptr || entry.first.size() >= best->first.size())) best = &entry;
  }
  return best == nullptr ? unet : unet * best->second;
}

std::string AdapterScales::key() const {
  std::string text = fmt::format("{},{},{}", unet, text_encoder, text_encoder_2);
  for (const auto& [block, weight] : blocks) text += fmt::format(",{}:{}", block, weight);
  return text;
}

Result<AdapterScales> parse_adapter_scales(std::string_view text) {
  try {
    return scales_from(text);
  } catch (const Failure& failure) {
    return failure.error();
  }
}

Result<AdapterUse> parse_adapter_use(std::string_view text) {
  // The long form has colons of its own; a name before it has none of its '='.
  const auto equals = text.find('=');
  const auto colon = text.substr(0, equals).rfind(':');
  const std::string_view rest = colon == std::string_view::npos ? "" : text.substr(colon + 1);
  const bool weighted = colon != std::string_view::npos &&
                        (equals != std::string_view::npos || rest.find('/') == rest.npos);
  AdapterUse use;
  use.name = text.substr(0, weighted ? colon : text.size());
  if (use.name.empty()) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("adapter '{}': want PATH or NAME, then :WEIGHT", text.substr(0, 200))};
  }
  if (weighted) {
    auto scales = parse_adapter_scales(rest);
    if (!scales.ok()) return scales.error();
    use.scales = *scales;
  }
  return use;
}

}  // namespace limner::engine::lora
