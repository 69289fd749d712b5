// GenerationRequest: what a client asked, before anybody checked it. Plain data; names as in the HTTP API.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace limner::contract {

struct GenerationRequest {
  std::string prompt;
  std::string negative_prompt;
  std::string prompt_syntax = "plain";
  std::string long_prompt = "truncate";
  std::int64_t width = 0;   // 0: the model's own size
  std::int64_t height = 0;
  std::int64_t steps = 0;   // 0: the model's default
  std::optional<double> guidance_scale;  // absent: the model's default
  double guidance_rescale = 0.0;
  std::string sampler;              // "": the checkpoint's own
  std::string schedule = "default";
  std::optional<std::int64_t> seed;  // absent: a random one is chosen and reported
  std::int64_t num_images = 1;
};

}  // namespace limner::contract
