// How programs spell the names of an adapter's tensors: LAYER + SUFFIX, where the suffix tells what
// the tensor is for.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/lora/adapter_file.h"

namespace limner::engine::lora {

struct SpelledKey {
  std::string layer;         // "lora_unet_mid_block_attentions_0_proj_in"
  std::string_view part;     // "down"; "alpha" too
  std::optional<Kind> kind;  // nothing for parts that several kinds have
};

// Nothing for a name that no format has.
std::optional<SpelledKey> split_key(std::string_view key);

}  // namespace limner::engine::lora
