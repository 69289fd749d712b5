// What limner writes into a picture it drew: its parameters as infotext.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"
#include "contract/validate.h"
#include "prompt/infotext.h"

namespace limner::prompt {

// What the request alone does not say.
struct DrawnWith {
  std::uint64_t seed = 0;
  std::string sampler{};             // the one that was used, by our name
  std::string model{};               // its name
  std::string model_hash{};          // SHA-256 of its weights; "": not said
  std::vector<std::string> loras{};  // "NAME:WEIGHT", in order
  // "NAME: HASH" of every adapter that was used, also by the prompt
  std::vector<std::string> lora_hashes{};
};

Infotext picture_parameters(const contract::ValidRequest& request, const DrawnWith& drawn);

}  // namespace limner::prompt
