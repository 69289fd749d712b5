// How much of an adapter is wanted: by the whole, by network, by block. Plain values, no tensors.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"

namespace limner::engine::lora {

// The weight of a layer is that of its network, times that of its block where one is named.
struct AdapterScales {
  double unet = 1.0;
  double text_encoder = 1.0;
  double text_encoder_2 = 1.0;
  // Blocks of the UNet ("down", "down.1", "mid", "up.0"); the longest name that fits counts.
  std::vector<std::pair<std::string, double>> blocks;

  static AdapterScales all(double weight) { return {weight, weight, weight, {}}; }
  double of(std::string_view component, std::string_view layer) const;
  std::string key() const;  // equal keys draw alike
  bool operator==(const AdapterScales&) const = default;
};

struct AdapterUse {
  std::string name;  // a path, or a name in the adapter folders
  AdapterScales scales;
};

// "NAME", "NAME:0.8", or "NAME:unet=0.8,te=0.5,te2=0,blocks=down.1:0.5/mid:1/up:0", where what is
// not given is 1 (te2: what te is). Fails with kInvalidArgument.
Result<AdapterUse> parse_adapter_use(std::string_view text);
// The part after the colon.
Result<AdapterScales> parse_adapter_scales(std::string_view text);

}  // namespace limner::engine::lora
